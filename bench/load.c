/* The load generator; see load.h. */
#include "bench/load.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/sched.h"
#include "common/bug.h"
#include "common/mono.h"

#define SQ_ENTRIES 4096
#define CQ_ENTRIES 32768
#define BUF_GROUP 1
#define PART_MAX (128 * 1024) /* longest frame or response head that is put together */
#define TX_MAX (64u << 20)
#define CLEAR_BYTES (64 * 1024) /* decrypted at a time; a record has 16 KiB at most */
#define SLOW_RCVBUF 4096
#define REOPEN_NS 5000000ull /* between two looks for connections that ended */

enum op { OP_CONNECT = 1, OP_RECV, OP_SEND, OP_CANCEL };

/* RFC 6455 section 1.3 gives this key and its answer, so that no SHA-1 is needed here. */
#define WS_KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define WS_ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

#define GEN_MASK 0xffffffu

static uint64_t
tag_of(const struct load *l, enum op op, const struct load_conn *c)
{
    return (uint64_t)op << 56 | (uint64_t)(c->gen & GEN_MASK) << 32 | (uint32_t)(c - l->conns);
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

static void init_tls(struct load *l);

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
    l->random = 0x9e3779b97f4a7c15ull;
    l->dirty = xcalloc(conns, sizeof *l->dirty);
    l->groups = xcalloc(groups, sizeof *l->groups);
    l->n_groups = groups;
    l->left_mask = (uint32_t)pow2_ceil(MAX(2u * conf->in_flight, 64u)) - 1;
    if (conf->tls)
        init_tls(l);
    if (conf->deflate)
        l->pmd = pmd_new();
    for (uint32_t i = 0; i < groups; i++) {
        l->groups[i].publisher = UINT32_MAX;
        snprintf(l->groups[i].channel, sizeof l->groups[i].channel, "bench-%.0u%06u", conf->part, i);
    }
}

static void
free_tx(struct load_conn *c)
{
    if (c->tx != NULL) {
        free(c->tx->p[0]);
        free(c->tx->p[1]);
        free(c->tx->plain);
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
        tls_free(c->tls);
        pmd_stream_free(c->unpack);
        free(c->part);
        free(c->rest);
    }
    tls_shared_free(l->tls);
    pmd_free(l->pmd);
    free(l->clear);
    for (uint32_t i = 0; i < l->n_groups; i++) {
        frame_pair_free(&l->groups[i].frame);
        for (uint32_t k = 0; k < l->groups[i].n_sizes; k++)
            frame_pair_free(&l->groups[i].size[k]);
        free(l->groups[i].size);
        free(l->groups[i].left);
    }
    free(l->conns);
    free(l->groups);
    free(l->dirty);
    free(l->br);
    free(l->bufs);
}

static void
make_frame(const struct load *l, const struct load_group *g, struct frame_pair *f, uint32_t payload)
{
    static const enum frame_coat coats[] = {[LOAD_WEBSOCKET] = FRAME_CLIENT, [LOAD_STREAM] = FRAME_NOTHING,
        [LOAD_FLOOR] = FRAME_SERVER};
    frame_pair_make(f, &l->conf.speak, g->channel, l->conf.kind, payload, coats[l->conf.wire]);
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
    if (g->left != NULL)
        return;
    make_frame(l, g, &g->frame, l->conf.payload);
    g->left = xcalloc(l->left_mask + 1, sizeof *g->left);
}

void
load_set_remote(struct load *l, uint32_t group)
{
    struct load_group *g = &l->groups[group];
    g->remote = true;
    make_frame(l, g, &g->frame, l->conf.payload);
}

uint32_t
load_add_size(struct load *l, uint32_t group, uint32_t payload)
{
    struct load_group *g = &l->groups[group];
    uint32_t i = 0;
    while (i < g->n_sizes && g->size[i].payload != payload)
        i++;
    if (i < g->n_sizes)
        return i;
    g->size = xrealloc(g->size, (i + 1) * sizeof *g->size);
    g->size[i] = (struct frame_pair){0};
    make_frame(l, g, &g->size[i], payload);
    return g->n_sizes++;
}

void
load_set_churner(struct load *l, uint32_t i)
{
    l->conns[i].churns = true;
}

