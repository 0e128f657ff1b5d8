#include "bench/load_conn.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/load_tx.h"
#include "bench/sched.h"
#include "common/bug.h"
#include "common/mono.h"

#define SLOW_RCVBUF 4096
#define REOPEN_NS 5000000ull /* between two looks for connections that ended */

/* RFC 6455 section 1.3 gives this key and its answer, so that no SHA-1 is needed here. */
#define WS_KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define WS_ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

void
load_conn_arm(struct load *l, struct load_conn *c)
{
    struct io_uring_sqe *sqe = load_ring_sqe(&l->ring);
    io_uring_prep_recv_multishot(sqe, c->fd, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = LOAD_RING_GROUP;
    sqe->user_data = load_conn_tag(l, LOAD_OP_RECV, c);
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

void
load_conn_open(struct load *l, struct load_conn *c)
{
    const struct sockaddr_in *to = c->publishes ? &l->conf.to_publish : &l->conf.to;
    c->fd = new_socket(l, c);
    c->gen++;
    c->state = LOAD_CONNECTING;
    c->born_ns = mono_now().ns;
    load_rx_reset(&c->rx);
    c->recv_armed = false;
    l->opening++;
    struct io_uring_sqe *sqe = load_ring_sqe(&l->ring);
    io_uring_prep_connect(sqe, c->fd, (const struct sockaddr *)to, sizeof *to);
    sqe->user_data = load_conn_tag(l, LOAD_OP_CONNECT, c);
}

void
load_conn_open_more(struct load *l)
{
    if (l->storm_timed)
        return;
    while (l->next_open < l->n_conns && l->opening < l->conf.concurrency)
        load_conn_open(l, &l->conns[l->next_open++]);
    uint64_t now = l->reopen ? mono_now().ns : 0;
    if (!l->reopen || now < l->reopen_at)
        return;
    l->reopen_at = now + REOPEN_NS;
    for (uint32_t i = 0; i < l->n_conns && l->opening < l->conf.concurrency; i++)
        if (l->conns[i].state == LOAD_DEAD)
            load_conn_open(l, &l->conns[i]);
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
        load_conn_open(l, c);
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
        struct io_uring_sqe *sqe = load_ring_sqe(&l->ring);
        io_uring_prep_cancel64(sqe, load_conn_tag(l, i == 0 ? LOAD_OP_RECV : LOAD_OP_SEND, c), 0);
        sqe->user_data = load_conn_tag(l, LOAD_OP_CANCEL, c);
    }
}

void
load_conn_refuse(struct load *l, struct load_conn *c, const char *why, const void *text, size_t n)
{
    if (l->count.refused++ == 0 && !l->storm && !l->reopen)
        fprintf(stderr, "ringcast-bench: %s%s%.*s\n", why, n > 0 ? ": " : "", (int)MIN(n, 300u),
            (const char *)text);
    leave(l, c);
}

void
load_conn_ended(struct load *l, struct load_conn *c, const char *how)
{
    if (c->slow && c->state == LOAD_READY)
        c->gone = true; /* which some servers do to slow readers */
    else if (l->count.disconnects++ == 0 && !l->reopen)
        fprintf(stderr, "ringcast-bench: the server ended a connection (%s)\n", how);
    leave(l, c);
}

void
load_conn_storm_done(struct load *l, struct load_conn *c)
{
    l->count.opened++;
    if (l->lat != NULL && c->born_ns >= l->win0 && c->born_ns < l->win1)
        hist_add(l->lat, l->now - c->born_ns);
    leave(l, c);
}

static void
pause_reading(struct load *l, struct load_conn *c)
{
    struct io_uring_sqe *sqe = load_ring_sqe(&l->ring);
    c->paused = true;
    l->paused++;
    io_uring_prep_cancel64(sqe, load_conn_tag(l, LOAD_OP_RECV, c), 0);
    sqe->user_data = load_conn_tag(l, LOAD_OP_CANCEL, c);
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
    load_tx_say(l, c, text, (c->churn_in ? speak->as->subscribe : speak->as->unsubscribe)(speak, channel, text));
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
        load_conn_storm_done(l, c);
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
    memcpy(load_tx_room(l, c, (uint32_t)n), text, (size_t)n);
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
            load_tx_say(l, c, text, n);
        if (speak->as->opens)
            return;
    }
    if (c->state == LOAD_SHAKING && c->subscribes &&
        (n = speak->as->subscribe(speak, l->groups[c->group].channel, text)) > 0) {
        c->state = LOAD_SUBSCRIBING;
        load_tx_say(l, c, text, n);
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

bool
load_conn_secure(struct load *l, struct load_conn *c)
{
    int rc = tls_handshake(c->tls);
    if (rc < 0) {
        const char *why = tls_why();
        load_conn_refuse(l, c, "TLS handshake", why, strlen(why));
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

void
load_conn_on_connect(struct load *l, struct load_conn *c, int res)
{
    if (res < 0) {
        load_conn_refuse(l, c, "connect", strerror(-res), strlen(strerror(-res)));
        return;
    }
    load_conn_arm(l, c);
    if (l->tls != NULL) {
        c->state = LOAD_SECURING;
        c->tls = tls_new(l->tls, (uint32_t)(c - l->conns));
        (void)load_conn_secure(l, c); /* the first flight goes out */
    } else {
        connected(l, c);
    }
}

/* The response head: what was agreed. False if it is not what was asked for. */
static bool
take_head(struct load *l, struct load_conn *c, const char *head, size_t n)
{
    struct pmd_terms terms;
    if (memcmp(head, "HTTP/1.1 101 ", 13) != 0 || memmem(head, n, WS_ACCEPT, sizeof WS_ACCEPT - 1) == NULL) {
        load_conn_refuse(l, c, "upgrade refused", head, strcspn(head, "\r"));
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

bool
load_conn_on_upgrade(struct load *l, struct load_conn *c, const char *head, size_t n)
{
    if (!take_head(l, c, head, n))
        return false;
    if (l->storm && l->conf.depth == LOAD_TO_UPGRADE) {
        load_conn_storm_done(l, c);
        return false;
    }
    go_on(l, c);
    return true;
}

void
load_conn_on_answer(struct load *l, struct load_conn *c)
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

void
load_conn_on_end(struct load *l, struct load_conn *c, int res)
{
    bool flying = c->tx != NULL && c->tx->flying;
    if (c->state == LOAD_LEAVING) {
        if (!flying)
            bury(l, c); /* else the send's completion does */
        return;
    }
    load_conn_ended(l, c, res < 0 ? strerror(-res) : "end of stream");
}

void
load_conn_free(struct load_conn *c)
{
    if (c->state != LOAD_UNBORN && c->state != LOAD_DEAD)
        close(c->fd);
    load_tx_free(c);
    tls_free(c->tls);
    pmd_stream_free(c->unpack);
    load_rx_free(&c->rx);
}
