#include "worker/addrs.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <xxhash.h>

#include "common/bug.h"
#include "worker/rate.h"

/* Places that an address can have: all of one set. With half as many addresses as places, one set in
 * fifty is full. */
#define WAYS 8
#define PLACES_MAX (1u << 24)

/* The word of a place: which address (the upper 40 bits of a keyed hash; the lower ones choose the set), and
 * how many connections it has. All zero: never used. One word, so that one compare-and-swap decides who
 * has a place and that nobody loses it who has connections. */
#define CONNS_BITS 24
#define CONNS_MASK ((1u << CONNS_BITS) - 1)

struct place {
    _Atomic uint64_t word;
    _Atomic uint64_t full_at[ADDRS_BUCKETS];
    uint64_t pad[3];
};

_Static_assert(sizeof(struct place) == CACHE_LINE, "a place is a cache line");

struct addrs {
    uint64_t seed;
    uint32_t set_mask;
    uint8_t v6_prefix;
    void *mem;
    struct place *v; /* in mem, at the start of a cache line */
};

struct addrs *
addrs_new(uint32_t places, unsigned v6_prefix, uint64_t seed)
{
    uint32_t sets = (uint32_t)pow2_ceil(MAX(MIN(places, PLACES_MAX) / WAYS, 1u));
    struct addrs *t = calloc(1, sizeof *t);
    if (t == NULL)
        return NULL;
    *t = (struct addrs){.seed = seed, .set_mask = sets - 1, .v6_prefix = (uint8_t)MIN(v6_prefix, 128u)};
    /* Zeroes that nobody touched cost no memory, so a table for more than ever come is cheap. */
    size_t bytes = (size_t)sets * WAYS * sizeof *t->v;
    t->mem = calloc(1, bytes + CACHE_LINE);
    if (t->mem == NULL) {
        free(t);
        return NULL;
    }
    t->v = (struct place *)(void *)((char *)t->mem + (-(uintptr_t)t->mem & (CACHE_LINE - 1)));
    return t;
}

void
addrs_free(struct addrs *t)
{
    if (t == NULL)
        return;
    free(t->mem);
    free(t);
}

uint32_t
addrs_places(const struct addrs *t)
{
    return (t->set_mask + 1) * WAYS;
}

/* ---- finding a place ---- */

static uint64_t
tag_of(uint64_t hash)
{
    uint64_t tag = hash >> CONNS_BITS << CONNS_BITS;
    return tag ? tag : 1ull << CONNS_BITS;
}

static bool
owes(const struct place *p, uint64_t now)
{
    for (unsigned i = 0; i < ADDRS_BUCKETS; i++)
        if (atomic_load_explicit(&p->full_at[i], memory_order_relaxed) > now)
            return true;
    return false;
}

/* One more connection, if the place is (still) that of the address. */
static bool
join_way(struct place *p, uint64_t tag, uint32_t *connections)
{
    uint64_t word = atomic_load_explicit(&p->word, memory_order_relaxed);
    while ((word & ~(uint64_t)CONNS_MASK) == tag) {
        if ((word & CONNS_MASK) == CONNS_MASK)
            return false; /* not with conn.max */
        if (atomic_compare_exchange_weak(&p->word, &word, word + 1)) {
            *connections = (uint32_t)(word & CONNS_MASK) + 1;
            return true;
        }
    }
    return false;
}

/* The place to take over: an unused one, else one that nothing is lost with, else one that owes. */
static struct place *
choose_way(struct place *set, uint64_t now, uint64_t *word, bool *forgot)
{
    struct place *debtor = NULL, *clean = NULL;
    uint64_t debtor_word = 0;
    for (unsigned i = 0; i < WAYS; i++) {
        uint64_t seen = atomic_load_explicit(&set[i].word, memory_order_relaxed);
        if (seen & CONNS_MASK)
            continue;
        if (owes(&set[i], now)) {
            debtor = &set[i];
            debtor_word = seen;
        } else if (clean == NULL || seen == 0) {
            clean = &set[i];
            *word = seen;
        }
    }
    *forgot = clean == NULL && debtor != NULL;
    if (clean == NULL)
        *word = debtor_word;
    return clean != NULL ? clean : debtor;
}

static uint32_t
take_way(struct addrs *t, struct place *set, uint64_t tag, uint64_t now, uint32_t *connections, bool *forgot)
{
    for (;;) {
        uint64_t word = 0;
        struct place *p = choose_way(set, now, &word, forgot);
        if (p == NULL)
            return ADDRS_NONE;
        if (!atomic_compare_exchange_strong(&p->word, &word, tag | 1))
            continue; /* somebody else was quicker; each time a place less is free */
        for (unsigned i = 0; i < ADDRS_BUCKETS; i++)
            atomic_store_explicit(&p->full_at[i], 0, memory_order_relaxed);
        *connections = 1;
        return (uint32_t)(p - t->v);
    }
}

uint32_t
addrs_join(struct addrs *t, const struct addr *a, uint64_t now, uint32_t *connections, bool *forgot)
{
    struct addr known = addr_is_v4(a) ? *a : addr_masked(a, t->v6_prefix);
    uint64_t hash = XXH3_64bits_withSeed(known.b, sizeof known.b, t->seed), tag = tag_of(hash);
    struct place *set = t->v + (size_t)(hash & t->set_mask) * WAYS;
    *forgot = false;
    for (unsigned i = 0; i < WAYS; i++)
        if (join_way(&set[i], tag, connections))
            return (uint32_t)(&set[i] - t->v);
    return take_way(t, set, tag, now, connections, forgot);
}

void
addrs_leave(struct addrs *t, uint32_t place)
{
    if (place == ADDRS_NONE)
        return;
    uint64_t before = atomic_fetch_sub(&t->v[place].word, 1);
    BUG_ON((before & CONNS_MASK) == 0);
}

/* ---- buckets ---- */

bool
addrs_has(const struct addrs *t, uint32_t place, enum addrs_bucket b, uint64_t now, uint64_t burst, uint64_t cost)
{
    return place == ADDRS_NONE ||
        rate_has(atomic_load_explicit(&t->v[place].full_at[b], memory_order_relaxed), now, burst, cost);
}

uint64_t
addrs_take(struct addrs *t, uint32_t place, enum addrs_bucket b, uint64_t now, uint64_t burst, uint64_t cost)
{
    if (place == ADDRS_NONE)
        return 0;
    _Atomic uint64_t *at = &t->v[place].full_at[b];
    uint64_t seen = atomic_load_explicit(at, memory_order_relaxed), full_at, wait;
    do {
        full_at = seen;
        wait = rate_take(&full_at, now, burst, cost);
    } while (!atomic_compare_exchange_weak_explicit(at, &seen, full_at, memory_order_relaxed, memory_order_relaxed));
    return wait;
}
