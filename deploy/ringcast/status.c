#include "deploy/ringcast/status.h"

#include <errno.h>
#include <inttypes.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/bug.h"
#include "common/metric.h"

#include "common/banned.h"

#define COLUMNS_MAX 16
#define STUCK_MS 3000 /* without a heartbeat for this long a process is called stuck */

/* A copy of one counter page. */
struct page {
    struct metric_header h;
    struct metric_named *rows;
    uint64_t *values;
};

struct pages {
    struct page *v;
    unsigned count;
    unsigned bad; /* files that were no pages */
    struct mono now;
};

static void
keep_page(const struct metric_header *h, const struct metric_named *rows, const uint64_t *values,
    void *arg)
{
    struct pages *all = arg;
    all->v = xrealloc(all->v, (all->count + 1) * sizeof all->v[0]);
    struct page *p = &all->v[all->count++];
    p->h = *h;
    p->rows = xmalloc(h->row_count * sizeof rows[0]);
    p->values = xmalloc(h->row_count * sizeof values[0]);
    memcpy(p->rows, rows, h->row_count * sizeof rows[0]);
    memcpy(p->values, values, h->row_count * sizeof values[0]);
}

static void
pages_free(struct pages *all)
{
    for (unsigned i = 0; i < all->count; i++) {
        free(all->v[i].rows);
        free(all->v[i].values);
    }
    free(all->v);
}

/* ---- what a page says ---- */

static const uint64_t *
page_find(const struct page *p, const char *name)
{
    for (uint32_t i = 0; i < p->h.row_count; i++)
        if (strcmp(p->rows[i].name, name) == 0)
            return &p->values[i];
    return NULL;
}

static bool
page_is(const struct page *p, const char *process)
{
    return strcmp(p->h.process, process) == 0;
}

static uint64_t
heartbeat_age_ms(const struct page *p, struct mono now)
{
    return mono_since_ms(now, (struct mono){p->h.heartbeat_ns});
}

static const char *
page_state(const struct page *p, struct mono now)
{
    if (p->h.pid <= 0 || (kill(p->h.pid, 0) != 0 && errno == ESRCH))
        return "DEAD";
    return heartbeat_age_ms(p, now) > STUCK_MS ? "STUCK" : "ok";
}

static void
page_name(const struct page *p, char *out, size_t out_n)
{
    if (page_is(p, "run"))
        (void)snprintf(out, out_n, "run");
    else if (p->h.ring < 0)
        (void)snprintf(out, out_n, "%s.%" PRIu32, p->h.process, p->h.index);
    else
        (void)snprintf(out, out_n, "%s.%" PRIu32 "/%" PRId32, p->h.process, p->h.index, p->h.ring);
}

static bool
sum_counter(const struct pages *all, const char *name, uint64_t *sum)
{
    bool found = false;
    *sum = 0;
    for (unsigned i = 0; i < all->count; i++) {
        const uint64_t *v = page_find(&all->v[i], name);
        if (v != NULL) {
            found = true;
            *sum += *v;
        }
    }
    return found;
}

/* ---- the table ---- */

static void
age_text(uint64_t ms, char *out, size_t out_n)
{
    uint64_t s = ms / 1000;
    if (s < 60)
        (void)snprintf(out, out_n, "%" PRIu64 ".%" PRIu64 "s", s, ms % 1000 / 100);
    else if (s < 3600)
        (void)snprintf(out, out_n, "%" PRIu64 "m%" PRIu64 "s", s / 60, s % 60);
    else if (s < 86400)
        (void)snprintf(out, out_n, "%" PRIu64 "h%" PRIu64 "m", s / 3600, s / 60 % 60);
    else
        (void)snprintf(out, out_n, "%" PRIu64 "d%" PRIu64 "h", s / 86400, s / 3600 % 24);
}

static void
bytes_text(uint64_t v, char *out, size_t out_n)
{
    static const char *const units[] = {"", "Ki", "Mi", "Gi", "Ti", "Pi"};
    unsigned u = 0;
    double d = (double)v;
    for (; d >= 10000 && u + 1 < ARRAY_LEN(units); u++)
        d /= 1024;
    (void)snprintf(out, out_n, u ? "%.1f%s" : "%.0f%s", d, units[u]);
}

/* A column: the counter it shows. Those of bytes are shortened. */
struct column {
    const char *title;
    const char *counter;
    bool bytes;
};

