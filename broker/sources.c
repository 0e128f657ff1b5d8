#include "broker/sources.h"

#include <stdlib.h>

/* Bits of the filter: with a million names forgotten one in nine others is taken for one of them. */
#define FILTER_BITS (1u << 23)
/* How many of the oldest are looked at for one that can be forgotten. */
#define FORGET_LOOKS 64

bool
sources_init(struct sources *s, uint32_t max)
{
    *s = (struct sources){.mask = 4095, .due_first = POOL_NONE, .due_last = POOL_NONE};
    s->fresh = s->quiet = (struct sources_list){POOL_NONE, POOL_NONE};
    s->table = malloc((s->mask + 1) * sizeof *s->table);
    if (s->table == NULL || !pool_init(&s->pool, sizeof(struct source), max))
        return false;
    memset(s->table, 0xff, (s->mask + 1) * sizeof *s->table);
    return true;
}

void
sources_fini(struct sources *s)
{
    for (uint32_t i = 0; s->pool.mem != NULL && i < s->pool.used; i++)
        if (sources_at(s, i)->head.next == POOL_LIVE)
            free(sources_at(s, i)->name);
    pool_fini(&s->pool);
    free(s->table);
    free(s->filter);
    s->table = NULL;
    s->filter = NULL;
}

/* -- lists -- */

static struct sources_list *
list_of(struct sources *s, const struct source *e)
{
    return e->fresh ? &s->fresh : &s->quiet;
}

static void
list_out(struct sources *s, struct source *e)
{
    struct sources_list *l = list_of(s, e);
    *(e->older == POOL_NONE ? &l->oldest : &sources_at(s, e->older)->newer) = e->newer;
    *(e->newer == POOL_NONE ? &l->newest : &sources_at(s, e->newer)->older) = e->older;
}

static void
list_in(struct sources *s, struct source *e)
{
    struct sources_list *l = list_of(s, e);
    e->older = l->newest;
    e->newer = POOL_NONE;
    *(l->newest == POOL_NONE ? &l->oldest : &sources_at(s, l->newest)->newer) = sources_slot(s, e);
    l->newest = sources_slot(s, e);
}

void
sources_said(struct sources *s, struct source *e, struct mono now)
{
    e->said = now;
    if (e->fresh && e->newer == POOL_NONE)
        return;
    list_out(s, e);
    e->fresh = true;
    list_in(s, e);
}

void
sources_marked(struct sources *s, struct source *e, struct mono now)
{
    e->marked = now;
    if (!e->fresh)
        return;
    list_out(s, e);
    e->fresh = false;
    list_in(s, e);
}

void
sources_due(struct sources *s, struct source *e)
{
    if (e->is_due)
        return;
    e->is_due = true;
    e->due_next = POOL_NONE;
    uint32_t slot = sources_slot(s, e);
    *(s->due_last == POOL_NONE ? &s->due_first : &sources_at(s, s->due_last)->due_next) = slot;
    s->due_last = slot;
}

struct source *
sources_due_take(struct sources *s)
{
    if (s->due_first == POOL_NONE)
        return NULL;
    struct source *e = sources_at(s, s->due_first);
    s->due_first = e->due_next;
    if (s->due_first == POOL_NONE)
        s->due_last = POOL_NONE;
    e->is_due = false;
    return e;
}

/* -- the table -- */

struct source *
sources_find(const struct sources *s, struct view name, uint32_t hash)
{
    for (uint32_t i = s->table[hash & s->mask]; i != POOL_NONE;) {
        struct source *e = sources_at(s, i);
        if (e->hash == hash && view_eq(sources_name(e), name))
            return e;
        i = e->bucket_next;
    }
    return NULL;
}

/* Doubles the buckets once there are as many sources. If memory is out it only gets slower. */
static void
table_grow(struct sources *s)
{
    if (s->pool.live <= s->mask)
        return;
    uint32_t mask = s->mask * 2 + 1, *table = malloc(((size_t)mask + 1) * sizeof *table);
    if (table == NULL)
        return;
    memset(table, 0xff, ((size_t)mask + 1) * sizeof *table);
    for (uint32_t i = 0; i < s->pool.used; i++) {
        struct source *e = sources_at(s, i);
        if (e->head.next != POOL_LIVE)
            continue;
        e->bucket_next = table[e->hash & mask];
        table[e->hash & mask] = i;
    }
    free(s->table);
    s->table = table;
    s->mask = mask;
}

static bool
filter_add(struct sources *s, uint32_t hash)
{
    if (s->filter == NULL)
        s->filter = calloc(FILTER_BITS / 64, sizeof *s->filter);
    if (s->filter != NULL)
        s->filter[hash % FILTER_BITS / 64] |= 1ull << hash % 64;
    return s->filter != NULL;
}

bool
sources_forgot(const struct sources *s, uint32_t hash)
{
    return s->filter != NULL && (s->filter[hash % FILTER_BITS / 64] >> hash % 64 & 1) != 0;
}

static bool
forget(struct sources *s, uint32_t slot)
{
    struct source *e = sources_at(s, slot);
    if (e->waiting > 0 || e->echoes > 0 || e->marks > 0 || e->is_due || e->owes || !filter_add(s, e->hash))
        return false;
    uint32_t *at = &s->table[e->hash & s->mask];
    while (*at != slot)
        at = &sources_at(s, *at)->bucket_next;
    *at = e->bucket_next;
    list_out(s, e);
    free(e->name);
    pool_put(&s->pool, e);
    s->forgotten++;
    return true;
}

/* The quietest that has nothing under way; those a mark is still to follow come last. */
static bool
forget_one(struct sources *s)
{
    const uint32_t first[] = {s->quiet.oldest, s->fresh.oldest};
    for (unsigned l = 0; l < ARRAY_LEN(first); l++)
        for (uint32_t i = first[l], looks = 0; i != POOL_NONE && looks < FORGET_LOOKS; looks++) {
            if (forget(s, i))
                return true;
            i = sources_at(s, i)->newer;
        }
    return false;
}

struct source *
sources_want(struct sources *s, struct view name, uint32_t hash)
{
    struct source *e = sources_find(s, name, hash);
    if (e != NULL)
        return e;
    if (s->pool.live == s->pool.max && !forget_one(s))
        return NULL;
    table_grow(s);
    uint8_t *copy = malloc(name.n ? name.n : 1);
    e = copy != NULL ? pool_get(&s->pool) : NULL;
    if (e == NULL) {
        free(copy);
        return NULL;
    }
    if (name.n)
        memcpy(copy, name.p, name.n);
    e->name = copy;
    e->name_n = (uint16_t)name.n;
    e->hash = hash;
    e->stretch = 1 + s->forgotten; /* higher than any it had before */
    e->bucket_next = s->table[hash & s->mask];
    s->table[hash & s->mask] = sources_slot(s, e);
    list_in(s, e);
    return e;
}
