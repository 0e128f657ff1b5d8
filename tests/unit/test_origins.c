/* broker/origins: who is heard, in a bounded table; who was quiet longest gives way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include "broker/origins.h"

#include <cmocka.h>

static struct envelope_origin
origin(uint32_t i)
{
    struct envelope_origin id = {.epoch = i * 7919, .broker = i & 3};
    memcpy(id.host, &i, 4);
    return id;
}

static void
one_is_found_again_and_the_quietest_gives_way(void **state)
{
    (void)state;
    struct origins o;
    struct mono now = mono_add_ms((struct mono){0}, 1000);
    assert_true(origins_init(&o, 1));
    struct envelope_origin first = origin(0), id;
    const struct origin *e = origins_want(&o, &first, now);
    uint32_t slot = origins_slot(&o, e), gen = e->head.gen;
    for (uint32_t i = 1; i < ORIGINS_MAX; i++) {
        now = mono_add_ms(now, 2000);
        id = origin(i);
        assert_non_null(origins_want(&o, &id, now));
        assert_ptr_equal(origins_want(&o, &id, now), origins_want(&o, &id, now));
    }
    assert_int_equal(o.pool.live, ORIGINS_MAX);
    assert_ptr_equal(origins_want(&o, &first, now), e); /* now the second is the quietest */
    id = origin(ORIGINS_MAX);
    assert_non_null(origins_want(&o, &id, now));
    assert_int_equal(o.forgotten, 1);
    assert_ptr_equal(pool_find(&o.pool, slot, gen), e);
    id = origin(1);
    assert_non_null(origins_want(&o, &id, now)); /* was forgotten: takes the place of the third */
    assert_int_equal(o.forgotten, 2);
    assert_int_equal(o.pool.live, ORIGINS_MAX);
    origins_fini(&o);
}

static void
another_epoch_is_another_origin(void **state)
{
    (void)state;
    struct origins o;
    struct envelope_origin a = origin(1), b = a, c = a;
    b.epoch++;
    c.broker++;
    assert_true(origins_init(&o, 1));
    const struct origin *first = origins_want(&o, &a, (struct mono){0});
    assert_ptr_not_equal(origins_want(&o, &b, (struct mono){0}), first);
    assert_ptr_not_equal(origins_want(&o, &c, (struct mono){0}), first);
    assert_ptr_equal(origins_want(&o, &a, (struct mono){0}), first);
    origins_fini(&o);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_is_found_again_and_the_quietest_gives_way),
        cmocka_unit_test(another_epoch_is_another_origin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
