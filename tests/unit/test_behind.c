/* worker/behind: subscribers that do not keep up, in namespaces that drop messages for them. */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/t_worker.h"
#include "worker/behind.h"
#include "worker/sess.h"

#define ROOM 4608 /* what a narrow client's socket takes, about */

static void
set(const char *name, const char *value)
{
    struct conf_error err;
    if (!conf_set(&t.conf, name, value, "test", &err))
        fail_msg("%s", err.text);
}

/* Three namespaces, d: c: and q: (drop-oldest, conflate, drop-oldest without notices). */
static void
begin(const char *after, const char *keep)
{
    static const char *const names[][2] = {{"d", "drop-oldest"}, {"c", "conflate"}, {"q", "drop-oldest"}};
    struct conf_errors wrong = {0};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char name[64], prefix[8];
        snprintf(prefix, sizeof prefix, "%s:", names[i][0]);
#define KEY(key) (snprintf(name, sizeof name, "namespace.%s." key, names[i][0]), name)
        set(KEY("prefix"), prefix);
        set(KEY("slow"), names[i][1]);
        set(KEY("slow_after"), after);
        set(KEY("slow_keep"), keep);
#undef KEY
    }
    set("namespace.q.slow_notice", "off");
    if (!conf_check(&t.conf, &wrong))
        fail_msg("%s", wrong.list[0].text);
    t.conf.worker_rings = 1;
    t_begin();
}

/* Message number n of a channel: the number, in about 100 bytes. */
static void
publish(const char *channel, unsigned n)
{
    char data[128];
    snprintf(data, sizeof data, "\"%060u\"", n);
    t_message(channel, data);
    t_turn();
}

/* Publishes [from, ...) until `want` subscriptions are behind; the number to come. */
static unsigned
publish_until_behind(const char *channel, unsigned from, uint64_t want)
{
    while (t_counter(behind) < want) {
        publish(channel, from++);
        assert_true(from < 100000);
    }
    return from;
}

/* What a client hears on one channel: every message is received, told in a notice, or still to come. */
struct heard {
    const char *channel;
    unsigned next;        /* number of the message that is to come */
    unsigned messages, gaps, told;
};

/* Judges a frame. True if it was of that channel. */
static bool
hear(struct heard *h, const char *text)
{
    char begin[128];
    snprintf(begin, sizeof begin, "{\"event\":\"#publish\",\"data\":{\"channel\":\"%s\",\"data\":\"", h->channel);
    if (strncmp(text, begin, strlen(begin)) == 0) {
        unsigned n = (unsigned)strtoul(text + strlen(begin), NULL, 10);
        if (n != h->next)
            fail_msg("message %u of %s where %u was to come", n, h->channel, h->next);
        h->next++;
        h->messages++;
        return true;
    }
    snprintf(begin, sizeof begin, "{\"event\":\"#gap\",\"data\":{\"channel\":\"%s\",\"count\":", h->channel);
    if (strncmp(text, begin, strlen(begin)) == 0) {
        unsigned n = (unsigned)strtoul(text + strlen(begin), NULL, 10);
        assert_true(n > 0);
        h->gaps++;
        h->told += n;
        h->next += n;
        return true;
    }
    return false;
}

/* Hears until message number `last` of the channel has come or was told of. */
static void
hear_until(struct t_client *c, struct heard *h, unsigned last)
{
    while (h->next <= last) {
        struct view payload;
        assert_int_equal(t_next_frame(c, &payload), WS_TEXT);
        if (!hear(h, (const char *)payload.p))
            fail_msg("%s on %s", (const char *)payload.p, h->channel);
    }
}

static void
conflate_gives_the_latest_behind_a_notice(void **state)
{
    (void)state;
    begin("1000", "100000");
    struct t_client *a = t_open_narrow(ROOM);
    t_subscribe(a, "c:x");
    unsigned n = publish_until_behind("c:x", 0, 1);
    uint64_t queued = t_counter(queue_bytes), memory = t_counter(buffers_bytes);
    for (unsigned i = 0; i < 5000; i++)
        publish("c:x", n++);
    assert_int_equal(t_counter(queue_bytes), queued);
    assert_true(t_counter(buffers_bytes) <= memory + (128 << 10)); /* batches of a turn */
    assert_true(t_counter(lag_bytes) <= 2048);
    assert_in_range(t_counter(lag_bytes), 1, 2048);
    struct heard h = {.channel = "c:x"};
    hear_until(a, &h, n - 1);
    assert_int_equal(h.gaps, 1);
    assert_true(h.told >= 5000 - 1);
    assert_int_equal(h.messages + h.told, n);
    assert_int_equal(t_counter(behind), 0);
    assert_int_equal(t_counter(lag_bytes), 0);
    assert_int_equal(t_counter(dropped_conflated_total), h.told);
    assert_int_equal(t_counter(deliveries_total), h.messages);
    assert_int_equal(t_counter(gaps_told_total), 1);
    assert_int_equal(t_counter(fell_behind_total), 1);
    publish("c:x", n); /* level again */
    hear_until(a, &h, n);
    t_hears_nothing(a);
}

