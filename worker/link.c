#include "worker/link.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <xxhash.h>

#include "common/bug.h"
#include "common/lane.h"
#include "common/log.h"
#include "common/shm.h"
#include "proto/ipc.h"
#include "worker/metrics.h"
#include "worker/worker.h"

#define RETRY_MIN_MS 10
#define RETRY_MAX_MS 50
#define WELCOME_MS 60000     /* for the broker's answer to HELLO: one that is stopped gets no second segment meanwhile */
#define REFUSED_MS 2000      /* before asking again a broker that said no */
#define BEAT_MS 200
/* A turn that lasts longer makes one segment at most: the kernel clears that memory meanwhile, for many rings at once when
 * a host starts, and a ring that shows no heartbeat for so long is given up. */
#define ATTACH_MS 20
#define WAITING_MAX (1u << 18) /* requests without an answer, per broker */
#define STOPPED_MAX 64       /* channels that are remembered to have been stopped; a later one takes the place of another */
#define STOPPED_MS 10000
#define XOFF_MAX 4096        /* channels that were stopped; more are stopped all at once */

enum link_state {
    LINK_AWAY,     /* trying to connect */
    LINK_GREETING, /* HELLO sent */
    LINK_UP,
};

/* A request in line for its answer. */
struct waiting {
    uint64_t owner;
    uint32_t chan;
    uint8_t kind;
    bool local;    /* asks nobody: done when it is the oldest */
    bool sync;     /* ours: asks whether all before it was handled */
    uint8_t id_n;
    uint8_t id[CALL_ID_MAX];
};

struct link {
    struct links *all;
    unsigned broker;
    uint8_t state;        /* enum link_state */
    int fd;               /* the attach; doorbell and sign of life of both sides */
    uint32_t gen;         /* of the socket: late completions of an old one are told apart */
    struct ipc_segment *seg;
    struct lane out, in;
    bool full;
    bool up_now;          /* attached in this turn: on_attached is due */
    bool told;            /* that it cannot be reached, once for each time it is away */
    struct mono away_since, try_at, since;
    uint32_t retry_ms;
    struct waiting *line; /* ring of line_cap (a power of two) */
    uint32_t line_head, line_n, line_cap;
    struct buf held;      /* whole records for a broker that is away, or bookkeeping behind a full lane */
    size_t held_at;
    uint64_t *xoff;       /* hashes of stopped channels */
    uint32_t xoff_n;
    bool xoff_all;
    bool busy;            /* the broker was told of busy channels */
    struct mono stopped_until;            /* some channel was stopped not long before */
    uint64_t stopped[STOPPED_MAX];        /* hashes of such channels, each in its place */
};

struct links {
    const struct conf *conf;
    struct ring *ring;
    unsigned worker_idx, ring_idx, count;
    uint64_t *metrics;
    const struct link_ops *ops;
    void *arg;
    struct mono now, seen, grace_until;
    uint32_t lane_bytes;
    bool made; /* a segment, in this turn */
    int run_dir_fd; /* opened at start, for a user who may not walk there by name any more; -1: none */
    struct link link[];
};

/* -- the line of requests -- */

static bool
line_room(struct link *l)
{
    if (l->line_n < l->line_cap)
        return true;
    if (l->line_n >= WAITING_MAX)
        return false;
    uint32_t cap = l->line_cap ? l->line_cap * 2 : 64;
    struct waiting *line = malloc(cap * sizeof *line);
    if (line == NULL)
        return false;
    for (uint32_t i = 0; i < l->line_n; i++)
        line[i] = l->line[(l->line_head + i) & (l->line_cap - 1)];
    free(l->line);
    l->line = line;
    l->line_cap = cap;
    l->line_head = 0;
    return true;
}

static void
line_add(struct link *l, const struct call *call, bool local)
{
    struct waiting *w = &l->line[(l->line_head + l->line_n++) & (l->line_cap - 1)];
    w->owner = call->owner;
    w->chan = call->chan;
    w->kind = call->kind;
    w->local = local;
    w->sync = false;
    w->id_n = (uint8_t)MIN(call->call_id.n, (size_t)CALL_ID_MAX);
    if (w->id_n)
        memcpy(w->id, call->call_id.p, w->id_n);
}

