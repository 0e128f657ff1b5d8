/* Results, as text for people and JSON for bench/run. */
#ifndef BENCH_REPORT_H
#define BENCH_REPORT_H

#include "bench/hist.h"
#include "bench/load.h"
#include "bench/opt.h"
#include "bench/proc.h"

#define REPORT_QUANTILES 21
/* Parts of all values, for drawing the distribution. */
extern const double report_quantile[REPORT_QUANTILES];

/* One measurement window. */
struct sample {
    double seconds;
    uint64_t units;        /* deliveries, or connections opened */
    uint64_t cpu_ns;       /* server's processes */
    uint64_t softirq_ns;   /* ksoftirqd of the server's core */
    uint64_t load_cpu_ns;  /* our own thread */
    uint64_t recorded;     /* values in the histogram */
    double p50, p90, p99, p999, max, mean; /* µs */
    double at[REPORT_QUANTILES];           /* µs at report_quantile[i] */
};

struct sample_set {
    uint32_t n;
    struct sample sample[OPT_REPEAT_MAX];
};

/* Memory of the server at a moment (slow). */
struct reading {
    double seconds; /* since publishing began */
    uint64_t private_bytes;
    uint32_t open; /* slow readers that the server has not ended as far as is known */
};

#define REPORT_READINGS 4096

struct report {
    const struct opt *opt;
    struct sample_set set;
    struct load_counts count;
    char tls_terms[96]; /* "" without TLS */
    uint64_t missing;
    uint32_t agents; /* processes that had a part; 0: this one alone */
    bool has_cpu;
    uint32_t server_processes;
    struct proc_use use[PROC_MAX]; /* of each of them */
    /* idle; slow too has mem_before and mem_after */
    uint64_t idle_conns, mem_before, mem_after, pss_before, pss_after;
    /* storm */
    struct sample_set during;                     /* windows of the others while it blows */
    double storm_per_second[OPT_REPEAT_MAX];      /* connections, in each of those */
    uint64_t storm_opened, storm_refused, storm_secured, storm_resumed;
    double storm_p50, storm_p99;                  /* µs from connect to --depth */
    char storm_terms[96];
    /* slow */
    struct reading *reading; /* REPORT_READINGS of them */
    uint32_t readings;
    struct load_slow slow;
    /* pack */
    uint32_t pack_from, pack_to; /* bytes */
    double pack_us, unpack_us;   /* CPU for a message: medians of the repeats */
};

void report_latency(struct sample *s, const struct hist *h);
/* Half the width of the 95 % interval of the mean, from the spread of n values (Student's t); 0 below two. */
double report_half_width(const double *v, uint32_t n);
/* Median; sorts v. */
double report_median(double *v, uint32_t n);
/* The highest reading of memory. */
uint64_t report_most(const struct report *r);
/* Prints as asked; false if messages were lost, doubled or reordered, or connections ended. */
bool report_print(const struct report *r);

#endif
