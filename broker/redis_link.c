#include "broker/redis_link.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "broker/broker.h"
#include "broker/bus.h"
#include "broker/metrics.h"
#include "broker/redis_io.h"
#include "broker/resolve.h"
#include "common/log.h"
#include "common/tlsc.h"

#include "common/banned.h"

#define IN_BYTES 65536
#define SEND_BYTES ((size_t)256 << 10) /* in one send */
/* What may be under way: enough to keep a server at work (512 KiB are 2000 small publishes, some ms of its time),
 * little enough to be sent again when the link is lost. */
#define WINDOW_BYTES ((size_t)1 << 20)
#define WINDOW_REQUESTS 16384u
#define RESOLVE_LOOK_MS 10 /* between looks for the answer to a name */
#define STEADY_MS 1000 /* a link that was up for so long had no bad begin: the back-off starts anew */
#define WHY_BYTES 320

enum link_state {
    LINK_WAITING,    /* until the back-off is over */
    LINK_RESOLVING,  /* the host's name is asked for */
    LINK_CONNECTING,
    LINK_SHAKING,    /* hands, in TLS */
    LINK_LOGGING_IN,
    LINK_UP,
    LINK_ENDING,     /* until the kernel has let go of our memory */
};

enum login_step { LOGIN_AUTH, LOGIN_NAME, LOGIN_PING };
#define LOGIN_MAX 8

enum request_kind {
    REQUEST_COMMAND,
    REQUEST_SUBSCRIBE, /* answered by pushes */
    REQUEST_PING,      /* our own */
    REQUEST_GONE,      /* taken back; its reply is for nobody */
};

struct request {
    uint64_t token;
    uint32_t bytes;
    uint32_t topic_at, topic_n; /* from the first byte of the command */
    uint32_t payload_at, payload_n;
    uint32_t expect;            /* confirmations */
    uint8_t kind;               /* enum request_kind */
    uint8_t push;               /* enum redis_push of the confirmations */
};

struct redis_link {
    struct redis_io *io;
    uint32_t slot, gen;
    enum redis_flags flags;
    const struct redis_ears *ears;
    void *arg;
    struct redisurl where;
    enum link_state state;
    int fd;
    bool connecting, receiving, sending; /* operations of the ring */
    bool freed;                          /* by its user: nothing is told any more */
    bool tell_lost;
    bool flowing;                        /* requests go out */
    bool asked;                          /* a request was queued while none was open: its time begins */
    bool at_once;                        /* no back-off before the next try */
    uint32_t failures;                   /* since it was last steady */
    uint32_t tries;                      /* picks one of the host's addresses */
    struct mono until;                   /* of WAITING: the end; from RESOLVING to LOGGING_IN: the deadline */
    struct mono up_at;
    struct mono heard_at;                /* last reply, or since when the oldest request has been open */
    struct sockaddr_storage addr;
    socklen_t addr_n;
    struct tlsc *tls;
    struct redis_reply_reader *reader;
    uint8_t *in;
    struct buf hello;                    /* login and what must go before requests; not sent yet */
    enum login_step step[LOGIN_MAX];     /* whose replies are due */
    uint32_t step_count;
    struct buf out;                      /* requests, from the oldest that is open */
    size_t done, sent;                   /* up to where they are answered, handed to a send */
    struct buf flight;                   /* what the send of now carries */
    size_t flight_at;
    struct request *req;                 /* ring of a power of two */
    uint32_t req_cap, req_head, req_count;
    char why[WHY_BYTES];
};

#define LINK_COUNT(l, row) metric_add((l)->io->metrics, BM_##row, 1)
#define LINK_COUNT_N(l, row, n) metric_add((l)->io->metrics, BM_##row, (n))

/* -- requests that are open -- */

static struct request *
req_at(const struct redis_link *l, uint32_t i)
{
    return &l->req[(l->req_head + i) & (l->req_cap - 1)];
}

static bool
req_grow(struct redis_link *l)
{
    uint32_t cap = MAX(l->req_cap * 2, 64u);
    struct request *more = malloc(cap * sizeof *more);
    if (more == NULL)
        return false;
    for (uint32_t i = 0; i < l->req_count; i++)
        more[i] = *req_at(l, i);
    free(l->req);
    l->req = more;
    l->req_cap = cap;
    l->req_head = 0;
    return true;
}

static struct redis_request
as_request(const struct redis_link *l, const struct request *q, size_t at)
{
    const uint8_t *p = l->out.p + at;
    return (struct redis_request){q->token, view_of(p + q->topic_at, q->topic_n), view_of(p + q->payload_at, q->payload_n),
        view_of(p, q->bytes)};
}

