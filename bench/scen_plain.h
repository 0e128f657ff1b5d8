/* Scenarios in which the server is only asked for what it is for. */
#ifndef BENCH_SCEN_PLAIN_H
#define BENCH_SCEN_PLAIN_H

#include "bench/scen.h"

/* fanout, pairs, rtt, channels */
void scen_plain_messages(struct run *r);
void scen_plain_floor(struct run *r);
void scen_plain_idle(struct run *r);
void scen_plain_connect(struct run *r);
void scen_plain_churn(struct run *r);
/* No server: zlib's time for one message. */
void scen_plain_pack(struct run *r);

#endif
