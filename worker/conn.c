#include "worker/conn.h"

#include <errno.h>
#include <poll.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/bug.h"
#include "worker/behind.h"
#include "worker/ceiling.h"
#include "worker/client.h"
#include "worker/metrics.h"
#include "worker/outq.h"
#include "worker/pmd.h"
#include "worker/sess.h"
#include "worker/subs.h"
#include "worker/xp_tls.h"

/* A connection's share of one turn (hardening 1.4). */
#define TURN_BYTES (64u << 10)
#define TURN_PACKETS 256
/* Input held over before receiving itself is called back. */
#define HELD_MAX (64u << 10)

static const char *const state_names[] = {
#define X(name, sentence) #name,
    CONN_STATES(X)
#undef X
};

void
conn_to(struct conn *c, enum conn_state to)
{
    /* Legal moves only go forward; any state may die. */
    BUG_ON(to <= c->state);
    c->state = (uint8_t)to;
}

/* -- queues threaded through connections -- */

void
queue_append(struct worker *w, struct slot_queue *q, struct conn *c)
{
    uint32_t slot = conn_slot(w, c);
    c->next = POOL_NONE;
    c->prev = q->last;
    if (q->last == POOL_NONE)
        q->first = slot;
    else
        conn_at(w, q->last)->next = slot;
    q->last = slot;
}

void
queue_remove(struct worker *w, struct slot_queue *q, struct conn *c)
{
    if (c->prev == POOL_NONE)
        q->first = c->next;
    else
        conn_at(w, c->prev)->next = c->next;
    if (c->next == POOL_NONE)
        q->last = c->prev;
    else
        conn_at(w, c->next)->prev = c->prev;
}

void
conn_leave_unshaken(struct worker *w, struct conn *c)
{
    if (!(c->flags & CF_UNSHAKEN))
        return;
    queue_remove(w, &w->unshaken, c);
    c->flags &= (uint32_t)~CF_UNSHAKEN;
    GAUGE(w, connections_unshaken, w->metrics[RM_connections_unshaken] - 1);
}

static void
leave_queues(struct worker *w, struct conn *c)
{
    conn_leave_unshaken(w, c);
    if (c->flags & CF_WAITING)
        queue_remove(w, &w->waiting[c->wait_broker], c);
    c->flags &= (uint32_t)~CF_WAITING;
}

void
conn_shaken(struct worker *w, struct conn *c)
{
    conn_leave_unshaken(w, c);
    GAUGE(w, connections_open, w->metrics[RM_connections_open] + 1);
}

/* -- input memory -- */

struct conn_in *
conn_in(struct worker *w, struct conn *c)
{
    if (c->in == NULL) {
        c->in = calloc(1, sizeof *c->in);
        if (c->in == NULL) {
            conn_abort(w, c, false);
            return NULL;
        }
        c->in->msg = buf_make(UINT32_MAX);
        c->in->held = buf_make(UINT32_MAX);
        c->in->began = w->tick;
        w->input_bytes += sizeof *c->in;
    }
    return c->in;
}

bool
conn_keep(struct worker *w, struct buf *b, const uint8_t *p, size_t n)
{
    size_t before = b->cap;
    buf_put(b, p, n);
    w->input_bytes += b->cap - before;
    return !b->failed;
}

void
conn_forget(struct worker *w, struct buf *b)
{
    w->input_bytes -= b->cap;
    buf_free(b);
}

static void
in_free(struct worker *w, struct conn *c)
{
    if (c->in == NULL)
        return;
    pmd_abandon(c);
    conn_forget(w, &c->in->msg);
    conn_forget(w, &c->in->held);
    w->input_bytes -= sizeof *c->in;
    free(c->in);
    c->in = NULL;
}

void
conn_in_done(struct worker *w, struct conn *c)
{
    struct conn_in *in = c->in;
    if (in != NULL && in->held.n == in->held_at && !in->stalled && !in->pong && in->msg.n == 0 &&
        ws_at_rest(&in->reader))
        in_free(w, c);
}

/* -- receiving -- */

