/* TLS 1.2 and 1.3 (RFC 5246, 8446) by OpenSSL, the only pair of files of the worker that includes it. Knows
 * no socket, no ring and no connection: cipher text comes in as a span and leaves through a function, so
 * nothing here waits. xp_tls.c rides on it.
 *
 * A tls_server is what one ring needs to be a server: certificates by name (SNI, RFC 6066), ticket keys
 * (RFC 5077, 8446 4.6.1), client certificates. It is never changed: a reload makes a new one, and connections
 * keep what they began with. */
#ifndef WORKER_TLS_H
#define WORKER_TLS_H

#include "common/conf.h"
#include "worker/segq.h"

struct tls_server;

/* Whether worker.listen asks for TLS anywhere. */
bool tls_is_wanted(const struct conf *conf);
/* Reads certificates, keys and the ticket secret; blocks on files. NULL with a sentence in err. */
struct tls_server *tls_server_new(const struct conf *conf, struct conf_error *err);
/* Counted: connections keep theirs. By the ring's thread, once it has it. */
void tls_server_unref(struct tls_server *s);

#define TLS_PLAIN_MAX 16384 /* plain text of one record */

/* The cipher text of one call. `out` takes what is to be sent and is false when memory is out. */
struct tls_io {
    const uint8_t *in;
    size_t in_n;
    bool (*out)(void *arg, const uint8_t *p, size_t n);
    /* kTLS: gives the kernel the keys of a struct tls_crypto_info of n bytes, behind all that went to `out`; false leaves the
     * records here. NULL: never. */
    bool (*kernel)(void *arg, const void *info, size_t n);
    /* After that: sends a record of the type now. */
    bool (*control)(void *arg, uint8_t type, const uint8_t *p, size_t n);
    void *arg;
    uint32_t second; /* a monotonic clock, for the bound on key updates */
};

struct tls_conn {
    struct ssl_st *ssl;
    struct tls_server *server;
    struct tls_io *io;        /* of the call under way */
    struct segq wire;         /* cipher text that waits for the kernel */
    uint32_t updates_second;  /* key updates and the like, and the second they are counted in */
    uint16_t updates;
    bool broken;              /* nothing more may be asked of ssl */
    bool ended;               /* close_notify was sent */
    bool flooded;
    bool kernel_tx;           /* kTLS: the kernel makes the records of what is sent; plain text goes to the socket */
    uint8_t control;          /* type of the next record, if it is not data; 0: it is */
};

enum tls_rc {
    TLS_DONE,  /* handshake: finished */
    TLS_MORE,  /* wants more cipher text */
    TLS_EOF,   /* close_notify came */
    TLS_BROKEN, /* not TLS, or the other side broke it; an alert may have gone out */
};

/* Key updates (RFC 8446 4.6.3) of one connection in one second (hardening 4). */
#define TLS_UPDATES_MAX 32

/* NULL when memory is out. */
struct tls_conn *tls_conn_new(struct tls_server *s);
void tls_conn_free(struct tls_conn *t, struct rc_pool *blocks);
enum tls_rc tls_handshake(struct tls_conn *t, struct tls_io *io);
/* Next plain text, at most TLS_PLAIN_MAX bytes, into out; *n is 0 unless TLS_DONE. Call until it is not TLS_DONE: all
 * of io->in is used then. */
enum tls_rc tls_read(struct tls_conn *t, struct tls_io *io, uint8_t *out, size_t *n);
/* One record of n <= TLS_PLAIN_MAX bytes. */
bool tls_write(struct tls_conn *t, struct tls_io *io, const uint8_t *p, size_t n) MUST_CHECK;
/* close_notify, once. */
void tls_end(struct tls_conn *t, struct tls_io *io);
/* After TLS_BROKEN: why, in OpenSSL's words; a static text. */
const char *tls_why(void);
/* "TLSv1.3", "TLS_AES_128_GCM_SHA256", whether a ticket was used. */
const char *tls_version(const struct tls_conn *t);
const char *tls_cipher(const struct tls_conn *t);
bool tls_was_resumed(const struct tls_conn *t);
/* Subject of the verified client certificate as RFC 2253 writes it, cut to out_n; empty if there is none. */
void tls_subject(const struct tls_conn *t, char *out, size_t out_n);
/* Whether this kernel has the TLS upper-layer protocol (kTLS). */
bool tls_kernel_has_it(void);

#endif
