#include "worker/outq.h"

#include <errno.h>
#include <sys/socket.h>

#include "common/bug.h"
#include "worker/metrics.h"
#include "worker/pmd.h"
#include "worker/xp_tls.h"

#define IOV_PER_SEND 64   /* stretches in one send; the rest waits for the next */
#define SEND_COST 4096    /* bytes that cost as much as a send that sends nothing */
#define TURN_COST (8u << 20) /* what the sends of worker.dirty may cost in a turn: a few ms */
#define IOV_SCRATCH 4096  /* stretches between two submits */
#define MSG_SCRATCH 1024  /* gathered sends between two submits */
#define PRIVATE_BLOCK 900 /* what a slow reader's own answers are kept in: one block of the first class */

/* -- the queue -- */

static bool
queued(struct worker *w, struct conn *c, bool ok, uint32_t len)
{
    if (ok)
        w->queue_bytes += len;
    outq_touch(w, c);
    return ok;
}

/* A slow reader must not keep a turn's whole arena for a few bytes: they are copied into a block of
 * its own, behind what is there already if it fits. */
static bool
push_copy(struct worker *w, struct conn *c, const uint8_t *p, uint32_t len)
{
    return queued(w, c, segq_append_copy(&c->out, &w->blocks, p, len, PRIVATE_BLOCK), len);
}

bool
outq_push(struct worker *w, struct conn *c, struct rc *rc, uint32_t off, uint32_t len)
{
    if (c->flags & CF_SLOW && rc->turn)
        return push_copy(w, c, rc->data + off, len);
    return queued(w, c, segq_append(&c->out, rc, off, len), len);
}

void
outq_doom(struct worker *w, struct conn *c, enum close_reason reason)
{
    if (c->flags & CF_DOOMED)
        return;
    c->flags |= CF_DOOMED;
    c->reason = (uint8_t)reason;
    slot_push(&w->doomed, conn_slot(w, c));
}

bool
outq_push_published(struct worker *w, struct conn *c, struct rc *rc, uint32_t off, uint32_t len,
    uint32_t messages)
{
    if (LIKELY(c->state == CONN_OPEN && !(c->flags & CF_DOOMED))) {
        bool full = c->flags & CF_SLOW && (uint64_t)outq_bytes(c) + len > w->conf->out_queue_bytes;
        if (LIKELY(!full && outq_push(w, c, rc, off, len)))
            return true;
        outq_doom(w, c, full ? CLOSE_SLOW_QUEUE : CLOSE_INTERNAL);
    }
    COUNT_N(w, dropped_slow_total, messages);
    return false;
}

void
outq_touch(struct worker *w, struct conn *c)
{
    bool urgent = !w->fan_is_heavy && outq_bytes(c) <= SEND_MAX;
    uint32_t flag = urgent ? CF_URGENT : CF_DIRTY;
    if (c->flags & (flag | CF_URGENT))
        return;
    c->flags |= flag;
    slot_push(urgent ? &w->urgent : &w->dirty, conn_slot(w, c));
}

void
outq_taken(struct worker *w, struct conn *c, uint32_t n)
{
    segq_take(outq_wire(c), &w->blocks, n);
    w->queue_bytes -= n;
}

/* Server frames lie whole in their stretches, so the length of each can be read where it begins. */
void
outq_track(struct conn *c, uint32_t n)
{
    if (c->dialect == 0)
        return;
    if (n >= c->out.bytes) {
        c->frame_left = 0;
        return;
    }
    uint32_t seg_i = 0;
    struct oseg s = *segq_at(&c->out, seg_i);
    while (n > 0) {
        if (s.len == 0) {
            s = *segq_at(&c->out, ++seg_i);
            continue;
        }
        if (c->frame_left == 0)
            c->frame_left = conn_frame_size(s.rc->data + s.off);
        uint32_t k = MIN(MIN(n, c->frame_left), s.len);
        s.off += k;
        s.len -= k;
        n -= k;
        c->frame_left -= k;
    }
}

