/* Sizes of what exists many times. The broker's are in a file of their own: it and the worker each
 * have a struct chan. */
#ifndef BENCH_SIZES_H
#define BENCH_SIZES_H

#include "common/base.h"

struct size_row {
    const char *name;
    size_t bytes;
    const char *when; /* it exists */
};

const struct size_row *sizes_broker(size_t *n);

#endif
