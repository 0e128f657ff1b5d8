/* worker/link against broker/: both sides in one process over real rings, a real socket and real
 * lanes; the broker is a process of its own where it has to be killed or stopped. Every wait is for
 * a condition, with a deadline that only a failure reaches. */
#include <setjmp.h>
#include <stdarg.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "broker/broker.h"
#include "broker/chan.h"
#include "broker/metrics.h"
#include "common/lane.h"
#include "common/shm.h"
#include "common/start.h"
#include "proto/ipc.h"
#include "worker/link.h"
#include "worker/metrics.h"

#include <cmocka.h>

#define SIDES 3
#define KEPT 65536
#define DEADLINE_MS 20000

/* A ring of a worker, as far as links know it: what it wants, and what it was told. */
struct side {
    struct ring ring;
    struct links *links;
    uint64_t metrics[RM_COUNT];
    const char *wants; /* channel 7, generation wants_gen, renewed at every attach */
    uint32_t wants_gen;
    uint32_t got[KEPT];
    uint64_t gap_count;       /* of the last gap */
    unsigned gap_at;          /* ... and how many messages had come before it */
    unsigned gaps, got_n, strange, attached, restored, lost, room, woken;
    uint32_t ended[KEPT]; /* numbers of requests, in the order of their outcomes */
    uint8_t outcome[KEPT];
    unsigned ended_n;
    uint64_t last_n;          /* bytes of the last message */
    bool last_has_data, deaf; /* deaf: does not read its lanes */
};

static struct conf conf;
static struct broker broker;
static bool broker_runs;
static pid_t broker_pid;
static struct side sides[SIDES];
static unsigned sides_n;
static char dir[64];

static void
on_done(void *arg, const struct call *call, enum error_id err)
{
    struct side *s = arg;
    assert_true(s->ended_n < KEPT);
    s->ended[s->ended_n] = (uint32_t)call->owner;
    s->outcome[s->ended_n++] = (uint8_t)err;
}

static void
on_message(void *arg, uint32_t chan, uint32_t gen, bool has_data, struct view data)
{
    struct side *s = arg;
    s->last_n = data.n;
    s->last_has_data = has_data;
    if (chan != 7 || gen != s->wants_gen)
        s->strange++;
    else if (data.n >= 4 && s->got_n < KEPT)
        memcpy(&s->got[s->got_n++], data.p, 4);
}

static void
on_gap(void *arg, uint32_t chan, uint32_t gen, uint64_t count)
{
    struct side *s = arg;
    if (chan != 7 || gen != s->wants_gen)
        s->strange++;
    s->gaps++;
    s->gap_count = count;
    s->gap_at = s->got_n;
}

static uint32_t
on_count(void *arg, uint32_t chan, uint32_t gen)
{
    const struct side *s = arg;
    return chan == 7 && gen == s->wants_gen ? 1000 + (uint32_t)(s - sides) : 0;
}

static void
on_attached(void *arg, unsigned i)
{
    struct side *s = arg;
    enum error_id why;
    s->attached++;
    if (s->wants != NULL)
        assert_int_equal(
            link_subscribe(s->links, i, 7, s->wants_gen, view_str(s->wants), NULL, &why), LINK_OK);
}

static void
on_restored(void *arg, unsigned i)
{
    (void)i;
    ((struct side *)arg)->restored++;
}
static void
on_missed(void *arg, unsigned i)
{
    (void)arg;
    (void)i;
}

static void
on_lost(void *arg, unsigned i)
{
    (void)i;
    ((struct side *)arg)->lost++;
}
static void
on_room(void *arg, unsigned i)
{
    (void)i;
    ((struct side *)arg)->room++;
}

static const struct link_ops ops = {
    on_done, on_message, on_gap, on_count, on_attached, on_restored, on_missed, on_lost, on_room};

static void
dispatch(void *arg, struct ring_done d)
{
    links_on_cqe(((struct side *)arg)->links, d.op, d.slot, d.gen, d.res, d.flags);
}

/* One turn of everything that runs in this process. */
static void
turn(void)
{
    if (broker_runs)
        broker_turn(&broker, 0);
    for (unsigned i = 0; i < sides_n; i++) {
        struct side *s = &sides[i];
        ring_wait(&s->ring, 0);
        links_awake(s->links);
        ring_reap(&s->ring, dispatch, s);
        links_tick(s->links, mono_now());
        if (!s->deaf)
            links_drain(s->links, 256);
        links_flush(s->links);
    }
}

#define UNTIL(cond)                                                                                \
    do {                                                                                           \
        struct mono by_ = mono_add_ms(mono_now(), DEADLINE_MS);                                    \
        while (!(cond)) {                                                                          \
            if (mono_reached(mono_now(), by_))                                                     \
                fail_msg("waited in vain for %s", #cond);                                          \
            turn();                                                                                \
        }                                                                                          \
    } while (0)

static void
broker_begin(void)
{
    struct conf_error err = {{0}};
    if (!broker_init(&broker, &conf, 0, &err))
        fail_msg("%s", err.text);
    broker_runs = true;
}

static void
broker_end(void)
{
    broker_fini(&broker);
    broker_runs = false;
}

/* A broker that can be killed: it tells by a pipe that it listens. */
static void
broker_fork(void)
{
    int ready[2];
    char c;
    assert_int_equal(pipe(ready), 0);
    broker_pid = fork();
    if (broker_pid == 0) {
        struct conf_error err = {{0}};
        struct start by_hand = {.signal_fd = -1, .parent_fd = -1};
        if (!broker_await_place(&conf, &by_hand) || !broker_init(&broker, &conf, 0, &err) || write(ready[1], "\n", 1) != 1)
            _exit(1);
        broker_run(&broker);
        _exit(0);
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &c, 1), 1);
    close(ready[0]);
}

static void
broker_kill(void)
{
    kill(broker_pid, SIGKILL);
    waitpid(broker_pid, NULL, 0);
    broker_pid = 0;
}