void
outq_clear(struct worker *w, struct conn *c)
{
    w->queue_bytes -= c->out.bytes;
    segq_take(&c->out, &w->blocks, c->out.bytes);
}

uint32_t
outq_count_frames(const struct conn *c, uint32_t keep)
{
    uint32_t frames = 0;
    for (uint32_t i = 0, n = segq_count(&c->out); i < n; i++) {
        struct oseg s = *segq_at(&c->out, i);
        while (s.len > 0) {
            uint32_t k = MIN(s.len, keep > 0 ? keep : conn_frame_size(s.rc->data + s.off));
            frames += keep == 0;
            keep -= MIN(keep, k);
            s.off += k;
            s.len -= k;
        }
    }
    return frames;
}

void
outq_cut(struct worker *w, struct conn *c, uint32_t keep)
{
    uint32_t before = c->out.bytes;
    segq_cut(&c->out, &w->blocks, keep);
    w->queue_bytes -= before - c->out.bytes;
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
    c->flags |= CF_PROMPT;
    if (c->flags & CF_SLOW && c->state == CONN_OPEN && outq_bytes(c) > w->conf->out_queue_low)
        conn_pause(w, c, PAUSE_OUTPUT); /* who does not read its answers is not read from */
    if (n > RC_CLASS_MAX / 4 || c->flags & CF_SLOW)
        return n <= UINT32_MAX && push_copy(w, c, p, (uint32_t)n);
    uint8_t *at = arena_room(w, n);
    if (at == NULL)
        return false;
    memcpy(at, p, n);
    bool ok = outq_push(w, c, w->arena, w->arena->n, (uint32_t)n);
    w->arena->n += (uint32_t)n;
    return ok;
}

/* What a client was owed cannot be queued: it would wait for it in vain, so its connection ends. */
static bool
event_is_lost(struct worker *w, struct conn *c)
{
    if (c->state == CONN_OPEN)
        outq_doom(w, c, CLOSE_INTERNAL);
    return false;
}

