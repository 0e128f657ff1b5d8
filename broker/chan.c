#include "broker/chan.h"

#include <stdlib.h>
#include <xxhash.h>

#include "broker/across.h"
#include "broker/metrics.h"
#include "broker/peer.h"

bool
chans_init(struct broker *b)
{
    b->mask = 4095;
    b->table = malloc((b->mask + 1) * sizeof *b->table);
    if (b->table == NULL || !pool_init(&b->chans, sizeof(struct chan), (uint32_t)b->conf->broker_max_channels))
        return false;
    memset(b->table, 0xff, (b->mask + 1) * sizeof *b->table);
    return true;
}

static struct chan *
chan_at(struct broker *b, uint32_t slot)
{
    return pool_at(&b->chans, slot);
}

void
chans_fini(struct broker *b)
{
    for (uint32_t i = 0; b->chans.mem != NULL && i < b->chans.used; i++) {
        struct chan *ch = chan_at(b, i);
        if (ch->head.next != POOL_LIVE)
            continue;
        if (ch->cap > 1)
            free(ch->many);
        free(ch->name);
    }
    pool_fini(&b->chans);
    free(b->table);
}

uint32_t
chan_hash(const struct broker *b, struct view name)
{
    return (uint32_t)XXH3_64bits_withSeed(name.p, name.n, b->seed);
}

struct chan *
chan_find_hashed(struct broker *b, struct view name, uint32_t hash)
{
    for (uint32_t i = b->table[hash & b->mask]; i != POOL_NONE;) {
        struct chan *ch = chan_at(b, i);
        if (ch->hash == hash && view_eq(chan_name(ch), name))
            return ch;
        i = ch->bucket_next;
    }
    return NULL;
}

struct chan *
chan_find(struct broker *b, struct view name)
{
    return chan_find_hashed(b, name, chan_hash(b, name));
}

/* Doubles the buckets once there are as many channels. If memory is out it only gets slower. */
static void
table_grow(struct broker *b)
{
    if (b->chans.live <= b->mask)
        return;
    uint32_t mask = b->mask * 2 + 1, *table = malloc(((size_t)mask + 1) * sizeof *table);
    if (table == NULL)
        return;
    memset(table, 0xff, ((size_t)mask + 1) * sizeof *table);
    for (uint32_t i = 0; i < b->chans.used; i++) {
        struct chan *ch = chan_at(b, i);
        if (ch->head.next != POOL_LIVE)
            continue;
        ch->bucket_next = table[ch->hash & mask];
        table[ch->hash & mask] = i;
    }
    free(b->table);
    b->table = table;
    b->mask = mask;
}

struct chan *
chan_want(struct broker *b, struct view name)
{
    uint32_t hash = chan_hash(b, name);
    struct chan *ch = chan_find_hashed(b, name, hash);
    if (ch != NULL)
        return ch;
    table_grow(b);
    uint8_t *copy = malloc(name.n ? name.n : 1);
    ch = copy != NULL ? pool_get(&b->chans) : NULL;
    if (ch == NULL) {
        free(copy);
        return NULL;
    }
    if (name.n)
        memcpy(copy, name.p, name.n);
    ch->name = copy;
    ch->name_n = (uint16_t)name.n;
    ch->hash = hash;
    ch->cap = 1;
    ch->bucket_next = b->table[hash & b->mask];
    b->table[hash & b->mask] = pool_slot(&b->chans, ch);
    GAUGE(b, channels, b->chans.live);
    return ch;
}

static void
chan_free(struct broker *b, struct chan *ch)
{
    uint32_t slot = pool_slot(&b->chans, ch), *at = &b->table[ch->hash & b->mask];
    while (*at != slot)
        at = &chan_at(b, *at)->bucket_next;
    *at = ch->bucket_next;
    if (ch->across != NULL)
        across_forget(b, ch);
    if (ch->cap > 1)
        free(ch->many);
    free(ch->name);
    pool_put(&b->chans, ch);
    GAUGE(b, channels, b->chans.live);
}

static bool
interests_grow(struct chan *ch)
{
    uint16_t cap = (uint16_t)MIN(ch->cap * 2, PEERS_MAX);
    struct interest *many = realloc(ch->cap > 1 ? ch->many : NULL, cap * sizeof *many);
    if (many == NULL)
        return false;
    if (ch->cap == 1)
        many[0] = ch->one;
    ch->many = many;
    ch->cap = cap;
    return true;
}

static bool
is_handle(const struct interest *v, const struct interest *i)
{
    return v->peer == i->peer && v->chan == i->chan && v->gen == i->gen;
}

static struct interest *
interest_find(struct chan *ch, const struct interest *i)
{
    struct interest *v = chan_interests(ch);
    for (unsigned k = 0; k < ch->count; k++)
        if (is_handle(&v[k], i))
            return &v[k];
    return NULL;
}

void
chan_stand(struct chan *ch, struct interest i)
{
    struct interest *v = interest_find(ch, &i);
    if (v != NULL)
        v->stands = true;
}

bool
chan_stands(struct chan *ch, struct interest i)
{
    const struct interest *v = interest_find(ch, &i);
    return v != NULL && v->stands;
}

