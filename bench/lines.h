/* Lines of text over a TCP connection between the processes of a run: what a coordinator and its agents
 * say to each other. Lines end with LF and hold at most LINES_MAX bytes. */
#ifndef BENCH_LINES_H
#define BENCH_LINES_H

#include "common/base.h"

#define LINES_MAX (256 * 1024)

struct lines {
    int fd;
    bool ended; /* the other side is gone */
    char *buf;
    uint32_t n, taken; /* bytes in buf, and those of them the last line was */
};

void lines_init(struct lines *l, int fd);
void lines_free(struct lines *l);
/* The next line without its end, waiting so many ns at most; NULL if none came, or l->ended. It is good until the
 * next call. */
char *lines_take(struct lines *l, uint64_t wait_ns);
/* A line, whole; false if the other side is gone. */
bool lines_say(struct lines *l, const char *format, ...) PRINTF(2, 3);

#endif
