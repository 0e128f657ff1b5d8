#include "broker/resolve.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common/log.h"
#include "common/priv.h"

#include "common/banned.h"

#define NAMES_MAX 64 /* that are remembered; the one asked for longest ago makes room */
#define NAME_BYTES 256
#define ADDRESSES_MAX 8
#define FRESH_MS 1000
#define PATIENCE_MS 30000 /* then the question is asked again: its answer may have been lost */

struct question {
    uint32_t number;
    char name[NAME_BYTES];
};

struct address {
    uint8_t v6; /* 1: 16 bytes of ip, 0: 4 */
    uint8_t ip[16];
    uint32_t scope;
};

struct answer {
    uint32_t number;
    uint32_t n; /* 0: not known */
    struct address v[ADDRESSES_MAX];
};

struct known {
    char name[NAME_BYTES];
    uint32_t number;   /* of the question that is open; 0: none */
    bool answered;     /* ever; then `found` is the last answer */
    struct mono at;    /* of the answer, or of the question */
    struct mono used;
    struct answer found;
};

struct resolve {
    int fd; /* -1: the child is gone */
    uint32_t number;
    struct known names[NAMES_MAX];
};

/* -- the child -- */

static void
look_up(const char *name, struct answer *a)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *all = NULL;
    if (getaddrinfo(name, NULL, &hints, &all) != 0)
        return;
    for (const struct addrinfo *i = all; i != NULL && a->n < ADDRESSES_MAX; i = i->ai_next) {
        struct address *x = &a->v[a->n];
        if (i->ai_family == AF_INET) {
            memcpy(x->ip, &((const struct sockaddr_in *)(const void *)i->ai_addr)->sin_addr, 4);
        } else if (i->ai_family == AF_INET6) {
            const struct sockaddr_in6 *v6 = (const void *)i->ai_addr;
            x->v6 = 1;
            memcpy(x->ip, &v6->sin6_addr, 16);
            x->scope = v6->sin6_scope_id;
        } else {
            continue;
        }
        a->n++;
    }
    freeaddrinfo(all);
}

NORETURN static void
serve(int fd)
{
    struct question q;
    while (recv(fd, &q, sizeof q, 0) == sizeof q) {
        struct answer a = {.number = q.number};
        q.name[NAME_BYTES - 1] = '\0';
        look_up(q.name, &a);
        if (send(fd, &a, sizeof a, MSG_NOSIGNAL) < 0)
            break;
    }
    _exit(0);
}

/* Nothing of the broker's stays open here: a successor tells by its sockets whether it is still there. */
NORETURN static void
be_child(int fd, const struct conf *conf, pid_t parent)
{
    struct conf_error err;
    struct priv_user own;
    int nothing = open("/dev/null", O_RDWR);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
        _exit(0);
    (void)prctl(PR_SET_NAME, "ringcast-names");
    if (nothing < 0 || dup2(fd, 3) != 3 ||
        dup2(nothing, 0) < 0 || dup2(nothing, 1) < 0 || dup2(nothing, 2) < 0 || close_range(4, ~0u, 0) != 0)
        _exit(1);
    if (!priv_user_find(&own, conf, "broker.user", false, &err) || !priv_drop(&own, conf, &err))
        _exit(1);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* becoming another user has cleared it */
    if (getppid() != parent)
        _exit(0);
    serve(3);
}

struct resolve *
resolve_open(const struct conf *conf, struct conf_error *err)
{
    struct resolve *r = calloc(1, sizeof *r);
    int fds[2] = {-1, -1};
    pid_t self = getpid(), child = -1;
    if (r != NULL && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) == 0)
        child = fork();
    if (child == 0)
        be_child(fds[1], conf, self);
    if (fds[1] >= 0)
        close(fds[1]);
    if (child < 0) {
        (void)conf_fail(err, "redis.url: the process that looks up names can't be started: %s", strerror(errno));
        if (fds[0] >= 0)
            close(fds[0]);
        free(r);
        return NULL;
    }
    r->fd = fds[0];
    return r;
}

void
resolve_close(struct resolve *r)
{
    if (r == NULL)
        return;
    if (r->fd >= 0)
        close(r->fd); /* the child ends by that */
    free(r);
}

/* -- the broker's side -- */

static void
lose_child(struct resolve *r)
{
    log_error("names-lost", "why=\"the process that looks up names has ended\" names known so far keep their addresses");
    close(r->fd);
    r->fd = -1;
}

static void
take_answers(struct resolve *r, struct mono now)
{
    struct answer a;
    ssize_t n = 0;
    while (r->fd >= 0 && (n = recv(r->fd, &a, sizeof a, MSG_DONTWAIT)) >= 0) {
        if (n != sizeof a || a.n > ADDRESSES_MAX) {
            lose_child(r);
            return;
        }
        for (uint32_t i = 0; i < NAMES_MAX; i++) {
            struct known *k = &r->names[i];
            if (k->number != a.number)
                continue;
            k->number = 0;
            k->at = now;
            if (a.n > 0 || !k->answered || k->found.n == 0)
                k->found = a;
            k->answered = true;
        }
    }
    if (r->fd >= 0 && n < 0 && errno != EAGAIN && errno != EINTR)
        lose_child(r);
}

static struct known *
find(struct resolve *r, const char *host)
{
    struct known *oldest = &r->names[0];
    for (uint32_t i = 0; i < NAMES_MAX; i++) {
        struct known *k = &r->names[i];
        if (strcmp(k->name, host) == 0)
            return k;
        if (k->used.ns < oldest->used.ns)
            oldest = k;
    }
    *oldest = (struct known){0};
    memcpy(oldest->name, host, strlen(host) + 1);
    return oldest;
}

static void
ask(struct resolve *r, struct known *k, struct mono now)
{
    struct question q = {.number = ++r->number};
    if (q.number == 0)
        q.number = ++r->number;
    memcpy(q.name, k->name, sizeof q.name);
    if (r->fd < 0 || send(r->fd, &q, sizeof q, MSG_DONTWAIT | MSG_NOSIGNAL) != sizeof q)
        return; /* full: asked by a later call */
    k->number = q.number;
    k->at = now;
}

static void
put_address(const struct address *a, uint16_t port, struct sockaddr_storage *out, socklen_t *out_n)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)out;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;
    memset(out, 0, sizeof *out);
    if (a->v6) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        v6->sin6_scope_id = a->scope;
        memcpy(&v6->sin6_addr, a->ip, 16);
    } else {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        memcpy(&v4->sin_addr, a->ip, 4);
    }
    *out_n = a->v6 ? sizeof *v6 : sizeof *v4;
}

enum resolve_rc
resolve_name(struct resolve *r, const char *host, uint16_t port, uint32_t nth, struct sockaddr_storage *out,
    socklen_t *out_n, struct mono now)
{
    if (r == NULL || host[0] == '\0' || strlen(host) >= NAME_BYTES)
        return RESOLVE_FAILED;
    take_answers(r, now);
    struct known *k = find(r, host);
    bool fresh = k->answered && mono_since_ms(now, k->at) < FRESH_MS;
    k->used = now;
    if (k->number != 0 && mono_since_ms(now, k->at) >= PATIENCE_MS)
        k->number = 0;
    if (!fresh && r->fd >= 0) {
        if (k->number == 0)
            ask(r, k, now);
        return RESOLVE_WAITS;
    }
    if (!k->answered || k->found.n == 0)
        return RESOLVE_FAILED;
    put_address(&k->found.v[nth % k->found.n], port, out, out_n);
    return RESOLVE_FOUND;
}
