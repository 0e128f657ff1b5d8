/* The most recent messages of one channel, kept for subscribers that are behind: once, however many
 * they are. A reader of it holds a position and nothing else. Positions only grow; what falls out at the old end is
 * missed by those who stood there, and they learn how many messages it was. It knows no connection and no
 * channel; worker/behind does. */
#ifndef WORKER_LAG_H
#define WORKER_LAG_H

#include "worker/segq.h"

/* Messages that never came here, summed up. */
struct lag_holes {
    uint64_t messages; /* where the number is known */
    uint64_t unknown;  /* times that it is not */
};

/* A place between two messages, counted from the beginning of the ring. */
struct lag_pos {
    uint64_t seq;           /* messages in front of it */
    uint64_t at;            /* bytes in front of it */
    struct lag_holes holes; /* in front of it */
};

struct lag_block {
    struct rc *rc;
    uint64_t at; /* position of its first byte */
};

/* Holes between two messages that are kept; the sum counts them, too. */
struct lag_mark {
    uint64_t seq; /* messages in front of it */
    struct lag_holes sum;
};

/* Places with holes that are kept apart; of more it is no longer known where they stand. */
#define LAG_MARKS_MAX 256

/* All zeroes: an empty one. */
struct lag {
    struct lag_pos first, next;  /* the oldest message that is kept; the one to come */
    struct lag_block *blocks;    /* ring of block_cap (a power of two), from block_head */
    uint32_t block_head, block_count, block_cap;
    struct lag_mark *marks;      /* ring of mark_cap, from mark_head: places behind first, in order */
    uint32_t mark_head, mark_count, mark_cap;
    uint64_t held;               /* bytes of memory in its blocks */
};

/* What a reader did not get. */
struct lag_missed {
    uint64_t dropped;       /* messages that fell out before it read them */
    struct lag_holes holes; /* and what never came here */
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
/* Messages that would stand here did not come: so many, 0: nobody knows. Where memory is out or LAG_MARKS_MAX reached
 * nothing of what lies in front of it is kept. */
void lag_hole(struct lag *, struct rc_pool *, uint64_t messages);
/* Moves a position that fell out of the ring to the oldest message kept, and behind the holes that stand there; returns
 * what was missed. */
struct lag_missed lag_catch_up(const struct lag *, struct lag_pos *);
/* What somebody at a position who reads no further does not get. */
struct lag_missed lag_rest(const struct lag *, const struct lag_pos *);
/* Whether there is neither a message nor a hole behind a position. */
bool lag_is_level(const struct lag *, const struct lag_pos *);
/* Messages from a position on: whole frames of up to `budget` bytes, but at least one, that lie together and have no hole
 * between them. Moves the position behind them. False when there are none. The position must not have fallen out. */
bool lag_read(const struct lag *, struct lag_pos *, uint32_t budget, struct lag_piece *out);
/* Gives everything back. */
void lag_fini(struct lag *, struct rc_pool *);

#endif