static const struct column ring_columns[] = {
    {"CONNS", "connections", false},
    {"SUBS", "subscriptions", false},
    {"CHANNELS", "channels", false},
    {"MSGS-IN", "messages_in_total", false},
    {"BYTES-IN", "bytes_in_total", true},
    {"MSGS-OUT", "messages_out_total", false},
    {"BYTES-OUT", "bytes_out_total", true},
    {"QUEUED", "queue_bytes", true},
    {"LANES", "lane_used_bytes", true},
    {"BROKERS", "brokers_up", false},
};
static const struct column broker_columns[] = {
    {"RINGS", "peers", false},
    {"CHANNELS", "channels", false},
    {"INTERESTS", "interests", false},
    {"PUBLISHED", "publishes_total", false},
    {"BYTES", "publish_bytes_total", true},
    {"DELIVERED", "deliveries_total", false},
    {"OVERFLOW", "overflow_bytes", true},
    {"LANES", "lane_used_bytes", true},
};
static const struct column run_columns[] = {
    {"PROCESSES", "processes", false},
    {"READY", "processes_ready", false},
    {"RESTARTS", "restarts_total", false},
};

static void
cell_text(const struct column *col, const uint64_t *v, char *out, size_t out_n)
{
    if (v == NULL)
        (void)snprintf(out, out_n, "-");
    else if (col->bytes)
        bytes_text(*v, out, out_n);
    else
        (void)snprintf(out, out_n, "%" PRIu64, *v);
}

/* Widest of title, cells and sum. */
static int
column_width(const struct pages *all, const char *process, const struct column *col)
{
    char cell[32];
    uint64_t sum = 0;
    size_t width = strlen(col->title);
    for (unsigned i = 0; i < all->count; i++) {
        const uint64_t *v = page_find(&all->v[i], col->counter);
        if (!page_is(&all->v[i], process) || v == NULL)
            continue;
        sum += *v;
        cell_text(col, v, cell, sizeof cell);
        width = MAX(width, strlen(cell));
    }
    cell_text(col, &sum, cell, sizeof cell);
    return (int)MAX(width, strlen(cell));
}

static void
print_row(
    const struct page *p, struct mono now, const struct column *cols, const int *widths, unsigned n)
{
    char name[48], up[24], beat[24], cell[32];
    page_name(p, name, sizeof name);
    age_text(mono_since_ms(now, (struct mono){p->h.started_ns}), up, sizeof up);
    age_text(heartbeat_age_ms(p, now), beat, sizeof beat);
    printf("%-12s %8d %8s %8s %-6s", name, (int)p->h.pid, up, beat, page_state(p, now));
    for (unsigned i = 0; i < n; i++) {
        cell_text(&cols[i], page_find(p, cols[i].counter), cell, sizeof cell);
        printf("  %*s", widths[i], cell);
    }
    (void)putchar('\n');
}

/* Sums below a table of more than one row. */
static void
print_sums(const struct pages *all, const char *process, const struct column *cols,
    const int *widths, unsigned n)
{
    char cell[32];
    printf("%-12s %8s %8s %8s %-6s", "all", "", "", "", "");
    for (unsigned i = 0; i < n; i++) {
        uint64_t sum = 0;
        for (unsigned k = 0; k < all->count; k++) {
            const uint64_t *v = page_find(&all->v[k], cols[i].counter);
            if (page_is(&all->v[k], process) && v != NULL)
                sum += *v;
        }
        cell_text(&cols[i], &sum, cell, sizeof cell);
        printf("  %*s", widths[i], cell);
    }
    (void)putchar('\n');
}

static void
print_table(const struct pages *all, const char *process, const struct column *cols, unsigned n)
{
    unsigned shown = 0;
    int widths[COLUMNS_MAX];
    for (unsigned i = 0; i < n; i++)
        widths[i] = column_width(all, process, &cols[i]);
    for (unsigned i = 0; i < all->count; i++) {
        if (!page_is(&all->v[i], process))
            continue;
        if (shown++ == 0) {
            printf("%-12s %8s %8s %8s %-6s", "PROCESS", "PID", "UP", "BEAT", "STATE");
            for (unsigned k = 0; k < n; k++)
                printf("  %*s", widths[k], cols[k].title);
            (void)putchar('\n');
        }
        print_row(&all->v[i], all->now, cols, widths, n);
    }
    if (shown > 1)
        print_sums(all, process, cols, widths, n);
    if (shown > 0)
        (void)putchar('\n');
}

