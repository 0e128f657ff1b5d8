#include "tests/unit/t_redis.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <hiredis/hiredis.h>

#define WAIT_MS T_REDIS_WAIT_MS
#define STEP_MS 5
#define ATTEMPTS 5 /* a port may be taken between the asking and the taking */
#define SLOTS_ALL 16384u

static void
nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = STEP_MS * 1000000L}, NULL);
}

void
t_redis_until(bool (*is)(void *arg), void *arg, const char *what)
{
    for (int ms = 0; ms < WAIT_MS; ms += STEP_MS) {
        if (is(arg))
            return;
        nap();
    }
    fail_msg("waited in vain: %s", what);
}

bool
t_redis_there(void)
{
    return access("/usr/bin/redis-server", X_OK) == 0 || access("/usr/local/bin/redis-server", X_OK) == 0;
}

/* -- keys -- */

static void
shell(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static void
shell(const char *fmt, ...)
{
    char command[800];
    va_list list;
    va_start(list, fmt);
    int n = vsnprintf(command, sizeof command, fmt, list);
    va_end(list);
    assert_true(n > 0 && (size_t)n < sizeof command);
    assert_int_equal(system(command), 0);
}

void
t_redis_keys(char dir[64])
{
    snprintf(dir, 64, "/tmp/t-redis-keys-XXXXXX");
    assert_non_null(mkdtemp(dir));
    shell("cd %s && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 2 "
        "-subj /CN=authority -addext basicConstraints=critical,CA:TRUE 2>/dev/null", dir);
}

void
t_redis_certificate(const char *dir, const char *name, const char *what_for)
{
    shell("cd %s && openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout %s.key -out new.csr -subj /CN=%s 2>/dev/null",
        dir, name, name);
    shell("cd %s && printf '%s' >new.ext && openssl x509 -req -in new.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 "
        "-extfile new.ext -out %s.pem 2>/dev/null", dir, what_for, name);
}

const char *
t_redis_secret(const char *dir, const char *name, const char *line)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "%s\n", line);
    assert_int_equal(fclose(f), 0);
    return path;
}

void
t_redis_keys_end(const char *dir)
{
    shell("rm -r %s", dir);
}

/* -- processes -- */

static uint16_t
free_port(void)
{
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof sin;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&sin, n), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sin, &n), 0);
    close(fd);
    return ntohs(sin.sin_port);
}

static void
write_conf(const struct t_redis *r)
{
    char path[96];
    snprintf(path, sizeof path, "%s/conf", r->dir);
    if (access(path, F_OK) == 0)
        return; /* again: a sentinel keeps what it learned there */
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    bool tls = strstr(r->more, "--tls-replication yes") != NULL;
    fprintf(f, "%s %u\nbind 127.0.0.1\ndir %s\nunixsocket %s\nloglevel notice\nlogfile %s/log\n", tls ? "port 0\ntls-port" : "port",
        r->port, r->dir, r->sock, r->dir);
    if (!r->sentinel)
        fprintf(f, "save \"\"\nappendonly no\nrepl-diskless-sync-delay 0\nrepl-ping-replica-period 1\n");
    if (r->bus != 0)
        fprintf(f, "cluster-enabled yes\ncluster-port %u\ncluster-node-timeout 1000\ncluster-replica-validity-factor 0\n"
            "cluster-config-file nodes.conf\n", r->bus);
    /* --name value --name value: a line for each */
    for (const char *p = r->more; (p = strstr(p, "--")) != NULL;) {
        p += 2;
        const char *end = strstr(p, " --");
        fprintf(f, "%.*s\n", end != NULL ? (int)(end - p) : (int)strlen(p), p);
    }
    assert_int_equal(fclose(f), 0);
}

