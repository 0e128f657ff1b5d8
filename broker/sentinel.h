/* Which server is the primary of a set that Redis Sentinel watches. Asks the sentinels, in turn until one answers, listens for
 * +switch-master, and believes only what says of itself that it is a primary (ROLE): the address is told when it does, and
 * told to be left when it does no more. Links to it are its user's. */
#ifndef BROKER_SENTINEL_H
#define BROKER_SENTINEL_H

#include "broker/redis_io.h"

struct sentinel;

struct sentinel_ears {
    /* From now on this is the primary. */
    void (*on_primary)(void *arg, const struct redisurl *where);
    /* It is none any more; another will be told. */
    void (*on_demoted)(void *arg);
};

/* redis.url are the sentinels, with users and passwords of their own (or redis.sentinel_user and
 * redis.sentinel_password_file); redis.user and redis.password_file are for the servers
 * they watch. NULL with a sentence in err. */
struct sentinel *sentinel_open(const struct conf *, struct redis_io *, uint64_t *metrics, const struct sentinel_ears *, void *arg,
    struct conf_error *err);
void sentinel_close(struct sentinel *);
/* Before the turn of the links. After how many ms to call again. */
uint32_t sentinel_turn(struct sentinel *, struct mono now);
/* The primary does not answer: the sentinels are asked soon. */
void sentinel_hurry(struct sentinel *);

#endif
