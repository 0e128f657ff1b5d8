/* worker/pace: how busy a ring is, and how long messages may wait for that. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "worker/pace.h"

#define MS 1000000ull

static struct pace p;
static uint64_t now, cpu;

static int
begin(void **state)
{
    (void)state;
    p = (struct pace){.most_ns = 2 * MS};
    now = 1000 * MS;
    cpu = 77 * MS;
    pace_look(&p, now, cpu);
    return 0;
}

/* So long, of which the thread ran `permille`, with a look every 10 ms. */
static void
pass(uint64_t ms, uint64_t permille)
{
    for (uint64_t i = 0; i < ms / 10; i++) {
        now += 10 * MS;
        cpu += 10 * MS * permille / 1000;
        pace_look(&p, now, cpu);
    }
}

static void
nothing_waits_while_the_ring_sleeps(void **state)
{
    (void)state;
    assert_int_equal(p.ns, 0); /* at the first look nothing is known */
    pass(1000, PACE_QUIET);
    assert_int_equal(p.ns, 0);
}

static void
a_busy_ring_paces_in_full_and_one_between_in_part(void **state)
{
    (void)state;
    pass(1000, 1000);
    assert_int_equal(p.ns, p.most_ns);
    pass(1000, (PACE_QUIET + PACE_BUSY) / 2);
    assert_in_range(p.ns, p.most_ns * 45 / 100, p.most_ns * 55 / 100);
    uint64_t before = p.ns;
    pass(10, 1000); /* a burst of 10 ms is not believed at once */
    assert_in_range(p.ns, before, p.most_ns * 3 / 4);
}

static void
a_long_sleep_is_believed_at_once(void **state)
{
    (void)state;
    pass(1000, 1000);
    now += 500 * MS;
    pace_look(&p, now, cpu);
    assert_int_equal(p.load, 0);
    assert_int_equal(p.ns, 0);
}

static void
clocks_that_disagree_do_no_harm(void **state)
{
    (void)state;
    pace_look(&p, now, cpu + 5 * MS); /* no time has passed */
    assert_int_equal(p.load, 0);
    now += 10 * MS;
    pace_look(&p, now, cpu + 500 * MS); /* it ran longer than that */
    assert_in_range(p.load, 1, 1000);
    p.most_ns = 0; /* switched off by a reload */
    pass(100, 1000);
    assert_int_equal(p.ns, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(nothing_waits_while_the_ring_sleeps, begin),
        cmocka_unit_test_setup(a_busy_ring_paces_in_full_and_one_between_in_part, begin),
        cmocka_unit_test_setup(a_long_sleep_is_believed_at_once, begin),
        cmocka_unit_test_setup(clocks_that_disagree_do_no_harm, begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
