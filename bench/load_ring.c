#include "bench/load_ring.h"

#include <stdlib.h>

#include "common/bug.h"

#define SQ_ENTRIES 4096
#define CQ_ENTRIES 32768

struct io_uring_sqe *
load_ring_sqe(struct load_ring *r)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&r->io);
    if (sqe != NULL)
        return sqe;
    int rc = io_uring_submit(&r->io);
    if (rc < 0)
        die("io_uring_submit: %s", strerror(-rc));
    sqe = io_uring_get_sqe(&r->io);
    BUG_ON(sqe == NULL);
    return sqe;
}

const uint8_t *
load_ring_buffer(const struct load_ring *r, uint16_t id)
{
    return r->bufs + (size_t)id * r->buffer_bytes;
}

void
load_ring_give(struct load_ring *r, uint16_t id)
{
    io_uring_buf_ring_add(r->br, r->bufs + (size_t)id * r->buffer_bytes, r->buffer_bytes, id,
        io_uring_buf_ring_mask(r->buffers), 0);
    io_uring_buf_ring_advance(r->br, 1);
}

static void
init_buffers(struct load_ring *r)
{
    size_t ring_bytes = r->buffers * sizeof(struct io_uring_buf);
    r->br = aligned_alloc(4096, align_up(ring_bytes, 4096));
    r->bufs = aligned_alloc(4096, align_up((size_t)r->buffers * r->buffer_bytes, 4096));
    if (r->br == NULL || r->bufs == NULL)
        die("no memory for %u receive buffers", r->buffers);
    struct io_uring_buf_reg reg = {.ring_addr = (uint64_t)(uintptr_t)r->br,
        .ring_entries = r->buffers,
        .bgid = LOAD_RING_GROUP};
    io_uring_buf_ring_init(r->br);
    int rc = io_uring_register_buf_ring(&r->io, &reg, 0);
    if (rc < 0)
        die("buffer ring: %s (kernel 5.19 or newer is needed)", strerror(-rc));
    for (uint32_t i = 0; i < r->buffers; i++)
        load_ring_give(r, (uint16_t)i);
}

void
load_ring_init(struct load_ring *r, uint32_t buffers, uint32_t buffer_bytes)
{
    *r = (struct load_ring){.buffers = buffers, .buffer_bytes = buffer_bytes};
    struct io_uring_params p = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE,
        .cq_entries = CQ_ENTRIES};
    int rc = io_uring_queue_init_params(SQ_ENTRIES, &r->io, &p);
    if (rc < 0)
        die("io_uring: %s (kernel 6.1 or newer, kernel.io_uring_disabled=0)", strerror(-rc));
    init_buffers(r);
}

void
load_ring_free(struct load_ring *r)
{
    io_uring_queue_exit(&r->io);
    free(r->br);
    free(r->bufs);
}
