/* worker/xp_tls: what a TLS port makes of first bytes, and what that costs. Whole handshakes are in
 * test_tls.c and, with real clients, in tests/e2e/tls.test.mjs. */
#include "tests/unit/t_worker.h"

#include <fcntl.h>
#include <unistd.h>

#include <openssl/ssl.h>

#include "worker/outq.h"
#include "worker/xp_tls.h"

static char cert[] = "/tmp/test-xp-tls-XXXXXX";

static int
make_certificate(void **state)
{
    char command[300];
    (void)state;
    close(mkstemp(cert));
    snprintf(command, sizeof command, "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
                                      "-subj /CN=x -keyout %s -out %s.c 2>/dev/null && cat %s.c >> %s; rm -f %s.c",
        cert, cert, cert, cert, cert);
    return system(command);
}

static int
drop_certificate(void **state)
{
    (void)state;
    return unlink(cert);
}

static void
begin_tls(void)
{
    struct conf_error err;
    assert_true(conf_set(&t.conf, "tls.certificate", cert, "test", &err));
    t.tls = true;
    t_begin();
}

/* A ClientHello of OpenSSL's, as bytes. */
static size_t
client_hello(uint8_t *out, size_t cap)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL *ssl = SSL_new(ctx);
    BIO *in = BIO_new(BIO_s_mem()), *from = BIO_new(BIO_s_mem());
    SSL_set_bio(ssl, in, from);
    SSL_set_connect_state(ssl);
    SSL_do_handshake(ssl);
    int n = BIO_read(from, out, (int)cap);
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    assert_true(n > 100);
    return (size_t)n;
}

static void
half_a_hello_costs_no_session(void **state)
{
    (void)state;
    uint8_t hello[2000];
    size_t n = client_hello(hello, sizeof hello);
    begin_tls();
    struct t_client *c = t_connect(0);
    for (size_t i = 0; i < n - 1; i++) {
        t_send(c, hello + i, 1);
        t_turn();
    }
    T_UNTIL(t_conn(c)->in != NULL && t_conn(c)->in->held.n == n - 1);
    assert_null(t_conn(c)->tls);
    t_send(c, hello + n - 1, 1);
    T_UNTIL(t_conn(c)->tls != NULL);
    T_UNTIL(outq_is_empty(t_conn(c))); /* the server's flight has left */
    t_receive(c);
    assert_int_equal(c->in.p[0], 22);
    assert_null(t_conn(c)->in);
    assert_int_equal(t_counter(tls_connections), 1);
}

static void
plain_http_is_told_and_ended(void **state)
{
    (void)state;
    begin_tls();
    struct t_client *c = t_connect(0);
    t_send(c, "GET / HTTP/1.1\r\n\r\n", 18);
    T_UNTIL(t_closes(CLOSE_TLS_EXPECTED) == 1);
    t_turn();
    t_receive(c);
    assert_memory_equal(c->in.p, "HTTP/1.1 400 ", 13);
    assert_memory_equal(c->in.p + c->in.n - 7, "wss://\n", 7);
}

static void
noise_is_ended(void **state)
{
    static const char *const noise[] = {"\x01", "\x16\x02", "\x16\x03\x01\xff\xff", "\x80\x2e\x01"};
    (void)state;
    begin_tls();
    for (unsigned i = 0; i < ARRAY_LEN(noise); i++) {
        struct t_client *c = t_connect(0);
        t_send(c, noise[i], strlen(noise[i]));
        T_UNTIL(t_closes(CLOSE_TLS_BROKEN) == i + 1);
    }
}

static void
handshakes_wait_for_their_turn(void **state)
{
    (void)state;
    uint8_t hello[2000];
    size_t n = client_hello(hello, sizeof hello);
    t.conf.tls_handshakes_per_turn = 2;
    begin_tls();
    struct t_client *c[7];
    for (unsigned i = 0; i < 7; i++) {
        c[i] = t_connect(0);
        t_send(c[i], hello, n);
    }
    uint64_t began = t_counter(tls_connections);
    for (unsigned turns = 0; t_counter(tls_connections) < 7; turns++) {
        assert_true(turns < 1000);
        t_turn();
        assert_true(t_counter(tls_connections) <= began + 2);
        began = t_counter(tls_connections);
    }
    assert_int_equal(t_counter(tls_paced_total), 5);
}

/* A storm takes all turns, and one that waits in it sends and sends: it has no session yet. */
static void
too_much_before_its_turn_ends_it(void **state)
{
    (void)state;
    uint8_t hello[2000];
    static uint8_t more[80000];
    size_t n = client_hello(hello, sizeof hello);
    t.conf.tls_handshakes_per_turn = 0;
    begin_tls();
    log_set_level(LOG_L_DEBUG); /* that it ends is said in words then */
    struct t_client *c = t_connect(0);
    t_send(c, hello, n);
    T_UNTIL(t_counter(tls_paced_total) == 1);
    t_send(c, more, sizeof more);
    T_UNTIL(t_closes(CLOSE_TLS_BROKEN) == 1);
    log_set_level(LOG_L_ERROR);
    assert_int_equal(t_counter(tls_connections), 0);
}

static void
a_hello_on_a_plain_port_gets_an_alert(void **state)
{
    (void)state;
    t_begin();
    struct t_client *c = t_connect(0);
    t_send(c, "\x16\x03\x01\x02\x00\x01", 6);
    T_UNTIL(t_closes(CLOSE_TLS_UNEXPECTED) == 1);
    t_turn();
    t_receive(c);
    assert_int_equal(c->in.n, 7);
    assert_int_equal(c->in.p[0], 21);
}

static void
silence_ends_at_the_timeout(void **state)
{
    (void)state;
    begin_tls();
    struct t_client *c = t_connect(0);
    t_turn();
    t_pass(t.conf.tls_handshake_timeout + 100);
    T_UNTIL(t_closes(CLOSE_TLS_TIMEOUT) == 1);
    (void)c;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        T(half_a_hello_costs_no_session),
        T(plain_http_is_told_and_ended),
        T(noise_is_ended),
        T(handshakes_wait_for_their_turn),
        T(too_much_before_its_turn_ends_it),
        T(a_hello_on_a_plain_port_gets_an_alert),
        T(silence_ends_at_the_timeout),
    };
    return cmocka_run_group_tests(tests, make_certificate, drop_certificate);
}
