/* worker/fan: a message is encoded once for all its subscribers, and what came in a turn leaves as one. */
#include "common/rc.h"
#include "tests/unit/t_worker.h"
#include "worker/fan.h"
#include "worker/outq.h"

/* n clients that hear a channel. */
static void
listeners(struct t_client *who[], unsigned n, const char *channel)
{
    for (unsigned i = 0; i < n; i++) {
        who[i] = t_open();
        t_subscribe(who[i], channel);
    }
}

static const char *
number(unsigned i)
{
    static char text[16];
    snprintf(text, sizeof text, "%u", i);
    return text;
}

/* A message whose data is a string of n bytes, with its quotes. */
static const char *
text_of(size_t n)
{
    static char text[200000];
    assert_in_range(n, 2, sizeof text - 1);
    memset(text, 'd', n);
    text[0] = text[n - 1] = '"';
    text[n] = '\0';
    return text;
}

static struct chan *
chan(const char *name)
{
    struct chan *ch = subs_find(t.w, view_str(name));
    assert_non_null(ch);
    return ch;
}

static void
messages_of_a_turn_are_one_send_to_each_subscriber(void **state)
{
    struct t_client *who[6];
    (void)state;
    t_begin();
    listeners(who, 6, "x");
    for (unsigned i = 0; i < 6; i += 2)
        t_subscribe(who[i], "y");
    uint64_t sends = t_counter(sends_total), out = t_counter(messages_out_total);
    for (unsigned i = 0; i < 10; i++) {
        t_message("x", number(i));
        t_message("y", number(100 + i));
    }
    assert_int_equal(chan("x")->batch_messages, 10);
    t_turn();
    assert_int_equal(t_counter(sends_total) - sends, 6);
    assert_int_equal(t_counter(deliveries_total), 6 * 10 + 3 * 10);
    assert_int_equal(t_counter(messages_out_total) - out, 90);
    for (unsigned i = 0; i < 6; i++) {
        for (unsigned k = 0; k < 10; k++)
            t_hears_message(who[i], "x", number(k));
        for (unsigned k = 0; k < 10 && i % 2 == 0; k++)
            t_hears_message(who[i], "y", number(100 + k));
        t_hears_nothing(who[i]);
    }
    assert_int_equal(t_counter(sends_total) - sends, 6);
}

/* However many hear it, a message stands in memory once, and they share it. */
static void
subscribers_share_one_block(void **state)
{
    struct t_client *who[40];
    (void)state;
    t_begin();
    listeners(who, 40, "x");
    t_turns(3);
    uint64_t before = t.w->blocks.bytes;
    t_message("x", text_of(10000));
    fan_out_all(t.w);
    assert_in_range(t.w->blocks.bytes - before, 10000, 16384);
    for (unsigned i = 0; i < 40; i++) {
        assert_int_equal(segq_count(&t_conn(who[i])->out), 1);
        assert_ptr_equal(segq_at(&t_conn(who[i])->out, 0)->rc, segq_at(&t_conn(who[0])->out, 0)->rc);
    }
    assert_int_equal(segq_at(&t_conn(who[0])->out, 0)->rc->refs, 40);
    for (unsigned i = 0; i < 40; i++)
        t_hears_message(who[i], "x", text_of(10000));
    t_turn();
    assert_int_equal(t.w->blocks.bytes, before);
}

/* Few subscribers: the turn's arena, as for answers. More: a block of the channel's own, so that a slow
 * one keeps that channel's messages and nothing else. */
static void
small_channels_share_the_arena_and_larger_ones_have_their_own_block(void **state)
{
    struct t_client *who[4];
    (void)state;
    t_begin();
    listeners(who, 4, "four");
    for (unsigned i = 0; i < 3; i++)
        t_subscribe(who[i], "three");
    t_message("three", "1");
    t_message("four", "2");
    assert_true(chan("three")->batch->turn);
    assert_ptr_equal(chan("three")->batch, t.w->arena);
    assert_false(chan("four")->batch->turn);
    t_turn();
    t_message("three", text_of(20000)); /* the arena is for small things */
    assert_false(chan("three")->batch->turn);
    t_hears_message(who[0], "three", "1");
    t_hears_message(who[0], "four", "2");
    t_hears_message(who[0], "three", text_of(20000));
    t_hears_message(who[3], "four", "2");
    t_hears_nothing(who[3]);
}