void
load_set_slow(struct load *l, uint32_t i, uint32_t group)
{
    struct load_conn *c = &l->conns[i];
    c->group = group;
    c->subscribes = c->slow = true;
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

/* n more bytes at the end of a growing buffer. */
static uint8_t *
room_in(uint8_t **p, uint32_t *have, uint32_t *cap, uint32_t n)
{
    if (*cap - *have < n) {
        if (*have + n > TX_MAX)
            die("the server does not read: %u bytes wait for one connection", *have);
        *cap = (uint32_t)pow2_ceil(*have + n);
        *p = xrealloc(*p, *cap);
    }
    uint8_t *at = *p + *have;
    *have += n;
    return at;
}

static struct load_tx *
tx_of(struct load *l, struct load_conn *c)
{
    if (c->tx == NULL)
        c->tx = xcalloc(1, sizeof *c->tx);
    mark_dirty(l, c);
    return c->tx;
}

/* Room for n bytes of what goes over the wire at the end of the turn. */
static uint8_t *
wire_room(struct load *l, struct load_conn *c, uint32_t n)
{
    struct load_tx *t = tx_of(l, c);
    uint32_t f = t->fill;
    return room_in(&t->p[f], &t->n[f], &t->cap[f], n);
}

/* Room for n bytes to be sent at the end of the turn; the caller fills all of it. */
static uint8_t *
tx_room(struct load *l, struct load_conn *c, uint32_t n)
{
    if (c->tls == NULL)
        return wire_room(l, c, n);
    struct load_tx *t = tx_of(l, c);
    return room_in(&t->plain, &t->plain_n, &t->plain_cap, n);
}

/* Cipher text of a connection. */
static void
put_cipher(void *arg, uint32_t conn, const uint8_t *p, size_t n)
{
    struct load *l = arg;
    memcpy(wire_room(l, &l->conns[conn], (uint32_t)n), p, n);
}

static void
init_tls(struct load *l)
{
    struct tls_conf conf = {.host = l->conf.host, .only_12 = l->conf.tls_12, .resume = l->conf.resume,
        .put = put_cipher, .arg = l};
    l->tls = tls_shared_new(&conf);
    l->clear = xmalloc(CLEAR_BYTES);
}

/* `first`: of the frame, where there are frames. */
static void
send_message(struct load *l, struct load_conn *c, uint8_t first, const void *p, size_t n)
{
    uint8_t frame[SPEAK_MAX + 8];
    BUG_ON(n > SPEAK_MAX);
    if (l->conf.wire == LOAD_WEBSOCKET) {
        uint32_t total = frame_wrap(frame, first, p, n);
        memcpy(tx_room(l, c, total), frame, total);
    } else if (n > 0) {
        memcpy(tx_room(l, c, (uint32_t)n), p, n);
    }
}

static uint8_t
op_of(const struct load *l)
{
    return l->conf.speak.as->binary ? FRAME_OP_BINARY : FRAME_OP_TEXT;
}

/* Says n bytes in the protocol's words. */
static void
say(struct load *l, struct load_conn *c, const char *p, size_t n)
{
    send_message(l, c, op_of(l), p, n);
}

static void
submit_send(struct load *l, struct load_conn *c)
{
    struct load_tx *t = c->tx;
    uint32_t b = t->fill ^ 1u;
    struct io_uring_sqe *sqe = get_sqe(l);
    io_uring_prep_send(sqe, c->fd, t->p[b] + t->off, t->n[b] - t->off, MSG_NOSIGNAL);
    sqe->user_data = tag_of(l, OP_SEND, c);
    l->count.sends++;
}

/* Encrypts what this turn has for a connection: one record, however many frames. */
static void
seal(struct load_conn *c)
{
    struct load_tx *t = c->tx;
    uint32_t n = t->plain_n;
    t->plain_n = 0;
    if (n > 0 && c->state < LOAD_LEAVING && !tls_write(c->tls, t->plain, n))
        fprintf(stderr, "ringcast-bench: TLS: %s\n", tls_why()); /* the receive ends it */
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
        if (c->tx->plain_n > 0)
            seal(c);
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
    sqe->user_data = tag_of(l, OP_RECV, c);
    c->recv_armed = true;
}

static int
new_socket(const struct load *l, const struct load_conn *c)
{
    int one = 1, small = SLOW_RCVBUF, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("socket: %s (open-file limit? ulimit -n)", strerror(errno));
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0)
        die("TCP_NODELAY: %s", strerror(errno));
    /* The port is chosen by connect, so that it need be free for this destination only. */
    const struct sockaddr_in *from = &l->conf.from;
    if (from->sin_family != 0 && (setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one) != 0 ||
                                     bind(fd, (const struct sockaddr *)from, sizeof *from) != 0))
        die("--from: %s", strerror(errno));
    /* A reader that pauses shall be behind soon, not after the kernel's megabytes. */
    if (c->slow && setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small) != 0)
        die("SO_RCVBUF: %s", strerror(errno));
    return fd;
}

