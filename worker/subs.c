#include "worker/subs.h"

#include <stdlib.h>
#include <xxhash.h>

#include "common/bug.h"
#include "worker/behind.h"
#include "worker/fan.h"
#include "worker/metrics.h"

/* Most channels one ring keeps: a request names its channel in 22 bits (sess.h). */
#define CHANS_MAX (1u << 22)

/* Subscriptions of a connection that has more than fit inline: open addressing by channel slot, so
 * that the cost of one does not depend on how many are held. */
struct sub_table {
    uint32_t cap; /* power of two */
    struct sub v[];
};
#define SUB_FREE UINT32_MAX
/* In sub.pos of a subscription that is behind: the rest is the slot of its laggard, which knows the position. */
#define SUB_BEHIND (1u << 31)

bool
subs_init(struct worker *w)
{
    w->chan_mask = 1023;
    w->chan_table = malloc((w->chan_mask + 1) * sizeof(uint32_t));
    if (w->chan_table == NULL || !pool_init(&w->chans, sizeof(struct chan), CHANS_MAX) ||
        !pool_init(&w->laggards, sizeof(struct laggard), LAGGARDS_MAX))
        return false;
    memset(w->chan_table, 0xff, (w->chan_mask + 1) * sizeof(uint32_t));
    return true;
}

void
subs_fini(struct worker *w)
{
    for (uint32_t i = 0; w->chans.mem != NULL && i < w->chans.used; i++) {
        struct chan *ch = pool_at(&w->chans, i);
        if (ch->head.next == POOL_LIVE) {
            free(ch->name);
            if (ch->sub_cap > 2)
                free(ch->many);
        }
    }
    pool_fini(&w->laggards);
    free(w->chan_table);
    pool_fini(&w->chans);
}

static struct chan *
chan_at(struct worker *w, uint32_t slot)
{
    return pool_at(&w->chans, slot);
}

static uint32_t
name_hash(const struct worker *w, struct view name)
{
    return (uint32_t)XXH3_64bits_withSeed(name.p, name.n, w->hash_seed);
}

static struct chan *
find_hashed(struct worker *w, struct view name, uint32_t hash)
{
    for (uint32_t i = w->chan_table[hash & w->chan_mask]; i != POOL_NONE;) {
        struct chan *ch = chan_at(w, i);
        if (ch->hash == hash && view_eq(chan_name(ch), name))
            return ch;
        i = ch->bucket_next;
    }
    return NULL;
}

struct chan *
subs_find(struct worker *w, struct view name)
{
    return find_hashed(w, name, name_hash(w, name));
}

/* Doubles the buckets once there are as many channels; failing to is only slower. */
static void
table_grow(struct worker *w)
{
    if (w->chans.live <= w->chan_mask)
        return;
    uint32_t mask = w->chan_mask * 2 + 1;
    uint32_t *table = malloc(((size_t)mask + 1) * sizeof(uint32_t));
    if (table == NULL)
        return;
    memset(table, 0xff, ((size_t)mask + 1) * sizeof(uint32_t));
    for (uint32_t i = 0; i < w->chans.used; i++) {
        struct chan *ch = chan_at(w, i);
        if (ch->head.next != POOL_LIVE)
            continue;
        ch->bucket_next = table[ch->hash & mask];
        table[ch->hash & mask] = i;
    }
    free(w->chan_table);
    w->chan_table = table;
    w->chan_mask = mask;
}

static void
find_namespace(struct worker *w, struct chan *ch)
{
    ch->ns = (uint8_t)(conf_namespace_of(w->namespaces, chan_name(ch)) - w->namespaces->v);
    ch->ns_round = w->ns_round;
}

const struct conf_namespace *
subs_namespace(struct worker *w, struct chan *ch)
{
    if (UNLIKELY(ch->behind != NULL))
        return ch->behind->ns;
    if (UNLIKELY(ch->ns_round != w->ns_round || ch->ns >= w->namespaces->n))
        find_namespace(w, ch);
    return &w->namespaces->v[ch->ns];
}