void
conn_rearm(struct worker *w, struct conn *c)
{
    if (c->flags & (CF_RECV | CF_EOF) || c->state == CONN_DEAD ||
        (c->pause && c->state < CONN_CLOSING))
        return;
    struct io_uring_sqe *sqe = ring_sqe(&w->ring);
    io_uring_prep_recv_multishot(sqe, c->fd, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = w->bufs.group;
    ring_set_tag(sqe, OP_RECV, c->head.gen, conn_slot(w, c));
    c->flags |= CF_RECV;
    c->inflight++;
}

static void
cancel_op(struct worker *w, struct conn *c, enum worker_op op)
{
    struct io_uring_sqe *sqe = ring_sqe(&w->ring);
    io_uring_prep_cancel64(sqe, ring_tag(op, c->head.gen, conn_slot(w, c)), 0);
    ring_set_tag(sqe, OP_CANCEL, 0, 0);
}

static void
recv_cancel(struct worker *w, struct conn *c)
{
    if ((c->flags & (CF_RECV | CF_RECV_CANCEL)) == CF_RECV) {
        c->flags |= CF_RECV_CANCEL;
        cancel_op(w, c, OP_RECV);
    }
}

void
conn_pause(struct worker *w, struct conn *c, enum conn_pause why)
{
    if (c->pause == 0 && why != PAUSE_TURN)
        COUNT(w, reads_paused_total);
    c->pause |= (uint8_t)why;
    if (why != PAUSE_TURN)
        recv_cancel(w, c);
}

static void
make_ready(struct worker *w, struct conn *c)
{
    if (!(c->flags & CF_READY)) {
        c->flags |= CF_READY;
        slot_push(&w->ready, conn_slot(w, c));
    }
}

void
conn_resume(struct worker *w, struct conn *c, enum conn_pause why)
{
    if (!(c->pause & why))
        return;
    c->pause &= (uint8_t)~why;
    if (c->pause == 0) {
        c->heard_at = w->tick; /* it could not be heard meanwhile */
        make_ready(w, c);
    }
}

bool
conn_turn_over(struct worker *w, struct conn *c)
{
    if (c->turn_at != w->turn) {
        c->turn_at = w->turn;
        c->turn_bytes = 0;
        c->turn_packets = 0;
    }
    bool full = c->flavour != PMD_PLAIN && pmd_turn_is_full(w);
    if (LIKELY(c->turn_bytes < TURN_BYTES && c->turn_packets < TURN_PACKETS && !full))
        return false;
    conn_pause(w, c, PAUSE_TURN);
    make_ready(w, c);
    return true;
}

/* Bytes to requests or messages; what a pause left over is held. */
static void
conn_input(struct worker *w, struct conn *c, uint8_t *p, size_t n)
{
    while (n > 0 && c->state <= CONN_OPEN && !c->pause) {
        size_t used = c->state == CONN_HTTP ? xp_http_input(w, c, p, n) : xp_ws_input(w, c, p, n);
        p += used;
        n -= used;
    }
    if (n == 0 || c->state > CONN_OPEN)
        return;
    struct conn_in *in = conn_in(w, c);
    if (in == NULL)
        return;
    if (!conn_keep(w, &in->held, p, n)) {
        conn_abort(w, c, false);
        return;
    }
    if (in->held.n - in->held_at > HELD_MAX)
        recv_cancel(w, c);
}

/* All that came before the client's FIN has been worked on. What brokers still owe it is answered first. */
static void
end_of_input(struct worker *w, struct conn *c)
{
    if (c->pending > 0)
        conn_pause(w, c, PAUSE_ANSWERS);
    else
        conn_finish(w, c, CLOSE_PEER_GONE);
}

void
conn_continue(struct worker *w, struct conn *c)
{
    c->flags &= (uint32_t)~CF_READY;
    c->pause &= (uint8_t)~PAUSE_TURN;
    if (c->state < CONN_HTTP || c->state > CONN_OPEN || c->pause)
        return; /* what is held before HTTP is another's: xp_tls, client */
    if (c->in != NULL && c->in->stalled)
        xp_ws_resume(w, c);
    while (c->state <= CONN_OPEN && !c->pause && c->in != NULL && c->in->held.n > c->in->held_at) {
        struct buf held = c->in->held;
        size_t at = c->in->held_at;
        size_t used = c->state == CONN_HTTP ? xp_http_input(w, c, held.p + at, held.n - at)
                                            : xp_ws_input(w, c, held.p + at, held.n - at);
        if (c->state > CONN_OPEN)
            return;
        c->in->held_at = at + used;
    }
    if (c->state > CONN_OPEN)
        return;
    if (c->in != NULL && c->in->held.n == c->in->held_at) {
        conn_forget(w, &c->in->held);
        c->in->held_at = 0;
        conn_in_done(w, c);
    } else if (c->in != NULL && c->in->held_at > c->in->held.n / 2) {
        buf_eat(&c->in->held, c->in->held_at);
        c->in->held_at = 0;
    }
    if (!c->pause) {
        if (c->flags & CF_EOF)
            end_of_input(w, c);
        else
            conn_rearm(w, c);
    }
    if (c->state <= CONN_OPEN)
        conn_arm_timer(w, c);
}

static void
conn_try_free(struct worker *w, struct conn *c)
{
    if (c->state != CONN_DEAD || c->inflight > 0)
        return;
    close(c->fd);
    addrs_leave(w->addrs, c->place);
    free(c->meter);
    if (c->out.bytes > 0 && c->dialect != 0)
        COUNT_N(w, dropped_slow_total, outq_count_frames(c, c->frame_left));
    outq_clear(w, c);
    xp_tls_free(w, c);
    in_free(w, c);
    pmd_leave(w, c);
    slot_push(&w->just_freed, conn_slot(w, c));
    GAUGE(w, connections, w->metrics[RM_connections] - 1);
    c->inflight = UINT16_MAX; /* freed once */
}

/* Something that came earlier has not been worked on yet, so what comes now goes behind it. */
static bool
is_held_up(const struct conn *c)
{
    return c->pause || c->flags & CF_READY ||
        (c->in != NULL && (c->in->stalled || c->in->held.n > c->in->held_at));
}

void
conn_on_eof(struct worker *w, struct conn *c)
{
    c->flags |= CF_EOF;
    if (c->state == CONN_LINGER || (c->state == CONN_CLOSING && outq_is_empty(c)))
        conn_destroy(w, c);
    else if (c->state == CONN_TLS)
        conn_close(w, c, CLOSE_PEER_GONE);
    else if (c->state <= CONN_OPEN && !is_held_up(c))
        end_of_input(w, c);
}

void
conn_plain(struct worker *w, struct conn *c, uint8_t *p, size_t n)
{
    if (is_held_up(c)) {
        struct conn_in *in = conn_in(w, c);
        if (in != NULL && !conn_keep(w, &in->held, p, n))
            conn_abort(w, c, false);
        else if (in != NULL && in->held.n - in->held_at > HELD_MAX)
            recv_cancel(w, c);
        return;
    }
    struct conn_in *before = c->in;
    conn_input(w, c, p, n);
    if (c->state <= CONN_OPEN && (c->in != before || (c->in != NULL && c->in->began == w->tick)))
        conn_arm_timer(w, c);
}

static void
recv_data(struct worker *w, struct conn *c, struct ring_done d)
{
    uint8_t *p = ring_buf_at(&w->bufs, d.flags);
    size_t n = (size_t)d.res;
    c->heard_at = w->tick;
    COUNT_N(w, bytes_in_total, n);
    if (c->state > CONN_OPEN)
        return;
    if (c->state == CONN_PROXY) {
        size_t used = client_input(w, c, view_of(p, n));
        p += used;
        n -= used;
        if (n == 0 || (c->state != CONN_HTTP && c->state != CONN_TLS))
            return;
    }
    if (UNLIKELY(w->rates.on) && !rate_bytes(w, c, n))
        return;
    if (c->flags & CF_TLS)
        xp_tls_input(w, c, p, n);
    else if (UNLIKELY(c->state == CONN_HTTP && c->in == NULL && xp_tls_is_hello(p, n)))
        xp_tls_refuse_hello(w, c);
    else
        conn_plain(w, c, p, n);
}

void
conn_on_recv(struct worker *w, struct conn *c, struct ring_done d)
{
    bool ended = !ring_more(d);
    if (ended)
        c->flags &= (uint32_t)~(CF_RECV | CF_RECV_CANCEL);
    if (d.res > 0)
        recv_data(w, c, d);
    if (d.flags & IORING_CQE_F_BUFFER)
        ring_buf_back(&w->bufs, d.flags);
    if (d.res == 0)
        conn_on_eof(w, c);
    else if (d.res == -ENOBUFS) {
        COUNT(w, no_buffers_total);
        slot_push(&w->unbuffered, conn_slot(w, c));
    } else if (d.res < 0 && d.res != -ECANCELED && d.res != -EAGAIN && d.res != -EINTR) {
        if (c->state < CONN_CLOSING)
            conn_close(w, c, CLOSE_PEER_GONE);
        conn_destroy(w, c);
    } else if (ended) {
        conn_rearm(w, c);
    }
    conn_try_free(w, c);
}

/* -- sending -- */

/* All is sent. What closes goes on to its FIN. */
static void
conn_drained(struct worker *w, struct conn *c)
{
    if (c->flags & CF_SLOW)
        c->heard_at = w->tick; /* it was not asked meanwhile */
    c->flags &= (uint32_t)~CF_SLOW;
    c->frame_left = 0;
    if (c->state == CONN_CLOSING) {
        if (xp_tls_end(w, c))
            return;
        conn_to(c, CONN_LINGER);
        shutdown(c->fd, SHUT_WR);
        if (c->flags & CF_EOF)
            conn_destroy(w, c);
        return;
    }
    if (c->in != NULL && c->in->pong && c->state == CONN_OPEN) {
        uint8_t frame[2 + 125];
        size_t n = ws_put_header(frame, WS_PONG, c->in->pong_n);
        memcpy(frame + n, c->in->pong_data, c->in->pong_n);
        outq_put(w, c, frame, n + c->in->pong_n);
        c->in->pong = false;
        conn_in_done(w, c);
    }
}

/* Server frames lie whole in their stretches, so the length of each can be read where it begins. */
uint32_t
conn_payload_size(const uint8_t *p)
{
    uint8_t n = p[1] & 0x7f;
    uint64_t size = n < 126 ? n : n == 126 ? load_be16(p + 2) : load_be64(p + 2);
    BUG_ON(size > UINT32_MAX - WS_HEADER_MAX); /* we wrote it */
    return (uint32_t)size;
}

uint32_t
conn_frame_size(const uint8_t *p)
{
    uint32_t n = conn_payload_size(p);
    return (uint32_t)ws_header_size(n) + n;
}

static void
conn_took_less(struct worker *w, struct conn *c)
{
    COUNT(w, short_sends_total);
    if (c->tls != NULL)
        segq_unshare(&c->tls->wire, &w->blocks);
    if (!(c->flags & CF_SLOW)) {
        c->flags |= CF_SLOW;
        c->stall_at = w->tick;
        if (c->state <= CONN_OPEN)
            conn_arm_timer(w, c);
    }
    struct io_uring_sqe *sqe = ring_sqe(&w->ring);
    io_uring_prep_poll_add(sqe, c->fd, POLLOUT);
    ring_set_tag(sqe, OP_POLLOUT, c->head.gen, conn_slot(w, c));
    c->flags |= CF_POLLOUT;
    c->inflight++;
    if (c->state == CONN_OPEN && outq_bytes(c) > w->conf->out_queue_low)
        conn_pause(w, c, PAUSE_OUTPUT);
}

/* There is more than one send carries: it goes on. It is not what pacing holds back, or a client that takes everything
 * would get one send in each round. */
static void
send_rest(struct worker *w, struct conn *c)
{
    c->flags |= CF_PROMPT;
    outq_touch(w, c);
}

void
conn_on_send(struct worker *w, struct conn *c, struct ring_done d)
{
    c->flags &= (uint32_t)~CF_SENDING;
    if (d.res > 0) {
        COUNT_N(w, bytes_out_total, (uint64_t)d.res);
        if (outq_wire(c) == &c->out)
            outq_track(c, (uint32_t)d.res);
        if (c->flags & CF_SLOW)
            c->stall_at = w->tick;
        outq_taken(w, c, (uint32_t)d.res);
    } else if (d.res < 0 && d.res != -EAGAIN && d.res != -EINTR && d.res != -ENOBUFS) {
        if (c->state < CONN_CLOSING)
            conn_close(w, c, CLOSE_PEER_GONE);
        conn_destroy(w, c);
    }
    if (c->state != CONN_DEAD) {
        if (outq_is_empty(c))
            conn_drained(w, c);
        else if (outq_kernel_is_full(c, d.res))
            conn_took_less(w, c);
        else
            send_rest(w, c);
        if (c->state == CONN_OPEN && c->pause & PAUSE_OUTPUT && outq_bytes(c) <= w->conf->out_queue_low)
            conn_resume(w, c, PAUSE_OUTPUT);
        if (c->state == CONN_OPEN && c->behind != 0)
            behind_serve(w, c);
    }
    conn_try_free(w, c);
}

void
conn_on_pollout(struct worker *w, struct conn *c, struct ring_done d)
{
    c->flags &= (uint32_t)~CF_POLLOUT;
    (void)d;
    if (c->state != CONN_DEAD)
        outq_touch(w, c);
    conn_try_free(w, c);
}

/* -- the end -- */

static void
conn_note(struct worker *w, struct conn *c, enum close_reason reason)
{
    if (c->flags & CF_NOTED)
        return;
    c->flags |= CF_NOTED;
    c->reason = (uint8_t)reason;
    metric_add(w->metrics, RM_CLOSE_BASE + reason, 1);
    if (c->sess == S_OPEN && c->state == CONN_OPEN)
        GAUGE(w, connections_open, w->metrics[RM_connections_open] - 1);
    bool usual = reason == CLOSE_PEER_CLOSED || reason == CLOSE_PEER_GONE || reason == CLOSE_HTTP_ANSWERED ||
        reason == CLOSE_HTTP_REFUSED || reason == CLOSE_DRAIN;
    char client[ADDR_TEXT];
    if (!usual || log_level_now >= LOG_L_DEBUG)
        log_line(usual ? LOG_L_DEBUG : LOG_L_INFO, close_str(reason),
            "conn=%u client=%s state=%s code=%u queued=%u subscriptions=%u why=\"%s\"", conn_slot(w, c),
            addr_text(&c->client, client), state_names[c->state], close_code(reason), outq_bytes(c), c->sub_count,
            close_sentence(reason));
}

/* Nothing more is taken from the client or meant for it, but for what is in its queue. */
static void
conn_silence(struct worker *w, struct conn *c)
{
    leave_queues(w, c);
    subs_drop_all(w, c);
    in_free(w, c);
    pmd_leave(w, c); /* what is yet to be said goes plain */
    c->pause = 0;
}

static void
begin_closing(struct worker *w, struct conn *c)
{
    conn_to(c, CONN_CLOSING);
    c->deadline = w->tick + wheel_ticks(w->conf->ws_close_timeout);
    wheel_set(&w->wheel, &c->timer, c->deadline);
    conn_rearm(w, c); /* to see the client's end, and so that its last bytes do not turn FIN into RST */
    if (!outq_is_empty(c))
        outq_touch(w, c);
    else
        conn_drained(w, c);
}

/* What a client that does not read will not get: counted, and its memory given back at once. */
static void
cut_queue(struct worker *w, struct conn *c)
{
    if (c->flags & CF_SENDING)
        return;
    COUNT_N(w, dropped_slow_total, outq_count_frames(c, c->frame_left));
    outq_cut(w, c, c->frame_left);
}

static void
close_with(struct worker *w, struct conn *c, enum close_reason reason, uint16_t code, struct view text)
{
    if (c->state >= CONN_CLOSING)
        return;
    conn_note(w, c, reason);
    bool ws = c->state == CONN_OPEN;
    conn_silence(w, c);
    if (!ws || (code == 0 && reason != CLOSE_PEER_CLOSED)) {
        conn_abort(w, c, false);
        return;
    }
    if (reason == CLOSE_SLOW_QUEUE || reason == CLOSE_SLOW_STALL || reason == CLOSE_MEMORY)
        cut_queue(w, c);
    uint8_t frame[2 + 125];
    size_t n = ws_put_close(frame, code, text);
    c->flags &= (uint32_t)~CF_DOOMED;
    if (!outq_put(w, c, frame, n)) {
        conn_abort(w, c, true);
        return;
    }
    c->flags |= CF_CLOSE_SENT;
    begin_closing(w, c);
}

void
conn_close(struct worker *w, struct conn *c, enum close_reason reason)
{
    close_with(w, c, reason, close_code(reason), VIEW_NONE);
}

void
conn_close_echo(struct worker *w, struct conn *c, uint16_t code, struct view reason)
{
    close_with(w, c, CLOSE_PEER_CLOSED, code == 1005 ? 0 : code, reason);
}

void
conn_finish(struct worker *w, struct conn *c, enum close_reason reason)
{
    if (c->state >= CONN_CLOSING)
        return;
    conn_note(w, c, reason);
    conn_silence(w, c);
    begin_closing(w, c);
}

void
conn_abort(struct worker *w, struct conn *c, bool reset)
{
    if (c->state == CONN_DEAD)
        return;
    conn_note(w, c, CLOSE_INTERNAL);
    if (reset) {
        struct linger lg = {.l_onoff = 1, .l_linger = 0};
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &lg, sizeof lg);
    }
    conn_destroy(w, c);
}