static void
open_conn(struct load *l, struct load_conn *c)
{
    const struct sockaddr_in *to = c->publishes ? &l->conf.to_publish : &l->conf.to;
    c->fd = new_socket(l, c);
    c->gen++;
    c->state = LOAD_CONNECTING;
    c->born_ns = mono_now().ns;
    c->part_n = c->rest_n = 0;
    c->recv_armed = false;
    l->opening++;
    struct io_uring_sqe *sqe = get_sqe(l);
    io_uring_prep_connect(sqe, c->fd, (const struct sockaddr *)to, sizeof *to);
    sqe->user_data = tag_of(l, OP_CONNECT, c);
}

static void
open_more(struct load *l)
{
    if (l->storm_timed)
        return;
    while (l->next_open < l->n_conns && l->opening < l->conf.concurrency)
        open_conn(l, &l->conns[l->next_open++]);
    uint64_t now = l->reopen ? mono_now().ns : 0;
    if (!l->reopen || now < l->reopen_at)
        return;
    l->reopen_at = now + REOPEN_NS;
    for (uint32_t i = 0; i < l->n_conns && l->opening < l->conf.concurrency; i++)
        if (l->conns[i].state == LOAD_DEAD)
            open_conn(l, &l->conns[i]);
}

bool
load_open_one(struct load *l)
{
    for (uint32_t i = 0; i < l->n_conns; i++) {
        struct load_conn *c = &l->conns[l->next_open];
        l->next_open = (l->next_open + 1) % l->n_conns;
        if (c->state == LOAD_UNBORN || c->state == LOAD_DEAD) {
            open_conn(l, c);
            return true;
        }
    }
    return false;
}

static void
count_out(struct load *l, const struct load_conn *c)
{
    if (c->state < LOAD_READY)
        l->opening--;
    else if (c->state == LOAD_READY)
        l->ready--;
    l->paused -= c->state == LOAD_READY && c->paused;
}

/* Nothing of the connection is in the kernel's hands, or only its receive, whose end is dropped. */
static void
bury(struct load *l, struct load_conn *c)
{
    count_out(l, c);
    close(c->fd);
    c->state = LOAD_DEAD;
    c->paused = false;
    c->gen++;
    tls_free(c->tls);
    pmd_stream_free(c->unpack);
    c->tls = NULL;
    c->unpack = NULL;
    if (c->tx != NULL)
        c->tx->n[0] = c->tx->n[1] = c->tx->plain_n = 0;
    if (l->storm && !l->storm_timed && l->opening < l->conf.concurrency)
        open_conn(l, c);
}

/* Ends a connection. Reset instead of a lingering close: no port stays in TIME_WAIT. */
static void
leave(struct load *l, struct load_conn *c)
{
    struct linger hard = {.l_onoff = 1, .l_linger = 0};
    (void)setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    if (!c->recv_armed && (c->tx == NULL || !c->tx->flying)) {
        bury(l, c);
        return;
    }
    count_out(l, c);
    c->state = LOAD_LEAVING;
    for (int i = 0; i < 2; i++) {
        struct io_uring_sqe *sqe = get_sqe(l);
        io_uring_prep_cancel64(sqe, tag_of(l, i == 0 ? OP_RECV : OP_SEND, c), 0);
        sqe->user_data = tag_of(l, OP_CANCEL, c);
    }
}

/* Ends a connection that did not get where it should; says why the first time. */
static void
refuse(struct load *l, struct load_conn *c, const char *why, const void *text, size_t n)
{
    if (l->count.refused++ == 0 && !l->storm && !l->reopen)
        fprintf(stderr, "ringcast-bench: %s%s%.*s\n", why, n > 0 ? ": " : "", (int)MIN(n, 300u),
            (const char *)text);
    leave(l, c);
}

/* The server ended a connection. */
static void
ended(struct load *l, struct load_conn *c, const char *how)
{
    if (c->slow && c->state == LOAD_READY)
        c->gone = true; /* which some servers do to slow readers */
    else if (l->count.disconnects++ == 0 && !l->reopen)
        fprintf(stderr, "ringcast-bench: the server ended a connection (%s)\n", how);
    leave(l, c);
}

