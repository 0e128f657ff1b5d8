/* A run of ringcast-bench: its connections, its timetable, its windows. The scenarios themselves are
 * scen_plain.c and scen_hard.c. */
#ifndef BENCH_SCEN_H
#define BENCH_SCEN_H

#include "bench/load.h"
#include "bench/opt.h"
#include "bench/report.h"
#include "bench/sched.h"
#include "bench/shape.h"
#include "bench/zipf.h"

#define SECOND 1000000000ull

struct run {
    struct opt opt;
    struct load load;
    struct proc_set server;  /* its processes */
    struct proc_set softirq; /* the kernel's helper on its core */
    struct sched sched;
    uint32_t next_group; /* at a rate: whose turn it is */
    struct zipf churn;   /* mixed: of the churners */
    struct shape shape;  /* replay */
    uint32_t shape_at;   /* the next message ... */
    uint64_t shape_round, shape_since_ns; /* ... of this round since then; 0: not begun */
    struct zipf zipf;    /* channels: which one */
    uint64_t random;     /* ... */
    struct hist *lat;
    struct report report;
    uint64_t said_ns; /* last progress line */
    uint64_t said_delivered;
    uint64_t next_reading_ns; /* slow: when memory is read next; 0: not */
    uint64_t reading_since_ns;
};

/* Signals, open files, the core; once, before anything else. */
void scen_prepare(const struct opt *o);
struct load_conf scen_conf(const struct opt *o);
/* Declares the connections of the scenario. */
void scen_layout(struct run *r, const struct load_conf *conf);
void scen_watch(struct run *r);
/* All connections open and subscribed, or the process ends in words. */
void scen_open_all(struct run *r);
void scen_publish(struct run *r);
/* Keeps the timetable, and turns until `end`. */
void scen_run_until(struct run *r, uint64_t end, const char *phase);
/* One window, into the report or another set. */
void scen_measure(struct run *r);
void scen_measure_into(struct run *r, struct sample_set *set);
/* Stops publishing; waits until all arrived or nothing comes for three seconds. */
void scen_drain(struct run *r);
void scen_read_memory(const struct run *r, uint64_t *private_bytes, uint64_t *pss);
void scen_take_reading(struct run *r, uint64_t start);
/* CPU time of the calling thread. */
uint64_t scen_thread_ns(void);

#endif
