#include "worker/listen.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/sock.h"
#include "worker/conn.h"
#include "worker/metrics.h"

/* How long accepting rests after EMFILE and the like: long enough not to spin, short enough not to
 * be noticed by a client that connects. */
#define ACCEPT_REST_MS 100

static void
listen_arm(struct worker *w, struct listener *l)
{
    struct io_uring_sqe *sqe = ring_sqe(&w->ring);
    io_uring_prep_multishot_accept(sqe, l->fd, NULL, NULL, SOCK_CLOEXEC);
    ring_set_tag(sqe, OP_ACCEPT, 0, (uint32_t)(l - w->listeners));
    l->armed = true;
    l->retry_at = 0;
}

/* Accepted connections inherit it. Without a bound the kernel takes some MiB for a client that reads nothing, and a
 * client that goes on gets all of that first. */
static void
bound_kernel(const struct worker *w, const struct listener *l)
{
    int most = (int)w->conf->out_kernel_unsent;
    if (most > 0 && !l->is_unix && setsockopt(l->fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &most, sizeof most) < 0)
        log_warn("kernel-unsent", "setting=out.kernel_unsent error=\"%s\"", strerror(errno));
}

void
listen_start(struct worker *w)
{
    for (unsigned i = 0; i < w->listener_count; i++) {
        bound_kernel(w, &w->listeners[i]);
        listen_arm(w, &w->listeners[i]);
    }
}

void
listen_stop(struct worker *w)
{
    for (unsigned i = 0; i < w->listener_count; i++) {
        if (!w->listeners[i].armed)
            continue;
        struct io_uring_sqe *sqe = ring_sqe(&w->ring);
        io_uring_prep_cancel64(sqe, ring_tag(OP_ACCEPT, 0, i), 0);
        ring_set_tag(sqe, OP_CANCEL, 0, 0);
    }
}

static void
listen_rest(struct worker *w, struct listener *l, int err)
{
    COUNT(w, accept_paused_total);
    log_warn("accept-paused", "error=\"%s\" retry_ms=%d", strerror(err), ACCEPT_REST_MS);
    l->retry_at = w->tick + wheel_ticks(ACCEPT_REST_MS);
}

void
listen_on_accept(struct worker *w, struct listener *l, struct ring_done d)
{
    if (!ring_more(d))
        l->armed = false;
    if (d.res >= 0) {
        if (w->stopping)
            close(d.res);
        else
            conn_new(w, l, d.res);
    }
    if (w->stopping && !l->armed && l->fd >= 0) {
        close(l->fd); /* who else holds it goes on taking connections; otherwise they are refused now */
        l->fd = -1;
    }
    if (l->armed || w->stopping)
        return;
    if (d.res >= 0 || d.res == -ECONNABORTED || d.res == -EINTR || d.res == -EAGAIN)
        listen_arm(w, l);
    else
        listen_rest(w, l, -d.res);
}

void
listen_tick(struct worker *w)
{
    for (unsigned i = 0; i < w->listener_count; i++) {
        struct listener *l = &w->listeners[i];
        if (!l->armed && l->retry_at != 0 && !w->stopping && (int32_t)(w->tick - l->retry_at) >= 0)
            listen_arm(w, l);
    }
}

/* -- opening them ourselves, when no parent or service manager did -- */

static bool
fail(struct conf_error *err, const char *what, const char *text, int e)
{
    const char *hint = e == EADDRINUSE ? "another process has it: stop that one or choose another port"
        : e == EACCES                  ? "ports below 1024 need CAP_NET_BIND_SERVICE"
                                       : "check the address";
    snprintf(err->text, sizeof err->text, "worker.listen: %s %s: %s (%s)", what, text, strerror(e), hint);
    return false;
}

