/* deploy/ringcast.conf: every setting with its default, as a comment. */
#include "docs/gen/gen.h"

struct row {
    const char *section, *key, *dflt, *sentence, *reload;
};

static const struct row rows[] = {
#define CONF(section_, key_, type, dflt_, min, max, reload_, sentence_)                            \
    {#section_, #key_, dflt_, sentence_, #reload_},
#include "common/tbl/config.def"
#undef CONF
};

static const struct row namespace_rows[] = {
#define NAMESPACE(key_, type, dflt, sample_, min, max, sentence_)                                  \
    {"namespace", #key_, sample_, sentence_, "RELOAD"},
#include "common/tbl/namespace.def"
#undef NAMESPACE
};

static void
print_row(const struct row *r)
{
    putchar('\n');
    gen_wrapped("# ", r->sentence);
    if (strcmp(r->reload, "RELOAD") == 0)
        printf("# (reload)\n");
    printf("#%s =%s%s\n", r->key, r->dflt[0] ? " " : "", r->dflt);
}

int
main(void)
{
    const char *section = "";
    gen_wrapped("# ", "Settings of Ringcast. Generated from common/tbl/config.def: every setting "
                      "stands here with "
                      "its default. Take away the # in front of a key to change it. ringcast "
                      "check-config --config "
                      "FILE says whether all is right; ringcast run --config FILE uses it.");
    printf("#\n");
    gen_wrapped("# ",
        "Sizes are written 4096, 64KiB, 4MiB, 1GiB; times 250ms, 8s, 5m, 1h; lists with commas, or "
        "with the key once for each entry. A variable RINGCAST_SECTION_KEY wins over this file, a "
        "flag --section.key=value over both. Settings marked (reload) change on SIGHUP, the others "
        "need a restart.");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct row *r = &rows[i];
        if (strcmp(section, r->section) != 0)
            printf("\n[%s]\n", section = r->section);
        print_row(r);
    }
    printf("\n");
    gen_wrapped("# ",
        "A namespace is a class of channels with settings of its own: one section each, [namespace "
        "NAME] with a name of small letters and digits. For channels in no namespace these "
        "defaults hold. Flags are --namespace.NAME.key=value.");
    printf("[namespace chat]\n");
    for (size_t i = 0; i < sizeof namespace_rows / sizeof namespace_rows[0]; i++)
        print_row(&namespace_rows[i]);
    return 0;
}