void
conn_force(struct worker *w, struct conn *c)
{
    if (c->flags & CF_NOTED && c->state != CONN_DEAD) { /* was told, and did not end: counted as both */
        metric_add(w->metrics, RM_CLOSE_BASE + CLOSE_FORCED, 1);
        log_info("forced", "conn=%u state=%s queued=%u why=\"%s\"", conn_slot(w, c), state_names[c->state],
            outq_bytes(c), close_sentence(CLOSE_FORCED));
    }
    conn_note(w, c, CLOSE_FORCED);
    conn_abort(w, c, true);
}

void
conn_destroy(struct worker *w, struct conn *c)
{
    if (c->state == CONN_DEAD)
        return;
    conn_note(w, c, CLOSE_PEER_GONE);
    conn_silence(w, c);
    conn_to(c, CONN_DEAD);
    wheel_drop(&c->timer);
    recv_cancel(w, c);
    if (c->flags & CF_POLLOUT)
        cancel_op(w, c, OP_POLLOUT);
    conn_try_free(w, c);
}

/* -- time -- */

void
conn_arm_timer(struct worker *w, struct conn *c)
{
    uint32_t at = c->deadline;
    bool any = at != 0;
    if (c->state == CONN_OPEN && c->in != NULL && (c->in->msg.n > 0 || !ws_at_rest(&c->in->reader))) {
        uint32_t t = c->in->began + wheel_ticks(w->conf->ws_message_timeout);
        at = !any || (int32_t)(t - at) < 0 ? t : at;
        any = true;
    }
    if (c->pause & PAUSE_RATE) {
        at = !any || (int32_t)(c->meter->until - at) < 0 ? c->meter->until : at;
        any = true;
    }
    if (c->state == CONN_OPEN && c->flags & CF_SLOW) {
        uint32_t t = c->stall_at + wheel_ticks(w->conf->out_stall);
        at = !any || (int32_t)(t - at) < 0 ? t : at;
        any = true;
    }
    if (!any)
        wheel_drop(&c->timer);
    else if (!timer_is_set(&c->timer) || c->timer.deadline != at)
        wheel_set(&w->wheel, &c->timer, at);
}

