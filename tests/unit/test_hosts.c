/* broker/hosts and broker/tally: brokers of several hosts over a bus in memory, what they know of each other, and what
 * operators are answered (broker/ask). */
#include "tests/unit/t_hosts.h"

#include <sys/socket.h>
#include <unistd.h>

#include "broker/ask.h"
#include "broker/hosts.h"
#include "broker/tally.h"

#define HOSTS 3
#define BEAT_MS 1000

static struct world {
    struct mono now;
    struct bus_mem_net *net;
    struct t_host hosts[HOSTS];
    bool silent_rings; /* they do not answer */
} w;

static struct broker *
broker_of(unsigned i)
{
    return &w.hosts[i].b;
}

static void
start(unsigned i, const char *name)
{
    struct t_host *h = &w.hosts[i];
    struct conf_error err;
    conf_defaults(&h->conf);
    h->conf.bus_heartbeat = BEAT_MS;
    if (!conf_set(&h->conf, "host.name", name, "test", &err))
        fail_msg("%s", err.text);
    t_host_start(h, w.net, 0, w.now);
    assert_int_equal(ring_init(&h->b.ring, 64, 256), 0);
    assert_true(hosts_open(&h->b) && tally_init(&h->b) && ask_init(&h->b));
}

static void
stop(unsigned i)
{
    struct t_host *h = &w.hosts[i];
    if (!h->up)
        return;
    tally_fini(&h->b);
    ask_fini(&h->b);
    hosts_close(&h->b);
    ring_fini(&h->b.ring);
    t_host_stop(h);
    conf_free(&h->conf);
}

static int
setup(void **state)
{
    (void)state;
    memset(&w, 0, sizeof w);
    w.now = (struct mono){1000000000000u};
    w.net = bus_mem_net_new();
    return w.net != NULL ? 0 : -1;
}

static int
teardown(void **state)
{
    (void)state;
    for (unsigned i = 0; i < HOSTS; i++)
        stop(i);
    bus_mem_net_free(w.net);
    return 0;
}

/* Rings answer what they are asked: ring r of host i has 10 * i + r + 1 subscribers. */
static void
rings_answer(unsigned i)
{
    for (unsigned r = 0; r < T_RINGS; r++) {
        struct t_ring *ring = &w.hosts[i].rings[r];
        struct lane_record rec;
        const uint8_t *p;
        while (lane_peek(&ring->in, &rec, &p) == LANE_RECORD) {
            uint32_t answer[2] = {0, 10 * i + r + 1};
            if (rec.type == IPC_TALLY && !w.silent_rings) {
                assert_int_equal(rec.n, 12);
                memcpy(answer, p + 8, 4);
                assert_true(t_put(ring, IPC_TALLIED, 0, 0, view_of(answer, 8), VIEW_NONE));
                assert_true(t_put(ring, IPC_TALLIED, 0, 0, view_of(answer, 8), VIEW_NONE)); /* twice: counted once */
            }
            lane_take(&ring->in, &rec);
        }
        (void)!lane_release(&ring->in);
    }
}

static void
on_done(void *arg, struct ring_done d)
{
    struct broker *b = arg;
    struct ask *a = pool_find(&b->asks, d.slot, d.gen);
    assert_int_equal(d.op, OP_ASKED);
    assert_non_null(a);
    a->inflight--;
    if (a->gone)
        ask_free(b, a);
    else
        ask_on_writable(b, a, d);
}

static void
turn(void)
{
    for (unsigned i = 0; i < HOSTS; i++) {
        if (!w.hosts[i].up)
            continue;
        struct broker *b = broker_of(i);
        b->now = w.now;
        ring_wait(&b->ring, 0);
        ring_reap(&b->ring, on_done, b);
        tally_turn(b);
        hosts_turn(b);
        t_host_turn(&w.hosts[i], w.now);
        ask_tick(b);
        bus_mem_carry(w.net, bus_mem_node(b->bus), UINT32_MAX, UINT32_MAX);
        rings_answer(i);
    }
}

static void
pass(uint64_t ms)
{
    for (uint64_t at = 0; at < ms; at += 50) {
        w.now = mono_add_ms(w.now, 50);
        turn();
    }
}

#define metric(i, name) (w.hosts[i].metrics[BM_##name])

/* -- operators -- */

