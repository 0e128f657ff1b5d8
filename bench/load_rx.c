#include "bench/load_rx.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/load_conn.h"
#include "bench/load_tx.h"
#include "common/bug.h"
#include "common/mono.h"

#define PART_MAX (128 * 1024) /* longest frame or response head that is put together */

static void
on_delivery(struct load *l, struct load_conn *c, uint64_t seq, uint64_t due)
{
    struct load_group *g = &l->groups[c->group];
    if (g->remote) {
        due -= (uint64_t)l->shift_ns;
    } else if (seq >= g->published) {
        l->count.foreign++;
        return;
    }
    enum seq_verdict v = seq_put(&c->seq, seq);
    if (c->slow)
        return; /* what it reads in the end it reads late */
    if (UNLIKELY(v >= SEQ_LATE)) {
        l->count.late += v == SEQ_LATE;
        l->count.twice += v == SEQ_TWICE;
        l->count.stale += v == SEQ_STALE;
        if (v != SEQ_LATE)
            return;
    }
    l->count.delivered++;
    if (due >= l->win0 && due < l->win1)
        hist_add(l->lat, l->now > due ? l->now - due : 0);
    if (l->conf.in_flight == 0 || --g->left[seq & l->left_mask] != 0)
        return;
    g->completed++;
    if (l->publishing)
        load_publish(l, c->group, l->now);
}

/* How many messages {"event":"#gap","data":{"channel":C,"count":N}} says are missing; 0 of other texts. */
static uint64_t
gap_count(const uint8_t *p, size_t n)
{
    static const char head[] = "{\"event\":\"#gap\"", key[] = "\"count\":";
    const uint8_t *at = n > sizeof head && memcmp(p, head, sizeof head - 1) == 0 ? memmem(p, n, key, sizeof key - 1) : NULL;
    uint64_t count = 0;
    for (at = at != NULL ? at + sizeof key - 1 : p + n; at < p + n && *at >= '0' && *at <= '9'; at++)
        count = count * 10 + (uint64_t)(*at - '0');
    return count;
}

static void
on_foreign(struct load *l, struct load_conn *c, const uint8_t *p, size_t n)
{
    if (c->slow) {
        l->count.notices++;
        c->told += gap_count(p, n);
    } else if (l->count.foreign++ == 0) {
        fprintf(stderr, "ringcast-bench: unexpected message: %.*s\n", (int)MIN(n, 200u), p);
    }
}

static bool
is_delivery(const struct load_group *g, const uint8_t *p, size_t n, uint64_t *seq, uint64_t *due)
{
    if (LIKELY(frame_is_delivery(&g->frame, p, n, seq, due)))
        return true;
    for (uint32_t i = 0; i < g->n_sizes; i++)
        if (g->size[i].in.n == n && frame_is_delivery(&g->size[i], p, n, seq, due))
            return true;
    return false;
}

/* A whole message. */
static void
on_message(struct load *l, struct load_conn *c, const uint8_t *p, size_t n)
{
    uint64_t seq, due;
    struct speak_reply reply = {0};
    if (is_delivery(&l->groups[c->group], p, n, &seq, &due)) {
        on_delivery(l, c, seq, due);
        return;
    }
    switch (l->conf.speak.as->hear(&l->conf.speak, p, n, &reply)) {
    case SPEAK_DONE: load_conn_on_answer(l, c); break;
    case SPEAK_PING: l->count.pings++; break;
    case SPEAK_NOTED: break;
    case SPEAK_FAILED: load_conn_refuse(l, c, "the server answered", p, n); return;
    case SPEAK_OTHER: on_foreign(l, c, p, n); break;
    }
    if (reply.any)
        load_tx_message(l, c, reply.as_text ? FRAME_OP_TEXT : load_tx_op(l), reply.bytes, reply.n);
}

/* Length of the message of a stream at p; 0: cannot tell yet. */
static size_t
message_length(const struct load *l, const struct load_conn *c, const uint8_t *p, size_t n)
{
    /* What precedes the payload holds the length: where it is that of a delivery, so is the rest. */
    const struct frame_side *in = &l->groups[c->group].frame.in;
    if (LIKELY(in->text != NULL && n >= in->seq_at && memcmp(p, in->text, in->seq_at) == 0))
        return in->n;
    size_t len = l->conf.speak.as->cut(p, n);
    if (len == SIZE_MAX || len > PART_MAX - 16)
        die("the server sent what no %s client expects: %.*s", l->conf.speak.as->name, (int)MIN(n, 100u), p);
    return len;
}

