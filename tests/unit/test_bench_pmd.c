/* The load generator's permessage-deflate: what an answer means, messages there and back, and that
 * remembered messages are told from others that look alike. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "bench/pmd.c"

static bool
read_terms(struct pmd_terms *t, const char *value)
{
    char head[512];
    int n = snprintf(head, sizeof head, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n%s%s%s\r\n",
        value != NULL ? "Sec-WebSocket-Extensions: " : "", value != NULL ? value : "", value != NULL ? "\r\n" : "");
    return pmd_terms_read(t, head, (size_t)n);
}

static void
terms_of_an_answer(void **state)
{
    (void)state;
    struct pmd_terms t;
    assert_true(read_terms(&t, NULL));
    assert_false(t.agreed);
    assert_true(read_terms(&t, "permessage-deflate"));
    assert_true(t.agreed && !t.server_forgets && t.client_bits == 15);
    assert_true(read_terms(&t, "permessage-deflate; server_no_context_takeover;client_no_context_takeover"));
    assert_true(t.agreed && t.server_forgets && t.client_bits == 15);
    assert_true(read_terms(&t, "permessage-deflate; client_max_window_bits=10; server_max_window_bits=9"));
    assert_true(t.agreed && !t.server_forgets && t.client_bits == 10);
    assert_true(read_terms(&t, "permessage-deflate; client_max_window_bits=8"));
    assert_int_equal(t.client_bits, 9);
}

static void
terms_that_no_server_may_give(void **state)
{
    (void)state;
    struct pmd_terms t;
    assert_false(read_terms(&t, ""));
    assert_false(read_terms(&t, "x-webkit-deflate-frame"));
    assert_false(read_terms(&t, "permessage-deflate; client_max_window_bits"));
    assert_false(read_terms(&t, "permessage-deflate; client_max_window_bits=16"));
    assert_false(read_terms(&t, "permessage-deflate; client_max_window_bits=7"));
    assert_false(read_terms(&t, "permessage-deflate; client_max_window_bits=99999999999999999999"));
    assert_false(read_terms(&t, "permessage-deflate; level=9"));
}

/* A text of n bytes that differs from others in its last byte alone. */
static void
make_text(uint8_t *p, size_t n, uint8_t last)
{
    uint32_t x = 7;
    for (size_t i = 0; i < n; i++, x = x * 1664525u + 1013904223u)
        p[i] = (uint8_t)("abcdefgh"[x >> 29]);
    p[n - 1] = last;
}

static void
messages_there_and_back(void **state)
{
    (void)state;
    static uint8_t text[60000], packed[70000];
    struct pmd *z = pmd_new();
    for (size_t n = 1; n < sizeof text; n = n * 3 / 2 + 1) {
        size_t back = 0;
        make_text(text, n, 'z');
        size_t packed_n = pmd_pack(z, n % 2 ? 15 : 9, text, n, packed, sizeof packed);
        assert_true(packed_n > 0);
        const uint8_t *p = pmd_unpack(z, NULL, packed, packed_n, &back);
        assert_non_null(p);
        assert_int_equal(back, n);
        assert_memory_equal(p, text, n);
    }
    assert_int_equal(pmd_pack(z, 15, text, sizeof text, packed, 100), 0);
    pmd_free(z);
}

static void
copies_are_remembered_and_likenesses_are_not(void **state)
{
    (void)state;
    enum { N = 2000 };
    uint8_t text[N], packed[2][2 * N];
    size_t n[2], back = 0;
    struct pmd *z = pmd_new();
    for (int i = 0; i < 2; i++) {
        make_text(text, N, (uint8_t)('y' + i));
        text[N - 2] = (uint8_t)('z' - i); /* the same letters, so the same codes */
        n[i] = pmd_pack(z, 15, text, N, packed[i], sizeof packed[i]);
    }
    /* They share the first bytes, so they share a place as well. */
    assert_memory_equal(packed[0], packed[1], 256);
    for (int round = 0; round < 6; round++) {
        int i = round / 3;
        const uint8_t *p = pmd_unpack(z, NULL, packed[i], n[i], &back);
        assert_non_null(p);
        assert_int_equal(back, N);
        assert_int_equal(p[N - 1], 'y' + i);
    }
    assert_int_equal(pmd_inflated(z), 2);
    pmd_free(z);
}

static void
broken_messages(void **state)
{
    (void)state;
    uint8_t junk[] = {0xff, 0xff, 0xff, 0xff, 0xff}, packed[4096];
    size_t back = 0;
    struct pmd *z = pmd_new();
    assert_null(pmd_unpack(z, NULL, junk, sizeof junk, &back));
    uint8_t *bomb = xcalloc(1, 2 * PMD_TEXT_MAX);
    size_t n = pmd_pack(z, 15, bomb, 2 * PMD_TEXT_MAX, packed, sizeof packed);
    assert_true(n > 0);
    assert_null(pmd_unpack(z, NULL, packed, n, &back));
    free(bomb);
    /* What came before does not spoil what comes after. */
    n = pmd_pack(z, 15, (const uint8_t *)"good", 4, packed, sizeof packed);
    assert_memory_equal(pmd_unpack(z, NULL, packed, n, &back), "good", 4);
    pmd_free(z);
}

/* A server that keeps its window: its second message refers to the first. */
static void
a_kept_window(void **state)
{
    (void)state;
    uint8_t text[500], packed[600];
    size_t back = 0, first = 0;
    struct pmd *z = pmd_new();
    struct pmd_stream *s = pmd_stream_new();
    z_stream out = {0};
    assert_int_equal(deflateInit2(&out, 6, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY), Z_OK);
    make_text(text, sizeof text, 'z');
    for (int i = 0; i < 3; i++) {
        out.next_in = text;
        out.avail_in = sizeof text;
        out.next_out = packed;
        out.avail_out = sizeof packed;
        assert_int_equal(deflate(&out, Z_SYNC_FLUSH), Z_OK);
        size_t n = sizeof packed - out.avail_out - 4;
        if (i == 0)
            first = n;
        else
            assert_true(n < first / 4);
        const uint8_t *p = pmd_unpack(z, s, packed, n, &back);
        assert_non_null(p);
        assert_int_equal(back, sizeof text);
        assert_memory_equal(p, text, sizeof text);
    }
    deflateEnd(&out);
    pmd_stream_free(s);
    pmd_free(z);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(terms_of_an_answer),
        cmocka_unit_test(terms_that_no_server_may_give),
        cmocka_unit_test(messages_there_and_back),
        cmocka_unit_test(copies_are_remembered_and_likenesses_are_not),
        cmocka_unit_test(broken_messages),
        cmocka_unit_test(a_kept_window),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