/* The oldest request hears its outcome. It is taken out first: on_done may ask for more. */
static void
line_answer(struct link *l, enum error_id err)
{
    struct waiting w = l->line[l->line_head];
    l->line_head = (l->line_head + 1) & (l->line_cap - 1);
    l->line_n--;
    if (w.sync) {
        if (err == ERR_NONE)
            l->all->ops->on_restored(l->all->arg, l->broker);
        return;
    }
    struct call call = {.owner = w.owner, .chan = w.chan, .kind = w.kind, .call_id = view_of(w.id, w.id_n)};
    l->all->ops->on_done(l->all->arg, &call, err);
}

static void
line_answer_local(struct link *l)
{
    for (uint32_t n = l->line_n; n > 0 && l->line_n > 0 && l->line[l->line_head].local; n--)
        line_answer(l, ERR_NONE);
}

/* -- writing -- */

static uint8_t *
held_put(struct link *l, struct lane_record r)
{
    size_t size = align_up(sizeof r + r.n, 8);
    if (!buf_reserve(&l->held, size))
        return NULL;
    uint8_t *at = l->held.p + l->held.n;
    memcpy(at, &r, sizeof r);
    l->held.n += size;
    return at + sizeof r;
}

/* Into the lane, or behind what waits for it. */
static uint8_t *
link_put(struct link *l, enum ipc_type type, uint8_t flags, uint16_t aux, uint32_t n)
{
    if (l->state == LINK_UP && !l->up_now && l->held.n == 0) {
        uint8_t *at = lane_put(&l->out, (uint8_t)type, flags, aux, n);
        if (LIKELY(at != NULL))
            return at;
    }
    return held_put(l, (struct lane_record){.n = n, .type = (uint8_t)type, .flags = flags, .aux = aux});
}

static bool
too_late(const struct links *ls, const struct link *l)
{
    return l->state != LINK_UP && mono_since_ms(ls->now, l->away_since) >= ls->conf->lane_hold_time;
}

enum link_rc
link_subscribe(struct links *ls, unsigned broker, uint32_t chan, uint32_t gen, struct view name,
    const struct call *call, enum error_id *why)
{
    struct link *l = &ls->link[broker];
    *why = ERR_BROKER_AWAY;
    if (too_late(ls, l))
        return LINK_REFUSED;
    if (call != NULL && !line_room(l))
        return LINK_WAIT;
    uint8_t *at = link_put(l, IPC_SUBSCRIBE, call != NULL ? IPC_ANSWER : 0, 0, (uint32_t)(8 + name.n));
    if (at == NULL)
        return LINK_REFUSED;
    memcpy(at, &chan, 4);
    memcpy(at + 4, &gen, 4);
    if (name.n)
        memcpy(at + 8, name.p, name.n);
    if (call != NULL)
        line_add(l, call, false);
    return LINK_OK;
}

void
link_unsubscribe(struct links *ls, unsigned broker, uint32_t chan, uint32_t gen)
{
    struct link *l = &ls->link[broker];
    if ((l->state != LINK_UP || l->up_now) && l->held.n == 0)
        return; /* it will only hear of what is wanted then */
    uint8_t *at = link_put(l, IPC_UNSUBSCRIBE, 0, 0, 8);
    if (CHECK_IF(at == NULL))
        return;
    memcpy(at, &chan, 4);
    memcpy(at + 4, &gen, 4);
}

void
link_busy(struct links *ls, unsigned broker, uint32_t chan)
{
    struct link *l = &ls->link[broker];
    uint8_t *at = l->state == LINK_UP && !l->up_now ? link_put(l, IPC_BUSY, 0, 0, 4) : NULL;
    if (at == NULL)
        return;
    memcpy(at, &chan, 4);
    l->busy = true;
}

void
links_eased(struct links *ls)
{
    for (unsigned i = 0; i < ls->count; i++)
        if (ls->link[i].busy && link_put(&ls->link[i], IPC_EASED, 0, 0, 0) != NULL)
            ls->link[i].busy = false;
}

