/* TLS between the socket and everything else: cipher text that came becomes input of the connection, what is
 * queued for the client becomes cipher text at the end of the turn. Handshakes are paced. */
#ifndef WORKER_XP_TLS_H
#define WORKER_XP_TLS_H

#include "worker/conn.h"

/* Bytes from the client of a TLS listener. */
void xp_tls_input(struct worker *w, struct conn *c, const uint8_t *p, size_t n);
/* Moves what is queued into records on tls->wire, a bounded piece, once the piece before has left. */
void xp_tls_seal(struct worker *w, struct conn *c);
/* close_notify; true when there is something to send now. */
bool xp_tls_end(struct worker *w, struct conn *c);
/* Handshakes that waited for their turn; at most tls.handshakes_per_turn in one. */
void xp_tls_continue(struct worker *w);
/* Takes over the certificates of a reload, if there are any. */
void xp_tls_adopt(struct worker *w);
/* A client of a plain listener began with a TLS record: it gets an alert it understands. */
bool xp_tls_is_hello(const uint8_t *p, size_t n);
void xp_tls_refuse_hello(struct worker *w, struct conn *c);
void xp_tls_free(struct worker *w, struct conn *c);

#endif
