/* proto/envelope: what hosts send each other, byte by byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include "proto/envelope.h"

#include <cmocka.h>

static struct envelope
message(void)
{
    struct envelope e = {.kind = ENVELOPE_MESSAGE, .flags = ENVELOPE_HAS_DATA, .stretch = 1, .number = 300, .behind = 2};
    memcpy(e.origin.host, "ABCDEFGH", 8);
    e.origin.epoch = 0x04030201;
    e.origin.broker = 5;
    return e;
}

static void
the_bytes_are_these(void **state)
{
    (void)state;
    static const uint8_t want[] = {0xc1, 1, 0x08, 'A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 1, 2, 3, 4, 5, 1, 0xac, 2, 2, 0};
    uint8_t head[ENVELOPE_HEAD_MAX];
    struct envelope e = message();
    assert_int_equal(envelope_put(head, &e), sizeof want);
    assert_memory_equal(head, want, sizeof want);
}

static void
what_was_put_comes_out_whatever_the_body_holds(void **state)
{
    (void)state;
    uint8_t bytes[ENVELOPE_HEAD_MAX + 256];
    struct envelope e = message(), got;
    e.stretch = UINT64_MAX;
    e.number = UINT64_MAX;
    e.behind = UINT64_MAX - 1;
    e.base = e.base_age = UINT64_MAX - 1;
    e.origin.broker = UINT32_MAX;
    e.flags = ENVELOPE_FLAGS;
    size_t n = envelope_put(bytes, &e);
    for (unsigned i = 0; i < 256; i++)
        bytes[n + i] = (uint8_t)i;
    assert_int_equal(envelope_get(view_of(bytes, n + 256), &got), ENVELOPE_OK);
    assert_int_equal(got.kind, e.kind);
    assert_int_equal(got.flags, e.flags);
    assert_memory_equal(&got.origin, &e.origin, sizeof e.origin);
    assert_true(got.stretch == e.stretch && got.number == e.number && got.behind == e.behind);
    assert_true(got.base == e.base && got.base_age == e.base_age);
    assert_int_equal(got.body.n, 256);
    assert_ptr_equal(got.body.p, bytes + n);
}

static void
any_head_that_is_cut_short_is_bad(void **state)
{
    (void)state;
    uint8_t head[ENVELOPE_HEAD_MAX];
    struct envelope e = message(), got;
    size_t n = envelope_put(head, &e);
    assert_int_equal(envelope_get(VIEW_NONE, &got), ENVELOPE_FOREIGN);
    for (size_t k = 1; k < n; k++)
        assert_int_equal(envelope_get(view_of(head, k), &got), ENVELOPE_BAD);
    assert_int_equal(envelope_get(view_of(head, n), &got), ENVELOPE_OK);
}

static void
later_fields_are_skipped_and_later_versions_are_not_guessed(void **state)
{
    (void)state;
    uint8_t bytes[ENVELOPE_HEAD_MAX + 8];
    struct envelope e = message(), got;
    size_t n = envelope_put(bytes, &e);
    bytes[n - 1] = 3;
    memcpy(bytes + n, "newBODY", 7);
    assert_int_equal(envelope_get(view_of(bytes, n + 7), &got), ENVELOPE_OK);
    assert_true(view_eq(got.body, VIEW("BODY")));
    assert_int_equal(envelope_get(view_of(bytes, n + 2), &got), ENVELOPE_BAD);
    bytes[2] |= 7; /* a kind to come */
    assert_int_equal(envelope_get(view_of(bytes, n + 7), &got), ENVELOPE_UNKNOWN);
    bytes[2] = 0x80; /* a flag to come */
    assert_int_equal(envelope_get(view_of(bytes, n + 7), &got), ENVELOPE_OK);
    assert_int_equal(got.flags, 0);
    bytes[1] = 2;
    assert_int_equal(envelope_get(view_of(bytes, n + 7), &got), ENVELOPE_UNKNOWN);
}

static enum envelope_rc
judged(enum envelope_kind kind, uint64_t stretch, uint64_t number, uint64_t behind)
{
    uint8_t head[ENVELOPE_HEAD_MAX];
    struct envelope e = message(), got;
    e.kind = kind;
    e.stretch = stretch;
    e.number = number;
    e.behind = behind;
    return envelope_get(view_of(head, envelope_put(head, &e)), &got);
}