static void
drop_oldest_gives_the_most_recent_behind_a_notice(void **state)
{
    (void)state;
    begin("1000", "10000");
    struct t_client *a = t_open_narrow(ROOM);
    t_subscribe(a, "d:x");
    unsigned n = publish_until_behind("d:x", 0, 1), before = n;
    for (unsigned i = 0; i < 3000; i++)
        publish("d:x", n++);
    assert_in_range(t_counter(lag_bytes), 10000, 30000);
    struct heard h = {.channel = "d:x"};
    hear_until(a, &h, n - 1);
    assert_int_equal(h.gaps, 1);
    assert_int_equal(h.messages + h.told, n);
    assert_true(h.messages - before > 50 && h.messages - before < 101);
    assert_int_equal(t_counter(dropped_oldest_total), h.told);
    assert_int_equal(t_counter(behind), 0);
    t_hears_nothing(a);
}

static void
who_catches_up_in_time_misses_nothing(void **state)
{
    (void)state;
    begin("1000", "100000");
    struct t_client *a = t_open_narrow(ROOM);
    t_subscribe(a, "d:x");
    unsigned n = publish_until_behind("d:x", 0, 1);
    for (unsigned i = 0; i < 500; i++)
        publish("d:x", n++);
    struct heard h = {.channel = "d:x"};
    hear_until(a, &h, n - 1);
    assert_int_equal(h.gaps, 0);
    assert_int_equal(t_counter(dropped_oldest_total), 0);
    assert_int_equal(t_counter(gaps_told_total), 0);
    assert_int_equal(t_counter(behind), 0);
}

/* A message published in the very turn in which somebody becomes level comes once. */
static void
who_becomes_level_between_a_message_and_its_batch_gets_it_once(void **state)
{
    (void)state;
    begin("1000", "100000");
    struct t_client *a = t_open_narrow(ROOM);
    t_subscribe(a, "d:x");
    unsigned n = publish_until_behind("d:x", 0, 1);
    struct heard h = {.channel = "d:x"};
    while (t_counter(behind) > 0) {
        char data[128];
        snprintf(data, sizeof data, "\"%060u\"", n++);
        t_message("d:x", data); /* waits in the batch while the turn's completions are handled */
        t_receive(a);
        t_turn();
    }
    hear_until(a, &h, n - 1);
    assert_int_equal(h.told, 0);
    t_hears_nothing(a);
}

static void
without_notices_the_gap_is_only_counted(void **state)
{
    (void)state;
    begin("1000", "10000");
    struct t_client *a = t_open_narrow(ROOM);
    t_subscribe(a, "q:x");
    unsigned n = publish_until_behind("q:x", 0, 1), got = 0;
    for (unsigned i = 0; i < 1000; i++)
        publish("q:x", n++);
    for (unsigned last = 0; last != n - 1; got++) {
        struct view payload;
        assert_int_equal(t_next_frame(a, &payload), WS_TEXT);
        const char *data = strstr((const char *)payload.p, "\"data\":\"");
        assert_non_null(data);
        last = (unsigned)strtoul(data + 8, NULL, 10);
    }
    assert_int_equal(t_counter(gaps_told_total), 0);
    assert_int_equal(got + t_counter(dropped_oldest_total), n);
}

static void
others_are_not_held_up(void **state)
{
    (void)state;
    begin("1000", "10000");
    struct t_client *slow[3], *quick = t_open();
    for (unsigned i = 0; i < 3; i++)
        t_subscribe(slow[i] = t_open_narrow(ROOM), "d:x");
    t_subscribe(quick, "d:x");
    struct heard h = {.channel = "d:x"};
    unsigned n = 0;
    for (; t_counter(behind) < 3; n++) {
        publish("d:x", n);
        hear_until(quick, &h, n);
    }
    uint64_t queued = t_counter(queue_bytes);
    for (unsigned i = 0; i < 1000; i++, n++) {
        publish("d:x", n);
        hear_until(quick, &h, n);
        assert_int_equal(t_counter(queue_bytes), queued);
    }
    assert_int_equal(h.told, 0);
    struct t_client *late = t_open(); /* takes its place among the level ones */
    t_subscribe(late, "d:x");
    publish("d:x", n);
    struct heard hl = {.channel = "d:x", .next = n};
    hear_until(late, &hl, n);
    for (unsigned i = 0; i < 3; i++) {
        struct heard hs = {.channel = "d:x"};
        hear_until(slow[i], &hs, n);
        assert_int_equal(hs.messages + hs.told, n + 1);
    }
    assert_int_equal(t_counter(behind), 0);
}

/* A client is dropped messages where the namespace says so, and of the rest it gets all or its end. */
static void
each_channel_keeps_its_promise(void **state)
{
    (void)state;
    begin("1000", "2000");
    t.conf.out_queue_bytes = 20000;
    struct t_client *a = t_open_narrow(ROOM);
    t_subscribe(a, "d:x");
    t_subscribe(a, "c:x");
    t_subscribe(a, "strict");
    unsigned d = publish_until_behind("d:x", 0, 1), c = 0, s = 0;
    for (unsigned i = 0; i < 100; i++) {
        publish("d:x", d++);
        publish("c:x", c++);
        publish("strict", s++);
    }
    assert_int_equal(t_counter(behind), 2);
    struct heard hs[3] = {{.channel = "d:x"}, {.channel = "c:x"}, {.channel = "strict"}};
    while (hs[0].next < d || hs[1].next < c || hs[2].next < s) {
        struct view payload;
        t_next_frame(a, &payload);
        bool any = false;
        for (unsigned k = 0; k < 3 && !any; k++)
            any = hear(&hs[k], (const char *)payload.p);
        assert_true(any);
    }
    assert_true(hs[0].told > 0 && hs[1].told > 0);
    assert_int_equal(hs[2].messages, s);
    assert_int_equal(hs[2].gaps, 0);
    assert_int_equal(t_counter(dropped_conflated_total), hs[1].told);
    assert_int_equal(t_counter(dropped_oldest_total), hs[0].told);
    /* and who does not keep up with the strict one ends */
    while (t_conn(a) != NULL && t_conn(a)->state == CONN_OPEN)
        publish("strict", s++);
    assert_int_equal(t_closes(CLOSE_SLOW_QUEUE), 1);
}

