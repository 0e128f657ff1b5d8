/* proto/dialect/socketcluster: what transcripts (tests/wire) cannot say well. Limits, decoding that is
 * left and resumed, whole-or-nothing, errors and full buffers in encoding. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proto/dialect.h"
#include "tests/unit/naive_json.h"

static const struct dialect_limits usual = {128, 8192, 1024, 256};
static struct decoding d;

static enum decode
decode(const struct dialect_limits *limits, struct verb *v)
{
    return dialect_socketcluster.decode(NULL, limits, &d, v);
}

static void
begin(const char *text)
{
    memset(&d, 0xA5, sizeof d); /* names needs no zeroing */
    d.msg = view_str(text);
    d.text = true;
    d.step = d.count = 0;
    d.pos = 0;
}

/* The only verb of a message. */
static struct verb
only_verb(const struct dialect_limits *limits, const char *text)
{
    struct verb v, none;
    begin(text);
    assert_int_equal(decode(limits, &v), DECODE_VERB);
    assert_int_equal(decode(limits, &none), DECODE_END);
    assert_int_equal(decode(limits, &none), DECODE_END);
    return v;
}

static void
assert_view(struct view v, const char *want)
{
    if (!view_eq(v, view_str(want)))
        fail_msg("%.*s is not %s", VIEW_FMT(v), want);
}

static void
test_views_of_plain_names_point_into_the_message(void **state)
{
    (void)state;
    struct verb v = only_verb(&usual,
        " {\"event\":\"#publish\",\"data\":{\"channel\":\"foo\",\"data\": [1, 2] }} ");
    assert_int_equal(v.kind, VERB_PUBLISH);
    assert_view(v.channel, "foo");
    assert_view(v.data, "[1, 2]");
    assert_true(v.data.p > d.msg.p && v.data.p < d.msg.p + d.msg.n);
    assert_true(v.channel.p > d.msg.p && v.channel.p < d.msg.p + d.msg.n);
    assert_int_equal(v.call_id.n, 0);
}

/* The usual form is read by a path of its own: what differs from it by a space is read by the other one. */
static void
test_the_usual_publish_is_read_like_any_other(void **state)
{
    (void)state;
    static const struct dialect_limits tight = {2, 1, 4, 4};
#define HEAD "{\"event\":\"#publish\",\"data\":{\"channel\":"
    static const char *const texts[] = {
        HEAD "\"foo\",\"data\":\"bar\"},\"cid\":7}",
        HEAD "\"foo\",\"data\":\"bar\"}}",
        HEAD "\"f\\u006fo\",\"data\":{\"a\":[1,2,{}]}},\"cid\":\"x\"}",
        HEAD "\"foo\",\"data\":[[]]},\"cid\":7}",
        HEAD "\"foo\",\"data\":[]},\"cid\":7}",
        HEAD "\"foo\",\"data\":null},\"cid\":null}",
        HEAD "\"foo\",\"data\":-1.5e3},\"cid\":{}}",
        HEAD "\"foo\",\"data\":1},\"cid\":123456789012345678901234567890123456789012345678901234567890123456789}",
        HEAD "\"foo\"},\"cid\":7}",
        HEAD "\"foo\",\"data\":1,\"data\":2},\"cid\":7}",
        HEAD "\"foo\",\"data\":1,\"channel\":\"baz\"},\"cid\":7}",
        HEAD "\"foo\",\"data\":1},\"cid\":7,\"cid\":8}",
        HEAD "\"foo\",\"data\":1},\"cid\":7,\"event\":\"other\"}",
        HEAD "\"foo\",\"data\":1},\"cid\":7} ",
        HEAD "\"foo\",\"data\":1},\"cid\":7}}",
        HEAD "\"foo\",\"data\":1},\"cid\":07}",
        HEAD "\"foo\",\"data\":1},\"cid\":}",
        HEAD "\"foo\",\"data\":1},\"cid\":7",
        HEAD "\"foo\",\"data\":1}",
        HEAD "\"foo\",\"data\":tru}}",
        HEAD "\"foo\",\"data\":",
        HEAD "\"foo",
        HEAD "1,\"data\":1}}",
        HEAD,
    };
    for (size_t i = 0; i < 2 * ARRAY_LEN(texts); i++) {
        const struct dialect_limits *limits = i % 2 ? &tight : &usual;
        char other[256];
        snprintf(other, sizeof other, "{ %s", texts[i / 2] + 1);
        struct verb want = only_verb(limits, other), v = only_verb(limits, texts[i / 2]);
        assert_int_equal(v.kind, want.kind);
        assert_int_equal(v.err, want.err);
        assert_int_equal(v.has_data, want.has_data);
        assert_true(view_eq(v.data, want.data) && view_eq(v.call_id, want.call_id) && view_eq(v.channel, want.channel));
    }
    assert_int_equal(only_verb(&usual, texts[0]).kind, VERB_PUBLISH);
    assert_int_equal(only_verb(&tight, texts[0]).kind, VERB_PUBLISH);
    assert_int_equal(only_verb(&tight, texts[2]).kind, VERB_REFUSE);
#undef HEAD
}

