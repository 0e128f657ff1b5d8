/* proto/ws: every rule of RFC 6455 section 5, 7.4 and 8.1 that a reader can see, each script in
 * chunks of 1, 7 and all bytes and cut once at every place. What comes out is written down as one
 * line of text and must be the same however the bytes came.
 *
 *   text:"hi" binary:"" ping:"x" pong:"" close:1000:"bye" bad:protocol@12    (@: bytes offered) */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "common/buf.h"
#include "proto/ws.h"

static const uint8_t key[4] = {0x37, 0xFA, 0x21, 0x3D}; /* of the examples in section 5.7 */
static const struct ws_limits wide = {.max_message = 1 << 20, .max_frames = 1000};

/* ---- building frames
 * ----------------------------------------------------------------------------- */

static uint8_t script_memory[1 << 18];
static struct buf script;

static void
begin(void)
{
    script = buf_fixed(script_memory, sizeof script_memory);
}

/* A masked frame whose length field takes size bytes (2, 4, 10) and says `said`. */
static void
frame_as(uint8_t b0, size_t size, uint64_t said, const void *payload, size_t n)
{
    uint8_t head[14] = {b0, (uint8_t)(0x80 | said)};
    if (size == 4) {
        head[1] = 0x80 | 126;
        store_be16(head + 2, (uint16_t)said);
    } else if (size == 10) {
        head[1] = 0x80 | 127;
        store_be64(head + 2, said);
    }
    memcpy(head + size, key, 4);
    buf_put(&script, head, size + 4);
    size_t at = script.n;
    buf_put(&script, payload, n);
    for (size_t i = 0; i < n; i++)
        script.p[at + i] ^= key[i & 3];
    assert_false(script.failed);
}

static void
frame(uint8_t b0, const void *payload, size_t n)
{
    frame_as(b0, ws_header_size(n), n, payload, n);
}

#define FRAME(b0, lit) frame((b0), (lit), sizeof(lit) - 1)

/* ---- reading them
 * -------------------------------------------------------------------------------- */

struct heard {
    char line[1 << 14];
    size_t n;
    uint8_t message[1 << 16]; /* the present one, put together from its pieces */
    size_t message_n;
    bool open;
};

static void PRINTF(2, 3) say(struct heard *h, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(h->line + h->n, sizeof h->line - h->n, fmt, ap);
    va_end(ap);
    assert_true(n >= 0 && (size_t)n < sizeof h->line - h->n);
    h->n += (size_t)n;
}

static void
say_bytes(struct heard *h, struct view v)
{
    if (v.n > 200) {
        uint64_t sum = 0;
        for (size_t i = 0; i < v.n; i++)
            sum = sum * 31 + v.p[i];
        say(h, "%zu bytes %016llx ", v.n, (unsigned long long)sum);
        return;
    }
    say(h, "\"");
    for (size_t i = 0; i < v.n; i++)
        say(h, v.p[i] >= 0x20 && v.p[i] < 0x7F ? "%c" : "\\x%02X", v.p[i]);
    say(h, "\" ");
}

static void
hear_data(struct heard *h, const struct ws_event *ev)
{
    assert_int_equal(ev->first, !h->open);
    h->open = !ev->last;
    if (ev->first)
        h->message_n = 0;
    assert_true(ev->payload.n <= sizeof h->message - h->message_n);
    if (ev->payload.n)
        memcpy(h->message + h->message_n, ev->payload.p, ev->payload.n);
    h->message_n += ev->payload.n;
    if (!ev->last)
        return;
    say(h, ev->text ? "text:" : "binary:");
    say_bytes(h, view_of(h->message, h->message_n));
}

static void
hear(struct heard *h, const struct ws_event *ev, size_t offered)
{
    switch (ev->kind) {
    case WS_EV_DATA: hear_data(h, ev); break;
    case WS_EV_PING:
        say(h, "ping:");
        say_bytes(h, ev->payload);
        break;
    case WS_EV_PONG:
        say(h, "pong:");
        say_bytes(h, ev->payload);
        break;
    case WS_EV_CLOSE:
        say(h, "close:%u:", ev->code);
        say_bytes(h, ev->payload);
        break;
    case WS_EV_BAD: say(h, "bad:%s@%zu ", close_str(ev->bad), offered); break;
    default: fail();
    }
}

