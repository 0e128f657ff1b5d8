#include "worker/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/bug.h"
#include "common/file.h"

#define CERTS_MAX 16
#define SECRET_MIN 32
#define SECRET_MAX 1024
#define SECRET_MADE 48
#define KEY_CHANGE_HELLO "ringcast session tickets, "

/* Of one rotation period: what tickets are named, encrypted and signed with. */
struct ticket_key {
    uint64_t period; /* wall clock / tls.ticket_rotation */
    unsigned char name[16], aes[32], mac[32];
};

struct tls_server {
    SSL_CTX *ctx[CERTS_MAX]; /* the first is taken when no name fits */
    unsigned count;
    unsigned char secret[SECRET_MAX];
    size_t secret_n;
    uint64_t rotation_s;
    uint32_t refs;             /* the ring's own and one of each connection */
    struct ticket_key keys[3]; /* of the present period, the one before, and the next (clocks differ) */
};

/* -- the BIO: OpenSSL's door to the span and the function of a call -- */

static int
bio_read(BIO *b, char *out, int n)
{
    struct tls_conn *t = BIO_get_data(b);
    BIO_clear_retry_flags(b);
    size_t k = MIN((size_t)MAX(n, 0), t->io->in_n);
    if (k == 0) {
        BIO_set_retry_read(b);
        return -1;
    }
    memcpy(out, t->io->in, k);
    t->io->in += k;
    t->io->in_n -= k;
    return (int)k;
}

static int
bio_write(BIO *b, const char *p, int n)
{
    struct tls_conn *t = BIO_get_data(b);
    const uint8_t *from = (const uint8_t *)p;
    uint8_t type = t->control;
    BIO_clear_retry_flags(b);
    t->control = 0;
    if (n <= 0)
        return -1;
    if (t->kernel_tx)
        return type != 0 && t->io->control != NULL && t->io->control(t->io->arg, type, from, (size_t)n) ? n : -1;
    return t->io->out(t->io->arg, from, (size_t)n) ? n : -1;
}

/* What OpenSSL hands to setsockopt(SOL_TLS, TLS_TX) begins with a struct tls_crypto_info, which tells its size. */
static size_t
crypto_info_bytes(const struct tls_crypto_info *info)
{
    switch (info->cipher_type) {
    case TLS_CIPHER_AES_GCM_128: return sizeof(struct tls12_crypto_info_aes_gcm_128);
    case TLS_CIPHER_AES_GCM_256: return sizeof(struct tls12_crypto_info_aes_gcm_256);
    case TLS_CIPHER_CHACHA20_POLY1305: return sizeof(struct tls12_crypto_info_chacha20_poly1305);
    default: return 0;
    }
}

/* The commands by which OpenSSL 3 speaks of kTLS with a BIO; bio.h lists the numbers of those it keeps for itself. */
enum { SET_KTLS = 72, SET_KTLS_CONTROL = 74, CLEAR_KTLS_CONTROL = 75 };

static long
bio_ctrl(BIO *b, int cmd, long num, void *ptr)
{
    struct tls_conn *t = BIO_get_data(b);
    size_t n;
    switch (cmd) {
    case BIO_CTRL_FLUSH:
    case BIO_CTRL_DUP: return 1;
    case SET_KTLS: /* num: sending, or receiving, which stays here */
        n = num != 0 && t->io->kernel != NULL ? crypto_info_bytes(ptr) : 0;
        t->kernel_tx |= n > 0 && t->io->kernel(t->io->arg, ptr, n);
        return num != 0 && t->kernel_tx;
    case BIO_CTRL_GET_KTLS_SEND: return t->kernel_tx;
    case SET_KTLS_CONTROL: t->control = (uint8_t)num; return 0;
    case CLEAR_KTLS_CONTROL: t->control = 0; return 0;
    default: return 0;
    }
}

static BIO_METHOD *
bio_method(void)
{
    static BIO_METHOD *m; /* made by tls_server_new in the main thread, before any ring reads it */
    if (m == NULL) {
        m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "ring");
        BUG_ON(m == NULL);
        BIO_meth_set_read(m, bio_read);
        BIO_meth_set_write(m, bio_write);
        BIO_meth_set_ctrl(m, bio_ctrl);
    }
    return m;
}

