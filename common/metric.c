/* Counter pages: small files that their owner maps shared and everybody else only reads. The owner
 * never waits for a reader, and a reader trusts nothing in a page: it works on a copy, checked
 * first. */
#include "common/metric.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/bug.h"
#include "common/log.h"

#include "common/banned.h"

#define PAGE_MAX_BYTES (1u << 20) /* a larger file is none of ours */
#define PAGE_MAX_ROWS 4096
#define FILES_MAX 65536

static_assert(sizeof(struct metric_named) == 56, "layout of counter pages");
static_assert(sizeof(struct metric_header) == 96, "layout of counter pages");

static size_t
values_offset(uint32_t row_count)
{
    return align_up(
        sizeof(struct metric_header) + row_count * sizeof(struct metric_named), CACHE_LINE);
}

static void
fill_page(struct metric_header *h, const char *process, uint32_t index, int32_t ring,
    const struct metric_row *rows, uint32_t row_count)
{
    struct metric_named *named = (void *)(h + 1);
    struct timespec wall;
    (void)clock_gettime(CLOCK_REALTIME, &wall);
    h->version = 1;
    h->row_count = row_count;
    h->rows_at = sizeof *h;
    h->values_at = (uint32_t)values_offset(row_count);
    h->pid = getpid();
    h->index = index;
    h->ring = ring;
    h->started_ns = mono_now().ns;
    h->wall_s = (uint64_t)wall.tv_sec;
    h->heartbeat_ns = h->started_ns;
    (void)snprintf(h->process, sizeof h->process, "%s", process);
    (void)snprintf(h->release, sizeof h->release, "%s", RINGCAST_VERSION);
    for (uint32_t i = 0; i < row_count; i++) {
        (void)snprintf(named[i].name, sizeof named[i].name, "%s", rows[i].name);
        named[i].kind = rows[i].kind;
    }
    __atomic_store_n(&h->magic, METRIC_MAGIC, __ATOMIC_RELEASE);
}

static void *
map_private(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        die("out of memory (%zu bytes wanted for counters)", bytes);
    return p;
}

/* A fresh file of that size, with its blocks allocated so that storing into it can't fail later.
 * Returns NULL with errno set. */
static void *
map_file(const char *path, size_t bytes)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    void *p = MAP_FAILED;
    if (fd < 0)
        return NULL;
    int rc = posix_fallocate(fd, 0, (off_t)bytes);
    if (rc == 0)
        p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    int why = rc != 0 ? rc : errno;
    (void)close(fd);
    if (p != MAP_FAILED)
        return p;
    (void)unlink(path);
    errno = why;
    return NULL;
}

/* run_dir/stat/worker-0.1; the directories are made when missing. False when the name is too long.
 */
static bool
page_path(
    char *out, size_t out_n, const char *run_dir, const char *process, uint32_t index, int32_t ring)
{
    char dir[256], suffix[16] = "";
    if (ring >= 0)
        (void)snprintf(suffix, sizeof suffix, ".%" PRId32, ring);
    int d = snprintf(dir, sizeof dir, "%s/stat", run_dir);
    int n = snprintf(out, out_n, "%s/%s-%" PRIu32 "%s", dir, process, index, suffix);
    if (d < 0 || (size_t)d >= sizeof dir || n < 0 || (size_t)n >= out_n)
        return false;
    (void)mkdir(run_dir, geteuid() == 0 ? 0711 : 0700); /* those that root starts walk there as other users */
    (void)mkdir(dir, 0700);
    return true;
}

