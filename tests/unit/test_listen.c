/* Listen addresses: how they are written, and what ringcast run binds for them. */
#include "deploy/ringcast/bind.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void
addresses_as_people_write_them(void **state)
{
    static const struct {
        const char *text, *host, *port, *path;
    } good[] = {
        {"tcp://127.0.0.1:8000", "127.0.0.1", "8000", ""},
        {"tcp://localhost:0", "localhost", "0", ""},
        {"tcp://:8000", "", "8000", ""},
        {"tcp://*:8000", "", "8000", ""},
        {"tcp://[::1]:65535", "::1", "65535", ""},
        {"tcp://[::]:080", "::", "80", ""},
        {"tls://[::]:8443", "::", "8443", ""},
        {"unix:/run/x.sock", "", "", "/run/x.sock"},
        {"unix:///run/x.sock", "", "", "/run/x.sock"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        struct conf_listen l;
        struct conf_error err;
        assert_true(conf_parse_listen(good[i].text, &l, &err));
        assert_int_equal(l.is_unix, good[i].path[0] != '\0');
        assert_int_equal(l.tls, strncmp(good[i].text, "tls", 3) == 0);
        assert_string_equal(l.host, good[i].host);
        assert_string_equal(l.port, good[i].port);
        assert_string_equal(l.path, good[i].path);
    }
}

static void
options_stand_behind_an_address_in_any_order(void **state)
{
    static const struct {
        const char *text;
        bool proxy, no_gaps;
    } good[] = {{"tcp://:1", false, false}, {"tcp://:1?proxy=on", true, false}, {"tls://:1?gaps=off", false, true},
        {"unix:/a?proxy=on&gaps=off", true, true}, {"tcp://:1?gaps=off&proxy=off", false, true}, {"tcp://:1?gaps=on", false, false}};
    static const char *const bad[] = {"tcp://:1?", "tcp://:1?gaps", "tcp://:1?gaps=no", "tcp://:1?proxy=on&", "tcp://:1?proxy=on?gaps=off"};
    struct conf_listen l;
    struct conf_error err;
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        assert_true(conf_parse_listen(good[i].text, &l, &err));
        assert_int_equal(l.proxy, good[i].proxy);
        assert_int_equal(l.no_gaps, good[i].no_gaps);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_false(conf_parse_listen(bad[i], &l, &err));
        assert_non_null(strstr(err.text, "?proxy=on&gaps=off"));
    }
}

static void
what_is_no_address_is_refused_with_an_example(void **state)
{
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"", "tcp://host:port"},
        {"8000", "tcp://host:port"},
        {"127.0.0.1:8000", "tcp://host:port"},
        {"http://127.0.0.1:8000", "tcp://host:port"},
        {"tcp://127.0.0.1", "tcp://host:port"},
        {"tcp://127.0.0.1:", "tcp://host:port"},
        {"tcp://127.0.0.1:65536", "tcp://host:port"},
        {"tcp://127.0.0.1:99999999999999999999", "tcp://host:port"},
        {"tcp://127.0.0.1:80x", "tcp://host:port"},
        {"tcp://127.0.0.1:-1", "tcp://host:port"},
        {"tcp://::1:8000", "[::1]"},
        {"tcp://[::1:8000", "[::1]"},
        {"tcp://[::1]8000", "[::1]"},
        {"tls://127.0.0.1", "tcp://host:port"},
        {"unix:", "unix:/path"},
        {"unix:relative", "does not begin with /"},
        {"unix:", "names no path"},
        {"unix://host/path", "does not begin with /"},
    };
    char long_host[320] = "tcp://", long_path[160] = "unix:/";
    struct conf_listen l;
    struct conf_error err;
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        if (conf_parse_listen(bad[i].text, &l, &err))
            fail_msg("%s passed", bad[i].text);
        if (strstr(err.text, bad[i].says) == NULL)
            fail_msg("%s: %s", bad[i].text, err.text);
    }
    memset(long_host + 6, 'a', 256);
    memcpy(long_host + 262, ":80", 4);
    assert_false(conf_parse_listen(long_host, &l, &err));
    memset(long_path + 6, 'a', 107);
    assert_false(conf_parse_listen(long_path, &l, &err));
    long_path[5 + 107] = '\0'; /* 107 bytes and their end just fit */
    assert_true(conf_parse_listen(long_path, &l, &err));
}

/* ---- binding ---- */

/* Settings with these listeners, workers and rings. */
static struct conf
conf_with(const char *listen_text, const char *workers, const char *rings)
{
    struct conf c;
    struct conf_error err;
    struct conf_errors all = {.n = 0};
    conf_defaults(&c);
    assert_true(conf_set(&c, "worker.listen", listen_text, "there", &err));
    assert_true(conf_set(&c, "worker.count", workers, "there", &err));
    assert_true(conf_set(&c, "worker.rings", rings, "there", &err));
    assert_true(conf_check(&c, &all));
    return c;
}

static in_port_t
port_of(int fd)
{
    struct bind_place p = {.addr_len = sizeof p.addr};
    assert_int_equal(getsockname(fd, (void *)&p.addr, &p.addr_len), 0);
    return ntohs(*place_port(&p));
}

static int
option_of(int fd, int level, int name)
{
    int v = -1;
    socklen_t n = sizeof v;
    assert_int_equal(getsockopt(fd, level, name, &v, &n), 0);
    return v;
}