/* Feeds `in` in chunks; the first has `first` bytes, the others `chunk`. With exact, the place of a
 * violation is written down too (it depends on the chunks). Each chunk is a block of its own, so
 * that a sanitizer sees a step outside. */
static void
read_in_chunks(struct heard *h, bool client, const struct ws_limits *limits, struct view in,
    size_t first, size_t chunk, bool exact)
{
    struct ws_reader r = {.client = client};
    uint8_t control[128];
    *h = (struct heard){.n = 0};
    for (size_t at = 0, take; at < in.n; at += take) {
        take = MIN(at ? chunk : first, in.n - at);
        uint8_t *block = malloc(take), *p = block;
        size_t n = take;
        assert_non_null(block);
        memcpy(block, in.p + at, take);
        for (;;) {
            struct ws_event ev;
            enum ws_event_kind kind = ws_read(&r, limits, &p, &n, control, &ev);
            assert_int_equal(kind, ev.kind);
            assert_ptr_equal(p + n, block + take);
            if (kind == WS_EV_MORE)
                break;
            hear(h, &ev, exact ? at + take : 0);
        }
        assert_int_equal(n, 0);
        free(block);
    }
    if (!r.dead && (!ws_at_rest(&r) || h->open))
        say(h, "unfinished ");
    if (h->n)
        h->line[h->n - 1] = 0; /* the space behind the last word */
}

static void
expect_from(bool client, const struct ws_limits *limits, const char *line)
{
    static struct heard whole, split;
    struct view in = buf_view(&script);
    read_in_chunks(&whole, client, limits, in, in.n, in.n, false);
    for (size_t cut = 1; cut<in.n; cut += in.n> 4000 ? 97 : 1) {
        read_in_chunks(&split, client, limits, in, cut, in.n, false);
        assert_string_equal(split.line, whole.line);
    }
    read_in_chunks(&split, client, limits, in, 7, 7, false);
    assert_string_equal(split.line, whole.line);
    read_in_chunks(&split, client, limits, in, 1, 1, true);
    if (!strstr(line, "bad:"))
        assert_string_equal(split.line, whole.line);
    assert_string_equal(split.line, line);
}

static void
expect(const char *line)
{
    expect_from(false, &wide, line);
}

/* ---- frames
 * -------------------------------------------------------------------------------------- */

static void
examples_of_section_5_7(void **state UNUSED)
{
    begin();
    buf_put_lit(&script, "\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
    expect("text:\"Hello\"");
    begin();
    buf_put_lit(&script, "\x81\x05\x48\x65\x6c\x6c\x6f\x01\x03\x48\x65\x6c\x80\x02\x6c\x6f"
                         "\x89\x05\x48\x65\x6c\x6c\x6f");
    expect_from(true, &wide, "text:\"Hello\" text:\"Hello\" ping:\"Hello\"");
}

static void
messages_of_every_length_form(void **state UNUSED)
{
    static const size_t sizes[] = {0, 1, 2, 3, 4, 5, 124, 125, 126, 127, 200};
    static uint8_t bytes[70000];
    static struct heard h;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 7 + i / 251);
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        begin();
        frame(0x82, bytes, sizes[i]);
        read_in_chunks(&h, false, &wide, buf_view(&script), script.n, script.n, false);
        assert_int_equal(h.message_n, sizes[i]);
        assert_memory_equal(h.message, bytes, sizes[i]);
        expect(h.line);
    }
    static const size_t big[] = {255, 256, 65535, 65536};
    for (size_t i = 0; i < ARRAY_LEN(big); i++) {
        begin();
        frame(0x82, bytes, big[i]);
        static const size_t chunks[] = {1, 7, 1000, 70000};
        for (size_t c = 0; c < ARRAY_LEN(chunks); c++) {
            read_in_chunks(&h, false, &wide, buf_view(&script), chunks[c], chunks[c], false);
            assert_int_equal(h.message_n, big[i]);
            assert_memory_equal(h.message, bytes, big[i]);
        }
    }
}

