/* proto/forwarded: the rightmost entry that is not one of our own proxies, whatever stands to its left. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#include "proto/forwarded.h"

#define PEER "10.0.0.1"

/* The client that a request with these lines of the field comes from; our proxies are 10/8 and fd00::/8. */
static const char *
client_of(enum forwarded_field field, const char *const *lines, unsigned n)
{
    static struct http_request r;
    static char text[ADDR_TEXT];
    struct addr_nets trusted = {0};
    struct addr peer, client;
    assert_true(addr_nets_add(&trusted, VIEW("10.0.0.0/8")) && addr_nets_add(&trusted, VIEW("fd00::/8")));
    assert_true(addr_parse(VIEW(PEER), &peer));
    r.field_count = n;
    for (unsigned i = 0; i < n; i++) {
        r.fields[i].name = field == FORWARDED_XFF ? VIEW("x-forwarded-FOR") : VIEW("FORWARDED");
        r.fields[i].value = view_str(lines[i]);
    }
    client = forwarded_client(&r, field, &peer, &trusted);
    return addr_text(&client, text);
}

static void
xff_is(const char *value, const char *client)
{
    assert_string_equal(client_of(FORWARDED_XFF, &value, 1), client);
}

static void
forwarded_is(const char *value, const char *client)
{
    assert_string_equal(client_of(FORWARDED_RFC7239, &value, 1), client);
}

static void
x_forwarded_for(void **state)
{
    (void)state;
    xff_is("192.0.2.1", "192.0.2.1");
    xff_is("203.0.113.9, 192.0.2.1", "192.0.2.1"); /* what the client wrote itself is not believed */
    xff_is("203.0.113.9,192.0.2.1 ,10.2.2.2,10.3.3.3", "192.0.2.1");
    xff_is("10.2.2.2, 10.3.3.3", "10.2.2.2"); /* somebody of ours */
    xff_is("2001:db8::1, fd00::7", "2001:db8::1");
    xff_is("[2001:db8::1]:1234, 10.3.3.3", "2001:db8::1");
    xff_is("192.0.2.1:4711, 10.3.3.3:80", "192.0.2.1");
    xff_is("", PEER);
    xff_is(" , ,", PEER);
    xff_is("192.0.2.1,,", "192.0.2.1");
}

static void
entries_that_are_none_hide_what_is_left_of_them(void **state)
{
    (void)state;
    xff_is("192.0.2.1, unknown", PEER);
    xff_is("192.0.2.1, unknown, 10.3.3.3", "10.3.3.3");
    xff_is("192.0.2.1, unknown, 10.3.3.3, 10.4.4.4", "10.3.3.3");
    xff_is("192.0.2.1, x, 203.0.113.5, 10.4.4.4", "203.0.113.5");
    xff_is("192.0.2.1:99999999", PEER);
    xff_is("192.0.2.1:", PEER);
    xff_is("[192.0.2.1]", PEER);
    xff_is("[2001:db8::1", PEER);
    xff_is("[2001:db8::1]x", PEER);
    xff_is("2001:db8::1:", PEER);
    forwarded_is("for=192.0.2.1, for=unknown, for=10.3.3.3", "10.3.3.3");
    forwarded_is("for=192.0.2.1, for=_hidden", PEER);
    forwarded_is("for=192.0.2.1, proto=https", PEER); /* that hop does not say whom it heard */
    forwarded_is("for=192.0.2.1, for=203.0.113.1;for=203.0.113.2", PEER);
    forwarded_is("for=192.0.2.1, for=\"203.0.113.1", PEER);
    forwarded_is("for=192.0.2.1, for=", PEER);
    forwarded_is("for=192.0.2.1, nonsense", PEER);
    forwarded_is("for=192.0.2.1, for=203.0.113.1 for=203.0.113.2 x", PEER);
    forwarded_is("for=192.0.2.1, for=\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"", PEER);
}

static void
forwarded(void **state)
{
    (void)state;
    forwarded_is("for=192.0.2.43", "192.0.2.43");
    forwarded_is("For=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17");
    forwarded_is("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60");
    forwarded_is("for=203.0.113.9, for=192.0.2.43, for=10.7.7.7", "192.0.2.43");
    forwarded_is("by=\"a,for=203.0.113.1\";for=192.0.2.43", "192.0.2.43"); /* a comma in quotes is text */
    forwarded_is("ext=\"\\\",for=203.0.113.1\";for=192.0.2.43, for=10.1.1.1;ext=\"x\\\\\"", "192.0.2.43");
    forwarded_is("for=\"192.0.2.1:8080\" ; proto=https", "192.0.2.1");
    forwarded_is("for=\"192\\.0.2.1\"", "192.0.2.1");
    forwarded_is(", ,for=192.0.2.1, ,", "192.0.2.1");
    forwarded_is("", PEER);
    forwarded_is(";;;", PEER);
}

static void
several_lines_are_one_list(void **state)
{
    const char *lines[] = {"203.0.113.9", "192.0.2.1, 10.1.1.1", "10.2.2.2"};
    (void)state;
    assert_string_equal(client_of(FORWARDED_XFF, lines, 3), "192.0.2.1");
    const char *rfc[] = {"for=203.0.113.9", "for=192.0.2.1", "for=10.2.2.2"};
    assert_string_equal(client_of(FORWARDED_RFC7239, rfc, 3), "192.0.2.1");
}

static void
only_the_field_that_is_asked_for_is_read(void **state)
{
    static struct http_request r;
    struct addr_nets trusted = {0};
    struct addr peer, client;
    char text[ADDR_TEXT];
    (void)state;
    assert_true(addr_parse(VIEW(PEER), &peer));
    r.field_count = 2;
    r.fields[0] = (struct http_field){VIEW("Forwarded"), VIEW("for=203.0.113.9")};
    r.fields[1] = (struct http_field){VIEW("X-Forwarded-For"), VIEW("192.0.2.1")};
    client = forwarded_client(&r, FORWARDED_XFF, &peer, &trusted);
    assert_string_equal(addr_text(&client, text), "192.0.2.1");
    client = forwarded_client(&r, FORWARDED_RFC7239, &peer, &trusted);
    assert_string_equal(addr_text(&client, text), "203.0.113.9");
    client = forwarded_client(&r, FORWARDED_NONE, &peer, &trusted);
    assert_string_equal(addr_text(&client, text), PEER);
}

static void
a_quote_that_never_ends_is_not_whole(void **state)
{
    static const struct {
        const char *value;
        bool whole;
    } rows[] = {
        {"for=192.0.2.1", true},
        {"for=\"[2001:db8::1]\", for=192.0.2.1", true},
        {"by=\"a \\\" b\";for=192.0.2.1", true},
        {"for=\"192.0.2.1, for=198.51.100.7", false}, /* the client's quote swallows what the proxy added */
        {"for=x;by=\"\\\", for=198.51.100.7", false},
        {"\"", false},
    };
    static struct http_request r;
    (void)state;
    r.field_count = 1;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        r.fields[0] = (struct http_field){VIEW("forwarded"), view_str(rows[i].value)};
        assert_int_equal(forwarded_is_whole(&r, FORWARDED_RFC7239), rows[i].whole);
        assert_true(forwarded_is_whole(&r, FORWARDED_XFF)); /* that field is not read */
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(x_forwarded_for),
        cmocka_unit_test(entries_that_are_none_hide_what_is_left_of_them),
        cmocka_unit_test(forwarded),
        cmocka_unit_test(a_quote_that_never_ends_is_not_whole),
        cmocka_unit_test(several_lines_are_one_list),
        cmocka_unit_test(only_the_field_that_is_asked_for_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
