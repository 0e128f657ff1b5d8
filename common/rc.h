/* Counted immutable blocks: an encoded frame, or a turn's batch of them, shared by ten thousand
 * out-queues. Counts are plain integers: a block never leaves its ring thread. Freed blocks of the usual sizes
 * are kept for the next turn, within a bound. */
#ifndef COMMON_RC_H
#define COMMON_RC_H

#include "common/base.h"

struct rc_pool;

struct rc {
    uint32_t refs;
    uint32_t n;         /* bytes written; grows while the block is being filled */
    uint32_t cap;       /* bytes there are */
    uint8_t size_class; /* RC_CLASSES: from malloc */
    bool turn;          /* a turn's shared arena: slow readers copy out of it instead of keeping it */
    uint8_t pad[2];
    uint8_t data[];
};

#define RC_CLASSES 5 /* 1, 4, 16, 32, 64 KiB less the head */
#define RC_CLASS_MAX (65536 - sizeof(struct rc))

struct rc_pool {
    struct rc *free_list[RC_CLASSES]; /* linked through data */
    uint32_t free_count[RC_CLASSES];
    uint64_t bytes; /* in blocks that are out */
};

/* A block with room for at least `cap` bytes and one reference. NULL when memory is out. */
struct rc *rc_new(struct rc_pool *p, size_t cap) MUST_CHECK;
void rc_free(struct rc_pool *p, struct rc *b);
void rc_pool_fini(struct rc_pool *p);

static inline struct rc *
rc_ref(struct rc *b)
{
    b->refs++;
    return b;
}

static inline void
rc_unref(struct rc_pool *p, struct rc *b)
{
    if (--b->refs == 0)
        rc_free(p, b);
}

static inline size_t
rc_room(const struct rc *b)
{
    return b->cap - b->n;
}

#endif
