#include "broker/ask.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker/hosts.h"
#include "broker/metrics.h"
#include "broker/tally.h"
#include "proto/ipc.h"

#define PATIENCE_MS 5000 /* for an operator's program to take its answer */

bool
ask_init(struct broker *b)
{
    return pool_init(&b->asks, sizeof(struct ask), ASK_MAX);
}

void
ask_free(struct broker *b, struct ask *a)
{
    if (a->inflight > 0)
        return;
    close(a->fd);
    buf_free(&a->out);
    pool_put(&b->asks, a);
}

static void
ask_end(struct broker *b, struct ask *a)
{
    a->gone = true;
    shutdown(a->fd, SHUT_RDWR); /* brings the watch on it home */
    ask_free(b, a);
}

void
ask_fini(struct broker *b)
{
    for (uint32_t i = 0; i < b->asks.used; i++) {
        struct ask *a = pool_at(&b->asks, i);
        if (a->head.next != POOL_LIVE)
            continue;
        a->inflight = 0;
        ask_free(b, a);
    }
    pool_fini(&b->asks);
}

/* -- the answer -- */

void
ask_say(struct ask *a, const char *fmt, ...)
{
    char line[1024];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    buf_put(&a->out, line, MIN((size_t)MAX(n, 0), sizeof line - 1));
}

static void
wait_for_room(struct broker *b, struct ask *a)
{
    struct io_uring_sqe *sqe = ring_sqe(&b->ring);
    io_uring_prep_poll_add(sqe, a->fd, POLLOUT);
    ring_set_tag(sqe, OP_ASKED, a->head.gen, pool_slot(&b->asks, a));
    a->inflight++;
}

static void
send_on(struct broker *b, struct ask *a)
{
    while (a->at < a->out.n) {
        size_t n = MIN(a->out.n - a->at, (size_t)IPC_ANSWER_MAX);
        ssize_t sent = send(a->fd, a->out.p + a->at, n, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && (errno == EAGAIN || errno == EINTR)) {
            wait_for_room(b, a);
            return;
        }
        if (sent < 0)
            break;
        a->at += (size_t)sent;
    }
    ask_end(b, a);
}

void
ask_done(struct broker *b, struct ask *a)
{
    if (a->out.failed) { /* no answer is cut without a word */
        buf_reset(&a->out);
        ask_say(a, "error the answer is too long\n");
    }
    ask_say(a, "end\n");
    a->whole = true;
    send_on(b, a);
}

void
ask_on_writable(struct broker *b, struct ask *a, struct ring_done d)
{
    (void)d;
    send_on(b, a);
}

void
ask_tick(struct broker *b)
{
    for (uint32_t i = 0; i < b->asks.used; i++) {
        struct ask *a = pool_at(&b->asks, i);
        if (a->head.next == POOL_LIVE && !a->gone && mono_since_ms(b->now, a->since) > PATIENCE_MS)
            ask_end(b, a);
    }
}

/* -- the question -- */

bool
ask_is_one(int fd)
{
    uint64_t magic = 0;
    return recv(fd, &magic, sizeof magic, MSG_DONTWAIT | MSG_PEEK) == sizeof magic && magic == IPC_ASK_MAGIC;
}

static void
answer(struct broker *b, struct ask *a, struct view text)
{
    static const struct view occupancy = VIEW("occupancy ");
    if (view_eq(text, VIEW("hosts"))) {
        hosts_describe(b, a);
        ask_done(b, a);
    } else if (view_eq(text, VIEW("bus"))) {
        hosts_describe_bus(b, a);
        ask_done(b, a);
    } else if (text.n >= occupancy.n && view_eq(view_head(text, occupancy.n), occupancy)) {
        tally_ask(b, a, view_from(text, occupancy.n));
    } else {
        ask_say(a, "error this broker knows hosts, bus and occupancy NAME\n");
        ask_done(b, a);
    }
}

void
ask_take(struct broker *b, int fd)
{
    uint8_t question[8 + IPC_ASK_MAX + 1];
    ssize_t n = recv(fd, question, sizeof question, MSG_DONTWAIT);
    struct ask *a = n >= 8 && (size_t)n < sizeof question ? pool_get(&b->asks) : NULL;
    if (a == NULL) {
        COUNT(b, asks_refused_total);
        close(fd);
        return;
    }
    COUNT(b, asks_total);
    a->fd = fd;
    a->since = b->now;
    a->out = buf_make(ASK_ANSWER_MAX);
    answer(b, a, view_of(question + 8, (size_t)n - 8));
}
