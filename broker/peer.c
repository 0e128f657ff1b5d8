#include "broker/peer.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker/across.h"
#include "broker/ask.h"
#include "broker/chan.h"
#include "broker/metrics.h"
#include "broker/tally.h"
#include "common/bug.h"
#include "common/shm.h"

/* The overflow's marks: above half of lane.overflow_bytes publishers are stopped, below an eighth they
 * go on. The other half is for what they had under way. */
#define HIGH(b) ((b)->conf->lane_overflow_bytes / 2)
#define LOW(b) ((b)->conf->lane_overflow_bytes / 8)
/* Records of our own bookkeeping (DONE, FAILED, XOFF, XON) may exceed it by this much. */
#define BOOKKEEPING (1u << 20)
/* Pairs of ring and channel that wait for one ring; the list is walked while it is behind. */
#define BLOCKED_MAX 256

static void
watch(struct broker *b, struct peer *p, enum broker_op op)
{
    struct io_uring_sqe *sqe = ring_sqe(&b->ring);
    io_uring_prep_poll_add(sqe, p->fd, POLLIN | POLLRDHUP);
    ring_set_tag(sqe, op, p->head.gen, peer_slot(b, p));
    p->inflight++;
}

void
peer_new(struct broker *b, int fd)
{
    struct peer *p = pool_get(&b->peers);
    if (p == NULL) {
        log_warn("attach-refused", "why=\"more than %d rings\"", PEERS_MAX);
        COUNT(b, refused_attach_total);
        close(fd);
        return;
    }
    p->fd = fd;
    p->since = b->now;
    watch(b, p, OP_HELLO);
}

/* -- attach -- */

struct greeting {
    struct ipc_hello hello;
    int fd;
    unsigned fd_count;
    uid_t uid;
};

/* One is expected. The room for it is rounded up, so that more may arrive than were asked for; they
 * are ours then, and must be closed. */
static void
take_fds(struct greeting *g, struct cmsghdr *c)
{
    size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < n; i++) {
        int fd;
        memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
        if (g->fd_count++ == 0)
            g->fd = fd;
        else
            close(fd);
    }
}

static bool
receive_hello(struct peer *p, struct greeting *g)
{
    char control[CMSG_SPACE(sizeof(int))];
    struct iovec iov = {&g->hello, sizeof g->hello};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t n = recvmsg(p->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); n >= 0 && c != NULL; c = CMSG_NXTHDR(&m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        take_fds(g, c);
    }
    return n == sizeof g->hello && g->fd_count == 1;
}

bool
peer_is_trusted(const struct broker *b, int fd)
{
    struct ucred cred;
    socklen_t n = sizeof cred;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &n) == 0 &&
        (cred.uid == geteuid() || cred.uid == 0 || cred.uid == b->worker_uid);
}

static const char *
judge_hello(struct broker *b, struct peer *p, const struct greeting *g)
{
    if (!peer_is_trusted(b, p->fd))
        return "another user's process";
    if (g->hello.magic != IPC_MAGIC || g->hello.version != IPC_VERSION)
        return "another version of the lanes: run worker and broker of one release";
    if (g->hello.table_hash != ipc_table_hash())
        return "another message table: run worker and broker of one release";
    if (!is_pow2(g->hello.lane_bytes) || g->hello.lane_bytes < 65536 || g->hello.lane_bytes > 1u << 30)
        return "lane.bytes out of range";
    if (g->hello.lane_bytes != b->conf->lane_bytes)
        return "lane.bytes differs: give worker and broker the same configuration";
    if (shm_attach(g->fd, ipc_segment_size(g->hello.lane_bytes), (void **)&p->seg) < 0)
        return "the segment is not of the announced size, or not sealed";
    p->seg_bytes = ipc_segment_size(g->hello.lane_bytes);
    return NULL;
}

