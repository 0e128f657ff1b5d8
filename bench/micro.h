/* What one operation of the hot paths costs, without a kernel: cases and the floors under them. A case
 * is a function that does the operation n times on memory that set_up made; nothing in it is random and
 * nothing depends on time, so a simulator counts the same instructions each time. */
#ifndef BENCH_MICRO_H
#define BENCH_MICRO_H

#include "common/base.h"

struct micro_case {
    const char *name;  /* as in budgets.txt, behind "micro." */
    const char *what;  /* one operation */
    uint32_t per_call; /* operations that `run(1)` does */
    void (*set_up)(void);
    void (*run)(uint32_t n);
    const char *floor_what; /* NULL: none */
    void (*floor)(uint32_t n);
};

extern const struct micro_case micro_cases[];
extern const uint32_t micro_case_count;

/* Keeps a result alive, so that the compiler cannot leave the work out. */
static inline void
micro_keep(const void *p)
{
    __asm__ volatile("" : : "r"(p) : "memory");
}

#endif
