/* Monotonic time in a struct, so that milliseconds cannot be added to nanoseconds by accident.
 * The wall clock is for tokens and log lines only. */
#ifndef COMMON_MONO_H
#define COMMON_MONO_H

#include <time.h>

#include "common/base.h"

struct mono {
    uint64_t ns;
};

static inline struct mono
mono_now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (struct mono){(uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec};
}

/* Nanoseconds that the calling thread ran: a system call, unlike the others. */
static inline uint64_t
mono_thread_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

static inline uint64_t
mono_ms(struct mono t)
{
    return t.ns / 1000000;
}

static inline struct mono
mono_add_ms(struct mono t, uint64_t ms)
{
    return (struct mono){t.ns + ms * 1000000ull};
}

/* Milliseconds from `since` to `t`; 0 when t lies before it. */
static inline uint64_t
mono_since_ms(struct mono t, struct mono since)
{
    return t.ns <= since.ns ? 0 : (t.ns - since.ns) / 1000000;
}

static inline bool
mono_reached(struct mono now, struct mono deadline)
{
    return now.ns >= deadline.ns;
}

#endif
