/* proto/deflate: which offers are taken and what is answered (RFC 7692 section 7.1, and everything that makes an
 * offer unusable), the example messages of section 7.2.3, bounds, broken streams, and round trips; what is read
 * comes in pieces of 1, 7 and all bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "common/base.h"
#include "proto/deflate.h"

/* ---- negotiation
 * --------------------------------------------------------------------------------- */

#define PMD "permessage-deflate"
#define NCT "; server_no_context_takeover; client_no_context_takeover"

static const struct deflate_policy usual = {.server_bits = 15, .client_bits = 15};
static const struct deflate_policy keeping = {15, 15, true, true};
static const struct deflate_policy small = {.server_bits = 11, .client_bits = 10};

static void
expect_answer_(const struct deflate_policy *p, const char *offers, const char *answer, int line)
{
    struct deflate_terms t;
    uint8_t memory[DEFLATE_ANSWER_MAX];
    struct buf out = buf_fixed(memory, sizeof memory);
    if (deflate_agree(view_str(offers), p, &t))
        deflate_put_answer(&out, &t);
    else
        assert_true(t.server_bits == 0 && t.client_bits == 0);
    assert_false(out.failed);
    if (!view_eq(buf_view(&out), view_str(answer)))
        fail_msg("line %d: %s is answered with \"%.*s\"", line, offers, VIEW_FMT(buf_view(&out)));
}
#define expect_answer(policy, offers, answer) expect_answer_(&(policy), (offers), (answer), __LINE__)
#define expect_declined(offers) expect_answer_(&usual, (offers), "", __LINE__)

static void
offers_are_answered(void **state UNUSED)
{
    expect_answer(usual, PMD, PMD NCT);
    expect_answer(usual, "  permessage-deflate \t", PMD NCT);
    expect_answer(usual, PMD "; client_max_window_bits", PMD NCT);
    expect_answer(usual, PMD "; server_no_context_takeover; client_no_context_takeover", PMD NCT);
    expect_answer(usual, PMD ";client_no_context_takeover;server_no_context_takeover", PMD NCT);
    expect_answer(usual, PMD "; server_max_window_bits=10", PMD NCT "; server_max_window_bits=10");
    expect_answer(usual, PMD "; server_max_window_bits=\"10\"", PMD NCT "; server_max_window_bits=10");
    expect_answer(usual, PMD "; server_max_window_bits=\"1\\0\"", PMD NCT "; server_max_window_bits=10");
    expect_answer(usual, PMD " ; server_max_window_bits = 9 ", PMD NCT "; server_max_window_bits=9");
    expect_answer(usual, PMD "; server_max_window_bits=15", PMD NCT "; server_max_window_bits=15");
    expect_answer(usual, PMD "; client_max_window_bits=15", PMD NCT);
    expect_answer(usual, PMD "; client_max_window_bits=8", PMD NCT "; client_max_window_bits=8");
    expect_answer(usual, PMD "; client_max_window_bits=12; server_max_window_bits=13",
        PMD NCT "; server_max_window_bits=13; client_max_window_bits=12");
}

/* Section 7.1.3. */
static void
the_first_usable_offer_is_taken(void **state UNUSED)
{
    expect_answer(usual, PMD "; client_max_window_bits; server_max_window_bits=10, " PMD "; client_max_window_bits",
        PMD NCT "; server_max_window_bits=10");
    expect_answer(usual, PMD "; server_max_window_bits=8, " PMD "; server_max_window_bits=12",
        PMD NCT "; server_max_window_bits=12");
    expect_answer(usual, "foo, bar; baz=\"a,b;c\", " PMD, PMD NCT);
    expect_answer(usual, "x-webkit-deflate-frame, " PMD "; unknown, " PMD, PMD NCT);
    expect_answer(usual, ",, ," PMD ",", PMD NCT);
    expect_answer(usual, "a=\"\\\",\", " PMD, PMD NCT);
    expect_answer(usual, PMD "; server_max_window_bits=7, " PMD, PMD NCT);
    expect_answer(usual, PMD ";, " PMD, PMD NCT);
}

