/* ringcast-bench: builds the connections of a scenario, measures, reports. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "bench/floor.h"
#include "bench/load.h"
#include "bench/opt.h"
#include "bench/report.h"
#include "bench/sched.h"
#include "bench/storm.h"
#include "common/bug.h"
#include "common/mono.h"

#define SECOND 1000000000ull

struct run {
    struct opt opt;
    struct load load;
    struct proc_set server;  /* its processes */
    struct proc_set softirq; /* the kernel's helper on its core */
    struct sched sched;
    uint32_t next_group; /* at a rate: whose turn it is */
    struct hist *lat;
    struct report report;
    uint64_t said_ns; /* last progress line */
    uint64_t said_delivered;
    uint64_t next_reading_ns; /* slow: when memory is read next; 0: not */
    uint64_t reading_since_ns;
};

/* Counters at the edge of a window. */
struct edge {
    uint64_t ns, cpu_ns, softirq_ns, load_ns, units;
};

static uint64_t
thread_cpu_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * SECOND + (uint64_t)ts.tv_nsec;
}

static struct edge
edge_now(const struct run *r)
{
    const struct load_counts *c = &r->load.count;
    struct edge e = {.cpu_ns = proc_cpu_ns(&r->server), .softirq_ns = proc_cpu_ns(&r->softirq)};
    e.load_ns = thread_cpu_ns();
    e.units = r->opt.scenario == SCEN_CONNECT ? c->opened : c->delivered;
    e.ns = mono_now().ns;
    return e;
}

static void
progress(struct run *r, const char *phase)
{
    uint64_t now = mono_now().ns, d = r->load.count.delivered;
    if (r->opt.quiet || now - r->said_ns < SECOND)
        return;
    fprintf(stderr, "%s: %u ready, %.0f deliveries/s, %llu disconnects\n", phase, r->load.ready,
        (double)(d - r->said_delivered) * 1e9 / (double)(now - r->said_ns),
        (unsigned long long)r->load.count.disconnects);
    r->said_ns = now;
    r->said_delivered = d;
}

static void take_reading(struct run *r, uint64_t start);

/* Keeps the timetable, and turns until `end`. */
static void
run_until(struct run *r, uint64_t end, const char *phase)
{
    struct load *l = &r->load;
    bool at_rate = r->opt.rate > 0 && l->publishing;
    for (uint64_t now; (now = mono_now().ns) < end;) {
        uint64_t due, until = MIN(end, now + SECOND / 4);
        if (at_rate) {
            while (sched_take(&r->sched, now, &due)) {
                load_publish(l, r->next_group, due);
                r->next_group = (r->next_group + 1) % l->n_groups;
            }
            until = MIN(until, sched_at(&r->sched, r->sched.next));
        }
        load_turn(l, until);
        progress(r, phase);
        if (r->next_reading_ns != 0 && now >= r->next_reading_ns) {
            take_reading(r, r->reading_since_ns);
            r->next_reading_ns += r->opt.sample_ns;
        }
    }
}

/* All connections open and subscribed, or the process ends in words. */
static void
open_all(struct run *r)
{
    struct load *l = &r->load;
    uint64_t last_ns = mono_now().ns, last = 0;
    while (l->ready < l->n_conns) {
        load_turn(l, mono_now().ns + SECOND / 10);
        progress(r, "opening");
        if (l->count.refused + l->count.disconnects > 0)
            die("%u of %u connections could be opened", l->ready, l->n_conns);
        if (l->count.opened != last) {
            last = l->count.opened;
            last_ns = mono_now().ns;
        } else if (mono_now().ns - last_ns > 10 * SECOND) {
            die("the server is silent: %u of %u connections open", l->ready, l->n_conns);
        }
    }
}

static void
start_publishing(struct run *r)
{
    struct load *l = &r->load;
    l->publishing = true;
    if (r->opt.rate > 0) {
        /* Every group has as many subscribers as the others. */
        r->sched = sched_make(mono_now().ns, r->opt.rate / l->groups[0].subscribers);
        return;
    }
    for (uint32_t g = 0; g < l->n_groups; g++)
        for (uint32_t k = 0; k < r->opt.in_flight; k++)
            load_publish(l, g, mono_now().ns);
}

/* Stops publishing; waits until all arrived or nothing comes for three seconds. */
static void
drain(struct run *r)
{
    struct load *l = &r->load;
    uint64_t last = l->count.delivered, last_ns = mono_now().ns;
    l->publishing = false;
    while (load_missing(l) > 0 && mono_now().ns - last_ns < 3 * SECOND) {
        load_turn(l, mono_now().ns + SECOND / 50);
        progress(r, "draining");
        if (l->count.delivered != last) {
            last = l->count.delivered;
            last_ns = mono_now().ns;
        }
    }
    r->report.missing = load_missing(l);
}

