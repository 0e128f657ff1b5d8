/* The timetable of an open-loop run: when the next message is due, whatever happened to the ones before.
 * Latency is measured from here, so a server that stalls is charged for every message that should have
 * been sent meanwhile (no coordinated omission).
 *
 * Constant: computed from the message's number each time, so that nothing drifts. Poisson: independent
 * arrivals at the same mean rate, as from many clients that know nothing of each other; the same each run.
 * Burst: so many at once, at the times a constant schedule has for the first of them.
 * Ramp: the rate grows evenly from the first to the second within a time, and stays there. */
#ifndef BENCH_SCHED_H
#define BENCH_SCHED_H

#include <math.h>

#include "common/base.h"

enum sched_kind { SCHED_CONSTANT, SCHED_POISSON, SCHED_RAMP, SCHED_BURST };

struct sched {
    enum sched_kind kind;
    uint64_t start_ns;
    uint64_t per_gs; /* messages per 10^9 seconds, so that slow rates keep their fractions */
    uint64_t next;   /* index of the first message not taken yet */
    uint64_t due_ns; /* of that message */
    uint64_t random; /* Poisson */
    uint32_t burst;  /* messages at once */
    double from, to, ramp_s; /* ramp: messages per second, seconds */
};

/* xorshift64*: numbers that look random and are the same each run. state is not 0. */
static inline uint64_t
sched_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1dull;
}

/* In (0, 1]. */
static inline double
sched_uniform(uint64_t *state)
{
    return ((double)(sched_random(state) >> 11) + 1.0) * 0x1p-53;
}

/* Due time of message i of a constant schedule, rounded down. */
static inline uint64_t
sched_at(const struct sched *s, uint64_t i)
{
    unsigned __int128 ns = (unsigned __int128)i * 1000000000000000000ull / s->per_gs;
    return s->start_ns + (uint64_t)ns;
}

/* Seconds from the start at which a ramp has sent i messages: from * t + (to - from) * t^2 / (2 * ramp_s)
 * is i, up to ramp_s. */
static inline double
sched_ramp_s(const struct sched *s, double i)
{
    double grow = (s->to - s->from) / s->ramp_s, whole = (s->from + s->to) / 2 * s->ramp_s;
    if (i >= whole)
        return s->ramp_s + (i - whole) / s->to;
    return 2 * i / (s->from + sqrt(s->from * s->from + 2 * grow * i));
}

/* Computes when message s->next is due. */
static inline void
sched_step(struct sched *s)
{
    if (s->kind == SCHED_CONSTANT) {
        s->due_ns = sched_at(s, s->next);
    } else if (s->kind == SCHED_BURST) {
        s->due_ns = sched_at(s, s->next - s->next % s->burst);
    } else if (s->kind == SCHED_RAMP) {
        s->due_ns = s->start_ns + (uint64_t)(sched_ramp_s(s, (double)s->next) * 1e9);
    } else {
        double mean_ns = 1e18 / (double)s->per_gs;
        s->due_ns += (uint64_t)(-log(sched_uniform(&s->random)) * mean_ns + 0.5);
    }
}

static inline uint64_t
sched_per_gs(double per_second)
{
    double per_gs = per_second * 1e9;
    return per_gs < 1 ? 1 : (uint64_t)per_gs;
}

static inline struct sched
sched_make(uint64_t start_ns, double per_second)
{
    return (struct sched){.kind = SCHED_CONSTANT, .start_ns = start_ns, .per_gs = sched_per_gs(per_second),
        .due_ns = start_ns};
}

static inline struct sched
sched_make_poisson(uint64_t start_ns, double per_second)
{
    struct sched s = sched_make(start_ns, per_second);
    s.kind = SCHED_POISSON;
    s.random = 0x9e3779b97f4a7c15ull;
    sched_step(&s);
    return s;
}

/* burst is above 0. */
static inline struct sched
sched_make_burst(uint64_t start_ns, double per_second, uint32_t burst)
{
    struct sched s = sched_make(start_ns, per_second);
    s.kind = SCHED_BURST;
    s.burst = burst;
    return s;
}

/* from and to are above 0. */
static inline struct sched
sched_make_ramp(uint64_t start_ns, double from, double to, double ramp_s)
{
    struct sched s = sched_make(start_ns, from);
    s.kind = SCHED_RAMP;
    s.from = from;
    s.to = to;
    s.ramp_s = ramp_s;
    return s;
}

/* Takes the next message if it is due at `now`; its due time goes to *at. */
static inline bool
sched_take(struct sched *s, uint64_t now, uint64_t *at)
{
    if (s->due_ns > now)
        return false;
    *at = s->due_ns;
    s->next++;
    sched_step(s);
    return true;
}

#endif
