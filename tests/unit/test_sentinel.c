/* broker/sentinel and redis.mode = sentinel against a real set: a primary, a replica, three sentinels. Two buses; what one publishes the
 * other hears, before and after the primary is killed, stopped and comes back as a replica. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "broker/bus.h"
#include "broker/metrics.h"
#include "broker/sentinel.h"
#include "tests/unit/t_redis.h"

#define WAIT_MS T_REDIS_WAIT_MS

struct host {
    struct ring ring;
    struct conf conf;
    struct bus *bus;
    uint64_t metrics[BM_COUNT];
    uint64_t last, missing, untold;
    uint64_t said, fated, dropped;
    bool joined, lost;
    enum bus_state state;
};

static struct t_sentinels set;
static struct host a, b;
static char keys[64]; /* of a set with TLS and users */
static const struct bus_topic news = {BUS_CHANNEL, {(const uint8_t *)"news", 4}};

static void
on_message(void *arg, struct bus_topic topic, struct view bytes)
{
    struct host *h = arg;
    uint64_t number;
    assert_true(view_eq(topic.name, news.name) && bytes.n == 12);
    memcpy(&number, bytes.p + 4, 8);
    if (number <= h->last)
        return;
    h->missing += number - h->last - 1;
    if (!h->lost)
        h->untold += number - h->last - 1;
    h->lost = false;
    h->last = number;
}

static void
on_joined(void *arg, struct bus_topic topic)
{
    (void)topic;
    ((struct host *)arg)->joined = true;
}

static void
on_lost(void *arg, struct bus_topic topic)
{
    (void)topic;
    ((struct host *)arg)->joined = false;
    ((struct host *)arg)->lost = true;
}

static void
on_fate(void *arg, struct bus_topic topic, uint64_t token, enum bus_fate fate)
{
    struct host *h = arg;
    (void)topic;
    assert_int_equal(token, ++h->fated);
    h->dropped += fate != BUS_TAKEN;
}

static void
on_state(void *arg, enum bus_state state, const char *why)
{
    (void)why;
    ((struct host *)arg)->state = state;
}

static const struct bus_ears ears = {on_message, on_joined, on_lost, on_fate, on_state};

static void
set_to(struct host *h, const char *name, const char *value)
{
    struct conf_error err = {{0}};
    if (!conf_set(&h->conf, name, value, "test", &err))
        fail_msg("%s", err.text);
}

/* A user and a password of their own at the sentinels and at the servers. */
static void
set_guarded(struct host *h)
{
    char path[128];
    snprintf(path, sizeof path, "%s/ca.pem", keys);
    set_to(h, "redis.tls_ca", path);
    set_to(h, "redis.user", "ringcast");
    set_to(h, "redis.password_file", t_redis_secret(keys, "password", "what-hosts-know"));
    set_to(h, "redis.sentinel_user", "watcher");
    set_to(h, "redis.sentinel_password_file", t_redis_secret(keys, "password2", "what-watchers-know"));
}

static void
host_open(struct host *h)
{
    static const char *const more[][2] = {{"redis.mode", "sentinel"}, {"redis.sentinel_name", T_SENTINEL_NAME},
        {"redis.timeout", "800ms"}, {"redis.connect_timeout", "800ms"}, {"redis.ping_interval", "300ms"}};
    struct conf_error err = {{0}};
    char urls[256];
    *h = (struct host){.state = BUS_DOWN};
    assert_int_equal(ring_init(&h->ring, 256, 4096), 0);
    conf_defaults(&h->conf);
    /* The first of them is not there. */
    const char *scheme = keys[0] != 0 ? "rediss" : "redis";
    snprintf(urls, sizeof urls, "%s://127.0.0.1:1,%s://127.0.0.1:%u,%s://127.0.0.1:%u", scheme, scheme, set.sentinel[0].port, scheme,
        set.sentinel[1].port);
    set_to(h, "redis.url", urls);
    for (size_t i = 0; i < ARRAY_LEN(more); i++)
        set_to(h, more[i][0], more[i][1]);
    if (keys[0] != 0)
        set_guarded(h);
    assert_ptr_equal(bus_chosen(&h->conf), &bus_redis);
    h->bus = bus_redis.open(&h->conf, &h->ring, h->metrics, &ears, h, &err);
    if (h->bus == NULL)
        fail_msg("%s", err.text);
}

static void
done(void *arg, struct ring_done d)
{
    struct host *h = arg;
    h->bus->ops->on_done(h->bus, d);
}

static void
turn(void)
{
    for (struct host *h = &a;; h = &b) {
        (void)h->bus->ops->turn(h->bus, mono_now());
        ring_wait(&h->ring, 300000);
        ring_reap(&h->ring, done, h);
        if (h == &b)
            return;
    }
}

static void
publish(void)
{
    uint64_t number = ++a.said;
    assert_true(a.bus->ops->publish(a.bus, news, view_of("\0\0\0\0", 4), view_of(&number, 8), number));
}

