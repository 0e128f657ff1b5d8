/* What a connection of the load generator sends: gathered in a turn, sealed if there is TLS, sent once at the
 * turn's end. */
#ifndef BENCH_LOAD_TX_H
#define BENCH_LOAD_TX_H

#include "common/base.h"

struct load;
struct load_conn;

/* Bytes on their way out: one buffer flies, the other is filled. With TLS those hold cipher text, and
 * what is to be sealed at the end of the turn stands in `plain`. */
struct load_tx {
    uint8_t *p[2];
    uint8_t *plain;
    uint32_t n[2], cap[2];
    uint32_t plain_n, plain_cap;
    uint32_t off; /* sent of the flying one */
    uint8_t fill; /* the one being filled */
    bool flying, dirty;
};

/* Room for n bytes to be sent at the end of the turn; the caller fills all of it. */
uint8_t *load_tx_room(struct load *l, struct load_conn *c, uint32_t n);
/* A message of at most SPEAK_MAX bytes; `first`: of the frame, where there are frames. */
void load_tx_message(struct load *l, struct load_conn *c, uint8_t first, const void *p, size_t n);
/* First byte of the frames that the protocol's messages travel in. */
uint8_t load_tx_op(const struct load *l);
/* Says n bytes in the protocol's words. */
void load_tx_say(struct load *l, struct load_conn *c, const char *p, size_t n);
/* Cipher text of a connection; arg is the load (tls.h). */
void load_tx_cipher(void *arg, uint32_t conn, const uint8_t *p, size_t n);
/* Sends what connections have, if nothing of them flies. */
void load_tx_flush(struct load *l);
void load_tx_on_send(struct load *l, struct load_conn *c, int res);
void load_tx_free(struct load_conn *c);

#endif