static bool
is_due(const struct worker *w, uint32_t tick)
{
    return (int32_t)(w->tick - tick) >= 0;
}

static void
http_too_late(struct worker *w, struct conn *c)
{
    if (c->in != NULL && c->in->msg.n > 0) {
        static const char answer[] = "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        outq_put(w, c, (const uint8_t *)answer, sizeof answer - 1);
    }
    COUNT(w, http_refused_total);
    conn_finish(w, c, CLOSE_HTTP_TIMEOUT);
}

static void
open_timer(struct worker *w, struct conn *c)
{
    struct conn_in *in = c->in;
    rate_on_timer(w, c);
    if (c->flags & CF_SLOW && is_due(w, c->stall_at + wheel_ticks(w->conf->out_stall))) {
        conn_close(w, c, CLOSE_SLOW_STALL);
        return;
    }
    if (in != NULL && (in->msg.n > 0 || !ws_at_rest(&in->reader)) &&
        is_due(w, in->began + wheel_ticks(w->conf->ws_message_timeout))) {
        if (!c->pause) {
            conn_close(w, c, CLOSE_MESSAGE_TIMEOUT);
            return;
        }
        in->began = w->tick; /* we made it wait */
    }
    if (c->deadline != 0 && is_due(w, c->deadline)) {
        if (c->sess == S_OPENING) {
            conn_close(w, c, CLOSE_HANDSHAKE_TIMEOUT);
            return;
        }
        sess_on_ping_time(w, c);
    }
}

