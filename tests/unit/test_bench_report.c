/* What repeats say: medians, and how far the mean may be from the truth. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "bench/hist.c"
#include "bench/report.c"

static bool
about(double a, double b)
{
    return fabs(a - b) < 1e-3 * fabs(b);
}

static void
the_interval_is_students(void **state)
{
    double three[] = {1, 2, 3}, many[100];
    (void)state;
    assert_true(report_half_width(three, 1) == 0);
    assert_true(about(report_half_width(three, 2), 12.706 * sqrt(0.5) / sqrt(2)));
    assert_true(about(report_half_width(three, 3), 4.303 / sqrt(3)));
    for (uint32_t i = 0; i < 100; i++)
        many[i] = i % 2;
    assert_true(about(report_half_width(many, 100), 2.0 * sqrt(25.0 / 99) / 10));
}

static void
medians_are_in_the_middle(void **state)
{
    double odd[] = {3, 1, 2}, even[] = {4, 1, 3, 2};
    (void)state;
    assert_true(report_median(odd, 3) == 2);
    assert_true(report_median(even, 4) == 2.5);
    assert_true(report_median(even, 0) == 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_interval_is_students),
        cmocka_unit_test(medians_are_in_the_middle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
