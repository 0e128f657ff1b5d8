#include "worker/worker.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/bug.h"
#include "common/calls.h"
#include "common/priv.h"
#include "common/start.h"
#include "proto/crypt.h"
#include "worker/ceiling.h"
#include "worker/client.h"
#include "worker/conn.h"
#include "worker/fan.h"
#include "worker/listen.h"
#include "worker/metrics.h"
#include "worker/outq.h"
#include "worker/pmd.h"
#include "worker/sess.h"
#include "worker/subs.h"
#include "worker/xp_tls.h"

#define SQ_ENTRIES 1024
#define CQ_ENTRIES 16384
#define RECV_GROUP 1
#define DRAIN_RECORDS 4096  /* lane records in one turn */
#define EXPIRE_TIMERS 1024  /* timers in one turn */
#define TURN_MAX_MS 500     /* longest sleep: the heartbeat must go on */
#define SLOW_TURN_MS 100
#define DOOM_BYTES (8u << 20) /* queues of doomed connections that a turn cuts: the frames in them are counted */
#define DRAIN_STEP_MS 50    /* an orderly stop closes a slice of connections so often */

void
slot_push(struct slot_list *l, uint32_t slot)
{
    if (l->n == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 256;
        l->v = xrealloc(l->v, l->cap * sizeof *l->v);
    }
    l->v[l->n++] = slot;
}

void
worker_on_ignored(struct worker *w, struct ring_done d)
{
    (void)w;
    (void)d;
}

static void
wake_arm(struct worker *w)
{
    struct io_uring_sqe *sqe = ring_sqe(&w->ring);
    io_uring_prep_read(sqe, w->wake_fd, &w->wake_value, sizeof w->wake_value, 0);
    ring_set_tag(sqe, OP_WAKE, 0, 0);
}

void
worker_on_wake(struct worker *w, struct ring_done d)
{
    if (d.res > 0 || d.res == -EINTR || d.res == -EAGAIN)
        wake_arm(w);
}

/* -- completions -- */

#define ROUTE_CONN(fn)                                                                             \
    {                                                                                              \
        struct conn *c = pool_find(&w->conns, d.slot, d.gen);                                      \
        if (UNLIKELY(c == NULL)) {                                                                 \
            COUNT(w, stale_completions_total);                                                     \
            if (d.flags & IORING_CQE_F_BUFFER)                                                     \
                ring_buf_back(&w->bufs, d.flags);                                                  \
            return;                                                                                \
        }                                                                                          \
        if (!ring_more(d))                                                                         \
            c->inflight--;                                                                         \
        fn(w, c, d);                                                                               \
        return;                                                                                    \
    }
#define ROUTE_LISTEN(fn)                                                                           \
    {                                                                                              \
        fn(w, &w->listeners[d.slot], d);                                                           \
        return;                                                                                    \
    }
#define ROUTE_RING(fn)                                                                             \
    {                                                                                              \
        fn(w, d);                                                                                  \
        return;                                                                                    \
    }
#define ROUTE_LINK(fn)                                                                             \
    {                                                                                              \
        fn(w->links, d.op, d.slot, d.gen, d.res, d.flags);                                         \
        return;                                                                                    \
    }

static void
worker_dispatch(void *arg, struct ring_done d)
{
    struct worker *w = arg;
    switch ((enum worker_op)d.op) {
#define OP(name, sentence, owner, on_done, ...)                                                         \
    case OP_##name: ROUTE_##owner(on_done)
#include "worker/ops.def"
#undef OP
    case OP_NONE:
    case OP_COUNT: break;
    }
    COUNT(w, stale_completions_total);
}

/* -- the turn -- */

static void
take_time(struct worker *w)
{
    w->now = mono_now();
    uint32_t tick = wheel_tick(w->now);
    w->tick = tick ? tick : 1;
}

