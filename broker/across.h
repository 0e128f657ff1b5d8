/* What lies above the bus (docs/adr/0011): numbers per channel and origin, holes, asks and marks, own echoes, answers
 * that wait for the bus. There is none (b->across is NULL) when there is no bus; then nothing here is called but
 * across_turn, across_is_idle and across_close, which do nothing.
 *
 * It decides what of others' messages is delivered, in which order, and where a gap is told; broker/chan writes both
 * for the rings. Everything from the bus is judged like a packet from the network. */
#ifndef BROKER_ACROSS_H
#define BROKER_ACROSS_H

#include "broker/broker.h"
#include "broker/bus.h"
#include "broker/chan.h"
#include "proto/dialect.h"
#include "proto/envelope.h"

struct peer;

/* Opens the bus; across is made above it unless it is bus_none. False with a sentence in err. */
bool across_open(struct broker *b, const struct bus_ops *ops, struct conf_error *err) MUST_CHECK;
void across_close(struct broker *b);
/* Each turn, when lanes have been drained: asks, marks and deadlines, then the bus's own turn. */
void across_turn(struct broker *b);
/* Nothing that was published waits for the bus any more. */
bool across_is_idle(const struct broker *b);

enum across_rc {
    ACROSS_DONE,  /* the answer is *err, now */
    ACROSS_WAITS, /* the answer comes later, by peer_resolve */
    ACROSS_LATER, /* no room: leave the request in its lane */
};

/* A message of a ring: numbers it, hands it to the bus and delivers it here, as bus.order and bus.ack say. */
enum across_rc across_publish(struct broker *b, struct peer *p, struct view name, bool has_data, struct view data,
    bool wants_answer, enum error_id *err) MUST_CHECK;
/* A ring's interest in a channel was noted; is the channel heard from others? */
enum across_rc across_subscribe(struct broker *b, struct peer *p, struct chan *ch, struct interest i,
    bool wants_answer, enum error_id *err) MUST_CHECK;
/* Whether across_subscribe could keep one more answer waiting; false: leave the request in its lane. */
bool across_has_room(const struct broker *b, const struct peer *p);
/* Nobody here wants the channel any more: chan_free calls it. */
void across_forget(struct broker *b, struct chan *ch);

/* -- for broker/hosts: heartbeats travel as envelopes of kind HOST on the control topic -- */

struct envelope_origin across_self(const struct broker *b);
/* Every heartbeat of a broker, our own among them; e->body is hosts' own. */
void across_hear_hosts(struct broker *b, void (*on_heartbeat)(struct broker *, const struct envelope *e));
/* ... and each broker that says that it listens (again). */
void across_hear_back(struct broker *b, void (*on_back)(struct broker *));
/* Says one. False when the bus does not take it (it may be said again with the next). */
bool across_say_host(struct broker *b, struct view body);

#endif
