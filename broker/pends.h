/* What waits for the bus: a log of records in the order of their making, ended in any order. A record stays where it
 * is until all before it have ended, so the oldest are found without a search. The memory is reserved at once and
 * touched as it is needed; a log that runs empty begins at its front again. Records are named by their offset since the
 * beginning, which is never 0 and never comes again. */
#ifndef BROKER_PENDS_H
#define BROKER_PENDS_H

#include "common/base.h"
#include "common/mono.h"
#include "common/view.h"

struct pend {
    uint32_t bytes;          /* of this record, a multiple of 8 */
    bool ended;
    bool answers;            /* somebody waits for its answer: peer, peer_gen, answer */
    bool fated;              /* the bus has told what became of it */
    bool echo;               /* its data is delivered when it comes back from the bus */
    bool has_data;
    uint32_t peer, peer_gen;
    uint64_t answer;
    uint32_t chan, chan_gen; /* our channel */
    uint32_t source, ring_chan, ring_gen;
    uint32_t n;              /* bytes of data */
    uint64_t number;
    uint64_t next;           /* another record of its channel; 0: the last */
    struct mono since;
    uint8_t data[];
};

struct pends {
    uint8_t *mem;
    uint32_t cap;            /* a power of two */
    uint64_t origin;         /* offset of the first byte of mem in this round */
    uint64_t head, tail;     /* oldest record; next one */
    uint64_t looked;         /* records before it have been judged late, or had ended */
};

bool pends_init(struct pends *l, uint32_t cap) MUST_CHECK;
void pends_fini(struct pends *l);
/* Whether pends_put with n bytes of data would succeed. */
bool pends_has_room(const struct pends *l, size_t n);
/* A record, zeroed but for its size, with room for n bytes of data; 0 when there is no room. */
uint64_t pends_put(struct pends *l, size_t n) MUST_CHECK;

static inline struct pend *
pends_at(const struct pends *l, uint64_t at)
{
    return (struct pend *)(void *)(l->mem + ((at - l->origin) & (l->cap - 1)));
}

/* The record, or NULL if it has ended. */
struct pend *pends_find(const struct pends *l, uint64_t at);
void pends_end(struct pends *l, uint64_t at);
/* The oldest record that was made before `limit`, has not ended and was not returned before; 0: none. */
uint64_t pends_late(struct pends *l, struct mono limit);

static inline bool
pends_is_empty(const struct pends *l)
{
    return l->head == l->tail;
}

#endif