/* What is kept in another form than the settings'; again now and then, for a reload may have changed them. */
static void
read_limits(struct worker *w)
{
    const struct conf *conf = w->conf;
    uint64_t rings = MAX(conf->worker_rings, (uint64_t)1);
    w->pace.most_ns = conf->out_pacing * 1000000;
    w->buffers_max = conf->mem_buffers ? conf->mem_buffers / rings : UINT64_MAX;
    const struct conf_namespaces *namespaces = conf_namespaces_now(conf);
    w->ns_round = (uint16_t)(w->ns_round + (namespaces != w->namespaces));
    w->namespaces = namespaces;
    w->limits = (struct dialect_limits){
        .max_depth = (uint32_t)conf->sc_max_depth,
        .max_batch = (uint32_t)conf->sc_max_batch,
        .max_channel_name = (uint32_t)conf->sc_max_channel_name,
        .max_event_name = (uint32_t)conf->sc_max_event_name,
    };
    rates_read(w);
}

static void
expire_one(void *arg, struct timer *t)
{
    struct worker *w = arg;
    conn_on_timer(w, container_of(t, struct conn, timer));
}

static void
rearm_unbuffered(struct worker *w)
{
    ring_bufs_publish(&w->bufs);
    uint32_t n = w->unbuffered.n;
    for (uint32_t i = 0; i < n; i++) {
        struct conn *c = conn_at(w, w->unbuffered.v[i]);
        if (c->head.next == POOL_LIVE)
            conn_rearm(w, c);
    }
    w->unbuffered.n = 0;
}

/* Those whose share of the last turn was used up, or who may go on. Who uses up this one's stands on
 * the list again, for the next. */
static void
continue_ready(struct worker *w)
{
    uint32_t n = w->ready.n;
    if (n == 0)
        return;
    for (uint32_t i = 0; i < n; i++) {
        struct conn *c = conn_at(w, w->ready.v[i]);
        if (c->head.next == POOL_LIVE && c->flags & CF_READY)
            conn_continue(w, c);
    }
    memmove(w->ready.v, w->ready.v + n, (w->ready.n - n) * sizeof *w->ready.v);
    w->ready.n -= n;
}

static void
close_doomed(struct worker *w)
{
    uint32_t i = 0;
    for (uint64_t bytes = 0; i < w->doomed.n && bytes < DOOM_BYTES; i++) {
        struct conn *c = conn_at(w, w->doomed.v[i]);
        if (c->head.next != POOL_LIVE || !(c->flags & CF_DOOMED) || c->state != CONN_OPEN)
            continue;
        bytes += outq_bytes(c);
        conn_close(w, c, (enum close_reason)c->reason);
    }
    w->doomed.n -= i;
    if (w->doomed.n > 0)
        memmove(w->doomed.v, w->doomed.v + i, w->doomed.n * sizeof *w->doomed.v);
}

/* What a connection is held to account for; blocks it shares count in full, so the order is right even
 * where the sum is not. */
static uint64_t
held_by(const struct conn *c)
{
    return (uint64_t)outq_bytes(c) + (c->in != NULL ? c->in->msg.cap + c->in->held.cap : 0) + pmd_bytes_of(c);
}

void
worker_end_largest(struct worker *w)
{
    struct conn *most = NULL;
    for (uint32_t i = 0; i < w->conns.used; i++) {
        struct conn *c = conn_at(w, i);
        if (c->head.next == POOL_LIVE && c->state <= CONN_OPEN && held_by(c) > 0 &&
            (most == NULL || held_by(c) > held_by(most)))
            most = c;
    }
    if (most != NULL)
        conn_close(w, most, CLOSE_MEMORY);
}

/* Above mem.buffers the connection that holds most ends: one in a turn, so that what its end gives
 * back is seen before the next is chosen. Looked for only when that is so. */
static void
enforce_memory(struct worker *w)
{
    ceiling_look(w);
    if (UNLIKELY(w->blocks.bytes + w->input_bytes + pmd_bytes_of_conns(w) > w->buffers_max))
        worker_end_largest(w);
}

static void
reclaim(struct worker *w)
{
    for (uint32_t i = 0; i < w->just_freed.n; i++)
        pool_put(&w->conns, conn_at(w, w->just_freed.v[i]));
    w->just_freed.n = 0;
    if (w->scratch.cap > 1u << 20)
        buf_free(&w->scratch);
    if (w->arena != NULL && rc_room(w->arena) < w->arena->cap / 2) {
        rc_unref(&w->blocks, w->arena);
        w->arena = NULL;
    }
    pmd_reclaim(w);
    if (w->cipher != NULL && rc_room(w->cipher) < w->cipher->cap / 2) {
        rc_unref(&w->blocks, w->cipher);
        w->cipher = NULL;
    }
    ring_bufs_publish(&w->bufs);
}

