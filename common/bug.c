#include "common/bug.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

NORETURN void
bug_abort(const char *file, int line, const char *what)
{
    fprintf(stderr, "<2>BUG at %s:%d: %s\n", file, line, what);
    abort();
}

bool
bug_doubt(const char *file, int line, const char *what, unsigned *seen)
{
    if (__atomic_fetch_add(seen, 1, __ATOMIC_RELAXED) == 0)
        fprintf(stderr, "<4>doubt at %s:%d: %s (said once)\n", file, line, what);
    return true;
}

NORETURN void
die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("ringcast: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    exit(1);
}

void *
xmalloc(size_t n)
{
    void *p = malloc(n ? n : 1);
    if (p == NULL)
        die("out of memory (%zu bytes wanted)", n);
    return p;
}

void *
xcalloc(size_t count, size_t size)
{
    void *p = calloc(count ? count : 1, size ? size : 1);
    if (p == NULL)
        die("out of memory (%zu x %zu bytes wanted)", count, size);
    return p;
}

void *
xrealloc(void *p, size_t n)
{
    p = realloc(p, n ? n : 1);
    if (p == NULL)
        die("out of memory (%zu bytes wanted)", n);
    return p;
}

char *
xstrdup(const char *s)
{
    size_t n = strlen(s) + 1;
    return memcpy(xmalloc(n), s, n);
}
