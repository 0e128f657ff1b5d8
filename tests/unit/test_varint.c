/* proto/varint: each number has one spelling, and no other is read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include "proto/varint.h"

#include <cmocka.h>

static void
numbers_of_every_length_come_back(void **state)
{
    (void)state;
    for (unsigned bit = 0; bit < 64; bit++)
        for (int d = -1; d <= 1; d++) {
            uint8_t bytes[VARINT_MAX + 1] = {0};
            uint64_t v = (1ull << bit) + (uint64_t)d, got;
            size_t n = varint_put(bytes, v);
            assert_in_range(n, 1, VARINT_MAX);
            struct view in = view_of(bytes, n + 1);
            assert_true(varint_take(&in, &got));
            assert_true(got == v);
            assert_int_equal(in.n, 1); /* what stands behind is left */
            for (size_t cut = 0; cut < n; cut++) {
                in = view_of(bytes, cut);
                assert_false(varint_take(&in, &got));
            }
        }
}

static void
no_other_spelling_is_read(void **state)
{
    (void)state;
    static const struct view bad[] = {VIEW("\x80\0"), VIEW("\xff\x80\0"), VIEW("\x80"),
        VIEW("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"), VIEW("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct view in = bad[i];
        uint64_t got;
        assert_false(varint_take(&in, &got));
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_of_every_length_come_back),
        cmocka_unit_test(no_other_spelling_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
