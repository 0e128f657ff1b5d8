/* common/addr: addresses and networks, as text and as bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#include "common/addr.h"

static void
text_is(const char *in, const char *out)
{
    struct addr a;
    char text[ADDR_TEXT];
    assert_true(addr_parse(view_str(in), &a));
    assert_string_equal(addr_text(&a, text), out);
}

static void
addresses_are_read_and_written(void **state)
{
    (void)state;
    text_is("192.0.2.1", "192.0.2.1");
    text_is("0.0.0.0", "0.0.0.0");
    text_is("2001:DB8:0:0::1", "2001:db8::1");
    text_is("::ffff:192.0.2.1", "192.0.2.1");
    text_is("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
    text_is("::", "-"); /* nobody's address */
}

static void
what_is_no_address_is_refused(void **state)
{
    static const char *const wrong[] = {"", " ", "1.2.3", "1.2.3.256", "01.2.3.4", "1.2.3.4.5", "1.2.3.4 ", "::1%lo", "[::1]",
        "1.2.3.4:80", "g::", "1::2::3", "localhost", "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.2550"};
    struct addr a;
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
        assert_false(addr_parse(view_str(wrong[i]), &a));
    assert_false(addr_parse(view_of("1.2.3.4\0", 8), &a));
    assert_false(addr_parse(VIEW_NONE, &a));
}

static bool
has(const char *net, const char *address)
{
    struct addr_net n;
    struct addr a;
    assert_true(addr_net_parse(view_str(net), &n));
    assert_true(addr_parse(view_str(address), &a));
    return addr_net_has(&n, &a);
}

static void
networks_have_what_is_in_them(void **state)
{
    (void)state;
    assert_true(has("10.0.0.0/8", "10.255.255.255"));
    assert_false(has("10.0.0.0/8", "11.0.0.0"));
    assert_false(has("10.0.0.0/8", "a00::1"));
    assert_true(has("192.0.2.4/30", "192.0.2.7"));
    assert_false(has("192.0.2.4/30", "192.0.2.8"));
    assert_true(has("192.0.2.1", "192.0.2.1"));
    assert_false(has("192.0.2.1", "192.0.2.2"));
    assert_true(has("0.0.0.0/0", "255.1.2.3"));
    assert_false(has("0.0.0.0/0", "2001:db8::1"));
    assert_true(has("::/0", "2001:db8::1"));
    assert_true(has("2001:db8::/33", "2001:db8:7fff::"));
    assert_false(has("2001:db8::/33", "2001:db8:8000::"));
    assert_true(has("::1/128", "::1"));
}

static void
networks_that_are_mistakes_are_refused(void **state)
{
    static const char *const wrong[] = {"", "/8", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/08", "10.0.0.1/8", "10.0.0.0/8 ",
        "10.0.0.0/-1", "10.0.0.0/1000", "2001:db8::/129", "2001:db8::1/32", "10/8", "all"};
    struct addr_net n;
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
        assert_false(addr_net_parse(view_str(wrong[i]), &n));
}

static void
a_set_has_unix_sockets_only_if_it_says_so(void **state)
{
    struct addr_nets nets = {0};
    struct addr none = {{0}}, a;
    (void)state;
    assert_true(addr_parse(VIEW("10.1.2.3"), &a));
    assert_false(addr_nets_have(&nets, &a));
    assert_true(addr_nets_add(&nets, VIEW("::/0")));
    assert_true(addr_nets_add(&nets, VIEW("10.0.0.0/8")));
    assert_true(addr_nets_have(&nets, &a));
    assert_false(addr_nets_have(&nets, &none));
    assert_true(addr_nets_add(&nets, VIEW("unix")));
    assert_true(addr_nets_have(&nets, &none));
    assert_false(addr_nets_add(&nets, VIEW("unix:/path")));
    for (uint32_t i = nets.n; i < ADDR_NETS_MAX; i++)
        assert_true(addr_nets_add(&nets, VIEW("10.0.0.0/8")));
    assert_false(addr_nets_add(&nets, VIEW("10.0.0.0/8")));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_are_read_and_written),
        cmocka_unit_test(what_is_no_address_is_refused),
        cmocka_unit_test(networks_have_what_is_in_them),
        cmocka_unit_test(networks_that_are_mistakes_are_refused),
        cmocka_unit_test(a_set_has_unix_sockets_only_if_it_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
