/* broker/chan: channels exist while a ring wants them; names are bytes; the table survives growth
 * and any order of joins and leaves. Against a plain array that does the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/chan.h"
#include "broker/metrics.h"
#include "broker/peer.h"

#include <cmocka.h>

static struct conf conf;
static struct broker broker;
static uint64_t metrics[BM_COUNT];

static int
setup(void **state)
{
    (void)state;
    conf_defaults(&conf);
    conf.broker_max_channels = 20000;
    broker = (struct broker){.conf = &conf, .seed = 42, .metrics = metrics};
    memset(metrics, 0, sizeof metrics);
    return pool_init(&broker.peers, sizeof(struct peer), 8) && chans_init(&broker) ? 0 : -1;
}

static int
teardown(void **state)
{
    (void)state;
    chans_fini(&broker);
    pool_fini(&broker.peers);
    conf_free(&conf);
    return 0;
}

static struct interest
interest(uint32_t peer, uint32_t chan, uint32_t gen)
{
    return (struct interest){.peer = peer, .chan = chan, .gen = gen};
}

static void
names_are_bytes_and_nothing_else(void **state)
{
    (void)state;
    static const uint8_t big[4096] = {1};
    const struct view names[] = {VIEW(""), VIEW("a"), VIEW("A"), VIEW("a\0"), VIEW("a\0b"),
        VIEW("a "), view_of(big, sizeof big), view_of(big, sizeof big - 1)};
    struct chan *ch[ARRAY_LEN(names)];
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        assert_null(chan_find(&broker, names[i]));
        ch[i] = chan_want(&broker, names[i]);
        assert_true(chan_join(&broker, ch[i], interest(0, (uint32_t)i, 1)));
    }
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        assert_ptr_equal(chan_find(&broker, names[i]), ch[i]);
        assert_ptr_equal(chan_want(&broker, names[i]), ch[i]);
        assert_true(view_eq(chan_name(ch[i]), names[i]));
    }
    assert_int_equal(metrics[BM_channels], ARRAY_LEN(names));
}

static void
a_ring_wants_a_channel_once_and_its_handle_is_renewed(void **state)
{
    (void)state;
    struct chan *ch = chan_want(&broker, VIEW("x"));
    assert_true(chan_join(&broker, ch, interest(1, 5, 1)));
    assert_true(chan_join(&broker, ch, interest(1, 5, 2)));
    assert_int_equal(ch->count, 1);
    assert_int_equal(chan_interests(ch)[0].gen, 2);
    /* Said once more it goes on as it was: what its ring was told, and what it is still to be told. */
    assert_false(chan_stands(ch, interest(1, 5, 2)));
    chan_stand(ch, interest(1, 5, 2));
    chan_interests(ch)[0].missed = 3;
    assert_true(chan_join(&broker, ch, interest(1, 5, 2)));
    assert_int_equal(chan_interests(ch)[0].missed, 3);
    assert_true(chan_stands(ch, interest(1, 5, 2)));
    assert_false(chan_stands(ch, interest(1, 5, 1)) || chan_stands(ch, interest(2, 5, 2)) || chan_stands(ch, interest(1, 4, 2)));
    assert_true(chan_join(&broker, ch, interest(1, 5, 3)));
    assert_int_equal(chan_interests(ch)[0].missed, 0);
    assert_false(chan_stands(ch, interest(1, 5, 3)));
    assert_true(chan_join(&broker, ch, interest(1, 5, 2)));
    chan_leave(&broker, ch, interest(1, 5, 1)); /* the old handle: not meant */
    assert_ptr_equal(chan_find(&broker, VIEW("x")), ch);
    chan_leave(&broker, ch, interest(2, 5, 2)); /* another ring */
    assert_int_equal(ch->count, 1);
    chan_leave(&broker, ch, interest(1, 5, 2));
    assert_null(chan_find(&broker, VIEW("x")));
    assert_int_equal(metrics[BM_channels], 0);
    assert_int_equal(metrics[BM_interests], 0);
}

