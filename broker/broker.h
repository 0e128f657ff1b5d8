/* A broker process: owns the channels whose names hash to it. One thread, one ring. It knows ring
 * threads (peers) and channels, never a client.
 *
 * A turn: wait; reap; what overflowed before goes out first; every peer's lane is drained within a
 * budget; indices are published and bells rung, once; timers. */
#ifndef BROKER_BROKER_H
#define BROKER_BROKER_H

#include <stdatomic.h>

#include "common/conf.h"
#include "common/metric.h"
#include "common/mono.h"
#include "common/pool.h"
#include "common/priv.h"
#include "common/ring.h"

struct start; /* common/start.h */

enum broker_op {
    OP_NONE,
#define OP(name, sentence, owner, on_done, ...) OP_##name,
#include "broker/ops.def"
#undef OP
    OP_COUNT
};

/* Ring threads of one host: 256 workers of 64 rings would be more than any host has; the bound is on
 * descriptors and memory of a broker. */
#define PEERS_MAX 1024

struct bus;
struct across;
struct hosts;
struct tallies;

struct broker {
    struct ring ring;
    struct conf *conf;
    unsigned index;
    uint64_t *metrics;
    struct metric_page page;
    struct mono now;
    struct mono beat_at;      /* when heartbeats are looked at next */
    struct mono seen;         /* last turn: a long gap means that this process was stopped itself */
    struct mono grace_until;  /* until then nobody is given up for silence */
    int listen_fd;
    int signal_fd, parent_fd;
    uid_t worker_uid;         /* whose processes may attach, beside our own user's and root's */
    char path[108];           /* of the listening socket */
    struct pool peers;        /* struct peer */
    struct pool chans;        /* struct chan */
    uint32_t *table;          /* buckets of channels */
    uint32_t mask;
    uint64_t seed;
    uint64_t overflow_bytes;
    struct bus *bus;          /* to other hosts; never NULL once it runs */
    struct across *across;    /* what lies above it; NULL when there is no bus */
    uint32_t bus_wait_ms;     /* how soon they want their next turn */
    struct hosts *hosts;      /* who else is there; NULL when there is no bus */
    struct tallies *tallies;  /* questions for subscribers under way */
    struct pool asks;         /* struct ask: operators' questions */
    struct mono since;        /* when it began */
    bool busy;                /* lanes hold more than the turn's budget */
    bool stuck;               /* a record waits for room in another ring's lane */
    bool accepting;
    bool settled;             /* every ring of this host has said what it wants, or had its time to */
    struct mono settle_by;
    int stopping;             /* 1: end when all peers are gone or it is late; 2: now */
    struct mono stop_at, bus_stop_at;
};

/* Waits while another broker has our place. Under a `ringcast run`, which has run.dir for itself, that is one a killed run
 * left behind, and it is waited for as long as that may drain; started by hand a second broker is a mistake, unless it is
 * just going. Who has the place after that is for broker_init to name. False: told to end meanwhile. */
bool broker_await_place(const struct conf *conf, const struct start *s) MUST_CHECK;
/* False with a sentence in err. The caller frees with broker_fini. */
bool broker_init(struct broker *b, struct conf *conf, unsigned index, struct conf_error *err) MUST_CHECK;
/* Watches signal_fd and parent_fd, where they are set. */
void broker_watch(struct broker *b);
/* Shows in the counters what this process may do. */
void broker_show_rights(struct broker *b, const struct priv_state *now);
void broker_turn(struct broker *b, uint32_t max_wait_ms);
void broker_run(struct broker *b);
void broker_fini(struct broker *b);

void broker_on_accept(struct broker *b, struct ring_done d);
void broker_on_signal(struct broker *b, struct ring_done d);
void broker_on_ignored(struct broker *b, struct ring_done d);

#define COUNT(b, row) metric_add((b)->metrics, BM_##row, 1)
#define COUNT_N(b, row, n) metric_add((b)->metrics, BM_##row, (n))
#define GAUGE(b, row, v) metric_set((b)->metrics, BM_##row, (v))

#endif