/* Room for n bytes behind `out`: what is answered goes first. */
static bool
out_reserve(struct redis_link *l, size_t n)
{
    if (l->out.cap - l->out.n < n && l->done >= l->out.n / 2) {
        buf_eat(&l->out, l->done);
        l->sent -= l->done;
        l->done = 0;
    }
    bool ok = buf_reserve(&l->out, n);
    l->out.failed = false;
    return ok;
}

/* One more, whose bytes are the last n of `out`. */
static void
req_push(struct redis_link *l, struct request q)
{
    if (l->req_count == 0)
        l->asked = true;
    l->req_count++;
    *req_at(l, l->req_count - 1) = q;
}

static bool
reserve(struct redis_link *l, size_t n)
{
    return (l->req_count < l->req_cap || req_grow(l)) && out_reserve(l, n);
}

/* The oldest is answered. */
static void
req_pop(struct redis_link *l)
{
    l->done += req_at(l, 0)->bytes;
    l->req_head++;
    l->req_count--;
    if (l->done < l->out.n)
        return;
    l->done = l->sent = 0;
    buf_reset(&l->out);
    if (l->out.cap > 2 * WINDOW_BYTES)
        buf_free(&l->out);
}

/* The connection is gone: forgets what is not kept, and marks the rest: some of it may have been
 * carried, and what came before may give way (bus.h). */
static void
keep_requests(struct redis_link *l)
{
    size_t from = l->done, to = 0;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < l->req_count; i++) {
        struct request *q = req_at(l, i);
        if ((l->flags & REDIS_KEEPS) && q->kind == REQUEST_COMMAND) {
            memmove(l->out.p + to, l->out.p + from, q->bytes);
            if (q->payload_n > BUS_AGAIN_AT)
                l->out.p[to + q->payload_at + BUS_AGAIN_AT] |= BUS_AGAIN;
            *req_at(l, kept++) = *q;
            to += q->bytes;
        }
        from += q->bytes;
    }
    l->out.n = to;
    l->done = l->sent = 0;
    l->req_count = kept;
}

/* -- the end of a connection -- */

static void
cancel_connect(struct redis_link *l)
{
    struct io_uring_sqe *sqe = ring_sqe(l->io->ring);
    io_uring_prep_cancel64(sqe, ring_tag(OP_REDIS_CONNECT, l->gen, l->slot), 0);
    ring_set_tag(sqe, OP_CANCEL, 0, 0);
}

static void
close_now(struct redis_link *l)
{
    if (l->fd >= 0)
        close(l->fd);
    l->fd = -1;
    tlsc_free(l->tls);
    l->tls = NULL;
    redis_reply_reader_free(l->reader);
    l->reader = NULL;
    buf_reset(&l->hello);
    buf_free(&l->flight);
    l->step_count = 0;
}

/* Milliseconds until the next try: doubled with each failure, less up to half of it by chance, so that many hosts do
 * not come back all at once. */
static uint64_t
pause_ms(struct redis_link *l)
{
    const struct conf *c = l->io->conf;
    uint64_t ms = MIN(c->redis_backoff_min, c->redis_backoff_max);
    for (uint32_t i = 1; i < l->failures && ms < c->redis_backoff_max; i++)
        ms *= 2;
    ms = MIN(ms, c->redis_backoff_max);
    return ms - redis_io_random(l->io, ms / 2 + 1);
}

static void
say_lost(struct redis_link *l, bool was_up)
{
    char text[REDISURL_TEXT];
    const char *role = l->flags & REDIS_SUBSCRIBES ? "subscribe" : "publish";
    if (was_up)
        log_warn("redis-lost", "server=%s for=%s why=\"%s\"", redisurl_text(&l->where, text), role, l->why);
    else if (l->failures == 1)
        log_warn("redis-unreachable", "server=%s for=%s why=\"%s\"", redisurl_text(&l->where, text), role, l->why);
    else
        log_debug("redis-unreachable", "server=%s for=%s why=\"%s\" tries=%u", redisurl_text(&l->where, text), role,
            l->why, l->failures);
}

/* Ends the connection, or the attempt; on_lost is told by the next turn. */
static void
drop(struct redis_link *l, const char *why)
{
    bool was_up = l->state == LINK_UP;
    if (l->state == LINK_ENDING || l->state == LINK_WAITING)
        return;
    if (why != l->why)
        snprintf(l->why, sizeof l->why, "%s", why);
    if (was_up) {
        l->io->up--;
        metric_set(l->io->metrics, BM_redis_links, l->io->up);
        l->tell_lost = true;
    }
    if (was_up && mono_since_ms(l->io->now, l->up_at) >= STEADY_MS)
        l->failures = 0;
    l->failures++;
    LINK_COUNT(l, redis_failures_total);
    say_lost(l, was_up);
    keep_requests(l);
    l->flowing = false;
    l->state = LINK_ENDING;
    if (l->fd >= 0)
        (void)shutdown(l->fd, SHUT_RDWR);
    if (l->connecting)
        cancel_connect(l);
}

