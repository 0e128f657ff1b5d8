/* Topics at a Redis Cluster: their names, and the copies of control topics. Those are three channels each in slots far apart, so
 * that two nodes may be away and they are still heard. A publish there has as many replies as it has copies under way, and is told
 * of once. */
#ifndef BROKER_RCOPIES_H
#define BROKER_RCOPIES_H

#include "broker/bus.h"

#define RCOPIES 3
/* What a name at Redis has beside redis.prefix and the topic's own, at most. */
#define RCOPIES_MARKS 5
/* Publishes on control topics whose fate is not known. */
#define RCOPIES_MAX 4096u
#define RCOPIES_NONE UINT32_MAX

unsigned rcopies_of(struct bus_topic t);
/* prefix:name, or prefix/{tag}name. None when `out` is too small. Lives until out is used again. */
struct view rcopies_name(struct buf *out, struct view prefix, struct bus_topic t, unsigned copy);
/* False when it is none of ours. */
bool rcopies_topic(struct view prefix, struct view name, struct bus_topic *out);

struct rcopy;
struct rcopies {
    struct rcopy *v;
    uint32_t free;
};

/* False when memory is out. */
bool rcopies_init(struct rcopies *r) MUST_CHECK;
void rcopies_fini(struct rcopies *r);
/* A place for one publish: the token of each of its copies. RCOPIES_NONE: there are too many. */
uint32_t rcopies_begin(struct rcopies *r, uint64_t token);
/* Has `copies` of them under way; none: the place is free again. */
void rcopies_sent(struct rcopies *r, uint32_t at, uint32_t copies);
/* What became of one copy. True: that is what becomes of the publish, whose token it was begun with. The first that is taken
 * counts, or else the last. */
bool rcopies_fate(struct rcopies *r, uint32_t at, enum bus_fate fate, uint64_t *token);

#endif
