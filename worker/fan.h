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
/* links_ops.on_gap: messages of a channel of ours did not come from another host. */
void fan_on_gap(void *worker, uint32_t chan, uint32_t chan_gen, uint64_t count);
/* Tells a gap to all subscribers that are level. The channel must have no batch. */
void fan_notice(struct worker *w, struct chan *ch, const struct event *gap);
/* Hands the batch of a channel to its subscribers; before the list of subscribers changes, and at the
 * end of the drain for all (fan_out_all). */
void fan_out(struct worker *w, struct chan *ch);
void fan_out_all(struct worker *w);
/* What handing out n bytes to the channel's subscribers here costs, in units of 64 KiB; 0 if it is less than one. A
 * channel that was stopped not long before is taken to have a thousand of them elsewhere, since nobody here knows. */
uint32_t fan_units(struct worker *w, struct view channel, size_t n, unsigned broker);
/* Most units that a connection's publishes may cost before it waits for the brokers' answers: so what one has under
 * way stays within a few ms of sending, whatever its window. */
#define FAN_UNITS_MAX 256
/* After the flush: channels whose publishers were asked to stop may go on, once little is left to send. */
void fan_ease(struct worker *w);

/* Marks of what waits to be sent (worker.backlog), in bytes; a ring sends 1 to 2 GB/s. Above the first, whoever
 * publishes to a channel that costs more than its share is asked to stop; below the second they go on. Above the third
 * the ring takes nothing more from its lanes. */
#define FAN_BACKLOG_HIGH (32u << 20)
#define FAN_BACKLOG_LOW (8u << 20)
#define FAN_BACKLOG_MAX (1u << 30)

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
