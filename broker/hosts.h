/* Who else is there: brokers of all hosts say every bus.heartbeat on the control topic who they are and how loaded
 * (proto/hostbeat). Those heard are kept in a bounded table and forgotten after five heartbeats of silence. The own
 * heartbeat comes back as well: a broker that does not hear itself knows that its bus is not whole, and does not
 * take others' silence for their end.
 *
 * When the bus was away and is back, those who were known before may not listen yet. Until all have said something, bus.held
 * asks the bus to let messages wait (not with redis.required = on, where nothing is to wait).
 *
 * A copy of a machine, with the same identity, is noticed: two processes that both go on speaking as the same broker of
 * the same host are a conflict. It harms no message, as each process numbers its own; it is an operator's mistake all the same. */
#ifndef BROKER_HOSTS_H
#define BROKER_HOSTS_H

#include "broker/broker.h"
#include "proto/hostbeat.h"

#define HOSTS_MAX 1024 /* brokers, of all other hosts */

enum host_state {
    HOST_UP,
    HOST_REPLACED, /* another process speaks as the same broker: this one should have ended */
    HOST_CONFLICT, /* it has not */
};

/* Another broker. */
struct host {
    struct envelope_origin id;
    enum host_state state;
    unsigned late;         /* heartbeats of one that was replaced */
    struct mono heard;     /* or excused until then: we could not hear it */
    struct mono beat;      /* its last heartbeat */
    uint64_t lost;         /* heartbeats that did not come */
    struct hostbeat said;  /* the last one; its texts point to name and release */
    char name[HOSTBEAT_NAME_MAX], release[HOSTBEAT_RELEASE_MAX];
};

struct ask;

/* NULL in b->hosts when there is no bus; then only hosts_describe and hosts_describe_bus do something. */
bool hosts_open(struct broker *b) MUST_CHECK;
void hosts_close(struct broker *b);
/* Each turn, before the bus has its own: says the heartbeat when it is due, forgets who is silent. */
void hosts_turn(struct broker *b);
/* This broker ends: says so with the next turn. True once it has been said, or need not be. */
bool hosts_leave(struct broker *b);
/* What came on the control topic. */
void hosts_on_heartbeat(struct broker *b, const struct envelope *e);

/* There is a bus, and it is not whole. */
bool hosts_is_deaf(const struct broker *b);
/* The others, in no order. */
uint32_t hosts_count(const struct broker *b);
const struct host *hosts_at(const struct broker *b, uint32_t i);
/* What this broker would say of itself now. */
struct hostbeat hosts_own(struct broker *b);
/* Id of a host as people see it: 16 digits. */
const char *hosts_id(const struct envelope_origin *o, char out[17]);

/* Lines for an operator, one for each broker, this one first; and about the bus. */
void hosts_describe(struct broker *b, struct ask *a);
void hosts_describe_bus(struct broker *b, struct ask *a);

#endif
