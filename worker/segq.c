#include "worker/segq.h"

#include <stdlib.h>

#include "common/bug.h"

static struct oseg *
segq_last(struct segq *q)
{
    uint32_t n = segq_count(q);
    return n == 0 ? NULL : (struct oseg *)segq_at(q, n - 1);
}

static bool
more_room(struct segq *q)
{
    struct segq_more *m = q->more;
    if (m != NULL && m->n < m->cap)
        return true;
    uint32_t cap = m == NULL ? 4 : m->cap * 2;
    struct segq_more *bigger = malloc(sizeof *bigger + cap * sizeof bigger->seg[0]);
    if (bigger == NULL)
        return false;
    *bigger = (struct segq_more){.n = m == NULL ? 0 : m->n, .cap = cap};
    for (uint32_t i = 0; i < bigger->n; i++)
        bigger->seg[i] = m->seg[(m->head + i) & (m->cap - 1)];
    free(m);
    q->more = bigger;
    return true;
}

bool
segq_append(struct segq *q, struct rc *rc, uint32_t off, uint32_t len)
{
    struct oseg *last = segq_last(q);
    if (last != NULL && last->rc == rc && last->off + last->len == off) {
        last->len += len;
    } else if (last == NULL) {
        q->first = (struct oseg){rc_ref(rc), off, len};
    } else {
        if (!more_room(q))
            return false;
        struct segq_more *m = q->more;
        m->seg[(m->head + m->n++) & (m->cap - 1)] = (struct oseg){rc_ref(rc), off, len};
    }
    q->bytes += len;
    return true;
}

bool
segq_append_copy(struct segq *q, struct rc_pool *blocks, const uint8_t *p, uint32_t len, size_t block)
{
    struct oseg *last = segq_last(q);
    struct rc *rc = NULL;
    if (last != NULL && !last->rc->turn && last->rc->refs == 1 && last->off + last->len == last->rc->n &&
        rc_room(last->rc) >= len)
        rc = rc_ref(last->rc);
    else
        rc = rc_new(blocks, MAX((size_t)len, block));
    if (rc == NULL)
        return false;
    memcpy(rc->data + rc->n, p, len);
    bool ok = segq_append(q, rc, rc->n, len);
    rc->n += len;
    rc_unref(blocks, rc);
    return ok;
}

/* Drops the first stretch; the next takes its place. */
static void
segq_shift(struct segq *q, struct rc_pool *blocks)
{
    rc_unref(blocks, q->first.rc);
    q->first = (struct oseg){0};
    struct segq_more *m = q->more;
    if (m == NULL)
        return;
    if (m->n > 0) {
        q->first = m->seg[m->head];
        m->head = (m->head + 1) & (m->cap - 1);
        m->n--;
    }
    if (m->n == 0) {
        free(m);
        q->more = NULL;
    }
}

void
segq_take(struct segq *q, struct rc_pool *blocks, uint32_t n)
{
    BUG_ON(n > q->bytes);
    q->bytes -= n;
    while (n > 0) {
        uint32_t k = MIN(n, q->first.len);
        q->first.off += k;
        q->first.len -= k;
        n -= k;
        if (q->first.len == 0)
            segq_shift(q, blocks);
    }
}

void
segq_cut(struct segq *q, struct rc_pool *blocks, uint32_t keep)
{
    while (q->bytes > keep) {
        struct oseg *last = segq_last(q);
        uint32_t k = MIN(q->bytes - keep, last->len);
        last->len -= k;
        q->bytes -= k;
        if (last->len > 0)
            return;
        if (last == &q->first) {
            segq_shift(q, blocks);
        } else {
            rc_unref(blocks, last->rc);
            if (--q->more->n == 0) {
                free(q->more);
                q->more = NULL;
            }
        }
    }
}

void
segq_unshare(struct segq *q, struct rc_pool *blocks)
{
    bool shared = false;
    for (uint32_t i = 0, n = segq_count(q); i < n; i++)
        shared |= segq_at(q, i)->rc->turn;
    struct rc *own = shared ? rc_new(blocks, q->bytes) : NULL;
    if (own == NULL)
        return;
    struct segq copy = {.first = {own, 0, q->bytes}, .bytes = q->bytes};
    segq_peek(q, own->data, q->bytes);
    own->n = q->bytes;
    segq_take(q, blocks, q->bytes);
    *q = copy;
}

unsigned
segq_iov(const struct segq *q, struct iovec *iov, unsigned max, uint32_t bytes)
{
    unsigned i = 0, n = (unsigned)MIN((uint32_t)max, segq_count(q));
    for (; i < n && bytes > 0; i++) {
        const struct oseg *s = segq_at(q, i);
        iov[i] = (struct iovec){s->rc->data + s->off, MIN(s->len, bytes)};
        bytes -= MIN(s->len, bytes);
    }
    return i;
}

void
segq_peek(const struct segq *q, uint8_t *to, uint32_t n)
{
    BUG_ON(n > q->bytes);
    for (uint32_t i = 0; n > 0; i++) {
        const struct oseg *s = segq_at(q, i);
        uint32_t k = MIN(n, s->len);
        memcpy(to, s->rc->data + s->off, k);
        to += k;
        n -= k;
    }
}
