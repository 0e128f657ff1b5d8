/* A queue of stretches of counted blocks: bytes that wait to be written, in order, without being copied.
 * The first stretch lies in the struct, so that a queue of one costs no allocation; an empty queue is
 * all zeroes. Who owns the queue bounds it: segq.bytes says what is in it. */
#ifndef WORKER_SEGQ_H
#define WORKER_SEGQ_H

#include <sys/uio.h>

#include "common/rc.h"

/* A stretch. */
struct oseg {
    struct rc *rc;
    uint32_t off, len;
};

/* The queue behind the first stretch. */
struct segq_more {
    uint32_t head, n, cap; /* ring of cap (a power of two) stretches */
    struct oseg seg[];
};

struct segq {
    struct oseg first; /* rc NULL: nothing waits */
    struct segq_more *more;
    uint32_t bytes;    /* in all stretches */
};

static inline bool
segq_is_empty(const struct segq *q)
{
    return q->first.rc == NULL;
}

/* Number of stretches. */
static inline uint32_t
segq_count(const struct segq *q)
{
    return q->first.rc == NULL ? 0 : 1 + (q->more != NULL ? q->more->n : 0);
}

/* Stretch number i, below segq_count. */
static inline const struct oseg *
segq_at(const struct segq *q, uint32_t i)
{
    return i == 0 ? &q->first : &q->more->seg[(q->more->head + i - 1) & (q->more->cap - 1)];
}

/* Appends a stretch with a reference of its own; what continues the last stretch is joined to it. False when
 * memory is out (nothing was appended). */
bool segq_append(struct segq *q, struct rc *rc, uint32_t off, uint32_t len) MUST_CHECK;
/* Appends a copy of [p, p + len): behind the last block if that is this queue's alone and has room, otherwise in a
 * new block of at least `block` bytes. */
bool segq_append_copy(struct segq *q, struct rc_pool *blocks, const uint8_t *p, uint32_t len, size_t block) MUST_CHECK;
/* Copies what lies in a turn's arena into a block of the queue's own, so that the arena is not kept for it. What can't
 * be copied for want of memory stays where it is. */
void segq_unshare(struct segq *q, struct rc_pool *blocks);
/* Removes the first n bytes, at most segq.bytes. */
void segq_take(struct segq *q, struct rc_pool *blocks, uint32_t n);
/* Removes everything behind the first `keep` bytes. */
void segq_cut(struct segq *q, struct rc_pool *blocks, uint32_t keep);
/* Describes the first stretches, at most max of them and so many bytes; returns how many. */
unsigned segq_iov(const struct segq *q, struct iovec *iov, unsigned max, uint32_t bytes);
/* Copies the first n bytes, at most segq.bytes, to `to`. */
void segq_peek(const struct segq *q, uint8_t *to, uint32_t n);

#endif
