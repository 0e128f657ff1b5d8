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

/* A request is a number and a path without its zero byte; the answer the number and an errno, 0 with the descriptor
 * beside it. By the number an answer that came too late is told from that to a later request. */
struct head {
    uint32_t number;
    int32_t why; /* in the answer */
};
#define REQUEST_BYTES (sizeof(uint32_t) + PATH_BYTES)

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

static bool
send_request(int parent, uint32_t number, const char *path)
{
    size_t n = strlen(path);
    struct iovec iov[] = {{&number, sizeof number}, {(void *)(uintptr_t)path, n}};
    struct msghdr m = {.msg_iov = iov, .msg_iovlen = ARRAY_LEN(iov)};
    return n < PATH_BYTES && sendmsg(parent, &m, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)(sizeof number + n);
}

/* One answer, to whatever request. False when none comes in time; *fd is -1 where nothing was lent. */
static bool
take_answer(int parent, struct head *answer, int *fd)
{
    struct iovec iov = {answer, sizeof *answer};
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    bool ok = recvmsg(parent, &m, MSG_CMSG_CLOEXEC) == (ssize_t)sizeof *answer;
    *fd = ok ? take_descriptor(&m) : -1;
    return ok;
}

/* -1 with errno, also when the parent has nothing to say. */
static int
ask_parent(int parent, const char *path)
{
    static uint32_t number;
    struct head answer = {0};
    struct timeval patience = {.tv_sec = ANSWER_S};
    int fd = -1;
    (void)setsockopt(parent, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    bool any = send_request(parent, ++number, path);
    while (any && (any = take_answer(parent, &answer, &fd)) && answer.number != number)
        if (fd >= 0)
            (void)close(fd);
    if (!any || fd < 0)
        errno = any && answer.why != 0 ? answer.why : EACCES;
    return any ? fd : -1;
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
answer(int to, int fd, struct head head)
{
    struct iovec iov = {&head, sizeof head};
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
    char request[REQUEST_BYTES];
    const char *path = request + sizeof(uint32_t);
    struct head head = {0};
    ssize_t got = recv(from, request, sizeof request - 1, MSG_DONTWAIT | MSG_TRUNC);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (got <= (ssize_t)sizeof head.number || (size_t)got >= sizeof request)
        return false;
    size_t n = (size_t)got - sizeof head.number;
    if (memchr(path, '\0', n) != NULL)
        return false;
    request[got] = '\0';
    memcpy(&head.number, request, sizeof head.number);
    bool allowed = may(path, arg);
    int fd = allowed ? open_plain(path) : -1;
    head.why = fd >= 0 ? 0 : allowed ? errno : EACCES;
    answer(from, fd, head);
    if (fd >= 0)
        (void)close(fd);
    return true;
}
