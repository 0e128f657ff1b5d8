#include "common/ring.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "common/bug.h"

static const struct {
    unsigned flag;
    const char *name;
} setup_names[] = {
    {IORING_SETUP_SINGLE_ISSUER, "SINGLE_ISSUER"},
    {IORING_SETUP_DEFER_TASKRUN, "DEFER_TASKRUN"},
    {IORING_SETUP_COOP_TASKRUN, "COOP_TASKRUN"},
    {IORING_SETUP_SUBMIT_ALL, "SUBMIT_ALL"},
};

/* From the best down. DEFER_TASKRUN is worth 11 to 25 % of the receive path; a kernel that refuses a
 * set gets the next. */
static const unsigned setup_tries[] = {
    IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL,
    IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL,
    0,
};

#define RESTRICTIONS_MAX 64
/* Buffers are used one after the other, so all are soon touched: better before there are clients to wait for it. */
#define POPULATE_MAX (16u << 20)

static void
ring_probe(struct ring *r)
{
    struct io_uring_probe *probe = io_uring_get_probe_ring(&r->u);
    if (probe == NULL)
        return;
    for (unsigned op = 0; op < sizeof r->can; op++)
        r->can[op] = (unsigned char)(io_uring_opcode_supported(probe, (int)op) != 0);
    io_uring_free_probe(probe);
}

static int
ring_open(struct ring *r, unsigned sq_entries, unsigned cq_entries, unsigned more_flags)
{
    int rc = -EINVAL;
    memset(r, 0, sizeof *r);
    for (size_t i = 0; i < ARRAY_LEN(setup_tries); i++) {
        struct io_uring_params p = {
            .flags = setup_tries[i] | more_flags | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
            .cq_entries = cq_entries,
        };
        rc = io_uring_queue_init_params(sq_entries, &r->u, &p);
        if (rc == 0) {
            r->setup_flags = setup_tries[i];
            ring_probe(r);
            return 0;
        }
        if (rc != -EINVAL)
            break;
    }
    return rc;
}

int
ring_init(struct ring *r, unsigned sq_entries, unsigned cq_entries)
{
    return ring_open(r, sq_entries, cq_entries, 0);
}

int
ring_prepare(struct ring *r, unsigned sq_entries, unsigned cq_entries)
{
    return ring_open(r, sq_entries, cq_entries, IORING_SETUP_R_DISABLED);
}

