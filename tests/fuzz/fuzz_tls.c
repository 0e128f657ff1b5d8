/* TLS records as they may be cut and damaged on their way. OpenSSL's own client talks to a server of worker/tls;
 * the input says in which pieces its cipher text arrives, and which bytes of it are changed, lost or added. Or the
 * input is all the server ever hears. What comes out must be a prefix of what was said; nothing is offered twice. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>

#include "worker/tls.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define SAID_MAX 60000

static char dir[] = "/tmp/fuzz-tls-XXXXXX", pem[64], key_file[64], secret[64];
static struct tls_server *server;
static SSL_CTX *client_ctx[2];
static struct rc_pool blocks;

static void
must(bool claim)
{
    if (!claim)
        abort();
}

static void
clean_up(void)
{
    unlink(pem);
    unlink(key_file);
    unlink(secret);
    rmdir(dir);
}

static void
make_certificate(void)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    must(key != NULL && cert != NULL);
    X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(cert), 86400);
    X509_set_pubkey(cert, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC, (const unsigned char *)"fuzz", -1, -1, 0);
    X509_set_issuer_name(cert, X509_get_subject_name(cert));
    must(X509_sign(cert, key, EVP_sha256()) > 0);
    FILE *f = fopen(pem, "w"), *g = fopen(key_file, "w");
    must(f != NULL && g != NULL && PEM_write_X509(f, cert) && PEM_write_PrivateKey(g, key, NULL, NULL, 0, NULL, NULL));
    fclose(f);
    fclose(g);
    X509_free(cert);
    EVP_PKEY_free(key);
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    static struct conf conf;
    struct conf_error err;
    (void)argc;
    (void)argv;
    must(mkdtemp(dir) != NULL);
    (void)snprintf(pem, sizeof pem, "%s/a.pem", dir);
    (void)snprintf(key_file, sizeof key_file, "%s/a.key", dir);
    (void)snprintf(secret, sizeof secret, "%s/ticket-secret", dir);
    atexit(clean_up);
    make_certificate();
    conf_defaults(&conf);
    must(conf_set(&conf, "run.dir", dir, "fuzz", &err) && conf_set(&conf, "tls.certificate", pem, "fuzz", &err) &&
        conf_set(&conf, "tls.key", key_file, "fuzz", &err));
    server = tls_server_new(&conf, &err);
    must(server != NULL);
    for (unsigned i = 0; i < 2; i++) {
        client_ctx[i] = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_min_proto_version(client_ctx[i], versions[i]);
        SSL_CTX_set_max_proto_version(client_ctx[i], versions[i]);
    }
    return 0;
}

/* Both ends, and what lies between them. */
struct talk {
    struct tls_conn *t;
    struct tls_io io;
    SSL *client;
    BIO *to_client, *to_server;
    enum tls_rc rc;
    bool shaken, damaged;
    unsigned updates;
    uint8_t said[SAID_MAX], heard[SAID_MAX + TLS_PLAIN_MAX];
    size_t said_n, heard_n;
};

static bool
to_client(void *arg, const uint8_t *p, size_t n)
{
    struct talk *x = arg;
    return BIO_write(x->to_client, p, (int)n) == (int)n;
}

static void
arrive(struct talk *x, const uint8_t *p, size_t n)
{
    size_t got, calls = 0;
    if (x->rc == TLS_BROKEN || x->rc == TLS_EOF || n == 0)
        return;
    x->io.in = p;
    x->io.in_n = n;
    if (!x->shaken) {
        x->rc = tls_handshake(x->t, &x->io);
        x->shaken = x->rc == TLS_DONE;
    }
    while (x->shaken && (x->rc = tls_read(x->t, &x->io, x->heard + x->heard_n, &got)) == TLS_DONE) {
        x->heard_n += got;
        must(got <= TLS_PLAIN_MAX && x->heard_n <= x->said_n && ++calls <= n + 8);
    }
    must(x->rc == TLS_BROKEN || x->rc == TLS_EOF || x->io.in_n == 0);
    must(memcmp(x->said, x->heard, x->heard_n) == 0);
    must(x->damaged || x->updates > TLS_UPDATES_MAX || x->rc != TLS_BROKEN);
}

