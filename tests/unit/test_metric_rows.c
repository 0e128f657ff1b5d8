/* worker/metrics and broker/metrics: each row of a page has the name its number stands for. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include "broker/metrics.h"
#include "worker/metrics.h"

#include <cmocka.h>

static void
a_ring_row_has_its_own_name(void **state)
{
    struct metric_row rows[RM_COUNT];
    (void)state;
    ring_metric_rows(rows);
    assert_string_equal(rows[RM_connections].name, "connections");
    assert_string_equal(rows[RM_log_lost_total].name, "log_lost_total");
    assert_string_equal(rows[RM_CLOSE_BASE + CLOSE_SLOW_QUEUE].name, "close_slow_queue");
    assert_string_equal(rows[RM_VERB_BASE + VERB_HANDSHAKE].name, "verb_handshake");
    assert_string_equal(rows[RM_VERB_BASE + VERB_PUBLISH].name, "verb_publish");
    assert_string_equal(rows[RM_LANE_BASE + IPC_ROW_XON].name, "lane_xon");
    for (unsigned i = 0; i < RM_COUNT; i++) {
        assert_non_null(rows[i].name);
        assert_true(strlen(rows[i].sentence) > 0);
        for (unsigned k = 0; k < i; k++)
            assert_string_not_equal(rows[i].name, rows[k].name);
    }
}

static void
a_broker_row_has_its_own_name(void **state)
{
    struct metric_row rows[BM_COUNT];
    (void)state;
    broker_metric_rows(rows);
    assert_string_equal(rows[BM_peers].name, "peers");
    assert_string_equal(rows[BM_LANE_BASE + IPC_ROW_SYNC].name, "lane_sync");
    for (unsigned i = 0; i < BM_COUNT; i++)
        assert_non_null(rows[i].name);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_ring_row_has_its_own_name),
        cmocka_unit_test(a_broker_row_has_its_own_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
