/* How processes begin: their number, signals as a descriptor, readiness, CPUs, and what SIGHUP does. Each
 * in a process of its own, since it changes the process for good. */
#include "common/start.h"

#include <sched.h>

#include "common/bug.h"
#include "tests/unit/t_end.h"

/* In the child cmocka is not at hand: what is not as it should be is said and ends it. */
#define EXPECT(cond)                                                                               \
    do {                                                                                           \
        if (!(cond))                                                                               \
            die("line %d: %s", __LINE__, #cond);                                                   \
    } while (0)

static struct start s;
static struct conf conf;

static void
begin(const char *kind, const char *a, const char *b)
{
    char program[] = "program", *args[] = {program, (char *)(uintptr_t)a, (char *)(uintptr_t)b, NULL};
    start_process(&s, &conf, kind, b != NULL ? 3 : a != NULL ? 2 : 1, args);
}

/* ---- the command line ---- */

static void
begin_as_worker_7(void)
{
    begin("worker", "--worker.index=7", "--worker.count=9");
    EXPECT(s.index == 7);
    EXPECT(conf.worker_count == 9);
    EXPECT(s.signal_fd >= 0);
    EXPECT(s.parent_fd == -1 && s.ready_fd == -1);
    log_warn("here", "x=1");
}

static void
a_process_knows_its_number_and_says_it(void **state)
{
    (void)state;
    struct ending e = end_of(begin_as_worker_7);
    assert_exits(&e, 0);
    assert_said(&e, "worker.7");
}

static const char *bad_argument;

static void
begin_with_bad_argument(void)
{
    begin("broker", bad_argument, NULL);
}

static void
what_else_is_on_the_command_line_is_refused(void **state)
{
    static const struct {
        const char *argument, *says;
    } bad[] = {
        {"--verbose", "unknown argument --verbose: see --help"},
        {"--worker.index=1", "unknown argument --worker.index=1"},
        {"--broker.index=", "no number of a process"},
        {"--broker.index=one", "no number of a process"},
        {"--broker.index=-1", "no number of a process"},
        {"--broker.index=1x", "no number of a process"},
        {"--broker.index=65536", "no number of a process"},
        {"--broker.count=none", "broker.count"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        bad_argument = bad[i].argument;
        struct ending e = end_of(begin_with_bad_argument);
        assert_exits(&e, 1);
        assert_memory_equal(e.said, "ringcast: ", 10);
        assert_said(&e, bad[i].says);
        assert_int_equal(times_said(&e, "\n"), 1);
    }
}

static void
begin_with_three_mistakes(void)
{
    (void)setenv("RINGCAST_WORKER_CUONT", "1", 1);
    begin("worker", "--worker.rings=65", "--log.level=loud");
}

static void
each_mistake_is_a_sentence(void **state)
{
    (void)state;
    struct ending e = end_of(begin_with_three_mistakes);
    assert_exits(&e, 1);
    assert_int_equal(times_said(&e, "ringcast: "), 3);
    assert_said(&e, "RINGCAST_WORKER_CUONT");
    assert_said(&e, "flag --worker.rings");
    assert_said(&e, "flag --log.level");
}

/* ---- signals ---- */

static void
be_signalled(void)
{
    begin("worker", NULL, NULL);
    EXPECT(start_signal_take(s.signal_fd) == 0);
    (void)kill(getpid(), SIGHUP);
    EXPECT(start_signal_take(s.signal_fd) == SIGHUP);
    (void)kill(getpid(), SIGTERM);
    (void)kill(getpid(), SIGINT);
    int a = start_signal_take(s.signal_fd), b = start_signal_take(s.signal_fd);
    EXPECT((a == SIGTERM && b == SIGINT) || (a == SIGINT && b == SIGTERM));
    EXPECT(start_signal_take(s.signal_fd) == 0);
    (void)kill(getpid(), SIGPIPE); /* whoever went away does not end us */
}

static void
watch_a_child(void)
{
    int fd = start_signals(true);
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    int status, signal = 0;
    EXPECT(waitpid(child, &status, 0) == child);
    signal = start_signal_take(fd);
    EXPECT(signal == SIGCHLD);
}

static void
signals_come_from_a_descriptor(void **state)
{
    (void)state;
    struct ending e = end_of(be_signalled);
    assert_exits(&e, 0);
    e = end_of(watch_a_child);
    assert_exits(&e, 0);
}

/* ---- readiness ---- */

static void
say_ready_twice(void)
{
    char number[16], got[4];
    int ends[2], more[2];
    EXPECT(pipe(ends) == 0 && pipe(more) == 0);
    (void)snprintf(number, sizeof number, "%d", ends[1]);
    (void)setenv("RINGCAST_READY_FD", number, 1);
    (void)setenv("RINGCAST_PARENT_FD", "12", 1);
    begin("broker", NULL, NULL);
    EXPECT(s.ready_fd == ends[1] && s.parent_fd == 12);
    start_ready(&s);
    start_ready(&s);
    EXPECT(read(ends[0], got, sizeof got) == 1 && got[0] == '\n');
    EXPECT(read(ends[0], got, sizeof got) == 0); /* closed, so it was told once */
}

static void
readiness_is_told_once(void **state)
{
    (void)state;
    struct ending e = end_of(say_ready_twice);
    assert_exits(&e, 0);
}

/* ---- CPUs ---- */

static void
cpus_are_given_in_turn(void **state)
{
    char a[] = "4", b[] = "0", *v[] = {a, b};
    struct conf_list none = {NULL, 0}, two = {v, 2};
    (void)state;
    assert_int_equal(start_cpu(&none, 3), -1);
    assert_int_equal(start_cpu(&two, 0), 4);
    assert_int_equal(start_cpu(&two, 1), 0);
    assert_int_equal(start_cpu(&two, 2), 4);
}

static void
pin_to_one(void)
{
    struct conf_error err;
    cpu_set_t set;
    int cpu = 0;
    EXPECT(sched_getaffinity(0, sizeof set, &set) == 0);
    while (!CPU_ISSET((unsigned)cpu, &set))
        cpu++;
    EXPECT(start_pin(-1, "worker.cpus", &err));
    EXPECT(start_pin(cpu, "worker.cpus", &err));
    EXPECT(sched_getaffinity(0, sizeof set, &set) == 0);
    EXPECT(CPU_COUNT(&set) == 1 && CPU_ISSET((unsigned)cpu, &set));
}

static void
a_cpu_that_is_not_there_is_an_error_with_a_sentence(void **state)
{
    struct conf_error err;
    (void)state;
    struct ending e = end_of(pin_to_one);
    assert_exits(&e, 0);
    assert_false(start_pin(1023, "worker.cpus", &err));
    assert_non_null(strstr(err.text, "worker.cpus: CPU 1023 cannot be used"));
    assert_non_null(strstr(err.text, "write CPUs"));
}

/* ---- SIGHUP ---- */

static char path[] = "/tmp/ringcast-test-XXXXXX";

static void
write_file(const char *text)
{
    FILE *f = fopen(path, "we");
    EXPECT(f != NULL && fputs(text, f) >= 0 && fclose(f) == 0);
}

static void
reload_twice(void)
{
    char flag[64];
    (void)snprintf(flag, sizeof flag, "--config=%s", path);
    write_file("[log]\nlevel = info\n");
    begin("worker", flag, NULL);
    write_file("[log]\nlevel = debug\nrate = 2\n[worker]\ncount = 7\n");
    EXPECT(start_reload(&conf));
    EXPECT(conf.worker_count == 1); /* told to need a restart */
    log_debug("seen", "level=debug");
    for (int i = 0; i < 9; i++)
        log_debug("often", "number=%d", i);
    write_file("[log]\nlevel = loud\nrate = many\nlevle = info\n");
    EXPECT(!start_reload(&conf));
    EXPECT(conf.log_level == LOG_L_DEBUG && conf.log_rate == 2);
    log_debug("still", "level=debug");
}

static void
a_reload_changes_the_log_at_once_and_a_bad_file_says_each_mistake(void **state)
{
    (void)state;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    (void)close(fd);
    struct ending e = end_of(reload_twice);
    (void)unlink(path);
    assert_exits(&e, 0);
    assert_said(&e, "conf-changed setting=log.level value=debug");
    assert_said(&e, "conf-needs-restart setting=worker.count value=7 running=1");
    assert_said(&e, "seen level=debug");
    assert_in_range(times_said(&e, " often "), 2, 4); /* a second may end among them */
    assert_int_equal(times_said(&e, "not-reloaded"), 2); /* log.rate is 2 by then */
    assert_said(&e, ":2");
    assert_said(&e, "log.level is");
    assert_said(&e, "of=3");
    assert_said(&e, "still level=debug");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_process_knows_its_number_and_says_it),
        cmocka_unit_test(what_else_is_on_the_command_line_is_refused),
        cmocka_unit_test(each_mistake_is_a_sentence),
        cmocka_unit_test(signals_come_from_a_descriptor),
        cmocka_unit_test(readiness_is_told_once),
        cmocka_unit_test(cpus_are_given_in_turn),
        cmocka_unit_test(a_cpu_that_is_not_there_is_an_error_with_a_sentence),
        cmocka_unit_test(a_reload_changes_the_log_at_once_and_a_bad_file_says_each_mistake),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