/* A connection of a storm has got as far as it should. */
static void
storm_done(struct load *l, struct load_conn *c)
{
    l->count.opened++;
    if (l->lat != NULL && c->born_ns >= l->win0 && c->born_ns < l->win1)
        hist_add(l->lat, l->now - c->born_ns);
    leave(l, c);
}

static void
pause_reading(struct load *l, struct load_conn *c)
{
    struct io_uring_sqe *sqe = get_sqe(l);
    c->paused = true;
    l->paused++;
    io_uring_prep_cancel64(sqe, tag_of(l, OP_RECV, c), 0);
    sqe->user_data = tag_of(l, OP_CANCEL, c);
}

/* Asks for the other half: subscribe, then unsubscribe. */
static void
churn_next(struct load *l, struct load_conn *c)
{
    const struct speak_conf *speak = &l->conf.speak;
    char text[SPEAK_MAX];
    c->churn_in = !c->churn_in;
    c->born_ns = l->now;
    if (c->churn_in)
        c->churn_group = l->churn_first + zipf_pick(l->churn, sched_uniform(&l->random));
    const char *channel = l->groups[c->churn_group].channel;
    say(l, c, text, (c->churn_in ? speak->as->subscribe : speak->as->unsubscribe)(speak, channel, text));
}

static void
churn_done(struct load *l, struct load_conn *c)
{
    l->count.churned++;
    /* Beside deliveries (mixed) the histogram is theirs alone. */
    if (l->churn_first == 0 && c->born_ns >= l->win0 && c->born_ns < l->win1)
        hist_add(l->lat, l->now - c->born_ns);
    churn_next(l, c);
}

static void
become_ready(struct load *l, struct load_conn *c)
{
    if (l->storm) {
        storm_done(l, c);
        return;
    }
    c->state = LOAD_READY;
    l->opening--;
    l->ready++;
    l->count.opened++;
    if (l->reopen && l->lat != NULL)
        hist_add(l->lat, l->now - l->win0);
    if (c->churns)
        churn_next(l, c);
    else if (c->slow)
        pause_reading(l, c);
}

/* The path with {channel} and {role} filled in. */
static void
path_of(const struct load *l, const struct load_conn *c, char *to, size_t cap)
{
    const char *role = c->subscribes && c->publishes ? "both" : c->publishes ? "pub" : "sub";
    const char *channel = l->groups[c->group].channel;
    size_t n = 0;
    for (const char *p = l->conf.path; *p != 0;) {
        bool is_channel = strncmp(p, "{channel}", 9) == 0, is_role = strncmp(p, "{role}", 6) == 0;
        char one[2] = {*p, 0};
        const char *add = is_channel ? channel : is_role ? role : one;
        if (n + strlen(add) >= cap)
            die("the path is too long");
        n += (size_t)(stpcpy(to + n, add) - (to + n));
        p += is_channel ? 9 : is_role ? 6 : 1;
    }
    to[n] = 0;
}

static void
send_request(struct load *l, struct load_conn *c)
{
    char text[768], path[256];
    const char *protocol = l->conf.speak.as->subprotocol;
    path_of(l, c, path, sizeof path);
    int n = snprintf(text, sizeof text,
        "GET %s HTTP/1.1\r\nHost: %s:%u\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: " WS_KEY "\r\nSec-WebSocket-Version: 13\r\n%s%s%s%s\r\n",
        path, l->conf.host != NULL ? l->conf.host : "127.0.0.1", ntohs(l->conf.to.sin_port),
        protocol != NULL ? "Sec-WebSocket-Protocol: " : "", protocol != NULL ? protocol : "",
        protocol != NULL ? "\r\n" : "", l->conf.deflate ? "Sec-WebSocket-Extensions: " PMD_OFFER "\r\n" : "");
    if (n < 0 || (size_t)n >= sizeof text)
        die("the path is too long");
    c->state = LOAD_UPGRADING;
    memcpy(tx_room(l, c, (uint32_t)n), text, (size_t)n);
}