/* Appends to what has not come to its end. */
static void
keep(struct load_kept *k, const uint8_t *p, size_t n)
{
    if (k->n + n > PART_MAX)
        die("the server sent %zu bytes without an end", k->n + n);
    if (k->cap - k->n < n) {
        k->cap = (uint32_t)pow2_ceil(MAX(k->n + n, 512u));
        k->p = xrealloc(k->p, k->cap);
    }
    memcpy(k->p + k->n, p, n);
    k->n += (uint32_t)n;
}

/* A piece of a stream that comes inside WebSocket messages. */
static void
on_piece(struct load *l, struct load_conn *c, const uint8_t *p, size_t n)
{
    bool kept = c->rx.rest.n > 0;
    if (kept) {
        keep(&c->rx.rest, p, n);
        p = c->rx.rest.p;
        n = c->rx.rest.n;
    }
    size_t at = 0, len;
    while (at < n && c->state < LOAD_LEAVING && (len = message_length(l, c, p + at, n - at)) != 0 && len <= n - at) {
        on_message(l, c, p + at, len);
        at += len;
    }
    if (kept) {
        memmove(c->rx.rest.p, c->rx.rest.p + at, n - at);
        c->rx.rest.n = (uint32_t)(n - at);
    } else if (at < n) {
        keep(&c->rx.rest, p + at, n - at);
    }
}

/* A WebSocket frame that is no message: RFC 6455 section 5.5. */
static void
on_control(struct load *l, struct load_conn *c, uint8_t op, const uint8_t *p, size_t n)
{
    if (op == 9) {
        l->count.pings++;
        load_tx_message(l, c, FRAME_OP_PONG, p, MIN(n, 125u));
    } else if (op != 10 && l->count.foreign++ == 0) {
        fprintf(stderr, "ringcast-bench: unexpected frame, opcode 0x%02x: %.*s\n", op, (int)MIN(n, 200u), p);
    }
}

/* A whole frame: header of `head` bytes, n in all. */
static void
on_frame(struct load *l, struct load_conn *c, const uint8_t *p, size_t head, size_t n, uint8_t op)
{
    const uint8_t *text = p + head;
    size_t text_n = n - head;
    bool stream = l->conf.speak.as->cut != NULL && l->conf.wire == LOAD_WEBSOCKET, packed = op & FRAME_PACKED;
    uint8_t plain_op = op & 15;
    if (packed && c->pack_bits == 0)
        die("the server sent a compressed frame that was not agreed");
    /* Of a message in several frames only a stream's is taken: its pieces need not be put together. */
    if (plain_op > 2 || (plain_op == 0 && (!stream || c->pack_bits != 0)) || (!(p[0] & 0x80) && !stream)) {
        on_control(l, c, op, text, text_n);
        return;
    }
    if (packed) {
        text = pmd_unpack(l->pmd, c->unpack, text, text_n, &text_n);
        l->count.packed++;
        if (text == NULL)
            die("the server sent a compressed message that does not inflate");
    }
    if (stream)
        on_piece(l, c, text, text_n);
    else
        on_message(l, c, text, text_n);
}

/* Length of the frame at p, or of the message of a bare stream, header included; 0: cannot tell yet. */
static size_t
frame_length(const struct load *l, const struct load_conn *c, const uint8_t *p, size_t n, size_t *head, uint8_t *op)
{
    uint64_t payload;
    if (l->conf.wire == LOAD_STREAM) {
        *head = 0;
        return message_length(l, c, p, n);
    }
    int h = frame_head(p, n, &payload, op);
    if (h == 0)
        return 0;
    if (h < 0 || payload > PART_MAX - 16)
        die("the server sent a frame that no client expects (byte 1 is 0x%02x)", p[1]);
    *head = (size_t)h;
    return (size_t)h + (size_t)payload;
}

static void
on_unit(struct load *l, struct load_conn *c, const uint8_t *p, size_t head, size_t n, uint8_t op)
{
    if (l->conf.wire == LOAD_STREAM)
        on_message(l, c, p, n);
    else
        on_frame(l, c, p, head, n, op);
}

/* All whole frames at p; returns how many bytes they were. */
static size_t
eat_frames(struct load *l, struct load_conn *c, const uint8_t *p, size_t n)
{
    size_t at = 0, head = 0;
    uint8_t op = 0;
    while (at < n && c->state < LOAD_LEAVING) {
        size_t len = frame_length(l, c, p + at, n - at, &head, &op);
        if (len == 0 || len > n - at)
            break;
        on_unit(l, c, p + at, head, len, op);
        at += len;
    }
    return at;
}

