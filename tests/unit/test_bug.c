/* Degrees of doubt: what ends the process says where and why; what is only surprising is said once. */
#include "common/bug.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* Under a sanitizer memory that cannot be had is NULL as well, and not the sanitizer's own end. */
const char *__asan_default_options(void);
const char *
__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}
const char *__tsan_default_options(void);
const char *
__tsan_default_options(void)
{
    return "allocator_may_return_null=1";
}

/* What a process that does `what` writes to stderr, and how it ends. */
struct ending {
    char said[1024];
    int status;
};

static struct ending
end_of(void (*what)(void))
{
    struct ending e = {.said = ""};
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        struct rlimit none = {0, 0};
        (void)setrlimit(RLIMIT_CORE, &none);
        signal(SIGABRT, SIG_DFL);
        what();
        _exit(0);
    }
    close(ends[1]);
    size_t n = 0;
    ssize_t got;
    while (n < sizeof e.said - 1 && (got = read(ends[0], e.said + n, sizeof e.said - 1 - n)) > 0)
        n += (size_t)got;
    close(ends[0]);
    assert_int_equal(waitpid(child, &e.status, 0), child);
    return e;
}

static void
assert_says(const struct ending *e, const char *words)
{
    if (strstr(e->said, words) == NULL)
        fail_msg("\"%s\" is not in: %s", words, e->said);
}

static unsigned
times(const char *text, const char *word)
{
    unsigned n = 0;
    for (const char *p = text; (p = strstr(p, word)) != NULL; p += strlen(word))
        n++;
    return n;
}

/* ---- invariants ---- */

static void
break_an_invariant(void)
{
    int lanes = 0;
    BUG_ON(lanes == 0);
}

static void
a_broken_invariant_aborts_and_says_where(void **state)
{
    (void)state;
    struct ending e = end_of(break_an_invariant);
    assert_true(WIFSIGNALED(e.status));
    assert_int_equal(WTERMSIG(e.status), SIGABRT);
    assert_says(&e, "<2>BUG at ");
    assert_says(&e, "test_bug.c:");
    assert_says(&e, "lanes == 0");
}

static void
keep_an_invariant(void)
{
    int lanes = 1;
    BUG_ON(lanes == 0);
}

static void
a_kept_invariant_costs_nothing(void **state)
{
    (void)state;
    struct ending e = end_of(keep_an_invariant);
    assert_true(WIFEXITED(e.status) && WEXITSTATUS(e.status) == 0);
    assert_string_equal(e.said, "");
}

static bool
is_odd(int n)
{
    return CHECK_IF(n % 2 != 0);
}

static void
be_surprised(void)
{
    unsigned odd = 0;
    for (int i = 0; i < 100; i++)
        odd += is_odd(i);
    (void)CHECK_IF(odd != 50); /* a place of its own: not hit, not said */
    (void)CHECK_IF(odd == 50);
}

static void
a_doubt_is_said_once_for_each_place_and_goes_on(void **state)
{
    (void)state;
    struct ending e = end_of(be_surprised);
    assert_true(WIFEXITED(e.status) && WEXITSTATUS(e.status) == 0);
    assert_int_equal(times(e.said, "<4>doubt at "), 2);
    assert_int_equal(times(e.said, "n % 2 != 0 (said once)"), 1);
    assert_int_equal(times(e.said, "odd == 50 (said once)"), 1);
}

static void
every_doubt_is_counted(void **state)
{
    unsigned seen = 1; /* the first was said already */
    (void)state;
    for (int i = 0; i < 9; i++)
        assert_true(bug_doubt("file", 1, "what", &seen));
    assert_int_equal(seen, 10);
}

/* ---- start-up failures ---- */

static void
give_up(void)
{
    die("port %d is taken: choose another with %s", 8000, "worker.listen");
}

static void
a_start_that_fails_is_one_sentence_and_status_1(void **state)
{
    (void)state;
    struct ending e = end_of(give_up);
    assert_true(WIFEXITED(e.status) && WEXITSTATUS(e.status) == 1);
    assert_string_equal(e.said, "ringcast: port 8000 is taken: choose another with worker.listen\n");
}

/* ---- memory ---- */

/* Not known to the compiler, which would see that it is too much. */
static volatile size_t too_much = SIZE_MAX / 2;

static void
want_too_much(void)
{
    free(xmalloc(too_much));
}

static void
want_too_many(void)
{
    free(xcalloc(too_much, too_much));
}

static void
grow_too_much(void)
{
    free(xrealloc(xmalloc(1), too_much));
}

static void
memory_that_cannot_be_had_ends_the_process_in_words(void **state)
{
    void (*const ways[])(void) = {want_too_much, want_too_many, grow_too_much};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
        struct ending e = end_of(ways[i]);
        assert_true(WIFEXITED(e.status) && WEXITSTATUS(e.status) == 1);
        assert_says(&e, "ringcast: out of memory (");
        assert_says(&e, "bytes wanted)");
    }
}

static void
nothing_is_something_to_hold(void **state)
{
    (void)state;
    char *a = xmalloc(0), *b = xcalloc(0, 8), *c = xrealloc(NULL, 0);
    assert_non_null(a);
    assert_non_null(b);
    assert_non_null(c);
    free(a);
    free(b);
    free(c);
}

static void
copies_are_whole_and_their_own(void **state)
{
    char text[] = "a channel";
    (void)state;
    char *copy = xstrdup(text), *empty = xstrdup("");
    text[0] = 'b';
    assert_string_equal(copy, "a channel");
    assert_string_equal(empty, "");
    copy = xrealloc(copy, 4096);
    assert_string_equal(copy, "a channel");
    uint8_t *zeroes = xcalloc(3, 5);
    for (int i = 0; i < 15; i++)
        assert_int_equal(zeroes[i], 0);
    free(zeroes);
    free(copy);
    free(empty);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_broken_invariant_aborts_and_says_where),
        cmocka_unit_test(a_kept_invariant_costs_nothing),
        cmocka_unit_test(a_doubt_is_said_once_for_each_place_and_goes_on),
        cmocka_unit_test(every_doubt_is_counted),
        cmocka_unit_test(a_start_that_fails_is_one_sentence_and_status_1),
        cmocka_unit_test(memory_that_cannot_be_had_ends_the_process_in_words),
        cmocka_unit_test(nothing_is_something_to_hold),
        cmocka_unit_test(copies_are_whole_and_their_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
