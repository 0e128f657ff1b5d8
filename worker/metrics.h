/* Rows of a ring thread's counter page, from common/tbl/metrics.def. */
#ifndef WORKER_METRICS_H
#define WORKER_METRICS_H

#include "common/metric.h"
#include "proto/dialect.h"
#include "proto/ipc.h"

enum ring_metric {
#define METRIC_RING(name) RM_##name,
#define METRIC_BROKER(name)
#define METRIC(scope, name, kind, unit, sentence) METRIC_##scope(name)
#include "common/tbl/metrics.def"
#undef METRIC
#undef METRIC_RING
#undef METRIC_BROKER
    RM_CLOSE_BASE, /* one row for each reason of close.def, in its order */
    RM_ERROR_BASE = RM_CLOSE_BASE + CLOSE_COUNT, /* one for each error of errors.def, from ERR_NONE on */
    RM_VERB_BASE = RM_ERROR_BASE + ERR_COUNT,   /* one for each verb of verbs.def */
    RM_LANE_BASE = RM_VERB_BASE + VERB_COUNT,   /* one for each message of ipc.def, as received */
    RM_COUNT = RM_LANE_BASE + IPC_ROW_COUNT
};

void ring_metric_rows(struct metric_row rows[RM_COUNT]);

#endif
