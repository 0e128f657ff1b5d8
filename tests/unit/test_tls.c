/* worker/tls against OpenSSL's own client, all in memory: records cut anywhere, tickets that other servers
 * of the same secret take, client certificates, floods of key updates, files that are wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "common/bug.h"
#include "worker/tls.h"

#include <cmocka.h>

static char dir[64];
static struct conf conf;
static struct rc_pool blocks;

static const char *
path_of(const char *name)
{
    static char path[4][128];
    static unsigned i;
    char *p = path[i++ & 3];
    snprintf(p, sizeof path[0], "%s/%s", dir, name);
    return p;
}

static void
add_ext(X509 *cert, int nid, const char *value)
{
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, NULL, nid, value);
    assert_non_null(e);
    X509_add_ext(cert, e, -1);
    X509_EXTENSION_free(e);
}

/* A self-signed certificate for `name` in NAME.pem and NAME.key. */
static void
make_pair(const char *name, const char *dns)
{
    char file[64];
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    assert_non_null(key);
    X509_set_version(cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(cert), 86400);
    X509_set_pubkey(cert, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(cert, X509_get_subject_name(cert));
    add_ext(cert, NID_basic_constraints, "critical,CA:TRUE");
    add_ext(cert, NID_subject_alt_name, dns);
    assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
    snprintf(file, sizeof file, "%s.pem", name);
    FILE *f = fopen(path_of(file), "w");
    PEM_write_X509(f, cert);
    fclose(f);
    snprintf(file, sizeof file, "%s.key", name);
    f = fopen(path_of(file), "w");
    PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL);
    fclose(f);
    X509_free(cert);
    EVP_PKEY_free(key);
}

static void
set(const char *key, const char *value)
{
    struct conf_error err;
    if (!conf_set(&conf, key, value, "test", &err))
        fail_msg("%s", err.text);
}

static int
setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/test-tls-XXXXXX");
    assert_non_null(mkdtemp(dir));
    make_pair("one", "DNS:one.test");
    make_pair("two", "DNS:two.test,DNS:*.two.test");
    make_pair("client", "DNS:client.test");
    return 0;
}

static int
teardown(void **state)
{
    static const char *const names[] = {"one.pem", "one.key", "two.pem", "two.key", "client.pem", "client.key",
        "ticket-secret", "short", "other-secret"};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        unlink(path_of(names[i]));
    rmdir(dir);
    rc_pool_fini(&blocks);
    return 0;
}

/* Settings for one certificate, or two. */
static int
fresh_conf(void **state)
{
    char list[300];
    (void)state;
    conf_free(&conf); /* a test may begin anew */
    conf_defaults(&conf);
    set("run.dir", dir);
    snprintf(list, sizeof list, "%s,%s", path_of("one.pem"), path_of("two.pem"));
    set("tls.certificate", list);
    snprintf(list, sizeof list, "%s,%s", path_of("one.key"), path_of("two.key"));
    set("tls.key", list);
    return 0;
}

static int
drop_conf(void **state)
{
    (void)state;
    conf_free(&conf);
    return 0;
}

static struct tls_server *
server(void)
{
    struct conf_error err;
    struct tls_server *s = tls_server_new(&conf, &err);
    if (s == NULL)
        fail_msg("%s", err.text);
    return s;
}

/* -- two ends and the bytes between them -- */

struct pair {
    struct tls_conn *t;
    struct tls_io io;
    SSL *client;
    SSL_CTX *ctx;
    BIO *to_client, *to_server;
    size_t chunk; /* of what reaches the server at once */
    enum tls_rc rc;
    bool shaken;
    uint8_t got[1 << 17];
    size_t got_n;
};

static bool
to_client(void *arg, const uint8_t *p, size_t n)
{
    struct pair *x = arg;
    return BIO_write(x->to_client, p, (int)n) == (int)n;
}

