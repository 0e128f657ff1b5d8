/* What a node of a Redis Cluster says of the whole: which primary serves which slot (CLUSTER SLOTS), how sure it is of
 * that (CLUSTER INFO), and where it sends who asked the wrong one (-MOVED, -ASK). Pure: replies in, tables out. All of it
 * may be wrong or hostile. */
#ifndef BROKER_SLOTMAP_H
#define BROKER_SLOTMAP_H

#include "broker/redis_reply.h"
#include "proto/redisurl.h"
#include "proto/slot.h"

#define SLOTMAP_NODES 1000 /* primaries; Redis Cluster itself is made for as many nodes */
#define SLOTMAP_NONE UINT16_MAX

struct slotmap_node {
    char host[REDISURL_HOST];
    uint16_t port;
};

struct slotmap {
    uint16_t node_count;
    uint16_t owner[SLOTS]; /* index of a node, or SLOTMAP_NONE: nobody serves it */
    struct slotmap_node nodes[SLOTMAP_NODES];
};

/* Reads the reply of CLUSTER SLOTS. A node without an address is the one that was asked (`asked`, its host). False with a phrase in
 * *why when it is no such reply or passes a bound; the map is useless then. */
bool slotmap_read(struct slotmap *m, const struct redis_reply *r, const char *asked, const char **why) MUST_CHECK;

struct slotmap_info {
    bool ok;        /* cluster_state:ok: this node is with the majority, and all slots that must be are served */
    uint64_t epoch; /* cluster_current_epoch: who knows of less has an older map */
};
/* Reads the text of CLUSTER INFO. False when it says neither. */
bool slotmap_info_read(struct slotmap_info *i, struct view text) MUST_CHECK;

enum slotmap_verdict {
    SLOTMAP_MOVED,  /* the slot is served there, from now on */
    SLOTMAP_ASK,    /* this once, behind ASKING */
    SLOTMAP_LATER,  /* the cluster is between two states (TRYAGAIN, CLUSTERDOWN, LOADING, MASTERDOWN): again after a while */
    SLOTMAP_ERROR,  /* anything else */
};
struct slotmap_redirect {
    uint16_t slot;
    struct slotmap_node to; /* its host is empty when it is the one that answered */
};
/* What an error means. `out` is filled for MOVED and ASK; such a one that does not parse is an ERROR. */
enum slotmap_verdict slotmap_judge(struct view error, struct slotmap_redirect *out);

#endif