/* What a connection says next, where it stands between connected and ready. */
static void
go_on(struct load *l, struct load_conn *c)
{
    const struct speak_conf *speak = &l->conf.speak;
    char text[SPEAK_MAX];
    size_t n;
    if (c->state < LOAD_SHAKING) {
        c->state = LOAD_SHAKING;
        if ((n = speak->as->open(text)) > 0)
            say(l, c, text, n);
        if (speak->as->opens)
            return;
    }
    if (c->state == LOAD_SHAKING && c->subscribes &&
        (n = speak->as->subscribe(speak, l->groups[c->group].channel, text)) > 0) {
        c->state = LOAD_SUBSCRIBING;
        say(l, c, text, n);
        if (speak->as->answers == NULL || speak->as->answers(speak))
            return;
    }
    become_ready(l, c);
}

/* The transport stands: TCP, or TLS on it. */
static void
connected(struct load *l, struct load_conn *c)
{
    switch (l->conf.wire) {
    case LOAD_WEBSOCKET: send_request(l, c); break;
    case LOAD_STREAM: go_on(l, c); break;
    case LOAD_FLOOR: become_ready(l, c); break;
    }
}

/* Goes on with the TLS handshake; true when it is done. */
static bool
secure(struct load *l, struct load_conn *c)
{
    int rc = tls_handshake(c->tls);
    if (rc < 0) {
        const char *why = tls_why();
        refuse(l, c, "TLS handshake", why, strlen(why));
        return false;
    }
    if (rc == 0)
        return false;
    if (l->count.secured++ == 0)
        tls_describe(c->tls, l->tls_terms, sizeof l->tls_terms);
    l->count.resumed += tls_resumed(c->tls);
    connected(l, c);
    return true;
}

static void
on_connect(struct load *l, struct load_conn *c, int res)
{
    if (res < 0) {
        refuse(l, c, "connect", strerror(-res), strlen(strerror(-res)));
        return;
    }
    arm_recv(l, c);
    if (l->tls != NULL) {
        c->state = LOAD_SECURING;
        c->tls = tls_new(l->tls, (uint32_t)(c - l->conns));
        (void)secure(l, c); /* the first flight goes out */
    } else {
        connected(l, c);
    }
}

/* --- what arrives -------------------------------------------------------------------------- */

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

/* What was asked for last is done. */
static void
on_answer(struct load *l, struct load_conn *c)
{
    if (c->state == LOAD_SHAKING)
        go_on(l, c);
    else if (c->state == LOAD_SUBSCRIBING)
        become_ready(l, c);
    else if (c->churns && c->state == LOAD_READY)
        churn_done(l, c);
    else
        l->count.foreign++;
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
    case SPEAK_DONE: on_answer(l, c); break;
    case SPEAK_PING: l->count.pings++; break;
    case SPEAK_NOTED: break;
    case SPEAK_FAILED: refuse(l, c, "the server answered", p, n); return;
    case SPEAK_OTHER: on_foreign(l, c, p, n); break;
    }
    if (reply.any)
        send_message(l, c, reply.as_text ? FRAME_OP_TEXT : op_of(l), reply.bytes, reply.n);
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
keep(uint8_t **part, uint32_t *part_n, uint32_t *cap, const uint8_t *p, size_t n)
{
    if (*part_n + n > PART_MAX)
        die("the server sent %zu bytes without an end", *part_n + n);
    if (*cap - *part_n < n) {
        *cap = (uint32_t)pow2_ceil(MAX(*part_n + n, 512u));
        *part = xrealloc(*part, *cap);
    }
    memcpy(*part + *part_n, p, n);
    *part_n += (uint32_t)n;
}

/* A piece of a stream that comes inside WebSocket messages. */
static void
on_piece(struct load *l, struct load_conn *c, const uint8_t *p, size_t n)
{
    bool kept = c->rest_n > 0;
    if (kept) {
        keep(&c->rest, &c->rest_n, &c->rest_cap, p, n);
        p = c->rest;
        n = c->rest_n;
    }
    size_t at = 0, len;
    while (at < n && c->state < LOAD_LEAVING && (len = message_length(l, c, p + at, n - at)) != 0 && len <= n - at) {
        on_message(l, c, p + at, len);
        at += len;
    }
    if (kept) {
        memmove(c->rest, c->rest + at, n - at);
        c->rest_n = (uint32_t)(n - at);
    } else if (at < n) {
        keep(&c->rest, &c->rest_n, &c->rest_cap, p + at, n - at);
    }
}

