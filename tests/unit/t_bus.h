/* The suite that each bus must pass (broker/bus.h). A test of a bus fills a struct bus_rig, which knows how to open it
 * and how to break it, sets `rig` and runs BUS_CASES. See test_bus.c for the one in memory. */
#ifndef TESTS_UNIT_T_BUS_H
#define TESTS_UNIT_T_BUS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/bus.h"
#include "proto/envelope.h"

#include <cmocka.h>

#define BUS_NODES 2

struct bus_rig {
    const char *name;
    /* Broker i (0 or 1) of one and the same bus, with these ears. */
    struct bus *(*open)(unsigned i, const struct bus_ears *ears, void *arg);
    void (*close)(unsigned i);
    /* Lets a little time pass for all that are open: turns and completions. */
    void (*pump)(void);
    /* All links of a broker are lost, and may come back. */
    void (*cut)(unsigned i);
    void (*heal)(unsigned i);
    /* So small a bound on what waits for a link (redis.out_queue) that 100 publishes of 1000 bytes do not fit. */
    void (*bound)(unsigned i);
    /* The server answers the next publish with an error; NULL where that can't be had. */
    void (*refuse)(unsigned i);
    /* The servers take what they are sent, some of it, and answer nothing, until they go on. */
    void (*stall)(void);
    void (*go_on)(void);
    bool by_topic; /* fates keep the order of publishes per topic only: there are several servers */
};

static const struct bus_rig *rig;

/* What a broker was told, as lines of text; and how often of each kind. */
static struct told {
    struct bus *bus;
    unsigned messages, joined, lost, taken, dropped, refused;
    unsigned in_call; /* told from within a call of ours: must not be */
    bool calling;
    uint64_t last_token;
    char text[65536];
    size_t n;
    struct {
        uint8_t name[64];
        size_t n;
        enum bus_kind kind;
        uint64_t last_token;
    } topic[16];
    unsigned topics;
} told[BUS_NODES];

/* The token of the last publish on a topic whose fate was told. */
static uint64_t *
told_last(struct told *t, struct bus_topic topic)
{
    unsigned i = 0;
    while (i < t->topics && (t->topic[i].kind != topic.kind || !view_eq(view_of(t->topic[i].name, t->topic[i].n), topic.name)))
        i++;
    assert_true(i < ARRAY_LEN(t->topic) && topic.name.n <= sizeof t->topic[i].name);
    if (i == t->topics) {
        t->topic[i].kind = topic.kind;
        t->topic[i].n = topic.name.n;
        if (topic.name.n > 0)
            memcpy(t->topic[i].name, topic.name.p, topic.name.n);
        t->topics++;
    }
    return &t->topic[i].last_token;
}

static void
tell(struct told *t, const char *what, struct bus_topic topic, struct view bytes)
{
    t->in_call += t->calling;
    int n = snprintf(t->text + t->n, sizeof t->text - t->n, "%s %s%.*s %.*s\n", what, topic.kind == BUS_CONTROL ? "!" : "",
        VIEW_FMT(topic.name), VIEW_FMT(bytes));
    t->n = MIN(t->n + (size_t)MAX(n, 0), sizeof t->text - 1);
}

static void
tell_message(void *arg, struct bus_topic topic, struct view bytes)
{
    struct told *t = arg;
    t->messages++;
    bool again = bytes.n > BUS_AGAIN_AT && (bytes.p[BUS_AGAIN_AT] & BUS_AGAIN) != 0;
    tell(t, again ? "again" : "message", topic, view_from(bytes, 3)); /* behind the head */
}

static void
tell_joined(void *arg, struct bus_topic topic)
{
    ((struct told *)arg)->joined++;
    tell(arg, "joined", topic, VIEW_NONE);
}

static void
tell_lost(void *arg, struct bus_topic topic)
{
    ((struct told *)arg)->lost++;
    tell(arg, "lost", topic, VIEW_NONE);
}

