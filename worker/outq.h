/* What a client has yet to take: stretches of counted blocks, in order; one send per connection and
 * turn. Bounded by out.queue_bytes for what others publish; a client's own answers stop its reading instead
 * (out.queue_low). */
#ifndef WORKER_OUTQ_H
#define WORKER_OUTQ_H

#include "worker/conn.h"

/* Most bytes of one send: a connection that has more waits for the others' sends in between. */
#define SEND_MAX (64u << 10)

/* Appends a stretch; takes no reference of the caller's (adds its own). False when memory is out. */
bool outq_push(struct worker *w, struct conn *c, struct rc *rc, uint32_t off, uint32_t len);
/* The same for a published batch. Where it would pass out.queue_bytes of a client that the kernel takes
 * nothing more for, the connection is doomed, and ends with SLOW_QUEUE once no list is being walked.
 * False when it was not queued. Where memory is out it is doomed as well, and ends with INTERNAL. */
bool outq_push_published(struct worker *w, struct conn *c, struct rc *rc, uint32_t off, uint32_t len,
    uint32_t messages);
/* The connection ends for this reason once no list is being walked. */
void outq_doom(struct worker *w, struct conn *c, enum close_reason reason);
/* Appends bytes of the connection's own (copied into the turn's arena). */
bool outq_put(struct worker *w, struct conn *c, const uint8_t *p, size_t n);
/* Encodes an event in the connection's dialect and frames it. Where memory is out the connection is doomed: what
 * a client was owed is not dropped silently. */
bool outq_event(struct worker *w, struct conn *c, const struct event *ev);
/* Puts a connection on the list of those that send at the end of the turn: all that have little to send, and after
 * them, in turn, those that have much or got it from a channel that costs more than its share, as far as the turn's
 * time goes. So nobody who asks for little waits for what others ask for. */
void outq_touch(struct worker *w, struct conn *c);
/* Drops everything behind the first `keep` bytes. */
void outq_cut(struct worker *w, struct conn *c, uint32_t keep);
/* Frames that begin behind the first `keep` bytes: what a cut there loses. */
uint32_t outq_count_frames(const struct conn *c, uint32_t keep);
/* Finds how much of a frame the client has in part is left (conn.frame_left) once n bytes more are taken from the front,
 * so that a Close frame can follow it. Before they are. */
void outq_track(struct conn *c, uint32_t n);
/* Drops everything that waits. */
void outq_clear(struct worker *w, struct conn *c);
/* The time in the worker has moved: at the end of a round of pacing those held back may be sent to. Before outq_flush. */
void outq_pace(struct worker *w);
/* One send for each connection on the lists, but for those that pacing holds back. */
void outq_flush(struct worker *w);
/* The kernel took n bytes of outq_wire. */
void outq_taken(struct worker *w, struct conn *c, uint32_t n);

static inline bool
outq_is_empty(const struct conn *c)
{
    return segq_is_empty(&c->out) && (c->tls == NULL || segq_is_empty(&c->tls->wire));
}

/* Bytes that wait for the client. */
static inline uint32_t
outq_bytes(const struct conn *c)
{
    return c->out.bytes + (c->tls != NULL ? c->tls->wire.bytes : 0);
}

/* The queue whose bytes the kernel gets. */
static inline struct segq *
outq_wire(struct conn *c)
{
    return c->tls != NULL && !c->tls->kernel_tx ? &c->tls->wire : &c->out;
}

/* After a send that returned res: whether the kernel took less than it was offered. */
static inline bool
outq_kernel_is_full(struct conn *c, int res)
{
    const struct segq *q = outq_wire(c);
    return res <= 0 || (!segq_is_empty(q) && q->more == NULL && (uint32_t)res < SEND_MAX);
}

#endif
