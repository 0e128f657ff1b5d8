/* common/wheel: every timer fires once, not before its deadline and not later than the visit after it,
 * also over several rounds, long stops, and timers that are set and dropped from callbacks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include "common/wheel.h"

#include <cmocka.h>

struct item {
    struct timer t;
    unsigned fired;
    uint32_t wanted;
};

struct run {
    struct wheel w;
    struct item items[2000];
    uint32_t now;
    bool again;
};

static struct mono
at_tick(uint32_t tick)
{
    return (struct mono){(uint64_t)tick * WHEEL_TICK_MS * 1000000};
}

static void
on_fire(void *arg, struct timer *t)
{
    struct run *r = arg;
    struct item *i = container_of(t, struct item, t);
    assert_true((int32_t)(r->now - i->wanted) >= 0);
    i->fired++;
    if (r->again && i->fired == 1) {
        i->wanted = r->now + 5;
        wheel_set(&r->w, &i->t, i->wanted);
    }
}

static struct run *
make(uint32_t start)
{
    struct run *r = calloc(1, sizeof *r);
    assert_non_null(r);
    r->now = start;
    wheel_init(&r->w, at_tick(start));
    return r;
}

static void
each_fires_once_in_its_tick(void **state)
{
    struct run *r = make(1000);
    (void)state;
    srandom(7);
    for (size_t i = 0; i < ARRAY_LEN(r->items); i++) {
        r->items[i].wanted = 1001 + (uint32_t)(random() % (3 * WHEEL_SLOTS));
        wheel_set(&r->w, &r->items[i].t, r->items[i].wanted);
    }
    for (uint32_t tick = 1001; tick < 1002 + 3 * WHEEL_SLOTS; tick++) {
        r->now = tick;
        wheel_expire(&r->w, at_tick(tick), UINT32_MAX, on_fire, r);
        for (size_t i = 0; i < ARRAY_LEN(r->items); i += 97)
            assert_int_equal(r->items[i].fired, (int32_t)(tick - r->items[i].wanted) >= 0);
    }
    for (size_t i = 0; i < ARRAY_LEN(r->items); i++)
        assert_int_equal(r->items[i].fired, 1);
    free(r);
}

static void
a_long_stop_fires_all_once(void **state)
{
    struct run *r = make(5);
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(r->items); i++) {
        r->items[i].wanted = 6 + (uint32_t)i * 3;
        wheel_set(&r->w, &r->items[i].t, r->items[i].wanted);
    }
    r->now = 10 * WHEEL_SLOTS;
    assert_int_equal(wheel_expire(&r->w, at_tick(r->now), UINT32_MAX, on_fire, r), ARRAY_LEN(r->items));
    for (size_t i = 0; i < ARRAY_LEN(r->items); i++)
        assert_int_equal(r->items[i].fired, 1);
    free(r);
}

static void
budget_leaves_the_rest_for_the_next_call(void **state)
{
    struct run *r = make(5);
    (void)state;
    for (size_t i = 0; i < 100; i++)
        wheel_set(&r->w, &r->items[i].t, r->items[i].wanted = 6);
    r->now = 7;
    unsigned sum = 0, n;
    while ((n = wheel_expire(&r->w, at_tick(7), 30, on_fire, r)) > 0) {
        assert_true(n <= 30);
        sum += n;
    }
    assert_int_equal(sum, 100);
    free(r);
}

static void
callbacks_may_set_again_and_drops_hold(void **state)
{
    struct run *r = make(5);
    (void)state;
    r->again = true;
    for (size_t i = 0; i < 100; i++)
        wheel_set(&r->w, &r->items[i].t, r->items[i].wanted = 6 + (uint32_t)(i % 3));
    for (size_t i = 0; i < 100; i += 2)
        wheel_drop(&r->items[i].t);
    for (uint32_t tick = 6; tick < 30; tick++) {
        r->now = tick;
        wheel_expire(&r->w, at_tick(tick), UINT32_MAX, on_fire, r);
    }
    for (size_t i = 0; i < 100; i++)
        assert_int_equal(r->items[i].fired, i % 2 ? 2 : 0);
    free(r);
}

static void
idle_time_is_that_of_the_next_deadline(void **state)
{
    struct run *r = make(100);
    (void)state;
    assert_int_equal(wheel_idle_ms(&r->w, at_tick(100), 500), 500);
    wheel_set(&r->w, &r->items[0].t, 110);
    assert_int_equal(wheel_idle_ms(&r->w, at_tick(100), 500), 10 * WHEEL_TICK_MS);
    assert_int_equal(wheel_idle_ms(&r->w, at_tick(111), 500), 0);
    free(r);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_fires_once_in_its_tick),
        cmocka_unit_test(a_long_stop_fires_all_once),
        cmocka_unit_test(budget_leaves_the_rest_for_the_next_call),
        cmocka_unit_test(callbacks_may_set_again_and_drops_hold),
        cmocka_unit_test(idle_time_is_that_of_the_next_deadline),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