/* -- session tickets -- */

static void
derive(const struct tls_server *s, uint64_t period, const char *what, unsigned char *out, size_t n)
{
    unsigned char mac[EVP_MAX_MD_SIZE];
    char text[128];
    size_t mac_n = 0;
    int text_n = snprintf(text, sizeof text, KEY_CHANGE_HELLO "%s, %llu", what, (unsigned long long)period);
    BUG_ON(EVP_Q_mac(NULL, "HMAC", NULL, "SHA512", NULL, s->secret, s->secret_n, (unsigned char *)text,
               (size_t)text_n, mac, sizeof mac, &mac_n) == NULL || mac_n < n);
    memcpy(out, mac, n);
    OPENSSL_cleanse(mac, sizeof mac);
}

/* All who share the secret come to the same keys by the wall clock, without a word between them. */
static const struct ticket_key *
key_of(struct tls_server *s, unsigned age)
{
    uint64_t now = (uint64_t)time(NULL) / s->rotation_s, period = age == 2 ? now + 1 : now - age;
    struct ticket_key *k = &s->keys[period % 3];
    if (k->period != period) {
        k->period = period;
        derive(s, period, "name", k->name, sizeof k->name);
        derive(s, period, "cipher", k->aes, sizeof k->aes);
        derive(s, period, "signature", k->mac, sizeof k->mac);
    }
    return k;
}

static int
ticket_with(const struct ticket_key *k, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int enc)
{
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, (void *)(uintptr_t)k->mac, sizeof k->mac),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)(uintptr_t)"SHA256", 0),
        OSSL_PARAM_construct_end(),
    };
    return EVP_CipherInit_ex(cipher, EVP_aes_256_cbc(), NULL, k->aes, iv, enc) == 1 &&
        EVP_MAC_CTX_set_params(mac, params) == 1;
}

/* SSL_CTX_set_tlsext_ticket_key_evp_cb(3): 1 goes on, 2 goes on and renews the ticket, 0 shakes hands in full. */
static int
on_ticket(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int enc)
{
    struct tls_server *s = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    if (enc) {
        const struct ticket_key *k = key_of(s, 0);
        memcpy(name, k->name, sizeof k->name);
        if (RAND_bytes(iv, 16) != 1)
            return -1;
        return ticket_with(k, iv, cipher, mac, 1) ? 1 : -1;
    }
    for (unsigned age = 0; age < 3; age++) {
        const struct ticket_key *k = key_of(s, age);
        if (memcmp(name, k->name, sizeof k->name) == 0)
            return !ticket_with(k, iv, cipher, mac, 0) ? -1 : age == 1 ? 2 : 1;
    }
    return 0;
}

static bool
read_secret(struct tls_server *s, const char *path)
{
    int fd = file_open(path);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, s->secret, sizeof s->secret);
    s->secret_n = n > 0 ? (size_t)n : 0;
    close(fd);
    return true;
}

/* Whole or not at all: many workers may come here at once, and all must end with one secret. */
static bool
make_secret(const char *path)
{
    char draft[288];
    unsigned char fresh[SECRET_MADE];
    snprintf(draft, sizeof draft, "%s.%ld", path, (long)getpid());
    int fd = open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return false;
    bool ok = RAND_bytes(fresh, sizeof fresh) == 1 && write(fd, fresh, sizeof fresh) == (ssize_t)sizeof fresh;
    close(fd);
    ok = ok && (link(draft, path) == 0 || errno == EEXIST);
    unlink(draft);
    OPENSSL_cleanse(fresh, sizeof fresh);
    return ok;
}

/* What was read when the process began, for reloads after it gave up the right to read it. Main thread only. */
static struct {
    char path[256];
    unsigned char bytes[SECRET_MAX];
    size_t n;
} known;

static bool
recall_secret(struct tls_server *s, const char *path)
{
    if (known.n == 0 || strcmp(known.path, path) != 0)
        return false;
    memcpy(s->secret, known.bytes, known.n);
    s->secret_n = known.n;
    return true;
}

static void
remember_secret(const struct tls_server *s, const char *path)
{
    snprintf(known.path, sizeof known.path, "%s", path);
    memcpy(known.bytes, s->secret, s->secret_n);
    known.n = s->secret_n;
}