static struct side *
side_new(const char *wants)
{
    struct side *s = &sides[sides_n];
    memset(s, 0, sizeof *s);
    s->wants = wants;
    s->wants_gen = 1;
    assert_int_equal(ring_init(&s->ring, 64, 256), 0);
    s->links = links_new(&conf, &s->ring, 0, sides_n, s->metrics, &ops, s);
    assert_non_null(s->links);
    sides_n++;
    return s;
}

static bool
all_restored(void)
{
    for (unsigned i = 0; i < sides_n; i++)
        if (sides[i].restored == 0)
            return false;
    return true;
}

static int
setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/ringcast-link-XXXXXX");
    if (mkdtemp(dir) == NULL)
        return -1;
    conf_defaults(&conf);
    struct conf_error err;
    if (!conf_set(&conf, "run.dir", dir, "test", &err))
        return -1;
    conf.broker_count = conf.worker_count = conf.worker_rings = 1;
    conf.lane_bytes = 65536;
    conf.lane_overflow_bytes = 262144; /* its upper half takes what one full lane still holds */
    conf.lane_hold_bytes = 65536;
    conf.lane_hold_time = 15000; /* tests that are about its end say so */
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    if (broker_pid > 0)
        broker_kill();
    for (unsigned i = 0; i < sides_n; i++) {
        ring_fini(&sides[i].ring);
        links_free(sides[i].links);
    }
    sides_n = 0;
    if (broker_runs)
        broker_end();
    conf_free(&conf);
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

/* Publishes number v, padded to n bytes; with an ack when asked. */
static enum link_rc
publish(struct side *s, const char *channel, uint32_t v, uint32_t n, bool ack)
{
    static uint8_t data[65536];
    enum error_id why = ERR_NONE;
    struct call call = {.owner = v};
    memcpy(data, &v, 4);
    return link_publish(
        s->links, view_str(channel), 0, true, view_of(data, MAX(n, 4u)), ack ? &call : NULL, &why);
}

static void
expect_got(const struct side *s, unsigned n)
{
    assert_int_equal(s->got_n, n);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(s->got[i], i);
    assert_int_equal(s->strange, 0);
}

/* -- the good life -- */

static void
rings_and_broker_start_in_either_order(void **state)
{
    (void)state;
    struct side *early = side_new(NULL);
    for (int i = 0; i < 20; i++)
        turn();
    assert_int_equal(early->attached, 0);
    broker_begin();
    side_new(NULL);
    UNTIL(all_restored());
    assert_true(link_is_up(early->links, 0));
    assert_int_equal(broker.metrics[BM_peers], 2);
}

static void
messages_reach_every_ring_once_in_order_and_are_acked(void **state)
{
    (void)state;
    broker_begin();
    struct side *a = side_new(NULL), *b = side_new("news"), *c = side_new("news");
    UNTIL(all_restored());
    for (uint32_t i = 0; i < 3000;) {
        if (publish(a, "news", i, i % 200, true) == LINK_OK)
            i++;
        else
            turn();
    }
    UNTIL(a->ended_n == 3000 && b->got_n == 3000 && c->got_n == 3000);
    expect_got(b, 3000);
    expect_got(c, 3000);
    for (unsigned i = 0; i < 3000; i++) {
        assert_int_equal(a->ended[i], i);
        assert_int_equal(a->outcome[i], ERR_NONE);
    }
    assert_int_equal(broker.metrics[BM_publishes_total], 3000);
    assert_int_equal(broker.metrics[BM_deliveries_total], 6000);
}

static void
a_gap_comes_between_the_messages_where_it_was_written(void **state)
{
    (void)state;
    broker_begin();
    struct side *a = side_new(NULL), *b = side_new("news"), *c = side_new("other");
    UNTIL(all_restored());
    for (uint32_t i = 0; i < 40; i++) {
        assert_int_equal(publish(a, "news", i, 100, true), LINK_OK);
        UNTIL(a->ended_n == i + 1);
        if (i == 9 || i == 29) /* IPC_GAP; 0: nobody knows how many */
            chan_gap(&broker, chan_find(&broker, VIEW("news")), i == 9 ? UINT64_MAX : 0);
        UNTIL(b->got_n == i + 1 && b->gaps == (i < 9 ? 0u : i < 29 ? 1u : 2u));
        assert_int_equal(b->gap_at, i < 9 ? 0 : i < 29 ? 10 : 30);
        assert_true(b->gap_count == (i < 9 || i >= 29 ? 0 : UINT64_MAX));
    }
    expect_got(b, 40);
    assert_int_equal(c->gaps, 0);
    assert_int_equal(broker.metrics[BM_gaps_total], 2);
    assert_int_equal(broker.metrics[BM_dropped_total], 0);
    assert_int_equal(b->metrics[RM_LANE_BASE + IPC_ROW_GAP], 2);
}

static void
no_data_empty_data_and_the_largest_arrive_as_sent(void **state)
{
    (void)state;
    broker_begin();
    struct side *a = side_new(NULL), *b = side_new("x");
    enum error_id why;
    UNTIL(all_restored());
    b->last_has_data = true;
    assert_int_equal(link_publish(a->links, VIEW("x"), 0, false, VIEW_NONE, NULL, &why), LINK_OK);
    UNTIL(!b->last_has_data);
    assert_int_equal(link_publish(a->links, VIEW("x"), 0, true, VIEW_NONE, NULL, &why), LINK_OK);
    UNTIL(b->last_has_data);
    assert_int_equal(b->last_n, 0);
    uint32_t most = lane_max_payload(65536) - 16 - 1; /* the name is one byte */
    static uint8_t data[65536];
    assert_int_equal(
        link_publish(a->links, VIEW("x"), 0, true, view_of(data, most), NULL, &why), LINK_OK);
    UNTIL(b->last_n == most);
    assert_int_equal(
        link_publish(a->links, VIEW("x"), 0, true, view_of(data, most + 1), NULL, &why),
        LINK_REFUSED);
    assert_int_equal(why, ERR_TOO_BIG_FOR_LANE);
}

