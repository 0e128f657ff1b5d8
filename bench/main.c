/* ringcast-bench: the process, and which scenario. */
#include <stdlib.h>

#include "bench/agent.h"
#include "bench/coord.h"
#include "bench/scen_hard.h"
#include "bench/scen_plain.h"
#include "bench/scen_shape.h"
#include "common/bug.h"
#include "common/mono.h"

/* The scenario, by this process. */
static void
run_alone(struct run *r)
{
    switch (r->opt.scenario) {
    case SCEN_FLOOR: scen_plain_floor(r); break;
    case SCEN_IDLE: scen_plain_idle(r); break;
    case SCEN_CONNECT: scen_plain_connect(r); break;
    case SCEN_STORM: scen_hard_storm(r); break;
    case SCEN_SLOW: scen_hard_slow(r); break;
    case SCEN_PACK: scen_plain_pack(r); break;
    case SCEN_CHURN: scen_plain_churn(r); break;
    case SCEN_RECONNECT: scen_hard_reconnect(r); break;
    case SCEN_CHANNELS:
    case SCEN_MIXED:
    case SCEN_REPLAY:
    case SCEN_FANOUT:
    case SCEN_PAIRS:
    case SCEN_RTT: scen_plain_messages(r); break;
    }
}

int
main(int argc, char **argv)
{
    static struct run r;
    opt_parse(&r.opt, argc, argv);
    r.report.opt = &r.opt;
    r.lat = xmalloc(sizeof *r.lat);
    hist_reset(r.lat);
    r.said_ns = mono_now().ns;
    bool alone = r.opt.coordinate.sin_family == 0;
    if (r.opt.agent.sin_family != 0) {
        agent_run(&r, argc, argv);
        load_free(&r.load);
        return 0;
    }
    if (r.opt.scenario == SCEN_REPLAY)
        scen_shape_read(&r);
    if (alone)
        scen_prepare(&r.opt);
    scen_watch(&r);
    if (alone)
        run_alone(&r);
    else
        coord_run(&r, argc, argv);
    r.report.count = r.load.count;
    memcpy(r.report.tls_terms, r.load.tls_terms, sizeof r.report.tls_terms);
    if (r.opt.scenario != SCEN_FLOOR) /* whose process is gone */
        proc_uses(&r.server, r.report.use);
    bool ok = report_print(&r.report);
    if (alone && r.opt.scenario != SCEN_PACK)
        load_free(&r.load);
    free(r.report.reading);
    zipf_fini(&r.zipf);
    zipf_fini(&r.churn);
    shape_free(&r.shape);
    free(r.lat);
    return ok ? 0 : 2;
}
