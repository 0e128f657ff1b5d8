/* What a connection of the load generator receives: pieces of TCP become frames, frames become messages, and a
 * message is a delivery, an answer, or nothing that was expected. */
#ifndef BENCH_LOAD_RX_H
#define BENCH_LOAD_RX_H

#include <liburing.h>

#include "common/base.h"

struct load;
struct load_conn;

/* Bytes whose end has not come. */
struct load_kept {
    uint8_t *p;
    uint32_t n, cap;
};

struct load_rx {
    struct load_kept part; /* the beginning of a frame, or of the response head */
    struct load_kept rest; /* the same of a message inside WebSocket messages */
};

/* A completion of the connection's receive. */
void load_rx_on_recv(struct load *l, struct load_conn *c, const struct io_uring_cqe *cqe);
/* Forgets what was begun; memory stays. */
void load_rx_reset(struct load_rx *rx);
void load_rx_free(struct load_rx *rx);

#endif