/* Whether a counter tells of something lost, refused, held back or wrong. */
static bool
is_trouble(const char *name)
{
    static const char *const words[] = {"refused", "dropped", "lost", "corrupt", "invalid", "stale",
        "no_buffers", "slow_turns", "full", "xoff", "paused", "short", "restarts", "overflow", "behind",
        "lag_bytes", "gaps", "missed", "failed", "failures", "violations", "broken"};
    for (unsigned i = 0; i < ARRAY_LEN(words); i++)
        if (strstr(name, words[i]) != NULL)
            return true;
    return false;
}

static bool
is_total(const char *name)
{
    size_t n = strlen(name);
    return n > 6 && strcmp(name + n - 6, "_total") == 0;
}

static bool
is_close(const char *name)
{
    return strncmp(name, "close_", 6) == 0;
}

/* A setting; limit_..._total counts how often one was reached. */
static bool
is_limit(const char *name)
{
    return strncmp(name, "limit_", 6) == 0 && !is_total(name);
}

static bool
is_loss(const char *name)
{
    return (is_trouble(name) || (strncmp(name, "limit_", 6) == 0 && is_total(name))) && !is_close(name) && !is_limit(name);
}

/* Whether page i is the first of its kind of process to have that row: sums are printed once. */
static bool
is_first(const struct pages *all, unsigned i, const char *name)
{
    for (unsigned k = 0; k < i; k++)
        if (strcmp(all->v[k].h.process, all->v[i].h.process) == 0 &&
            page_find(&all->v[k], name) != NULL)
            return false;
    return true;
}

/* Sums per kind of process of the counters that `want` picks and that are not 0. */
static void
print_list(const struct pages *all, const char *title, bool (*want)(const char *))
{
    unsigned shown = 0;
    for (unsigned i = 0; i < all->count; i++) {
        const struct page *p = &all->v[i];
        for (uint32_t r = 0; r < p->h.row_count; r++) {
            const char *name = p->rows[r].name;
            uint64_t sum = 0;
            if (!want(name) || !is_first(all, i, name))
                continue;
            for (unsigned k = i; k < all->count; k++) {
                const uint64_t *v = page_find(&all->v[k], name);
                if (v != NULL && strcmp(all->v[k].h.process, p->h.process) == 0)
                    sum += *v;
            }
            if (sum == 0)
                continue;
            if (shown++ == 0)
                printf("%s\n", title);
            printf("  %-8s %-32s %14" PRIu64 "\n", p->h.process, name, sum);
        }
    }
    if (shown > 0)
        (void)putchar('\n');
}

static uint64_t
counter_of(const struct page *p, const char *name)
{
    const uint64_t *v = page_find(p, name);
    return v != NULL ? *v : 0;
}

/* What each process may do: a line for the first of its pages. */
static void
print_rights(const struct pages *all)
{
    unsigned shown = 0;
    for (unsigned i = 0; i < all->count; i++) {
        const struct page *p = &all->v[i];
        if (page_find(p, "user_id") == NULL || p->h.ring > 0)
            continue;
        if (shown++ == 0)
            printf("Rights:\n");
        uint64_t uid = counter_of(p, "user_id");
        const struct passwd *pw = getpwuid((uid_t)uid);
        printf("  %s.%-5" PRIu32 " user %" PRIu64 "%s%s%s, %" PRIu64 " capabilities, %s, %s, %s, %s", p->h.process,
            p->h.index, uid, pw != NULL ? " (" : "", pw != NULL ? pw->pw_name : "", pw != NULL ? ")" : "",
            counter_of(p, "capabilities"), counter_of(p, "no_new_privs") ? "no new privileges" : "NEW PRIVILEGES",
            counter_of(p, "seccomp") == 2 ? "system calls limited" : "system calls not limited",
            counter_of(p, "ring_restricted") ? "ring limited" : "ring not limited",
            counter_of(p, "core_dumps") ? "core dumps" : "no core dumps");
        uint64_t refused = counter_of(p, "refused_calls_total");
        if (refused > 0)
            printf(", %" PRIu64 " calls refused", refused);
        (void)putchar('\n');
    }
    if (shown > 0)
        (void)putchar('\n');
}

