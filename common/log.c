/* Lines for people on stderr. A line is built on the stack, asked for by poll, and handed over in
 * one write of at most 1024 bytes, which a pipe or a socket that polls writable takes whole; what
 * can't be taken now is dropped and counted. No lock: kinds of lines sit in a small table of
 * atomics. */
#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/mono.h"

#include "common/banned.h"

#define LINE_MAX_BYTES 1024
#define KINDS 256 /* a power of two; later kinds share the last slot */

/* One kind of line within the present second. Races between threads may let a line more through. */
struct kind {
    uint64_t hash;       /* 0: free */
    uint64_t second;     /* monotonic; what `count` belongs to */
    uint64_t count;      /* lines asked for in that second */
    uint64_t suppressed; /* lines not written since the last one that was */
};

static struct kind kinds[KINDS];
static char who_now[32] = "ringcast";
static uint64_t rate_now = 10;
static uint64_t lost;
static int out_fd = STDERR_FILENO;
static bool out_is_socket;
static bool out_is_journal;
static _Thread_local char thread_name[16];

enum log_level log_level_now = LOG_L_INFO;

static const struct {
    const char *word;
    unsigned priority; /* of syslog, as journald reads it */
} levels[] = {{"error", 3}, {"warn", 4}, {"info", 6}, {"debug", 7}};

/* A description of our own of the pipe or terminal behind stderr, so that O_NONBLOCK concerns
 * nobody else who writes there. -1 when it can't be had: poll alone must do then. */
static int
reopen_nonblocking(mode_t mode)
{
    if (!S_ISFIFO(mode) && !S_ISCHR(mode))
        return -1;
    return open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
}

void
log_init(const char *who, enum log_level level, uint32_t lines_per_second)
{
    struct stat st = {0};
    struct sigaction pipe_action;
    (void)snprintf(who_now, sizeof who_now, "%s", who);
    log_level_now = level;
    rate_now = lines_per_second;
    (void)fstat(STDERR_FILENO, &st);
    out_is_socket = S_ISSOCK(st.st_mode);
    out_is_journal = getenv("JOURNAL_STREAM") != NULL;
    if (out_fd != STDERR_FILENO)
        (void)close(out_fd);
    out_fd = reopen_nonblocking(st.st_mode);
    if (out_fd < 0)
        out_fd = STDERR_FILENO;
    /* whoever reads our stderr may go away; that must not end us */
    if (sigaction(SIGPIPE, NULL, &pipe_action) == 0 && pipe_action.sa_handler == SIG_DFL)
        (void)signal(SIGPIPE, SIG_IGN);
}

void
log_thread_name(const char *name)
{
    (void)snprintf(thread_name, sizeof thread_name, "%s", name);
}

void
log_set_level(enum log_level level)
{
    __atomic_store_n(&log_level_now, level, __ATOMIC_RELAXED);
}

void
log_set_rate(uint32_t lines_per_second)
{
    __atomic_store_n(&rate_now, lines_per_second, __ATOMIC_RELAXED);
}

uint64_t
log_lost(void)
{
    return __atomic_load_n(&lost, __ATOMIC_RELAXED);
}

/* FNV-1a, never 0. Kinds are our own words, so nobody can aim for collisions. */
static uint64_t
hash_kind(const char *what)
{
    uint64_t h = 0xcbf29ce484222325ull;
    for (; *what != '\0'; what++)
        h = (h ^ (uint8_t)*what) * 0x100000001b3ull;
    return h | 1;
}

static struct kind *
kind_find(const char *what)
{
    uint64_t h = hash_kind(what);
    for (unsigned i = 0; i < KINDS / 4; i++) {
        struct kind *k = &kinds[(h + i) & (KINDS - 1)];
        uint64_t there = 0;
        if (__atomic_compare_exchange_n(
                &k->hash, &there, h, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED) ||
            there == h)
            return k;
    }
    return &kinds[KINDS - 1];
}

