/* Publishes that wait for a link to a Redis server: in order, bounded in bytes. Above the bound the oldest lose what
 * they carry and become notes of a few bytes, so that their fate can be told at their place. Single owner: a bus. */
#ifndef BROKER_OUTBOX_H
#define BROKER_OUTBOX_H

#include "broker/redis_link.h"

struct outbox_item {
    struct outbox_item *next;
    uint64_t token;
    bool dropped;                   /* only the topic is left */
    uint32_t n;                     /* of bytes: the command, or the topic of a note */
    uint32_t topic_at, topic_n, payload_at, payload_n;
    uint8_t bytes[];
};

struct outbox {
    struct outbox_item *first, *last;
    struct outbox_item *trimmed;    /* up to this one all are notes; NULL: none is known to be */
    size_t bytes;                   /* memory of all items */
    uint32_t count;
};

/* Behind all others. False when memory is out. */
bool outbox_put(struct outbox *o, struct view verb, struct view prefix, struct view name, struct view head,
    struct view body, uint64_t token) MUST_CHECK;
/* A copy of a request behind all others; for requests that come back: into an empty outbox, then outbox_put_front. */
bool outbox_put_request(struct outbox *o, const struct redis_request *r) MUST_CHECK;
/* All of `more` before all of `o`; `more` is empty then. */
void outbox_put_front(struct outbox *o, struct outbox *more);
/* Bytes that outbox_put would add. */
size_t outbox_cost(struct view verb, size_t topic_n, size_t payload_n);
/* Makes notes of the oldest until no more than `bound` bytes are in it; returns of how many. */
uint32_t outbox_trim(struct outbox *o, size_t bound);
/* The oldest, as the link wants it. */
struct redis_request outbox_request(const struct outbox_item *i);
struct view outbox_topic(const struct outbox_item *i);
void outbox_pop(struct outbox *o);
void outbox_free(struct outbox *o);

#endif
