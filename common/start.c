#include "common/start.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/bug.h"
#include "common/log.h"
#include "common/priv.h"

#include "common/banned.h"

#define INDEX_MAX 65535

static int
fd_from_env(const char *name)
{
    const char *v = getenv(name);
    return v != NULL && *v != '\0' ? (int)strtol(v, NULL, 10) : -1;
}

/* What is left of the command line: nothing but the number of the process. */
static unsigned
take_index(const char *kind, int argc, char **argv)
{
    char flag[32];
    unsigned long index = 0;
    int n = snprintf(flag, sizeof flag, "--%s.index=", kind);
    for (int i = 1; i < argc; i++) {
        char *end = argv[i];
        if (strncmp(argv[i], flag, (size_t)n) != 0)
            die("unknown argument %s: see --help", argv[i]);
        index = strtoul(argv[i] + n, &end, 10);
        if (argv[i][n] < '0' || argv[i][n] > '9' || *end != '\0' || index > INDEX_MAX)
            die("%s is no number of a process: write %s0, or up to %d", argv[i], flag, INDEX_MAX);
    }
    return (unsigned)index;
}

int
start_signals(bool children)
{
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGHUP);
    if (children)
        (void)sigaddset(&set, SIGCHLD);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    /* What log rotation sends to others ends nobody here. */
    (void)signal(SIGUSR1, SIG_IGN);
    (void)signal(SIGUSR2, SIG_IGN);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int
start_signal_take(int signal_fd)
{
    struct signalfd_siginfo si;
    return read(signal_fd, &si, sizeof si) == (ssize_t)sizeof si ? (int)si.ssi_signo : 0;
}

/* The directory that is taken when none is named lies in a place where others may make one of its name first. */
static void
own_run_dir(const struct conf *conf)
{
    struct stat st;
    if (strcmp(conf_place(conf, "run.dir"), "its default") != 0)
        return;
    (void)mkdir(conf->run_dir, geteuid() == 0 ? 0711 : 0700);
    if (lstat(conf->run_dir, &st) == 0 && st.st_uid != 0 && st.st_uid != geteuid())
        die("run.dir (its default): %s belongs to user %u and we are user %u: choose a directory of our own",
            conf->run_dir, (unsigned)st.st_uid, (unsigned)geteuid());
}

void
start_streams(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
            die("nothing to read from and to write to: %s", strerror(errno));
}

void
start_process(struct start *s, struct conf *conf, const char *kind, int argc, char **argv)
{
    char program[32], usage[128], who[32];
    start_streams();
    (void)snprintf(program, sizeof program, "ringcast-%s", kind);
    (void)snprintf(usage, sizeof usage, "%s [--%s.index=N] [--config FILE] [--section.key=value ...]", program, kind);
    conf_from_command_line(conf, &argc, argv, program, usage);
    s->index = take_index(kind, argc, argv);
    priv_begin();
    own_run_dir(conf);
    (void)snprintf(who, sizeof who, "%s.%u", kind, s->index);
    log_init(who, conf->log_level, (uint32_t)conf->log_rate);
    s->signal_fd = start_signals(false);
    if (s->signal_fd < 0)
        die("signals cannot be received: %s; raise the open-file limit (ulimit -n)", strerror(errno));
    s->parent_fd = fd_from_env("RINGCAST_PARENT_FD");
    s->ready_fd = fd_from_env("RINGCAST_READY_FD");
}

void
start_ready(struct start *s)
{
    if (s->ready_fd < 0)
        return;
    (void)!write(s->ready_fd, "\n", 1);
    (void)close(s->ready_fd);
    s->ready_fd = -1;
}

bool
start_reload(struct conf *conf)
{
    struct conf_errors all;
    if (conf_reload(conf, &all)) {
        log_set_level(conf->log_level);
        log_set_rate((uint32_t)conf->log_rate);
        return true;
    }
    for (unsigned i = 0; i < MIN(all.n, (unsigned)CONF_ERRORS_MAX); i++)
        log_error("not-reloaded", "mistake=%u of=%u why=\"%s\"", i + 1, all.n, all.list[i].text);
    return false;
}

int
start_cpu(const struct conf_list *cpus, unsigned nth)
{
    return cpus->n == 0 ? -1 : (int)strtol(cpus->v[nth % cpus->n], NULL, 10);
}

bool
start_pin(int cpu, const char *setting, struct conf_error *err)
{
    cpu_set_t set;
    if (cpu < 0)
        return true;
    CPU_ZERO(&set);
    CPU_SET((unsigned)cpu, &set);
    return sched_setaffinity(0, sizeof set, &set) == 0 ||
        conf_fail(err, "%s: CPU %d cannot be used (%s): write CPUs that this machine has and the service may use",
            setting, cpu, strerror(errno));
}
