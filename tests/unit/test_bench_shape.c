/* Recordings of traffic: what a line means, what is rounded, which lines are refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "bench/shape.c"

static void
read_text(struct shape *s, const char *text)
{
    FILE *f = fmemopen((void *)(uintptr_t)text, strlen(text), "r");
    assert_non_null(f);
    shape_read(s, f, "it", 34, 60000);
    fclose(f);
}

static void
times_channels_and_fanouts_are_kept(void **state)
{
    struct shape s;
    (void)state;
    read_text(&s, "# a comment\n\n100.5,news,200,10\n100.75,chat,10,1\r\n101.0,news,60000,13\n");
    assert_int_equal(s.n, 3);
    assert_int_equal(s.channels, 2);
    assert_int_equal(s.message[0].at_ns, 0);
    assert_int_equal(s.message[1].at_ns, 250000000);
    assert_int_equal(s.message[2].at_ns, 500000000);
    assert_int_equal(s.message[0].channel, s.message[2].channel);
    assert_int_equal(s.subscribers[s.message[0].channel], 12); /* 11.5 */
    assert_int_equal(s.subscribers[s.message[1].channel], 1);
    assert_true(s.deliveries == 25);
    assert_int_equal(s.span_ns, 750000000);
    assert_int_equal(s.lengthened, 1);
    assert_int_equal(s.message[1].bytes, 34);
    assert_int_equal(s.message[2].bytes, 60000);
    shape_free(&s);
}

static void
lengths_are_rounded_up_by_a_quarter_octave_at_most(void **state)
{
    (void)state;
    for (uint32_t n = 34; n < 60000; n++) {
        uint32_t c = class_of(n);
        assert_true(c >= n && c - n <= n / 4 && class_of(c) == c);
    }
}

/* The process ends in words, with a status that says so. */
static void
refused(const char *text)
{
    pid_t pid = fork();
    if (pid == 0) {
        struct shape s;
        (void)!freopen("/dev/null", "w", stderr);
        read_text(&s, text);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
}

static void
lines_without_sense_are_refused(void **state)
{
    (void)state;
    refused("");
    refused("# nothing\n");
    refused("1,c,100\n");
    refused("1,c,100,x\n");
    refused("1,c,100,1,2\n");
    refused("x,c,100,1\n");
    refused("nan,c,100,1\n");
    refused("-1,c,100,1\n");
    refused("1,,100,1\n");
    refused("1,c,60001,1\n");
    refused("1,c,100,1000001\n");
    refused("2,c,100,1\n1,c,100,1\n");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_channels_and_fanouts_are_kept),
        cmocka_unit_test(lengths_are_rounded_up_by_a_quarter_octave_at_most),
        cmocka_unit_test(lines_without_sense_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
