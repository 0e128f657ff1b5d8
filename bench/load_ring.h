/* A load generator's io_uring ring and the buffers it receives into. liburing by itself and not through
 * common/ring.h: what measures a thing must not be built from it. */
#ifndef BENCH_LOAD_RING_H
#define BENCH_LOAD_RING_H

#include <liburing.h>

#include "common/base.h"

#define LOAD_RING_GROUP 1 /* of the receive buffers */

struct load_ring {
    struct io_uring io;
    struct io_uring_buf_ring *br;
    uint8_t *bufs;
    uint32_t buffers, buffer_bytes;
};

/* buffers: a power of two. */
void load_ring_init(struct load_ring *r, uint32_t buffers, uint32_t buffer_bytes);
/* Nothing in the kernel points into anybody's memory after that. */
void load_ring_free(struct load_ring *r);
/* An entry to be filled in; submits what is queued if there is no room. */
struct io_uring_sqe *load_ring_sqe(struct load_ring *r);
/* What was received into buffer `id`; it is the kernel's again once it was given back. */
const uint8_t *load_ring_buffer(const struct load_ring *r, uint16_t id);
void load_ring_give(struct load_ring *r, uint16_t id);

#endif
