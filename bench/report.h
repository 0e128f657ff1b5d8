/* Results, as text for people and JSON for bench/run. */
#ifndef BENCH_REPORT_H
#define BENCH_REPORT_H

#include "bench/hist.h"
#include "bench/load.h"
#include "bench/opt.h"

/* One measurement window. */
struct sample {
    double seconds;
    uint64_t units;        /* deliveries, or connections opened */
    uint64_t cpu_ns;       /* server's processes */
    uint64_t softirq_ns;   /* ksoftirqd of the server's core */
    uint64_t load_cpu_ns;  /* our own thread */
    uint64_t recorded;     /* values in the histogram */
    double p50, p90, p99, p999, max, mean; /* µs */
};

struct report {
    const struct opt *opt;
    uint32_t n;
    struct sample sample[OPT_REPEAT_MAX];
    struct load_counts count;
    uint64_t missing;
    bool has_cpu;
    uint32_t server_processes;
    /* idle */
    uint64_t idle_conns, mem_before, mem_after, pss_before, pss_after;
};

void report_latency(struct sample *s, const struct hist *h);
/* Prints as asked; false if messages were lost, doubled or reordered, or connections ended. */
bool report_print(const struct report *r);

#endif
