#include "common/tlsc.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/file.h"

#include "common/banned.h"

#define FILE_MAX ((size_t)4 << 20) /* a bundle of all authorities there are has a quarter of it */
#define CHAIN_MAX 16

struct tlsc_shared {
    SSL_CTX *ctx;
    bool verify;
};

struct tlsc {
    SSL *ssl;
    BIO *in, *out; /* freed with ssl */
};

/* -- files, through file_open: our user may not be able to read them himself -- */

static bool
read_file(const char *path, struct buf *out)
{
    int fd = file_open(path);
    if (fd < 0)
        return false;
    ssize_t n = 0;
    do {
        out->n += (size_t)n;
        if (!buf_reserve(out, 4096)) {
            errno = EFBIG;
            n = -1;
            break;
        }
    } while ((n = read(fd, out->p + out->n, out->cap - out->n)) > 0);
    int e = errno;
    close(fd);
    errno = e;
    return n == 0;
}

/* A file as OpenSSL reads them; NULL with a sentence. */
static BIO *
open_pem(const char *path, struct buf *mem, const char *what, const char *setting, struct conf_error *err)
{
    *mem = buf_make(FILE_MAX);
    BIO *b = read_file(path, mem) ? BIO_new_mem_buf(mem->p, (int)mem->n) : NULL;
    if (b == NULL)
        (void)conf_fail(err, "%s.%s: can't read %s: %s", what, setting, path, strerror(errno));
    return b;
}

static void
close_pem(BIO *b, struct buf *mem)
{
    BIO_free(b);
    if (mem->p != NULL)
        OPENSSL_cleanse(mem->p, mem->n);
    buf_free(mem);
}

static bool
add_authorities(SSL_CTX *ctx, const char *path, const char *what, struct conf_error *err)
{
    struct buf mem;
    BIO *b = open_pem(path, &mem, what, "tls_ca", err);
    unsigned n = 0;
    for (X509 *x; b != NULL && (x = PEM_read_bio_X509(b, NULL, NULL, NULL)) != NULL; n++) {
        (void)X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), x); /* takes a reference; twice the same is no harm */
        X509_free(x);
    }
    ERR_clear_error(); /* the end of the file is one */
    if (b != NULL && n == 0)
        (void)conf_fail(err, "%s.tls_ca: there is no certificate in %s", what, path);
    close_pem(b, &mem);
    return n > 0;
}

static bool
use_certificate(SSL_CTX *ctx, const char *path, const char *what, struct conf_error *err)
{
    struct buf mem;
    BIO *b = open_pem(path, &mem, what, "tls_certificate", err);
    X509 *own = b != NULL ? PEM_read_bio_X509(b, NULL, NULL, NULL) : NULL, *next = NULL;
    bool ok = own != NULL && SSL_CTX_use_certificate(ctx, own) == 1;
    for (unsigned n = 0; ok && n < CHAIN_MAX && (next = PEM_read_bio_X509(b, NULL, NULL, NULL)) != NULL; n++) {
        ok = SSL_CTX_add1_chain_cert(ctx, next) == 1;
        X509_free(next);
    }
    ERR_clear_error();
    if (b != NULL && !ok)
        (void)conf_fail(err, "%s.tls_certificate: there is no certificate of use in %s", what, path);
    X509_free(own);
    close_pem(b, &mem);
    return ok;
}

/* There is nobody to ask for a password. */
static int
no_password(char *to, int cap, int writing, void *arg)
{
    (void)to;
    (void)cap;
    (void)writing;
    (void)arg;
    return -1;
}

static bool
use_key(SSL_CTX *ctx, const char *path, const char *what, struct conf_error *err)
{
    struct buf mem;
    BIO *b = open_pem(path, &mem, what, "tls_key", err);
    EVP_PKEY *key = b != NULL ? PEM_read_bio_PrivateKey(b, NULL, no_password, NULL) : NULL;
    bool ok = key != NULL && SSL_CTX_use_PrivateKey(ctx, key) == 1 && SSL_CTX_check_private_key(ctx) == 1;
    if (b != NULL && !ok)
        (void)conf_fail(err, "%s.tls_key: there is no private key without a password in %s that belongs to the certificate",
            what, path);
    ERR_clear_error();
    EVP_PKEY_free(key);
    close_pem(b, &mem);
    return ok;
}

/* -- what connections share -- */