static void
fragments_join(void **state UNUSED)
{
    begin();
    FRAME(0x01, "a");
    FRAME(0x00, "");
    FRAME(0x00, "bc");
    FRAME(0x80, "d");
    FRAME(0x02, "");
    FRAME(0x80, "");
    FRAME(0x81, "");
    expect("text:\"abcd\" binary:\"\" text:\"\"");
}

static void
control_frames_between_fragments(void **state UNUSED)
{
    begin();
    FRAME(0x01, "\xC3");
    FRAME(0x89, "now");
    FRAME(0x8A, "");
    FRAME(0x80, "\xA9");
    expect("ping:\"now\" pong:\"\" text:\"\\xC3\\xA9\"");
}

static void
ping_of_125_bytes(void **state UNUSED)
{
    char p[125];
    memset(p, 'p', sizeof p);
    begin();
    frame(0x89, p, sizeof p);
    static char line[200];
    snprintf(line, sizeof line, "ping:\"%.125s\"", p);
    expect(line);
}

static void
a_message_not_finished_says_nothing(void **state UNUSED)
{
    begin();
    FRAME(0x01, "a");
    expect("unfinished");
    begin();
    frame_as(0x82, 2, 5, "ab", 2);
    expect("unfinished");
    begin();
    buf_put_lit(&script, "\x81");
    expect("unfinished");
}

/* Each of these is one violation of section 5 behind a good frame of 7 bytes, found at that byte.
 */
static void
violations_are_found_at_their_byte(void **state UNUSED)
{
    static const struct {
        const char *bytes;
        size_t n;
        const char *line;
    } rows[] = {
#define ROW(lit, line) {lit, sizeof(lit) - 1, line}
        ROW("\xC1\x80zzzz", "text:\"x\" bad:protocol@8"), /* RSV1 */
        ROW("\xA1\x80zzzz", "text:\"x\" bad:protocol@8"), /* RSV2 */
        ROW("\x91\x80zzzz", "text:\"x\" bad:protocol@8"), /* RSV3 */
        ROW("\xC9\x80zzzz", "text:\"x\" bad:protocol@8"), /* RSV1 on a ping */
        ROW("\x83\x80zzzz", "text:\"x\" bad:protocol@8"), /* reserved data opcodes */
        ROW("\x87\x80zzzz", "text:\"x\" bad:protocol@8"),
        ROW("\x8B\x80zzzz", "text:\"x\" bad:protocol@8"), /* reserved control opcodes */
        ROW("\x8F\x80zzzz", "text:\"x\" bad:protocol@8"),
        ROW("\x09\x80zzzz", "text:\"x\" bad:protocol@8"), /* fragmented ping */
        ROW("\x08\x80zzzz", "text:\"x\" bad:protocol@8"), /* fragmented close */
        ROW("\x80\x80zzzz", "text:\"x\" bad:protocol@8"), /* nothing to continue */
        ROW("\x00\x80zzzz", "text:\"x\" bad:protocol@8"),
        ROW("\x81\x01zzzz", "text:\"x\" bad:protocol@9"), /* not masked */
        ROW("\x89\x00", "text:\"x\" bad:protocol@9"),
        ROW("\x89\xFE\x00\x7E", "text:\"x\" bad:protocol@9"), /* control frame of 126 */
        ROW("\x8A\xFF\x00", "text:\"x\" bad:protocol@9"),
        ROW("\x88\x81zzzz?", "text:\"x\" bad:protocol@9"),         /* half a close code */
        ROW("\x82\xFE\x00\x7Dzzzz", "text:\"x\" bad:protocol@11"), /* 125 in 16 bits */
        ROW("\x82\xFE\x00\x00zzzz", "text:\"x\" bad:protocol@11"),
        ROW("\x82\xFF\x00\x00\x00\x00\x00\x00\xFF\xFFzzzz", "text:\"x\" bad:protocol@15"),
        ROW("\x82\xFF\x00\x00\x00\x00\x00\x00\x00\x00zzzz", "text:\"x\" bad:protocol@15"),
        ROW("\x82\xFF\x80\x00\x00\x00\x00\x00\x00\x00zzzz", "text:\"x\" bad:protocol@10"),
        ROW("\x82\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFFzzzz", "text:\"x\" bad:protocol@10"),
        ROW("\x82\xFF\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFFzzzz", "text:\"x\" bad:too_big@17"),
        ROW("\x82\xFF\x00\x00\x00\x00\x00\x10\x00\x01zzzz", "text:\"x\" bad:too_big@17"),
#undef ROW
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        begin();
        FRAME(0x81, "x");
        buf_put(&script, rows[i].bytes, rows[i].n);
        expect(rows[i].line);
    }
}

