#include "broker/origins.h"

#include <stdlib.h>
#include <xxhash.h>

#define BUCKETS 4096u
#define STAMP_MS 1000 /* the list is put in order so often, not for each message */

bool
origins_init(struct origins *o, uint64_t seed)
{
    *o = (struct origins){.oldest = POOL_NONE, .newest = POOL_NONE, .last = POOL_NONE, .seed = seed};
    o->table = malloc(BUCKETS * sizeof *o->table);
    if (o->table == NULL || !pool_init(&o->pool, sizeof(struct origin), ORIGINS_MAX))
        return false;
    memset(o->table, 0xff, BUCKETS * sizeof *o->table);
    return true;
}

void
origins_fini(struct origins *o)
{
    pool_fini(&o->pool);
    free(o->table);
    o->table = NULL;
}

static uint32_t *
bucket(struct origins *o, const struct envelope_origin *id)
{
    return &o->table[XXH3_64bits_withSeed(id, sizeof *id, o->seed) & (BUCKETS - 1)];
}

static void
list_out(struct origins *o, struct origin *e)
{
    *(e->older == POOL_NONE ? &o->oldest : &origins_at(o, e->older)->newer) = e->newer;
    *(e->newer == POOL_NONE ? &o->newest : &origins_at(o, e->newer)->older) = e->older;
}

static void
list_in(struct origins *o, struct origin *e)
{
    e->older = o->newest;
    e->newer = POOL_NONE;
    *(o->newest == POOL_NONE ? &o->oldest : &origins_at(o, o->newest)->newer) = origins_slot(o, e);
    o->newest = origins_slot(o, e);
}

static void
forget_oldest(struct origins *o)
{
    struct origin *e = origins_at(o, o->oldest);
    uint32_t *at = bucket(o, &e->id), slot = o->oldest;
    while (*at != slot)
        at = &origins_at(o, *at)->bucket_next;
    *at = e->bucket_next;
    list_out(o, e);
    if (o->last == slot)
        o->last = POOL_NONE;
    o->forgotten++;
    pool_put(&o->pool, e);
}

static struct origin *
origin_new(struct origins *o, const struct envelope_origin *id, struct mono now)
{
    if (o->pool.live == ORIGINS_MAX)
        forget_oldest(o);
    struct origin *e = pool_get(&o->pool);
    if (e == NULL)
        return NULL;
    e->id = *id;
    e->heard = now;
    uint32_t *at = bucket(o, id);
    e->bucket_next = *at;
    *at = origins_slot(o, e);
    list_in(o, e);
    return e;
}

static struct origin *
find(struct origins *o, const struct envelope_origin *id)
{
    if (LIKELY(o->last != POOL_NONE && memcmp(&origins_at(o, o->last)->id, id, sizeof *id) == 0))
        return origins_at(o, o->last);
    for (uint32_t i = *bucket(o, id); i != POOL_NONE; i = origins_at(o, i)->bucket_next)
        if (memcmp(&origins_at(o, i)->id, id, sizeof *id) == 0)
            return origins_at(o, i);
    return NULL;
}

struct origin *
origins_want(struct origins *o, const struct envelope_origin *id, struct mono now)
{
    struct origin *e = find(o, id);
    if (e == NULL)
        e = origin_new(o, id, now);
    if (e == NULL)
        return NULL;
    o->last = origins_slot(o, e);
    if (mono_since_ms(now, e->heard) >= STAMP_MS) {
        e->heard = now;
        list_out(o, e);
        list_in(o, e);
    }
    return e;
}