static void
who_takes_nothing_at_all_ends_by_out_stall(void **state)
{
    (void)state;
    begin("1000", "2000");
    struct t_client *a = t_open_narrow(ROOM);
    t_subscribe(a, "c:x");
    unsigned n = publish_until_behind("c:x", 0, 1);
    t_pass(t.conf.out_stall - 200);
    publish("c:x", n++);
    assert_int_equal(t_counter(behind), 1);
    t_pass(400);
    t_turns(2);
    assert_int_equal(t_closes(CLOSE_SLOW_STALL), 1);
    assert_int_equal(t_counter(behind), 0);
    assert_int_equal(t_counter(dropped_left_total), 2);
}

/* What was published while it was subscribed is told before the answer, and nothing comes behind that. */
static void
an_unsubscribe_is_answered_behind_the_last_notice(void **state)
{
    (void)state;
    begin("1000", "2000");
    struct t_client *a = t_open_narrow(ROOM);
    t_subscribe(a, "d:x");
    unsigned n = publish_until_behind("d:x", 0, 1);
    for (unsigned i = 0; i < 100; i++)
        publish("d:x", n++);
    t_say_unsubscribe(a, "d:x");
    T_UNTIL(t_verbs(VERB_UNSUBSCRIBE) == 1);
    assert_int_equal(t_counter(behind), 0);
    assert_int_equal(t_counter(lag_bytes), 0);
    struct heard h = {.channel = "d:x"};
    hear_until(a, &h, n - 1);
    assert_int_equal(h.gaps, 1);
    assert_int_equal(t_counter(dropped_left_total), h.told);
    t_hears_done(a, a->cid);
    t_subscribe(a, "d:x"); /* a new life of the channel */
    publish("d:x", 0);
    h = (struct heard){.channel = "d:x"};
    hear_until(a, &h, 0);
    t_hears_nothing(a);
}

static void
subscribing_again_while_behind_changes_nothing(void **state)
{
    (void)state;
    begin("1000", "2000");
    struct t_client *a = t_open_narrow(ROOM), *b = t_open();
    t_subscribe(b, "d:x");
    t_subscribe(a, "d:x");
    unsigned n = publish_until_behind("d:x", 0, 1);
    t_say_subscribe(a, "d:x");
    T_UNTIL(t_verbs(VERB_SUBSCRIBE) == 3);
    assert_int_equal(t_counter(subscriptions), 2);
    assert_int_equal(t_counter(behind), 1);
    for (unsigned i = 0; i < 100; i++)
        publish("d:x", n++);
    struct heard h = {.channel = "d:x"};
    bool answered = false;
    while (h.next < n || !answered) {
        struct view payload;
        t_next_frame(a, &payload);
        if (!hear(&h, (const char *)payload.p)) {
            assert_non_null(strstr((const char *)payload.p, "\"rid\""));
            answered = true;
        }
    }
    assert_int_equal(h.messages + h.told, n);
}

static void
a_connection_that_ends_leaves_nothing(void **state)
{
    (void)state;
    begin("1000", "2000");
    struct t_client *a = t_open_narrow(ROOM), *b = t_open_narrow(ROOM);
    for (unsigned i = 0; i < 5; i++) {
        char channel[8];
        snprintf(channel, sizeof channel, "%s:%u", i % 2 ? "d" : "c", i);
        t_subscribe(a, channel);
        t_subscribe(b, channel);
    }
    for (unsigned i = 0, n = 0; t_counter(behind) < 10; i++) {
        char channel[8];
        snprintf(channel, sizeof channel, "%s:%u", i % 5 % 2 ? "d" : "c", i % 5);
        publish(channel, n += i % 5 == 0);
    }
    t_close(a);
    T_UNTIL(t_counter(connections) == 1);
    assert_int_equal(t_counter(behind), 5);
    assert_true(t_counter(dropped_left_total) >= 5);
    t_say(b, "]"); /* after the worker's end of an orderly kind */
    conn_close(t.w, t_conn(b), CLOSE_DRAIN);
    assert_int_equal(t_counter(behind), 0);
    assert_int_equal(t_counter(lag_bytes), 0);
    assert_int_equal(t_counter(gaps_told_total), 0); /* nobody is there to hear it */
}

/* A broker died: what other hosts say until its successor hears them, nobody knows. */
static void
a_broker_that_dies_leaves_a_gap_where_there_are_other_hosts(void **state)
{
    (void)state;
    set("redis.url", "redis://127.0.0.1:1");
    begin("1000", "2000");
    struct t_client *level = t_open(), *strict = t_open();
    t_subscribe(level, "d:x");
    t_subscribe(strict, "x");
    t_lost(0);
    t_hears(level, "{\"event\":\"#gap\",\"data\":{\"channel\":\"d:x\",\"count\":null}}");
    t_hears(strict, "{\"event\":\"#gap\",\"data\":{\"channel\":\"x\",\"count\":null}}");
    t_attached(0);
    t_message("d:x", "1");
    t_hears_message(level, "d:x", "1");
    t_lost(0); /* the next one, before it had all that this ring wants; it had this channel */
    t_hears(level, "{\"event\":\"#gap\",\"data\":{\"channel\":\"d:x\",\"count\":null}}");
    t_hears(strict, "{\"event\":\"#gap\",\"data\":{\"channel\":\"x\",\"count\":null}}");
    t_attached(0);
    t_restored(0);
    publish("d:x", 0);
    struct heard h = {.channel = "d:x"};
    hear_until(level, &h, 0);
}

