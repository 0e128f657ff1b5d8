/* The histogram of the load generator: no value is off by more than a slot, quantiles are those of
 * the sorted values. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "bench/hist.c"

static struct hist h;

static uint64_t
next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void
check_slot(uint64_t v)
{
    uint32_t i = hist_index(v);
    assert_true(i < HIST_SLOTS);
    assert_true(v <= hist_slot_end(i));
    if (i > 0)
        assert_true(v > hist_slot_end(i - 1));
    assert_true(hist_slot_end(i) - v <= v / HIST_SUB);
}

static void
every_value_is_within_its_slot(void **state)
{
    (void)state;
    uint64_t rnd = 88172645463325252ull;
    for (uint64_t v = 0; v < 70000; v++)
        check_slot(v);
    for (int shift = 0; shift < 64; shift++)
        for (int i = 0; i < 100; i++)
            check_slot(next_random(&rnd) >> shift);
    check_slot(UINT64_MAX);
    check_slot(1ull << 63);
}

static int
by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void
quantiles_are_those_of_the_sorted_values(void **state)
{
    (void)state;
    static uint64_t v[9973];
    static const double q[] = {0.001, 0.5, 0.9, 0.99, 0.999};
    uint64_t rnd = 1234567;
    hist_reset(&h);
    for (size_t i = 0; i < ARRAY_LEN(v); i++) {
        v[i] = next_random(&rnd) % 50000000;
        hist_add(&h, v[i]);
    }
    qsort(v, ARRAY_LEN(v), sizeof v[0], by_value);
    for (size_t i = 0; i < ARRAY_LEN(q); i++) {
        double exact = q[i] * (double)ARRAY_LEN(v);
        size_t rank = (size_t)exact + ((double)(size_t)exact < exact);
        uint64_t want = v[rank - 1], got = hist_quantile(&h, q[i]);
        assert_true(got >= want && got - want <= want / HIST_SUB);
    }
    assert_int_equal(hist_quantile(&h, 1.0), v[ARRAY_LEN(v) - 1]);
    assert_int_equal(h.max, v[ARRAY_LEN(v) - 1]);
    assert_int_equal(h.min, v[0]);
}

static void
small_counts_have_exact_ranks(void **state)
{
    (void)state;
    hist_reset(&h);
    assert_int_equal(hist_quantile(&h, 0.5), 0);
    for (uint64_t v = 1; v <= 100; v++)
        hist_add(&h, v);
    assert_int_equal(hist_quantile(&h, 0.0), 1);
    assert_int_equal(hist_quantile(&h, 0.01), 1);
    assert_int_equal(hist_quantile(&h, 0.011), 2);
    assert_int_equal(hist_quantile(&h, 0.5), 50);
    assert_int_equal(hist_quantile(&h, 0.99), 99);
    assert_int_equal(hist_quantile(&h, 0.999), 100);
}

static void
merging_is_like_recording_in_one(void **state)
{
    (void)state;
    static struct hist a, b, both;
    uint64_t rnd = 42;
    hist_reset(&a);
    hist_reset(&b);
    hist_reset(&both);
    for (int i = 0; i < 5000; i++) {
        uint64_t v = next_random(&rnd) >> (i % 60);
        hist_add(i % 3 ? &a : &b, v);
        hist_add(&both, v);
    }
    hist_merge(&a, &b);
    assert_int_equal(a.n, both.n);
    assert_int_equal(a.min, both.min);
    assert_int_equal(a.max, both.max);
    assert_memory_equal(a.slot, both.slot, sizeof a.slot);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_value_is_within_its_slot),
        cmocka_unit_test(quantiles_are_those_of_the_sorted_values),
        cmocka_unit_test(small_counts_have_exact_ranks),
        cmocka_unit_test(merging_is_like_recording_in_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
