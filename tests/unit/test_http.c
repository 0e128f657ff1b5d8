/* proto/http: heads as RFC 9112 and hardening section 3 want them, each cut once at every place and
 * in chunks of 1 and 7 bytes; the outcome is a line of text that must not depend on the chunks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "proto/http.h"

static const struct http_limits usual = {8192, 16384, 100, 4};

/* ---- running a head through the parser
 * ----------------------------------------------------------- */

struct outcome {
    enum http_parse rc;
    unsigned status;
    size_t eaten;
    size_t offered; /* bytes there when it was decided */
    struct http_request r;
};

static uint8_t *held; /* the bytes that views of the last outcome point into */

/* Offers first bytes, then chunk more each time, every time in a block of exactly that size. */
static void
parse_in_chunks(
    struct outcome *o, struct view in, const struct http_limits *limits, size_t first, size_t chunk)
{
    size_t pos = 0, n = MIN(first, in.n);
    o->status = 0;
    o->eaten = 0;
    for (;; n = MIN(n + chunk, in.n)) {
        free(held);
        held = malloc(n + !n);
        assert_non_null(held);
        memcpy(held, in.p, n);
        o->rc = http_parse_request(view_of(held, n), &pos, limits, &o->r, &o->eaten, &o->status);
        o->offered = n;
        if (o->rc != HTTP_MORE || n == in.n)
            return;
    }
}

static void
same(const struct outcome *a, const struct outcome *b)
{
    assert_int_equal(a->rc, b->rc);
    if (a->rc == HTTP_BAD)
        assert_int_equal(a->status, b->status);
    if (a->rc != HTTP_DONE)
        return;
    assert_int_equal(a->eaten, b->eaten);
    assert_int_equal(a->r.method, b->r.method);
    assert_int_equal(a->r.field_count, b->r.field_count);
    assert_int_equal(a->r.target.n, b->r.target.n);
    assert_int_equal(a->r.path.n, b->r.path.n);
    assert_int_equal(a->r.query.n, b->r.query.n);
    assert_int_equal(a->r.has_body, b->r.has_body);
    assert_int_equal(a->r.keep_alive, b->r.keep_alive);
}

/* The outcome of the whole, after the splits agreed with it. */
static struct outcome *
parse_with(struct view in, const struct http_limits *limits)
{
    static struct outcome whole, split;
    parse_in_chunks(&whole, in, limits, in.n, 1);
    for (size_t cut = 0; cut<in.n; cut += in.n> 2000 ? 211 : 1) {
        parse_in_chunks(&split, in, limits, cut, in.n);
        same(&split, &whole);
    }
    parse_in_chunks(&split, in, limits, 7, 7);
    same(&split, &whole);
    parse_in_chunks(&split, in, limits, 1, 1);
    same(&split, &whole);
    size_t offered = split.offered;
    parse_in_chunks(&whole, in, limits, in.n, 1);
    whole.offered = offered; /* as seen a byte at a time */
    return &whole;
}

static struct outcome *
parse(struct view in)
{
    return parse_with(in, &usual);
}

static void
expect_bad(struct view in, unsigned status)
{
    struct outcome *o = parse(in);
    if (o->rc != HTTP_BAD || o->status != status)
        fail_msg(
            "%u instead of %u for: %.*s", o->rc == HTTP_BAD ? o->status : 0, status, VIEW_FMT(in));
}

#define BAD(lit, status) expect_bad(VIEW(lit), status)
#define GET "GET / HTTP/1.1\r\nHost: h\r\n"

static struct outcome *
expect_done(struct view in)
{
    struct outcome *o = parse(in);
    if (o->rc != HTTP_DONE)
        fail_msg("%u for: %.*s", o->rc == HTTP_BAD ? o->status : 0, VIEW_FMT(in));
    return o;
}

#define DONE(lit) expect_done(VIEW(lit))

static void
assert_view(struct view v, const char *text)
{
    if (!view_eq(v, view_str(text)))
        fail_msg("\"%.*s\" instead of \"%s\"", VIEW_FMT(v), text);
}

/* ---- request lines
 * ------------------------------------------------------------------------------- */

