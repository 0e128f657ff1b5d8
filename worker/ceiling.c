#include "worker/ceiling.h"

#include <fcntl.h>
#include <malloc.h>
#include <stdlib.h>
#include <unistd.h>

#include "worker/conn.h"
#include "worker/metrics.h"

#define LOOK_MS 100
/* Giving free memory back takes milliseconds when there is much of it. */
#define TRIM_MS 1000

bool
ceiling_init(struct worker *w)
{
    /* Kept open: later there may be no descriptor left, or no right to open files. */
    w->ceiling_fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    return true; /* without it there is no limit, which is better than no server */
}

void
ceiling_fini(struct worker *w)
{
    if (w->ceiling_fd >= 0)
        close(w->ceiling_fd);
    w->ceiling_fd = -1;
}

/* Resident bytes that are nobody else's: proc(5), statm. 0 if that cannot be told. */
static uint64_t
memory_now(const struct worker *w)
{
    char text[128];
    ssize_t n = w->ceiling_fd < 0 ? -1 : pread(w->ceiling_fd, text, sizeof text - 1, 0);
    if (n <= 0)
        return 0;
    text[n] = '\0';
    char *at = text;
    (void)strtoull(at, &at, 10);
    uint64_t resident = strtoull(at, &at, 10), shared = strtoull(at, &at, 10);
    return resident > shared ? (resident - shared) * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

static void
relieve(struct worker *w, uint64_t bytes, uint64_t limit)
{
    if ((int32_t)(w->tick - w->trim_at) >= 0) {
        w->trim_at = w->tick + wheel_ticks(TRIM_MS);
        malloc_trim(0);
    }
    if (bytes > limit + limit / 16 && w->unshaken.first != POOL_NONE)
        conn_close(w, conn_at(w, w->unshaken.first), CLOSE_MEMORY_LIMIT);
    if (bytes > limit + limit / 8)
        worker_end_largest(w);
}

void
ceiling_look(struct worker *w)
{
    if ((int32_t)(w->tick - w->ceiling_at) < 0)
        return;
    w->ceiling_at = w->tick + wheel_ticks(LOOK_MS);
    uint64_t bytes = memory_now(w), limit = w->conf->mem_limit;
    if (w->ring_idx == 0)
        GAUGE(w, memory_bytes, bytes);
    bool reached = limit > 0 && bytes > limit;
    if (reached != w->ceiling_reached)
        log_warn(reached ? "memory-limit" : "memory-limit-over", "bytes=%llu limit=%llu setting=mem.limit",
            (unsigned long long)bytes, (unsigned long long)limit);
    w->ceiling_reached = reached;
    if (reached)
        relieve(w, bytes, limit);
}
