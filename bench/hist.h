/* Histogram of latencies in nanoseconds: linear within an octave, 128 slots each, so any value is
 * known to 0.8% and the whole range of 64 bits costs 58 KiB. Recording is a few instructions. */
#ifndef BENCH_HIST_H
#define BENCH_HIST_H

#include "common/base.h"

#define HIST_SUB_BITS 7
#define HIST_SUB (1u << HIST_SUB_BITS)
#define HIST_SLOTS ((64 - HIST_SUB_BITS + 1) * HIST_SUB)

struct hist {
    uint64_t n;
    uint64_t min; /* exact; UINT64_MAX while empty */
    uint64_t max; /* exact */
    double sum;
    uint64_t slot[HIST_SLOTS];
};

void hist_reset(struct hist *h);
/* Adds all of `from` to h. */
void hist_merge(struct hist *h, const struct hist *from);
/* Smallest recorded value (rounded up to its slot's end) that q of all values do not exceed, q in
 * 0..1; never above the exact maximum. 0 when nothing was recorded. */
uint64_t hist_quantile(const struct hist *h, double q);
double hist_mean(const struct hist *h);

static inline uint32_t
hist_index(uint64_t v)
{
    if (v < HIST_SUB)
        return (uint32_t)v;
    uint32_t shift = 63u - (uint32_t)__builtin_clzll(v) - HIST_SUB_BITS;
    return (shift + 1) * HIST_SUB + (uint32_t)((v >> shift) - HIST_SUB);
}

/* Largest value that falls into slot i. */
static inline uint64_t
hist_slot_end(uint32_t i)
{
    if (i < HIST_SUB)
        return i;
    uint32_t shift = i / HIST_SUB - 1;
    return ((uint64_t)(HIST_SUB + i % HIST_SUB) << shift) + ((1ull << shift) - 1);
}

static inline void
hist_add(struct hist *h, uint64_t v)
{
    h->n++;
    h->sum += (double)v;
    h->min = MIN(h->min, v);
    h->max = MAX(h->max, v);
    h->slot[hist_index(v)]++;
}

#endif
