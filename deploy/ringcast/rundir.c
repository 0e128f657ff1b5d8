#include "deploy/ringcast/rundir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/metric.h"

#include "common/banned.h"

static void
path_in(const struct rundir *d, const char *name, char *out, size_t out_n)
{
    (void)snprintf(out, out_n, "%s/%s", d->path, name);
}

/* Private to us: our own, and nobody else may put anything into it. */
static bool
check_private(const struct rundir *d, const char *place, struct conf_error *err)
{
    struct stat st;
    if (stat(d->path, &st) != 0)
        return conf_fail(
            err, "run.dir (%s): %s cannot be used: %s", place, d->path, strerror(errno));
    if (!S_ISDIR(st.st_mode))
        return conf_fail(err, "run.dir (%s): %s is no directory: choose another", place, d->path);
    if (st.st_uid != geteuid())
        return conf_fail(err,
            "run.dir (%s): %s belongs to user %u and we are user %u: choose a directory of our own",
            place, d->path, (unsigned)st.st_uid, (unsigned)geteuid());
    if ((st.st_mode & 022) != 0)
        return conf_fail(err,
            "run.dir (%s): others may write to %s: chmod 700 it, or choose another", place,
            d->path);
    return true;
}

/* One `ringcast run` per directory: they would take each other's sockets. */
static bool
take_lock(struct rundir *d, const char *place, struct conf_error *err)
{
    char path[256], pid[24];
    path_in(d, "lock", path, sizeof path);
    d->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (d->lock_fd < 0)
        return conf_fail(err, "run.dir (%s): %s cannot be made: %s", place, path, strerror(errno));
    if (flock(d->lock_fd, LOCK_EX | LOCK_NB) == 0) {
        int n = snprintf(pid, sizeof pid, "%d\n", (int)getpid());
        if (ftruncate(d->lock_fd, 0) == 0 && n > 0)
            (void)!write(d->lock_fd, pid, (size_t)n);
        return true;
    }
    ssize_t n = read(d->lock_fd, pid, sizeof pid - 1);
    pid[n > 0 ? n : 0] = '\0';
    (void)close(d->lock_fd);
    d->lock_fd = -1;
    return conf_fail(err,
        "run.dir (%s): %s is used by another ringcast run (pid %ld): stop that, or give this one "
        "its own --run.dir",
        place, d->path, strtol(pid, NULL, 10));
}

/* Pages whose process is gone tell nothing any more; a living one replaces its page itself. */
static void
remove_old_page(const struct metric_header *h, const struct metric_named *rows,
    const uint64_t *values, void *arg)
{
    const struct rundir *d = arg;
    char name[64], path[320];
    (void)rows;
    (void)values;
    if (h->pid > 0 && (kill(h->pid, 0) == 0 || errno != ESRCH))
        return;
    if (h->ring < 0)
        (void)snprintf(name, sizeof name, "stat/%s-%u", h->process, h->index);
    else
        (void)snprintf(name, sizeof name, "stat/%s-%u.%d", h->process, h->index, (int)h->ring);
    path_in(d, name, path, sizeof path);
    if (strchr(h->process, '/') == NULL)
        (void)unlink(path);
}

bool
rundir_open(struct rundir *d, const struct conf *c, struct conf_error *err)
{
    const char *place = conf_place(c, "run.dir");
    *d = (struct rundir){.path = c->run_dir, .lock_fd = -1, .brokers = c->broker_count};
    if (mkdir(d->path, 0700) == 0)
        d->made = true;
    else if (errno != EEXIST)
        return conf_fail(err,
            "run.dir (%s): %s cannot be made: %s; choose a place that this user may write to",
            place, d->path, strerror(errno));
    if (!check_private(d, place, err) || !take_lock(d, place, err))
        return false;
    (void)metric_each_page(d->path, remove_old_page, d);
    return true;
}

void
rundir_write_listen(const struct rundir *d, const char *text)
{
    char path[256];
    path_in(d, "listen", path, sizeof path);
    FILE *f = fopen(path, "we");
    if (f == NULL)
        return;
    (void)fprintf(f, "%s\n", text);
    (void)fclose(f);
}

bool
rundir_read_listen(const char *dir, bool named, char *out, size_t out_n)
{
    char path[256];
    struct stat st;
    if (!named && (lstat(dir, &st) != 0 || (st.st_uid != 0 && st.st_uid != geteuid())))
        return false;
    (void)snprintf(path, sizeof path, "%s/listen", dir);
    FILE *f = fopen(path, "re");
    bool ok = f != NULL && fgets(out, (int)out_n, f) != NULL;
    if (f != NULL)
        (void)fclose(f);
    if (ok)
        out[strcspn(out, "\n")] = '\0';
    return ok;
}

bool
rundir_reload(const char *dir, struct conf_error *err)
{
    char path[256], pid[24] = "";
    (void)snprintf(path, sizeof path, "%s/lock", dir);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    bool held = fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0 && read(fd, pid, sizeof pid - 1) > 0;
    int why = errno;
    if (fd >= 0)
        (void)close(fd);
    if (fd < 0 && why == EACCES)
        return conf_fail(err, "%s cannot be read: %s; it takes the user that ringcast run was started by", path,
            strerror(why));
    if (!held)
        return conf_fail(err, "no ringcast run works in %s: start it, or name its directory with --run.dir=DIR; processes that "
            "were started by hand take SIGHUP each", dir);
    if (kill((pid_t)strtol(pid, NULL, 10), SIGHUP) == 0)
        return true;
    return conf_fail(err, "the process %ld cannot be told: %s", strtol(pid, NULL, 10), strerror(errno));
}

/* Files of a directory that is ours alone; sub-directories stay, and so does the secret of session tickets, so that
 * clients resume after a restart. */
static void
empty_dir(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *e;
    while (dir != NULL && (e = readdir(dir)) != NULL)
        if (e->d_type != DT_DIR && strcmp(e->d_name, "ticket-secret") != 0)
            (void)unlinkat(dirfd(dir), e->d_name, 0);
    if (dir != NULL)
        (void)closedir(dir);
}

void
rundir_close(struct rundir *d)
{
    char stat_dir[256], path[256];
    if (d->lock_fd < 0) {
        if (d->made)
            (void)rmdir(d->path);
        return;
    }
    path_in(d, "stat", stat_dir, sizeof stat_dir);
    (void)metric_each_page(d->path, remove_old_page, d);
    if (d->made) {
        empty_dir(stat_dir);
        empty_dir(d->path);
    }
    (void)rmdir(stat_dir);
    for (unsigned i = 0; i < d->brokers; i++) {
        (void)snprintf(path, sizeof path, "%s/broker-%u.sock", d->path, i);
        (void)unlink(path);
    }
    path_in(d, "listen", path, sizeof path);
    (void)unlink(path);
    path_in(d, "lock", path, sizeof path);
    (void)unlink(path);
    (void)close(d->lock_fd);
    if (d->made)
        (void)rmdir(d->path);
}