static void
context_is_kept_only_where_both_may(void **state UNUSED)
{
    expect_answer(keeping, PMD, PMD);
    expect_answer(keeping, PMD "; client_max_window_bits", PMD);
    expect_answer(keeping, PMD "; server_no_context_takeover", PMD "; server_no_context_takeover");
    expect_answer(keeping, PMD "; client_no_context_takeover", PMD "; client_no_context_takeover");
}

/* A limit on the client's window is answered only to who offered to know it; one on ours, to everybody. */
static void
smaller_windows_are_told(void **state UNUSED)
{
    expect_answer(small, PMD, PMD NCT "; server_max_window_bits=11");
    expect_answer(small, PMD "; client_max_window_bits", PMD NCT "; server_max_window_bits=11; client_max_window_bits=10");
    expect_answer(small, PMD "; client_max_window_bits=9; server_max_window_bits=12",
        PMD NCT "; server_max_window_bits=11; client_max_window_bits=9");
    expect_answer(small, PMD "; client_max_window_bits=14; server_max_window_bits=10",
        PMD NCT "; server_max_window_bits=10; client_max_window_bits=10");
}

static void
unusable_offers_are_declined(void **state UNUSED)
{
    static const char *const parameters[] = {
        "server_max_window_bits", "server_max_window_bits=", "server_max_window_bits=7", "server_max_window_bits=16",
        "server_max_window_bits=08", "server_max_window_bits=010", "server_max_window_bits=0", "server_max_window_bits=-9",
        "server_max_window_bits=+9", "server_max_window_bits=9x", "server_max_window_bits=1 0", "server_max_window_bits=100",
        "server_max_window_bits=\"\"", "server_max_window_bits=\"08\"", "server_max_window_bits=\"10", "server_max_window_bits=10\"",
        "server_max_window_bits='10'", "server_max_window_bits=0x9", "server_max_window_bits=9.0", "server_max_window_bits=1:",
        "server_max_window_bits=10; server_max_window_bits=10", "server_max_window_bits==10",
        /* zlib cannot */
        "server_max_window_bits=8",
        "client_max_window_bits=", "client_max_window_bits=7", "client_max_window_bits=16", "client_max_window_bits=08",
        "client_max_window_bits=\"\"", "client_max_window_bits=\" 9\"", "client_max_window_bits=\"\\\"",
        "client_max_window_bits=18446744073709551625", "client_max_window_bits; client_max_window_bits",
        "client_max_window_bits=10; client_max_window_bits", "client_max_window_bits=true",
        "server_no_context_takeover=", "server_no_context_takeover=1", "server_no_context_takeover=\"\"",
        "server_no_context_takeover; server_no_context_takeover", "client_no_context_takeover=true",
        "client_no_context_takeover; client_no_context_takeover", "client_no_context_takeover=15",
        "unknown", "unknown=1", "no_context_takeover", "max_window_bits=10", "Server_No_Context_Takeover",
        "\"server_no_context_takeover\"", "", ";", "=", "=10", "\"", ";;client_max_window_bits", "server_no_context_takeover;",
        "server_no_context_takeover client_no_context_takeover", "\xFF", "\\",
    };
    for (size_t i = 0; i < ARRAY_LEN(parameters); i++) {
        char text[256];
        (void)snprintf(text, sizeof text, PMD "; %s", parameters[i]);
        expect_declined(text);
        (void)snprintf(text, sizeof text, PMD "; server_max_window_bits=11; %s", parameters[i]);
        expect_declined(text);
    }
    static const char *const others[] = {"", ",", " ", ";", "permessage", "permessage-deflate2", "Permessage-Deflate",
        "\"permessage-deflate\"", "permessage-bzip2; x=1", "deflate-frame", "permessage-deflate=1", "=permessage-deflate",
        "foo=\"" PMD ", " PMD, "permessage-deflate foo"};
    for (size_t i = 0; i < ARRAY_LEN(others); i++)
        expect_declined(others[i]);
}

