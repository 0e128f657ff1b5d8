/* common/file: a file that our user may not read is lent by the parent, if the settings name it. */
#include <setjmp.h>
#include <stdarg.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/file.h"

#include <cmocka.h>

static char dir[] = "/tmp/ringcast-file-XXXXXX";
static char path[64];

static int
setup(void **state)
{
    (void)state;
    if (mkdtemp(dir) == NULL)
        return -1;
    snprintf(path, sizeof path, "%s/key", dir);
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    return fd < 0 || write(fd, "secret", 6) != 6 || close(fd) != 0;
}

static int
teardown(void **state)
{
    (void)state;
    return unlink(path) != 0 || rmdir(dir) != 0;
}

static bool
is_named(const char *wanted, const void *named)
{
    return strcmp(wanted, named) == 0;
}

/* Answers requests until the child is gone; false when it was a nonsense that ended it. */
static bool
serve(int fd, const char *named)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    while (poll(&p, 1, 5000) == 1) {
        char byte;
        if (recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0 && p.revents & POLLHUP)
            return true;
        if (!file_lend(fd, is_named, named))
            return false;
    }
    return false;
}

/* What a process of another user gets: 0 and the file's text, or an errno. */
static int
read_as_nobody(const char *wanted, int parent)
{
    char number[16], text[16] = "";
    snprintf(number, sizeof number, "%d", parent);
    if (setenv(FILE_FD_VARIABLE, number, 1) != 0 || setgid(65534) != 0 || setuid(65534) != 0)
        return 255;
    int fd = file_open(wanted);
    if (fd < 0)
        return errno;
    bool cloexec = (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0 && (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY;
    return cloexec && read(fd, text, sizeof text) == 6 && strcmp(text, "secret") == 0 ? 0 : 254;
}

static void
connect_pair(int fds[2])
{
    if (geteuid() != 0)
        skip();
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds), 0);
}

static int
ask_over(int fds[2], const char *wanted, const char *named)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        close(fds[0]);
        _exit(read_as_nobody(wanted, fds[1]));
    }
    close(fds[1]);
    if (named != NULL)
        assert_true(serve(fds[0], named));
    close(fds[0]); /* a parent that is gone, where nothing is named */
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static int
ask(const char *wanted, const char *named)
{
    int fds[2];
    connect_pair(fds);
    return ask_over(fds, wanted, named);
}

static void
what_the_settings_name_is_lent(void **state)
{
    (void)state;
    assert_int_equal(ask(path, path), 0);
}

static void
what_they_do_not_name_is_not(void **state)
{
    (void)state;
    assert_int_equal(ask(path, "/etc/ringcast.conf"), EACCES);
}

static void
a_directory_or_device_is_not_lent(void **state)
{
    (void)state;
    char inside[96];
    snprintf(inside, sizeof inside, "%s/.", dir);
    assert_int_equal(ask(inside, inside), EACCES);
}

static void
a_parent_that_is_gone_is_no_access(void **state)
{
    (void)state;
    assert_int_equal(ask(path, NULL), EACCES);
}

/* The child asked for another file, gave up waiting, and the answer came after all. */
static void
an_answer_that_came_too_late_is_not_taken_for_another_file(void **state)
{
    (void)state;
    int fds[2];
    connect_pair(fds);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(send(fds[1], "\0\0\0\0/etc/passwd", 15, 0), 15);
        assert_true(file_lend(fds[0], is_named, i == 1 ? "/nothing" : "/etc/passwd"));
    }
    assert_int_equal(ask_over(fds, path, path), 0);
}

static void
what_may_be_read_is_read_without_asking(void **state)
{
    (void)state;
    setenv(FILE_FD_VARIABLE, "999", 1);
    int fd = file_open("/dev/null");
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(file_open("/nonexistent/file"), -1);
    assert_int_equal(errno, ENOENT);
    unsetenv(FILE_FD_VARIABLE);
}

static void
nonsense_ends_the_conversation(void **state)
{
    (void)state;
    static char longer[8192];
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds), 0);
    assert_true(file_lend(fds[0], is_named, path)); /* nothing there: nothing happens */
    assert_int_equal(send(fds[1], "1234/a\0b", 8, 0), 8);
    assert_false(file_lend(fds[0], is_named, path));
    assert_int_equal(send(fds[1], "1234", 4, 0), 4);
    assert_false(file_lend(fds[0], is_named, path));
    memset(longer, '/', sizeof longer);
    assert_int_equal(send(fds[1], longer, sizeof longer, 0), sizeof longer);
    assert_false(file_lend(fds[0], is_named, path));
    close(fds[1]);
    assert_false(file_lend(fds[0], is_named, path));
    close(fds[0]);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_settings_name_is_lent),
        cmocka_unit_test(what_they_do_not_name_is_not),
        cmocka_unit_test(a_directory_or_device_is_not_lent),
        cmocka_unit_test(a_parent_that_is_gone_is_no_access),
        cmocka_unit_test(an_answer_that_came_too_late_is_not_taken_for_another_file),
        cmocka_unit_test(what_may_be_read_is_read_without_asking),
        cmocka_unit_test(nonsense_ends_the_conversation),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
