/* How a process ends that does something: what it wrote to stderr, and its status. For what must end a
 * process, or changes it for good. */
#ifndef TESTS_UNIT_T_END_H
#define TESTS_UNIT_T_END_H

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

struct ending {
    char said[8192];
    int status; /* of waitpid */
};

static inline struct ending
end_of(void (*what)(void))
{
    struct ending e = {.said = ""};
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct rlimit none = {0, 0};
        (void)dup2(ends[1], STDERR_FILENO);
        (void)close(ends[0]);
        (void)close(ends[1]);
        (void)setrlimit(RLIMIT_CORE, &none);
        (void)signal(SIGABRT, SIG_DFL);
        what();
        _exit(0);
    }
    (void)close(ends[1]);
    size_t n = 0;
    ssize_t got;
    while (n < sizeof e.said - 1 && (got = read(ends[0], e.said + n, sizeof e.said - 1 - n)) > 0)
        n += (size_t)got;
    (void)close(ends[0]);
    assert_int_equal(waitpid(child, &e.status, 0), child);
    return e;
}

static inline void
assert_exits(const struct ending *e, int status)
{
    if (!WIFEXITED(e->status) || WEXITSTATUS(e->status) != status)
        fail_msg("ended with %#x and not with status %d: %s", (unsigned)e->status, status, e->said);
}

static inline void
assert_aborts(const struct ending *e)
{
    if (!WIFSIGNALED(e->status) || WTERMSIG(e->status) != SIGABRT)
        fail_msg("ended with %#x and not by abort(): %s", (unsigned)e->status, e->said);
}

static inline void
assert_said(const struct ending *e, const char *words)
{
    if (strstr(e->said, words) == NULL)
        fail_msg("\"%s\" is not in: %s", words, e->said);
}

static inline unsigned
times_said(const struct ending *e, const char *words)
{
    unsigned n = 0;
    for (const char *p = e->said; (p = strstr(p, words)) != NULL; p += strlen(words))
        n++;
    return n;
}

#endif
