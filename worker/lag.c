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

static void
drop_first_message(struct lag *l, struct rc_pool *pool)
{
    const struct lag_block *b = block_at(l, 0);
    l->first.at += conn_frame_size(b->rc->data + (l->first.at - b->at));
    l->first.seq++;
    if (l->first.at == b->at + b->rc->n)
        drop_first_block(l, pool);
}

void
lag_clear(struct lag *l, struct rc_pool *pool)
{
    while (l->block_count > 0)
        drop_first_block(l, pool);
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

uint64_t
lag_catch_up(const struct lag *l, struct lag_pos *pos)
{
    if (pos->seq >= l->first.seq)
        return 0;
    uint64_t missed = l->first.seq - pos->seq;
    *pos = l->first;
    return missed;
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
    *out = (struct lag_piece){.seg = {b->rc, off, 0}};
    while (end < b->rc->n) {
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
    *l = (struct lag){0};
}
