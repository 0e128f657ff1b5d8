/* common/calls: what a worker or broker may not do is refused, named and counted; what nothing of ours does
 * ends it. Each case is a process of its own, for there is no way back. That real processes are limited, and
 * lack nothing, is seen by tests/e2e. */
#include <setjmp.h>
#include <stdarg.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/calls.h"
#include "common/log.h"
#include "common/priv.h"

#include <cmocka.h>

static char said[8192]; /* by the last child, on stderr */

/* fn in a child that is limited; returns its wait status. */
static int
limited(enum calls_who who, int (*fn)(void))
{
    int fds[2], status;
    size_t n = 0;
    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    if (pid == 0) {
        const char *why;
        dup2(fds[1], STDERR_FILENO);
        log_init("test", LOG_L_INFO, 0);
        (void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        struct rlimit core = {0, 0};
        (void)setrlimit(RLIMIT_CORE, &core);
        _exit(calls_limit(who, &why) ? fn() : 99);
    }
    close(fds[1]);
    for (ssize_t got; n < sizeof said - 1 && (got = read(fds[0], said + n, sizeof said - 1 - n)) > 0;)
        n += (size_t)got;
    said[n] = '\0';
    close(fds[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void
assert_ends(enum calls_who who, int (*fn)(void))
{
    int status = limited(who, fn);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static bool
was_refused(long rc)
{
    return rc == -1 && errno == EPERM;
}

static int
make_a_directory(void)
{
    bool ok = calls_mode() == 2 && calls_refused() == 0;
    ok = ok && was_refused(mkdir("/tmp/ringcast-not-made", 0700)) && calls_refused() == 1;
    return ok && was_refused(syscall(SYS_socket, AF_INET, SOCK_STREAM, 0)) && calls_refused() == 2 ? 0 : 1;
}

static void
a_refused_call_is_named_and_counted_and_the_process_goes_on(void **state)
{
    (void)state;
    if (PRIV_INSTRUMENTED)
        skip();
    assert_ends(CALLS_WORKER, make_a_directory);
    assert_non_null(strstr(said, "call-refused call=mkdir number="));
    assert_non_null(strstr(said, "call-refused call=socket number="));
    assert_non_null(strstr(said, "answer=EPERM"));
    assert_int_not_equal(access("/tmp/ringcast-not-made", F_OK), 0);
}

static int
try_arguments(void)
{
    struct rlimit files;
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || getrlimit(RLIMIT_NOFILE, &files) != 0 || open("/dev/null", O_RDONLY | O_CLOEXEC) < 0)
        return 1;
    if (!was_refused(mprotect(p, 4096, PROT_READ | PROT_EXEC)))
        return 2;
    if (mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED)
        return 3;
    if (!was_refused(open("/dev/null", O_WRONLY)) || !was_refused(open("/dev/null", O_RDONLY | O_TRUNC)))
        return 4;
    if (!was_refused(setrlimit(RLIMIT_NOFILE, &files)) || !was_refused(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)))
        return 5;
    if (!was_refused(syscall(SYS_io_uring_register, 0, 11, NULL, 0))) /* IORING_REGISTER_RESTRICTIONS */
        return 6;
    return signal(SIGSYS, SIG_IGN) == SIG_ERR && kill(getppid(), 0) != 0 ? 0 : 7;
}

static void
arguments_are_bounded_too(void **state)
{
    (void)state;
    if (PRIV_INSTRUMENTED)
        skip();
    assert_ends(CALLS_WORKER, try_arguments);
    assert_ends(CALLS_BROKER, try_arguments);
}

static int
attach(void)
{
    struct sockaddr_un nowhere = {.sun_family = AF_UNIX, .sun_path = "/nonexistent"};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0), memory = memfd_create("t", MFD_CLOEXEC);
    if (memory < 0 || fd < 0)
        return was_refused(fd) && was_refused(memory) ? 0 : 2;
    return connect(fd, (struct sockaddr *)&nowhere, sizeof nowhere) == -1 && errno == ENOENT ? 1 : 2;
}

static void
only_workers_attach(void **state)
{
    (void)state;
    if (PRIV_INSTRUMENTED)
        skip();
    assert_int_equal(WEXITSTATUS(limited(CALLS_WORKER, attach)), 1);
    assert_int_equal(WEXITSTATUS(limited(CALLS_BROKER, attach)), 0);
}

/* A broker with a bus makes streams over TCP and UNIX sockets, closed on exec, and nothing else; the ring connects them. */
static int
make_sockets(void)
{
    static const struct {
        int family, type, protocol;
        bool ok;
    } cases[] = {
        {AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0, true},
        {AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0, true},
        {AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, true},
        {AF_INET, SOCK_STREAM, 0, false},
        {AF_INET6, SOCK_STREAM, 0, false},
        {AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, false},
        {AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_SCTP, false},
        {AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0, false},
        {AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0, false},
        {AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP, false},
        {AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, false},
        {AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, false},
        {AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0, false},
        {AF_NETLINK, SOCK_STREAM | SOCK_CLOEXEC, 0, false},
        {AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0, false},
        {AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0, false},
        {AF_ALG, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, false},
    };
    struct sockaddr_un nowhere = {.sun_family = AF_UNIX, .sun_path = "/nonexistent"};
    int fd = -1;
    for (int i = 0; i < (int)ARRAY_LEN(cases); i++) {
        fd = socket(cases[i].family, cases[i].type, cases[i].protocol);
        bool refused = was_refused(fd);
        /* A machine may be without IPv6; it is asked all the same. */
        if (cases[i].ok ? refused : !refused)
            return 10 + i;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (!was_refused(connect(fd, (struct sockaddr *)&nowhere, sizeof nowhere)))
        return 1;
    if (!was_refused(bind(fd, (struct sockaddr *)&nowhere, sizeof nowhere)) || !was_refused(listen(fd, 1)))
        return 2;
    return 0;
}

static int
make_any_socket(void)
{
    static const int families[] = {AF_UNIX, AF_INET, AF_INET6};
    for (int i = 0; i < (int)ARRAY_LEN(families); i++)
        if (!was_refused(socket(families[i], SOCK_STREAM | SOCK_CLOEXEC, 0)))
            return 10 + i;
    return 0;
}

static void
only_a_broker_with_a_bus_makes_streams_and_only_those(void **state)
{
    (void)state;
    if (PRIV_INSTRUMENTED)
        skip();
    assert_ends(CALLS_BROKER | CALLS_BUS, make_sockets);
    assert_ends(CALLS_BROKER, make_any_socket);
}

static int
start_a_shell(void)
{
    return execl("/bin/true", "true", (char *)NULL);
}

static int
make_a_ring(void)
{
    return (int)syscall(SYS_io_uring_setup, 0, NULL);
}

static int
become_root(void)
{
    return setuid(0);
}

static void
what_nothing_of_ours_does_ends_the_process(void **state)
{
    (void)state;
    static const struct {
        int (*fn)(void);
        const char *name;
    } cases[] = {{start_a_shell, "execve"}, {make_a_ring, "io_uring_setup"}, {become_root, "setuid"}};
    if (PRIV_INSTRUMENTED)
        skip();
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char line[64];
        int status = limited(CALLS_WORKER, cases[i].fn);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), SIGKILL);
        snprintf(line, sizeof line, "call-forbidden call=%s number=", cases[i].name);
        assert_non_null(strstr(said, line));
    }
}