static int
ask(unsigned i, const char *question)
{
    int fds[2];
    uint8_t m[8 + IPC_ASK_MAX + 8];
    uint64_t magic = IPC_ASK_MAGIC;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, fds), 0);
    memcpy(m, &magic, 8);
    memcpy(m + 8, question, strlen(question));
    assert_int_equal(send(fds[0], m, 8 + strlen(question), 0), 8 + strlen(question));
    assert_true(ask_is_one(fds[1]));
    ask_take(broker_of(i), fds[1]);
    return fds[0];
}

static char text[1 << 20];

/* All of an answer, which comes within so many turns. */
static const char *
answer(int fd, unsigned turns)
{
    size_t n = 0;
    for (ssize_t got = -1; got != 0;) {
        got = recv(fd, text + n, sizeof text - 1 - n, 0);
        if (got > 0)
            n += (size_t)got;
        else if (got < 0) {
            assert_true(turns-- > 0);
            pass(50);
        }
    }
    text[n] = '\0';
    close(fd);
    assert_true(n >= 4 && strcmp(text + n - 4, "end\n") == 0);
    return text;
}

static unsigned
lines_with(const char *all, const char *what)
{
    unsigned n = 0;
    for (const char *p = all; (p = strstr(p, what)) != NULL; p++)
        n++;
    return n;
}

/* -- hosts -- */

static void
hosts_hear_each_other_and_who_ends_is_gone_at_once(void **state)
{
    (void)state;
    start(0, "a");
    start(1, "b");
    start(2, "c");
    atomic_store(&w.hosts[1].rings[0].peer->seg->connections, 40);
    atomic_store(&w.hosts[1].rings[1].peer->seg->connections, 2);
    pass(3 * BEAT_MS);
    for (unsigned i = 0; i < HOSTS; i++) {
        assert_int_equal(metric(i, hosts), 3);
        assert_int_equal(metric(i, host_brokers), 3);
        assert_int_equal(metric(i, hosts_deaf), 0);
        assert_int_equal(metric(i, hosts_joined_total), 2);
        assert_int_equal(hosts_count(broker_of(i)), 2);
    }
    const char *said = answer(ask(0, "hosts"), 0);
    assert_int_equal(lines_with(said, "host id="), 3);
    assert_int_equal(lines_with(said, "self=1"), 1);
    assert_int_equal(lines_with(said, "state=up"), 3);
    assert_non_null(strstr(said, "connections=42 "));
    assert_non_null(strstr(said, "release=" RINGCAST_VERSION " name=b\n"));
    assert_int_equal(lines_with(said, " lost=0 "), 3);
    said = answer(ask(0, "bus"), 0);
    assert_non_null(strstr(said, "bus kind=mem state=up"));
    assert_non_null(strstr(said, "deaf=0 brokers=3\n"));
    assert_false(hosts_leave(broker_of(2)));
    turn();
    assert_false(hosts_leave(broker_of(2)));
    turn();
    assert_true(hosts_leave(broker_of(2)));
    turn();
    stop(2);
    assert_int_equal(metric(0, hosts), 2);
    assert_int_equal(metric(0, hosts_left_total), 1);
    assert_int_equal(metric(1, hosts), 2);
}

/* Who was known before is waited for; each says that it is there as soon as it is, and those who always were when they
 * hear of somebody who is back. */
static void
whoever_is_back_first_waits_for_the_others(void **state)
{
    (void)state;
    unsigned both = BUS_MEM_HEARS | BUS_MEM_SAYS, node[HOSTS];
    start(0, "a");
    start(1, "b");
    start(2, "c");
    for (unsigned i = 0; i < HOSTS; i++) {
        node[i] = bus_mem_node(broker_of(i)->bus);
        broker_of(i)->conf->bus_heartbeat = 60000; /* nothing below hangs on a regular one */
    }
    pass(3 * BEAT_MS);
    assert_false(broker_of(0)->bus->held);
    for (unsigned i = 0; i < HOSTS; i++)
        bus_mem_cut(w.net, node[i], both);
    pass(1000);
    assert_true(broker_of(0)->bus->held && broker_of(1)->bus->held && broker_of(2)->bus->held);
    bus_mem_heal(w.net, node[0], both);
    pass(1000);
    assert_int_equal(broker_of(0)->bus->state, BUS_UP);
    assert_true(broker_of(0)->bus->held);
    bus_mem_heal(w.net, node[1], both);
    pass(1000);
    assert_true(broker_of(0)->bus->held);
    bus_mem_heal(w.net, node[2], both);
    pass(500);
    assert_false(broker_of(0)->bus->held);
    pass(15000); /* a quarter of a heartbeat */
    assert_false(broker_of(1)->bus->held || broker_of(2)->bus->held);
    bus_mem_cut(w.net, node[1], both);
    pass(16000);
    bus_mem_heal(w.net, node[1], both);
    pass(300);
    assert_false(broker_of(0)->bus->held || broker_of(1)->bus->held);
}