static void
a_broker_that_dies_leaves_none_where_there_are_not(void **state)
{
    (void)state;
    begin("1000", "2000");
    struct t_client *c = t_open();
    t_subscribe(c, "x");
    t_lost(0);
    t_hears_nothing(c);
}

/* Of a subscribe that no broker has answered nothing was missed, whatever befalls the broker and its successors. */
static void
who_was_never_answered_has_missed_nothing(void **state)
{
    (void)state;
    set("redis.url", "redis://127.0.0.1:1");
    begin("1000", "2000");
    struct t_client *held = t_open(), *asks = t_open(), *joins = t_open();
    t_subscribe(held, "d:held");
    t.down[0] = true;
    t_lost(0);
    t_hears(held, "{\"event\":\"#gap\",\"data\":{\"channel\":\"d:held\",\"count\":null}}");
    t_say_subscribe(asks, "x");
    t_say_subscribe(asks, "d:x");
    t_say_subscribe(joins, "x");
    T_UNTIL(t_waiting(0) == 3);
    /* The successor is told without a call of what stood, and of no more: who asks so may have missed something. */
    t.down[0] = false;
    unsigned before = t.asked_n;
    t_attached(0);
    assert_int_equal(t.asked_n, before + 1);
    assert_string_equal(t.asked[before]->name, "d:held");
    t_gap("x", 0);
    t_gap("d:x", 3);
    t_missed(0); /* gives the ring up */
    t_hears(held, "{\"event\":\"#gap\",\"data\":{\"channel\":\"d:held\",\"count\":null}}");
    t_lost(0);
    t_hears(held, "{\"event\":\"#gap\",\"data\":{\"channel\":\"d:held\",\"count\":null}}");
    t_hears_nothing(asks);
    t_hears_nothing(joins);
    /* Once they were answered, they are owed all. */
    t_attached(0);
    t_answer_all(0);
    t_hears_done(asks, 2);
    t_hears_done(asks, 3);
    t_hears_done(joins, 2);
    t_gap("x", 0);
    t_gap("d:x", 3);
    t_hears(asks, "{\"event\":\"#gap\",\"data\":{\"channel\":\"x\",\"count\":null}}");
    t_hears(asks, "{\"event\":\"#gap\",\"data\":{\"channel\":\"d:x\",\"count\":3}}");
    t_hears(joins, "{\"event\":\"#gap\",\"data\":{\"channel\":\"x\",\"count\":null}}");
    t_lost(0);
    t_hears(asks, "{\"event\":\"#gap\",\"data\":{\"channel\":\"x\",\"count\":null}}");
    t_hears(asks, "{\"event\":\"#gap\",\"data\":{\"channel\":\"d:x\",\"count\":null}}");
}

/* A broker that gave this ring up: nobody knows how many messages are missing. */
static void
what_was_lost_on_the_way_is_told_without_a_number(void **state)
{
    (void)state;
    begin("1000", "2000");
    struct t_client *level = t_open(), *slow = t_open_narrow(ROOM), *quiet = t_open(), *strict = t_open();
    t_subscribe(level, "d:x");
    t_subscribe(slow, "d:x");
    t_subscribe(quiet, "q:x");
    t_subscribe(strict, "x");
    unsigned n = publish_until_behind("d:x", 0, 1);
    struct heard h = {.channel = "d:x"};
    hear_until(level, &h, n - 1);
    t_missed(0);
    t_hears(level, "{\"event\":\"#gap\",\"data\":{\"channel\":\"d:x\",\"count\":null}}");
    t_hears_close(strict, 1013);
    t_hears_close(quiet, 1013);
    assert_int_equal(t_closes(CLOSE_MISSED), 2);
    publish("d:x", n);
    hear_until(level, &h, n);
    h = (struct heard){.channel = "d:x"};
    for (;;) {
        struct view payload;
        assert_int_equal(t_next_frame(slow, &payload), WS_TEXT);
        if (strstr((const char *)payload.p, "null") != NULL)
            break;
        assert_true(hear(&h, (const char *)payload.p));
        assert_true(h.next <= n);
    }
    assert_int_equal(h.next, n); /* it stands where the messages are missing */
    hear_until(slow, &h, n);
    t_hears_nothing(slow);
    t_hears_nothing(level);
}

/* -- messages of other hosts that did not come -- */

#define GAP(channel, count) "{\"event\":\"#gap\",\"data\":{\"channel\":\"" channel "\",\"count\":" count "}}"

