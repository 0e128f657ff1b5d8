/* ringcast-worker: one process, worker.rings ring threads. The main thread only waits for signals and
 * for the end of its parent, and tells the rings. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "common/bug.h"
#include "worker/listen.h"
#include "worker/worker.h"

#define RINGS_MAX 64

struct thread {
    pthread_t id;
    struct worker_setup setup;
    int *ready_fd;
    unsigned *left;      /* rings that are not ready yet */
    int done_fd;         /* eventfd: a ring has ended */
};

static _Atomic int stop;
static pthread_mutex_t ready_lock = PTHREAD_MUTEX_INITIALIZER;

static void
say_ready(struct thread *t)
{
    pthread_mutex_lock(&ready_lock);
    if (--*t->left == 0 && *t->ready_fd >= 0) {
        (void)!write(*t->ready_fd, "\n", 1);
        close(*t->ready_fd);
        *t->ready_fd = -1;
    }
    pthread_mutex_unlock(&ready_lock);
}

static void *
ring_main(void *arg)
{
    struct thread *t = arg;
    char name[16];
    snprintf(name, sizeof name, "ring.%u", t->setup.ring_idx);
    log_thread_name(name);
    pthread_setname_np(pthread_self(), name);
    struct conf_error err = {{0}};
    struct worker *w = worker_new(&t->setup, &err);
    if (w == NULL)
        die("%s", err.text);
    say_ready(t);
    worker_run(w);
    worker_free(w);
    uint64_t one = 1;
    (void)!write(t->done_fd, &one, sizeof one);
    return NULL;
}

/* Descriptors handed over in systemd's way (sd_listen_fds(3)): from 3 on, LISTEN_FDNAMES says "ringN"
 * for the ring each belongs to. Other names go to ring 0, 1, ... in turn. */
static unsigned
inherited(int *fds, unsigned *ring_of, unsigned rings)
{
    const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS"), *names = getenv("LISTEN_FDNAMES");
    if (pid == NULL || count == NULL || strtol(pid, NULL, 10) != getpid())
        return 0;
    unsigned n = (unsigned)strtoul(count, NULL, 10);
    n = MIN(n, (unsigned)(RINGS_MAX * LISTENERS_MAX));
    for (unsigned i = 0; i < n; i++) {
        unsigned ring = i % rings;
        fds[i] = (int)(3 + i);
        if (names != NULL && strncmp(names, "ring", 4) == 0)
            ring = (unsigned)strtoul(names + 4, NULL, 10) % rings;
        ring_of[i] = ring;
        names = names != NULL ? strchr(names, ':') : NULL;
        names = names != NULL ? names + 1 : NULL;
    }
    return n;
}

static int
cpu_for(const struct conf *conf, unsigned worker_idx, unsigned ring)
{
    if (conf->worker_cpus.n == 0)
        return -1;
    unsigned i = (worker_idx * (unsigned)conf->worker_rings + ring) % conf->worker_cpus.n;
    return (int)strtol(conf->worker_cpus.v[i], NULL, 10);
}

static void
setup_threads(const struct conf *conf, unsigned worker_idx, struct thread *threads, unsigned rings)
{
    static int fds[RINGS_MAX * LISTENERS_MAX], per_ring[RINGS_MAX][LISTENERS_MAX];
    static unsigned ring_of[RINGS_MAX * LISTENERS_MAX];
    struct conf_error err;
    unsigned count[RINGS_MAX] = {0}, n = inherited(fds, ring_of, rings);
    if (n == 0) {
        unsigned each = 0;
        if (!listen_open(conf, rings, fds, &each, &err))
            die("%s", err.text);
        for (unsigned i = 0; i < each * rings; i++)
            ring_of[i] = i / each;
        n = each * rings;
    }
    for (unsigned i = 0; i < n; i++)
        if (count[ring_of[i]] < LISTENERS_MAX)
            per_ring[ring_of[i]][count[ring_of[i]]++] = fds[i];
    for (unsigned r = 0; r < rings; r++) {
        threads[r].setup = (struct worker_setup){
            .conf = conf,
            .worker_idx = worker_idx,
            .ring_idx = r,
            .listen_fds = per_ring[r],
            .listen_count = count[r],
            .conn_max = (uint32_t)MAX(conf->conn_max / rings, (uint64_t)1),
            .wake_fd = eventfd(0, EFD_CLOEXEC),
            .stop = &stop,
            .cpu = cpu_for(conf, worker_idx, r),
        };
        if (threads[r].setup.wake_fd < 0)
            die("can't make an eventfd: %s", strerror(errno));
    }
}