static void
who_is_alone_refuses_or_ends_waits_for_nobody(void **state)
{
    (void)state;
    unsigned both = BUS_MEM_HEARS | BUS_MEM_SAYS;
    start(0, "a");
    unsigned node = bus_mem_node(broker_of(0)->bus);
    pass(2 * BEAT_MS);
    bus_mem_cut(w.net, node, both);
    pass(1000);
    assert_false(broker_of(0)->bus->held);
    bus_mem_heal(w.net, node, both);
    start(1, "b");
    pass(2 * BEAT_MS);
    broker_of(0)->conf->redis_required = true;
    bus_mem_cut(w.net, node, both);
    pass(1000);
    assert_false(broker_of(0)->bus->held);
    bus_mem_heal(w.net, node, both);
    pass(2 * BEAT_MS);
    broker_of(0)->conf->redis_required = false;
    bus_mem_cut(w.net, node, both);
    pass(1000);
    assert_true(broker_of(0)->bus->held);
    broker_of(0)->stopping = 1;
    pass(100);
    assert_false(broker_of(0)->bus->held);
}

static void
who_is_silent_for_five_heartbeats_is_forgotten(void **state)
{
    (void)state;
    start(0, "a");
    start(1, "b");
    pass(2 * BEAT_MS);
    assert_int_equal(metric(0, hosts), 2);
    stop(1); /* without a word */
    pass(4 * BEAT_MS);
    assert_int_equal(metric(0, hosts), 2);
    pass(3 * BEAT_MS);
    assert_int_equal(metric(0, hosts), 1);
    assert_int_equal(metric(0, hosts_left_total), 1);
}

/* What it does not hear says nothing about others. */
static void
who_does_not_hear_itself_takes_nobodys_silence_for_an_end(void **state)
{
    (void)state;
    start(0, "a");
    start(1, "b");
    pass(2 * BEAT_MS);
    unsigned node = bus_mem_node(broker_of(0)->bus);
    bus_mem_cut(w.net, node, BUS_MEM_HEARS | BUS_MEM_SAYS);
    pass(12 * BEAT_MS);
    assert_int_equal(metric(0, hosts_deaf), 1);
    assert_int_equal(metric(0, hosts), 2);
    assert_int_equal(metric(1, hosts), 1); /* the other one hears itself alone */
    assert_int_equal(lines_with(answer(ask(0, "hosts"), 0), "state=deaf"), 1);
    assert_int_equal(lines_with(text, "state=unheard"), 1);
    bus_mem_heal(w.net, node, BUS_MEM_HEARS | BUS_MEM_SAYS);
    pass(3 * BEAT_MS);
    assert_int_equal(metric(0, hosts_deaf), 0);
    assert_int_equal(metric(0, hosts), 2);
    assert_int_equal(metric(1, hosts), 2);
    assert_int_equal(metric(0, hosts_left_total), 0);
    bus_mem_cut(w.net, node, BUS_MEM_HEARS | BUS_MEM_SAYS);
    pass(12 * BEAT_MS);
    assert_non_null(strstr(answer(ask(0, "occupancy news"), 4), "error the bus did not take the question"));
    stop(1); /* meanwhile */
    bus_mem_heal(w.net, node, BUS_MEM_HEARS | BUS_MEM_SAYS);
    pass(8 * BEAT_MS);
    assert_int_equal(metric(0, hosts), 1);
}

/* Not even of those it has never heard. */
static void
who_was_never_heard_by_anybody_does_not_say_that_it_is_alone(void **state)
{
    (void)state;
    start(0, "a");
    bus_mem_cut(w.net, bus_mem_node(broker_of(0)->bus), BUS_MEM_HEARS | BUS_MEM_SAYS);
    pass(8 * BEAT_MS);
    assert_int_equal(metric(0, hosts_deaf), 1);
    assert_int_equal(lines_with(answer(ask(0, "occupancy news"), 4), "error "), 1);
    assert_int_equal(lines_with(text, "self=1 answered=1 count=0"), 1);
}

