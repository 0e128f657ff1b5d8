#include "worker/xp_tls.h"

#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "common/bug.h"
#include "worker/metrics.h"
#include "worker/outq.h"

#define RECORD_HEAD 5
#define RECORD_MAX (16384 + 256)  /* RFC 8446 5.2 */
#define RECORD_HANDSHAKE 22
#define HELD_MAX (4 * RECORD_MAX) /* no handshake is so long */
/* Plain text that becomes cipher text ahead of the kernel taking it: with the heads and tags of its records it leaves
 * with one send. */
#define SEAL_MAX (SEND_MAX - 1024)
#define WIRE_BLOCK 2000           /* what a slow reader's cipher text is kept in */

/* What a call of tls.c writes to, and for whom. */
struct wire {
    struct worker *w;
    struct conn *c;
    size_t put; /* bytes that went to the wire, whether they are still there or not */
};

/* Cipher text goes into the turn's arena of its own, one connection's behind the other's. */
static bool
wire_put(void *arg, const uint8_t *p, size_t n)
{
    struct wire *to = arg;
    struct worker *w = to->w;
    struct segq *q = &to->c->tls->wire;
    bool ok = false;
    if (to->c->flags & CF_SLOW || n > RC_CLASS_MAX) {
        ok = n <= UINT32_MAX && segq_append_copy(q, &w->blocks, p, (uint32_t)n, WIRE_BLOCK);
    } else {
        if (w->cipher == NULL || rc_room(w->cipher) < n) {
            if (w->cipher != NULL)
                rc_unref(&w->blocks, w->cipher);
            w->cipher = rc_new(&w->blocks, RC_CLASS_MAX);
            if (w->cipher == NULL)
                return false;
            w->cipher->turn = true;
        }
        memcpy(w->cipher->data + w->cipher->n, p, n);
        ok = segq_append(q, w->cipher, w->cipher->n, (uint32_t)n);
        w->cipher->n += (uint32_t)n;
    }
    if (ok) {
        w->queue_bytes += n;
        to->put += n;
    }
    return ok;
}

/* What waits on the wire must leave before the kernel makes records: at once, or not at all. */
static bool
wire_leaves(struct worker *w, struct conn *c)
{
    struct iovec iov[8];
    struct segq *q = &c->tls->wire;
    struct msghdr m = {.msg_iov = iov, .msg_iovlen = segq_iov(q, iov, ARRAY_LEN(iov), UINT32_MAX)};
    if (c->flags & (CF_SENDING | CF_POLLOUT))
        return false;
    ssize_t n = m.msg_iovlen > 0 ? sendmsg(c->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;
    if (n > 0) {
        COUNT_N(w, bytes_out_total, (uint64_t)n);
        outq_taken(w, c, (uint32_t)n);
    }
    return segq_is_empty(q);
}

/* kTLS, see networking/tls.rst of the kernel's documentation. A kernel without it refuses the first call. */
static bool
wire_kernel(void *arg, const void *info, size_t n)
{
    struct wire *to = arg;
    int fd = to->c->fd;
    if (!to->w->tls_kernel || !to->w->conf->tls_kernel || !wire_leaves(to->w, to->c))
        return false;
    if (setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof "tls") < 0 ||
        setsockopt(fd, SOL_TLS, TLS_TX, info, (socklen_t)n) < 0)
        return false;
    COUNT(to->w, tls_kernel_total);
    return true;
}

static bool
wire_control(void *arg, uint8_t type, const uint8_t *p, size_t n)
{
    struct wire *to = arg;
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(1)];
    } cm = {.head = {.cmsg_len = CMSG_LEN(1), .cmsg_level = SOL_TLS, .cmsg_type = TLS_SET_RECORD_TYPE}};
    struct iovec iov = {(void *)(uintptr_t)p, n};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &cm, .msg_controllen = sizeof cm.room};
    *CMSG_DATA(&cm.head) = type;
    return sendmsg(to->c->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)n;
}

#define WIRE_IO(w_, c_, p_, n_)                                                                    \
    {.in = (p_), .in_n = (n_), .out = wire_put, .kernel = wire_kernel, .control = wire_control,    \
        .arg = &(struct wire){(w_), (c_), 0}, .second = (w_)->tick * WHEEL_TICK_MS / 1000}

static void
broke(struct worker *w, struct conn *c)
{
    COUNT(w, tls_broken_total);
    log_debug("tls-broken", "conn=%u why=\"%s\"", conn_slot(w, c),
        c->tls == NULL ? "no handshake is so long" : c->tls->flooded ? "too many key updates" : tls_why());
    conn_finish(w, c, CLOSE_TLS_BROKEN); /* behind the alert, if there is one */
}

