#include "deploy/ringcast/run.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/bug.h"
#include "common/log.h"
#include "common/metric.h"
#include "common/priv.h"
#include "common/ring.h"
#include "common/start.h"

#include "deploy/ringcast/bind.h"
#include "deploy/ringcast/child.h"
#include "deploy/ringcast/notify.h"
#include "deploy/ringcast/rundir.h"

#include "common/banned.h"

#define ARGS_MAX 1024        /* of a child */
#define SETTINGS_MAX 256     /* rows of config.def that stand in our counter page */
#define FIRST_START_DEATHS 2 /* a child that ends this often before all were ready can't start */
#define KILL_GRACE_MS 400    /* behind run.drain_timeout, for a worker that just makes it */
#define STOP_GRACE_MS 800    /* ... and for the brokers behind it: then all is over */
#define BROKER_STOP_MS 400   /* what they get at least; they have nothing to drain but, beside it, a bus */
#define HEARTBEAT_MS 1000
#define SAY_WAITING_MS 10000

/* Rows of our own page; the settings follow. */
enum run_metric {
#define RUN_METRIC(name, kind, unit, sentence) M_##name,
#include "deploy/ringcast/run.def"
#undef RUN_METRIC
    M_FIRST_SETTING
};

enum phase { RUNNING, STOPPING_WORKERS, STOPPING_BROKERS, GONE };

/* Everything of `ringcast run`. One, on the stack of run_command. */
struct run {
    struct conf *c;
    struct rundir dir;
    struct binds binds;
    struct child *children; /* brokers, then workers */
    unsigned child_count;
    int *listen_fds; /* scratch for one worker: places times rings */
    char *listen_names;
    char program[2][512]; /* broker, worker */
    int signal_fd;
    /* What tells children that we died. Workers read the first; brokers the second, whose other end
     * workers hold as well: brokers hear of our death when the workers have drained. */
    int worker_pipe[2];
    int broker_pipe[2];
    struct metric_page page;
    enum phase phase;
    bool was_ready;       /* everything was ready once */
    bool hurried;         /* a second signal: no more patience */
    bool forced;          /* something had to be killed */
    bool failed;          /* could not start: exit status 1 */
    bool degraded;        /* as last told to the service manager */
    struct mono deadline; /* of this phase of the stop */
    struct mono stop_end; /* of all of it */
    struct mono next_watchdog;
    struct mono next_waiting; /* when to name what start-up waits for */
    uint64_t watchdog_ms;
};

/* ---- before anything starts ---- */

/* A ring is made and thrown away: the one way to know whether this host allows it. */
static bool
check_io_uring(struct conf_error *err)
{
    struct ring r;
    int rc = ring_init(&r, 8, 16);
    if (rc < 0)
        return conf_fail(err, "%s", ring_setup_hint(rc));
    ring_fini(&r);
    return true;
}

/* The programs lie beside our own. */
static bool
find_programs(struct run *r, struct conf_error *err)
{
    static const char *const names[] = {"ringcast-broker", "ringcast-worker"};
    char self[400];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(self, '/');
    if (slash != NULL)
        *slash = '\0';
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        (void)snprintf(r->program[i], sizeof r->program[i], "%s/%s", self, names[i]);
        if (access(r->program[i], X_OK) != 0)
            return conf_fail(err, "%s cannot be started: %s; it belongs beside ringcast",
                r->program[i], strerror(errno));
    }
    return true;
}

static void
make_children(struct run *r)
{
    unsigned brokers = (unsigned)r->c->broker_count;
    r->child_count = brokers + (unsigned)r->c->worker_count;
    r->children = xcalloc(r->child_count, sizeof r->children[0]);
    for (unsigned i = 0; i < r->child_count; i++) {
        struct child *ch = &r->children[i];
        ch->is_worker = i >= brokers;
        ch->index = ch->is_worker ? i - brokers : i;
        ch->ready_fd = ch->files_fd = -1;
        (void)snprintf(
            ch->name, sizeof ch->name, "%s.%u", ch->is_worker ? "worker" : "broker", ch->index);
    }
}

