/* A conversation: verbs to effects, answers in the order of the questions. */
#ifndef WORKER_SESS_H
#define WORKER_SESS_H

#include "worker/conn.h"

/* What a request that waits for a broker was; struct call.kind. */
enum sess_call {
    CALL_PUBLISH,
    CALL_SUBSCRIBE, /* call.chan: channel slot (22 bits) and generation (10 bits) */
    CALL_JOIN,      /* subscribed to a channel that somebody else had asked for */
    CALL_DONE,      /* success that only waits for its turn */
};

/* Begins the conversation after the upgrade. */
void sess_begin(struct worker *w, struct conn *c);
/* One whole message. Returns false when decoding was left (the connection is paused): *d tells where,
 * and the message must be kept. */
bool sess_on_message(struct worker *w, struct conn *c, struct decoding *d);
/* Time for the dialect's ping, or to give the client up. */
void sess_on_ping_time(struct worker *w, struct conn *c);
/* links_ops */
void sess_on_done(void *worker, const struct call *call, enum error_id err);
void sess_on_attached(void *worker, unsigned broker);
void sess_on_restored(void *worker, unsigned broker);
void sess_on_missed(void *worker, unsigned broker);
void sess_on_lost(void *worker, unsigned broker);
void sess_on_room(void *worker, unsigned broker);
/* The id as clients see it, 20 characters. */
struct view sess_id(const struct conn *c, char out[20]);

#endif
