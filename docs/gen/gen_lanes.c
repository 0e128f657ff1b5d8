/* docs/reference/lanes.md */
#include "docs/gen/gen.h"

struct row {
    const char *name, *direction, *payload, *sentence;
    int number;
};

static const struct row rows[] = {
#define IPC(name_, number_, direction_, payload_, sentence_)                                       \
    {#name_, #direction_, payload_, sentence_, number_},
#include "proto/tbl/ipc.def"
#undef IPC
};

int
main(void)
{
    gen_head("Messages between processes", "proto/tbl/ipc.def");
    printf("What travels in the lanes between a ring thread and a broker. Even numbers go from "
           "worker to\n"
           "broker, odd ones back; a number is never used again. An attach names a hash of this "
           "table, and\n"
           "processes whose tables differ refuse each other.\n\n"
           "| Number | Name | Direction | Payload | |\n|---|---|---|---|---|\n");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct row *r = &rows[i];
        printf("| %d | `%s` | %s | ", r->number, r->name,
            strcmp(r->direction, "W2B") == 0 ? "to the broker" : "to the worker");
        gen_cell(r->payload);
        printf(" | ");
        gen_cell(r->sentence);
        printf(" |\n");
    }
    return 0;
}
