/* Degrees of doubt. BUG_ON: a broken invariant of ours, dump and abort (remote input can never
 * reach one). CHECK_IF: surprising, log once and go on. die(): start-up cannot go on, one sentence. */
#ifndef COMMON_BUG_H
#define COMMON_BUG_H

#include "common/base.h"

NORETURN void bug_abort(const char *file, int line, const char *what);
/* Counts, and logs the first occurrence. Returns true so it can stand in a condition. */
bool bug_doubt(const char *file, int line, const char *what, unsigned *seen);

#define BUG_ON(cond)                                                                               \
    do {                                                                                           \
        if (UNLIKELY(cond))                                                                        \
            bug_abort(__FILE__, __LINE__, #cond);                                                  \
    } while (0)

#define CHECK_IF(cond)                                                                             \
    ({                                                                                             \
        static unsigned seen_;                                                                     \
        UNLIKELY(cond) && bug_doubt(__FILE__, __LINE__, #cond, &seen_);                            \
    })

/* Start-up failure: prints "ringcast: <sentence>" to stderr and exits with status 1.
 * Name what failed, where, and the likely remedy. */
NORETURN void die(const char *fmt, ...) PRINTF(1, 2);

/* Allocation that ends the process in words when memory is out. For start-up and for small bounded
 * objects; what a peer can grow checks its bound first. */
void *xmalloc(size_t n) MUST_CHECK;
void *xcalloc(size_t count, size_t size) MUST_CHECK;
void *xrealloc(void *p, size_t n) MUST_CHECK;
char *xstrdup(const char *s) MUST_CHECK;

#endif
