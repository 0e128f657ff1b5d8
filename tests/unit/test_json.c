/* proto/json: what RFC 8259 allows and forbids, against tables and against a second implementation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proto/json.h"
#include "tests/unit/naive_json.h"

/* Judges a copy that ends where its memory ends, so that sanitizers see a read past it. */
static bool
valid_n(const void *text, size_t n, uint32_t max_depth, bool *deep)
{
    uint8_t *copy = malloc(n + !n);
    assert_non_null(copy);
    memcpy(copy, text, n);
    *deep = false;
    bool ok = json_valid(view_of(copy, n), max_depth, deep);
    free(copy);
    return ok;
}

static bool
valid(const char *text)
{
    bool deep;
    return valid_n(text, strlen(text), 64, &deep);
}

static const char *const good[] = {
    "0", "-0", "1", "-1", "10", "1.5", "-0.0", "1e5", "1E+5", "1e-05", "0e0", "0.0e1",
    "123456789012345678901234567890", "1e999", "\"\"", "\"a\"", "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
    "\"\\u0000\"", "\"\\ud800\"", "\"\\uDFFF\\uD800\"", "\"\x7F\"", "\"\xC3\xA9\"", "true", "false",
    "null", "[]", "{}", " [ ] ", "\t{\n}\r", "[1]", "[1,2]", "[[],[]]", "{\"a\":1}",
    "{ \"a\" : 1 , \"b\" : [ ] }", "{\"\":{}}", "{\"a\":1,\"a\":2}", "[null,true,false,\"x\",1.0,{}]",
    "\"0123456789abcdef0123456789abcdef\"", "\"0123456789abcde\\n0123456789abcdef\"",
};

static const char *const bad[] = {
    "", " ", "+1", "01", "-", "-a", "1.", ".5", "1.e5", "1e", "1e+", "0x1", "1a", "--1", "00", "-01",
    "NaN", "Infinity", "-Infinity", "\"", "\"a", "'a'", "\"\\\"", "\"\\a\"", "\"\\u\"", "\"\\u123\"",
    "\"\\u123g\"", "\"\\U0000\"", "\"\n\"", "\"\t\"", "\"\x1F\"", "\"\x01\"", "tru", "True", "nul",
    "nullx", "truee", "fals", "[", "]", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "[1,,2]", "[1}", "{",
    "}", "{\"a\"", "{\"a\":", "{\"a\":1", "{\"a\":1,", "{\"a\":1,}", "{,\"a\":1}", "{a:1}", "{1:1}",
    "{\"a\" 1}", "{\"a\",1}", "{\"a\"::1}", "{\"a\":1]", "{\"a\":1 \"b\":2}", "1 2", "{}{}", "[][]",
    "{} x", "/* */1", "//\n1", "\xEF\xBB\xBF[]", "\xC3\xA9", "\f1", "\v1", "[\xC2\xA0]",
    "\"0123456789abcdef01234\n\"", "\"0123456789abcdef\x01\"", "{\"a\":1,\"b\"}", "{null:1}", "[\"a]",
};

static void
test_what_the_grammar_allows(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        if (!valid(good[i]))
            fail_msg("refused: %s", good[i]);
}

static void
test_what_the_grammar_forbids(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (valid(bad[i]))
            fail_msg("accepted: %s", bad[i]);
}

static void
test_nul_bytes_are_characters_not_ends(void **state)
{
    (void)state;
    bool deep;
    assert_false(valid_n("1\0", 2, 8, &deep));
    assert_false(valid_n("\"a\0b\"", 5, 8, &deep));
    assert_false(valid_n("\0", 1, 8, &deep));
    assert_true(valid_n("\"a\\u0000b\"", 10, 8, &deep));
}

