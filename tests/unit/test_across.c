/* broker/across, case by case, over a bus in memory: answers that wait, what is told when, bounds. That the books
 * balance whatever happens is test_across_sim's to show. */
#include "tests/unit/t_hosts.h"

#define HOSTS 2
#define X VIEW("x")

static struct bus_mem_net *net;
static struct t_host hosts[HOSTS];
static struct mono now;
static const char *settings[HOSTS][8]; /* pairs of key and value, set by a case before start() */

static void
start(unsigned h)
{
    struct conf_error err;
    conf_defaults(&hosts[h].conf);
    assert_true(conf_set(&hosts[h].conf, "host.name", h ? "h1" : "h0", "test", &err));
    hosts[h].conf.lane_bytes = T_LANE;
    for (unsigned i = 0; i + 1 < ARRAY_LEN(settings[h]) && settings[h][i] != NULL; i += 2)
        if (!conf_set(&hosts[h].conf, settings[h][i], settings[h][i + 1], "test", &err))
            fail_msg("%s", err.text);
    t_host_start(&hosts[h], net, 0, now);
}

static int
setup(void **state)
{
    (void)state;
    now = mono_add_ms((struct mono){0}, 5000);
    net = bus_mem_net_new();
    memset(settings, 0, sizeof settings);
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    for (unsigned h = 0; h < HOSTS; h++) {
        t_host_stop(&hosts[h]);
        conf_free(&hosts[h].conf);
        hosts[h].conf = (struct conf){0};
    }
    bus_mem_net_free(net);
    return 0;
}

static void
turns(unsigned ms, bool carry)
{
    for (unsigned passed = 0; passed <= ms; passed += 10) {
        for (unsigned h = 0; h < HOSTS; h++) {
            if (!hosts[h].up)
                continue;
            t_host_turn(&hosts[h], now);
            if (carry)
                (void)bus_mem_carry(net, bus_mem_node(hosts[h].b.bus), UINT32_MAX, UINT32_MAX);
        }
        now = mono_add_ms(now, 10);
    }
}

/* The other one stands still. */
static void
turns_of(unsigned h, unsigned ms)
{
    for (unsigned passed = 0; passed <= ms; passed += 10) {
        t_host_turn(&hosts[h], now);
        for (unsigned k = 0; k < HOSTS; k++)
            (void)bus_mem_carry(net, bus_mem_node(hosts[k].b.bus), UINT32_MAX, UINT32_MAX);
        now = mono_add_ms(now, 10);
    }
}

static void
both(void)
{
    start(0);
    start(1);
    turns(50, true);
}

/* The next word of a ring; fails if there is none, or another one. */
static struct t_word
expect(unsigned h, unsigned ring, uint8_t type)
{
    struct t_word w;
    if (!t_next(&hosts[h].rings[ring], &w))
        fail_msg("nothing comes, expected %u", type);
    if (w.type != type)
        fail_msg("%u comes (%u), expected %u", w.type, (unsigned)w.count, type);
    return w;
}

static void
expect_message(unsigned h, unsigned ring, const char *data)
{
    struct t_word w = expect(h, ring, IPC_MESSAGE);
    assert_true(view_eq(w.data, view_str(data)));
}

static void
expect_answer(unsigned h, unsigned ring, enum error_id err)
{
    struct t_word w = expect(h, ring, err == ERR_NONE ? IPC_DONE : IPC_FAILED);
    assert_int_equal(w.count, err == ERR_NONE ? 1 : err);
}

static void
expect_nothing(unsigned h, unsigned ring)
{
    struct t_word w;
    if (t_next(&hosts[h].rings[ring], &w))
        fail_msg("%u comes, expected nothing", w.type);
}

static void
say(unsigned h, const char *data)
{
    assert_true(t_publish(&hosts[h].rings[0], X, view_str(data)));
}

static void
listen_on(unsigned h, unsigned ring)
{
    assert_true(t_subscribe(&hosts[h].rings[ring], 7, 1, X));
    turns(30, true);
    expect_answer(h, ring, ERR_NONE);
}

static void
subscriber_on_host_1(void)
{
    both();
    listen_on(1, 1);
    turns(2000, true); /* who has not answered by then begins with 1 */
}

/* -- publishing -- */

static void
what_one_host_says_another_hears_once_and_itself_at_once(void **state)
{
    (void)state;
    both();
    listen_on(0, 1);
    listen_on(1, 1);
    say(0, "\"a\"");
    turns(0, false);
    expect_message(0, 1, "\"a\"");
    turns(30, true);
    expect_message(1, 1, "\"a\"");
    turns(3000, true);
    expect_nothing(0, 1);
    expect_nothing(1, 1);
    assert_int_equal(hosts[0].metrics[BM_bus_published_total], 1);
    assert_true(hosts[0].metrics[BM_bus_echoes_total] >= 1);
    assert_int_equal(hosts[1].metrics[BM_bus_received_total], 1);
    assert_true(across_is_idle(&hosts[0].b));
}

static void
with_the_order_of_the_bus_own_messages_are_heard_when_they_come_back(void **state)
{
    (void)state;
    settings[0][0] = "bus.order";
    settings[0][1] = "bus";
    both();
    listen_on(0, 1);
    turns(2000, true);
    say(0, "1");
    turns(0, false);
    expect_nothing(0, 1);
    turns(20, true);
    expect_message(0, 1, "1");
    /* It is lost on its way back: what is under way comes at once, and not again. */
    say(0, "2");
    turns(0, false);
    bus_mem_cut(net, 0, BUS_MEM_HEARS | BUS_MEM_SAYS);
    turns(0, false);
    expect_message(0, 1, "2");
    say(0, "3");
    turns(0, false);
    expect_message(0, 1, "3");
    bus_mem_heal(net, 0, BUS_MEM_HEARS | BUS_MEM_SAYS);
    turns(100, true);
    expect_nothing(0, 1);
    say(0, "4");
    turns(30, true);
    expect_message(0, 1, "4");
    expect_nothing(0, 1);
}

static void
an_echo_that_does_not_come_is_waited_for_no_longer_than_the_answer(void **state)
{
    (void)state;
    settings[0][0] = "bus.order";
    settings[0][1] = "bus";
    settings[0][2] = "bus.ack_wait";
    settings[0][3] = "300ms";
    both();
    listen_on(0, 1);
    turns(2000, true);
    bus_mem_lose(net, 0, 1);
    say(0, "1");
    turns(200, true);
    expect_nothing(0, 1);
    turns(200, true);
    expect_message(0, 1, "1");
    assert_int_equal(hosts[0].metrics[BM_bus_late_echoes_total], 1);
}

