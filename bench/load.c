/* The load generator; see load.h. */
#include "bench/load.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/bug.h"
#include "common/mono.h"

#define SQ_ENTRIES 4096
#define CQ_ENTRIES 32768
#define BUF_GROUP 1
#define PART_MAX (128 * 1024) /* longest frame or response head that is put together */
#define TX_MAX (64u << 20)

enum op { OP_CONNECT = 1, OP_RECV, OP_SEND, OP_CANCEL };

/* RFC 6455 section 1.3 gives this key and its answer, so that no SHA-1 is needed here. */
#define WS_KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define WS_ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

static uint64_t
tag_of(enum op op, uint32_t conn)
{
    return (uint64_t)op << 56 | conn;
}

static struct io_uring_sqe *
get_sqe(struct load *l)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&l->ring);
    if (sqe != NULL)
        return sqe;
    int rc = io_uring_submit(&l->ring);
    if (rc < 0)
        die("io_uring_submit: %s", strerror(-rc));
    sqe = io_uring_get_sqe(&l->ring);
    BUG_ON(sqe == NULL);
    return sqe;
}

static void
give_buffer(struct load *l, uint16_t id)
{
    io_uring_buf_ring_add(l->br, l->bufs + (size_t)id * l->conf.buffer_bytes,
        l->conf.buffer_bytes, id, io_uring_buf_ring_mask(l->conf.buffers), 0);
    io_uring_buf_ring_advance(l->br, 1);
}

static void
init_buffers(struct load *l)
{
    size_t ring_bytes = l->conf.buffers * sizeof(struct io_uring_buf);
    l->br = aligned_alloc(4096, align_up(ring_bytes, 4096));
    l->bufs = aligned_alloc(4096, align_up((size_t)l->conf.buffers * l->conf.buffer_bytes, 4096));
    if (l->br == NULL || l->bufs == NULL)
        die("no memory for %u receive buffers", l->conf.buffers);
    struct io_uring_buf_reg reg = {.ring_addr = (uint64_t)(uintptr_t)l->br,
        .ring_entries = l->conf.buffers,
        .bgid = BUF_GROUP};
    io_uring_buf_ring_init(l->br);
    int rc = io_uring_register_buf_ring(&l->ring, &reg, 0);
    if (rc < 0)
        die("buffer ring: %s (kernel 5.19 or newer is needed)", strerror(-rc));
    for (uint32_t i = 0; i < l->conf.buffers; i++)
        give_buffer(l, (uint16_t)i);
}

void
load_init(struct load *l, const struct load_conf *conf, uint32_t conns, uint32_t groups)
{
    memset(l, 0, sizeof *l);
    l->conf = *conf;
    struct io_uring_params p = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE,
        .cq_entries = CQ_ENTRIES};
    int rc = io_uring_queue_init_params(SQ_ENTRIES, &l->ring, &p);
    if (rc < 0)
        die("io_uring: %s (kernel 6.1 or newer, kernel.io_uring_disabled=0)", strerror(-rc));
    init_buffers(l);
    l->conns = xcalloc(conns, sizeof *l->conns);
    l->n_conns = conns;
    l->dirty = xcalloc(conns, sizeof *l->dirty);
    l->groups = xcalloc(groups, sizeof *l->groups);
    l->n_groups = groups;
    l->left_mask = (uint32_t)pow2_ceil(MAX(2u * conf->in_flight, 64u)) - 1;
    for (uint32_t i = 0; i < groups; i++) {
        l->groups[i].publisher = UINT32_MAX;
        snprintf(l->groups[i].channel, sizeof l->groups[i].channel, "bench-%06u", i);
    }
}

static void
free_tx(struct load_conn *c)
{
    if (c->tx != NULL) {
        free(c->tx->p[0]);
        free(c->tx->p[1]);
    }
    free(c->tx);
    c->tx = NULL;
}

void
load_free(struct load *l)
{
    /* The ring goes first: nothing in the kernel points into our memory after that. */
    io_uring_queue_exit(&l->ring);
    for (uint32_t i = 0; i < l->n_conns; i++) {
        struct load_conn *c = &l->conns[i];
        if (c->state != LOAD_UNBORN && c->state != LOAD_DEAD)
            close(c->fd);
        free_tx(c);
        free(c->part);
    }
    for (uint32_t i = 0; i < l->n_groups; i++) {
        frame_pair_free(&l->groups[i].frame);
        free(l->groups[i].left);
    }
    free(l->conns);
    free(l->groups);
    free(l->dirty);
    free(l->br);
    free(l->bufs);
}