static void
test_names_with_escapes_are_spelled_out(void **state)
{
    (void)state;
    struct verb v = only_verb(&usual, "{\"\\u0065vent\":\"#\\u0070ublish\",\"data\":{\"channel\":"
                                      "\"a\\u0000\\ud83d\\ude00\"},\"cid\":1}");
    assert_int_equal(v.kind, VERB_PUBLISH);
    assert_int_equal(v.channel.n, 6);
    assert_memory_equal(v.channel.p, "a\0\xF0\x9F\x98\x80", 6);
    assert_ptr_equal(v.channel.p, d.names);
    v = only_verb(&usual, "{\"event\":\"caf\\u00e9\"}");
    assert_int_equal(v.kind, VERB_EVENT);
    assert_view(v.event, "caf\xC3\xA9");
}

static void
test_limits_of_names_are_exact(void **state)
{
    (void)state;
    const struct dialect_limits small = {128, 8192, 3, 2};
    assert_int_equal(only_verb(&small,
        "{\"event\":\"#publish\",\"data\":{\"channel\":\"abc\"}}").kind, VERB_PUBLISH);
    assert_int_equal(only_verb(&small,
        "{\"event\":\"#publish\",\"data\":{\"channel\":\"abcd\"}}").err, ERR_PUBLISH_NAME);
    assert_int_equal(only_verb(&small, /* escapes count as what they mean */
        "{\"event\":\"#publish\",\"data\":{\"channel\":\"\\u0061\\u00e9\"}}").kind, VERB_PUBLISH);
    assert_int_equal(only_verb(&small,
        "{\"event\":\"#publish\",\"data\":{\"channel\":\"\\u00e9\\u00e9\"}}").err, ERR_PUBLISH_NAME);
    assert_int_equal(only_verb(&small, "{\"event\":\"ab\",\"cid\":1}").kind, VERB_CALL);
    assert_int_equal(only_verb(&small, "{\"event\":\"abc\",\"cid\":1}").err, ERR_EVENT_NAME);
}

static void
test_names_may_fill_their_room_and_no_more(void **state)
{
    (void)state;
    const struct dialect_limits most = {128, 8192, UINT32_MAX, UINT32_MAX};
    for (size_t extra = 0; extra < 2; extra++) {
        struct buf b = buf_make(1 << 16);
        buf_put_lit(&b, "{\"event\":\"#publish\",\"data\":{\"channel\":\"");
        for (size_t i = 0; i < NAME_MAX_BYTES + extra; i++)
            buf_put_lit(&b, "\\u0061");
        buf_put_lit(&b, "\"}}");
        buf_put_u8(&b, 0);
        struct verb v = only_verb(&most, (const char *)b.p);
        assert_int_equal(v.kind, extra ? VERB_REFUSE : VERB_PUBLISH);
        assert_int_equal(v.channel.n, extra ? v.channel.n : NAME_MAX_BYTES);
        buf_free(&b);
    }
}

static void
test_depth_is_counted_per_packet(void **state)
{
    (void)state;
    const struct dialect_limits three = {3, 8192, 1024, 256};
    assert_int_equal(only_verb(&three,
        "{\"event\":\"#publish\",\"data\":{\"channel\":\"a\",\"data\":[]}}").kind, VERB_PUBLISH);
    assert_int_equal(only_verb(&three,
        "{\"event\":\"#publish\",\"data\":{\"channel\":\"a\",\"data\":[[]]}}").kind, VERB_RAW);
    assert_int_equal(only_verb(&three,
        "[{\"event\":\"#publish\",\"data\":{\"channel\":\"a\",\"data\":[]}}]").kind, VERB_PUBLISH);
    struct verb v = only_verb(&three, "{\"event\":\"x\",\"data\":[[[]]],\"cid\":7}");
    assert_int_equal(v.kind, VERB_REFUSE);
    assert_int_equal(v.err, ERR_TOO_DEEP);
    assert_view(v.call_id, "7");
    assert_int_equal(only_verb(&three, "{\"x\":[[[]]],\"event\":\"x\"}").kind, VERB_RAW);
}