static void
a_channel_number_that_is_used_again_is_another_channel(void **state)
{
    (void)state;
    broker_begin();
    struct side *a = side_new(NULL), *b = side_new("old");
    enum error_id why;
    struct call call = {.owner = 99};
    UNTIL(all_restored());
    link_unsubscribe(b->links, 0, 7, 1);
    b->wants_gen = 2;
    assert_int_equal(link_subscribe(b->links, 0, 7, 2, VIEW("new"), &call, &why), LINK_OK);
    UNTIL(b->ended_n == 1);
    assert_int_equal(b->outcome[0], ERR_NONE);
    assert_int_equal(publish(a, "old", 5, 4, true), LINK_OK);
    assert_int_equal(publish(a, "new", 0, 4, true), LINK_OK);
    UNTIL(a->ended_n == 2 && b->got_n == 1);
    expect_got(b, 1);
    /* A late unsubscribe of the old holder takes nothing from the new one. */
    link_unsubscribe(b->links, 0, 7, 1);
    assert_int_equal(link_after(b->links, 0, &call, &why), LINK_OK);
    UNTIL(b->ended_n == 2);
    assert_int_equal(publish(a, "new", 1, 4, false), LINK_OK);
    UNTIL(b->got_n == 2);
    assert_int_equal(broker.metrics[BM_unheard_total], 1);
    assert_int_equal(broker.metrics[BM_channels], 1);
}

static void
a_call_behind_others_hears_after_them(void **state)
{
    (void)state;
    broker_begin();
    struct side *a = side_new(NULL);
    enum error_id why;
    UNTIL(all_restored());
    assert_int_equal(publish(a, "x", 1, 4, true), LINK_OK);
    assert_int_equal(link_after(a->links, 0, &(struct call){.owner = 2}, &why), LINK_OK);
    assert_int_equal(publish(a, "x", 3, 4, true), LINK_OK);
    assert_int_equal(link_after(a->links, 0, &(struct call){.owner = 4}, &why), LINK_OK);
    assert_int_equal(a->ended_n, 0); /* never from within the call */
    UNTIL(a->ended_n == 4);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(a->ended[i], i + 1);
}

/* -- bounds -- */

static void
more_channels_than_allowed_fail_and_cost_nobody_else(void **state)
{
    (void)state;
    conf.broker_max_channels = 2;
    broker_begin();
    struct side *a = side_new(NULL);
    enum error_id why;
    UNTIL(all_restored());
    for (uint32_t i = 0; i < 3; i++) {
        char name[2] = {(char)('a' + i), 0};
        assert_int_equal(
            link_subscribe(a->links, 0, i, 1, view_str(name), &(struct call){.owner = i}, &why),
            LINK_OK);
    }
    UNTIL(a->ended_n == 3);
    assert_int_equal(a->outcome[0], ERR_NONE);
    assert_int_equal(a->outcome[1], ERR_NONE);
    assert_int_equal(a->outcome[2], ERR_BROKER_CHANNELS);
    link_unsubscribe(a->links, 0, 0, 1);
    assert_int_equal(
        link_subscribe(a->links, 0, 2, 2, VIEW("c"), &(struct call){.owner = 3}, &why), LINK_OK);
    UNTIL(a->ended_n == 4);
    assert_int_equal(a->outcome[3], ERR_NONE);
}

static uint64_t
records_heard(const struct side *s, enum ipc_type type)
{
    return s->metrics[RM_LANE_BASE + ipc_row_of(type)];
}

static void
a_ring_says_with_one_sync_that_it_has_said_all(void **state)
{
    (void)state;
    broker_begin();
    (void)side_new("a");
    (void)side_new("b");
    UNTIL(all_restored());
    assert_int_equal(broker.metrics[BM_LANE_BASE + ipc_row_of(IPC_SYNC)], 2);
    assert_int_equal(broker.metrics[BM_LANE_BASE + ipc_row_of(IPC_SUBSCRIBE)], 2);
}

/* A ring that does not read: the publisher to its channel is stopped, others are not, nothing is
 * lost. */
static void
a_ring_that_is_behind_stops_its_publishers_and_loses_nothing(void **state)
{
    (void)state;
    broker_begin();
    struct side *a = side_new(NULL), *b = side_new("slow"), *c = side_new("quick");
    uint32_t sent = 0;
    UNTIL(all_restored());
    b->deaf = true;
    UNTIL(({
        while (publish(a, "slow", sent, 100, false) == LINK_OK)
            sent++;
        a->metrics[RM_xoff_total] > 0;
    }));
    assert_true(sent > 500);
    assert_int_equal(records_heard(a, IPC_XOFF), 1);
    assert_true(broker.overflow_bytes > 0);
    assert_true(broker.overflow_bytes <= conf.lane_overflow_bytes);
    unsigned quick = 0;
    UNTIL(({
        if (quick < 50 && publish(a, "quick", quick, 4, false) == LINK_OK)
            quick++;
        quick == 50 && c->got_n == 50;
    }));
    assert_int_equal(publish(a, "slow", sent, 100, false), LINK_WAIT);
    unsigned room = a->room;
    b->deaf = false;
    UNTIL(b->got_n == sent && a->room > room);
    assert_int_equal(publish(a, "slow", sent, 100, false), LINK_OK);
    UNTIL(b->got_n == sent + 1);
    expect_got(b, sent + 1);
    assert_int_equal(broker.overflow_bytes, 0);
}