static struct pair *
pair_new(struct tls_server *s, int version, size_t chunk)
{
    struct pair *x = calloc(1, sizeof *x);
    x->ctx = SSL_CTX_new(TLS_client_method());
    if (version != 0) {
        SSL_CTX_set_min_proto_version(x->ctx, version);
        SSL_CTX_set_max_proto_version(x->ctx, version);
    }
    SSL_CTX_set_session_cache_mode(x->ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    x->client = SSL_new(x->ctx);
    x->to_client = BIO_new(BIO_s_mem());
    x->to_server = BIO_new(BIO_s_mem());
    SSL_set_bio(x->client, x->to_client, x->to_server);
    SSL_set_connect_state(x->client);
    x->t = tls_conn_new(s);
    assert_non_null(x->t);
    x->io = (struct tls_io){.out = to_client, .arg = x};
    x->chunk = chunk;
    x->rc = TLS_MORE;
    return x;
}

static void
pair_free(struct pair *x)
{
    SSL_free(x->client);
    SSL_CTX_free(x->ctx);
    tls_conn_free(x->t, &blocks);
    free(x);
}

static void
read_all(struct pair *x)
{
    size_t n;
    while ((x->rc = tls_read(x->t, &x->io, x->got + x->got_n, &n)) == TLS_DONE)
        x->got_n += n;
}

/* Everything the client has written reaches the server, chunk by chunk. */
static void
carry(struct pair *x)
{
    uint8_t piece[4096];
    int n;
    while (x->rc != TLS_BROKEN && (n = BIO_read(x->to_server, piece, (int)MIN(x->chunk, sizeof piece))) > 0) {
        x->io.in = piece;
        x->io.in_n = (size_t)n;
        if (!x->shaken) {
            x->rc = tls_handshake(x->t, &x->io);
            x->shaken = x->rc == TLS_DONE;
        }
        if (x->shaken)
            read_all(x);
        assert_true(x->rc == TLS_BROKEN || x->io.in_n == 0); /* nothing is offered twice */
    }
}

static bool
shake(struct pair *x)
{
    for (int i = 0; i < 10; i++) {
        ERR_clear_error();
        int rc = SSL_do_handshake(x->client);
        int why = rc == 1 ? SSL_ERROR_NONE : SSL_get_error(x->client, rc);
        carry(x);
        if (rc == 1 && x->shaken)
            return true;
        if (why != SSL_ERROR_NONE && why != SSL_ERROR_WANT_READ)
            return false;
    }
    return false;
}

static void
test_messages_cross_in_both_directions_however_records_are_cut(void **state)
{
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    static const size_t chunks[] = {1, 7, 4096};
    (void)state;
    struct tls_server *s = server();
    for (size_t v = 0; v < ARRAY_LEN(versions); v++)
        for (size_t k = 0; k < ARRAY_LEN(chunks); k++) {
            struct pair *x = pair_new(s, versions[v], chunks[k]);
            assert_true(shake(x));
            static uint8_t big[40000], back[40000];
            RAND_bytes(big, sizeof big);
            assert_int_equal(SSL_write(x->client, big, sizeof big), sizeof big);
            carry(x);
            assert_int_equal(x->got_n, sizeof big);
            assert_memory_equal(x->got, big, sizeof big);
            assert_true(tls_write(x->t, &x->io, big, TLS_PLAIN_MAX));
            assert_true(tls_write(x->t, &x->io, big + TLS_PLAIN_MAX, 100));
            size_t n = 0;
            for (int r; n < TLS_PLAIN_MAX + 100 && (r = SSL_read(x->client, back + n, (int)(sizeof back - n))) > 0;)
                n += (size_t)r;
            assert_int_equal(n, TLS_PLAIN_MAX + 100);
            assert_memory_equal(back, big, n);
            assert_string_equal(tls_version(x->t), versions[v] == TLS1_2_VERSION ? "TLSv1.2" : "TLSv1.3");
            tls_end(x->t, &x->io);
            assert_true(SSL_read(x->client, back, 1) <= 0);
            assert_int_equal(SSL_get_shutdown(x->client) & SSL_RECEIVED_SHUTDOWN, SSL_RECEIVED_SHUTDOWN);
            SSL_shutdown(x->client);
            carry(x);
            assert_int_equal(x->rc, TLS_EOF);
            pair_free(x);
        }
    tls_server_unref(s);
}

static void
test_tls_1_1_and_noise_are_refused(void **state)
{
    (void)state;
    struct tls_server *s = server();
    struct pair *x = pair_new(s, TLS1_1_VERSION, 4096);
    SSL_set_security_level(x->client, 0);
    assert_false(shake(x));
    assert_int_equal(x->rc, TLS_BROKEN);
    pair_free(x);
    x = pair_new(s, 0, 4096);
    assert_true(shake(x));
    BIO_write(x->to_server, "this is no record at all", 24);
    carry(x);
    assert_int_equal(x->rc, TLS_BROKEN);
    assert_false(tls_write(x->t, &x->io, (const uint8_t *)"x", 1));
    pair_free(x);
    set("tls.min_version", "1.3");
    struct tls_server *strict = server();
    x = pair_new(strict, TLS1_2_VERSION, 4096);
    assert_false(shake(x));
    pair_free(x);
    tls_server_unref(strict);
    tls_server_unref(s);
}

static SSL_SESSION *kept;

static int
keep_session(SSL *ssl, SSL_SESSION *session)
{
    (void)ssl;
    SSL_SESSION_free(kept);
    kept = SSL_SESSION_dup(session); /* the connection spoils its own when it ends without a goodbye */
    return 0;
}

/* A handshake that may bring a ticket and keeps the one it gets; whether it was resumed. */
static bool
visit(struct tls_server *s, int version, SSL_SESSION *with)
{
    struct pair *x = pair_new(s, version, 4096);
    uint8_t none;
    SSL_CTX_sess_set_new_cb(x->ctx, keep_session);
    if (with != NULL)
        SSL_set_session(x->client, with);
    assert_true(shake(x));
    assert_true(SSL_read(x->client, &none, 1) <= 0); /* takes in the ticket of TLS 1.3 */
    bool resumed = tls_was_resumed(x->t);
    assert_int_equal(resumed, SSL_session_reused(x->client));
    pair_free(x);
    return resumed;
}

/* Whether the server takes the handshake of a client that has a ticket and no certificate. */
static bool
is_let_in(struct tls_server *s, int version, SSL_SESSION *with)
{
    struct pair *x = pair_new(s, version, 4096);
    SSL_set_session(x->client, with);
    (void)shake(x);
    bool in = x->shaken;
    pair_free(x);
    return in;
}

static void
test_tickets_are_taken_by_every_server_of_the_secret(void **state)
{
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    (void)state;
    for (size_t v = 0; v < ARRAY_LEN(versions); v++) {
        struct tls_server *s = server(), *again = server(); /* another ring, or after a restart */
        assert_false(visit(s, versions[v], NULL));
        assert_non_null(kept);
        SSL_SESSION *ticket = kept;
        kept = NULL;
        assert_true(visit(again, versions[v], ticket));
        FILE *f = fopen(path_of("other-secret"), "w");
        fprintf(f, "%048d", 7);
        fclose(f);
        set("tls.ticket_secret", path_of("other-secret"));
        struct tls_server *other = server();
        assert_false(visit(other, versions[v], ticket));
        set("tls.ticket_secret", "");
        SSL_SESSION_free(ticket);
        SSL_SESSION_free(kept);
        kept = NULL;
        tls_server_unref(s);
        tls_server_unref(again);
        tls_server_unref(other);
    }
}

static void
test_a_ticket_does_not_stand_for_a_certificate_that_was_not_asked_for(void **state)
{
    static const char *const now[][2] = {{"off", ""}, {"optional", "client.pem"}, {"required", "client.pem"}, {"optional", "two.pem"}};
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    (void)state;
    for (size_t v = 0; v < ARRAY_LEN(versions); v++)
        for (size_t from = 0; from < 2; from++)
            for (size_t to = 0; to < ARRAY_LEN(now); to++) {
                set("tls.client_verify", now[from][0]);
                set("tls.client_ca", path_of(now[from][1]));
                struct tls_server *before = server();
                assert_false(visit(before, versions[v], NULL));
                SSL_SESSION *ticket = kept;
                kept = NULL;
                set("tls.client_verify", now[to][0]);
                set("tls.client_ca", path_of(now[to][1]));
                struct tls_server *after = server();
                if (strcmp(now[to][0], "required") == 0)
                    assert_false(is_let_in(after, versions[v], ticket));
                else
                    assert_int_equal(visit(after, versions[v], ticket), from == to);
                SSL_SESSION_free(ticket);
                SSL_SESSION_free(kept);
                kept = NULL;
                tls_server_unref(before);
                tls_server_unref(after);
            }
}

static void
expect_certificate(struct tls_server *s, const char *ask, const char *cn)
{
    struct pair *x = pair_new(s, 0, 4096);
    if (ask != NULL)
        SSL_set_tlsext_host_name(x->client, ask);
    assert_true(shake(x));
    char got[64] = "";
    X509 *cert = SSL_get0_peer_certificate(x->client);
    X509_NAME_get_text_by_NID(X509_get_subject_name(cert), NID_commonName, got, sizeof got);
    assert_string_equal(got, cn);
    pair_free(x);
}

static void
test_the_certificate_fits_the_name_that_was_asked_for(void **state)
{
    (void)state;
    struct tls_server *s = server();
    expect_certificate(s, NULL, "one");
    expect_certificate(s, "one.test", "one");
    expect_certificate(s, "two.test", "two");
    expect_certificate(s, "a.two.test", "two");
    expect_certificate(s, "elsewhere.test", "one");
    tls_server_unref(s);
}

static void
test_alpn_is_http_1_1_or_nothing(void **state)
{
    (void)state;
    struct tls_server *s = server();
    const unsigned char *got;
    unsigned n;
    struct pair *x = pair_new(s, 0, 4096);
    SSL_set_alpn_protos(x->client, (const unsigned char *)"\x02h2\x08http/1.1", 12);
    assert_true(shake(x));
    SSL_get0_alpn_selected(x->client, &got, &n);
    assert_int_equal(n, 8);
    assert_memory_equal(got, "http/1.1", 8);
    pair_free(x);
    x = pair_new(s, 0, 4096);
    SSL_set_alpn_protos(x->client, (const unsigned char *)"\x02h2", 3);
    assert_false(shake(x));
    pair_free(x);
    tls_server_unref(s);
}

static void
test_client_certificates_off_optional_required(void **state)
{
    static const struct {
        const char *verify, *cert;
        bool passes;
        const char *subject;
    } rows[] = {
        {"off", "client", true, ""},
        {"optional", NULL, true, ""},
        {"optional", "client", true, "CN=client"},
        {"optional", "two", false, ""},
        {"required", NULL, false, ""},
        {"required", "client", true, "CN=client"},
        {"required", "two", false, ""},
    };
    (void)state;
    set("tls.client_ca", path_of("client.pem"));
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char file[32], subject[64];
        set("tls.client_verify", rows[i].verify);
        struct tls_server *s = server();
        struct pair *x = pair_new(s, TLS1_2_VERSION, 4096); /* where the client learns of a refusal in the handshake */
        if (rows[i].cert != NULL) {
            snprintf(file, sizeof file, "%s.pem", rows[i].cert);
            assert_int_equal(SSL_use_certificate_file(x->client, path_of(file), SSL_FILETYPE_PEM), 1);
            snprintf(file, sizeof file, "%s.key", rows[i].cert);
            assert_int_equal(SSL_use_PrivateKey_file(x->client, path_of(file), SSL_FILETYPE_PEM), 1);
        }
        assert_int_equal(shake(x), rows[i].passes);
        tls_subject(x->t, subject, sizeof subject);
        if (rows[i].passes)
            assert_string_equal(subject, rows[i].subject);
        pair_free(x);
        tls_server_unref(s);
    }
}