static void
a_base_takes_room_where_there_is_one_and_is_not_above_the_number(void **state)
{
    (void)state;
    uint8_t head[ENVELOPE_HEAD_MAX];
    struct envelope e = message(), got;
    size_t n = envelope_put(head, &e);
    e.flags |= ENVELOPE_BASE;
    e.base = 299;
    e.base_age = 20000;
    assert_int_equal(envelope_put(head, &e), n + 5);
    assert_int_equal(envelope_get(view_of(head, n + 5), &got), ENVELOPE_OK);
    assert_int_equal(got.base, 299);
    assert_int_equal(got.base_age, 20000);
    assert_int_equal(envelope_get(view_of(head, n + 2), &got), ENVELOPE_BAD);
    e.base = 300;
    n = envelope_put(head, &e);
    assert_int_equal(envelope_get(view_of(head, n), &got), ENVELOPE_BAD);
    e.kind = ENVELOPE_MARK;
    n = envelope_put(head, &e);
    assert_int_equal(envelope_get(view_of(head, n), &got), ENVELOPE_OK);
    e.base = 301;
    n = envelope_put(head, &e);
    assert_int_equal(envelope_get(view_of(head, n), &got), ENVELOPE_BAD);
}

static void
numbers_that_cannot_be_are_bad(void **state)
{
    (void)state;
    assert_int_equal(judged(ENVELOPE_MESSAGE, 1, 1, 0), ENVELOPE_OK);
    assert_int_equal(judged(ENVELOPE_MESSAGE, 0, 1, 0), ENVELOPE_BAD);
    assert_int_equal(judged(ENVELOPE_MESSAGE, 1, 0, 0), ENVELOPE_BAD);
    assert_int_equal(judged(ENVELOPE_MESSAGE, 1, 7, 7), ENVELOPE_BAD);
    assert_int_equal(judged(ENVELOPE_MARK, 1, 7, 7), ENVELOPE_OK);
    assert_int_equal(judged(ENVELOPE_MARK, 1, 7, 8), ENVELOPE_BAD);
    assert_int_equal(judged(ENVELOPE_MARK, 0, 0, 0), ENVELOPE_OK);
    assert_int_equal(judged(ENVELOPE_MARK, 0, 1, 0), ENVELOPE_BAD);
}

static void
names_of_an_ask_are_bytes_and_end(void **state)
{
    (void)state;
    static uint8_t long_name[4096];
    uint8_t body[ENVELOPE_ASK_MAX];
    const struct view names[] = {VIEW("a"), VIEW(""), VIEW("a\0b"), view_of(long_name, sizeof long_name)};
    size_t n = 0;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        assert_true(envelope_name_fits(n, names[i].n));
        n += envelope_name_put(body + n, names[i]);
    }
    while (envelope_name_fits(n, sizeof long_name))
        n += envelope_name_put(body + n, view_of(long_name, sizeof long_name));
    assert_true(n <= sizeof body);
    struct view left = view_of(body, n), name;
    bool bad;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        assert_true(envelope_name_take(&left, &name, &bad));
        assert_true(view_eq(name, names[i]));
    }
    left = view_head(view_of(body, n), 5); /* in the midst of the third */
    assert_true(envelope_name_take(&left, &name, &bad) && envelope_name_take(&left, &name, &bad));
    assert_false(envelope_name_take(&left, &name, &bad));
    assert_true(bad);
    left = VIEW_NONE;
    assert_false(envelope_name_take(&left, &name, &bad));
    assert_false(bad);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_bytes_are_these),
        cmocka_unit_test(what_was_put_comes_out_whatever_the_body_holds),
        cmocka_unit_test(any_head_that_is_cut_short_is_bad),
        cmocka_unit_test(later_fields_are_skipped_and_later_versions_are_not_guessed),
        cmocka_unit_test(a_base_takes_room_where_there_is_one_and_is_not_above_the_number),
        cmocka_unit_test(numbers_that_cannot_be_are_bad),
        cmocka_unit_test(names_of_an_ask_are_bytes_and_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