static bool
set_up(SSL_CTX *ctx, const struct tlsc_conf *c, const char *what, struct conf_error *err)
{
    if (ctx == NULL || SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1)
        return conf_fail(err, "%s: OpenSSL can't begin: memory", what);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_verify(ctx, c->verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    if (c->ca[0] != '\0') {
        if (!add_authorities(ctx, c->ca, what, err))
            return false;
    } else if (c->verify && SSL_CTX_set_default_verify_paths(ctx) != 1) {
        return conf_fail(err, "%s: the system's certificates can't be read; name a file in %s.tls_ca", what, what);
    }
    return c->certificate[0] == '\0' || (use_certificate(ctx, c->certificate, what, err) &&
        use_key(ctx, c->key[0] != '\0' ? c->key : c->certificate, what, err));
}

struct tlsc_shared *
tlsc_shared_new(const struct tlsc_conf *c, const char *what, struct conf_error *err)
{
    struct tlsc_shared *s = calloc(1, sizeof *s);
    SSL_CTX *ctx = s != NULL ? SSL_CTX_new(TLS_client_method()) : NULL;
    if (!set_up(ctx, c, what, err)) {
        SSL_CTX_free(ctx);
        free(s);
        return NULL;
    }
    s->ctx = ctx;
    s->verify = c->verify;
    return s;
}

void
tlsc_shared_free(struct tlsc_shared *s)
{
    if (s == NULL)
        return;
    SSL_CTX_free(s->ctx);
    free(s);
}

/* -- one connection -- */

static bool
set_host(SSL *ssl, const char *host, bool verify)
{
    unsigned char ip[16];
    bool is_ip = inet_pton(AF_INET, host, ip) == 1 || inet_pton(AF_INET6, host, ip) == 1;
    if (!is_ip && SSL_set_tlsext_host_name(ssl, host) != 1)
        return false;
    if (!verify)
        return true;
    return is_ip ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1 : SSL_set1_host(ssl, host) == 1;
}

struct tlsc *
tlsc_new(struct tlsc_shared *s, const char *host)
{
    struct tlsc *t = calloc(1, sizeof *t);
    BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
    SSL *ssl = t != NULL && in != NULL && out != NULL ? SSL_new(s->ctx) : NULL;
    if (ssl == NULL || !set_host(ssl, host, s->verify)) {
        SSL_free(ssl);
        BIO_free(in);
        BIO_free(out);
        free(t);
        ERR_clear_error();
        return NULL;
    }
    SSL_set_bio(ssl, in, out);
    SSL_set_connect_state(ssl);
    *t = (struct tlsc){ssl, in, out};
    return t;
}

void
tlsc_free(struct tlsc *t)
{
    if (t == NULL)
        return;
    SSL_free(t->ssl);
    free(t);
}

bool
tlsc_feed(struct tlsc *t, struct view bytes)
{
    size_t n = 0;
    return bytes.n == 0 || (BIO_write_ex(t->in, bytes.p, bytes.n, &n) == 1 && n == bytes.n);
}

int
tlsc_handshake(struct tlsc *t)
{
    ERR_clear_error();
    int rc = SSL_do_handshake(t->ssl);
    return rc == 1 ? 1 : SSL_get_error(t->ssl, rc) == SSL_ERROR_WANT_READ ? 0 : -1;
}

int
tlsc_read(struct tlsc *t, uint8_t *to, int cap)
{
    ERR_clear_error();
    int n = SSL_read(t->ssl, to, cap);
    return n > 0 ? n : SSL_get_error(t->ssl, n) == SSL_ERROR_WANT_READ ? 0 : -1;
}

bool
tlsc_write(struct tlsc *t, struct view bytes)
{
    size_t n = 0;
    ERR_clear_error();
    return bytes.n == 0 || (SSL_write_ex(t->ssl, bytes.p, bytes.n, &n) == 1 && n == bytes.n);
}

bool
tlsc_take(struct tlsc *t, struct buf *out)
{
    size_t there = BIO_ctrl_pending(t->out), n = 0;
    if (there == 0)
        return true;
    if (!buf_reserve(out, there) || BIO_read_ex(t->out, out->p + out->n, there, &n) != 1)
        return false;
    out->n += n;
    return n == there;
}

const char *
tlsc_why(const struct tlsc *t)
{
    long verdict = SSL_get_verify_result(t->ssl);
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    ERR_clear_error();
    return verdict != X509_V_OK ? X509_verify_cert_error_string(verdict) : reason != NULL ? reason : "it broke off";
}
