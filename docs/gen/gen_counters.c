/* docs/reference/counters.md */
#include "docs/gen/gen.h"

struct row {
    const char *scope, *name, *kind, *unit, *sentence;
};

static const struct row rows[] = {
#define METRIC(scope_, name_, kind_, unit_, sentence_)                                             \
    {#scope_, #name_, #kind_, unit_, sentence_},
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

static void
print_scope(const char *scope, const char *title, const char *about)
{
    printf("## %s\n\n%s\n\n| Counter | Kind | Unit | |\n|---|---|---|---|\n", title, about);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct row *r = &rows[i];
        if (strcmp(r->scope, scope) != 0)
            continue;
        printf("| `%s` | %s | %s | ", r->name,
            strcmp(r->kind, "GAUGE") == 0 ? "gauge" : "counter", r->unit);
        gen_cell(r->sentence);
        printf(" |\n");
    }
    putchar('\n');
}

int
main(void)
{
    gen_head("Counters", "common/tbl/metrics.def and proto/tbl/close.def");
    printf(
        "Every ring thread, every broker and `ringcast run` has a page of counters in `run.dir/stat`, which\n"
        "`ringcast status` reads without asking the process. A counter only grows while its process lives; a\n"
        "gauge goes both ways. `ringcast status --json` prints them all, `--counter NAME` the sum of one.\n\n");
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
    printf("## Of ringcast run\n\nPage `run-0`.\n\n| Counter | Kind | Unit | |\n|---|---|---|---|\n"
           "| `processes` | gauge | processes | workers and brokers there should be |\n"
           "| `processes_ready` | gauge | processes | workers and brokers that are ready |\n"
           "| `restarts_total` | counter | times | processes that died and were, or will be, started again |\n"
           "| `limit_SECTION_KEY` | gauge | | each setting that is a number, a size (bytes) or a time (milliseconds), as in force |\n");
    return 0;
}
