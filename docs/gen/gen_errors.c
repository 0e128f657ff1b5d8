/* docs/reference/errors.md */
#include "docs/gen/gen.h"

struct row {
    const char *name, *message, *when;
};

static const struct row rows[] = {
#define ERROR(id, name_, message_, when_) {name_, message_, when_},
#include "proto/tbl/errors.def"
#undef ERROR
};

int
main(void)
{
    gen_head("Errors that clients see", "proto/tbl/errors.def");
    printf("A request that fails is answered with an error object: "
           "`{\"rid\":N,\"error\":{\"message\":…,\"name\":…}}`.\n"
           "Applications switch on `name`. `{channel}`, `{socket}` and `{limit}` are filled in.\n\n"
           "| Name | Message | When |\n|---|---|---|\n");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        printf("| `%s` | ", rows[i].name);
        gen_cell(rows[i].message);
        printf(" | ");
        gen_cell(rows[i].when);
        printf(" |\n");
    }
    return 0;
}