void
load_set_conn(struct load *l, uint32_t i, uint32_t group, bool subscribes, bool publishes)
{
    struct load_conn *c = &l->conns[i];
    struct load_group *g = &l->groups[group];
    c->group = group;
    c->subscribes = subscribes;
    c->publishes = publishes;
    if (subscribes)
        g->subscribers++;
    if (!publishes)
        return;
    g->publisher = i;
    frame_pair_make(&g->frame, g->channel, l->conf.payload, l->conf.path == NULL);
    g->left = xcalloc(l->left_mask + 1, sizeof *g->left);
}

/* --- sending ------------------------------------------------------------------------------- */

static void
mark_dirty(struct load *l, struct load_conn *c)
{
    if (!c->tx->dirty) {
        c->tx->dirty = true;
        l->dirty[l->n_dirty++] = (uint32_t)(c - l->conns);
    }
}

/* Room for n bytes in what is sent at the end of the turn; the caller fills all of it. */
static uint8_t *
tx_room(struct load *l, struct load_conn *c, uint32_t n)
{
    if (c->tx == NULL)
        c->tx = xcalloc(1, sizeof *c->tx);
    struct load_tx *t = c->tx;
    uint32_t f = t->fill;
    if (t->cap[f] - t->n[f] < n) {
        if (t->n[f] + n > TX_MAX)
            die("the server does not read: %u bytes wait for one connection", t->n[f]);
        t->cap[f] = (uint32_t)pow2_ceil(t->n[f] + n);
        t->p[f] = xrealloc(t->p[f], t->cap[f]);
    }
    uint8_t *at = t->p[f] + t->n[f];
    t->n[f] += n;
    mark_dirty(l, c);
    return at;
}

static void
send_text(struct load *l, struct load_conn *c, const char *text)
{
    uint8_t frame[512];
    size_t n = strlen(text);
    BUG_ON(n > sizeof frame - 14);
    uint32_t total = frame_text(frame, text, n);
    memcpy(tx_room(l, c, total), frame, total);
}

static void
submit_send(struct load *l, struct load_conn *c)
{
    struct load_tx *t = c->tx;
    uint32_t b = t->fill ^ 1u;
    struct io_uring_sqe *sqe = get_sqe(l);
    io_uring_prep_send(sqe, c->fd, t->p[b] + t->off, t->n[b] - t->off, MSG_NOSIGNAL);
    sqe->user_data = tag_of(OP_SEND, (uint32_t)(c - l->conns));
    l->count.sends++;
}

/* Lets the filled buffer fly, if none does. */
static void
start_send(struct load *l, struct load_conn *c)
{
    struct load_tx *t = c->tx;
    if (t == NULL || t->flying || t->n[t->fill] == 0 || c->state >= LOAD_LEAVING)
        return;
    t->fill ^= 1;
    t->n[t->fill] = 0;
    t->off = 0;
    t->flying = true;
    submit_send(l, c);
}

static void
flush_dirty(struct load *l)
{
    for (uint32_t i = 0; i < l->n_dirty; i++) {
        struct load_conn *c = &l->conns[l->dirty[i]];
        if (c->tx == NULL)
            continue;
        c->tx->dirty = false;
        start_send(l, c);
    }
    l->n_dirty = 0;
}

/* --- opening and closing ------------------------------------------------------------------- */

