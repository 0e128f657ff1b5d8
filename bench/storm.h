/* A storm of connections from a process of its own, so that the work of opening them delays nobody
 * who measures: it runs with the lowest priority on the load's core. The two share a page of counters
 * and a switch. */
#ifndef BENCH_STORM_H
#define BENCH_STORM_H

#include <stdatomic.h>
#include <sys/types.h>

#include "bench/hist.h"
#include "bench/load.h"

/* w: who writes. */
struct storm_shared {
    _Atomic uint32_t want; /* w: parent. 1: blow */
    _Atomic uint32_t is;   /* w: child. What it follows at present */
    _Atomic uint64_t opened, refused, secured, resumed; /* w: child */
    char tls_terms[96];    /* w: child, before the first count */
    struct hist lat;       /* w: child, while it blows: connect to conf.depth */
};

struct storm {
    pid_t pid;
    struct storm_shared *shared;
};

/* Call before the process has a ring or threads. conns: of the storm, opening at a time; per_second: 0,
 * as many as go. */
struct storm storm_start(const struct load_conf *conf, uint32_t conns, double per_second);
/* Lets it blow, or ends it and waits until its connections are gone. */
void storm_set(struct storm *s, bool on);
/* Ends and reaps the child. */
void storm_stop(struct storm *s);

#endif