/* Names of the descriptors a worker gets: for each ring all its listeners. */
static void
make_listen_names(struct run *r)
{
    unsigned rings = (unsigned)r->c->worker_rings;
    size_t cap = (size_t)rings * r->binds.count * 24 + 1, at = 0;
    r->listen_fds = xcalloc((size_t)rings * r->binds.count + 1, sizeof r->listen_fds[0]);
    r->listen_names = xcalloc(1, cap);
    for (unsigned ring = 0; ring < rings; ring++)
        for (unsigned i = 0; i < r->binds.count; i++)
            at += (size_t)snprintf(r->listen_names + at, cap - at, "%sring%u%s", at ? ":" : "", ring,
                binds_kind(&r->binds.v[i]));
}

/* Settings in force, behind our own counters, so that `status` shows limits beside figures. The
 * order is that of config.def, numbers only. */
static void
store_limits(struct run *r)
{
    uint32_t n = M_FIRST_SETTING;
    uint64_t v;
    for (unsigned i = 0; conf_row_name(i) != NULL; i++)
        if (n < r->page.header->row_count && conf_row_number(r->c, i, &v))
            metric_set(r->page.values, n++, v);
}

static void
make_page(struct run *r)
{
    struct metric_row rows[M_FIRST_SETTING + SETTINGS_MAX] = {
#define RUN_METRIC(name, kind, unit, sentence)                                                     \
    [M_##name] = {#name, (unit), (sentence), METRIC_##kind},
#include "deploy/ringcast/run.def"
#undef RUN_METRIC
    };
    char names[SETTINGS_MAX][48]; /* the page keeps copies */
    uint32_t n = 0;
    uint64_t v;
    for (unsigned i = 0; n < SETTINGS_MAX && conf_row_name(i) != NULL; i++) {
        if (!conf_row_number(r->c, i, &v))
            continue;
        (void)snprintf(names[n], sizeof names[n], "limit_%s", conf_row_name(i));
        *strchr(names[n], '.') = '_';
        rows[M_FIRST_SETTING + n] = (struct metric_row){names[n], "", "", METRIC_GAUGE};
        n++;
    }
    r->page = metric_page_new(r->c->run_dir, "run", 0, -1, rows, M_FIRST_SETTING + n);
    store_limits(r);
    metric_set(r->page.values, M_processes, r->child_count);
}

/* A pipe whose both ends lie above the numbers that children get theirs under. */
static bool
pipe_above(int fds[2], int floor)
{
    int low[2];
    if (pipe2(low, O_CLOEXEC) != 0)
        return false;
    for (unsigned i = 0; i < 2; i++) {
        fds[i] = fcntl(low[i], F_DUPFD_CLOEXEC, floor);
        (void)close(low[i]);
    }
    return fds[0] >= 0 && fds[1] >= 0;
}

static bool
catch_signals(struct run *r, struct conf_error *err)
{
    r->signal_fd = start_signals(true);
    if (r->signal_fd >= 0 && pipe_above(r->worker_pipe, r->binds.floor) &&
        pipe_above(r->broker_pipe, r->binds.floor))
        return true;
    return conf_fail(err,
        "no descriptors left to watch processes with: %s; raise the limit of open files",
        strerror(errno));
}

/* Whether children will find the users they shall become. */
static bool
check_users(const struct conf *c, struct conf_error *err)
{
    struct priv_user u;
    return priv_user_find(&u, c, "worker.user", false, err) && priv_user_find(&u, c, "broker.user", false, err);
}

static bool
run_open(struct run *r, struct conf_error *err)
{
    if (!check_users(r->c, err) || !check_io_uring(err) || !find_programs(r, err) || !rundir_open(&r->dir, r->c, err) ||
        !binds_open(&r->binds, r->c, err) || !catch_signals(r, err))
        return false;
    make_children(r);
    make_listen_names(r);
    make_page(r);
    r->watchdog_ms = notify_watchdog_ms();
    return true;
}

static void
run_close(struct run *r)
{
    metric_page_free(&r->page, true);
    binds_close(&r->binds);
    rundir_close(&r->dir);
    if (r->signal_fd >= 0)
        (void)close(r->signal_fd);
    free(r->children);
    free(r->listen_fds);
    free(r->listen_names);
}

/* ---- children ---- */

/* The same settings again, with what was worked out here fixed, and which one it is. */
static void
make_argv(const struct run *r, const struct child *ch, char **argv, char own[3][192])
{
    unsigned flags, n = 0;
    char **flag = conf_start_flags(&flags);
    argv[n++] = (char *)(uintptr_t)(ch->is_worker ? "ringcast-worker" : "ringcast-broker");
    if (conf_start_file() != NULL) {
        argv[n++] = (char *)(uintptr_t) "--config";
        argv[n++] = (char *)(uintptr_t)conf_start_file();
    }
    for (unsigned i = 0; i < flags && n < ARGS_MAX - 4; i++)
        argv[n++] = flag[i];
    (void)snprintf(own[0], sizeof own[0], "--worker.rings=%" PRIu64, r->c->worker_rings);
    (void)snprintf(own[1], sizeof own[1], "--run.dir=%s", r->c->run_dir);
    (void)snprintf(
        own[2], sizeof own[2], "--%s.index=%u", ch->is_worker ? "worker" : "broker", ch->index);
    for (unsigned i = 0; i < 3; i++)
        argv[n++] = own[i];
    argv[n] = NULL;
}

/* Starts it; when that fails it counts as a death, and the pauses grow. */
static void
start_child(struct run *r, struct child *ch)
{
    char *argv[ARGS_MAX], own[3][192];
    unsigned n = 0, rings = (unsigned)r->c->worker_rings;
    make_argv(r, ch, argv, own);
    for (unsigned ring = 0; ch->is_worker && ring < rings; ring++)
        for (unsigned i = 0; i < r->binds.count; i++)
            r->listen_fds[n++] = binds_fd(&r->binds, i, ch->index * rings + ring);
    struct child_order o = {
        .program = r->program[ch->is_worker],
        .argv = argv,
        .listen_fds = r->listen_fds,
        .listen_names = r->listen_names,
        .listen_count = n,
        .parent_fd = ch->is_worker ? r->worker_pipe[0] : r->broker_pipe[0],
        .hold_fd = ch->is_worker ? r->broker_pipe[1] : -1,
        .floor = r->binds.floor,
    };
    if (child_start(ch, &o)) {
        log_info("child-started", "name=%s pid=%d", ch->name, (int)ch->pid);
        return;
    }
    int why = errno;
    uint64_t pause = child_on_death(ch, mono_now(), r->c->run_backoff_max);
    log_error("child-start-failed", "name=%s error=\"%s\" retry_ms=%" PRIu64, ch->name,
        strerror(why), pause);
}

static unsigned
count_children(const struct run *r, bool workers, bool ready_only)
{
    unsigned n = 0;
    for (unsigned i = 0; i < r->child_count; i++)
        n += r->children[i].is_worker == workers &&
             (ready_only ? r->children[i].ready : r->children[i].pid != 0);
    return n;
}

static void
signal_children(struct run *r, bool workers, int sig)
{
    for (unsigned i = 0; i < r->child_count; i++) {
        struct child *ch = &r->children[i];
        if (ch->is_worker == workers && ch->pid != 0)
            (void)kill(ch->pid, sig);
    }
}

/* ---- readiness ---- */

static void
say_ready(struct run *r)
{
    char url[192];
    size_t cap = r->binds.count * sizeof r->binds.v[0].text + 1, at = 0;
    char *all = xcalloc(1, cap);
    for (unsigned i = 0; i < r->binds.count; i++)
        at += (size_t)snprintf(all + at, cap - at, "%s%s", i ? " " : "", r->binds.v[i].text);
    rundir_write_listen(&r->dir, all);
    printf("ringcast: ready on %s\n", all);
    binds_url(&r->binds, url, sizeof url);
    if (r->c->http_playground && url[0] != '\0')
        printf("ringcast: try it at %s\n", url);
    (void)fflush(stdout);
    notify_send("READY=1\nSTATUS=ready");
    free(all);
}

/* Compares who is ready with who should be, and tells whoever listens. */
static void
judge_readiness(struct run *r)
{
    unsigned ready = count_children(r, true, true) + count_children(r, false, true);
    bool degraded = ready < r->child_count;
    metric_set(r->page.values, M_processes_ready, ready);
    if (r->phase != RUNNING)
        return;
    if (!degraded && !r->was_ready) {
        r->was_ready = true;
        say_ready(r);
    } else if (r->was_ready && degraded != r->degraded) {
        char text[80];
        (void)snprintf(text, sizeof text, "STATUS=%s: %u of %u processes are up",
            degraded ? "degraded" : "ready", ready, r->child_count);
        notify_send(text);
        log_line(degraded ? LOG_L_WARN : LOG_L_INFO, degraded ? "degraded" : "whole",
            "ready=%u of=%u", ready, r->child_count);
    }
    r->degraded = degraded;
}

static void
say_waiting(struct run *r, struct mono now)
{
    if (r->was_ready || r->phase != RUNNING || !mono_reached(now, r->next_waiting))
        return;
    r->next_waiting = mono_add_ms(now, SAY_WAITING_MS);
    for (unsigned i = 0; i < r->child_count; i++)
        if (!r->children[i].ready)
            log_warn("start-slow", "name=%s pid=%d has not said that it is ready",
                r->children[i].name, (int)r->children[i].pid);
}

/* ---- stopping ---- */

static void
begin_stop(struct run *r, const char *why)
{
    notify_send("STOPPING=1\nSTATUS=stopping");
    log_info("stopping", "why=%s workers=%u brokers=%u", why, count_children(r, true, false),
        count_children(r, false, false));
    r->phase = STOPPING_WORKERS;
    r->stop_end = mono_add_ms(mono_now(), r->c->run_drain_timeout + STOP_GRACE_MS);
    r->deadline = mono_add_ms(mono_now(), r->c->run_drain_timeout + KILL_GRACE_MS);
    signal_children(r, true, SIGTERM);
    binds_leave(&r->binds);
}

/* From one phase to the next as children go; kills what overstays. */
static void
advance_stop(struct run *r, struct mono now)
{
    if (r->phase == STOPPING_WORKERS && count_children(r, true, false) == 0) {
        r->phase = STOPPING_BROKERS;
        uint64_t bus = r->c->redis_url.n > 0 ? r->c->bus_stop_wait : 0;
        r->deadline = mono_add_ms(now, MAX(mono_since_ms(r->stop_end, now), BROKER_STOP_MS + bus));
        signal_children(r, false, SIGTERM);
    }
    if (r->phase == STOPPING_BROKERS && count_children(r, false, false) == 0)
        r->phase = GONE;
    if (r->phase == RUNNING || r->phase == GONE || (!r->hurried && !mono_reached(now, r->deadline)))
        return;
    bool workers = r->phase == STOPPING_WORKERS;
    if (!r->forced)
        log_warn("stop-forced", "%s=%u", workers ? "workers" : "brokers",
            count_children(r, workers, false));
    r->forced = true;
    signal_children(r, workers, SIGKILL);
    r->deadline = mono_add_ms(now, HEARTBEAT_MS);
}

/* ---- what happens ---- */

/* A process that dies before all were ready once is started again at once; if that is no help, its
 * trouble will not pass by itself, and whoever started us should hear of it. */
static void
judge_first_start(struct run *r, const struct child *ch, const char *how)
{
    if (r->was_ready || r->phase != RUNNING || ch->failures < FIRST_START_DEATHS)
        return;
    (void)fprintf(stderr,
        "ringcast: %s cannot start: it ended with %s before it was ready, %u times; what it said "
        "stands above\n",
        ch->name, how, ch->failures);
    r->failed = true;
    begin_stop(r, "start-failed");
}

static void
on_child_death(struct run *r, struct child *ch, int status)
{
    char how[64];
    struct mono now = mono_now();
    uint64_t lived = mono_since_ms(now, ch->started);
    pid_t pid = ch->pid;
    child_describe_death(status, how, sizeof how);
    uint64_t pause = child_on_death(ch, now, r->c->run_backoff_max);
    if (r->phase != RUNNING) {
        log_info("child-ended", "name=%s pid=%d how=\"%s\"", ch->name, (int)pid, how);
        return;
    }
    log_error("child-died",
        "name=%s pid=%d how=\"%s\" lived_ms=%" PRIu64 " deaths=%u restart_ms=%" PRIu64, ch->name,
        (int)pid, how, lived, ch->failures, pause);
    metric_add(r->page.values, M_restarts_total, 1);
    judge_first_start(r, ch, how);
}

static void
reap_children(struct run *r)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        for (unsigned i = 0; i < r->child_count; i++)
            if (r->children[i].pid == pid)
                on_child_death(r, &r->children[i], status);
}

