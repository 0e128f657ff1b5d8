/* The suite of every bus (t_bus.h) over a Redis Cluster of three nodes. Each broker is a user of its own there, so that one of
 * them can be cut off. */
#include <stdlib.h>
#include <string.h>

#include "tests/unit/t_bus.h"

#include "broker/metrics.h"
#include "tests/unit/t_redis.h"

static struct t_cluster cluster;
static struct conf confs[BUS_NODES];
static struct ring rings[BUS_NODES];
static struct bus *buses[BUS_NODES];
static uint64_t metrics[BUS_NODES][BM_COUNT];

static struct bus *
cluster_open(unsigned i, const struct bus_ears *ears, void *arg)
{
    struct conf_error err;
    char url[100];
    conf_defaults(&confs[i]);
    confs[i].redis_backoff_min = 5;
    confs[i].redis_backoff_max = 50;
    for (unsigned k = 0; k < cluster.n; k++)
        t_redis_expect(&cluster.node[k], "OK", "ACL SETUSER n%u on >secret &* +@all", i);
    snprintf(url, sizeof url, "redis://n%u:secret@127.0.0.1:%u", i, cluster.node[i].port);
    if (!conf_set(&confs[i], "redis.url", url, "the test", &err) || !conf_set(&confs[i], "redis.mode", "cluster", "the test", &err))
        fail_msg("%s", err.text);
    assert_int_equal(ring_init(&rings[i], 64, 1024), 0);
    buses[i] = bus_rcluster.open(&confs[i], &rings[i], metrics[i], ears, arg, &err);
    if (buses[i] == NULL)
        fail_msg("%s", err.text);
    return buses[i];
}

static void
cluster_close(unsigned i)
{
    if (buses[i] == NULL)
        return;
    bus_rcluster.close(buses[i]);
    buses[i] = NULL;
    ring_fini(&rings[i]);
    conf_free(&confs[i]);
}

static void
done(void *arg, struct ring_done d)
{
    bus_rcluster.on_done(arg, d);
}

static void
cluster_pump(void)
{
    for (unsigned i = 0; i < BUS_NODES; i++)
        if (buses[i] != NULL) {
            uint32_t ms = bus_rcluster.turn(buses[i], mono_now());
            ring_wait(&rings[i], (uint64_t)MIN(ms, 2u) * 1000000 + 1);
            ring_reap(&rings[i], done, buses[i]);
        }
}

static void
cluster_cut(unsigned i)
{
    for (unsigned k = 0; k < cluster.n; k++) {
        t_redis_expect(&cluster.node[k], "OK", "ACL SETUSER n%u off", i);
        t_redis_ask(&cluster.node[k], "CLIENT KILL USER n%u", i);
    }
}

static void
cluster_heal(unsigned i)
{
    for (unsigned k = 0; k < cluster.n; k++)
        t_redis_expect(&cluster.node[k], "OK", "ACL SETUSER n%u on", i);
}

static void
cluster_bound(unsigned i)
{
    confs[i].redis_out_queue = 65536;
}

static void
cluster_stall(void)
{
    for (unsigned k = 0; k < cluster.n; k++)
        t_redis_pause(&cluster.node[k]);
}

static void
cluster_go_on(void)
{
    for (unsigned k = 0; k < cluster.n; k++)
        t_redis_resume(&cluster.node[k]);
}

/* A server can't be told to refuse just one. */
static const struct bus_rig several_nodes = {"rcluster", cluster_open, cluster_close, cluster_pump, cluster_cut, cluster_heal,
    cluster_bound, NULL, cluster_stall, cluster_go_on, true};

static int
start(void **state)
{
    (void)state;
    t_cluster_start(&cluster, 3, 0, "");
    return 0;
}

static int
end(void **state)
{
    (void)state;
    t_cluster_end(&cluster);
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {BUS_CASES};
    rig = &several_nodes;
    if (!t_redis_there()) {
        print_message("skipped: there is no redis-server on this machine (apt-get install redis-server)\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, start, end);
}
