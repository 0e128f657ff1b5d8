/* See relay.h. Its lanes are the broker's own: what is compared is what stands around them. */
#include "bench/relay.h"

#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <signal.h>
#include <unistd.h>

#include "common/bug.h"
#include "common/lane.h"

#define LANE_BYTES (4u << 20)
#define BUFFERS 512
#define BUFFER_BYTES 2048
#define OUT_BYTES (256u << 10) /* what waits for one subscriber, at most */

enum relay_op { OP_RECV = 1, OP_SEND, OP_BELL };

struct pair {
    uint8_t *part; /* the beginning of a frame whose rest has not come */
    uint32_t part_n;
    uint8_t *out[2]; /* one flies, the other is filled */
    uint32_t out_n[2];
    bool fill, flying, dirty;
};

struct relay {
    const struct relay_conf *conf;
    struct io_uring ring;
    struct io_uring_buf_ring *br;
    uint8_t *bufs;
    struct lane out, in;
    int their_bell, our_bell;
    uint64_t bell_value;
    struct pair *pairs;
    uint32_t *dirty, dirty_n;
};

static void
ring_bell(int fd)
{
    uint64_t one = 1;
    if (write(fd, &one, sizeof one) != (ssize_t)sizeof one)
        exit(0);
}

static uint8_t *
put(struct lane *l, uint16_t pair, uint32_t n)
{
    uint8_t *to = lane_put(l, 1, 0, pair, n);
    if (to == NULL)
        die("floor: %u bytes of lane are too few for so many messages on their way", LANE_BYTES);
    return to;
}

/* -- in the broker's place -- */

static NORETURN void
serve_lanes(struct relay *r)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) {
        struct lane_record rec;
        const uint8_t *p;
        uint64_t value;
        while (lane_peek(&r->in, &rec, &p) == LANE_RECORD) {
            memcpy(put(&r->out, rec.aux, rec.n), p, rec.n);
            lane_take(&r->in, &rec);
        }
        if (lane_publish(&r->out))
            ring_bell(r->their_bell);
        (void)!lane_release(&r->in);
        if (lane_sleep(&r->in) && read(r->our_bell, &value, sizeof value) < 0 && errno != EINTR)
            exit(0);
        lane_awake(&r->in);
    }
}

/* -- in the worker's -- */

static struct io_uring_sqe *
get_sqe(struct relay *r, enum relay_op op, uint32_t pair)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&r->ring);
    BUG_ON(sqe == NULL); /* there are more than pairs need in a turn */
    sqe->user_data = (uint64_t)op << 32 | pair;
    return sqe;
}

