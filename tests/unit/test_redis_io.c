/* broker/redis_io and broker/redis_link against a real redis-server: pipelined requests and their answers, pushes, logins,
 * TLS, what happens when the server is killed, stopped or says what it should not. */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker/broker.h"
#include "broker/metrics.h"
#include "broker/redis_io.h"
#include "broker/redis_link.h"
#include "broker/resolve.h"
#include "common/tlsc.h"
#include "tests/unit/t_redis.h"

#include <cmocka.h>

#define WAIT_MS T_REDIS_WAIT_MS

static struct conf conf;
static struct ring ring;
static uint64_t metrics[BM_COUNT];
static struct redis_io *io;
static struct t_redis server;

/* What was told, by all links. */
static struct {
    unsigned ups, losts, replies, errors, messages, confirmed, unconfirmed;
    uint64_t last_token;
    bool in_order;
    char text[256];
} told;

static void
on_up(void *arg, struct redis_link *l)
{
    (void)arg;
    told.ups++;
    redis_link_resume(l);
}

static void
on_lost(void *arg, struct redis_link *l, const char *why)
{
    (void)arg;
    (void)l;
    assert_non_null(why);
    told.losts++;
}

static void
note(struct view v)
{
    snprintf(told.text, sizeof told.text, "%.*s", VIEW_FMT(view_head(v, 200)));
}

static void
on_reply(void *arg, struct redis_link *l, const struct redis_request *q, const struct redis_reply *r)
{
    (void)arg;
    (void)l;
    told.in_order &= q->token == told.last_token + 1;
    told.last_token = q->token;
    told.replies++;
    told.errors += r->v[0].kind == REDIS_ERROR;
    if (r->v[0].kind != REDIS_INTEGER)
        note(r->v[0].text);
}

static void
on_push(void *arg, struct redis_link *l, enum redis_push push, struct view topic, struct view bytes)
{
    (void)arg;
    (void)l;
    told.messages += push == REDIS_MESSAGE;
    told.confirmed += push == REDIS_SUBSCRIBED;
    told.unconfirmed += push == REDIS_UNSUBSCRIBED;
    note(push == REDIS_MESSAGE ? bytes : topic);
}

static const struct redis_ears ears = {on_up, on_lost, on_reply, on_push};

static void
done(void *arg, struct ring_done d)
{
    redis_io_on_done(arg, d);
}

static void
turn(void)
{
    uint32_t ms = redis_io_turn(io, mono_now());
    ring_wait(&ring, (uint64_t)MIN(ms, 20u) * 1000000);
    ring_reap(&ring, done, io);
}

