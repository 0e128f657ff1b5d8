#include "deploy/ringcast/bind.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/bug.h"
#include "common/sock.h"

#include "common/banned.h"

#define PLACES_MAX 16 /* as many as a ring listens on */
/* Workers of a `ringcast run` that was just killed need a moment to give their sockets up. */
#define LEFTOVER_MS 1000
#define LEFTOVER_LOOK_MS 20

/* What a failed bind means for whoever wrote the address. */
static bool
fail_bind(struct conf_error *err, const struct conf *c, const struct bind_place *p, int why)
{
    const char *at = conf_place(c, "worker.listen");
    switch (why) {
    case EADDRINUSE:
        return conf_fail(err,
            "worker.listen (%s): %s is in use by another program: stop that (ss -ltnp names it) "
            "or choose another port",
            at, p->text);
    case EACCES:
        return conf_fail(err,
            "worker.listen (%s): this user may not listen on %s: choose a port from 1024 up, or "
            "give the program CAP_NET_BIND_SERVICE",
            at, p->text);
    case EADDRNOTAVAIL:
        return conf_fail(err,
            "worker.listen (%s): this machine has no address for %s: write one of its own (ip addr "
            "lists them), or tcp://*:port for all",
            at, p->text);
    default:
        return conf_fail(
            err, "worker.listen (%s): cannot listen on %s: %s", at, p->text, strerror(why));
    }
}

/* ---- from text to addresses ---- */

static struct bind_place *
place_add(struct binds *b, unsigned entry)
{
    b->v = xrealloc(b->v, (b->count + 1) * sizeof b->v[0]);
    struct bind_place *p = &b->v[b->count++];
    memset(p, 0, sizeof *p);
    p->entry = entry;
    p->fds = xmalloc(b->rings * sizeof p->fds[0]);
    for (unsigned i = 0; i < b->rings; i++)
        p->fds[i] = -1;
    return p;
}

static in_port_t *
place_port(struct bind_place *p)
{
    if (p->addr.ss_family == AF_INET6)
        return &((struct sockaddr_in6 *)(void *)&p->addr)->sin6_port;
    return &((struct sockaddr_in *)(void *)&p->addr)->sin_port;
}

static void
place_describe(struct bind_place *p)
{
    char host[INET6_ADDRSTRLEN] = "";
    if (p->addr.ss_family == AF_UNIX) {
        const struct sockaddr_un *u = (void *)&p->addr;
        (void)snprintf(p->text, sizeof p->text, "unix:%s", u->sun_path);
        return;
    }
    (void)getnameinfo((void *)&p->addr, p->addr_len, host, sizeof host, NULL, 0, NI_NUMERICHOST);
    bool v6 = p->addr.ss_family == AF_INET6;
    (void)snprintf(p->text, sizeof p->text, v6 ? "%s://[%s]:%u" : "%s://%s:%u", p->tls ? "tls" : "tcp",
        host, ntohs(*place_port(p)));
}

static void
add_unix(struct binds *b, unsigned entry, const struct conf_listen *l)
{
    struct bind_place *p = place_add(b, entry);
    struct sockaddr_un *u = (void *)&p->addr;
    u->sun_family = AF_UNIX;
    memcpy(u->sun_path, l->path, MIN(strlen(l->path) + 1, sizeof u->sun_path));
    p->addr_len = sizeof *u;
    place_describe(p);
}

/* Every address of a name; for "any" one IPv6 address that takes IPv4 too, where there is IPv6. */
static bool
add_tcp(struct binds *b, unsigned entry, const struct conf_listen *l, const struct conf *c,
    struct conf_error *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *all = NULL;
    bool any = l->host[0] == '\0';
    int probe = any ? socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0) : -1;
    hints.ai_family = !any ? AF_UNSPEC : probe >= 0 ? AF_INET6 : AF_INET;
    if (probe >= 0)
        (void)close(probe);
    int rc = getaddrinfo(any ? NULL : l->host, l->port, &hints, &all);
    if (rc != 0)
        return conf_fail(err, "worker.listen (%s): the host of %s is not known here: %s",
            conf_place(c, "worker.listen"), c->worker_listen.v[entry], gai_strerror(rc));
    for (struct addrinfo *a = all; a != NULL && b->count <= PLACES_MAX; a = a->ai_next) {
        struct bind_place *p = place_add(b, entry);
        memcpy(&p->addr, a->ai_addr, a->ai_addrlen);
        p->addr_len = a->ai_addrlen;
        p->any_host = any;
        p->tls = l->tls;
        place_describe(p);
    }
    freeaddrinfo(all);
    return true;
}

