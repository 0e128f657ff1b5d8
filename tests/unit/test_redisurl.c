/* proto/redisurl: what URLs of Redis servers mean, and what is none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include "proto/redisurl.h"

#include <cmocka.h>

static struct redisurl u;
static const char *why;

static bool
parse(const char *text)
{
    why = NULL;
    bool ok = redisurl_parse(view_str(text), &u, &why);
    assert_true(ok || (why != NULL && *why != '\0'));
    return ok;
}

static void
servers_are_understood(void **state)
{
    (void)state;
    assert_true(parse("redis://10.0.0.1"));
    assert_string_equal(u.host, "10.0.0.1");
    assert_int_equal(u.port, 6379);
    assert_false(u.tls || u.is_unix || u.user[0] || u.password[0]);
    assert_true(parse("rediss://cache-1.example:6390/"));
    assert_true(u.tls);
    assert_string_equal(u.host, "cache-1.example");
    assert_int_equal(u.port, 6390);
    assert_true(parse("redis://[2001:db8::1]:7000"));
    assert_string_equal(u.host, "2001:db8::1");
    assert_int_equal(u.port, 7000);
    assert_true(parse("redis://[fe80::1%eth0]"));
    assert_string_equal(u.host, "fe80::1%eth0");
    assert_true(parse("unix:/run/redis.sock"));
    assert_true(u.is_unix);
    assert_string_equal(u.path, "/run/redis.sock");
}

static void
logins_are_decoded(void **state)
{
    (void)state;
    assert_true(parse("redis://bus:s%40c%3Aret%2f@h:1"));
    assert_string_equal(u.user, "bus");
    assert_string_equal(u.password, "s@c:ret/");
    assert_true(parse("redis://:a:b@c@h")); /* not encoded, and understood all the same */
    assert_string_equal(u.user, "");
    assert_string_equal(u.password, "a:b@c");
    assert_string_equal(u.host, "h");
    assert_true(parse("unix:/a%20b?user=me&password=p%26q"));
    assert_string_equal(u.path, "/a b");
    assert_string_equal(u.user, "me");
    assert_string_equal(u.password, "p&q");
}

static void
what_is_no_server_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "redis:", "redis://", "redis://:6379", "http://h", "redis://h:0", "redis://h:65536",
        "redis://h:1x", "redis://h:", "redis://h/1", "redis://h/0/", "redis://[::1", "redis://[h]", "redis://[::1]x", "redis://::1",
        "redis://user@h", "redis://:@h", "redis://u:%4@h", "redis://u:%zz@h", "redis://u:%00@h", "redis://a b", "unix:", "unix:run",
        "unix:/a?x=1", "unix:/a?user=%", "unix:/%00", "redis://h?x", "REDIS://h", "redis://u:p@",
        "unix:/123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (parse(bad[i]))
            fail_msg("%s is taken for a server", bad[i]);
}

static void
words_for_people_have_no_secret(void **state)
{
    (void)state;
    char text[REDISURL_TEXT];
    assert_true(parse("rediss://u:secret@[::1]:1"));
    assert_string_equal(redisurl_text(&u, text), "rediss://[::1]:1");
    assert_true(parse("unix:/s?password=secret"));
    assert_string_equal(redisurl_text(&u, text), "unix:/s");
    assert_string_equal(redisurl_text(&(struct redisurl){0}, text), "unknown");
    assert_false(parse("redis://u:secret@h:bad"));
    assert_null(strstr(why, "secret"));
}

static void
a_server_is_its_address(void **state)
{
    (void)state;
    struct redisurl a, b;
    assert_true(parse("redis://u:p@h"));
    a = u;
    assert_true(parse("redis://h:6379"));
    b = u;
    assert_true(redisurl_same(&a, &b));
    assert_true(parse("rediss://h"));
    assert_false(redisurl_same(&a, &u));
    assert_true(parse("unix:/a"));
    assert_false(redisurl_same(&a, &u));
    assert_true(redisurl_parse_host(VIEW("[::1]"), 26379, &b, &why));
    assert_int_equal(b.port, 26379);
    assert_true(redisurl_parse_host(VIEW("node:7"), 26379, &b, &why));
    assert_int_equal(b.port, 7);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(servers_are_understood),
        cmocka_unit_test(logins_are_decoded),
        cmocka_unit_test(what_is_no_server_is_refused),
        cmocka_unit_test(words_for_people_have_no_secret),
        cmocka_unit_test(a_server_is_its_address),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
