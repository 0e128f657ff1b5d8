/* Options of sockets that listen. */
#include "common/sock.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

static int
option(int fd, int level, int name)
{
    int value = -1;
    socklen_t n = sizeof value;
    assert_int_equal(getsockopt(fd, level, name, &value, &n), 0);
    return value;
}

static void
connections_are_watched_and_sent_to_at_once(void **state)
{
    (void)state;
    int fd = socket(AF_INET, SOCK_STREAM, 0), several = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0 && several >= 0);
    sock_set_listener(fd, false, false);
    sock_set_listener(several, true, false);
    assert_true(option(fd, SOL_SOCKET, SO_REUSEADDR));
    assert_true(option(fd, SOL_SOCKET, SO_KEEPALIVE));
    assert_true(option(fd, IPPROTO_TCP, TCP_NODELAY));
    assert_int_equal(option(fd, IPPROTO_TCP, TCP_KEEPIDLE), KEEPALIVE_IDLE_S);
    assert_int_equal(option(fd, IPPROTO_TCP, TCP_KEEPINTVL), KEEPALIVE_INTERVAL_S);
    assert_int_equal(option(fd, IPPROTO_TCP, TCP_KEEPCNT), KEEPALIVE_PROBES);
    assert_false(option(fd, SOL_SOCKET, SO_REUSEPORT));
    assert_true(option(several, SOL_SOCKET, SO_REUSEPORT));
    close(fd);
    close(several);
}

static void
any_takes_both_families(void **state)
{
    (void)state;
    for (int any = 0; any < 2; any++) {
        int fd = socket(AF_INET6, SOCK_STREAM, 0);
        if (fd < 0)
            skip(); /* no IPv6 here */
        sock_set_listener(fd, false, any);
        assert_int_equal(option(fd, IPPROTO_IPV6, IPV6_V6ONLY), !any);
        close(fd);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(connections_are_watched_and_sent_to_at_once),
        cmocka_unit_test(any_takes_both_families),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