static int
break_down(void)
{
    abort();
}

static void
abort_works(void **state)
{
    (void)state;
    if (PRIV_INSTRUMENTED)
        skip();
    int status = limited(CALLS_BROKER, break_down);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
    assert_null(strstr(said, "call-refused"));
}

static pthread_barrier_t barrier;

static void *
other_thread(void *arg)
{
    bool *ok = arg;
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier); /* limited between the two, by the main thread */
    *ok = calls_mode() == 2 && was_refused(mkdir("/tmp/ringcast-not-made", 0700));
    return NULL;
}

static void
threads_that_are_there_are_limited_too(void **state)
{
    (void)state;
    int status;
    if (PRIV_INSTRUMENTED)
        skip();
    pid_t pid = fork();
    if (pid == 0) {
        pthread_t t;
        const char *why;
        bool ok = false;
        log_init("test", LOG_L_ERROR, 1);
        pthread_barrier_init(&barrier, NULL, 2);
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || pthread_create(&t, NULL, other_thread, &ok) != 0)
            _exit(1);
        pthread_barrier_wait(&barrier);
        bool is_limited = calls_limit(CALLS_WORKER, &why);
        pthread_barrier_wait(&barrier);
        pthread_join(t, NULL);
        _exit(ok && is_limited ? 0 : 2);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void
instrumented_builds_say_that_they_are_not_limited(void **state)
{
    (void)state;
    const char *why = NULL;
    if (!PRIV_INSTRUMENTED)
        skip();
    assert_false(calls_limit(CALLS_WORKER, &why));
    assert_non_null(strstr(why, "sanitizers"));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_refused_call_is_named_and_counted_and_the_process_goes_on),
        cmocka_unit_test(arguments_are_bounded_too),
        cmocka_unit_test(only_workers_attach),
        cmocka_unit_test(only_a_broker_with_a_bus_makes_streams_and_only_those),
        cmocka_unit_test(what_nothing_of_ours_does_ends_the_process),
        cmocka_unit_test(abort_works),
        cmocka_unit_test(threads_that_are_there_are_limited_too),
        cmocka_unit_test(instrumented_builds_say_that_they_are_not_limited),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
