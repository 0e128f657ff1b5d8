/* Counters in shared memory. Each ring thread and each broker owns one page: a small file in
 * run.dir/stat, mode 0600, mapped by its owner and by `ringcast status`, so it can be read while
 * the process is stuck or dead. A page describes itself (names and kinds stand in it), so a reader
 * needs no matching version. One writer per page: its thread. */
#ifndef COMMON_METRIC_H
#define COMMON_METRIC_H

#include "common/base.h"
#include "common/mono.h"

enum metric_kind { METRIC_COUNTER, METRIC_GAUGE };

struct metric_row {
    const char *name; /* [a-z0-9_], at most 47 bytes */
    const char *unit; /* "messages", "bytes", "" */
    const char *sentence;
    enum metric_kind kind;
};

/* First in the file; all offsets are from its start. Readers check magic, version and sizes. */
#define METRIC_MAGIC 0x3152544d54534352ull /* "RCSTMTR1" */
struct metric_header {
    uint64_t magic;
    uint32_t version; /* 1 */
    uint32_t row_count;
    uint32_t rows_at;   /* row_count of struct metric_named */
    uint32_t values_at; /* row_count of uint64_t, cache-line aligned */
    int32_t pid;
    uint32_t index; /* process number: worker 0, 1 ..., broker 0, 1 ... */
    int32_t ring;   /* ring number within the worker; -1 for brokers and the parent */
    uint32_t pad;
    uint64_t started_ns;           /* monotonic */
    uint64_t wall_s;               /* seconds since 1970 at the start */
    _Atomic uint64_t heartbeat_ns; /* w: owner, once per turn, monotonic */
    char process[16];              /* "worker", "broker", "run" */
    char release[16];              /* RINGCAST_VERSION */
};
struct metric_named {
    char name[48];
    uint32_t kind;
    uint32_t pad;
};

struct metric_page {
    struct metric_header *header;
    uint64_t *values; /* index as the rows were given */
    size_t map_bytes;
    char *path; /* of the file; NULL when the page is private memory */
};

/* Makes (replacing what a predecessor left) run_dir/stat/<process>-<index>[.<ring>] and maps it. On
 * failure the page lives in private memory, so that counting never needs a check, and a line is
 * logged. */
struct metric_page metric_page_new(const char *run_dir, const char *process, uint32_t index,
    int32_t ring, const struct metric_row *rows, uint32_t row_count);
/* Unmaps; removes the file when `remove`. */
void metric_page_free(struct metric_page *p, bool remove);

/* Single writer, many readers: plain arithmetic, relaxed store. */
static inline void
metric_add(uint64_t *values, uint32_t row, uint64_t n)
{
    __atomic_store_n(&values[row], values[row] + n, __ATOMIC_RELAXED);
}

static inline void
metric_set(uint64_t *values, uint32_t row, uint64_t v)
{
    __atomic_store_n(&values[row], v, __ATOMIC_RELAXED);
}

static inline void
metric_beat(struct metric_page *p, struct mono now)
{
    __atomic_store_n((uint64_t *)&p->header->heartbeat_ns, now.ns, __ATOMIC_RELAXED);
}

/* Read-only view of every page in run_dir/stat, for status. Calls fn for each page that is
 * well-formed; returns how many files were not. */
unsigned metric_each_page(const char *run_dir,
    void (*fn)(const struct metric_header *h, const struct metric_named *rows,
        const uint64_t *values, void *arg),
    void *arg);

#endif
