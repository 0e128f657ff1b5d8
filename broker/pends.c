#include "broker/pends.h"

#include <sys/mman.h>

bool
pends_init(struct pends *l, uint32_t cap)
{
    *l = (struct pends){.cap = cap, .head = 8, .tail = 8, .looked = 8, .origin = 8};
    l->mem = mmap(NULL, cap, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (l->mem == MAP_FAILED)
        l->mem = NULL;
    return l->mem != NULL;
}

void
pends_fini(struct pends *l)
{
    if (l->mem != NULL)
        (void)munmap(l->mem, l->cap);
    l->mem = NULL;
}

/* Bytes to the end of the memory, behind the newest record. */
static uint32_t
to_the_end(const struct pends *l)
{
    return l->cap - (uint32_t)((l->tail - l->origin) & (l->cap - 1));
}

/* What a record of this size takes, with the filler before it if it does not fit before the end. */
static uint64_t
takes(const struct pends *l, size_t size)
{
    uint32_t end = to_the_end(l);
    return size <= end ? size : (uint64_t)end + size;
}

bool
pends_has_room(const struct pends *l, size_t n)
{
    size_t size = align_up(sizeof(struct pend) + n, 8);
    return n < l->cap && (pends_is_empty(l) ? size <= l->cap : l->tail - l->head + takes(l, size) <= l->cap);
}

uint64_t
pends_put(struct pends *l, size_t n)
{
    if (!pends_has_room(l, n))
        return 0;
    size_t size = align_up(sizeof(struct pend) + n, 8);
    if (pends_is_empty(l))
        l->origin = l->tail; /* at the front, which is in the caches */
    uint32_t end = to_the_end(l);
    if (size > end) {
        /* A record's size stands first, and there is room for it: all are multiples of eight. */
        struct pend *filler = pends_at(l, l->tail);
        filler->bytes = end;
        filler->ended = true;
        l->tail += end;
    }
    struct pend *p = pends_at(l, l->tail);
    memset(p, 0, sizeof *p);
    p->bytes = (uint32_t)size;
    p->n = (uint32_t)n;
    uint64_t at = l->tail;
    l->tail += size;
    return at;
}

struct pend *
pends_find(const struct pends *l, uint64_t at)
{
    if (at < l->head || at >= l->tail)
        return NULL;
    struct pend *p = pends_at(l, at);
    return p->ended ? NULL : p;
}

void
pends_end(struct pends *l, uint64_t at)
{
    pends_at(l, at)->ended = true;
    while (l->head < l->tail && pends_at(l, l->head)->ended)
        l->head += pends_at(l, l->head)->bytes;
    l->looked = MAX(l->looked, l->head);
}

uint64_t
pends_late(struct pends *l, struct mono limit)
{
    while (l->looked < l->tail) {
        struct pend *p = pends_at(l, l->looked);
        if (!p->ended && p->since.ns >= limit.ns)
            return 0;
        uint64_t at = l->looked;
        l->looked += p->bytes;
        if (!p->ended)
            return at;
    }
    return 0;
}
