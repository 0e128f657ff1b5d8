/* ringcast-micro: times the cases of micro_cases.c beside their floors, or runs one of them so often
 * for a simulator that counts instructions (bench/micro).
 *
 *   ringcast-micro               all of them: ns for one operation
 *   ringcast-micro NAME N        N calls, inside micro_counted */
#include "bench/micro.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/bug.h"
#include "common/mono.h"

#define ROUNDS 9
#define ROUND_NS 4000000ull

/* What callgrind collects in; exported and never inlined, so that it can be named. */
void micro_counted(void (*run)(uint32_t n), uint32_t n);

__attribute__((noinline)) void
micro_counted(void (*run)(uint32_t n), uint32_t n)
{
    run(n);
    micro_keep(&n);
}

static int
by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median of rounds of a few milliseconds, ns for one operation. */
static double
time_of(void (*run)(uint32_t n), uint32_t per_call)
{
    double v[ROUNDS];
    uint32_t n = 1;
    for (uint64_t took = 0; took < ROUND_NS && n < 1u << 28; n *= 2) {
        uint64_t t0 = mono_now().ns;
        run(n);
        took = mono_now().ns - t0;
    }
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t t0 = mono_now().ns;
        run(n);
        v[i] = (double)(mono_now().ns - t0) / n / per_call;
    }
    qsort(v, ROUNDS, sizeof v[0], by_value);
    return v[ROUNDS / 2];
}

int
main(int argc, char **argv)
{
    bool found = false;
    for (uint32_t i = 0; i < micro_case_count; i++) {
        const struct micro_case *c = &micro_cases[i];
        if (argc > 1 && strcmp(argv[1], c->name) != 0)
            continue;
        found = true;
        c->set_up();
        if (argc > 2) {
            c->run(1); /* what is made at first use is made */
            micro_counted(c->run, (uint32_t)strtoul(argv[2], NULL, 10));
            printf("%s %u\n", c->name, c->per_call);
            continue;
        }
        printf("%-11s %9.1f ns  %s", c->name, time_of(c->run, c->per_call), c->what);
        if (c->floor != NULL)
            printf("  (floor %.1f ns: %s)", time_of(c->floor, c->per_call), c->floor_what);
        putchar('\n');
    }
    if (!found)
        die("no case \"%s\"", argc > 1 ? argv[1] : "");
    return 0;
}
