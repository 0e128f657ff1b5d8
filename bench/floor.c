/* The floors; see floor.h. As short as can be: what is measured here is the kernel. */
#include "bench/floor.h"

#include <errno.h>
#include <liburing.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/relay.h"
#include "common/bug.h"

#define IN_BYTES (1u << 20) /* what waits from the publisher, at most */

struct floor {
    struct io_uring ring;
    const struct opt *opt;
    uint32_t frame; /* bytes of one */
    int *subs;
    int pub;
    uint8_t *in; /* frames that were not sent yet: the first in_n bytes */
    uint32_t in_n;
};

static int
listen_any(struct sockaddr_in *at)
{
    socklen_t len = sizeof *at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    *at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (fd < 0 || bind(fd, (struct sockaddr *)at, len) != 0 || listen(fd, 4096) != 0 ||
        getsockname(fd, (struct sockaddr *)at, &len) != 0)
        die("the floor cannot listen on 127.0.0.1: %s", strerror(errno));
    return fd;
}

static int
accept_one(int from)
{
    int one = 1, fd = accept4(from, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        die("the floor cannot accept: %s", strerror(errno));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

/* One send() per subscriber. */
static void
round_send(struct floor *f, const uint8_t *p, uint32_t n)
{
    for (uint32_t i = 0; i < f->opt->clients; i++)
        if (send(f->subs[i], p, n, MSG_NOSIGNAL) != (ssize_t)n)
            exit(0);
}

/* One send per subscriber through the ring, all in one submit. */
static void
round_ring(struct floor *f, const uint8_t *p, uint32_t n)
{
    uint32_t want = f->opt->clients, got = 0;
    for (uint32_t i = 0; i < want; i++) {
        struct io_uring_sqe *sqe = io_uring_get_sqe(&f->ring);
        io_uring_prep_send(sqe, f->subs[i], p, n, MSG_NOSIGNAL | MSG_WAITALL);
        sqe->user_data = n;
    }
    while (got < want) {
        struct io_uring_cqe *cqe;
        unsigned head, seen = 0;
        int rc = io_uring_submit_and_wait(&f->ring, want - got);
        if (rc < 0 && rc != -EINTR)
            exit(0);
        io_uring_for_each_cqe(&f->ring, head, cqe)
        {
            if (cqe->res != (int)cqe->user_data)
                exit(0);
            seen++;
        }
        io_uring_cq_advance(&f->ring, seen);
        got += seen;
    }
}

static void
round_of(struct floor *f, const uint8_t *p, uint32_t n)
{
    if (f->opt->floor == FLOOR_SEND)
        round_send(f, p, n);
    else
        round_ring(f, p, n);
}

/* Sends what is there in sends of `batch` frames; with all, also what is fewer than that. */
static void
relay(struct floor *f, bool all)
{
    uint32_t at = 0, most = f->opt->floor_batch * f->frame;
    while (f->in_n - at >= most) {
        round_of(f, f->in + at, most);
        at += most;
    }
    uint32_t rest = (f->in_n - at) / f->frame * f->frame;
    if (all && rest > 0) {
        round_of(f, f->in + at, rest);
        at += rest;
    }
    memmove(f->in, f->in + at, f->in_n - at);
    f->in_n -= at;
}

enum { RECEIVE = 0, CANCEL = 1 }; /* of user_data, while no round is under way */

/* Cancels the receive in flight, which writes behind in_n, before that moves. What became of it: it may have come to
 * its end just now, and the cancel then finds nothing. Both completions are taken, or one would be found in a round. */
static int
take_back(struct floor *f)
{
    struct io_uring_cqe *cqe;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&f->ring);
    io_uring_prep_cancel64(sqe, RECEIVE, 0);
    sqe->user_data = CANCEL;
    io_uring_submit(&f->ring);
    int res = 0;
    for (unsigned left = 2; left > 0; left--) {
        int rc;
        while ((rc = io_uring_wait_cqe(&f->ring, &cqe)) == -EINTR)
            ;
        if (rc < 0)
            exit(0);
        if (cqe->user_data == RECEIVE)
            res = cqe->res;
        io_uring_cqe_seen(&f->ring, cqe);
    }
    return res;
}

/* Waits for bytes of the publisher, 5 ms at most while frames wait for company. */
static void
serve_ring(struct floor *f)
{
    bool armed = false;
    for (;;) {
        int res;
        struct io_uring_cqe *cqe = NULL;
        struct __kernel_timespec ts = {.tv_sec = f->in_n >= f->frame ? 0 : 3600,
            .tv_nsec = 5000000};
        if (!armed) {
            struct io_uring_sqe *sqe = io_uring_get_sqe(&f->ring);
            io_uring_prep_recv(sqe, f->pub, f->in + f->in_n, IN_BYTES - f->in_n, 0);
            sqe->user_data = RECEIVE; /* a round's may still stand there */
            armed = true;
        }
        int rc = io_uring_submit_and_wait_timeout(&f->ring, &cqe, 1, &ts, NULL);
        if (rc == -EINTR)
            continue;
        if (rc == -ETIME || cqe == NULL) {
            res = take_back(f);
        } else {
            res = cqe->res;
            io_uring_cqe_seen(&f->ring, cqe);
        }
        armed = false;
        if (res > 0)
            f->in_n += (uint32_t)res;
        else if (res != -ECANCELED && res != -EINTR)
            exit(0);
        relay(f, res == -ECANCELED);
    }
}

static void
serve_send(struct floor *f)
{
    for (;;) {
        ssize_t n = recv(f->pub, f->in + f->in_n, IN_BYTES - f->in_n, 0);
        if (n <= 0)
            exit(0);
        f->in_n += (uint32_t)n;
        relay(f, false);
    }
}

static void
pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0)
        die("cannot run on core %d: %s", cpu, strerror(errno));
}

