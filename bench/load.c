#include "bench/load.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "bench/load_conn.h"
#include "bench/load_tx.h"
#include "common/bug.h"
#include "common/mono.h"

static void
init_tls(struct load *l)
{
    struct tls_conf conf = {.host = l->conf.host, .only_12 = l->conf.tls_12, .resume = l->conf.resume,
        .put = load_tx_cipher, .arg = l};
    l->tls = tls_shared_new(&conf);
    l->clear = xmalloc(LOAD_CLEAR_BYTES);
}

void
load_init(struct load *l, const struct load_conf *conf, uint32_t conns, uint32_t groups)
{
    memset(l, 0, sizeof *l);
    l->conf = *conf;
    load_ring_init(&l->ring, conf->buffers, conf->buffer_bytes);
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

void
load_free(struct load *l)
{
    load_ring_free(&l->ring); /* first: see there */
    for (uint32_t i = 0; i < l->n_conns; i++)
        load_conn_free(&l->conns[i]);
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

bool
load_open_one(struct load *l)
{
    for (uint32_t i = 0; i < l->n_conns; i++) {
        struct load_conn *c = &l->conns[l->next_open];
        l->next_open = (l->next_open + 1) % l->n_conns;
        if (c->state == LOAD_UNBORN || c->state == LOAD_DEAD) {
            load_conn_open(l, c);
            return true;
        }
    }
    return false;
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
        (void)frame_wrap(load_tx_room(l, c, (uint32_t)n + (n < 126 ? 6 : 8)), load_tx_op(l) | FRAME_PACKED, packed, n);
    else
        frame_publish(f, load_tx_room(l, c, f->wire_n), seq, due);
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

static void
on_cqe(struct load *l, const struct io_uring_cqe *cqe)
{
    struct load_conn *c = &l->conns[(uint32_t)cqe->user_data];
    if ((cqe->user_data >> 32 & LOAD_GEN_MASK) != (c->gen & LOAD_GEN_MASK)) {
        if (cqe->flags & IORING_CQE_F_BUFFER)
            load_ring_give(&l->ring, (uint16_t)(cqe->flags >> IORING_CQE_BUFFER_SHIFT));
        return;
    }
    switch ((enum load_op)(cqe->user_data >> 56)) {
    case LOAD_OP_CONNECT: load_conn_on_connect(l, c, cqe->res); break;
    case LOAD_OP_RECV: load_rx_on_recv(l, c, cqe); break;
    case LOAD_OP_SEND: load_tx_on_send(l, c, cqe->res); break;
    case LOAD_OP_CANCEL: break; /* the receive itself answers */
    }
}

void
load_turn(struct load *l, uint64_t until)
{
    struct io_uring_cqe *cqe;
    load_conn_open_more(l);
    load_tx_flush(l);
    uint64_t now = mono_now().ns;
    uint64_t wait = until > now && !l->conf.spin ? until - now : 0;
    struct __kernel_timespec ts = {(int64_t)(wait / 1000000000), (int64_t)(wait % 1000000000)};
    int rc = io_uring_submit_and_wait_timeout(&l->ring.io, &cqe, 1, &ts, NULL);
    if (rc < 0 && rc != -ETIME && rc != -EINTR && rc != -EBUSY && rc != -EAGAIN)
        die("waiting on the ring: %s", strerror(-rc));
    l->count.turns++;
    l->now = mono_now().ns;
    unsigned head, seen = 0;
    io_uring_for_each_cqe(&l->ring.io, head, cqe)
    {
        on_cqe(l, cqe);
        seen++;
    }
    io_uring_cq_advance(&l->ring.io, seen);
    load_tx_flush(l);
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
            load_conn_arm(l, c);
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