static void
new_message_inside_a_fragmented_one(void **state UNUSED)
{
    for (uint8_t b0 = 0x81; b0 <= 0x82; b0++) {
        begin();
        FRAME(0x01, "a");
        frame(b0, "b", 1);
        expect("bad:protocol@8");
    }
}

static void
masked_frames_from_a_server(void **state UNUSED)
{
    begin();
    FRAME(0x81, "x");
    expect_from(true, &wide, "bad:protocol@2");
}

/* ---- limits
 * -------------------------------------------------------------------------------------- */

static void
message_limit_is_judged_on_announced_lengths(void **state UNUSED)
{
    struct ws_limits ten = {.max_message = 10, .max_frames = 100};
    begin();
    FRAME(0x81, "0123456789");
    expect_from(false, &ten, "text:\"0123456789\"");
    begin();
    frame_as(0x81, 2, 11, "", 0);
    expect_from(false, &ten, "bad:too_big@2");
    begin();
    FRAME(0x01, "01234");
    FRAME(0x89, "a long ping does not count");
    FRAME(0x80, "56789");
    expect_from(false, &ten, "ping:\"a long ping does not count\" text:\"0123456789\"");
    begin();
    FRAME(0x01, "01234");
    FRAME(0x80, "567890");
    expect_from(false, &ten, "bad:too_big@13");
    begin();
    FRAME(0x01, "01234");
    frame_as(0x80, 10, INT64_MAX, "", 0); /* the sum must not wrap */
    expect_from(false, &ten, "bad:too_big@21");
    struct ws_limits any = {.max_message = UINT64_MAX, .max_frames = 100};
    begin();
    FRAME(0x01, "01234");
    frame_as(0x80, 10, INT64_MAX, "more to come", 12);
    expect_from(false, &any, "unfinished");
}

static void
message_limit_counts_each_message_anew(void **state UNUSED)
{
    struct ws_limits ten = {.max_message = 10, .max_frames = 2};
    begin();
    FRAME(0x01, "01234");
    FRAME(0x80, "56789");
    FRAME(0x02, "01234");
    FRAME(0x80, "56789");
    expect_from(false, &ten, "text:\"0123456789\" binary:\"0123456789\"");
}

static void
limit_that_shrinks_within_a_message(void **state UNUSED)
{
    struct ws_reader r = {0};
    struct ws_limits limits = {.max_message = 100, .max_frames = 9};
    struct ws_event ev;
    uint8_t control[128], *p = script_memory;
    begin();
    FRAME(0x01, "0123456789");
    FRAME(0x80, "");
    size_t n = script.n;
    assert_int_equal(ws_read(&r, &limits, &p, &n, control, &ev), WS_EV_DATA);
    limits.max_message = 5;
    assert_int_equal(ws_read(&r, &limits, &p, &n, control, &ev), WS_EV_BAD);
    assert_int_equal(ev.bad, CLOSE_TOO_BIG);
}

static void
frames_of_a_message_are_counted(void **state UNUSED)
{
    struct ws_limits three = {.max_message = 100, .max_frames = 3};
    begin();
    FRAME(0x01, "");
    FRAME(0x00, "");
    FRAME(0x89, "");
    FRAME(0x80, "");
    FRAME(0x01, "");
    FRAME(0x00, "");
    FRAME(0x00, "");
    FRAME(0x80, "");
    expect_from(false, &three, "ping:\"\" text:\"\" bad:too_many_frames@43");
}

/* ---- closing
 * ------------------------------------------------------------------------------------- */

