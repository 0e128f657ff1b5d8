/* The primaries of a Redis Cluster: which serves which slot, and a link of each kind to each of them. Asks one node after the
 * other for the map (CLUSTER SLOTS, with CLUSTER INFO to know what it is worth): at the start, when something shows that
 * it is out of date, and every redis.cluster_refresh. Topics and publishes are broker/bus_rcluster's, which hears here
 * of slots that changed their owner. */
#ifndef BROKER_RNODES_H
#define BROKER_RNODES_H

#include "broker/redis_io.h"
#include "broker/slotmap.h"
#include "common/conf.h"

#define RNODES_NONE UINT16_MAX
/* Those of the map, and as many that are about to leave. */
#define RNODES_MAX (2 * SLOTMAP_NODES)
#define RNODES_SEEDS 16

struct rnodes;

struct rnode {
    struct rnodes *all;
    struct redisurl where;
    struct redis_link *pub, *sub;
    uint32_t slots;         /* that it owns */
    uint16_t index;
    bool used;
    bool leaving;           /* owns none any more; its links end when their replies are in, or at ... */
    struct mono leave_at;
    bool was_lost;          /* its publishing link, since it was up */
};

struct rnodes_ears {
    /* The slot has another owner; `was` and the new one may be RNODES_NONE. */
    void (*on_owner)(void *arg, uint16_t slot, uint16_t was);
    /* The links of a node that owns nothing are about to be freed: the last chance to take back what is open. */
    void (*on_gone)(void *arg, struct rnode *);
    struct redis_ears pub, sub; /* of the links; their arg is the node */
};

struct rnodes {
    struct redis_io *io;
    const struct conf *conf;
    uint64_t *metrics;
    const struct rnodes_ears *ears;
    void *arg;
    struct mono now;
    struct rnode *node[RNODES_MAX]; /* freed with the whole; a place is used again */
    uint16_t node_count;            /* places below this may be in use */
    uint16_t used_count;
    uint16_t owner[SLOTS];
    uint32_t owned;                 /* slots that have an owner */
    /* Asking. */
    struct redisurl seeds[RNODES_SEEDS];
    unsigned seed_count;
    unsigned turn;                  /* whom to ask next: nodes first, then seeds */
    struct redis_link *ask;
    struct redisurl asked;
    bool is_asking;                 /* replies are due */
    bool wants_map;                 /* soon; else when redis.cluster_refresh is over */
    unsigned in_vain;               /* answers of no use, one after the other */
    bool leaves_asked;              /* its link is about to be told as lost, since another was chosen */
    struct mono ask_at;             /* when at the earliest */
    struct mono look_at;            /* when nodes are looked at next */
    struct mono tried_at;           /* when the one that is asked now was chosen */
    struct slotmap_info info;       /* of the answer under way */
    bool has_info;
    struct slotmap *map;            /* to read into */
    bool has_map;
    uint64_t epoch;                 /* highest that a map was taken with ... */
    struct mono epoch_at;           /* ... and when it was last heard of */
};

/* Reads redis.url. NULL with a sentence in err. `ears` lives as long. */
struct rnodes *rnodes_open(const struct conf *, struct redis_io *, uint64_t *metrics, const struct rnodes_ears *, void *arg,
    struct conf_error *err);
/* Frees the links; nothing is told. */
void rnodes_close(struct rnodes *);
/* Before the turn of the links. After how many ms to call again. */
uint32_t rnodes_turn(struct rnodes *, struct mono now);
/* The map is out of date: it is asked for soon. */
void rnodes_want_map(struct rnodes *);
/* A node said where the slot is. The index of that node; RNODES_NONE when there is no room for it. `by` is who answered; SLOTMAP_MOVED
 * makes it the owner. */
uint16_t rnodes_redirect(struct rnodes *, const struct rnode *by, const struct slotmap_redirect *r, enum slotmap_verdict v);

static inline struct rnode *
rnodes_at(const struct rnodes *all, uint16_t index)
{
    return index < all->node_count && all->node[index]->used ? all->node[index] : NULL;
}

static inline struct rnode *
rnodes_owner(const struct rnodes *all, uint16_t slot)
{
    return rnodes_at(all, all->owner[slot]);
}

#endif
