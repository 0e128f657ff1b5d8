/* Scenarios in which something goes against the server. */
#ifndef BENCH_SCEN_HARD_H
#define BENCH_SCEN_HARD_H

#include "bench/scen.h"

void scen_hard_storm(struct run *r);
void scen_hard_slow(struct run *r);
void scen_hard_reconnect(struct run *r);

#endif
