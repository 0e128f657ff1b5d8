/* docs/reference/counters.md */
#include "docs/gen/gen.h"

struct row {
    const char *scope, *name, *kind, *unit, *sentence;
};

static const struct row rows[] = {
#define METRIC(scope_, name_, kind_, unit_, sentence_) {#scope_, #name_, #kind_, unit_, sentence_},
#include "common/tbl/metrics.def"
#undef METRIC
};

static const struct {
    const char *name, *sentence;
} closes[] = {
#define CLOSE(name_, code, kind, retry, sentence_) {#name_, sentence_},
#include "proto/tbl/close.def"
#undef CLOSE
};

static const struct {
    const char *name, *sentence;
} errors[] = {
#define ERROR(id, name_, message, when) {#id, when},
#include "proto/tbl/errors.def"
#undef ERROR
};

static const struct {
    const char *name, *sentence;
} verbs[] = {
#define VERB(name_, states, sentence_) {#name_, sentence_},
#include "proto/tbl/verbs.def"
#undef VERB
};

static const struct {
    const char *name, *direction, *sentence;
} lanes[] = {
#define IPC(name_, number, direction_, payload, sentence_) {#name_, #direction_, sentence_},
#include "proto/tbl/ipc.def"
#undef IPC
};

static void
print_counted(const char *prefix, const char *name, const char *sentence)
{
    printf("| `%s_", prefix);
    gen_lower(name);
    printf("` | ");
    gen_cell(sentence);
    printf(" |\n");
}

static void
print_lanes(const char *direction)
{
    printf("And one for each message received from the other side of a lane (see lanes.md):\n\n"
           "| Counter | |\n|---|---|\n");
    for (size_t i = 0; i < sizeof lanes / sizeof lanes[0]; i++)
        if (strcmp(lanes[i].direction, direction) == 0)
            print_counted("lane", lanes[i].name, lanes[i].sentence);
    putchar('\n');
}

static const struct row run_rows[] = {
#define RUN_METRIC(name_, kind_, unit_, sentence_) {"RUN", #name_, #kind_, unit_, sentence_},
#include "deploy/ringcast/run.def"
#undef RUN_METRIC
};

static void
print_row(const struct row *r)
{
    printf("| `%s` | %s | %s | ", r->name, strcmp(r->kind, "GAUGE") == 0 ? "gauge" : "counter",
        r->unit);
    gen_cell(r->sentence);
    printf(" |\n");
}

static void
print_scope(const char *scope, const char *title, const char *about)
{
    printf("## %s\n\n%s\n\n| Counter | Kind | Unit | |\n|---|---|---|---|\n", title, about);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (strcmp(rows[i].scope, scope) == 0)
            print_row(&rows[i]);
    putchar('\n');
}

int
main(void)
{
    gen_head("Counters", "common/tbl/metrics.def, proto/tbl/close.def and deploy/ringcast/run.def");
    printf("Every ring thread, every broker and `ringcast run` has a page of counters in "
           "`run.dir/stat`, which\n"
           "`ringcast status` reads without asking the process. A counter only grows while its "
           "process lives; a\n"
           "gauge goes both ways. `ringcast status --json` prints them all, `--counter NAME` the "
           "sum of one.\n\n");
    print_scope("RING", "Of a ring thread", "Pages `worker-N.RING`.");
    printf("One more for each reason a connection may end for (see closing.md):\n\n"
           "| Counter | |\n|---|---|\n");
    for (size_t i = 0; i < sizeof closes / sizeof closes[0]; i++)
        print_counted("close", closes[i].name, closes[i].sentence);
    printf("\nOne for each error a client may be told, whether it asked for an answer or not (see errors.md):\n\n"
           "| Counter | |\n|---|---|\n");
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        print_counted("error", errors[i].name, errors[i].sentence);
    printf("\nOne for each thing a client's packet may ask for:\n\n| Counter | |\n|---|---|\n");
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
        print_counted("verb", verbs[i].name, verbs[i].sentence);
    putchar('\n');
    print_lanes("B2W");
    print_scope("BROKER", "Of a broker", "Pages `broker-N`.");
    print_lanes("W2B");
    printf(
        "## Of ringcast run\n\nPage `run-0`.\n\n| Counter | Kind | Unit | |\n|---|---|---|---|\n");
    for (size_t i = 0; i < sizeof run_rows / sizeof run_rows[0]; i++)
        print_row(&run_rows[i]);
    printf(
        "| `limit_SECTION_KEY` | gauge | | each setting that is a number, a size (bytes) or a time "
        "(milliseconds), as in force |\n");
    return 0;
}
