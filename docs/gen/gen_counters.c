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
    for (size_t i = 0; i < sizeof closes / sizeof closes[0]; i++) {
        printf("| `close_");
        gen_lower(closes[i].name);
        printf("` | ");
        gen_cell(closes[i].sentence);
        printf(" |\n");
    }
    putchar('\n');
    print_scope("BROKER", "Of a broker", "Pages `broker-N`.");
    printf(
        "## Of ringcast run\n\nPage `run-0`.\n\n| Counter | Kind | Unit | |\n|---|---|---|---|\n");
    for (size_t i = 0; i < sizeof run_rows / sizeof run_rows[0]; i++)
        print_row(&run_rows[i]);
    printf(
        "| `limit_SECTION_KEY` | gauge | | each setting that is a number, a size (bytes) or a time "
        "(milliseconds), as in force |\n");
    return 0;
}
