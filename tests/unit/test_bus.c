/* Which bus the settings ask for, and the suite of every bus (t_bus.h) over the one in memory. */
#include "tests/unit/t_bus.h"

#include "broker/bus_mem.h"

static struct bus_mem_net *net;
static struct bus *buses[BUS_NODES];
static bool stalls;

static struct bus *
mem_open(unsigned i, const struct bus_ears *ears, void *arg)
{
    struct conf_error err;
    if (net == NULL)
        net = bus_mem_net_new();
    stalls = false;
    bus_mem_use(net);
    buses[i] = bus_mem.open(NULL, NULL, NULL, ears, arg, &err);
    return buses[i];
}

static void
mem_close(unsigned i)
{
    bus_mem.close(buses[i]);
    buses[i] = NULL;
    if (buses[0] != NULL || buses[1] != NULL)
        return;
    bus_mem_net_free(net);
    net = NULL;
}

static void
mem_pump(void)
{
    for (unsigned i = 0; i < BUS_NODES; i++)
        if (buses[i] != NULL) {
            (void)bus_mem.turn(buses[i], mono_now());
            (void)bus_mem_carry(net, bus_mem_node(buses[i]), stalls ? 0 : UINT32_MAX, UINT32_MAX);
        }
}

static void
mem_cut(unsigned i)
{
    bus_mem_cut(net, bus_mem_node(buses[i]), BUS_MEM_HEARS | BUS_MEM_SAYS);
}

static void
mem_heal(unsigned i)
{
    bus_mem_heal(net, bus_mem_node(buses[i]), BUS_MEM_HEARS | BUS_MEM_SAYS);
}

static void
mem_bound(unsigned i)
{
    bus_mem_bound(net, bus_mem_node(buses[i]), 50);
    bus_mem_window(net, bus_mem_node(buses[i]), 1000);
}

static void
mem_stall(void)
{
    stalls = true;
}

static void
mem_go_on(void)
{
    stalls = false;
}

static void
mem_refuse(unsigned i)
{
    bus_mem_refuse(net, bus_mem_node(buses[i]), 1);
}

static const struct bus_rig mem = {"mem", mem_open, mem_close, mem_pump, mem_cut, mem_heal, mem_bound, mem_refuse, mem_stall,
    mem_go_on, false};

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
        BUS_CASES,
    };
    rig = &mem;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
