/* common/pool, rc, buf: handles go stale, blocks are counted, bounds hold. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include "common/buf.h"
#include "common/pool.h"
#include "common/rc.h"

#include <cmocka.h>

struct thing {
    struct pool_head head;
    int value;
};

static void
a_freed_handle_finds_nothing(void **state)
{
    struct pool p;
    (void)state;
    assert_true(pool_init(&p, sizeof(struct thing), 4));
    struct thing *a = pool_get(&p);
    uint32_t slot = pool_slot(&p, a), gen = a->head.gen;
    assert_ptr_equal(pool_find(&p, slot, gen), a);
    pool_put(&p, a);
    assert_null(pool_find(&p, slot, gen));
    struct thing *b = pool_get(&p);
    assert_ptr_equal(a, b); /* the slot is used again ... */
    assert_null(pool_find(&p, slot, gen)); /* ... and the old handle still finds nothing */
    assert_null(pool_find(&p, 4000, gen));
    pool_fini(&p);
}

static void
a_full_pool_says_so(void **state)
{
    struct pool p;
    struct thing *t[4];
    (void)state;
    assert_true(pool_init(&p, sizeof(struct thing), 4));
    for (int i = 0; i < 4; i++)
        assert_non_null(t[i] = pool_get(&p));
    assert_null(pool_get(&p));
    t[2]->value = 9;
    pool_put(&p, t[2]);
    struct thing *again = pool_get(&p);
    assert_ptr_equal(again, t[2]);
    assert_int_equal(again->value, 0);
    assert_int_equal(p.live, 4);
    pool_fini(&p);
}

static void
blocks_are_counted_and_used_again(void **state)
{
    struct rc_pool p = {0};
    (void)state;
    struct rc *a = rc_new(&p, 10);
    assert_true(rc_room(a) >= 10);
    assert_true(p.bytes > 0);
    rc_ref(a);
    rc_unref(&p, a);
    assert_true(p.bytes > 0);
    rc_unref(&p, a);
    assert_int_equal(p.bytes, 0);
    assert_ptr_equal(rc_new(&p, 500), a);
    rc_unref(&p, a);
    for (size_t n = 1; n < 300000; n = n * 3 + 1) {
        struct rc *b = rc_new(&p, n);
        assert_true(rc_room(b) >= n);
        memset(b->data, 1, n);
        rc_unref(&p, b);
    }
    assert_int_equal(p.bytes, 0);
    rc_pool_fini(&p);
}

static void
buffers_stop_at_their_bound(void **state)
{
    struct buf b = buf_make(100);
    (void)state;
    for (int i = 0; i < 100; i++)
        buf_put_u8(&b, 'x');
    assert_false(b.failed);
    buf_put_u8(&b, 'x');
    assert_true(b.failed);
    assert_int_equal(b.n, 100);
    assert_false(buf_reserve(&b, SIZE_MAX));
    buf_reset(&b);
    buf_put_uint(&b, 18446744073709551615ull);
    assert_memory_equal(b.p, "18446744073709551615", 20);
    buf_eat(&b, 18);
    assert_int_equal(b.n, 2);
    buf_free(&b);
    char room[4];
    struct buf f = buf_fixed(room, sizeof room);
    buf_put_lit(&f, "abcd");
    assert_false(f.failed);
    buf_put_lit(&f, "e");
    assert_true(f.failed);
    buf_free(&f);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_freed_handle_finds_nothing),
        cmocka_unit_test(a_full_pool_says_so),
        cmocka_unit_test(blocks_are_counted_and_used_again),
        cmocka_unit_test(buffers_stop_at_their_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