static bool
load_secret(struct tls_server *s, const struct conf *conf, struct conf_error *err)
{
    char path[256];
    bool ours = conf->tls_ticket_secret[0] == '\0';
    if (ours)
        snprintf(path, sizeof path, "%s/ticket-secret", conf->run_dir);
    else
        snprintf(path, sizeof path, "%s", conf->tls_ticket_secret);
    if (!read_secret(s, path) && (!ours || errno != ENOENT || !make_secret(path) || !read_secret(s, path))) {
        if (recall_secret(s, path))
            return true;
        return conf_fail(err, "%s (%s): %s", path, ours ? "the secret of session tickets in run.dir" : "tls.ticket_secret",
            strerror(errno));
    }
    if (s->secret_n < SECRET_MIN)
        return conf_fail(err, "tls.ticket_secret: %s holds %zu bytes, and at least %d random ones are needed "
                              "(openssl rand -out FILE 48)", path, s->secret_n, SECRET_MIN);
    remember_secret(s, path);
    return true;
}

/* -- what a client asks for -- */

/* RFC 7301: http/1.1 is all we speak; a client that wants only something else is told so. */
static int
on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_n, const unsigned char *in, unsigned in_n, void *arg)
{
    static const unsigned char ours[] = "\x08http/1.1";
    (void)ssl;
    (void)arg;
    return SSL_select_next_proto((unsigned char **)(uintptr_t)out, out_n, ours, sizeof ours - 1, in, in_n) ==
            OPENSSL_NPN_NEGOTIATED
        ? SSL_TLSEXT_ERR_OK
        : SSL_TLSEXT_ERR_ALERT_FATAL;
}

static int
on_server_name(SSL *ssl, int *alert, void *arg)
{
    struct tls_server *s = arg;
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    (void)alert;
    for (unsigned i = 0; name != NULL && i < s->count; i++) {
        if (X509_check_host(SSL_CTX_get0_certificate(s->ctx[i]), name, 0, 0, NULL) != 1)
            continue;
        if (i > 0)
            SSL_set_SSL_CTX(ssl, s->ctx[i]);
        break;
    }
    return SSL_TLSEXT_ERR_OK;
}

/* What a peer may ask for at our cost after the handshake: new keys, or, in TLS 1.2, another handshake, which is answered
 * with a warning each time. */
static bool
is_at_our_cost(int write_p, int type, const unsigned char *p, size_t n)
{
    if (write_p)
        return type == SSL3_RT_ALERT && n == 2 && p[1] == SSL_AD_NO_RENEGOTIATION;
    return type == SSL3_RT_HANDSHAKE && n > 0 && p[0] == SSL3_MT_KEY_UPDATE;
}

/* Counts that. */
static void
on_protocol_message(int write_p, int version, int type, const void *buf, size_t n, SSL *ssl, void *arg)
{
    (void)version;
    (void)arg;
    if (!is_at_our_cost(write_p, type, buf, n))
        return;
    struct tls_conn *t = SSL_get_app_data(ssl);
    if (t->updates_second != t->io->second) {
        t->updates_second = t->io->second;
        t->updates = 0;
    }
    if (++t->updates > TLS_UPDATES_MAX)
        t->flooded = true;
}

/* -- making a server -- */

const char *
tls_why(void)
{
    unsigned long e = ERR_peek_last_error();
    const char *text = ERR_SYSTEM_ERROR(e) ? strerror((int)ERR_GET_REASON(e)) : ERR_reason_error_string(e);
    return text != NULL ? text : "the peer broke off";
}

static int
no_passphrase(char *buf, int size, int rwflag, void *arg)
{
    (void)buf;
    (void)size;
    (void)rwflag;
    (void)arg;
    return -1; /* nobody is there to type it */
}

/* A file of the settings, which after the start only the parent may be able to open (common/file): so none of the
 * library's functions that take a path. NULL and an error of the library when it can't be had. */
static BIO *
open_pem(const char *path)
{
    ERR_clear_error();
    int fd = file_open(path);
    FILE *f = fd >= 0 ? fdopen(fd, "r") : NULL;
    BIO *bio = f != NULL ? BIO_new_fp(f, BIO_CLOSE) : NULL;
    if (bio != NULL)
        return bio;
    ERR_raise_data(ERR_LIB_SYS, errno, "%s", path);
    if (f != NULL)
        fclose(f);
    else if (fd >= 0)
        close(fd);
    return NULL;
}

