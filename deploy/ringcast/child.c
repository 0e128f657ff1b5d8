#include "deploy/ringcast/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/bug.h"
#include "common/file.h"

#include "common/banned.h"

static void
set_number(const char *name, long v)
{
    char text[24];
    (void)snprintf(text, sizeof text, "%ld", v);
    (void)setenv(name, text, 1);
}

/* In the child: descriptors 3 .. are the listeners, as sd_listen_fds(3) wants them, then the
 * three or four of ours. The sources lie above all of these, so none is overwritten before its turn. */
static void
arrange_descriptors(const struct child_order *o, int ready_fd, int files_fd)
{
    int at = 3;
    for (unsigned i = 0; i < o->listen_count; i++)
        if (dup2(o->listen_fds[i], at++) < 0)
            _exit(126);
    if (dup2(ready_fd, at) < 0 || dup2(o->parent_fd, at + 1) < 0 || dup2(files_fd, at + 2) < 0 ||
        (o->hold_fd >= 0 && dup2(o->hold_fd, at + 3) < 0))
        _exit(126);
    set_number("RINGCAST_READY_FD", at);
    set_number("RINGCAST_PARENT_FD", at + 1);
    set_number(FILE_FD_VARIABLE, at + 2);
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
become(const struct child_order *o, int ready_fd, int files_fd)
{
    sigset_t none;
    /* No PR_SET_PDEATHSIG: the pipe tells of our death, and a SIGTERM beside it would count as the
     * second one, which cuts the drain short. Not in the group that Ctrl-C reaches: brokers must
     * outlive the workers' drain. */
    (void)setpgid(0, 0);
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)signal(SIGPIPE, SIG_DFL);
    arrange_descriptors(o, ready_fd, files_fd);
    (void)unsetenv("NOTIFY_SOCKET");
    (void)unsetenv("WATCHDOG_USEC");
    (void)unsetenv("WATCHDOG_PID");
    (void)execv(o->program, o->argv);
    (void)fprintf(stderr, "ringcast: %s cannot be started: %s\n", o->program, strerror(errno));
    _exit(127);
}

/* The child's end of a fresh pair, lifted above the floor; ours goes into *own_end. */
static int
lift_end(int fds[2], int floor, int *own_end)
{
    int up = fcntl(fds[1], F_DUPFD_CLOEXEC, floor);
    (void)close(fds[1]);
    if (up < 0)
        (void)close(fds[0]);
    else
        *own_end = fds[0];
    return up;
}

static int
ready_pipe(int floor, int *own_end)
{
    int fds[2];
    return pipe2(fds, O_CLOEXEC | O_NONBLOCK) == 0 ? lift_end(fds, floor, own_end) : -1;
}

static int
files_socket(int floor, int *own_end)
{
    int fds[2];
    bool ok = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) == 0;
    return ok ? lift_end(fds, floor, own_end) : -1;
}

static void
close_all(const int *fds, unsigned n)
{
    int why = errno;
    for (unsigned i = 0; i < n; i++)
        if (fds[i] >= 0)
            (void)close(fds[i]);
    errno = why;
}

bool
child_start(struct child *c, const struct child_order *o)
{
    int own[2] = {-1, -1}, theirs[2] = {-1, -1};
    theirs[0] = ready_pipe(o->floor, &own[0]);
    theirs[1] = theirs[0] >= 0 ? files_socket(o->floor, &own[1]) : -1;
    pid_t pid = theirs[1] >= 0 ? fork() : -1;
    if (pid == 0)
        become(o, theirs[0], theirs[1]);
    close_all(theirs, ARRAY_LEN(theirs));
    if (pid < 0) {
        close_all(own, ARRAY_LEN(own));
        return false;
    }
    c->pid = pid;
    c->ready_fd = own[0];
    c->files_fd = own[1];
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

/* Which files a process may read through us: brokers know no keys, so theirs is the settings file alone. */
struct lending {
    const struct conf *conf;
    bool is_worker;
};

static bool
may_have(const char *path, const void *arg)
{
    const struct lending *l = arg;
    const char *file = conf_start_file();
    return (file != NULL && strcmp(path, file) == 0) || (l->is_worker && conf_names_path(l->conf, path));
}

void
child_on_files(struct child *c, const struct conf *conf)
{
    struct lending l = {conf, c->is_worker};
    if (file_lend(c->files_fd, may_have, &l))
        return;
    (void)close(c->files_fd);
    c->files_fd = -1;
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
    if (c->files_fd >= 0)
        (void)close(c->files_fd);
    c->ready_fd = c->files_fd = -1;
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