static void
an_ordinary_request(void **state UNUSED)
{
    struct outcome *o = DONE("GET /a/b?c=d&e HTTP/1.1\r\nHost: example.com:8000\r\n"
                             "X-Odd:\t two words \t\r\nEmpty:\r\n\r\nbehind it");
    assert_int_equal(o->eaten, o->r.fields[2].value.p - held + 4);
    assert_int_equal(o->r.method, HTTP_GET);
    assert_view(o->r.method_text, "GET");
    assert_view(o->r.target, "/a/b?c=d&e");
    assert_view(o->r.path, "/a/b");
    assert_view(o->r.query, "c=d&e");
    assert_int_equal(o->r.minor, 1);
    assert_true(o->r.keep_alive);
    assert_false(o->r.has_body);
    assert_int_equal(o->r.field_count, 3);
    assert_view(o->r.fields[1].name, "X-Odd");
    assert_view(o->r.fields[1].value, "two words");
    assert_view(o->r.fields[2].value, "");
}

static void
methods(void **state UNUSED)
{
    assert_int_equal(DONE("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")->r.method, HTTP_HEAD);
    assert_int_equal(DONE("POST / HTTP/1.1\r\nHost: h\r\n\r\n")->r.method, HTTP_POST);
    assert_int_equal(DONE("get / HTTP/1.1\r\nHost: h\r\n\r\n")->r.method, HTTP_OTHER);
    assert_int_equal(DONE("M-SEARCH / HTTP/1.1\r\nHost: h\r\n\r\n")->r.method, HTTP_OTHER);
    BAD("GE(T / HTTP/1.1\r\nHost: h\r\n\r\n", 400);
    BAD(" GET / HTTP/1.1\r\nHost: h\r\n\r\n", 400);
}