static void
each_ring_has_a_socket_on_the_same_free_port(void **state)
{
    struct conf c = conf_with("tcp://127.0.0.1:0", "2", "3");
    struct conf_error err;
    struct binds b;
    char want[64], url[64];
    (void)state;
    assert_true(binds_open(&b, &c, &err));
    assert_int_equal(b.count, 1);
    assert_int_equal(b.rings, 6);
    in_port_t port = port_of(binds_fd(&b, 0, 0));
    assert_int_not_equal(port, 0);
    for (unsigned i = 0; i < 6; i++) {
        int fd = binds_fd(&b, 0, i);
        assert_true(fd >= b.floor);
        assert_int_equal(port_of(fd), port);
        assert_int_equal(option_of(fd, SOL_SOCKET, SO_REUSEPORT), 1);
        assert_int_equal(option_of(fd, SOL_SOCKET, SO_ACCEPTCONN), 1);
        assert_int_equal(option_of(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
        assert_int_equal(option_of(fd, IPPROTO_TCP, TCP_NODELAY), 1);
        assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
        assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        for (unsigned k = 0; k < i; k++)
            assert_int_not_equal(fd, binds_fd(&b, 0, k));
    }
    (void)snprintf(want, sizeof want, "tcp://127.0.0.1:%u", port);
    assert_string_equal(b.v[0].text, want);
    binds_url(&b, url, sizeof url);
    (void)snprintf(want, sizeof want, "http://127.0.0.1:%u/", port);
    assert_string_equal(url, want);
    binds_close(&b);
    conf_free(&c);
}

static void
a_port_that_others_listen_on_is_refused_though_they_share(void **state)
{
    struct conf c = conf_with("tcp://127.0.0.1:0", "1", "2"), second;
    struct conf_error err;
    struct binds b, more;
    (void)state;
    assert_true(binds_open(&b, &c, &err));
    second = conf_with(b.v[0].text, "1", "2");
    assert_false(binds_open(&more, &second, &err));
    assert_non_null(strstr(err.text, "worker.listen (there)"));
    assert_non_null(strstr(err.text, b.v[0].text));
    assert_non_null(strstr(err.text, "in use"));
    binds_close(&b);
    assert_true(binds_open(&more, &second, &err)); /* free again at once */
    binds_close(&more);
    conf_free(&c);
    conf_free(&second);
}

static void
rings_share_the_one_socket_of_a_unix_address(void **state)
{
    char dir[] = "/tmp/ringcast-test-XXXXXX", text[96], path[64];
    struct conf_error err;
    struct binds b, more;
    (void)state;
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof path, "%s/s", dir);
    (void)snprintf(text, sizeof text, "unix:%s", path);
    struct conf c = conf_with(text, "2", "2");
    assert_true(binds_open(&b, &c, &err));
    for (unsigned i = 1; i < 4; i++)
        assert_int_equal(binds_fd(&b, 0, i), binds_fd(&b, 0, 0));
    assert_false(binds_open(&more, &c, &err));
    assert_non_null(strstr(err.text, "in use"));
    /* whoever dies without tidying leaves the file behind; it is no obstacle */
    (void)close(b.v[0].fds[0]);
    assert_true(binds_open(&more, &c, &err));
    b.v[0].fds[0] = -1;
    binds_close(&b);
    binds_close(&more);
    assert_int_equal(access(path, F_OK), -1);
    /* a file that is no socket is somebody's */
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_int_equal(fclose(f), 0);
    assert_false(binds_open(&more, &c, &err));
    assert_non_null(strstr(err.text, "no socket"));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(dir), 0);
    conf_free(&c);
}

static void
foreign_addresses_and_names_are_refused_in_words(void **state)
{
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"tcp://192.0.2.1:8000", "no address"}, /* TEST-NET-1, RFC 5737: nobody's */
        {"tcp://no-such-host.invalid:8000", "not known"},
        {"unix:/nowhere/at/all.sock", "cannot listen"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct conf c = conf_with(bad[i].text, "1", "1");
        struct conf_error err;
        struct binds b;
        assert_false(binds_open(&b, &c, &err));
        if (strstr(err.text, bad[i].says) == NULL || strstr(err.text, "(there)") == NULL)
            fail_msg("%s: %s", bad[i].text, err.text);
        conf_free(&c);
    }
}

static void
any_host_takes_both_families_where_there_are_both(void **state)
{
    struct conf c = conf_with("tcp://*:0", "1", "1");
    struct conf_error err;
    struct binds b;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    char url[64];
    (void)state;
    assert_true(binds_open(&b, &c, &err));
    assert_int_equal(b.count, 1);
    to.sin_port = htons(port_of(binds_fd(&b, 0, 0)));
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (void *)&to, sizeof to), 0);
    (void)close(fd);
    binds_url(&b, url, sizeof url);
    assert_memory_equal(url, "http://localhost:", 17);
    binds_close(&b);
    conf_free(&c);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_as_people_write_them),
        cmocka_unit_test(options_stand_behind_an_address_in_any_order),
        cmocka_unit_test(what_is_no_address_is_refused_with_an_example),
        cmocka_unit_test(each_ring_has_a_socket_on_the_same_free_port),
        cmocka_unit_test(a_port_that_others_listen_on_is_refused_though_they_share),
        cmocka_unit_test(rings_share_the_one_socket_of_a_unix_address),
        cmocka_unit_test(foreign_addresses_and_names_are_refused_in_words),
        cmocka_unit_test(any_host_takes_both_families_where_there_are_both),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
