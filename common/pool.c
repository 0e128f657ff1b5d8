#include "common/pool.h"

#include <sys/mman.h>

bool
pool_init(struct pool *p, uint32_t item_bytes, uint32_t max)
{
    void *mem = mmap(NULL, (size_t)item_bytes * max, PROT_READ | PROT_WRITE,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mem == MAP_FAILED)
        return false;
    *p = (struct pool){.mem = mem, .item_bytes = item_bytes, .max = max, .free_head = POOL_NONE};
    return true;
}

void
pool_fini(struct pool *p)
{
    if (p->mem != NULL)
        munmap(p->mem, (size_t)p->item_bytes * p->max);
    p->mem = NULL;
}

void *
pool_get(struct pool *p)
{
    struct pool_head *h;
    if (p->free_head != POOL_NONE) {
        h = pool_at(p, p->free_head);
        p->free_head = h->next;
    } else if (p->used < p->max) {
        h = pool_at(p, p->used++);
        h->gen = 1;
    } else {
        return NULL;
    }
    uint32_t gen = h->gen;
    memset(h, 0, p->item_bytes);
    h->gen = gen;
    h->next = POOL_LIVE;
    p->live++;
    return h;
}

void
pool_put(struct pool *p, void *item)
{
    struct pool_head *h = item;
    h->gen++;
    h->next = p->free_head;
    p->free_head = pool_slot(p, item);
    p->live--;
}