/* Completes the frame that was begun; returns how many of the n bytes it took. */
static size_t
eat_into_part(struct load *l, struct load_conn *c, const uint8_t *p, size_t n)
{
    size_t took = 0, head = 0, len;
    uint8_t op = 0;
    while ((len = frame_length(l, c, c->rx.part.p, c->rx.part.n, &head, &op)) == 0) {
        if (took == n)
            return took;
        keep(&c->rx.part, p + took++, 1);
    }
    size_t more = MIN(len - c->rx.part.n, n - took);
    keep(&c->rx.part, p + took, more);
    took += more;
    if (c->rx.part.n == len) {
        c->rx.part.n = 0;
        on_unit(l, c, c->rx.part.p, head, len, op);
    }
    return took;
}

/* The answer to the upgrade; returns how many of the n bytes it took. */
static size_t
eat_http(struct load *l, struct load_conn *c, const uint8_t *p, size_t n)
{
    keep(&c->rx.part, p, n);
    uint8_t *end = memmem(c->rx.part.p, c->rx.part.n, "\r\n\r\n", 4);
    if (end == NULL)
        return n;
    size_t head = (size_t)(end + 4 - c->rx.part.p), behind = c->rx.part.n - head;
    c->rx.part.n = 0;
    return load_conn_on_upgrade(l, c, (const char *)c->rx.part.p, head) ? n - behind : n;
}

static void
on_bytes(struct load *l, struct load_conn *c, const uint8_t *p, size_t n)
{
    size_t at = 0;
    if (c->state == LOAD_UPGRADING)
        at += eat_http(l, c, p, n);
    while (at < n && c->rx.part.n > 0 && c->state < LOAD_LEAVING && c->state != LOAD_UPGRADING)
        at += eat_into_part(l, c, p + at, n - at);
    if (c->state == LOAD_UPGRADING || c->state >= LOAD_LEAVING)
        return;
    at += eat_frames(l, c, p + at, n - at);
    if (at < n && c->state < LOAD_LEAVING)
        keep(&c->rx.part, p + at, n - at);
    if (c->rx.part.n == 0 && c->rx.part.p != NULL && !l->publishing) {
        free(c->rx.part.p);
        c->rx.part.p = NULL;
        c->rx.part.cap = 0;
    }
}

/* What arrived on a TLS connection. */
static void
on_cipher(struct load *l, struct load_conn *c, const uint8_t *p, size_t n)
{
    if (c->state == LOAD_SECURING && l->storm && l->conf.depth == LOAD_TO_HELLO) {
        load_conn_storm_done(l, c);
        return;
    }
    tls_feed(c->tls, p, n);
    if (c->state == LOAD_SECURING && !load_conn_secure(l, c))
        return;
    while (c->state < LOAD_LEAVING) {
        int got = tls_read(c->tls, l->clear, LOAD_CLEAR_BYTES);
        if (got == 0)
            return;
        if (got < 0) {
            load_conn_ended(l, c, tls_why());
            return;
        }
        on_bytes(l, c, l->clear, (size_t)got);
    }
}

void
load_rx_on_recv(struct load *l, struct load_conn *c, const struct io_uring_cqe *cqe)
{
    l->count.recvs++;
    if (cqe->flags & IORING_CQE_F_BUFFER) {
        uint16_t id = (uint16_t)(cqe->flags >> IORING_CQE_BUFFER_SHIFT);
        const uint8_t *p = load_ring_buffer(&l->ring, id);
        l->now = mono_now().ns;
        if (cqe->res > 0)
            l->count.wire_bytes += (uint64_t)cqe->res;
        if (cqe->res > 0 && c->state < LOAD_LEAVING && c->tls != NULL)
            on_cipher(l, c, p, (size_t)cqe->res);
        else if (cqe->res > 0 && c->state < LOAD_LEAVING)
            on_bytes(l, c, p, (size_t)cqe->res);
        load_ring_give(&l->ring, id);
    }
    if (cqe->flags & IORING_CQE_F_MORE)
        return;
    c->recv_armed = false;
    if (cqe->res == -ENOBUFS)
        l->count.no_buffers++;
    if (c->paused && c->state == LOAD_READY && (cqe->res > 0 || cqe->res == -ECANCELED))
        return;
    if ((cqe->res > 0 || cqe->res == -ENOBUFS) && c->state < LOAD_LEAVING)
        load_conn_arm(l, c);
    else
        load_conn_on_end(l, c, cqe->res);
}

void
load_rx_reset(struct load_rx *rx)
{
    rx->part.n = rx->rest.n = 0;
}

void
load_rx_free(struct load_rx *rx)
{
    free(rx->part.p);
    free(rx->rest.p);
}