static void
a_required_bus_that_is_away_refuses_publishes(void **state)
{
    (void)state;
    settings[0][0] = "redis.required";
    settings[0][1] = "on";
    both();
    listen_on(0, 1);
    bus_mem_cut(net, 0, BUS_MEM_SAYS);
    turns(0, false);
    say(0, "1");
    turns(0, false);
    expect_answer(0, 0, ERR_BUS_AWAY);
    expect_nothing(0, 1);
    assert_int_equal(hosts[0].metrics[BM_bus_refused_total], 1);
    assert_int_equal(hosts[0].metrics[BM_bus_state], BUS_DOWN);
    bus_mem_heal(net, 0, BUS_MEM_SAYS);
    turns(50, true);
    say(0, "2");
    turns(0, true);
    expect_answer(0, 0, ERR_NONE);
    expect_message(0, 1, "2");
    assert_int_equal(hosts[0].metrics[BM_bus_state], BUS_UP);
    assert_true(hosts[0].metrics[BM_bus_away_ms_total] > 0);
}

static void
with_the_ack_of_the_bus_publishers_hear_what_became_of_it_in_order(void **state)
{
    (void)state;
    settings[0][0] = "bus.ack";
    settings[0][1] = "bus";
    both();
    say(0, "1");
    assert_true(t_subscribe(&hosts[0].rings[0], 3, 1, VIEW("y")));
    turns(0, false);
    expect_nothing(0, 0);
    bus_mem_refuse(net, 0, 1);
    (void)bus_mem_carry(net, 0, 0, UINT32_MAX); /* the subscribe is confirmed, and waits for the first answer */
    turns(0, false);
    expect_nothing(0, 0);
    turns(20, true);
    expect_answer(0, 0, ERR_BUS_REFUSED);
    expect_answer(0, 0, ERR_NONE);
    assert_int_equal(hosts[0].metrics[BM_bus_refused_total], 1);
}

static void
an_answer_of_the_bus_is_waited_for_so_long_and_no_longer(void **state)
{
    (void)state;
    settings[0][0] = "bus.ack";
    settings[0][1] = "bus";
    settings[0][2] = "bus.ack_wait";
    settings[0][3] = "200ms";
    both();
    bus_mem_cut(net, 0, BUS_MEM_SAYS);
    say(0, "1");
    turns(150, true);
    expect_nothing(0, 0);
    turns(100, true);
    expect_answer(0, 0, ERR_BUS_UNCONFIRMED);
    bus_mem_heal(net, 0, BUS_MEM_SAYS);
    turns(100, true);
    expect_nothing(0, 0);
    assert_int_equal(hosts[0].metrics[BM_bus_unconfirmed_total], 1);
}

/* -- subscribing -- */

static void
a_subscribe_is_answered_when_the_bus_has_it(void **state)
{
    (void)state;
    both();
    assert_true(t_subscribe(&hosts[0].rings[0], 7, 1, X));
    turns(100, false);
    expect_nothing(0, 0);
    turns(20, true);
    expect_answer(0, 0, ERR_NONE);
    assert_true(t_subscribe(&hosts[0].rings[1], 9, 1, X)); /* it is there already */
    turns(0, false);
    expect_answer(0, 1, ERR_NONE);
}

static void
unconfirmed_subscribes_get_what_is_configured(void **state)
{
    (void)state;
    settings[0][0] = settings[1][0] = "bus.subscribe_wait";
    settings[0][1] = settings[1][1] = "300ms";
    settings[1][2] = "bus.unconfirmed";
    settings[1][3] = "error";
    both();
    for (unsigned h = 0; h < HOSTS; h++) {
        bus_mem_cut(net, h, BUS_MEM_HEARS);
        assert_true(t_subscribe(&hosts[h].rings[0], 7, 1, X));
    }
    turns(200, true);
    expect_nothing(0, 0);
    turns(200, true);
    expect_answer(0, 0, ERR_NONE);
    expect_answer(1, 0, ERR_BUS_UNCONFIRMED);
    assert_int_equal(hosts[0].metrics[BM_bus_unconfirmed_total], 1);
    assert_int_equal(hosts[0].metrics[BM_interests], 1);
    assert_int_equal(hosts[1].metrics[BM_interests], 0);
    assert_int_equal(hosts[1].metrics[BM_channels], 0);
    bus_mem_heal(net, 0, BUS_MEM_HEARS);
    turns(50, true);
    assert_int_equal(expect(0, 0, IPC_GAP).count, 0); /* what others said since the answer did not come */
}

static bool
say_again(struct t_ring *r, uint32_t chan, uint32_t gen)
{
    uint32_t handle[2] = {chan, gen};
    return t_put(r, IPC_SUBSCRIBE, 0, 0, view_of(handle, 8), X);
}

/* A ring that comes from a broker that died says without a call what its clients have, and then what one of them asked
 * for meanwhile. That one fails; the others go on hearing the channel. */
static void
a_subscribe_that_fails_takes_nothing_from_who_had_it_before(void **state)
{
    (void)state;
    settings[1][0] = "bus.subscribe_wait";
    settings[1][1] = "300ms";
    settings[1][2] = "bus.unconfirmed";
    settings[1][3] = "error";
    both();
    bus_mem_cut(net, 1, BUS_MEM_HEARS);
    assert_true(say_again(&hosts[1].rings[0], 7, 1));
    assert_true(t_subscribe(&hosts[1].rings[0], 7, 1, X));
    assert_true(t_subscribe(&hosts[1].rings[1], 7, 1, X)); /* this one has nobody yet */
    turns(400, true);
    expect_answer(1, 0, ERR_BUS_UNCONFIRMED);
    expect_answer(1, 1, ERR_BUS_UNCONFIRMED);
    assert_int_equal(hosts[1].metrics[BM_interests], 1);
    bus_mem_heal(net, 1, BUS_MEM_HEARS);
    turns(1500, true);
    assert_int_equal(expect(1, 0, IPC_GAP).count, 0);
    say(0, "1");
    turns(20, true);
    expect_message(1, 0, "1");
    expect_nothing(1, 1);
}