/* What was agreed says no more than what was offered, whatever is in front. */
static void
long_lists_take_linear_time(void **state UNUSED)
{
    size_t n = 1 << 20;
    char *text = malloc(n + sizeof PMD);
    assert_non_null(text);
    memset(text, ',', n);
    memcpy(text + n, PMD, sizeof PMD);
    expect_answer(usual, text, PMD NCT);
    memset(text, ';', n);
    memcpy(text, PMD, sizeof PMD - 1);
    expect_declined(text);
    memset(text + sizeof PMD - 1, '"', n - sizeof PMD);
    expect_declined(text);
    free(text);
}

/* ---- inflating
 * ----------------------------------------------------------------------------------- */

static uint64_t bytes; /* of all streams */

static enum deflate_rc
inflate_in(struct deflate_reader *r, struct view packed, size_t chunk, bool keep, uint64_t max, struct buf *out)
{
    enum deflate_rc rc = DEFLATE_OK;
    deflate_reader_begin(r, keep);
    for (size_t at = 0; at < packed.n && rc == DEFLATE_OK; at += chunk)
        rc = deflate_reader_put(r, view_head(view_from(packed, at), chunk), max, out);
    if (rc == DEFLATE_OK)
        rc = deflate_reader_end(r, max, out);
    assert_true(out->n <= max);
    return rc;
}

static const size_t chunks[] = {1, 7, SIZE_MAX / 2};

/* In all chunks, and twice with the same stream. */
static void
expect_inflated_(struct view packed, uint64_t max, enum deflate_rc rc, struct view plain, int line)
{
    for (size_t i = 0; i < ARRAY_LEN(chunks) * 2; i++) {
        static struct deflate_reader *r;
        if (i % 2 == 0)
            r = deflate_reader_new(15, &bytes);
        assert_non_null(r);
        struct buf out = buf_make(1 << 24);
        enum deflate_rc got = inflate_in(r, packed, chunks[i / 2], false, max, &out);
        if (got != rc || (rc == DEFLATE_OK && !view_eq(buf_view(&out), plain)))
            fail_msg("line %d: chunks of %zu: %d, %zu bytes", line, chunks[i / 2], (int)got, out.n);
        buf_free(&out);
        if (i % 2 == 1)
            deflate_reader_free(r);
    }
    assert_int_equal(bytes, 0);
}
#define PACKED(lit) view_of((lit), sizeof(lit) - 1)
#define expect_inflated(packed, plain) expect_inflated_(PACKED(packed), 1 << 20, DEFLATE_OK, PACKED(plain), __LINE__)
#define expect_broken(packed) expect_inflated_(PACKED(packed), 1 << 20, DEFLATE_BROKEN, VIEW_NONE, __LINE__)

static void
examples_of_section_7_2_3(void **state UNUSED)
{
    expect_inflated("\xf2\x48\xcd\xc9\xc9\x07\x00", "Hello");
    expect_inflated("\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00", "Hello");
    expect_inflated("\xf3\x48\xcd\xc9\xc9\x07\x00\x00", "Hello");
    expect_inflated("\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00", "Hello");
    expect_inflated("\x00", "");
}

static void
odd_messages_are_valid(void **state UNUSED)
{
    /* a final block without the byte behind it; several of them; empty stored blocks; nothing at all */
    expect_inflated("\xf3\x48\xcd\xc9\xc9\x07\x00", "Hello");
    expect_inflated("\xf3\x48\xcd\xc9\xc9\x07\x00\xf3\x48\xcd\xc9\xc9\x07\x00\x00", "HelloHello");
    expect_inflated("\x03\x00\x03\x00\x03\x00\xf2\x48\xcd\xc9\xc9\x07\x00", "Hello");
    expect_inflated("\x01\x00\x00\xff\xff\xf2\x48\xcd\xc9\xc9\x07\x00", "Hello");
    expect_inflated("\x00\x00\x00\xff\xff\x00\x00\x00\xff\xff\x00", "");
    expect_inflated("", "");
    /* a final block may be referred to by the block behind it: Hello, then a copy of five bytes from five back */
    expect_inflated("\xf3\x48\xcd\xc9\xc9\x07\x00\x02\x13\x00\x00", "HelloHello");
}

