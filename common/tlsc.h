/* TLS as a client, on memory: what arrived is fed to it, what is to be sent is taken from it; whoever calls does the
 * input and output. TLS 1.2 and later. Certificates are verified unless the settings say otherwise: the chain up to a
 * known authority, and that it was made out for the host that was asked for. */
#ifndef COMMON_TLSC_H
#define COMMON_TLSC_H

#include "common/buf.h"
#include "common/conf.h"

struct tlsc_shared; /* what connections have in common */
struct tlsc;        /* one connection */

struct tlsc_conf {
    const char *ca;          /* PEM file of authorities; "": the system's */
    const char *certificate; /* PEM files of our own, if the server wants one; "": none */
    const char *key;         /* "": in the file of the certificate */
    bool verify;
};

/* Reads the files (common/file.h). NULL with a sentence in err, in which `what` names the settings ("redis"). */
struct tlsc_shared *tlsc_shared_new(const struct tlsc_conf *, const char *what, struct conf_error *err) MUST_CHECK;
void tlsc_shared_free(struct tlsc_shared *);

/* A connection to `host`, a name or an address: asked for by SNI if it is a name, and verified. NULL: memory. */
struct tlsc *tlsc_new(struct tlsc_shared *, const char *host) MUST_CHECK;
void tlsc_free(struct tlsc *);
/* Bytes that arrived; copied. Read with tlsc_read until that is 0 before the next. */
bool tlsc_feed(struct tlsc *, struct view bytes) MUST_CHECK;
/* Goes on with the handshake: 1 done, 0 more must arrive, -1 failed. Take after each. */
int tlsc_handshake(struct tlsc *) MUST_CHECK;
/* Plain text: its length, 0 when more must arrive, -1 when the other side ended or broke the stream. */
int tlsc_read(struct tlsc *, uint8_t *to, int cap) MUST_CHECK;
/* Encrypts all of it. False: the stream is broken, or memory is out. */
bool tlsc_write(struct tlsc *, struct view bytes) MUST_CHECK;
/* Moves what is to be sent behind `out`. False: no room there. */
bool tlsc_take(struct tlsc *, struct buf *out) MUST_CHECK;
/* Why it failed, in a few words of ours or OpenSSL's; static per thread. */
const char *tlsc_why(const struct tlsc *);

#endif