/* Every byte in a string at every place of the 8- and 16-byte steps. */
static void
test_each_byte_at_each_place_of_a_string(void **state)
{
    (void)state;
    for (size_t n = 1; n < 40; n++)
        for (size_t at = 0; at < n; at++)
            for (unsigned c = 0; c < 256; c++) {
                char text[48];
                bool deep;
                memset(text, 'x', sizeof text);
                text[0] = text[n + 1] = '"';
                text[1 + at] = (char)c;
                bool special = c < 0x20 || c == '"' || (c == '\\' && at == n - 1);
                if (c == '\\' && !special)
                    text[2 + at] = 'n';
                if (valid_n(text, n + 2, 1, &deep) == special)
                    fail_msg("byte %02x at %zu of %zu", c, at, n);
            }
}

static void
test_depth_is_bounded_exactly(void **state)
{
    (void)state;
    char text[2 * (JSON_DEPTH_MAX + 1)];
    for (size_t n = 1; n <= JSON_DEPTH_MAX + 1; n++) {
        bool deep;
        memset(text, '[', n);
        memset(text + n, ']', n);
        assert_int_equal(valid_n(text, 2 * n, 64, &deep), n <= 64);
        assert_int_equal(deep, n > 64);
        assert_int_equal(valid_n(text, 2 * n, UINT32_MAX, &deep), n <= JSON_DEPTH_MAX);
        assert_int_equal(deep, n > JSON_DEPTH_MAX);
    }
    bool deep;
    assert_true(valid_n("1", 1, 0, &deep));
    assert_false(valid_n("[]", 2, 0, &deep));
    assert_true(deep);
}

static void
test_every_prefix_is_incomplete(void **state)
{
    (void)state;
    static const char text[] = "{\"a\":[1.5e+3,\"\\u00e9\\n\",true,null,{\"b\":{}}],\"c\":false}";
    bool deep;
    for (size_t n = 0; n < sizeof text - 1; n++)
        assert_false(valid_n(text, n, 8, &deep));
    assert_true(valid_n(text, sizeof text - 1, 8, &deep));
}