static void
a_copied_machine_is_a_conflict_and_a_restart_is_none(void **state)
{
    (void)state;
    start(0, "a");
    start(1, "b");
    pass(3 * BEAT_MS);
    stop(1); /* killed, and started again */
    start(1, "b");
    pass(3 * BEAT_MS);
    assert_int_equal(metric(0, hosts), 2);
    assert_int_equal(hosts_count(broker_of(0)), 2);
    assert_int_equal(lines_with(answer(ask(0, "hosts"), 0), "state=replaced"), 1);
    pass(5 * BEAT_MS);
    assert_int_equal(hosts_count(broker_of(0)), 1);
    assert_int_equal(metric(0, host_conflicts_total), 0);
    start(2, "b");
    pass(6 * BEAT_MS);
    assert_int_equal(metric(0, host_conflicts_total), 1);
    assert_int_equal(metric(1, host_conflicts_total), 1); /* as itself is concerned */
    assert_int_equal(metric(2, host_conflicts_total), 1);
    assert_int_equal(lines_with(answer(ask(0, "hosts"), 0), "state=conflict"), 1);
    pass(6 * BEAT_MS);
    assert_int_equal(metric(0, host_conflicts_total), 1); /* said once */
}

/* A heartbeat of who is not there. */
static void
hear(unsigned i, unsigned stranger, const struct hostbeat *h)
{
    uint8_t mem[HOSTBEAT_BYTES_MAX];
    struct buf out = buf_fixed(mem, sizeof mem);
    struct envelope e = {.kind = ENVELOPE_HOST, .origin = {.epoch = stranger}};
    memcpy(e.origin.host, &stranger, sizeof stranger);
    assert_true(hostbeat_put(&out, h));
    e.body = buf_view(&out);
    hosts_on_heartbeat(broker_of(i), &e);
}

static void
more_brokers_than_the_table_holds_are_counted_and_all_are_told(void **state)
{
    (void)state;
    start(0, "a");
    turn();
    static char name[HOSTBEAT_NAME_MAX];
    memset(name, 'n', sizeof name);
    struct hostbeat h = {.kind = HOSTBEAT_ALIVE, .seq = UINT64_MAX, .name = view_of(name, sizeof name),
        .release = view_of(name, HOSTBEAT_RELEASE_MAX)};
#define HOSTBEAT_NUMBER(tag, name, sentence) h.name = UINT64_MAX;
    HOSTBEAT_NUMBERS(HOSTBEAT_NUMBER)
#undef HOSTBEAT_NUMBER
    for (unsigned i = 1; i <= HOSTS_MAX + 10; i++)
        hear(0, i, &h);
    assert_int_equal(hosts_count(broker_of(0)), HOSTS_MAX);
    assert_int_equal(metric(0, hosts), HOSTS_MAX + 1);
    assert_int_equal(metric(0, hosts_refused_total), 10);
    assert_int_equal(lines_with(answer(ask(0, "hosts"), 100), "host id="), HOSTS_MAX + 1); /* in many pieces */
    hear(0, 5, &(struct hostbeat){.kind = HOSTBEAT_LEAVING, .seq = 1});
    hear(0, HOSTS_MAX + 5, &h);
    assert_int_equal(hosts_count(broker_of(0)), HOSTS_MAX);
}

static void
broken_heartbeats_are_counted_and_late_ones_change_nothing(void **state)
{
    (void)state;
    start(0, "a");
    turn();
    hear(0, 7, &(struct hostbeat){.kind = HOSTBEAT_ALIVE, .seq = 5, .rings = 3});
    hear(0, 7, &(struct hostbeat){.kind = HOSTBEAT_ALIVE, .seq = 9, .rings = 4});
    hear(0, 7, &(struct hostbeat){.kind = HOSTBEAT_ALIVE, .seq = 9, .rings = 5}); /* by another server */
    hear(0, 7, &(struct hostbeat){.kind = HOSTBEAT_ALIVE, .seq = 8, .rings = 6});
    assert_int_equal(hosts_at(broker_of(0), 0)->said.rings, 4);
    assert_int_equal(hosts_at(broker_of(0), 0)->lost, 3);
    struct envelope e = {.kind = ENVELOPE_HOST, .body = VIEW("\x01\x01\x7f")};
    hosts_on_heartbeat(broker_of(0), &e);
    assert_int_equal(metric(0, heartbeats_bad_total), 1);
    assert_int_equal(hosts_count(broker_of(0)), 1);
}

