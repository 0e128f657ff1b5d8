/* How long what is published may wait for more to the same client (out.pacing), by how busy the ring is: nothing while
 * it sleeps most of the time, all that the setting allows once it hardly does. Arithmetic only: who is held back, and
 * until when, is outq's. */
#ifndef WORKER_PACE_H
#define WORKER_PACE_H

#include "common/base.h"

#define PACE_LOOK_NS 10000000u /* between two looks at how busy the ring is */
/* Of 1000: up to the first nothing waits, from the second on it may wait as long as the setting says. */
#define PACE_QUIET 300
#define PACE_BUSY 800

struct pace {
    uint64_t most_ns; /* the setting; 0: no pacing */
    uint64_t ns;      /* what is in force: length of a round, 0: nothing waits */
    uint64_t end;     /* when the present round ends */
    uint32_t round;
    uint32_t load;    /* time that the thread ran, of 1000 */
    uint64_t seen_ns, seen_cpu_ns; /* clocks at the last look; 0: none yet */
};

/* Takes the clocks, and from them the load and `ns`. Time counts for as much as there was of it: a long sleep is
 * believed at once, a short one after some more. */
void pace_look(struct pace *, uint64_t now_ns, uint64_t cpu_ns);

#endif