/* A channel stopped for two rings goes on when the second has caught up, not the first. */
static void
a_channel_stopped_for_two_rings_waits_for_both(void **state)
{
    (void)state;
    broker_begin();
    struct side *a = side_new(NULL), *b = side_new("slow"), *c = side_new("slow");
    uint32_t sent = 0;
    UNTIL(all_restored());
    b->deaf = c->deaf = true;
    UNTIL(({
        while (publish(a, "slow", sent, 100, false) == LINK_OK)
            sent++;
        a->metrics[RM_xoff_total] == 2;
    }));
    b->deaf = false;
    UNTIL(b->got_n == sent && records_heard(a, IPC_XON) == 1);
    assert_true(broker.overflow_bytes > 0); /* for c */
    assert_int_equal(publish(a, "other", 0, 4, false), LINK_OK);
    assert_int_equal(publish(a, "slow", sent, 100, false), LINK_WAIT);
    c->deaf = false;
    UNTIL(c->got_n == sent && records_heard(a, IPC_XON) == 2);
    assert_int_equal(publish(a, "slow", sent, 100, false), LINK_OK);
    UNTIL(b->got_n == sent + 1 && c->got_n == sent + 1);
    expect_got(b, sent + 1);
    expect_got(c, sent + 1);
}

/* A ring that reads its lane, but has more of a channel to send than it gets away, says so. */
static void
a_ring_with_too_much_of_a_channel_stops_its_publishers_on_every_ring(void **state)
{
    (void)state;
    broker_begin();
    struct side *a = side_new(NULL), *b = side_new("busy"), *c = side_new("other");
    UNTIL(all_restored());
    assert_false(link_was_stopped(a->links, 0, VIEW("busy")));
    link_busy(b->links, 0, 7);
    UNTIL(broker.metrics[BM_LANE_BASE + ipc_row_of(IPC_BUSY)] == 1);
    assert_int_equal(publish(a, "busy", 0, 4, false), LINK_OK); /* it learns by its next message */
    assert_int_equal(publish(c, "busy", 1, 4, false), LINK_OK);
    UNTIL(records_heard(a, IPC_XOFF) == 1 && records_heard(c, IPC_XOFF) == 1 && b->got_n == 2);
    assert_int_equal(publish(a, "busy", 2, 4, false), LINK_WAIT);
    assert_int_equal(publish(c, "busy", 2, 4, false), LINK_WAIT);
    assert_int_equal(publish(a, "other", 0, 4, false), LINK_OK);
    UNTIL(c->got_n == 1);
    assert_int_equal(records_heard(a, IPC_XON), 0);
    links_eased(b->links);
    UNTIL(records_heard(a, IPC_XON) == 1 && records_heard(c, IPC_XON) == 1);
    assert_int_equal(broker.metrics[BM_LANE_BASE + ipc_row_of(IPC_EASED)], 1);
    assert_int_equal(publish(a, "busy", 2, 4, false), LINK_OK);
    UNTIL(b->got_n == 3);
    assert_true(link_was_stopped(a->links, 0, VIEW("busy"))); /* remembered for a while */
    assert_false(link_was_stopped(a->links, 0, VIEW("other")));
    links_eased(b->links); /* nothing to say any more */
    link_busy(b->links, 0, 1u << 30); /* a channel that never was does no harm */
    UNTIL(broker.metrics[BM_LANE_BASE + ipc_row_of(IPC_BUSY)] == 2);
    assert_int_equal(broker.metrics[BM_LANE_BASE + ipc_row_of(IPC_EASED)], 1);
}

static void
count_dispatch(void *arg, struct ring_done d)
{
    struct side *s = arg;
    s->woken++;
    dispatch(s, d);
}

/* Sleeps as a worker does, without its timers: only a bell ends it before the deadline. */
static bool
sleep_until_rung(struct side *s)
{
    unsigned before = s->woken;
    assert_true(links_sleep(s->links));
    struct mono by = mono_add_ms(mono_now(), DEADLINE_MS / 10);
    while (s->woken == before && !mono_reached(mono_now(), by)) {
        ring_wait(&s->ring, 100000000);
        ring_reap(&s->ring, count_dispatch, s);
    }
    links_awake(s->links);
    return s->woken > before;
}

/* The broker frees a full lane bit by bit. Each bit rings, as long as publishers wait for more. */
static void
publishers_behind_a_full_lane_go_on_as_soon_as_there_is_room(void **state)
{
    (void)state;
    conf.lane_bytes = 1u << 20; /* several turns of the broker */
    conf.broker_dead_after = 60000;
    broker_begin();
    struct side *a = side_new(NULL);
    UNTIL(all_restored());
    while (publish(a, "nobody", 1, 4, false) == LINK_OK)
        continue;
    unsigned room = a->room, bells = 0;
    links_flush(a->links);
    for (; a->room == room; bells++) {
        assert_true(bells < 1000);
        uint64_t handled = broker.metrics[BM_publishes_total];
        broker_turn(&broker, 0);
        assert_true(broker.metrics[BM_publishes_total] > handled);
        assert_true(sleep_until_rung(a));
        links_drain(a->links, 256);
        links_flush(a->links);
    }
    assert_true(bells > 1);
    assert_int_equal(publish(a, "nobody", 1, 4, false), LINK_OK);
}

/* -- deaths -- */

/* More than either side reads in one turn, so that the end is seen while records still wait. */
#define LAST_WORDS 600

static void
what_a_broker_committed_before_it_hung_up_still_counts(void **state)
{
    (void)state;
    broker_begin();
    struct side *a = side_new("x");
    UNTIL(all_restored());
    for (uint32_t i = 0; i < LAST_WORDS; i++)
        assert_int_equal(publish(a, "x", i, 4, true), LINK_OK);
    links_flush(a->links);
    while (broker.metrics[BM_publishes_total] < LAST_WORDS)
        broker_turn(&broker, 0); /* the ring does not read meanwhile */
    broker_end();
    UNTIL(a->lost == 1);
    expect_got(a, LAST_WORDS);
    assert_int_equal(a->ended_n, LAST_WORDS);
    for (unsigned i = 0; i < LAST_WORDS; i++) {
        assert_int_equal(a->ended[i], i);
        assert_int_equal(a->outcome[i], ERR_NONE);
    }
    assert_int_equal(a->metrics[RM_lost_publishes_total], 0);
}