static void
spawn(struct t_redis *r)
{
    char conf[96], path[96];
    write_conf(r);
    snprintf(conf, sizeof conf, "%s/conf", r->dir);
    snprintf(path, sizeof path, "%s/out", r->dir);
    unlink(r->sock);
    pid_t parent = getpid();
    r->pid = fork();
    assert_true(r->pid >= 0);
    if (r->pid == 0) {
        int fd = open(path, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (fd < 0 || getppid() != parent)
            _exit(1);
        (void)dup2(fd, STDOUT_FILENO);
        (void)dup2(fd, STDERR_FILENO);
        execlp("redis-server", "redis-server", conf, r->sentinel ? "--sentinel" : NULL, (char *)NULL);
        _exit(1);
    }
}

/* False when the process ended instead. */
static bool
answers(struct t_redis *r)
{
    for (int ms = 0; ms < WAIT_MS; ms += STEP_MS) {
        if (waitpid(r->pid, NULL, WNOHANG) == r->pid) {
            r->pid = 0;
            return false;
        }
        const char *said = t_redis_ask(r, "PING");
        if (strcmp(said, "PONG") == 0 || strstr(said, "NOAUTH") != NULL || strstr(said, "NOPERM") != NULL)
            return true;
        nap();
    }
    fail_msg("redis-server on port %u does not answer", r->port);
    return false;
}

static void
run_command(const char *name, const char *arg)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        execlp(name, name, "-rf", arg, (char *)NULL);
        _exit(1);
    }
    assert_int_equal(waitpid(child, NULL, 0), child);
}

static void
start_as(struct t_redis *r, const char *more, bool cluster, bool sentinel)
{
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        *r = (struct t_redis){.sentinel = sentinel};
        snprintf(r->dir, sizeof r->dir, "/tmp/t-redis-XXXXXX");
        assert_non_null(mkdtemp(r->dir));
        snprintf(r->sock, sizeof r->sock, "%s/sock", r->dir);
        assert_true((size_t)snprintf(r->more, sizeof r->more, "%s", more) < sizeof r->more);
        r->port = free_port();
        r->bus = cluster ? free_port() : 0;
        spawn(r);
        if (answers(r))
            return;
        if (attempt < ATTEMPTS - 1)
            run_command("rm", r->dir);
    }
    fail_msg("redis-server does not start; see %s/log and %s/out", r->dir, r->dir);
}

void
t_redis_start(struct t_redis *r, const char *more)
{
    start_as(r, more, false, false);
}

void
t_redis_kill(struct t_redis *r)
{
    if (r->pid == 0)
        return;
    (void)kill(r->pid, SIGKILL);
    assert_int_equal(waitpid(r->pid, NULL, 0), r->pid);
    r->pid = 0;
}

void
t_redis_restart(struct t_redis *r)
{
    assert_int_equal(r->pid, 0);
    for (int ms = 0; ms < WAIT_MS; ms += STEP_MS) { /* the port may be held by who connected to it */
        spawn(r);
        if (answers(r))
            return;
        nap();
    }
    fail_msg("redis-server does not start again on port %u; see %s/log", r->port, r->dir);
}

void
t_redis_pause(struct t_redis *r)
{
    assert_int_equal(kill(r->pid, SIGSTOP), 0);
}

void
t_redis_resume(struct t_redis *r)
{
    assert_int_equal(kill(r->pid, SIGCONT), 0);
}

void
t_redis_end(struct t_redis *r)
{
    t_redis_kill(r);
    if (r->dir[0] != 0 && getenv("T_REDIS_KEEP") == NULL) /* for a look at its log */
        run_command("rm", r->dir);
    r->dir[0] = 0;
}

/* -- talk -- */

static char answer[65536];

static void
put(size_t *n, const char *text, size_t bytes)
{
    size_t room = sizeof answer - 1 - *n;
    bytes = bytes < room ? bytes : room;
    memcpy(answer + *n, text, bytes);
    *n += bytes;
    answer[*n] = 0;
}

