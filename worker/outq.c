#include "worker/outq.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "common/bug.h"
#include "worker/metrics.h"

#define IOV_PER_SEND 64   /* stretches in one send; the rest waits for the next */
#define IOV_SCRATCH 4096  /* stretches between two submits */
#define MSG_SCRATCH 1024  /* gathered sends between two submits */
#define PRIVATE_BLOCK 900 /* what a slow reader's own answers are kept in: one block of the first class */

/* -- the queue of stretches -- */

static struct oseg *
outq_last(struct conn *c)
{
    if (c->more != NULL && c->more->n > 0)
        return &c->more->seg[(c->more->head + c->more->n - 1) & (c->more->cap - 1)];
    return c->first.rc != NULL ? &c->first : NULL;
}

static bool
more_room(struct worker *w, struct conn *c)
{
    struct outq *q = c->more;
    if (q != NULL && q->n < q->cap)
        return true;
    uint32_t cap = q == NULL ? 4 : q->cap * 2;
    struct outq *bigger = malloc(sizeof *bigger + cap * sizeof bigger->seg[0]);
    if (bigger == NULL)
        return false;
    *bigger = (struct outq){.n = q == NULL ? 0 : q->n, .cap = cap};
    for (uint32_t i = 0; i < bigger->n; i++)
        bigger->seg[i] = q->seg[(q->head + i) & (q->cap - 1)];
    free(q);
    c->more = bigger;
    (void)w;
    return true;
}

static bool
seg_append(struct worker *w, struct conn *c, struct rc *rc, uint32_t off, uint32_t len)
{
    struct oseg *last = outq_last(c);
    if (last != NULL && last->rc == rc && last->off + last->len == off) {
        last->len += len;
    } else if (last == NULL) {
        c->first = (struct oseg){rc_ref(rc), off, len};
    } else {
        if (!more_room(w, c))
            return false;
        struct outq *q = c->more;
        q->seg[(q->head + q->n++) & (q->cap - 1)] = (struct oseg){rc_ref(rc), off, len};
    }
    c->queued += len;
    w->queue_bytes += len;
    return true;
}

/* A slow reader must not keep a turn's whole arena for a few bytes: they are copied into a block of
 * its own, behind what is there already if it fits. */
static bool
seg_append_copy(struct worker *w, struct conn *c, const uint8_t *p, uint32_t len)
{
    struct oseg *last = outq_last(c);
    struct rc *rc = NULL;
    if (last != NULL && !last->rc->turn && last->rc->refs == 1 && last->off + last->len == last->rc->n &&
        rc_room(last->rc) >= len)
        rc = rc_ref(last->rc);
    else
        rc = rc_new(&w->blocks, MAX((size_t)len, (size_t)PRIVATE_BLOCK));
    if (rc == NULL)
        return false;
    memcpy(rc->data + rc->n, p, len);
    bool ok = seg_append(w, c, rc, rc->n, len);
    rc->n += len;
    rc_unref(&w->blocks, rc);
    return ok;
}

bool
outq_push(struct worker *w, struct conn *c, struct rc *rc, uint32_t off, uint32_t len)
{
    bool ok = (c->flags & CF_SLOW) && rc->turn ? seg_append_copy(w, c, rc->data + off, len)
                                               : seg_append(w, c, rc, off, len);
    outq_touch(w, c);
    return ok;
}

bool
outq_push_published(struct worker *w, struct conn *c, struct rc *rc, uint32_t off, uint32_t len,
    uint32_t messages)
{
    if (LIKELY(c->state == CONN_OPEN && !(c->flags & CF_DOOMED))) {
        bool full = c->flags & CF_SLOW && (uint64_t)c->queued + len > w->conf->out_queue_bytes;
        if (LIKELY(!full && outq_push(w, c, rc, off, len)))
            return true;
        c->flags |= CF_DOOMED;
        slot_push(&w->doomed, conn_slot(w, c));
    }
    COUNT_N(w, dropped_slow_total, messages);
    return false;
}

void
outq_touch(struct worker *w, struct conn *c)
{
    if (!(c->flags & CF_DIRTY)) {
        c->flags |= CF_DIRTY;
        slot_push(&w->dirty, conn_slot(w, c));
    }
}

static void
seg_shift(struct worker *w, struct conn *c)
{
    rc_unref(&w->blocks, c->first.rc);
    c->first = (struct oseg){0};
    struct outq *q = c->more;
    if (q == NULL)
        return;
    if (q->n > 0) {
        c->first = q->seg[q->head];
        q->head = (q->head + 1) & (q->cap - 1);
        q->n--;
    }
    if (q->n == 0) {
        free(q);
        c->more = NULL;
    }
}

void
outq_taken(struct worker *w, struct conn *c, uint32_t n)
{
    BUG_ON(n > c->queued);
    c->queued -= n;
    w->queue_bytes -= n;
    while (n > 0) {
        uint32_t k = MIN(n, c->first.len);
        c->first.off += k;
        c->first.len -= k;
        n -= k;
        if (c->first.len == 0)
            seg_shift(w, c);
    }
}

void
outq_clear(struct worker *w, struct conn *c)
{
    outq_taken(w, c, c->queued);
}

uint32_t
outq_count_frames(const struct conn *c, uint32_t keep)
{
    uint32_t frames = 0;
    struct oseg s = c->first;
    for (uint32_t i = 0; s.rc != NULL;) {
        while (s.len > 0) {
            uint32_t k = MIN(s.len, keep > 0 ? keep : conn_frame_size(s.rc->data + s.off));
            frames += keep == 0;
            keep -= MIN(keep, k);
            s.off += k;
            s.len -= k;
        }
        if (c->more == NULL || i >= c->more->n)
            break;
        s = c->more->seg[(c->more->head + i++) & (c->more->cap - 1)];
    }
    return frames;
}

