/* A ring thread: the turn, and the struct that owns everything the thread has. Nothing in it is shared
 * with another thread but `stop` and the wake-up eventfd. Called by main.c (threads) and by tests. */
#ifndef WORKER_WORKER_H
#define WORKER_WORKER_H

#include <stdatomic.h>

#include "common/addr.h"
#include "common/conf.h"
#include "common/metric.h"
#include "common/mono.h"
#include "common/pool.h"
#include "common/rc.h"
#include "common/ring.h"
#include "common/wheel.h"
#include "proto/dialect.h"
#include "worker/link.h"
#include "worker/pace.h"
#include "worker/rate.h"
#include "worker/segq.h"

/* How what is published is packed for a connection (worker/pmd.h): equal flavours share the bytes. */
enum pmd_flavour {
    PMD_PLAIN,           /* nothing was agreed */
    PMD_FIRST,           /* windows of 2^9 bytes ... */
    PMD_LAST = PMD_FIRST + 6, /* ... to 2^15 */
    PMD_OWN,             /* with a context of its own */
    PMD_FLAVOURS,
};

enum worker_op {
    OP_NONE,
#define OP(name, sentence, owner, on_done, ...) OP_##name,
#include "worker/ops.def"
#undef OP
    OP_COUNT
};

#define LISTENERS_MAX 16

struct listener {
    int fd;
    bool armed;
    bool is_unix;
    bool tls;          /* TLS is spoken */
    bool proxy;        /* its connections begin with a PROXY header */
    bool no_gaps;      /* its clients are told of no gap */
    uint32_t retry_at; /* tick at which accepting is tried again; 0: not paused */
};

/* Slots of connections that have something to send, in the order they got it. */
struct slot_list {
    uint32_t *v;
    uint32_t n, cap;
};

/* Two ends of a list threaded through connections. */
struct slot_queue {
    uint32_t first, last;
};

struct conn;
struct chan;
struct pmd;
struct tls_server;

struct worker {
    struct ring ring;
    struct ring_bufs bufs;
    const struct conf *conf;
    uint64_t *metrics;             /* values of this ring's page, by enum ring_metric */
    struct metric_page page;
    struct mono now;               /* of this turn */
    uint32_t tick;                 /* the same in wheel ticks */
    unsigned worker_idx, ring_idx;

    struct listener listeners[LISTENERS_MAX];
    unsigned listener_count;
    struct pool conns;             /* struct conn */
    uint32_t conn_max, unshaken_max;
    struct slot_queue unshaken;    /* oldest first */
    struct wheel wheel;
    struct rc_pool blocks;

    struct pool chans;             /* struct chan */
    uint32_t *chan_table;          /* hash buckets: slot of the first channel or POOL_NONE */
    uint32_t chan_mask;
    uint64_t hash_seed;
    struct pool laggards;          /* struct laggard: subscriptions that are behind */
    uint64_t lag_bytes;            /* what channels keep for them */
    const struct conf_namespaces *namespaces;
    uint16_t ns_round;             /* how often they were others */

