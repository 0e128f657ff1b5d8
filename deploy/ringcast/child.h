/* One process that `ringcast run` looks after: started, told apart ready from not, and started
 * again when it dies, at first at once, then with growing pauses. */
#ifndef DEPLOY_RINGCAST_CHILD_H
#define DEPLOY_RINGCAST_CHILD_H

#include <sys/types.h>

#include "common/base.h"
#include "common/conf.h"
#include "common/mono.h"

/* Longest pause is run.backoff_max; a process that was well for this long begins anew. */
#define CHILD_QUIET_MS 60000

/* What a child is given. Descriptors must lie at or above 3 + listen_count + 4 (see binds.floor).
 */
struct child_order {
    const char *program; /* path */
    char **argv;
    const int *listen_fds;
    const char *listen_names; /* "ring0:ring0:ring1" */
    unsigned listen_count;
    int parent_fd; /* read end of a pipe: its end says drain and leave */
    int hold_fd;   /* kept open by the child, unknown to it, as long as it lives; -1: none */
    int floor;
};

struct child {
    char name[24]; /* "worker.0" */
    bool is_worker;
    unsigned index;
    pid_t pid;    /* 0: not running */
    int ready_fd; /* read end; -1 when it has spoken */
    int files_fd; /* on which it asks for files; -1: not running */
    bool ready;
    bool ended_for_good;
    unsigned failures; /* deaths in a row */
    struct mono started;
    struct mono next_start; /* when pid is 0 */
};

/* Forks and executes; false (with errno) when that failed. */
bool child_start(struct child *c, const struct child_order *o) MUST_CHECK;
/* Something can be read from ready_fd, or it hung up. True when the child just became ready. */
bool child_on_ready(struct child *c);
/* It asks for a file of the settings. */
void child_on_files(struct child *c, const struct conf *conf);
/* It was reaped: works out when to start it again. Returns the pause in milliseconds. */
uint64_t child_on_death(struct child *c, struct mono now, uint64_t backoff_max_ms);
/* "signal 9 (Killed)" or "status 1" of a wait status. */
void child_describe_death(int status, char *out, size_t out_n);

#endif