static void
shaken(struct worker *w, struct conn *c)
{
    struct tls_conn *t = c->tls;
    COUNT(w, tls_handshakes_total);
    if (tls_was_resumed(t))
        COUNT(w, tls_resumed_total);
    if (log_level_now >= LOG_L_DEBUG || strcmp(w->conf->tls_client_verify, "off") != 0) {
        char subject[256];
        tls_subject(t, subject, sizeof subject);
        log_line(subject[0] ? LOG_L_INFO : LOG_L_DEBUG, "tls-shaken", "conn=%u version=%s cipher=%s resumed=%d subject=%s",
            conn_slot(w, c), tls_version(t), tls_cipher(t), tls_was_resumed(t), log_quote(view_str(subject)).s);
    }
    conn_to(c, CONN_HTTP);
    c->deadline = w->tick + wheel_ticks(w->conf->http_header_timeout);
    conn_arm_timer(w, c);
}

/* All of the input is used up when this returns, or the connection is ending. */
static void
open_records(struct worker *w, struct conn *c, struct tls_io *io)
{
    enum tls_rc rc;
    size_t n;
    while ((rc = tls_read(c->tls, io, w->tls_plain, &n)) == TLS_DONE) {
        conn_plain(w, c, w->tls_plain, n);
        if (c->state > CONN_OPEN)
            return;
    }
    if (!segq_is_empty(&c->tls->wire)) {
        outq_touch(w, c); /* an answer of TLS itself */
        if (c->flags & CF_SLOW && c->state == CONN_OPEN && outq_bytes(c) > w->conf->out_queue_low)
            conn_pause(w, c, PAUSE_OUTPUT);
    }
    if (rc == TLS_BROKEN)
        broke(w, c);
    else if (rc == TLS_EOF)
        conn_on_eof(w, c);
}

/* Steps that answer cost a private-key operation or a key exchange, so they are what is paced. */
static void
shake(struct worker *w, struct conn *c, const uint8_t *p, size_t n)
{
    struct tls_io io = WIRE_IO(w, c, p, n);
    const struct wire *wire = io.arg;
    enum tls_rc rc = tls_handshake(c->tls, &io);
    if (wire->put > 0 && w->tls_left > 0)
        w->tls_left--;
    if (!segq_is_empty(&c->tls->wire))
        outq_touch(w, c);
    if (rc == TLS_BROKEN || rc == TLS_EOF) {
        COUNT(w, tls_failed_total);
        broke(w, c);
    } else if (rc == TLS_DONE) {
        shaken(w, c);
        open_records(w, c, &io);
    }
}

static void
refuse_plain(struct worker *w, struct conn *c)
{
    static const char answer[] = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n"
                                 "Content-Length: 54\r\n\r\nThis port speaks TLS: connect with https:// or wss://\n";
    _Static_assert(sizeof answer - 1 > 54, "head and body");
    COUNT(w, tls_expected_total);
    outq_put(w, c, (const uint8_t *)answer, sizeof answer - 1);
    conn_finish(w, c, CLOSE_TLS_EXPECTED);
}

/* Whether the first record is here whole. State for a handshake is made only then, so that a connection that
 * says nothing, or half a word, costs no more than its bytes. */
static bool
is_whole_record(const uint8_t *p, size_t n)
{
    return n >= RECORD_HEAD && n >= RECORD_HEAD + (size_t)load_be16(p + 3);
}

static bool
is_tls(const uint8_t *p, size_t n)
{
    return p[0] == RECORD_HANDSHAKE && (n < 2 || p[1] == 3) && (n < RECORD_HEAD || load_be16(p + 3) <= RECORD_MAX);
}

/* The first bytes of a connection. */
static void
begin(struct worker *w, struct conn *c, const uint8_t *p, size_t n)
{
    if (!is_tls(p, n)) {
        if (p[0] >= 'A' && p[0] <= 'Z') {
            refuse_plain(w, c);
        } else {
            COUNT(w, tls_broken_total);
            conn_close(w, c, CLOSE_TLS_BROKEN);
        }
        return;
    }
    c->tls = is_whole_record(p, n) ? tls_conn_new(w->tls) : NULL;
    if (c->tls != NULL) {
        GAUGE(w, tls_connections, w->metrics[RM_tls_connections] + 1);
        shake(w, c, p, n);
    } else if (is_whole_record(p, n)) {
        conn_abort(w, c, false);
    }
}

/* What arrives while a handshake waits for its turn, or before its first record is whole. */
static bool
put_aside(struct worker *w, struct conn *c, const uint8_t *p, size_t n)
{
    struct conn_in *in = conn_in(w, c);
    if (in == NULL)
        return false;
    if (!conn_keep(w, &in->held, p, n)) {
        conn_abort(w, c, false);
        return false;
    }
    if (in->held.n > HELD_MAX) {
        broke(w, c);
        return false;
    }
    return true;
}

/* Works on what was put aside; it leaves the connection first, since its plain text may be put aside in turn. */
static void
take_up(struct worker *w, struct conn *c)
{
    struct buf held = c->in->held;
    c->in->held = buf_make(UINT32_MAX);
    conn_in_done(w, c);
    if (c->tls == NULL)
        begin(w, c, held.p, held.n);
    else
        shake(w, c, held.p, held.n);
    if (c->tls == NULL && c->state == CONN_TLS) { /* still not a whole record */
        struct conn_in *in = conn_in(w, c);
        if (in != NULL) {
            in->held = held;
            return;
        }
    }
    conn_forget(w, &held);
}

