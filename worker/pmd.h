/* permessage-deflate on this ring: what is agreed with whom, the streams and what they take, messages in
 * and out. The streams of a ring serve all its connections; only those that keep context from one message to the
 * next have streams of their own, as far as deflate.memory goes. */
#ifndef WORKER_PMD_H
#define WORKER_PMD_H

#include "proto/deflate.h"
#include "proto/http.h"
#include "worker/conn.h"

/* What few connections need: streams, with context takeover, and an account of what was inflated. Made when it is
 * needed, freed by pmd_leave. */
struct pmd_own;

bool pmd_init(struct worker *w);
void pmd_fini(struct worker *w);
/* Takes the first usable offer of an upgrade and appends the answer to it; appends nothing if there is none. */
void pmd_agree(struct worker *w, struct conn *c, const struct http_request *r, struct buf *answer);
/* The connection is gone: so are its streams. */
void pmd_leave(struct worker *w, struct conn *c);

/* A piece of a compressed message came. Returns CLOSE_COUNT, or why the connection must end. When the message is
 * whole *msg is all of it, inflated and, if text, valid; it lives until the next call or, if in->msg holds it,
 * until that is freed. */
enum close_reason pmd_on_data(struct worker *w, struct conn *c, const struct ws_event *ev, uint64_t max,
    struct view *msg) MUST_CHECK;
/* The ring inflates so much in one turn, whoever sent it, for those whose bytes came in this turn and once more for
 * those who had to wait: a share begins. */
void pmd_turn_begin(struct worker *w);
/* Whether that is used up: who may send compressed messages waits for the next turn. */
bool pmd_turn_is_full(const struct worker *w);
/* Forgets a message that is not whole; before c->in goes. */
void pmd_abandon(struct conn *c);

/* The flavour of those that share with a connection of flavour PMD_OWN what is packed without context. */
unsigned pmd_shared(const struct conn *c);
/* Whole frames of ours, one behind the other, for a flavour: those that are long enough, and become smaller, are
 * packed, the others stay. *out lives until the next call. False, and nothing was done: they are to be sent as they
 * are. The connection is asked for with PMD_OWN alone. */
bool pmd_pack(struct worker *w, unsigned flavour, struct conn *c, struct view frames, struct view *out);

/* What was packed last for a connection was not sent after all. */
void pmd_lost(struct conn *c);

/* Memory of streams, all of them. */
uint64_t pmd_bytes(const struct worker *w);
/* ... of connections and of messages that are under way: counts towards mem.buffers. What all share does not, for it is
 * small and nobody's end would give it back. */
uint64_t pmd_bytes_of_conns(const struct worker *w);
/* ... of one connection. */
uint64_t pmd_bytes_of(const struct conn *c);
/* End of the turn: gives back what a large message left, shows the counters. */
void pmd_reclaim(struct worker *w);

#endif
