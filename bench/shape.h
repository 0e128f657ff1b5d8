/* A recorded shape of traffic: when messages were published, on which channel, how long they were, and how many
 * subscribers they reached. From a text file, a line for each message, in the order of time:
 *
 *   seconds,channel,bytes,subscribers
 *
 * Empty lines and those that begin with # are left out. seconds is a decimal number, from any beginning. A
 * channel gets as many subscribers as its messages reached on average. Bytes are rounded up to one of four
 * lengths per octave, and to the shortest payload that can be numbered. */
#ifndef BENCH_SHAPE_H
#define BENCH_SHAPE_H

#include <stdio.h>

#include "common/base.h"

#define SHAPE_MESSAGES (4u << 20)
#define SHAPE_CHANNELS 100000u

struct shape_message {
    uint64_t at_ns; /* since the first one */
    uint32_t channel, bytes;
};

struct shape {
    struct shape_message *message;
    uint32_t n, cap;
    uint32_t *subscribers; /* of each channel */
    uint32_t channels;
    uint64_t span_ns;    /* from the first message to the first of the next round: the last's distance added once */
    double deliveries;   /* in a round */
    uint32_t lengthened; /* messages shorter than the shortest payload */
};

/* Reads all of it; `name` for messages. Ends the process in words on a line that makes no sense. */
void shape_read(struct shape *s, FILE *f, const char *name, uint32_t min_bytes, uint32_t max_bytes);
void shape_free(struct shape *s);

#endif