static void
a_broker_that_ends_leaves_no_request_without_an_outcome(void **state)
{
    (void)state;
    broker_begin();
    struct side *a = side_new("x");
    UNTIL(all_restored());
    for (uint32_t i = 0; i < 10; i++)
        assert_int_equal(publish(a, "x", i, 4, true), LINK_OK);
    links_flush(a->links);
    broker_end(); /* with all ten unread */
    UNTIL(a->lost == 1);
    assert_int_equal(a->ended_n, 10);
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(a->ended[i], i);
        assert_int_equal(a->outcome[i], ERR_BROKER_LOST);
    }
    assert_int_equal(a->metrics[RM_lost_publishes_total], 10);
    assert_int_equal(a->metrics[RM_brokers_up], 0);
    /* Never sent again. */
    a->restored = 0;
    broker_begin();
    UNTIL(all_restored());
    assert_int_equal(publish(a, "x", 0, 4, true), LINK_OK);
    UNTIL(a->ended_n == 11);
    expect_got(a, 1);
}

static void
what_is_held_for_a_broker_that_is_away_arrives_once_in_order(void **state)
{
    (void)state;
    struct side *a = side_new(NULL), *b = side_new("x");
    for (uint32_t i = 0; i < 200; i++)
        assert_int_equal(publish(a, "x", i, 20, i % 2), LINK_OK);
    conf.worker_rings = 2; /* the broker waits until both have said what they want */
    broker_begin();
    UNTIL(all_restored() && b->got_n == 200 && a->ended_n == 100);
    expect_got(b, 200);
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(a->ended[i], 2 * i + 1);
        assert_int_equal(a->outcome[i], ERR_NONE);
    }
}

static void
holding_is_bounded_in_bytes_and_in_time(void **state)
{
    (void)state;
    struct side *a = side_new(NULL);
    enum link_rc rc;
    uint32_t held = 0;
    while ((rc = publish(a, "x", held, 1000, true)) == LINK_OK)
        held++;
    assert_int_equal(rc, LINK_WAIT);
    assert_in_range(held, 50, 66);
    conf.lane_hold_time = 1; /* and now it is over */
    UNTIL(a->ended_n == held);
    for (unsigned i = 0; i < held; i++)
        assert_int_equal(a->outcome[i], ERR_BROKER_AWAY);
    assert_int_equal(a->metrics[RM_lost_publishes_total], held);
    assert_true(a->room > 0);
    assert_int_equal(publish(a, "x", 0, 4, true), LINK_REFUSED);
}

/* Whatever is told a success was heard by the subscriber on the same ring, once; what failed, at
 * most once. The broker is killed in the middle of it, again and again. */
static void
a_killed_broker_never_makes_a_false_success_or_a_second_message(void **state)
{
    (void)state;
    static uint8_t heard[KEPT];
    struct side *a = side_new("x");
    uint32_t sent = 0;
    uint64_t seed = 88172645463325252ull;
    memset(heard, 0, sizeof heard);
    for (unsigned round = 0; round < 12; round++) {
        broker_fork();
        a->restored = 0;
        UNTIL(a->restored == 1);
        seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
        struct mono kill_at = {mono_now().ns + seed % 8000000};
        while (!mono_reached(mono_now(), kill_at)) {
            for (int k = 0; k < 16 && sent < (round + 1) * (KEPT / 13); k++)
                sent += publish(a, "x", sent, 60, true) == LINK_OK;
            turn();
        }
        broker_kill();
        UNTIL(a->lost == round + 1);
    }
    conf.lane_hold_time = 1; /* what is held by now fails */
    UNTIL(a->ended_n == sent);
    for (unsigned i = 0; i < a->got_n; i++)
        assert_int_equal(heard[a->got[i]]++, 0);
    for (unsigned i = 0; i < sent; i++) {
        assert_int_equal(a->ended[i], i);
        if (a->outcome[i] == ERR_NONE)
            assert_int_equal(heard[i], 1);
    }
    assert_true(a->got_n > 0);
}

static void
a_stopped_broker_counts_as_lost_and_is_found_again(void **state)
{
    (void)state;
    conf.broker_dead_after = 500;
    struct side *a = side_new("x");
    broker_fork();
    UNTIL(a->restored == 1);
    kill(broker_pid, SIGSTOP);
    assert_int_equal(publish(a, "x", 0, 4, true), LINK_OK);
    UNTIL(a->lost == 1);
    assert_int_equal(a->ended_n, 1);
    assert_int_equal(a->outcome[0], ERR_BROKER_LOST);
    a->got_n = 0;
    kill(broker_pid, SIGCONT);
    UNTIL(a->restored == 2);
    assert_int_equal(publish(a, "x", 1, 4, true), LINK_OK);
    UNTIL(a->ended_n == 2);
    assert_int_equal(a->outcome[1], ERR_NONE);
}

/* -- strangers: what a worker gone mad could do -- */

struct stranger {
    int fd, segment_fd;
    struct ipc_segment *seg;
    size_t bytes;
    struct lane out;
    struct ipc_welcome welcome;
};

static struct ipc_hello
good_hello(void)
{
    return (struct ipc_hello){.magic = IPC_MAGIC,
        .table_hash = ipc_table_hash(),
        .version = IPC_VERSION,
        .lane_bytes = 65536,
        .worker = 9,
        .ring = 9,
        .pid = getpid()};
}

/* Says hello with n bytes of h and the segment fds_n times over; waits for the answer. */
static void
stranger_attach(struct stranger *s, const struct ipc_hello *h, size_t n, unsigned fds_n)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    int fds[2] = {s->segment_fd, s->segment_fd};
    char control[CMSG_SPACE(sizeof fds)] = {0};
    struct iovec iov = {(void *)h, n};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    snprintf(sun.sun_path, sizeof sun.sun_path, "%s/broker-0.sock", dir);
    s->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_equal(connect(s->fd, (struct sockaddr *)&sun, sizeof sun), 0);
    if (fds_n > 0) {
        m.msg_control = control;
        m.msg_controllen = CMSG_SPACE(fds_n * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(fds_n * sizeof(int));
        memcpy(CMSG_DATA(c), fds, fds_n * sizeof(int));
    }
    assert_int_equal(sendmsg(s->fd, &m, MSG_NOSIGNAL), n);
    memset(&s->welcome, 0, sizeof s->welcome);
    ssize_t got = -1;
    UNTIL((got = recv(s->fd, &s->welcome, sizeof s->welcome, 0)) >= 0);
    assert_int_equal(got, sizeof s->welcome);
}