static bool
resolve(struct binds *b, const struct conf *c, struct conf_error *err)
{
    for (uint32_t i = 0; i < c->worker_listen.n; i++) {
        struct conf_listen l;
        if (!conf_parse_listen(c->worker_listen.v[i], &l, err))
            return false;
        unsigned from = b->count;
        if (l.is_unix)
            add_unix(b, i, &l);
        else if (!add_tcp(b, i, &l, c, err))
            return false;
        for (unsigned k = from; k < b->count; k++)
            b->v[k].proxy = l.proxy, b->v[k].no_gaps = l.no_gaps;
    }
    if (b->count <= PLACES_MAX)
        return true;
    return conf_fail(err, "worker.listen (%s) means more than %d addresses: name fewer",
        conf_place(c, "worker.listen"), PLACES_MAX);
}

/* ---- from addresses to sockets ---- */

/* Moves a descriptor up, out of the way of the numbers that children get theirs under. */
static int
lift(int fd, int floor)
{
    if (fd < 0 || fd >= floor)
        return fd;
    int up = fcntl(fd, F_DUPFD_CLOEXEC, floor);
    int why = errno;
    (void)close(fd);
    errno = why;
    return up;
}

/* A bound socket, or -1 with errno. */
static int
bind_tcp(const struct bind_place *p, bool shared, int floor)
{
    int fd = socket(p->addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0)
        fd = lift(fd, floor);
    if (fd < 0)
        return -1;
    sock_set_listener(fd, shared, p->any_host);
    if (bind(fd, (const void *)&p->addr, p->addr_len) == 0)
        return fd;
    int why = errno;
    (void)close(fd);
    errno = why;
    return -1;
}

/* Whether the address is free of others. With SO_REUSEPORT the kernel would let us join a program
 * of the same user and share its clients, so a socket without it goes first. */
static bool
is_free(const struct bind_place *p, unsigned backlog)
{
    int fd = bind_tcp(p, false, 0);
    int why = errno;
    bool ok = fd >= 0 && listen(fd, (int)backlog) == 0;
    if (fd >= 0) {
        why = errno;
        (void)close(fd);
    }
    errno = why;
    return ok;
}

static bool
tcp_is_taken(const struct bind_place *p)
{
    return !is_free(p, 1) && errno == EADDRINUSE;
}

/* Whether it is taken, and stays so. */
static bool
stays(bool (*taken)(const struct bind_place *p), const struct bind_place *p)
{
    bool is = taken(p);
    for (unsigned ms = 0; is && ms < LEFTOVER_MS; ms += LEFTOVER_LOOK_MS) {
        usleep(LEFTOVER_LOOK_MS * 1000);
        is = taken(p);
    }
    return is;
}

/* All rings' sockets at a TCP address; a port of 0 becomes the one the kernel gave the first. */
static bool
open_tcp(struct binds *b, struct bind_place *p, const struct conf *c, struct conf_error *err)
{
    bool shared = b->rings > 1;
    if (*place_port(p) != 0 && stays(tcp_is_taken, p))
        return fail_bind(err, c, p, EADDRINUSE);
    for (unsigned i = 0; i < b->rings; i++) {
        p->fds[i] = bind_tcp(p, shared, b->floor);
        if (p->fds[i] < 0)
            return fail_bind(err, c, p, errno);
        socklen_t n = sizeof p->addr;
        if (i == 0 && getsockname(p->fds[0], (void *)&p->addr, &n) == 0)
            place_describe(p);
    }
    for (unsigned i = 0; i < b->rings; i++)
        if (listen(p->fds[i], (int)c->worker_backlog) != 0)
            return fail_bind(err, c, p, errno);
    return true;
}

/* Whether somebody listens at a UNIX socket. What nobody listens at is a leftover. */
static bool
unix_is_served(const struct bind_place *p)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool served =
        fd >= 0 && (connect(fd, (const void *)&p->addr, p->addr_len) == 0 || errno == EAGAIN);
    if (fd >= 0)
        (void)close(fd);
    return served;
}

