/* broker/rcopies: names at a Redis Cluster, and what becomes of a publish that has copies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include "broker/rcopies.h"
#include "proto/slot.h"

#include <cmocka.h>

static const struct view prefix = {(const uint8_t *)"ring", 4};

static void
names_lead_back_to_their_topics(void **state)
{
    (void)state;
    static const char *const names[] = {"hosts", "", ":", "/{um}x", "{a}b"};
    struct buf out = buf_make(64);
    struct bus_topic t, back;
    for (unsigned kind = 0; kind < 2; kind++)
        for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
            t = (struct bus_topic){(enum bus_kind)kind, view_str(names[i])};
            assert_int_equal(rcopies_of(t), t.kind == BUS_CONTROL ? RCOPIES : 1);
            for (unsigned copy = 0; copy < rcopies_of(t); copy++) {
                struct view name = rcopies_name(&out, prefix, t, copy);
                assert_true(name.n > prefix.n && name.n <= prefix.n + t.name.n + RCOPIES_MARKS);
                assert_true(rcopies_topic(prefix, name, &back));
                assert_true(back.kind == t.kind && view_eq(back.name, t.name));
            }
        }
    t = (struct bus_topic){BUS_CHANNEL, VIEW("x")};
    assert_true(view_eq(rcopies_name(&out, prefix, t, 0), VIEW("ring:x")));
    static const char *const others[] = {"", "ring", "rin", "ringx", "ring/", "ring/{um", "other:x", ":x"};
    for (unsigned i = 0; i < ARRAY_LEN(others); i++)
        assert_false(rcopies_topic(prefix, view_str(others[i]), &back));
    buf_free(&out);
    out = buf_make(8);
    t.name = VIEW("much too long for that");
    assert_int_equal(rcopies_name(&out, prefix, t, 0).n, 0);
    buf_free(&out);
}

static void
copies_are_far_apart(void **state)
{
    (void)state;
    struct buf out = buf_make(64);
    for (unsigned copy = 0; copy < RCOPIES; copy++) {
        unsigned slot = slot_of(rcopies_name(&out, prefix, (struct bus_topic){BUS_CONTROL, VIEW("hosts")}, copy));
        assert_in_range(slot, copy * 16384 / 3 + 2000, copy * 16384 / 3 + 3500);
    }
    buf_free(&out);
}

static void
what_becomes_of_copies_is_told_once(void **state)
{
    (void)state;
    struct rcopies r;
    uint64_t token;
    assert_true(rcopies_init(&r));
    uint32_t x = rcopies_begin(&r, 7), y = rcopies_begin(&r, 8);
    rcopies_sent(&r, x, 3);
    rcopies_sent(&r, y, 2);
    assert_false(rcopies_fate(&r, x, BUS_DROPPED, &token));
    assert_true(rcopies_fate(&r, x, BUS_TAKEN, &token));
    assert_int_equal(token, 7);
    assert_false(rcopies_fate(&r, y, BUS_REFUSED, &token));
    assert_false(rcopies_fate(&r, x, BUS_TAKEN, &token));
    assert_true(rcopies_fate(&r, y, BUS_DROPPED, &token)); /* none was taken: the last */
    assert_int_equal(token, 8);
    rcopies_fini(&r);
}

static void
there_are_only_so_many(void **state)
{
    (void)state;
    struct rcopies r;
    uint64_t token;
    assert_true(rcopies_init(&r));
    for (unsigned round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < RCOPIES_MAX; i++) {
            uint32_t at = rcopies_begin(&r, 1000 + i);
            assert_true(at < RCOPIES_MAX);
            if (round == 1) /* places are given back by who could not send, too */
                rcopies_sent(&r, at, 0);
            else
                rcopies_sent(&r, at, 1);
        }
        assert_int_equal(rcopies_begin(&r, 0) == RCOPIES_NONE, round != 1);
        if (round == 1) {
            rcopies_fini(&r);
            assert_true(rcopies_init(&r));
            continue;
        }
        for (uint32_t i = 0; i < RCOPIES_MAX; i++)
            assert_true(rcopies_fate(&r, i, BUS_TAKEN, &token) && token >= 1000);
    }
    rcopies_fini(&r);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_lead_back_to_their_topics),
        cmocka_unit_test(copies_are_far_apart),
        cmocka_unit_test(what_becomes_of_copies_is_told_once),
        cmocka_unit_test(there_are_only_so_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
