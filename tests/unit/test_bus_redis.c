/* broker/bus_redis against real redis-servers: what two hosts hear of each other while their server is
 * killed, stopped, restarted empty or refuses; several servers; bounds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/bus.h"
#include "broker/metrics.h"
#include "tests/unit/t_redis.h"

#include <cmocka.h>

#define WAIT_MS T_REDIS_WAIT_MS
#define TOKENS 200000

static struct conf conf;
static struct t_redis servers[3];

struct host {
    struct bus *bus;
    struct ring ring;
    uint64_t metrics[BM_COUNT];
    unsigned messages, joined, lost, controls;
    unsigned taken, dropped, refused;
    uint64_t next_fate;      /* fates come in order, token after token */
    bool one_token;          /* but all of them are 0 */
    uint64_t last_number;    /* heard; 0: none */
    unsigned holes, again;
    struct buf last;
} a, b;

static void
on_message(void *arg, struct bus_topic topic, struct view bytes)
{
    struct host *h = arg;
    unsigned long long n = 0;
    h->messages++;
    h->controls += topic.kind == BUS_CONTROL;
    buf_reset(&h->last);
    buf_put_view(&h->last, bytes);
    if (bytes.n > 4 && bytes.p[0] == 0xc1) {
        char text[1024] = {0};
        memcpy(text, bytes.p + 4, MIN(bytes.n - 4, sizeof text - 1));
        n = strtoull(text, NULL, 10);
        h->again += (bytes.p[BUS_AGAIN_AT] & BUS_AGAIN) != 0;
        if (n > h->last_number + 1)
            h->holes++;
        h->last_number = MAX(h->last_number, (uint64_t)n);
    }
}

static void
on_joined(void *arg, struct bus_topic topic)
{
    struct host *h = arg;
    (void)topic;
    h->joined++;
}

static void
on_lost(void *arg, struct bus_topic topic)
{
    struct host *h = arg;
    assert_int_equal(topic.kind, BUS_CHANNEL);
    h->lost++;
}

static void
on_fate(void *arg, struct bus_topic topic, uint64_t token, enum bus_fate fate)
{
    struct host *h = arg;
    (void)topic;
    assert_true(token == (h->one_token ? 0 : h->next_fate));
    h->next_fate++;
    h->taken += fate == BUS_TAKEN;
    h->dropped += fate == BUS_DROPPED;
    h->refused += fate == BUS_REFUSED;
}

static void
on_state(void *arg, enum bus_state state, const char *why)
{
    (void)arg;
    assert_true(state == BUS_UP || (why != NULL && *why != '\0'));
}

static const struct bus_ears ears = {on_message, on_joined, on_lost, on_fate, on_state};

static void
done(void *arg, struct ring_done d)
{
    struct host *h = arg;
    h->bus->ops->on_done(h->bus, d);
}

static void
turn_of(struct host *h)
{
    if (h->bus == NULL)
        return;
    uint32_t ms = h->bus->ops->turn(h->bus, mono_now());
    ring_wait(&h->ring, (uint64_t)MIN(ms, 2u) * 1000000 + 1);
    ring_reap(&h->ring, done, h);
}