/* The client goes on with what it has heard. */
static void
client_turn(struct talk *x)
{
    uint8_t ignored[512];
    ERR_clear_error();
    if (!SSL_is_init_finished(x->client))
        (void)SSL_do_handshake(x->client);
    else
        while (SSL_read(x->client, ignored, sizeof ignored) > 0)
            ;
    ERR_clear_error();
}

static void
say(struct talk *x, size_t n)
{
    n = MIN(n, SAID_MAX - x->said_n);
    if (n == 0 || !SSL_is_init_finished(x->client))
        return;
    memset(x->said + x->said_n, (int)(x->said_n & 0xff), n);
    if (SSL_write(x->client, x->said + x->said_n, (int)n) == (int)n)
        x->said_n += n;
}

/* Takes up to n bytes off the wire and lets them arrive, the first of them changed. */
static void
carry(struct talk *x, size_t n, uint8_t change, bool lose)
{
    uint8_t piece[512];
    int k = BIO_read(x->to_server, piece, (int)MIN(n, sizeof piece));
    if (k <= 0)
        return;
    piece[0] ^= change;
    x->damaged = x->damaged || change != 0 || lose;
    arrive(x, piece, lose ? 0 : (size_t)k);
}

static void
step(struct talk *x, uint8_t what, uint8_t value)
{
    switch (what % 8) {
    case 0: carry(x, (size_t)value + 1, 0, false); break;
    case 1: carry(x, ((size_t)value + 1) * 16, 0, false); break;
    case 2: carry(x, 1, 0, false); break;
    case 3: carry(x, (size_t)value % 16 + 1, value, false); break;
    case 4: carry(x, (size_t)value % 16 + 1, 0, true); break;
    case 5: say(x, (size_t)value * (what & 8 ? 100 : 1)); break;
    case 6:
        x->damaged = true;
        arrive(x, &value, 1);
        break;
    case 7:
        if (value == 0) {
            (void)SSL_shutdown(x->client);
        } else if (SSL_is_init_finished(x->client) && SSL_version(x->client) == TLS1_3_VERSION) {
            x->updates += SSL_key_update(x->client, SSL_KEY_UPDATE_REQUESTED) == 1 && SSL_do_handshake(x->client) == 1;
        }
        break;
    }
    client_turn(x);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 2)
        return 0;
    struct talk *x = calloc(1, sizeof *x);
    must(x != NULL);
    x->t = tls_conn_new(server);
    x->client = SSL_new(client_ctx[data[0] & 1]);
    must(x->t != NULL && x->client != NULL);
    x->to_client = BIO_new(BIO_s_mem());
    x->to_server = BIO_new(BIO_s_mem());
    SSL_set_bio(x->client, x->to_client, x->to_server);
    SSL_set_connect_state(x->client);
    x->io = (struct tls_io){.out = to_client, .arg = x};
    x->rc = TLS_MORE;
    if (data[0] & 2) { /* no client at all */
        size_t chunk = (size_t)data[1] + 1;
        x->damaged = true;
        for (size_t at = 2; at < n; at += chunk)
            arrive(x, data + at, MIN(chunk, n - at));
    } else {
        client_turn(x);
        for (size_t i = 0; i < 8 && data[0] & 4; i++) /* the handshake first, undamaged */
            for (step(x, 1, 31); BIO_pending(x->to_server) > 0;)
                step(x, 1, 31);
        for (size_t i = 1; i + 1 < n && i < 4000; i += 2)
            step(x, data[i], data[i + 1]);
    }
    if (x->shaken && x->rc != TLS_BROKEN)
        tls_end(x->t, &x->io);
    SSL_free(x->client);
    tls_conn_free(x->t, &blocks);
    free(x);
    return 0;
}
