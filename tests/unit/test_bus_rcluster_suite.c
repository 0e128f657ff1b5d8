/* The suite of every bus (t_bus.h) over a Redis Cluster of three nodes. */
#include "tests/unit/t_bus_redis.h"

static struct t_cluster cluster;
static const struct bus_rig several_nodes = REDIS_RIG("rcluster", true);

static void
one_node(unsigned i, char *text, size_t cap)
{
    snprintf(text, cap, "redis://n%u:secret@127.0.0.1:%u", i, cluster.node[i].port);
}

static int
start(void **state)
{
    (void)state;
    t_cluster_start(&cluster, 3, 0, "");
    via.servers = cluster.node;
    via.count = cluster.n;
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
    via.ops = &bus_rcluster;
    via.mode = "cluster";
    via.urls = one_node;
    if (!t_redis_there()) {
        print_message("skipped: there is no redis-server on this machine (apt-get install redis-server)\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, start, end);
}