/* PEM files end where no further block begins. */
static bool
at_end(void)
{
    bool end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
    if (end)
        ERR_clear_error();
    return end;
}

static bool
use_chain(SSL_CTX *ctx, BIO *bio)
{
    X509 *own = PEM_read_bio_X509_AUX(bio, NULL, no_passphrase, NULL), *next;
    bool ok = own != NULL && SSL_CTX_use_certificate(ctx, own) == 1 && SSL_CTX_clear_chain_certs(ctx) == 1;
    X509_free(own);
    while (ok && (next = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL)) != NULL)
        if (SSL_CTX_add0_chain_cert(ctx, next) != 1) {
            X509_free(next);
            return false;
        }
    return ok && at_end();
}

static bool
use_key(SSL_CTX *ctx, BIO *bio)
{
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
    bool ok = key != NULL && SSL_CTX_use_PrivateKey(ctx, key) == 1;
    EVP_PKEY_free(key);
    return ok;
}

static bool
use_authorities(SSL_CTX *ctx, BIO *bio)
{
    bool ok = true, any = false;
    X509 *ca;
    while (ok && (ca = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL)) != NULL) {
        ok = X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), ca) == 1 && SSL_CTX_add_client_CA(ctx, ca) == 1;
        any = true;
        X509_free(ca);
    }
    return ok && any && at_end();
}

static bool
use_file(SSL_CTX *ctx, const char *path, bool (*use)(SSL_CTX *, BIO *))
{
    BIO *bio = open_pem(path);
    bool ok = bio != NULL && use(ctx, bio);
    BIO_free(bio);
    return ok;
}

static bool
load_pair(SSL_CTX *ctx, const struct conf *conf, uint32_t i, struct conf_error *err)
{
    const char *cert = conf->tls_certificate.v[i], *key = conf->tls_key.n > 0 ? conf->tls_key.v[i] : cert;
    if (!use_file(ctx, cert, use_chain))
        return conf_fail(err, "tls.certificate (%s): %.300s: %s; it must be a PEM file, the certificate first, then its chain",
            conf_place(conf, "tls.certificate"), cert, tls_why());
    if (!use_file(ctx, key, use_key))
        return conf_fail(err, "tls.key (%s): %.300s: %s; it must be a PEM file with the key of %.300s, readable and without a "
            "passphrase", conf_place(conf, "tls.key"), key, tls_why(), cert);
    return true;
}

static bool
set_ciphers(SSL_CTX *ctx, const struct conf *conf, struct conf_error *err)
{
    if (SSL_CTX_set_cipher_list(ctx, conf->tls_ciphers) != 1)
        return conf_fail(err, "tls.ciphers (%s): %s: openssl ciphers lists what can be written",
            conf_place(conf, "tls.ciphers"), tls_why());
    if (SSL_CTX_set_ciphersuites(ctx, conf->tls_cipher_suites) != 1)
        return conf_fail(err, "tls.cipher_suites (%s): %s: openssl ciphers -s -tls1_3 lists what can be written",
            conf_place(conf, "tls.cipher_suites"), tls_why());
    if (SSL_CTX_set1_groups_list(ctx, "X25519:P-256:P-384") != 1)
        return conf_fail(err, "tls: %s", tls_why());
    return true;
}

static bool
set_client_verify(SSL_CTX *ctx, const struct conf *conf, struct conf_error *err)
{
    if (strcmp(conf->tls_client_verify, "off") == 0)
        return true;
    if (!use_file(ctx, conf->tls_client_ca, use_authorities))
        return conf_fail(err, "tls.client_ca (%s): %.300s: %s; it must be a PEM file of certificates",
            conf_place(conf, "tls.client_ca"), conf->tls_client_ca, tls_why());
    SSL_CTX_set_verify(ctx,
        SSL_VERIFY_PEER | (strcmp(conf->tls_client_verify, "required") == 0 ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0), NULL);
    return true;
}

/* Sessions are of a context whose name is what a client must show here: else a ticket from before client certificates
 * were asked for, or from under other authorities, would be let in without one. */