static uint32_t
next_random(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

/* Random changes to good and bad texts: both implementations must agree on each. */
static void
test_agrees_with_a_second_implementation(void **state)
{
    (void)state;
    static const char alphabet[] = "{}[]\",:\\u0123456789eE+-. \n\ttruefalsn\x01\xC3";
    uint32_t seed = 20261121;
    unsigned accepted = 0;
    for (unsigned round = 0; round < 400000; round++) {
        uint8_t text[160];
        size_t n = 0, pieces = 1 + next_random(&seed) % 3;
        for (size_t i = 0; i < pieces; i++) {
            uint32_t pick = next_random(&seed) % (ARRAY_LEN(good) + ARRAY_LEN(bad) / 8);
            const char *piece = pick < ARRAY_LEN(good) ? good[pick] : bad[pick - ARRAY_LEN(good)];
            size_t piece_n = MIN(strlen(piece), sizeof text / 4);
            memcpy(text + n, piece, piece_n);
            n += piece_n;
            if (i + 1 < pieces)
                text[n++] = (uint8_t)alphabet[next_random(&seed) % (sizeof alphabet - 1)];
        }
        for (uint32_t i = next_random(&seed) % 3; n > 0 && i > 0; i--)
            text[next_random(&seed) % n] = (uint8_t)alphabet[next_random(&seed) % (sizeof alphabet - 1)];
        bool deep;
        unsigned deepest;
        bool ours = valid_n(text, n, 64, &deep), theirs = naive_json(text, n, &deepest);
        accepted += ours;
        if (ours != theirs)
            fail_msg("%.*s: %d, second implementation %d", (int)n, text, ours, theirs);
    }
    assert_in_range(accepted, 20000, 380000); /* else the texts were too alike to say anything */
}

static void
check_unescape(const char *raw, const char *want, size_t want_n)
{
    uint8_t out[64];
    size_t n;
    assert_true(json_unescape(view_str(raw), out, sizeof out, &n));
    assert_int_equal(n, want_n);
    assert_memory_equal(out, want, want_n);
    if (want_n > 0)
        assert_false(json_unescape(view_str(raw), out, want_n - 1, &n));
    assert_true(json_unescape(view_str(raw), out, want_n, &n));
}

static void
test_unescape(void **state)
{
    (void)state;
    check_unescape("", "", 0);
    check_unescape("abc", "abc", 3);
    check_unescape("\\\"\\\\\\/\\b\\f\\n\\r\\t", "\"\\/\b\f\n\r\t", 8);
    check_unescape("a\\u0000b", "a\0b", 3);
    check_unescape("\\u0041\\u00e9\\u20AC", "A\xC3\xA9\xE2\x82\xAC", 6);
    check_unescape("\\uD83D\\ude00", "\xF0\x9F\x98\x80", 4);
    check_unescape("\\uDBFF\\uDFFF", "\xF4\x8F\xBF\xBF", 4);
    check_unescape("\\uD800\\uDC00", "\xF0\x90\x80\x80", 4);
    check_unescape("\\uFFFF\\uD7FF\\uE000", "\xEF\xBF\xBF\xED\x9F\xBF\xEE\x80\x80", 9);
}

static void
test_half_pairs_cannot_be_spelled(void **state)
{
    (void)state;
    static const char *const halves[] = {"\\ud800", "\\udfff", "\\udc00\\ud800", "\\ud800\\ud800",
        "\\ud800x", "\\ud800\\n", "\\ud83d\\u0041", "x\\udbff", "\\ud800\\u", "\\ud800\\"};
    uint8_t out[64];
    size_t n;
    for (size_t i = 0; i < ARRAY_LEN(halves); i++)
        assert_false(json_unescape(view_str(halves[i]), out, sizeof out, &n));
}

/* Everything that is written can be read back, and is as long as JSON.stringify would make it. */
static void
test_written_strings_read_back(void **state)
{
    (void)state;
    uint8_t all[256 + 4], back[sizeof all];
    struct buf out = buf_make(4096);
    size_t n = 0, back_n;
    for (unsigned c = 0; c < 0x80; c++)
        all[n++] = (uint8_t)c;
    memcpy(all + n, "\xC3\xA9\xF0\x9F\x98\x80", 6);
    n += 6;
    json_put_string(&out, view_of(all, n));
    assert_false(out.failed);
    /* 27 controls of six bytes, 5 of two, quote and backslash of two, and the quotes around */
    assert_int_equal(out.n, n + 27 * 5 + 5 + 2 + 2);
    struct json_string s;
    assert_ptr_equal(json_string(out.p + 1, out.p + out.n, &s), out.p + out.n);
    assert_true(s.escaped);
    assert_true(json_unescape(s.raw, back, sizeof back, &back_n));
    assert_int_equal(back_n, n);
    assert_memory_equal(back, all, n);
    assert_false(json_is_plain(view_of(all, n)));
    assert_true(json_is_plain(VIEW("plain/\x7F\xC3\xA9")));
    assert_true(json_is_plain(VIEW_NONE));
    buf_free(&out);
}

static void
test_a_full_buffer_says_so(void **state)
{
    (void)state;
    uint8_t room[8];
    struct buf out = buf_fixed(room, sizeof room);
    json_put_string(&out, VIEW("seven"));
    assert_false(out.failed);
    buf_reset(&out);
    json_put_string(&out, VIEW("\x01\x02"));
    assert_true(out.failed);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_the_grammar_allows),
        cmocka_unit_test(test_what_the_grammar_forbids),
        cmocka_unit_test(test_nul_bytes_are_characters_not_ends),
        cmocka_unit_test(test_each_byte_at_each_place_of_a_string),
        cmocka_unit_test(test_depth_is_bounded_exactly),
        cmocka_unit_test(test_every_prefix_is_incomplete),
        cmocka_unit_test(test_agrees_with_a_second_implementation),
        cmocka_unit_test(test_unescape),
        cmocka_unit_test(test_half_pairs_cannot_be_spelled),
        cmocka_unit_test(test_written_strings_read_back),
        cmocka_unit_test(test_a_full_buffer_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