static void
a_batch_grows_with_its_messages_up_to_a_bound(void **state)
{
    struct t_client *who[5];
    (void)state;
    t_begin();
    listeners(who, 5, "x");
    unsigned in_batch = 0, most = 0;
    for (unsigned i = 0; i < 2000; i++) {
        t_message("x", number(i));
        in_batch = chan("x")->batch_messages;
        most = MAX(most, in_batch);
        assert_true(chan("x")->batch_len <= RC_CLASS_MAX);
        assert_int_equal(chan("x")->batch->refs, 1);
    }
    uint32_t one = conn_frame_size(chan("x")->batch->data); /* all are about as long */
    assert_in_range(most, 65536 / one - 20, 65536 / one + 20);
    assert_in_range(segq_count(&t_conn(who[0])->out), 1, 2000 * one / 60000 + 1);
    t_turn();
    for (unsigned i = 0; i < 5; i++)
        for (unsigned k = 0; k < 2000; k++)
            t_hears_message(who[i], "x", number(k));
    assert_int_equal(t_counter(deliveries_total), 10000);
}

/* In the arena the batch of one channel ends where the next one's begins. */
static void
channels_that_take_turns_in_the_arena_keep_their_order(void **state)
{
    struct t_client *a, *b;
    (void)state;
    t_begin();
    listeners(&a, 1, "x");
    listeners(&b, 1, "y");
    t_subscribe(a, "y");
    for (unsigned i = 0; i < 3000; i++) /* more than one arena */
        t_message(i % 3 ? "x" : "y", number(i));
    for (unsigned i = 0; i < 3000; i++) {
        if (i % 3)
            continue;
        t_hears_message(b, "y", number(i));
    }
    t_hears_nothing(b);
    unsigned x = 1, y = 0;
    for (unsigned k = 0; k < 3000; k++) { /* each channel in its order */
        struct view payload;
        t_next_frame(a, &payload);
        const char *data = strstr((const char *)payload.p, "\"data\":");
        data = strstr(data + 1, "\"data\":");
        assert_non_null(data);
        unsigned got = (unsigned)atoi(data + 7);
        if (got % 3) {
            assert_int_equal(got, x);
            x += x % 3 == 1 ? 1 : 2;
        } else {
            assert_int_equal(got, y);
            y += 3;
        }
    }
    assert_int_equal(y, 3000);
    t_hears_nothing(a);
}

/* The header's length changes at 126 and at 65536 bytes of payload. */
static void
every_length_is_framed_as_it_is(void **state)
{
    static const size_t edges[] = {126, 65536};
    struct t_client *who[5];
    (void)state;
    t_begin();
    listeners(who, 5, "x");
    size_t fixed = strlen("{\"event\":\"#publish\",\"data\":{\"channel\":\"x\",\"data\":}}");
    for (size_t i = 0; i < ARRAY_LEN(edges); i++)
        for (size_t n = edges[i] - 6; n < edges[i] + 6; n++) {
            t_message("x", "1"); /* one before and one behind it in the batch */
            t_message("x", text_of(n - fixed));
            t_message("x", "2");
            for (unsigned k = 0; k < 5; k++) {
                struct view payload;
                t_hears_message(who[k], "x", "1");
                assert_int_equal(t_next_frame(who[k], &payload), WS_TEXT);
                assert_int_equal(payload.n, n);
                assert_memory_equal(payload.p + fixed - 2, text_of(n - fixed), n - fixed);
                t_hears_message(who[k], "x", "2");
            }
        }
}