    struct pmd *pmd;               /* streams of permessage-deflate */
    struct oseg slow_copy;         /* the batch that is handed out, for slow readers; rc NULL: none asked yet */
    struct oseg twins[PMD_FLAVOURS]; /* the batch that is handed out, packed; rc NULL: nobody asked yet */
    struct links *links;
    struct slot_queue *waiting;    /* per broker: connections stopped until their link has room */
    struct slot_list urgent;       /* little to send, at the end of the turn */
    struct slot_list dirty;        /* more to send, as much of it as the turn has time for */
    bool fan_is_heavy;             /* what is queued now is a channel's that costs more than its share */
    struct slot_list busy_chans;   /* channels whose publishers were asked to stop */
    struct slot_list fan_waiting;  /* connections of ours among them (PAUSE_FAN) */
    uint32_t most_subs;            /* of any channel, ever: what costs little for so many costs little */
    uint64_t backlog;              /* about what sending all of `dirty` costs (outq.h), after the last turn */
    struct slot_list paced;        /* what is published to them waits for the end of the round (out.pacing) */
    struct pace pace;
    struct slot_list dirty_chans;  /* channels with a batch to hand out */
    struct slot_list doomed;       /* to be closed once no list is being walked */
    struct slot_list ready;        /* input held over because the turn's share was used up */
    struct slot_list unbuffered;   /* receives to arm again once buffers are back */
    struct slot_list just_freed;   /* slots that go back to the pool at the end of the turn */
    struct rc *arena;              /* small answers of this turn */
    struct tls_server *tls;        /* NULL: no listener speaks TLS */
    _Atomic(struct tls_server *) *tls_fresh; /* from a reload, for this ring to take; NULL without TLS */
    bool tls_kernel;               /* this kernel has kTLS */
    struct rc *cipher;             /* cipher text of this turn */
    uint8_t *tls_plain;            /* TLS_PLAIN_MAX bytes of scratch */
    struct slot_list tls_waiting;  /* handshakes that wait for their turn, from tls_waiting_at on */
    uint32_t tls_waiting_at;
    uint32_t tls_left;             /* handshake steps this turn may still take */
    struct iovec *iov;             /* scratch of the flush */
    struct msghdr *msg;
    uint64_t queue_bytes;          /* waiting for clients, all connections */
    uint64_t input_bytes;          /* unfinished input, all connections */
    uint64_t buffers_max;          /* mem.buffers, this ring's share */
    int ceiling_fd;                /* what the kernel says of our memory; -1: unknown */
    uint32_t ceiling_at, trim_at;  /* ticks of the next look, and of giving back */
    bool ceiling_reached;          /* mem.limit: nobody new is taken */
    struct dialect_limits limits;
    struct addr_nets trusted;      /* http.trusted_proxies */
    struct addrs *addrs;           /* of all rings of the process; NULL: addresses are not counted */
    struct rates rates;
    struct decoding decoding;      /* scratch of the message at hand */
    struct buf scratch;
    uint32_t next_id;
    uint8_t random[4096];          /* for session ids */
    uint32_t random_at;
    uint32_t turn;                 /* number of this turn */
    uint32_t links_at;             /* tick at which links want to be called */
    int wake_fd;
    uint64_t wake_value;
    _Atomic int *stop;             /* 0 run, 1 drain, 2 end now */
    int stopping;
    uint32_t drain_at, drain_end;
    bool links_busy;
};

/* What a ring thread needs to know; copied. */
struct worker_setup {
    const struct conf *conf;
    unsigned worker_idx, ring_idx;
    const struct listener *listeners; /* fd and kind of each */
    unsigned listen_count;
    struct tls_server *tls;        /* becomes the ring's; NULL: none does */
    _Atomic(struct tls_server *) *tls_fresh;
    struct addrs *addrs;           /* shared by the rings; NULL: addresses are not counted */
    uint32_t conn_max;             /* of this ring */
    int wake_fd;                   /* eventfd, written when *stop changed */
    _Atomic int *stop;
    int cpu;                       /* to be pinned to; -1: none */
};

/* Builds a worker in the calling thread; on failure a sentence in err and NULL. */
struct worker *worker_new(const struct worker_setup *, struct conf_error *err);
/* Shows in the counters what the calling thread, which is the ring's, may do. */
void worker_show_rights(struct worker *w);
/* Turns until *stop says so and every connection has ended. */
void worker_run(struct worker *w);
/* One turn; at most max_wait_ms are slept. For worker_run and tests. */
void worker_turn(struct worker *w, uint32_t max_wait_ms);
void worker_free(struct worker *w);

/* The connection that holds most ends with 1013, if one holds anything. */
void worker_end_largest(struct worker *w);

void worker_on_ignored(struct worker *w, struct ring_done d);
void worker_on_wake(struct worker *w, struct ring_done d);

void slot_push(struct slot_list *l, uint32_t slot);

#define COUNT(w, row) metric_add((w)->metrics, RM_##row, 1)
#define COUNT_N(w, row, n) metric_add((w)->metrics, RM_##row, (n))
#define GAUGE(w, row, v) metric_set((w)->metrics, RM_##row, (v))

#endif
