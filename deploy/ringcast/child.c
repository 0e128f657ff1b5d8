#include "deploy/ringcast/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/bug.h"

#include "common/banned.h"

static void
set_number(const char *name, long v)
{
    char text[24];
    (void)snprintf(text, sizeof text, "%ld", v);
    (void)setenv(name, text, 1);
}

/* In the child: descriptors 3 .. are the listeners, as sd_listen_fds(3) wants them, then the
 * two or three of ours. The sources lie above all of these, so none is overwritten before its turn. */
static void
arrange_descriptors(const struct child_order *o, int ready_fd)
{
    int at = 3;
    for (unsigned i = 0; i < o->listen_count; i++)
        if (dup2(o->listen_fds[i], at++) < 0)
            _exit(126);
    if (dup2(ready_fd, at) < 0 || dup2(o->parent_fd, at + 1) < 0 ||
        (o->hold_fd >= 0 && dup2(o->hold_fd, at + 2) < 0))
        _exit(126);
    set_number("RINGCAST_READY_FD", at);
    set_number("RINGCAST_PARENT_FD", at + 1);
    (void)unsetenv("LISTEN_PID");
    (void)unsetenv("LISTEN_FDS");
    (void)unsetenv("LISTEN_FDNAMES");
    if (o->listen_count == 0)
        return;
    set_number("LISTEN_PID", getpid());
    set_number("LISTEN_FDS", (long)o->listen_count);
    (void)setenv("LISTEN_FDNAMES", o->listen_names, 1);
}

/* In the child: nothing of ours but what it should have. */
NORETURN static void
become(const struct child_order *o, int ready_fd)
{
    sigset_t none;
    /* No PR_SET_PDEATHSIG: the pipe tells of our death, and a SIGTERM beside it would count as the
     * second one, which cuts the drain short. Not in the group that Ctrl-C reaches: brokers must
     * outlive the workers' drain. */
    (void)setpgid(0, 0);
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)signal(SIGPIPE, SIG_DFL);
    arrange_descriptors(o, ready_fd);
    (void)unsetenv("NOTIFY_SOCKET");
    (void)unsetenv("WATCHDOG_USEC");
    (void)unsetenv("WATCHDOG_PID");
    (void)execv(o->program, o->argv);
    (void)fprintf(stderr, "ringcast: %s cannot be started: %s\n", o->program, strerror(errno));
    _exit(127);
}

/* The write end of a fresh pipe, lifted above the floor; the read end goes into *read_end. */
static int
ready_pipe(int floor, int *read_end)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) != 0)
        return -1;
    int up = fcntl(fds[1], F_DUPFD_CLOEXEC, floor);
    (void)close(fds[1]);
    if (up < 0)
        (void)close(fds[0]);
    else
        *read_end = fds[0];
    return up;
}

bool
child_start(struct child *c, const struct child_order *o)
{
    int read_end = -1;
    int write_end = ready_pipe(o->floor, &read_end);
    if (write_end < 0)
        return false;
    pid_t pid = fork();
    if (pid == 0)
        become(o, write_end);
    int why = errno;
    (void)close(write_end);
    if (pid < 0) {
        (void)close(read_end);
        errno = why;
        return false;
    }
    c->pid = pid;
    c->ready_fd = read_end;
    c->ready = false;
    c->started = mono_now();
    return true;
}

bool
child_on_ready(struct child *c)
{
    char line[64];
    ssize_t n = read(c->ready_fd, line, sizeof line);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    (void)close(c->ready_fd);
    c->ready_fd = -1;
    c->ready = n > 0;
    return c->ready;
}

uint64_t
child_on_death(struct child *c, struct mono now, uint64_t backoff_max_ms)
{
    if (mono_since_ms(now, c->started) >= CHILD_QUIET_MS)
        c->failures = 0;
    uint64_t pause = c->failures == 0 ? 0 : 1000ull << MIN(c->failures - 1, 20);
    pause = MIN(pause, backoff_max_ms);
    c->failures++;
    c->pid = 0;
    c->ready = false;
    if (c->ready_fd >= 0)
        (void)close(c->ready_fd);
    c->ready_fd = -1;
    c->next_start = mono_add_ms(now, pause);
    return pause;
}

void
child_describe_death(int status, char *out, size_t out_n)
{
    if (WIFSIGNALED(status))
        (void)snprintf(out, out_n, "signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        (void)snprintf(out, out_n, "status %d", WEXITSTATUS(status));
}
