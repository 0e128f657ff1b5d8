/* The load generator: one thread, one io_uring ring, many client connections. Nothing here is
 * global, so a process can run several. This file has what a run sets and reads, the turn, and publishing;
 * load_ring.h is the ring, load_conn.h a connection's life, load_tx.h and load_rx.h what it sends and receives.
 *
 * Connections belong to groups. A group is one channel with its subscribers and at most one
 * publisher: fan-out is one large group, pairs are many of two, an idle run has no publishers. */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include <netinet/in.h>

#include "bench/frame.h"
#include "bench/hist.h"
#include "bench/load_ring.h"
#include "bench/pmd.h"
#include "bench/seq.h"
#include "bench/speak.h"
#include "bench/tls.h"
#include "bench/zipf.h"
#include "common/base.h"

/* What a connection is made of. */
enum load_wire {
    LOAD_WEBSOCKET,
    LOAD_STREAM, /* the protocol's own stream of bytes, on TCP or TLS */
    LOAD_FLOOR,  /* a server's WebSocket frames without any handshake */
};

/* How far a connection of a storm goes before it is dropped. */
enum load_depth {
    LOAD_TO_HELLO,   /* TLS: the server's first flight has come, its signature is made */
    LOAD_TO_UPGRADE, /* the 101 has come */
    LOAD_TO_READY,   /* subscribed */
};

struct load_conn; /* load_conn.h */

#define LOAD_CLEAR_BYTES (64 * 1024) /* decrypted at a time; a record has 16 KiB at most */

struct load_group {
    char channel[48];
    uint32_t publisher; /* index of a connection, UINT32_MAX: none */
    uint32_t subscribers;
    struct frame_pair frame;
    struct frame_pair *size; /* the same with payloads of other lengths (load_add_size) */
    uint32_t n_sizes;
    uint64_t published;
    uint64_t completed; /* reached all subscribers (full speed only) */
    bool remote;        /* another process publishes: how many is not known here until the end */
    uint32_t *left;     /* of message seq: left[seq & left_mask] subscribers have not got it */
};

struct load_conf {
    struct sockaddr_in to;         /* subscribers connect here ... */
    struct sockaddr_in to_publish; /* ... and publishers here (the same but for floors) */
    struct sockaddr_in from;       /* connections come from here; family 0: the kernel chooses */
    uint32_t part;                 /* of several processes: channels of one are not another's, but for the first */
    enum load_wire wire;
    struct speak_conf speak;
    const char *path; /* of the request; {channel} and {role} (sub, pub, both) are replaced */
    uint32_t payload;
    enum frame_kind kind;
    bool tls, tls_12, resume;
    const char *host;     /* for SNI */
    bool deflate;         /* offer permessage-deflate; a server that declines ends the run */
    uint32_t deflate_min; /* publishes of so many bytes are packed */
    enum load_depth depth;
    uint32_t in_flight;   /* full speed: messages of a group on their way; 0: at a rate */
    uint32_t concurrency; /* connections in the process of opening */
    uint32_t buffers;     /* receive buffers, power of two */
    uint32_t buffer_bytes;
    bool spin; /* never sleep: lower latency figures, a whole core */
};

struct load_counts {
    uint64_t published;
    uint64_t delivered; /* first arrivals */
    uint64_t twice, late, stale;
    uint64_t foreign; /* frames that are none of ours */
    uint64_t churned; /* subscribes and unsubscribes that were answered */
    uint64_t notices; /* events that slow readers were sent beside their messages */
    uint64_t pings;
    uint64_t opened;      /* became ready */
    uint64_t disconnects; /* ended by the other side */
    uint64_t refused;     /* could not connect or open */
    uint64_t secured, resumed; /* TLS handshakes, and how many of them by a ticket */
    uint64_t packed;      /* deliveries that came compressed */
    uint64_t wire_bytes;  /* received, before decryption */
    uint64_t no_buffers;
    uint64_t recvs, sends, turns;
};

/* What became of the slow ones. */
struct load_slow {
    uint32_t ended;  /* by the server */
    uint32_t level;  /* have the newest message */
    uint64_t missed; /* messages that did not reach them, summed */
    uint64_t told;   /* ... of which notices told them */
    uint32_t even;   /* level, and what reached them and what they were told of is all that was published */
};

struct load {
    struct load_conf conf;
    struct load_ring ring;
    struct tls_shared *tls; /* NULL without */
    struct pmd *pmd;        /* NULL without */
    uint8_t *clear;         /* what a record decrypts to: LOAD_CLEAR_BYTES */
    char tls_terms[96];     /* of the first TLS connection */
    struct load_conn *conns;
    uint32_t n_conns, next_open, opening, ready, paused;
    struct load_group *groups;
    uint32_t n_groups;
    uint32_t left_mask;
    uint32_t *dirty;
    uint32_t n_dirty;
    struct load_counts count;
    uint64_t now; /* CLOCK_MONOTONIC ns when the current completion was taken */

    bool publishing;      /* full speed: a completed message is followed by the next */
    bool storm;           /* a connection that got as far as conf.depth is dropped and opened again */
    bool storm_timed;     /* ... but only by load_open_one */
    bool reopen;          /* connections that end are opened again */
    uint64_t reopen_at;   /* when that is tried next */
    const struct zipf *churn; /* which channels churners subscribe to, from churn_first on */
    uint32_t churn_first;
    uint64_t random;
    int64_t shift_ns;     /* what the publisher's clock is ahead of ours (remote groups) */
    uint64_t win0, win1;  /* messages due in here are recorded in lat */
    struct hist *lat;     /* due to arrival; storm: connect to subscribed */
};

void load_init(struct load *l, const struct load_conf *conf, uint32_t conns, uint32_t groups);
void load_free(struct load *l);
/* Declares connection i; call for all before load_turn. */
void load_set_conn(struct load *l, uint32_t i, uint32_t group, bool subscribes, bool publishes);
/* A connection that subscribes and unsubscribes without end, on channels that nobody publishes to. */
void load_set_churner(struct load *l, uint32_t i);
/* Messages of the group may have a payload of so many bytes, too: the number to give to load_publish_size. The group has
 * its publisher. */
uint32_t load_add_size(struct load *l, uint32_t group, uint32_t payload);
/* Another process publishes for this group. */
void load_set_remote(struct load *l, uint32_t group);
/* The same for a subscriber that stops reading once it is ready. */
void load_set_slow(struct load *l, uint32_t i, uint32_t group);
/* Opens one more connection of a timed storm; false when all are in use. */
bool load_open_one(struct load *l);
/* Paused connections read again. */
void load_resume_slow(struct load *l);
struct load_slow load_slow_now(const struct load *l);
/* Publishes the group's next message, due at `due` ns. Sent at the end of the turn. */
void load_publish(struct load *l, uint32_t group, uint64_t due);
void load_publish_size(struct load *l, uint32_t group, uint32_t size, uint64_t due);
/* Sends what is queued, waits for completions until `until` at most, handles them. */
void load_turn(struct load *l, uint64_t until);
/* Messages that were published and have not reached all subscribers (counted once per subscriber). */
uint64_t load_missing(const struct load *l);

#endif