static void
violated(struct redis_link *l, const char *why)
{
    LINK_COUNT(l, redis_violations_total);
    drop(l, why);
}

/* -- bytes out -- */

static void
arm_send(struct redis_link *l)
{
    struct io_uring_sqe *sqe = ring_sqe(l->io->ring);
    io_uring_prep_send(sqe, l->fd, l->flight.p + l->flight_at, l->flight.n - l->flight_at, MSG_NOSIGNAL);
    ring_set_tag(sqe, OP_REDIS_SEND, l->gen, l->slot);
    l->sending = true;
    LINK_COUNT(l, redis_sends_total);
}

/* Puts plain bytes into the send, through TLS where that is spoken. */
static bool
load(struct redis_link *l, struct view bytes)
{
    if (l->tls != NULL)
        return tlsc_write(l->tls, bytes);
    buf_put_view(&l->flight, bytes);
    return !l->flight.failed;
}

static bool
load_all(struct redis_link *l)
{
    bool shaken = l->state == LINK_LOGGING_IN || l->state == LINK_UP;
    if (shaken && l->hello.n > 0) {
        if (!load(l, buf_view(&l->hello)))
            return false;
        buf_reset(&l->hello);
    }
    if (l->flowing && l->sent < l->out.n) {
        struct view rest = view_head(view_of(l->out.p + l->sent, l->out.n - l->sent), SEND_BYTES);
        if (!load(l, rest))
            return false;
        l->sent += rest.n;
    }
    return l->tls == NULL || tlsc_take(l->tls, &l->flight);
}

/* One send of what there is. */
static void
flush(struct redis_link *l)
{
    if (l->sending || l->state < LINK_SHAKING || l->state > LINK_UP)
        return;
    buf_reset(&l->flight);
    l->flight_at = 0;
    if (!load_all(l))
        drop(l, "TLS is broken, or memory is out");
    else if (l->flight.n > 0)
        arm_send(l);
}

static void
on_send(struct redis_link *l, int res)
{
    l->sending = false;
    if (l->state == LINK_ENDING)
        return;
    if (res <= 0) {
        drop(l, res == 0 ? "it takes nothing" : strerror(-res));
        return;
    }
    LINK_COUNT_N(l, redis_out_bytes_total, (uint64_t)res);
    l->flight_at += (size_t)res;
    if (l->flight_at < l->flight.n)
        arm_send(l);
    else
        flush(l);
}

/* -- commands -- */

static void
put_bytes(uint8_t *p, struct view v)
{
    if (v.n > 0)
        memcpy(p, v.p, v.n);
}

/* Before all requests, on a connection of which none was sent yet. */
static void
hello_put(struct redis_link *l, struct view verb, const struct view *args, uint32_t n, enum login_step step)
{
    struct redis_command c;
    bool ok = l->step_count < LOGIN_MAX && redis_command_make(&c, verb, args, n);
    if (ok && buf_reserve(&l->hello, c.bytes.n)) {
        buf_put_view(&l->hello, c.bytes);
        l->step[l->step_count++] = step;
    }
    if (ok)
        redis_command_free(&c);
}

static void
log_in(struct redis_link *l)
{
    const struct redisurl *w = &l->where;
    struct view auth[2];
    uint32_t n = 0;
    char name[48];
    l->state = LINK_LOGGING_IN;
    if (w->password[0] != '\0') {
        if (w->user[0] != '\0')
            auth[n++] = view_str(w->user);
        auth[n++] = view_str(w->password);
        hello_put(l, VIEW("AUTH"), auth, n, LOGIN_AUTH);
    }
    snprintf(name, sizeof name, "%s-%s", l->io->name, l->flags & REDIS_SUBSCRIBES ? "sub" : "pub");
    hello_put(l, VIEW("CLIENT"), (struct view[]){VIEW("SETNAME"), view_str(name)}, 2, LOGIN_NAME);
    hello_put(l, VIEW("PING"), NULL, 0, LOGIN_PING);
    flush(l);
}

static bool
may_send(const struct redis_link *l, size_t n)
{
    return l->state == LINK_UP && l->flowing && !l->freed &&
        (l->req_count == 0 || (l->req_count < WINDOW_REQUESTS && l->out.n - l->done + n <= WINDOW_BYTES));
}