static bool
name_context(SSL_CTX *ctx, const struct conf *conf)
{
    unsigned char name[EVP_MAX_MD_SIZE], ca[EVP_MAX_MD_SIZE];
    unsigned name_n = 0, ca_n = 0;
    STACK_OF(X509_OBJECT) *all = X509_STORE_get0_objects(SSL_CTX_get_cert_store(ctx));
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool ok = md != NULL && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1 &&
        EVP_DigestUpdate(md, conf->tls_client_verify, strlen(conf->tls_client_verify)) == 1;
    for (int i = 0; ok && i < sk_X509_OBJECT_num(all); i++) {
        const X509 *cert = X509_OBJECT_get0_X509(sk_X509_OBJECT_value(all, i));
        ok = cert == NULL || (X509_digest(cert, EVP_sha256(), ca, &ca_n) == 1 && EVP_DigestUpdate(md, ca, ca_n) == 1);
    }
    ok = ok && EVP_DigestFinal_ex(md, name, &name_n) == 1 && SSL_CTX_set_session_id_context(ctx, name, name_n) == 1;
    EVP_MD_CTX_free(md);
    return ok;
}

static void
set_behaviour(SSL_CTX *ctx, struct tls_server *s, const struct conf *conf)
{
    SSL_CTX_set_app_data(ctx, s);
    SSL_CTX_set_min_proto_version(ctx, strcmp(conf->tls_min_version, "1.3") == 0 ? TLS1_3_VERSION : TLS1_2_VERSION);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE |
            SSL_OP_PRIORITIZE_CHACHA);
    if (conf->tls_kernel)
        SSL_CTX_set_options(ctx, SSL_OP_ENABLE_KTLS);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF); /* tickets alone: nothing is kept here */
    SSL_CTX_set_num_tickets(ctx, 1);
    SSL_CTX_set_max_early_data(ctx, 0);
    SSL_CTX_set_timeout(ctx, (long)s->rotation_s);
    SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, on_ticket);
    SSL_CTX_set_alpn_select_cb(ctx, on_alpn, NULL);
    SSL_CTX_set_tlsext_servername_callback(ctx, on_server_name);
    SSL_CTX_set_tlsext_servername_arg(ctx, s);
    SSL_CTX_set_msg_callback(ctx, on_protocol_message);
}

bool
tls_is_wanted(const struct conf *conf)
{
    for (uint32_t i = 0; i < conf->worker_listen.n; i++)
        if (strncmp(conf->worker_listen.v[i], "tls://", 6) == 0)
            return true;
    return false;
}

static bool
server_fill(struct tls_server *s, const struct conf *conf, struct conf_error *err)
{
    s->rotation_s = MAX(conf->tls_ticket_rotation / 1000, (uint64_t)1);
    if (!load_secret(s, conf, err))
        return false;
    for (uint32_t i = 0; i < conf->tls_certificate.n && i < CERTS_MAX; i++) {
        SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
        if (ctx == NULL)
            return conf_fail(err, "tls: %s", tls_why());
        s->ctx[s->count++] = ctx;
        set_behaviour(ctx, s, conf);
        if (!load_pair(ctx, conf, i, err) || !set_ciphers(ctx, conf, err) || !set_client_verify(ctx, conf, err))
            return false;
        if (!name_context(ctx, conf))
            return conf_fail(err, "tls: %s", tls_why());
    }
    return true;
}

struct tls_server *
tls_server_new(const struct conf *conf, struct conf_error *err)
{
    struct tls_server *s = calloc(1, sizeof *s);
    if (s == NULL) {
        (void)conf_fail(err, "out of memory");
        return NULL;
    }
    s->refs = 1;
    (void)bio_method();
    if (server_fill(s, conf, err))
        return s;
    tls_server_unref(s);
    return NULL;
}

void
tls_server_unref(struct tls_server *s)
{
    if (s == NULL || --s->refs > 0)
        return;
    for (unsigned i = 0; i < s->count; i++)
        SSL_CTX_free(s->ctx[i]);
    OPENSSL_cleanse(s, sizeof *s);
    free(s);
}

/* -- connections -- */