#define UNTIL(cond)                                                                                \
    do {                                                                                           \
        struct mono end_ = mono_add_ms(mono_now(), WAIT_MS);                                       \
        while (!(cond)) {                                                                          \
            if (mono_reached(mono_now(), end_))                                                    \
                fail_msg("never: %s", #cond);                                                      \
            turn_of(&a);                                                                           \
            turn_of(&b);                                                                           \
        }                                                                                          \
    } while (0)

static void
open_host(struct host *h)
{
    struct conf_error err = {{0}};
    *h = (struct host){.last = buf_make(1 << 20)};
    assert_int_equal(ring_init(&h->ring, 64, 1024), 0);
    assert_ptr_equal(bus_chosen(&conf), &bus_redis);
    h->bus = bus_redis.open(&conf, &h->ring, h->metrics, &ears, h, &err);
    if (h->bus == NULL)
        fail_msg("%s", err.text);
}

static void
close_host(struct host *h)
{
    if (h->bus == NULL)
        return;
    h->bus->ops->close(h->bus);
    h->bus = NULL;
    ring_fini(&h->ring);
    buf_free(&h->last);
}

static struct bus_topic
channel(const char *name)
{
    return (struct bus_topic){BUS_CHANNEL, view_str(name)};
}

static const struct bus_topic control = {BUS_CONTROL, {(const uint8_t *)"all", 3}};

static bool
say(struct host *h, const char *name, uint64_t token, uint64_t number)
{
    static const uint8_t head[4] = {0xc1, 1, 0, 0};
    char text[32];
    snprintf(text, sizeof text, "%llu", (unsigned long long)number);
    return h->bus->ops->publish(h->bus, channel(name), view_of(head, sizeof head), view_str(text), token);
}

/* As broker/across does it: what it knows to wait is marked; of 1000 bytes. */
static bool
say_marked(struct host *h, const char *name, uint64_t token, uint64_t number)
{
    uint8_t head[4] = {0xc1, 1, [BUS_AGAIN_AT] = h->bus->ops->is_up(h->bus, channel(name)) ? 0 : BUS_AGAIN};
    char text[1001];
    snprintf(text, sizeof text, "%01000llu", (unsigned long long)number);
    return h->bus->ops->publish(h->bus, channel(name), view_of(head, sizeof head), view_str(text), token);
}

static void
set(const char *name, const char *value)
{
    struct conf_error err;
    if (!conf_set(&conf, name, value, "the test", &err))
        fail_msg("%s", err.text);
}

/* As many servers as wanted, all in redis.url. */
static void
start(unsigned n, const char *more)
{
    char urls[300] = "";
    for (unsigned i = 0; i < n; i++) {
        t_redis_start(&servers[i], more);
        size_t at = strlen(urls);
        snprintf(urls + at, sizeof urls - at, "%sredis://127.0.0.1:%u", i ? "," : "", servers[i].port);
    }
    set("redis.url", urls);
}

static int
setup(void **state)
{
    (void)state;
    conf_defaults(&conf);
    conf.redis_backoff_min = 10;
    conf.redis_backoff_max = 100;
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    close_host(&a);
    close_host(&b);
    for (unsigned i = 0; i < ARRAY_LEN(servers); i++)
        if (servers[i].dir[0] != '\0')
            t_redis_end(&servers[i]);
    conf_free(&conf);
    return 0;
}

#define JOIN(h, topic) assert_true((h).bus->ops->join((h).bus, (topic)))
#define LEAVE(h, topic) (h).bus->ops->leave((h).bus, (topic))

static void
two_hosts_hear_each_other(void **state)
{
    (void)state;
    start(1, "");
    open_host(&a);
    open_host(&b);
    JOIN(b, channel("news"));
    JOIN(b, channel("news"));
    JOIN(b, control);
    UNTIL(a.bus->state == BUS_UP && b.bus->state == BUS_UP && b.joined == 2);
    assert_true(a.bus->ops->is_up(a.bus, channel("news")));
    for (uint64_t i = 0; i < 5000; i++)
        assert_true(say(&a, "news", i, i + 1));
    UNTIL(b.messages == 5000 && a.taken == 5000);
    assert_int_equal(b.holes + b.again + a.messages, 0);
    assert_true(a.bus->ops->publish(a.bus, control, VIEW("1234"), VIEW("x"), 5000));
    UNTIL(b.controls == 1 && a.taken == 5001);
    /* plain publishes of others come as they are; other channels not at all */
    t_redis_ask(&servers[0], "PUBLISH ringcast:news hello");
    UNTIL(b.messages == 5002);
    assert_memory_equal(b.last.p, "hello", 5);
    t_redis_expect(&servers[0], "0", "PUBLISH ringcast:old x");
    t_redis_expect(&servers[0], "0", "PUBLISH news x");
    LEAVE(b, channel("news"));
    UNTIL(b.metrics[BM_redis_topics] == 1);
    UNTIL(strcmp(t_redis_ask(&servers[0], "PUBLISH ringcast:news hello"), "0") == 0);
}

static void
names_are_any_bytes(void **state)
{
    (void)state;
    static const struct view names[] = {{(const uint8_t *)"", 0}, {(const uint8_t *)"a\0b", 3}, {(const uint8_t *)"\r\n*1\r\n", 6},
        {(const uint8_t *)"*", 1}, {(const uint8_t *)"/all", 4}, {(const uint8_t *)":", 1}};
    start(1, "");
    open_host(&a);
    for (unsigned i = 0; i < ARRAY_LEN(names); i++)
        JOIN(a, ((struct bus_topic){BUS_CHANNEL, names[i]}));
    UNTIL(a.joined == ARRAY_LEN(names) && a.bus->state == BUS_UP);
    for (unsigned i = 0; i < ARRAY_LEN(names); i++)
        assert_true(a.bus->ops->publish(a.bus, (struct bus_topic){BUS_CHANNEL, names[i]}, VIEW("head"), VIEW("\0\r\n"), i));
    assert_true(a.bus->ops->publish(a.bus, control, VIEW("head"), VIEW(""), ARRAY_LEN(names)));
    UNTIL(a.taken == ARRAY_LEN(names) + 1);
    UNTIL(a.messages == ARRAY_LEN(names));
    assert_int_equal(a.controls, 0);
}

static void
joins_and_leaves_in_any_order_end_as_asked(void **state)
{
    (void)state;
    char name[16];
    bool wanted[20] = {0};
    unsigned all = 0;
    start(1, "");
    open_host(&a);
    srandom(7);
    for (unsigned i = 0; i < 3000; i++) {
        unsigned k = (unsigned)random() % 20;
        snprintf(name, sizeof name, "c%u", k);
        wanted[k] = random() % 2;
        if (wanted[k])
            JOIN(a, channel(name));
        else
            LEAVE(a, channel(name));
        if (random() % 7 == 0)
            turn_of(&a);
        if (i == 1500)
            t_redis_ask(&servers[0], "CLIENT KILL TYPE pubsub");
    }
    for (unsigned k = 0; k < 20; k++)
        all += wanted[k];
    UNTIL(a.metrics[BM_redis_topics] == all && a.metrics[BM_redis_topics_waiting] == 0 && a.bus->state == BUS_UP);
    for (unsigned i = 0; i < 50; i++)
        turn_of(&a);
    for (unsigned k = 0; k < 20; k++) {
        char said[8];
        snprintf(said, sizeof said, "%u", wanted[k]);
        t_redis_expect(&servers[0], said, "PUBLISH ringcast:c%u x", k);
    }
    UNTIL(a.messages == all);
    unsigned before = a.joined;
    for (unsigned k = 0; k < 20; k++) /* within one turn: nothing is said to Redis, and all the same told */
        if (wanted[k]) {
            snprintf(name, sizeof name, "c%u", k);
            LEAVE(a, channel(name));
            JOIN(a, channel(name));
        }
    UNTIL(a.joined == before + all);
}

static void
a_server_restarted_empty_is_joined_before_it_is_published_to(void **state)
{
    (void)state;
    char name[16];
    start(1, "");
    open_host(&a);
    open_host(&b);
    JOIN(a, channel("x"));
    JOIN(b, channel("x"));
    for (unsigned i = 0; i < 3000; i++) {
        snprintf(name, sizeof name, "c%u", i);
        JOIN(a, channel(name));
    }
    UNTIL(a.joined == 3001 && b.joined == 1 && a.bus->state == BUS_UP);
    uint64_t n = 0;
    for (; n < 100; n++)
        assert_true(say(&a, "x", n, n + 1));
    UNTIL(a.messages == 100);
    t_redis_kill(&servers[0]);
    UNTIL(a.lost == 3001 && b.lost == 1 && a.bus->state == BUS_DOWN);
    for (; n < 1100; n++)
        assert_true(say(&a, "x", n, n + 1));
    assert_false(a.bus->ops->is_up(a.bus, channel("x")));
    assert_true(a.metrics[BM_redis_queue_bytes] == 0 || a.metrics[BM_redis_queue_bytes] > 1000);
    t_redis_restart(&servers[0]);
    UNTIL(a.taken == n && a.messages == n);
    assert_int_equal(a.holes, 0); /* its own messages tell: all were heard, since topics came first */
    assert_int_equal(a.joined, 6002);
    assert_int_equal(a.dropped, 0);
    UNTIL(a.bus->state == BUS_UP && b.joined == 2);
}

/* While other hosts are waited for (bus.held) messages wait, control topics do not; not longer than the outage explains,
 * nor when the queue is full. */
static void
what_waits_waits_for_other_hosts_too(void **state)
{
    (void)state;
    uint64_t n = 0;
    start(1, "");
    set("redis.out_queue", "64KiB");
    set("redis.backoff_max", "60s"); /* is not what ends it */
    open_host(&a);
    JOIN(a, channel("x"));
    JOIN(a, control);
    UNTIL(a.joined == 2 && a.bus->state == BUS_UP);
    for (unsigned round = 0; round < 3; round++) {
        struct mono away = mono_now();
        t_redis_kill(&servers[0]);
        UNTIL(a.bus->state == BUS_DOWN);
        a.bus->held = true;
        for (unsigned i = 0; i < 10; i++, n++)
            assert_true(say(&a, "x", n, n + 1));
        t_redis_restart(&servers[0]);
        UNTIL(a.bus->state == BUS_UP);
        struct mono back = mono_now();
        uint64_t was = mono_since_ms(back, away);
        unsigned taken = a.taken;
        assert_true(a.bus->ops->is_up(a.bus, control) && !a.bus->ops->is_up(a.bus, channel("x")));
        a.next_fate = n; /* it goes past what waits */
        assert_true(a.bus->ops->publish(a.bus, control, VIEW("head"), VIEW("x"), n));
        UNTIL(a.controls == round + 1 && a.taken == taken + 1);
        assert_int_equal(a.messages - a.controls, n - 10 - a.dropped);
        a.next_fate = n - 10;
        if (round == 0)
            a.bus->held = false; /* all are back */
        for (; round == 1 && a.metrics[BM_redis_dropped_total] == 0; n++) /* full */
            assert_true(say(&a, "x", n, n + 1));
        assert_int_equal(a.bus->ops->is_up(a.bus, channel("y")), false);
        UNTIL(a.messages - a.controls == n - a.dropped && a.taken + a.dropped == n + a.controls);
        if (round == 2)
            assert_in_range(mono_since_ms(mono_now(), back), was, 2 * was + 1000);
        a.bus->held = false;
    }
    assert_in_range(a.dropped, 1, 10);
}

/* A server, and a host that hears x. */
static void
one_that_hears(void)
{
    start(1, "");
    open_host(&a);
    JOIN(a, channel("x"));
    UNTIL(a.joined == 1 && a.bus->state == BUS_UP);
}

static void
what_was_under_way_is_sent_again_and_says_so(void **state)
{
    (void)state;
    one_that_hears();
    t_redis_pause(&servers[0]);
    for (uint64_t i = 0; i < 20; i++)
        assert_true(say(&a, "x", i, i + 1));
    turn_of(&a);
    for (uint64_t i = 20; i < 40; i++)
        assert_true(say(&a, "x", i, i + 1));
    t_redis_kill(&servers[0]);
    t_redis_restart(&servers[0]);
    UNTIL(a.taken == 40 && a.messages >= 40);
    assert_int_equal(a.holes, 0);
    assert_in_range(a.again, 20, 40);
}

/* The first that waits was given to the bus when nothing did. */
static void
what_waited_when_a_link_was_lost_says_so(void **state)
{
    (void)state;
    one_that_hears();
    t_redis_pause(&servers[0]);
    uint64_t n = 0;
    for (; a.bus->ops->is_up(a.bus, channel("x")); n++)
        assert_true(say_marked(&a, "x", n, n + 1));
    assert_true(n > 900);
    for (unsigned i = 0; i < 10; i++)
        turn_of(&a);
    t_redis_kill(&servers[0]);
    t_redis_restart(&servers[0]);
    UNTIL(a.taken == n && a.messages == n);
    assert_int_equal(a.holes, 0);
    assert_int_equal(a.again, n);
}

/* The same when only subscriptions were lost: publishes wait for them. */
static void
what_waited_for_subscriptions_says_so(void **state)
{
    (void)state;
    one_that_hears();
    t_redis_expect(&servers[0], "OK", "CLIENT PAUSE 60000 WRITE");
    uint64_t n = 0;
    for (; a.bus->ops->is_up(a.bus, channel("x")); n++)
        assert_true(say_marked(&a, "x", n, n + 1));
    t_redis_expect(&servers[0], "1", "CLIENT KILL TYPE pubsub");
    UNTIL(a.lost == 1);
    t_redis_expect(&servers[0], "OK", "CLIENT UNPAUSE");
    UNTIL(a.taken == n && a.last_number == n);
    assert_int_equal(a.again, 1); /* the others were under way, and their link was not lost */
}

/* What comes back gives way first, and what is known of it then takes no room from what is newer. */
static void
what_was_under_way_gives_way_to_what_is_newer(void **state)
{
    (void)state;
    start(1, "");
    set("redis.out_queue", "64KiB");
    open_host(&a);
    UNTIL(a.bus->state == BUS_UP);
    for (unsigned round = 0; round < 2; round++) {
        uint64_t n = 0;
        a.taken = a.dropped = 0;
        a.next_fate = 0;
        a.one_token = round == 1;
        t_redis_pause(&servers[0]);
        for (; n < 1200; n++)
            assert_true(say_marked(&a, "x", a.one_token ? 0 : n, n + 1));
        for (unsigned i = 0; i < 10; i++)
            turn_of(&a);
        assert_int_equal(a.taken + a.dropped, 0);
        t_redis_kill(&servers[0]);
        UNTIL(a.bus->state == BUS_DOWN);
        t_redis_restart(&servers[0]);
        UNTIL(a.taken + a.dropped == n && a.bus->state == BUS_UP);
        assert_in_range(a.taken, 30, 64);
    }
}

static void
a_stopped_server_costs_the_oldest_and_bounded_memory(void **state)
{
    (void)state;
    start(1, "");
    set("redis.out_queue", "256KiB");
    set("redis.timeout", "1s");
    open_host(&a);
    JOIN(a, channel("x"));
    UNTIL(a.joined == 1 && a.bus->state == BUS_UP);
    t_redis_pause(&servers[0]);
    static const uint8_t big[300000];
    uint64_t n = 0, most = 0;
    while (a.bus->state == BUS_UP || n < 40000) {
        for (unsigned i = 0; i < 100 && n < TOKENS; i++, n++)
            assert_true(say(&a, "x", n, n + 1));
        turn_of(&a);
        most = MAX(most, a.metrics[BM_redis_queue_bytes]);
    }
    assert_in_range(most, 256u << 10, 4u << 20); /* the queue, and what is under way: twice when it comes back, with overhead */
    t_redis_resume(&servers[0]);
    UNTIL(a.taken + a.dropped == n);
    assert_int_equal(a.next_fate, n);
    assert_true(a.dropped > 10000);
    assert_int_equal(a.metrics[BM_redis_dropped_total], a.dropped);
    UNTIL(a.last_number == n); /* the newest were kept */
    assert_false(a.bus->ops->publish(a.bus, channel("x"), VIEW("head"), view_of(big, sizeof big), n)); /* never fits */
}

static void
killed_clients_come_back(void **state)
{
    (void)state;
    one_that_hears();
    uint64_t n = 0;
    for (unsigned round = 0; round < 10; round++) {
        for (unsigned i = 0; i < 50; i++, n++)
            assert_true(say(&a, "x", n, n + 1));
        turn_of(&a);
        t_redis_ask(&servers[0], "CLIENT KILL TYPE %s", round % 2 ? "normal" : "pubsub");
        UNTIL(a.taken == n && a.bus->state == BUS_UP);
    }
    assert_int_equal(a.dropped + a.refused, 0);
    assert_true(a.metrics[BM_redis_failures_total] >= 10);
}

static void
channels_are_spread_over_servers(void **state)
{
    (void)state;
    char name[16];
    start(3, "");
    open_host(&a);
    open_host(&b);
    for (unsigned i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "c%u", i);
        JOIN(b, channel(name));
    }
    JOIN(b, control);
    UNTIL(a.bus->state == BUS_UP && b.bus->state == BUS_UP && b.joined == 303);
    for (uint64_t i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "c%u", (unsigned)i);
        struct bus_topic topic = channel(name);
        assert_true(a.bus->ops->publish(a.bus, topic, VIEW("head"), VIEW("x"), 0));
        a.next_fate = 0; /* no order between servers */
        UNTIL(b.messages == i + 1 && a.taken == i + 1);
    }
    for (unsigned i = 0; i < 3; i++) {
        unsigned n = 0;
        for (const char *p = t_redis_ask(&servers[i], "PUBSUB CHANNELS ringcast:c*"); (p = strstr(p, "ringcast:c")) != NULL; p++)
            n++;
        assert_in_range(n, 60, 140);
    }
    b.messages = 0;
    a.next_fate = 0;
    assert_true(a.bus->ops->publish(a.bus, control, VIEW("head"), VIEW("x"), 0));
    UNTIL(b.controls == 3 && a.next_fate == 1); /* by every server, one fate */
    t_redis_kill(&servers[1]);
    UNTIL(a.bus->state == BUS_PARTLY && b.bus->state == BUS_PARTLY && b.lost >= 60);
    struct buf out = buf_make(4096);
    a.bus->ops->describe(a.bus, &out);
    buf_put_u8(&out, 0);
    assert_non_null(strstr((char *)out.p, " up "));
    assert_non_null(strstr((char *)out.p, " down "));
    buf_free(&out);
    t_redis_restart(&servers[1]);
    UNTIL(a.bus->state == BUS_UP && b.bus->state == BUS_UP);
}