static void
arm_recv(struct load *l, struct load_conn *c)
{
    struct io_uring_sqe *sqe = get_sqe(l);
    io_uring_prep_recv_multishot(sqe, c->fd, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = BUF_GROUP;
    sqe->user_data = tag_of(OP_RECV, (uint32_t)(c - l->conns));
    c->recv_armed = true;
}

static void
open_conn(struct load *l, struct load_conn *c)
{
    const struct sockaddr_in *to = c->publishes ? &l->conf.to_publish : &l->conf.to;
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        die("socket: %s (open-file limit? ulimit -n)", strerror(errno));
    if (setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0)
        die("TCP_NODELAY: %s", strerror(errno));
    c->state = LOAD_CONNECTING;
    c->born_ns = mono_now().ns;
    c->part_n = 0;
    l->opening++;
    struct io_uring_sqe *sqe = get_sqe(l);
    io_uring_prep_connect(sqe, c->fd, (const struct sockaddr *)to, sizeof *to);
    sqe->user_data = tag_of(OP_CONNECT, (uint32_t)(c - l->conns));
}

static void
open_more(struct load *l)
{
    while (l->next_open < l->n_conns && l->opening < l->conf.concurrency)
        open_conn(l, &l->conns[l->next_open++]);
}

static void
bury(struct load *l, struct load_conn *c)
{
    if (c->state < LOAD_READY)
        l->opening--;
    else if (c->state == LOAD_READY)
        l->ready--;
    close(c->fd);
    c->state = LOAD_DEAD;
}

/* Reset instead of a lingering close: no port stays in TIME_WAIT. */
static void
leave(struct load *l, struct load_conn *c)
{
    struct linger hard = {.l_onoff = 1, .l_linger = 0};
    (void)setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    l->ready--;
    c->state = LOAD_LEAVING;
    struct io_uring_sqe *sqe = get_sqe(l);
    io_uring_prep_cancel64(sqe, tag_of(OP_RECV, (uint32_t)(c - l->conns)), 0);
    sqe->user_data = tag_of(OP_CANCEL, (uint32_t)(c - l->conns));
}

static void
become_ready(struct load *l, struct load_conn *c)
{
    c->state = LOAD_READY;
    l->opening--;
    l->ready++;
    l->count.opened++;
    if (!l->storm)
        return;
    if (l->lat != NULL && c->born_ns >= l->win0 && c->born_ns < l->win1)
        hist_add(l->lat, l->now - c->born_ns);
    leave(l, c);
}

static void
send_request(struct load *l, struct load_conn *c)
{
    char text[512];
    int n = snprintf(text, sizeof text,
        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: " WS_KEY "\r\nSec-WebSocket-Version: 13\r\n\r\n",
        l->conf.path, ntohs(l->conf.to.sin_port));
    if (n < 0 || (size_t)n >= sizeof text)
        die("the path is too long");
    memcpy(tx_room(l, c, (uint32_t)n), text, (size_t)n);
}

static void
on_connect(struct load *l, struct load_conn *c, int res)
{
    if (res < 0) {
        if (l->count.refused++ == 0 && !l->storm)
            fprintf(stderr, "ringcast-bench: connect: %s\n", strerror(-res));
        bury(l, c);
        return;
    }
    arm_recv(l, c);
    if (l->conf.path == NULL) {
        become_ready(l, c);
        return;
    }
    c->state = LOAD_UPGRADING;
    send_request(l, c);
}

/* --- what arrives -------------------------------------------------------------------------- */

static void
on_delivery(struct load *l, struct load_conn *c, uint64_t seq, uint64_t due)
{
    struct load_group *g = &l->groups[c->group];
    if (seq >= g->published) {
        l->count.foreign++;
        return;
    }
    enum seq_verdict v = seq_put(&c->seq, seq);
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

/* Opening: what the answer {"rid":N...} leads to. */
static void
on_response(struct load *l, struct load_conn *c, const uint8_t *p, size_t n)
{
    if (memmem(p, n, "\"error\"", 7) != NULL) {
        if (l->count.refused++ == 0)
            fprintf(stderr, "ringcast-bench: the server answered %.*s\n", (int)MIN(n, 300u), p);
        bury(l, c);
    } else if (c->state == LOAD_SHAKING && c->subscribes) {
        char text[128];
        snprintf(text, sizeof text,
            "{\"event\":\"#subscribe\",\"data\":{\"channel\":\"%s\"},\"cid\":2}",
            l->groups[c->group].channel);
        c->state = LOAD_SUBSCRIBING;
        send_text(l, c, text);
    } else if (c->state == LOAD_SHAKING || c->state == LOAD_SUBSCRIBING) {
        become_ready(l, c);
    } else {
        l->count.foreign++;
    }
}

/* A whole frame: header of `head` bytes, n in all. */
static void
on_frame(struct load *l, struct load_conn *c, const uint8_t *p, size_t head, size_t n, uint8_t op)
{
    struct load_group *g = &l->groups[c->group];
    uint64_t seq, due;
    if (op == 1 && n == g->frame.in_n && frame_is_delivery(&g->frame, p, &seq, &due)) {
        on_delivery(l, c, seq, due);
    } else if (op == 1 && n == head) {
        l->count.pings++;
        send_text(l, c, "");
    } else if (op == 1 && n - head > 7 && memcmp(p + head, "{\"rid\":", 7) == 0) {
        on_response(l, c, p + head, n - head);
    } else {
        if (l->count.foreign++ == 0)
            fprintf(stderr, "ringcast-bench: unexpected frame, opcode %u: %.*s\n", op,
                (int)MIN(n - head, 200u), p + head);
    }
}

/* Length of the frame at p, header included; 0: cannot tell yet. */
static size_t
frame_length(const uint8_t *p, size_t n, size_t *head, uint8_t *op)
{
    uint64_t payload;
    int h = frame_head(p, n, &payload, op);
    if (h == 0)
        return 0;
    if (h < 0 || payload > PART_MAX - 16)
        die("the server sent a frame that no client expects (byte 1 is 0x%02x)", p[1]);
    *head = (size_t)h;
    return (size_t)h + (size_t)payload;
}

/* All whole frames at p; returns how many bytes they were. */
static size_t
eat_frames(struct load *l, struct load_conn *c, const uint8_t *p, size_t n)
{
    size_t at = 0, head = 0;
    uint8_t op = 0;
    while (at < n && c->state < LOAD_LEAVING) {
        size_t len = frame_length(p + at, n - at, &head, &op);
        if (len == 0 || len > n - at)
            break;
        on_frame(l, c, p + at, head, len, op);
        at += len;
    }
    return at;
}

static void
keep_part(struct load_conn *c, const uint8_t *p, size_t n)
{
    if (c->part_n + n > PART_MAX)
        die("the server sent %zu bytes without an end", c->part_n + n);
    if (c->part_cap - c->part_n < n) {
        c->part_cap = (uint32_t)pow2_ceil(MAX(c->part_n + n, 512u));
        c->part = xrealloc(c->part, c->part_cap);
    }
    memcpy(c->part + c->part_n, p, n);
    c->part_n += (uint32_t)n;
}

/* Completes the frame that was begun; returns how many of the n bytes it took. */
static size_t
eat_into_part(struct load *l, struct load_conn *c, const uint8_t *p, size_t n)
{
    size_t took = 0, head = 0, len;
    uint8_t op = 0;
    while ((len = frame_length(c->part, c->part_n, &head, &op)) == 0) {
        if (took == n)
            return took;
        keep_part(c, p + took++, 1);
    }
    size_t more = MIN(len - c->part_n, n - took);
    keep_part(c, p + took, more);
    took += more;
    if (c->part_n == len) {
        c->part_n = 0;
        on_frame(l, c, c->part, head, len, op);
    }
    return took;
}

/* The answer to the upgrade, byte by byte into the part buffer; returns what it took. */
static size_t
eat_http(struct load *l, struct load_conn *c, const uint8_t *p, size_t n)
{
    keep_part(c, p, n);
    uint8_t *end = memmem(c->part, c->part_n, "\r\n\r\n", 4);
    if (end == NULL)
        return n;
    if (memcmp(c->part, "HTTP/1.1 101 ", 13) != 0 ||
        memmem(c->part, c->part_n, WS_ACCEPT, sizeof WS_ACCEPT - 1) == NULL) {
        if (l->count.refused++ == 0)
            fprintf(stderr, "ringcast-bench: upgrade refused: %.40s\n", c->part);
        bury(l, c);
        return n;
    }
    size_t behind = c->part_n - (size_t)(end + 4 - c->part);
    c->part_n = 0;
    c->state = LOAD_SHAKING;
    send_text(l, c, "{\"event\":\"#handshake\",\"data\":{\"authToken\":null},\"cid\":1}");
    return n - behind;
}

static void
on_bytes(struct load *l, struct load_conn *c, const uint8_t *p, size_t n)
{
    size_t at = 0;
    if (c->state == LOAD_UPGRADING)
        at += eat_http(l, c, p, n);
    while (at < n && c->part_n > 0 && c->state < LOAD_LEAVING && c->state != LOAD_UPGRADING)
        at += eat_into_part(l, c, p + at, n - at);
    if (c->state == LOAD_UPGRADING || c->state >= LOAD_LEAVING)
        return;
    at += eat_frames(l, c, p + at, n - at);
    if (at < n && c->state < LOAD_LEAVING)
        keep_part(c, p + at, n - at);
    if (c->part_n == 0 && c->part != NULL && !l->publishing) {
        free(c->part);
        c->part = NULL;
        c->part_cap = 0;
    }
}

/* --- completions --------------------------------------------------------------------------- */

/* The receive of a connection that we or the other side ended. */
static void
on_recv_end(struct load *l, struct load_conn *c, int res)
{
    if (c->state == LOAD_LEAVING) {
        if (c->tx != NULL && c->tx->flying)
            return; /* the send's completion buries it */
        bury(l, c);
        if (l->storm && l->opening < l->conf.concurrency)
            open_conn(l, c);
        return;
    }
    if (c->state == LOAD_DEAD)
        return;
    if (l->count.disconnects++ == 0)
        fprintf(stderr, "ringcast-bench: the server ended a connection (%s)\n",
            res < 0 ? strerror(-res) : "end of stream");
    bury(l, c);
}

static void
on_recv(struct load *l, struct load_conn *c, const struct io_uring_cqe *cqe)
{
    l->count.recvs++;
    if (cqe->flags & IORING_CQE_F_BUFFER) {
        uint16_t id = (uint16_t)(cqe->flags >> IORING_CQE_BUFFER_SHIFT);
        l->now = mono_now().ns;
        if (cqe->res > 0 && c->state < LOAD_LEAVING)
            on_bytes(l, c, l->bufs + (size_t)id * l->conf.buffer_bytes, (size_t)cqe->res);
        give_buffer(l, id);
    }
    if (cqe->flags & IORING_CQE_F_MORE)
        return;
    c->recv_armed = false;
    if (cqe->res == -ENOBUFS)
        l->count.no_buffers++;
    if ((cqe->res > 0 || cqe->res == -ENOBUFS) && c->state < LOAD_LEAVING)
        arm_recv(l, c);
    else
        on_recv_end(l, c, cqe->res);
}

static void
on_send(struct load *l, struct load_conn *c, int res)
{
    struct load_tx *t = c->tx;
    uint32_t b = t->fill ^ 1u;
    if (res > 0 && c->state < LOAD_LEAVING) {
        t->off += (uint32_t)res;
        if (t->off < t->n[b]) {
            submit_send(l, c);
            return;
        }
    }
    t->flying = false;
    if (c->state == LOAD_LEAVING && !c->recv_armed) {
        on_recv_end(l, c, 0);
        return;
    }
    if (res < 0)
        return; /* the receive tells of the same end */
    if (t->n[t->fill] > 0)
        start_send(l, c);
    else if (!c->publishes && c->state == LOAD_READY && !t->dirty)
        free_tx(c);
}

static void
on_cqe(struct load *l, const struct io_uring_cqe *cqe)
{
    struct load_conn *c = &l->conns[(uint32_t)cqe->user_data];
    switch ((enum op)(cqe->user_data >> 56)) {
    case OP_CONNECT: on_connect(l, c, cqe->res); break;
    case OP_RECV: on_recv(l, c, cqe); break;
    case OP_SEND: on_send(l, c, cqe->res); break;
    case OP_CANCEL: break; /* the receive itself answers */
    }
}

void
load_publish(struct load *l, uint32_t group, uint64_t due)
{
    struct load_group *g = &l->groups[group];
    struct load_conn *c = &l->conns[g->publisher];
    if (c->state != LOAD_READY)
        return;
    frame_publish(&g->frame, tx_room(l, c, g->frame.out_n), g->published, due);
    g->left[g->published & l->left_mask] = g->subscribers;
    g->published++;
    l->count.published++;
}

void
load_turn(struct load *l, uint64_t until)
{
    struct io_uring_cqe *cqe;
    open_more(l);
    flush_dirty(l);
    uint64_t now = mono_now().ns;
    uint64_t wait = until > now && !l->conf.spin ? until - now : 0;
    struct __kernel_timespec ts = {(int64_t)(wait / 1000000000), (int64_t)(wait % 1000000000)};
    int rc = io_uring_submit_and_wait_timeout(&l->ring, &cqe, 1, &ts, NULL);
    if (rc < 0 && rc != -ETIME && rc != -EINTR && rc != -EBUSY && rc != -EAGAIN)
        die("waiting on the ring: %s", strerror(-rc));
    l->count.turns++;
    l->now = mono_now().ns;
    unsigned head, seen = 0;
    io_uring_for_each_cqe(&l->ring, head, cqe)
    {
        on_cqe(l, cqe);
        seen++;
    }
    io_uring_cq_advance(&l->ring, seen);
    flush_dirty(l);
}

uint64_t
load_missing(const struct load *l)
{
    uint64_t missing = 0;
    for (uint32_t i = 0; i < l->n_conns; i++)
        if (l->conns[i].subscribes)
            missing += l->groups[l->conns[i].group].published - l->conns[i].seq.got;
    return missing;
}
