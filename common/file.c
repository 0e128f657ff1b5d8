#include "common/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "common/banned.h"

#define PATH_BYTES 4096
#define ANSWER_S 2

/* A request is a path without its zero byte; the answer an errno, 0 with the descriptor beside it. */

/* ---- the child ---- */

static int
parent_fd(void)
{
    const char *text = getenv(FILE_FD_VARIABLE);
    return text != NULL && *text != '\0' ? (int)strtol(text, NULL, 10) : -1;
}

static int
take_descriptor(struct msghdr *m)
{
    int fd = -1;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c != NULL; c = CMSG_NXTHDR(m, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
            memcpy(&fd, CMSG_DATA(c), sizeof fd); /* room for one is all that was offered */
    return fd;
}

/* -1 with errno, also when the parent has nothing to say. */
static int
ask_parent(int parent, const char *path)
{
    int answer = EACCES;
    struct iovec iov = {&answer, sizeof answer};
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct timeval patience = {.tv_sec = ANSWER_S};
    size_t n = strlen(path);
    int fd = -1;
    (void)setsockopt(parent, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (n < PATH_BYTES && send(parent, path, n, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)n &&
        recvmsg(parent, &m, MSG_CMSG_CLOEXEC) == (ssize_t)sizeof answer)
        fd = take_descriptor(&m);
    else
        answer = EACCES;
    if (fd < 0)
        errno = answer != 0 ? answer : EACCES;
    return fd;
}

int
file_open(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    int parent = fd < 0 && errno == EACCES ? parent_fd() : -1;
    return parent >= 0 ? ask_parent(parent, path) : fd;
}

/* ---- the parent ---- */

/* A plain file, or nothing: a pipe could make us wait. */
static int
open_plain(const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0 || (fstat(fd, &st) == 0 && S_ISREG(st.st_mode)))
        return fd;
    (void)close(fd);
    errno = EACCES;
    return -1;
}

static void
answer(int to, int fd, int why)
{
    struct iovec iov = {&why, sizeof why};
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fd >= 0) {
        m.msg_control = &control;
        m.msg_controllen = sizeof control.bytes;
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    (void)!sendmsg(to, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
}

bool
file_lend(int from, bool (*may)(const char *path, const void *arg), const void *arg)
{
    char path[PATH_BYTES];
    ssize_t n = recv(from, path, sizeof path - 1, MSG_DONTWAIT | MSG_TRUNC);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (n <= 0 || (size_t)n >= sizeof path || memchr(path, '\0', (size_t)n) != NULL)
        return false;
    path[n] = '\0';
    bool allowed = may(path, arg);
    int fd = allowed ? open_plain(path) : -1;
    int why = fd >= 0 ? 0 : allowed ? errno : EACCES;
    answer(from, fd, why);
    if (fd >= 0)
        (void)close(fd);
    return true;
}