static NORETURN void
relay_main(const struct opt *o, uint32_t frame_bytes, int subs_fd, int pub_fd)
{
    uint32_t n = o->clients / 2;
    int *subs = xcalloc(n, sizeof *subs), *pubs = xcalloc(n, sizeof *pubs);
    for (uint32_t i = 0; i < n; i++) { /* as they come: each listener holds a few thousand that wait */
        subs[i] = accept_one(subs_fd);
        pubs[i] = accept_one(pub_fd);
    }
    struct relay_conf conf = {.subs = subs, .pubs = pubs, .pairs = n, .frame = frame_bytes};
    relay_serve(&conf);
}

static NORETURN void
child_main(const struct opt *o, uint32_t frame_bytes, int subs_fd, int pub_fd)
{
    struct floor f = {.opt = o, .frame = frame_bytes};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (o->server_cpu >= 0)
        pin(o->server_cpu);
    if (o->floor == FLOOR_RELAY)
        relay_main(o, frame_bytes, subs_fd, pub_fd);
    struct io_uring_params p = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN};
    int rc = io_uring_queue_init_params((unsigned)pow2_ceil(o->clients + 2), &f.ring, &p);
    if (rc < 0)
        die("floor: io_uring: %s", strerror(-rc));
    f.in = xmalloc(IN_BYTES);
    f.subs = xcalloc(o->clients, sizeof *f.subs);
    for (uint32_t i = 0; i < o->clients; i++)
        f.subs[i] = accept_one(subs_fd);
    f.pub = accept_one(pub_fd);
    if (o->floor == FLOOR_SEND)
        serve_send(&f);
    else
        serve_ring(&f);
    exit(0);
}

struct floor_child
floor_start(const struct opt *o, uint32_t frame_bytes)
{
    struct floor_child c;
    if (o->clients > 32000)
        die("--clients=%u: a floor takes 32000 at most", o->clients);
    int subs_fd = listen_any(&c.subscribers), pub_fd = listen_any(&c.publisher);
    c.pid = fork();
    if (c.pid < 0)
        die("fork: %s", strerror(errno));
    if (c.pid == 0)
        child_main(o, frame_bytes, subs_fd, pub_fd);
    close(subs_fd);
    close(pub_fd);
    return c;
}

void
floor_stop(struct floor_child *c)
{
    kill(c->pid, SIGKILL);
    waitpid(c->pid, NULL, 0);
}
