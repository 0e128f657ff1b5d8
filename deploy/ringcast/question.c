#include "deploy/ringcast/question.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/metric.h"
#include "proto/ipc.h"

#include "common/banned.h"

#define PATIENCE_MS 5000

/* ---- asking ---- */

static int
connect_to(const char *run_dir, unsigned broker, struct conf_error *err)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    int n = snprintf(sun.sun_path, sizeof sun.sun_path, "%s/broker-%u.sock", run_dir, broker);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd >= 0 && n > 0 && (size_t)n < sizeof sun.sun_path && connect(fd, (struct sockaddr *)&sun, sizeof sun) == 0)
        return fd;
    int e = errno;
    if (fd >= 0)
        (void)close(fd);
    (void)conf_fail(err, "broker %u does not answer on %s: %s%s", broker, sun.sun_path, strerror(e),
        e == EACCES ? " (it takes the user that the server was started by)" : "");
    return -1;
}

static bool
send_question(int fd, struct view question)
{
    uint8_t m[8 + IPC_ASK_MAX];
    uint64_t magic = IPC_ASK_MAGIC;
    if (question.n > IPC_ASK_MAX)
        return false;
    memcpy(m, &magic, sizeof magic);
    if (question.n)
        memcpy(m + 8, question.p, question.n);
    return send(fd, m, 8 + question.n, MSG_NOSIGNAL) == (ssize_t)(8 + question.n);
}

/* Everything up to the end of the connection. */
static bool
receive(int fd, struct buf *answer)
{
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (!buf_reserve(answer, IPC_ANSWER_MAX) || poll(&p, 1, PATIENCE_MS) <= 0)
            return false;
        ssize_t n = recv(fd, answer->p + answer->n, IPC_ANSWER_MAX, 0);
        if (n <= 0)
            return n == 0;
        answer->n += (size_t)n;
    }
}

bool
question_ask(const char *run_dir, unsigned broker, struct view question, struct buf *answer, struct conf_error *err)
{
    static const struct view last = VIEW("end\n");
    int fd = connect_to(run_dir, broker, err);
    if (fd < 0)
        return false;
    size_t before = answer->n;
    bool whole = send_question(fd, question) && receive(fd, answer) && answer->n - before >= last.n &&
        view_eq(view_of(answer->p + answer->n - last.n, last.n), last);
    (void)close(fd);
    if (!whole) {
        answer->n = before;
        return conf_fail(err, "broker %u gave no whole answer: is it of another release, or stuck? ringcast status says more",
            broker);
    }
    answer->n -= last.n;
    return true;
}

static void
look(const struct metric_header *h, const struct metric_named *rows, const uint64_t *values, void *arg)
{
    unsigned *n = arg;
    (void)rows;
    (void)values;
    if (strcmp(h->process, "broker") == 0 && h->index < 4096)
        *n = MAX(*n, h->index + 1);
}

unsigned
question_brokers(const char *run_dir)
{
    unsigned n = 0;
    (void)metric_each_page(run_dir, look, &n);
    return n;
}

/* ---- reading the answer ---- */

bool
question_line(struct view *answer, struct view *line)
{
    if (answer->n == 0)
        return false;
    const uint8_t *end = memchr(answer->p, '\n', answer->n);
    size_t n = end != NULL ? (size_t)(end - answer->p) : answer->n;
    *line = view_head(*answer, n);
    *answer = view_from(*answer, MIN(n + 1, answer->n));
    return true;
}

bool
question_is(struct view line, const char *word)
{
    size_t n = strlen(word);
    return view_starts(line, view_str(word)) && (line.n == n || line.p[n] == ' ');
}

struct view
question_text(struct view line, const char *key)
{
    size_t n = strlen(key);
    for (size_t i = 0; i + n + 1 < line.n; i++) {
        if (line.p[i] != ' ' || memcmp(line.p + i + 1, key, n) != 0 || line.p[i + 1 + n] != '=')
            continue;
        struct view v = view_from(line, i + n + 2);
        const uint8_t *end = v.n > 0 ? memchr(v.p, ' ', v.n) : NULL;
        return end != NULL ? view_head(v, (size_t)(end - v.p)) : v;
    }
    return VIEW_NONE;
}

uint64_t
question_number(struct view line, const char *key)
{
    struct view v = question_text(line, key);
    uint64_t sum = 0;
    for (size_t i = 0; i < v.n && v.p[i] >= '0' && v.p[i] <= '9'; i++)
        if (__builtin_mul_overflow(sum, 10u, &sum) || __builtin_add_overflow(sum, (uint64_t)(v.p[i] - '0'), &sum))
            return UINT64_MAX;
    return sum;
}