static void
test_key_updates_are_bounded_by_the_second(void **state)
{
    (void)state;
    struct tls_server *s = server();
    for (int slow = 0; slow < 2; slow++) {
        struct pair *x = pair_new(s, TLS1_3_VERSION, 4096);
        assert_true(shake(x));
        for (int i = 0; i < 3 * TLS_UPDATES_MAX && x->rc != TLS_BROKEN; i++) {
            x->io.second = slow ? (uint32_t)i / TLS_UPDATES_MAX : 0;
            SSL_key_update(x->client, SSL_KEY_UPDATE_NOT_REQUESTED);
            SSL_do_handshake(x->client);
            carry(x);
        }
        assert_int_equal(x->rc, slow ? TLS_MORE : TLS_BROKEN);
        pair_free(x);
    }
    tls_server_unref(s);
}

static void
test_renegotiation_is_refused(void **state)
{
    (void)state;
    struct tls_server *s = server();
    struct pair *x = pair_new(s, TLS1_2_VERSION, 4096);
    uint8_t none;
    assert_true(shake(x));
    SSL_renegotiate(x->client);
    SSL_do_handshake(x->client);
    carry(x);
    assert_int_equal(x->t->updates, 1); /* bounded as key updates are */
    assert_true(SSL_read(x->client, &none, 1) <= 0);
    assert_int_equal(x->got_n, 0);
    assert_int_not_equal(SSL_do_handshake(x->client), 1);
    pair_free(x);
    tls_server_unref(s);
}