static struct chan *
chan_new(struct worker *w, struct view name, uint32_t hash)
{
    table_grow(w);
    struct chan *ch = pool_get(&w->chans);
    if (ch == NULL)
        return NULL;
    ch->name = malloc(name.n ? name.n : 1);
    if (ch->name == NULL) {
        pool_put(&w->chans, ch);
        return NULL;
    }
    if (name.n)
        memcpy(ch->name, name.p, name.n);
    ch->name_n = (uint16_t)name.n;
    ch->hash = hash;
    ch->sub_cap = 2;
    ch->broker = (uint8_t)links_owner(w->links, name);
    ch->bucket_next = w->chan_table[hash & w->chan_mask];
    w->chan_table[hash & w->chan_mask] = pool_slot(&w->chans, ch);
    find_namespace(w, ch);
    GAUGE(w, channels, w->chans.live);
    return ch;
}

static void
chan_free(struct worker *w, struct chan *ch)
{
    uint32_t slot = pool_slot(&w->chans, ch);
    uint32_t *at = &w->chan_table[ch->hash & w->chan_mask];
    while (*at != slot)
        at = &chan_at(w, *at)->bucket_next;
    *at = ch->bucket_next;
    if (ch->asked)
        link_unsubscribe(w->links, ch->broker, slot, ch->head.gen);
    if (ch->batch != NULL)
        rc_unref(&w->blocks, ch->batch);
    ch->batch = NULL;
    if (ch->tail != NULL)
        rc_unref(&w->blocks, ch->tail);
    free(ch->name);
    if (ch->sub_cap > 2)
        free(ch->many);
    pool_put(&w->chans, ch);
    GAUGE(w, channels, w->chans.live);
}

/* -- the connection's side: channel -> position in the channel's list -- */

static uint32_t
sub_hash(uint32_t chan)
{
    return chan * 2654435769u;
}

static struct sub *
table_find(struct sub_table *t, uint32_t chan)
{
    for (uint32_t i = sub_hash(chan) & (t->cap - 1);; i = (i + 1) & (t->cap - 1)) {
        if (t->v[i].chan == chan)
            return &t->v[i];
        if (t->v[i].chan == SUB_FREE)
            return NULL;
    }
}

static struct sub *
sub_find(struct conn *c, uint32_t chan)
{
    if (c->has_table)
        return table_find(c->table, chan);
    for (uint32_t i = 0; i < c->sub_count; i++)
        if (c->inline_subs[i].chan == chan)
            return &c->inline_subs[i];
    return NULL;
}

static void
table_put(struct sub_table *t, struct sub s)
{
    uint32_t i = sub_hash(s.chan) & (t->cap - 1);
    while (t->v[i].chan != SUB_FREE)
        i = (i + 1) & (t->cap - 1);
    t->v[i] = s;
}

static bool
table_make_room(struct worker *w, struct conn *c)
{
    uint32_t cap = c->has_table ? c->table->cap : 0;
    if (c->has_table && c->sub_count * 2 < cap)
        return true;
    uint32_t bigger = cap ? cap * 2 : 8;
    struct sub_table *t = malloc(sizeof *t + bigger * sizeof t->v[0]);
    if (t == NULL)
        return false;
    t->cap = bigger;
    memset(t->v, 0xff, bigger * sizeof t->v[0]);
    const struct sub *old = c->has_table ? c->table->v : c->inline_subs;
    for (uint32_t i = 0; i < (c->has_table ? cap : c->sub_count); i++)
        if (old[i].chan != SUB_FREE)
            table_put(t, old[i]);
    if (c->has_table)
        free(c->table);
    c->table = t;
    c->has_table = true;
    (void)w;
    return true;
}

