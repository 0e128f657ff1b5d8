/* Which connections of this ring hear which channel. Subscriptions to the broker are per channel, not
 * per client: the first subscriber here subscribes there, the last one to leave unsubscribes. */
#ifndef WORKER_SUBS_H
#define WORKER_SUBS_H

#include "worker/conn.h"

enum chan_state {
    CHAN_ASKED, /* the broker was asked and has not answered */
    CHAN_HELD,  /* the broker holds the subscription */
    CHAN_LOST,  /* it did, and was lost: it is asked again when it is back */
};

struct behind;

/* A channel with at least one subscriber on this ring. */
struct chan {
    struct pool_head head;
    uint32_t hash;
    uint32_t bucket_next;
    uint16_t name_n;
    uint8_t broker;
    uint8_t state;            /* enum chan_state */
    bool asked;               /* a subscribe is with the link: the end needs an unsubscribe */
    uint8_t ns;               /* its namespace, in worker.namespaces ... */
    uint16_t ns_round;        /* ... of this worker.ns_round; subs_namespace() looks again when that has gone on */
    uint32_t sub_count, sub_cap;
    union {
        uint32_t one[2];      /* sub_cap == 2 */
        uint32_t *many;
    };
    uint8_t *name;
    struct behind *behind;    /* NULL: no subscriber is behind (worker/behind.h) */
    /* Batch: frames of this turn that all present subscribers get. */
    struct rc *batch;         /* NULL: none */
    uint32_t batch_off, batch_len, batch_messages;
    bool batch_listed;
    bool busy;                /* its broker was told that there is too much of it: on worker.busy_chans */
    struct rc *tail;          /* NULL, or holds the last batches that slow readers got; the next goes behind them */
};

enum subs_rc {
    SUBS_HELD,    /* subscribed; the broker holds the channel already */
    SUBS_NEW,     /* first here: the broker must be asked */
    SUBS_ASKED,   /* somebody else's question is on its way */
    SUBS_ALREADY, /* this connection had it (state as the channel's) */
    SUBS_NO_MEMORY,
};

bool subs_init(struct worker *w);
void subs_fini(struct worker *w);
struct chan *subs_find(struct worker *w, struct view name);
enum subs_rc subs_add(struct worker *w, struct conn *c, struct view name, struct chan **out);
bool subs_has(struct worker *w, struct conn *c, const struct chan *ch);
/* False if it was not subscribed. The channel goes with its last subscriber. */
bool subs_drop(struct worker *w, struct conn *c, struct chan *ch);
/* Drops all subscriptions of a connection. */
void subs_drop_all(struct worker *w, struct conn *c);
/* Drops the channel with all its subscribers. */
void subs_drop_chan(struct worker *w, struct chan *ch);

/* links_ops.on_count. */
uint32_t subs_on_count(void *worker, uint32_t chan, uint32_t chan_gen);

/* The namespace a channel is in. While subscribers are behind it stays what it was. */
const struct conf_namespace *subs_namespace(struct worker *w, struct chan *ch);
/* How many subscribers are level; they stand in front of those that are behind. */
uint32_t subs_level(const struct chan *ch);
/* The subscriber at `pos` goes over to those who are behind; g (conn and chan filled) knows its position from now on. */
struct laggard;
void subs_to_behind(struct worker *w, struct chan *ch, uint32_t pos, struct laggard *g);
void subs_to_level(struct worker *w, struct chan *ch, struct laggard *g);

static inline uint32_t *
chan_subs(struct chan *ch)
{
    return ch->sub_cap == 2 ? ch->one : ch->many;
}

static inline struct view
chan_name(const struct chan *ch)
{
    return view_of(ch->name, ch->name_n);
}

#endif