/* One direction of compression: what the messages are, and what they are on the wire. */
static void
print_ratio(const struct pages *all, const char *title, const char *messages, const char *plain, const char *packed)
{
    uint64_t n, from, to;
    char from_text[32], to_text[32];
    if (!sum_counter(all, messages, &n) || !sum_counter(all, plain, &from) || !sum_counter(all, packed, &to) || from == 0)
        return;
    bytes_text(from, from_text, sizeof from_text);
    bytes_text(to, to_text, sizeof to_text);
    printf("  %-8s %14" PRIu64 " messages %12s bytes as %12s (%.0f%%)\n", title, n, from_text, to_text,
        100.0 * (double)to / (double)from);
}

static void
print_compression(const struct pages *all)
{
    uint64_t connections, own, bytes;
    char text[32];
    if (!sum_counter(all, "deflate_connections", &connections) || !sum_counter(all, "deflate_takeover", &own) ||
        !sum_counter(all, "deflate_bytes", &bytes) || (connections == 0 && bytes == 0))
        return;
    bytes_text(bytes, text, sizeof text);
    printf("Compression: %" PRIu64 " connections, %" PRIu64 " with context of their own, %s bytes of streams\n",
        connections, own, text);
    print_ratio(all, "received", "deflate_in_messages_total", "deflate_in_plain_bytes_total", "deflate_in_packed_bytes_total");
    print_ratio(all, "sent", "deflate_out_messages_total", "deflate_out_plain_bytes_total", "deflate_out_packed_bytes_total");
    (void)putchar('\n');
}

/* Of one broker: how it is joined with other hosts. The words are broker/bus's. */
static const char *
bus_word(const struct page *p)
{
    static const char *const words[] = {"none", "down", "partly", "up"};
    uint64_t state = counter_of(p, "bus_state");
    return state < ARRAY_LEN(words) ? words[state] : "?";
}

static bool
has_bus(const struct page *p)
{
    return page_is(p, "broker") && counter_of(p, "bus_state") > 0;
}

static void
print_bus(const struct pages *all)
{
    unsigned shown = 0;
    for (unsigned i = 0; i < all->count; i++) {
        const struct page *p = &all->v[i];
        char since[24], queued[32];
        if (!has_bus(p))
            continue;
        if (shown++ == 0)
            printf("Bus:\n");
        age_text(counter_of(p, "bus_state_ms"), since, sizeof since);
        bytes_text(counter_of(p, "redis_queue_bytes"), queued, sizeof queued);
        printf("  broker.%-3" PRIu32 " %-6s for %s, %" PRIu64 " links, %s bytes queued; %" PRIu64 " hosts (%" PRIu64
            " brokers); told %" PRIu64 " gaps (%" PRIu64 " messages)%s\n", p->h.index, bus_word(p), since,
            counter_of(p, "redis_links"), queued, counter_of(p, "hosts"), counter_of(p, "host_brokers"),
            counter_of(p, "gaps_total"), counter_of(p, "gap_messages_total"),
            counter_of(p, "hosts_deaf") ? "; OWN HEARTBEATS DO NOT COME BACK" : "");
    }
    if (shown > 0)
        (void)putchar('\n');
}

static void
print_json_bus(const struct pages *all)
{
    unsigned shown = 0;
    printf("\"bus\":[");
    for (unsigned i = 0; i < all->count; i++) {
        const struct page *p = &all->v[i];
        if (!has_bus(p))
            continue;
        printf("%s{\"broker\":%" PRIu32 ",\"state\":\"%s\",\"since_ms\":%" PRIu64 ",\"whole\":%s,\"links\":%" PRIu64
            ",\"queued_bytes\":%" PRIu64 ",\"hosts\":%" PRIu64 ",\"gaps\":%" PRIu64 ",\"missed\":%" PRIu64 "}",
            shown++ ? "," : "", p->h.index, bus_word(p), counter_of(p, "bus_state_ms"),
            counter_of(p, "hosts_deaf") ? "false" : "true", counter_of(p, "redis_links"), counter_of(p, "redis_queue_bytes"),
            counter_of(p, "hosts"), counter_of(p, "gaps_total"), counter_of(p, "gap_messages_total"));
    }
    printf("],");
}

static void
print_tables(const struct pages *all, bool limits)
{
    print_table(all, "run", run_columns, ARRAY_LEN(run_columns));
    print_table(all, "broker", broker_columns, ARRAY_LEN(broker_columns));
    print_table(all, "worker", ring_columns, ARRAY_LEN(ring_columns));
    print_bus(all);
    print_rights(all);
    print_compression(all);
    print_list(all, "Lost, refused, held back:", is_loss);
    print_list(all, "Connections ended, by reason:", is_close);
    if (limits)
        print_list(all, "Limits in force (bytes, milliseconds, numbers; 0 not shown):", is_limit);
    if (all->bad > 0)
        printf("%u files in stat/ are no counter pages of ours.\n", all->bad);
}