static void
test_the_salvaged_call_id_is_the_packets_own(void **state)
{
    (void)state;
    const struct dialect_limits two = {2, 8192, 1024, 256};
    assert_view(only_verb(&two, "{\"a\":[[{\"cid\":1}]],\"cid\":2,\"b\":\"cid\"}").call_id, "2");
    assert_view(only_verb(&two, "{\"a\":[[]],\"cid\":1,\"\\u0063id\":3}").call_id, "3");
    assert_int_equal(only_verb(&two, "{\"a\":[[]],\"cid\":1,\"cid\":null}").kind, VERB_RAW);
    assert_int_equal(only_verb(&two, "{\"a\":[[]],\"cid\":1,\"cid\":[]}").kind, VERB_RAW);
    assert_int_equal(only_verb(&two, "{\"a\":[[{\"cid\":1}]]}").kind, VERB_RAW);
    assert_int_equal(only_verb(&two, "{\"a\":[[\"cid\"]],\"cid\"}").kind, VERB_RAW);
    assert_int_equal(only_verb(&two, "{\"a\":[[]],\"cid\":1} 2").kind, VERB_RAW);
    assert_int_equal(only_verb(&two, "{\"a\":[[]],\"cid\":1").kind, VERB_RAW);
}

static void
test_a_batch_may_be_left_and_resumed(void **state)
{
    (void)state;
    struct verb v;
    begin(" [ {\"event\":\"\\u0061\",\"cid\":1} , 5 , {\"event\":\"b\"} ] ");
    assert_int_equal(decode(&usual, &v), DECODE_VERB);
    assert_int_equal(v.kind, VERB_CALL);
    assert_view(v.event, "a");
    struct decoding *kept = malloc(sizeof *kept); /* the caller may keep it elsewhere meanwhile */
    assert_non_null(kept);
    *kept = d;
    memset(&d, 0, sizeof d);
    assert_int_equal(dialect_socketcluster.decode(NULL, &usual, kept, &v), DECODE_VERB);
    assert_int_equal(v.kind, VERB_ANSWER);
    assert_int_equal(v.call_id.n, 0);
    assert_int_equal(dialect_socketcluster.decode(NULL, &usual, kept, &v), DECODE_VERB);
    assert_view(v.event, "b");
    assert_int_equal(kept->count, 3);
    assert_int_equal(dialect_socketcluster.decode(NULL, &usual, kept, &v), DECODE_END);
    free(kept);
}

static void
test_an_empty_array_says_nothing(void **state)
{
    (void)state;
    struct verb v;
    begin(" [ ] ");
    assert_int_equal(decode(&usual, &v), DECODE_END);
    begin("[] x");
    assert_int_equal(decode(&usual, &v), DECODE_VERB);
    assert_int_equal(v.kind, VERB_RAW);
}

/* Whole or nothing: no prefix of a batch, and none with one byte changed to something that is not
 * JSON any more, says anything but RAW (or CLOSE, or nothing at all when it is []). */
static void
test_what_does_not_parse_never_takes_effect(void **state)
{
    (void)state;
    static const char text[] = "[{\"event\":\"#publish\",\"data\":{\"channel\":\"a\\n\",\"data\":[1.5e3,tru"
                               "e,{\"x\":null}]},\"cid\":12},{\"event\":\"#subscribe\",\"cid\":2},\"s\"]";
    static const char changes[] = "\0\"\\{}[],: x9.-\xFF";
    char copy[sizeof text];
    unsigned deepest, refused = 0, taken = 0;
    for (size_t at = 0; at < sizeof text - 1; at++)
        for (size_t i = 0; i <= sizeof changes - 1; i++) {
            memcpy(copy, text, sizeof text);
            size_t n = i < sizeof changes - 1 ? sizeof text - 1 : at;
            if (i < sizeof changes - 1)
                copy[at] = changes[i];
            bool fine = naive_json((const uint8_t *)copy, n, &deepest);
            struct verb v;
            begin("");
            d.msg = view_of(copy, n);
            enum decode rc = decode(&usual, &v);
            if (!fine && n > 0 && (rc != DECODE_VERB || v.kind != VERB_RAW))
                fail_msg("took effect: %.*s", (int)n, copy);
            refused += !fine;
            taken += fine && v.kind == VERB_PUBLISH;
        }
    assert_true(refused > 500 && taken > 100);
}

