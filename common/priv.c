#include "common/priv.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/log.h"

#include "common/banned.h"

#define NOBODY 65534 /* user and group without rights, where the user database does not name them */

/* ---- who ---- */

/* UID or UID:GID; without a group its number is the user's. */
static bool
take_numbers(struct priv_user *u, const char *text)
{
    char *end;
    errno = 0;
    unsigned long uid = strtoul(text, &end, 10), gid = uid;
    if (*text < '0' || *text > '9' || errno != 0)
        return false;
    if (*end == ':' && end[1] >= '0' && end[1] <= '9')
        gid = strtoul(end + 1, &end, 10);
    if (*end != '\0' || uid >= UINT32_MAX || gid >= UINT32_MAX)
        return false;
    u->uid = (uid_t)uid;
    u->gid = (gid_t)gid;
    return true;
}

static bool
take_name(struct priv_user *u, const char *name)
{
    const struct passwd *pw = getpwnam(name);
    if (pw == NULL)
        return false;
    u->uid = pw->pw_uid;
    u->gid = pw->pw_gid;
    (void)snprintf(u->name, sizeof u->name, "%s", pw->pw_name);
    return true;
}

/* What root becomes when nothing is said. */
static void
take_default(struct priv_user *u, const char *setting)
{
    char own[64];
    (void)snprintf(own, sizeof own, "ringcast-%.*s", (int)strcspn(setting, "."), setting);
    if (!take_name(u, own) && !take_name(u, "nobody"))
        u->uid = u->gid = NOBODY;
}

bool
priv_user_find(struct priv_user *u, const struct conf *c, const char *setting, bool other,
    struct conf_error *err)
{
    const char *text = strcmp(setting, "worker.user") == 0 ? c->worker_user : c->broker_user;
    *u = (struct priv_user){.uid = geteuid(), .gid = getegid()};
    if (text[0] == '\0' && geteuid() == 0)
        take_default(u, setting);
    else if (text[0] != '\0' && !take_numbers(u, text) && !take_name(u, text))
        return conf_fail(err,
            "%s is %s (%s), and there is no such user: make one (adduser --system --group %s), or write a "
            "number",
            setting, text, conf_place(c, setting), text);
    u->change = u->uid != geteuid();
    if (u->change && geteuid() != 0 && !other)
        return conf_fail(err,
            "%s is %s (%s), and only root can become another user: start it as root or as that user, or leave "
            "%s empty",
            setting, text, conf_place(c, setting), setting);
    return true;
}

/* ---- giving up ---- */

void
priv_no_new(void)
{
    (void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

void
priv_begin(void)
{
    priv_no_new();
    for (unsigned long cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
        (void)prctl(PR_CAPBSET_DROP, cap, 0, 0, 0); /* needs CAP_SETPCAP; without, nothing can use the set either */
}

void
priv_drop_capabilities(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};
    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    (void)syscall(SYS_capset, &head, none);
}

/* The supplementary groups of a user that has a name, or only its own: that is how an operator lets it read
 * keys. The C library does each of these in all threads. */
static bool
become(const struct priv_user *u)
{
    int groups = u->name[0] != '\0' ? initgroups(u->name, u->gid) : setgroups(1, &u->gid);
    return groups == 0 && setresgid(u->gid, u->gid, u->gid) == 0 && setresuid(u->uid, u->uid, u->uid) == 0;
}

/* Whether root is out of reach. */
static bool
is_final(const struct priv_user *u)
{
    uid_t r, e, s;
    return getresuid(&r, &e, &s) == 0 && r == u->uid && e == u->uid && s == u->uid &&
           (u->uid == 0 || (setuid(0) != 0 && seteuid(0) != 0));
}

bool
priv_drop(const struct priv_user *u, const struct conf *c, struct conf_error *err)
{
    if (u->change && (!become(u) || !is_final(u)))
        return conf_fail(err, "cannot become user %u, group %u: %s; leave it CAP_SETUID and CAP_SETGID (a broker CAP_CHOWN, too), start it "
            "as that user, or let it stay root (worker.user=root, broker.user=root)",
            (unsigned)u->uid, (unsigned)u->gid, strerror(errno));
    priv_drop_capabilities();
    bool dumps = c->run_core_dumps || PRIV_INSTRUMENTED;
    struct rlimit core = {0, 0};
    if (!dumps)
        (void)setrlimit(RLIMIT_CORE, &core);
    /* The limit does not bind a collector behind a pipe (core(5)), this does; and changing the user clears it,
     * also where dumps are wanted. */
    (void)prctl(PR_SET_DUMPABLE, dumps, 0, 0, 0);
    struct priv_state now = priv_look();
    log_info("rights", "user=%llu capabilities=%llu no_new_privs=%llu core_dumps=%llu",
        (unsigned long long)now.user_id, (unsigned long long)now.capabilities,
        (unsigned long long)now.no_new_privs, (unsigned long long)now.core_dumps);
    return true;
}

/* ---- what is in force ---- */

struct priv_state
priv_look(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct d[_LINUX_CAPABILITY_U32S_3] = {{0}};
    uint32_t caps[_LINUX_CAPABILITY_U32S_3] = {0};
    if (syscall(SYS_capget, &head, d) == 0)
        for (unsigned i = 0; i < ARRAY_LEN(d); i++)
            caps[i] = d[i].effective | d[i].permitted | d[i].inheritable; /* ambient ones are among these */
    return (struct priv_state){
        .user_id = geteuid(),
        .capabilities = (uint64_t)__builtin_popcount(caps[0]) + (uint64_t)__builtin_popcount(caps[1]),
        .no_new_privs = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1,
        .core_dumps = prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 0,
    };
}

/* ---- sockets between users ---- */

bool
priv_share_socket(const char *run_dir, const char *path, const struct priv_user *own,
    const struct priv_user *peer, struct conf_error *err)
{
    struct stat st;
    if (geteuid() != 0 || (own->uid == 0 && peer->uid == 0))
        return true; /* one user, or not ours to change */
    if (chmod(path, 0660) != 0 || chown(path, own->uid, peer->gid) != 0) /* in this order: then it is not ours */
        return conf_fail(err, "run.dir: %s cannot be given to the workers' group: %s", path, strerror(errno));
    if (stat(run_dir, &st) == 0 && st.st_uid == 0 && (st.st_mode & 0011) != 0011 &&
        chmod(run_dir, (st.st_mode & 07777) | 0011) != 0)
        return conf_fail(err, "run.dir: others cannot be let through %s: %s", run_dir, strerror(errno));
    return true;
}
