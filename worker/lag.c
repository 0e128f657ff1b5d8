#include "worker/lag.h"

#include <stdlib.h>

#include "common/bug.h"
#include "worker/conn.h"

/* Blocks are as large as a quarter of what is kept already, between these: neither does a quiet channel keep a large
 * block for one message, nor a busy one many small ones. A reader that stops keeps the block that its bytes lie
 * in, so they are not of the largest class. */
#define BLOCK_MIN (1024 - sizeof(struct rc))
#define BLOCK_MAX (16384 - sizeof(struct rc))

static struct lag_block *
block_at(const struct lag *l, uint32_t i)
{
    return &l->blocks[(l->block_head + i) & (l->block_cap - 1)];
}

static uint64_t
block_memory(const struct rc *rc)
{
    return rc->cap + sizeof *rc;
}

static bool
blocks_room(struct lag *l)
{
    if (l->block_count < l->block_cap)
        return true;
    uint32_t cap = l->block_cap ? l->block_cap * 2 : 4;
    struct lag_block *v = malloc(cap * sizeof *v);
    if (v == NULL)
        return false;
    for (uint32_t i = 0; i < l->block_count; i++)
        v[i] = *block_at(l, i);
    free(l->blocks);
    l->blocks = v;
    l->block_cap = cap;
    l->block_head = 0;
    return true;
}

/* The last block if it has room for len bytes, or a new one; NULL when memory is out. */
static struct rc *
block_for(struct lag *l, struct rc_pool *pool, uint32_t len)
{
    if (l->block_count > 0) {
        struct rc *last = block_at(l, l->block_count - 1)->rc;
        if (rc_room(last) >= len)
            return last;
    }
    uint64_t quarter = (l->next.at - l->first.at) / 4;
    size_t size = (size_t)MIN(MAX(quarter, (uint64_t)BLOCK_MIN), (uint64_t)BLOCK_MAX);
    struct rc *rc = blocks_room(l) ? rc_new(pool, MAX(size, (size_t)len)) : NULL;
    if (rc == NULL)
        return NULL;
    l->block_count++;
    *block_at(l, l->block_count - 1) = (struct lag_block){rc, l->next.at};
    l->held += block_memory(rc);
    return rc;
}

static void
drop_first_block(struct lag *l, struct rc_pool *pool)
{
    struct rc *rc = block_at(l, 0)->rc;
    l->held -= block_memory(rc);
    rc_unref(pool, rc);
    l->block_head = (l->block_head + 1) & (l->block_cap - 1);
    l->block_count--;
}

/* -- holes -- */

static struct lag_mark *
mark_at(const struct lag *l, uint32_t i)
{
    return &l->marks[(l->mark_head + i) & (l->mark_cap - 1)];
}

/* Counts come from other hosts: what cannot be a number of messages any more is an unknown number of them. */
static void
holes_add(struct lag_holes *h, uint64_t messages)
{
    if (messages == 0 || __builtin_add_overflow(h->messages, messages, &h->messages)) {
        h->unknown++;
        if (messages != 0)
            h->messages -= messages; /* undoes the wrap */
    }
}

static struct lag_holes
holes_between(const struct lag_holes *from, const struct lag_holes *to)
{
    return (struct lag_holes){to->messages - from->messages, to->unknown - from->unknown};
}

/* Those at the oldest place are told to who comes to it. */
static void
take_first_marks(struct lag *l)
{
    while (l->mark_count > 0 && mark_at(l, 0)->seq <= l->first.seq) {
        l->first.holes = mark_at(l, 0)->sum;
        l->mark_head = (l->mark_head + 1) & (l->mark_cap - 1);
        l->mark_count--;
    }
}

