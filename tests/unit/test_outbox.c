/* broker/outbox: the order of each lane, the age of all, notes of what was dropped, and what it takes. */
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/bus.h"
#include "broker/outbox.h"

#include <cmocka.h>

static struct outbox o;
static struct outbox_lane lanes[4];
#define LANES ARRAY_LEN(lanes)

static void
put(unsigned lane, uint64_t token)
{
    assert_true(outbox_put(&o, &lanes[lane], VIEW("PUBLISH"), VIEW("p:"), VIEW("name"), VIEW("HEAD"),
        VIEW("a body of some bytes, and more of them"), token));
}

/* As the link gives it back. */
static void
put_back(unsigned lane, uint64_t token)
{
    uint8_t bytes[256];
    struct redis_request r;
    redis_command_publish_put(bytes, VIEW("PUBLISH"), VIEW("p:"), VIEW("name"), VIEW("HEAD"), VIEW("and a body"), &r);
    r.token = token;
    const struct outbox_item *i = outbox_put_back(&o, &lanes[lane], &r);
    assert_non_null(i);
    assert_ptr_equal(i, lanes[lane].back);
    assert_true(view_eq(outbox_request(i).payload, VIEW("HEADand a body")));
}

/* The lane from its first on, "5 6! 7" with notes marked; as often as they tell. */
static const char *
text_of(unsigned lane)
{
    static char text[1024];
    size_t n = 0;
    text[0] = 0;
    const struct outbox_item *before = NULL;
    for (const struct outbox_item *i = lanes[lane].first; i != NULL; before = i, i = i->next) {
        assert_ptr_equal(i->prev, before);
        assert_ptr_equal(i->lane, &lanes[lane]);
        assert_true(view_eq(outbox_topic(i), VIEW("p:name")));
        for (uint32_t k = 0; k < (i->is_note ? i->dropped : 1); k++)
            n += (size_t)snprintf(text + n, sizeof text - n, "%s%u%s", n > 0 ? " " : "", (unsigned)i->token, i->is_note ? "!" : "");
    }
    assert_ptr_equal(lanes[lane].last, before);
    return text;
}

static size_t
one(void)
{
    return outbox_cost(VIEW("PUBLISH"), 6, 42);
}

static int
end(void **state)
{
    (void)state;
    for (unsigned i = 0; i < LANES; i++)
        outbox_empty(&o, &lanes[i]);
    assert_int_equal(o.bytes + o.count + o.notes, 0);
    assert_null(o.oldest);
    assert_null(o.newest);
    return 0;
}

static void
what_is_put_comes_out_in_order(void **state)
{
    (void)state;
    for (unsigned i = 1; i <= 3; i++) {
        put(0, i);
        put(1, 10 + i);
    }
    assert_int_equal(o.bytes, 6 * one());
    assert_int_equal(o.count, 6);
    assert_string_equal(text_of(0), "1 2 3");
    assert_string_equal(text_of(1), "11 12 13");
    struct redis_request r = outbox_request(lanes[1].first);
    assert_int_equal(r.token, 11);
    assert_true(view_starts(r.bytes, VIEW("*3\r\n$7\r\nPUBLISH\r\n$6\r\np:name\r\n$42\r\nHEADa body")));
    assert_true(view_eq(r.topic, VIEW("p:name")) && view_starts(r.payload, VIEW("HEADa body of")) && r.payload.n == 42);
    outbox_pop(&o, &lanes[1]);
    assert_string_equal(text_of(1), "12 13");
}

static void
the_oldest_of_all_lanes_become_notes_at_their_place(void **state)
{
    (void)state;
    put(0, 1);
    put(1, 11);
    put(0, 2);
    put(2, 21);
    put(0, 3);
    assert_int_equal(outbox_trim(&o, 5 * one()), 0);
    assert_int_equal(outbox_trim(&o, 5 * one() - 1), 1);
    assert_string_equal(text_of(0), "1! 2 3");
    assert_int_equal(outbox_trim(&o, o.bytes - 1), 1);
    assert_int_equal(outbox_trim(&o, o.bytes - 1), 1);
    assert_string_equal(text_of(0), "1! 2! 3");
    assert_string_equal(text_of(1), "11!");
    assert_string_equal(text_of(2), "21");
    assert_int_equal(o.notes, 3);
    assert_int_equal(outbox_trim(&o, 0), 2); /* notes stay */
    assert_int_equal(outbox_trim(&o, 0), 0);
    assert_int_equal(o.notes, 5);
    assert_true(o.bytes > 0 && o.bytes < 5 * one());
    put(0, 4);
    assert_string_equal(text_of(0), "1! 2! 3! 4");
}

