/* The suite of every bus (t_bus.h) over real Redis servers: one by TCP, one by its UNIX socket, two that share the channels.
 * test_bus_redis.c has refusals. */
#include "tests/unit/t_bus_redis.h"

static struct t_redis servers[2];
static bool by_socket;
static const struct bus_rig redis = REDIS_RIG("redis", false), several = REDIS_RIG("several", true);

static void
each_server(unsigned i, char *text, size_t cap)
{
    size_t at = 0;
    for (unsigned k = 0; k < via.count; k++)
        if (by_socket)
            at += (size_t)snprintf(text + at, cap - at, "unix:%s?user=n%u&password=secret", servers[k].sock, i);
        else
            at += (size_t)snprintf(text + at, cap - at, "%sredis://n%u:secret@127.0.0.1:%u", k ? "," : "", i, servers[k].port);
}

static int
start(void **state)
{
    (void)state;
    for (unsigned k = 0; k < via.count; k++)
        t_redis_start(&servers[k], "");
    return 0;
}

static int
end(void **state)
{
    (void)state;
    for (unsigned k = 0; k < via.count; k++)
        t_redis_end(&servers[k]);
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {BUS_CASES};
    int failed = 0;
    rig = &redis;
    via.ops = &bus_redis;
    via.mode = "standalone";
    via.urls = each_server;
    via.servers = servers;
    if (!t_redis_there()) {
        print_message("skipped: there is no redis-server on this machine (apt-get install redis-server)\n");
        return 0;
    }
    via.count = 1;
    failed += cmocka_run_group_tests_name("one server, TCP", tests, start, end);
    by_socket = true;
    failed += cmocka_run_group_tests_name("one server, UNIX socket", tests, start, end);
    by_socket = false;
    via.count = 2;
    rig = &several;
    failed += cmocka_run_group_tests_name("two servers", tests, start, end);
    return failed;
}
