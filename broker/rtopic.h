/* Topics that a Redis Cluster is to tell us of: found by their whole name, held in lists by their slot. What happens to them is
 * broker/bus_rcluster's. */
#ifndef BROKER_RTOPIC_H
#define BROKER_RTOPIC_H

#include "common/base.h"
#include "common/view.h"

enum rtopic_state {
    RTOPIC_IDLE,    /* not asked for */
    RTOPIC_ASKED,   /* SSUBSCRIBE is under way */
    RTOPIC_JOINED,  /* confirmed */
    RTOPIC_LEAVING, /* SUNSUBSCRIBE is under way */
};

/* One per channel of a host: 56 bytes and its name. */
struct rtopic {
    struct rtopic *bucket_next;
    struct rtopic *prev, *next; /* in the list of its slot that it is in */
    struct rtopic *tell_next;   /* in the line of those that something is to be told of */
    uint32_t hash;
    uint16_t slot;
    uint16_t n;
    uint8_t state;     /* enum rtopic_state */
    bool wanted;
    bool is_todo;      /* in its slot's list of those that something is to be asked for */
    bool is_joined;    /* as far as was told */
    bool was_joined;   /* told as joined since it is wanted */
    bool is_missed;    /* told as lost, and not back yet */
    bool in_line;      /* of those to be told of */
    uint8_t tell;      /* what: broker/bus_rcluster's */
    uint8_t name[];    /* prefix and all */
};

struct rtopics {
    struct rtopic **bucket;
    uint32_t mask; /* buckets - 1 */
    uint32_t count;
    uint64_t seed;
};

/* False when memory is out. `seed` is secret, as clients choose names. */
bool rtopics_init(struct rtopics *t, uint64_t seed) MUST_CHECK;
/* Frees all topics. */
void rtopics_fini(struct rtopics *t);
struct rtopic *rtopic_find(const struct rtopics *t, struct view name);
/* A new one, idle and in no list; the name must not be there. NULL when memory is out or the name is longer than 65535. */
struct rtopic *rtopic_add(struct rtopics *t, struct view name, uint16_t slot);
/* Takes it out and frees it; it is in no list and no line. */
void rtopic_free(struct rtopics *t, struct rtopic *topic);

static inline struct view
rtopic_name(const struct rtopic *t)
{
    return view_of(t->name, t->n);
}

/* Doubly linked; `head` is the slot's. */
void rtopic_link(struct rtopic **head, struct rtopic *t);
void rtopic_unlink(struct rtopic **head, struct rtopic *t);

#endif