static void
test_token_errors_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *data;
        enum error_id err;
    } rows[] = {
        {"\"\"", ERR_TOKEN_NONE}, {"null", ERR_TOKEN_NONE}, {"1", ERR_TOKEN_TYPE},
        {"{\"channel\":1}", ERR_TOKEN_TYPE}, {"\"a.b\"", ERR_TOKEN_MALFORMED},
        {"\"a.b.c.d\"", ERR_TOKEN_MALFORMED}, {"\"...\"", ERR_TOKEN_MALFORMED},
        {"\"..\"", ERR_TOKEN_INVALID}, {"\"e30..e30\"", ERR_TOKEN_INVALID},
        {"\"e30.e30.\"", ERR_TOKEN_UNSIGNED}, {"\"e30.e30.AA\"", ERR_NO_TOKEN_KEY},
        {"\"e30=.e30.AA\"", ERR_TOKEN_INVALID}, {"\"MQ.e30.AA\"", ERR_TOKEN_INVALID},
        {"\"e\\u00330.e30.AA\"", ERR_TOKEN_INVALID},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char text[128];
        snprintf(text, sizeof text, "{\"event\":\"#authenticate\",\"data\":%s,\"cid\":1}", rows[i].data);
        struct verb v = only_verb(&usual, text);
        assert_int_equal(v.kind, VERB_AUTHENTICATE);
        assert_string_equal(error_message(v.err), error_message(rows[i].err));
    }
}

/* A token's header is decoded into bounded room. */
static void
test_a_huge_token_is_an_invalid_one(void **state)
{
    (void)state;
    struct buf b = buf_make(1 << 20);
    buf_put_lit(&b, "{\"event\":\"#handshake\",\"cid\":1,\"data\":{\"authToken\":\"");
    for (size_t i = 0; i < 100000; i++)
        buf_put_lit(&b, "ICAg");
    buf_put_lit(&b, ".e30.AA\"}}");
    buf_put_u8(&b, 0);
    struct verb v = only_verb(&usual, (const char *)b.p);
    assert_int_equal(v.kind, VERB_HANDSHAKE);
    assert_int_equal(v.err, ERR_TOKEN_INVALID);
    buf_free(&b);
}

static void
check_encoded(const struct event *ev, const char *want)
{
    struct buf out = buf_make(4096);
    assert_true(dialect_socketcluster.encode(NULL, ev, &out));
    assert_view(buf_view(&out), want);
    unsigned deepest;
    assert_true(out.n == 0 || naive_json(out.p, out.n, &deepest));
    /* Every smaller buffer is left as it was. */
    for (size_t cap = 0; cap < out.n; cap++) {
        uint8_t *room = malloc(cap + 1);
        assert_non_null(room);
        struct buf small = buf_fixed(room, cap);
        assert_false(dialect_socketcluster.encode(NULL, ev, &small));
        assert_true(small.failed);
        assert_int_equal(small.n, 0);
        free(room);
    }
    buf_free(&out);
}