static void
stamp(struct worker *w, struct mono began)
{
    metric_beat(&w->page, w->now);
    COUNT(w, turns_total);
    GAUGE(w, buffers_bytes, w->blocks.bytes + w->input_bytes + pmd_bytes_of_conns(w));
    GAUGE(w, log_lost_total, log_lost());
    if (w->ring_idx == 0)
        GAUGE(w, refused_calls_total, calls_refused());
    struct mono end = mono_now();
    if (mono_since_ms(end, began) > SLOW_TURN_MS) {
        COUNT(w, slow_turns_total);
        log_warn("slow-turn", "ms=%llu connections=%u", (unsigned long long)mono_since_ms(end, began), w->conns.live);
    }
}

/* -- an orderly stop -- */

static void
drain_slice(struct worker *w)
{
    if ((int32_t)(w->tick - w->drain_at) < 0)
        return;
    w->drain_at = w->tick + wheel_ticks(DRAIN_STEP_MS);
    bool late = (int32_t)(w->tick - w->drain_end) >= 0;
    /* Everybody within half of run.drain_timeout, and small crowds at once. */
    uint64_t steps = MAX(w->conf->run_drain_timeout / 2 / (DRAIN_STEP_MS + WHEEL_TICK_MS), (uint64_t)1);
    uint64_t quota = MAX((uint64_t)64, w->conn_max ? (w->conns.live + steps - 1) / steps : 0);
    for (uint32_t i = 0; i < w->conns.used && (quota > 0 || late); i++) {
        struct conn *c = conn_at(w, i);
        if (c->head.next != POOL_LIVE || (c->state >= CONN_CLOSING && !late))
            continue;
        if (late) {
            conn_force(w, c);
        } else if (c->state == CONN_OPEN) {
            conn_close(w, c, CLOSE_DRAIN);
            quota--;
        } else {
            conn_finish(w, c, CLOSE_DRAIN);
        }
    }
}

static void
look_for_stop(struct worker *w)
{
    int stop = atomic_load_explicit(w->stop, memory_order_relaxed);
    if (stop > w->stopping) {
        if (w->stopping == 0) {
            listen_stop(w);
            w->drain_at = w->tick;
            w->drain_end = w->tick + wheel_ticks(w->conf->run_drain_timeout);
            log_info("drain", "connections=%u", w->conns.live);
        }
        if (stop > 1)
            w->drain_end = w->drain_at = w->tick;
        w->stopping = stop;
    }
    if (w->stopping)
        drain_slice(w);
}

static void
pace(struct worker *w)
{
    if (w->now.ns - w->pace.seen_ns >= PACE_LOOK_NS) {
        pace_look(&w->pace, w->now.ns, mono_thread_ns());
        GAUGE(w, pacing_us, w->pace.ns / 1000);
    }
    if (w->pace.ns > 0 || w->paced.n > 0)
        outq_pace(w);
}

static uint64_t
sleep_ns(struct worker *w, uint32_t max_wait_ms)
{
    if (w->dirty.n > 0 || w->doomed.n > 0 || w->ready.n > 0 || w->links_busy || w->unbuffered.n > 0 || w->tls_waiting.n > w->tls_waiting_at)
        return 0;
    uint32_t ms = MIN(max_wait_ms, (uint32_t)TURN_MAX_MS);
    if (w->stopping)
        ms = MIN(ms, (uint32_t)WHEEL_TICK_MS);
    for (unsigned i = 0; i < w->listener_count; i++)
        if (w->listeners[i].retry_at)
            ms = MIN(ms, (uint32_t)WHEEL_TICK_MS);
    ms = MIN(ms, wheel_idle_ms(&w->wheel, w->now, ms));
    if ((int32_t)(w->links_at - w->tick) <= 0)
        ms = MIN(ms, (uint32_t)1);
    else
        ms = MIN(ms, (w->links_at - w->tick) * WHEEL_TICK_MS);
    uint64_t ns = ms == 0 ? 100000 : (uint64_t)ms * 1000000;
    if (w->paced.n > 0)
        ns = MIN(ns, w->pace.end > w->now.ns ? w->pace.end - w->now.ns : 1000);
    return ns;
}