static bool
say(struct redis_link *l, struct view verb, const struct view *args, uint32_t n, struct request q)
{
    struct redis_command c;
    if (!may_send(l, 0) || !redis_command_make(&c, verb, args, n))
        return false;
    bool ok = may_send(l, c.bytes.n) && reserve(l, c.bytes.n);
    if (ok) {
        put_bytes(l->out.p + l->out.n, c.bytes);
        l->out.n += c.bytes.n;
        q.bytes = (uint32_t)c.bytes.n;
        req_push(l, q);
    }
    redis_command_free(&c);
    return ok;
}

bool
redis_link_has_room(const struct redis_link *l, size_t n)
{
    return may_send(l, n);
}

bool
redis_link_command(struct redis_link *l, struct view verb, const struct view *args, uint32_t n, uint64_t token)
{
    return say(l, verb, args, n, (struct request){.token = token, .kind = REQUEST_COMMAND});
}

static struct request
request_of(const struct redis_request *r)
{
    return (struct request){.token = r->token, .bytes = (uint32_t)r->bytes.n, .kind = REQUEST_COMMAND,
        .topic_at = (uint32_t)(r->topic.p - r->bytes.p), .topic_n = (uint32_t)r->topic.n,
        .payload_at = (uint32_t)(r->payload.p - r->bytes.p), .payload_n = (uint32_t)r->payload.n};
}

bool
redis_link_publish(struct redis_link *l, struct view verb, struct view prefix, struct view name, struct view head,
    struct view body, uint64_t token)
{
    size_t size = redis_command_publish_size(verb, prefix.n + name.n, head.n + body.n);
    struct redis_request r = {.token = token};
    if (size > UINT32_MAX / 2 || !may_send(l, size) || !reserve(l, size))
        return false;
    redis_command_publish_put(l->out.p + l->out.n, verb, prefix, name, head, body, &r);
    l->out.n += size;
    req_push(l, request_of(&r));
    LINK_COUNT(l, redis_publishes_total);
    return true;
}

bool
redis_link_again(struct redis_link *l, const struct redis_request *r)
{
    if (!may_send(l, r->bytes.n) || !reserve(l, r->bytes.n))
        return false;
    put_bytes(l->out.p + l->out.n, r->bytes);
    l->out.n += r->bytes.n;
    struct request q = request_of(r);
    if (r->topic.p == NULL)
        q.topic_at = q.payload_at = 0;
    else
        LINK_COUNT(l, redis_publishes_total);
    req_push(l, q);
    return true;
}

static const struct {
    const char *verb, *push;
    enum redis_push told;
} verbs[] = {
    {"SUBSCRIBE", "subscribe", REDIS_SUBSCRIBED},
    {"UNSUBSCRIBE", "unsubscribe", REDIS_UNSUBSCRIBED},
    {"SSUBSCRIBE", "ssubscribe", REDIS_SSUBSCRIBED},
    {"SUNSUBSCRIBE", "sunsubscribe", REDIS_SUNSUBSCRIBED},
};

bool
redis_link_subscribe(struct redis_link *l, struct view verb, const struct view *names, uint32_t n, uint64_t token)
{
    struct request q = {.token = token, .kind = REQUEST_SUBSCRIBE, .expect = n};
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
        if (view_eq(verb, view_str(verbs[i].verb)))
            q.push = (uint8_t)verbs[i].told;
    return n > 0 && (l->flags & REDIS_SUBSCRIBES) && say(l, verb, names, n, q);
}

void
redis_link_resume(struct redis_link *l)
{
    if (l->state != LINK_UP)
        return;
    l->flowing = true;
    l->asked = true;
}

void
redis_link_take_back(struct redis_link *l, void (*fn)(void *arg, const struct redis_request *), void *arg)
{
    size_t at = l->done, end = l->done;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < l->req_count; i++) {
        struct request *q = req_at(l, i);
        bool stays = at < l->sent || q->kind != REQUEST_COMMAND;
        if (q->kind == REQUEST_COMMAND) {
            struct redis_request r = as_request(l, q, at);
            fn(arg, &r);
        }
        if (stays) {
            struct request left = *q;
            if (q->kind == REQUEST_COMMAND)
                left.kind = REQUEST_GONE;
            memmove(l->out.p + end, l->out.p + at, q->bytes);
            end += q->bytes;
            *req_at(l, kept++) = left;
        }
        at += q->bytes;
    }
    l->out.n = end;
    l->req_count = kept;
}

/* -- replies -- */

static bool
is_alive(const struct redis_link *l)
{
    return !l->freed && (l->state == LINK_LOGGING_IN || l->state == LINK_UP);
}