static void
broken_messages_are_refused(void **state UNUSED)
{
    expect_broken("\xf2\x48\xcd\xc9\xc9\x07");          /* cut in the middle of a block's end */
    expect_broken("\xf2\x48\xcd\xc9");
    expect_broken("\xf2\x48\xcd\xc9\xc9\x07\x00\x00");  /* a stored block that lacks its length */
    expect_broken("\x06");                              /* reserved kind of block */
    expect_broken("\xff\xff\xff\xff");
    expect_broken("\x00\x05\x00\x00\x00Hello\x00");     /* length and its complement differ */
    expect_broken("\x00\x05\x00\xfa\xffHel");
    expect_broken("\x00\x09\x00\xf6\xffHello");         /* the four bytes of the end would fill it up */
    expect_broken("\x02\x13\x00\x00");                  /* refers to data before its window */
    expect_broken("\xf2\x00\x11\x00\x00");              /* the second message of 7.2.3.2, with no first */
    expect_broken("Hello, world");
}

/* Section 7.2.3.2, and final blocks between messages that refer to what was before. */
static void
context_is_kept_from_message_to_message(void **state UNUSED)
{
    for (size_t i = 0; i < ARRAY_LEN(chunks); i++) {
        static const char *const messages[] = {"\xf2\x48\xcd\xc9\xc9\x07\x00", "\xf2\x00\x11\x00\x00", "",
            "\xf3\x00\x11\x00\x00", "\xf2\x00\x11\x00\x00"};
        static const size_t sizes[] = {7, 5, 0, 5, 5};
        struct deflate_reader *r = deflate_reader_new(9, &bytes);
        struct buf out = buf_make(1000);
        for (size_t k = 0; k < ARRAY_LEN(messages); k++) {
            buf_reset(&out);
            assert_int_equal(inflate_in(r, view_of(messages[k], sizes[k]), chunks[i], true, 1000, &out), DEFLATE_OK);
            assert_true(view_eq(buf_view(&out), k == 2 ? VIEW_NONE : VIEW("Hello")));
        }
        buf_reset(&out);
        assert_int_equal(inflate_in(r, PACKED("\xf2\x00\x11\x00\x00"), chunks[i], false, 1000, &out), DEFLATE_BROKEN);
        buf_free(&out);
        deflate_reader_free(r);
    }
    assert_int_equal(bytes, 0);
}

/* ---- both ways
 * ----------------------------------------------------------------------------------- */

/* Compressed with `bits`, in memory of the caller's; the result is what a server would send. */
static struct view
packed_with(unsigned bits, struct view plain, uint8_t *memory)
{
    struct deflate_writer *w = deflate_writer_new(bits, 1, 8, &bytes);
    assert_non_null(w);
    assert_true(bytes <= deflate_writer_bytes(bits, 8));
    size_t n = deflate_writer_put(w, plain, false, memory);
    deflate_writer_free(w);
    assert_int_equal(bytes, 0);
    return view_of(memory, n);
}

static void
the_bound_is_the_first_byte_above(void **state UNUSED)
{
    static uint8_t zeros[100000], memory[sizeof zeros + DEFLATE_TAIL];
    struct view plain = view_of(zeros, sizeof zeros), packed = packed_with(15, plain, memory);
    assert_in_range(packed.n, 50, 1000);
    expect_inflated_(packed, sizeof zeros, DEFLATE_OK, plain, __LINE__);
    expect_inflated_(packed, sizeof zeros + 1, DEFLATE_OK, plain, __LINE__);
    expect_inflated_(packed, sizeof zeros - 1, DEFLATE_TOO_BIG, VIEW_NONE, __LINE__);
    expect_inflated_(packed, 1, DEFLATE_TOO_BIG, VIEW_NONE, __LINE__);
    expect_inflated_(packed, 0, DEFLATE_TOO_BIG, VIEW_NONE, __LINE__);
}