void
worker_turn(struct worker *w, uint32_t max_wait_ms)
{
    uint64_t ns = sleep_ns(w, max_wait_ms);
    if (ns > 0 && !links_sleep(w->links))
        ns = 0;
    ring_wait(&w->ring, ns);
    links_awake(w->links);
    take_time(w);
    struct mono began = w->now;
    w->turn++;
    /* Before what clients say: a message whose publisher has its answer lies in the lane, and must not miss a subscriber
     * that asks to leave after that. */
    w->links_busy = w->backlog > FAN_BACKLOG_MAX || links_drain(w->links, DRAIN_RECORDS);
    if (w->tls != NULL)
        xp_tls_continue(w);
    pmd_turn_begin(w);
    ring_reap(&w->ring, worker_dispatch, w);
    pmd_turn_begin(w);
    continue_ready(w);
    fan_out_all(w);
    close_doomed(w);
    wheel_expire(&w->wheel, w->now, EXPIRE_TIMERS, expire_one, w);
    if ((int32_t)(w->tick - w->links_at) >= 0) {
        w->links_at = w->tick + wheel_ticks(links_tick(w->links, w->now));
        read_limits(w);
        xp_tls_adopt(w);
    }
    listen_tick(w);
    look_for_stop(w);
    if (w->unbuffered.n > 0)
        rearm_unbuffered(w);
    links_flush(w->links);
    if (w->pace.most_ns > 0 || w->paced.n > 0)
        pace(w);
    outq_flush(w);
    fan_ease(w);
    enforce_memory(w);
    reclaim(w);
    stamp(w, began);
}

void
worker_run(struct worker *w)
{
    GAUGE(w, seccomp, calls_mode());
    while (!w->stopping || w->conns.live > 0)
        worker_turn(w, TURN_MAX_MS);
}

/* -- making one -- */

/* All that is ever asked of this ring. */
static const unsigned char kernel_ops[] = {
#define OP(name, sentence, owner, on_done, ...) __VA_ARGS__,
#include "worker/ops.def"
#undef OP
};

static const struct link_ops link_ops = {
    .on_done = sess_on_done,
    .on_message = fan_on_message,
    .on_gap = fan_on_gap,
    .on_count = subs_on_count,
    .on_attached = sess_on_attached,
    .on_restored = sess_on_restored,
    .on_missed = sess_on_missed,
    .on_lost = sess_on_lost,
    .on_room = sess_on_room,
};

static void
setup_limits(struct worker *w, const struct worker_setup *s)
{
    const struct conf *conf = s->conf;
    w->conf = conf;
    w->worker_idx = s->worker_idx;
    w->ring_idx = s->ring_idx;
    w->conn_max = s->conn_max;
    uint64_t rings = MAX(conf->worker_rings, (uint64_t)1);
    uint64_t unshaken = conf->conn_max_unshaken ? conf->conn_max_unshaken / rings : s->conn_max / 5;
    w->unshaken_max = (uint32_t)MAX(MIN(unshaken, (uint64_t)10000), (uint64_t)1);
    w->addrs = s->addrs;
    read_limits(w);
    w->wake_fd = s->wake_fd;
    w->stop = s->stop;
    w->listener_count = s->listen_count;
    for (unsigned i = 0; i < s->listen_count; i++)
        w->listeners[i] = s->listeners[i];
    w->tls = s->tls;
    w->tls_fresh = s->tls_fresh;
    w->tls_kernel = s->tls != NULL && tls_kernel_has_it();
    client_setup(w);
    w->unshaken = (struct slot_queue){POOL_NONE, POOL_NONE};
    w->random_at = sizeof w->random;
    w->scratch = buf_make(UINT32_MAX);
}

/* Lists of connections have their room from the start, so that none has to grow when memory is short;
 * pages that are never touched cost nothing. */
static bool
setup_lists(struct worker *w)
{
    struct slot_list *lists[] = {&w->urgent, &w->dirty, &w->fan_waiting, &w->doomed, &w->ready, &w->unbuffered,
        &w->just_freed, &w->paced, &w->tls_waiting};
    for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
        lists[i]->cap = w->conn_max + 1;
        lists[i]->v = malloc(lists[i]->cap * sizeof *lists[i]->v);
        if (lists[i]->v == NULL)
            return false;
    }
    return true;
}

