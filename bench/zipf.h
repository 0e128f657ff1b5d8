/* Popularity after Zipf: of n things the k-th (from 1) is chosen in proportion to 1 / k^s. With s = 0
 * all are alike. */
#ifndef BENCH_ZIPF_H
#define BENCH_ZIPF_H

#include "common/base.h"

struct zipf {
    uint32_t n;
    double *sum; /* sum[k]: chance that one of 0..k is chosen */
};

void zipf_init(struct zipf *z, uint32_t n, double s);
void zipf_fini(struct zipf *z);
/* The thing that u in (0, 1] chooses. */
uint32_t zipf_pick(const struct zipf *z, double u);
/* Chance of thing k. */
double zipf_chance(const struct zipf *z, uint32_t k);

#endif
