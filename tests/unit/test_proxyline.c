/* proto/proxyline: headers of both versions, offered in every length up to the whole; nothing may be
 * decided differently because it came in pieces. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "proto/proxyline.h"

/* Feeds one byte more each time, in blocks of exactly that size; what is decided early must stand. */
static enum proxyline_rc
feed(struct view in, struct proxyline *out, size_t *eaten)
{
    enum proxyline_rc rc = PROXYLINE_MORE;
    for (size_t n = 0; n <= in.n && rc == PROXYLINE_MORE; n++) {
        uint8_t *held = malloc(n + !n);
        assert_non_null(held);
        if (n)
            memcpy(held, in.p, n);
        rc = proxyline_parse(view_of(held, n), out, eaten);
        free(held);
    }
    struct proxyline whole;
    size_t whole_eaten;
    assert_int_equal(proxyline_parse(in, &whole, &whole_eaten), rc);
    assert_int_equal(whole_eaten, *eaten);
    return rc;
}

static void
source_is(struct view in, const char *address, unsigned port)
{
    struct proxyline p;
    size_t eaten;
    char text[ADDR_TEXT];
    assert_int_equal(feed(in, &p, &eaten), PROXYLINE_DONE);
    assert_int_equal(p.known, address != NULL);
    if (address != NULL) {
        assert_string_equal(addr_text(&p.source, text), address);
        assert_int_equal(p.source_port, port);
    }
}

static void
is_bad(struct view in)
{
    struct proxyline p;
    size_t eaten;
    assert_int_equal(feed(in, &p, &eaten), PROXYLINE_BAD);
}

static void
lines_of_version_1(void **state)
{
    struct proxyline p;
    size_t eaten;
    (void)state;
    source_is(VIEW("PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n"), "192.0.2.1", 56324);
    source_is(VIEW("PROXY TCP6 2001:db8::1 ::1 0 65535\r\n"), "2001:db8::1", 0);
    source_is(VIEW("PROXY UNKNOWN\r\n"), NULL, 0);
    source_is(VIEW("PROXY UNKNOWN ffff:f...f:ffff any thing 1 2\r\n"), NULL, 0);
    assert_int_equal(feed(VIEW("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\n"), &p, &eaten), PROXYLINE_DONE);
    assert_int_equal(eaten, 32);
    /* The longest there is: 107 bytes, section 2.1. */
    source_is(VIEW("PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 "
                   "65535\r\n"), NULL, 0);
}

static void
lines_that_are_broken(void **state)
{
    static const char *const wrong[] = {"GET / HTTP/1.1\r\n", "proxy TCP4", "PROXY\r", "PROXY  TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n", "PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", "PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n", "PROXY TCP4 1.2.3.4 5.6.7.8 -1 2\r\n", "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n", "PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n", "PROXY TCP4 1.2.3.4 5.6.7 1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\rX", "PROXY TCP4\r\n", "PROXY \r\n", "PROXY UNKNOWNX\r\n", "PROXY tcp4 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535 \r\n"};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
        is_bad(view_str(wrong[i]));
    is_bad(view_of("PROXY TCP4 1.2.3.4\0 5.6.7.8 1 2\r\n", 33));
}

#define SIG "\r\n\r\n\0\r\nQUIT\n"
#define V2(head) VIEW(SIG head)
#define TCP4 "\300\0\2\1\306\63\144\7\334\4\1\273" /* 192.0.2.1:56324 to 198.51.100.7:443 */
#define TCP6 "\x20\1\xd\xb8\0\0\0\0\0\0\0\0\0\0\0\1" "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1" "\0\7\0\11"

static void
headers_of_version_2(void **state)
{
    struct proxyline p;
    size_t eaten;
    (void)state;
    source_is(V2("\x21\x11\0\x0c" TCP4), "192.0.2.1", 56324);
    source_is(V2("\x21\x21\0\x24" TCP6), "2001:db8::1", 7);
    source_is(V2("\x20\0\0\0"), NULL, 0);                     /* LOCAL: a health check */
    source_is(V2("\x20\x11\0\x0c" TCP4), NULL, 0);            /* LOCAL with addresses, to be ignored */
    source_is(V2("\x20\x55\0\3abc"), NULL, 0);                /* and with nonsense */
    source_is(V2("\x21\0\0\4abcd"), NULL, 0);                 /* unspecified */
    source_is(V2("\x21\x11\0\x11" TCP4 "\4\0\2ab"), "192.0.2.1", 56324); /* a TLV that does nothing */
    source_is(V2("\x21\x11\0\x0f" TCP4 "\xe0\0\0"), "192.0.2.1", 56324);  /* an empty one that is unknown */
    assert_int_equal(feed(V2("\x21\x11\0\x0c" TCP4 "GET"), &p, &eaten), PROXYLINE_DONE);
    assert_int_equal(eaten, 28);
    assert_int_equal(p.version, 2);
}

static void
a_unix_socket_has_no_address(void **state)
{
    uint8_t head[16 + 216] = SIG "\x21\x31\0\xd8";
    (void)state;
    source_is(view_of(head, sizeof head), NULL, 0);
    head[15] = 0xd7;
    is_bad(view_of(head, sizeof head - 1));
}

static void
headers_that_are_broken(void **state)
{
    (void)state;
    is_bad(V2("\x11\x11\0\x0c" TCP4));           /* version 1 in binary */
    is_bad(V2("\x22\x11\0\x0c" TCP4));           /* no such command */
    is_bad(V2("\x21\x12\0\x0c" TCP4));           /* UDP */
    is_bad(V2("\x21\x41\0\x0c" TCP4));           /* no such family */
    is_bad(V2("\x21\x11\0\x0b" TCP4));           /* too short for its family */
    is_bad(V2("\x21\x11\0\x0e" TCP4 "\4\0"));    /* a TLV without its length */
    is_bad(V2("\x21\x11\0\x10" TCP4 "\4\0\2a")); /* a TLV longer than the header */
    is_bad(V2("\x21\x11\0\x0f" TCP4 "\4\xff\xff"));
    is_bad(V2("\x21\x11\xff\xff"));              /* longer than is taken */
    is_bad(VIEW("\r\n\r\n\0\r\nQUIT\r"));
    is_bad(VIEW("\r\n\r\nGET / HTTP/1.1"));
}

static void
a_checksum_that_is_there_must_be_right(void **state)
{
    /* CRC32C over the header with its own four bytes zero, computed by hand with another program. */
    uint8_t head[] = SIG "\x21\x11\0\x13" TCP4 "\3\0\4\xd4\x5a\x11\xb9";
    (void)state;
    source_is(view_of(head, sizeof head - 1), "192.0.2.1", 56324);
    for (unsigned bit = 16 * 8; bit < (sizeof head - 1) * 8; bit++) {
        struct proxyline p;
        size_t eaten;
        if (bit / 8 >= 28 && bit / 8 < 31)
            continue; /* type and length of the TLV itself */
        head[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(feed(view_of(head, sizeof head - 1), &p, &eaten), PROXYLINE_BAD);
        head[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    is_bad(V2("\x21\x11\0\x12" TCP4 "\3\0\3abc")); /* three bytes are no checksum */
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_of_version_1),
        cmocka_unit_test(lines_that_are_broken),
        cmocka_unit_test(headers_of_version_2),
        cmocka_unit_test(a_unix_socket_has_no_address),
        cmocka_unit_test(headers_that_are_broken),
        cmocka_unit_test(a_checksum_that_is_there_must_be_right),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