static void
test_events_as_packets(void **state)
{
    (void)state;
    check_encoded(&(struct event){.kind = EV_PUBLICATION, .channel = VIEW("foo"), .has_data = true,
        .data = VIEW("{\"a\":[1,2,null]}")},
        "{\"event\":\"#publish\",\"data\":{\"channel\":\"foo\",\"data\":{\"a\":[1,2,null]}}}");
    check_encoded(&(struct event){.kind = EV_PUBLICATION, .channel = VIEW("foo")},
        "{\"event\":\"#publish\",\"data\":{\"channel\":\"foo\"}}");
    check_encoded(&(struct event){.kind = EV_PUBLICATION, .channel = VIEW("a\"\x01"),
        .has_data = true, .data = VIEW("1")},
        "{\"event\":\"#publish\",\"data\":{\"channel\":\"a\\\"\\u0001\",\"data\":1}}");
    check_encoded(&(struct event){.kind = EV_PUBLICATION, .has_data = true, .data = VIEW("1")},
        "{\"event\":\"#publish\",\"data\":{\"channel\":\"\",\"data\":1}}");
    check_encoded(&(struct event){.kind = EV_DONE, .call_id = VIEW("6")}, "{\"rid\":6}");
    check_encoded(&(struct event){.kind = EV_DONE, .call_id = VIEW("\"x\""), .has_data = true,
        .data = VIEW("null")}, "{\"rid\":\"x\",\"data\":null}");
    check_encoded(&(struct event){.kind = EV_KICKED, .channel = VIEW("a"), .has_data = true,
        .data = VIEW("\"bye\"")}, "{\"event\":\"#kickOut\",\"data\":{\"channel\":\"a\",\"message\":\"bye\"}}");
    check_encoded(&(struct event){.kind = EV_GAP, .channel = VIEW("a\"b"), .has_count = true, .count = UINT64_MAX},
        "{\"event\":\"#gap\",\"data\":{\"channel\":\"a\\\"b\",\"count\":18446744073709551615}}");
    check_encoded(&(struct event){.kind = EV_GAP, .channel = VIEW("c")},
        "{\"event\":\"#gap\",\"data\":{\"channel\":\"c\",\"count\":null}}");
    check_encoded(&(struct event){.kind = EV_FORGET_TOKEN}, "{\"event\":\"#removeAuthToken\"}");
    check_encoded(&(struct event){.kind = EV_PING}, "");
    check_encoded(&(struct event){.kind = EV_WELCOME, .call_id = VIEW("1"), .socket = VIEW("id"),
        .ping_timeout_ms = UINT32_MAX},
        "{\"rid\":1,\"data\":{\"id\":\"id\",\"pingTimeout\":4294967295,\"isAuthenticated\":false}}");
}

static void
test_errors_fill_their_placeholders(void **state)
{
    (void)state;
    check_encoded(&(struct event){.kind = EV_FAILED, .err = ERR_CHANNEL_LIMIT, .call_id = VIEW("2"),
        .channel = VIEW("c\"{socket}"), .socket = VIEW("X0"), .limit = UINT64_MAX},
        "{\"rid\":2,\"error\":{\"message\":\"Failed to subscribe socket to the c\\\"{socket} channel - "
        "InvalidActionError: Socket X0 tried to exceed the channel subscription limit of "
        "18446744073709551615\",\"name\":\"BrokerError\"}}");
    for (int e = ERR_NONE + 1; e < ERR_COUNT; e++) {
        struct buf out = buf_make(4096);
        unsigned deepest;
        struct event ev = {.kind = EV_FAILED, .err = (enum error_id)e, .call_id = VIEW("1")};
        assert_true(dialect_socketcluster.encode(NULL, &ev, &out));
        assert_true(naive_json(out.p, out.n, &deepest));
        assert_null(memchr(out.p + 1 + sizeof "\"rid\":1,\"error\":{" - 1, '{', out.n - 20));
        buf_free(&out);
    }
}

static void
test_an_answer_needs_a_call_id(void **state)
{
    (void)state;
    struct buf out = buf_make(64);
    assert_false(dialect_socketcluster.encode(NULL, &(struct event){.kind = EV_DONE}, &out));
    assert_false(dialect_socketcluster.encode(NULL,
        &(struct event){.kind = EV_FAILED, .err = ERR_PUBLISH_NAME}, &out));
    assert_false(dialect_socketcluster.encode(NULL, &(struct event){.kind = EV_ECHO}, &out));
    assert_false(out.failed);
    assert_int_equal(out.n, 0);
    buf_free(&out);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_views_of_plain_names_point_into_the_message),
        cmocka_unit_test(test_the_usual_publish_is_read_like_any_other),
        cmocka_unit_test(test_names_with_escapes_are_spelled_out),
        cmocka_unit_test(test_limits_of_names_are_exact),
        cmocka_unit_test(test_names_may_fill_their_room_and_no_more),
        cmocka_unit_test(test_depth_is_counted_per_packet),
        cmocka_unit_test(test_the_salvaged_call_id_is_the_packets_own),
        cmocka_unit_test(test_a_batch_may_be_left_and_resumed),
        cmocka_unit_test(test_an_empty_array_says_nothing),
        cmocka_unit_test(test_what_does_not_parse_never_takes_effect),
        cmocka_unit_test(test_token_errors_are_named),
        cmocka_unit_test(test_a_huge_token_is_an_invalid_one),
        cmocka_unit_test(test_events_as_packets),
        cmocka_unit_test(test_errors_fill_their_placeholders),
        cmocka_unit_test(test_an_answer_needs_a_call_id),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