/* It was answered with a success: at once, when the bus confirmed it, or because that took too long. */
static void
a_subscribe_that_fails_takes_nothing_from_who_was_answered(void **state)
{
    (void)state;
    struct conf_error err;
    settings[1][0] = "bus.subscribe_wait";
    settings[1][1] = "300ms";
    both();
    struct t_ring *r = hosts[1].rings;
    for (unsigned how = 0; how < 3; how++) {
        assert_true(conf_set(&hosts[1].conf, "bus.unconfirmed", "ack", "test", &err));
        if (how == 0)
            listen_on(1, 0);
        if (how == 2)
            bus_mem_cut(net, 1, BUS_MEM_HEARS);
        assert_true(t_subscribe(&r[1], 7, how, X));
        turns(400, true);
        expect_answer(1, 1, ERR_NONE);
        if (how == 0)
            assert_true(t_unsubscribe(&r[0], 7, 1));
        bus_mem_cut(net, 1, BUS_MEM_HEARS);
        assert_true(conf_set(&hosts[1].conf, "bus.unconfirmed", "error", "test", &err));
        turns(0, false);
        assert_true(t_subscribe(&r[1], 7, how, X));
        turns(400, true);
        for (struct t_word w = {0}; w.type != IPC_FAILED;)
            assert_true(t_next(&r[1], &w) && (w.type == IPC_GAP || w.type == IPC_FAILED));
        assert_int_equal(hosts[1].metrics[BM_interests], 1);
        bus_mem_heal(net, 1, BUS_MEM_HEARS);
        turns(1500, true);
        say(0, "1");
        turns(20, true);
        for (struct t_word w = {0}; w.type != IPC_MESSAGE;)
            assert_true(t_next(&r[1], &w) && (w.type == IPC_GAP || w.type == IPC_MESSAGE));
        assert_true(t_unsubscribe(&r[1], 7, how));
        turns(20, true);
        assert_int_equal(hosts[1].metrics[BM_channels], 0);
    }
}

/* Its process died and the next one is back at once: it has told nobody of anything. */
static void
a_ring_that_asks_for_the_first_time_has_missed_nothing(void **state)
{
    (void)state;
    subscriber_on_host_1();
    say(0, "1");
    turns(20, true);
    expect_message(1, 1, "1");
    assert_true(t_unsubscribe(&hosts[1].rings[1], 7, 1));
    turns(20, true);
    assert_true(t_subscribe(&hosts[1].rings[0], 0, 1, X));
    say(0, "2");
    turns(20, true);
    expect_answer(1, 0, ERR_NONE);
    say(0, "3");
    turns(2000, true);
    expect_message(1, 0, "3");
    expect_nothing(1, 0);
    assert_int_equal(hosts[1].metrics[BM_bus_unknown_gaps_total], 0);
}

static void
who_leaves_before_the_bus_confirmed_is_answered_all_the_same(void **state)
{
    (void)state;
    both();
    assert_true(t_subscribe(&hosts[0].rings[0], 7, 1, X));
    assert_true(t_unsubscribe(&hosts[0].rings[0], 7, 1));
    turns(0, false);
    expect_answer(0, 0, ERR_NONE);
    assert_int_equal(hosts[0].metrics[BM_channels], 0);
    turns(3000, true);
    expect_nothing(0, 0);
}

/* More requests wait than may: the rest stays in the lane and comes when there is room. */
static void
answers_that_wait_are_bounded(void **state)
{
    (void)state;
    settings[0][0] = "bus.ack";
    settings[0][1] = "bus";
    both();
    struct t_ring *r = &hosts[0].rings[0];
    unsigned said = 0;
    uint64_t done = 0;
    struct t_word w;
    for (unsigned k = 0; k < 400; k++) {
        while (said < PEER_ANSWERS_MAX + 500 && t_publish(r, X, VIEW("1")))
            said++;
        turns(0, false);
        assert_false(t_next(r, &w));
    }
    assert_int_equal(said, PEER_ANSWERS_MAX + 500);
    assert_int_equal(r->peer->answers.tail - r->peer->answers.head, PEER_ANSWERS_MAX);
    assert_true(r->peer->stuck);
    for (unsigned k = 0; k < 100; k++) {
        turns(0, true);
        while (t_next(r, &w)) {
            assert_int_equal(w.type, IPC_DONE);
            done += w.count;
        }
    }
    assert_int_equal(done, said);
}

/* -- hearing -- */

static void
a_hole_is_told_before_what_follows_it(void **state)
{
    (void)state;
    subscriber_on_host_1();
    say(0, "1");
    turns(20, true);
    expect_message(1, 1, "1");
    bus_mem_lose(net, 1, 2);
    say(0, "2");
    say(0, "3");
    say(0, "4");
    turns(20, true);
    assert_int_equal(expect(1, 1, IPC_GAP).count, 2);
    expect_message(1, 1, "4");
    assert_int_equal(hosts[1].metrics[BM_gap_messages_total], 2);
}

static void
a_lost_first_message_is_noticed(void **state)
{
    (void)state;
    subscriber_on_host_1();
    bus_mem_lose(net, 1, 1);
    say(0, "1");
    say(0, "2");
    turns(20, true);
    assert_int_equal(expect(1, 1, IPC_GAP).count, 1);
    expect_message(1, 1, "2");
}

static void
a_lost_last_message_is_noticed_by_the_mark_that_follows(void **state)
{
    (void)state;
    settings[0][0] = "bus.heartbeat";
    settings[0][1] = "500ms";
    subscriber_on_host_1();
    say(0, "1");
    turns(20, true);
    expect_message(1, 1, "1");
    bus_mem_lose(net, 1, 1);
    say(0, "2");
    turns(300, true);
    expect_nothing(1, 1);
    turns(300, true);
    assert_int_equal(expect(1, 1, IPC_GAP).count, 1);
    assert_true(hosts[0].metrics[BM_bus_marks_total] > 0);
    turns(5000, true);
    expect_nothing(1, 1);
}

static void
without_marks_it_is_noticed_by_the_next_message(void **state)
{
    (void)state;
    settings[0][0] = "bus.marks";
    settings[0][1] = "off";
    subscriber_on_host_1();
    say(0, "1");
    turns(20, true);
    expect_message(1, 1, "1");
    bus_mem_lose(net, 1, 1);
    say(0, "2");
    turns(5000, true);
    expect_nothing(1, 1);
    say(0, "3");
    turns(20, true);
    assert_int_equal(expect(1, 1, IPC_GAP).count, 1);
    expect_message(1, 1, "3");
}

static void
what_comes_twice_is_heard_once(void **state)
{
    (void)state;
    subscriber_on_host_1();
    bus_mem_twice(net, 1, 2);
    say(0, "1");
    say(0, "2");
    turns(20, true);
    expect_message(1, 1, "1");
    expect_message(1, 1, "2");
    expect_nothing(1, 1);
    assert_int_equal(hosts[1].metrics[BM_bus_duplicates_total], 2);
}

static void
a_link_lost_before_others_could_answer_is_a_gap_of_unknown_size(void **state)
{
    (void)state;
    both();
    listen_on(1, 1);
    bus_mem_cut(net, 1, BUS_MEM_HEARS);
    turns(0, false);
    assert_int_equal(expect(1, 1, IPC_GAP).count, 0);
    assert_int_equal(hosts[1].metrics[BM_bus_unknown_gaps_total], 1);
}