#define UNTIL(cond)                                                                                \
    do {                                                                                           \
        struct mono from_ = mono_now();                                                            \
        for (unsigned i_ = 0; !(cond); i_++) {                                                     \
            if (mono_since_ms(mono_now(), from_) > WAIT_MS)                                        \
                fail_msg("waited in vain: %s", #cond);                                             \
            turn();                                                                                \
        }                                                                                          \
    } while (0)

/* Messages all the time until `switches` primaries were met by both, then until all is well. */
static void
flow_until(uint64_t switches, const char *what)
{
    struct mono from = mono_now();
    while (a.metrics[BM_sentinel_switches_total] < switches || b.metrics[BM_sentinel_switches_total] < switches) {
        if (mono_since_ms(mono_now(), from) > WAIT_MS)
            fail_msg("%s: the primary is not followed", what);
        publish();
        turn();
    }
    UNTIL(a.state == BUS_UP && b.state == BUS_UP && b.joined);
    UNTIL(a.fated == a.said);
    publish();
    UNTIL(b.last == a.said);
    print_message("%s: %llu messages, %llu missing and told, %llu dropped\n", what, (unsigned long long)a.said,
        (unsigned long long)b.missing, (unsigned long long)a.dropped);
    assert_int_equal(b.untold, 0);
    assert_int_equal(a.dropped, 0);
}

static bool
replica_is_in_step(void *arg)
{
    return t_redis_info_has(arg, "role:slave") && t_redis_info_has(arg, "master_link_status:up");
}

static void
hosts_close(void)
{
    a.bus->ops->close(a.bus);
    b.bus->ops->close(b.bus);
    ring_fini(&a.ring);
    ring_fini(&b.ring);
    conf_free(&a.conf);
    conf_free(&b.conf);
    t_sentinels_end(&set);
}

static void
hosts_open(void)
{
    host_open(&a);
    host_open(&b);
    assert_true(b.bus->ops->join(b.bus, news));
    UNTIL(a.state == BUS_UP && b.state == BUS_UP && b.joined);
    flow_until(1, "the first primary");
    assert_int_equal(b.missing, 0);
}

static void
the_primary_is_followed(void **state)
{
    (void)state;
    t_sentinels_start(&set, 1, "", "");
    hosts_open();

    int now = t_sentinels_primary(&set);
    t_redis_kill(&set.node[now]);
    flow_until(2, "kill -9 of the primary");
    t_redis_restart(&set.node[now]);
    t_redis_until(replica_is_in_step, &set.node[now], "the old primary is a replica");

    now = t_sentinels_primary(&set);
    t_redis_pause(&set.node[now]);
    flow_until(3, "SIGSTOP of the primary");
    t_redis_resume(&set.node[now]); /* it does not know yet that it is none any more */
    for (unsigned i = 0; i < 500; i++) {
        publish();
        turn();
    }
    flow_until(3, "the old primary goes on");

    hosts_close();
}

/* TLS everywhere; users who may do what docs/ops/redis.md says and no more, another at the sentinels than at the servers. */
static void
passwords_of_sentinels_and_servers_differ(void **state)
{
    char server[1500], sentinel[1500];
    (void)state;
    t_redis_keys(keys);
    t_redis_certificate(keys, "server", "subjectAltName=IP:127.0.0.1");
    snprintf(server, sizeof server, T_REDIS_TLS " --requirepass " T_REDIS_PASSWORD " --masterauth " T_REDIS_PASSWORD
        " --user ringcast on >what-hosts-know resetchannels &ringcast:* &ringcast/* -@all +publish +subscribe +unsubscribe +ping "
        "+client|setname +role", keys, keys, keys);
    snprintf(sentinel, sizeof sentinel, T_REDIS_TLS " --requirepass " T_REDIS_PASSWORD " --sentinel auth-pass " T_SENTINEL_NAME " "
        T_REDIS_PASSWORD " --user watcher on >what-watchers-know resetchannels &+switch-master -@all +subscribe +ping +client|setname "
        "+sentinel|get-master-addr-by-name", keys, keys, keys);
    t_sentinels_start(&set, 1, server, sentinel);
    hosts_open();
    assert_int_equal(a.metrics[BM_redis_errors_total], 0); /* nobody was refused anything */
    t_redis_kill(&set.node[t_sentinels_primary(&set)]);
    flow_until(2, "kill -9 of a primary with TLS and users");
    hosts_close();
    t_redis_keys_end(keys);
    keys[0] = 0;
}

static void
settings_that_make_no_sense_are_refused(void **state)
{
    struct conf conf;
    struct conf_error err = {{0}};
    struct ring ring;
    uint64_t metrics[BM_COUNT] = {0};
    (void)state;
    assert_int_equal(ring_init(&ring, 256, 4096), 0);
    conf_defaults(&conf);
    assert_true(conf_set(&conf, "redis.mode", "sentinel", "test", &err));
    assert_true(conf_set(&conf, "redis.url", "redis://127.0.0.1:26379", "test", &err));
    assert_null(bus_redis.open(&conf, &ring, metrics, &ears, NULL, &err));
    assert_non_null(strstr(err.text, "redis.sentinel_name"));
    conf_free(&conf);
    ring_fini(&ring);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(settings_that_make_no_sense_are_refused),
        cmocka_unit_test(the_primary_is_followed),
        cmocka_unit_test(passwords_of_sentinels_and_servers_differ),
    };
    if (!t_redis_there()) {
        printf("skipped: there is no redis-server\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
