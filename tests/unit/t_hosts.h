/* Hosts in one process: brokers with everything but their ring and their sockets, joined by a bus in memory, and rings
 * of workers that are driven by the test through real lanes. The clock stands still until the test moves it. */
#ifndef TESTS_UNIT_T_HOSTS_H
#define TESTS_UNIT_T_HOSTS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "broker/across.h"
#include "broker/bus_mem.h"
#include "broker/chan.h"
#include "broker/metrics.h"
#include "broker/peer.h"

#include <cmocka.h>

#define T_LANE 65536u
#define T_RINGS 2

/* A worker's ring, as the test drives it. */
struct t_ring {
    struct peer *peer;
    struct lane out, in; /* to the broker; from it */
};

struct t_host {
    struct broker b;
    struct conf conf;
    uint64_t metrics[BM_COUNT];
    struct t_ring rings[T_RINGS];
    bool up;
};

static inline void
t_ring_attach(struct t_host *h, struct t_ring *r)
{
    struct peer *p = pool_get(&h->b.peers);
    assert_non_null(p);
    p->fd = -1;
    p->state = PEER_UP;
    p->lane_bytes = T_LANE;
    p->seg_bytes = align_up(ipc_segment_size(T_LANE), 4096);
    p->seg = mmap(NULL, p->seg_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(p->seg != MAP_FAILED);
    p->overflow = buf_make(1u << 26);
    lane_init(&p->in, ipc_lane_out(p->seg), T_LANE, false);
    lane_init(&p->out, ipc_lane_back(p->seg, T_LANE), T_LANE, true);
    lane_init(&r->out, ipc_lane_out(p->seg), T_LANE, true);
    lane_init(&r->in, ipc_lane_back(p->seg, T_LANE), T_LANE, false);
    r->peer = p;
}

/* h->conf stands. */
static inline void
t_host_start(struct t_host *h, struct bus_mem_net *net, unsigned index, struct mono now)
{
    struct conf_error err = {{0}};
    memset(h->metrics, 0, sizeof h->metrics);
    h->b = (struct broker){.conf = &h->conf, .index = index, .seed = 42 + index, .metrics = h->metrics, .now = now,
        .settled = true};
    assert_true(pool_init(&h->b.peers, sizeof(struct peer), 8) && chans_init(&h->b));
    bus_mem_use(net);
    if (!across_open(&h->b, &bus_mem, &err))
        fail_msg("%s", err.text);
    for (unsigned i = 0; i < T_RINGS; i++)
        t_ring_attach(h, &h->rings[i]);
    h->up = true;
}

static inline void
t_host_stop(struct t_host *h)
{
    if (!h->up)
        return;
    across_close(&h->b);
    for (unsigned i = 0; i < T_RINGS; i++) {
        struct peer *p = h->rings[i].peer;
        munmap(p->seg, p->seg_bytes);
        buf_free(&p->overflow);
        free(p->chan_of);
        free(p->answers.v);
        for (struct blocked *k = p->blocked, *next; k != NULL; k = next) {
            next = k->next;
            free(k);
        }
    }
    chans_fini(&h->b);
    pool_fini(&h->b.peers);
    h->up = false;
}

/* A turn of its broker: as broker_turn, without the wait. */
static inline void
t_host_turn(struct t_host *h, struct mono now)
{
    h->b.now = now;
    for (unsigned i = 0; i < T_RINGS; i++) {
        struct peer *p = h->rings[i].peer;
        if (p->overflow.n > 0 || p->missing)
            peer_catch_up(&h->b, p);
        (void)peer_drain(&h->b, p, 1024);
        assert_int_equal(p->state, PEER_UP);
    }
    across_turn(&h->b);
    for (unsigned i = 0; i < T_RINGS; i++)
        peer_show(&h->b, h->rings[i].peer);
    for (unsigned i = 0; i < T_RINGS; i++)
        peer_flush(&h->b, h->rings[i].peer);
}

static inline bool
t_put(struct t_ring *r, uint8_t type, uint8_t flags, uint16_t aux, struct view a, struct view b)
{
    uint8_t *p = lane_put(&r->out, type, flags, aux, (uint32_t)(a.n + b.n));
    if (p == NULL)
        return false;
    if (a.n)
        memcpy(p, a.p, a.n);
    if (b.n)
        memcpy(p + a.n, b.p, b.n);
    (void)!lane_publish(&r->out);
    return true;
}

static inline bool
t_subscribe(struct t_ring *r, uint32_t chan, uint32_t gen, struct view name)
{
    uint32_t handle[2] = {chan, gen};
    return t_put(r, IPC_SUBSCRIBE, IPC_ANSWER, 0, view_of(handle, 8), name);
}

static inline bool
t_unsubscribe(struct t_ring *r, uint32_t chan, uint32_t gen)
{
    uint32_t handle[2] = {chan, gen};
    return t_put(r, IPC_UNSUBSCRIBE, 0, 0, view_of(handle, 8), VIEW_NONE);
}

static inline bool
t_publish(struct t_ring *r, struct view name, struct view data)
{
    return t_put(r, IPC_PUBLISH, IPC_ANSWER | IPC_HAS_DATA, (uint16_t)name.n, name, data);
}

/* What a ring finds in its lane. */
struct t_word {
    uint8_t type;
    uint32_t chan, gen; /* MESSAGE, GAP */
    uint64_t count;     /* GAP, DONE, MESSAGE: seq; FAILED: the error */
    struct view data;   /* until the next one */
};

static inline bool
t_next(struct t_ring *r, struct t_word *w)
{
    struct lane_record rec;
    const uint8_t *p;
    uint32_t n;
    if (lane_peek(&r->in, &rec, &p) != LANE_RECORD) {
        (void)!lane_release(&r->in);
        return false;
    }
    *w = (struct t_word){.type = rec.type};
    if (rec.type == IPC_MESSAGE || rec.type == IPC_GAP) {
        memcpy(&w->chan, p, 4);
        memcpy(&w->gen, p + 4, 4);
        memcpy(&w->count, p + 8, 8);
        w->data = view_of(p + 16, rec.n - 16);
    } else if (rec.n == 4) {
        memcpy(&n, p, 4);
        w->count = n;
    }
    lane_take(&r->in, &rec);
    return true;
}

#endif