struct metric_page
metric_page_new(const char *run_dir, const char *process, uint32_t index, int32_t ring,
    const struct metric_row *rows, uint32_t row_count)
{
    size_t bytes = align_up(values_offset(row_count) + row_count * sizeof(uint64_t), 4096);
    char path[320], draft[340];
    void *p = NULL;
    BUG_ON(row_count > PAGE_MAX_ROWS || bytes > PAGE_MAX_BYTES);
    errno = ENAMETOOLONG;
    if (page_path(path, sizeof path, run_dir, process, index, ring)) {
        /* made under another name and then moved, so a reader never sees half a page */
        (void)snprintf(draft, sizeof draft, "%s.new-%d", path, (int)getpid());
        (void)unlink(draft);
        p = map_file(draft, bytes);
    }
    bool is_file = p != NULL;
    if (!is_file) {
        log_warn("metric-private", "process=%s.%u error=\"%s\" counters can't be seen from outside",
            process, index, strerror(errno));
        p = map_private(bytes);
    }
    fill_page(p, process, index, ring, rows, row_count);
    struct metric_page page = {.header = p, .map_bytes = bytes};
    page.values = (uint64_t *)(void *)((char *)p + page.header->values_at);
    if (is_file && rename(draft, path) == 0)
        page.path = xstrdup(path);
    else if (is_file)
        (void)unlink(draft);
    return page;
}

/* Whether the file behind the path is still ours, and not a successor's. */
static bool
path_is_ours(const char *path, int32_t pid)
{
    struct metric_header h;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = fd < 0 ? -1 : read(fd, &h, sizeof h);
    if (fd >= 0)
        (void)close(fd);
    return n == (ssize_t)sizeof h && h.pid == pid;
}

void
metric_page_free(struct metric_page *p, bool remove)
{
    if (remove && p->path != NULL && path_is_ours(p->path, p->header->pid))
        (void)unlink(p->path);
    if (p->header != NULL)
        (void)munmap(p->header, p->map_bytes);
    free(p->path);
    *p = (struct metric_page){0};
}

/* ---- reading ---- */

/* A copy of the whole file, which can't change or shrink under us; NULL if it is none of ours. */
static struct metric_header *
copy_page(int dir, const char *name, size_t *n)
{
    struct stat st;
    int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return NULL;
    struct metric_header *h = NULL;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size >= (off_t)sizeof *h &&
        st.st_size <= PAGE_MAX_BYTES) {
        *n = (size_t)st.st_size;
        h = xmalloc(*n);
        if (pread(fd, h, *n, 0) != (ssize_t)*n) {
            free(h);
            h = NULL;
        }
    }
    (void)close(fd);
    return h;
}

/* Sizes and offsets within the copy, in 64 bits so that nothing wraps; texts ended. */
static bool
page_is_sound(struct metric_header *h, size_t n)
{
    uint64_t rows_end = (uint64_t)h->rows_at + (uint64_t)h->row_count * sizeof(struct metric_named);
    uint64_t values_end = (uint64_t)h->values_at + (uint64_t)h->row_count * sizeof(uint64_t);
    if (h->magic != METRIC_MAGIC || h->version != 1 || h->row_count > PAGE_MAX_ROWS ||
        h->rows_at < sizeof *h || h->rows_at % 8 != 0 || h->values_at % 8 != 0 ||
        h->values_at < rows_end || values_end > n)
        return false;
    struct metric_named *named = (void *)((char *)h + h->rows_at);
    for (uint32_t i = 0; i < h->row_count; i++)
        named[i].name[sizeof named[i].name - 1] = '\0';
    h->process[sizeof h->process - 1] = '\0';
    h->release[sizeof h->release - 1] = '\0';
    return true;
}

static int
is_page_name(const struct dirent *e)
{
    return e->d_name[0] != '.' && strstr(e->d_name, ".new-") == NULL;
}

unsigned
metric_each_page(const char *run_dir,
    void (*fn)(const struct metric_header *h, const struct metric_named *rows,
        const uint64_t *values, void *arg),
    void *arg)
{
    char path[256];
    struct dirent **files = NULL;
    unsigned bad = 0;
    (void)snprintf(path, sizeof path, "%s/stat", run_dir);
    int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int count = dir < 0 ? 0 : scandirat(dir, ".", &files, is_page_name, versionsort);
    for (int i = 0; i < count; i++) {
        size_t n = 0;
        struct metric_header *h = i < FILES_MAX ? copy_page(dir, files[i]->d_name, &n) : NULL;
        if (h != NULL && page_is_sound(h, n))
            fn(h, (void *)((char *)h + h->rows_at), (void *)((char *)h + h->values_at), arg);
        else
            bad++;
        free(h);
        free(files[i]);
    }
    free(files);
    if (dir >= 0)
        (void)close(dir);
    return bad;
}
