/* run.dir: the private directory of sockets and counter pages, and who may use it. */
#ifndef DEPLOY_RINGCAST_RUNDIR_H
#define DEPLOY_RINGCAST_RUNDIR_H

#include "common/conf.h"

struct rundir {
    const char *path; /* the setting's */
    bool made;        /* by us, so it goes when we go */
    int lock_fd;      /* held as long as we live; -1: not ours */
    uint64_t brokers; /* whose sockets go, too: as another user they can't remove them themselves */
};

/* Makes it when missing (0700), checks that nobody else may write there, takes the lock (one
 * `ringcast run` per directory) and removes counter pages of processes that are gone. */
bool rundir_open(struct rundir *d, const struct conf *c, struct conf_error *err) MUST_CHECK;
/* Leaves a line in the file `listen`: where this server can be reached, for publish and subscribe.
 */
void rundir_write_listen(const struct rundir *d, const char *text);
/* That line, from whoever runs there; false if there is none. A directory that nobody named counts only if it is our
 * own or root's: others may have made one of its name first. */
bool rundir_read_listen(const char *path, bool named, char *out, size_t out_n);
/* Has the `ringcast run` of a directory read its settings and certificates again (SIGHUP); its log says what came of it. */
bool rundir_reload(const char *path, struct conf_error *err) MUST_CHECK;
/* Removes what we made. */
void rundir_close(struct rundir *d);

#endif
