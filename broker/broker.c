#include "broker/broker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "broker/across.h"
#include "broker/ask.h"
#include "broker/chan.h"
#include "broker/hosts.h"
#include "broker/metrics.h"
#include "broker/peer.h"
#include "broker/tally.h"
#include "common/calls.h"
#include "common/start.h"

#define SQ_ENTRIES 256
#define CQ_ENTRIES 4096
#define DRAIN_RECORDS 1024 /* of one peer in one turn */
#define TURN_MAX_MS 250    /* heartbeats at least so often */
#define GREETING_MS 5000
/* After a start publishes wait until all rings have attached and said what they want, so that none of
 * them misses what another replays; at most so long, for rings may be missing. */
#define SETTLE_MS 500
/* A ring's view of our heartbeat may be that much older than ours of the last turn. */
#define STOPPED_SLACK_MS 1000
/* A killed predecessor's socket answers for as long as the kernel takes to end its ring. */
#define TAKE_OVER_MS 2000
/* ... and that of one whose `ringcast run` was killed for as long as its workers drain, and a little. */
#define LEFTOVER_MS 5000
#define LEFTOVER_LOOK_MS 20
#define STUCK_MS 10        /* longest wait for room in a lane that is full */

enum signal_slot { SLOT_SIGNAL, SLOT_PARENT };

/* -- completions -- */

