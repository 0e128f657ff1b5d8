/* How many subscribers a channel has: rings of this host are asked by a lane record, brokers of other hosts by a
 * question on the control topic. Who does not answer in time is said, so a sum is never taken for more than it is. Both
 * kinds of question are bounded: TALLY_MAX at a time, and so many answers to other hosts a second. */
#ifndef BROKER_TALLY_H
#define BROKER_TALLY_H

#include "broker/broker.h"
#include "proto/hostbeat.h"

struct ask;
struct peer;

#define TALLY_MAX 16
#define TALLY_WAIT_MS 1000      /* for other hosts */
#define TALLY_RINGS_WAIT_MS 500 /* for our rings */
#define TALLY_ANSWERS_MAX 200   /* to other hosts, a second */

bool tally_init(struct broker *b) MUST_CHECK;
void tally_fini(struct broker *b);
/* An operator's question: answered with ask_done, after TALLY_WAIT_MS at the latest. */
void tally_ask(struct broker *b, struct ask *a, struct view name);
/* A question of another broker, and an answer of one. */
void tally_on_question(struct broker *b, const struct envelope_origin *from, const struct hostbeat *h);
void tally_on_answer(struct broker *b, const struct envelope_origin *from, const struct hostbeat *h);
/* IPC_TALLIED of a ring. */
void tally_on_counted(struct broker *b, const struct peer *p, uint32_t ask, uint32_t count);
/* Each turn: what is complete, or late, is answered. */
void tally_turn(struct broker *b);

#endif