static void
control_topics_go_by_the_servers_that_are_reached(void **state)
{
    (void)state;
    start(3, "");
    open_host(&a);
    open_host(&b);
    JOIN(b, control);
    UNTIL(a.bus->state == BUS_UP && b.bus->state == BUS_UP && b.joined == 3);
    t_redis_kill(&servers[0]);
    UNTIL(a.bus->state == BUS_PARTLY && b.bus->state == BUS_PARTLY);
    assert_true(a.bus->ops->is_up(a.bus, control));
    assert_true(a.bus->ops->publish(a.bus, control, VIEW("head"), VIEW("x"), 0));
    UNTIL(b.controls == 2 && a.next_fate == 1);
    t_redis_restart(&servers[0]);
    UNTIL(a.bus->state == BUS_UP && b.bus->state == BUS_UP && b.joined == 4);
    assert_true(a.bus->ops->publish(a.bus, control, VIEW("head"), VIEW("y"), 1));
    UNTIL(b.controls == 5 && a.next_fate == 2); /* nothing of before came late */
    for (unsigned i = 0; i < 3; i++)
        t_redis_kill(&servers[i]);
    UNTIL(a.bus->state == BUS_DOWN);
    assert_false(a.bus->ops->is_up(a.bus, control));
    assert_true(a.bus->ops->publish(a.bus, control, VIEW("head"), VIEW("z"), 2));
    for (unsigned i = 0; i < 3; i++)
        t_redis_restart(&servers[i]);
    UNTIL(a.next_fate == 3); /* b may not have been back in time to hear it */
}

