/* broker/bus_none: a host alone. Nothing is taken, nothing is told, and it never wants a turn. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include "broker/across.h"
#include "broker/bus.h"

#include <cmocka.h>

static void
nothing_is_taken_and_nothing_told(void **state)
{
    (void)state;
    struct conf_error err;
    struct bus_topic t = {BUS_CHANNEL, VIEW("x")};
    struct bus *bus = bus_none.open(NULL, NULL, NULL, NULL, NULL, &err); /* no ears: a word would crash */
    assert_non_null(bus);
    assert_int_equal(bus->state, BUS_NONE);
    assert_true(bus_none.join(bus, t));
    assert_false(bus_none.publish(bus, t, VIEW("head"), VIEW("body"), 1));
    assert_false(bus_none.is_up(bus, t));
    assert_int_equal(bus_none.turn(bus, mono_now()), UINT32_MAX);
    bus_none.on_done(bus, (struct ring_done){0});
    bus_none.leave(bus, t);
    struct buf out = buf_make(100);
    bus_none.describe(bus, &out);
    assert_true(view_eq(buf_view(&out), VIEW("none\n")));
    buf_free(&out);
    bus_none.close(bus);
}

static void
without_a_bus_a_broker_has_nothing_across(void **state)
{
    (void)state;
    struct conf_error err;
    struct conf conf;
    conf_defaults(&conf);
    static struct broker b;
    b.conf = &conf;
    assert_true(across_open(&b, &bus_none, &err));
    assert_null(b.across);
    assert_true(across_is_idle(&b));
    across_turn(&b);
    assert_int_equal(b.bus_wait_ms, UINT32_MAX);
    across_close(&b);
    assert_null(b.bus);
    conf_free(&conf);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_taken_and_nothing_told),
        cmocka_unit_test(without_a_bus_a_broker_has_nothing_across),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