static void
expect_refusal(const char *key, const char *value, const char *says)
{
    struct conf_error err;
    set(key, value);
    assert_null(tls_server_new(&conf, &err));
    if (strstr(err.text, says) == NULL)
        fail_msg("%s=%s: %s", key, value, err.text);
}

static void
test_files_that_are_wrong_are_named(void **state)
{
    (void)state;
    FILE *f = fopen(path_of("short"), "w");
    fputs("too short", f);
    fclose(f);
    expect_refusal("tls.certificate", path_of("nowhere.pem"), "nowhere.pem: No such file or directory");
    expect_refusal("tls.certificate", path_of("short"), "PEM");
    fresh_conf(NULL);
    expect_refusal("tls.key", path_of("two.key"), "two.key"); /* of another certificate */
    fresh_conf(NULL);
    expect_refusal("tls.ciphers", "NONSUCH", "tls.ciphers");
    fresh_conf(NULL);
    expect_refusal("tls.cipher_suites", "NONSUCH", "tls.cipher_suites");
    fresh_conf(NULL);
    expect_refusal("tls.ticket_secret", path_of("short"), "random");
    fresh_conf(NULL);
    set("tls.client_verify", "required");
    expect_refusal("tls.client_ca", path_of("nowhere.pem"), "nowhere.pem: No such file or directory");
}