void
conn_on_timer(struct worker *w, struct conn *c)
{
    switch ((enum conn_state)c->state) {
    case CONN_PROXY: conn_close(w, c, CLOSE_PROXY); return;
    case CONN_TLS: conn_close(w, c, CLOSE_TLS_TIMEOUT); return;
    case CONN_HTTP: http_too_late(w, c); return;
    case CONN_OPEN:
        open_timer(w, c);
        if (c->state == CONN_OPEN)
            conn_arm_timer(w, c);
        return;
    case CONN_CLOSING:
    case CONN_LINGER: conn_abort(w, c, true); return;
    case CONN_DEAD: return;
    }
}

/* -- the beginning -- */

static void
count_refused(struct worker *w, enum close_reason reason)
{
    COUNT(w, refused_connections_total);
    metric_add(w->metrics, RM_CLOSE_BASE + reason, 1);
}

/* A socket that is to become a connection, and who is at its other end. */
struct newcomer {
    const struct listener *l;
    int fd;
    struct addr peer;
    uint32_t place;
    bool over;
};

static bool
refuse(struct worker *w, struct newcomer *n, enum close_reason reason)
{
    char text[ADDR_TEXT];
    close(n->fd);
    addrs_leave(w->addrs, n->place);
    count_refused(w, reason);
    log_info(close_str(reason), "client=%s connections=%u why=\"%s\"", addr_text(&n->peer, text), w->conns.live,
        close_sentence(reason));
    return false;
}