#define UNTIL(cond)                                                                                \
    do {                                                                                           \
        struct mono end_ = mono_add_ms(mono_now(), WAIT_MS);                                       \
        while (!(cond)) {                                                                          \
            if (mono_reached(mono_now(), end_))                                                    \
                fail_msg("never: %s", #cond);                                                      \
            turn();                                                                                \
        }                                                                                          \
    } while (0)

static void
open_io(void)
{
    struct conf_error err = {{0}};
    io = redis_io_open(&conf, &ring, metrics, "test", &err);
    if (io == NULL)
        fail_msg("%s", err.text);
}

static int
setup(void **state)
{
    (void)state;
    if (!t_redis_there()) {
        print_message("skipped: there is no redis-server on this machine (apt-get install redis-server)\n");
        return -1;
    }
    conf_defaults(&conf);
    memset(metrics, 0, sizeof metrics);
    memset(&told, 0, sizeof told);
    told.in_order = true;
    assert_int_equal(ring_init(&ring, 64, 256), 0);
    conf.redis_backoff_min = 10;
    conf.redis_backoff_max = 100;
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    redis_io_close(io);
    io = NULL;
    ring_fini(&ring);
    conf_free(&conf);
    if (server.dir[0] != '\0')
        t_redis_end(&server);
    return 0;
}

static void
set(const char *name, const char *value)
{
    struct conf_error err;
    if (!conf_set(&conf, name, value, "the test", &err))
        fail_msg("%s", err.text);
}

/* A link to where the text says, with %u for the server's port. */
static struct redis_link *
link_to(const char *url, enum redis_flags flags)
{
    char text[300];
    struct redisurl where;
    struct conf_error err = {{0}};
    _Pragma("GCC diagnostic push") _Pragma("GCC diagnostic ignored \"-Wformat-nonliteral\"")
    snprintf(text, sizeof text, url, server.port);
    _Pragma("GCC diagnostic pop")
    if (!redis_io_where(io, view_str(text), &where, &err))
        fail_msg("%s", err.text);
    struct redis_link *l = redis_link_new(io, &where, flags, &ears, NULL);
    assert_non_null(l);
    return l;
}

static bool
publish(struct redis_link *l, const char *name, uint64_t token)
{
    return redis_link_publish(l, VIEW("PUBLISH"), VIEW("p:"), view_str(name), VIEW("head-"), VIEW("body"), token);
}

static bool
subscribe(struct redis_link *l, const char *verb, const char *topic)
{
    struct view v = view_str(topic);
    return redis_link_subscribe(l, view_str(verb), &v, 1, 77);
}

static void
answers_come_in_order_and_messages_come_back(void **state)
{
    (void)state;
    t_redis_start(&server, "");
    open_io();
    struct redis_link *pub = link_to("redis://127.0.0.1:%u", 0), *sub = link_to("redis://127.0.0.1:%u", REDIS_SUBSCRIBES);
    assert_false(publish(pub, "x", 1));
    assert_non_null(redis_link_why(pub));
    UNTIL(told.ups == 2);
    assert_int_equal(metrics[BM_redis_links], 2);
    assert_null(redis_link_why(pub));
    assert_true(subscribe(sub, "SUBSCRIBE", "p:x"));
    UNTIL(told.confirmed == 1);
    assert_string_equal(told.text, "p:x");
    assert_non_null(strstr(t_redis_ask(&server, "CLIENT LIST"), "name=test-sub"));
    for (uint64_t i = 1; i <= 1000; i++)
        assert_true(publish(pub, "x", i));
    assert_int_equal(redis_link_open(pub), 1000);
    UNTIL(told.replies == 1000 && told.messages == 1000);
    assert_true(told.in_order);
    assert_int_equal(told.errors, 0);
    assert_string_equal(told.text, "head-body");
    assert_int_equal(redis_link_bytes(pub), 0);
    assert_true(metrics[BM_redis_sends_total] < 20);
    assert_true(subscribe(sub, "UNSUBSCRIBE", "p:x"));
    UNTIL(told.unconfirmed == 1);
}

static void
errors_are_answers(void **state)
{
    (void)state;
    t_redis_start(&server, "");
    open_io();
    struct redis_link *l = link_to("redis://127.0.0.1:%u", 0);
    UNTIL(told.ups == 1);
    assert_true(redis_link_command(l, VIEW("NO-SUCH"), NULL, 0, 1));
    assert_true(redis_link_command(l, VIEW("ECHO"), (struct view[]){VIEW("a\r\n b")}, 1, 2));
    UNTIL(told.replies == 2);
    assert_true(told.in_order);
    assert_int_equal(told.errors, 1);
    assert_string_equal(told.text, "a\r\n b");
    assert_int_equal(told.losts, 0);
}

static void
a_killed_server_is_lost_and_found(void **state)
{
    (void)state;
    t_redis_start(&server, "");
    open_io();
    struct redis_link *l = link_to("redis://127.0.0.1:%u", REDIS_KEEPS);
    UNTIL(told.ups == 1);
    t_redis_pause(&server);
    for (uint64_t i = 1; i <= 10; i++)
        assert_true(publish(l, "x", i));
    turn();
    t_redis_kill(&server);
    UNTIL(told.losts == 1);
    assert_false(redis_link_is_up(l));
    assert_int_equal(redis_link_open(l), 10);
    assert_int_equal(metrics[BM_redis_links], 0);
    t_redis_restart(&server);
    UNTIL(told.ups == 2);
    UNTIL(told.replies == 10); /* kept, and sent again */
    assert_true(told.in_order);
    assert_int_equal(told.errors, 0);
}

static void
a_stopped_server_is_given_up(void **state)
{
    (void)state;
    t_redis_start(&server, "");
    conf.redis_timeout = 200;
    conf.redis_ping_interval = 50;
    open_io();
    struct redis_link *l = link_to("redis://127.0.0.1:%u", 0);
    UNTIL(told.ups == 1);
    struct mono begin = mono_now();
    while (mono_since_ms(mono_now(), begin) < 500) /* it answers PINGs */
        turn();
    assert_int_equal(told.losts, 0);
    t_redis_pause(&server);
    UNTIL(told.losts == 1);
    assert_non_null(strstr(redis_link_why(l), "redis.timeout"));
    t_redis_resume(&server);
    UNTIL(told.ups == 2);
}

static void
logins_are_asked_for_and_refused(void **state)
{
    (void)state;
    t_redis_start(&server, "--requirepass secret --user bus on >bus-secret resetchannels &p:* -@all +publish +subscribe +unsubscribe");
    open_io();
    struct redis_link *none = link_to("redis://127.0.0.1:%u", 0);
    struct redis_link *wrong = link_to("redis://:wrong@127.0.0.1:%u", 0);
    struct redis_link *bus = link_to("redis://bus:bus%%2dsecret@127.0.0.1:%u", 0);
    UNTIL(redis_link_is_up(bus)); /* though it may not even PING */
    UNTIL(strstr(redis_link_why(wrong), "WRONGPASS") != NULL && strstr(redis_link_why(none), "NOAUTH") != NULL);
    assert_int_equal(told.ups, 1);
    assert_true(publish(bus, "x", 1));
    UNTIL(told.replies == 1);
    assert_int_equal(told.errors, 0);
    assert_true(redis_link_command(bus, VIEW("KEYS"), (struct view[]){VIEW("*")}, 1, 2));
    UNTIL(told.errors == 1);
}

static void
passwords_come_from_a_file(void **state)
{
    (void)state;
    char path[128];
    t_redis_start(&server, "--requirepass secret");
    snprintf(path, sizeof path, "%s/password", server.dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("secret\nnot this\n", f);
    fclose(f);
    set("redis.password_file", path);
    open_io();
    (void)link_to("redis://127.0.0.1:%u", 0);
    UNTIL(told.ups == 1);
}

static void
names_and_sockets_are_reached(void **state)
{
    (void)state;
    char url[200];
    t_redis_start(&server, "");
    open_io();
    (void)link_to("redis://localhost:%u", 0);
    struct redis_link *unknown = link_to("redis://no-such-host.invalid:%u", 0);
    snprintf(url, sizeof url, "unix:%s", server.sock);
    (void)link_to(url, 0);
    UNTIL(told.ups == 2);
    UNTIL(strstr(redis_link_why(unknown), "name") != NULL);
}

/* -- TLS -- */

static char keys[64];

static void
set_key(const char *name, const char *file)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", keys, file);
    set(name, path);
}

static void
certificates_are_verified_and_shown(void **state)
{
    (void)state;
    char more[600];
    t_redis_keys(keys);
    t_redis_certificate(keys, "server", "subjectAltName=DNS:localhost,IP:127.0.0.1");
    t_redis_certificate(keys, "other", "subjectAltName=DNS:elsewhere");
    t_redis_certificate(keys, "client", "extendedKeyUsage=clientAuth");
    snprintf(more, sizeof more, "--user bus on >s ~* &* +@all --tls-cert-file %s/server.pem --tls-key-file %s/server.key --tls-ca-cert-file %s/ca.pem --tls-auth-clients yes",
        keys, keys, keys);
    t_redis_start(&server, more);
    /* the same port, with TLS from now on */
    t_redis_expect(&server, "OK", "CONFIG SET port 0");
    char port[16];
    snprintf(port, sizeof port, "%u", server.port);
    t_redis_expect(&server, "OK", "CONFIG SET tls-port %s", port);
    set_key("redis.tls_ca", "ca.pem");
    set_key("redis.tls_certificate", "client.pem");
    set_key("redis.tls_key", "client.key");
    open_io();
    struct redis_link *l = link_to("rediss://bus:s@127.0.0.1:%u", 0);
    (void)link_to("rediss://bus:s@localhost:%u", REDIS_SUBSCRIBES);
    struct redis_link *plain = link_to("redis://bus:s@127.0.0.1:%u", 0);
    UNTIL(told.ups == 2);
    for (uint64_t i = 1; i <= 3000; i++) {
        while (!publish(l, "x", i))
            turn();
    }
    static const uint8_t big[1000000];
    UNTIL(told.replies == 3000);
    assert_true(redis_link_publish(l, VIEW("PUBLISH"), VIEW(""), VIEW("x"), VIEW("h"), view_of(big, sizeof big), 3001));
    UNTIL(told.replies == 3001 && told.in_order);
    assert_int_equal(told.errors, 0);
    assert_false(redis_link_is_up(plain));
    t_redis_expect(&server, "OK", "CONFIG SET tls-cert-file %s/other.pem tls-key-file %s/other.key", keys, keys);
    struct redis_link *wrong = link_to("rediss://bus:s@127.0.0.1:%u", 0);
    UNTIL(strstr(redis_link_why(wrong), "IP address mismatch") != NULL);
    redis_io_close(io);
    set("redis.tls_verify", "off");
    told.ups = 0;
    open_io();
    (void)link_to("rediss://bus:s@127.0.0.1:%u", 0);
    UNTIL(told.ups == 1);
    redis_io_close(io); /* no certificate of ours: the server ends it */
    set("redis.tls_certificate", "");
    set("redis.tls_key", "");
    open_io();
    struct redis_link *bare = link_to("rediss://bus:s@127.0.0.1:%u", 0);
    UNTIL(metrics[BM_redis_failures_total] > 3 && redis_link_why(bare) != NULL);
    redis_io_close(io); /* and an authority that did not sign */
    set("redis.tls_verify", "on");
    set_key("redis.tls_ca", "other.pem");
    open_io();
    struct redis_link *unknown = link_to("rediss://bus:s@127.0.0.1:%u", 0);
    UNTIL(strstr(redis_link_why(unknown), "self-signed certificate") != NULL);
    t_redis_keys_end(keys);
}

/* -- servers that lie -- */

static int liar = -1;

static uint16_t
start_liar(void)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof in;
    liar = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(liar, (struct sockaddr *)&in, sizeof in), 0);
    assert_int_equal(listen(liar, 8), 0);
    assert_int_equal(getsockname(liar, (struct sockaddr *)&in, &n), 0);
    return ntohs(in.sin_port);
}

