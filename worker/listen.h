/* Listeners of a ring: accepting, and the pause when descriptors or memory are out. */
#ifndef WORKER_LISTEN_H
#define WORKER_LISTEN_H

#include "worker/worker.h"

/* Opens the listeners that worker.listen names, for programs that were not handed any. Fills out (at
 * most LISTENERS_MAX per ring, ring after ring) and *per_ring. False with a sentence in err. */
bool listen_open(const struct conf *conf, unsigned rings, struct listener *out, unsigned *per_ring,
    struct conf_error *err) MUST_CHECK;

void listen_start(struct worker *w);
void listen_stop(struct worker *w);
void listen_on_accept(struct worker *w, struct listener *l, struct ring_done d);
/* Tries again after a pause. */
void listen_tick(struct worker *w);

#endif