static void
measure_into(struct run *r, struct sample_set *set)
{
    struct load *l = &r->load;
    struct sample *s = &set->sample[set->n++];
    hist_reset(r->lat);
    struct edge a = edge_now(r);
    l->win0 = a.ns;
    l->win1 = a.ns + r->opt.duration_ns;
    run_until(r, l->win1, "measuring");
    struct edge b = edge_now(r);
    *s = (struct sample){.seconds = (double)(b.ns - a.ns) / 1e9, .units = b.units - a.units,
        .cpu_ns = b.cpu_ns - a.cpu_ns, .softirq_ns = b.softirq_ns - a.softirq_ns,
        .load_cpu_ns = b.load_ns - a.load_ns};
    /* Messages of this window may still be on their way; the slowest of them belong into it. */
    if (r->opt.rate > 0)
        run_until(r, mono_now().ns + SECOND / 2, "measuring");
    report_latency(s, r->lat);
}

static void
measure_window(struct run *r)
{
    measure_into(r, &r->report.set);
}

/* A channel with `subs` subscribers beginning at connection `first`, its publisher behind them. */
static void
group_at(struct load *l, uint32_t group, uint32_t first, uint32_t subs)
{
    for (uint32_t i = 0; i < subs; i++)
        load_set_conn(l, first + i, group, true, false);
    load_set_conn(l, first + subs, group, false, true);
}

static void
layout(struct run *r, const struct load_conf *conf)
{
    struct load *l = &r->load;
    uint32_t n = r->opt.clients;
    switch (r->opt.scenario) {
    case SCEN_FANOUT:
    case SCEN_STORM:
    case SCEN_FLOOR:
        load_init(l, conf, n + 1, 1);
        group_at(l, 0, 0, n);
        break;
    case SCEN_SLOW:
        load_init(l, conf, n + 1 + r->opt.slow, 1);
        group_at(l, 0, 0, n);
        for (uint32_t i = 0; i < r->opt.slow; i++)
            load_set_slow(l, n + 1 + i, 0);
        break;
    case SCEN_PAIRS:
        load_init(l, conf, n, n / 2);
        for (uint32_t g = 0; g < n / 2; g++)
            group_at(l, g, 2 * g, 1);
        break;
    case SCEN_RTT:
        load_init(l, conf, n, n);
        for (uint32_t i = 0; i < n; i++)
            load_set_conn(l, i, i, true, true);
        break;
    case SCEN_IDLE:
    case SCEN_CONNECT: {
        uint32_t channels = r->opt.channels == 0 ? n : MIN(r->opt.channels, n);
        r->opt.channels = channels;
        load_init(l, conf, n, channels);
        for (uint32_t i = 0; i < n; i++)
            load_set_conn(l, i, i % channels, true, false);
        break;
    }
    case SCEN_PACK: break;
    }
    l->lat = r->lat;
}

static struct load_conf
conf_of(const struct opt *o)
{
    const struct opt_url *u = &o->url;
    return (struct load_conf){.to = u->to, .to_publish = u->to, .path = u->path, .host = u->host,
        .tls = u->tls, .tls_12 = o->tls_12, .resume = o->resume, .deflate = o->deflate,
        .deflate_min = o->deflate_min, .depth = o->depth, .kind = o->kind,
        .payload = o->payload, .in_flight = o->rate > 0 ? 0 : o->in_flight,
        .concurrency = MIN(o->concurrency, o->clients + 1), .buffers = o->buffers,
        .buffer_bytes = o->buffer_bytes, .spin = o->spin};
}

static void
watch_server(struct run *r)
{
    for (uint32_t i = 0; i < r->opt.n_pids; i++)
        proc_add(&r->server, r->opt.pid[i], r->opt.pid_alone);
    pid_t ksoftirqd = r->opt.server_cpu < 0 ? 0 : proc_ksoftirqd((unsigned)r->opt.server_cpu);
    if (ksoftirqd > 0)
        proc_add(&r->softirq, ksoftirqd, true);
    r->report.has_cpu = r->server.n > 0;
    r->report.server_processes = r->server.n;
}

static void
run_messages(struct run *r)
{
    struct load_conf conf = conf_of(&r->opt);
    layout(r, &conf);
    open_all(r);
    start_publishing(r);
    run_until(r, mono_now().ns + r->opt.warmup_ns, "warming up");
    for (uint32_t i = 0; i < r->opt.repeat; i++)
        measure_window(r);
    drain(r);
}