static void
test_connections_outlive_the_server_they_began_with(void **state)
{
    (void)state;
    struct tls_server *s = server();
    struct pair *x = pair_new(s, TLS1_3_VERSION, 4096), *y = pair_new(s, TLS1_3_VERSION, 4096);
    assert_true(shake(x));
    tls_server_unref(s); /* a reload: x is shaken, y has not begun */
    assert_true(shake(y));
    assert_int_equal(SSL_write(x->client, "still", 5), 5);
    carry(x);
    assert_memory_equal(x->got, "still", 5);
    pair_free(x);
    pair_free(y);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, fresh_conf, drop_conf)
        T(test_messages_cross_in_both_directions_however_records_are_cut),
        T(test_tls_1_1_and_noise_are_refused),
        T(test_tickets_are_taken_by_every_server_of_the_secret),
        T(test_a_ticket_does_not_stand_for_a_certificate_that_was_not_asked_for),
        T(test_the_certificate_fits_the_name_that_was_asked_for),
        T(test_alpn_is_http_1_1_or_nothing),
        T(test_client_certificates_off_optional_required),
        T(test_key_updates_are_bounded_by_the_second),
        T(test_renegotiation_is_refused),
        T(test_files_that_are_wrong_are_named),
        T(test_connections_outlive_the_server_they_began_with),
#undef T
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