/* Before anything of ours is spent on it, a TLS handshake the least. At a PROXY listener the client is not
 * known yet. */
static bool
is_welcome(struct worker *w, struct newcomer *n)
{
    if (n->l->proxy)
        return addr_nets_have(&w->trusted, &n->peer) || refuse(w, n, CLOSE_PROXY);
    enum client_rc rc = client_count(w, &n->peer, &n->place);
    n->over = rc == CLIENT_OVER;
    return rc == CLIENT_WELCOME || (n->over && !n->l->tls) || refuse(w, n, CLOSE_ADDRESS_LIMIT);
}

/* A slot for it, or 503. The oldest of those that have not shaken hands makes room among them. */
static struct conn *
slot_for(struct worker *w, struct newcomer *n)
{
    if (w->metrics[RM_connections_unshaken] >= w->unshaken_max && w->unshaken.first != POOL_NONE) {
        struct conn *oldest = conn_at(w, w->unshaken.first);
        conn_note(w, oldest, CLOSE_UNSHAKEN);
        conn_abort(w, oldest, false);
    }
    bool is_short = ceiling_is_reached(w);
    struct conn *c = !is_short && w->conns.live < w->conn_max ? pool_get(&w->conns) : NULL;
    if (c == NULL) {
        static const char answer[] = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\n"
                                     "Connection: close\r\nContent-Length: 0\r\n\r\n";
        if (!n->l->tls)
            (void)!send(n->fd, answer, sizeof answer - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
        shutdown(n->fd, SHUT_WR);
        refuse(w, n, is_short ? CLOSE_MEMORY_LIMIT : CLOSE_CONN_LIMIT);
    }
    return c;
}

void
conn_new(struct worker *w, const struct listener *l, int fd)
{
    COUNT(w, accepted_total);
    struct newcomer n = {.l = l, .fd = fd, .peer = client_peer(fd), .place = ADDRS_NONE};
    struct conn *c = is_welcome(w, &n) ? slot_for(w, &n) : NULL;
    if (c == NULL)
        return;
    c->fd = fd;
    c->client = n.peer;
    c->place = n.place;
    c->flags |= (n.over ? CF_OVER : 0) | (l->no_gaps ? CF_NO_GAPS : 0);
    c->state = l->proxy ? CONN_PROXY : l->tls ? CONN_TLS : CONN_HTTP;
    c->heard_at = w->tick;
    c->deadline = w->tick + wheel_ticks(l->tls ? w->conf->tls_handshake_timeout : w->conf->http_header_timeout);
    c->sess = S_OPENING;
    c->flags |= CF_UNSHAKEN | (l->tls ? CF_TLS : 0);
    queue_append(w, &w->unshaken, c);
    GAUGE(w, connections, w->metrics[RM_connections] + 1);
    GAUGE(w, connections_unshaken, w->metrics[RM_connections_unshaken] + 1);
    conn_arm_timer(w, c);
    conn_rearm(w, c);
}
