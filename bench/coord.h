/* The coordinator of a run by several processes or hosts. It listens on TCP, hands each agent its part, waits until
 * all connections stand, starts all at once, and merges what comes back. The server's CPU time and memory are read
 * here, so it belongs on the server's host. Nobody proves who they are: for networks that are trusted.
 *
 * Lines, with their answers:
 *   (agent)                 AGENT <build>
 *   WORK <n>                then n words, each a line: the agent's command line
 *   CLOCK                   CLOCK <ns>            the agent's CLOCK_MONOTONIC
 *   SHIFT <ns>                                    what the publisher's clock is ahead of the agent's
 *   OPEN <n>                READY <n>             so many connections stand and are subscribed
 *   GO                                            publish, or whatever the scenario is
 *   WINDOW                  SAMPLE <seconds> <units> <load ns> <values> <min> <max> <sum> <slot>:<count>...
 *   STOP                    PUBLISHED <n>         nothing is published any more
 *   DRAIN <n>               MISSING <n>           of n messages published for all agents (fan-out)
 *   END                     COUNTS <numbers>      struct load_counts; the agent ends */
#ifndef BENCH_COORD_H
#define BENCH_COORD_H

#include "bench/scen.h"

/* Coordinator and agents must be of one build: counts travel as numbers without names. */
#define COORD_BUILD "1"

/* The whole run; fills r->report. argv: the command line, of which agents get what is theirs. */
void coord_run(struct run *r, int argc, char **argv);

#endif
