/* broker/slotmap: what nodes of a cluster say, and what they had better not say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "broker/slotmap.h"

static struct slotmap map;
static const char *why;
static bool read_whole;

static bool
read_one(void *arg, const struct redis_reply *r)
{
    (void)arg;
    read_whole = slotmap_read(&map, r, "192.0.2.9", &why);
    return true;
}

static bool
reads(const char *wire)
{
    const struct redis_reply_bounds bounds = {.max_bulk = 65536, .max_array = 1u << 20, .max_depth = 7};
    struct redis_reply_reader *reader = redis_reply_reader_new(&bounds);
    const char *what = NULL;
    assert_non_null(reader);
    read_whole = false;
    assert_true(redis_reply_reader_feed(reader, view_str(wire), read_one, NULL, &what));
    redis_reply_reader_free(reader);
    return read_whole;
}

#define NODE(host, port) "*4\r\n" host ":" port "\r\n$2\r\nid\r\n*2\r\n$8\r\nhostname\r\n$1\r\nh\r\n"

static void
a_map_is_read(void **state)
{
    (void)state;
    assert_true(reads("*3\r\n"
                      "*4\r\n:0\r\n:9\r\n" NODE("$9\r\n127.0.0.1\r\n", "7000") NODE("$9\r\n127.0.0.1\r\n", "7009")
                      "*3\r\n:10\r\n:16383\r\n" NODE("$3\r\n::1\r\n", "7001")
                      "*3\r\n:5\r\n:5\r\n" NODE("$9\r\n127.0.0.1\r\n", "7000")));
    assert_int_equal(map.node_count, 2);
    assert_string_equal(map.nodes[0].host, "127.0.0.1");
    assert_int_equal(map.nodes[0].port, 7000);
    assert_string_equal(map.nodes[1].host, "::1");
    for (unsigned s = 0; s < SLOTS; s++)
        assert_int_equal(map.owner[s], s > 9);
    assert_true(reads("*0\r\n"));
    assert_int_equal(map.owner[77], SLOTMAP_NONE);
}

static void
a_node_without_a_name_is_the_one_that_was_asked(void **state)
{
    (void)state;
    assert_true(reads("*3\r\n*3\r\n:0\r\n:1\r\n" NODE("$-1\r\n", "7000") "*3\r\n:2\r\n:3\r\n" NODE("$0\r\n\r\n", "7000")
                      "*3\r\n:4\r\n:5\r\n" NODE("$1\r\n?\r\n", "7000")));
    assert_int_equal(map.node_count, 1);
    assert_string_equal(map.nodes[0].host, "192.0.2.9");
    assert_int_equal(map.owner[3], 0);
    assert_int_equal(map.owner[4], SLOTMAP_NONE);
}

static void
what_is_no_map_is_refused(void **state)
{
    static const char *const wrong[] = {
        "+OK\r\n", ":1\r\n", "*-1\r\n", "*1\r\n:1\r\n", "*1\r\n*2\r\n:0\r\n:1\r\n",
        "*1\r\n*3\r\n:-1\r\n:1\r\n" NODE("$1\r\nh\r\n", "1"),
        "*1\r\n*3\r\n:1\r\n:0\r\n" NODE("$1\r\nh\r\n", "1"),
        "*1\r\n*3\r\n:0\r\n:16384\r\n" NODE("$1\r\nh\r\n", "1"),
        "*1\r\n*3\r\n:0\r\n:9223372036854775807\r\n" NODE("$1\r\nh\r\n", "1"),
        "*1\r\n*3\r\n:0\r\n:1\r\n" NODE("$1\r\nh\r\n", "65536"),
        "*1\r\n*3\r\n:0\r\n:1\r\n" NODE("$1\r\nh\r\n", "-1"),
        "*1\r\n*3\r\n:0\r\n:1\r\n" NODE("*1\r\n:1\r\n", "1"),
        "*1\r\n*3\r\n*1\r\n:0\r\n:1\r\n" NODE("$1\r\nh\r\n", "1"),
        "*1\r\n*3\r\n:0\r\n:1\r\n*1\r\n$1\r\nh\r\n",
        "*1\r\n*3\r\n:0\r\n:1\r\n:7\r\n",
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        if (reads(wrong[i]))
            fail_msg("read: %s", wrong[i]);
        assert_non_null(why);
    }
}

static void
more_nodes_than_there_may_be_are_refused(void **state)
{
    static char wire[2 * 1024 * 1024];
    (void)state;
    for (unsigned nodes = SLOTMAP_NODES; nodes <= SLOTMAP_NODES + 1; nodes++) {
        size_t n = (size_t)snprintf(wire, sizeof wire, "*%u\r\n", nodes);
        for (unsigned i = 0; i < nodes; i++)
            n += (size_t)snprintf(wire + n, sizeof wire - n, "*3\r\n:%u\r\n:%u\r\n*2\r\n$1\r\nh\r\n:%u\r\n", i, i, i + 1);
        assert_int_equal(reads(wire), nodes == SLOTMAP_NODES);
    }
    assert_string_equal(why, "more primaries than there may be");
    /* A name that is longer than any. */
    size_t n = (size_t)snprintf(wire, sizeof wire, "*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n$%u\r\n", REDISURL_HOST);
    memset(wire + n, 'h', REDISURL_HOST);
    snprintf(wire + n + REDISURL_HOST, 16, "\r\n:1\r\n");
    assert_false(reads(wire));
}

