/* The most recent messages of one channel, kept for subscribers that are behind: once, however many
 * they are. A reader of it holds a position and nothing else. Positions only grow; what falls out at the old end is
 * missed by those who stood there, and they learn how many messages it was. It knows no connection and no
 * channel; worker/behind does. */
#ifndef WORKER_LAG_H
#define WORKER_LAG_H

#include "worker/segq.h"

/* A place between two messages, counted from the beginning of the ring. */
struct lag_pos {
    uint64_t seq; /* messages in front of it */
    uint64_t at;  /* bytes in front of it */
};

struct lag_block {
    struct rc *rc;
    uint64_t at; /* position of its first byte */
};

/* All zeroes: an empty one. */
struct lag {
    struct lag_pos first, next;  /* the oldest message that is kept; the one to come */
    struct lag_block *blocks;    /* ring of block_cap (a power of two), from block_head */
    uint32_t block_head, block_count, block_cap;
    uint64_t held;               /* bytes of memory in its blocks */
};

/* What lag_read found. */
struct lag_piece {
    struct oseg seg;             /* the reference is the lag's */
    uint32_t messages;
};

/* Appends whole frames, one behind the other; they are copied. Then drops the oldest until no more than `keep` bytes or
 * a single message are left. False when memory was out: then nothing is kept, and these are missed too. */
bool lag_append(struct lag *, struct rc_pool *, const uint8_t *frames, uint32_t len, uint32_t messages,
    uint64_t keep) MUST_CHECK;
/* Drops all that is kept. */
void lag_clear(struct lag *, struct rc_pool *);
/* Moves a position that fell out of the ring to the oldest message kept; returns how many were missed. */
uint64_t lag_catch_up(const struct lag *, struct lag_pos *);
/* Messages from a position on: whole frames of up to `budget` bytes, but at least one, that lie together. Moves
 * the position behind them. False when there are none. The position must not have fallen out. */
bool lag_read(const struct lag *, struct lag_pos *, uint32_t budget, struct lag_piece *out);
/* Gives everything back. */
void lag_fini(struct lag *, struct rc_pool *);

#endif
