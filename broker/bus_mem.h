/* A bus between brokers of one process, for tests: a server in memory with two links to each broker, one for topics
 * and what is heard, one for publishes and their answers, as a Redis has. Nothing moves by itself: the test carries it,
 * and breaks what it likes. */
#ifndef BROKER_BUS_MEM_H
#define BROKER_BUS_MEM_H

#include "broker/bus.h"

#define BUS_MEM_NODES 8

struct bus_mem_net;

struct bus_mem_net *bus_mem_net_new(void) MUST_CHECK;
/* After all its buses were closed. */
void bus_mem_net_free(struct bus_mem_net *);
/* The next bus_mem.open makes a broker of this net; its number is the lowest that is free. */
void bus_mem_use(struct bus_mem_net *);
unsigned bus_mem_node(const struct bus *);
/* It has told what became of all that it was given. */
bool bus_mem_is_idle(const struct bus *);

/* The server takes up to so many publishes and topics of a broker that are on their way. Returns how many it took. */
unsigned bus_mem_carry(struct bus_mem_net *, unsigned node, unsigned publishes, unsigned topics);
/* Most that a broker's turn takes of what is on its way to it, on each of its links; UINT32_MAX: all. */
void bus_mem_slow(struct bus_mem_net *, unsigned node, uint32_t a_turn);
/* Publishes that may wait for a link or for room on it; above, the oldest goes. */
void bus_mem_bound(struct bus_mem_net *, unsigned node, uint32_t publishes);
/* Publishes that may be under way on a link. */
void bus_mem_window(struct bus_mem_net *, unsigned node, uint32_t publishes);

/* Faults. What was on its way on a link that is cut is gone; the broker notices with its next turn. */
enum bus_mem_link { BUS_MEM_HEARS = 1, BUS_MEM_SAYS = 2 };
void bus_mem_cut(struct bus_mem_net *, unsigned node, unsigned links);
void bus_mem_heal(struct bus_mem_net *, unsigned node, unsigned links);
/* The next publishes of a broker are answered with an error. */
void bus_mem_refuse(struct bus_mem_net *, unsigned node, unsigned publishes);
/* The next messages on their way to a broker come twice; or do not come though its link holds, which no bus may do. */
void bus_mem_twice(struct bus_mem_net *, unsigned node, unsigned messages);
void bus_mem_lose(struct bus_mem_net *, unsigned node, unsigned messages);
/* The next messages of control topics on their way to a broker do not come: one server of several had them, and its link
 * to this broker does not hold. */
void bus_mem_deaf(struct bus_mem_net *, unsigned node, unsigned messages);
/* As if a server were away that has none of the topics here. */
void bus_mem_partly(struct bus_mem_net *, unsigned node, bool is);
/* Called for each publish to a channel that the server takes from `node` (not for what it refuses). */
void bus_mem_watch(struct bus_mem_net *, void (*fn)(void *arg, unsigned node, struct view channel, struct view bytes), void *arg);

#endif
