/* Subscribers that do not keep up with a channel whose namespace drops messages for them (slow =
 * drop-oldest, conflate). Nothing is queued for such a one any more: it holds a position in what the channel
 * keeps of its most recent messages (worker/lag), once for all who are behind. When its connection has
 * taken what waited it is served from there, told of the gap first, until it is level again. So memory does
 * not depend on how many are behind, nor for how long. */
#ifndef WORKER_BEHIND_H
#define WORKER_BEHIND_H

#include "worker/lag.h"
#include "worker/subs.h"

/* What a channel keeps; exists while one of its subscribers is behind. */
struct behind {
    const struct conf_namespace *ns; /* as it was when the first one fell behind */
    struct lag lag;
    uint32_t count;                  /* how many are behind: the last so many of the channel's list */
};

/* A subscription that is behind. */
struct laggard {
    struct pool_head head;
    uint32_t conn, chan;  /* slots */
    uint32_t pos;         /* in the channel's list; kept by worker/subs */
    uint32_t next, prev;  /* circle of those of the same connection */
    struct lag_pos next_message;
};

/* Most subscriptions of one ring that may be behind; for more, their connections end as with slow = close. */
#define LAGGARDS_MAX (1u << 22)

/* Hands the batch of a channel to those who are level, and to the lag if somebody is not. Returns to how many it was
 * queued. */
uint64_t behind_fan_out(struct worker *w, struct chan *ch, const struct conf_namespace *ns);
/* The client took something: gives it what its channels keep for it, as long as little waits. */
void behind_serve(struct worker *w, struct conn *c);
/* The subscription ends: what it has not got is counted, and told if the client is to go on (`tell`). It stands among
 * the level ones then. */
void behind_leave(struct worker *w, struct laggard *g, bool tell);
/* Messages of the channel, which would stand here, did not come: so many, 0: nobody knows. All subscribers are told, each at
 * that place. The channel must have no batch. */
void behind_hole(struct worker *w, struct chan *ch, uint64_t messages);
/* Whether subscribers of such a channel can be told of gaps that were made here. */
bool behind_is_told(const struct conf_namespace *ns);

static inline struct laggard *
laggard_at(const struct worker *w, uint32_t slot)
{
    return pool_at(&w->laggards, slot);
}

#endif