static void
stranger_new(struct stranger *s)
{
    s->bytes = ipc_segment_size(65536);
    s->segment_fd = shm_new("stranger", s->bytes, (void **)&s->seg);
    s->fd = -1;
    assert_true(s->segment_fd >= 0);
    lane_init(&s->out, ipc_lane_out(s->seg), 65536, true);
}

static void
stranger_free(struct stranger *s)
{
    close(s->fd);
    close(s->segment_fd);
    shm_unmap(s->seg, s->bytes);
}

static void
expect_refused(const struct ipc_hello *h, size_t n, unsigned fds_n, int other_segment)
{
    struct stranger s;
    char c;
    uint64_t before = broker.metrics[BM_refused_attach_total];
    stranger_new(&s);
    int own = s.segment_fd;
    s.segment_fd = other_segment >= 0 ? other_segment : own;
    stranger_attach(&s, h, n, fds_n);
    s.segment_fd = own;
    assert_int_equal(s.welcome.ok, 0);
    assert_true(strlen(s.welcome.sentence) > 10);
    assert_int_equal(broker.metrics[BM_refused_attach_total], before + 1);
    UNTIL(recv(s.fd, &c, 1, 0) == 0);
    stranger_free(&s);
}

static void
an_attach_that_does_not_fit_is_refused_with_a_sentence(void **state)
{
    (void)state;
    broker_begin();
    struct side *a = side_new("x");
    UNTIL(all_restored());
    struct ipc_hello h = good_hello();
    h.magic++;
    expect_refused(&h, sizeof h, 1, -1);
    h = good_hello(), h.version++;
    expect_refused(&h, sizeof h, 1, -1);
    h = good_hello(), h.table_hash++;
    expect_refused(&h, sizeof h, 1, -1);
    h = good_hello(), h.lane_bytes = 65537;
    expect_refused(&h, sizeof h, 1, -1);
    h = good_hello(), h.lane_bytes = 131072; /* more than the segment holds */
    expect_refused(&h, sizeof h, 1, -1);
    h = good_hello(), h.lane_bytes = 0;
    expect_refused(&h, sizeof h, 1, -1);
    h = good_hello();
    expect_refused(&h, sizeof h - 1, 1, -1);
    expect_refused(&h, sizeof h, 0, -1);
    int unsealed = memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(ftruncate(unsealed, (off_t)ipc_segment_size(65536)), 0);
    expect_refused(&h, sizeof h, 1, unsealed);
    close(unsealed);
    assert_int_equal(publish(a, "x", 0, 4, false), LINK_OK);
    UNTIL(a->got_n == 1);
    assert_int_equal(broker.metrics[BM_peers], 1);
}

/* Attaches, commits one record, and must be thrown out for it; the others do not notice. */
static void
expect_thrown_out(uint8_t type, uint16_t aux, uint32_t n, const void *payload, uint32_t announced)
{
    struct stranger s;
    struct ipc_hello h = good_hello();
    uint64_t before = broker.metrics[BM_corrupt_lanes_total];
    char c;
    stranger_new(&s);
    stranger_attach(&s, &h, sizeof h, 1);
    assert_int_equal(s.welcome.ok, 1);
    uint8_t *p = lane_put(&s.out, type, 0, aux, n);
    assert_non_null(p);
    memcpy(p, payload, n);
    memcpy(p - sizeof(struct lane_record), &announced, 4);
    (void)!lane_publish(&s.out);
    UNTIL(recv(s.fd, &c, 1, 0) == 0);
    assert_int_equal(broker.metrics[BM_corrupt_lanes_total], before + 1);
    stranger_free(&s);
}

static void
nonsense_in_a_lane_ends_that_ring_and_no_other(void **state)
{
    (void)state;
    static const uint8_t zero[8192];
    uint32_t high[2] = {IPC_CHANS_MAX, 0};
    broker_begin();
    struct side *a = side_new("x");
    UNTIL(all_restored());
    expect_thrown_out(IPC_SUBSCRIBE, 0, 7, zero, 7);
    expect_thrown_out(IPC_SUBSCRIBE, 0, 8 + IPC_NAME_MAX + 1, zero, 8 + IPC_NAME_MAX + 1);
    expect_thrown_out(IPC_SUBSCRIBE, 0, 8, high, 8);
    expect_thrown_out(IPC_UNSUBSCRIBE, 0, 9, zero, 9);
    expect_thrown_out(IPC_PUBLISH, 5, 4, zero, 4);
    expect_thrown_out(IPC_PUBLISH, IPC_NAME_MAX + 1, IPC_NAME_MAX + 8, zero, IPC_NAME_MAX + 8);
    expect_thrown_out(IPC_BUSY, 0, 5, zero, 5);
    expect_thrown_out(IPC_EASED, 0, 1, zero, 1);
    expect_thrown_out(IPC_MESSAGE, 0, 16, zero, 16);
    expect_thrown_out(200, 0, 0, zero, 0);
    expect_thrown_out(IPC_PUBLISH, 1, 8, zero, 4096);       /* past what is committed */
    expect_thrown_out(IPC_PUBLISH, 1, 8, zero, UINT32_MAX); /* past everything */
    assert_int_equal(publish(a, "x", 0, 4, false), LINK_OK);
    UNTIL(a->got_n == 1);
    assert_int_equal(a->lost, 0);
    assert_int_equal(broker.metrics[BM_peers], 1);
}