static bool
sub_put(struct worker *w, struct conn *c, struct sub s)
{
    if (!c->has_table && c->sub_count < SUBS_INLINE) {
        c->inline_subs[c->sub_count++] = s;
        return true;
    }
    if (!table_make_room(w, c))
        return false;
    table_put(c->table, s);
    c->sub_count++;
    return true;
}

/* Linear probing's deletion: entries behind the hole move up if their home allows it. */
static void
table_drop(struct sub_table *t, struct sub *s)
{
    uint32_t mask = t->cap - 1, hole = (uint32_t)(s - t->v);
    for (uint32_t i = (hole + 1) & mask; t->v[i].chan != SUB_FREE; i = (i + 1) & mask) {
        uint32_t home = sub_hash(t->v[i].chan) & mask;
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            t->v[hole] = t->v[i];
            hole = i;
        }
    }
    t->v[hole].chan = SUB_FREE;
}

static void
sub_remove(struct conn *c, struct sub *s)
{
    if (c->has_table)
        table_drop(c->table, s);
    else
        *s = c->inline_subs[c->sub_count - 1];
    if (--c->sub_count == 0 && c->has_table) {
        free(c->table);
        c->table = NULL;
        c->has_table = false;
    }
}

/* -- the channel's side: a list of connections; those that are level first, else without order -- */

uint32_t
subs_level(const struct chan *ch)
{
    return ch->sub_count - (ch->behind != NULL ? ch->behind->count : 0);
}

static uint32_t *
sub_pos(struct worker *w, struct sub *s)
{
    return s->pos & SUB_BEHIND ? &laggard_at(w, s->pos & ~SUB_BEHIND)->pos : &s->pos;
}

/* Puts a connection that has the subscription into place `pos` of the list. */
static void
chan_place(struct worker *w, struct chan *ch, uint32_t pos, uint32_t conn)
{
    struct sub *s = sub_find(conn_at(w, conn), pool_slot(&w->chans, ch));
    BUG_ON(s == NULL);
    chan_subs(ch)[pos] = conn;
    *sub_pos(w, s) = pos;
}

static void
chan_swap(struct worker *w, struct chan *ch, uint32_t a, uint32_t b)
{
    uint32_t at_a = chan_subs(ch)[a], at_b = chan_subs(ch)[b];
    if (a == b)
        return;
    chan_place(w, ch, a, at_b);
    chan_place(w, ch, b, at_a);
}

/* Behind those that are level, at subs_level(); the first of those that are behind gives way. */
static bool
chan_put(struct worker *w, struct chan *ch, struct conn *c)
{
    if (ch->sub_count == ch->sub_cap) {
        uint32_t cap = ch->sub_cap * 2;
        uint32_t *v = realloc(ch->sub_cap == 2 ? NULL : ch->many, cap * sizeof *v);
        if (v == NULL)
            return false;
        if (ch->sub_cap == 2)
            memcpy(v, ch->one, sizeof ch->one);
        ch->many = v;
        ch->sub_cap = cap;
    }
    uint32_t level = subs_level(ch), last = ch->sub_count++;
    if (level != last)
        chan_place(w, ch, last, chan_subs(ch)[level]);
    chan_subs(ch)[level] = conn_slot(w, c);
    return true;
}

/* Of one that is level: the last of its kind takes its place, and the last of all that one's. */
static void
chan_remove(struct worker *w, struct chan *ch, uint32_t pos)
{
    uint32_t level = subs_level(ch) - 1, last = ch->sub_count - 1;
    if (pos != level)
        chan_place(w, ch, pos, chan_subs(ch)[level]);
    if (level != last)
        chan_place(w, ch, level, chan_subs(ch)[last]);
    ch->sub_count = last;
}

void
subs_to_behind(struct worker *w, struct chan *ch, uint32_t pos, struct laggard *g)
{
    uint32_t last = subs_level(ch) - 1;
    chan_swap(w, ch, pos, last);
    g->pos = last;
    sub_find(conn_at(w, g->conn), g->chan)->pos = pool_slot(&w->laggards, g) | SUB_BEHIND;
    ch->behind->count++;
}