static void
names_that_need_escapes_throughout_fit(void **state)
{
    char name[1025], spelled[1024 * 6 + 1];
    struct t_client *who[5];
    struct view payload;
    struct chan *ch;
    (void)state;
    memset(name, 1, sizeof name - 1);
    name[sizeof name - 1] = '\0';
    for (unsigned i = 0; i < 1024; i++)
        memcpy(spelled + i * 6, "\\u0001", 7);
    t_begin();
    for (unsigned i = 0; i < 5; i++) {
        who[i] = t_open();
        (void)!subs_add(t.w, t_conn(who[i]), view_str(name), &ch);
    }
    for (unsigned i = 0; i < 20; i++)
        fan_on_message(t.w, pool_slot(&t.w->chans, ch), ch->head.gen, true, VIEW("[1]"));
    for (unsigned i = 0; i < 20; i++) {
        assert_int_equal(t_next_frame(who[4], &payload), WS_TEXT);
        assert_non_null(strstr((const char *)payload.p, spelled));
        assert_string_equal((const char *)payload.p + payload.n - 14, "\",\"data\":[1]}}");
    }
}

static void
absent_data_is_absent(void **state)
{
    struct t_client *a;
    (void)state;
    t_begin();
    listeners(&a, 1, "x");
    t_message("x", NULL);
    t_message("x", "null");
    t_hears(a, "{\"event\":\"#publish\",\"data\":{\"channel\":\"x\"}}");
    t_hears_message(a, "x", "null");
}

/* A slot on the list of channels to hand out may be freed and taken again before the list is walked. */
static void
a_channel_freed_with_a_batch_leaves_it_to_who_was_there(void **state)
{
    struct t_client *a, *b = NULL;
    struct chan *ch;
    enum error_id why;
    (void)state;
    t_begin();
    listeners(&a, 1, "x");
    b = t_open();
    uint32_t slot = pool_slot(&t.w->chans, chan("x"));
    t_message("x", "1");
    assert_int_equal(t.w->dirty_chans.n, 1);
    subs_drop(t.w, t_conn(a), chan("x"));
    t_message("x", "2"); /* for nobody */
    assert_int_equal(subs_add(t.w, t_conn(b), VIEW("y"), &ch), SUBS_NEW);
    assert_int_equal(pool_slot(&t.w->chans, ch), slot);
    assert_int_equal(link_subscribe(t.w->links, 0, slot, ch->head.gen, VIEW("y"), NULL, &why), LINK_OK);
    ch->asked = true;
    t_message("y", "3");
    t_message("y", "4");
    t_hears_message(a, "x", "1");
    t_hears_nothing(a);
    t_hears_message(b, "y", "3");
    t_hears_message(b, "y", "4");
    t_message("y", "5");
    t_hears_message(b, "y", "5");
    t_message("y", "6");
    subs_drop(t.w, t_conn(b), ch); /* and one that nobody takes again */
    t_hears_message(b, "y", "6");
    t_hears_nothing(b);
    assert_int_equal(t_counter(deliveries_total), 5);
}

/* Reads every publication that came for a client; they must begin at `first` and be without a gap. */
static unsigned
count_messages(struct t_client *c, unsigned first)
{
    unsigned n = 0;
    t_receive(c);
    while (c->in.n > 4 && c->in.n >= conn_frame_size(c->in.p) && (c->in.p[0] & 0xf) == WS_TEXT) {
        struct view payload;
        char want[32];
        t_next_frame(c, &payload);
        snprintf(want, sizeof want, ":[%u,", first + n);
        assert_non_null(strstr((const char *)payload.p, want));
        n++;
    }
    return n;
}

