/* Slabs of one type in one reserved range of addresses: slot number to pointer is a multiplication,
 * memory is touched only when a slot is first used, and pointers never move. A handle is {slot, gen}:
 * a slot's generation changes when it is freed, so late callbacks find a tombstone, not a stranger.
 * Every element begins with struct pool_head. */
#ifndef COMMON_POOL_H
#define COMMON_POOL_H

#include "common/base.h"

#define POOL_NONE UINT32_MAX

struct pool_head {
    uint32_t gen;  /* 24 bits are compared */
    uint32_t next; /* free list; POOL_LIVE while in use */
};
#define POOL_LIVE (UINT32_MAX - 1)

struct pool {
    uint8_t *mem;
    uint32_t item_bytes;
    uint32_t max;
    uint32_t used;  /* slots ever used: the memory behind has not been touched */
    uint32_t live;
    uint32_t free_head;
};

/* Reserves address space for max items; false when even that fails. */
bool pool_init(struct pool *p, uint32_t item_bytes, uint32_t max) MUST_CHECK;
void pool_fini(struct pool *p);
/* A slot, zeroed but for its head; NULL when all are in use. */
void *pool_get(struct pool *p);
void pool_put(struct pool *p, void *item);

static inline void *
pool_at(const struct pool *p, uint32_t slot)
{
    return p->mem + (size_t)slot * p->item_bytes;
}

static inline uint32_t
pool_slot(const struct pool *p, const void *item)
{
    return (uint32_t)((size_t)((const uint8_t *)item - p->mem) / p->item_bytes);
}

/* The live item of a handle, or NULL. gen is compared in its low 24 bits. */
static inline void *
pool_find(const struct pool *p, uint32_t slot, uint32_t gen)
{
    if (slot >= p->used)
        return NULL;
    struct pool_head *h = pool_at(p, slot);
    return h->next == POOL_LIVE && ((h->gen ^ gen) & 0xffffff) == 0 ? h : NULL;
}

#endif