bool
link_was_stopped(const struct links *ls, unsigned broker, struct view channel)
{
    const struct link *l = &ls->link[broker];
    if (LIKELY(mono_reached(ls->now, l->stopped_until)))
        return false;
    uint64_t hash = XXH3_64bits(channel.p, channel.n);
    return l->stopped[hash % STOPPED_MAX] == hash;
}

static bool
is_stopped(const struct link *l, struct view channel)
{
    if (LIKELY(l->xoff_n == 0 && !l->xoff_all))
        return false;
    if (l->xoff_all)
        return true;
    uint64_t hash = XXH3_64bits(channel.p, channel.n);
    for (uint32_t i = 0; i < l->xoff_n; i++)
        if (l->xoff[i] == hash)
            return true;
    return false;
}

/* A lane that is full stops publishers; subscribing goes on behind it. */
static enum link_rc
no_room(struct links *ls, struct link *l, uint32_t n)
{
    if (l->state != LINK_UP || l->up_now)
        return l->held.n + n + 16 > ls->conf->lane_hold_bytes ? LINK_WAIT : LINK_OK;
    if (l->held.n == 0 && lane_has_room(&l->out, n))
        return LINK_OK;
    if (l->held.n == 0 && !lane_want_room(&l->out, n))
        return LINK_OK;
    metric_add(ls->metrics, RM_lane_full_total, 1);
    return LINK_WAIT;
}

enum link_rc
link_publish(struct links *ls, struct view channel, unsigned broker, bool has_data, struct view data,
    const struct call *call, enum error_id *why)
{
    struct link *l = &ls->link[broker];
    uint64_t n = (uint64_t)channel.n + data.n;
    *why = ERR_TOO_BIG_FOR_LANE;
    /* What the broker makes of it must fit the lane back too: 16 bytes of its own. */
    if (n + 16 > lane_max_payload(ls->lane_bytes))
        return LINK_REFUSED;
    *why = ERR_BROKER_AWAY;
    if (too_late(ls, l)) {
        metric_add(ls->metrics, RM_lost_publishes_total, 1);
        return LINK_REFUSED;
    }
    if (is_stopped(l, channel))
        return LINK_WAIT; /* until XON; room in the lane changes nothing */
    if (no_room(ls, l, (uint32_t)n) != LINK_OK || (call != NULL && !line_room(l))) {
        l->full = true;
        return LINK_WAIT;
    }
    uint8_t *at = link_put(l, IPC_PUBLISH, (uint8_t)((call ? IPC_ANSWER : 0) | (has_data ? IPC_HAS_DATA : 0)),
        (uint16_t)channel.n, (uint32_t)n);
    if (at == NULL) {
        metric_add(ls->metrics, RM_lost_publishes_total, 1);
        return LINK_REFUSED;
    }
    if (channel.n)
        memcpy(at, channel.p, channel.n);
    if (data.n)
        memcpy(at + channel.n, data.p, data.n);
    if (call != NULL)
        line_add(l, call, false);
    return LINK_OK;
}

enum link_rc
link_after(struct links *ls, unsigned broker, const struct call *call, enum error_id *why)
{
    struct link *l = &ls->link[broker];
    *why = ERR_BROKER_AWAY;
    if (!line_room(l))
        return LINK_WAIT;
    line_add(l, call, true);
    return LINK_OK;
}

unsigned
links_owner(const struct links *ls, struct view channel)
{
    return ipc_owner(channel, ls->count);
}

bool
link_is_up(const struct links *ls, unsigned broker)
{
    return ls->link[broker].state == LINK_UP;
}

/* What waited goes into the lane, in order. */
static void
held_flush(struct link *l)
{
    while (l->held_at < l->held.n) {
        struct lane_record r;
        memcpy(&r, l->held.p + l->held_at, sizeof r);
        uint8_t *at = lane_put(&l->out, r.type, r.flags, r.aux, r.n);
        if (at == NULL) {
            if (lane_want_room(&l->out, r.n))
                return;
            continue;
        }
        memcpy(at, l->held.p + l->held_at + sizeof r, r.n);
        l->held_at += align_up(sizeof r + r.n, 8);
    }
    buf_free(&l->held);
    l->held_at = 0;
}

/* -- losing a broker -- */

