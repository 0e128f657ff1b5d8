/* Lines over TCP; see lines.h. */
#include "bench/lines.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/bug.h"
#include "common/mono.h"

void
lines_init(struct lines *l, int fd)
{
    *l = (struct lines){.fd = fd, .buf = xmalloc(LINES_MAX)};
}

void
lines_free(struct lines *l)
{
    if (l->buf != NULL)
        close(l->fd);
    free(l->buf);
    l->buf = NULL;
}

/* Waits for bytes and reads what is there. */
static void
lines_read(struct lines *l, uint64_t wait_ns)
{
    struct pollfd p = {.fd = l->fd, .events = POLLIN};
    if (l->n == LINES_MAX)
        die("a line of the coordination is longer than %d bytes", LINES_MAX);
    if (poll(&p, 1, (int)(wait_ns / 1000000)) <= 0)
        return;
    ssize_t got = recv(l->fd, l->buf + l->n, LINES_MAX - l->n, MSG_DONTWAIT);
    if (got > 0)
        l->n += (uint32_t)got;
    else if (got == 0 || (errno != EAGAIN && errno != EINTR))
        l->ended = true;
}

char *
lines_take(struct lines *l, uint64_t wait_ns)
{
    uint64_t end = mono_now().ns + wait_ns;
    memmove(l->buf, l->buf + l->taken, l->n - l->taken);
    l->n -= l->taken;
    l->taken = 0;
    for (;;) {
        char *nl = memchr(l->buf, '\n', l->n);
        if (nl != NULL) {
            *nl = 0;
            l->taken = (uint32_t)(nl + 1 - l->buf);
            return l->buf;
        }
        uint64_t now = mono_now().ns;
        if (l->ended || (now >= end && wait_ns > 0))
            return NULL;
        uint32_t before = l->n;
        lines_read(l, now < end ? end - now : 0);
        if (wait_ns == 0 && l->n == before)
            return NULL;
    }
}

bool
lines_say(struct lines *l, const char *format, ...)
{
    char *text = NULL;
    va_list args;
    va_start(args, format);
    int n = vasprintf(&text, format, args);
    va_end(args);
    if (n < 0)
        die("no memory for a line");
    text[n] = '\n';
    for (size_t at = 0, all = (size_t)n + 1; at < all && !l->ended;) {
        ssize_t sent = send(l->fd, text + at, all - at, MSG_NOSIGNAL);
        if (sent > 0)
            at += (size_t)sent;
        else if (errno != EINTR)
            l->ended = true;
    }
    free(text);
    return !l->ended;
}