/* Whether a line of the kind may go out now; if so, how many of them were kept back before. */
static bool
kind_admit(const char *what, uint64_t *suppressed)
{
    struct kind *k = kind_find(what);
    uint64_t second = mono_now().ns / 1000000000;
    uint64_t rate = __atomic_load_n(&rate_now, __ATOMIC_RELAXED);
    if (__atomic_exchange_n(&k->second, second, __ATOMIC_RELAXED) != second)
        __atomic_store_n(&k->count, 0, __ATOMIC_RELAXED);
    if (__atomic_fetch_add(&k->count, 1, __ATOMIC_RELAXED) >= rate && rate != 0) {
        __atomic_fetch_add(&k->suppressed, 1, __ATOMIC_RELAXED);
        return false;
    }
    *suppressed = __atomic_exchange_n(&k->suppressed, 0, __ATOMIC_RELAXED);
    return true;
}

/* Beginning of a line: priority for the journal, else time and level; then who speaks. */
static size_t
put_head(char *out, size_t out_n, enum log_level level, const char *what)
{
    const char *slash = thread_name[0] ? "/" : "";
    struct timespec now;
    struct tm tm;
    int n;
    if (out_is_journal) {
        n = snprintf(out, out_n, "<%u>%s%s%s %s ", levels[level].priority, who_now, slash,
            thread_name, what);
    } else {
        (void)clock_gettime(CLOCK_REALTIME, &now);
        (void)gmtime_r(&now.tv_sec, &tm);
        n = snprintf(out, out_n, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ %s %s%s%s %s ",
            tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
            (int)(now.tv_nsec / 1000000), levels[level].word, who_now, slash, thread_name, what);
    }
    return n < 0 ? 0 : MIN((size_t)n, out_n - 1);
}

/* One attempt; counts what was not taken. */
static void
write_line(const char *line, size_t n)
{
    struct pollfd p = {.fd = out_fd, .events = POLLOUT};
    ssize_t done = -1;
    if (poll(&p, 1, 0) == 1 && (p.revents & POLLOUT) != 0 && (p.revents & POLLERR) == 0)
        done = out_is_socket ? send(out_fd, line, n, MSG_DONTWAIT | MSG_NOSIGNAL)
                             : write(out_fd, line, n);
    if (done != (ssize_t)n)
        __atomic_fetch_add(&lost, 1, __ATOMIC_RELAXED);
}

void
log_line(enum log_level level, const char *what, const char *fmt, ...)
{
    char line[LINE_MAX_BYTES + 1];
    uint64_t suppressed;
    int saved = errno;
    if (level > __atomic_load_n(&log_level_now, __ATOMIC_RELAXED) || !kind_admit(what, &suppressed))
        return;
    size_t n = put_head(line, 256, level, what);
    if (suppressed != 0)
        n += (size_t)snprintf(line + n, 48, "suppressed=%" PRIu64 " ", suppressed);
    va_list ap;
    va_start(ap, fmt);
    errno = saved;
    int more = vsnprintf(line + n, sizeof line - n, fmt, ap);
    va_end(ap);
    n += more > 0 ? (size_t)more : 0;
    if (n > LINE_MAX_BYTES - 1) {
        n = LINE_MAX_BYTES - 1;
        memcpy(line + n - 3, "...", 3);
    }
    for (size_t i = 0; i < n; i++) /* a line is one line, whatever was formatted into it */
        if ((uint8_t)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = '?';
    while (n > 0 && line[n - 1] == ' ')
        n--;
    line[n++] = '\n';
    write_line(line, n);
    errno = saved;
}

struct log_quoted
log_quote(struct view v)
{
    static const char hex[] = "0123456789abcdef";
    struct log_quoted q;
    size_t n = 0, take = MIN(v.n, 64);
    q.s[n++] = '"';
    for (size_t i = 0; i < take; i++) {
        uint8_t b = v.p[i];
        if (b >= 0x20 && b < 0x7f && b != '"' && b != '\\') {
            q.s[n++] = (char)b;
            continue;
        }
        q.s[n++] = '\\';
        q.s[n++] = 'x';
        q.s[n++] = hex[b >> 4];
        q.s[n++] = hex[b & 15];
    }
    q.s[n++] = '"';
    if (take < v.n) {
        memcpy(q.s + n, "...", 3);
        n += 3;
    }
    q.s[n] = '\0';
    return q;
}