static void
reload(struct run *r)
{
    if (!start_reload(r->c))
        return;
    store_limits(r);
    signal_children(r, true, SIGHUP);
    signal_children(r, false, SIGHUP);
    log_info("reloaded", "file=%s", conf_start_file() != NULL ? conf_start_file() : "none");
}

static void
on_signals(struct run *r)
{
    for (int signal; (signal = start_signal_take(r->signal_fd)) != 0;) {
        if (signal == SIGCHLD)
            reap_children(r);
        else if (signal == SIGHUP)
            reload(r);
        else if (r->phase == RUNNING)
            begin_stop(r, signal == SIGINT ? "SIGINT" : "SIGTERM");
        else
            r->hurried = true;
    }
}

static void
start_due(struct run *r, struct mono now)
{
    for (unsigned i = 0; i < r->child_count && r->phase == RUNNING; i++)
        if (r->children[i].pid == 0 && mono_reached(now, r->children[i].next_start))
            start_child(r, &r->children[i]);
}

/* Milliseconds until something of ours is due; a second at most, for the heartbeat. */
static int
next_timeout(const struct run *r, struct mono now)
{
    uint64_t ms = HEARTBEAT_MS;
    for (unsigned i = 0; i < r->child_count && r->phase == RUNNING; i++)
        if (r->children[i].pid == 0)
            ms = MIN(ms, mono_since_ms(r->children[i].next_start, now) + 1);
    if (r->phase != RUNNING)
        ms = MIN(ms, mono_since_ms(r->deadline, now) + 1);
    if (r->watchdog_ms != 0)
        ms = MIN(ms, mono_since_ms(r->next_watchdog, now) + 1);
    return (int)ms;
}