static void
who_was_cut_off_asks_and_is_told_exactly(void **state)
{
    (void)state;
    subscriber_on_host_1();
    say(0, "1");
    turns(20, true);
    expect_message(1, 1, "1");
    bus_mem_cut(net, 1, BUS_MEM_HEARS);
    say(0, "2");
    say(0, "3");
    turns(50, true);
    bus_mem_heal(net, 1, BUS_MEM_HEARS);
    turns(200, true);
    assert_int_equal(expect(1, 1, IPC_GAP).count, 2);
    expect_nothing(1, 1);
    assert_true(hosts[1].metrics[BM_bus_asks_total] >= 2);
}

/* Both were cut off: the ask of the one was not heard by the other, who asks for it when it is back. */
static void
an_ask_that_nobody_heard_is_said_again(void **state)
{
    (void)state;
    subscriber_on_host_1();
    say(0, "1");
    turns(20, true);
    expect_message(1, 1, "1");
    bus_mem_cut(net, 1, BUS_MEM_HEARS);
    say(0, "2");
    turns(50, true);
    bus_mem_cut(net, 0, BUS_MEM_HEARS);
    bus_mem_heal(net, 1, BUS_MEM_HEARS);
    turns(1500, true);
    bus_mem_heal(net, 0, BUS_MEM_HEARS);
    turns(1500, true);
    assert_int_equal(expect(1, 1, IPC_GAP).count, 1);
    expect_nothing(1, 1);
}

/* The origin was away itself when somebody came: what it said long before is not missing. */
static void
who_could_not_hear_the_ask_is_no_gap(void **state)
{
    (void)state;
    both();
    say(0, "1");
    say(0, "2");
    turns(3000, true);
    bus_mem_cut(net, 0, BUS_MEM_HEARS);
    turns(0, false);
    listen_on(1, 1);
    turns(2500, true);
    bus_mem_heal(net, 0, BUS_MEM_HEARS);
    turns(1500, true);
    say(0, "3");
    turns(20, true);
    expect_message(1, 1, "3");
    expect_nothing(1, 1);
}

/* Nothing follows what gave way, and marks are off for quiet channels: it is told all the same. */
static void
dropped_last_messages_are_told_at_once(void **state)
{
    (void)state;
    settings[0][0] = "bus.marks";
    settings[0][1] = "off";
    subscriber_on_host_1();
    say(0, "1");
    turns(20, true);
    expect_message(1, 1, "1");
    bus_mem_bound(net, 0, 0);
    bus_mem_cut(net, 0, BUS_MEM_SAYS);
    turns(0, false);
    say(0, "2");
    turns(50, true);
    assert_int_equal(hosts[0].metrics[BM_bus_dropped_total], 1);
    bus_mem_heal(net, 0, BUS_MEM_SAYS);
    turns(200, true);
    assert_int_equal(expect(1, 1, IPC_GAP).count, 1);
    expect_nothing(1, 1);
}

static void
who_died_while_we_were_cut_off_is_a_gap_of_unknown_size(void **state)
{
    (void)state;
    subscriber_on_host_1();
    say(0, "1");
    turns(20, true);
    expect_message(1, 1, "1");
    bus_mem_cut(net, 1, BUS_MEM_HEARS);
    say(0, "2");
    turns(50, true);
    t_host_stop(&hosts[0]);
    bus_mem_heal(net, 1, BUS_MEM_HEARS);
    turns(29000, true);
    expect_nothing(1, 1);
    turns(2000, true);
    assert_int_equal(expect(1, 1, IPC_GAP).count, 0);
    turns(40000, true);
    expect_nothing(1, 1);
}

static void
raw(struct view name, struct view bytes)
{
    struct bus *bus = hosts[0].b.bus;
    assert_true(bus->ops->publish(bus, (struct bus_topic){BUS_CHANNEL, name}, bytes, VIEW_NONE, 0));
    turns(20, true);
}

static void
envelope_of(struct view body, unsigned flags, uint64_t number)
{
    uint8_t bytes[256];
    struct envelope e = {.kind = ENVELOPE_MESSAGE, .flags = flags, .stretch = 1, .number = number};
    memset(&e.origin, 9, sizeof e.origin);
    size_t n = envelope_put(bytes, &e);
    memcpy(bytes + n, body.p, body.n);
    raw(X, view_of(bytes, n + body.n));
}

static void
raw_ask(unsigned by, unsigned flags, struct view name)
{
    uint8_t bytes[256];
    struct envelope e = {.kind = ENVELOPE_ASK, .flags = flags};
    struct bus *bus = hosts[by].b.bus;
    memset(&e.origin, 9, sizeof e.origin);
    size_t n = envelope_put(bytes, &e);
    if (name.n > 0)
        n += envelope_name_put(bytes + n, name);
    assert_true(bus->ops->publish(bus, (struct bus_topic){BUS_CONTROL, VIEW("hosts")}, view_of(bytes, n), VIEW_NONE, 0));
}

/* Host 0 said something, and has been silent for longer than bus.answer_within when host 1 begins to listen. */
static void
subscriber_after_a_silence(void)
{
    both();
    say(0, "1");
    turns(11000, true);
    uint64_t marks = hosts[0].metrics[BM_bus_marks_total];
    listen_on(1, 1);
    turns(1500, true);
    assert_int_equal(hosts[0].metrics[BM_bus_marks_total], marks);
    assert_int_equal(hosts[0].metrics[BM_bus_unanswered_total], 1);
    expect_nothing(1, 1);
}

static void
who_has_been_silent_for_long_does_not_answer_who_begins_and_nothing_is_missing(void **state)
{
    (void)state;
    subscriber_after_a_silence();
    say(0, "2");
    turns(20, true);
    expect_message(1, 1, "2");
    bus_mem_lose(net, 1, 1);
    say(0, "3");
    say(0, "4");
    turns(20, true);
    assert_int_equal(expect(1, 1, IPC_GAP).count, 1);
    expect_message(1, 1, "4");
}

static void
what_is_lost_after_a_silence_is_counted_from_it(void **state)
{
    (void)state;
    subscriber_after_a_silence();
    bus_mem_lose(net, 1, 2);
    say(0, "2");
    say(0, "3");
    say(0, "4");
    turns(20, true);
    assert_int_equal(expect(1, 1, IPC_GAP).count, 2);
    expect_message(1, 1, "4");
}

static void
who_was_cut_off_learns_what_was_said_after_a_silence(void **state)
{
    (void)state;
    subscriber_after_a_silence();
    bus_mem_cut(net, 1, BUS_MEM_HEARS);
    say(0, "2");
    turns(20, true);
    bus_mem_heal(net, 1, BUS_MEM_HEARS);
    turns(200, true);
    assert_int_equal(expect(1, 1, IPC_GAP).count, 1);
    turns(40000, true);
    expect_nothing(1, 1);
}

