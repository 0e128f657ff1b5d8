/* A lane: a byte ring in shared memory with one producer and one consumer, in two processes that need
 * not trust each other.
 *
 * The concurrency argument. `tail` is written by the producer only and is the single commit point: what
 * lies before it is whole, what does not does not exist, so a producer may die at any instruction.
 * `head` is written by the consumer only. Each side keeps a private copy of its own index and of the
 * last it saw of the other's; both are counts of bytes since the beginning and never wrap in practice.
 * Both sides publish their index once per turn.
 *
 * Sleeping: the consumer sets `asleep`, then looks at tail once more; the producer stores tail, then
 * looks at `asleep`. With a full fence between on both sides one of them sees the other, so no wake-up
 * is lost. The same dance with `wants_room` when the producer waits for room.
 *
 * The consumer copies every header before it judges it, and judges it against the committed range:
 * nothing the other side writes can lead it outside the data area. */
#ifndef COMMON_LANE_H
#define COMMON_LANE_H

#include "common/base.h"
#include "common/view.h"

#define LANE_LINE 128 /* two lines: neighbouring lines are fetched in pairs */

/* In shared memory. */
struct lane_shared {
    _Atomic uint64_t tail ALIGNED(LANE_LINE); /* w: producer */
    _Atomic uint32_t wants_room;              /* w: producer sets, consumer clears */
    _Atomic uint64_t head ALIGNED(LANE_LINE); /* w: consumer */
    _Atomic uint32_t asleep;                  /* w: consumer sets; who wakes it clears, so one bell rings per sleep */
    uint8_t data[] ALIGNED(LANE_LINE);
};

struct lane_record {
    uint32_t n;     /* bytes of payload behind the header */
    uint8_t type;   /* 0: filler up to the end of the data area */
    uint8_t flags;
    uint16_t aux;   /* for the type */
};
_Static_assert(sizeof(struct lane_record) == 8, "the header is eight bytes");

/* One side's view, private. */
struct lane {
    struct lane_shared *s;
    uint32_t bytes;     /* of the data area, a power of two */
    bool producer;
    uint64_t mine;      /* own index, not yet published perhaps */
    uint64_t published; /* own index as the other side sees it */
    uint64_t theirs;    /* the other's index, as last seen */
};

/* Bytes a lane with this data area takes in a segment. */
static inline size_t
lane_size(uint32_t bytes)
{
    return sizeof(struct lane_shared) + bytes;
}

void lane_init(struct lane *l, void *mem, uint32_t bytes, bool producer);

/* Largest payload: a record and the filler before it always fit an empty lane. */
static inline uint32_t
lane_max_payload(uint32_t bytes)
{
    return bytes / 2 - 16;
}

/* -- producer -- */

/* Room for a record with n bytes of payload behind what was written; NULL when the lane is full. The
 * record exists for the other side after lane_publish. */
uint8_t *lane_put(struct lane *l, uint8_t type, uint8_t flags, uint16_t aux, uint32_t n) MUST_CHECK;
/* Whether lane_put would succeed. */
bool lane_has_room(struct lane *l, uint32_t n);
/* Shows what was written to the consumer. True: the consumer sleeps, ring its bell. */
bool lane_publish(struct lane *l) MUST_CHECK;
/* Asks for the producer's bell to be rung once the consumer has made room. False: there is room now. */
bool lane_want_room(struct lane *l, uint32_t n) MUST_CHECK;
/* Bytes that wait, as the producer knows. */
uint64_t lane_used(struct lane *l);

/* -- consumer -- */

enum lane_rc {
    LANE_EMPTY,
    LANE_RECORD,
    LANE_CORRUPT, /* the producer wrote nonsense: give the lane up */
};
/* The next record and its payload, which stays valid until lane_release; it is not taken yet. */
enum lane_rc lane_peek(struct lane *l, struct lane_record *r, const uint8_t **payload) MUST_CHECK;
/* Takes the record that was peeked at. */
void lane_take(struct lane *l, const struct lane_record *r);
/* Gives the room of what was taken back. True: the producer waits for room, ring its bell. */
bool lane_release(struct lane *l) MUST_CHECK;
/* Announces sleep; false if something is there (the announcement is withdrawn). */
bool lane_sleep(struct lane *l) MUST_CHECK;
void lane_awake(struct lane *l);

#endif
