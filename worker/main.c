/* ringcast-worker: one process, worker.rings ring threads. The main thread only waits for signals and
 * for the end of its parent, and tells the rings. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/bug.h"
#include "common/calls.h"
#include "common/priv.h"
#include "common/start.h"
#include "proto/crypt.h"
#include "worker/listen.h"
#include "worker/tls.h"
#include "worker/worker.h"

#define RINGS_MAX 64

struct thread {
    pthread_t id;
    struct worker_setup setup;
    int done_fd;         /* eventfd: a ring has ended */
};

static struct start start;
static _Atomic int stop;
static _Atomic(struct tls_server *) tls_fresh[RINGS_MAX];
static struct addrs *addrs; /* shared by the ring threads, ended when they have ended */

/* Rings are made while the process may still do everything, and run when it has given that up: what it does
 * for all threads it does between two of these. */
enum step { STEP_MADE, STEP_USER, STEP_CALLS };

static struct {
    pthread_mutex_t lock;
    pthread_cond_t moved;
    unsigned waiting; /* rings, counted up over all steps */
    enum step step;   /* done by the main thread */
} gate = {.lock = PTHREAD_MUTEX_INITIALIZER, .moved = PTHREAD_COND_INITIALIZER};

/* A ring waits for the main thread. */
static void
gate_wait(enum step step)
{
    pthread_mutex_lock(&gate.lock);
    gate.waiting++;
    pthread_cond_broadcast(&gate.moved);
    while (gate.step < step)
        pthread_cond_wait(&gate.moved, &gate.lock);
    pthread_mutex_unlock(&gate.lock);
}

/* The main thread waits for all rings to wait for the step. */
static void
gate_await(enum step step, unsigned rings)
{
    pthread_mutex_lock(&gate.lock);
    while (gate.waiting < rings * (unsigned)step)
        pthread_cond_wait(&gate.moved, &gate.lock);
    pthread_mutex_unlock(&gate.lock);
}

static void
gate_open(enum step step)
{
    pthread_mutex_lock(&gate.lock);
    gate.step = step;
    pthread_cond_broadcast(&gate.moved);
    pthread_mutex_unlock(&gate.lock);
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
    gate_wait(STEP_USER);
    priv_drop_capabilities();
    worker_show_rights(w);
    gate_wait(STEP_CALLS);
    worker_run(w);
    worker_free(w);
    uint64_t one = 1;
    (void)!write(t->done_fd, &one, sizeof one);
    return NULL;
}

/* What stands behind the ring in a descriptor's name: "ring0+tls+proxy+nogaps". */
static void
read_kind(const char *name, struct listener *out)
{
    char kind[64];
    snprintf(kind, sizeof kind, "%.*s", (int)strcspn(name, ":"), name);
    out->tls = strstr(kind, "+tls") != NULL;
    out->proxy = strstr(kind, "+proxy") != NULL;
    out->no_gaps = strstr(kind, "+nogaps") != NULL;
}

/* A mistake of whoever handed it over would otherwise be a listener that nobody can ever reach. */
static void
check_listens(int fd)
{
    int type = 0, listens = 0;
    socklen_t n = sizeof type, m = sizeof listens;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) < 0 || type != SOCK_STREAM ||
        getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &m) < 0 || !listens)
        die("LISTEN_FDS: descriptor %d is no stream socket that listens: hand over such sockets (systemd: ListenStream=, without "
            "Accept=yes)", fd);
}

static bool
is_unix(int fd)
{
    struct sockaddr_storage ss = {0};
    socklen_t n = sizeof ss;
    return getsockname(fd, (struct sockaddr *)&ss, &n) == 0 && ss.ss_family == AF_UNIX;
}

/* Descriptors handed over in systemd's way (sd_listen_fds(3)): from 3 on, LISTEN_FDNAMES says "ringN"
 * for the ring each belongs to, with "+tls", "+proxy" and "+nogaps" behind for how it is spoken to. Other names go to
 * ring 0, 1, ... in turn. */