void
outq_cut(struct worker *w, struct conn *c, uint32_t keep)
{
    while (c->queued > keep) {
        struct oseg *last = outq_last(c);
        uint32_t k = MIN(c->queued - keep, last->len);
        last->len -= k;
        c->queued -= k;
        w->queue_bytes -= k;
        if (last->len > 0)
            return;
        if (last == &c->first) {
            seg_shift(w, c);
        } else {
            rc_unref(&w->blocks, last->rc);
            if (--c->more->n == 0) {
                free(c->more);
                c->more = NULL;
            }
        }
    }
}

/* -- a connection's own bytes -- */

static uint8_t *
arena_room(struct worker *w, size_t need)
{
    if (w->arena == NULL || rc_room(w->arena) < need) {
        if (w->arena != NULL)
            rc_unref(&w->blocks, w->arena);
        w->arena = rc_new(&w->blocks, RC_CLASS_MAX);
        if (w->arena == NULL)
            return NULL;
        w->arena->turn = true;
    }
    return w->arena->data + w->arena->n;
}

bool
outq_put(struct worker *w, struct conn *c, const uint8_t *p, size_t n)
{
    if (c->state == CONN_DEAD || c->flags & CF_DOOMED)
        return false;
    if (c->flags & CF_SLOW && c->state == CONN_OPEN && c->queued > w->conf->out_queue_low)
        conn_pause(w, c, PAUSE_OUTPUT); /* who does not read its answers is not read from */
    if (n > RC_CLASS_MAX / 4 || c->flags & CF_SLOW) {
        bool ok = n <= UINT32_MAX && seg_append_copy(w, c, p, (uint32_t)n);
        outq_touch(w, c);
        return ok;
    }
    uint8_t *at = arena_room(w, n);
    if (at == NULL)
        return false;
    memcpy(at, p, n);
    bool ok = outq_push(w, c, w->arena, w->arena->n, (uint32_t)n);
    w->arena->n += (uint32_t)n;
    return ok;
}

bool
outq_event(struct worker *w, struct conn *c, const struct event *ev)
{
    const struct dialect *d = dialects[c->dialect];
    buf_reset(&w->scratch);
    if (!buf_reserve(&w->scratch, WS_HEADER_MAX))
        return false;
    w->scratch.n = WS_HEADER_MAX;
    if (!d->encode(c->dstate, ev, &w->scratch))
        return !w->scratch.failed;
    size_t payload_n = w->scratch.n - WS_HEADER_MAX, head_n = ws_header_size(payload_n);
    bool text = ev->kind == EV_ECHO ? ev->text : d->text;
    uint8_t *start = w->scratch.p + WS_HEADER_MAX - head_n;
    ws_put_header(start, text ? WS_TEXT : WS_BINARY, payload_n);
    COUNT(w, messages_out_total);
    return outq_put(w, c, start, head_n + payload_n);
}

/* -- the flush: one send per connection -- */

struct flush {
    unsigned iov_n, msg_n;
};

static void
prep_gather(struct worker *w, struct conn *c, struct io_uring_sqe *sqe, struct flush *f)
{
    struct iovec *iov = w->iov + f->iov_n;
    struct msghdr *m = &w->msg[f->msg_n++];
    unsigned n = 1;
    iov[0] = (struct iovec){c->first.rc->data + c->first.off, c->first.len};
    for (uint32_t i = 0; i < c->more->n && n < IOV_PER_SEND; i++, n++) {
        const struct oseg *s = &c->more->seg[(c->more->head + i) & (c->more->cap - 1)];
        iov[n] = (struct iovec){s->rc->data + s->off, s->len};
    }
    f->iov_n += n;
    *m = (struct msghdr){.msg_iov = iov, .msg_iovlen = n};
    io_uring_prep_sendmsg(sqe, c->fd, m, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void
send_one(struct worker *w, struct conn *c, struct flush *f)
{
    struct io_uring_sqe *sqe = ring_sqe(&w->ring);
    if (c->more == NULL)
        io_uring_prep_send(sqe, c->fd, c->first.rc->data + c->first.off, c->first.len,
            MSG_DONTWAIT | MSG_NOSIGNAL);
    else
        prep_gather(w, c, sqe, f);
    ring_set_tag(sqe, OP_SEND, c->head.gen, conn_slot(w, c));
    c->flags |= CF_SENDING;
    c->inflight++;
    COUNT(w, sends_total);
}

static void
submit_all(struct worker *w)
{
    ring_submit(&w->ring);
    for (int tries = 0; io_uring_sq_ready(&w->ring.u) > 0; tries++) {
        BUG_ON(tries > 1000);
        ring_wait(&w->ring, 0);
    }
}

void
outq_flush(struct worker *w)
{
    struct flush f = {0};
    for (uint32_t i = 0; i < w->dirty.n; i++) {
        if (i + 4 < w->dirty.n)
            PREFETCH(conn_at(w, w->dirty.v[i + 4]));
        struct conn *c = conn_at(w, w->dirty.v[i]);
        if (!(c->flags & CF_DIRTY))
            continue;
        c->flags = (uint16_t)(c->flags & ~CF_DIRTY);
        if (outq_is_empty(c) || c->flags & (CF_SENDING | CF_POLLOUT) || c->state == CONN_DEAD)
            continue;
        if (f.iov_n + IOV_PER_SEND > IOV_SCRATCH || f.msg_n == MSG_SCRATCH) {
            submit_all(w); /* the kernel has copied what the scratch describes */
            f = (struct flush){0};
        }
        send_one(w, c, &f);
    }
    w->dirty.n = 0;
    GAUGE(w, queue_bytes, w->queue_bytes);
}