bool
outq_event(struct worker *w, struct conn *c, const struct event *ev)
{
    const struct dialect *d = dialects[c->dialect];
    buf_reset(&w->scratch);
    if (!buf_reserve(&w->scratch, WS_HEADER_MAX))
        return event_is_lost(w, c);
    w->scratch.n = WS_HEADER_MAX;
    if (!d->encode(c->dstate, ev, &w->scratch))
        return !w->scratch.failed || event_is_lost(w, c);
    size_t payload_n = w->scratch.n - WS_HEADER_MAX, head_n = ws_header_size(payload_n);
    bool text = ev->kind == EV_ECHO ? ev->text : d->text;
    enum ws_opcode op = text ? WS_TEXT : WS_BINARY;
    uint8_t *start = w->scratch.p + WS_HEADER_MAX - head_n;
    struct view frame = view_of(start, head_n + payload_n);
    COUNT(w, messages_out_total);
    ws_put_header(start, op, payload_n);
    /* Answers stay as they are: they are small, and a token must not be packed together with what somebody else
     * chose (hardening 6). An echo holds nothing but what the client itself sent. */
    if (ev->kind == EV_ECHO && c->flavour != PMD_PLAIN)
        (void)pmd_pack(w, c->flavour, c, frame, &frame);
    bool ok = outq_put(w, c, frame.p, frame.n);
    if (!ok)
        pmd_lost(c);
    return ok || event_is_lost(w, c);
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
    unsigned n = segq_iov(outq_wire(c), iov, IOV_PER_SEND, SEND_MAX);
    f->iov_n += n;
    *m = (struct msghdr){.msg_iov = iov, .msg_iovlen = n};
    io_uring_prep_sendmsg(sqe, c->fd, m, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void
send_one(struct worker *w, struct conn *c, struct flush *f)
{
    struct io_uring_sqe *sqe = ring_sqe(&w->ring);
    const struct segq *q = outq_wire(c);
    const struct oseg *s = &q->first;
    if (q->more == NULL)
        io_uring_prep_send(sqe, c->fd, s->rc->data + s->off, MIN(s->len, SEND_MAX), MSG_DONTWAIT | MSG_NOSIGNAL);
    else
        prep_gather(w, c, sqe, f);
    ring_set_tag(sqe, OP_SEND, c->head.gen, conn_slot(w, c));
    c->flags = (c->flags | CF_SENDING) & ~(uint32_t)CF_PROMPT;
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

/* Pacing: what is published to a connection that was sent to in this round waits for the next, so that one send carries
 * more under load; a round is at most out.pacing long (pace.h). Who was not is sent to at once. */
static bool
hold_back(struct worker *w, struct conn *c)
{
    if (c->sent_in != w->pace.round || c->flags & (CF_PROMPT | CF_SLOW) || c->state != CONN_OPEN) {
        c->sent_in = w->pace.round;
        return false;
    }
    if (!(c->flags & CF_PACED)) {
        c->flags |= CF_PACED;
        slot_push(&w->paced, conn_slot(w, c));
    }
    COUNT(w, sends_paced_total);
    return true;
}

void
outq_pace(struct worker *w)
{
    if (w->now.ns < w->pace.end)
        return;
    w->pace.end = w->now.ns + w->pace.ns;
    w->pace.round++;
    for (uint32_t i = 0; i < w->paced.n; i++) {
        struct conn *c = conn_at(w, w->paced.v[i]);
        if (c->head.next != POOL_LIVE || !(c->flags & CF_PACED))
            continue;
        c->flags &= ~(uint32_t)CF_PACED;
        outq_touch(w, c);
    }
    w->paced.n = 0;
}

/* Queues the send of one connection; returns what it costs, 0 if there is nothing to send now. */
static uint32_t
flush_one(struct worker *w, struct conn *c, struct flush *f)
{
    if (outq_is_empty(c) || c->flags & (CF_SENDING | CF_POLLOUT) || c->state == CONN_DEAD)
        return 0;
    if (UNLIKELY(w->pace.ns > 0) && hold_back(w, c))
        return 0;
    if (c->tls != NULL) {
        xp_tls_seal(w, c);
        if (segq_is_empty(outq_wire(c)))
            return 0;
    }
    if (f->iov_n + IOV_PER_SEND > IOV_SCRATCH || f->msg_n == MSG_SCRATCH) {
        submit_all(w); /* the kernel has copied what the scratch describes */
        *f = (struct flush){0};
    }
    send_one(w, c, f);
    return SEND_COST + MIN(outq_bytes(c), SEND_MAX);
}

/* Sends of a list until they cost so much; those that are left stay on it, in order. */
static void
flush_list(struct worker *w, struct slot_list *l, uint32_t flag, uint64_t most, struct flush *f)
{
    uint32_t i = 0;
    for (uint64_t cost = 0; i < l->n && cost < most; i++) {
        if (i + 4 < l->n)
            PREFETCH(conn_at(w, l->v[i + 4]));
        struct conn *c = conn_at(w, l->v[i]);
        if (!(c->flags & flag))
            continue;
        c->flags &= ~flag;
        cost += flush_one(w, c, f);
    }
    l->n -= i;
    if (l->n > 0)
        memmove(l->v, l->v + i, l->n * sizeof *l->v);
}

/* By the first of them, which have waited longest. */
static uint64_t
backlog_of(const struct worker *w)
{
    uint64_t bytes = 0;
    uint32_t n = MIN(w->dirty.n, 64u);
    for (uint32_t i = 0; i < n; i++)
        bytes += SEND_COST + outq_bytes(conn_at(w, w->dirty.v[i]));
    return n > 0 ? bytes / n * w->dirty.n : 0;
}

void
outq_flush(struct worker *w)
{
    struct flush f = {0};
    flush_list(w, &w->urgent, CF_URGENT, UINT64_MAX, &f);
    flush_list(w, &w->dirty, CF_DIRTY, TURN_COST, &f);
    w->backlog = backlog_of(w);
    GAUGE(w, queue_bytes, w->queue_bytes);
    GAUGE(w, backlog_bytes, w->backlog);
}