static void
one_who_does_not_read_ends_and_the_others_do_not_notice(void **state)
{
    struct t_client *who[5], *slow;
    static char data[1000];
    unsigned sent = 0, heard = 0;
    (void)state;
    t.conf.out_queue_bytes = 64 << 10;
    t_begin();
    listeners(who, 5, "x");
    slow = t_open_narrow(4096);
    t_subscribe(slow, "x");
    T_UNTIL(({
        for (unsigned i = 0; i < 3; i++) {
            snprintf(data, sizeof data, "[%u,\"%0*d\"]", sent++, 400, 0);
            t_message("x", data);
        }
        t_turns(2);
        for (unsigned i = 0; i < 5; i++) {
            unsigned n = count_messages(who[i], heard);
            assert_int_equal(n, 3);
        }
        heard += 3;
        assert_true(outq_bytes(t_conn(slow)) <= t.conf.out_queue_bytes);
        t_closes(CLOSE_SLOW_QUEUE) > 0;
    }));
    assert_in_range(sent, 64 * 1024 / 460, 80 * 1024 / 400);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(t_conn(who[i])->state, CONN_OPEN);
    /* What the kernel had taken arrives, up to the end of a frame; then 1013. The rest is counted. */
    unsigned got = 0;
    T_UNTIL(({
        t_receive(slow);
        got += count_messages(slow, got);
        slow->in.n >= 4 && (slow->in.p[0] & 0xf) == WS_CLOSE;
    }));
    t_hears_close(slow, 1013);
    t_hears_end(slow);
    assert_in_range(got, 1, sent - 64 * 1024 / 500);
    assert_int_equal(got + t_counter(dropped_slow_total), sent);
}

/* No gap stays silent on an open connection, not even that one. */
static void
who_misses_a_message_for_want_of_memory_ends(void **state)
{
    struct t_client *who[5], *other;
    (void)state;
    t_begin();
    listeners(who, 5, "x");
    listeners(&other, 1, "y");
    t_message("x", "1");
    t_turns(2);
    t_message("y", "1");
    t_memory_ends(1);
    t_message("x", text_of(60000));
    t_memory_ends(0);
    for (unsigned i = 0; i < 5; i++) {
        t_hears_message(who[i], "x", "1");
        t_hears_close(who[i], 1011);
        t_hears_end(who[i]);
    }
    assert_int_equal(t_counter(dropped_slow_total), 5);
    assert_int_equal(t_closes(CLOSE_INTERNAL), 5);
    t_message("y", "2");
    t_hears_message(other, "y", "1");
    t_hears_message(other, "y", "2");
}

/* -- fair turns: 300 subscribers of one channel, and somebody who asks for little -- */

#define CROWD 300

static struct t_client *crowd[CROWD];

static void
gather(void)
{
    t_begin();
    listeners(crowd, CROWD, "hog");
}

/* How many have had so many bytes. */
static unsigned
served(size_t bytes)
{
    unsigned n = 0;
    for (unsigned i = 0; i < CROWD; i++) {
        t_receive(crowd[i]);
        n += crowd[i]->in.n >= bytes;
    }
    return n;
}

static void
what_costs_much_is_sent_over_several_turns_and_what_costs_little_at_once(void **state)
{
    (void)state;
    gather();
    struct t_client *by = t_open();
    t_subscribe(by, "small");
    t_message("hog", text_of(180000)); /* 54 MB in all */
    t_turn();
    assert_int_equal(served(1), 0); /* the sends of a turn are submitted with the next */
    t_turn();
    assert_in_range(served(1), 1, CROWD / 2);
    assert_true(t.w->backlog > 0);
    t_message("small", "1");
    t_turns(2);
    t_receive(by);
    assert_true(by->in.n > 0); /* it overtook those who still wait */
    assert_true(served(180000) < CROWD / 2);
    T_UNTIL(served(180000) == CROWD);
    T_UNTIL(t.w->backlog == 0);
}

static void
an_answer_overtakes_what_others_wait_for(void **state)
{
    (void)state;
    gather();
    struct t_client *by = t_open();
    t_message("hog", text_of(180000));
    t_turn();
    t_say_unsubscribe(by, "never");
    t_turns(2);
    t_receive(by);
    assert_true(by->in.n > 0);
    assert_true(served(180000) < CROWD / 2);
    T_UNTIL(served(180000) == CROWD);
}