/* What would come out is a gigabyte; what is kept and worked on is the bound. */
static void
a_bomb_costs_no_more_than_its_bound(void **state UNUSED)
{
    static uint8_t zeros[1 << 20], memory[sizeof zeros + DEFLATE_TAIL];
    struct view megabyte = packed_with(15, view_of(zeros, sizeof zeros), memory);
    struct buf bomb = buf_make(1 << 24);
    for (int i = 0; i < 1024; i++) {
        buf_put_view(&bomb, megabyte);
        buf_put(&bomb, "\x00\x00\xff\xff", 4);
    }
    struct deflate_reader *r = deflate_reader_new(15, &bytes);
    struct buf out = buf_make(UINT32_MAX);
    assert_int_equal(inflate_in(r, buf_view(&bomb), SIZE_MAX / 2, false, 65536, &out), DEFLATE_TOO_BIG);
    assert_true(out.n == 65536 && out.cap <= 131072);
    assert_true(bytes <= deflate_reader_bytes(15));
    buf_free(&out);
    buf_free(&bomb);
    deflate_reader_free(r);
}

static uint64_t
next(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

/* Words of a small vocabulary, so that there is something to find at all distances. */
static void
fill(uint8_t *p, size_t n, uint64_t *seed)
{
    static const char *const words[] = {"{\"id\":", "\"name\":\"", "true,", "3.14159", "\xc3\xa9t\xc3\xa9 ", "},\n", "0", "ringcast"};
    for (size_t i = 0; i < n;) {
        const char *word = words[next(seed) % ARRAY_LEN(words)];
        size_t k = MIN(strlen(word), n - i);
        memcpy(p + i, word, k);
        i += k;
    }
}

static void
what_goes_in_comes_out(void **state UNUSED)
{
    static const size_t sizes[] = {1, 20, 200, 1024, 5000, 65535, 65536, 200000};
    static uint8_t plain[200000], memory[sizeof plain + DEFLATE_TAIL];
    uint64_t seed = 7;
    for (unsigned bits = DEFLATE_BITS_MIN; bits <= DEFLATE_BITS_MAX; bits++)
        for (int keep = 0; keep < 2; keep++) {
            struct deflate_writer *w = deflate_writer_new(bits, 1, 8, &bytes);
            struct deflate_reader *r = deflate_reader_new(bits, &bytes); /* a window no larger is enough */
            for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
                struct view v = view_of(plain, sizes[i]);
                fill(plain, sizes[i], &seed);
                size_t n = deflate_writer_put(w, v, keep, memory);
                assert_true(n < v.n && (n > 0 || v.n < 200));
                if (n == 0)
                    continue;
                struct buf out = buf_make(v.n);
                assert_int_equal(inflate_in(r, view_of(memory, n), 4096, keep, v.n, &out), DEFLATE_OK);
                assert_true(view_eq(buf_view(&out), v));
                buf_free(&out);
            }
            deflate_writer_free(w);
            deflate_reader_free(r);
        }
    assert_int_equal(bytes, 0);
}

/* Noise is not made larger: it is left alone, and what follows does not suffer. */
static void
what_does_not_shrink_is_left_alone(void **state UNUSED)
{
    static uint8_t noise[70000], memory[sizeof noise + DEFLATE_TAIL + 1];
    uint64_t seed = 99;
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (uint8_t)(next(&seed) >> 32);
    struct deflate_writer *w = deflate_writer_new(15, 1, 8, &bytes);
    struct deflate_reader *r = deflate_reader_new(15, &bytes);
    struct view hello = VIEW("HelloHelloHelloHelloHelloHelloHello");
    for (size_t n = 0; n <= sizeof noise; n = n * 3 + 1) {
        memset(memory, 0x5A, sizeof memory);
        assert_int_equal(deflate_writer_put(w, view_of(noise, n), true, memory), 0);
        assert_int_equal(memory[n + DEFLATE_TAIL], 0x5A);
        size_t k = deflate_writer_put(w, hello, true, memory);
        assert_true(k > 0 && k < hello.n);
        struct buf out = buf_make(100);
        assert_int_equal(inflate_in(r, view_of(memory, k), 100, false, 100, &out), DEFLATE_OK);
        assert_true(view_eq(buf_view(&out), hello));
        buf_free(&out);
    }
    deflate_writer_free(w);
    deflate_reader_free(r);
}