/* As if another host had begun to listen after a silence behind what this one missed. */
static void
a_silence_that_began_after_who_listens_tells_of_a_gap_of_unknown_size(void **state)
{
    (void)state;
    subscriber_on_host_1();
    turns(2000, true);
    uint8_t bytes[256];
    struct envelope e = {.kind = ENVELOPE_MARK, .flags = ENVELOPE_BASE, .stretch = 1, .number = 5, .base = 5, .base_age = 1000};
    memset(&e.origin, 9, sizeof e.origin);
    raw(X, view_of(bytes, envelope_put(bytes, &e)));
    assert_int_equal(expect(1, 1, IPC_GAP).count, 0);
    e.origin.broker = 8;
    e.base_age = 10000;
    raw(X, view_of(bytes, envelope_put(bytes, &e)));
    expect_nothing(1, 1);
}

/* A server that restarts: everybody was away and asks, and who has been silent answers. */
static void
after_a_lost_link_of_all_a_silence_is_no_gap(void **state)
{
    (void)state;
    subscriber_after_a_silence();
    for (unsigned h = 0; h < HOSTS; h++)
        bus_mem_cut(net, h, BUS_MEM_HEARS | BUS_MEM_SAYS);
    turns(500, true);
    for (unsigned h = 0; h < HOSTS; h++)
        bus_mem_heal(net, h, BUS_MEM_HEARS | BUS_MEM_SAYS);
    turns(2000, true);
    expect_nothing(1, 1);
    say(0, "2");
    turns(20, true);
    expect_message(1, 1, "2");
}

/* That somebody was answered is over with the answer. */
static void
what_followed_a_silence_and_an_answer_is_counted(void **state)
{
    (void)state;
    subscriber_after_a_silence();
    bus_mem_cut(net, 1, BUS_MEM_HEARS);
    turns(0, false);
    raw_ask(0, 0, X);
    turns(1000, true);
    say(0, "2");
    turns(20, true);
    bus_mem_heal(net, 1, BUS_MEM_HEARS);
    turns(500, true);
    assert_int_equal(expect(1, 1, IPC_GAP).count, 1);
    expect_nothing(1, 1);
}

static void
one_mark_serves_all_who_ask_within_a_short_time(void **state)
{
    (void)state;
    both();
    say(0, "1");
    turns(2000, true);
    uint64_t marks = hosts[0].metrics[BM_bus_marks_total];
    for (unsigned k = 0; k < 10; k++) {
        raw_ask(0, 0, X);
        turns(0, true);
    }
    turns(200, true);
    assert_in_range(hosts[0].metrics[BM_bus_marks_total] - marks, 2, 3);
}

/* Its link was lost before it was answered, and it has been told so: it begins anew. */
static void
who_begins_anew_after_a_lost_link_is_told_no_more(void **state)
{
    (void)state;
    both();
    say(0, "1");
    turns(50, true);
    assert_true(t_subscribe(&hosts[1].rings[1], 7, 1, X));
    turns_of(1, 100);
    expect_answer(1, 1, ERR_NONE);
    bus_mem_cut(net, 1, BUS_MEM_HEARS);
    turns(2000, true);
    assert_int_equal(expect(1, 1, IPC_GAP).count, 0);
    bus_mem_heal(net, 1, BUS_MEM_HEARS);
    turns(3000, true);
    expect_nothing(1, 1);
}

/* What was said after the silence may have been missed, and cannot be counted: the origin does not know who asked. */
static void
after_a_lost_link_of_all_what_followed_a_silence_is_a_gap(void **state)
{
    (void)state;
    subscriber_after_a_silence();
    bus_mem_cut(net, 1, BUS_MEM_HEARS);
    turns(0, false);
    say(0, "2");
    turns(100, true);
    bus_mem_cut(net, 0, BUS_MEM_HEARS);
    turns(100, true);
    for (unsigned h = 0; h < HOSTS; h++)
        bus_mem_heal(net, h, BUS_MEM_HEARS);
    turns(2000, true);
    assert_int_equal(expect(1, 1, IPC_GAP).count, 0);
    expect_nothing(1, 1);
}

/* Its last message was refused, and the mark that told so was heard: it is not told to those who come later. */
static void
a_refused_last_message_is_told_to_those_who_were_there(void **state)
{
    (void)state;
    subscriber_on_host_1();
    bus_mem_refuse(net, 0, 1);
    say(0, "1");
    turns(200, true);
    assert_int_equal(expect(1, 1, IPC_GAP).count, 1);
    assert_true(t_unsubscribe(&hosts[1].rings[1], 7, 1));
    turns(100, true);
    listen_on(1, 1);
    turns(1500, true);
    expect_nothing(1, 1);
}

/* The same, but the only one who was there was cut off, and a silence begins with that message. */
static void
a_silence_begins_when_a_mark_has_told_of_what_was_refused(void **state)
{
    (void)state;
    subscriber_on_host_1();
    bus_mem_cut(net, 1, BUS_MEM_HEARS);
    bus_mem_refuse(net, 0, 1);
    say(0, "1");
    turns(11000, true);
    raw_ask(0, ENVELOPE_FIRST_ASK, X);
    turns(100, true);
    assert_int_equal(hosts[0].metrics[BM_bus_unanswered_total], 1);
    bus_mem_heal(net, 1, BUS_MEM_HEARS);
    turns(1000, true);
    assert_int_equal(expect(1, 1, IPC_GAP).count, 0);
}

/* It heard the ask, and could not answer in time. */
static void
a_mark_that_comes_late_is_no_gap(void **state)
{
    (void)state;
    both();
    say(0, "1");
    turns(50, true);
    bus_mem_cut(net, 0, BUS_MEM_SAYS);
    turns(0, false);
    listen_on(1, 1);
    for (unsigned k = 0; k < 30; k++) {
        turns(100, true);
        raw_ask(1, 0, X); /* others ask later, and wait for less long */
    }
    bus_mem_heal(net, 0, BUS_MEM_SAYS);
    turns(500, true);
    expect_nothing(1, 1);
    say(0, "2");
    turns(20, true);
    expect_message(1, 1, "2");
}

static void
a_refused_answer_to_an_ask_is_no_gap(void **state)
{
    (void)state;
    settings[0][0] = "bus.heartbeat";
    settings[0][1] = "20s";
    both();
    say(0, "1");
    turns(100, true);
    bus_mem_refuse(net, 0, 1);
    listen_on(1, 1);
    turns(2000, true);
    say(0, "2");
    turns(20, true);
    expect_message(1, 1, "2");
}