static void
put_reply(size_t *n, const redisReply *r, int depth)
{
    char digits[24];
    switch (r->type) {
    case REDIS_REPLY_INTEGER:
        snprintf(digits, sizeof digits, "%lld", r->integer);
        put(n, digits, strlen(digits));
        break;
    case REDIS_REPLY_ARRAY:
        for (size_t i = 0; i < r->elements && depth < 8; i++) {
            put_reply(n, r->element[i], depth + 1);
            if (r->element[i]->type != REDIS_REPLY_ARRAY)
                put(n, "\n", 1);
        }
        break;
    case REDIS_REPLY_ERROR:
        put(n, "ERR:", 4);
        put(n, r->str, (size_t)r->len);
        break;
    case REDIS_REPLY_NIL: put(n, "(nil)", 5); break;
    default: put(n, r->str, (size_t)r->len);
    }
}

static const char *
ask_list(const struct t_redis *r, const char *fmt, va_list list)
{
    char text[2048];
    const char *argv[64];
    int argc = 0;
    assert_true((size_t)vsnprintf(text, sizeof text, fmt, list) < sizeof text);
    for (char *save = NULL, *word = strtok_r(text, " ", &save); word != NULL && argc < 64; word = strtok_r(NULL, " ", &save))
        argv[argc++] = word;
    snprintf(answer, sizeof answer, "ERR:no connection");
    redisContext *c = redisConnectUnixWithTimeout(r->sock, (struct timeval){5, 0});
    if (c == NULL || c->err) {
        if (c != NULL)
            redisFree(c);
        return answer;
    }
    (void)redisSetTimeout(c, (struct timeval){5, 0});
    if (strstr(r->more, "--requirepass " T_REDIS_PASSWORD) != NULL)
        freeReplyObject(redisCommand(c, "AUTH %s", T_REDIS_PASSWORD));
    redisReply *reply = redisCommandArgv(c, argc, argv, NULL);
    if (reply != NULL) {
        size_t n = 0;
        answer[0] = 0;
        put_reply(&n, reply, 0);
        freeReplyObject(reply);
    }
    redisFree(c);
    return answer;
}

const char *
t_redis_ask(const struct t_redis *r, const char *fmt, ...)
{
    va_list list;
    va_start(list, fmt);
    const char *said = ask_list(r, fmt, list);
    va_end(list);
    return said;
}

void
t_redis_expect(const struct t_redis *r, const char *wanted, const char *fmt, ...)
{
    va_list list;
    va_start(list, fmt);
    const char *said = ask_list(r, fmt, list);
    va_end(list);
    if (strncmp(said, wanted, strlen(wanted)) != 0)
        fail_msg("%s: \"%s\" and not \"%s\"", fmt, said, wanted);
}

bool
t_redis_info_has(const struct t_redis *r, const char *text)
{
    if (strstr(t_redis_ask(r, "INFO"), text) != NULL)
        return true;
    return r->bus != 0 && strstr(t_redis_ask(r, "CLUSTER INFO"), text) != NULL;
}

/* -- a cluster -- */

static bool
cluster_is_whole(void *arg)
{
    const struct t_cluster *c = arg;
    char known[48];
    snprintf(known, sizeof known, "cluster_known_nodes:%u", c->n);
    for (unsigned i = 0; i < c->n; i++)
        if (!t_redis_info_has(&c->node[i], known) || !t_redis_info_has(&c->node[i], "cluster_state:ok") ||
            !t_redis_info_has(&c->node[i], "cluster_slots_ok:16384") ||
            (i >= c->primaries && !t_redis_info_has(&c->node[i], "master_link_status:up")))
            return false;
    return true;
}

static bool
all_have_met(void *arg)
{
    const struct t_cluster *c = arg;
    for (unsigned i = 0; i < c->n; i++)
        for (unsigned k = 0; k < c->n; k++)
            if (strstr(t_redis_ask(&c->node[i], "CLUSTER NODES"), c->node[k].id) == NULL)
                return false;
    return true;
}

