/* Degrees of doubt: what ends the process says where and why; what is only surprising is said once. */
#include "common/bug.h"

#include "tests/unit/t_end.h"

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
    assert_aborts(&e);
    assert_said(&e, "<2>BUG at ");
    assert_said(&e, "test_bug.c:");
    assert_said(&e, "lanes == 0");
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
    assert_exits(&e, 0);
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
    assert_exits(&e, 0);
    assert_int_equal(times_said(&e, "<4>doubt at "), 2);
    assert_int_equal(times_said(&e, "n % 2 != 0 (said once)"), 1);
    assert_int_equal(times_said(&e, "odd == 50 (said once)"), 1);
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
    assert_exits(&e, 1);
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
        assert_exits(&e, 1);
        assert_said(&e, "ringcast: out of memory (");
        assert_said(&e, "bytes wanted)");
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
