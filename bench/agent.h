/* One of the processes of a run: it takes its part of the work from a coordinator, holds its connections,
 * measures when it is told, and hands back histograms and counts. What is said stands in coord.h. */
#ifndef BENCH_AGENT_H
#define BENCH_AGENT_H

#include "bench/scen.h"

/* Works for the coordinator that r->opt.agent names, and returns when it has no more to do. argv: what this process
 * adds to the command line it is handed (its --cpu). */
void agent_run(struct run *r, int argc, char **argv);

#endif
