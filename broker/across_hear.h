/* What this broker hears on the bus (docs/adr/0011): asks for the numbers of others when a channel begins or its link was lost,
 * follows them, and tells what is missing. */
#ifndef BROKER_ACROSS_HEAR_H
#define BROKER_ACROSS_HEAR_H

#include "broker/across.h"

struct across;
struct across_chan;

/* What is to be asked, or asked again. */
void across_hear_asks(struct across *a);
/* How long the next ask can wait, in ms; UINT32_MAX: there is none. */
uint32_t across_hear_wait_ms(const struct across *a);
/* Channels whose link was lost: who has not been heard of since? */
void across_hear_judge(struct across *a);
void across_hear_on_message(void *broker, struct bus_topic topic, struct view bytes);
void across_hear_on_joined(void *broker, struct bus_topic topic);
void across_hear_on_lost(void *broker, struct bus_topic topic);
/* The channel ends. */
void across_hear_forget(struct across *a, struct across_chan *ac);

#endif