static bool
open_unix(struct binds *b, struct bind_place *p, const struct conf *c, struct conf_error *err)
{
    const char *path = ((const struct sockaddr_un *)(const void *)&p->addr)->sun_path;
    struct stat st;
    if (lstat(path, &st) == 0) {
        if (!S_ISSOCK(st.st_mode))
            return conf_fail(err,
                "worker.listen (%s): %s exists and is no socket: choose another path",
                conf_place(c, "worker.listen"), path);
        if (stays(unix_is_served, p))
            return conf_fail(err,
                "worker.listen (%s): %s is in use by another program: stop that or choose another "
                "path",
                conf_place(c, "worker.listen"), p->text);
        (void)unlink(path);
    }
    int fd = lift(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), b->floor);
    /* 0666, as clients and proxies are other users: who may go there is for its directory to say. */
    mode_t mask = umask(0111);
    bool bound = fd >= 0 && bind(fd, (const void *)&p->addr, p->addr_len) == 0;
    int why = errno;
    (void)umask(mask);
    if (!bound) {
        if (fd >= 0)
            (void)close(fd);
        return fail_bind(err, c, p, why);
    }
    p->fds[0] = fd;
    return listen(fd, (int)c->worker_backlog) == 0 || fail_bind(err, c, p, errno);
}

/* An address of the same entry with port 0 takes the port that the entry's first address got. */
static void
take_sibling_port(struct binds *b, unsigned i)
{
    struct bind_place *p = &b->v[i], *first = i > 0 ? &b->v[i - 1] : NULL;
    if (first != NULL && first->entry == p->entry && *place_port(p) == 0) {
        *place_port(p) = *place_port(first);
        place_describe(p);
    }
}

/* Sockets needed, against the limit of open files. */
static bool
check_files(const struct binds *b, const struct conf *c, struct conf_error *err)
{
    struct rlimit files = {1024, 1024};
    (void)getrlimit(RLIMIT_NOFILE, &files);
    uint64_t wanted = (uint64_t)b->count * b->rings + (uint64_t)b->floor + 64;
    if (wanted <= files.rlim_cur)
        return true;
    return conf_fail(err,
        "worker.count (%s) and worker.rings (%s) need %llu open files for their listeners, and "
        "%llu are allowed: raise the limit (LimitNOFILE=, ulimit -n) or lower them",
        conf_place(c, "worker.count"), conf_place(c, "worker.rings"), (unsigned long long)wanted,
        (unsigned long long)files.rlim_cur);
}

bool
binds_open(struct binds *b, const struct conf *c, struct conf_error *err)
{
    *b = (struct binds){.rings = (unsigned)(c->worker_count * c->worker_rings)};
    bool ok = resolve(b, c, err);
    b->floor = 3 + (int)(b->count * c->worker_rings) + 4;
    ok = ok && check_files(b, c, err);
    for (unsigned i = 0; ok && i < b->count; i++) {
        struct bind_place *p = &b->v[i];
        if (p->addr.ss_family == AF_UNIX) {
            ok = open_unix(b, p, c, err);
        } else {
            take_sibling_port(b, i);
            ok = open_tcp(b, p, c, err);
        }
    }
    if (!ok)
        binds_close(b);
    return ok;
}

const char *
binds_kind(const struct bind_place *p)
{
    static const char *const kinds[] = {"", "+tls", "+proxy", "+tls+proxy",
        "+nogaps", "+tls+nogaps", "+proxy+nogaps", "+tls+proxy+nogaps"};
    return kinds[(p->tls ? 1 : 0) + (p->proxy ? 2 : 0) + (p->no_gaps ? 4 : 0)];
}

int
binds_fd(const struct binds *b, unsigned i, unsigned ring)
{
    return b->v[i].fds[b->v[i].addr.ss_family == AF_UNIX ? 0 : ring];
}

void
binds_leave(struct binds *b)
{
    for (unsigned i = 0; i < b->count; i++) {
        struct bind_place *p = &b->v[i];
        if (p->addr.ss_family == AF_UNIX && p->fds[0] >= 0)
            (void)unlink(((struct sockaddr_un *)(void *)&p->addr)->sun_path);
        for (unsigned k = 0; k < b->rings; k++) {
            if (p->fds[k] >= 0)
                (void)close(p->fds[k]);
            p->fds[k] = -1;
        }
    }
}

void
binds_close(struct binds *b)
{
    binds_leave(b);
    for (unsigned i = 0; i < b->count; i++)
        free(b->v[i].fds);
    free(b->v);
    *b = (struct binds){0};
}

void
binds_url(const struct binds *b, char *out, size_t out_n)
{
    out[0] = '\0';
    for (unsigned i = 0; i < b->count; i++) {
        struct bind_place *p = &b->v[i];
        if (p->addr.ss_family == AF_UNIX)
            continue;
        if (p->any_host)
            (void)snprintf(out, out_n, "http%s://localhost:%u/", p->tls ? "s" : "", ntohs(*place_port(p)));
        else
            (void)snprintf(out, out_n, "http%s%s/", p->tls ? "s" : "", p->text + strlen("tcp"));
        return;
    }
}