static int
take_client(void)
{
    int fd = -1;
    UNTIL((fd = accept(liar, NULL, NULL)) >= 0);
    return fd;
}

static void
what_was_not_asked_ends_the_link(void **state)
{
    (void)state;
    static const char *const lies[] = {"+PONG\r\n", "*3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n", "$999999999\r\n", "nonsense\r\n",
        ":1\r\n", "*2147483647\r\n", "*3\r\n$7\r\nmessage\r\n:1\r\n:2\r\n"};
    server.port = start_liar();
    open_io();
    conf.redis_max_bulk = 1 << 20;
    struct redis_link *l = link_to("redis://127.0.0.1:%u", REDIS_SUBSCRIBES);
    for (unsigned i = 0; i < ARRAY_LEN(lies); i++) {
        int fd = take_client();
        assert_true(write(fd, "+OK\r\n+PONG\r\n", 12) == 12);
        UNTIL(told.ups == i + 1);
        assert_true(write(fd, lies[i], strlen(lies[i])) > 0);
        UNTIL(told.losts == i + 1);
        assert_int_equal(metrics[BM_redis_violations_total], i + 1);
        assert_non_null(redis_link_why(l));
        close(fd);
    }
    close(liar);
    server.port = 0;
}

static void
who_never_answers_costs_a_timeout(void **state)
{
    (void)state;
    conf.redis_connect_timeout = 100;
    server.port = start_liar();
    open_io();
    struct redis_link *l = link_to("redis://127.0.0.1:%u", 0);
    int fd = take_client();
    UNTIL(strstr(redis_link_why(l), "redis.connect_timeout") != NULL);
    assert_int_equal(told.ups + told.losts, 0);
    close(fd);
    close(liar);
    server.port = 0;
}

