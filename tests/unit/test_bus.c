/* The suite that each bus must pass (broker/bus.h), and which bus the settings ask for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include "broker/bus.h"

#include <cmocka.h>

static void
without_a_redis_there_is_no_bus(void **state)
{
    (void)state;
    struct conf conf;
    conf_defaults(&conf);
    assert_ptr_equal(bus_chosen(&conf), &bus_none);
    assert_string_equal(bus_state_str(BUS_PARTLY), "partly");
    conf_free(&conf);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_redis_there_is_no_bus),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