/* -- occupancy -- */

static void
subscribe_all(void)
{
    for (unsigned i = 0; i < HOSTS; i++)
        for (unsigned r = 0; r < T_RINGS && w.hosts[i].up; r++)
            assert_true(t_subscribe(&w.hosts[i].rings[r], 3, 1, VIEW("news")));
    pass(BEAT_MS);
}

static void
subscribers_are_counted_on_every_host(void **state)
{
    (void)state;
    start(0, "a");
    start(1, "b");
    start(2, "c");
    pass(2 * BEAT_MS);
    subscribe_all();
    const char *said = answer(ask(0, "occupancy news"), 10);
    assert_int_equal(lines_with(said, "count id="), 3);
    assert_int_equal(lines_with(said, "answered=1"), 3);
    assert_int_equal(lines_with(said, "silent=0"), 3);
    assert_non_null(strstr(said, "count=3 silent=0 name=a\n")); /* 1 + 2 */
    assert_non_null(strstr(said, "count=23 silent=0 name=b\n")); /* 11 + 12 */
    assert_non_null(strstr(said, "count=43 silent=0 name=c\n"));
    said = answer(ask(1, "occupancy nobody's"), 10);
    assert_int_equal(lines_with(said, "count=0 silent=0"), 3);
    assert_int_equal(lines_with(said, "answered=1"), 3);
}

static void
who_does_not_answer_in_time_is_said(void **state)
{
    (void)state;
    start(0, "a");
    start(1, "b");
    start(2, "c");
    pass(2 * BEAT_MS);
    subscribe_all();
    stop(2); /* and nobody knows yet */
    const char *said = answer(ask(0, "occupancy news"), TALLY_WAIT_MS / 50 + 4);
    assert_int_equal(lines_with(said, "answered=0 count=0 silent=0 name=c\n"), 1);
    assert_int_equal(lines_with(said, "answered=1"), 2);
    w.silent_rings = true;
    said = answer(ask(0, "occupancy news"), TALLY_WAIT_MS / 50 + 4);
    assert_int_equal(lines_with(said, "silent=2"), 2); /* both rings, here and there */
    w.silent_rings = false;
    bus_mem_cut(w.net, bus_mem_node(broker_of(0)->bus), BUS_MEM_SAYS);
    pass(100);
    said = answer(ask(0, "occupancy news"), TALLY_WAIT_MS / 50 + 4);
    assert_non_null(strstr(said, "error the bus did not take the question"));
    assert_non_null(strstr(said, "count=3 silent=0 name=a\n"));
}

/* Answers to questions nobody asked, of strangers, twice. */
static void
answers_that_were_not_asked_for_count_nothing(void **state)
{
    (void)state;
    start(0, "a");
    start(1, "b");
    pass(2 * BEAT_MS);
    subscribe_all();
    int fd = ask(0, "occupancy news");
    struct envelope_origin a = across_self(broker_of(0)), b = across_self(broker_of(1));
    for (uint64_t n = 0; n < 5; n++)
        hear(0, 99, &(struct hostbeat){.kind = HOSTBEAT_COUNTED, .to = a, .ask = n, .count = 1000});
    hear(0, 99, &(struct hostbeat){.kind = HOSTBEAT_COUNTED, .to = b, .ask = 1, .count = 1000});
    tally_on_counted(broker_of(0), w.hosts[0].rings[0].peer, 77, 1000);
    const char *said = answer(fd, 10);
    assert_int_equal(lines_with(said, "count id="), 2);
    assert_non_null(strstr(said, "count=3 silent=0 name=a\n"));
    assert_non_null(strstr(said, "count=23 silent=0 name=b\n"));
}

