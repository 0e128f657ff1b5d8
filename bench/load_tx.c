#include "bench/load_tx.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "bench/load_conn.h"
#include "common/bug.h"

#define TX_MAX (64u << 20)

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

uint8_t *
load_tx_room(struct load *l, struct load_conn *c, uint32_t n)
{
    if (c->tls == NULL)
        return wire_room(l, c, n);
    struct load_tx *t = tx_of(l, c);
    return room_in(&t->plain, &t->plain_n, &t->plain_cap, n);
}

void
load_tx_cipher(void *arg, uint32_t conn, const uint8_t *p, size_t n)
{
    struct load *l = arg;
    memcpy(wire_room(l, &l->conns[conn], (uint32_t)n), p, n);
}

void
load_tx_message(struct load *l, struct load_conn *c, uint8_t first, const void *p, size_t n)
{
    uint8_t frame[SPEAK_MAX + 8];
    BUG_ON(n > SPEAK_MAX);
    if (l->conf.wire == LOAD_WEBSOCKET) {
        uint32_t total = frame_wrap(frame, first, p, n);
        memcpy(load_tx_room(l, c, total), frame, total);
    } else if (n > 0) {
        memcpy(load_tx_room(l, c, (uint32_t)n), p, n);
    }
}

uint8_t
load_tx_op(const struct load *l)
{
    return l->conf.speak.as->binary ? FRAME_OP_BINARY : FRAME_OP_TEXT;
}

void
load_tx_say(struct load *l, struct load_conn *c, const char *p, size_t n)
{
    load_tx_message(l, c, load_tx_op(l), p, n);
}

static void
submit_send(struct load *l, struct load_conn *c)
{
    struct load_tx *t = c->tx;
    uint32_t b = t->fill ^ 1u;
    struct io_uring_sqe *sqe = load_ring_sqe(&l->ring);
    io_uring_prep_send(sqe, c->fd, t->p[b] + t->off, t->n[b] - t->off, MSG_NOSIGNAL);
    sqe->user_data = load_conn_tag(l, LOAD_OP_SEND, c);
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

void
load_tx_flush(struct load *l)
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

void
load_tx_free(struct load_conn *c)
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
load_tx_on_send(struct load *l, struct load_conn *c, int res)
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
        load_conn_on_end(l, c, 0);
        return;
    }
    if (res < 0)
        return; /* the receive tells of the same end */
    if (t->n[t->fill] > 0)
        start_send(l, c);
    else if (!c->publishes && c->state == LOAD_READY && !t->dirty && t->plain_n == 0)
        load_tx_free(c);
}