static void
a_refused_mark_is_said_again_without_marks_too(void **state)
{
    (void)state;
    settings[0][0] = "bus.marks";
    settings[0][1] = "off";
    subscriber_on_host_1();
    say(0, "1");
    turns(20, true);
    expect_message(1, 1, "1");
    bus_mem_cut(net, 1, BUS_MEM_HEARS);
    say(0, "2");
    turns(100, true);
    bus_mem_refuse(net, 0, 1);
    bus_mem_heal(net, 1, BUS_MEM_HEARS);
    turns(500, true);
    expect_nothing(1, 1);
    turns(1500, true);
    assert_int_equal(expect(1, 1, IPC_GAP).count, 1);
    uint64_t marks = hosts[0].metrics[BM_bus_marks_total];
    turns(5000, true);
    assert_int_equal(hosts[0].metrics[BM_bus_marks_total], marks);
}

/* An origin that stood still while somebody came says at once what waited in its lanes. */
static void
what_is_said_first_after_standing_still_is_no_gap(void **state)
{
    (void)state;
    both();
    say(0, "1");
    turns(50, true);
    assert_true(t_subscribe(&hosts[1].rings[1], 7, 1, X));
    turns_of(1, 2500);
    expect_answer(1, 1, ERR_NONE);
    say(0, "2");
    turns(100, true);
    expect_message(1, 1, "2");
    expect_nothing(1, 1);
}

/* The answer was there in time; who asked was not. */
static void
what_came_while_this_host_stood_still_is_not_late(void **state)
{
    (void)state;
    both();
    say(0, "1");
    turns(50, true);
    assert_true(t_subscribe(&hosts[1].rings[1], 7, 1, X));
    turns_of(1, 100);
    expect_answer(1, 1, ERR_NONE);
    turns_of(0, 30);
    now = mono_add_ms(now, 3000);
    turns_of(1, 100);
    expect_nothing(1, 1);
    turns(2000, true);
    bus_mem_lose(net, 1, 1);
    say(0, "2");
    say(0, "3");
    turns(20, true);
    assert_int_equal(expect(1, 1, IPC_GAP).count, 1);
}

/* Others who come and go and want to be asked do not keep a dead one from being missed. */
static void
who_died_is_missed_though_others_come_back_all_the_time(void **state)
{
    (void)state;
    subscriber_on_host_1();
    say(0, "1");
    turns(20, true);
    expect_message(1, 1, "1");
    bus_mem_cut(net, 1, BUS_MEM_HEARS);
    turns(50, true);
    t_host_stop(&hosts[0]);
    bus_mem_heal(net, 1, BUS_MEM_HEARS);
    for (unsigned k = 0; k < 7; k++) {
        turns(10000, true);
        raw_ask(1, 0, VIEW_NONE);
    }
    assert_int_equal(expect(1, 1, IPC_GAP).count, 0);
    expect_nothing(1, 1);
}

/* It is cut off a second time before it has judged who is missing: that is to wait until it is back. */
static void
who_died_during_a_second_loss_is_missed(void **state)
{
    (void)state;
    subscriber_on_host_1();
    say(0, "1");
    turns(20, true);
    expect_message(1, 1, "1");
    bus_mem_cut(net, 1, BUS_MEM_HEARS);
    turns(50, true);
    bus_mem_heal(net, 1, BUS_MEM_HEARS);
    turns(20000, true);
    bus_mem_cut(net, 1, BUS_MEM_HEARS);
    turns(15000, true);
    say(0, "2");
    turns(50, true);
    t_host_stop(&hosts[0]);
    expect_nothing(1, 1);
    bus_mem_heal(net, 1, BUS_MEM_HEARS);
    turns(32000, true);
    assert_int_equal(expect(1, 1, IPC_GAP).count, 0);
}

static void
an_ask_that_does_not_come_back_is_said_again(void **state)
{
    (void)state;
    both();
    turns(2000, true);
    bus_mem_deaf(net, 1, 1);
    listen_on(1, 1);
    turns(9000, true);
    assert_int_equal(hosts[1].metrics[BM_bus_asks_total], 1);
    turns(3000, true);
    assert_int_equal(hosts[1].metrics[BM_bus_asks_total], 2);
    bus_mem_lose(net, 1, 1); /* it began then, a second ago */
    say(0, "1");
    say(0, "2");
    turns(20, true);
    assert_int_equal(expect(1, 1, IPC_GAP).count, 1);
    turns(20000, true);
    assert_int_equal(hosts[1].metrics[BM_bus_asks_total], 2);
}

/* One server of several is away: asks go by the others, and who may not have heard some says so. */
static void
with_a_part_of_the_bus_asks_go_on(void **state)
{
    (void)state;
    both();
    say(0, "1");
    for (unsigned h = 0; h < HOSTS; h++)
        bus_mem_partly(net, h, true);
    turns(1500, true);
    assert_int_equal(hosts[1].metrics[BM_bus_state], BUS_PARTLY);
    bus_mem_deaf(net, 0, 1);
    listen_on(1, 1);
    turns(2000, true);
    assert_int_equal(hosts[1].metrics[BM_bus_asks_total], 1);
    say(0, "2");
    turns(20, true);
    expect_message(1, 1, "2");
    expect_nothing(1, 1);
}

/* The server that had the ask was lost with it. */
static void
an_ask_is_said_again_when_all_of_the_bus_is_back(void **state)
{
    (void)state;
    both();
    turns(2000, true);
    bus_mem_partly(net, 1, true);
    bus_mem_deaf(net, 1, 1);
    listen_on(1, 1);
    turns(2000, true);
    assert_int_equal(hosts[1].metrics[BM_bus_asks_total], 1);
    bus_mem_partly(net, 1, false);
    turns(100, true);
    assert_int_equal(hosts[1].metrics[BM_bus_asks_total], 2);
}

/* It gave way to a message while a link was lost. */
static void
a_mark_that_gave_way_is_said_as_soon_as_it_can_be(void **state)
{
    (void)state;
    settings[0][0] = "bus.heartbeat";
    settings[0][1] = "20s";
    subscriber_on_host_1();
    say(0, "1");
    turns(20, true);
    expect_message(1, 1, "1");
    bus_mem_cut(net, 1, BUS_MEM_HEARS);
    say(0, "2");
    turns(100, true);
    bus_mem_heal(net, 1, BUS_MEM_HEARS);
    turns_of(1, 20);
    bus_mem_bound(net, 0, 1);
    t_host_turn(&hosts[0], now); /* hears the ask */
    now = mono_add_ms(now, 10);
    t_host_turn(&hosts[0], now); /* says the mark, which stays on its way */
    bus_mem_cut(net, 0, BUS_MEM_SAYS);
    t_host_turn(&hosts[0], now);
    assert_true(t_publish(&hosts[0].rings[0], VIEW("y"), VIEW("1")));
    turns(20, true);
    expect_nothing(1, 1);
    bus_mem_heal(net, 0, BUS_MEM_SAYS);
    turns(300, true);
    assert_int_equal(hosts[0].metrics[BM_bus_marks_total], 2);
    assert_int_equal(expect(1, 1, IPC_GAP).count, 1);
}

