/* The floor of pairs: what two processes with a lane each way ask for when they do nothing but pass messages on. The
 * one has the sockets: a receive for each publisher, a record for each message, one send per subscriber and turn. The
 * other, in the broker's place, puts every record that it finds into the lane back. No frame is looked into. */
#ifndef BENCH_RELAY_H
#define BENCH_RELAY_H

#include "common/base.h"

struct relay_conf {
    const int *subs, *pubs; /* what comes from pubs[i] goes to subs[i] */
    uint32_t pairs;
    uint32_t frame; /* bytes of a message */
};

/* Forks the second process, and serves until a peer leaves. */
NORETURN void relay_serve(const struct relay_conf *);

#endif