static void
what_is_forgotten_is_not_referred_to(void **state UNUSED)
{
    uint8_t memory[100];
    struct view hello = VIEW("Hello, Hello, Hello, Hello, hello");
    struct deflate_writer *w = deflate_writer_new(15, 1, 8, &bytes);
    struct deflate_reader *r = deflate_reader_new(15, &bytes);
    size_t first = deflate_writer_put(w, hello, true, memory);
    size_t second = deflate_writer_put(w, hello, true, memory);
    assert_true(second > 0 && second < first);
    struct buf out = buf_make(100);
    assert_int_equal(inflate_in(r, view_of(memory, second), 100, false, 100, &out), DEFLATE_BROKEN);
    deflate_writer_forget(w);
    assert_int_equal(deflate_writer_put(w, hello, true, memory), first);
    buf_reset(&out);
    assert_int_equal(inflate_in(r, view_of(memory, first), 100, false, 100, &out), DEFLATE_OK);
    assert_true(view_eq(buf_view(&out), hello));
    buf_free(&out);
    deflate_writer_free(w);
    deflate_reader_free(r);
}

/* Who budgets with these is never surprised. */
static void
streams_take_what_is_said(void **state UNUSED)
{
    static uint8_t plain[200000], memory[sizeof plain + DEFLATE_TAIL];
    uint64_t seed = 5;
    fill(plain, sizeof plain, &seed);
    for (unsigned bits = DEFLATE_BITS_MIN; bits <= DEFLATE_BITS_MAX; bits++) {
        struct view packed = packed_with(bits, view_of(plain, sizeof plain), memory);
        struct deflate_reader *r = deflate_reader_new(bits, &bytes);
        struct buf out = buf_make(sizeof plain);
        assert_int_equal(inflate_in(r, packed, 1000, false, sizeof plain, &out), DEFLATE_OK);
        assert_in_range(bytes, 1u << bits, deflate_reader_bytes(bits));
        buf_free(&out);
        deflate_reader_free(r);
        for (int level = 1; level <= 9; level++) {
            struct deflate_writer *w = deflate_writer_new(bits, level, level, &bytes);
            assert_in_range(bytes, 4u << bits, deflate_writer_bytes(bits, level));
            deflate_writer_free(w);
        }
    }
    assert_null(deflate_writer_new(8, 1, 8, &bytes)); /* why an offer of 8 is declined */
    assert_int_equal(bytes, 0);
}

/* A sender that stores everything in the smallest blocks zlib makes stays below the bound of what is announced. */
static void
stored_messages_fit_the_bound_of_what_is_announced(void **state UNUSED)
{
    assert_int_equal(deflate_packed_max(0), 64);
    for (uint64_t n = 1; n < 1 << 20; n = n * 2 + 1) {
        uint64_t blocks = n / 128 + 1; /* memLevel 1: 2^7 symbols */
        assert_true(n + blocks * 5 + 1 <= deflate_packed_max(n));
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(offers_are_answered),
        cmocka_unit_test(the_first_usable_offer_is_taken),
        cmocka_unit_test(context_is_kept_only_where_both_may),
        cmocka_unit_test(smaller_windows_are_told),
        cmocka_unit_test(unusable_offers_are_declined),
        cmocka_unit_test(long_lists_take_linear_time),
        cmocka_unit_test(examples_of_section_7_2_3),
        cmocka_unit_test(odd_messages_are_valid),
        cmocka_unit_test(broken_messages_are_refused),
        cmocka_unit_test(context_is_kept_from_message_to_message),
        cmocka_unit_test(the_bound_is_the_first_byte_above),
        cmocka_unit_test(a_bomb_costs_no_more_than_its_bound),
        cmocka_unit_test(what_goes_in_comes_out),
        cmocka_unit_test(what_does_not_shrink_is_left_alone),
        cmocka_unit_test(what_is_forgotten_is_not_referred_to),
        cmocka_unit_test(streams_take_what_is_said),
        cmocka_unit_test(stored_messages_fit_the_bound_of_what_is_announced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