/* Tokens go up by one for each publish of a broker: so order is seen, too. */
static void
tell_fate(void *arg, struct bus_topic topic, uint64_t token, enum bus_fate fate)
{
    struct told *t = arg;
    uint64_t *last = told_last(t, topic);
    t->in_call += t->calling;
    if (token <= *last)
        fail_msg("the fate of %u comes after that of %u, which was said later", (unsigned)token, (unsigned)*last);
    *last = token;
    if (token != t->last_token + 1 && !rig->by_topic)
        fail_msg("the fate of %u comes after that of %u", (unsigned)token, (unsigned)t->last_token);
    t->last_token = token;
    t->taken += fate == BUS_TAKEN;
    t->dropped += fate == BUS_DROPPED;
    t->refused += fate == BUS_REFUSED;
}

static void
tell_state(void *arg, enum bus_state state, const char *why)
{
    struct told *t = arg;
    (void)why;
    t->in_call += t->calling;
    assert_int_equal(t->bus->state, state);
}

static const struct bus_ears bus_ears_told = {tell_message, tell_joined, tell_lost, tell_fate, tell_state};

static struct bus_topic
bus_chan(const char *name)
{
    return (struct bus_topic){BUS_CHANNEL, view_str(name)};
}

static uint64_t bus_token[BUS_NODES];

static void
bus_say(unsigned i, struct bus_topic t, struct view body)
{
    told[i].calling = true;
    if (!told[i].bus->ops->publish(told[i].bus, t, VIEW("\xc1\x01\x08"), body, ++bus_token[i]))
        fail_msg("not taken");
    told[i].calling = false;
}

static void
bus_join(unsigned i, struct bus_topic t)
{
    told[i].calling = true;
    assert_true(told[i].bus->ops->join(told[i].bus, t));
    told[i].calling = false;
}

