/* A ring thread of a worker, as seen from here: its lanes, its generation, what overflowed. Everything
 * it writes is judged like a packet from the network. */
#ifndef BROKER_PEER_H
#define BROKER_PEER_H

#include "broker/broker.h"
#include "common/buf.h"
#include "common/lane.h"
#include "proto/dialect.h"
#include "proto/ipc.h"

enum peer_state {
    PEER_GREETING, /* connected, has not said HELLO */
    PEER_UP,
    PEER_GONE,     /* waiting for operations in flight */
};

/* Channels of which a ring has too much to send at a time; of more it is only heard by its lane. */
#define PEER_BUSY_MAX 64

/* Requests of a ring whose answers wait (for the bus, or behind such). A ring that reaches it is not drained further. */
#define PEER_ANSWERS_MAX 65536

/* Answers not yet told, oldest first: what is known is told up to the first that is not. A request has the number
 * at which it stands; numbers never come twice. */
struct answers {
    uint16_t *v;         /* 0: not known yet; else error + 1 */
    uint32_t cap;        /* a power of two, or 0 */
    uint64_t head, tail; /* told up to here; next number */
};

/* A publisher's ring that was told to stop publishing to a channel because this ring is behind. */
struct blocked {
    struct blocked *next;
    uint32_t source, source_gen;
    uint16_t name_n;
    uint8_t name[];
};

struct peer {
    struct pool_head head;
    uint8_t state;          /* enum peer_state */
    bool corrupt;
    bool synced;            /* it has said all it wants to hear */
    bool stuck;             /* its next record waits for another ring's room */
    bool bell_wanted;       /* its bell is to be rung at the end of the turn */
    uint16_t inflight;
    int fd;
    struct ipc_segment *seg;
    size_t seg_bytes;
    uint32_t lane_bytes;
    struct lane in, out;
    uint32_t worker, ring;
    int32_t pid;
    struct mono since;
    uint32_t done;          /* successes not yet told */
    bool missing;           /* an interest of its holds messages that it had no room for (struct interest) */
    struct answers answers;
    struct buf overflow;    /* whole records behind a full lane, in order */
    size_t overflow_at;     /* first byte not yet in the lane */
    uint32_t *chan_of;      /* the ring's channel number -> our channel's slot + 1 */
    uint32_t chan_of_cap;
    struct blocked *blocked;
    uint32_t busy[PEER_BUSY_MAX]; /* the ring's numbers of channels it has too much of (IPC_BUSY) */
    uint32_t busy_count;
};

static inline struct peer *
peer_at(struct broker *b, uint32_t slot)
{
    return pool_at(&b->peers, slot);
}

static inline uint32_t
peer_slot(const struct broker *b, const struct peer *p)
{
    return pool_slot(&b->peers, p);
}

void peer_new(struct broker *b, int fd);
void peer_on_hello(struct broker *b, struct peer *p, struct ring_done d);
void peer_on_bell(struct broker *b, struct peer *p, struct ring_done d);
/* Whether who is at the other end may ask and attach: our own user, root, or the workers' user. */
bool peer_is_trusted(const struct broker *b, int fd) MUST_CHECK;
/* Ends a peer: its interests go, its lanes are unmapped once nothing is in flight. */
void peer_drop(struct broker *b, struct peer *p, const char *why);
/* Handles up to `budget` records; true if there are more. */
bool peer_drain(struct broker *b, struct peer *p, unsigned budget);
/* Whether a record of n bytes can be written, be it into the overflow. */
bool peer_has_room(struct broker *b, struct peer *p, uint32_t n);
/* Writes a record: into the lane, or behind it. NULL only when memory is out. */
uint8_t *peer_put(struct broker *b, struct peer *p, enum ipc_type type, uint8_t flags, uint16_t aux, uint32_t n);
bool peer_is_behind(const struct broker *b, const struct peer *p);
/* Whether it said so of its channel number `chan`. */
bool peer_is_busy(const struct peer *p, uint32_t chan);
/* Tells `source` to stop publishing to the channel until `behind` has caught up. */
void peer_xoff(struct broker *b, struct peer *behind, uint32_t source, struct view name);
/* A request's answer comes later: its number for peer_resolve. Only while fewer than PEER_ANSWERS_MAX wait. */
bool peer_can_defer(const struct peer *p);
uint64_t peer_defer(struct peer *p);
/* The answer to it. Nothing happens when the ring is gone. Told at the end of the turn, in its place. */
void peer_resolve(struct broker *b, uint32_t slot, uint32_t gen, uint64_t number, enum error_id err);
/* A ring's subscribe failed after its interest was noted: takes that back, if it is still the one of this handle. */
void peer_unwant(struct broker *b, uint32_t slot, uint32_t gen, uint32_t ring_chan, uint32_t ring_gen);
/* Overflow into the lane, as far as there is room; XON when it is low. */
void peer_catch_up(struct broker *b, struct peer *p);
/* End of the turn: tells successes, publishes indices, rings bells. */
void peer_flush(struct broker *b, struct peer *p);
/* Before that: shows the messages alone, so that when a success is told, every ring has its message. */
void peer_show(struct broker *b, struct peer *p);
void peer_free(struct broker *b, struct peer *p);

#endif
