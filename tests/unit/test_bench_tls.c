/* The load generator's TLS against OpenSSL's own server, in memory: any split of what arrives, tickets,
 * broken records. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "bench/tls.c"

#include <openssl/ec.h>
#include <openssl/x509.h>

static SSL_CTX *server_ctx;

/* The other end: what the client put lies in `from`, what the server says in `to`. */
struct peer {
    SSL *ssl;
    BIO *from, *to;
};

static int
make_server(void **state)
{
    (void)state;
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    X509_gmtime_adj(X509_getm_notBefore(cert), 0);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_set_pubkey(cert, key);
    X509_sign(cert, key, EVP_sha256());
    server_ctx = SSL_CTX_new(TLS_server_method());
    int good = SSL_CTX_use_certificate(server_ctx, cert) == 1 && SSL_CTX_use_PrivateKey(server_ctx, key) == 1;
    X509_free(cert);
    EVP_PKEY_free(key);
    return good ? 0 : -1;
}

static int
end_server(void **state)
{
    (void)state;
    SSL_CTX_free(server_ctx);
    return 0;
}

static struct peer
peer_new(void)
{
    struct peer p = {SSL_new(server_ctx), BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem())};
    SSL_set_bio(p.ssl, p.from, p.to);
    SSL_set_accept_state(p.ssl);
    return p;
}

static void
put_to_peer(void *arg, uint32_t conn, const uint8_t *p, size_t n)
{
    struct peer *peer = arg;
    assert_int_equal(conn, 7);
    assert_int_equal(BIO_write(peer->from, p, (int)n), (int)n);
}

/* Hands the client what the server said, in pieces; plain text goes to `to`, whose end is returned. -1:
 * the client called it broken. */
static int
deliver(struct tls *t, struct peer *p, int piece, bool *done, uint8_t *to, int at)
{
    uint8_t bytes[512];
    for (int n; (n = BIO_read(p->to, bytes, piece)) > 0;) {
        int rc = 0;
        tls_feed(t, bytes, (size_t)n);
        if (!*done && (rc = tls_handshake(t)) == 1)
            *done = true;
        while (*done && (rc = tls_read(t, to + at, 64)) > 0)
            at += rc;
        if (rc < 0)
            return -1;
    }
    return at;
}

/* Both ends talk until they are through. */
static void
shake(struct tls *t, struct peer *p, int piece)
{
    bool done = false;
    uint8_t nothing[64];
    assert_int_equal(tls_handshake(t), 0);
    for (int i = 0; i < 4; i++) {
        (void)SSL_do_handshake(p->ssl);
        assert_int_equal(deliver(t, p, piece, &done, nothing, 0), 0);
    }
    assert_true(done);
    assert_int_equal(SSL_is_init_finished(p->ssl), 1);
}

static void
talk(int piece, bool only_12)
{
    struct peer p = peer_new();
    struct tls_conf conf = {.host = "localhost", .only_12 = only_12, .put = put_to_peer, .arg = &p};
    struct tls_shared *s = tls_shared_new(&conf);
    struct tls *t = tls_new(s, 7);
    uint8_t back[256] = {0}, got[256] = {0};
    char terms[96];
    bool done = true;
    shake(t, &p, piece);
    tls_describe(t, terms, sizeof terms);
    assert_memory_equal(terms, only_12 ? "TLSv1.2 " : "TLSv1.3 ", 8);
    assert_string_equal(SSL_get_servername(p.ssl, TLSEXT_NAMETYPE_host_name), "localhost");
    assert_true(tls_write(t, (const uint8_t *)"to the server", 13));
    assert_int_equal(SSL_read(p.ssl, got, sizeof got), 13);
    assert_memory_equal(got, "to the server", 13);
    for (int i = 0; i < 3; i++)
        assert_int_equal(SSL_write(p.ssl, "to the client", 13), 13);
    assert_int_equal(deliver(t, &p, piece, &done, back, 0), 39);
    assert_memory_equal(back, "to the clientto the clientto the client", 39);
    /* A record whose tag does not fit ends it. */
    assert_int_equal(BIO_write(p.to, "\x17\x03\x03\x00\x20" "0123456789abcdef0123456789abcdef", 37), 37);
    assert_int_equal(deliver(t, &p, piece, &done, back, 0), -1);
    assert_true(strlen(tls_why()) > 0);
    tls_free(t);
    tls_shared_free(s);
    SSL_free(p.ssl);
}

static void
any_split(void **state)
{
    (void)state;
    for (int piece = 1; piece <= 512; piece = piece * 5 + 1)
        talk(piece, false);
    talk(512, true);
    talk(3, true);
}

static void
tickets_are_used_when_asked_for(void **state)
{
    (void)state;
    for (int resume = 0; resume < 2; resume++) {
        struct peer p = peer_new();
        struct tls_conf conf = {.host = "127.0.0.1", .resume = resume, .put = put_to_peer, .arg = &p};
        struct tls_shared *s = tls_shared_new(&conf);
        for (int i = 0; i < 3; i++) {
            struct tls *t = tls_new(s, 7);
            shake(t, &p, 512);
            assert_null(SSL_get_servername(p.ssl, TLSEXT_NAMETYPE_host_name));
            assert_int_equal(tls_resumed(t), resume && i > 0);
            tls_free(t);
            SSL_free(p.ssl);
            p = peer_new();
        }
        SSL_free(p.ssl);
        tls_shared_free(s);
    }
}

static void
what_is_not_tls_fails(void **state)
{
    (void)state;
    struct peer p = peer_new();
    struct tls_conf conf = {.put = put_to_peer, .arg = &p};
    struct tls_shared *s = tls_shared_new(&conf);
    struct tls *t = tls_new(s, 7);
    static const char plain[] = "HTTP/1.1 400 Bad Request\r\n\r\n";
    assert_int_equal(tls_handshake(t), 0);
    tls_feed(t, (const uint8_t *)plain, sizeof plain - 1);
    assert_int_equal(tls_handshake(t), -1);
    tls_free(t);
    tls_shared_free(s);
    SSL_free(p.ssl);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_split),
        cmocka_unit_test(tickets_are_used_when_asked_for),
        cmocka_unit_test(what_is_not_tls_fails),
    };
    return cmocka_run_group_tests(tests, make_server, end_server);
}