/* Its clients were told that they are subscribed by the broker before. */
static void
a_ring_that_comes_back_hears_of_a_gap_when_the_bus_has_confirmed(void **state)
{
    uint32_t handle[2] = {7, 1};
    (void)state;
    both();
    assert_true(t_put(&hosts[1].rings[1], IPC_SUBSCRIBE, 0, 0, view_of(handle, 8), X));
    turns(100, false);
    expect_nothing(1, 1);
    turns(20, true);
    assert_int_equal(expect(1, 1, IPC_GAP).count, 0);
    assert_true(t_put(&hosts[1].rings[0], IPC_SUBSCRIBE, 0, 0, view_of(handle, 8), X));
    turns(2000, true);
    expect_nothing(1, 0);
    expect_nothing(1, 1);
}

/* Who asks all the time collects names. */
static void
asks_of_a_short_time_go_together(void **state)
{
    (void)state;
    char name[8];
    both();
    turns(2000, true);
    uint64_t said = hosts[1].metrics[BM_bus_asks_total];
    for (unsigned i = 0; i < 40; i++) {
        int n = snprintf(name, sizeof name, "n%u", i);
        assert_true(t_subscribe(&hosts[1].rings[1], 20 + i, 1, view_of(name, (size_t)n)));
        turns(0, true);
        assert_true(i == 0 || hosts[1].b.bus_wait_ms <= 50); /* the rest is not forgotten */
    }
    turns(60, true);
    assert_int_equal(hosts[1].metrics[BM_bus_asks_total] - said, 40);
    assert_in_range(hosts[1].metrics[BM_bus_ask_messages_total], 5, 12);
}

/* Who asks for one channel for the first time and for another once more says which is which. */
static void
first_asks_and_others_go_apart(void **state)
{
    (void)state;
    subscriber_after_a_silence();
    bus_mem_cut(net, 1, BUS_MEM_HEARS);
    turns(50, true);
    bus_mem_heal(net, 1, BUS_MEM_HEARS);
    turns(1500, true);
    uint64_t said = hosts[1].metrics[BM_bus_ask_messages_total], asks = hosts[1].metrics[BM_bus_asks_total];
    assert_true(t_subscribe(&hosts[1].rings[1], 8, 1, VIEW("y")));
    turns(0, true);
    raw_ask(0, 0, VIEW_NONE);
    turns(200, true);
    assert_int_equal(hosts[1].metrics[BM_bus_asks_total] - asks, 2);
    assert_int_equal(hosts[1].metrics[BM_bus_ask_messages_total] - said, 2);
}

static void
what_no_client_could_have_said_is_counted_and_told_as_missing(void **state)
{
    (void)state;
    subscriber_on_host_1();
    envelope_of(VIEW("{\"a\":1}"), ENVELOPE_HAS_DATA, 1);
    expect_message(1, 1, "{\"a\":1}");
    const struct view bad[] = {VIEW("{\"a\":1"), VIEW(""), VIEW("\"\xff\""), VIEW("1],[2"), VIEW("nul")};
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        envelope_of(bad[i], ENVELOPE_HAS_DATA, 2 + i);
        assert_int_equal(expect(1, 1, IPC_GAP).count, 1);
    }
    envelope_of(VIEW("no data, they said"), 0, 2 + ARRAY_LEN(bad));
    assert_int_equal(expect(1, 1, IPC_GAP).count, 1);
    assert_int_equal(hosts[1].metrics[BM_bus_bad_total], ARRAY_LEN(bad) + 1);
}

static void
what_is_no_envelope_is_counted(void **state)
{
    (void)state;
    subscriber_on_host_1();
    raw(X, VIEW("{\"plain\":true}"));
    raw(X, VIEW("\xc1\x01\x08short"));
    raw(X, VIEW("\xc1\x09\x08" "a later version"));
    raw(X, VIEW("\xc1\x01\x02HOSTHOST\1\2\3\4\0\0\0\0\0"));
    expect_nothing(1, 1);
    assert_int_equal(hosts[1].metrics[BM_bus_foreign_total], 1);
    assert_int_equal(hosts[1].metrics[BM_bus_bad_total], 2); /* an ask has no business on a channel */
    assert_int_equal(hosts[1].metrics[BM_bus_unknown_total], 1);
}

static void
what_can_not_be_followed_is_heard_with_a_gap_before_it(void **state)
{
    (void)state;
    settings[1][0] = "bus.max_followed";
    settings[1][1] = "1";
    subscriber_on_host_1();
    say(0, "1");
    turns(20, true);
    expect_message(1, 1, "1");
    envelope_of(VIEW("2"), ENVELOPE_HAS_DATA, 1);
    assert_int_equal(expect(1, 1, IPC_GAP).count, 0);
    expect_message(1, 1, "2");
    assert_int_equal(hosts[1].metrics[BM_bus_unfollowed_total], 1);
    assert_int_equal(hosts[1].metrics[BM_bus_followed], 1);
}

/* With room for one channel's numbers, the other is forgotten, and says so when it is asked for. */
static void
a_forgotten_channel_begins_a_new_stretch_and_says_that_it_forgot(void **state)
{
    (void)state;
    settings[0][0] = "bus.max_sources";
    settings[0][1] = "1";
    subscriber_on_host_1();
    say(0, "1");
    turns(20, true);
    expect_message(1, 1, "1");
    assert_true(t_publish(&hosts[0].rings[0], VIEW("y"), VIEW("1")));
    turns(20, true);
    say(0, "2"); /* number 1 of another stretch: nothing was missed */
    turns(20, true);
    expect_message(1, 1, "2");
    for (unsigned times = 0; times < 2; times++) { /* the second time nothing is known of it from before, either */
        bus_mem_cut(net, 1, BUS_MEM_HEARS);
        say(0, "3");
        turns(20, true);
        assert_true(t_publish(&hosts[0].rings[0], VIEW("y"), VIEW("2")));
        turns(20, true);
        bus_mem_heal(net, 1, BUS_MEM_HEARS);
        turns(200, true);
        assert_int_equal(expect(1, 1, IPC_GAP).count, 0);
    }
    say(0, "4");
    turns(20, true);
    expect_message(1, 1, "4");
    assert_int_equal(hosts[0].metrics[BM_bus_sources], 1);
}

static void
who_had_forgotten_before_somebody_came_tells_of_a_gap_too(void **state)
{
    (void)state;
    settings[0][0] = "bus.max_sources";
    settings[0][1] = "1";
    both();
    for (unsigned times = 0; times < 2; times++) {
        say(0, "1");
        turns(20, true);
        assert_true(t_publish(&hosts[0].rings[0], VIEW("y"), VIEW("1")));
        turns(100, true);
        if (times == 0) {
            listen_on(1, 1);
            turns(2000, true);
            expect_nothing(1, 1);
            bus_mem_cut(net, 1, BUS_MEM_HEARS);
            turns(0, false);
        }
    }
    bus_mem_heal(net, 1, BUS_MEM_HEARS);
    turns(500, true);
    assert_int_equal(expect(1, 1, IPC_GAP).count, 0);
}

