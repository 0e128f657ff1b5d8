/* The floors: what the kernel asks for the same deliveries when nobody thinks about them. A child
 * process of its own, pinned to the server's core, takes whole frames from one TCP connection and
 * sends each to N others. Same bytes, same sockets, same load generator, same measuring. */
#ifndef BENCH_FLOOR_H
#define BENCH_FLOOR_H

#include <netinet/in.h>
#include <sys/types.h>

#include "bench/opt.h"

struct floor_child {
    pid_t pid;
    struct sockaddr_in subscribers; /* N connections are expected here ... */
    struct sockaddr_in publisher;   /* ... and one here */
};

/* Call before the process has a ring or threads. frame_bytes: size of one delivery. */
struct floor_child floor_start(const struct opt *o, uint32_t frame_bytes);
/* Ends and reaps the child. */
void floor_stop(struct floor_child *c);

#endif