static void
what_the_server_refuses_is_told(void **state)
{
    (void)state;
    start(1, "--user default on nopass ~* &ringcast/* &ringcast:open* +@all");
    open_host(&a);
    JOIN(a, channel("open"));
    UNTIL(a.joined == 1 && a.bus->state == BUS_UP);
    assert_true(say(&a, "open", 0, 1));
    assert_true(say(&a, "closed", 1, 1));
    UNTIL(a.taken == 1 && a.refused == 1);
    assert_int_equal(a.metrics[BM_redis_errors_total], 1);
    JOIN(a, channel("closed")); /* all of a refused command is retried */
    UNTIL(a.metrics[BM_redis_failures_total] > 1 && a.bus->state == BUS_DOWN);
    LEAVE(a, channel("closed"));
    UNTIL(a.bus->state == BUS_UP);
}

static void
settings_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *name, *value;
    } bad[] = {{"redis.url", "http://x"}, {"redis.prefix", "a:b"}, {"redis.password_file", "/nonexistent/x"}, {"redis.tls_ca", "/nonexistent/y"}};
    conf_free(&conf);
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        struct conf_error err = {{0}};
        struct ring ring;
        static uint64_t metrics[BM_COUNT];
        conf_defaults(&conf);
        set("redis.url", "rediss://127.0.0.1:1");
        set(bad[i].name, bad[i].value);
        assert_int_equal(ring_init(&ring, 8, 16), 0);
        assert_null(bus_redis.open(&conf, &ring, metrics, &ears, &a, &err));
        assert_non_null(strstr(err.text, bad[i].name));
        ring_fini(&ring);
        conf_free(&conf);
    }
    conf_defaults(&conf);
}

int
main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(settings_that_make_no_sense_are_refused),
        T(two_hosts_hear_each_other),
        T(names_are_any_bytes),
        T(joins_and_leaves_in_any_order_end_as_asked),
        T(a_server_restarted_empty_is_joined_before_it_is_published_to),
        T(what_waits_waits_for_other_hosts_too),
        T(what_was_under_way_is_sent_again_and_says_so),
        T(what_waited_when_a_link_was_lost_says_so),
        T(what_waited_for_subscriptions_says_so),
        T(what_was_under_way_gives_way_to_what_is_newer),
        T(a_stopped_server_costs_the_oldest_and_bounded_memory),
        T(killed_clients_come_back),
        T(channels_are_spread_over_servers),
        T(control_topics_go_by_the_servers_that_are_reached),
        T(what_the_server_refuses_is_told),
    };
    if (!t_redis_there()) {
        print_message("skipped: there is no redis-server on this machine (apt-get install redis-server)\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