static void
what_comes_back_stands_before_what_waits_and_in_order(void **state)
{
    (void)state;
    for (unsigned i = 5; i <= 8; i++)
        put(0, i);
    put(1, 15);
    assert_int_equal(outbox_trim(&o, o.bytes - 1), 1);
    assert_string_equal(text_of(0), "5! 6 7 8");
    put_back(0, 1);
    put_back(0, 2);
    put(0, 9);
    put_back(0, 3);
    assert_string_equal(text_of(0), "1 2 3 5! 6 7 8 9");
    assert_int_equal(outbox_trim(&o, o.bytes - 1), 1);
    assert_int_equal(outbox_trim(&o, o.bytes - 1), 1);
    assert_string_equal(text_of(0), "1! 2! 3 5! 6 7 8 9");
    assert_int_equal(outbox_trim(&o, o.bytes - 1), 1); /* the last that came back, too: what comes next stands behind it */
    put_back(0, 4);
    assert_string_equal(text_of(0), "1! 2! 3! 4 5! 6 7 8 9");
    assert_int_equal(outbox_trim(&o, o.bytes - 1), 1);
    assert_string_equal(text_of(0), "1! 2! 3! 4! 5! 6 7 8 9");
    lanes[0].back = NULL;
    put_back(0, 0);
    assert_string_equal(text_of(0), "0 1! 2! 3! 4! 5! 6 7 8 9");
    outbox_pop(&o, &lanes[0]);
    assert_null(lanes[0].back); /* it is gone */
    put_back(0, 0);
    put_back(1, 11);
    assert_string_equal(text_of(0), "0 1! 2! 3! 4! 5! 6 7 8 9");
    assert_string_equal(text_of(1), "11 15");
}

/* Of what waits only the first was given when nothing waited. */
static void
what_stands_behind_what_came_back_is_marked(void **state)
{
    (void)state;
    outbox_mark_next(&lanes[0]); /* there is none */
    put(0, 3);
    put(0, 4);
    put_back(0, 1);
    put_back(0, 2);
    outbox_mark_next(&lanes[0]);
    for (const struct outbox_item *i = lanes[0].first; i != NULL; i = i->next)
        assert_int_equal(outbox_request(i).payload.p[BUS_AGAIN_AT], i->token == 3 ? 'A' | BUS_AGAIN : 'A');
    put(1, 5);
    put(1, 6);
    outbox_mark_next(&lanes[1]); /* nothing came back: the first */
    assert_true(outbox_request(lanes[1].first).payload.p[BUS_AGAIN_AT] & BUS_AGAIN);
    assert_int_equal(outbox_trim(&o, o.bytes - 1), 1);
    assert_int_equal(outbox_trim(&o, 0), 5);
    outbox_mark_next(&lanes[1]); /* a note has nothing to mark */
    assert_string_equal(text_of(1), "5! 6!");
    assert_true(outbox_put(&o, &lanes[2], VIEW("PUBLISH"), VIEW("p:"), VIEW("name"), VIEW("ab"), VIEW_NONE, 7));
    outbox_mark_next(&lanes[2]); /* too short */
    assert_true(view_eq(outbox_request(lanes[2].first).payload, VIEW("ab")));
}

