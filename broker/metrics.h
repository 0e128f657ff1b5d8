/* Rows of a broker's counter page, from common/tbl/metrics.def. */
#ifndef BROKER_METRICS_H
#define BROKER_METRICS_H

#include "common/metric.h"
#include "proto/ipc.h"

enum broker_metric {
#define METRIC_RING(name)
#define METRIC_BROKER(name) BM_##name,
#define METRIC(scope, name, kind, unit, sentence) METRIC_##scope(name)
#include "common/tbl/metrics.def"
#undef METRIC
#undef METRIC_RING
#undef METRIC_BROKER
    BM_LANE_BASE, /* one for each message of ipc.def, as received */
    BM_COUNT = BM_LANE_BASE + IPC_ROW_COUNT
};

void broker_metric_rows(struct metric_row rows[BM_COUNT]);

#endif