/* Pumps until the claim holds; fails when it does not in some seconds. */
#define BUS_UNTIL(claim)                                                                           \
    do {                                                                                           \
        struct mono give_up_ = mono_add_ms(mono_now(), 10000);                                     \
        while (!(claim)) {                                                                         \
            if (mono_reached(mono_now(), give_up_))                                                \
                fail_msg("never: %s; broker 0 was told:\n%s\nbroker 1:\n%s", #claim, told[0].text, told[1].text); \
            rig->pump();                                                                           \
        }                                                                                          \
    } while (0)

/* Nothing more comes: what is published now has made its way. */
static void
bus_quiet(void)
{
    for (unsigned k = 0; k < 20; k++)
        rig->pump();
}

static int
bus_setup(void **state)
{
    (void)state;
    memset(told, 0, sizeof told);
    memset(bus_token, 0, sizeof bus_token);
    for (unsigned i = 0; i < BUS_NODES; i++) {
        told[i].bus = rig->open(i, &bus_ears_told, &told[i]);
        assert_non_null(told[i].bus);
    }
    BUS_UNTIL(told[0].bus->state == BUS_UP && told[1].bus->state == BUS_UP);
    return 0;
}

static int
bus_teardown(void **state)
{
    (void)state;
    for (unsigned i = 0; i < BUS_NODES; i++)
        rig->close(i);
    for (unsigned i = 0; i < BUS_NODES; i++)
        assert_int_equal(told[i].in_call, 0);
    return 0;
}

static void
bus_a_joined_topic_is_heard_by_all_who_joined_it(void **state)
{
    (void)state;
    struct bus_topic t = bus_chan("x");
    bus_join(0, t);
    bus_join(1, t);
    bus_join(1, t); /* nothing happens */
    BUS_UNTIL(told[0].joined == 1 && told[1].joined == 1);
    assert_true(told[0].bus->ops->is_up(told[0].bus, t));
    bus_say(0, t, VIEW("one"));
    bus_say(0, bus_chan("y"), VIEW("other"));
    BUS_UNTIL(told[0].messages == 1 && told[1].messages == 1 && told[0].taken == 2);
    bus_quiet();
    assert_string_equal(told[1].text, "joined x \nmessage x one\n");
    assert_string_equal(told[0].text, "joined x \nmessage x one\n");
}

static void
bus_topics_and_messages_are_bytes(void **state)
{
    (void)state;
    static const uint8_t all[] = "\0\r\n $3\r\n*1 {x} \xff\x80 %s";
    struct bus_topic odd = {BUS_CHANNEL, view_of(all, sizeof all)}, empty = bus_chan("");
    bus_join(1, odd);
    bus_join(1, empty);
    BUS_UNTIL(told[1].joined == 2);
    bus_say(0, odd, view_of(all, sizeof all));
    bus_say(0, empty, VIEW_NONE);
    BUS_UNTIL(told[1].messages == 2 && told[0].taken == 2);
}

static void
bus_channels_and_control_topics_never_meet(void **state)
{
    (void)state;
    struct bus_topic control = {BUS_CONTROL, VIEW("hosts")};
    const char *names[] = {"hosts", "!hosts", ":hosts", "control", "c:hosts", ""};
    bus_join(1, control);
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        bus_join(1, bus_chan(names[i]));
    BUS_UNTIL(told[1].joined >= 1 + ARRAY_LEN(names));
    told[1].n = 0;
    bus_say(0, control, VIEW("for hosts"));
    BUS_UNTIL(told[1].messages >= 1);
    bus_quiet();
    assert_non_null(strstr(told[1].text, "message !hosts for hosts\n"));
    for (char *p = told[1].text; (p = strstr(p, "message")) != NULL; p++)
        assert_memory_equal(p, "message !hosts ", 15);
}

static void
bus_what_is_left_is_heard_no_more(void **state)
{
    (void)state;
    struct bus_topic t = bus_chan("x"), u = bus_chan("u");
    bus_join(1, t);
    bus_join(1, u);
    BUS_UNTIL(told[1].joined == 2);
    told[1].bus->ops->leave(told[1].bus, t);
    bus_quiet();
    bus_say(0, t, VIEW("unheard"));
    bus_say(0, u, VIEW("heard"));
    BUS_UNTIL(told[1].messages == 1 && told[0].taken == 2);
    bus_join(1, t); /* and again: confirmed anew */
    BUS_UNTIL(told[1].joined == 3);
    bus_say(0, t, VIEW("heard"));
    BUS_UNTIL(told[1].messages == 2);
}

static void
bus_many_come_in_order(void **state)
{
    (void)state;
    struct bus_topic t = bus_chan("x");
    char text[32];
    bus_join(1, t);
    BUS_UNTIL(told[1].joined == 1);
    for (unsigned i = 0; i < 2000; i++) {
        int n = snprintf(text, sizeof text, "%u", i);
        bus_say(0, t, view_of(text, (size_t)n));
        if (i % 97 == 0)
            rig->pump();
    }
    BUS_UNTIL(told[1].messages == 2000 && told[0].taken == 2000);
    const char *p = told[1].text;
    for (unsigned i = 0; i < 2000; i++) {
        int n = snprintf(text, sizeof text, "message x %u\n", i);
        p = strstr(p, text);
        assert_non_null(p);
        p += n;
    }
}

static void
bus_a_lost_link_is_told_and_confirmed_again(void **state)
{
    (void)state;
    struct bus_topic t = bus_chan("x");
    bus_join(1, t);
    bus_join(1, (struct bus_topic){BUS_CONTROL, VIEW("hosts")});
    BUS_UNTIL(told[1].joined >= 2);
    rig->cut(1);
    BUS_UNTIL(told[1].lost == 1 && told[1].bus->state != BUS_UP);
    assert_false(told[1].bus->ops->is_up(told[1].bus, t));
    unsigned joined = told[1].joined;
    rig->heal(1);
    BUS_UNTIL(told[1].joined >= joined + 2 && told[1].bus->state == BUS_UP);
    assert_int_equal(told[1].lost, 1);
    bus_say(0, t, VIEW("back"));
    BUS_UNTIL(told[1].messages == 1);
}

/* Topics first, then what waited, in order; what is marked again may come twice. */
static void
bus_what_waited_for_a_link_comes_in_order_after_topics(void **state)
{
    (void)state;
    struct bus_topic t = bus_chan("x");
    bus_join(0, t);
    BUS_UNTIL(told[0].joined == 1);
    bus_say(0, t, VIEW("zero"));
    BUS_UNTIL(told[0].taken == 1 && told[0].messages == 1);
    rig->cut(0);
    bus_say(0, t, VIEW("one")); /* before it noticed, perhaps */
    BUS_UNTIL(told[0].lost == 1);
    bus_say(0, t, VIEW("two"));
    bus_quiet();
    assert_int_equal(told[0].taken, 1);
    told[0].n = 0;
    rig->heal(0);
    BUS_UNTIL(told[0].taken == 3 && told[0].messages >= 3);
    const char *joined = strstr(told[0].text, "joined x"), *one = strstr(told[0].text, "again x one"),
        *two = strstr(told[0].text, "x two");
    if (joined == NULL || one == NULL || two == NULL || one < joined || two < one)
        fail_msg("not in order:\n%s", told[0].text);
}

static void
bus_when_too_much_waits_the_oldest_goes_and_is_told(void **state)
{
    (void)state;
    static const uint8_t big[1000];
    struct bus_topic t = bus_chan("x");
    rig->bound(0);
    bus_join(1, t);
    BUS_UNTIL(told[1].joined == 1);
    rig->cut(0);
    BUS_UNTIL(told[0].bus->state != BUS_UP);
    for (unsigned i = 0; i < 100; i++)
        bus_say(0, t, view_of(big, sizeof big));
    bus_say(0, t, VIEW("the last"));
    BUS_UNTIL(told[0].dropped > 0);
    rig->heal(0);
    BUS_UNTIL(told[0].taken + told[0].dropped == 101 && told[1].messages >= told[0].taken);
    assert_true(told[0].taken > 0);
    assert_int_equal(told[1].messages, told[0].taken);
    assert_non_null(strstr(told[1].text, "x the last\n"));
}

/* Whatever waits behind them. */
static void
bus_the_fate_of_what_is_dropped_waits_for_what_is_under_way(void **state)
{
    (void)state;
    static const uint8_t big[1000];
    struct bus_topic t = bus_chan("x");
    rig->bound(0);
    bus_join(1, t);
    BUS_UNTIL(told[1].joined == 1);
    rig->stall();
    for (unsigned i = 0; i < 1250; i++) {
        bus_say(0, t, view_of(big, sizeof big));
        if (i % 100 == 0)
            rig->pump();
    }
    bus_say(0, t, VIEW("the last"));
    bus_quiet();
    rig->go_on();
    BUS_UNTIL(told[0].taken + told[0].dropped == 1251 && told[1].messages >= told[0].taken);
    assert_true(told[0].taken > 0 && told[0].dropped > 0);
    assert_non_null(strstr(told[1].text, "x the last\n"));
}

static void
bus_a_refused_publish_is_told_and_the_next_goes_on(void **state)
{
    (void)state;
    struct bus_topic t = bus_chan("x");
    if (rig->refuse == NULL)
        skip();
    bus_join(1, t);
    BUS_UNTIL(told[1].joined == 1);
    rig->refuse(0);
    bus_say(0, t, VIEW("refused"));
    bus_say(0, t, VIEW("taken"));
    BUS_UNTIL(told[0].refused == 1 && told[0].taken == 1 && told[1].messages == 1);
}

static void
bus_it_says_how_it_is(void **state)
{
    (void)state;
    struct buf out = buf_make(4096);
    told[0].bus->ops->describe(told[0].bus, &out);
    assert_true(out.n > 0 && !out.failed && out.p[out.n - 1] == '\n');
    buf_free(&out);
}

#define BUS_CASE(name) cmocka_unit_test_setup_teardown(name, bus_setup, bus_teardown)
#define BUS_CASES                                                                                  \
    BUS_CASE(bus_a_joined_topic_is_heard_by_all_who_joined_it),                                    \
        BUS_CASE(bus_topics_and_messages_are_bytes),                                               \
        BUS_CASE(bus_channels_and_control_topics_never_meet),                                      \
        BUS_CASE(bus_what_is_left_is_heard_no_more), BUS_CASE(bus_many_come_in_order),             \
        BUS_CASE(bus_a_lost_link_is_told_and_confirmed_again),                                     \
        BUS_CASE(bus_what_waited_for_a_link_comes_in_order_after_topics),                          \
        BUS_CASE(bus_when_too_much_waits_the_oldest_goes_and_is_told),                             \
        BUS_CASE(bus_the_fate_of_what_is_dropped_waits_for_what_is_under_way),                     \
        BUS_CASE(bus_a_refused_publish_is_told_and_the_next_goes_on), BUS_CASE(bus_it_says_how_it_is)

#endif
