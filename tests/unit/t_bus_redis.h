/* The rig of t_bus.h for buses over real Redis servers. Each broker is a user of its own on each of them, so that one can be
 * cut off. A test sets `via`, runs the servers, and hands REDIS_RIG to the suite. */
#ifndef TESTS_UNIT_T_BUS_REDIS_H
#define TESTS_UNIT_T_BUS_REDIS_H

#include "tests/unit/t_bus.h"

#include "broker/metrics.h"
#include "common/conf.h"
#include "common/ring.h"
#include "tests/unit/t_redis.h"

static struct {
    const struct bus_ops *ops;
    struct t_redis *servers;
    unsigned count;
    const char *mode;                             /* redis.mode */
    void (*urls)(unsigned i, char *text, size_t cap); /* redis.url of broker i, as user n<i> with the password "secret" */
} via;

static struct {
    struct conf conf;
    struct ring ring;
    struct bus *bus; /* NULL: not open */
    uint64_t metrics[BM_COUNT];
} ends[BUS_NODES];

static struct bus *
via_open(unsigned i, const struct bus_ears *ears, void *arg)
{
    struct conf_error err = {{0}};
    struct conf *conf = &ends[i].conf;
    char urls[400] = "";
    conf_defaults(conf);
    conf->redis_backoff_min = 5;
    conf->redis_backoff_max = 50;
    for (unsigned k = 0; k < via.count; k++)
        t_redis_expect(&via.servers[k], "OK", "ACL SETUSER n%u on >secret &* +@all", i);
    via.urls(i, urls, sizeof urls);
    if (!conf_set(conf, "redis.url", urls, "the test", &err) || !conf_set(conf, "redis.mode", via.mode, "the test", &err))
        fail_msg("%s", err.text);
    assert_int_equal(ring_init(&ends[i].ring, 64, 1024), 0);
    ends[i].bus = via.ops->open(conf, &ends[i].ring, ends[i].metrics, ears, arg, &err);
    if (ends[i].bus == NULL)
        fail_msg("%s", err.text);
    return ends[i].bus;
}

static void
via_close(unsigned i)
{
    if (ends[i].bus == NULL)
        return;
    via.ops->close(ends[i].bus);
    ends[i].bus = NULL;
    ring_fini(&ends[i].ring);
    conf_free(&ends[i].conf);
}

static void
via_done(void *arg, struct ring_done d)
{
    via.ops->on_done(arg, d);
}

static void
via_pump(void)
{
    for (unsigned i = 0; i < BUS_NODES; i++)
        if (ends[i].bus != NULL) {
            uint32_t ms = via.ops->turn(ends[i].bus, mono_now());
            ring_wait(&ends[i].ring, (uint64_t)MIN(ms, 2u) * 1000000 + 1);
            ring_reap(&ends[i].ring, via_done, ends[i].bus);
        }
}

static void
via_cut(unsigned i)
{
    for (unsigned k = 0; k < via.count; k++) {
        t_redis_expect(&via.servers[k], "OK", "ACL SETUSER n%u off", i);
        t_redis_ask(&via.servers[k], "CLIENT KILL USER n%u", i);
    }
}

static void
via_heal(unsigned i)
{
    for (unsigned k = 0; k < via.count; k++)
        t_redis_expect(&via.servers[k], "OK", "ACL SETUSER n%u on", i);
}

static void
via_bound(unsigned i)
{
    ends[i].conf.redis_out_queue = 65536;
}

static void
via_stall(void)
{
    for (unsigned k = 0; k < via.count; k++)
        t_redis_pause(&via.servers[k]);
}

static void
via_go_on(void)
{
    for (unsigned k = 0; k < via.count; k++)
        t_redis_resume(&via.servers[k]);
}

/* A server can't be told to refuse just one. */
#define REDIS_RIG(name, by_topic) \
    {name, via_open, via_close, via_pump, via_cut, via_heal, via_bound, NULL, via_stall, via_go_on, by_topic}

#endif
