/* The suite of every bus (t_bus.h) over real Redis servers: one by TCP, one by its UNIX socket, two that share the channels.
 * Each broker is a user of its own there, so that one of them can be cut off. */
#include <stdlib.h>
#include <string.h>

#include "tests/unit/t_bus.h"

#include "broker/metrics.h"
#include "tests/unit/t_redis.h"

static struct t_redis servers[2];
static unsigned server_count;
static bool by_socket;
static struct conf confs[BUS_NODES];
static struct ring rings[BUS_NODES];
static struct bus *buses[BUS_NODES];
static uint64_t metrics[BUS_NODES][BM_COUNT];

static struct bus *
redis_open(unsigned i, const struct bus_ears *ears, void *arg)
{
    struct conf_error err = {{0}};
    char urls[400] = "";
    conf_defaults(&confs[i]);
    confs[i].redis_backoff_min = 5;
    confs[i].redis_backoff_max = 50;
    for (unsigned k = 0; k < server_count; k++) {
        size_t at = strlen(urls);
        t_redis_expect(&servers[k], "OK", "ACL SETUSER n%u on >secret &* +@all", i);
        if (by_socket)
            snprintf(urls + at, sizeof urls - at, "unix:%s?user=n%u&password=secret", servers[k].sock, i);
        else
            snprintf(urls + at, sizeof urls - at, "%sredis://n%u:secret@127.0.0.1:%u", k ? "," : "", i, servers[k].port);
    }
    if (!conf_set(&confs[i], "redis.url", urls, "the test", &err))
        fail_msg("%s", err.text);
    assert_int_equal(ring_init(&rings[i], 64, 1024), 0);
    buses[i] = bus_redis.open(&confs[i], &rings[i], metrics[i], ears, arg, &err);
    if (buses[i] == NULL)
        fail_msg("%s", err.text);
    return buses[i];
}

static void
redis_close(unsigned i)
{
    if (buses[i] == NULL)
        return;
    bus_redis.close(buses[i]);
    buses[i] = NULL;
    ring_fini(&rings[i]);
    conf_free(&confs[i]);
}

static void
done(void *arg, struct ring_done d)
{
    bus_redis.on_done(arg, d);
}

static void
redis_pump(void)
{
    for (unsigned i = 0; i < BUS_NODES; i++)
        if (buses[i] != NULL) {
            uint32_t ms = bus_redis.turn(buses[i], mono_now());
            ring_wait(&rings[i], (uint64_t)MIN(ms, 2u) * 1000000 + 1);
            ring_reap(&rings[i], done, buses[i]);
        }
}

static void
redis_cut(unsigned i)
{
    for (unsigned k = 0; k < server_count; k++) {
        t_redis_expect(&servers[k], "OK", "ACL SETUSER n%u off", i);
        t_redis_ask(&servers[k], "CLIENT KILL USER n%u", i);
    }
}

static void
redis_heal(unsigned i)
{
    for (unsigned k = 0; k < server_count; k++)
        t_redis_expect(&servers[k], "OK", "ACL SETUSER n%u on", i);
}

static void
redis_bound(unsigned i)
{
    confs[i].redis_out_queue = 65536;
}

static void
redis_stall(void)
{
    for (unsigned k = 0; k < server_count; k++)
        t_redis_pause(&servers[k]);
}

static void
redis_go_on(void)
{
    for (unsigned k = 0; k < server_count; k++)
        t_redis_resume(&servers[k]);
}

/* A server can't be told to refuse just one: test_bus_redis.c has refusals. */
static const struct bus_rig redis = {"redis", redis_open, redis_close, redis_pump, redis_cut, redis_heal, redis_bound, NULL, redis_stall,
    redis_go_on, false}, several = {"several", redis_open, redis_close, redis_pump, redis_cut, redis_heal, redis_bound, NULL, redis_stall,
    redis_go_on, true};

static int
start(void **state)
{
    (void)state;
    for (unsigned k = 0; k < server_count; k++)
        t_redis_start(&servers[k], "");
    return 0;
}

static int
end(void **state)
{
    (void)state;
    for (unsigned k = 0; k < server_count; k++)
        t_redis_end(&servers[k]);
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {BUS_CASES};
    int failed = 0;
    rig = &redis;
    if (!t_redis_there()) {
        print_message("skipped: there is no redis-server on this machine (apt-get install redis-server)\n");
        return 0;
    }
    server_count = 1;
    failed += cmocka_run_group_tests_name("one server, TCP", tests, start, end);
    by_socket = true;
    failed += cmocka_run_group_tests_name("one server, UNIX socket", tests, start, end);
    by_socket = false;
    server_count = 2;
    rig = &several;
    failed += cmocka_run_group_tests_name("two servers", tests, start, end);
    return failed;
}
