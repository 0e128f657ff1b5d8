#include "deploy/ringcast/hosts.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/bug.h"
#include "deploy/ringcast/question.h"

#include "common/banned.h"

#define ANSWER_MAX (16u << 20) /* of all brokers of this host */

/* What several brokers of a host say together. */
struct row {
    struct view id, name, release, state;
    bool self;
    uint64_t announced, heard; /* brokers: as they say, and those heard */
    uint64_t age_ms, uptime_s, connections, channels, published, delivered, cpu;
    uint64_t count, silent, unanswered; /* of occupancy */
};

struct rows {
    struct row *v;
    unsigned n;
};

static struct row *
row_of(struct rows *all, struct view id)
{
    for (unsigned i = 0; i < all->n; i++)
        if (view_eq(all->v[i].id, id))
            return &all->v[i];
    all->v = xrealloc(all->v, (all->n + 1) * sizeof all->v[0]);
    struct row *r = &all->v[all->n++];
    *r = (struct row){.id = id};
    return r;
}

/* The state that most wants to be seen. */
static struct view
worse(struct view a, struct view b)
{
    static const char *const order[] = {"conflict", "deaf", "unheard", "replaced", "alone", "up"};
    for (unsigned i = 0; i < ARRAY_LEN(order); i++)
        if (view_eq(a, view_str(order[i])) || view_eq(b, view_str(order[i])))
            return view_str(order[i]);
    return a.n > 0 ? a : b;
}

static void
add_host(struct rows *all, struct view line)
{
    struct row *r = row_of(all, question_text(line, "id"));
    bool replaced = view_eq(question_text(line, "state"), VIEW("replaced"));
    r->name = question_text(line, "name");
    r->release = question_text(line, "release");
    r->state = worse(r->state, question_text(line, "state"));
    r->self = r->self || question_number(line, "self") == 1;
    r->age_ms = MAX(r->age_ms, question_number(line, "age_ms"));
    if (replaced)
        return; /* what it said is its successor's now */
    r->announced = MAX(r->announced, question_number(line, "brokers"));
    r->heard++;
    r->uptime_s = MAX(r->uptime_s, question_number(line, "uptime_s"));
    /* Every broker has all rings, so each of them sees all connections; the rest is its own share. */
    r->connections = MAX(r->connections, question_number(line, "connections"));
    r->channels += question_number(line, "channels");
    r->published += question_number(line, "published");
    r->delivered += question_number(line, "delivered");
    r->cpu += question_number(line, "cpu");
}

/* ---- printing ---- */

/* Texts are printable by the time a broker has them; who wrote this answer may be another. */
static void
print_text(struct view v)
{
    for (size_t i = 0; i < v.n; i++)
        (void)putchar(v.p[i] > 0x20 && v.p[i] < 0x7f && v.p[i] != '"' && v.p[i] != '\\' ? v.p[i] : '?');
}

static void
print_json_text(const char *key, struct view v)
{
    printf("\"%s\":\"", key);
    print_text(v);
    (void)putchar('"');
}

static int
width_of(const struct rows *all)
{
    size_t n = strlen("HOST");
    for (unsigned i = 0; i < all->n; i++)
        n = MAX(n, all->v[i].name.n);
    return (int)MIN(n, (size_t)64);
}

static void
print_name(const struct row *r, int width)
{
    print_text(r->name);
    printf("%*s", MAX(width - (int)r->name.n, 0), "");
}

static void
uptime_text(uint64_t s, char *out, size_t out_n)
{
    if (s < 3600)
        (void)snprintf(out, out_n, "%" PRIu64 "m%" PRIu64 "s", s / 60, s % 60);
    else if (s < 86400)
        (void)snprintf(out, out_n, "%" PRIu64 "h%" PRIu64 "m", s / 3600, s / 60 % 60);
    else
        (void)snprintf(out, out_n, "%" PRIu64 "d%" PRIu64 "h", s / 86400, s / 3600 % 24);
}