static void
arm_accept(struct broker *b)
{
    struct io_uring_sqe *sqe = ring_sqe(&b->ring);
    io_uring_prep_multishot_accept(sqe, b->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    ring_set_tag(sqe, OP_ACCEPT, 0, 0);
    b->accepting = true;
}

void
broker_on_accept(struct broker *b, struct ring_done d)
{
    if (!ring_more(d))
        b->accepting = false;
    if (d.res >= 0)
        peer_new(b, d.res);
}

void
broker_on_ignored(struct broker *b, struct ring_done d)
{
    (void)b;
    (void)d;
}

static void
arm_signal(struct broker *b, int fd, enum signal_slot slot)
{
    if (fd < 0)
        return;
    struct io_uring_sqe *sqe = ring_sqe(&b->ring);
    io_uring_prep_poll_add(sqe, fd, POLLIN);
    ring_set_tag(sqe, OP_SIGNAL, 0, slot);
}

void
broker_on_signal(struct broker *b, struct ring_done d)
{
    if (d.slot == SLOT_PARENT) {
        b->stopping = MAX(b->stopping, 1);
    } else {
        for (int signal; (signal = start_signal_take(b->signal_fd)) != 0;) {
            if (signal == SIGHUP)
                (void)start_reload(b->conf);
            else
                b->stopping++;
        }
        arm_signal(b, b->signal_fd, SLOT_SIGNAL);
    }
    if (b->stopping) {
        b->stop_at = mono_add_ms(b->now, b->conf->run_drain_timeout);
        b->bus_stop_at = mono_add_ms(b->now, b->conf->bus_stop_wait);
    }
}

void
broker_watch(struct broker *b)
{
    arm_signal(b, b->signal_fd, SLOT_SIGNAL);
    arm_signal(b, b->parent_fd, SLOT_PARENT);
}

#define ROUTE_PEER(fn)                                                                             \
    {                                                                                              \
        struct peer *p = pool_find(&b->peers, d.slot, d.gen);                                      \
        if (p == NULL)                                                                             \
            return;                                                                                \
        if (!ring_more(d))                                                                         \
            p->inflight--;                                                                         \
        if (p->state == PEER_GONE)                                                                 \
            peer_free(b, p);                                                                       \
        else                                                                                       \
            fn(b, p, d);                                                                           \
        return;                                                                                    \
    }
/* What the bus asked of the ring is its own: slot and generation mean what it likes. */
#define ROUTE_BUS(fn)                                                                              \
    {                                                                                              \
        b->bus->ops->fn(b->bus, d);                                                                \
        return;                                                                                    \
    }
#define ROUTE_ASK(fn)                                                                              \
    {                                                                                              \
        struct ask *a = pool_find(&b->asks, d.slot, d.gen);                                        \
        if (a == NULL)                                                                             \
            return;                                                                                \
        a->inflight--;                                                                             \
        if (a->gone)                                                                               \
            ask_free(b, a);                                                                        \
        else                                                                                       \
            fn(b, a, d);                                                                           \
        return;                                                                                    \
    }
#define ROUTE_BROKER(fn)                                                                           \
    {                                                                                              \
        fn(b, d);                                                                                  \
        return;                                                                                    \
    }

static void
dispatch(void *arg, struct ring_done d)
{
    struct broker *b = arg;
    switch ((enum broker_op)d.op) {
#define OP(name, sentence, owner, on_done, ...)                                                         \
    case OP_##name: ROUTE_##owner(on_done)
#include "broker/ops.def"
#undef OP
    case OP_NONE:
    case OP_COUNT: break;
    }
}

/* -- the turn -- */

static void
each_peer(struct broker *b, void (*fn)(struct broker *, struct peer *))
{
    for (uint32_t i = 0; i < b->peers.used; i++) {
        struct peer *p = peer_at(b, i);
        if (p->head.next == POOL_LIVE)
            fn(b, p);
    }
}

static void
drain_peer(struct broker *b, struct peer *p)
{
    if (p->state == PEER_UP && (p->overflow.n > 0 || p->missing))
        peer_catch_up(b, p);
    if (p->state == PEER_UP && peer_drain(b, p, DRAIN_RECORDS))
        b->busy = true;
}

/* Heartbeats both ways; who has shown none for broker.dead_after is given up, unless it was this
 * process that stood still. */
static void
beat_peer(struct broker *b, struct peer *p)
{
    if (p->state == PEER_GREETING && mono_since_ms(b->now, p->since) > GREETING_MS) {
        peer_drop(b, p, NULL);
        return;
    }
    if (p->state != PEER_UP)
        return;
    atomic_store_explicit(&p->seg->broker_beat_ns, b->now.ns, memory_order_relaxed);
    struct mono beat = {atomic_load_explicit(&p->seg->worker_beat_ns, memory_order_relaxed)};
    bool grace = !mono_reached(b->now, b->grace_until);
    if (!grace && mono_since_ms(b->now, p->since) > b->conf->broker_dead_after &&
        mono_since_ms(b->now, beat) > b->conf->broker_dead_after)
        peer_drop(b, p, "it shows no heartbeat");
}

static uint64_t lanes_used;

static void
add_used(struct broker *b, struct peer *p)
{
    (void)b;
    if (p->state == PEER_UP)
        lanes_used += lane_used(&p->out);
}

static void
beat(struct broker *b)
{
    if (mono_since_ms(b->now, b->seen) > b->conf->broker_dead_after / 2)
        b->grace_until = mono_add_ms(b->now, b->conf->broker_dead_after);
    b->seen = b->now;
    metric_beat(&b->page, b->now);
    if (!mono_reached(b->now, b->beat_at))
        return;
    b->beat_at = mono_add_ms(b->now, TURN_MAX_MS - 50);
    each_peer(b, beat_peer);
    lanes_used = 0;
    each_peer(b, add_used);
    GAUGE(b, lane_used_bytes, lanes_used);
    GAUGE(b, overflow_bytes, b->overflow_bytes);
    GAUGE(b, log_lost_total, log_lost());
    GAUGE(b, refused_calls_total, calls_refused());
    ask_tick(b);
    if (!b->accepting)
        arm_accept(b);
}

static bool
all_asleep(struct broker *b)
{
    for (uint32_t i = 0; i < b->peers.used; i++) {
        struct peer *p = peer_at(b, i);
        if (p->head.next != POOL_LIVE || p->state != PEER_UP)
            continue;
        if (p->stuck || p->missing)
            b->stuck = true; /* the ring it waits for will ring; look again soon all the same */
        else if (!lane_sleep(&p->in))
            return false;
    }
    return true;
}

static void
awake_peer(struct broker *b, struct peer *p)
{
    (void)b;
    if (p->state == PEER_UP)
        lane_awake(&p->in);
}

static void
forget_sync(struct broker *b, struct peer *p)
{
    (void)b;
    p->synced = false;
}

/* This process stood still for so long that rings have given it up, or are about to: they come back
 * one by one, and publishes wait for them as after a start. */
static void
unsettle_if_stopped(struct broker *b)
{
    uint64_t dead = b->conf->broker_dead_after, soon = dead > STOPPED_SLACK_MS ? dead - STOPPED_SLACK_MS : 0;
    if (mono_since_ms(b->now, b->seen) < MAX(soon, (uint64_t)2 * TURN_MAX_MS))
        return;
    b->settled = false;
    b->settle_by = mono_add_ms(b->now, SETTLE_MS);
    each_peer(b, forget_sync);
}

static void
settle(struct broker *b)
{
    uint64_t synced = 0, rings = b->conf->worker_count * MAX(b->conf->worker_rings, (uint64_t)1);
    for (uint32_t i = 0; i < b->peers.used; i++) {
        struct peer *p = peer_at(b, i);
        synced += p->head.next == POOL_LIVE && p->state == PEER_UP && p->synced;
    }
    b->settled = synced >= rings || mono_reached(b->now, b->settle_by);
}

void
broker_turn(struct broker *b, uint32_t max_wait_ms)
{
    b->stuck = false;
    bool sleep = !b->busy && all_asleep(b);
    uint32_t ms = MIN(max_wait_ms, (uint32_t)(b->stuck ? STUCK_MS : TURN_MAX_MS));
    ms = MIN(ms, b->bus_wait_ms);
    ring_wait(&b->ring, sleep ? (uint64_t)ms * 1000000 : 0);
    b->now = mono_now();
    unsettle_if_stopped(b);
    each_peer(b, awake_peer);
    ring_reap(&b->ring, dispatch, b);
    b->busy = false;
    each_peer(b, drain_peer);
    tally_turn(b);
    hosts_turn(b);
    across_turn(b);
    if (UNLIKELY(!b->settled))
        settle(b);
    beat(b);
    each_peer(b, peer_show);
    each_peer(b, peer_flush);
    COUNT(b, turns_total);
}

/* Once told to stop it still handles what is in its lanes, and waits for the bus to take what it was given: if that is
 * away, not for as long as clients may take to leave. */
static bool
is_finished(struct broker *b)
{
    if (b->stopping != 1 || mono_reached(b->now, b->stop_at))
        return b->stopping > 0;
    return hosts_leave(b) && !b->busy && b->overflow_bytes == 0 &&
        (across_is_idle(b) || mono_reached(b->now, b->bus_stop_at));
}

void
broker_run(struct broker *b)
{
    GAUGE(b, seccomp, calls_mode());
    while (!is_finished(b))
        broker_turn(b, TURN_MAX_MS);
}

/* -- making one -- */

/* All that is ever asked of this ring; without other hosts no connection is ever made. */
static const unsigned char kernel_ops[] = {
#define OP(name, sentence, owner, on_done, ...) __VA_ARGS__,
#include "broker/ops.def"
#undef OP
};
#define ALONE_PEER(...) __VA_ARGS__,
#define ALONE_BROKER(...) __VA_ARGS__,
#define ALONE_ASK(...) __VA_ARGS__,
#define ALONE_BUS(...)
static const unsigned char kernel_ops_alone[] = {
#define OP(name, sentence, owner, on_done, ...) ALONE_##owner(__VA_ARGS__)
#include "broker/ops.def"
#undef OP
};

static int
start_ring(struct broker *b)
{
    bool alone = bus_chosen(b->conf) == &bus_none;
    return ring_start(&b->ring, alone ? kernel_ops_alone : kernel_ops,
        alone ? ARRAY_LEN(kernel_ops_alone) : ARRAY_LEN(kernel_ops));
}

static bool
fail(struct conf_error *err, const char *what, const char *path, int e)
{
    snprintf(err->text, sizeof err->text, "%s %s: %s", what, path, strerror(e));
    return false;
}

static bool
name_socket(const struct conf *conf, unsigned index, struct sockaddr_un *sun)
{
    *sun = (struct sockaddr_un){.sun_family = AF_UNIX};
    int n = snprintf(sun->sun_path, sizeof sun->sun_path, "%s/broker-%u.sock", conf->run_dir, index);
    return n >= 0 && (size_t)n < sizeof sun->sun_path;
}

/* A socket file that nobody answers on was left by a crash; one that is answered belongs to a broker
 * that runs. */
static bool
is_answered(const struct sockaddr_un *sun)
{
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool answered = fd >= 0 && (connect(fd, (const struct sockaddr *)sun, sizeof *sun) == 0 || errno == EAGAIN);
    if (fd >= 0)
        close(fd);
    return answered;
}

/* Sleeps a little; true when this process was told to end. */
static bool
is_called_off(const struct start *s)
{
    struct pollfd p[] = {{.fd = s->signal_fd, .events = POLLIN}, {.fd = s->parent_fd, .events = POLLIN}};
    return poll(p, ARRAY_LEN(p), LEFTOVER_LOOK_MS) > 0 && start_signal_take(s->signal_fd) != SIGHUP;
}

bool
broker_await_place(const struct conf *conf, const struct start *s)
{
    struct sockaddr_un sun;
    bool supervised = s->parent_fd >= 0;
    struct mono until = mono_add_ms(mono_now(), supervised ? conf->run_drain_timeout + LEFTOVER_MS : TAKE_OVER_MS);
    if (!name_socket(conf, s->index, &sun))
        return true; /* broker_init says so */
    for (bool told = !supervised; is_answered(&sun) && !mono_reached(mono_now(), until); told = true) {
        if (!told)
            log_warn("place-taken", "socket=%s why=\"another broker answers there: that of a ringcast run that was killed ends when its "
                "workers have drained, and is waited for; one that was started by hand must be stopped\"", sun.sun_path);
        if (is_called_off(s))
            return false;
    }
    return true;
}

static bool
open_listener(struct broker *b, struct conf_error *err)
{
    struct sockaddr_un sun;
    if (mkdir(b->conf->run_dir, 0700) < 0 && errno != EEXIST)
        return fail(err, "run.dir: can't make", b->conf->run_dir, errno);
    if (!name_socket(b->conf, b->index, &sun))
        return fail(err, "run.dir is too long:", b->conf->run_dir, ENAMETOOLONG);
    memcpy(b->path, sun.sun_path, sizeof b->path);
    if (is_answered(&sun))
        return conf_fail(err, "another broker already answers on %s: stop that, or give this one its own --broker.index or --run.dir",
            b->path);
    unlink(b->path);
    b->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    mode_t old = umask(0177);
    bool ok = b->listen_fd >= 0 && bind(b->listen_fd, (struct sockaddr *)&sun, sizeof sun) == 0 &&
        listen(b->listen_fd, 128) == 0;
    int e = errno;
    umask(old);
    return ok || fail(err, "can't listen on", b->path, e);
}

bool
broker_init(struct broker *b, struct conf *conf, unsigned index, struct conf_error *err)
{
    *b = (struct broker){.conf = conf, .index = index, .listen_fd = -1, .signal_fd = -1, .parent_fd = -1,
        .worker_uid = geteuid()};
    b->now = b->seen = b->beat_at = mono_now();
    b->settle_by = mono_add_ms(b->now, SETTLE_MS);
    if (getrandom(&b->seed, sizeof b->seed, 0) != sizeof b->seed)
        return fail(err, "can't begin:", "getrandom", errno);
    if (!start_pin(start_cpu(&conf->broker_cpus, index), "broker.cpus", err))
        return false;
    int rc = ring_prepare(&b->ring, SQ_ENTRIES, CQ_ENTRIES);
    if (rc == 0)
        rc = start_ring(b);
    if (rc < 0) {
        snprintf(err->text, sizeof err->text, "%s", ring_setup_hint(rc));
        return false;
    }
    if (!pool_init(&b->peers, sizeof(struct peer), PEERS_MAX) || !chans_init(b))
        return fail(err, "can't begin:", "memory", ENOMEM);
    if (!open_listener(b, err))
        return false;
    struct metric_row rows[BM_COUNT];
    broker_metric_rows(rows);
    b->page = metric_page_new(conf->run_dir, "broker", index, -1, rows, BM_COUNT);
    b->metrics = b->page.values;
    if (!across_open(b, bus_chosen(conf), err))
        return false;
    if (!hosts_open(b) || !tally_init(b) || !ask_init(b))
        return fail(err, "can't begin:", "memory", ENOMEM);
    arm_accept(b);
    return true;
}

void
broker_show_rights(struct broker *b, const struct priv_state *now)
{
    GAUGE(b, user_id, now->user_id);
    GAUGE(b, capabilities, now->capabilities);
    GAUGE(b, no_new_privs, now->no_new_privs);
    GAUGE(b, core_dumps, now->core_dumps);
    GAUGE(b, ring_restricted, b->ring.restricted);
}

void
broker_fini(struct broker *b)
{
    for (uint32_t i = 0; i < b->peers.used; i++) {
        struct peer *p = peer_at(b, i);
        if (p->head.next == POOL_LIVE) {
            peer_drop(b, p, "the broker ends");
            p->inflight = 0;
            peer_free(b, p);
        }
    }
    across_close(b);
    hosts_close(b);
    tally_fini(b);
    ask_fini(b);
    ring_fini(&b->ring);
    chans_fini(b);
    pool_fini(&b->peers);
    unlink(b->path); /* first: once nobody answers on it, the file may be a successor's */
    if (b->listen_fd >= 0)
        close(b->listen_fd);
    metric_page_free(&b->page, true);
}