static bool
setup_memory(struct worker *w)
{
    BUG_ON(!crypt_random(&w->hash_seed, sizeof w->hash_seed));
    w->iov = calloc(4096, sizeof *w->iov);
    w->msg = calloc(1024, sizeof *w->msg);
    w->waiting = calloc(w->conf->broker_count, sizeof *w->waiting);
    if (w->tls != NULL && (w->tls_plain = malloc(TLS_PLAIN_MAX)) == NULL)
        return false;
    if (w->iov == NULL || w->msg == NULL || w->waiting == NULL)
        return false;
    for (unsigned i = 0; i < w->conf->broker_count; i++)
        w->waiting[i] = (struct slot_queue){POOL_NONE, POOL_NONE};
    return setup_lists(w) && pool_init(&w->conns, sizeof(struct conn), w->conn_max + 1) && subs_init(w) &&
        ceiling_init(w) && pmd_init(w);
}

struct worker *
worker_new(const struct worker_setup *s, struct conf_error *err)
{
    struct worker *w = calloc(1, sizeof *w);
    if (w == NULL)
        return NULL;
    setup_limits(w, s);
    if (!start_pin(s->cpu, "worker.cpus", err)) {
        free(w);
        return NULL;
    }
    take_time(w);
    wheel_init(&w->wheel, w->now);
    int rc = ring_prepare(&w->ring, SQ_ENTRIES, CQ_ENTRIES);
    if (rc == 0)
        rc = ring_bufs_init(&w->ring, &w->bufs, RECV_GROUP,
            (uint32_t)pow2_ceil(s->conf->worker_recv_buffers), (uint32_t)s->conf->worker_recv_buffer);
    if (rc == 0)
        rc = ring_start(&w->ring, kernel_ops, ARRAY_LEN(kernel_ops));
    if (rc < 0 || !setup_memory(w)) {
        snprintf(err->text, sizeof err->text, "ring %u: %s", s->ring_idx,
            rc < 0 ? ring_setup_hint(rc) : "out of memory");
        free(w);
        return NULL;
    }
    struct metric_row rows[RM_COUNT];
    ring_metric_rows(rows);
    w->page = metric_page_new(s->conf->run_dir, "worker", s->worker_idx, (int32_t)s->ring_idx, rows, RM_COUNT);
    w->metrics = w->page.values;
    GAUGE(w, connections_max, w->conn_max);
    w->links = links_new(s->conf, &w->ring, s->worker_idx, s->ring_idx, w->metrics, &link_ops, w);
    BUG_ON(w->links == NULL);
    wake_arm(w);
    listen_start(w);
    log_info("ring", "listeners=%u connections_max=%u tls=%s %s", w->listener_count, w->conn_max,
        w->tls == NULL ? "no" : w->tls_kernel ? "kernel" : "yes", ring_describe(&w->ring));
    return w;
}

void
worker_show_rights(struct worker *w)
{
    struct priv_state now = priv_look();
    GAUGE(w, user_id, now.user_id);
    GAUGE(w, capabilities, now.capabilities);
    GAUGE(w, no_new_privs, now.no_new_privs);
    GAUGE(w, core_dumps, now.core_dumps);
    GAUGE(w, ring_restricted, w->ring.restricted);
}

void
worker_free(struct worker *w)
{
    links_free(w->links);
    ring_bufs_fini(&w->ring, &w->bufs);
    ring_fini(&w->ring);
    subs_fini(w);
    pmd_fini(w);
    ceiling_fini(w);
    pool_fini(&w->conns);
    if (w->arena != NULL)
        rc_unref(&w->blocks, w->arena);
    if (w->cipher != NULL)
        rc_unref(&w->blocks, w->cipher);
    tls_server_unref(w->tls);
    free(w->tls_plain);
    rc_pool_fini(&w->blocks);
    buf_free(&w->scratch);
    struct slot_list *lists[] = {&w->urgent, &w->dirty, &w->dirty_chans, &w->busy_chans, &w->fan_waiting, &w->doomed,
        &w->ready, &w->unbuffered, &w->just_freed, &w->paced, &w->tls_waiting};
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        free(lists[i]->v);
    free(w->iov);
    free(w->msg);
    free(w->waiting);
    metric_page_free(&w->page, true);
    free(w);
}