static void
print_hosts(const struct rows *all)
{
    int width = width_of(all);
    printf("%-*s  %-16s %7s  %-8s %8s %8s %-9s %7s %8s %9s %9s %5s\n", width, "HOST", "ID", "BROKERS", "RELEASE", "UP",
        "HEARD", "STATE", "CONNS", "CHANNELS", "PUB/S", "DELIV/S", "CPU");
    for (unsigned i = 0; i < all->n; i++) {
        const struct row *r = &all->v[i];
        char up[32], brokers[48], heard[32];
        uptime_text(r->uptime_s, up, sizeof up);
        (void)snprintf(brokers, sizeof brokers, "%" PRIu64 "/%" PRIu64, r->heard, r->announced);
        (void)snprintf(heard, sizeof heard, "%" PRIu64 ".%" PRIu64 "s", r->age_ms / 1000, r->age_ms % 1000 / 100);
        print_name(r, width);
        printf("  %-16.*s %7s  ", VIEW_FMT(r->id), brokers);
        print_text(r->release);
        printf("%*s %8s %8s ", MAX(8 - (int)r->release.n, 0), "", up, r->self ? "here" : heard);
        print_text(r->state);
        printf("%*s %7" PRIu64 " %8" PRIu64 " %9" PRIu64 " %9" PRIu64 " %4" PRIu64 "%%\n", MAX(9 - (int)r->state.n, 0), "",
            r->connections, r->channels, r->published, r->delivered, r->cpu / 10);
    }
}

static void
print_json_host(const struct row *r)
{
    (void)putchar('{');
    print_json_text("id", r->id);
    (void)putchar(',');
    print_json_text("name", r->name);
    (void)putchar(',');
    print_json_text("release", r->release);
    (void)putchar(',');
    print_json_text("state", r->state);
    printf(",\"self\":%s,\"brokers\":%" PRIu64 ",\"brokers_heard\":%" PRIu64 ",\"heard_ms\":%" PRIu64 ",\"uptime_s\":%" PRIu64
        ",\"connections\":%" PRIu64 ",\"channels\":%" PRIu64 ",\"published\":%" PRIu64 ",\"delivered\":%" PRIu64
        ",\"cpu\":%" PRIu64 ".%03" PRIu64 "}", r->self ? "true" : "false", r->announced, r->heard, r->age_ms, r->uptime_s,
        r->connections, r->channels, r->published, r->delivered, r->cpu / 1000, r->cpu % 1000);
}

static void
print_json_bus(struct view line)
{
    (void)putchar('{');
    print_json_text("kind", question_text(line, "kind"));
    (void)putchar(',');
    print_json_text("state", question_text(line, "state"));
    printf(",\"since_ms\":%" PRIu64 ",\"deaf\":%s}", question_number(line, "since_ms"),
        question_number(line, "deaf") == 1 ? "true" : "false");
}

/* What the bus says of itself, of one broker: lines as they are. */
static void
print_bus(struct view bus)
{
    struct view line;
    while (question_line(&bus, &line)) {
        printf("%s", question_is(line, "bus") ? "" : "  ");
        for (size_t i = 0; i < line.n; i++)
            (void)putchar(line.p[i] >= 0x20 && line.p[i] < 0x7f ? line.p[i] : '?');
        (void)putchar('\n');
    }
}

static struct view
first_line(struct view text)
{
    struct view line = VIEW_NONE;
    (void)question_line(&text, &line);
    return line;
}

/* ---- hosts ---- */

/* With a bus every broker hears everybody, so the first that answers knows all; without one each knows itself. */
static bool
ask_any(const struct conf *c, const char *question, struct buf *answer)
{
    struct conf_error err = {{0}};
    unsigned n = question_brokers(c->run_dir), answered = 0;
    for (unsigned i = 0; i < n; i++) {
        answered += question_ask(c->run_dir, i, view_str(question), answer, &err);
        if (answered > 0 && !view_eq(question_text(buf_view(answer), "state"), VIEW("alone")))
            return true;
    }
    if (answered > 0)
        return true;
    if (n == 0)
        (void)conf_fail(&err, "nothing runs in %s (%s), or it cannot be read: start ringcast run, or name its directory with "
            "--run.dir=DIR", c->run_dir, conf_place(c, "run.dir"));
    (void)fprintf(stderr, "ringcast: %s\n", err.text);
    return false;
}

static bool
take_json(int argc, char **argv, int from, const char *command)
{
    bool json = false;
    for (int i = from; i < argc; i++) {
        if (strcmp(argv[i], "--json") != 0)
            die("%s is no option of ringcast %s: it knows --json and --run.dir=DIR", argv[i], command);
        json = true;
    }
    return json;
}

static void
print_all_json(const struct rows *all, struct view bus)
{
    printf("{\"bus\":");
    print_json_bus(first_line(bus));
    printf(",\"hosts\":[");
    for (unsigned i = 0; i < all->n; i++) {
        printf("%s", i ? "," : "");
        print_json_host(&all->v[i]);
    }
    printf("]}\n");
}