static void
count_up(struct links *ls)
{
    uint64_t up = 0;
    for (unsigned i = 0; i < ls->count; i++)
        up += ls->link[i].state == LINK_UP;
    metric_set(ls->metrics, RM_brokers_up, up);
}

/* Publishes in records nobody will read; those with a call are told by their line. */
static uint64_t
count_publishes(const uint8_t *p, size_t from, size_t to)
{
    uint64_t n = 0;
    struct lane_record r;
    for (size_t at = from; at + sizeof r <= to; at += align_up(sizeof r + r.n, 8)) {
        memcpy(&r, p + at, sizeof r);
        n += r.type == IPC_PUBLISH;
    }
    return n;
}

static uint64_t
count_unread(struct lane *out)
{
    uint64_t n = 0, mask = out->bytes - 1;
    struct lane_record r;
    (void)lane_used(out);
    for (uint64_t at = out->theirs; at < out->mine; at += align_up(sizeof r + r.n, 8)) {
        memcpy(&r, out->s->data + (at & mask), sizeof r);
        n += r.type == IPC_PUBLISH;
        if (r.n > out->bytes)
            break; /* the other side could write here; it is only a count */
    }
    return n;
}

static void
held_drop(struct link *l)
{
    metric_add(l->all->metrics, RM_lost_publishes_total, count_publishes(l->held.p, l->held_at, l->held.n));
    buf_free(&l->held);
    l->held_at = 0;
}

static void
answer_all(struct link *l, enum error_id err)
{
    /* What on_done asks for anew joins the line behind these. */
    for (uint32_t n = l->line_n; n > 0; n--)
        line_answer(l, l->line[l->line_head].local && err == ERR_BROKER_AWAY ? ERR_NONE : err);
}

static void
socket_close(struct link *l)
{
    if (l->fd >= 0) {
        shutdown(l->fd, SHUT_RDWR);
        close(l->fd);
    }
    l->fd = -1;
    l->gen++;
    shm_unmap(l->seg, ipc_segment_size(l->all->lane_bytes));
    l->seg = NULL;
}

static void
link_lost(struct link *l, const char *why)
{
    struct links *ls = l->all;
    bool was_up = l->state == LINK_UP, given_up = was_up && atomic_load(&l->seg->given_up) != 0;
    if (was_up) {
        metric_add(ls->metrics, RM_lost_broker_total, 1);
        metric_add(ls->metrics, RM_lost_publishes_total, count_unread(&l->out));
        held_drop(l);
        log_warn("broker-lost", "broker=%u why=\"%s\" unanswered=%u", l->broker, why, l->line_n);
    }
    socket_close(l);
    l->state = LINK_AWAY;
    l->up_now = false;
    l->xoff_n = 0;
    l->xoff_all = l->busy = false;
    l->try_at = was_up ? ls->now : mono_add_ms(ls->now, l->retry_ms);
    l->retry_ms = was_up ? RETRY_MIN_MS : MIN(l->retry_ms * 2, (uint32_t)RETRY_MAX_MS);
    count_up(ls);
    if (!was_up)
        return;
    l->away_since = ls->now;
    if (given_up)
        ls->ops->on_missed(ls->arg, l->broker);
    ls->ops->on_lost(ls->arg, l->broker);
    answer_all(l, ERR_BROKER_LOST);
    l->full = false;
    ls->ops->on_room(ls->arg, l->broker); /* who waited may now be held, or told */
}

/* -- attaching -- */

static bool link_drain(struct link *l, unsigned budget);

/* It is gone, but what it committed before counts: answers it gave, messages it wrote. */
static void
link_ended(struct link *l, const char *why)
{
    if (l->state == LINK_UP && !l->up_now)
        (void)link_drain(l, l->in.bytes / 8); /* more records than a lane can hold */
    if (l->state != LINK_AWAY)
        link_lost(l, why);
}

static void
watch(struct link *l)
{
    struct io_uring_sqe *sqe = ring_sqe(l->all->ring);
    io_uring_prep_poll_add(sqe, l->fd, POLLIN | POLLRDHUP);
    ring_set_tag(sqe, OP_LINK, l->gen, l->broker);
}

