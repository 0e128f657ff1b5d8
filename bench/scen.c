/* What the scenarios have in common; see scen.h. */
#include "bench/scen.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>

#include "bench/scen_shape.h"
#include "common/bug.h"
#include "common/mono.h"

/* Counters at the edge of a window. */
struct edge {
    uint64_t ns, cpu_ns, softirq_ns, load_ns, units;
};

uint64_t
scen_thread_ns(void)
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
    e.load_ns = scen_thread_ns();
    e.units = r->opt.scenario == SCEN_CONNECT ? c->opened : r->opt.scenario == SCEN_CHURN ? c->churned : c->delivered;
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

void
scen_read_memory(const struct run *r, uint64_t *private_bytes, uint64_t *pss)
{
    struct proc_mem m;
    if (!proc_mem(&r->server, &m))
        die("the server's /proc/PID/smaps_rollup cannot be read: same user or root is wanted");
    *private_bytes = m.private_bytes;
    *pss = m.pss_bytes;
}

void
scen_take_reading(struct run *r, uint64_t start)
{
    struct report *p = &r->report;
    uint64_t pss;
    if (p->readings == REPORT_READINGS)
        return;
    struct reading *at = &p->reading[p->readings++];
    scen_read_memory(r, &at->private_bytes, &pss);
    at->seconds = (double)(mono_now().ns - start) / 1e9;
    at->open = r->load.paused;
}

/* Whose message is next: in turn, or by popularity. */
static uint32_t
next_group(struct run *r)
{
    if (r->opt.scenario == SCEN_MIXED)
        return scen_shape_mixed_next(r);
    if (r->zipf.n > 0)
        return zipf_pick(&r->zipf, sched_uniform(&r->random));
    uint32_t g = r->next_group;
    r->next_group = (g + 1) % r->load.n_groups;
    return g;
}

/* Deliveries that one message makes, on average. */
static double
deliveries_per_message(const struct run *r)
{
    const struct load *l = &r->load;
    double sum = 0;
    if (r->opt.scenario == SCEN_MIXED)
        return scen_shape_mixed_deliveries(r);
    if (r->opt.parts > 0 && r->opt.scenario == SCEN_FANOUT)
        return r->opt.total; /* those of other processes too */
    if (r->zipf.n == 0)
        return l->groups[0].subscribers; /* all have as many */
    for (uint32_t g = 0; g < l->n_groups; g++)
        sum += zipf_chance(&r->zipf, g) * l->groups[g].subscribers;
    return sum > 0 ? sum : 1;
}

static struct sched
make_sched(const struct run *r)
{
    const struct opt *o = &r->opt;
    double per_second = o->rate / deliveries_per_message(r);
    switch (o->schedule) {
    case SCHED_POISSON: return sched_make_poisson(mono_now().ns, per_second);
    case SCHED_RAMP:
        return sched_make_ramp(mono_now().ns, per_second, per_second * o->ramp_to / o->rate,
            (double)(o->warmup_ns + o->repeat * o->duration_ns) / 1e9);
    case SCHED_BURST: return sched_make_burst(mono_now().ns, per_second, o->burst);
    case SCHED_CONSTANT: break;
    }
    return sched_make(mono_now().ns, per_second);
}

void
scen_run_until(struct run *r, uint64_t end, const char *phase)
{
    struct load *l = &r->load;
    bool at_rate = r->opt.rate > 0 && l->publishing && l->groups[0].publisher != UINT32_MAX;
    for (uint64_t now; (now = mono_now().ns) < end;) {
        uint64_t due, until = MIN(end, now + SECOND / 4);
        if (at_rate && r->opt.scenario == SCEN_REPLAY) {
            until = MIN(until, scen_shape_publish(r, now));
        } else if (at_rate) {
            while (sched_take(&r->sched, now, &due))
                load_publish(l, next_group(r), due);
            until = MIN(until, r->sched.due_ns);
        }
        load_turn(l, until);
        progress(r, phase);
        if (r->next_reading_ns != 0 && now >= r->next_reading_ns) {
            scen_take_reading(r, r->reading_since_ns);
            r->next_reading_ns += r->opt.sample_ns;
        }
    }
}

/* All connections open and subscribed, or the process ends in words. */
void
scen_open_all(struct run *r)
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

void
scen_publish(struct run *r)
{
    struct load *l = &r->load;
    l->publishing = true;
    if (l->groups[0].remote)
        return;
    if (r->opt.rate > 0) {
        r->sched = make_sched(r);
        return;
    }
    for (uint32_t g = 0; g < l->n_groups; g++)
        for (uint32_t k = 0; k < r->opt.in_flight && l->groups[g].subscribers > 0; k++)
            load_publish(l, g, mono_now().ns);
}

/* Stops publishing; waits until all arrived or nothing comes for three seconds. */
void
scen_drain(struct run *r)
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

void
scen_measure_into(struct run *r, struct sample_set *set)
{
    struct load *l = &r->load;
    struct sample *s = &set->sample[set->n++];
    hist_reset(r->lat);
    proc_begin(&r->server);
    struct edge a = edge_now(r);
    l->win0 = a.ns;
    l->win1 = a.ns + r->opt.duration_ns;
    scen_run_until(r, l->win1, "measuring");
    struct edge b = edge_now(r);
    proc_end(&r->server);
    *s = (struct sample){.seconds = (double)(b.ns - a.ns) / 1e9, .units = b.units - a.units,
        .cpu_ns = b.cpu_ns - a.cpu_ns, .softirq_ns = b.softirq_ns - a.softirq_ns,
        .load_cpu_ns = b.load_ns - a.load_ns};
    /* Messages of this window may still be on their way; the slowest of them belong into it. */
    if (r->opt.rate > 0)
        scen_run_until(r, mono_now().ns + SECOND / 2, "measuring");
    report_latency(s, r->lat);
}

