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
    uint32_t missed : 31; /* messages of other hosts that its ring had no room for and has not been told of */
    uint32_t stands : 1;  /* its ring was told so, or knows it from the broker before; kept where there is a bus */
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
    struct across_chan *across; /* what is known of its other hosts; NULL without a bus */
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

/* What names are found by, here and in broker/sources. */
uint32_t chan_hash(const struct broker *b, struct view name);
/* The channel, or NULL if no ring wants it. */
struct chan *chan_find(struct broker *b, struct view name);
struct chan *chan_find_hashed(struct broker *b, struct view name, uint32_t hash);
/* The same, made if need be; NULL at broker.max_channels or when memory is out. */
struct chan *chan_want(struct broker *b, struct view name);
/* Adds a ring's interest, or renews its handle. False when memory is out. */
bool chan_join(struct broker *b, struct chan *ch, struct interest i) MUST_CHECK;
/* The interest of this handle: notes that it stands; tells whether it does. */
void chan_stand(struct chan *ch, struct interest i);
bool chan_stands(struct chan *ch, struct interest i);
/* Drops a ring's interest if it is the one of this handle; the channel goes with its last. */
void chan_leave(struct broker *b, struct chan *ch, struct interest i);

enum chan_rc {
    CHAN_OK,
    CHAN_BLOCKED, /* a ring that wants it has no room left, not even in its overflow: try again later */
};
/* Numbers a message and writes it for each ring that wants it: all of them or, when BLOCKED, none.
 * `from` is the peer it came from, who is told to stop (XOFF) when a ring falls behind. */
enum chan_rc chan_publish(struct broker *b, uint32_t from, struct view name, bool has_data, struct view data);
/* The steps of chan_publish, for broker/across. Whether each ring that wants it has room for a message of n bytes. */
bool chan_has_room(struct broker *b, struct chan *ch, size_t n);
/* Writes a message for each ring. One without room misses it and is told so (a gap) before its next one. */
void chan_deliver(struct broker *b, struct chan *ch, bool has_data, struct view data);
/* Tells `from` to stop if a ring that wants the channel has fallen behind. */
void chan_slow(struct broker *b, struct chan *ch, uint32_t from);
/* Tells each ring, in its place between messages, that `count` messages are missing; 0: nobody knows how many. */
void chan_gap(struct broker *b, struct chan *ch, uint64_t count);
/* Tells one ring what it missed for want of room, now that there is some. False: still not enough. */
bool chan_tell_missed(struct broker *b, struct interest *i);

#endif