static unsigned
inherited(struct listener *out, unsigned *ring_of, unsigned rings)
{
    const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS"), *names = getenv("LISTEN_FDNAMES");
    if (pid == NULL || count == NULL || strtol(pid, NULL, 10) != getpid())
        return 0;
    char *end;
    unsigned long n = strtoul(count, &end, 10);
    if (*count < '0' || *count > '9' || *end != '\0' || n > RINGS_MAX * LISTENERS_MAX)
        die("LISTEN_FDS is %s: write how many sockets are handed over, up to %d", count, RINGS_MAX * LISTENERS_MAX);
    for (unsigned i = 0; i < n; i++) {
        unsigned ring = i % rings;
        check_listens((int)(3 + i));
        out[i] = (struct listener){.fd = (int)(3 + i), .is_unix = is_unix((int)(3 + i))};
        if (names != NULL && strncmp(names, "ring", 4) == 0)
            ring = (unsigned)strtoul(names + 4, NULL, 10) % rings;
        if (names != NULL)
            read_kind(names, &out[i]);
        ring_of[i] = ring;
        names = names != NULL ? strchr(names, ':') : NULL;
        names = names != NULL ? names + 1 : NULL;
    }
    return (unsigned)n;
}

/* With fewer sockets than rings, those without one accept from the sockets of the first ring that has some. */
static void
share(struct listener (*per_ring)[LISTENERS_MAX], unsigned *count, unsigned rings)
{
    unsigned from = 0;
    while (from + 1 < rings && count[from] == 0)
        from++;
    for (unsigned r = 0; r < rings; r++) {
        if (count[r] > 0)
            continue;
        for (unsigned i = 0; i < count[from]; i++) {
            per_ring[r][i] = per_ring[from][i];
            per_ring[r][i].fd = fcntl(per_ring[from][i].fd, F_DUPFD_CLOEXEC, 0);
            if (per_ring[r][i].fd < 0)
                die("a listener can't be shared: %s", strerror(errno));
        }
        count[r] = count[from];
    }
}

/* Those that worker.listen names, when nobody handed any over. */
static unsigned
opened(const struct conf *conf, struct listener *out, unsigned *ring_of, unsigned rings)
{
    struct conf_error err;
    unsigned each = 0;
    if (!listen_open(conf, rings, out, &each, &err))
        die("%s", err.text);
    for (unsigned i = 0; i < each * rings; i++)
        ring_of[i] = i / each;
    return each * rings;
}

/* Certificates for a ring that needs them; the process ends where they can't be had. */
static struct tls_server *
tls_for(const struct conf *conf, const struct listener *l, unsigned n)
{
    struct conf_error err;
    bool wanted = false;
    for (unsigned i = 0; i < n; i++)
        wanted |= l[i].tls;
    struct tls_server *s = wanted ? tls_server_new(conf, &err) : NULL;
    if (wanted && s == NULL)
        die("%s", err.text);
    return s;
}

/* A reload: every ring gets new ones, or, where they can't be had, keeps what it has. */
static void
tls_renew(const struct conf *conf, struct thread *threads, unsigned rings)
{
    struct tls_server *fresh[RINGS_MAX] = {NULL};
    struct conf_error err;
    for (unsigned r = 0; r < rings; r++) {
        if (threads[r].setup.tls == NULL)
            continue;
        fresh[r] = tls_server_new(conf, &err);
        if (fresh[r] == NULL) {
            log_error("tls-not-reloaded", "why=\"%s\"", err.text);
            while (r-- > 0)
                tls_server_unref(fresh[r]);
            return;
        }
    }
    for (unsigned r = 0; r < rings; r++)
        if (fresh[r] != NULL)
            tls_server_unref(atomic_exchange_explicit(&tls_fresh[r], fresh[r], memory_order_acq_rel));
    log_info("tls-reloaded", "certificates=%u", conf->tls_certificate.n);
}

/* Client addresses, counted by all rings together. */
static struct addrs *
addrs_of(const struct conf *conf)
{
    uint64_t seed, places = conf->address_places ? conf->address_places : MAX(conf->conn_max * 2, (uint64_t)1024);
    if (!crypt_random(&seed, sizeof seed))
        die("the system gives no random numbers");
    struct addrs *t = addrs_new((uint32_t)MIN(places, (uint64_t)UINT32_MAX), (unsigned)conf->address_ipv6_prefix, seed);
    if (t == NULL)
        die("out of memory for %llu addresses: lower address.places", (unsigned long long)places);
    return t;
}

