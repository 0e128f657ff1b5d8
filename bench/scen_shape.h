/* Scenarios of traffic that is not uniform: a mixture, and what a recording holds; see scen.h. */
#ifndef BENCH_SCEN_SHAPE_H
#define BENCH_SCEN_SHAPE_H

#include "bench/scen.h"

/* Half of the clients hear one channel, a quarter are in pairs, the rest subscribe and unsubscribe. */
void scen_shape_mixed(struct run *r, const struct load_conf *conf);
/* Fan-out or a pair, each half of the deliveries. */
uint32_t scen_shape_mixed_next(struct run *r);
double scen_shape_mixed_deliveries(const struct run *r);

/* Reads r->opt.replay; sets clients and rate. */
void scen_shape_read(struct run *r);
void scen_shape_replay(struct run *r, const struct load_conf *conf);
/* Publishes what the recording has until now; when the next message is due. */
uint64_t scen_shape_publish(struct run *r, uint64_t now);

#endif