static void
come_up(struct redis_link *l)
{
    char text[REDISURL_TEXT];
    l->state = LINK_UP;
    l->up_at = l->heard_at = l->io->now;
    l->why[0] = '\0';
    l->flowing = !(l->flags & REDIS_KEEPS);
    l->io->up++;
    metric_set(l->io->metrics, BM_redis_links, l->io->up);
    LINK_COUNT(l, redis_connects_total);
    log_info("redis-up", "server=%s for=%s%s", redisurl_text(&l->where, text),
        l->flags & REDIS_SUBSCRIBES ? "subscribe" : "publish", l->tls != NULL ? " tls=yes" : "");
    if (l->ears->on_up != NULL)
        l->ears->on_up(l->arg, l);
}

/* A user who may do nothing but publish and subscribe is refused the name and the PING: that is an answer, too. */
static bool
is_no_permission(const struct redis_reply *r)
{
    return r->v[0].kind == REDIS_ERROR && view_starts(r->v[0].text, VIEW("NOPERM"));
}

static bool
take_login(struct redis_link *l, const struct redis_reply *r)
{
    enum login_step step = l->step[0];
    l->step_count--;
    memmove(l->step, l->step + 1, l->step_count * sizeof l->step[0]);
    if (r->v[0].kind == REDIS_ERROR && step != LOGIN_NAME && !(step == LOGIN_PING && is_no_permission(r))) {
        snprintf(l->why, sizeof l->why, "%s: %s", step == LOGIN_AUTH ? "it does not let us in" : "it is not ready",
            log_quote(r->v[0].text).s);
        for (char *p = l->why; *p != '\0'; p++)
            if (*p == '"')
                *p = '\'';
        LINK_COUNT(l, redis_errors_total);
        drop(l, l->why);
        return false;
    }
    if (r->v[0].kind != REDIS_ERROR && r->v[0].kind != REDIS_STATUS) {
        violated(l, "it answers what was not asked");
        return false;
    }
    if (step == LOGIN_PING && l->state == LINK_LOGGING_IN)
        come_up(l);
    return is_alive(l);
}

static bool
tell_push(struct redis_link *l, enum redis_push push, struct view topic, struct view bytes)
{
    if (l->ears->on_push != NULL)
        l->ears->on_push(l->arg, l, push, topic, bytes);
    return is_alive(l);
}

static bool
take_confirmation(struct redis_link *l, enum redis_push push, const struct redis_reply *r)
{
    struct request *q = l->req_count > 0 ? req_at(l, 0) : NULL;
    bool ours = q != NULL && q->kind == REQUEST_SUBSCRIBE && q->push == push && l->done + q->bytes <= l->sent;
    if (!ours && push != REDIS_SUNSUBSCRIBED) {
        violated(l, "it confirms what was not asked");
        return false;
    }
    if (ours && --q->expect == 0)
        req_pop(l);
    return tell_push(l, push, r->v[2].text, VIEW_NONE);
}

/* Whether it is one; then *goes_on is what `take` says. */
static bool
take_push(struct redis_link *l, const struct redis_reply *r, bool *goes_on)
{
    if (r->v[0].kind != REDIS_ARRAY || r->n != 4 || r->v[2].kind != REDIS_STRING)
        return false;
    bool plain = redis_reply_is(r, 1, VIEW("message"));
    if (r->v[3].kind == REDIS_STRING && (plain || redis_reply_is(r, 1, VIEW("smessage")))) {
        LINK_COUNT(l, redis_messages_total);
        *goes_on = tell_push(l, plain ? REDIS_MESSAGE : REDIS_SMESSAGE, r->v[2].text, r->v[3].text);
        return true;
    }
    for (size_t i = 0; r->v[3].kind == REDIS_INTEGER && i < ARRAY_LEN(verbs); i++)
        if (redis_reply_is(r, 1, view_str(verbs[i].push))) {
            *goes_on = take_confirmation(l, verbs[i].told, r);
            return true;
        }
    return false;
}

/* What its user is told of is a copy, so that he may send from within. */
static bool
tell_reply(struct redis_link *l, const struct redis_reply *r, const struct request *q)
{
    struct redis_request was = as_request(l, q, l->done);
    static uint8_t topic[8192];
    uint8_t *copy = topic;
    bool all = r->v[0].kind == REDIS_ERROR || (l->flags & REDIS_TELLS_ALL);
    size_t n = all ? was.bytes.n : was.topic.n;
    if (n > sizeof topic && (copy = malloc(n)) == NULL) {
        drop(l, "memory is out");
        return false;
    }
    put_bytes(copy, all ? was.bytes : was.topic);
    was.topic = view_of(all ? copy + q->topic_at : copy, q->topic_n);
    was.payload = all ? view_of(copy + q->payload_at, q->payload_n) : VIEW_NONE;
    was.bytes = all ? view_of(copy, q->bytes) : VIEW_NONE;
    req_pop(l);
    if (l->ears->on_reply != NULL)
        l->ears->on_reply(l->arg, l, &was, r);
    if (copy != topic)
        free(copy);
    return is_alive(l);
}