static void
run_floor(struct run *r)
{
    struct frame_pair f = {0};
    frame_pair_make(&f, "bench-000000", r->opt.kind, r->opt.payload, true);
    struct floor_child child = floor_start(&r->opt, f.in_n);
    frame_pair_free(&f);
    proc_add(&r->server, child.pid, true);
    r->report.has_cpu = true;
    r->report.server_processes = 1;
    struct load_conf conf = conf_of(&r->opt);
    conf.path = NULL;
    conf.tls = conf.deflate = false;
    conf.to = child.subscribers;
    conf.to_publish = child.publisher;
    layout(r, &conf);
    open_all(r);
    start_publishing(r);
    run_until(r, mono_now().ns + r->opt.warmup_ns, "warming up");
    for (uint32_t i = 0; i < r->opt.repeat; i++)
        measure_window(r);
    drain(r);
    floor_stop(&child);
}

static void
read_memory(const struct run *r, uint64_t *private_bytes, uint64_t *pss)
{
    struct proc_mem m;
    if (!proc_mem(&r->server, &m))
        die("the server's /proc/PID/smaps_rollup cannot be read: same user or root is wanted");
    *private_bytes = m.private_bytes;
    *pss = m.pss_bytes;
}

/* Two dozen connections first, so that what a server allocates once is in the baseline. */
static void
run_idle(struct run *r)
{
    if (r->server.n == 0)
        die("idle: --pid is wanted, whose memory would it be?");
    uint32_t all = r->opt.clients;
    struct load_conf conf = conf_of(&r->opt);
    layout(r, &conf);
    r->load.n_conns = MIN(24u, all);
    open_all(r);
    run_until(r, mono_now().ns + r->opt.warmup_ns, "warming up");
    read_memory(r, &r->report.mem_before, &r->report.pss_before);
    r->load.n_conns = all;
    open_all(r);
    run_until(r, mono_now().ns + r->opt.settle_ns, "settling");
    read_memory(r, &r->report.mem_after, &r->report.pss_after);
    r->report.idle_conns = all - MIN(24u, all);
}

static void
run_connect(struct run *r)
{
    struct load_conf conf = conf_of(&r->opt);
    conf.concurrency = r->opt.clients;
    r->opt.concurrency = r->opt.clients;
    layout(r, &conf);
    r->load.storm = true;
    run_until(r, mono_now().ns + r->opt.warmup_ns, "warming up");
    for (uint32_t i = 0; i < r->opt.repeat; i++)
        measure_window(r);
}

/* One window alone, one beside the storm, and again. */
static void
run_storm(struct run *r)
{
    struct report *p = &r->report;
    struct load_conf conf = conf_of(&r->opt), theirs = conf;
    const struct opt_url *u = &r->opt.storm_url;
    theirs.to = theirs.to_publish = u->to;
    theirs.path = u->path;
    theirs.host = u->host;
    theirs.tls = u->tls;
    theirs.deflate = false;
    theirs.concurrency = r->opt.storm;
    conf.resume = false;
    struct storm storm = storm_start(&theirs, r->opt.storm, r->opt.storm_rate);
    layout(r, &conf);
    open_all(r);
    start_publishing(r);
    run_until(r, mono_now().ns + r->opt.warmup_ns, "warming up");
    for (uint32_t i = 0; i < r->opt.repeat; i++) {
        measure_window(r);
        storm_set(&storm, true);
        run_until(r, mono_now().ns + SECOND / 2, "the storm rises");
        uint64_t before = atomic_load(&storm.shared->opened), begin = mono_now().ns;
        measure_into(r, &p->during);
        p->storm_per_second[i] = (double)(atomic_load(&storm.shared->opened) - before) * 1e9 /
            (double)(mono_now().ns - begin);
        storm_set(&storm, false);
        run_until(r, mono_now().ns + SECOND / 2, "the storm is over");
    }
    drain(r);
    p->storm_opened = atomic_load(&storm.shared->opened);
    p->storm_refused = atomic_load(&storm.shared->refused);
    p->storm_secured = atomic_load(&storm.shared->secured);
    p->storm_resumed = atomic_load(&storm.shared->resumed);
    p->storm_p50 = (double)hist_quantile(&storm.shared->lat, 0.5) / 1e3;
    p->storm_p99 = (double)hist_quantile(&storm.shared->lat, 0.99) / 1e3;
    memcpy(p->storm_terms, storm.shared->tls_terms, sizeof p->storm_terms);
    storm_stop(&storm);
}

static void
take_reading(struct run *r, uint64_t start)
{
    struct report *p = &r->report;
    uint64_t pss;
    if (p->readings == REPORT_READINGS)
        return;
    struct reading *at = &p->reading[p->readings++];
    read_memory(r, &at->private_bytes, &pss);
    at->seconds = (double)(mono_now().ns - start) / 1e9;
    at->open = r->load.paused;
}

