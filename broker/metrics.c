#include "broker/metrics.h"

#include <stdio.h>

#define ROW(row_name, row_kind, row_unit, row_sentence)                                            \
    rows[n++] = (struct metric_row){                                                               \
        .name = #row_name, .unit = (row_unit), .sentence = (row_sentence), .kind = METRIC_##row_kind};

void
broker_metric_rows(struct metric_row rows[BM_COUNT])
{
    unsigned n = 0;
#define METRIC_RING(name, kind, unit, sentence)
#define METRIC_BROKER(name, kind, unit, sentence) ROW(name, kind, unit, sentence)
#define METRIC(scope, name, kind, unit, sentence) METRIC_##scope(name, kind, unit, sentence)
#include "common/tbl/metrics.def"
#undef METRIC
#undef METRIC_RING
#undef METRIC_BROKER
    static char names[IPC_ROW_COUNT][48];
    for (unsigned i = 0; i < IPC_ROW_COUNT; i++) {
        snprintf(names[i], sizeof names[i], "lane_%s", ipc_row_str((enum ipc_row)i));
        rows[n++] = (struct metric_row){.name = names[i],
            .unit = "messages",
            .sentence = ipc_row_sentence((enum ipc_row)i),
            .kind = METRIC_COUNTER};
    }
}