static void
a_gap_of_another_host_is_told_at_its_place_whatever_the_policy(void **state)
{
    (void)state;
    static const char *const channels[] = {"x", "d:x", "c:x", "q:x"};
    begin("1000", "2000");
    struct t_client *a = t_open(), *b = t_open();
    for (size_t i = 0; i < ARRAY_LEN(channels); i++) {
        const char *ch = channels[i];
        t_subscribe(a, ch);
        t_subscribe(b, ch);
        t_message(ch, "1"); /* all in one turn: batches go out in front of the notice */
        t_gap(ch, 18446744073709551615u);
        t_message(ch, "2");
        t_gap(ch, 0);
        t_turn();
        for (unsigned k = 0; k < 2; k++) {
            struct t_client *c = k ? b : a;
            t_hears_message(c, ch, "1");
            t_hears(c, "{\"event\":\"#gap\",\"data\":{\"channel\":\"%s\",\"count\":18446744073709551615}}", ch);
            t_hears_message(c, ch, "2");
            t_hears(c, "{\"event\":\"#gap\",\"data\":{\"channel\":\"%s\",\"count\":null}}", ch);
        }
    }
    t_gap("x", 7);
    t_turn();
    t_hears(a, GAP("x", "7"));
    t_hears(b, GAP("x", "7"));
    assert_int_equal(t_counter(gaps_told_total), 4 * 2 * 2 + 2);
    assert_int_equal(t_counter(missed_remote_total), 14); /* what no counter can hold is not in it */
    assert_int_equal(t_counter(deliveries_total), 4 * 2 * 2);
    t_hears_nothing(a);
}

/* Those that are behind hear it between the messages kept for them; of gaps at one place once, summed up. */
static void
a_gap_of_another_host_keeps_its_place_for_who_is_behind(void **state)
{
    (void)state;
    begin("1000", "100000");
    struct t_client *a = t_open_narrow(ROOM);
    t_subscribe(a, "d:x");
    unsigned n = publish_until_behind("d:x", 0, 1), first = n + 10;
    for (unsigned i = 0; i < 10; i++)
        publish("d:x", n++);
    t_gap("d:x", 3);
    t_gap("d:x", 4);
    n += 7;
    for (unsigned i = 0; i < 10; i++)
        publish("d:x", n++);
    t_gap("d:x", 1); /* behind all that is kept */
    n++;
    struct heard h = {.channel = "d:x"};
    hear_until(a, &h, first - 1);
    assert_int_equal(h.told, 0);
    t_hears(a, GAP("d:x", "7"));
    h.next += 7;
    hear_until(a, &h, n - 2);
    assert_int_equal(h.told, 0);
    t_hears(a, GAP("d:x", "1"));
    assert_int_equal(t_counter(behind), 0);
    assert_int_equal(t_counter(gaps_told_total), 2);
    assert_int_equal(t_counter(missed_remote_total), 8);
    assert_int_equal(t_counter(dropped_oldest_total), 0);
    t_gap("d:x", 2); /* level again */
    t_turn();
    t_hears(a, GAP("d:x", "2"));
    t_hears_nothing(a);
}

/* What was dropped here and what never came are one gap where they touch; with slow_notice = off the second alone is told. */
static void
gaps_of_both_kinds_add_up(void **state)
{
    (void)state;
    static const char *const channels[] = {"d:x", "q:x"};
    begin("1000", "1000");
    for (unsigned k = 0; k < 2; k++) {
        struct t_client *a = t_open_narrow(ROOM);
        uint64_t remote = t_counter(missed_remote_total), dropped = t_counter(dropped_oldest_total);
        t_subscribe(a, channels[k]);
        unsigned n = publish_until_behind(channels[k], 0, 1);
        for (unsigned i = 0; i < 50; i++) {
            publish(channels[k], n);
            t_gap(channels[k], 1);
            n += 2;
        }
        struct heard h = {.channel = channels[k]};
        if (k == 0)
            hear_until(a, &h, n - 1);
        while (k == 1 && h.next < n) { /* of what was dropped nobody speaks */
            struct view payload;
            assert_int_equal(t_next_frame(a, &payload), WS_TEXT);
            const char *data = strstr((const char *)payload.p, "\"data\":\"0");
            if (data != NULL)
                h.next = (unsigned)strtoul(data + 8, NULL, 10);
            assert_true(hear(&h, (const char *)payload.p));
        }
        t_hears_nothing(a);
        assert_int_equal(t_counter(behind), 0);
        assert_int_equal(t_counter(missed_remote_total) - remote, 50);
        dropped = t_counter(dropped_oldest_total) - dropped;
        assert_true(dropped > 0);
        assert_int_equal(h.told, k == 0 ? 50 + dropped : 50);
        assert_int_equal(h.messages, n - 50 - dropped);
        t_close(a);
        T_UNTIL(t_counter(connections) == 0);
    }
}

static void
who_leaves_or_ends_while_behind_hears_the_rest_or_nothing(void **state)
{
    (void)state;
    begin("1000", "100000");
    struct t_client *a = t_open_narrow(ROOM), *b = t_open_narrow(ROOM);
    t_subscribe(a, "d:x");
    t_subscribe(b, "d:x");
    unsigned n = publish_until_behind("d:x", 0, 2);
    t_gap("d:x", 5);
    n += 5;
    t_close(b);
    T_UNTIL(t_counter(connections) == 1);
    assert_int_equal(t_counter(gaps_told_total), 0);
    t_say_unsubscribe(a, "d:x");
    T_UNTIL(t_verbs(VERB_UNSUBSCRIBE) == 1);
    struct heard h = {.channel = "d:x"};
    hear_until(a, &h, n - 1);
    assert_int_equal(t_counter(missed_remote_total), 10);
    assert_int_equal(h.told, 5 + t_counter(dropped_left_total) / 2);
    t_hears_done(a, a->cid);
}