void
t_cluster_start(struct t_cluster *c, unsigned primaries, unsigned replicas, const char *more)
{
    *c = (struct t_cluster){.primaries = primaries, .n = primaries + replicas};
    assert_true(primaries > 0 && c->n <= T_CLUSTER_MAX);
    for (unsigned i = 0; i < c->n; i++) {
        start_as(&c->node[i], more, true, false);
        snprintf(c->node[i].id, sizeof c->node[i].id, "%s", t_redis_ask(&c->node[i], "CLUSTER MYID"));
        t_redis_expect(&c->node[i], "OK", "CLUSTER SET-CONFIG-EPOCH %u", i + 1);
    }
    for (unsigned i = 0; i < primaries; i++)
        t_redis_expect(&c->node[i], "OK", "CLUSTER ADDSLOTSRANGE %u %u", i * SLOTS_ALL / primaries,
            (i + 1) * SLOTS_ALL / primaries - 1);
    for (unsigned i = 1; i < c->n; i++)
        t_redis_expect(&c->node[0], "OK", "CLUSTER MEET %s %u %u", strstr(more, "--bind ::1") != NULL ? "::1" : "127.0.0.1", c->node[i].port, c->node[i].bus);
    t_redis_until(all_have_met, c, "the nodes of a cluster know each other");
    for (unsigned i = primaries; i < c->n; i++)
        t_redis_expect(&c->node[i], "OK", "CLUSTER REPLICATE %s", c->node[(i - primaries) % primaries].id);
    t_redis_until(cluster_is_whole, c, "a cluster is whole");
}

void
t_cluster_end(struct t_cluster *c)
{
    for (unsigned i = 0; i < c->n; i++)
        t_redis_end(&c->node[i]);
}

/* Of CLUSTER NODES: "... connected 0-5460 5462 [1->-id]". */
static bool
line_has_slot(const char *line, const char *end, unsigned slot)
{
    const char *p = strstr(line, " connected");
    while (p != NULL && p < end && (p = strchr(p + 1, ' ')) != NULL && p < end) {
        unsigned from, to;
        int got = p[1] == '[' ? 0 : sscanf(p, " %u-%u", &from, &to);
        if (got > 0 && slot >= from && slot <= (got == 2 ? to : from))
            return true;
    }
    return false;
}

/* By the line that a node writes about itself. */
int
t_cluster_owner(const struct t_cluster *c, unsigned slot)
{
    for (unsigned i = 0; i < c->n; i++) {
        if (c->node[i].pid == 0)
            continue;
        const char *line = strstr(t_redis_ask(&c->node[i], "CLUSTER NODES"), "myself,master");
        const char *end = line != NULL ? strchr(line, '\n') : NULL;
        if (end != NULL && line_has_slot(line, end, slot))
            return (int)i;
    }
    return -1;
}

struct claim {
    const struct t_cluster *c;
    unsigned slot, owner;
};

bool
t_cluster_agrees(const struct t_cluster *c, unsigned slot, unsigned owner)
{
    char first[48] = "";
    for (unsigned i = 0; i < c->n; i++) {
        if (c->node[i].pid == 0)
            continue;
        const char *said = strstr(t_redis_ask(&c->node[i], "CLUSTER INFO"), "cluster_current_epoch:");
        if (said == NULL || (first[0] != 0 && strncmp(first, said, strlen(first)) != 0))
            return false;
        snprintf(first, sizeof first, "%.*s", (int)strcspn(said, "\r"), said);
        said = t_redis_ask(&c->node[i], "CLUSTER NODES");
        const char *line = said;
        while (line != NULL && strncmp(line, c->node[owner].id, 40) != 0)
            line = (line = strchr(line, '\n')) != NULL ? line + 1 : NULL;
        const char *end = line != NULL ? strchr(line, '\n') : NULL;
        if (end == NULL || !line_has_slot(line, end, slot))
            return false;
    }
    return true;
}