static void
a_node_says_how_sure_it_is(void **state)
{
    struct slotmap_info i;
    (void)state;
    assert_true(slotmap_info_read(&i, VIEW("cluster_state:ok\r\ncluster_slots_ok:1\r\ncluster_current_epoch:42\r\ncluster_my_epoch:7\r\n")));
    assert_true(i.ok && i.epoch == 42);
    assert_true(slotmap_info_read(&i, VIEW("cluster_current_epoch:18446744073709551615\ncluster_state:fail")));
    assert_true(!i.ok && i.epoch == UINT64_MAX);
    assert_false(slotmap_info_read(&i, VIEW("cluster_current_epoch:18446744073709551616\ncluster_state:ok")));
    assert_false(slotmap_info_read(&i, VIEW("cluster_state:ok")));
    assert_false(slotmap_info_read(&i, VIEW_NONE));
}

static void
redirections_are_read(void **state)
{
    struct slotmap_redirect r;
    (void)state;
    assert_int_equal(slotmap_judge(VIEW("MOVED 3999 127.0.0.1:6381"), &r), SLOTMAP_MOVED);
    assert_int_equal(r.slot, 3999);
    assert_string_equal(r.to.host, "127.0.0.1");
    assert_int_equal(r.to.port, 6381);
    assert_int_equal(slotmap_judge(VIEW("ASK 0 2001:db8::1:1"), &r), SLOTMAP_ASK);
    assert_string_equal(r.to.host, "2001:db8::1");
    assert_int_equal(slotmap_judge(VIEW("MOVED 16383 :6381"), &r), SLOTMAP_MOVED);
    assert_string_equal(r.to.host, "");
    assert_int_equal(slotmap_judge(VIEW("TRYAGAIN Multiple keys"), &r), SLOTMAP_LATER);
    assert_int_equal(slotmap_judge(VIEW("CLUSTERDOWN The cluster is down"), &r), SLOTMAP_LATER);
    assert_int_equal(slotmap_judge(VIEW("LOADING"), &r), SLOTMAP_LATER);
    assert_int_equal(slotmap_judge(VIEW("MASTERDOWN"), &r), SLOTMAP_LATER);
    static const char *const wrong[] = {"", "ERR", "MOVED", "MOVED ", "MOVED 1", "MOVED 1 ", "MOVED 1 h", "MOVED 16384 h:1", "MOVED 1 h:0",
        "MOVED 1 h:65536", "MOVED 1 h:1 ", "MOVED -1 h:1", "MOVED 1 ?:1", "ASK 1 h:x", "moved 1 h:1", "MOVED 99999999999999999999 h:1"};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
        if (slotmap_judge(view_str(wrong[i]), &r) != SLOTMAP_ERROR)
            fail_msg("understood: %s", wrong[i]);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_map_is_read),
        cmocka_unit_test(a_node_without_a_name_is_the_one_that_was_asked),
        cmocka_unit_test(what_is_no_map_is_refused),
        cmocka_unit_test(more_nodes_than_there_may_be_are_refused),
        cmocka_unit_test(a_node_says_how_sure_it_is),
        cmocka_unit_test(redirections_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