/* A WebSocket frame that is no message: RFC 6455 section 5.5. */
static void
on_control(struct load *l, struct load_conn *c, uint8_t op, const uint8_t *p, size_t n)
{
    if (op == 9) {
        l->count.pings++;
        send_message(l, c, FRAME_OP_PONG, p, MIN(n, 125u));
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

static void
keep_part(struct load_conn *c, const uint8_t *p, size_t n)
{
    keep(&c->part, &c->part_n, &c->part_cap, p, n);
}

/* Completes the frame that was begun; returns how many of the n bytes it took. */
static size_t
eat_into_part(struct load *l, struct load_conn *c, const uint8_t *p, size_t n)
{
    size_t took = 0, head = 0, len;
    uint8_t op = 0;
    while ((len = frame_length(l, c, c->part, c->part_n, &head, &op)) == 0) {
        if (took == n)
            return took;
        keep_part(c, p + took++, 1);
    }
    size_t more = MIN(len - c->part_n, n - took);
    keep_part(c, p + took, more);
    took += more;
    if (c->part_n == len) {
        c->part_n = 0;
        on_unit(l, c, c->part, head, len, op);
    }
    return took;
}

/* The response head is whole: what was agreed. False if it is not what was asked for. */
static bool
take_head(struct load *l, struct load_conn *c, size_t n)
{
    const char *head = (const char *)c->part;
    struct pmd_terms terms;
    if (memcmp(head, "HTTP/1.1 101 ", 13) != 0 || memmem(head, n, WS_ACCEPT, sizeof WS_ACCEPT - 1) == NULL) {
        refuse(l, c, "upgrade refused", head, strcspn(head, "\r"));
        return false;
    }
    if (!pmd_terms_read(&terms, head, n) || (terms.agreed && !l->conf.deflate))
        die("the server answered with extensions that were not offered");
    c->pack_bits = 0;
    if (!l->conf.deflate)
        return true;
    if (!terms.agreed)
        die("--deflate: the server does not agree to permessage-deflate");
    c->pack_bits = terms.client_bits;
    if (!terms.server_forgets)
        c->unpack = pmd_stream_new();
    return true;
}

/* The answer to the upgrade; returns how many of the n bytes it took. */
static size_t
eat_http(struct load *l, struct load_conn *c, const uint8_t *p, size_t n)
{
    keep_part(c, p, n);
    uint8_t *end = memmem(c->part, c->part_n, "\r\n\r\n", 4);
    if (end == NULL)
        return n;
    size_t head = (size_t)(end + 4 - c->part), behind = c->part_n - head;
    c->part_n = 0;
    if (!take_head(l, c, head))
        return n;
    if (l->storm && l->conf.depth == LOAD_TO_UPGRADE) {
        storm_done(l, c);
        return n;
    }
    go_on(l, c);
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

/* What arrived on a TLS connection. */
static void
on_cipher(struct load *l, struct load_conn *c, const uint8_t *p, size_t n)
{
    if (c->state == LOAD_SECURING && l->storm && l->conf.depth == LOAD_TO_HELLO) {
        storm_done(l, c);
        return;
    }
    tls_feed(c->tls, p, n);
    if (c->state == LOAD_SECURING && !secure(l, c))
        return;
    while (c->state < LOAD_LEAVING) {
        int got = tls_read(c->tls, l->clear, CLEAR_BYTES);
        if (got == 0)
            return;
        if (got < 0) {
            ended(l, c, tls_why());
            return;
        }
        on_bytes(l, c, l->clear, (size_t)got);
    }
}

/* --- completions --------------------------------------------------------------------------- */

/* The receive of a connection that we or the other side ended. */
static void
on_recv_end(struct load *l, struct load_conn *c, int res)
{
    bool flying = c->tx != NULL && c->tx->flying;
    if (c->state == LOAD_LEAVING) {
        if (!flying)
            bury(l, c); /* else the send's completion does */
        return;
    }
    ended(l, c, res < 0 ? strerror(-res) : "end of stream");
}

static void
on_recv(struct load *l, struct load_conn *c, const struct io_uring_cqe *cqe)
{
    l->count.recvs++;
    if (cqe->flags & IORING_CQE_F_BUFFER) {
        uint16_t id = (uint16_t)(cqe->flags >> IORING_CQE_BUFFER_SHIFT);
        const uint8_t *p = l->bufs + (size_t)id * l->conf.buffer_bytes;
        l->now = mono_now().ns;
        if (cqe->res > 0)
            l->count.wire_bytes += (uint64_t)cqe->res;
        if (cqe->res > 0 && c->state < LOAD_LEAVING && c->tls != NULL)
            on_cipher(l, c, p, (size_t)cqe->res);
        else if (cqe->res > 0 && c->state < LOAD_LEAVING)
            on_bytes(l, c, p, (size_t)cqe->res);
        give_buffer(l, id);
    }
    if (cqe->flags & IORING_CQE_F_MORE)
        return;
    c->recv_armed = false;
    if (cqe->res == -ENOBUFS)
        l->count.no_buffers++;
    if (c->paused && c->state == LOAD_READY && (cqe->res > 0 || cqe->res == -ECANCELED))
        return;
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
    else if (!c->publishes && c->state == LOAD_READY && !t->dirty && t->plain_n == 0)
        free_tx(c);
}

static void
on_cqe(struct load *l, const struct io_uring_cqe *cqe)
{
    struct load_conn *c = &l->conns[(uint32_t)cqe->user_data];
    if ((cqe->user_data >> 32 & GEN_MASK) != (c->gen & GEN_MASK)) {
        if (cqe->flags & IORING_CQE_F_BUFFER)
            give_buffer(l, (uint16_t)(cqe->flags >> IORING_CQE_BUFFER_SHIFT));
        return;
    }
    switch ((enum op)(cqe->user_data >> 56)) {
    case OP_CONNECT: on_connect(l, c, cqe->res); break;
    case OP_RECV: on_recv(l, c, cqe); break;
    case OP_SEND: on_send(l, c, cqe->res); break;
    case OP_CANCEL: break; /* the receive itself answers */
    }
}

/* Queues a publish, packed if that was agreed and it is long enough. */
static void
put_publish(struct load *l, struct load_conn *c, const struct frame_pair *f, uint64_t seq, uint64_t due)
{
    static _Thread_local uint8_t text[65536], packed[65536];
    size_t n = 0;
    if (c->pack_bits != 0 && f->out.n >= l->conf.deflate_min) {
        frame_stamp(f, text, seq, due);
        n = pmd_pack(l->pmd, c->pack_bits, text, f->out.n, packed, sizeof packed - 1);
    }
    if (n > 0)
        (void)frame_wrap(tx_room(l, c, (uint32_t)n + (n < 126 ? 6 : 8)), op_of(l) | FRAME_PACKED, packed, n);
    else
        frame_publish(f, tx_room(l, c, f->wire_n), seq, due);
}

static void
publish(struct load *l, struct load_group *g, const struct frame_pair *f, uint64_t due)
{
    struct load_conn *c = &l->conns[g->publisher];
    if (c->state != LOAD_READY)
        return;
    put_publish(l, c, f, g->published, due);
    g->left[g->published & l->left_mask] = g->subscribers;
    g->published++;
    l->count.published++;
}

void
load_publish(struct load *l, uint32_t group, uint64_t due)
{
    publish(l, &l->groups[group], &l->groups[group].frame, due);
}

void
load_publish_size(struct load *l, uint32_t group, uint32_t size, uint64_t due)
{
    publish(l, &l->groups[group], &l->groups[group].size[size], due);
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

void
load_resume_slow(struct load *l)
{
    int large = 1 << 20;
    for (uint32_t i = 0; i < l->n_conns; i++) {
        struct load_conn *c = &l->conns[i];
        if (!c->paused || c->state != LOAD_READY)
            continue;
        (void)setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &large, sizeof large);
        c->paused = false;
        l->paused--;
        if (!c->recv_armed)
            arm_recv(l, c);
    }
}

struct load_slow
load_slow_now(const struct load *l)
{
    struct load_slow s = {0};
    for (uint32_t i = 0; i < l->n_conns; i++) {
        const struct load_conn *c = &l->conns[i];
        uint64_t published = l->groups[c->group].published;
        if (!c->slow)
            continue;
        s.ended += c->gone;
        s.level += !c->gone && c->seq.next == published;
        s.missed += published - c->seq.got;
        s.told += c->told;
        s.even += !c->gone && c->seq.next == published && c->seq.got + c->told == published;
    }
    return s;
}

uint64_t
load_missing(const struct load *l)
{
    uint64_t missing = 0;
    for (uint32_t i = 0; i < l->n_conns; i++)
        if (l->conns[i].subscribes && !l->conns[i].slow)
            missing += l->groups[l->conns[i].group].published - l->conns[i].seq.got;
    return missing;
}
