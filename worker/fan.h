/* Encode once, hand out references. Messages of one channel that come in the same turn are laid one
 * behind the other in a block; at the end of the drain each subscriber gets one stretch of it, and so one
 * send, however many messages there were. */
#ifndef WORKER_FAN_H
#define WORKER_FAN_H

#include "worker/subs.h"

/* links_ops.on_message: a published message for a channel of ours. */
void fan_on_message(void *worker, uint32_t chan, uint32_t chan_gen, bool has_data, struct view data);
/* Hands the batch of a channel to its subscribers; before the list of subscribers changes, and at the
 * end of the drain for all (fan_out_all). */
void fan_out(struct worker *w, struct chan *ch);
void fan_out_all(struct worker *w);

#endif
