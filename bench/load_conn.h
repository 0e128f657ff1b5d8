/* The life of a connection of the load generator: opened, upgraded, subscribed, ready, ended. */
#ifndef BENCH_LOAD_CONN_H
#define BENCH_LOAD_CONN_H

#include "bench/load.h"
#include "bench/load_rx.h"

enum load_state {
    LOAD_UNBORN,
    LOAD_CONNECTING,
    LOAD_SECURING,    /* TLS handshake */
    LOAD_UPGRADING,   /* GET sent, response wanted */
    LOAD_SHAKING,     /* connected as the protocol has it: an answer is wanted */
    LOAD_SUBSCRIBING, /* the same of a subscription */
    LOAD_READY,
    LOAD_LEAVING,     /* receive being cancelled, then closed */
    LOAD_DEAD
};

struct load_conn {
    int fd;
    uint8_t state;
    bool subscribes, publishes;
    uint64_t told;    /* slow: messages that notices said are missing */
    bool slow;        /* reads nothing once it is ready */
    bool paused;      /* ... which it is now */
    bool recv_armed;
    bool churns;      /* subscribes and unsubscribes without end */
    bool churn_in;    /* churn: subscribed to churn_group, or asking for it */
    uint32_t churn_group;
    bool gone;        /* slow, and the server has ended it */
    uint8_t pack_bits; /* window for packing what is sent; 0: messages go as they are */
    uint32_t gen;     /* of this socket: completions of an earlier one are dropped */
    uint32_t group;
    struct load_rx rx;
    struct load_tx *tx; /* NULL while a mere subscriber has nothing to send */
    struct tls *tls;    /* NULL without TLS */
    struct pmd_stream *unpack; /* NULL unless the server keeps its window */
    struct seqwin seq;
    uint64_t born_ns;
};

enum load_op { LOAD_OP_CONNECT = 1, LOAD_OP_RECV, LOAD_OP_SEND, LOAD_OP_CANCEL };

#define LOAD_GEN_MASK 0xffffffu

/* Of a completion: the operation, the socket's generation, the connection's index. */
static inline uint64_t
load_conn_tag(const struct load *l, enum load_op op, const struct load_conn *c)
{
    return (uint64_t)op << 56 | (uint64_t)(c->gen & LOAD_GEN_MASK) << 32 | (uint32_t)(c - l->conns);
}

void load_conn_open(struct load *l, struct load_conn *c);
/* Opens as many more as may be in the process of opening. */
void load_conn_open_more(struct load *l);
void load_conn_on_connect(struct load *l, struct load_conn *c, int res);
/* Receives until it is cancelled. */
void load_conn_arm(struct load *l, struct load_conn *c);
/* Goes on with the TLS handshake; true when it is done. */
bool load_conn_secure(struct load *l, struct load_conn *c);
/* The answer to the upgrade is whole; false if nothing behind it is to be read. */
bool load_conn_on_upgrade(struct load *l, struct load_conn *c, const char *head, size_t n);
/* What was asked for last is done. */
void load_conn_on_answer(struct load *l, struct load_conn *c);
/* A connection of a storm has got as far as it should. */
void load_conn_storm_done(struct load *l, struct load_conn *c);
/* Ends a connection that did not get where it should; says why the first time. */
void load_conn_refuse(struct load *l, struct load_conn *c, const char *why, const void *text, size_t n);
/* The server ended a connection. */
void load_conn_ended(struct load *l, struct load_conn *c, const char *how);
/* The receive of a connection that we or the other side ended. */
void load_conn_on_end(struct load *l, struct load_conn *c, int res);
/* The run is over. */
void load_conn_free(struct load_conn *c);

#endif
