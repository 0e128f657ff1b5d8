/* Counter pages: what the owner stores a reader sees, also of a process that is gone; and a reader
 * takes no harm from files that are no pages, or that lie about their sizes. */
#include "common/metric.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/wait.h>

#include <cmocka.h>

static const struct metric_row rows[] = {
    {"connections", "connections", "", METRIC_GAUGE},
    {"messages_in_total", "messages", "", METRIC_COUNTER},
    {"a_name_of_47_bytes_which_is_as_long_as_it_may_be", "", "", METRIC_COUNTER},
};

struct fixture {
    char dir[40];
};

struct seen {
    unsigned count;
    struct metric_header last;
    char names[3][48];
    uint64_t values[3];
};

static int
set_up(void **state)
{
    struct fixture *f = xcalloc(1, sizeof *f);
    (void)snprintf(f->dir, sizeof f->dir, "/tmp/ringcast-test-XXXXXX");
    *state = f;
    return mkdtemp(f->dir) == NULL;
}

static int
tear_down(void **state)
{
    struct fixture *f = *state;
    char path[64];
    (void)snprintf(path, sizeof path, "%s/stat", f->dir);
    (void)rmdir(path);
    int rc = rmdir(f->dir); /* fails if a test left something behind */
    free(f);
    return rc;
}

static void
see(const struct metric_header *h, const struct metric_named *named, const uint64_t *values,
    void *arg)
{
    struct seen *s = arg;
    s->count++;
    s->last = *h;
    for (unsigned i = 0; i < MIN(h->row_count, 3); i++) {
        memcpy(s->names[i], named[i].name, sizeof s->names[i]);
        s->values[i] = values[i];
    }
}

static void
path_of(const struct fixture *f, const char *name, char *out, size_t out_n)
{
    (void)snprintf(out, out_n, "%s/stat/%s", f->dir, name);
}

static void
a_reader_sees_what_the_owner_stores(void **state)
{
    struct fixture *f = *state;
    struct seen s = {0};
    struct metric_page p = metric_page_new(f->dir, "worker", 3, 1, rows, ARRAY_LEN(rows));
    metric_add(p.values, 1, 5);
    metric_add(p.values, 1, 7);
    metric_set(p.values, 0, 42);
    metric_beat(&p, (struct mono){123456789});
    assert_int_equal((uintptr_t)p.values % CACHE_LINE, 0);
    assert_int_equal(metric_each_page(f->dir, see, &s), 0);
    assert_int_equal(s.count, 1);
    assert_string_equal(s.last.process, "worker");
    assert_string_equal(s.last.release, RINGCAST_VERSION);
    assert_int_equal(s.last.index, 3);
    assert_int_equal(s.last.ring, 1);
    assert_int_equal(s.last.pid, getpid());
    assert_int_equal(s.last.heartbeat_ns, 123456789);
    assert_string_equal(s.names[0], "connections");
    assert_int_equal(s.values[0], 42);
    assert_int_equal(s.values[1], 12);
    assert_int_equal(strlen(s.names[2]), 47);
    metric_page_free(&p, true);
    memset(&s, 0, sizeof s);
    assert_int_equal(metric_each_page(f->dir, see, &s), 0);
    assert_int_equal(s.count, 0);
}

static void
the_page_of_a_killed_process_can_be_read(void **state)
{
    struct fixture *f = *state;
    struct seen s = {0};
    char path[64];
    pid_t pid = fork();
    if (pid == 0) {
        struct metric_page p = metric_page_new(f->dir, "broker", 0, -1, rows, ARRAY_LEN(rows));
        metric_add(p.values, 1, 99);
        abort();
    }
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(metric_each_page(f->dir, see, &s), 0);
    assert_int_equal(s.count, 1);
    assert_int_equal(s.last.pid, pid);
    assert_int_equal(s.last.ring, -1);
    assert_int_equal(s.values[1], 99);
    path_of(f, "broker-0", path, sizeof path);
    assert_int_equal(unlink(path), 0);
}

static void
a_successor_replaces_the_page_and_its_predecessor_leaves_it(void **state)
{
    struct fixture *f = *state;
    struct seen s = {0};
    struct stat st;
    char path[64];
    struct metric_page old = metric_page_new(f->dir, "worker", 0, 0, rows, ARRAY_LEN(rows));
    old.header->pid = 1; /* as if another process had made it */
    struct metric_page new = metric_page_new(f->dir, "worker", 0, 0, rows, ARRAY_LEN(rows));
    metric_set(old.values, 0, 1);
    metric_set(new.values, 0, 2);
    metric_page_free(&old, true);
    assert_int_equal(metric_each_page(f->dir, see, &s), 0);
    assert_int_equal(s.count, 1);
    assert_int_equal(s.values[0], 2);
    path_of(f, "worker-0.0", path, sizeof path);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    metric_page_free(&new, true);
}

