/* What the processes of a coordinated run say to each other arrives line by line, however it is cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "bench/lines.c"

#define MS 1000000ull

static void
open_pair(struct lines *l, int *other)
{
    int fd[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    lines_init(l, fd[0]);
    *other = fd[1];
}

static void
lines_come_whole_and_in_order(void **state)
{
    struct lines l;
    int other;
    (void)state;
    open_pair(&l, &other);
    assert_null(lines_take(&l, 0));
    assert_int_equal(write(other, "on", 2), 2);
    assert_null(lines_take(&l, 0));
    assert_int_equal(write(other, "e\ntwo\n\nfo", 9), 9);
    assert_string_equal(lines_take(&l, 100 * MS), "one");
    assert_string_equal(lines_take(&l, 0), "two");
    assert_string_equal(lines_take(&l, 0), "");
    assert_null(lines_take(&l, 1 * MS));
    assert_int_equal(write(other, "ur\n", 3), 3);
    assert_string_equal(lines_take(&l, 100 * MS), "four");
    assert_false(l.ended);
    close(other);
    assert_null(lines_take(&l, 100 * MS));
    assert_true(l.ended);
    lines_free(&l);
}

static void
what_is_said_is_a_line(void **state)
{
    struct lines l, there;
    int other;
    (void)state;
    open_pair(&l, &other);
    lines_init(&there, other);
    assert_true(lines_say(&l, "READY %u", 7u));
    assert_string_equal(lines_take(&there, 100 * MS), "READY 7");
    lines_free(&there);
    assert_false(lines_say(&l, "READY %u", 8u));
    lines_free(&l);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_come_whole_and_in_order),
        cmocka_unit_test(what_is_said_is_a_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