/* More places than can be kept: their order is given up, their number is not. */
static void
more_gaps_than_are_kept_apart_are_told_all_the_same(void **state)
{
    (void)state;
    begin("1000", "1000000");
    struct t_client *a = t_open_narrow(ROOM);
    t_subscribe(a, "d:x");
    unsigned n = publish_until_behind("d:x", 0, 1), gaps = 3 * LAG_MARKS_MAX;
    for (unsigned i = 0; i < gaps; i++) {
        publish("d:x", n);
        t_gap("d:x", 1);
        n += 2;
    }
    struct heard h = {.channel = "d:x"};
    hear_until(a, &h, n - 1);
    assert_int_equal(t_counter(missed_remote_total), gaps);
    assert_int_equal(h.told, gaps + t_counter(dropped_oldest_total));
    assert_true(t_counter(dropped_oldest_total) > 0);
    assert_int_equal(h.messages + h.told, n);
}

static void
a_listener_can_be_kept_from_gaps(void **state)
{
    (void)state;
    begin("1000", "2000");
    struct t_client *told = t_open(), *quiet, *slow;
    t.w->listeners[0].no_gaps = true; /* ?gaps=off */
    quiet = t_open();
    slow = t_open_narrow(ROOM);
    t_subscribe(told, "x");
    t_subscribe(quiet, "x");
    t_message("x", "1");
    t_gap("x", 3);
    t_message("x", "2");
    t_turn();
    t_hears_message(told, "x", "1");
    t_hears(told, GAP("x", "3"));
    t_hears_message(told, "x", "2");
    t_hears_message(quiet, "x", "1");
    t_hears_message(quiet, "x", "2");
    assert_int_equal(t_counter(gaps_told_total), 1);
    assert_int_equal(t_counter(gaps_untold_total), 1);
    assert_int_equal(t_counter(missed_remote_total), 6);
    t_subscribe(slow, "d:x"); /* nor is it told of what it was too slow for */
    unsigned n = publish_until_behind("d:x", 0, 1);
    for (unsigned i = 0; i < 100; i++)
        publish("d:x", n++);
    struct view payload;
    for (unsigned last = 0; last != n - 1;) {
        assert_int_equal(t_next_frame(slow, &payload), WS_TEXT);
        const char *data = strstr((const char *)payload.p, "\"data\":\"");
        assert_non_null(data);
        last = (unsigned)strtoul(data + 8, NULL, 10);
    }
    assert_int_equal(t_counter(gaps_told_total), 1);
    t_subscribe(quiet, "d:x"); /* what nobody counted ends it, as where notices are off */
    t.w->listeners[0].no_gaps = false;
    struct t_client *other = t_open();
    t_subscribe(other, "d:x");
    t_missed(0);
    t_turns(2);
    t_hears(other, GAP("d:x", "null"));
    assert_int_equal(t_closes(CLOSE_MISSED), 3);
    t_hears_nothing(other);
}

static void
messages_larger_than_every_bound_arrive(void **state)
{
    (void)state;
    begin("0", "0");
    struct t_client *a = t_open_narrow(ROOM);
    t_subscribe(a, "d:x");
    static char data[100003];
    memset(data, 'x', sizeof data - 1);
    data[0] = data[sizeof data - 2] = '"';
    unsigned n = publish_until_behind("d:x", 0, 1);
    for (unsigned i = 0; i < 3; i++) {
        t_message("d:x", data);
        t_turn();
    }
    struct heard h = {.channel = "d:x"};
    while (h.gaps == 0) {
        struct view payload;
        t_next_frame(a, &payload);
        assert_true(hear(&h, (const char *)payload.p));
    }
    assert_int_equal(h.next, n + 2);
    struct view payload;
    t_next_frame(a, &payload);
    assert_true(payload.n > sizeof data);
    assert_non_null(strstr((const char *)payload.p, data));
    t_hears_nothing(a);
    assert_int_equal(t_counter(behind), 0);
}

static void
all_lags_together_have_a_bound(void **state)
{
    (void)state;
    t.conf.mem_buffers = 400000;
    begin("1000", "90000");
    struct t_client *a = t_open_narrow(ROOM);
    for (unsigned i = 0; i < 4; i++) {
        char channel[8];
        snprintf(channel, sizeof channel, "d:%u", i);
        t_subscribe(a, channel);
    }
    for (unsigned i = 0; i < 8000; i++) {
        char channel[8];
        snprintf(channel, sizeof channel, "d:%u", i % 4);
        publish(channel, i / 4);
        assert_true(t_counter(lag_bytes) <= 100000 + 4 * 17000);
    }
    assert_int_equal(t_counter(behind), 4);
    assert_int_equal(t_closes(CLOSE_MEMORY), 0);
    struct heard h[4] = {{.channel = "d:0"}, {.channel = "d:1"}, {.channel = "d:2"}, {.channel = "d:3"}};
    while (h[0].next < 2000 || h[1].next < 2000 || h[2].next < 2000 || h[3].next < 2000) {
        struct view payload;
        t_next_frame(a, &payload);
        assert_true(hear(&h[0], (const char *)payload.p) || hear(&h[1], (const char *)payload.p) ||
            hear(&h[2], (const char *)payload.p) || hear(&h[3], (const char *)payload.p));
    }
}

