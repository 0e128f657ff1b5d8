/* Who is heard over the bus: a bounded table of origins. Who was heard least recently gives way to a new one; what
 * channels remember of it by slot and generation is found stale then. */
#ifndef BROKER_ORIGINS_H
#define BROKER_ORIGINS_H

#include "common/mono.h"
#include "common/pool.h"
#include "proto/envelope.h"

#define ORIGINS_MAX 4096

struct origin {
    struct pool_head head;
    uint32_t bucket_next;
    uint32_t older, newer; /* by when they were heard, within a second */
    struct envelope_origin id;
    struct mono heard;
};

struct origins {
    struct pool pool;
    uint32_t *table;
    uint32_t oldest, newest;
    uint32_t last;         /* that of the last message: often that of the next one */
    uint64_t seed;
    uint64_t forgotten;
};

bool origins_init(struct origins *o, uint64_t seed) MUST_CHECK;
void origins_fini(struct origins *o);
/* The origin, made if need be; NULL when memory is out. */
struct origin *origins_want(struct origins *o, const struct envelope_origin *id, struct mono now);

static inline struct origin *
origins_at(const struct origins *o, uint32_t slot)
{
    return pool_at(&o->pool, slot);
}

static inline uint32_t
origins_slot(const struct origins *o, const struct origin *e)
{
    return pool_slot(&o->pool, e);
}

#endif