static void
nothing_is_taken_beyond_the_window(void **state)
{
    (void)state;
    t_redis_start(&server, "");
    open_io();
    struct redis_link *l = link_to("redis://127.0.0.1:%u", 0);
    UNTIL(told.ups == 1);
    t_redis_pause(&server);
    static uint8_t big[4 << 20];
    unsigned taken = 0;
    while (taken < 100000 && publish(l, "x", taken + 1)) {
        taken++;
        if (taken % 64 == 0)
            turn();
    }
    assert_in_range(taken, 1000, 17000);
    assert_in_range(redis_link_bytes(l), 100000, 1 << 20);
    t_redis_resume(&server);
    UNTIL(told.replies == taken);
    /* alone, even what is larger than the window goes */
    assert_true(redis_link_publish(l, VIEW("PUBLISH"), VIEW(""), VIEW("x"), VIEW("h"), view_of(big, sizeof big), taken + 1));
    assert_false(publish(l, "x", taken + 2));
    UNTIL(told.replies == taken + 1);
    assert_int_equal(told.errors, 0);
    assert_true(told.in_order);
}

static void
links_come_and_go(void **state)
{
    (void)state;
    t_redis_start(&server, "");
    open_io();
    for (unsigned round = 0; round < 20; round++) {
        struct redis_link *l[8];
        for (unsigned i = 0; i < 8; i++)
            l[i] = link_to("redis://127.0.0.1:%u", i % 2 ? REDIS_SUBSCRIBES : 0);
        for (unsigned i = 0; i < round % 5; i++)
            turn();
        for (unsigned i = 0; i < 8; i++)
            redis_link_free(l[i]);
    }
    UNTIL(metrics[BM_redis_links] == 0);
    for (unsigned i = 0; i < 200; i++)
        turn();
    struct redis_link *l = link_to("redis://127.0.0.1:%u", 0);
    told.ups = 0;
    UNTIL(told.ups == 1);
    struct redisurl there = *redis_link_where(l);
    there.is_unix = true;
    snprintf(there.path, sizeof there.path, "%s", server.sock);
    redis_link_to(l, &there);
    UNTIL(told.ups == 2);
    assert_int_equal(told.losts, 1);
}

int
main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(answers_come_in_order_and_messages_come_back),
        T(errors_are_answers),
        T(a_killed_server_is_lost_and_found),
        T(a_stopped_server_is_given_up),
        T(logins_are_asked_for_and_refused),
        T(passwords_come_from_a_file),
        T(names_and_sockets_are_reached),
        T(certificates_are_verified_and_shown),
        T(what_was_not_asked_ends_the_link),
        T(who_never_answers_costs_a_timeout),
        T(nothing_is_taken_beyond_the_window),
        T(links_come_and_go),
    };
    if (!t_redis_there()) {
        print_message("skipped: there is no redis-server on this machine (apt-get install redis-server)\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