static void
close_with_and_without_a_code(void **state UNUSED)
{
    begin();
    FRAME(0x88, "");
    FRAME(0x81, "ignored");
    expect("close:1005:\"\"");
    begin();
    FRAME(0x88, "\x03\xE8");
    expect("close:1000:\"\"");
    begin();
    FRAME(0x88, "\x0F\xA1in \xE2\x82\xAC");
    buf_put_lit(&script, "\xFF\xFF\xFF\xFF noise behind it");
    expect("close:4001:\"in \\xE2\\x82\\xAC\"");
}

static void
close_within_an_unfinished_text(void **state UNUSED)
{
    begin();
    FRAME(0x01, "half a character \xE2\x82");
    FRAME(0x88, "\x03\xE9");
    expect("close:1001:\"\"");
}

static bool
code_may_be_sent(unsigned code)
{
    return (code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006) ||
           (code >= 3000 && code <= 4999);
}

static void
every_close_code(void **state UNUSED)
{
    static struct heard h;
    for (unsigned code = 0; code < 65536; code++) {
        uint8_t body[2] = {(uint8_t)(code >> 8), (uint8_t)code};
        char line[64];
        begin();
        frame(0x88, body, 2);
        read_in_chunks(&h, false, &wide, buf_view(&script), script.n, 1, true);
        if (code_may_be_sent(code))
            snprintf(line, sizeof line, "close:%u:\"\"", code);
        else
            snprintf(line, sizeof line, "bad:protocol@8");
        assert_string_equal(h.line, line);
    }
}

static void
close_reason_is_text(void **state UNUSED)
{
    begin();
    FRAME(0x88, "\x03\xE8ok\xFFmore");
    expect("bad:bad_utf8@11");
    begin();
    FRAME(0x88, "\x03\xE8ok\xE2\x82"); /* cut */
    expect("bad:bad_utf8@12");
    begin();
    FRAME(0x88, "\x03\xECwrong code goes first \xFF");
    expect("bad:protocol@8");
    begin();
    FRAME(0x01, "\xE2\x82"); /* the message's validator must not leak into the reason */
    FRAME(0x88, "\x03\xE8\xAC");
    expect("bad:bad_utf8@17");
}

/* ---- UTF-8
 * --------------------------------------------------------------------------------------- */

/* A second implementation, by the table of RFC 3629 section 4. Returns how many bytes from the
 * front can begin a valid text, and whether they are whole characters. */
static size_t
utf8_reference(struct view v, bool *whole)
{
    static const uint8_t rows[][8] = {/* lead from, to, then from, to of each byte that follows */
        {0x00, 0x7F}, {0xC2, 0xDF, 0x80, 0xBF}, {0xE0, 0xE0, 0xA0, 0xBF, 0x80, 0xBF},
        {0xE1, 0xEC, 0x80, 0xBF, 0x80, 0xBF}, {0xED, 0xED, 0x80, 0x9F, 0x80, 0xBF},
        {0xEE, 0xEF, 0x80, 0xBF, 0x80, 0xBF}, {0xF0, 0xF0, 0x90, 0xBF, 0x80, 0xBF, 0x80, 0xBF},
        {0xF1, 0xF3, 0x80, 0xBF, 0x80, 0xBF, 0x80, 0xBF},
        {0xF4, 0xF4, 0x80, 0x8F, 0x80, 0xBF, 0x80, 0xBF}};
    size_t at = 0;
    *whole = true;
    while (at < v.n) {
        size_t row = 0, i = 0;
        while (row < ARRAY_LEN(rows) && (v.p[at] < rows[row][0] || v.p[at] > rows[row][1]))
            row++;
        if (row == ARRAY_LEN(rows))
            return at;
        for (; i < 8 && rows[row][i + 1] != 0; i += 2, at++) {
            if (at == v.n) {
                *whole = false;
                return at;
            }
            if (v.p[at] < rows[row][i] || v.p[at] > rows[row][i + 1])
                return at;
            if (i == 6) {
                at++;
                break;
            }
        }
    }
    return at;
}

