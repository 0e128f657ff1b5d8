/* worker/addrs: places of client addresses, by one thread and by several. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "worker/addrs.h"

#define SECOND 1000000000ull

static struct addr
v4(uint32_t n)
{
    uint8_t b[4] = {(uint8_t)(n >> 24), (uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n};
    return addr_from_v4(b);
}

static struct addr
parsed(const char *text)
{
    struct addr a;
    assert_true(addr_parse(view_str(text), &a));
    return a;
}

/* The place of one connection more; how many that makes in *n. */
static uint32_t
join(struct addrs *t, struct addr a, uint32_t *n)
{
    bool forgot;
    return addrs_join(t, &a, SECOND, n, &forgot);
}

static void
connections_of_an_address_are_counted(void **state)
{
    struct addrs *t = addrs_new(64, 64, 1);
    uint32_t n, first = join(t, v4(1), &n);
    (void)state;
    assert_int_equal(n, 1);
    assert_int_equal(join(t, v4(1), &n), first);
    assert_int_equal(n, 2);
    assert_int_not_equal(join(t, v4(2), &n), first);
    assert_int_equal(n, 1);
    addrs_leave(t, first);
    addrs_leave(t, first);
    assert_int_equal(join(t, v4(1), &n), first); /* it kept its place */
    assert_int_equal(n, 1);
    addrs_leave(t, ADDRS_NONE);
    addrs_free(t);
}

static void
a_network_of_ipv6_is_one_address(void **state)
{
    struct addrs *t = addrs_new(1024, 64, 7);
    uint32_t n, place = join(t, parsed("2001:db8:0:1::1"), &n);
    (void)state;
    assert_int_equal(join(t, parsed("2001:db8:0:1:ffff::9"), &n), place);
    assert_int_equal(n, 2);
    assert_int_not_equal(join(t, parsed("2001:db8:0:2::1"), &n), place);
    assert_int_not_equal(join(t, v4(1), &n), join(t, v4(2), &n)); /* IPv4 is never one */
    addrs_free(t);
}

static void
a_full_table_says_so_and_idle_places_are_taken_over(void **state)
{
    struct addrs *t = addrs_new(8, 64, 3); /* one set */
    uint32_t n, places[8];
    bool forgot;
    struct addr a = v4(100);
    (void)state;
    assert_int_equal(addrs_places(t), 8);
    for (uint32_t i = 0; i < 8; i++)
        places[i] = join(t, v4(i), &n);
    assert_int_equal(addrs_join(t, &a, SECOND, &n, &forgot), ADDRS_NONE);
    /* Somebody who owes nothing goes before somebody who does. */
    addrs_leave(t, places[3]);
    addrs_leave(t, places[5]);
    assert_true(addrs_take(t, places[3], ADDRS_PACKETS, SECOND, 0, SECOND) > 0);
    assert_int_equal(addrs_join(t, &a, SECOND, &n, &forgot), places[5]);
    assert_false(forgot);
    a = v4(101);
    assert_int_equal(addrs_join(t, &a, SECOND, &n, &forgot), places[3]);
    assert_true(forgot);
    assert_int_equal(n, 1);
    assert_true(addrs_has(t, places[3], ADDRS_PACKETS, SECOND, 0, 1)); /* the new one owes nothing */
    addrs_free(t);
}

static void
buckets_are_the_address_s_and_apart_from_each_other(void **state)
{
    struct addrs *t = addrs_new(64, 64, 5);
    uint32_t n, a = join(t, v4(1), &n), b = join(t, v4(2), &n);
    (void)state;
    assert_int_equal(addrs_take(t, a, ADDRS_BYTES, SECOND, SECOND, SECOND), 0);
    assert_false(addrs_has(t, a, ADDRS_BYTES, SECOND, SECOND, 1));
    assert_int_equal(addrs_take(t, a, ADDRS_BYTES, SECOND, SECOND, 5), 5);
    assert_true(addrs_has(t, a, ADDRS_PACKETS, SECOND, SECOND, 1));
    assert_true(addrs_has(t, b, ADDRS_BYTES, SECOND, SECOND, 1));
    assert_true(addrs_has(t, ADDRS_NONE, ADDRS_BYTES, SECOND, 0, SECOND)); /* who has no place has no limit */
    assert_int_equal(addrs_take(t, ADDRS_NONE, ADDRS_BYTES, SECOND, 0, SECOND), 0);
    addrs_free(t);
}

/* ---- several rings ---- */

#define THREADS 4
#define ROUNDS 20000

static struct addrs *shared;

static void *
ring(void *arg)
{
    uint32_t held[16], n;
    uint64_t seed = 88172645463325252ull + (uintptr_t)arg;
    for (unsigned i = 0; i < 16; i++)
        held[i] = ADDRS_NONE;
    for (unsigned i = 0; i < ROUNDS; i++) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        struct addr a = v4((uint32_t)(seed % 97)); /* more than there are places */
        bool forgot;
        addrs_leave(shared, held[i % 16]);
        held[i % 16] = addrs_join(shared, &a, i, &n, &forgot);
        assert_true(held[i % 16] == ADDRS_NONE || n > 0);
        (void)addrs_take(shared, held[i % 16], ADDRS_PACKETS, i, 1000, 10);
    }
    for (unsigned i = 0; i < 16; i++)
        addrs_leave(shared, held[i]);
    return NULL;
}

static void
rings_share_it_and_nothing_stays_counted(void **state)
{
    pthread_t threads[THREADS];
    uint32_t n;
    (void)state;
    shared = addrs_new(64, 64, 9);
    for (uintptr_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, ring, (void *)(i * 7919)), 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (uint32_t i = 0; i < 97; i++) { /* all of them are idle, so each gets a place, as its first */
        uint32_t place = join(shared, v4(i), &n);
        assert_int_not_equal(place, ADDRS_NONE);
        assert_int_equal(n, 1);
        addrs_leave(shared, place);
    }
    addrs_free(shared);
}

/* All take from one bucket: what is given in all is what one thread would have got. */
static void *
taker(void *arg)
{
    uint32_t *place = arg;
    for (unsigned i = 0; i < ROUNDS; i++)
        (void)addrs_take(shared, *place, ADDRS_BYTES, SECOND, SECOND, 1000);
    return NULL;
}

static void
nothing_taken_is_lost_between_rings(void **state)
{
    pthread_t threads[THREADS];
    uint32_t n;
    (void)state;
    shared = addrs_new(64, 64, 9);
    uint32_t place = join(shared, v4(1), &n);
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, taker, &place), 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(addrs_take(shared, place, ADDRS_BYTES, SECOND, 0, 0), THREADS * ROUNDS * 1000ull);
    addrs_free(shared);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(connections_of_an_address_are_counted),
        cmocka_unit_test(a_network_of_ipv6_is_one_address),
        cmocka_unit_test(a_full_table_says_so_and_idle_places_are_taken_over),
        cmocka_unit_test(buckets_are_the_address_s_and_apart_from_each_other),
        cmocka_unit_test(rings_share_it_and_nothing_stays_counted),
        cmocka_unit_test(nothing_taken_is_lost_between_rings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