static void
what_comes_late_of_a_stretch_before_is_not_heard(void **state)
{
    uint8_t bytes[256];
    (void)state;
    subscriber_on_host_1();
    struct envelope e = {.kind = ENVELOPE_MESSAGE, .stretch = 2, .number = 1};
    memset(&e.origin, 9, sizeof e.origin);
    raw(X, view_of(bytes, envelope_put(bytes, &e)));
    expect_message(1, 1, "");
    e.stretch = 1;
    e.number = 5;
    raw(X, view_of(bytes, envelope_put(bytes, &e)));
    expect_nothing(1, 1);
}

static void
a_ring_without_room_is_told_how_many_it_missed(void **state)
{
    (void)state;
    settings[1][0] = "lane.overflow_bytes";
    settings[1][1] = "4096";
    subscriber_on_host_1();
    unsigned heard = 0, missed = 0;
    static char big[2050];
    memset(big, '7', sizeof big - 1);
    for (unsigned i = 0; i < 100; i++) {
        say(0, big);
        turns(20, true);
    }
    struct t_word w;
    for (unsigned k = 0; k < 5; k++) {
        while (t_next(&hosts[1].rings[1], &w)) {
            heard += w.type == IPC_MESSAGE;
            missed += w.type == IPC_GAP ? (unsigned)w.count : 0;
        }
        turns(0, true);
    }
    assert_int_equal(heard + missed, 100);
    assert_true(missed > 10);
    assert_int_equal(hosts[1].metrics[BM_missed_full_total], missed);
}

/* -- hosts -- */

static unsigned heartbeats;

static void
on_heartbeat(struct broker *b, const struct envelope *e)
{
    assert_ptr_equal(b, &hosts[1].b);
    struct envelope_origin from = across_self(&hosts[0].b);
    assert_memory_equal(&e->origin, &from, sizeof from);
    assert_true(view_eq(e->body, VIEW("load")));
    heartbeats++;
}

static void
heartbeats_reach_the_others(void **state)
{
    (void)state;
    heartbeats = 0;
    both();
    across_hear_hosts(&hosts[1].b, on_heartbeat);
    assert_true(across_say_host(&hosts[0].b, VIEW("load")));
    turns(20, true);
    assert_int_equal(heartbeats, 1);
    struct envelope_origin a = across_self(&hosts[0].b), b = across_self(&hosts[1].b);
    assert_memory_not_equal(a.host, b.host, 8);
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(what_one_host_says_another_hears_once_and_itself_at_once),
        T(with_the_order_of_the_bus_own_messages_are_heard_when_they_come_back),
        T(an_echo_that_does_not_come_is_waited_for_no_longer_than_the_answer),
        T(a_required_bus_that_is_away_refuses_publishes),
        T(with_the_ack_of_the_bus_publishers_hear_what_became_of_it_in_order),
        T(an_answer_of_the_bus_is_waited_for_so_long_and_no_longer),
        T(a_subscribe_is_answered_when_the_bus_has_it),
        T(unconfirmed_subscribes_get_what_is_configured),
        T(a_subscribe_that_fails_takes_nothing_from_who_had_it_before),
        T(a_subscribe_that_fails_takes_nothing_from_who_was_answered),
        T(a_ring_that_asks_for_the_first_time_has_missed_nothing),
        T(who_leaves_before_the_bus_confirmed_is_answered_all_the_same),
        T(answers_that_wait_are_bounded),
        T(a_hole_is_told_before_what_follows_it),
        T(a_lost_first_message_is_noticed),
        T(a_lost_last_message_is_noticed_by_the_mark_that_follows),
        T(without_marks_it_is_noticed_by_the_next_message),
        T(what_comes_twice_is_heard_once),
        T(a_link_lost_before_others_could_answer_is_a_gap_of_unknown_size),
        T(who_was_cut_off_asks_and_is_told_exactly),
        T(an_ask_that_nobody_heard_is_said_again),
        T(who_could_not_hear_the_ask_is_no_gap),
        T(dropped_last_messages_are_told_at_once),
        T(who_died_while_we_were_cut_off_is_a_gap_of_unknown_size),
        T(what_no_client_could_have_said_is_counted_and_told_as_missing),
        T(who_has_been_silent_for_long_does_not_answer_who_begins_and_nothing_is_missing),
        T(what_is_lost_after_a_silence_is_counted_from_it),
        T(who_was_cut_off_learns_what_was_said_after_a_silence),
        T(a_silence_that_began_after_who_listens_tells_of_a_gap_of_unknown_size),
        T(after_a_lost_link_of_all_a_silence_is_no_gap),
        T(after_a_lost_link_of_all_what_followed_a_silence_is_a_gap),
        T(a_refused_last_message_is_told_to_those_who_were_there),
        T(a_silence_begins_when_a_mark_has_told_of_what_was_refused),
        T(a_mark_that_comes_late_is_no_gap),
        T(a_refused_answer_to_an_ask_is_no_gap),
        T(a_refused_mark_is_said_again_without_marks_too),
        T(what_is_said_first_after_standing_still_is_no_gap),
        T(what_came_while_this_host_stood_still_is_not_late),
        T(who_died_is_missed_though_others_come_back_all_the_time),
        T(an_ask_that_does_not_come_back_is_said_again),
        T(what_followed_a_silence_and_an_answer_is_counted),
        T(one_mark_serves_all_who_ask_within_a_short_time),
        T(who_begins_anew_after_a_lost_link_is_told_no_more),
        T(who_had_forgotten_before_somebody_came_tells_of_a_gap_too),
        T(what_comes_late_of_a_stretch_before_is_not_heard),
        T(who_died_during_a_second_loss_is_missed),
        T(with_a_part_of_the_bus_asks_go_on),
        T(an_ask_is_said_again_when_all_of_the_bus_is_back),
        T(a_mark_that_gave_way_is_said_as_soon_as_it_can_be),
        T(a_ring_that_comes_back_hears_of_a_gap_when_the_bus_has_confirmed),
        T(asks_of_a_short_time_go_together),
        T(first_asks_and_others_go_apart),
        T(what_is_no_envelope_is_counted),
        T(what_can_not_be_followed_is_heard_with_a_gap_before_it),
        T(a_forgotten_channel_begins_a_new_stretch_and_says_that_it_forgot),
        T(a_ring_without_room_is_told_how_many_it_missed),
        T(heartbeats_reach_the_others),
    };
    log_set_level(LOG_L_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