static void
a_ring_that_hangs_up_takes_its_interests_along(void **state)
{
    (void)state;
    struct stranger s;
    struct ipc_hello h = good_hello();
    uint32_t handle[2] = {3, 1};
    broker_begin();
    stranger_new(&s);
    stranger_attach(&s, &h, sizeof h, 1);
    uint8_t *p = lane_put(&s.out, IPC_SUBSCRIBE, 0, 0, 9);
    memcpy(p, handle, 8);
    p[8] = 'x';
    (void)!lane_publish(&s.out);
    UNTIL(broker.metrics[BM_channels] == 1);
    stranger_free(&s);
    UNTIL(broker.metrics[BM_peers] == 0);
    assert_int_equal(broker.metrics[BM_channels], 0);
    assert_int_equal(broker.metrics[BM_interests], 0);
    assert_int_equal(broker.metrics[BM_lost_peers_total], 1);
}

static void
a_ring_without_a_heartbeat_is_given_up(void **state)
{
    (void)state;
    struct stranger s;
    struct ipc_hello h = good_hello();
    conf.broker_dead_after = 500;
    broker_begin();
    struct side *a = side_new(NULL);
    stranger_new(&s);
    stranger_attach(&s, &h, sizeof h, 1);
    assert_int_equal(s.welcome.ok, 1);
    UNTIL(broker.metrics[BM_lost_peers_total] == 1);
    UNTIL(link_is_up(a->links, 0));
    assert_int_equal(a->lost, 0);
    stranger_free(&s);
}

/* Commits a publish to channel x of number v, n bytes of payload in all. False: no room. */
static bool
stranger_publish(struct stranger *s, uint32_t v, uint32_t n)
{
    uint8_t *p = lane_put(&s->out, IPC_PUBLISH, IPC_HAS_DATA, 1, n);
    if (p == NULL)
        return false;
    p[0] = 'x';
    memcpy(p + 1, &v, 4);
    memset(p + 5, 'd', n - 5);
    if (lane_publish(&s->out))
        assert_int_equal(send(s->fd, IPC_BELL, 1, MSG_NOSIGNAL), 1);
    return true;
}

static void
an_attach_with_another_lane_bytes_is_refused(void **state)
{
    (void)state;
    broker_begin();
    struct side *a = side_new("x");
    UNTIL(all_restored());
    struct ipc_hello h = good_hello();
    size_t bytes = ipc_segment_size(h.lane_bytes *= 2);
    void *map;
    int segment = shm_new("larger", bytes, &map);
    assert_true(segment >= 0);
    expect_refused(&h, sizeof h, 1, segment); /* though the segment is what it says */
    close(segment);
    shm_unmap(map, bytes);
    assert_int_equal(broker.metrics[BM_peers], 1);
    assert_int_equal(a->lost, 0);
}

/* A record that the lane of a ring that wants it could never hold. */
static void
an_oversized_publish_ends_that_ring_and_blocks_nobody(void **state)
{
    (void)state;
    const uint32_t most = lane_max_payload(65536) - 16;
    struct ipc_hello h = good_hello();
    broker_begin();
    struct side *a = side_new("x"), *p = side_new(NULL);
    UNTIL(all_restored());
    for (uint32_t over = 0; over <= 16; over++) {
        struct stranger s;
        char c;
        stranger_new(&s);
        stranger_attach(&s, &h, sizeof h, 1);
        assert_true(stranger_publish(&s, over, most + over));
        if (over == 0)
            UNTIL(a->got_n == 1); /* the largest that is allowed */
        else
            UNTIL(recv(s.fd, &c, 1, 0) == 0);
        assert_int_equal(broker.metrics[BM_corrupt_lanes_total], over);
        stranger_free(&s);
        assert_int_equal(publish(p, "x", over + 1, 4, false), LINK_OK);
        UNTIL(a->got_n == over + 2);
        UNTIL(broker.metrics[BM_peers] == 2);
    }
    expect_got(a, 18);
    assert_int_equal(broker.overflow_bytes, 0);
    assert_int_equal(a->lost + p->lost, 0);
}

static void
what_a_ring_committed_before_it_hung_up_is_published(void **state)
{
    (void)state;
    struct stranger s;
    struct ipc_hello h = good_hello();
    broker_begin();
    struct side *a = side_new("x");
    UNTIL(all_restored());
    stranger_new(&s);
    stranger_attach(&s, &h, sizeof h, 1);
    uint32_t sent = 0;
    while (stranger_publish(&s, sent, 5))
        sent++;
    assert_true(sent > LAST_WORDS);
    stranger_free(&s);
    UNTIL(broker.metrics[BM_peers] == 1);
    UNTIL(a->got_n == sent);
    expect_got(a, sent);
    assert_int_equal(broker.metrics[BM_publishes_total], sent);
    assert_int_equal(broker.metrics[BM_corrupt_lanes_total], 0);
}

/* What was caught up with stands before the rest until it is moved together; with much alive behind it,
 * that is when the end of the buffer is reached. The publisher is one that XOFF does not stop. */
static void
an_overflow_is_compacted_before_its_ring_is_given_up(void **state)
{
    (void)state;
    struct stranger s;
    struct ipc_hello h = good_hello();
    conf.lane_overflow_bytes = 4u << 20;
    conf.broker_dead_after = 60000; /* the stranger shows no heartbeat */
    broker_begin();
    struct side *b = side_new("x");
    uint32_t sent = 0;
    UNTIL(all_restored());
    stranger_new(&s);
    stranger_attach(&s, &h, sizeof h, 1);
    for (unsigned round = 0; round < 4; round++) {
        b->deaf = true;
        UNTIL(({
            while (stranger_publish(&s, sent, 1000))
                sent++;
            broker.overflow_bytes + 1100 > conf.lane_overflow_bytes || b->lost > 0;
        }));
        assert_int_equal(b->lost, 0);
        b->deaf = false;
        UNTIL(broker.overflow_bytes < conf.lane_overflow_bytes / 8 * 5 || b->lost > 0);
        assert_int_equal(b->lost, 0);
    }
    UNTIL(b->got_n == sent || b->lost > 0);
    expect_got(b, sent);
    assert_int_equal(broker.metrics[BM_corrupt_lanes_total], 0);
    stranger_free(&s);
}