static bool
say_hello(struct link *l, int segment_fd)
{
    struct links *ls = l->all;
    struct ipc_hello h = {
        .magic = IPC_MAGIC,
        .table_hash = ipc_table_hash(),
        .version = IPC_VERSION,
        .lane_bytes = ls->lane_bytes,
        .worker = ls->worker_idx,
        .ring = ls->ring_idx,
        .pid = getpid(),
    };
    char control[CMSG_SPACE(sizeof segment_fd)] = {0};
    struct iovec iov = {&h, sizeof h};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof segment_fd);
    memcpy(CMSG_DATA(c), &segment_fd, sizeof segment_fd);
    return sendmsg(l->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL) == sizeof h;
}

static bool
make_segment(struct link *l, int *fd)
{
    struct links *ls = l->all;
    *fd = shm_new("ringcast-lanes", ipc_segment_size(ls->lane_bytes), (void **)&l->seg);
    if (*fd < 0) {
        log_error("no-segment", "error=\"%s\" bytes=%zu", strerror(-*fd), ipc_segment_size(ls->lane_bytes));
        return false;
    }
    ls->made = true;
    l->seg->magic = IPC_MAGIC;
    l->seg->version = IPC_VERSION;
    l->seg->table_hash = ipc_table_hash();
    l->seg->lane_bytes = ls->lane_bytes;
    atomic_store(&l->seg->worker_beat_ns, ls->now.ns);
    lane_init(&l->out, ipc_lane_out(l->seg), ls->lane_bytes, true);
    lane_init(&l->in, ipc_lane_back(l->seg, ls->lane_bytes), ls->lane_bytes, false);
    return true;
}

static bool
connect_in(const struct link *l, const char *dir)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    int n = snprintf(sun.sun_path, sizeof sun.sun_path, "%s/broker-%u.sock", dir, l->broker);
    return n > 0 && (size_t)n < sizeof sun.sun_path && connect(l->fd, (struct sockaddr *)&sun, sizeof sun) == 0;
}

/* By name, as the directory may have been made anew; if our user may not go there, from inside of it. */
static bool
connect_broker(const struct link *l)
{
    char inside[32];
    if (connect_in(l, l->all->conf->run_dir))
        return true;
    if (errno != EACCES || l->all->run_dir_fd < 0)
        return false;
    snprintf(inside, sizeof inside, "/proc/self/fd/%d", l->all->run_dir_fd);
    return connect_in(l, inside);
}

/* A broker that starts a little later is nothing to speak of; one that stays away is. */
static void
tell_unreachable(struct link *l, int e)
{
    const struct links *ls = l->all;
    if (l->told || mono_since_ms(ls->now, l->away_since) < ls->conf->broker_dead_after)
        return;
    l->told = true;
    log_warn("broker-unreachable", "broker=%u socket=%s/broker-%u.sock error=\"%s\"", l->broker, ls->conf->run_dir,
        l->broker, strerror(e));
}

static void
try_attach(struct link *l)
{
    struct links *ls = l->all;
    int segment_fd = -1;
    l->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool there = l->fd >= 0 && connect_broker(l);
    if (!there)
        tell_unreachable(l, errno);
    bool ok = there && make_segment(l, &segment_fd) && say_hello(l, segment_fd);
    if (segment_fd >= 0)
        close(segment_fd);
    if (!ok) {
        link_lost(l, "no answer");
        return;
    }
    l->state = LINK_GREETING;
    l->since = ls->now;
    watch(l);
}

static void
on_welcome(struct link *l)
{
    struct ipc_welcome w;
    ssize_t n = recv(l->fd, &w, sizeof w, MSG_DONTWAIT);
    if (n != sizeof w || w.magic != IPC_MAGIC || !w.ok) {
        if (n == sizeof w && !w.ok)
            log_error("attach-refused", "broker=%u why=\"%.*s\"", l->broker, (int)sizeof w.sentence, w.sentence);
        link_lost(l, "refused");
        l->try_at = mono_add_ms(l->all->now, REFUSED_MS);
        return;
    }
    l->state = LINK_UP;
    l->told = false;
    l->since = l->all->now;
    l->retry_ms = RETRY_MIN_MS;
    l->up_now = true;
    count_up(l->all);
    log_info("attached", "broker=%u", l->broker);
    watch(l);
}