static void
where_memory_is_out_the_gap_is_told_or_the_connection_ends(void **state)
{
    (void)state;
    unsigned ended = 0, told = 0;
    for (unsigned k = 1; k < 12; k++) {
        if (k > 1) {
            t_teardown(state);
            t_setup(state);
        }
        begin("1000", "2000");
        struct t_client *a = t_open_narrow(ROOM);
        t_subscribe(a, "d:x");
        unsigned n = k % 2 ? publish_until_behind("d:x", 0, 1) : 0;
        struct slot_list *lists[] = {&t.w->doomed, &t.w->ready, &t.w->just_freed}; /* they can't go without */
        for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
            slot_push(lists[i], 0);
            lists[i]->n--;
        }
        t_memory_ends(k);
        for (unsigned i = 0; i < 200; i++)
            publish("d:x", n++);
        t_memory_ends(0);
        t_turns(2);
        if (t_conn(a) == NULL || t_conn(a)->state != CONN_OPEN) {
            ended++;
            continue;
        }
        publish("d:x", n++);
        struct heard h = {.channel = "d:x"};
        hear_until(a, &h, n - 1);
        told += h.told > 0;
    }
    assert_true(ended > 0 && told > 0);
}

static void
a_reload_counts_from_the_next_message_on(void **state)
{
    (void)state;
    begin("1000", "2000");
    struct t_client *a = t_open_narrow(ROOM);
    t_subscribe(a, "d:x");
    t_subscribe(a, "new:x");
    struct chan *d = subs_find(t.w, VIEW("d:x")), *new = subs_find(t.w, VIEW("new:x"));
    assert_string_equal(subs_namespace(t.w, d)->name, "d");
    assert_string_equal(subs_namespace(t.w, new)->name, "");
    publish_until_behind("d:x", 0, 1);
    struct conf_namespaces *old = t.conf.namespaces, others = *old;
    memcpy(others.v[1].name, "new", 4);
    others.v[1].prefix = "new:";
    t.conf.namespaces = &others;
    t_pass(1000);
    t_turns(2);
    assert_string_equal(subs_namespace(t.w, new)->name, "new");
    assert_string_equal(subs_namespace(t.w, d)->name, "d"); /* a promise is kept while somebody is behind */
    struct view payload;
    while (t_counter(behind) > 0)
        t_next_frame(a, &payload);
    assert_string_equal(subs_namespace(t.w, d)->name, "");
    t.conf.namespaces = old;
    t_pass(1000);
    t_turns(2);
    assert_string_equal(subs_namespace(t.w, d)->name, "d");
}

/* Small batches, one a turn, for readers that stand still: neither a block nor a stretch is kept for each. */
static void
small_batches_cost_slow_readers_little_more_than_their_bytes(void **state)
{
    (void)state;
    begin("1000", "2000");
    struct t_client *slow[6];
    for (unsigned i = 0; i < ARRAY_LEN(slow); i++)
        t_subscribe(slow[i] = t_open_narrow(ROOM), "strict");
    for (unsigned n = 0; n < 5000; n++)
        publish("strict", n);
    uint64_t queued = t_counter(queue_bytes) / ARRAY_LEN(slow);
    assert_true(queued > 400000);
    assert_true(t_counter(buffers_bytes) < queued + 3 * 65536);
    for (unsigned i = 0; i < ARRAY_LEN(slow); i++)
        assert_true(segq_count(&t_conn(slow[i])->out) < 40);
    for (unsigned i = 0; i < ARRAY_LEN(slow); i++) {
        struct heard h = {.channel = "strict"};
        hear_until(slow[i], &h, 4999);
        assert_int_equal(h.messages, 5000);
    }
    publish("strict", 5000);
    assert_null(subs_find(t.w, VIEW("strict"))->tail);
}

/* What the kernel takes for a client that reads nothing; its own receive buffer is small. */
static size_t
taken_by_the_kernel(uint64_t unsent)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof to;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int small = 4096;
    size_t taken = 0;
    assert_int_equal(bind(listener, (void *)&to, n), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (void *)&to, &n), 0);
    t.listeners[t.listen_n++].fd = listener;
    t.conf.out_kernel_unsent = unsent;
    t_begin();
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small), 0);
    assert_int_equal(connect(fd, (void *)&to, n), 0);
    T_UNTIL(t_counter(connections) == 1);
    int accepted = conn_at(t.w, t.w->unshaken.last)->fd;
    static const uint8_t zeroes[10000];
    for (ssize_t k; (k = send(accepted, zeroes, sizeof zeroes, MSG_DONTWAIT | MSG_NOSIGNAL)) > 0;)
        taken += (size_t)k;
    close(fd);
    return taken;
}

static void
the_kernel_holds_no_more_for_a_client_than_it_may(void **state)
{
    size_t bounded = taken_by_the_kernel(65536);
    assert_in_range(bounded, 65536, 200000);
    t_teardown(state);
    t_setup(state);
    assert_true(taken_by_the_kernel(0) > 2 * bounded);
}

/* -- at random: clients at all speeds, on channels of all kinds, who come and go -- */

#define CLIENTS 12
#define CHANNELS 6

struct player {
    struct t_client *c;
    bool wants[CHANNELS];     /* asked for, as far as the client knows */
    bool active[CHANNELS];    /* the worker has it */
    struct heard heard[CHANNELS];
};

static const char *const names[CHANNELS] = {"d:1", "d:2", "c:1", "c:2", "strict:1", "strict:2"};
static unsigned published[CHANNELS];

static void
player_hear(struct player *p, const char *text)
{
    for (unsigned k = 0; k < CHANNELS; k++)
        if (p->active[k] && hear(&p->heard[k], text))
            return;
    fail_msg("not subscribed to what came: %s", text);
}