/* The validator, bytewise and at once, against the second implementation. */
static void
utf8_compare(struct view v)
{
    bool whole;
    size_t good = utf8_reference(v, &whole);
    uint32_t state = 0;
    size_t at = 0;
    while (at < v.n && utf8_check(&state, v.p + at, 1))
        at++;
    assert_int_equal(at, good);
    if (good == v.n)
        assert_int_equal(state == 0, whole);
    assert_int_equal(utf8_valid(v), good == v.n && whole);
    for (size_t cut = 1; cut < v.n; cut += 1 + v.n / 16) {
        state = 0;
        bool ok = utf8_check(&state, v.p, cut);
        assert_int_equal(ok, good >= cut);
        if (ok)
            assert_int_equal(utf8_check(&state, v.p + cut, v.n - cut), good == v.n);
    }
}

static void
utf8_every_sequence_up_to_three_bytes(void **state UNUSED)
{
    for (unsigned a = 0; a < 256; a++) {
        for (unsigned b = 0; b < 256; b++) {
            uint8_t text[5] = {(uint8_t)a, (uint8_t)b, 0x80, 0x80, 'x'};
            for (size_t n = 1; n <= 5; n++)
                utf8_compare(view_of(text, n));
            text[2] = 'x';
            utf8_compare(view_of(text, 3));
            text[2] = 0xC0;
            utf8_compare(view_of(text, 3));
            text[2] = 0xBF;
            text[3] = 0xBF;
            utf8_compare(view_of(text, 4));
        }
    }
}

static size_t
utf8_encode(uint32_t c, uint8_t out[4])
{
    if (c < 0x80) {
        out[0] = (uint8_t)c;
        return 1;
    }
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, c >>= 6)
        out[i] = (uint8_t)(0x80 | (c & 0x3F));
    out[0] = (uint8_t)((0xF00u >> n & 0xF0) | c);
    return n;
}

static void
utf8_every_code_point(void **state UNUSED)
{
    for (uint32_t c = 0; c < 0x110400; c++) {
        uint8_t text[4];
        size_t n = utf8_encode(c, text);
        bool surrogate = c >= 0xD800 && c < 0xE000;
        assert_int_equal(utf8_valid(view_of(text, n)), c < 0x110000 && !surrogate);
    }
}

static void
utf8_long_texts_with_one_strange_byte(void **state UNUSED)
{
    uint8_t text[150];
    for (size_t at = 0; at < sizeof text; at++) {
        static const char *const strange[] = {"\x80", "\xC3\xA9", "\xE2\x82\xAC",
            "\xF0\x9F\x90\x8E", "\xED\xA0\x80", "\xC0\x80", "\xF4\x90\x80\x80", "\xFF", "\xE2\x82",
            "\xC3"};
        for (size_t i = 0; i < ARRAY_LEN(strange); i++) {
            memset(text, 'a', sizeof text);
            memcpy(text + at, strange[i], MIN(strlen(strange[i]), sizeof text - at));
            utf8_compare(view_of(text, sizeof text));
            utf8_compare(view_of(text, at + 1));
        }
    }
}

/* Long texts of several scripts, which wide steps check: each pair of bytes at each place of a step, and what breaks a character at
 * each place of the text. */
static void
utf8_long_texts_of_several_scripts(void **state UNUSED)
{
    static const char words[] = "Gr\xc3\xbc\xc3\x9f" "e \xe4\xbd\xa0\xe5\xa5\xbd\xf0\x9f\x98\x80 ";
    static const uint8_t strange[] = {0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xED, 0xEF,
        0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF};
    uint8_t good[200], text[200];
    for (size_t i = 0; i < sizeof good; i++)
        good[i] = (uint8_t)words[i % (sizeof words - 1)];
    for (size_t at = 0; at < sizeof text; at++) {
        for (size_t i = 0; i < ARRAY_LEN(strange); i++) {
            memcpy(text, good, sizeof text);
            text[at] = strange[i];
            utf8_compare(view_of(text, sizeof text));
            utf8_compare(view_of(text, at + 1));
        }
    }
    for (uint32_t pair = 0; pair < 65536; pair++) {
        bool whole;
        memset(text, 'a', sizeof text);
        memcpy(text, "\xc3\xbc", 2);
        text[32 + pair % 32] = (uint8_t)(pair >> 8);
        text[33 + pair % 32] = (uint8_t)pair;
        /* What follows makes most leads whole, or leaves them short. */
        memset(text + 34 + pair % 32, 0x80, pair / 32 % 3);
        size_t n = utf8_reference(view_of(text, sizeof text), &whole);
        assert_int_equal(utf8_valid(view_of(text, sizeof text)), n == sizeof text && whole);
    }
}