static void
shake_later(struct worker *w, struct conn *c)
{
    if (!(c->flags & CF_TLS_WAITS)) {
        c->flags |= CF_TLS_WAITS;
        slot_push(&w->tls_waiting, conn_slot(w, c));
        COUNT(w, tls_paced_total);
    }
}

void
xp_tls_input(struct worker *w, struct conn *c, const uint8_t *p, size_t n)
{
    if (c->state != CONN_TLS) {
        struct tls_io io = WIRE_IO(w, c, p, n);
        open_records(w, c, &io);
        return;
    }
    bool behind = c->in != NULL && c->in->held.n > 0;
    bool first = c->tls == NULL && !behind;
    if (first && !is_tls(p, n)) {
        begin(w, c, p, n);
    } else if (w->tls_left == 0 || c->flags & CF_TLS_WAITS) {
        if (put_aside(w, c, p, n))
            shake_later(w, c);
    } else if (behind || (first && !is_whole_record(p, n))) {
        if (put_aside(w, c, p, n) && (c->tls != NULL || is_whole_record(c->in->held.p, c->in->held.n)))
            take_up(w, c);
    } else if (first) {
        begin(w, c, p, n);
    } else {
        shake(w, c, p, n);
    }
}

void
xp_tls_continue(struct worker *w)
{
    struct slot_list *l = &w->tls_waiting;
    w->tls_left = (uint32_t)w->conf->tls_handshakes_per_turn;
    while (w->tls_waiting_at < l->n && w->tls_left > 0) {
        struct conn *c = conn_at(w, l->v[w->tls_waiting_at++]);
        if (c->head.next != POOL_LIVE || !(c->flags & CF_TLS_WAITS))
            continue;
        c->flags &= ~(uint32_t)CF_TLS_WAITS;
        if (c->state == CONN_TLS && c->in != NULL && c->in->held.n > 0 &&
            (c->tls != NULL || is_whole_record(c->in->held.p, c->in->held.n)))
            take_up(w, c);
    }
    if (w->tls_waiting_at > 0 && (w->tls_waiting_at == l->n || w->tls_waiting_at > 4096)) {
        memmove(l->v, l->v + w->tls_waiting_at, (l->n - w->tls_waiting_at) * sizeof *l->v);
        l->n -= w->tls_waiting_at;
        w->tls_waiting_at = 0;
    }
}

/* -- output -- */

void
xp_tls_seal(struct worker *w, struct conn *c)
{
    struct tls_conn *t = c->tls;
    struct tls_io io = WIRE_IO(w, c, NULL, 0);
    if (t->kernel_tx || !segq_is_empty(&t->wire) || c->state == CONN_TLS)
        return;
    for (uint32_t left = MIN(c->out.bytes, SEAL_MAX); left > 0;) {
        uint32_t n = MIN(left, (uint32_t)TLS_PLAIN_MAX);
        const uint8_t *p = c->out.first.rc->data + c->out.first.off;
        if (c->out.first.len < n) {
            segq_peek(&c->out, w->tls_plain, n);
            p = w->tls_plain;
        }
        if (!tls_write(t, &io, p, n)) {
            conn_abort(w, c, true);
            return;
        }
        outq_track(c, n);
        segq_take(&c->out, &w->blocks, n);
        w->queue_bytes -= n;
        left -= n;
    }
}

bool
xp_tls_end(struct worker *w, struct conn *c)
{
    struct tls_io io = WIRE_IO(w, c, NULL, 0);
    if (c->tls == NULL)
        return false;
    tls_end(c->tls, &io);
    if (segq_is_empty(&c->tls->wire))
        return false;
    outq_touch(w, c);
    return true;
}

void
xp_tls_free(struct worker *w, struct conn *c)
{
    if (c->tls == NULL)
        return;
    w->queue_bytes -= c->tls->wire.bytes;
    tls_conn_free(c->tls, &w->blocks);
    c->tls = NULL;
    GAUGE(w, tls_connections, w->metrics[RM_tls_connections] - 1);
}

void
xp_tls_adopt(struct worker *w)
{
    struct tls_server *fresh =
        w->tls_fresh != NULL ? atomic_exchange_explicit(w->tls_fresh, NULL, memory_order_acq_rel) : NULL;
    if (fresh == NULL)
        return;
    tls_server_unref(w->tls);
    w->tls = fresh;
    COUNT(w, tls_reloads_total);
}

/* -- TLS where none is spoken -- */

bool
xp_tls_is_hello(const uint8_t *p, size_t n)
{
    return n >= 3 && p[0] == RECORD_HANDSHAKE && p[1] == 3 && p[2] <= 4;
}

void
xp_tls_refuse_hello(struct worker *w, struct conn *c)
{
    /* A fatal alert, protocol_version (RFC 8446 6.2): clients say "wrong version" and not "connection lost". */
    static const uint8_t alert[] = {21, 3, 1, 0, 2, 2, 70};
    COUNT(w, tls_unexpected_total);
    outq_put(w, c, alert, sizeof alert);
    conn_finish(w, c, CLOSE_TLS_UNEXPECTED);
}