static void
forms_of_targets(void **state UNUSED)
{
    assert_view(DONE("GET http://h/p?q HTTP/1.1\r\nHost: h\r\n\r\n")->r.path, "/p");
    assert_view(DONE("GET HTTP://h:80?q HTTP/1.1\r\nHost: h\r\n\r\n")->r.path, "/");
    assert_view(DONE("GET ws://[::1]:80 HTTP/1.1\r\nHost: h\r\n\r\n")->r.path, "/");
    assert_view(DONE("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n")->r.path, "*");
    assert_view(DONE("CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n")->r.path, "h:443");
    assert_view(DONE("GET //a/../%2F HTTP/1.1\r\nHost: h\r\n\r\n")->r.path, "//a/../%2F");
    assert_view(DONE("GET /?a?b|c HTTP/1.1\r\nHost: h\r\n\r\n")->r.query, "a?b|c");
    BAD("GET * HTTP/1.1\r\nHost: h\r\n\r\n", 400);
    BAD("GET a HTTP/1.1\r\nHost: h\r\n\r\n", 400);
    BAD("GET ftp://h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400);
    BAD("GET http:/// HTTP/1.1\r\nHost: h\r\n\r\n", 400);
    BAD("GET http://user@h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400);
    BAD("GET /#f HTTP/1.1\r\nHost: h\r\n\r\n", 400);
    BAD("GET /\xC3\xA9 HTTP/1.1\r\nHost: h\r\n\r\n", 400);
    BAD("GET /% HTTP/1.1\r\nHost: h\r\n\r\n", 400);
    BAD("GET /%4 HTTP/1.1\r\nHost: h\r\n\r\n", 400);
    BAD("GET /%zz HTTP/1.1\r\nHost: h\r\n\r\n", 400);
    BAD("CONNECT / HTTP/1.1\r\nHost: h\r\n\r\n", 400);
}

static void
spaces_in_the_request_line(void **state UNUSED)
{
    BAD("GET  / HTTP/1.1\r\n\r\n", 400);
    BAD("GET /  HTTP/1.1\r\n\r\n", 400);
    BAD("GET / HTTP/1.1 \r\n\r\n", 400);
    BAD("GET\t/ HTTP/1.1\r\n\r\n", 400);
    BAD("GET / a HTTP/1.1\r\n\r\n", 400);
    BAD("GET HTTP/1.1\r\n\r\n", 400);
    BAD("GET\r\n\r\n", 400);
}

static void
versions(void **state UNUSED)
{
    struct outcome *o = DONE("GET / HTTP/1.0\r\n\r\n");
    assert_int_equal(o->r.minor, 0);
    assert_false(o->r.keep_alive);
    BAD("GET / HTTP/1.2\r\nHost: h\r\n\r\n", 505);
    BAD("GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505);
    BAD("GET / HTTP/0.9\r\nHost: h\r\n\r\n", 505);
    BAD("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505);
    BAD("GET / http/1.1\r\nHost: h\r\n\r\n", 400);
    BAD("GET / HTTP/1.10\r\nHost: h\r\n\r\n", 400);
    BAD("GET / HTTP/11\r\nHost: h\r\n\r\n", 400);
    BAD("GET / HTTP/1,1\r\nHost: h\r\n\r\n", 400);
    BAD("GET / HTTPS/1.1\r\nHost: h\r\n\r\n", 400);
}

static void
old_requests_are_refused_at_their_first_line(void **state UNUSED)
{
    expect_bad(VIEW("GET /\r\n"), 400);
    expect_bad(VIEW("GET / HTTP/3.0\r\n"), 505);
}

static void
other_protocols_are_refused_at_once(void **state UNUSED)
{
    static const struct {
        struct view in;
        size_t offered;
    } rows[] = {
        {{(const uint8_t *)"\x16\x03\x01\x02\x00", 5}, 1},  /* TLS */
        {{(const uint8_t *)"SSH-2.0-x\r\n", 11}, 11},       /* a token, but no request line */
        {{(const uint8_t *)"{\"event\":1}", 11}, 1},        /* JSON */
        {{(const uint8_t *)"\x81\x85\x37\xFA", 4}, 1},      /* frames */
        {{(const uint8_t *)"*1\r\n$4\r\nPING\r\n", 14}, 4}, /* Redis */
        {{(const uint8_t *)"GET / HT\0P/1.1", 14}, 9},      /* NUL */
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        expect_bad(rows[i].in, 400);
        assert_int_equal(parse(rows[i].in)->offered, rows[i].offered);
    }
}

static void
empty_lines_in_front(void **state UNUSED)
{
    struct outcome *o = DONE("\r\n\r\n\r\n\r\n" GET "\r\n");
    assert_int_equal(o->eaten, 8 + sizeof GET - 1 + 2);
    assert_view(o->r.fields[0].value, "h");
    BAD("\r\n\r\n\r\n\r\n\r\n" GET "\r\n", 400);
    BAD("\n" GET "\r\n", 400);
    struct http_limits none = usual;
    none.leading_empty_lines = 0;
    assert_int_equal(parse_with(VIEW("\r\n" GET "\r\n"), &none)->rc, HTTP_BAD);
    assert_int_equal(parse_with(VIEW(GET "\r\n"), &none)->rc, HTTP_DONE);
}

/* ---- fields
 * -------------------------------------------------------------------------------------- */

static void
malformed_fields(void **state UNUSED)
{
    BAD(GET "Name : v\r\n\r\n", 400);
    BAD(GET "Name\t: v\r\n\r\n", 400);
    BAD(GET " Name: v\r\n\r\n", 400);
    BAD(GET "Name: v\r\n folded\r\n\r\n", 400);
    BAD(GET "Name: v\r\n\tfolded\r\n\r\n", 400);
    BAD("GET / HTTP/1.1\r\n Host: h\r\n\r\n", 400);
    BAD(GET "no colon\r\n\r\n", 400);
    BAD(GET ": no name\r\n\r\n", 400);
    BAD(GET "Na(me: v\r\n\r\n", 400);
    BAD(GET "N\xC3\xA4me: v\r\n\r\n", 400);
    DONE(GET "Name: \xC3\xA4 (obs-text)\t!\r\n\r\n");
}

static void
every_control_byte_is_refused_where_it_stands(void **state UNUSED)
{
    for (unsigned c = 0; c < 256; c++) {
        char in[] = GET "Name: v_v\r\n\r\n";
        char *mark = strchr(in, '_');
        bool good = c == '\t' || (c >= 0x20 && c != 0x7F);
        *mark = (char)c;
        struct outcome *o = parse(view_of(in, sizeof in - 1));
        assert_int_equal(o->rc, good ? HTTP_DONE : HTTP_BAD);
        if (!good)
            assert_int_equal(o->offered, mark - in + 1 + (c == '\r'));
    }
}

static void
bare_line_ends(void **state UNUSED)
{
    BAD("GET / HTTP/1.1\nHost: h\n\n", 400);
    BAD("GET / HTTP/1.1\rHost: h\r\r", 400);
    BAD(GET "a: b\n\r\n", 400);
    BAD(GET "a: b\r\r\n\r\n", 400);
    BAD(GET "a: b\r\n\n", 400);
    BAD(GET "\rX", 400);
}

static void
hosts(void **state UNUSED)
{
    BAD("GET / HTTP/1.1\r\n\r\n", 400);
    BAD("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400);
    BAD("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400);
    static const char *const good[] = {"h", "example.com", "example.com:8000", "127.0.0.1:80",
        "[::1]", "[::1]:8000", "under_score", "h:", "%41", "h:65535"};
    static const char *const bad[] = {"", "a b", "a,b", "a/b", "a@b", "a:b", "a:80:80", "[::1",
        "[]", "a?b", "<x>", "h:65536", "h:123456", "%4", "[::1]x", "\xC3\xA9", "a\tb", ":80"};
    char in[100];
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        snprintf(in, sizeof in, "GET / HTTP/1.1\r\nhOST:%s\r\n\r\n", good[i]);
        expect_done(view_str(in));
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        if (strcmp(bad[i], "a,b") == 0)
            continue; /* a comma is a legal sub-delimiter of a name */
        snprintf(in, sizeof in, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", bad[i]);
        expect_bad(view_str(in), 400);
    }
}

static void
lengths_of_bodies(void **state UNUSED)
{
    assert_false(DONE(GET "Content-Length: 0\r\n\r\n")->r.has_body);
    assert_int_equal(DONE(GET "Content-Length: 12\r\n\r\n")->r.content_length, 12);
    assert_true(DONE(GET "Content-Length: 12\r\n\r\n")->r.has_body);
    assert_true(DONE(GET "Content-Length: 5\r\nContent-Length: 5\r\n\r\n")->r.has_body);
    DONE(GET "Content-Length: 9223372036854775807\r\n\r\n");
    BAD(GET "Content-Length: 9223372036854775808\r\n\r\n", 400);
    BAD(GET "Content-Length: 99999999999999999999999999\r\n\r\n", 400);
    BAD(GET "Content-Length: 5\r\nContent-Length: 6\r\n\r\n", 400);
    BAD(GET "Content-Length: 5, 5\r\n\r\n", 400);
    BAD(GET "Content-Length: +5\r\n\r\n", 400);
    BAD(GET "Content-Length: -1\r\n\r\n", 400);
    BAD(GET "Content-Length: 0x5\r\n\r\n", 400);
    BAD(GET "Content-Length: 5 5\r\n\r\n", 400);
    BAD(GET "Content-Length:\r\n\r\n", 400);
}

static void
transfer_codings(void **state UNUSED)
{
    struct outcome *o = DONE(GET "Transfer-Encoding: Chunked\r\n\r\n");
    assert_true(o->r.chunked && o->r.has_body);
    BAD(GET "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", 400);
    BAD(GET "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n", 400);
    BAD(GET "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400);
    BAD(GET "Transfer-Encoding: chunked, chunked\r\n\r\n", 400);
    BAD(GET "Transfer-Encoding: gzip\r\n\r\n", 501);
    BAD(GET "Transfer-Encoding: identity\r\n\r\n", 501);
    BAD(GET "Transfer-Encoding: xchunked\r\n\r\n", 501);
    BAD(GET "Transfer-Encoding: \"chunked\"\r\n\r\n", 400);
    BAD(GET "Transfer-Encoding: \x0B"
            "chunked\r\n\r\n",
        400);
    BAD(GET "Transfer-Encoding:\r\n\r\n", 400);
    BAD(GET "Transfer-Encoding : chunked\r\n\r\n", 400);
    BAD("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400);
}

static void
looking_fields_up(void **state UNUSED)
{
    struct outcome *o =
        DONE(GET "A: 1\r\na: 2\r\nList: x, Y ,z\r\nlist:,w\r\nConnection: CLOSE\r\n\r\n");
    unsigned count;
    assert_view(http_field_get(&o->r, VIEW("a"), &count), "1");
    assert_int_equal(count, 2);
    assert_null(http_field_get(&o->r, VIEW("b"), &count).p);
    assert_int_equal(count, 0);
    assert_true(http_field_has_token(&o->r, VIEW("LIST"), VIEW("y")));
    assert_true(http_field_has_token(&o->r, VIEW("list"), VIEW("w")));
    assert_false(http_field_has_token(&o->r, VIEW("list"), VIEW("x, Y")));
    assert_false(http_field_has_token(&o->r, VIEW("other"), VIEW("x")));
    assert_false(o->r.keep_alive);
}

/* ---- limits
 * -------------------------------------------------------------------------------------- */

static char big[20000];

/* "GET /aaa HTTP/1.1" of line_n bytes and a Host. */
static struct view
long_line(size_t line_n)
{
    memset(big, 'a', sizeof big);
    memcpy(big, "GET /", 5);
    memcpy(big + line_n - 9, " HTTP/1.1\r\nHost: h\r\n\r\n", 23);
    return view_of(big, line_n - 9 + 23 - 1);
}

static void
request_line_limit(void **state UNUSED)
{
    struct http_limits limits = usual;
    limits.request_line = 300;
    assert_int_equal(parse_with(long_line(300), &limits)->rc, HTTP_DONE);
    struct outcome *o = parse_with(long_line(301), &limits);
    assert_int_equal(o->rc, HTTP_BAD);
    assert_int_equal(o->status, 414);
    assert_int_equal(o->offered, 301);
    expect_bad(long_line(9000), 414);
}

static void
header_bytes_limit(void **state UNUSED)
{
    struct http_limits limits = usual;
    limits.header_bytes = 600;
    struct view in = long_line(400);
    limits.header_bytes = (uint32_t)in.n;
    assert_int_equal(parse_with(in, &limits)->rc, HTTP_DONE);
    limits.header_bytes = (uint32_t)in.n - 1;
    struct outcome *o = parse_with(in, &limits);
    assert_int_equal(o->rc, HTTP_BAD);
    assert_int_equal(o->status, 431);
    assert_int_equal(o->offered, in.n - 1); /* nobody has to keep more than the limit */
}

static void
header_fields_limit(void **state UNUSED)
{
    for (unsigned fields = 99; fields <= 102; fields++) {
        size_t n = (size_t)snprintf(big, sizeof big, GET);
        for (unsigned i = 1; i < fields; i++)
            n += (size_t)snprintf(big + n, sizeof big - n, "f%u: v\r\n", i);
        n += (size_t)snprintf(big + n, sizeof big - n, "\r\n");
        struct outcome *o = parse(view_of(big, n));
        assert_int_equal(o->rc, fields <= 100 ? HTTP_DONE : HTTP_BAD);
        if (fields > 100)
            assert_int_equal(o->status, 431);
    }
}

static void
nothing_yet(void **state UNUSED)
{
    static struct outcome o;
    parse_in_chunks(&o, VIEW(""), &usual, 0, 1);
    assert_int_equal(o.rc, HTTP_MORE);
    size_t pos = 0;
    assert_int_equal(
        http_parse_request(VIEW_NONE, &pos, &usual, &o.r, &o.eaten, &o.status), HTTP_MORE);
}

static void
pipelined_requests(void **state UNUSED)
{
    static struct outcome o;
    struct view in = VIEW(GET "\r\n" GET "B: 2\r\n\r\n");
    parse_in_chunks(&o, in, &usual, in.n, 1);
    assert_int_equal(o.rc, HTTP_DONE);
    parse_in_chunks(&o, view_from(in, o.eaten), &usual, 3, 1);
    assert_int_equal(o.rc, HTTP_DONE);
    assert_int_equal(o.r.field_count, 2);
}

/* ---- the upgrade
 * --------------------------------------------------------------------------------- */

#define KEY "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
#define V13 "Sec-WebSocket-Version: 13\r\n"
#define UP "Upgrade: websocket\r\nConnection: Upgrade\r\n"

static struct ws_upgrade
upgrade(struct view in)
{
    struct ws_upgrade u;
    http_upgrade_check(&expect_done(in)->r, &u);
    return u;
}

#define STATUS(lit) (upgrade(VIEW(lit)).status)

/* The key and its answer are those of RFC 6455 section 1.3. */
static void
a_good_upgrade(void **state UNUSED)
{
    struct ws_upgrade u =
        upgrade(VIEW(GET UP KEY V13 "Origin: http://x\r\nSec-WebSocket-Extensions: foo\r\n\r\n"));
    assert_int_equal(u.status, 101);
    assert_string_equal(u.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_view(u.origin, "http://x");
    assert_view(u.extensions, "");
    uint8_t memory[300];
    struct buf out = buf_fixed(memory, sizeof memory);
    http_put_upgrade(&out, &u);
    assert_view(buf_view(&out), "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                                "Connection: Upgrade\r\n"
                                "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n");
    buf_reset(&out);
    u.extensions = VIEW("foo; bar=1");
    http_put_upgrade(&out, &u);
    assert_true(memmem(out.p, out.n, "\r\nSec-WebSocket-Extensions: foo; bar=1\r\n", 40) != NULL);
}

static void
fields_of_a_name_come_one_after_the_other(void **state UNUSED)
{
    const struct http_request *r = &expect_done(VIEW(GET "A: 1\r\nB: 2\r\na: 3\r\n\r\n"))->r;
    uint32_t at = 0;
    struct view value;
    assert_true(http_field_next(r, VIEW("a"), &at, &value));
    assert_view(value, "1");
    assert_true(http_field_next(r, VIEW("a"), &at, &value));
    assert_view(value, "3");
    assert_false(http_field_next(r, VIEW("a"), &at, &value));
    assert_false(http_field_next(r, VIEW("a"), &at, &value));
}

static void
upgrades_as_clients_spell_them(void **state UNUSED)
{
    assert_int_equal(
        STATUS(GET "upgrade: WebSocket\r\nCONNECTION: keep-alive, UPGRADE\r\n" KEY V13 "\r\n"),
        101);
    assert_int_equal(
        STATUS(GET "Upgrade: h2c, websocket\r\nConnection: a\r\nConnection: upgrade\r\n" KEY V13
                   "\r\n"),
        101);
    assert_int_equal(STATUS(GET UP KEY V13 "Content-Length: 0\r\n\r\n"), 101);
}

static void
upgrades_that_are_refused(void **state UNUSED)
{
    assert_int_equal(STATUS("POST / HTTP/1.1\r\nHost: h\r\n" UP KEY V13 "\r\n"), 405);
    assert_int_equal(STATUS("HEAD / HTTP/1.1\r\nHost: h\r\n" UP KEY V13 "\r\n"), 405);
    assert_int_equal(STATUS(GET "\r\n"), 426);
    assert_int_equal(STATUS(GET "Upgrade: websocket\r\n" KEY V13 "\r\n"), 426);
    assert_int_equal(STATUS(GET "Connection: Upgrade\r\n" KEY V13 "\r\n"), 426);
    assert_int_equal(
        STATUS(GET "Upgrade: websockets\r\nConnection: Upgrade\r\n" KEY V13 "\r\n"), 426);
    assert_int_equal(STATUS("GET / HTTP/1.0\r\nHost: h\r\n" UP KEY V13 "\r\n"), 426);
    assert_int_equal(STATUS(GET UP KEY "\r\n"), 426);
    assert_int_equal(STATUS(GET UP KEY "Sec-WebSocket-Version: 8\r\n\r\n"), 426);
    assert_int_equal(STATUS(GET UP KEY "Sec-WebSocket-Version: 013\r\n\r\n"), 426);
    assert_int_equal(STATUS(GET UP KEY V13 V13 "\r\n"), 400);
    assert_int_equal(STATUS(GET UP V13 "\r\n"), 400);
    assert_int_equal(STATUS(GET UP KEY KEY V13 "\r\n"), 400);
    assert_int_equal(STATUS(GET UP KEY V13 "Origin: a\r\nOrigin: b\r\n\r\n"), 400);
    assert_int_equal(STATUS(GET UP KEY V13 "Content-Length: 1\r\n\r\n"), 400);
    assert_int_equal(STATUS(GET UP KEY V13 "Transfer-Encoding: chunked\r\n\r\n"), 400);
}

static void
keys_that_are_not_sixteen_bytes(void **state UNUSED)
{
    static const char *const bad[] = {"", "dGhlIHNhbXBsZSBub25jZQ=", "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZVE=", "dGhlIHNhbXBsZSBub25jZVFR", "dGhlIHNhbXBsZSBub25j",
        "dGhl!HNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ==A", "dGhlIHNhbXBsZSBub25jZQ=A",
        "dGhlIHNh XBsZSBub25jZQ==", "====================----"};
    char in[400];
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        snprintf(in, sizeof in, GET UP V13 "Sec-WebSocket-Key: %s\r\n\r\n", bad[i]);
        assert_int_equal(upgrade(view_str(in)).status, 400);
    }
}

/* ---- answers
 * ------------------------------------------------------------------------------------- */

static struct view
answer(unsigned status, const char *body, bool keep_alive, bool head_only)
{
    static uint8_t memory[1000];
    static struct buf out;
    out = buf_fixed(memory, sizeof memory);
    http_put_response(&out, status, view_str(body[0] ? "text/html" : ""), VIEW("X: y\r\n"),
        view_str(body), keep_alive, head_only);
    assert_false(out.failed);
    return buf_view(&out);
}

static void
answers(void **state UNUSED)
{
    assert_view(answer(200, "<p>", true, false),
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 3\r\nX: y\r\n\r\n<p>");
    assert_view(answer(200, "<p>", false, true),
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
        "Content-Length: 3\r\nConnection: close\r\nX: y\r\n\r\n");
    assert_view(answer(404, "", false, false),
        "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 9\r\n"
        "Connection: close\r\nX: y\r\n\r\nNot Found");
    assert_view(answer(426, "", false, true),
        "HTTP/1.1 426 Upgrade Required\r\nContent-Type: text/plain; charset=utf-8\r\n"
        "Content-Length: 16\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Connection: close, Upgrade\r\nX: y\r\n\r\n");
    assert_view(answer(405, "no", false, false),
        "HTTP/1.1 405 Method Not Allowed\r\nContent-Type: text/html\r\nContent-Length: 2\r\n"
        "Allow: GET\r\nConnection: close\r\nX: y\r\n\r\nno");
    assert_view(answer(204, "", true, false), "HTTP/1.1 204 No Content\r\nX: y\r\n\r\n");
    assert_view(
        answer(299, "", true, false), "HTTP/1.1 299 Unknown\r\nContent-Length: 0\r\nX: y\r\n\r\n");
    assert_non_null(memmem(answer(503, "", false, false).p, 200, "Retry-After: ", 13));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_ordinary_request),
        cmocka_unit_test(methods),
        cmocka_unit_test(forms_of_targets),
        cmocka_unit_test(spaces_in_the_request_line),
        cmocka_unit_test(versions),
        cmocka_unit_test(old_requests_are_refused_at_their_first_line),
        cmocka_unit_test(other_protocols_are_refused_at_once),
        cmocka_unit_test(empty_lines_in_front),
        cmocka_unit_test(malformed_fields),
        cmocka_unit_test(every_control_byte_is_refused_where_it_stands),
        cmocka_unit_test(bare_line_ends),
        cmocka_unit_test(hosts),
        cmocka_unit_test(lengths_of_bodies),
        cmocka_unit_test(transfer_codings),
        cmocka_unit_test(looking_fields_up),
        cmocka_unit_test(request_line_limit),
        cmocka_unit_test(header_bytes_limit),
        cmocka_unit_test(header_fields_limit),
        cmocka_unit_test(nothing_yet),
        cmocka_unit_test(pipelined_requests),
        cmocka_unit_test(a_good_upgrade),
        cmocka_unit_test(fields_of_a_name_come_one_after_the_other),
        cmocka_unit_test(upgrades_as_clients_spell_them),
        cmocka_unit_test(upgrades_that_are_refused),
        cmocka_unit_test(keys_that_are_not_sixteen_bytes),
        cmocka_unit_test(answers),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(held);
    return failed;
}
