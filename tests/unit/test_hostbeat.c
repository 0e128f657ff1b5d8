/* proto/hostbeat: what brokers tell each other about themselves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include "proto/hostbeat.h"

#include <cmocka.h>

static uint8_t mem[HOSTBEAT_BYTES_MAX];
static struct buf out;

static struct view
put(const struct hostbeat *h)
{
    out = buf_fixed(mem, sizeof mem);
    assert_true(hostbeat_put(&out, h));
    return buf_view(&out);
}

static void
everything_comes_back(void **state)
{
    (void)state;
    struct hostbeat h = {.kind = HOSTBEAT_ALIVE, .name = VIEW("web-1.example"), .release = VIEW("0.1.0")}, got;
    uint64_t n = 1;
#define HOSTBEAT_NUMBER(tag, name, sentence) h.name = n *= 37;
    HOSTBEAT_NUMBERS(HOSTBEAT_NUMBER)
    assert_true(hostbeat_get(put(&h), &got));
#undef HOSTBEAT_NUMBER
#define HOSTBEAT_NUMBER(tag, name, sentence) assert_true(got.name == h.name);
    HOSTBEAT_NUMBERS(HOSTBEAT_NUMBER)
#undef HOSTBEAT_NUMBER
    assert_true(view_eq(got.name, h.name) && view_eq(got.release, h.release));
    static uint8_t name[HOSTBEAT_CHANNEL_MAX];
    for (size_t i = 0; i < sizeof name; i++)
        name[i] = (uint8_t)i; /* channels are bytes */
    h = (struct hostbeat){.kind = HOSTBEAT_COUNT, .ask = UINT64_MAX, .channel = view_of(name, sizeof name)};
    assert_true(hostbeat_get(put(&h), &got));
    assert_true(got.ask == UINT64_MAX && view_eq(got.channel, h.channel));
    h = (struct hostbeat){.kind = HOSTBEAT_COUNTED, .to = {.host = {1, 2, 3, 4, 5, 6, 7, 255}, .epoch = 0xfedcba98, .broker = 63}};
    assert_true(hostbeat_get(put(&h), &got));
    assert_memory_equal(&got.to, &h.to, sizeof h.to);
}

static void
what_cannot_be_shown_is_neither_sent_nor_taken(void **state)
{
    (void)state;
    static const char loud[] = "a b\n\x1b[2J\"\xc3\xa4";
    struct hostbeat h = {.kind = HOSTBEAT_LEAVING, .seq = 1, .name = VIEW(loud)}, got;
    struct view body = put(&h);
    assert_true(hostbeat_get(body, &got));
    assert_true(view_eq(got.name, VIEW("a?b??[2J\"??")));
    mem[body.n - 1] = '\n'; /* the last byte of the name */
    assert_false(hostbeat_get(body, &got));
    static uint8_t name[200];
    memset(name, 'n', sizeof name);
    h.name = view_of(name, sizeof name);
    assert_true(hostbeat_get(put(&h), &got));
    assert_int_equal(got.name.n, HOSTBEAT_NAME_MAX);
}

static void
fields_of_later_releases_are_skipped_and_missing_ones_are_zero(void **state)
{
    (void)state;
    struct hostbeat got;
    assert_true(hostbeat_get(VIEW("\x01" "\x01\x01\x05" "\x7f\x03xyz" "\x64\x00"), &got));
    assert_int_equal(got.seq, 5);
    assert_int_equal(got.rings, 0);
    assert_int_equal(got.name.n, 0);
}

static void
what_is_none_is_refused(void **state)
{
    (void)state;
    static const struct view bad[] = {VIEW(""), VIEW("\0"), VIEW("\x05\x01\x01\x01"), VIEW("\x01"), VIEW("\x01\x01\x01\x00"),
        VIEW("\x01\x01\x02\x01"), VIEW("\x01\x01\x02\x01\x01"), VIEW("\x01\x01"), VIEW("\x01\x01\x01\x01\x20"),
        VIEW("\x04\x23\x0f" "0123456789abcde"), VIEW("\x01\x01\x01\x01\x20\x01 ")};
    struct hostbeat got;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (hostbeat_get(bad[i], &got))
            fail_msg("number %zu was taken", i);
    struct hostbeat h = {.kind = HOSTBEAT_ALIVE, .seq = 1, .name = VIEW("n")};
    struct view whole = put(&h);
    for (size_t n = 0; n < whole.n; n++) /* but between two fields */
        assert_int_equal(hostbeat_get(view_head(whole, n), &got), n == 4);
    out = buf_fixed(mem, 5);
    assert_false(hostbeat_put(&out, &h));
    assert_int_equal(out.n, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_comes_back),
        cmocka_unit_test(what_cannot_be_shown_is_neither_sent_nor_taken),
        cmocka_unit_test(fields_of_later_releases_are_skipped_and_missing_ones_are_zero),
        cmocka_unit_test(what_is_none_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