/* Reads at most n bytes and judges the whole frames. */
static void
player_read(struct player *p, size_t n)
{
    uint8_t bytes[4096];
    struct t_client *c = p->c;
    ssize_t got = recv(c->fd, bytes, MIN(n, sizeof bytes), MSG_DONTWAIT);
    if (got > 0)
        buf_put(&c->in, bytes, (size_t)got);
    while (c->in.n >= 4) {
        size_t len = c->in.p[1], head = 2;
        if (len == 126) {
            len = load_be16(c->in.p + 2);
            head = 4;
        }
        if (c->in.n < head + len)
            return;
        char text[512];
        assert_int_equal(c->in.p[0], 0x81);
        snprintf(text, sizeof text, "%.*s", (int)len, (const char *)c->in.p + head);
        if (strstr(text, "rid") == NULL)
            player_hear(p, text);
        buf_eat(&c->in, head + len);
    }
}

/* Reads all there is, until everything published has come. */
static void
player_settle(struct player *p)
{
    for (unsigned k = 0; k < CHANNELS; k++)
        while (p->active[k] && p->heard[k].next < published[k]) {
            player_read(p, 4096);
            t_turn();
        }
}

static void
player_subscribe(struct player *p, unsigned k)
{
    uint64_t before = t_verbs(VERB_SUBSCRIBE);
    player_settle(p);
    t_say_subscribe(p->c, names[k]);
    T_UNTIL(t_verbs(VERB_SUBSCRIBE) > before);
    t_answer_all(0);
    p->active[k] = true;
    p->heard[k] = (struct heard){.channel = names[k], .next = published[k]};
}

static void
player_unsubscribe(struct player *p, unsigned k)
{
    uint64_t before = t_verbs(VERB_UNSUBSCRIBE);
    t_say_unsubscribe(p->c, names[k]);
    T_UNTIL(t_verbs(VERB_UNSUBSCRIBE) > before);
    player_settle(p); /* what came before is received or told */
    assert_int_equal(p->heard[k].next, published[k]);
    p->active[k] = false;
}

static void
play(unsigned seed)
{
    struct player players[CLIENTS] = {0};
    srand(seed);
    memset(published, 0, sizeof published);
    for (unsigned i = 0; i < CLIENTS; i++)
        players[i].c = t_open_narrow(i % 3 ? ROOM : 0);
    for (unsigned step = 0; step < 4000; step++) {
        struct player *p = &players[(unsigned)rand() % CLIENTS];
        unsigned k = (unsigned)rand() % CHANNELS, what = (unsigned)rand() % 100;
        if (what < 2 && !p->active[k]) {
            player_subscribe(p, k);
        } else if (what < 3 && p->active[k]) {
            player_unsubscribe(p, k);
        } else if (what < 40) {
            player_read(p, (size_t)rand() % 2000);
            t_turn();
        } else if (subs_find(t.w, view_str(names[k])) != NULL && k + (unsigned)rand() % 10 < 10) {
            char data[128];
            for (int n = rand() % 4; n >= 0; n--) {
                snprintf(data, sizeof data, "\"%0*u\"", 10 + rand() % 80, published[k]++);
                t_message(names[k], data);
            }
            if (rand() % 3)
                t_turn();
        } else if (what > 98) {
            t_turns(3);
        }
    }
    for (unsigned i = 0; i < CLIENTS; i++)
        player_settle(&players[i]);
    assert_int_equal(t_counter(behind), 0);
    assert_int_equal(t_closes(CLOSE_SLOW_QUEUE), 0);
    for (unsigned i = 0; i < CLIENTS; i++)
        t_close(players[i].c);
    T_UNTIL(t_counter(connections) == 0);
}

static void
every_message_comes_in_order_or_is_told_of(void **state)
{
    (void)state;
    begin("700", "3000");
    for (unsigned seed = 1; seed <= 6; seed++)
        play(seed);
    assert_true(t_counter(fell_behind_total) > 50);
    assert_true(t_counter(dropped_oldest_total) > 100);
    assert_true(t_counter(dropped_conflated_total) > 100);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        T(conflate_gives_the_latest_behind_a_notice),
        T(drop_oldest_gives_the_most_recent_behind_a_notice),
        T(who_catches_up_in_time_misses_nothing),
        T(who_becomes_level_between_a_message_and_its_batch_gets_it_once),
        T(without_notices_the_gap_is_only_counted),
        T(others_are_not_held_up),
        T(each_channel_keeps_its_promise),
        T(who_takes_nothing_at_all_ends_by_out_stall),
        T(an_unsubscribe_is_answered_behind_the_last_notice),
        T(subscribing_again_while_behind_changes_nothing),
        T(a_connection_that_ends_leaves_nothing),
        T(a_broker_that_dies_leaves_a_gap_where_there_are_other_hosts),
        T(a_broker_that_dies_leaves_none_where_there_are_not),
        T(who_was_never_answered_has_missed_nothing),
        T(what_was_lost_on_the_way_is_told_without_a_number),
        T(a_gap_of_another_host_is_told_at_its_place_whatever_the_policy),
        T(a_gap_of_another_host_keeps_its_place_for_who_is_behind),
        T(gaps_of_both_kinds_add_up),
        T(who_leaves_or_ends_while_behind_hears_the_rest_or_nothing),
        T(more_gaps_than_are_kept_apart_are_told_all_the_same),
        T(a_listener_can_be_kept_from_gaps),
        T(messages_larger_than_every_bound_arrive),
        T(all_lags_together_have_a_bound),
        T(where_memory_is_out_the_gap_is_told_or_the_connection_ends),
        T(a_reload_counts_from_the_next_message_on),
        T(small_batches_cost_slow_readers_little_more_than_their_bytes),
        T(the_kernel_holds_no_more_for_a_client_than_it_may),
        T(every_message_comes_in_order_or_is_told_of),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