/* ---- JSON ---- */

/* Texts in pages are ours, but a page is a file, and anything may stand in a file. */
static void
print_json_text(const char *s)
{
    (void)putchar('"');
    for (; *s != '\0'; s++)
        (void)putchar(*s >= 0x20 && *s < 0x7f && *s != '"' && *s != '\\' ? *s : '?');
    (void)putchar('"');
}

static void
print_json_page(const struct page *p, struct mono now)
{
    printf("{\"process\":");
    print_json_text(p->h.process);
    printf(",\"index\":%" PRIu32 ",\"ring\":", p->h.index);
    if (p->h.ring < 0)
        printf("null");
    else
        printf("%" PRId32, p->h.ring);
    printf(",\"pid\":%d,\"release\":", (int)p->h.pid);
    print_json_text(p->h.release);
    printf(",\"state\":\"%s\",\"uptime_ms\":%" PRIu64 ",\"heartbeat_ms\":%" PRIu64
           ",\"started\":%" PRIu64 ",\"counters\":{",
        page_state(p, now), mono_since_ms(now, (struct mono){p->h.started_ns}),
        heartbeat_age_ms(p, now), p->h.wall_s);
    for (uint32_t i = 0; i < p->h.row_count; i++) {
        printf("%s", i ? "," : "");
        print_json_text(p->rows[i].name);
        printf(":%" PRIu64, p->values[i]);
    }
    printf("}}");
}

static void
print_json(const struct pages *all, const char *run_dir)
{
    printf("{\"run_dir\":");
    print_json_text(run_dir);
    printf(",\"bad_pages\":%u,", all->bad);
    print_json_bus(all);
    printf("\"pages\":[");
    for (unsigned i = 0; i < all->count; i++) {
        printf("%s\n", i ? "," : "");
        print_json_page(&all->v[i], all->now);
    }
    printf("]}\n");
}

/* ---- the command ---- */

struct status_options {
    bool json;
    bool limits;
    const char *counter;
};

static void
take_options(struct status_options *o, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0)
            o->json = true;
        else if (strcmp(argv[i], "--limits") == 0)
            o->limits = true;
        else if (strncmp(argv[i], "--counter=", 10) == 0)
            o->counter = argv[i] + 10;
        else if (strcmp(argv[i], "--counter") == 0 && i + 1 < argc)
            o->counter = argv[++i];
        else
            die("%s is no option of ringcast status: it knows --json, --limits, --counter NAME and "
                "--run.dir=DIR",
                argv[i]);
    }
}

static int
print_counter(const struct pages *all, const char *name)
{
    uint64_t sum;
    if (!sum_counter(all, name, &sum)) {
        (void)fprintf(stderr,
            "ringcast: no process has a counter %s: ringcast status --json lists them\n", name);
        return 1;
    }
    printf("%" PRIu64 "\n", sum);
    return 0;
}

static bool
may_not_look(const char *run_dir)
{
    char path[256];
    (void)snprintf(path, sizeof path, "%s/stat", run_dir);
    return access(path, R_OK | X_OK) < 0 && errno == EACCES;
}

int
status_command(const struct conf *c, int argc, char **argv)
{
    struct status_options o = {0};
    struct pages all = {0};
    int status = 0;
    take_options(&o, argc, argv);
    all.bad = metric_each_page(c->run_dir, keep_page, &all);
    all.now = mono_now();
    if (all.count == 0 && may_not_look(c->run_dir)) {
        (void)fprintf(stderr, "ringcast: %s (%s) cannot be read: it takes the user that the server was started by\n",
            c->run_dir, conf_place(c, "run.dir"));
        status = 1;
    } else if (all.count == 0) {
        (void)fprintf(stderr,
            "ringcast: nothing runs in %s (%s): start ringcast run, or name its directory with "
            "--run.dir=DIR\n",
            c->run_dir, conf_place(c, "run.dir"));
        status = 1;
    } else if (o.counter != NULL) {
        status = print_counter(&all, o.counter);
    } else if (o.json) {
        print_json(&all, c->run_dir);
    } else {
        print_tables(&all, o.limits);
    }
    pages_free(&all);
    return status;
}