static bool
all_agree(void *arg)
{
    const struct claim *claim = arg;
    return t_cluster_agrees(claim->c, claim->slot, claim->owner);
}

void
t_cluster_move(struct t_cluster *c, unsigned slot, unsigned to)
{
    int from = t_cluster_owner(c, slot);
    struct claim claim = {c, slot, to};
    assert_true(from >= 0 && (unsigned)from != to);
    t_redis_expect(&c->node[to], "OK", "CLUSTER SETSLOT %u IMPORTING %s", slot, c->node[from].id);
    t_redis_expect(&c->node[from], "OK", "CLUSTER SETSLOT %u MIGRATING %s", slot, c->node[to].id);
    t_redis_expect(&c->node[to], "OK", "CLUSTER SETSLOT %u NODE %s", slot, c->node[to].id);
    t_redis_expect(&c->node[from], "OK", "CLUSTER SETSLOT %u NODE %s", slot, c->node[to].id);
    /* The next move before all know of this one could end with two owners or none. */
    t_redis_until(all_agree, &claim, "all nodes know that a slot moved");
}

/* -- sentinels -- */

static bool
replicas_are_in_step(void *arg)
{
    const struct t_sentinels *s = arg;
    for (unsigned i = 1; i < s->n; i++)
        if (!t_redis_info_has(&s->node[i], "master_link_status:up"))
            return false;
    return true;
}

static bool
sentinels_agree(void *arg)
{
    const struct t_sentinels *s = arg;
    char replicas[32];
    snprintf(replicas, sizeof replicas, "slaves=%u,sentinels=%u", s->n - 1, T_SENTINELS);
    for (unsigned i = 0; i < T_SENTINELS; i++)
        if (!t_redis_info_has(&s->sentinel[i], replicas) ||
            strncmp(t_redis_ask(&s->sentinel[i], "SENTINEL CKQUORUM " T_SENTINEL_NAME), "OK 3", 4) != 0)
            return false;
    return true;
}

void
t_sentinels_start(struct t_sentinels *s, unsigned replicas, const char *more, const char *more_sentinel)
{
    char options[2048];
    *s = (struct t_sentinels){.n = 1 + replicas};
    assert_true(s->n <= 4);
    t_redis_start(&s->node[0], more);
    for (unsigned i = 1; i < s->n; i++) {
        snprintf(options, sizeof options, "--replicaof 127.0.0.1 %u %s", s->node[0].port, more);
        t_redis_start(&s->node[i], options);
    }
    t_redis_until(replicas_are_in_step, s, "replicas are in step");
    snprintf(options, sizeof options, "--sentinel monitor " T_SENTINEL_NAME " 127.0.0.1 %u 2"
        " --sentinel down-after-milliseconds " T_SENTINEL_NAME " 500 --sentinel failover-timeout " T_SENTINEL_NAME " 3000 %s",
        s->node[0].port, more_sentinel);
    for (unsigned i = 0; i < T_SENTINELS; i++)
        start_as(&s->sentinel[i], options, false, true);
    t_redis_until(sentinels_agree, s, "sentinels agree");
}

void
t_sentinels_end(struct t_sentinels *s)
{
    for (unsigned i = 0; i < T_SENTINELS; i++)
        t_redis_end(&s->sentinel[i]);
    for (unsigned i = 0; i < s->n; i++)
        t_redis_end(&s->node[i]);
}

int
t_sentinels_primary(const struct t_sentinels *s)
{
    for (unsigned i = 0; i < T_SENTINELS; i++) {
        unsigned port;
        if (s->sentinel[i].pid == 0)
            continue;
        const char *said = t_redis_ask(&s->sentinel[i], "SENTINEL GET-MASTER-ADDR-BY-NAME " T_SENTINEL_NAME);
        if (sscanf(said, "127.0.0.1\n%u", &port) != 1)
            continue;
        for (unsigned k = 0; k < s->n; k++)
            if (s->node[k].port == port)
                return (int)k;
    }
    return -1;
}
