/* mem.limit: how much memory this process has is looked at now and then, so that new work is refused before
 * the kernel ends the process. What mem.buffers does not count is in it, too: sessions of TLS, channels,
 * subscriptions, what the allocator keeps. */
#ifndef WORKER_CEILING_H
#define WORKER_CEILING_H

#include "worker/worker.h"

bool ceiling_init(struct worker *w);
void ceiling_fini(struct worker *w);
/* Each turn; looks every 100 ms. Above the limit nobody new is taken (ceiling_is_reached); a sixteenth above it the
 * oldest without a handshake ends at each look, an eighth above it also who holds most. */
void ceiling_look(struct worker *w);

static inline bool
ceiling_is_reached(const struct worker *w)
{
    return w->ceiling_reached;
}

#endif
