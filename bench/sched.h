/* The timetable of an open-loop run: when the i-th message is due, whatever happened to the ones
 * before. Latency is measured from here, so a server that stalls is charged for every message that
 * should have been sent meanwhile (no coordinated omission). Computed from i each time: no drift. */
#ifndef BENCH_SCHED_H
#define BENCH_SCHED_H

#include "common/base.h"

struct sched {
    uint64_t start_ns;
    uint64_t per_gs; /* messages per 10^9 seconds, so that slow rates keep their fractions */
    uint64_t next;   /* index of the first message not taken yet */
};

static inline struct sched
sched_make(uint64_t start_ns, double per_second)
{
    double per_gs = per_second * 1e9;
    return (struct sched){start_ns, per_gs < 1 ? 1 : (uint64_t)per_gs, 0};
}

/* Due time of message i, rounded down. */
static inline uint64_t
sched_at(const struct sched *s, uint64_t i)
{
    unsigned __int128 ns = (unsigned __int128)i * 1000000000000000000ull / s->per_gs;
    return s->start_ns + (uint64_t)ns;
}

/* Takes the next message if it is due at `now`; its due time goes to *at. */
static inline bool
sched_take(struct sched *s, uint64_t now, uint64_t *at)
{
    uint64_t due = sched_at(s, s->next);
    if (due > now)
        return false;
    *at = due;
    s->next++;
    return true;
}

#endif