static void
ask_sync(struct link *l)
{
    if (!line_room(l) || link_put(l, IPC_SYNC, IPC_ANSWER, 0, 0) == NULL)
        return;
    /* What stands in the line was held and goes out behind this. */
    l->line_head = (l->line_head - 1) & (l->line_cap - 1);
    l->line_n++;
    l->line[l->line_head] = (struct waiting){.sync = true};
}

/* The broker has an empty memory: first what this ring wants, then what was held for it, in order. */
static void
link_begin(struct link *l)
{
    struct links *ls = l->all;
    struct buf held = l->held;
    size_t held_at = l->held_at;
    l->up_now = false;
    l->held = buf_make(UINT32_MAX);
    l->held_at = 0;
    ls->ops->on_attached(ls->arg, l->broker);
    ask_sync(l);
    if (l->held.n == 0) {
        l->held = held;
        l->held_at = held_at;
    } else { /* more than a lane takes: what was held goes behind */
        buf_put(&l->held, held.p + held_at, held.n - held_at);
        buf_free(&held);
    }
    held_flush(l);
    l->full = false;
    ls->ops->on_room(ls->arg, l->broker);
}

/* The socket has news: a bell, or its end. */
static bool
was_rung(struct link *l)
{
    char bell[8];
    ssize_t n = recv(l->fd, bell, sizeof bell, MSG_DONTWAIT);
    return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

void
links_on_cqe(struct links *ls, unsigned op, uint32_t slot, uint32_t gen, int res, uint32_t flags)
{
    (void)flags;
    (void)op;
    if (slot >= ls->count)
        return;
    struct link *l = &ls->link[slot];
    if ((l->gen & RING_GEN_MASK) != gen || l->fd < 0)
        return;
    ls->now = mono_now();
    if (l->state == LINK_GREETING && !(res & (POLLHUP | POLLERR) && !(res & POLLIN)))
        on_welcome(l);
    else if (l->state != LINK_UP || !was_rung(l))
        link_ended(l, "it hung up");
    else
        watch(l);
}

/* -- reading -- */

static bool
on_message(struct link *l, const struct lane_record *r, const uint8_t *p)
{
    uint32_t chan, gen;
    if (r->n < 16)
        return false;
    memcpy(&chan, p, 4);
    memcpy(&gen, p + 4, 4);
    l->all->ops->on_message(l->all->arg, chan, gen, (r->flags & IPC_HAS_DATA) != 0, view_of(p + 16, r->n - 16));
    return true;
}

static bool
on_gap(struct link *l, const struct lane_record *r, const uint8_t *p)
{
    uint32_t chan, gen;
    uint64_t count;
    if (r->n != 16)
        return false;
    memcpy(&chan, p, 4);
    memcpy(&gen, p + 4, 4);
    memcpy(&count, p + 8, 8);
    l->all->ops->on_gap(l->all->arg, chan, gen, count);
    return true;
}

static bool
on_count(struct link *l, const struct lane_record *r, const uint8_t *p)
{
    uint32_t chan, gen, count;
    if (r->n != 12)
        return false;
    memcpy(&chan, p, 4);
    memcpy(&gen, p + 4, 4);
    count = l->all->ops->on_count(l->all->arg, chan, gen);
    uint8_t *at = link_put(l, IPC_TALLIED, 0, 0, 8);
    if (at == NULL)
        return true; /* the broker says that a ring did not answer */
    memcpy(at, p + 8, 4);
    memcpy(at + 4, &count, 4);
    return true;
}

static bool
on_done(struct link *l, const struct lane_record *r, const uint8_t *p)
{
    uint32_t count;
    if (r->n != 4)
        return false;
    memcpy(&count, p, 4);
    for (; count > 0; count--) {
        line_answer_local(l);
        if (l->line_n == 0)
            return false; /* more answers than questions */
        line_answer(l, ERR_NONE);
    }
    return true;
}

static bool
on_failed(struct link *l, const struct lane_record *r, const uint8_t *p)
{
    uint32_t err;
    if (r->n != 4)
        return false;
    memcpy(&err, p, 4);
    line_answer_local(l);
    if (l->line_n == 0 || err == ERR_NONE || err >= ERR_COUNT)
        return false;
    line_answer(l, (enum error_id)err);
    return true;
}

static bool
on_xoff(struct link *l, struct view name)
{
    uint64_t hash = XXH3_64bits(name.p, name.n);
    metric_add(l->all->metrics, RM_xoff_total, 1);
    l->stopped_until = mono_add_ms(l->all->now, STOPPED_MS);
    l->stopped[hash % STOPPED_MAX] = hash;
    if (l->xoff == NULL)
        l->xoff = malloc(XOFF_MAX * sizeof *l->xoff);
    if (l->xoff == NULL || l->xoff_n == XOFF_MAX)
        l->xoff_all = true; /* until the next XON */
    else
        l->xoff[l->xoff_n++] = hash;
    return true;
}

static bool
on_xon(struct link *l, struct view name)
{
    uint64_t hash = XXH3_64bits(name.p, name.n);
    /* One of them: a channel was stopped once for each ring that is behind. */
    for (uint32_t i = 0; i < l->xoff_n; i++)
        if (l->xoff[i] == hash) {
            l->xoff[i] = l->xoff[--l->xoff_n];
            break;
        }
    l->xoff_all = false;
    l->full = false;
    l->all->ops->on_room(l->all->arg, l->broker);
    return true;
}

static bool
handle(struct link *l, const struct lane_record *r, const uint8_t *p)
{
    switch (r->type) {
    case IPC_MESSAGE: return on_message(l, r, p);
    case IPC_DONE: return on_done(l, r, p);
    case IPC_FAILED: return on_failed(l, r, p);
    case IPC_XOFF: return on_xoff(l, view_of(p, r->n));
    case IPC_GAP: return on_gap(l, r, p);
    case IPC_TALLY: return on_count(l, r, p);
    case IPC_XON: return on_xon(l, view_of(p, r->n));
    default: return false;
    }
}

static bool
link_drain(struct link *l, unsigned budget)
{
    struct lane_record r;
    const uint8_t *p;
    for (unsigned n = 0; n < budget; n++) {
        enum lane_rc rc = lane_peek(&l->in, &r, &p);
        if (rc == LANE_EMPTY)
            return false;
        if (rc == LANE_CORRUPT || !handle(l, &r, p)) {
            metric_add(l->all->metrics, RM_lane_corrupt_total, 1);
            link_lost(l, "its lane held nonsense");
            return false;
        }
        lane_take(&l->in, &r);
        metric_add(l->all->metrics, RM_LANE_BASE + ipc_row_of(r.type), 1);
    }
    return true;
}

bool
links_drain(struct links *ls, unsigned budget)
{
    bool more = false;
    for (unsigned i = 0; i < ls->count; i++) {
        struct link *l = &ls->link[i];
        if (l->up_now)
            link_begin(l);
        if (l->state == LINK_UP) {
            more |= link_drain(l, budget);
            if (l->state == LINK_UP && l->held.n > 0)
                held_flush(l);
            /* Asked again each time: the broker rings once, and perhaps before half of it is free. */
            if (l->full && l->state == LINK_UP && l->held.n == 0 && l->line_n < WAITING_MAX &&
                !lane_want_room(&l->out, lane_max_payload(l->out.bytes))) {
                l->full = false;
                ls->ops->on_room(ls->arg, i);
            }
        }
        line_answer_local(l);
    }
    return more;
}

void
links_flush(struct links *ls)
{
    for (unsigned i = 0; i < ls->count; i++) {
        struct link *l = &ls->link[i];
        if (l->state != LINK_UP)
            continue;
        bool wanted = lane_release(&l->in);
        if (lane_publish(&l->out) || wanted) /* a socket that takes no more holds a bell already */
            (void)!send(l->fd, IPC_BELL, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
}

bool
links_sleep(struct links *ls)
{
    for (unsigned i = 0; i < ls->count; i++) {
        struct link *l = &ls->link[i];
        if (l->up_now || (l->line_n > 0 && l->line[l->line_head].local))
            return false;
        if (l->state == LINK_UP && !lane_sleep(&l->in))
            return false;
    }
    return true;
}

void
links_awake(struct links *ls)
{
    for (unsigned i = 0; i < ls->count; i++)
        if (ls->link[i].state == LINK_UP)
            lane_awake(&ls->link[i].in);
}

/* -- time -- */

static void
tick_up(struct links *ls, struct link *l)
{
    atomic_store_explicit(&l->seg->worker_beat_ns, ls->now.ns, memory_order_relaxed);
    atomic_store_explicit(&l->seg->connections, (uint32_t)ls->metrics[RM_connections], memory_order_relaxed);
    struct mono beat = {atomic_load_explicit(&l->seg->broker_beat_ns, memory_order_relaxed)};
    if (mono_reached(ls->now, ls->grace_until) && mono_since_ms(ls->now, l->since) > ls->conf->broker_dead_after &&
        mono_since_ms(ls->now, beat) > ls->conf->broker_dead_after)
        link_ended(l, "it shows no heartbeat");
}

/* Nobody came back in time: what was held is refused, and so is what comes now. */
static bool
may_attach(const struct links *ls)
{
    return !ls->made || mono_since_ms(mono_now(), ls->now) < ATTACH_MS;
}

static void
tick_away(struct links *ls, struct link *l)
{
    if (too_late(ls, l) && (l->held.n > 0 || l->line_n > 0 || l->full)) {
        held_drop(l);
        answer_all(l, ERR_BROKER_AWAY);
        l->full = false;
        ls->ops->on_room(ls->arg, l->broker);
    }
    if (l->state == LINK_AWAY && mono_reached(ls->now, l->try_at) && may_attach(ls))
        try_attach(l);
    else if (l->state == LINK_GREETING && mono_since_ms(ls->now, l->since) > WELCOME_MS)
        link_lost(l, "no welcome");
}

uint32_t
links_tick(struct links *ls, struct mono now)
{
    uint64_t used = 0;
    uint32_t next = BEAT_MS;
    ls->now = now;
    ls->made = false;
    if (mono_since_ms(now, ls->seen) > ls->conf->broker_dead_after / 2)
        ls->grace_until = mono_add_ms(now, ls->conf->broker_dead_after); /* we stood still ourselves */
    ls->seen = now;
    for (unsigned i = 0; i < ls->count; i++) {
        struct link *l = &ls->link[i];
        if (l->state == LINK_UP) {
            tick_up(ls, l);
            used += l->state == LINK_UP ? lane_used(&l->out) + l->held.n : 0;
        } else {
            tick_away(ls, l);
            next = RETRY_MIN_MS;
        }
    }
    metric_set(ls->metrics, RM_lane_used_bytes, used);
    return next;
}

/* -- making them -- */

struct links *
links_new(const struct conf *conf, struct ring *ring, unsigned worker_idx, unsigned ring_idx,
    uint64_t *metrics, const struct link_ops *ops, void *ring_arg)
{
    unsigned count = (unsigned)conf->broker_count;
    struct links *ls = calloc(1, sizeof *ls + count * sizeof ls->link[0]);
    if (ls == NULL)
        return NULL;
    ls->conf = conf;
    ls->ring = ring;
    ls->worker_idx = worker_idx;
    ls->ring_idx = ring_idx;
    ls->count = count;
    ls->metrics = metrics;
    ls->ops = ops;
    ls->arg = ring_arg;
    ls->lane_bytes = (uint32_t)conf->lane_bytes;
    ls->now = ls->seen = mono_now();
    ls->run_dir_fd = open(conf->run_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    for (unsigned i = 0; i < count; i++)
        ls->link[i] = (struct link){
            .all = ls,
            .broker = i,
            .fd = -1,
            .away_since = ls->now,
            .try_at = ls->now,
            .retry_ms = RETRY_MIN_MS,
            .held = buf_make(UINT32_MAX),
        };
    return ls;
}

void
links_free(struct links *ls)
{
    for (unsigned i = 0; i < ls->count; i++) {
        struct link *l = &ls->link[i];
        socket_close(l);
        buf_free(&l->held);
        free(l->line);
        free(l->xoff);
    }
    if (ls->run_dir_fd >= 0)
        close(ls->run_dir_fd);
    free(ls);
}
