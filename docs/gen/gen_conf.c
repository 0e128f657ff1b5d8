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
        putchar('\n');
        gen_wrapped("# ", r->sentence);
        if (strcmp(r->reload, "RELOAD") == 0)
            printf("# (reload)\n");
        printf("#%s =%s%s\n", r->key, r->dflt[0] ? " " : "", r->dflt);
    }
    return 0;
}