static void
text_is_judged_at_the_earliest_byte(void **state UNUSED)
{
    begin();
    FRAME(0x81, "abc\xC0\xAFmore");
    expect("bad:bad_utf8@10");
    begin();
    FRAME(0x81, "\xED\xA0\x80"); /* a surrogate shows in its second byte */
    expect("bad:bad_utf8@8");
    begin();
    FRAME(0x81, "\xF4\x90\x80\x80");
    expect("bad:bad_utf8@8");
    begin();
    FRAME(0x01, "\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5\xF4"); /* as Autobahn's 6.4 */
    FRAME(0x00, "\x90");
    FRAME(0x80, "\x80\x80");
    expect("bad:bad_utf8@25");
    begin();
    FRAME(0x82, "\xFF\xC0\x80"); /* binary may hold anything */
    expect("binary:\"\\xFF\\xC0\\x80\"");
}

static void
text_may_not_end_inside_a_character(void **state UNUSED)
{
    begin();
    FRAME(0x81, "abc\xE2\x82");
    expect("bad:bad_utf8@11");
    begin();
    FRAME(0x01, "\xE2");
    FRAME(0x00, "\x82");
    FRAME(0x80, "");
    expect("bad:bad_utf8@20");
    begin();
    FRAME(0x81, "a");
    FRAME(0x81, "\xAC"); /* nothing is left over from the message before */
    expect("text:\"a\" bad:bad_utf8@14");
}

/* ---- masking and writing
 * ------------------------------------------------------------------------- */

static void
mask_of_every_length_place_and_phase(void **state UNUSED)
{
    uint8_t plain[600], work[600];
    for (size_t i = 0; i < sizeof plain; i++)
        plain[i] = (uint8_t)(i * 131 + 7);
    for (size_t from = 0; from < 33; from++) {
        for (size_t n = 0; n + from + 1 <= sizeof plain; n += n < 300 ? 1 : 37) {
            for (unsigned at = 0; at < 4; at++) {
                memcpy(work, plain, sizeof work);
                ws_mask(work + from, n, key, at);
                for (size_t i = 0; i < sizeof work; i++) {
                    bool in = i >= from && i < from + n;
                    uint8_t want = (uint8_t)(plain[i] ^ (in ? key[(i - from + at) & 3] : 0));
                    if (work[i] != want)
                        fail_msg("from %zu, %zu bytes, phase %u: byte %zu", from, n, at, i);
                }
            }
        }
    }
}

static void
headers_in_shortest_form(void **state UNUSED)
{
    static const struct {
        uint64_t n;
        size_t size;
    } rows[] = {{0, 2}, {125, 2}, {126, 4}, {65535, 4}, {65536, 10}, {1ull << 40, 10}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        uint8_t head[14];
        assert_int_equal(ws_put_header(head, WS_BINARY, rows[i].n), rows[i].size);
        assert_int_equal(ws_header_size(rows[i].n), rows[i].size);
        assert_int_equal(head[0], 0x82);
        assert_int_equal(ws_put_client_header(head, WS_TEXT, rows[i].n, key), rows[i].size + 4);
        assert_int_equal(head[0], 0x81);
        assert_true(head[1] & 0x80);
        assert_memory_equal(head + rows[i].size, key, 4);
    }
}

static void
what_is_written_can_be_read(void **state UNUSED)
{
    uint8_t frame_bytes[2 + 125], payload[3] = {'a', 'b', 'c'};
    begin();
    uint8_t head[14];
    buf_put(&script, head, ws_put_client_header(head, WS_TEXT, 3, key));
    ws_mask(payload, 3, key, 0);
    buf_put(&script, payload, 3);
    expect("text:\"abc\"");

    begin();
    buf_put(&script, frame_bytes, ws_put_close(frame_bytes, 1013, VIEW("slow")));
    expect_from(true, &wide, "close:1013:\"slow\"");
    begin();
    buf_put(&script, frame_bytes, ws_put_close(frame_bytes, 0, VIEW("not sent")));
    expect_from(true, &wide, "close:1005:\"\"");
}