static void
feed_watchdog(struct run *r, struct mono now)
{
    if (r->watchdog_ms == 0 || !mono_reached(now, r->next_watchdog))
        return;
    notify_send("WATCHDOG=1");
    r->next_watchdog = mono_add_ms(now, r->watchdog_ms);
}

/* Waits for signals and for children to speak. */
static void
wait_for_news(struct run *r, struct pollfd *p)
{
    nfds_t n = 0;
    p[n++] = (struct pollfd){.fd = r->signal_fd, .events = POLLIN};
    for (unsigned i = 0; i < r->child_count; i++) {
        p[n++] = (struct pollfd){.fd = r->children[i].ready_fd, .events = POLLIN};
        p[n++] = (struct pollfd){.fd = r->children[i].files_fd, .events = POLLIN};
    }
    if (poll(p, n, next_timeout(r, mono_now())) <= 0)
        return;
    for (unsigned i = 0; i < r->child_count; i++) {
        if (p[2 * i + 1].revents != 0 && child_on_ready(&r->children[i]))
            log_info("child-ready", "name=%s pid=%d after_ms=%" PRIu64, r->children[i].name,
                (int)r->children[i].pid, mono_since_ms(mono_now(), r->children[i].started));
        if (p[2 * i + 2].revents != 0)
            child_on_files(&r->children[i], r->c);
    }
    if (p[0].revents != 0)
        on_signals(r);
}

static void
run_loop(struct run *r)
{
    struct pollfd *p = xcalloc(2 * r->child_count + 1, sizeof *p);
    r->next_waiting = mono_add_ms(mono_now(), SAY_WAITING_MS);
    while (r->phase != GONE) {
        struct mono now = mono_now();
        metric_beat(&r->page, now);
        start_due(r, now);
        feed_watchdog(r, now);
        say_waiting(r, now);
        wait_for_news(r, p);
        judge_readiness(r);
        advance_stop(r, mono_now());
    }
    free(p);
}

int
run_command(struct conf *c)
{
    struct conf_error err;
    struct run r = {.c = c, .signal_fd = -1, .dir = {.lock_fd = -1}};
    log_init("run", c->log_level, (uint32_t)c->log_rate);
    priv_no_new();
    if (!run_open(&r, &err)) {
        (void)fprintf(stderr, "ringcast: %s\n", err.text);
        run_close(&r);
        return 1;
    }
    run_loop(&r);
    log_info("stopped", "forced=%s", r.forced ? "yes" : "no");
    run_close(&r);
    return r.failed || r.forced ? 1 : 0;
}