static void
tell(struct thread *threads, unsigned rings, int what)
{
    atomic_store(&stop, what);
    uint64_t one = 1;
    for (unsigned r = 0; r < rings; r++)
        (void)!write(threads[r].setup.wake_fd, &one, sizeof one);
}

static int
fd_from_env(const char *name)
{
    const char *v = getenv(name);
    return v != NULL && *v ? (int)strtol(v, NULL, 10) : -1;
}

/* Settings that may change do, under the rings that read them; a bad file leaves all as it was. */
static void
reload(struct conf *conf)
{
    struct conf_error err;
    if (conf_reload(conf, &err))
        log_set_level(conf->log_level);
    else
        log_error("not-reloaded", "why=\"%s\"", err.text);
}

/* Until every ring has ended: SIGTERM drains, a second one ends at once; so does the parent's end. */
static void
wait_and_tell(struct conf *conf, struct thread *threads, unsigned rings, int signals, int done_fd)
{
    struct pollfd p[] = {
        {.fd = signals, .events = POLLIN},
        {.fd = done_fd, .events = POLLIN},
        {.fd = fd_from_env("RINGCAST_PARENT_FD"), .events = POLLIN},
    };
    int asked = 0;
    for (unsigned left = rings; left > 0;) {
        if (poll(p, ARRAY_LEN(p), -1) < 0)
            continue;
        if (p[0].revents) {
            struct signalfd_siginfo si;
            if (read(signals, &si, sizeof si) != sizeof si)
                continue;
            if (si.ssi_signo == SIGHUP)
                reload(conf);
            else
                tell(threads, rings, ++asked > 1 ? 2 : 1);
        }
        if (p[1].revents) {
            uint64_t n;
            if (read(done_fd, &n, sizeof n) == sizeof n)
                left -= (unsigned)MIN(n, (uint64_t)left);
        }
        if (p[2].revents) {
            p[2].fd = -1;
            if (asked == 0)
                tell(threads, rings, asked = 1);
        }
    }
}

int
main(int argc, char **argv)
{
    struct conf conf;
    conf_from_command_line(&conf, &argc, argv, "ringcast-worker",
        "ringcast-worker [--worker.index=N] [--config FILE] [--section.key=value ...]");
    unsigned worker_idx = 0;
    for (int i = 1; i < argc; i++)
        if (strncmp(argv[i], "--worker.index=", 15) == 0)
            worker_idx = (unsigned)strtoul(argv[i] + 15, NULL, 10);
        else
            die("unknown argument %s: see --help", argv[i]);
    char who[32];
    snprintf(who, sizeof who, "worker.%u", worker_idx);
    log_init(who, conf.log_level, (uint32_t)conf.log_rate);

    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    int signals = signalfd(-1, &set, SFD_CLOEXEC), done_fd = eventfd(0, EFD_CLOEXEC);

    unsigned rings = (unsigned)MIN(MAX(conf.worker_rings, (uint64_t)1), (uint64_t)RINGS_MAX), left = rings;
    int ready_fd = fd_from_env("RINGCAST_READY_FD");
    struct thread *threads = xcalloc(rings, sizeof *threads);
    setup_threads(&conf, worker_idx, threads, rings);
    for (unsigned r = 0; r < rings; r++) {
        threads[r].ready_fd = &ready_fd;
        threads[r].left = &left;
        threads[r].done_fd = done_fd;
        if (pthread_create(&threads[r].id, NULL, ring_main, &threads[r]) != 0)
            die("can't start a ring thread: raise TasksMax= or ulimit -u");
    }
    wait_and_tell(&conf, threads, rings, signals, done_fd);
    for (unsigned r = 0; r < rings; r++) {
        pthread_join(threads[r].id, NULL);
        close(threads[r].setup.wake_fd);
    }
    free(threads);
    conf_free(&conf);
    return 0;
}
