/* tests/unit/t_redis: the sets of servers that other tests stand on do what they are for, and proto/slot says what such a server says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "proto/slot.h"
#include "tests/unit/t_redis.h"

static struct t_cluster cluster;
static struct t_sentinels sentinels;

static bool
replica_owns_zero(void *arg)
{
    (void)arg;
    return t_cluster_owner(&cluster, 0) == 3;
}

static void
a_cluster_fails_over_and_moves_slots(void **state)
{
    (void)state;
    t_cluster_start(&cluster, 3, 1, "");
    assert_int_equal(t_cluster_owner(&cluster, 0), 0);
    srandom(1);
    for (int i = 0; i < 500; i++) {
        char key[16] = {0};
        size_t n = 1 + (size_t)random() % 12;
        for (size_t k = 0; k < n; k++)
            key[k] = "{}{}abcxyz:"[random() % 11];
        char said[8];
        snprintf(said, sizeof said, "%u", slot_of(view_str(key)));
        t_redis_expect(&cluster.node[0], said, "CLUSTER KEYSLOT %s", key);
    }
    t_cluster_move(&cluster, 16383, 1);
    assert_int_equal(t_cluster_owner(&cluster, 16383), 1);
    t_redis_kill(&cluster.node[0]);
    t_redis_until(replica_owns_zero, NULL, "a replica takes over");
    t_cluster_end(&cluster);
}

static bool
another_is_primary(void *arg)
{
    (void)arg;
    int now = t_sentinels_primary(&sentinels);
    return now > 0 && t_redis_info_has(&sentinels.node[now], "role:master");
}

static void
sentinels_promote(void **state)
{
    (void)state;
    t_sentinels_start(&sentinels, 1, "", "");
    assert_int_equal(t_sentinels_primary(&sentinels), 0);
    t_redis_kill(&sentinels.node[0]);
    t_redis_until(another_is_primary, NULL, "the sentinels promote a replica");
    t_sentinels_end(&sentinels);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cluster_fails_over_and_moves_slots),
        cmocka_unit_test(sentinels_promote),
    };
    if (!t_redis_there()) {
        printf("skipped: there is no redis-server\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