struct tls_conn *
tls_conn_new(struct tls_server *s)
{
    struct tls_conn *t = calloc(1, sizeof *t);
    SSL *ssl = t != NULL ? SSL_new(s->ctx[0]) : NULL;
    BIO *bio = ssl != NULL ? BIO_new(bio_method()) : NULL;
    if (bio == NULL) {
        SSL_free(ssl);
        free(t);
        return NULL;
    }
    BIO_set_data(bio, t);
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl, bio, bio);
    SSL_set_app_data(ssl, t);
    SSL_set_accept_state(ssl);
    t->ssl = ssl;
    t->server = s;
    s->refs++;
    return t;
}

void
tls_conn_free(struct tls_conn *t, struct rc_pool *blocks)
{
    if (t == NULL)
        return;
    segq_take(&t->wire, blocks, t->wire.bytes);
    SSL_free(t->ssl);
    tls_server_unref(t->server);
    free(t);
}

static enum tls_rc
tls_rc_of(struct tls_conn *t, int rc)
{
    switch (SSL_get_error(t->ssl, rc)) {
    case SSL_ERROR_WANT_READ: return TLS_MORE;
    case SSL_ERROR_ZERO_RETURN: return TLS_EOF;
    default: t->broken = true; return TLS_BROKEN;
    }
}

enum tls_rc
tls_handshake(struct tls_conn *t, struct tls_io *io)
{
    t->io = io;
    ERR_clear_error();
    int rc = SSL_do_handshake(t->ssl);
    enum tls_rc done = rc == 1 ? TLS_DONE : tls_rc_of(t, rc);
    t->io = NULL;
    return done;
}

enum tls_rc
tls_read(struct tls_conn *t, struct tls_io *io, uint8_t *out, size_t *n)
{
    *n = 0;
    if (t->broken)
        return TLS_BROKEN;
    t->io = io;
    ERR_clear_error();
    int rc = SSL_read(t->ssl, out, TLS_PLAIN_MAX);
    enum tls_rc done = TLS_DONE;
    if (rc > 0)
        *n = (size_t)rc;
    else
        done = tls_rc_of(t, rc);
    t->io = NULL;
    if (t->flooded) {
        t->broken = true;
        *n = 0;
        return TLS_BROKEN;
    }
    return done;
}

bool
tls_write(struct tls_conn *t, struct tls_io *io, const uint8_t *p, size_t n)
{
    if (t->broken || t->ended)
        return false;
    t->io = io;
    ERR_clear_error();
    bool ok = SSL_write(t->ssl, p, (int)n) == (int)n;
    t->io = NULL;
    t->broken = !ok;
    return ok;
}

void
tls_end(struct tls_conn *t, struct tls_io *io)
{
    if (t->ended || t->broken || !SSL_is_init_finished(t->ssl))
        return;
    t->ended = true;
    t->io = io;
    ERR_clear_error();
    (void)SSL_shutdown(t->ssl);
    t->io = NULL;
}

const char *
tls_version(const struct tls_conn *t)
{
    return SSL_get_version(t->ssl);
}

const char *
tls_cipher(const struct tls_conn *t)
{
    return SSL_get_cipher_name(t->ssl);
}

bool
tls_was_resumed(const struct tls_conn *t)
{
    return SSL_session_reused(t->ssl) == 1;
}

void
tls_subject(const struct tls_conn *t, char *out, size_t out_n)
{
    X509 *cert = SSL_get0_peer_certificate(t->ssl);
    BIO *text = cert != NULL && SSL_get_verify_result(t->ssl) == X509_V_OK ? BIO_new(BIO_s_mem()) : NULL;
    int n = 0;
    if (text != NULL && X509_NAME_print_ex(text, X509_get_subject_name(cert), 0, XN_FLAG_RFC2253) >= 0)
        n = BIO_read(text, out, (int)out_n - 1);
    BIO_free(text);
    out[MAX(n, 0)] = '\0';
}

bool
tls_kernel_has_it(void)
{
    /* A kernel that has it finds the module and then misses the connection; one that has not finds no module. */
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int rc = fd >= 0 ? setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof "tls") : -1;
    bool has = rc == 0 || (fd >= 0 && errno == ENOTCONN);
    if (fd >= 0)
        close(fd);
    return has;
}
