/* Loaded in front of the C library and liburing (LD_PRELOAD) into worker processes: makes chosen operations of
 * the ring fail in the kernel, sends be short, and allocations fail. What is to fail stands in a file that the
 * test writes to; what was seen is counted there. Built by tests/attack/faults.py. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { HOW_FAIL, HOW_SHORT };

struct plan {
    uint32_t op;           /* IORING_OP_..., 255: none */
    uint32_t how;
    uint32_t nth;          /* of them since the plan was made; 0: each */
    uint32_t seen, hit;
    uint32_t alloc_nth;    /* each so many-th allocation fails; 0: none */
    uint32_t allocs, alloc_hit;
};

static struct plan *plan;

__attribute__((constructor)) static void
begin(void)
{
    const char *path = getenv("FAULTS_PLAN");
    if (path == NULL || strcmp(program_invocation_short_name, "ringcast-worker") != 0)
        return;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    void *p = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *plan, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd >= 0)
        close(fd);
    if (p != MAP_FAILED)
        plan = p;
}

static uint32_t
next(uint32_t *counter)
{
    return __atomic_add_fetch(counter, 1, __ATOMIC_RELAXED);
}

static void
spoil(struct io_uring_sqe *sqe)
{
    if (sqe->opcode != plan->op)
        return;
    uint32_t n = next(&plan->seen);
    if (plan->nth != 0 && n != plan->nth)
        return;
    (void)next(&plan->hit);
    if (plan->how == HOW_FAIL) {
        if (sqe->opcode == IORING_OP_ASYNC_CANCEL)
            sqe->addr = 1; /* nobody's: -ENOENT */
        else
            sqe->fd = -1;  /* -EBADF */
    } else if (sqe->opcode == IORING_OP_SENDMSG) {
        struct msghdr *m = (struct msghdr *)(uintptr_t)sqe->addr;
        m->msg_iovlen = 1;
        if (m->msg_iov[0].iov_len > 1)
            m->msg_iov[0].iov_len = 1;
    } else if (sqe->len > 1) {
        sqe->len = 1;
    }
}

/* What is queued and was not submitted yet. */
static void
look(struct io_uring *ring)
{
    if (plan == NULL || plan->op == 255)
        return;
    for (unsigned i = ring->sq.sqe_head; i != ring->sq.sqe_tail; i++)
        spoil(&ring->sq.sqes[i & *ring->sq.kring_mask]);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int
io_uring_submit(struct io_uring *ring)
{
    look(ring);
    return REAL(io_uring_submit)(ring);
}

int
io_uring_submit_and_get_events(struct io_uring *ring)
{
    look(ring);
    return REAL(io_uring_submit_and_get_events)(ring);
}

int
io_uring_submit_and_wait_timeout(struct io_uring *ring, struct io_uring_cqe **cqe, unsigned wait_nr,
    struct __kernel_timespec *ts, sigset_t *mask)
{
    static int (*real)(struct io_uring *, struct io_uring_cqe **, unsigned, struct __kernel_timespec *, sigset_t *);
    if (real == NULL)
        real = REAL(io_uring_submit_and_wait_timeout);
    look(ring);
    return real(ring, cqe, wait_nr, ts, mask);
}

/* ---- allocations: glibc's own are behind these names ---- */

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t each);
extern void *__libc_realloc(void *p, size_t n);

static int
runs_out(void)
{
    if (plan == NULL || plan->alloc_nth == 0 || next(&plan->allocs) % plan->alloc_nth != 0)
        return 0;
    (void)next(&plan->alloc_hit);
    errno = ENOMEM;
    return 1;
}

void *
malloc(size_t n)
{
    return runs_out() ? NULL : __libc_malloc(n);
}

void *
calloc(size_t n, size_t each)
{
    return runs_out() ? NULL : __libc_calloc(n, each);
}

void *
realloc(void *p, size_t n)
{
    return runs_out() ? NULL : __libc_realloc(p, n);
}