static void
publishers_of_what_costs_too_much_wait_and_others_do_not(void **state)
{
    (void)state;
    gather();
    struct t_client *pub = t_open(), *by = t_open();
    for (unsigned i = 0; i < 5; i++)
        t_message("hog", text_of(60000)); /* 90 MB */
    t_turn();
    assert_true(t.w->backlog > FAN_BACKLOG_HIGH);
    t_say_publish(pub, "hog", "\"not now, and it is long enough to cost more than its share, for this many; so much for that. It goes on and "
                              "on, and the crowd is large, so a little more will do: and there it is. And here is some more of it, to be "
                              "on the safe side of the limit, which is a hundred and twenty-eight kilobytes over all of them\"");
    t_say_publish(by, "small", "1");
    t_turn();
    assert_int_equal(t_count(T_PUBLISH), 1);
    assert_true(t_conn(pub)->pause & PAUSE_FAN);
    assert_int_equal(t_counter(busy_channels_total), 0);
    t_message("hog", text_of(60000)); /* from another ring: it is asked to stop, once */
    t_message("hog", text_of(60000));
    t_turn();
    assert_int_equal(t_counter(busy_channels_total), 1);
    assert_int_equal(t_count(T_BUSY), 1);
    assert_int_equal(t_count(T_EASED), 0);
    T_UNTIL((served(0), t_count(T_EASED) == 1));
    T_UNTIL(t_count(T_PUBLISH) == 2);
    assert_false(t_conn(pub)->pause & PAUSE_FAN);
    T_UNTIL((served(0), t.w->backlog == 0));
}

static void
a_publisher_has_only_so_much_under_way(void **state)
{
    (void)state;
    gather();
    struct t_client *pub = t_open();
    for (unsigned i = 0; i < 60; i++) /* 470 KB each over the crowd: seven units; and nobody asks for an answer */
        t_say(pub, "{\"event\":\"#publish\",\"data\":{\"channel\":\"hog\",\"data\":%s}}", text_of(1500));
    t_turns(20);
    assert_int_equal(t_count(T_PUBLISH), 37);
    assert_true(t_conn(pub)->pause & PAUSE_ANSWERS);
    for (unsigned i = 0; i < 20 && t_count(T_PUBLISH) < 60; i++) {
        t_answer_all(0);
        t_turns(10);
    }
    assert_int_equal(t_count(T_PUBLISH), 60);
    t_answer_all(0);
    t_hears_nothing(pub); /* nor does it get any */
}

static void
who_publishes_to_a_channel_that_was_stopped_has_little_under_way(void **state)
{
    (void)state;
    t_begin();
    struct t_client *pub = t_open();
    t.stopped = "far"; /* its subscribers are on other rings */
    for (unsigned i = 0; i < 30; i++) /* 1.6 MB each over the thousand it is taken to have */
        t_say(pub, "{\"event\":\"#publish\",\"data\":{\"channel\":\"far\",\"data\":%s}}", text_of(1500));
    for (unsigned sent = 11; sent < 30; sent += 11) {
        t_turns(10);
        assert_int_equal(t_count(T_PUBLISH), sent);
        t_answer_all(0);
    }
    t_turns(10);
    assert_int_equal(t_count(T_PUBLISH), 30);
    t_answer_all(0);
    t.stopped = NULL;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        T(messages_of_a_turn_are_one_send_to_each_subscriber),
        T(subscribers_share_one_block),
        T(small_channels_share_the_arena_and_larger_ones_have_their_own_block),
        T(a_batch_grows_with_its_messages_up_to_a_bound),
        T(channels_that_take_turns_in_the_arena_keep_their_order),
        T(every_length_is_framed_as_it_is),
        T(names_that_need_escapes_throughout_fit),
        T(absent_data_is_absent),
        T(a_channel_freed_with_a_batch_leaves_it_to_who_was_there),
        T(one_who_does_not_read_ends_and_the_others_do_not_notice),
        T(who_misses_a_message_for_want_of_memory_ends),
        T(what_costs_much_is_sent_over_several_turns_and_what_costs_little_at_once),
        T(an_answer_overtakes_what_others_wait_for),
        T(publishers_of_what_costs_too_much_wait_and_others_do_not),
        T(a_publisher_has_only_so_much_under_way),
        T(who_publishes_to_a_channel_that_was_stopped_has_little_under_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
