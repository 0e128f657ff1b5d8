#include "broker/rtopic.h"

#include <stdlib.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#define BUCKETS_FIRST 1024u

bool
rtopics_init(struct rtopics *t, uint64_t seed)
{
    *t = (struct rtopics){.seed = seed, .mask = BUCKETS_FIRST - 1};
    t->bucket = calloc(BUCKETS_FIRST, sizeof(struct rtopic *));
    return t->bucket != NULL;
}

void
rtopics_fini(struct rtopics *t)
{
    for (uint32_t i = 0; t->bucket != NULL && i <= t->mask; i++)
        for (struct rtopic *x = t->bucket[i], *next; x != NULL; x = next) {
            next = x->bucket_next;
            free(x);
        }
    free(t->bucket);
    *t = (struct rtopics){.bucket = NULL};
}

static uint32_t
hash_of(const struct rtopics *t, struct view name)
{
    return (uint32_t)XXH3_64bits_withSeed(name.p, name.n, t->seed);
}

struct rtopic *
rtopic_find(const struct rtopics *t, struct view name)
{
    uint32_t hash = hash_of(t, name);
    for (struct rtopic *x = t->bucket[hash & t->mask]; x != NULL; x = x->bucket_next)
        if (x->hash == hash && view_eq(rtopic_name(x), name))
            return x;
    return NULL;
}

/* Twice as many buckets; without the memory for them chains only get longer. */
static void
grow(struct rtopics *t)
{
    uint32_t n = (t->mask + 1) * 2;
    struct rtopic **bucket = t->mask < 1u << 30 ? calloc(n, sizeof(struct rtopic *)) : NULL;
    if (bucket == NULL)
        return;
    for (uint32_t i = 0; i <= t->mask; i++)
        for (struct rtopic *x = t->bucket[i], *next; x != NULL; x = next) {
            next = x->bucket_next;
            x->bucket_next = bucket[x->hash & (n - 1)];
            bucket[x->hash & (n - 1)] = x;
        }
    free(t->bucket);
    t->bucket = bucket;
    t->mask = n - 1;
}

struct rtopic *
rtopic_add(struct rtopics *t, struct view name, uint16_t slot)
{
    if (name.n > UINT16_MAX)
        return NULL;
    struct rtopic *x = malloc(sizeof *x + name.n);
    if (x == NULL)
        return NULL;
    if (t->count > t->mask)
        grow(t);
    *x = (struct rtopic){.hash = hash_of(t, name), .slot = slot, .n = (uint16_t)name.n};
    if (name.n > 0)
        memcpy(x->name, name.p, name.n);
    struct rtopic **head = &t->bucket[x->hash & t->mask];
    x->bucket_next = *head;
    *head = x;
    t->count++;
    return x;
}

void
rtopic_free(struct rtopics *t, struct rtopic *topic)
{
    struct rtopic **at = &t->bucket[topic->hash & t->mask];
    while (*at != topic)
        at = &(*at)->bucket_next;
    *at = topic->bucket_next;
    t->count--;
    free(topic);
}

void
rtopic_link(struct rtopic **head, struct rtopic *t)
{
    t->prev = NULL;
    t->next = *head;
    if (t->next != NULL)
        t->next->prev = t;
    *head = t;
}

void
rtopic_unlink(struct rtopic **head, struct rtopic *t)
{
    if (t->next != NULL)
        t->next->prev = t->prev;
    if (t->prev != NULL)
        t->prev->next = t->next;
    else
        *head = t->next;
    t->prev = t->next = NULL;
}
