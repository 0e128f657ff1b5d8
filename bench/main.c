/* ringcast-bench: the process, and which scenario. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "bench/scen_hard.h"
#include "bench/scen_plain.h"
#include "common/bug.h"
#include "common/mono.h"

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
    scen_watch(&r);
    switch (r.opt.scenario) {
    case SCEN_FLOOR: scen_plain_floor(&r); break;
    case SCEN_IDLE: scen_plain_idle(&r); break;
    case SCEN_CONNECT: scen_plain_connect(&r); break;
    case SCEN_STORM: scen_hard_storm(&r); break;
    case SCEN_SLOW: scen_hard_slow(&r); break;
    case SCEN_PACK: scen_plain_pack(&r); break;
    case SCEN_CHURN: scen_plain_churn(&r); break;
    case SCEN_RECONNECT: scen_hard_reconnect(&r); break;
    case SCEN_CHANNELS:
    case SCEN_FANOUT:
    case SCEN_PAIRS:
    case SCEN_RTT: scen_plain_messages(&r); break;
    }
    r.report.count = r.load.count;
    memcpy(r.report.tls_terms, r.load.tls_terms, sizeof r.report.tls_terms);
    bool ok = report_print(&r.report);
    if (r.opt.scenario != SCEN_PACK)
        load_free(&r.load);
    free(r.report.reading);
    zipf_fini(&r.zipf);
    free(r.lat);
    return ok ? 0 : 2;
}
