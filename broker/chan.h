/* A channel as its broker knows it: which rings want it, and how many messages it has had. It exists
 * while some ring wants it. */
#ifndef BROKER_CHAN_H
#define BROKER_CHAN_H

#include "broker/broker.h"
#include "common/view.h"

/* A ring that wants the channel, and the ring's own name for it. */
struct interest {
    uint32_t peer;     /* slot */
    uint32_t chan, gen;
};

struct chan {
    struct pool_head head;
    uint32_t hash;
    uint32_t bucket_next;
    uint64_t seq;      /* of the last message; offsets begin at 1 */
    uint16_t name_n;
    uint16_t count, cap; /* interests; cap 1: inline */
    union {
        struct interest one;
        struct interest *many;
    };
    uint8_t *name;
};

bool chans_init(struct broker *b) MUST_CHECK;
void chans_fini(struct broker *b);

static inline struct view
chan_name(const struct chan *ch)
{
    return view_of(ch->name, ch->name_n);
}

static inline struct interest *
chan_interests(struct chan *ch)
{
    return ch->cap <= 1 ? &ch->one : ch->many;
}

/* The channel, or NULL if no ring wants it. */
struct chan *chan_find(struct broker *b, struct view name);
/* The same, made if need be; NULL at broker.max_channels or when memory is out. */
struct chan *chan_want(struct broker *b, struct view name);
/* Adds a ring's interest, or renews its handle. False when memory is out. */
bool chan_join(struct broker *b, struct chan *ch, struct interest i) MUST_CHECK;
/* Drops a ring's interest if it is the one of this handle; the channel goes with its last. */
void chan_leave(struct broker *b, struct chan *ch, struct interest i);

enum chan_rc {
    CHAN_OK,
    CHAN_BLOCKED, /* a ring that wants it has no room left, not even in its overflow: try again later */
};
/* Numbers a message and writes it for each ring that wants it: all of them or, when BLOCKED, none.
 * `from` is the peer it came from, who is told to stop (XOFF) when a ring falls behind. */
enum chan_rc chan_publish(struct broker *b, uint32_t from, struct view name, bool has_data, struct view data);
/* Writes for each ring that wants the channel that `count` messages (0: nobody knows how many) of other hosts, which
 * would stand here, did not come. Bookkeeping: it needs no room, and a ring that it can't be written for begins anew. */
void chan_gap(struct broker *b, struct chan *ch, uint64_t count);

#endif
