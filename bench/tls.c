/* TLS for the load generator; see tls.h. */
#include "bench/tls.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/bug.h"

struct tls_shared {
    struct tls_conf conf;
    SSL_CTX *ctx;
    BIO_METHOD *method;
    SSL_SESSION *ticket; /* the newest, with resume */
    bool named;          /* conf.host is a name */
};

struct tls {
    SSL *ssl;
    struct tls_shared *shared;
    const uint8_t *in; /* fed and not taken yet */
    size_t in_n;
    uint32_t conn;
};

/* --- the BIO: reads what was fed, writes to put -------------------------------------------- */

static int
bio_write(BIO *b, const char *p, size_t n, size_t *wrote)
{
    struct tls *t = BIO_get_data(b);
    t->shared->conf.put(t->shared->conf.arg, t->conn, (const uint8_t *)p, n);
    *wrote = n;
    return 1;
}

static int
bio_read(BIO *b, char *to, size_t cap, size_t *got)
{
    struct tls *t = BIO_get_data(b);
    BIO_clear_retry_flags(b);
    size_t n = MIN(cap, t->in_n);
    if (n == 0) {
        BIO_set_retry_read(b);
        return 0;
    }
    memcpy(to, t->in, n);
    t->in += n;
    t->in_n -= n;
    *got = n;
    return 1;
}

static long
bio_ctrl(BIO *b, int cmd, long num, void *ptr)
{
    (void)b;
    (void)num;
    (void)ptr;
    return cmd == BIO_CTRL_FLUSH;
}

/* --- what connections share ---------------------------------------------------------------- */

/* Keeps the ticket: returning 1 makes the session ours. */
static int
on_ticket(SSL *ssl, SSL_SESSION *session)
{
    struct tls *t = SSL_get_app_data(ssl);
    SSL_SESSION_free(t->shared->ticket);
    t->shared->ticket = session;
    return 1;
}

const char *
tls_why(void)
{
    static char text[256];
    unsigned long e = ERR_peek_last_error();
    ERR_clear_error();
    if (e == 0)
        return "the stream ended";
    ERR_error_string_n(e, text, sizeof text);
    return text;
}

static void
set_up(struct tls_shared *s)
{
    s->ctx = SSL_CTX_new(TLS_client_method());
    s->method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "ring");
    if (s->ctx == NULL || s->method == NULL)
        die("OpenSSL: %s", tls_why());
    BIO_meth_set_write_ex(s->method, bio_write);
    BIO_meth_set_read_ex(s->method, bio_read);
    BIO_meth_set_ctrl(s->method, bio_ctrl);
    SSL_CTX_set_min_proto_version(s->ctx, TLS1_2_VERSION);
    if (s->conf.only_12)
        SSL_CTX_set_max_proto_version(s->ctx, TLS1_2_VERSION);
    SSL_CTX_set_mode(s->ctx, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_verify(s->ctx, SSL_VERIFY_NONE, NULL);
    static const unsigned char alpn[] = "\x08http/1.1";
    SSL_CTX_set_alpn_protos(s->ctx, alpn, sizeof alpn - 1);
    if (s->conf.resume) {
        SSL_CTX_set_session_cache_mode(s->ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(s->ctx, on_ticket);
    } else {
        SSL_CTX_set_session_cache_mode(s->ctx, SSL_SESS_CACHE_OFF);
    }
}

struct tls_shared *
tls_shared_new(const struct tls_conf *conf)
{
    struct tls_shared *s = xcalloc(1, sizeof *s);
    struct in_addr v4;
    s->conf = *conf;
    s->named = conf->host != NULL && inet_pton(AF_INET, conf->host, &v4) != 1;
    set_up(s);
    return s;
}

void
tls_shared_free(struct tls_shared *s)
{
    if (s == NULL)
        return;
    SSL_SESSION_free(s->ticket);
    SSL_CTX_free(s->ctx);
    BIO_meth_free(s->method);
    free(s);
}

/* --- one connection ------------------------------------------------------------------------ */

struct tls *
tls_new(struct tls_shared *s, uint32_t conn)
{
    struct tls *t = xcalloc(1, sizeof *t);
    BIO *bio = BIO_new(s->method);
    t->ssl = SSL_new(s->ctx);
    if (t->ssl == NULL || bio == NULL)
        die("OpenSSL: %s", tls_why());
    t->shared = s;
    t->conn = conn;
    BIO_set_data(bio, t);
    BIO_set_init(bio, 1);
    SSL_set_bio(t->ssl, bio, bio);
    SSL_set_app_data(t->ssl, t);
    SSL_set_connect_state(t->ssl);
    if (s->named)
        SSL_set_tlsext_host_name(t->ssl, s->conf.host);
    if (s->ticket != NULL)
        SSL_set_session(t->ssl, s->ticket);
    return t;
}

void
tls_free(struct tls *t)
{
    if (t == NULL)
        return;
    /* Without this OpenSSL calls the session broken, and its ticket is of no use any more. */
    SSL_set_shutdown(t->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(t->ssl);
    free(t);
}

void
tls_feed(struct tls *t, const uint8_t *p, size_t n)
{
    BUG_ON(t->in_n != 0);
    t->in = p;
    t->in_n = n;
}

int
tls_handshake(struct tls *t)
{
    int rc = SSL_do_handshake(t->ssl);
    if (rc == 1)
        return 1;
    return SSL_get_error(t->ssl, rc) == SSL_ERROR_WANT_READ ? 0 : -1;
}

int
tls_read(struct tls *t, uint8_t *to, int cap)
{
    int n = SSL_read(t->ssl, to, cap);
    if (n > 0)
        return n;
    return SSL_get_error(t->ssl, n) == SSL_ERROR_WANT_READ ? 0 : -1;
}

bool
tls_write(struct tls *t, const uint8_t *p, size_t n)
{
    size_t wrote = 0;
    return n == 0 || (SSL_write_ex(t->ssl, p, n, &wrote) == 1 && wrote == n);
}

bool
tls_resumed(const struct tls *t)
{
    return SSL_session_reused(t->ssl) == 1;
}

void
tls_describe(const struct tls *t, char *out, size_t cap)
{
    EVP_PKEY *key = NULL;
    const char *group = "RSA key exchange";
    if (SSL_get_peer_tmp_key(t->ssl, &key) == 1 && key != NULL)
        group = OBJ_nid2sn(EVP_PKEY_get_base_id(key));
    snprintf(out, cap, "%s %s %s", SSL_get_version(t->ssl), SSL_get_cipher_name(t->ssl), group);
    EVP_PKEY_free(key);
}