int
ring_start(struct ring *r, const unsigned char *ops, unsigned count)
{
    struct io_uring_restriction all[RESTRICTIONS_MAX];
    unsigned n = 0;
    BUG_ON(count + 3 > RESTRICTIONS_MAX);
    memset(all, 0, sizeof all);
    /* The kernel then finds the ring without looking up a descriptor for each call; known to this thread alone. */
    (void)io_uring_register_ring_fd(&r->u);
    all[n].opcode = IORING_RESTRICTION_REGISTER_OP;
    all[n++].register_op = IORING_UNREGISTER_RING_FDS;
    all[n].opcode = IORING_RESTRICTION_REGISTER_OP;
    all[n++].register_op = IORING_UNREGISTER_PBUF_RING;
    all[n].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
    all[n++].sqe_flags = IOSQE_BUFFER_SELECT;
    for (unsigned i = 0; i < count; i++) {
        all[n].opcode = IORING_RESTRICTION_SQE_OP;
        all[n++].sqe_op = ops[i];
    }
    /* liburing 2.3 has functions for both and does not export them. */
    r->restricted = io_uring_register((unsigned)r->u.ring_fd, IORING_REGISTER_RESTRICTIONS, all, n) == 0;
    return io_uring_register((unsigned)r->u.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
}

const char *
ring_setup_hint(int err)
{
    switch (err < 0 ? -err : err) {
    case EPERM:
        return "io_uring is forbidden here: set sysctl kernel.io_uring_disabled=0, or allow the io_uring "
               "system calls in the container's seccomp profile";
    case ENOSYS: return "this kernel has no io_uring: Linux 6.1 or newer is needed";
    case ENOMEM:
        return "no memory for an io_uring ring: raise the locked-memory limit (ulimit -l, LimitMEMLOCK=)";
    case EMFILE:
    case ENFILE: return "out of file descriptors: raise the limit (ulimit -n, LimitNOFILE=)";
    default: return "io_uring could not be set up: Linux 6.1 or newer is needed";
    }
}

void
ring_fini(struct ring *r)
{
    io_uring_queue_exit(&r->u);
}

const char *
ring_describe(const struct ring *r)
{
    static __thread char text[256];
    int n = snprintf(text, sizeof text, "flags=");
    for (size_t i = 0; i < ARRAY_LEN(setup_names); i++)
        if (r->setup_flags & setup_names[i].flag)
            n += snprintf(text + n, sizeof text - (size_t)n, "%s%s", text[n - 1] == '=' ? "" : ",",
                setup_names[i].name);
    snprintf(text + n, sizeof text - (size_t)n, " restricted=%s send_zc=%s sq=%u cq=%u",
        r->restricted ? "yes" : "no", r->can[IORING_OP_SEND_ZC] ? "yes" : "no", r->u.sq.ring_entries, r->u.cq.ring_entries);
    return text;
}

struct io_uring_sqe *
ring_sqe_slow(struct ring *r)
{
    /* Submitting always frees entries: without SQPOLL the kernel takes them during the call. EBUSY or
     * EAGAIN mean that it wants completions collected first; a call with GETEVENTS lets it. */
    for (int tries = 0;; tries++) {
        ring_submit(r);
        struct io_uring_sqe *sqe = io_uring_get_sqe(&r->u);
        if (sqe != NULL)
            return sqe;
        BUG_ON(tries > 1000);
        ring_wait(r, 0);
    }
}

void
ring_submit(struct ring *r)
{
    r->enters++;
    (void)io_uring_submit(&r->u);
}

void
ring_wait(struct ring *r, uint64_t timeout_ns)
{
    r->enters++;
    if (timeout_ns == 0) {
        (void)io_uring_submit_and_get_events(&r->u);
        return;
    }
    struct __kernel_timespec ts = {
        .tv_sec = (long long)(timeout_ns / 1000000000u),
        .tv_nsec = (long long)(timeout_ns % 1000000000u),
    };
    struct io_uring_cqe *cqe;
    /* ETIME, EINTR, EAGAIN, EBUSY: the turn looks at what is there all the same. */
    (void)io_uring_submit_and_wait_timeout(&r->u, &cqe, 1, &ts, NULL);
}

int
ring_bufs_init(struct ring *r, struct ring_bufs *b, uint16_t group, uint32_t count, uint32_t bytes)
{
    BUG_ON(!is_pow2(count) || count > 32768);
    memset(b, 0, sizeof *b);
    size_t ring_bytes = count * sizeof(struct io_uring_buf);
    size_t all = ring_bytes + (size_t)count * bytes;
    void *mem = mmap(NULL, all, PROT_READ | PROT_WRITE,
        MAP_PRIVATE | MAP_ANONYMOUS | (all <= POPULATE_MAX ? MAP_POPULATE : 0), -1, 0);
    if (mem == MAP_FAILED)
        return -errno;
    struct io_uring_buf_reg reg = {
        .ring_addr = (uint64_t)(uintptr_t)mem,
        .ring_entries = count,
        .bgid = group,
    };
    int rc = io_uring_register_buf_ring(&r->u, &reg, 0);
    if (rc < 0) {
        munmap(mem, all);
        return rc;
    }
    *b = (struct ring_bufs){
        .br = mem,
        .mem = (uint8_t *)mem + ring_bytes,
        .count = count,
        .bytes = bytes,
        .group = group,
    };
    io_uring_buf_ring_init(b->br);
    for (uint32_t id = 0; id < count; id++)
        ring_buf_back(b, id << IORING_CQE_BUFFER_SHIFT);
    ring_bufs_publish(b);
    return 0;
}

void
ring_bufs_fini(struct ring *r, struct ring_bufs *b)
{
    if (b->br == NULL)
        return;
    io_uring_unregister_buf_ring(&r->u, b->group);
    munmap(b->br, b->count * sizeof(struct io_uring_buf) + (size_t)b->count * b->bytes);
    b->br = NULL;
}
