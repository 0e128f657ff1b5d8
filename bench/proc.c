/* What /proc tells of other processes; see proc.h. */
#include "bench/proc.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/bug.h"

static bool
proc_has(const struct proc_set *set, pid_t pid)
{
    for (uint32_t i = 0; i < set->n; i++)
        if (set->pid[i] == pid)
            return true;
    return false;
}

static void
put(struct proc_set *set, pid_t pid)
{
    if (proc_has(set, pid))
        return;
    if (set->n == PROC_MAX)
        die("more than %d processes to watch", PROC_MAX);
    set->pid[set->n++] = pid;
}

/* Parent of pid: the fourth field of stat, after the name in brackets (which may hold anything). */
static pid_t
parent_of(pid_t pid)
{
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return 0;
    size_t n = fread(line, 1, sizeof line - 1, f);
    fclose(f);
    line[n] = 0;
    char *end = strrchr(line, ')');
    if (end == NULL || strlen(end) < 5)
        return 0;
    return (pid_t)strtol(end + 4, NULL, 10);
}

/* One pass over all processes: takes in children of those that are in. True if there were any. */
static bool
add_children(struct proc_set *set)
{
    DIR *d = opendir("/proc");
    uint32_t before = set->n;
    if (d == NULL)
        return false;
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        pid_t pid = (pid_t)strtol(e->d_name, NULL, 10);
        if (pid > 0 && !proc_has(set, pid) && proc_has(set, parent_of(pid)))
            put(set, pid);
    }
    closedir(d);
    return set->n != before;
}

void
proc_add(struct proc_set *set, pid_t pid, bool alone)
{
    put(set, pid);
    while (!alone && add_children(set)) {
    }
}

void
proc_name(pid_t pid, char *out, size_t out_n)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/comm", (int)pid);
    snprintf(out, out_n, "?");
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return;
    if (fgets(out, (int)out_n, f) != NULL)
        out[strcspn(out, "\n")] = 0;
    fclose(f);
}

pid_t
proc_ksoftirqd(unsigned cpu)
{
    char want[32], name[32];
    pid_t found = 0;
    snprintf(want, sizeof want, "ksoftirqd/%u", cpu);
    DIR *d = opendir("/proc");
    if (d == NULL)
        return 0;
    for (struct dirent *e; found == 0 && (e = readdir(d)) != NULL;) {
        pid_t pid = (pid_t)strtol(e->d_name, NULL, 10);
        if (pid <= 0)
            continue;
        proc_name(pid, name, sizeof name);
        if (strcmp(name, want) == 0)
            found = pid;
    }
    closedir(d);
    return found;
}

/* First field of schedstat: nanoseconds on a CPU. */
static uint64_t
task_ns(pid_t pid, const char *tid)
{
    char path[320];
    unsigned long long ns = 0;
    snprintf(path, sizeof path, "/proc/%d/task/%s/schedstat", (int)pid, tid);
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return 0;
    if (fscanf(f, "%llu", &ns) != 1)
        ns = 0;
    fclose(f);
    return ns;
}

/* Of all its threads; 0 if it is gone. */
static uint64_t
pid_ns(pid_t pid)
{
    char path[64];
    uint64_t sum = 0;
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *d = opendir(path);
    if (d == NULL)
        return 0;
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (e->d_name[0] != '.')
            sum += task_ns(pid, e->d_name);
    closedir(d);
    return sum;
}

uint64_t
proc_cpu_ns(const struct proc_set *set)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < set->n; i++)
        sum += pid_ns(set->pid[i]);
    return sum;
}

void
proc_begin(struct proc_set *set)
{
    for (uint32_t i = 0; i < set->n; i++)
        set->mark_ns[i] = pid_ns(set->pid[i]);
}

void
proc_end(struct proc_set *set)
{
    for (uint32_t i = 0; i < set->n; i++) {
        uint64_t now = pid_ns(set->pid[i]);
        set->used_ns[i] += now > set->mark_ns[i] ? now - set->mark_ns[i] : 0;
    }
}

static bool
add_mem(pid_t pid, struct proc_mem *out)
{
    char path[64], line[256];
    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)pid);
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return false;
    while (fgets(line, sizeof line, f) != NULL) {
        char *colon = strchr(line, ':');
        if (colon == NULL)
            continue;
        uint64_t kib = strtoull(colon + 1, NULL, 10);
        *colon = 0;
        /* Clean pages of a file are private or shared as others come and go who map it too. */
        if (strcmp(line, "Private_Dirty") == 0)
            out->private_bytes += kib * 1024;
        else if (strcmp(line, "Pss") == 0)
            out->pss_bytes += kib * 1024;
    }
    fclose(f);
    return true;
}

void
proc_uses(const struct proc_set *set, struct proc_use *out)
{
    for (uint32_t i = 0; i < set->n; i++) {
        struct proc_mem m = {0};
        out[i] = (struct proc_use){.pid = set->pid[i], .cpu_ns = set->used_ns[i]};
        proc_name(set->pid[i], out[i].name, sizeof out[i].name);
        for (char *p = out[i].name; *p != 0; p++) /* it goes into JSON as it is */
            if (*p < ' ' || *p == '"' || *p == '\\')
                *p = '?';
        if (add_mem(set->pid[i], &m))
            out[i].private_bytes = m.private_bytes;
    }
}

bool
proc_mem(const struct proc_set *set, struct proc_mem *out)
{
    memset(out, 0, sizeof *out);
    for (uint32_t i = 0; i < set->n; i++)
        if (!add_mem(set->pid[i], out))
            return false;
    return true;
}