/* Publishes beside readers that do not read, and looks at the server's memory; in the end they read. */
static void
run_slow(struct run *r)
{
    struct report *p = &r->report;
    struct load *l = &r->load;
    if (r->server.n == 0)
        die("slow: --pid is wanted, whose memory would it be?");
    p->reading = xcalloc(REPORT_READINGS, sizeof *p->reading);
    struct load_conf conf = conf_of(&r->opt);
    layout(r, &conf);
    open_all(r);
    run_until(r, mono_now().ns + r->opt.warmup_ns, "warming up");
    read_memory(r, &p->mem_before, &p->pss_before);
    start_publishing(r);
    uint64_t start = mono_now().ns;
    r->next_reading_ns = start + r->opt.sample_ns;
    r->reading_since_ns = start;
    for (uint32_t i = 0; i < r->opt.repeat; i++)
        measure_window(r);
    r->next_reading_ns = 0;
    take_reading(r, start);
    drain(r);
    load_resume_slow(l);
    run_until(r, mono_now().ns + r->opt.settle_ns, "the slow ones read");
    p->slow = load_slow_now(l);
    read_memory(r, &p->mem_after, &p->pss_after);
}

/* What zlib takes for one message of the run, on the server's core: the part of a compressed fan-out
 * that is paid once, however many subscribers there are. */
static void
run_pack(struct run *r)
{
    enum { ROUNDS = 2000 };
    struct frame_pair f = {0};
    struct report *p = &r->report;
    static double pack[OPT_REPEAT_MAX], unpack[OPT_REPEAT_MAX];
    frame_pair_make(&f, "bench-000000", r->opt.kind, r->opt.payload, false);
    uint8_t *text = xmalloc(f.text_n), *out = xmalloc(f.text_n + 64u);
    struct pmd *z = pmd_new();
    size_t n = 0, back = 0;
    for (uint32_t k = 0; k < r->opt.repeat; k++) {
        uint64_t a = 0, b = 0;
        for (uint64_t i = 0; i < ROUNDS; i++) {
            frame_stamp(&f, text, i + k * ROUNDS, mono_now().ns);
            uint64_t t0 = thread_cpu_ns();
            n = pmd_pack(z, 15, text, f.text_n, out, f.text_n + 64u);
            uint64_t t1 = thread_cpu_ns();
            if (pmd_unpack(z, NULL, out, n, &back) == NULL || back != f.text_n)
                die("zlib does not give back what it was given");
            b += thread_cpu_ns() - t1;
            a += t1 - t0;
        }
        pack[k] = (double)a / 1e3 / ROUNDS;
        unpack[k] = (double)b / 1e3 / ROUNDS;
    }
    p->pack_us = report_median(pack, r->opt.repeat);
    p->unpack_us = report_median(unpack, r->opt.repeat);
    p->pack_from = f.text_n;
    p->pack_to = (uint32_t)n;
    pmd_free(z);
    frame_pair_free(&f);
    free(text);
    free(out);
}

static void
prepare_process(const struct opt *o)
{
    struct rlimit lim;
    cpu_set_t set;
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1000ul); /* ns: the timetable is kept to the microsecond */
    if (getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur < lim.rlim_max) {
        lim.rlim_cur = lim.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &lim);
    }
    if (getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur < o->clients + (o->scenario == SCEN_SLOW ? o->slow : 0) + 32ull)
        die("%u clients need more open files than %llu (ulimit -n)", o->clients,
            (unsigned long long)lim.rlim_cur);
    int cpu = o->scenario == SCEN_PACK && o->server_cpu >= 0 ? o->server_cpu : o->cpu;
    if (cpu < 0)
        return;
    CPU_ZERO(&set);
    CPU_SET((unsigned)cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0)
        die("--cpu=%d: %s", cpu, strerror(errno));
}

int
main(int argc, char **argv)
{
    static struct run r;
    opt_parse(&r.opt, argc, argv);
    prepare_process(&r.opt);
    r.report.opt = &r.opt;
    r.lat = xmalloc(sizeof *r.lat);
    hist_reset(r.lat);
    r.said_ns = mono_now().ns;
    watch_server(&r);
    switch (r.opt.scenario) {
    case SCEN_FLOOR: run_floor(&r); break;
    case SCEN_IDLE: run_idle(&r); break;
    case SCEN_CONNECT: run_connect(&r); break;
    case SCEN_STORM: run_storm(&r); break;
    case SCEN_SLOW: run_slow(&r); break;
    case SCEN_PACK: run_pack(&r); break;
    case SCEN_FANOUT:
    case SCEN_PAIRS:
    case SCEN_RTT: run_messages(&r); break;
    }
    r.report.count = r.load.count;
    memcpy(r.report.tls_terms, r.load.tls_terms, sizeof r.report.tls_terms);
    bool ok = report_print(&r.report);
    if (r.opt.scenario != SCEN_PACK)
        load_free(&r.load);
    free(r.report.reading);
    free(r.lat);
    return ok ? 0 : 2;
}
