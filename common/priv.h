/* What a process may do, and giving it up. A worker or broker that is started as root opens what needs
 * root (listeners, rings, counter pages, keys), then becomes its own user for good; any of them, whoever
 * started it, ends with no capabilities, no way to new privileges, and no core dump to leave keys in.
 * Called by the main functions of both, at start-up only. System calls are narrowed by common/calls. */
#ifndef COMMON_PRIV_H
#define COMMON_PRIV_H

#include <sys/types.h>

#include "common/conf.h"

/* Sanitizers read their own memory with ptrace at the end and make calls of their own at any time; coverage
 * writes files where it was built. Builds with them keep core dumps, and system calls are not limited. */
#ifdef RINGCAST_INSTRUMENTED
#define PRIV_INSTRUMENTED 1
#else
#define PRIV_INSTRUMENTED 0
#endif

/* Who to become. */
struct priv_user {
    bool change; /* false: stays who it is */
    uid_t uid;   /* also when it stays */
    gid_t gid;
    char name[64]; /* of the user database, for its groups; empty for a bare number */
};

/* What the kernel says is in force. */
struct priv_state {
    uint64_t user_id;
    uint64_t capabilities;  /* in the effective, permitted, inheritable and ambient sets together */
    uint64_t no_new_privs;  /* 1: set */
    uint64_t core_dumps;    /* 1: may be dumped */
};

/* The user that `setting` ("worker.user" or "broker.user") means for a process that runs as root: a name,
 * UID, or UID:GID; empty: the user `own` if there is one, else nobody. For a process of another user empty
 * means itself, and so must anything else. The user of the other kind of process is looked up with
 * `other`: then only its numbers are wanted, and nothing is refused for want of rights. */
bool priv_user_find(struct priv_user *u, const struct conf *c, const char *setting, bool other,
    struct conf_error *err) MUST_CHECK;

/* No privileges are gained by programs that are started from here; for who keeps his own, `ringcast run`. */
void priv_no_new(void);
/* Before threads are made, for they inherit it: no new privileges through programs that are started, and the
 * bounding set emptied where that is allowed. */
void priv_begin(void);
/* Becomes the user, in all threads, and makes sure there is no way back; then core dumps: off unless the
 * settings (run.core_dumps) or sanitizers want them. Nobody else may trace the process then, either. */
bool priv_drop(const struct priv_user *u, const struct conf *c, struct conf_error *err) MUST_CHECK;
/* For the calling thread: no capabilities, of whatever set. Another thread's are its own, so each thread does it
 * when it needs them no more; becoming another user than root does the same for all. */
void priv_drop_capabilities(void);
/* Of the calling thread. */
struct priv_state priv_look(void);

/* A broker's socket can be reached by workers of another user: the socket belongs to their group (0660), and
 * run.dir may be walked, not read, by others. */
bool priv_share_socket(const char *run_dir, const char *path, const struct priv_user *own,
    const struct priv_user *peer, struct conf_error *err) MUST_CHECK;

#endif