static void
without_a_directory_counting_goes_on(void **state)
{
    struct seen s = {0};
    (void)state;
    struct metric_page p =
        metric_page_new("/nowhere/at/all", "worker", 0, 0, rows, ARRAY_LEN(rows));
    metric_add(p.values, 0, 3);
    assert_int_equal(p.values[0], 3);
    assert_null(p.path);
    metric_page_free(&p, true);
    assert_int_equal(metric_each_page("/nowhere/at/all", see, &s), 0);
    assert_int_equal(s.count, 0);
}

/* Writes a page whose header was changed by `spoil`, and expects it to be refused. */
static void
expect_refused(struct fixture *f, void (*spoil)(struct metric_header *), size_t cut_to)
{
    struct seen s = {0};
    char path[64];
    struct metric_page p = metric_page_new(f->dir, "worker", 0, 0, rows, ARRAY_LEN(rows));
    path_of(f, "worker-0.0", path, sizeof path);
    if (spoil != NULL)
        spoil(p.header);
    if (cut_to != 0)
        assert_int_equal(truncate(path, (off_t)cut_to), 0);
    assert_int_equal(metric_each_page(f->dir, see, &s), 1);
    assert_int_equal(s.count, 0);
    assert_int_equal(unlink(path), 0);
    metric_page_free(&p, false);
}

static void
spoil_magic(struct metric_header *h)
{
    h->magic++;
}

static void
spoil_version(struct metric_header *h)
{
    h->version = 2;
}

static void
spoil_count(struct metric_header *h)
{
    h->row_count = UINT32_MAX;
}

static void
spoil_count_slightly(struct metric_header *h)
{
    h->row_count = 500; /* more than the file holds */
}

static void
spoil_rows(struct metric_header *h)
{
    h->rows_at = UINT32_MAX - 7;
}

static void
spoil_values(struct metric_header *h)
{
    h->values_at = UINT32_MAX - 7;
}

static void
spoil_alignment(struct metric_header *h)
{
    h->values_at += 4;
}

static void
spoil_overlap(struct metric_header *h)
{
    h->values_at = h->rows_at;
}

static void
pages_that_lie_are_refused(void **state)
{
    static void (*const spoils[])(struct metric_header *) = {spoil_magic, spoil_version,
        spoil_count, spoil_count_slightly, spoil_rows, spoil_values, spoil_alignment,
        spoil_overlap};
    for (size_t i = 0; i < ARRAY_LEN(spoils); i++)
        expect_refused(*state, spoils[i], 0);
    expect_refused(*state, NULL, 1);
    expect_refused(*state, NULL, sizeof(struct metric_header) - 1);
    expect_refused(*state, NULL, sizeof(struct metric_header));
    expect_refused(*state, NULL, 300);
}

static void
names_without_an_end_are_ended(void **state)
{
    struct fixture *f = *state;
    struct seen s = {0};
    struct metric_page p = metric_page_new(f->dir, "worker", 0, 0, rows, ARRAY_LEN(rows));
    struct metric_named *named = (void *)(p.header + 1);
    memset(named[0].name, 'x', sizeof named[0].name);
    memset(p.header->process, 'p', sizeof p.header->process);
    assert_int_equal(metric_each_page(f->dir, see, &s), 0);
    assert_int_equal(strlen(s.names[0]), 47);
    assert_int_equal(strlen(s.last.process), 15);
    metric_page_free(&p, true);
}

static void
other_files_are_counted_and_passed_by(void **state)
{
    struct fixture *f = *state;
    struct seen s = {0};
    char junk[64], link_[64], fifo[64], hidden[64];
    struct metric_page p = metric_page_new(f->dir, "worker", 0, 0, rows, ARRAY_LEN(rows));
    path_of(f, "junk", junk, sizeof junk);
    path_of(f, "link", link_, sizeof link_);
    path_of(f, "fifo", fifo, sizeof fifo);
    path_of(f, ".hidden", hidden, sizeof hidden);
    FILE *file = fopen(junk, "we");
    assert_non_null(file);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(symlink(p.path, link_), 0);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_int_equal(mkfifo(hidden, 0600), 0);
    assert_int_equal(metric_each_page(f->dir, see, &s), 3);
    assert_int_equal(s.count, 1);
    assert_int_equal(unlink(junk) | unlink(link_) | unlink(fifo) | unlink(hidden), 0);
    metric_page_free(&p, true);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_reader_sees_what_the_owner_stores, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            the_page_of_a_killed_process_can_be_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            a_successor_replaces_the_page_and_its_predecessor_leaves_it, set_up, tear_down),
        cmocka_unit_test(without_a_directory_counting_goes_on),
        cmocka_unit_test_setup_teardown(pages_that_lie_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(names_without_an_end_are_ended, set_up, tear_down),
        cmocka_unit_test_setup_teardown(other_files_are_counted_and_passed_by, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
