/* Publishes that wait for a link to a Redis server: in lanes, each in order (a server's, or one of each slot of a cluster); bounded in
 * bytes as a whole. Above the bound the oldest, of whichever lane, lose what they carry and become notes of a few bytes,
 * so that their fate can be told at their place. Single owner: a bus. */
#ifndef BROKER_OUTBOX_H
#define BROKER_OUTBOX_H

#include "broker/redis_command.h"

struct outbox_item {
    struct outbox_item *prev, *next;    /* in its lane */
    struct outbox_item *older, *newer;  /* of all publishes; not of notes */
    struct outbox_lane *lane;
    uint64_t token;
    bool is_note;                       /* only the topic is left */
    uint32_t dropped;                   /* a note: of so many with this topic and token, one behind the other; who tells of one
                                           takes it off */
    uint32_t n;                         /* of bytes: the command, or the topic of a note */
    uint32_t topic_at, topic_n, payload_at, payload_n;
    uint8_t bytes[];
};

struct outbox_lane {
    struct outbox_item *first, *last;
    struct outbox_item *back;           /* the last of those that came back; NULL: what comes back now goes before all */
};

struct outbox {
    struct outbox_item *oldest, *newest;
    size_t bytes;                       /* memory of all items */
    uint32_t count;                     /* items */
    uint32_t notes;                     /* of these */
};

/* Behind all others of the lane. False when memory is out. */
bool outbox_put(struct outbox *o, struct outbox_lane *lane, struct view verb, struct view prefix, struct view name,
    struct view head, struct view body, uint64_t token) MUST_CHECK;
/* A copy of a request that was sent and comes back: behind lane->back, before all others, and is lane->back then; NULL when memory
 * is out. Who knows that no more of them come sets lane->back to NULL. */
struct outbox_item *outbox_put_back(struct outbox *o, struct outbox_lane *lane, const struct redis_request *r) MUST_CHECK;
/* Marks the publish that stands behind what came back, or is first, with BUS_AGAIN (broker/bus.h): it was given to the bus when
 * nothing waited, and now what came before it may give way. Those behind it were given when something waited: broker/across
 * has marked them itself. */
void outbox_mark_next(const struct outbox_lane *lane);
void outbox_mark(struct outbox_item *i);
/* Bytes that outbox_put would add. */
size_t outbox_cost(struct view verb, size_t topic_n, size_t payload_n);
/* Makes a note of the oldest publish, which there is. */
void outbox_drop(struct outbox *o);
/* The same until no more than `bound` bytes are in it, or nothing but notes; returns of how many. */
uint32_t outbox_trim(struct outbox *o, size_t bound);
/* A publish as the link wants it. */
struct redis_request outbox_request(const struct outbox_item *i);
struct view outbox_topic(const struct outbox_item *i);
/* Takes out the first of a lane, which has one. */
void outbox_pop(struct outbox *o, struct outbox_lane *lane);
void outbox_empty(struct outbox *o, struct outbox_lane *lane);

#endif
