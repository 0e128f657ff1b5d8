/* broker/pends: records in the order of their making, ended in any order, in bounded memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include "broker/pends.h"

#include <cmocka.h>

static struct mono
at_ms(uint64_t ms)
{
    return mono_add_ms((struct mono){0}, ms);
}

static void
records_stay_until_all_before_them_ended(void **state)
{
    (void)state;
    struct pends l;
    assert_true(pends_init(&l, 4096));
    uint64_t a = pends_put(&l, 10), b = pends_put(&l, 0);
    assert_true(a != 0 && b > a);
    memset(pends_at(&l, a)->data, 'x', 10);
    pends_end(&l, b);
    assert_null(pends_find(&l, b));
    assert_non_null(pends_find(&l, a));
    assert_false(pends_is_empty(&l));
    assert_int_equal(pends_find(&l, a)->n, 10);
    pends_end(&l, a);
    assert_true(pends_is_empty(&l));
    assert_null(pends_find(&l, a));
    pends_fini(&l);
}

static void
late_ones_come_once_and_in_order(void **state)
{
    (void)state;
    struct pends l;
    uint64_t at[5];
    assert_true(pends_init(&l, 4096));
    for (unsigned i = 0; i < 5; i++) {
        at[i] = pends_put(&l, 0);
        pends_at(&l, at[i])->since = at_ms(10 * i);
    }
    pends_end(&l, at[1]);
    assert_int_equal(pends_late(&l, at_ms(0)), 0);
    assert_int_equal(pends_late(&l, at_ms(25)), at[0]);
    assert_int_equal(pends_late(&l, at_ms(25)), at[2]);
    assert_int_equal(pends_late(&l, at_ms(25)), 0);
    pends_end(&l, at[0]);
    pends_end(&l, at[2]);
    assert_int_equal(pends_late(&l, at_ms(99)), at[3]);
    assert_int_equal(pends_late(&l, at_ms(99)), at[4]);
    assert_int_equal(pends_late(&l, at_ms(99)), 0);
    pends_fini(&l);
}

static void
any_order_of_ends_keeps_what_is_there(void **state)
{
    (void)state;
    struct pends l;
    uint64_t seed = 88172645463325252ull, at[16] = {0};
    uint8_t fill[16] = {0};
    unsigned full = 0, put = 0;
    assert_true(pends_init(&l, 4096));
    for (unsigned step = 0; step < 200000; step++) {
        seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
        unsigned i = seed >> 20 & 15;
        size_t n = seed >> 30 & 511;
        if (at[i] != 0) {
            struct pend *r = pends_find(&l, at[i]);
            assert_non_null(r);
            for (uint32_t k = 0; k < r->n; k++)
                assert_int_equal(r->data[k], fill[i]);
            pends_end(&l, at[i]);
            at[i] = 0;
            continue;
        }
        bool room = pends_has_room(&l, n);
        at[i] = pends_put(&l, n);
        assert_int_equal(at[i] != 0, room);
        full += !room;
        put += room;
        fill[i] = (uint8_t)step;
        if (room)
            memset(pends_at(&l, at[i])->data, fill[i], n);
    }
    assert_true(full > 1000 && put > 10000);
    assert_false(pends_has_room(&l, 4096));
    pends_fini(&l);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_stay_until_all_before_them_ended),
        cmocka_unit_test(late_ones_come_once_and_in_order),
        cmocka_unit_test(any_order_of_ends_keeps_what_is_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