static bool
take_reply(struct redis_link *l, const struct redis_reply *r)
{
    if (l->req_count == 0 || l->done + req_at(l, 0)->bytes > l->sent) {
        violated(l, "it answers what was not asked");
        return false;
    }
    struct request q = *req_at(l, 0);
    bool error = r->v[0].kind == REDIS_ERROR;
    LINK_COUNT(l, redis_replies_total);
    if (error && !(q.kind == REQUEST_PING && is_no_permission(r)))
        LINK_COUNT(l, redis_errors_total);
    if (q.kind == REQUEST_SUBSCRIBE && !error) {
        violated(l, "it answers a subscription with something else");
        return false;
    }
    if (q.kind == REQUEST_COMMAND || q.kind == REQUEST_SUBSCRIBE)
        return tell_reply(l, r, &q);
    bool pong = redis_reply_is(r, 0, VIEW("PONG")) || redis_reply_is(r, 1, VIEW("pong"));
    req_pop(l);
    if (q.kind == REQUEST_PING && !pong && !is_no_permission(r)) {
        snprintf(l->why, sizeof l->why, "its answer to PING is no PONG");
        drop(l, l->why);
        return false;
    }
    return true;
}

static bool
take(void *arg, const struct redis_reply *r)
{
    struct redis_link *l = arg;
    bool goes_on = true;
    l->heard_at = l->io->now;
    l->asked = l->req_count > 0; /* the next one's time begins */
    if (l->step_count > 0)
        return take_login(l, r);
    if ((l->flags & REDIS_SUBSCRIBES) && take_push(l, r, &goes_on))
        return goes_on;
    return take_reply(l, r);
}

/* -- bytes in -- */

static void
arm_recv(struct redis_link *l)
{
    struct io_uring_sqe *sqe = ring_sqe(l->io->ring);
    io_uring_prep_recv(sqe, l->fd, l->in, IN_BYTES, 0);
    ring_set_tag(sqe, OP_REDIS_RECV, l->gen, l->slot);
    l->receiving = true;
}

static void
feed(struct redis_link *l, struct view bytes)
{
    const char *why = NULL;
    if (l->state == LINK_ENDING || l->freed)
        return;
    if (!redis_reply_reader_feed(l->reader, bytes, take, l, &why))
        violated(l, why);
}

static void
fail_tls(struct redis_link *l, const char *what)
{
    snprintf(l->why, sizeof l->why, "%s: %s", what, tlsc_why(l->tls));
    drop(l, l->why);
}

/* Encrypted bytes: the handshake, then text. */
static void
feed_tls(struct redis_link *l, struct view bytes)
{
    static uint8_t plain[16384];
    int n;
    if (!tlsc_feed(l->tls, bytes)) {
        drop(l, "memory is out");
        return;
    }
    if (l->state == LINK_SHAKING) {
        int rc = tlsc_handshake(l->tls);
        if (rc < 0) {
            fail_tls(l, "TLS");
            return;
        }
        flush(l);
        if (rc == 1)
            log_in(l);
    }
    if (l->state != LINK_LOGGING_IN && l->state != LINK_UP)
        return;
    while (is_alive(l) && (n = tlsc_read(l->tls, plain, sizeof plain)) != 0) {
        if (n < 0) {
            fail_tls(l, "the end of TLS");
            return;
        }
        feed(l, view_of(plain, (size_t)n));
    }
}

static void
on_recv(struct redis_link *l, int res)
{
    l->receiving = false;
    if (l->state == LINK_ENDING)
        return;
    if (res <= 0) {
        drop(l, res == 0 ? "it closed the connection" : strerror(-res));
        return;
    }
    LINK_COUNT_N(l, redis_in_bytes_total, (uint64_t)res);
    if (l->tls != NULL)
        feed_tls(l, view_of(l->in, (size_t)res));
    else
        feed(l, view_of(l->in, (size_t)res));
    if (l->state != LINK_ENDING)
        arm_recv(l);
}

/* -- connecting -- */

static void
on_connect(struct redis_link *l, int res)
{
    l->connecting = false;
    if (l->state == LINK_ENDING)
        return;
    if (res < 0) {
        drop(l, strerror(-res));
        return;
    }
    if (l->tls != NULL) {
        l->state = LINK_SHAKING;
        if (tlsc_handshake(l->tls) < 0) {
            fail_tls(l, "TLS");
            return;
        }
        flush(l);
    } else {
        log_in(l);
    }
    if (l->state != LINK_ENDING)
        arm_recv(l);
}