/* A setting that is raised while the broker runs holds for rings that are attached. */
static void
a_raised_overflow_bound_holds_for_rings_that_are_attached(void **state)
{
    (void)state;
    struct stranger s;
    struct ipc_hello h = good_hello();
    conf.broker_dead_after = 60000;
    broker_begin();
    struct side *b = side_new("x");
    uint32_t sent = 0;
    UNTIL(all_restored());
    stranger_new(&s);
    stranger_attach(&s, &h, sizeof h, 1);
    conf.lane_overflow_bytes = 4u << 20;
    b->deaf = true;
    UNTIL(({
        while (stranger_publish(&s, sent, 1000))
            sent++;
        broker.overflow_bytes + 1100 > conf.lane_overflow_bytes || b->lost > 0;
    }));
    b->deaf = false;
    UNTIL(b->got_n == sent || b->lost > 0);
    expect_got(b, sent);
    assert_int_equal(b->lost, 0);
    stranger_free(&s);
}

/* -- which broker -- */

static void
another_broker_moves_only_its_share_of_channels(void **state)
{
    (void)state;
    unsigned per[8] = {0}, moved = 0;
    for (unsigned i = 0; i < 40000; i++) {
        char name[32];
        int n = snprintf(name, sizeof name, "channel-%u", i);
        unsigned of7 = ipc_owner(view_of(name, (size_t)n), 7),
                 of8 = ipc_owner(view_of(name, (size_t)n), 8);
        assert_true(of7 < 7 && of8 < 8);
        assert_int_equal(ipc_owner(view_of(name, (size_t)n), 1), 0);
        if (of7 != of8)
            assert_int_equal(of8, 7); /* only towards the new one */
        moved += of7 != of8;
        per[of8]++;
    }
    assert_in_range(moved, 40000 / 8 - 400, 40000 / 8 + 400);
    for (unsigned i = 0; i < 8; i++)
        assert_in_range(per[i], 40000 / 8 - 400, 40000 / 8 + 400);
}

/* Somebody who takes hellos as broker i and says nothing. */
static int
mute_broker(unsigned i)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    snprintf(sun.sun_path, sizeof sun.sun_path, "%s/broker-%u.sock", dir, i);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0 && bind(fd, (struct sockaddr *)&sun, sizeof sun) == 0 && listen(fd, 4) == 0);
    return fd;
}

/* The kernel clears that memory: with many rings and brokers at once, heartbeats would stand still for seconds. */
static void
a_turn_that_lasts_makes_one_segment_and_another_all(void **state)
{
    (void)state;
    static const unsigned after_first[] = {1, 3};
    int listeners[3];
    conf.broker_count = ARRAY_LEN(listeners);
    for (unsigned i = 0; i < ARRAY_LEN(listeners); i++)
        listeners[i] = mute_broker(i);
    for (unsigned quick = 0; quick < 2; quick++) {
        struct side *s = side_new("");
        struct mono began = mono_now();
        usleep(30000); /* what else the turn had to do */
        for (unsigned tick = 0, hellos = 0; tick < 3; tick++) {
            /* the turn began just now, or a while ago */
            (void)links_tick(s->links, quick ? mono_add_ms(began, DEADLINE_MS + tick * 1000) : began);
            for (unsigned i = 0; i < ARRAY_LEN(listeners); i++) {
                int fd = accept(listeners[i], NULL, NULL);
                hellos += fd >= 0;
                if (fd >= 0)
                    close(fd);
            }
            assert_int_equal(hellos, MIN(after_first[quick] + tick, 3));
        }
    }
    for (unsigned i = 0; i < ARRAY_LEN(listeners); i++)
        close(listeners[i]);
}

int
main(void)
{
    log_set_level(LOG_L_ERROR); /* deaths are what this is about */
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(rings_and_broker_start_in_either_order),
        T(a_turn_that_lasts_makes_one_segment_and_another_all),
        T(messages_reach_every_ring_once_in_order_and_are_acked),
        T(a_gap_comes_between_the_messages_where_it_was_written),
        T(no_data_empty_data_and_the_largest_arrive_as_sent),
        T(a_channel_number_that_is_used_again_is_another_channel),
        T(a_call_behind_others_hears_after_them),
        T(more_channels_than_allowed_fail_and_cost_nobody_else),
        T(a_ring_says_with_one_sync_that_it_has_said_all),
        T(a_ring_that_is_behind_stops_its_publishers_and_loses_nothing),
        T(a_channel_stopped_for_two_rings_waits_for_both),
        T(a_ring_with_too_much_of_a_channel_stops_its_publishers_on_every_ring),
        T(publishers_behind_a_full_lane_go_on_as_soon_as_there_is_room),
        T(a_broker_that_ends_leaves_no_request_without_an_outcome),
        T(what_a_broker_committed_before_it_hung_up_still_counts),
        T(what_is_held_for_a_broker_that_is_away_arrives_once_in_order),
        T(holding_is_bounded_in_bytes_and_in_time),
        T(a_killed_broker_never_makes_a_false_success_or_a_second_message),
        T(a_stopped_broker_counts_as_lost_and_is_found_again),
        T(an_attach_that_does_not_fit_is_refused_with_a_sentence),
        T(nonsense_in_a_lane_ends_that_ring_and_no_other),
        T(a_ring_that_hangs_up_takes_its_interests_along),
        T(a_ring_without_a_heartbeat_is_given_up),
        T(an_attach_with_another_lane_bytes_is_refused),
        T(an_oversized_publish_ends_that_ring_and_blocks_nobody),
        T(what_a_ring_committed_before_it_hung_up_is_published),
        T(an_overflow_is_compacted_before_its_ring_is_given_up),
        T(a_raised_overflow_bound_holds_for_rings_that_are_attached),
        cmocka_unit_test(another_broker_moves_only_its_share_of_channels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