static void
as_many_rings_as_there_can_be_want_one_channel(void **state)
{
    (void)state;
    struct chan *ch = chan_want(&broker, VIEW("x"));
    for (uint32_t i = 0; i < PEERS_MAX; i++)
        assert_true(chan_join(&broker, ch, interest(i, i * 3, i)));
    assert_int_equal(metrics[BM_interests], PEERS_MAX);
    for (uint32_t i = 0; i < PEERS_MAX; i++) {
        uint32_t k = i * 7 % PEERS_MAX; /* some order: 7 and 1024 have no common factor */
        assert_non_null(chan_find(&broker, VIEW("x")));
        chan_leave(&broker, ch, interest(k, k * 3, k));
    }
    assert_null(chan_find(&broker, VIEW("x")));
    assert_int_equal(metrics[BM_interests], 0);
}

static void
the_bound_on_channels_is_an_answer(void **state)
{
    (void)state;
    char name[16];
    for (uint32_t i = 0; i < conf.broker_max_channels; i++) {
        int n = snprintf(name, sizeof name, "c%u", i);
        struct chan *ch = chan_want(&broker, view_of(name, (size_t)n));
        assert_true(ch != NULL && chan_join(&broker, ch, interest(0, i, 1)));
    }
    assert_null(chan_want(&broker, VIEW("one more")));
    assert_non_null(chan_want(&broker, VIEW("c7"))); /* is there already */
    chan_leave(&broker, chan_find(&broker, VIEW("c9")), interest(0, 9, 1));
    struct chan *ch = chan_want(&broker, VIEW("one more"));
    assert_true(ch != NULL && chan_join(&broker, ch, interest(0, 9, 2)));
    assert_int_equal(metrics[BM_channels], conf.broker_max_channels);
}

#define NAMES 6000
#define RINGS 3

static void
any_order_of_joins_and_leaves_ends_as_in_a_plain_array(void **state)
{
    (void)state;
    static bool wants[NAMES][RINGS];
    uint64_t seed = 88172645463325252ull, pairs = 0;
    memset(wants, 0, sizeof wants);
    for (unsigned step = 0; step < 200000; step++) {
        seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
        uint32_t i = (uint32_t)(seed >> 8) % NAMES, r = (uint32_t)(seed >> 40) % RINGS;
        char name[16];
        int n = snprintf(name, sizeof name, "n%u", i);
        struct view v = view_of(name, (size_t)n);
        bool any = wants[i][0] || wants[i][1] || wants[i][2];
        assert_true((chan_find(&broker, v) != NULL) == any);
        if (wants[i][r])
            chan_leave(&broker, chan_find(&broker, v), interest(r, i, 1));
        else
            assert_true(chan_join(&broker, chan_want(&broker, v), interest(r, i, 1)));
        pairs += wants[i][r] ? -1 : 1;
        wants[i][r] = !wants[i][r];
        assert_int_equal(metrics[BM_interests], pairs);
    }
}

static void
what_nobody_wants_is_counted_and_costs_nothing(void **state)
{
    (void)state;
    for (int i = 0; i < 1000; i++)
        assert_int_equal(chan_publish(&broker, 0, VIEW("x"), true, VIEW("12345")), CHAN_OK);
    assert_int_equal(metrics[BM_unheard_total], 1000);
    assert_int_equal(metrics[BM_publishes_total], 1000);
    assert_int_equal(metrics[BM_publish_bytes_total], 5000);
    assert_int_equal(metrics[BM_channels], 0);
    assert_int_equal(broker.chans.used, 0);
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(names_are_bytes_and_nothing_else),
        T(a_ring_wants_a_channel_once_and_its_handle_is_renewed),
        T(as_many_rings_as_there_can_be_want_one_channel),
        T(the_bound_on_channels_is_an_answer),
        T(any_order_of_joins_and_leaves_ends_as_in_a_plain_array),
        T(what_nobody_wants_is_counted_and_costs_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