static void
send_welcome(struct peer *p, const char *refusal)
{
    struct ipc_welcome w = {.magic = IPC_MAGIC, .ok = refusal == NULL};
    if (refusal != NULL)
        snprintf(w.sentence, sizeof w.sentence, "%s", refusal);
    (void)!send(p->fd, &w, sizeof w, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* Bytes its overflow may hold: the setting, a lane's worth under way, and our own bookkeeping. */
static size_t
overflow_max(const struct broker *b, const struct peer *p)
{
    return b->conf->lane_overflow_bytes + p->lane_bytes + BOOKKEEPING;
}

static void
peer_up(struct broker *b, struct peer *p, const struct greeting *g)
{
    p->state = PEER_UP;
    p->lane_bytes = g->hello.lane_bytes;
    p->worker = g->hello.worker;
    p->ring = g->hello.ring;
    p->pid = g->hello.pid;
    lane_init(&p->in, ipc_lane_out(p->seg), p->lane_bytes, false);
    lane_init(&p->out, ipc_lane_back(p->seg, p->lane_bytes), p->lane_bytes, true);
    p->overflow = buf_make(overflow_max(b, p));
    atomic_store(&p->seg->broker_beat_ns, b->now.ns);
    GAUGE(b, peers, b->metrics[BM_peers] + 1);
    COUNT(b, attached_total);
    log_info("attached", "worker=%u ring=%u pid=%d", p->worker, p->ring, p->pid);
    watch(b, p, OP_BELL);
}

void
peer_on_hello(struct broker *b, struct peer *p, struct ring_done d)
{
    struct greeting g = {.fd = -1};
    char first;
    if (p->state != PEER_GREETING || d.res < 0 || recv(p->fd, &first, 1, MSG_PEEK | MSG_DONTWAIT) == 0) {
        peer_drop(b, p, NULL); /* who left without a word wanted to know whether somebody is here */
        return;
    }
    if (ask_is_one(p->fd) && peer_is_trusted(b, p->fd)) {
        ask_take(b, p->fd);
        p->fd = -1;
        peer_drop(b, p, NULL);
        return;
    }
    const char *refusal = receive_hello(p, &g) ? judge_hello(b, p, &g) : "no proper greeting";
    send_welcome(p, refusal);
    if (g.fd >= 0)
        close(g.fd);
    if (refusal != NULL) {
        COUNT(b, refused_attach_total);
        log_warn("attach-refused", "worker=%u ring=%u why=\"%s\"", g.hello.worker, g.hello.ring, refusal);
        peer_drop(b, p, NULL);
        return;
    }
    peer_up(b, p, &g);
}

/* It hung up, but what it committed before counts. */
static void
peer_ended(struct broker *b, struct peer *p)
{
    if (p->state == PEER_UP)
        (void)peer_drain(b, p, p->lane_bytes / 8); /* more records than a lane can hold */
    peer_drop(b, p, "it hung up");
}

void
peer_on_bell(struct broker *b, struct peer *p, struct ring_done d)
{
    char bell[8];
    (void)d;
    ssize_t n = recv(p->fd, bell, sizeof bell, MSG_DONTWAIT);
    if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
        watch(b, p, OP_BELL);
    else
        peer_ended(b, p);
}

/* -- writing -- */

bool
peer_has_room(struct broker *b, struct peer *p, uint32_t n)
{
    if (p->state != PEER_UP)
        return true; /* written to nowhere */
    if (p->overflow.n == 0 && lane_has_room(&p->out, n))
        return true;
    return p->overflow.n - p->overflow_at + n <= b->conf->lane_overflow_bytes;
}

static uint8_t *
overflow_put(struct broker *b, struct peer *p, struct lane_record r)
{
    if (p->overflow_at > 0 && p->overflow_at >= p->overflow.n / 2) {
        buf_eat(&p->overflow, p->overflow_at);
        p->overflow_at = 0;
    }
    size_t size = align_up(sizeof r + r.n, 8);
    p->overflow.max = MAX(p->overflow.max, overflow_max(b, p)); /* a reload may have raised it */
    if (p->overflow_at > 0 && p->overflow.n + size > p->overflow.max) {
        buf_eat(&p->overflow, p->overflow_at);
        p->overflow_at = 0;
    }
    if (!buf_reserve(&p->overflow, size)) {
        p->corrupt = true; /* nothing may be skipped: the peer has to begin anew */
        return NULL;
    }
    uint8_t *at = p->overflow.p + p->overflow.n;
    memcpy(at, &r, sizeof r);
    p->overflow.n += size;
    b->overflow_bytes += size;
    return at + sizeof r;
}

uint8_t *
peer_put(struct broker *b, struct peer *p, enum ipc_type type, uint8_t flags, uint16_t aux, uint32_t n)
{
    if (p->state != PEER_UP)
        return NULL;
    if (LIKELY(p->overflow.n == 0)) {
        uint8_t *at = lane_put(&p->out, (uint8_t)type, flags, aux, n);
        if (LIKELY(at != NULL))
            return at;
    }
    return overflow_put(b, p, (struct lane_record){.n = n, .type = (uint8_t)type, .flags = flags, .aux = aux});
}

bool
peer_is_behind(const struct broker *b, const struct peer *p)
{
    return p->overflow.n - p->overflow_at > HIGH(b);
}

bool
peer_is_busy(const struct peer *p, uint32_t chan)
{
    for (uint32_t i = 0; i < p->busy_count; i++)
        if (p->busy[i] == chan)
            return true;
    return false;
}

static void
say_name(struct broker *b, struct peer *p, enum ipc_type type, struct view name)
{
    uint8_t *at = peer_put(b, p, type, 0, 0, (uint32_t)name.n);
    if (at != NULL && name.n)
        memcpy(at, name.p, name.n);
}

void
peer_xoff(struct broker *b, struct peer *behind, uint32_t source, struct view name)
{
    unsigned n = 0;
    for (struct blocked *k = behind->blocked; k != NULL; k = k->next, n++)
        if (k->source == source && k->source_gen == peer_at(b, source)->head.gen && view_eq(view_of(k->name, k->name_n), name))
            return;
    /* More than that are not told: the overflow's bound stops them. */
    struct blocked *k = n < BLOCKED_MAX ? malloc(sizeof *k + name.n) : NULL;
    if (k == NULL)
        return;
    struct peer *from = peer_at(b, source);
    *k = (struct blocked){.next = behind->blocked, .source = source, .source_gen = from->head.gen, .name_n = (uint16_t)name.n};
    if (name.n)
        memcpy(k->name, name.p, name.n);
    behind->blocked = k;
    COUNT(b, xoff_total);
    say_name(b, from, IPC_XOFF, name);
}

static void
unblock(struct broker *b, struct peer *p)
{
    struct blocked *k = p->blocked;
    p->blocked = NULL;
    for (struct blocked *next; k != NULL; k = next) {
        next = k->next;
        struct peer *from = pool_find(&b->peers, k->source, k->source_gen);
        if (from != NULL && from->state == PEER_UP)
            say_name(b, from, IPC_XON, view_of(k->name, k->name_n));
        free(k);
    }
}

/* What it had no room for, channel by channel; what still has none stays for the next time. */
static void
tell_missed(struct broker *b, struct peer *p)
{
    uint32_t slot = peer_slot(b, p);
    p->missing = false;
    for (uint32_t i = 0; i < p->chan_of_cap && !p->missing; i++) {
        if (p->chan_of[i] == 0)
            continue;
        struct chan *ch = pool_at(&b->chans, p->chan_of[i] - 1);
        struct interest *v = chan_interests(ch);
        for (unsigned k = 0; k < ch->count && !p->missing; k++)
            if (v[k].peer == slot && v[k].chan == i)
                p->missing = !chan_tell_missed(b, &v[k]);
    }
}

void
peer_catch_up(struct broker *b, struct peer *p)
{
    while (p->overflow_at < p->overflow.n) {
        struct lane_record r;
        memcpy(&r, p->overflow.p + p->overflow_at, sizeof r);
        uint8_t *at = lane_put(&p->out, r.type, r.flags, r.aux, r.n);
        if (at == NULL) {
            if (lane_want_room(&p->out, r.n))
                break;
            continue;
        }
        memcpy(at, p->overflow.p + p->overflow_at + sizeof r, r.n);
        size_t size = align_up(sizeof r + r.n, 8);
        p->overflow_at += size;
        b->overflow_bytes -= size;
    }
    if (p->overflow_at == p->overflow.n && p->overflow.n > 0) {
        buf_free(&p->overflow);
        p->overflow_at = 0;
    }
    if (UNLIKELY(p->missing) && p->overflow.n - p->overflow_at <= LOW(b))
        tell_missed(b, p);
    if (p->blocked != NULL && p->busy_count == 0 && p->overflow.n - p->overflow_at <= LOW(b))
        unblock(b, p);
}

/* A socket that takes no more holds a bell already. */
static void
ring_bell(struct peer *p)
{
    (void)!send(p->fd, IPC_BELL, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    p->bell_wanted = false;
}

static void
tell_done(struct broker *b, struct peer *p)
{
    if (p->done == 0)
        return;
    uint8_t *at = peer_put(b, p, IPC_DONE, 0, 0, 4);
    if (at != NULL)
        memcpy(at, &p->done, 4);
    p->done = 0;
}

static void
tell_one(struct broker *b, struct peer *p, enum error_id err)
{
    if (err == ERR_NONE) {
        p->done++;
        return;
    }
    tell_done(b, p);
    uint8_t *at = peer_put(b, p, IPC_FAILED, 0, 0, 4);
    uint32_t e = err;
    if (at != NULL)
        memcpy(at, &e, 4);
}

/* -- answers that wait -- */

bool
peer_can_defer(const struct peer *p)
{
    return p->answers.tail - p->answers.head < PEER_ANSWERS_MAX;
}

static bool
answers_grow(struct answers *a)
{
    uint32_t cap = a->cap ? a->cap * 2 : 64;
    uint16_t *v = malloc(cap * sizeof *v);
    if (v == NULL)
        return false;
    for (uint64_t i = a->head; i < a->tail; i++)
        v[i & (cap - 1)] = a->v[i & (a->cap - 1)];
    free(a->v);
    a->v = v;
    a->cap = cap;
    return true;
}

/* When memory is out nothing may be skipped: the ring has to begin anew. */
static uint64_t
answers_push(struct peer *p, uint16_t known)
{
    struct answers *a = &p->answers;
    if (a->tail - a->head == a->cap && !answers_grow(a)) {
        p->corrupt = true;
        return UINT64_MAX;
    }
    a->v[a->tail & (a->cap - 1)] = known;
    return a->tail++;
}

uint64_t
peer_defer(struct peer *p)
{
    return answers_push(p, 0);
}

void
peer_resolve(struct broker *b, uint32_t slot, uint32_t gen, uint64_t number, enum error_id err)
{
    struct peer *p = pool_find(&b->peers, slot, gen);
    if (p == NULL || p->state != PEER_UP || number < p->answers.head || number >= p->answers.tail)
        return;
    p->answers.v[number & (p->answers.cap - 1)] = (uint16_t)(err + 1);
}

static void
tell_known(struct broker *b, struct peer *p)
{
    struct answers *a = &p->answers;
    for (; a->head < a->tail; a->head++) {
        uint16_t known = a->v[a->head & (a->cap - 1)];
        if (known == 0)
            break;
        tell_one(b, p, (enum error_id)(known - 1));
    }
}

void
peer_show(struct broker *b, struct peer *p)
{
    (void)b;
    if (p->state == PEER_UP && lane_publish(&p->out))
        p->bell_wanted = true;
}

void
peer_flush(struct broker *b, struct peer *p)
{
    if (p->state != PEER_UP)
        return;
    if (UNLIKELY(p->answers.head != p->answers.tail))
        tell_known(b, p);
    tell_done(b, p);
    if (lane_release(&p->in))
        p->bell_wanted = true;
    if (lane_publish(&p->out))
        p->bell_wanted = true;
    if (p->bell_wanted)
        ring_bell(p);
}

/* -- reading: every record is judged before it is believed -- */

enum handled {
    HANDLED,
    HANDLE_LATER, /* leave it in the lane: a ring that wants it has no room */
    NONSENSE,
};

static void
answer(struct broker *b, struct peer *p, const struct lane_record *r, enum error_id err)
{
    if (err != ERR_NONE)
        log_warn("refused", "worker=%u ring=%u type=%u why=\"%s\"", p->worker, p->ring, r->type, error_message(err));
    if (!(r->flags & IPC_ANSWER))
        return;
    if (LIKELY(p->answers.head == p->answers.tail))
        tell_one(b, p, err);
    else
        answers_push(p, (uint16_t)(err + 1)); /* handle() saw to it that there is room */
}

static bool
remember(struct peer *p, uint32_t ring_chan, uint32_t slot)
{
    if (ring_chan >= p->chan_of_cap) {
        uint32_t cap = (uint32_t)MIN(pow2_ceil((uint64_t)ring_chan + 1), (uint64_t)IPC_CHANS_MAX);
        cap = MAX(cap, 64u);
        uint32_t *v = realloc(p->chan_of, cap * sizeof *v);
        if (v == NULL)
            return false;
        memset(v + p->chan_of_cap, 0, (cap - p->chan_of_cap) * sizeof *v);
        p->chan_of = v;
        p->chan_of_cap = cap;
    }
    p->chan_of[ring_chan] = slot + 1;
    return true;
}

/* What the ring's number stood for before, if anything. */
static void
forget(struct broker *b, struct peer *p, uint32_t ring_chan, const uint32_t *gen)
{
    if (ring_chan >= p->chan_of_cap || p->chan_of[ring_chan] == 0)
        return;
    struct chan *ch = pool_at(&b->chans, p->chan_of[ring_chan] - 1);
    struct interest *v = chan_interests(ch);
    uint32_t slot = peer_slot(b, p);
    for (unsigned k = 0; k < ch->count; k++) {
        if (v[k].peer != slot || v[k].chan != ring_chan)
            continue;
        if (gen != NULL && v[k].gen != *gen)
            return;
        p->chan_of[ring_chan] = 0;
        chan_leave(b, ch, v[k]);
        return;
    }
    p->chan_of[ring_chan] = 0;
}

void
peer_unwant(struct broker *b, uint32_t slot, uint32_t gen, uint32_t ring_chan, uint32_t ring_gen)
{
    struct peer *p = pool_find(&b->peers, slot, gen);
    if (p != NULL && p->state == PEER_UP)
        forget(b, p, ring_chan, &ring_gen);
}

static enum handled
subscribe_across(struct broker *b, struct peer *p, const struct lane_record *r, struct chan *ch, struct interest i)
{
    enum error_id err;
    enum across_rc rc = across_subscribe(b, p, ch, i, (r->flags & IPC_ANSWER) != 0, &err);
    if (rc == ACROSS_DONE) {
        if (err != ERR_NONE)
            forget(b, p, i.chan, &i.gen);
        answer(b, p, r, err);
    }
    return rc == ACROSS_LATER ? HANDLE_LATER : HANDLED;
}

static enum handled
publish_across(struct broker *b, struct peer *p, const struct lane_record *r, struct view name, struct view data)
{
    enum error_id err;
    enum across_rc rc =
        across_publish(b, p, name, (r->flags & IPC_HAS_DATA) != 0, data, (r->flags & IPC_ANSWER) != 0, &err);
    if (rc == ACROSS_DONE)
        answer(b, p, r, err);
    return rc == ACROSS_LATER ? HANDLE_LATER : HANDLED;
}

static enum handled
on_subscribe(struct broker *b, struct peer *p, const struct lane_record *r, const uint8_t *payload)
{
    uint32_t chan, gen;
    if (r->n < 8 || r->n - 8 > IPC_NAME_MAX)
        return NONSENSE;
    memcpy(&chan, payload, 4);
    memcpy(&gen, payload + 4, 4);
    if (chan >= IPC_CHANS_MAX)
        return NONSENSE;
    struct view name = view_of(payload + 8, r->n - 8);
    struct chan *ch = chan_find(b, name);
    if (ch == NULL || chan >= p->chan_of_cap || p->chan_of[chan] != pool_slot(&b->chans, ch) + 1) {
        forget(b, p, chan, NULL);
        ch = chan_want(b, name);
    }
    if (ch == NULL) {
        answer(b, p, r, ERR_BROKER_CHANNELS);
        return HANDLED;
    }
    struct interest i = {.peer = peer_slot(b, p), .chan = chan, .gen = gen};
    if (!chan_join(b, ch, i)) {
        answer(b, p, r, ERR_BROKER_CHANNELS);
        return HANDLED;
    }
    if (!remember(p, chan, pool_slot(&b->chans, ch))) {
        chan_leave(b, ch, i);
        answer(b, p, r, ERR_BROKER_CHANNELS);
        return HANDLED;
    }
    if (b->across != NULL)
        return subscribe_across(b, p, r, ch, i);
    answer(b, p, r, ERR_NONE);
    return HANDLED;
}

static enum handled
on_unsubscribe(struct broker *b, struct peer *p, const struct lane_record *r, const uint8_t *payload)
{
    uint32_t chan, gen;
    if (r->n != 8)
        return NONSENSE;
    memcpy(&chan, payload, 4);
    memcpy(&gen, payload + 4, 4);
    forget(b, p, chan, &gen);
    return HANDLED;
}

/* Who publishes to the channel next is told to stop, ring by ring (chan_publish), until EASED. */
static enum handled
on_busy(struct peer *p, const struct lane_record *r, const uint8_t *payload)
{
    uint32_t chan;
    if (r->n != 4)
        return NONSENSE;
    memcpy(&chan, payload, 4);
    if (p->busy_count < PEER_BUSY_MAX && !peer_is_busy(p, chan))
        p->busy[p->busy_count++] = chan;
    return HANDLED;
}

static enum handled
on_eased(struct broker *b, struct peer *p, const struct lane_record *r)
{
    if (r->n != 0)
        return NONSENSE;
    p->busy_count = 0;
    peer_catch_up(b, p);
    return HANDLED;
}

static enum handled
on_publish(struct broker *b, struct peer *p, const struct lane_record *r, const uint8_t *payload)
{
    if (r->aux > r->n || r->aux > IPC_NAME_MAX)
        return NONSENSE;
    /* What no link would send, and what would wedge the lanes of those who want it. */
    if ((uint64_t)r->n + 16 > lane_max_payload(p->lane_bytes))
        return NONSENSE;
    if (UNLIKELY(!b->settled))
        return HANDLE_LATER; /* a ring that has not said what it wants would miss it */
    struct view name = view_of(payload, r->aux), data = view_of(payload + r->aux, r->n - r->aux);
    if (b->across != NULL)
        return publish_across(b, p, r, name, data);
    if (chan_publish(b, peer_slot(b, p), name, (r->flags & IPC_HAS_DATA) != 0, data) == CHAN_BLOCKED)
        return HANDLE_LATER;
    answer(b, p, r, ERR_NONE);
    return HANDLED;
}

static enum handled
on_counted(struct broker *b, struct peer *p, const struct lane_record *r, const uint8_t *payload)
{
    uint32_t ask, count;
    if (r->n != 8)
        return NONSENSE;
    memcpy(&ask, payload, 4);
    memcpy(&count, payload + 4, 4);
    tally_on_counted(b, p, ask, count);
    return HANDLED;
}

static enum handled
handle(struct broker *b, struct peer *p, const struct lane_record *r, const uint8_t *payload)
{
    if (UNLIKELY((r->flags & IPC_ANSWER) && !peer_can_defer(p)))
        return HANDLE_LATER;
    switch (r->type) {
    case IPC_TALLIED: return on_counted(b, p, r, payload);
    case IPC_SUBSCRIBE: return on_subscribe(b, p, r, payload);
    case IPC_UNSUBSCRIBE: return on_unsubscribe(b, p, r, payload);
    case IPC_PUBLISH: return on_publish(b, p, r, payload);
    case IPC_BUSY: return on_busy(p, r, payload);
    case IPC_EASED: return on_eased(b, p, r);
    case IPC_SYNC:
        p->synced = true;
        answer(b, p, r, ERR_NONE);
        return HANDLED;
    default: return NONSENSE;
    }
}

bool
peer_drain(struct broker *b, struct peer *p, unsigned budget)
{
    struct lane_record r;
    const uint8_t *payload;
    enum lane_rc rc = LANE_EMPTY;
    for (unsigned n = 0; n < budget && p->state == PEER_UP; n++) {
        rc = lane_peek(&p->in, &r, &payload);
        if (rc != LANE_RECORD)
            break;
        enum handled h = handle(b, p, &r, payload);
        p->stuck = h == HANDLE_LATER;
        if (p->stuck)
            return false;
        if (h == NONSENSE)
            rc = LANE_CORRUPT;
        if (rc == LANE_CORRUPT)
            break;
        lane_take(&p->in, &r);
        metric_add(b->metrics, BM_LANE_BASE + ipc_row_of(r.type), 1);
    }
    if (rc == LANE_CORRUPT || p->corrupt) {
        COUNT(b, corrupt_lanes_total);
        peer_drop(b, p, "its lane held nonsense");
        return false;
    }
    return rc == LANE_RECORD;
}

/* -- the end -- */

static void
drop_interests(struct broker *b, struct peer *p)
{
    for (uint32_t i = 0; i < p->chan_of_cap; i++)
        if (p->chan_of[i] != 0)
            forget(b, p, i, NULL);
}

static void
count_dropped(struct broker *b, struct peer *p)
{
    struct lane_record r;
    for (size_t at = p->overflow_at; at + sizeof r <= p->overflow.n; at += align_up(sizeof r + r.n, 8)) {
        memcpy(&r, p->overflow.p + at, sizeof r);
        if (r.type == IPC_MESSAGE)
            COUNT(b, dropped_total);
    }
    b->overflow_bytes -= p->overflow.n - p->overflow_at;
}

void
peer_drop(struct broker *b, struct peer *p, const char *why)
{
    if (p->state == PEER_GONE)
        return;
    if (p->state == PEER_UP) {
        GAUGE(b, peers, b->metrics[BM_peers] - 1);
        COUNT(b, lost_peers_total);
        log_info("detached", "worker=%u ring=%u pid=%d why=\"%s\"", p->worker, p->ring, p->pid, why);
        /* A broker that ends in order has handed out all it had, so nobody missed anything. */
        if (p->seg != NULL && (!b->stopping || p->overflow.n > p->overflow_at))
            atomic_store(&p->seg->given_up, 1);
        drop_interests(b, p);
        unblock(b, p);
        count_dropped(b, p);
    }
    p->state = PEER_GONE;
    if (p->fd >= 0)
        shutdown(p->fd, SHUT_RDWR); /* brings the watch on it home */
    peer_free(b, p);
}

void
peer_free(struct broker *b, struct peer *p)
{
    if (p->state != PEER_GONE || p->inflight > 0)
        return;
    if (p->fd >= 0)
        close(p->fd);
    shm_unmap(p->seg, p->seg_bytes);
    buf_free(&p->overflow);
    free(p->chan_of);
    free(p->answers.v);
    for (struct blocked *k = p->blocked, *next; k != NULL; k = next) {
        next = k->next;
        free(k);
    }
    pool_put(&b->peers, p);
}
