/* Own sequences: a number for each message that this broker gives the bus, per channel. The table is bounded by
 * bus.max_sources; the quietest is forgotten first, and begins a new stretch if it comes again. That something of a
 * name was forgotten is remembered by a few bits of its hash, for ever and not exactly, so that who asks for it can be told.
 *
 * A source stands in one of two lists, in the order of their last publish: `fresh` since a message that no mark followed
 * yet, `quiet` otherwise. Beside that it may wait for a mark (due). */
#ifndef BROKER_SOURCES_H
#define BROKER_SOURCES_H

#include "common/mono.h"
#include "common/pool.h"
#include "common/view.h"

struct source {
    struct pool_head head;
    uint32_t hash;
    uint32_t bucket_next;
    uint32_t older, newer;   /* in its list */
    uint32_t due_next;       /* in the list of those due */
    bool fresh;
    bool is_due;
    bool owes;               /* its last numbers were not taken, and no mark has said so yet */
    uint16_t name_n;
    uint32_t epoch;          /* of across: who asked since has been, or could have been, answered */
    uint32_t marks;          /* marks whose fate is not known */
    uint32_t waiting;        /* messages whose fate is not known */
    uint32_t echoes;         /* messages whose echo is waited for (bus.order = bus) */
    uint64_t stretch;
    uint64_t last;           /* number of the last message */
    uint64_t taken;          /* the last one that the bus took */
    uint64_t base;           /* the last one when somebody's ask was left unanswered; 0: that has not been */
    struct mono said;        /* when the last message was numbered */
    struct mono taken_at, base_at; /* when the bus had taken those */
    struct mono marked;      /* the last mark */
    struct mono asked;       /* when the first of those asked who no mark has answered yet; 0: nobody */
    uint8_t *name;
};

struct sources_list {
    uint32_t oldest, newest;
};

struct sources {
    struct pool pool;
    uint32_t *table;
    uint32_t mask;
    struct sources_list fresh, quiet;
    uint32_t due_first, due_last;
    uint64_t forgotten;
    uint64_t *filter;        /* of forgotten names' hashes; NULL while nothing was forgotten */
};

bool sources_init(struct sources *s, uint32_t max) MUST_CHECK;
void sources_fini(struct sources *s);

static inline struct source *
sources_at(const struct sources *s, uint32_t slot)
{
    return pool_at(&s->pool, slot);
}

static inline uint32_t
sources_slot(const struct sources *s, const struct source *e)
{
    return pool_slot(&s->pool, e);
}

static inline struct view
sources_name(const struct source *e)
{
    return view_of(e->name, e->name_n);
}

struct source *sources_find(const struct sources *s, struct view name, uint32_t hash);
/* The same, made if need be. NULL when memory is out, or none can be forgotten: all have messages under way. */
struct source *sources_want(struct sources *s, struct view name, uint32_t hash);
/* A message was numbered: it is fresh, and the newest. */
void sources_said(struct sources *s, struct source *e, struct mono now);
/* A mark has followed it. */
void sources_marked(struct sources *s, struct source *e, struct mono now);
/* Puts it into the line of those that a mark is due for, unless it stands there. */
void sources_due(struct sources *s, struct source *e);
/* Takes the first of the line; NULL: none. */
struct source *sources_due_take(struct sources *s);
/* Whether something of this name may have been forgotten. */
bool sources_forgot(const struct sources *s, uint32_t hash);

#endif