/* An address as it is written; false for a name. */
static bool
take_address(struct redis_link *l)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)&l->addr;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&l->addr;
    struct sockaddr_un *un = (struct sockaddr_un *)&l->addr;
    memset(&l->addr, 0, sizeof l->addr);
    if (l->where.is_unix) {
        un->sun_family = AF_UNIX;
        memcpy(un->sun_path, l->where.path, MIN(sizeof un->sun_path, sizeof l->where.path));
        l->addr_n = sizeof *un;
        return true;
    }
    if (inet_pton(AF_INET, l->where.host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(l->where.port);
        l->addr_n = sizeof *v4;
        return true;
    }
    if (inet_pton(AF_INET6, l->where.host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(l->where.port);
        l->addr_n = sizeof *v6;
        return true;
    }
    return false;
}

/* What a connection needs of memory; freed by close_now, but for `in`. */
static bool
prepare(struct redis_link *l)
{
    const struct conf *c = l->io->conf;
    struct redis_reply_bounds bounds = {.max_bulk = c->redis_max_bulk, .max_array = (uint32_t)c->redis_max_array,
        .max_depth = (unsigned)c->redis_max_depth};
    if (l->in == NULL)
        l->in = malloc(IN_BYTES);
    l->reader = redis_reply_reader_new(&bounds);
    if (l->where.tls)
        l->tls = l->io->tls != NULL ? tlsc_new(l->io->tls, l->where.host) : NULL;
    return l->in != NULL && l->reader != NULL && (!l->where.tls || l->tls != NULL);
}

static void
connect_now(struct redis_link *l)
{
    const int on = 1;
    l->state = LINK_CONNECTING;
    if (!prepare(l)) {
        drop(l, "memory is out");
        return;
    }
    l->fd = socket(l->addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (l->fd < 0) {
        drop(l, strerror(errno));
        return;
    }
    if (l->addr.ss_family != AF_UNIX) {
        (void)setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        (void)setsockopt(l->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    }
    struct io_uring_sqe *sqe = ring_sqe(l->io->ring);
    io_uring_prep_connect(sqe, l->fd, (struct sockaddr *)&l->addr, l->addr_n);
    ring_set_tag(sqe, OP_REDIS_CONNECT, l->gen, l->slot);
    l->connecting = true;
}

static void
begin(struct redis_link *l)
{
    l->gen = ++l->io->gens & RING_GEN_MASK;
    l->at_once = false;
    l->tries++;
    l->until = mono_add_ms(l->io->now, l->io->conf->redis_connect_timeout);
    if (take_address(l))
        connect_now(l);
    else
        l->state = LINK_RESOLVING;
}

static void
ask_name(struct redis_link *l)
{
    switch (resolve_name(l->io->resolve, l->where.host, l->where.port, l->tries, &l->addr, &l->addr_n, l->io->now)) {
    case RESOLVE_WAITS: break;
    case RESOLVE_FOUND: connect_now(l); break;
    case RESOLVE_FAILED: drop(l, "its name is not known"); break;
    }
}

/* -- the turn -- */

static void
look_at_time(struct redis_link *l)
{
    const struct conf *c = l->io->conf;
    struct mono now = l->io->now;
    bool due = l->step_count > 0 || (l->flowing && l->req_count > 0);
    if (l->asked)
        l->heard_at = now;
    l->asked = false;
    if (due && mono_reached(now, mono_add_ms(l->heard_at, c->redis_timeout))) {
        drop(l, "it did not answer in time (redis.timeout)");
        return;
    }
    if (due || !mono_reached(now, mono_add_ms(l->heard_at, c->redis_ping_interval)))
        return;
    if (!l->flowing)
        hello_put(l, VIEW("PING"), NULL, 0, LOGIN_PING);
    else if (!say(l, VIEW("PING"), NULL, 0, (struct request){.kind = REQUEST_PING}))
        drop(l, "memory is out");
    l->heard_at = now;
}

/* Whether anybody has said yet where to connect to. */
static bool
has_address(const struct redis_link *l)
{
    return l->where.is_unix || l->where.host[0] != '\0';
}

static void
look_at_connection(struct redis_link *l)
{
    struct mono now = l->io->now;
    if (l->state == LINK_ENDING && !l->connecting && !l->receiving && !l->sending) {
        close_now(l);
        l->state = LINK_WAITING;
        l->until = l->at_once ? now : mono_add_ms(now, pause_ms(l));
    }
    if (l->state == LINK_WAITING && !l->freed && has_address(l) && mono_reached(now, l->until))
        begin(l);
    if (l->state == LINK_RESOLVING)
        ask_name(l);
    if (l->state >= LINK_RESOLVING && l->state <= LINK_LOGGING_IN && mono_reached(now, l->until))
        drop(l, "it could not be reached in time (redis.connect_timeout)");
    if (l->state == LINK_UP)
        look_at_time(l);
}

void
redis_link_turn(struct redis_link *l)
{
    if (l->tell_lost) {
        l->tell_lost = false;
        if (!l->freed && l->ears->on_lost != NULL)
            l->ears->on_lost(l->arg, l, l->why);
    }
    look_at_connection(l);
    flush(l);
}

struct mono
redis_link_deadline(const struct redis_link *l)
{
    const struct conf *c = l->io->conf;
    if (l->tell_lost)
        return l->io->now;
    if (l->state == LINK_RESOLVING)
        return mono_add_ms(l->io->now, RESOLVE_LOOK_MS);
    if (l->state == LINK_ENDING || !has_address(l))
        return mono_add_ms(l->io->now, 1000);
    if (l->state != LINK_UP)
        return l->until;
    bool due = l->step_count > 0 || (l->flowing && l->req_count > 0);
    return mono_add_ms(l->heard_at, due ? c->redis_timeout : c->redis_ping_interval);
}

void
redis_link_on_done(struct redis_link *l, struct ring_done d)
{
    if (d.gen != l->gen)
        return;
    if (d.op == OP_REDIS_CONNECT)
        on_connect(l, d.res);
    else if (d.op == OP_REDIS_RECV)
        on_recv(l, d.res);
    else if (d.op == OP_REDIS_SEND)
        on_send(l, d.res);
}

/* -- making one -- */

struct redis_link *
redis_link_new(struct redis_io *io, const struct redisurl *where, enum redis_flags flags, const struct redis_ears *ears,
    void *arg)
{
    uint32_t slot = 0;
    while (slot < REDIS_LINKS_MAX && io->links[slot] != NULL)
        slot++;
    struct redis_link *l = slot < REDIS_LINKS_MAX ? calloc(1, sizeof *l) : NULL;
    if (l == NULL)
        return NULL;
    *l = (struct redis_link){.io = io, .slot = slot, .flags = flags, .ears = ears, .arg = arg, .where = *where, .fd = -1,
        .until = io->now, .hello = buf_make(4096), .flight = buf_make(2 * SEND_BYTES),
        .out = buf_make(4 * WINDOW_BYTES + 2 * (size_t)io->conf->redis_max_bulk)};
    snprintf(l->why, sizeof l->why, "%s", has_address(l) ? "it was not tried yet" : "nobody has said yet where it is");
    io->links[slot] = l;
    io->used = MAX(io->used, slot + 1);
    return l;
}

void
redis_link_free(struct redis_link *l)
{
    if (l == NULL)
        return;
    l->freed = true;
    l->flags = (enum redis_flags)(l->flags & ~(unsigned)REDIS_KEEPS);
    if (l->state == LINK_UP || l->state == LINK_WAITING)
        snprintf(l->why, sizeof l->why, "it is not wanted any more");
    if (l->state == LINK_UP) {
        l->io->up--;
        metric_set(l->io->metrics, BM_redis_links, l->io->up);
    }
    if (l->state == LINK_WAITING || l->state == LINK_ENDING)
        return;
    l->state = LINK_ENDING;
    if (l->fd >= 0)
        (void)shutdown(l->fd, SHUT_RDWR);
    if (l->connecting)
        cancel_connect(l);
}

bool
redis_link_is_over(const struct redis_link *l)
{
    return l->freed && !l->connecting && !l->receiving && !l->sending;
}

void
redis_link_destroy(struct redis_link *l)
{
    bool held = !redis_link_is_over(l);
    l->io->links[l->slot] = NULL;
    if (held) /* the kernel may still write there */
        return;
    close_now(l);
    buf_free(&l->hello);
    buf_free(&l->out);
    buf_free(&l->flight);
    free(l->req);
    free(l->in);
    explicit_bzero(&l->where, sizeof l->where);
    free(l);
}

void
redis_link_to(struct redis_link *l, const struct redisurl *where)
{
    bool same = redisurl_same(&l->where, where);
    l->where = *where;
    if (same)
        return;
    l->failures = 0;
    l->at_once = true;
    if (l->state == LINK_WAITING)
        l->until = l->io->now;
    drop(l, "another server is to be used");
}

void
redis_link_end(struct redis_link *l, const char *why)
{
    drop(l, why);
}

const struct redisurl *
redis_link_where(const struct redis_link *l)
{
    return &l->where;
}

bool
redis_link_is_up(const struct redis_link *l)
{
    return l->state == LINK_UP && !l->freed;
}

const char *
redis_link_why(const struct redis_link *l)
{
    return redis_link_is_up(l) ? NULL : l->why;
}

uint32_t
redis_link_open(const struct redis_link *l)
{
    return l->req_count;
}

size_t
redis_link_bytes(const struct redis_link *l)
{
    return l->out.n - l->done;
}