bool
chan_join(struct broker *b, struct chan *ch, struct interest i)
{
    struct interest *v = chan_interests(ch);
    for (unsigned k = 0; k < ch->count; k++)
        if (v[k].peer == i.peer) {
            if (!is_handle(&v[k], &i)) /* said once more it goes on as it was */
                v[k] = i;
            return true;
        }
    if (ch->count == ch->cap && !interests_grow(ch)) {
        if (ch->count == 0)
            chan_free(b, ch);
        return false;
    }
    chan_interests(ch)[ch->count++] = i;
    GAUGE(b, interests, b->metrics[BM_interests] + 1);
    return true;
}

void
chan_leave(struct broker *b, struct chan *ch, struct interest i)
{
    struct interest *v = chan_interests(ch);
    for (unsigned k = 0; k < ch->count; k++) {
        if (!is_handle(&v[k], &i))
            continue;
        v[k] = v[--ch->count];
        GAUGE(b, interests, b->metrics[BM_interests] - 1);
        break;
    }
    if (ch->count == 0)
        chan_free(b, ch);
}

static void
message_put(struct broker *b, struct interest i, uint64_t seq, bool has_data, struct view data)
{
    uint8_t *p = peer_put(b, peer_at(b, i.peer), IPC_MESSAGE, has_data ? IPC_HAS_DATA : 0, 0, (uint32_t)(16 + data.n));
    if (p == NULL) {
        COUNT(b, dropped_total);
        return;
    }
    memcpy(p, &i.chan, 4);
    memcpy(p + 4, &i.gen, 4);
    memcpy(p + 8, &seq, 8);
    if (data.n)
        memcpy(p + 16, data.p, data.n);
    COUNT(b, deliveries_total);
}

static void
gap_put(struct broker *b, struct interest i, uint64_t count)
{
    uint8_t *p = peer_put(b, peer_at(b, i.peer), IPC_GAP, 0, 0, 16);
    if (p == NULL)
        return;
    memcpy(p, &i.chan, 4);
    memcpy(p + 4, &i.gen, 4);
    memcpy(p + 8, &count, 8);
}

bool
chan_has_room(struct broker *b, struct chan *ch, size_t n)
{
    const struct interest *v = chan_interests(ch);
    for (unsigned k = 0; k < ch->count; k++)
        if (!peer_has_room(b, peer_at(b, v[k].peer), (uint32_t)(16 + n)))
            return false;
    return true;
}

enum chan_rc
chan_publish(struct broker *b, uint32_t from, struct view name, bool has_data, struct view data)
{
    struct chan *ch = chan_find(b, name);
    if (ch != NULL) {
        if (!chan_has_room(b, ch, data.n))
            return CHAN_BLOCKED;
        const struct interest *v = chan_interests(ch);
        ch->seq++;
        for (unsigned k = 0; k < ch->count; k++) {
            struct peer *p = peer_at(b, v[k].peer);
            message_put(b, v[k], ch->seq, has_data, data);
            if (UNLIKELY(peer_is_behind(b, p) || peer_is_busy(p, v[k].chan)))
                peer_xoff(b, p, from, name);
        }
    } else {
        COUNT(b, unheard_total);
    }
    COUNT(b, publishes_total);
    COUNT_N(b, publish_bytes_total, data.n);
    return CHAN_OK;
}

/* -- what comes from other hosts: nobody can be told to stop -- */

#define MISSED_UNKNOWN (UINT32_MAX >> 1) /* nobody knows how many; all bits of interest.missed */

static void
miss(struct broker *b, struct interest *i, uint64_t count)
{
    if (count == 0 || i->missed == MISSED_UNKNOWN)
        i->missed = MISSED_UNKNOWN;
    else
        i->missed = MIN(i->missed + count, (uint64_t)MISSED_UNKNOWN) & MISSED_UNKNOWN;
    peer_at(b, i->peer)->missing = true;
}

bool
chan_tell_missed(struct broker *b, struct interest *i)
{
    if (i->missed == 0)
        return true;
    if (!peer_has_room(b, peer_at(b, i->peer), 16))
        return false;
    gap_put(b, *i, i->missed == MISSED_UNKNOWN ? 0 : i->missed);
    i->missed = 0;
    return true;
}

void
chan_deliver(struct broker *b, struct chan *ch, bool has_data, struct view data)
{
    struct interest *v = chan_interests(ch);
    ch->seq++;
    for (unsigned k = 0; k < ch->count; k++) {
        struct peer *p = peer_at(b, v[k].peer);
        bool room = peer_has_room(b, p, (uint32_t)(16 + data.n));
        if (LIKELY(room && (v[k].missed == 0 || chan_tell_missed(b, &v[k])))) {
            message_put(b, v[k], ch->seq, has_data, data);
            continue;
        }
        COUNT(b, missed_full_total);
        miss(b, &v[k], 1);
    }
}

void
chan_slow(struct broker *b, struct chan *ch, uint32_t from)
{
    const struct interest *v = chan_interests(ch);
    for (unsigned k = 0; k < ch->count; k++) {
        struct peer *p = peer_at(b, v[k].peer);
        if (UNLIKELY(peer_is_behind(b, p) || peer_is_busy(p, v[k].chan)))
            peer_xoff(b, p, from, chan_name(ch));
    }
}

void
chan_gap(struct broker *b, struct chan *ch, uint64_t count)
{
    struct interest *v = chan_interests(ch);
    COUNT(b, gaps_total);
    COUNT_N(b, gap_messages_total, count);
    for (unsigned k = 0; k < ch->count; k++) {
        if (chan_tell_missed(b, &v[k]) && peer_has_room(b, peer_at(b, v[k].peer), 16))
            gap_put(b, v[k], count);
        else
            miss(b, &v[k], count);
    }
}