static void
setup_threads(const struct conf *conf, unsigned worker_idx, struct thread *threads, unsigned rings)
{
    static struct listener all[RINGS_MAX * LISTENERS_MAX], per_ring[RINGS_MAX][LISTENERS_MAX];
    static unsigned ring_of[RINGS_MAX * LISTENERS_MAX];
    unsigned count[RINGS_MAX] = {0}, n = inherited(all, ring_of, rings);
    if (n == 0)
        n = opened(conf, all, ring_of, rings);
    for (unsigned i = 0; i < n; i++)
        if (count[ring_of[i]] < LISTENERS_MAX)
            per_ring[ring_of[i]][count[ring_of[i]]++] = all[i];
    share(per_ring, count, rings);
    addrs = addrs_of(conf);
    for (unsigned r = 0; r < rings; r++) {
        threads[r].setup = (struct worker_setup){
            .conf = conf,
            .worker_idx = worker_idx,
            .ring_idx = r,
            .listeners = per_ring[r],
            .listen_count = count[r],
            .addrs = addrs,
            .conn_max = (uint32_t)MAX(conf->conn_max / rings, (uint64_t)1),
            .wake_fd = eventfd(0, EFD_CLOEXEC),
            .stop = &stop,
            .tls = tls_for(conf, per_ring[r], count[r]),
            .tls_fresh = &tls_fresh[r],
            .cpu = start_cpu(&conf->worker_cpus, worker_idx * (unsigned)conf->worker_rings + r),
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

/* Until every ring has ended: SIGTERM drains, a second one ends at once; so does the parent's end. */
static void
wait_and_tell(struct conf *conf, struct thread *threads, unsigned rings, int done_fd)
{
    struct pollfd p[] = {
        {.fd = start.signal_fd, .events = POLLIN},
        {.fd = done_fd, .events = POLLIN},
        {.fd = start.parent_fd, .events = POLLIN},
    };
    int asked = 0;
    for (unsigned left = rings; left > 0;) {
        if (poll(p, ARRAY_LEN(p), -1) < 0)
            continue;
        for (int signal; (signal = start_signal_take(start.signal_fd)) != 0;) {
            if (signal == SIGHUP) {
                if (start_reload(conf))
                    tls_renew(conf, threads, rings);
            } else {
                tell(threads, rings, ++asked > 1 ? 2 : 1);
            }
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

/* Everything is open that needs rights: listeners, rings, counter pages. */
static void
give_up_rights(const struct conf *conf, unsigned rings)
{
    struct conf_error err;
    struct priv_user user;
    gate_await(STEP_USER, rings);
    if (!priv_user_find(&user, conf, "worker.user", false, &err) || !priv_drop(&user, conf, &err))
        die("%s", err.text);
    gate_open(STEP_USER);
    gate_await(STEP_CALLS, rings);
    const char *why;
    if (conf->run_seccomp && !calls_limit(CALLS_WORKER, &why))
        log_warn("calls-not-limited", "why=\"%s\"", why);
    gate_open(STEP_CALLS);
}

int
main(int argc, char **argv)
{
    struct conf conf;
    start_process(&start, &conf, "worker", argc, argv);
    unsigned rings = (unsigned)MIN(MAX(conf.worker_rings, (uint64_t)1), (uint64_t)RINGS_MAX);
    int done_fd = eventfd(0, EFD_CLOEXEC);
    struct thread *threads = xcalloc(rings, sizeof *threads);
    setup_threads(&conf, start.index, threads, rings);
    for (unsigned r = 0; r < rings; r++) {
        threads[r].done_fd = done_fd;
        if (pthread_create(&threads[r].id, NULL, ring_main, &threads[r]) != 0)
            die("can't start a ring thread: raise TasksMax= or ulimit -u");
    }
    give_up_rights(&conf, rings);
    start_ready(&start);
    wait_and_tell(&conf, threads, rings, done_fd);
    for (unsigned r = 0; r < rings; r++) {
        pthread_join(threads[r].id, NULL);
        close(threads[r].setup.wake_fd);
    }
    free(threads);
    addrs_free(addrs);
    conf_free(&conf);
    return 0;
}
