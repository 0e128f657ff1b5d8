/* What is said to Redis, in its protocol (RESP2: arrays of strings with their lengths, never inline). hiredis writes all of it
 * but publishes: those are what a broker does all day, their topic and their payload lie in two pieces each, and where
 * they go there is room already. redisFormatCommandArgv would want both joined first and allocates (docs/adr/0013 has
 * the figures). Knows no connection. */
#ifndef BROKER_REDIS_COMMAND_H
#define BROKER_REDIS_COMMAND_H

#include "common/base.h"
#include "common/view.h"

/* Arguments of one command, its verb among them. */
#define REDIS_COMMAND_ARGS 1024

struct redis_command {
    struct view bytes;
};

/* The memory is hiredis' until redis_command_free. False when it is out, or for more arguments, or 1 GiB of them. */
bool redis_command_make(struct redis_command *c, struct view verb, const struct view *args, uint32_t n) MUST_CHECK;
/* Wipes it first: it may have been a password. */
void redis_command_free(struct redis_command *c);

/* A command as its sender knows it. */
struct redis_request {
    uint64_t token;
    struct view topic;   /* of a publish; else none */
    struct view payload; /* the same */
    struct view bytes;   /* the whole command as sent, those two within */
};

/* Bytes of a publish (`verb prefix|name head|body`, three arguments), and those bytes: all in *r but the token, within `out`. */
size_t redis_command_publish_size(struct view verb, size_t topic_n, size_t payload_n);
void redis_command_publish_put(uint8_t *out, struct view verb, struct view prefix, struct view name, struct view head,
    struct view body, struct redis_request *r);

#endif