/* How many marks stand at a place or in front of it. */
static uint32_t
marks_to(const struct lag *l, uint64_t seq)
{
    uint32_t lo = 0, hi = l->mark_count;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (mark_at(l, mid)->seq <= seq)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static bool
marks_room(struct lag *l)
{
    if (l->mark_count < l->mark_cap)
        return true;
    uint32_t cap = l->mark_cap ? l->mark_cap * 2 : 4;
    struct lag_mark *v = cap <= LAG_MARKS_MAX ? malloc(cap * sizeof *v) : NULL;
    if (v == NULL)
        return false;
    for (uint32_t i = 0; i < l->mark_count; i++)
        v[i] = *mark_at(l, i);
    free(l->marks);
    l->marks = v;
    l->mark_cap = cap;
    l->mark_head = 0;
    return true;
}

void
lag_hole(struct lag *l, struct rc_pool *pool, uint64_t messages)
{
    holes_add(&l->next.holes, messages);
    struct lag_mark *last = l->mark_count > 0 ? mark_at(l, l->mark_count - 1) : NULL;
    if (l->first.seq == l->next.seq) {
        l->first.holes = l->next.holes;
    } else if (last != NULL && last->seq == l->next.seq) {
        last->sum = l->next.holes;
    } else if (marks_room(l)) {
        l->mark_count++;
        *mark_at(l, l->mark_count - 1) = (struct lag_mark){l->next.seq, l->next.holes};
    } else {
        lag_clear(l, pool);
    }
}

/* -- messages -- */

static void
drop_first_message(struct lag *l, struct rc_pool *pool)
{
    const struct lag_block *b = block_at(l, 0);
    l->first.at += conn_frame_size(b->rc->data + (l->first.at - b->at));
    l->first.seq++;
    if (l->first.at == b->at + b->rc->n)
        drop_first_block(l, pool);
    take_first_marks(l);
}

void
lag_clear(struct lag *l, struct rc_pool *pool)
{
    while (l->block_count > 0)
        drop_first_block(l, pool);
    l->mark_count = 0;
    l->first = l->next;
}

bool
lag_append(struct lag *l, struct rc_pool *pool, const uint8_t *frames, uint32_t len, uint32_t messages,
    uint64_t keep)
{
    while (messages > 1 && len > keep) { /* what would be dropped at once is not even copied */
        uint32_t n = conn_frame_size(frames);
        lag_clear(l, pool);
        l->next.seq++;
        l->next.at += n;
        l->first = l->next;
        frames += n;
        len -= n;
        messages--;
    }
    struct rc *rc = block_for(l, pool, len);
    if (rc != NULL) {
        memcpy(rc->data + rc->n, frames, len);
        rc->n += len;
    }
    l->next.seq += messages;
    l->next.at += len;
    if (rc == NULL) {
        lag_clear(l, pool);
        return false;
    }
    while (l->next.seq - l->first.seq > 1 && l->next.at - l->first.at > keep)
        drop_first_message(l, pool);
    return true;
}

struct lag_missed
lag_catch_up(const struct lag *l, struct lag_pos *pos)
{
    struct lag_pos to = *pos;
    if (pos->seq < l->first.seq)
        to = l->first;
    uint32_t marks = marks_to(l, to.seq);
    to.holes = marks > 0 ? mark_at(l, marks - 1)->sum : l->first.holes;
    struct lag_missed m = {to.seq - pos->seq, holes_between(&pos->holes, &to.holes)};
    *pos = to;
    return m;
}

struct lag_missed
lag_rest(const struct lag *l, const struct lag_pos *pos)
{
    return (struct lag_missed){l->next.seq - pos->seq, holes_between(&pos->holes, &l->next.holes)};
}

bool
lag_is_level(const struct lag *l, const struct lag_pos *pos)
{
    return pos->seq == l->next.seq && pos->holes.messages == l->next.holes.messages &&
        pos->holes.unknown == l->next.holes.unknown;
}

/* The block that the byte at a position lies in. */
static const struct lag_block *
block_of(const struct lag *l, uint64_t at)
{
    uint32_t lo = 0, hi = l->block_count;
    while (hi - lo > 1) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (block_at(l, mid)->at <= at)
            lo = mid;
        else
            hi = mid;
    }
    return block_at(l, lo);
}

bool
lag_read(const struct lag *l, struct lag_pos *pos, uint32_t budget, struct lag_piece *out)
{
    BUG_ON(pos->seq < l->first.seq || pos->seq > l->next.seq);
    if (pos->seq == l->next.seq)
        return false;
    const struct lag_block *b = block_of(l, pos->at);
    uint32_t off = (uint32_t)(pos->at - b->at), end = off;
    uint32_t marks = marks_to(l, pos->seq);
    uint64_t most = (marks < l->mark_count ? mark_at(l, marks)->seq : l->next.seq) - pos->seq;
    *out = (struct lag_piece){.seg = {b->rc, off, 0}};
    while (end < b->rc->n && out->messages < most) {
        uint32_t n = conn_frame_size(b->rc->data + end);
        if (out->messages > 0 && n > budget - MIN(budget, end - off))
            break;
        end += n;
        out->messages++;
    }
    out->seg.len = end - off;
    pos->seq += out->messages;
    pos->at += out->seg.len;
    return true;
}

void
lag_fini(struct lag *l, struct rc_pool *pool)
{
    lag_clear(l, pool);
    free(l->blocks);
    free(l->marks);
    *l = (struct lag){0};
}