static void
arm_recv(struct relay *r, uint32_t pair)
{
    struct io_uring_sqe *sqe = get_sqe(r, OP_RECV, pair);
    uint64_t tag = sqe->user_data;
    io_uring_prep_recv_multishot(sqe, r->conf->pubs[pair], NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = 1;
    sqe->user_data = tag;
}

static void
arm_bell(struct relay *r)
{
    struct io_uring_sqe *sqe = get_sqe(r, OP_BELL, 0);
    uint64_t tag = sqe->user_data;
    io_uring_prep_read(sqe, r->our_bell, &r->bell_value, sizeof r->bell_value, 0);
    sqe->user_data = tag;
}

static void
start_send(struct relay *r, uint32_t i)
{
    struct pair *p = &r->pairs[i];
    if (p->flying || p->out_n[p->fill] == 0)
        return;
    struct io_uring_sqe *sqe = get_sqe(r, OP_SEND, i);
    uint64_t tag = sqe->user_data;
    io_uring_prep_send(sqe, r->conf->subs[i], p->out[p->fill], p->out_n[p->fill], MSG_NOSIGNAL | MSG_WAITALL);
    sqe->user_data = tag;
    p->fill = !p->fill;
    p->flying = true;
}

/* A record for each frame; the rest of the last waits. */
static void
take(struct relay *r, uint32_t i, const uint8_t *p, uint32_t n)
{
    struct pair *pair = &r->pairs[i];
    uint32_t frame = r->conf->frame;
    while (n > 0) {
        uint32_t k = MIN(n, frame - pair->part_n);
        bool whole = pair->part_n + k == frame;
        if (whole) {
            uint8_t *to = put(&r->out, (uint16_t)i, frame);
            memcpy(to, pair->part, pair->part_n);
            memcpy(to + pair->part_n, p, k);
        } else {
            memcpy(pair->part + pair->part_n, p, k);
        }
        pair->part_n = whole ? 0 : pair->part_n + k;
        p += k;
        n -= k;
    }
}

static void
on_recv(struct relay *r, uint32_t i, const struct io_uring_cqe *cqe)
{
    if (cqe->res > 0) {
        uint16_t id = (uint16_t)(cqe->flags >> IORING_CQE_BUFFER_SHIFT);
        take(r, i, r->bufs + (size_t)id * BUFFER_BYTES, (uint32_t)cqe->res);
        io_uring_buf_ring_add(r->br, r->bufs + (size_t)id * BUFFER_BYTES, BUFFER_BYTES, id, BUFFERS - 1, 0);
        io_uring_buf_ring_advance(r->br, 1);
    } else if (cqe->res != -ENOBUFS) {
        exit(0);
    }
    if (!(cqe->flags & IORING_CQE_F_MORE))
        arm_recv(r, i);
}

static void
on_send(struct relay *r, uint32_t i, int res)
{
    struct pair *p = &r->pairs[i];
    if (res != (int)p->out_n[!p->fill])
        exit(0);
    p->out_n[!p->fill] = 0;
    p->flying = false;
    start_send(r, i);
}

static void
drain(struct relay *r)
{
    struct lane_record rec;
    const uint8_t *from;
    while (lane_peek(&r->in, &rec, &from) == LANE_RECORD) {
        struct pair *p = &r->pairs[rec.aux];
        if (p->out_n[p->fill] + rec.n > OUT_BYTES)
            die("floor: more than %u bytes wait for a subscriber", OUT_BYTES);
        memcpy(p->out[p->fill] + p->out_n[p->fill], from, rec.n);
        p->out_n[p->fill] += rec.n;
        lane_take(&r->in, &rec);
        if (!p->dirty)
            r->dirty[r->dirty_n++] = rec.aux;
        p->dirty = true;
    }
    (void)!lane_release(&r->in);
    for (uint32_t i = 0; i < r->dirty_n; i++) {
        r->pairs[r->dirty[i]].dirty = false;
        start_send(r, r->dirty[i]);
    }
    r->dirty_n = 0;
}

static void
turn(struct relay *r)
{
    struct io_uring_cqe *cqe;
    unsigned head, seen = 0;
    int rc = lane_sleep(&r->in) ? io_uring_submit_and_wait(&r->ring, 1) : io_uring_submit_and_get_events(&r->ring);
    lane_awake(&r->in);
    if (rc < 0 && rc != -EINTR)
        exit(0);
    drain(r);
    io_uring_for_each_cqe(&r->ring, head, cqe)
    {
        uint32_t i = (uint32_t)cqe->user_data;
        switch ((enum relay_op)(cqe->user_data >> 32)) {
        case OP_RECV: on_recv(r, i, cqe); break;
        case OP_SEND: on_send(r, i, cqe->res); break;
        case OP_BELL: arm_bell(r); break;
        }
        seen++;
    }
    io_uring_cq_advance(&r->ring, seen);
    if (lane_publish(&r->out))
        ring_bell(r->their_bell);
}

static void
make_buffers(struct relay *r)
{
    r->br = aligned_alloc(4096, align_up(BUFFERS * sizeof(struct io_uring_buf), 4096));
    r->bufs = xmalloc((size_t)BUFFERS * BUFFER_BYTES);
    struct io_uring_buf_reg reg = {.ring_addr = (uint64_t)(uintptr_t)r->br, .ring_entries = BUFFERS, .bgid = 1};
    io_uring_buf_ring_init(r->br);
    if (r->br == NULL || io_uring_register_buf_ring(&r->ring, &reg, 0) < 0)
        die("floor: no buffer ring");
    for (uint16_t id = 0; id < BUFFERS; id++)
        io_uring_buf_ring_add(r->br, r->bufs + (size_t)id * BUFFER_BYTES, BUFFER_BYTES, id, BUFFERS - 1, id);
    io_uring_buf_ring_advance(r->br, BUFFERS);
}

static NORETURN void
serve_sockets(struct relay *r)
{
    uint32_t n = r->conf->pairs;
    struct io_uring_params p = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN};
    if (io_uring_queue_init_params((unsigned)pow2_ceil(3 * n + 8), &r->ring, &p) < 0)
        die("floor: io_uring cannot be set up");
    make_buffers(r);
    r->pairs = xcalloc(n, sizeof *r->pairs);
    r->dirty = xcalloc(n, sizeof *r->dirty);
    for (uint32_t i = 0; i < n; i++) {
        r->pairs[i].part = xmalloc(r->conf->frame);
        r->pairs[i].out[0] = xmalloc(OUT_BYTES);
        r->pairs[i].out[1] = xmalloc(OUT_BYTES);
        arm_recv(r, i);
    }
    arm_bell(r);
    for (;;)
        turn(r);
}

void
relay_serve(const struct relay_conf *conf)
{
    size_t one = align_up(lane_size(LANE_BYTES), 4096);
    uint8_t *shared = mmap(NULL, 2 * one, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    int bells[2] = {eventfd(0, EFD_CLOEXEC), eventfd(0, EFD_CLOEXEC)};
    if (shared == MAP_FAILED || bells[0] < 0 || bells[1] < 0)
        die("floor: no memory for two lanes");
    pid_t child = fork();
    if (child < 0)
        die("fork: %s", strerror(errno));
    bool broker = child == 0;
    struct relay r = {.conf = conf, .our_bell = bells[broker], .their_bell = bells[!broker]};
    lane_init(&r.out, shared + (broker ? one : 0), LANE_BYTES, true);
    lane_init(&r.in, shared + (broker ? 0 : one), LANE_BYTES, false);
    if (broker)
        serve_lanes(&r);
    serve_sockets(&r);
}