static void
close_reason_too_long_is_cut_between_characters(void **state UNUSED)
{
    uint8_t out[2 + 125];
    char reason[200];
    for (size_t i = 0; i < 198; i += 3)
        memcpy(reason + i, "\xE2\x82\xAC", 3);
    assert_int_equal(ws_put_close(out, 1000, view_of(reason, 198)), 2 + 2 + 123);
    assert_int_equal(ws_put_close(out, 1000, view_of(reason + 1, 197)), 2 + 2 + 122);
    assert_int_equal(out[1], 124);
}

/* ---- many at once
 * -------------------------------------------------------------------------------- */

static uint64_t seed = 88172645463325252ull;

static size_t
chance(size_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (size_t)(seed % below);
}

/* Random conversations, written down as they are built, must be heard word by word in any chunks.
 */
static void
random_conversations(void **state UNUSED)
{
    static struct heard want, got;
    static uint8_t message[400];
    for (int round = 0; round < 300; round++) {
        begin();
        want = (struct heard){.n = 0};
        for (size_t left = 1 + chance(12); left > 0; left--) {
            bool text = chance(2);
            size_t total = chance(2) ? chance(20) : chance(sizeof message);
            for (size_t i = 0; i < total; i++)
                message[i] = (uint8_t)(text ? 'a' + chance(26) : chance(256));
            for (size_t at = 0, n, pieces = 0; at < total || pieces == 0; at += n, pieces++) {
                n = chance(3) ? chance(total - at + 1) : total - at;
                uint8_t fin = at + n == total ? 0x80 : 0;
                frame((uint8_t)(fin | (pieces ? 0 : text ? 1 : 2)), message + at, n);
                if (fin == 0 && chance(3) == 0) {
                    FRAME(0x89, "?");
                    say(&want, "ping:\"?\" ");
                }
            }
            say(&want, text ? "text:" : "binary:");
            say_bytes(&want, view_of(message, total));
        }
        want.line[want.n - 1] = 0;
        for (size_t chunk = 1; chunk < 40; chunk += 1 + chance(5)) {
            read_in_chunks(&got, false, &wide, buf_view(&script), 1 + chance(chunk), chunk, false);
            assert_string_equal(got.line, want.line);
        }
    }
}

static void
reader_is_small(void **state UNUSED)
{
    assert_true(sizeof(struct ws_reader) <= 64);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(examples_of_section_5_7),
        cmocka_unit_test(messages_of_every_length_form),
        cmocka_unit_test(fragments_join),
        cmocka_unit_test(control_frames_between_fragments),
        cmocka_unit_test(ping_of_125_bytes),
        cmocka_unit_test(a_message_not_finished_says_nothing),
        cmocka_unit_test(violations_are_found_at_their_byte),
        cmocka_unit_test(new_message_inside_a_fragmented_one),
        cmocka_unit_test(masked_frames_from_a_server),
        cmocka_unit_test(message_limit_is_judged_on_announced_lengths),
        cmocka_unit_test(message_limit_counts_each_message_anew),
        cmocka_unit_test(limit_that_shrinks_within_a_message),
        cmocka_unit_test(frames_of_a_message_are_counted),
        cmocka_unit_test(close_with_and_without_a_code),
        cmocka_unit_test(close_within_an_unfinished_text),
        cmocka_unit_test(every_close_code),
        cmocka_unit_test(close_reason_is_text),
        cmocka_unit_test(utf8_every_sequence_up_to_three_bytes),
        cmocka_unit_test(utf8_every_code_point),
        cmocka_unit_test(utf8_long_texts_with_one_strange_byte),
        cmocka_unit_test(utf8_long_texts_of_several_scripts),
        cmocka_unit_test(text_is_judged_at_the_earliest_byte),
        cmocka_unit_test(text_may_not_end_inside_a_character),
        cmocka_unit_test(mask_of_every_length_place_and_phase),
        cmocka_unit_test(headers_in_shortest_form),
        cmocka_unit_test(what_is_written_can_be_read),
        cmocka_unit_test(close_reason_too_long_is_cut_between_characters),
        cmocka_unit_test(random_conversations),
        cmocka_unit_test(reader_is_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
