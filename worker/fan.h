/* Encode once, hand out references. Messages of one channel that come in the same turn are laid one
 * behind the other in a block; at the end of the drain each subscriber gets one stretch of it, and so one
 * send, however many messages there were. Connections that agreed to compression share a second, packed
 * block, made when the first of them is met. */
#ifndef WORKER_FAN_H
#define WORKER_FAN_H

#include "worker/outq.h"
#include "worker/subs.h"

/* links_ops.on_message: a published message for a channel of ours. */
void fan_on_message(void *worker, uint32_t chan, uint32_t chan_gen, bool has_data, struct view data);
/* Hands the batch of a channel to its subscribers; before the list of subscribers changes, and at the
 * end of the drain for all (fan_out_all). */
void fan_out(struct worker *w, struct chan *ch);
void fan_out_all(struct worker *w);

/* To one that agreed to compression, or is slow. */
bool fan_give_specially(struct worker *w, struct chan *ch, struct conn *c);
/* The present batch for one subscriber, packed as it agreed to; inside of fan_out. False when it was not queued. */
static inline bool
fan_give(struct worker *w, struct chan *ch, struct conn *c)
{
    if (LIKELY(c->flavour == PMD_PLAIN && !(c->flags & CF_SLOW)))
        return outq_push_published(w, c, ch->batch, ch->batch_off, ch->batch_len, ch->batch_messages);
    return fan_give_specially(w, ch, c);
}

#endif
