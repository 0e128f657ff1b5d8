/* Scenarios in which the server is only asked for what it is for; see scen.h. */
#include "bench/scen_plain.h"

#include <stdio.h>
#include <stdlib.h>

#include "bench/floor.h"
#include "common/bug.h"
#include "common/mono.h"

void
scen_plain_messages(struct run *r)
{
    struct load_conf conf = scen_conf(&r->opt);
    scen_layout(r, &conf);
    scen_open_all(r);
    scen_publish(r);
    scen_run_until(r, mono_now().ns + r->opt.warmup_ns, "warming up");
    for (uint32_t i = 0; i < r->opt.repeat; i++)
        scen_measure(r);
    scen_drain(r);
}

void
scen_plain_floor(struct run *r)
{
    struct frame_pair f = {0};
    struct load_conf conf = scen_conf(&r->opt);
    conf.speak.as = &speak_sc;
    conf.wire = LOAD_FLOOR;
    frame_pair_make(&f, &conf.speak, "bench-000000", r->opt.kind, r->opt.payload, FRAME_SERVER);
    struct floor_child child = floor_start(&r->opt, f.wire_n);
    frame_pair_free(&f);
    conf.concurrency = r->opt.floor == FLOOR_RELAY ? 1 : conf.concurrency; /* who is whose goes by the order */
    conf.tls = conf.deflate = false;
    conf.to = child.subscribers;
    conf.to_publish = child.publisher;
    scen_layout(r, &conf);
    scen_open_all(r);
    scen_publish(r);
    scen_run_until(r, mono_now().ns + r->opt.warmup_ns, "warming up");
    proc_add(&r->server, child.pid, false);
    r->report.has_cpu = true;
    r->report.server_processes = r->server.n;
    for (uint32_t i = 0; i < r->opt.repeat; i++)
        scen_measure(r);
    scen_drain(r);
    proc_uses(&r->server, r->report.use);
    floor_stop(&child);
}

/* Two dozen connections first, so that what a server allocates once is in the baseline. */
void
scen_plain_idle(struct run *r)
{
    if (r->server.n == 0)
        die("idle: --pid is wanted, whose memory would it be?");
    uint32_t all = r->opt.clients;
    struct load_conf conf = scen_conf(&r->opt);
    scen_layout(r, &conf);
    r->load.n_conns = MIN(24u, all);
    scen_open_all(r);
    scen_run_until(r, mono_now().ns + r->opt.warmup_ns, "warming up");
    scen_read_memory(r, &r->report.mem_before, &r->report.pss_before);
    r->load.n_conns = all;
    scen_open_all(r);
    scen_run_until(r, mono_now().ns + r->opt.settle_ns, "settling");
    scen_read_memory(r, &r->report.mem_after, &r->report.pss_after);
    r->report.idle_conns = all - MIN(24u, all);
}

void
scen_plain_connect(struct run *r)
{
    struct load_conf conf = scen_conf(&r->opt);
    conf.concurrency = r->opt.clients;
    r->opt.concurrency = r->opt.clients;
    scen_layout(r, &conf);
    r->load.storm = true;
    scen_run_until(r, mono_now().ns + r->opt.warmup_ns, "warming up");
    for (uint32_t i = 0; i < r->opt.repeat; i++)
        scen_measure(r);
}

/* What zlib takes for one message of the run, on the server's core: the part of a compressed fan-out
 * that is paid once, however many subscribers there are. */
void
scen_plain_pack(struct run *r)
{
    enum { ROUNDS = 2000 };
    struct frame_pair f = {0};
    struct report *p = &r->report;
    static double pack[OPT_REPEAT_MAX], unpack[OPT_REPEAT_MAX];
    frame_pair_make(&f, &r->opt.speak, "bench-000000", r->opt.kind, r->opt.payload, FRAME_CLIENT);
    uint32_t text_n = f.out.n;
    uint8_t *text = xmalloc(text_n), *out = xmalloc(text_n + 64u);
    struct pmd *z = pmd_new();
    size_t n = 0, back = 0;
    for (uint32_t k = 0; k < r->opt.repeat; k++) {
        uint64_t a = 0, b = 0;
        for (uint64_t i = 0; i < ROUNDS; i++) {
            frame_stamp(&f, text, i + k * ROUNDS, mono_now().ns);
            uint64_t t0 = scen_thread_ns();
            n = pmd_pack(z, 15, text, text_n, out, text_n + 64u);
            uint64_t t1 = scen_thread_ns();
            if (pmd_unpack(z, NULL, out, n, &back) == NULL || back != text_n)
                die("zlib does not give back what it was given");
            b += scen_thread_ns() - t1;
            a += t1 - t0;
        }
        pack[k] = (double)a / 1e3 / ROUNDS;
        unpack[k] = (double)b / 1e3 / ROUNDS;
    }
    p->pack_us = report_median(pack, r->opt.repeat);
    p->unpack_us = report_median(unpack, r->opt.repeat);
    p->pack_from = text_n;
    p->pack_to = (uint32_t)n;
    pmd_free(z);
    frame_pair_free(&f);
    free(text);
    free(out);
}

/* Every connection subscribes, is answered, unsubscribes, is answered, and again, each time a channel by
 * popularity. */
void
scen_plain_churn(struct run *r)
{
    struct load_conf conf = scen_conf(&r->opt);
    scen_layout(r, &conf);
    zipf_init(&r->zipf, r->opt.channels, r->opt.zipf);
    r->load.churn = &r->zipf;
    scen_open_all(r);
    scen_run_until(r, mono_now().ns + r->opt.warmup_ns, "warming up");
    for (uint32_t i = 0; i < r->opt.repeat; i++)
        scen_measure(r);
}
