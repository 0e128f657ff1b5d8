/* Scenarios in which something goes against the server; see scen.h. */
#include "bench/scen_hard.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/storm.h"
#include "common/bug.h"
#include "common/mono.h"

/* One window alone, one beside the storm, and again. */
void
scen_hard_storm(struct run *r)
{
    struct report *p = &r->report;
    struct load_conf conf = scen_conf(&r->opt), theirs = conf;
    const struct opt_url *u = &r->opt.storm_url;
    theirs.to = theirs.to_publish = u->to;
    theirs.path = u->path;
    theirs.host = u->host;
    theirs.tls = u->tls;
    theirs.deflate = false;
    theirs.concurrency = r->opt.storm;
    conf.resume = false;
    struct storm storm = storm_start(&theirs, r->opt.storm, r->opt.storm_rate);
    scen_layout(r, &conf);
    scen_open_all(r);
    scen_publish(r);
    scen_run_until(r, mono_now().ns + r->opt.warmup_ns, "warming up");
    for (uint32_t i = 0; i < r->opt.repeat; i++) {
        scen_measure(r);
        storm_set(&storm, true);
        scen_run_until(r, mono_now().ns + SECOND / 2, "the storm rises");
        uint64_t before = atomic_load(&storm.shared->opened), begin = mono_now().ns;
        scen_measure_into(r, &p->during);
        p->storm_per_second[i] = (double)(atomic_load(&storm.shared->opened) - before) * 1e9 /
            (double)(mono_now().ns - begin);
        storm_set(&storm, false);
        scen_run_until(r, mono_now().ns + SECOND / 2, "the storm is over");
    }
    scen_drain(r);
    p->storm_opened = atomic_load(&storm.shared->opened);
    p->storm_refused = atomic_load(&storm.shared->refused);
    p->storm_secured = atomic_load(&storm.shared->secured);
    p->storm_resumed = atomic_load(&storm.shared->resumed);
    p->storm_p50 = (double)hist_quantile(&storm.shared->lat, 0.5) / 1e3;
    p->storm_p99 = (double)hist_quantile(&storm.shared->lat, 0.99) / 1e3;
    memcpy(p->storm_terms, storm.shared->tls_terms, sizeof p->storm_terms);
    storm_stop(&storm);
}

/* Publishes beside readers that do not read, and looks at the server's memory; in the end they read. */
void
scen_hard_slow(struct run *r)
{
    struct report *p = &r->report;
    struct load *l = &r->load;
    if (r->server.n == 0)
        die("slow: --pid is wanted, whose memory would it be?");
    p->reading = xcalloc(REPORT_READINGS, sizeof *p->reading);
    struct load_conf conf = scen_conf(&r->opt);
    scen_layout(r, &conf);
    scen_open_all(r);
    scen_run_until(r, mono_now().ns + r->opt.warmup_ns, "warming up");
    scen_read_memory(r, &p->mem_before, &p->pss_before);
    scen_publish(r);
    uint64_t start = mono_now().ns;
    r->next_reading_ns = start + r->opt.sample_ns;
    r->reading_since_ns = start;
    for (uint32_t i = 0; i < r->opt.repeat; i++)
        scen_measure(r);
    r->next_reading_ns = 0;
    scen_take_reading(r, start);
    scen_drain(r);
    load_resume_slow(l);
    scen_run_until(r, mono_now().ns + r->opt.settle_ns, "the slow ones read");
    p->slow = load_slow_now(l);
    scen_read_memory(r, &p->mem_after, &p->pss_after);
}

/* Kills the server's processes of that name, with no time for a farewell. */
static uint32_t
kill_server(struct run *r)
{
    struct proc_set now = {0};
    char name[32];
    uint32_t killed = 0;
    for (uint32_t i = 0; i < r->opt.n_pids; i++)
        proc_add(&now, r->opt.pid[i], false);
    for (uint32_t i = 0; i < now.n; i++) {
        proc_name(now.pid[i], name, sizeof name);
        killed += strcmp(name, r->opt.kill) == 0 && kill(now.pid[i], SIGKILL) == 0;
    }
    return killed;
}

/* The server's processes die, whoever watches over them starts new ones, and every client is back as
 * soon as it can: how long until all are. A unit is a connection; its latency counts from the kill. */
void
scen_hard_reconnect(struct run *r)
{
    struct load *l = &r->load;
    struct load_conf conf = scen_conf(&r->opt);
    scen_layout(r, &conf);
    scen_open_all(r);
    l->reopen = true;
    for (uint32_t i = 0; i < r->opt.repeat; i++) {
        struct sample *s = &r->report.set.sample[r->report.set.n++];
        uint64_t before = l->count.opened, t0 = mono_now().ns;
        hist_reset(r->lat);
        l->win0 = t0;
        if (kill_server(r) == 0)
            die("reconnect: the server has no process \"%s\" (--kill) that can be killed", r->opt.kill);
        while (l->count.opened - before < l->n_conns) {
            load_turn(l, mono_now().ns + SECOND / 200);
            if (mono_now().ns - t0 > 60 * SECOND)
                die("a minute after the kill %u of %u connections are back", l->ready, l->n_conns);
        }
        *s = (struct sample){.seconds = (double)(mono_now().ns - t0) / 1e9, .units = l->n_conns};
        report_latency(s, r->lat);
        scen_run_until(r, mono_now().ns + r->opt.settle_ns, "settling");
    }
    l->count.disconnects = l->count.refused = 0; /* which was the point */
}
