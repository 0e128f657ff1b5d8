/* One io_uring ring, used by one thread. The only pair of files that includes liburing: set-up flags
 * are tried from the best down, operations are probed, and user_data is packed and unpacked here and
 * nowhere else as op:8 | gen:24 | slot:32.
 *
 * A turn is ring_wait (submit what is queued, wait), then ring_reap over the completions. Kernel 6.1 is
 * the floor; what is newer is probed and reported by ring_describe. */
#ifndef COMMON_RING_H
#define COMMON_RING_H

#include <liburing.h>

#include "common/base.h"

struct ring {
    struct io_uring u;
    unsigned setup_flags;   /* IORING_SETUP_* the kernel took */
    uint64_t enters;        /* system calls made */
    unsigned char can[64];  /* operation number -> supported */
    bool restricted;        /* to the operations that ring_start named */
};

/* Buffers of one size that the kernel picks from; an idle connection owns none. */
struct ring_bufs {
    struct io_uring_buf_ring *br;
    uint8_t *mem;
    uint32_t count;      /* power of two */
    uint32_t bytes;      /* of each */
    uint16_t group;
    uint32_t given_back; /* not yet published */
};

#define RING_GEN_MASK 0xffffffu

static inline uint64_t
ring_tag(unsigned op, uint32_t gen, uint32_t slot)
{
    return (uint64_t)op << 56 | (uint64_t)(gen & RING_GEN_MASK) << 32 | slot;
}

/* A completion, taken apart. */
struct ring_done {
    unsigned op;
    uint32_t gen;
    uint32_t slot;
    int res;
    uint32_t flags; /* IORING_CQE_F_* */
};

static inline struct ring_done
ring_done_of(const struct io_uring_cqe *cqe)
{
    return (struct ring_done){
        .op = (unsigned)(cqe->user_data >> 56),
        .gen = (uint32_t)(cqe->user_data >> 32) & RING_GEN_MASK,
        .slot = (uint32_t)cqe->user_data,
        .res = cqe->res,
        .flags = cqe->flags,
    };
}

/* More completions of the same request will come. */
static inline bool
ring_more(struct ring_done d)
{
    return (d.flags & IORING_CQE_F_MORE) != 0;
}

/* Sets up a ring for the calling thread. On failure returns a negative errno; ring_setup_hint turns it
 * into a sentence with a remedy. */
int ring_init(struct ring *r, unsigned sq_entries, unsigned cq_entries) MUST_CHECK;
/* The same in two steps: a ring that takes no submissions yet, and its start. From then on it does the named
 * operations (IORING_OP_...) only, whoever writes into it, and of registrations only the ends of its own: what else
 * there is, ring_bufs_init among it, comes before. A kernel that knows no restrictions starts it without. */
int ring_prepare(struct ring *r, unsigned sq_entries, unsigned cq_entries) MUST_CHECK;
int ring_start(struct ring *r, const unsigned char *ops, unsigned count) MUST_CHECK;
const char *ring_setup_hint(int err);
void ring_fini(struct ring *r);
/* "flags=SINGLE_ISSUER,DEFER_TASKRUN recv_multishot=yes ..." for the log; the text is static per thread. */
const char *ring_describe(const struct ring *r);

/* The next free submission entry; submits what is queued when there is none. Never NULL. */
struct io_uring_sqe *ring_sqe_slow(struct ring *r);
static inline struct io_uring_sqe *
ring_sqe(struct ring *r)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&r->u);
    return LIKELY(sqe != NULL) ? sqe : ring_sqe_slow(r);
}

static inline void
ring_set_tag(struct io_uring_sqe *sqe, unsigned op, uint32_t gen, uint32_t slot)
{
    sqe->user_data = ring_tag(op, gen, slot);
}

/* Submits and waits for a completion, at most timeout_ns (0: only submit and collect). */
void ring_wait(struct ring *r, uint64_t timeout_ns);
/* Submits now, without collecting. */
void ring_submit(struct ring *r);

/* Calls fn for each completion there is, then hands the entries back; returns how many. */
static inline unsigned
ring_reap(struct ring *r, void (*fn)(void *arg, struct ring_done d), void *arg)
{
    struct io_uring_cqe *cqe;
    unsigned head, n = 0;
    io_uring_for_each_cqe(&r->u, head, cqe)
    {
        fn(arg, ring_done_of(cqe));
        n++;
    }
    io_uring_cq_advance(&r->u, n);
    return n;
}

/* Registers count buffers of `bytes` as group. Negative errno on failure. */
int ring_bufs_init(struct ring *r, struct ring_bufs *b, uint16_t group, uint32_t count, uint32_t bytes) MUST_CHECK;
void ring_bufs_fini(struct ring *r, struct ring_bufs *b);

static inline uint8_t *
ring_buf_at(const struct ring_bufs *b, uint32_t flags)
{
    return b->mem + (size_t)(flags >> IORING_CQE_BUFFER_SHIFT) * b->bytes;
}

/* Puts the buffer of a completion back; visible to the kernel after ring_bufs_publish. */
static inline void
ring_buf_back(struct ring_bufs *b, uint32_t flags)
{
    uint16_t id = (uint16_t)(flags >> IORING_CQE_BUFFER_SHIFT);
    io_uring_buf_ring_add(b->br, b->mem + (size_t)id * b->bytes, b->bytes, id,
        (int)(b->count - 1), (int)b->given_back++);
}

static inline void
ring_bufs_publish(struct ring_bufs *b)
{
    if (b->given_back) {
        io_uring_buf_ring_advance(b->br, (int)b->given_back);
        b->given_back = 0;
    }
}

#endif
