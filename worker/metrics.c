#include "worker/metrics.h"

#include <stdio.h>

#define ROW(row_name, row_kind, row_unit, row_sentence)                                            \
    rows[n++] = (struct metric_row){                                                               \
        .name = (row_name), .unit = (row_unit), .sentence = (row_sentence), .kind = METRIC_##row_kind};

/* A row whose name is made of two; the text must outlive the rows. */
#define NAMED(prefix, name, row_unit, row_sentence)                                                \
    do {                                                                                           \
        char *both = names[n];                                                                     \
        snprintf(both, sizeof names[0], prefix "%s", (name));                                      \
        ROW(both, COUNTER, row_unit, row_sentence)                                                 \
    } while (0)

static __thread char names[RM_COUNT][48]; /* each ring makes its own page */

void
ring_metric_rows(struct metric_row rows[RM_COUNT])
{
    unsigned n = 0;
#define METRIC_RING(name, kind, unit, sentence) ROW(#name, kind, unit, sentence)
#define METRIC_BROKER(name, kind, unit, sentence)
#define METRIC(scope, name, kind, unit, sentence) METRIC_##scope(name, kind, unit, sentence)
#include "common/tbl/metrics.def"
#undef METRIC
#undef METRIC_RING
#undef METRIC_BROKER
    for (unsigned i = 0; i < CLOSE_COUNT; i++)
        NAMED("close_", close_str((enum close_reason)i), "connections", close_sentence((enum close_reason)i));
    NAMED("error_", "none", "answers", "not counted: requests that succeeded");
    for (unsigned i = 1; i < ERR_COUNT; i++)
        NAMED("error_", error_str((enum error_id)i), "answers", error_message((enum error_id)i));
    for (unsigned i = 0; i < VERB_COUNT; i++)
        NAMED("verb_", verb_str((enum verb_kind)i), "packets", "packets of clients with this meaning");
    for (unsigned i = 0; i < IPC_ROW_COUNT; i++)
        NAMED("lane_", ipc_row_str((enum ipc_row)i), "messages", ipc_row_sentence((enum ipc_row)i));
}
