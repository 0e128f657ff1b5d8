/* Popularity after Zipf; see zipf.h. */
#include "bench/zipf.h"

#include <math.h>
#include <stdlib.h>

#include "common/bug.h"

void
zipf_init(struct zipf *z, uint32_t n, double s)
{
    double all = 0;
    *z = (struct zipf){.n = n, .sum = xcalloc(n, sizeof *z->sum)};
    for (uint32_t k = 0; k < n; k++) {
        all += pow(k + 1.0, -s);
        z->sum[k] = all;
    }
    for (uint32_t k = 0; k < n; k++)
        z->sum[k] /= all;
}

void
zipf_fini(struct zipf *z)
{
    free(z->sum);
    *z = (struct zipf){0};
}

uint32_t
zipf_pick(const struct zipf *z, double u)
{
    uint32_t low = 0, high = z->n - 1;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (z->sum[mid] < u)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

double
zipf_chance(const struct zipf *z, uint32_t k)
{
    return k == 0 ? z->sum[0] : z->sum[k] - z->sum[k - 1];
}