static void
questions_have_their_bounds(void **state)
{
    (void)state;
    start(0, "a");
    start(1, "b");
    pass(2 * BEAT_MS);
    subscribe_all();
    int fds[ASK_MAX + 2];
    w.silent_rings = true;
    for (unsigned i = 0; i < ARRAY_LEN(fds); i++)
        fds[i] = ask(0, "occupancy news");
    assert_int_equal(metric(0, asks_refused_total), 2);
    for (unsigned i = 0; i < ARRAY_LEN(fds); i++) {
        if (i < ASK_MAX)
            assert_int_equal(lines_with(answer(fds[i], TALLY_WAIT_MS / 50 + 4), "silent=2"), 2);
        else
            assert_int_equal(recv(fds[i], text, 1, 0), 0), close(fds[i]);
    }
    for (unsigned i = 0; i < TALLY_MAX + 5; i++) /* of another host: each waits for rings */
        hear(0, 9, &(struct hostbeat){.kind = HOSTBEAT_COUNT, .ask = i + 1, .channel = VIEW("news")});
    assert_int_equal(metric(0, tallies_refused_total), 5);
    pass(3 * TALLY_WAIT_MS);
    for (unsigned i = 0; i < TALLY_ANSWERS_MAX + 50; i++) /* answered at once, but not so many a second */
        hear(0, 9, &(struct hostbeat){.kind = HOSTBEAT_COUNT, .ask = i + 1, .channel = VIEW("x")});
    assert_int_equal(metric(0, tallies_refused_total), 55);
}

static void
what_is_no_question_is_answered_so(void **state)
{
    (void)state;
    start(0, "a");
    turn();
    assert_string_equal(answer(ask(0, "host"), 0), "error this broker knows hosts, bus and occupancy NAME\nend\n");
    assert_non_null(strstr(answer(ask(0, ""), 0), "error "));
    w.hosts[0].conf.broker_count = 8; /* this is broker 0 */
    unsigned elsewhere = 0;
    for (unsigned i = 0; i < 8; i++) {
        char question[32];
        snprintf(question, sizeof question, "occupancy c%u", i);
        elsewhere += strstr(answer(ask(0, question), 2), "elsewhere broker=") != NULL;
    }
    assert_in_range(elsewhere, 4, 8);
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds), 0);
    assert_false(ask_is_one(fds[1])); /* nothing has come */
    static const char longest[8 + IPC_ASK_MAX + 100] = {0x52, 0x43, 0x53, 0x41, 0x53, 0x4b, 0x20, 0x31};
    assert_int_equal(send(fds[0], longest, sizeof longest, 0), sizeof longest);
    assert_true(ask_is_one(fds[1]));
    ask_take(broker_of(0), fds[1]);
    assert_int_equal(recv(fds[0], text, 8, 0), 0);
    close(fds[0]);
    assert_int_equal(metric(0, asks_refused_total), 1);
}

/* An operator's program that stops in the middle. */
static void
who_does_not_take_its_answer_is_hung_up_on(void **state)
{
    (void)state;
    start(0, "a");
    turn();
    struct hostbeat h = {.kind = HOSTBEAT_ALIVE, .seq = 1};
    for (unsigned i = 1; i <= HOSTS_MAX; i++)
        hear(0, i, &h);
    broker_of(0)->conf->bus_heartbeat = 600000; /* they stay */
    int fd = ask(0, "hosts");
    assert_int_equal(broker_of(0)->asks.live, 1);
    pass(6000);
    assert_int_equal(broker_of(0)->asks.live, 0);
    close(fd);
}

int
main(void)
{
    log_set_level(LOG_L_ERROR);
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(hosts_hear_each_other_and_who_ends_is_gone_at_once),
        T(whoever_is_back_first_waits_for_the_others),
        T(who_is_alone_refuses_or_ends_waits_for_nobody),
        T(who_is_silent_for_five_heartbeats_is_forgotten),
        T(who_does_not_hear_itself_takes_nobodys_silence_for_an_end),
        T(who_was_never_heard_by_anybody_does_not_say_that_it_is_alone),
        T(a_copied_machine_is_a_conflict_and_a_restart_is_none),
        T(more_brokers_than_the_table_holds_are_counted_and_all_are_told),
        T(broken_heartbeats_are_counted_and_late_ones_change_nothing),
        T(subscribers_are_counted_on_every_host),
        T(who_does_not_answer_in_time_is_said),
        T(answers_that_were_not_asked_for_count_nothing),
        T(questions_have_their_bounds),
        T(what_is_no_question_is_answered_so),
        T(who_does_not_take_its_answer_is_hung_up_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
