/* Questions of operators (`ringcast hosts`, `ringcast occupancy`), asked on the socket that rings attach to: a short
 * text instead of a greeting, an answer in lines, and the end. They are few and never urgent: of more than ASK_MAX at a
 * time the others are hung up on, and so is who does not take its answer.
 *
 * hosts             who is heard over the bus: broker/hosts
 * bus               how the bus and its servers are
 * occupancy NAME    how many subscribers a channel has: broker/tally
 */
#ifndef BROKER_ASK_H
#define BROKER_ASK_H

#include "broker/broker.h"
#include "common/buf.h"

#define ASK_MAX 16
#define ASK_ANSWER_MAX (1u << 20) /* bytes: 1024 hosts in some 260 each */

struct ask {
    struct pool_head head;
    int fd;
    uint16_t inflight;
    bool whole; /* the answer is: hang up once it is sent */
    bool gone;
    struct mono since;
    struct buf out;
    size_t at;  /* first byte not yet sent */
};

bool ask_init(struct broker *b) MUST_CHECK;
void ask_fini(struct broker *b);
/* Whether what waits on a new connection is a question. */
bool ask_is_one(int fd);
/* Takes the connection over and answers, at once or later. */
void ask_take(struct broker *b, int fd);
void ask_on_writable(struct broker *b, struct ask *a, struct ring_done d);
/* Once in a while: who takes too long is hung up on. */
void ask_tick(struct broker *b);

/* -- for who answers -- */

/* Appends to an answer. */
void ask_say(struct ask *a, const char *fmt, ...) PRINTF(2, 3);
/* That was all. May free it. */
void ask_done(struct broker *b, struct ask *a);
/* After its last operation came home. */
void ask_free(struct broker *b, struct ask *a);

static inline struct ask *
ask_find(const struct broker *b, uint32_t slot, uint32_t gen)
{
    struct ask *a = pool_find(&b->asks, slot, gen);
    return a != NULL && !a->gone ? a : NULL;
}

#endif