/* The token of a publish for which nobody waits says its channel alone. */
static void
notes_of_one_token_are_one(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 100; i++)
        put(0, i % 50 < 25 ? 7 : 8);
    assert_int_equal(outbox_trim(&o, 0), 100);
    assert_int_equal(o.count, 4);
    assert_int_equal(o.notes, 4);
    for (const struct outbox_item *i = lanes[0].first; i != NULL; i = i->next)
        assert_int_equal(i->dropped, 25);
    for (unsigned i = 0; i < 3; i++)
        put(1, 7);
    put_back(1, 7);
    assert_int_equal(outbox_trim(&o, 0), 4);
    assert_int_equal(o.count, 5);
    assert_int_equal(lanes[1].first->dropped, 4);
    assert_ptr_equal(lanes[1].back, lanes[1].first);
    assert_true(outbox_put(&o, &lanes[1], VIEW("PUBLISH"), VIEW("p:"), VIEW("another"), VIEW_NONE, VIEW_NONE, 7));
    assert_int_equal(outbox_trim(&o, 0), 1); /* another channel */
    assert_int_equal(lanes[1].first->dropped, 4);
    outbox_empty(&o, &lanes[1]);
    lanes[0].last->dropped = UINT32_MAX;
    put(0, 8);
    assert_int_equal(outbox_trim(&o, 0), 1);
    assert_int_equal(lanes[0].last->dropped, 1);
}

/* Anything in any order: each lane gives out what it was given, in order, each once; the oldest go first. */
static void
whatever_happens_order_holds(void **state)
{
    (void)state;
    uint64_t next[LANES] = {0}, out[LANES] = {0}, dropped = 0;
    size_t most = 0;
    srandom(11);
    for (unsigned round = 0; round < 50000; round++) {
        unsigned l = (unsigned)random() % LANES;
        uint64_t back = (uint64_t)random() % 10;
        struct outbox_lane *lane = &lanes[l];
        switch (random() % 8) {
        default: put(l, ++next[l]); break;
        case 0:
        case 1:
        case 2:
            if (lane->first == NULL)
                break;
            assert_int_equal(lane->first->token, ++out[l]);
            outbox_pop(&o, lane);
            break;
        case 3: /* some of what went out comes back */
            lane->back = NULL;
            back = MIN(back, out[l]);
            out[l] -= back;
            for (uint64_t k = 1; k <= back; k++) {
                put_back(l, out[l] + k);
                if (random() % 4 == 0)
                    dropped += outbox_trim(&o, o.bytes - 1);
            }
            break;
        }
        dropped += outbox_trim(&o, 20000);
        most = MAX(most, o.count - o.notes);
        for (unsigned k = 0; k < LANES; k++) { /* within a lane notes were older */
            uint64_t age = 0;
            for (const struct outbox_item *i = o.oldest; i != NULL; i = i->newer)
                if (i->lane == &lanes[k]) {
                    assert_true(i->token > age && !i->is_note);
                    age = i->token;
                }
        }
        while (o.notes > 300)
            for (unsigned k = 0; k < LANES; k++)
                if (lanes[k].first != NULL) {
                    assert_int_equal(lanes[k].first->token, ++out[k]);
                    outbox_pop(&o, &lanes[k]);
                }
    }
    assert_true(dropped > 10000 && most > 50);
}

/* Bytes of the heap, in use or not. */
static size_t
heap(void)
{
    struct mallinfo2 m = mallinfo2();
    return m.arena + m.hblkhd;
}

/* What was dropped leaves no holes that nothing fits into. */
static void
it_takes_what_it_says(void **state)
{
    (void)state;
    static const uint8_t body[4000];
    const size_t bound = 2u << 20;
    size_t before = heap();
    if (before == 0)
        skip(); /* another allocator: with sanitizers */
    for (uint64_t i = 0; i < 10000; i++) { /* 40 MB, while a server that is up answers nothing */
        assert_true(outbox_put(&o, &lanes[0], VIEW("PUBLISH"), VIEW("p:"), VIEW("name"), VIEW("head"), view_of(body, sizeof body), i));
        (void)outbox_trim(&o, bound);
    }
    assert_true(o.bytes <= bound && o.count == 10000);
    assert_true(heap() - before < bound * 3 / 2);
}

int
main(void)
{
#define T(fn) cmocka_unit_test_teardown(fn, end)
    const struct CMUnitTest tests[] = {
        T(what_is_put_comes_out_in_order),
        T(the_oldest_of_all_lanes_become_notes_at_their_place),
        T(what_comes_back_stands_before_what_waits_and_in_order),
        T(what_stands_behind_what_came_back_is_marked),
        T(notes_of_one_token_are_one),
        T(whatever_happens_order_holds),
        T(it_takes_what_it_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
