/* Histogram of latencies; see hist.h. */
#include "bench/hist.h"

void
hist_reset(struct hist *h)
{
    memset(h, 0, sizeof *h);
    h->min = UINT64_MAX;
}

void
hist_merge(struct hist *h, const struct hist *from)
{
    h->n += from->n;
    h->sum += from->sum;
    h->min = MIN(h->min, from->min);
    h->max = MAX(h->max, from->max);
    for (uint32_t i = 0; i < HIST_SLOTS; i++)
        h->slot[i] += from->slot[i];
}

uint64_t
hist_quantile(const struct hist *h, double q)
{
    if (h->n == 0)
        return 0;
    /* Rank of the value wanted, 1..n: the smallest integer not below q * n. */
    double exact = q * (double)h->n;
    uint64_t rank = exact <= 0 ? 1 : (uint64_t)exact;
    if ((double)rank < exact || rank == 0)
        rank++;
    uint64_t seen = 0;
    for (uint32_t i = 0; i < HIST_SLOTS; i++) {
        seen += h->slot[i];
        if (seen >= rank)
            return MIN(hist_slot_end(i), h->max);
    }
    return h->max;
}

double
hist_mean(const struct hist *h)
{
    return h->n ? h->sum / (double)h->n : 0;
}
