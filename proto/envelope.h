/* What hosts send each other, in one message of the bus each: docs/protocol/envelope.md. Pure: bytes to struct and
 * back. The first byte is 0xC1, which is in no UTF-8 text and begins no MessagePack value, so that plain
 * publishes of others are told apart.
 *
 *   0xC1, version, kind (3 bits) and flags, host (8 bytes), epoch (4 bytes), then varints: broker, stretch, number,
 *   behind, with ENVELOPE_BASE also base and base_age, n; n bytes of fields that this version does not know; the body
 *   up to the end. */
#ifndef PROTO_ENVELOPE_H
#define PROTO_ENVELOPE_H

#include "common/base.h"
#include "common/view.h"

#define ENVELOPE_FIRST 0xc1
#define ENVELOPE_VERSION 1
/* A head that envelope_put writes is never longer. */
#define ENVELOPE_HEAD_MAX 72

enum envelope_kind {
    ENVELOPE_MESSAGE, /* body: the data of a publish */
    ENVELOPE_MARK,    /* no body: "my last number here is this one" */
    ENVELOPE_ASK,     /* body: names of channels whose marks are asked for (envelope_name_...) */
    ENVELOPE_HOST,    /* body: broker/hosts */
    ENVELOPE_KINDS
};

enum envelope_flag {
    ENVELOPE_HAS_DATA = 0x08, /* of a message: data was there, be it empty */
    ENVELOPE_REJOIN = 0x10,   /* the origin may not have heard asks for this channel: not heard of is no gap */
    ENVELOPE_AGAIN = 0x20,    /* sent again after a lost link, or behind what may have been dropped: as REJOIN, and
                                 `behind` says how many before it may be missing. The bus sets it, too (BUS_AGAIN) */
    ENVELOPE_BASE = 0x40,     /* of a message or mark: there is a base */
    ENVELOPE_FIRST_ASK = 0x08, /* of an ask: who has been silent for bus.answer_within need not answer */
};
#define ENVELOPE_FLAGS (ENVELOPE_HAS_DATA | ENVELOPE_REJOIN | ENVELOPE_AGAIN | ENVELOPE_BASE)

/* One broker process of one host. Compared as bytes: there is no padding. */
struct envelope_origin {
    uint8_t host[8];
    uint32_t epoch;  /* random for each process */
    uint32_t broker; /* its number */
};
_Static_assert(sizeof(struct envelope_origin) == 16, "compared as bytes");

struct envelope {
    enum envelope_kind kind;
    unsigned flags;
    struct envelope_origin origin;
    uint64_t stretch; /* a later one of the same origin is higher; 0: of a mark of who has forgotten the channel */
    uint64_t number;  /* of a message: its own, from 1; of a mark: the last one */
    uint64_t behind;  /* how many numbers before this one were not known to be taken by the bus when it was made */
    uint64_t base;    /* with ENVELOPE_BASE: asks were not answered when this was the last number; its age, ms, is that */
    uint64_t base_age; /* since the bus took it. Otherwise 0 */
    struct view body;
};

/* Writes all but the body. Returns its length. */
size_t envelope_put(uint8_t out[ENVELOPE_HEAD_MAX], const struct envelope *e);

enum envelope_rc {
    ENVELOPE_OK,
    ENVELOPE_FOREIGN, /* another first byte: no envelope at all */
    ENVELOPE_UNKNOWN, /* of a version or kind that this release does not know */
    ENVELOPE_BAD,     /* cut short, or numbers that can't be */
};
enum envelope_rc envelope_get(struct view in, struct envelope *e) MUST_CHECK;

/* The body of an ask: names, each behind its length. Room for one more name of n bytes in a body that holds `have`? */
#define ENVELOPE_ASK_MAX 16384
bool envelope_name_fits(size_t have, size_t n);
/* Appends to out, which has room; returns how many bytes. */
size_t envelope_name_put(uint8_t *out, struct view name);
/* Takes the first name off *body; false when there is none, with *bad set when what is there is none. */
bool envelope_name_take(struct view *body, struct view *name, bool *bad) MUST_CHECK;

#endif
