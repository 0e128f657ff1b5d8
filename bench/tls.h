/* TLS for the load generator's connections. OpenSSL works on memory: what arrived is fed to it, what
 * it wants sent is handed to `put`, and the ring does all input and output. Certificates are not
 * verified: the one at the other end is the server under test, and the time would be ours. */
#ifndef BENCH_TLS_H
#define BENCH_TLS_H

#include "common/base.h"

struct tls_shared; /* settings and the last ticket, for all connections of a thread */
struct tls;        /* one connection */

struct tls_conf {
    const char *host; /* for SNI; NULL or an address: none is sent */
    bool only_12;     /* TLS 1.2 and no later */
    bool resume;      /* use the last ticket that came */
    /* Takes n bytes for the wire, whole; conn as given to tls_new. */
    void (*put)(void *arg, uint32_t conn, const uint8_t *p, size_t n);
    void *arg;
};

struct tls_shared *tls_shared_new(const struct tls_conf *conf) MUST_CHECK;
void tls_shared_free(struct tls_shared *s);
struct tls *tls_new(struct tls_shared *s, uint32_t conn) MUST_CHECK;
void tls_free(struct tls *t);

/* Bytes that arrived; they must stay until tls_read has returned 0 or -1. */
void tls_feed(struct tls *t, const uint8_t *p, size_t n);
/* Goes on with the handshake: 1 done, 0 more must arrive, -1 failed (tls_why says why). */
int tls_handshake(struct tls *t) MUST_CHECK;
/* Plain text: its length, 0 when more must arrive, -1 when the other side ended or broke the stream. */
int tls_read(struct tls *t, uint8_t *to, int cap) MUST_CHECK;
/* Encrypts all of it; false if the connection is broken. */
bool tls_write(struct tls *t, const uint8_t *p, size_t n) MUST_CHECK;
bool tls_resumed(const struct tls *t);
/* "TLSv1.3 TLS_AES_256_GCM_SHA384 X25519" of an established connection. */
void tls_describe(const struct tls *t, char *out, size_t cap);
const char *tls_why(void);

#endif