/* "Any" is one IPv6 address that takes IPv4 too, where there is IPv6: as under `ringcast run`. */
static int
family_of(const struct conf_listen *a)
{
    int probe = a->host[0] == '\0' ? socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0) : -1;
    if (probe >= 0)
        close(probe);
    return a->host[0] != '\0' ? AF_UNSPEC : probe >= 0 ? AF_INET6 : AF_INET;
}

static int
open_tcp(const struct conf_listen *a, bool shared, int backlog, int *e)
{
    struct addrinfo hints = {.ai_family = family_of(a), .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *list;
    int fd = -1;
    *e = EADDRNOTAVAIL;
    if (getaddrinfo(a->host[0] ? a->host : NULL, a->port, &hints, &list) != 0)
        return -1;
    for (struct addrinfo *ai = list; ai != NULL && fd < 0; ai = ai->ai_next) {
        fd = socket(ai->ai_family, ai->ai_socktype | SOCK_CLOEXEC, ai->ai_protocol);
        if (fd < 0) {
            *e = errno;
            continue;
        }
        sock_set_listener(fd, shared, a->host[0] == '\0');
        if (bind(fd, ai->ai_addr, ai->ai_addrlen) < 0 || listen(fd, backlog) < 0) {
            *e = errno;
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(list);
    return fd;
}

static int
open_unix(const struct conf_listen *a, int backlog, int *e)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    memcpy(sun.sun_path, a->path, MIN(sizeof sun.sun_path - 1, strlen(a->path)));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        if (connect(fd, (struct sockaddr *)&sun, sizeof sun) == 0) {
            *e = EADDRINUSE;
            close(fd);
            return -1;
        }
        struct stat st;
        if (lstat(sun.sun_path, &st) == 0 && S_ISSOCK(st.st_mode))
            unlink(sun.sun_path); /* left by a crash: nobody answers */
        mode_t mask = umask(0111); /* 0666: who may go there is for its directory to say */
        bool open = bind(fd, (struct sockaddr *)&sun, sizeof sun) == 0 && listen(fd, backlog) == 0;
        *e = errno;
        umask(mask);
        if (open)
            return fd;
        close(fd);
        return -1;
    }
    *e = errno;
    return -1;
}

/* Port 0: the kernel's choice for the first ring is everybody's. */
static bool
pick_port(struct conf_listen *a, int *e)
{
    struct sockaddr_storage ss;
    socklen_t n = sizeof ss;
    int fd = open_tcp(a, true, 1, e);
    if (fd < 0)
        return false;
    bool ok = getsockname(fd, (struct sockaddr *)&ss, &n) == 0 &&
        getnameinfo((struct sockaddr *)&ss, n, NULL, 0, a->port, sizeof a->port, NI_NUMERICSERV) == 0;
    close(fd);
    return ok;
}

bool
listen_open(const struct conf *conf, unsigned rings, struct listener *out, unsigned *per_ring,
    struct conf_error *err)
{
    unsigned n = conf->worker_listen.n, backlog = (unsigned)conf->worker_backlog;
    *per_ring = n;
    for (unsigned i = 0; i < n; i++) {
        struct conf_listen a;
        const char *text = conf->worker_listen.v[i];
        if (!conf_parse_listen(text, &a, err))
            return false;
        int e = 0;
        if (!a.is_unix && strcmp(a.port, "0") == 0 && !pick_port(&a, &e))
            return fail(err, "can't listen on", text, e);
        int unix_fd = a.is_unix ? open_unix(&a, (int)backlog, &e) : -1;
        for (unsigned r = 0; r < rings; r++) {
            int fd = a.is_unix ? (r == 0 ? unix_fd : dup(unix_fd)) : open_tcp(&a, true, (int)backlog, &e);
            if (fd < 0)
                return fail(err, "can't listen on", text, e);
            out[r * n + i] = (struct listener){
                .fd = fd, .is_unix = a.is_unix, .tls = a.tls, .proxy = a.proxy, .no_gaps = a.no_gaps};
        }
    }
    return true;
}
