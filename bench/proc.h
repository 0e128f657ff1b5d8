/* What /proc tells of other processes: CPU time to the nanosecond, private memory, children. */
#ifndef BENCH_PROC_H
#define BENCH_PROC_H

#include <sys/types.h>

#include "common/base.h"

#define PROC_MAX 256

/* The processes of a server. */
struct proc_set {
    pid_t pid[PROC_MAX];
    uint64_t mark_ns[PROC_MAX], used_ns[PROC_MAX]; /* of each: when a window began, and in all windows */
    uint32_t n;
};

/* What one of them used. */
struct proc_use {
    pid_t pid;
    char name[16];
    uint64_t cpu_ns;        /* in all windows */
    uint64_t private_bytes; /* now; 0: cannot be read */
};

struct proc_mem {
    uint64_t private_bytes; /* Private_Dirty */
    uint64_t pss_bytes;     /* the same plus each one's share of shared pages */
};

/* Adds pid and, unless alone is set, all its descendants. */
void proc_add(struct proc_set *set, pid_t pid, bool alone);
/* The kernel thread ksoftirqd/cpu, 0 if it cannot be seen. It does TCP work of long batches that no
 * process is charged for. */
pid_t proc_ksoftirqd(unsigned cpu);
/* Time on a CPU, user and system, all threads of all processes of the set. */
uint64_t proc_cpu_ns(const struct proc_set *set);
/* Begin and end of a window: the time between is booked to each process. */
void proc_begin(struct proc_set *set);
void proc_end(struct proc_set *set);
/* Fills out[set->n]. */
void proc_uses(const struct proc_set *set, struct proc_use *out);
/* False if one of them cannot be read. */
bool proc_mem(const struct proc_set *set, struct proc_mem *out) MUST_CHECK;
/* The name of a process as the kernel has it, "?" if gone. */
void proc_name(pid_t pid, char *out, size_t out_n);

#endif
