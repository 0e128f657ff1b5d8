/* docs/reference/settings.md */
#include "docs/gen/gen.h"

#include <inttypes.h>
#include <stdint.h>

struct row {
    const char *section, *key, *type, *dflt, *reload, *sentence;
    uint64_t min, max;
};

static const struct row rows[] = {
#define CONF(section_, key_, type_, dflt_, min_, max_, reload_, sentence_)                         \
    {#section_, #key_, #type_, dflt_, #reload_, sentence_, min_, max_},
#include "common/tbl/config.def"
#undef CONF
};

static const struct row namespace_rows[] = {
#define NAMESPACE(key_, type_, dflt_, sample, min_, max_, sentence_)                               \
    {"namespace.NAME", #key_, #type_, dflt_, "RELOAD", sentence_, min_, max_},
#include "common/tbl/namespace.def"
#undef NAMESPACE
};

struct unit {
    const char *name;
    uint64_t n;
};

/* A bound as one would write it. */
static void
print_bound(const char *type, uint64_t v)
{
    static const struct unit sizes[] = {{"TiB", 1ull << 40}, {"GiB", 1ull << 30},
        {"MiB", 1ull << 20}, {"KiB", 1ull << 10}, {"", 1}};
    static const struct unit times[] = {
        {"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};
    const struct unit *u = strcmp(type, "SIZE") == 0       ? sizes
                           : strcmp(type, "DURATION") == 0 ? times
                                                           : sizes + 4;
    while (v != 0 && v % u->n != 0)
        u++;
    printf("%" PRIu64 "%s", v == 0 ? 0 : v / u->n, v == 0 ? "" : u->name);
}

static void
print_kind(const struct row *r)
{
    static const struct {
        const char *type, *word;
    } words[] = {{"STR", "text"}, {"LIST", "list"}, {"INT", "number"}, {"BOOL", "on or off"},
        {"SIZE", "size"}, {"DURATION", "time"}, {"LEVEL", "error, warn, info or debug"},
        {"SLOW", "close, drop-oldest or conflate"}, {"PACK", "off, once or context"}};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcmp(words[i].type, r->type) == 0)
            printf("%s", words[i].word);
    if (strcmp(r->type, "LIST") == 0)
        printf(", at most %" PRIu64 " entries", r->max);
    else if (strcmp(r->type, "STR") == 0)
        printf(", at most %" PRIu64 " bytes", r->max);
    else if (r->max != 0) {
        printf(", ");
        print_bound(r->type, r->min);
        printf(" to ");
        print_bound(r->type, r->max);
    }
}

static void
print_row(const struct row *r)
{
    printf("| `%s.%s` | %s%s%s | ", r->section, r->key, r->dflt[0] ? "`" : "", r->dflt,
        r->dflt[0] ? "`" : "empty");
    print_kind(r);
    printf(" | %s | ", strcmp(r->reload, "RELOAD") == 0 ? "yes" : "no");
    gen_cell(r->sentence);
    printf(" |\n");
}

static void
print_namespaces(void)
{
    printf("\n## namespace\n\n"
           "A namespace is a class of channels with settings of its own: those whose names begin with "
           "its prefix.\n"
           "It is a section `[namespace NAME]` of the file, flags `--namespace.NAME.key=value`, or "
           "variables\n"
           "`RINGCAST_NAMESPACE_NAME_KEY`; NAME is small letters and digits, a letter first. There may "
           "be 64. For\n"
           "channels in none the defaults hold. SIGHUP adds, changes and removes them; channels that "
           "have subscribers\n"
           "follow with their next message.\n\n"
           "| Setting | Default | Kind | Reload | |\n|---|---|---|---|---|\n");
    for (size_t i = 0; i < sizeof namespace_rows / sizeof namespace_rows[0]; i++)
        print_row(&namespace_rows[i]);
}

int
main(void)
{
    const char *section = "";
    gen_head("Settings", "common/tbl/config.def");
    printf(
        "Each setting is a line of the settings file (`--config FILE`: `[section]`, then `key = "
        "value`),\n"
        "a variable (`RINGCAST_SECTION_KEY`) and a flag (`--section.key=value`). Flags win over "
        "variables,\n"
        "variables over the file, the file over the defaults. In the file `#` and `;` begin "
        "comments, and a\n"
        "list may be spread over several lines, each with its key. `RINGCAST_CONFIG` names the "
        "file when\n"
        "`--config` doesn't. What is unknown or out of range is an error that names the place.\n\n"
        "Sizes: `4096`, `64KiB`, `4MiB`, `1GiB`. Times: `250ms`, `8s`, `5m`, `1h`, `1d`. Reload: "
        "whether SIGHUP\n"
        "changes it in running processes; the others need a restart.\n");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct row *r = &rows[i];
        if (strcmp(section, r->section) != 0) {
            printf("\n## %s\n\n| Setting | Default | Kind | Reload | |\n|---|---|---|---|---|\n",
                r->section);
            section = r->section;
        }
        print_row(r);
    }
    print_namespaces();
    return 0;
}
