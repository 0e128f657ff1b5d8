/* What this broker says on the bus (docs/adr/0011): numbers of its own per channel, marks for who asks for them, what became
 * of what was said, and own messages that are to come back before they are delivered (bus.order). */
#ifndef BROKER_ACROSS_SAY_H
#define BROKER_ACROSS_SAY_H

#include "broker/across.h"

struct across;
struct across_chan;

/* Hands an envelope to the bus; token comes back with its fate. False: there is no room. */
bool across_say(struct across *a, struct bus_topic t, const struct envelope *e, struct view body, uint64_t token);
/* This process lives: how long it did not tells what it may have missed. */
void across_say_awake(struct across *a);
/* Marks for who asked and for what was dropped; and for channels that have been quiet for a heartbeat. */
void across_say_marks_due(struct across *a);
void across_say_marks_quiet(struct across *a);
/* across_publish, once it may. */
enum across_rc across_say_publish(struct across *a, struct peer *p, struct view name, bool has_data, struct view data,
    bool wants_answer, enum error_id *err) MUST_CHECK;
void across_say_on_fate(void *broker, struct bus_topic topic, uint64_t token, enum bus_fate fate);
/* The bus has not said what became of a message (a record of a->pubs), or not sent it back. */
void across_say_late(struct across *a, uint64_t at);
/* Delivers own messages up to this number: they have come back, or will not, or not in time. */
void across_say_echoes(struct across *a, struct across_chan *ac, uint64_t upto);
/* The channel ends: nobody hears them. */
void across_say_forget(struct across *a, struct across_chan *ac);

#endif