void
subs_to_level(struct worker *w, struct chan *ch, struct laggard *g)
{
    uint32_t first = subs_level(ch);
    chan_swap(w, ch, g->pos, first);
    sub_find(conn_at(w, g->conn), g->chan)->pos = first;
    ch->behind->count--;
}

bool
subs_has(struct worker *w, struct conn *c, const struct chan *ch)
{
    return sub_find(c, pool_slot(&w->chans, ch)) != NULL;
}

enum subs_rc
subs_add(struct worker *w, struct conn *c, struct view name, struct chan **out)
{
    uint32_t hash = name_hash(w, name);
    struct chan *ch = find_hashed(w, name, hash);
    bool is_new = ch == NULL;
    if (is_new)
        ch = chan_new(w, name, hash);
    *out = ch;
    if (ch == NULL)
        return SUBS_NO_MEMORY;
    if (!is_new && subs_has(w, c, ch))
        return SUBS_ALREADY;
    fan_out(w, ch); /* what came before this subscriber is not for it */
    struct sub s = {.chan = pool_slot(&w->chans, ch), .pos = subs_level(ch)};
    if (!chan_put(w, ch, c)) {
        if (is_new)
            chan_free(w, ch);
        return SUBS_NO_MEMORY;
    }
    if (!sub_put(w, c, s)) {
        chan_remove(w, ch, s.pos);
        if (is_new)
            chan_free(w, ch);
        return SUBS_NO_MEMORY;
    }
    GAUGE(w, subscriptions, w->metrics[RM_subscriptions] + 1);
    w->most_subs = MAX(w->most_subs, ch->sub_count);
    return is_new ? SUBS_NEW : ch->state == CHAN_HELD ? SUBS_HELD : SUBS_ASKED;
}

/* `tell`: the connection goes on, and hears what it will not get. */
static void
drop_sub(struct worker *w, struct conn *c, struct sub *s, bool tell)
{
    struct chan *ch = chan_at(w, s->chan);
    fan_out(w, ch); /* what came before it left still is for it */
    if (s->pos & SUB_BEHIND)
        behind_leave(w, laggard_at(w, s->pos & ~SUB_BEHIND), tell);
    uint32_t pos = s->pos;
    sub_remove(c, s);
    chan_remove(w, ch, pos);
    GAUGE(w, subscriptions, w->metrics[RM_subscriptions] - 1);
    if (ch->sub_count == 0)
        chan_free(w, ch);
}

bool
subs_drop(struct worker *w, struct conn *c, struct chan *ch)
{
    struct sub *s = sub_find(c, pool_slot(&w->chans, ch));
    if (s == NULL)
        return false;
    drop_sub(w, c, s, true);
    return true;
}

void
subs_drop_all(struct worker *w, struct conn *c)
{
    while (c->sub_count > 0 && !c->has_table)
        drop_sub(w, c, &c->inline_subs[c->sub_count - 1], false);
    if (!c->has_table)
        return;
    /* From the end of the table backwards, so that a hole is never filled from what was passed. */
    uint32_t cap = c->table->cap;
    while (c->has_table)
        for (uint32_t i = cap; c->has_table && i-- > 0;)
            if (c->table->v[i].chan != SUB_FREE)
                drop_sub(w, c, &c->table->v[i], false);
}

void
subs_drop_chan(struct worker *w, struct chan *ch)
{
    uint32_t gen = ch->head.gen, slot = pool_slot(&w->chans, ch);
    while (pool_find(&w->chans, slot, gen) != NULL)
        subs_drop(w, conn_at(w, chan_subs(ch)[ch->sub_count - 1]), ch);
}

uint32_t
subs_on_count(void *worker, uint32_t chan, uint32_t chan_gen)
{
    const struct worker *w = worker;
    const struct chan *ch = pool_find(&w->chans, chan, chan_gen);
    return ch != NULL ? ch->sub_count : 0;
}