int
hosts_command(const struct conf *c, int argc, char **argv)
{
    bool json = take_json(argc, argv, 1, "hosts");
    struct buf answer = buf_make(ANSWER_MAX), bus = buf_make(ANSWER_MAX);
    struct rows all = {0};
    bool ok = ask_any(c, "hosts", &answer) && ask_any(c, "bus", &bus);
    struct view rest = buf_view(&answer), line;
    while (ok && question_line(&rest, &line))
        if (question_is(line, "host"))
            add_host(&all, line);
    if (ok && json) {
        print_all_json(&all, buf_view(&bus));
    } else if (ok) {
        print_hosts(&all);
        (void)putchar('\n');
        print_bus(buf_view(&bus));
    }
    free(all.v);
    buf_free(&answer);
    buf_free(&bus);
    return ok ? 0 : 1;
}

/* ---- occupancy ---- */

static void
add_count(struct rows *all, struct view line)
{
    struct row *r = row_of(all, question_text(line, "id"));
    r->name = question_text(line, "name");
    r->self = r->self || question_number(line, "self") == 1;
    r->count += question_number(line, "count");
    r->silent += question_number(line, "silent");
    r->unanswered += question_number(line, "answered") == 0;
}

/* The broker that owns the channel has it; which that is, any of them says. */
static bool
ask_owner(const struct conf *c, const char *channel, struct buf *answer)
{
    struct conf_error err = {{0}};
    struct buf question = buf_make(8192);
    buf_put_lit(&question, "occupancy ");
    buf_put_view(&question, view_str(channel));
    buf_put(&question, "", 1);
    bool ok = !question.failed && ask_any(c, (const char *)question.p, answer);
    struct view line = first_line(buf_view(answer));
    if (ok && question_is(line, "elsewhere")) {
        buf_reset(answer);
        unsigned owner = (unsigned)MIN(question_number(line, "broker"), (uint64_t)UINT32_MAX);
        ok = question_ask(c->run_dir, owner, view_head(buf_view(&question), question.n - 1), answer, &err);
        if (!ok)
            (void)fprintf(stderr, "ringcast: %s\n", err.text);
    }
    buf_free(&question);
    return ok;
}

static void
print_counts(const struct rows *all, uint64_t sum, bool whole)
{
    int width = width_of(all);
    printf("%-*s  %-16s %11s\n", width, "HOST", "ID", "SUBSCRIBERS");
    for (unsigned i = 0; i < all->n; i++) {
        const struct row *r = &all->v[i];
        print_name(r, width);
        printf("  %-16.*s %11" PRIu64 "%s%s\n", VIEW_FMT(r->id), r->count,
            r->unanswered > 0 ? "  did not answer" : "", r->silent > 0 ? "  not all rings answered" : "");
    }
    printf("%-*s  %-16s %11" PRIu64 "%s\n", width, "all", "", sum, whole ? "" : "  or more");
}

static void
print_json_counts(const struct rows *all, uint64_t sum, bool whole)
{
    printf("{\"subscribers\":%" PRIu64 ",\"whole\":%s,\"hosts\":[", sum, whole ? "true" : "false");
    for (unsigned i = 0; i < all->n; i++) {
        const struct row *r = &all->v[i];
        printf("%s{", i ? "," : "");
        print_json_text("id", r->id);
        (void)putchar(',');
        print_json_text("name", r->name);
        printf(",\"self\":%s,\"subscribers\":%" PRIu64 ",\"whole\":%s}", r->self ? "true" : "false", r->count,
            r->unanswered == 0 && r->silent == 0 ? "true" : "false");
    }
    printf("]}\n");
}

int
hosts_occupancy(const struct conf *c, int argc, char **argv)
{
    if (argc < 2 || argv[1][0] == '-')
        die("say of which channel: ringcast occupancy CHANNEL [--json]");
    bool json = take_json(argc, argv, 2, "occupancy");
    struct buf answer = buf_make(ANSWER_MAX);
    struct rows all = {0};
    bool ok = ask_owner(c, argv[1], &answer), whole = ok;
    uint64_t sum = 0;
    struct view rest = buf_view(&answer), line;
    while (ok && question_line(&rest, &line)) {
        if (question_is(line, "count")) {
            add_count(&all, line);
        } else if (question_is(line, "error")) {
            (void)fprintf(stderr, "ringcast: %.*s\n", VIEW_FMT(view_from(line, strlen("error "))));
            whole = false;
        }
    }
    for (unsigned i = 0; i < all.n; i++) {
        sum += all.v[i].count;
        whole = whole && all.v[i].unanswered == 0 && all.v[i].silent == 0;
    }
    if (ok && all.n > 0 && json)
        print_json_counts(&all, sum, whole);
    else if (ok && all.n > 0)
        print_counts(&all, sum, whole);
    free(all.v);
    buf_free(&answer);
    return whole ? 0 : 1;
}