void
scen_measure(struct run *r)
{
    scen_measure_into(r, &r->report.set);
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
layout_fanout(struct run *r, const struct load_conf *conf)
{
    load_init(&r->load, conf, r->opt.clients + 1, 1);
    group_at(&r->load, 0, 0, r->opt.clients);
}

static void
layout_pairs(struct run *r, const struct load_conf *conf)
{
    uint32_t pairs = r->opt.clients / 2;
    load_init(&r->load, conf, 2 * pairs, pairs);
    for (uint32_t g = 0; g < pairs; g++)
        group_at(&r->load, g, 2 * g, 1);
}

#define PUBLISHERS 16

/* Each client hears one channel, chosen by popularity; a few connections publish for all channels. */
static void
layout_channels(struct run *r, const struct load_conf *conf)
{
    struct load *l = &r->load;
    uint32_t n = r->opt.clients, channels = r->opt.channels, publishers = MIN(PUBLISHERS, channels);
    zipf_init(&r->zipf, channels, r->opt.zipf);
    r->random = 0x9e3779b97f4a7c15ull;
    load_init(l, conf, n + publishers, channels);
    for (uint32_t i = 0; i < n; i++)
        load_set_conn(l, i, zipf_pick(&r->zipf, sched_uniform(&r->random)), true, false);
    for (uint32_t g = 0; g < channels; g++)
        load_set_conn(l, n + g % publishers, g, false, true);
}

/* Subscribers of a channel that another process publishes on. */
static void
layout_listeners(struct run *r, const struct load_conf *conf)
{
    load_init(&r->load, conf, r->opt.clients, 1);
    for (uint32_t i = 0; i < r->opt.clients; i++)
        load_set_conn(&r->load, i, 0, true, false);
    load_set_remote(&r->load, 0);
}

void
scen_layout(struct run *r, const struct load_conf *conf)
{
    struct load *l = &r->load;
    uint32_t n = r->opt.clients;
    switch (r->opt.scenario) {
    case SCEN_FLOOR:
        if (r->opt.floor == FLOOR_RELAY)
            layout_pairs(r, conf);
        else
            layout_fanout(r, conf);
        break;
    case SCEN_FANOUT:
        if (r->opt.part > 0)
            layout_listeners(r, conf);
        else
            layout_fanout(r, conf);
        break;
    case SCEN_STORM: layout_fanout(r, conf); break;
    case SCEN_SLOW:
        load_init(l, conf, n + 1 + r->opt.slow, 1);
        group_at(l, 0, 0, n);
        for (uint32_t i = 0; i < r->opt.slow; i++)
            load_set_slow(l, n + 1 + i, 0);
        break;
    case SCEN_PAIRS: layout_pairs(r, conf); break;
    case SCEN_RTT:
        load_init(l, conf, n, n);
        for (uint32_t i = 0; i < n; i++)
            load_set_conn(l, i, i, true, true);
        break;
    case SCEN_IDLE:
    case SCEN_RECONNECT:
    case SCEN_CONNECT: {
        uint32_t channels = r->opt.channels == 0 ? n : MIN(r->opt.channels, n);
        r->opt.channels = channels;
        load_init(l, conf, n, channels);
        for (uint32_t i = 0; i < n; i++)
            load_set_conn(l, i, i % channels, true, false);
        break;
    }
    case SCEN_CHANNELS: layout_channels(r, conf); break;
    case SCEN_CHURN:
        load_init(l, conf, n, r->opt.channels);
        for (uint32_t i = 0; i < n; i++)
            load_set_churner(l, i);
        break;
    case SCEN_MIXED: scen_shape_mixed(r, conf); break;
    case SCEN_REPLAY: scen_shape_replay(r, conf); break;
    case SCEN_PACK: break;
    }
    l->lat = r->lat;
}

struct load_conf
scen_conf(const struct opt *o)
{
    const struct opt_url *u = &o->url;
    return (struct load_conf){.to = u->to, .to_publish = o->publish_url.to, .path = u->path, .host = u->host,
        .from = o->from, .part = o->scenario == SCEN_FANOUT || o->scenario == SCEN_IDLE ? 0 : o->part,
        .wire = u->stream ? LOAD_STREAM : LOAD_WEBSOCKET, .speak = o->speak,
        .tls = u->tls, .tls_12 = o->tls_12, .resume = o->resume, .deflate = o->deflate,
        .deflate_min = o->deflate_min, .depth = o->depth, .kind = o->kind,
        .payload = o->payload, .in_flight = o->rate > 0 ? 0 : o->in_flight,
        .concurrency = MIN(o->concurrency, o->clients + 1), .buffers = o->buffers,
        .buffer_bytes = o->buffer_bytes, .spin = o->spin};
}

void
scen_prepare(const struct opt *o)
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

void
scen_watch(struct run *r)
{
    for (uint32_t i = 0; i < r->opt.n_pids; i++)
        proc_add(&r->server, r->opt.pid[i], r->opt.pid_alone);
    pid_t ksoftirqd = r->opt.server_cpu < 0 ? 0 : proc_ksoftirqd((unsigned)r->opt.server_cpu);
    if (ksoftirqd > 0)
        proc_add(&r->softirq, ksoftirqd, true);
    r->report.has_cpu = r->server.n > 0;
    r->report.server_processes = r->server.n;
}
