/* All links of a broker to Redis servers, on its ring (broker/redis_link.h: one of them): what they share, their
 * turn, their completions. */
#ifndef BROKER_REDIS_IO_H
#define BROKER_REDIS_IO_H

#include "broker/redis_link.h"
#include "common/conf.h"
#include "common/mono.h"
#include "common/ring.h"

/* Both kinds to each of 1000 primaries of a cluster. */
#define REDIS_LINKS_MAX 2048

struct resolve;
struct tlsc_shared;

struct redis_io {
    const struct conf *conf;
    struct ring *ring;
    uint64_t *metrics;
    struct mono now;            /* of the last turn */
    struct tlsc_shared *tls;    /* made when the first rediss:// is met */
    struct resolve *resolve;    /* NULL: no name was met in the settings */
    struct redisurl login;      /* user and password for URLs without */
    char name[32];
    uint64_t random;            /* state of the jitter's generator */
    uint32_t up;                /* links */
    uint32_t used;              /* slots below this may hold one */
    uint32_t gens;              /* of links, so that no completion meets another's */
    struct redis_link *links[REDIS_LINKS_MAX];
};

/* Reads what the settings say of TLS and passwords. NULL with a sentence in err. `name` is told to the servers by CLIENT
 * SETNAME: printable, no blanks. */
struct redis_io *redis_io_open(const struct conf *, struct ring *, uint64_t *metrics, const char *name,
    struct conf_error *err) MUST_CHECK;
/* Ends all links; waits for the kernel to let go of their memory, at most a second, and takes completions of the ring
 * meanwhile: nobody else may be waiting for one. */
void redis_io_close(struct redis_io *);
/* End of a turn: what was asked for goes out, one send for each link; deadlines. After how many ms to call again. */
uint32_t redis_io_turn(struct redis_io *, struct mono now);
void redis_io_on_done(struct redis_io *, struct ring_done);
/* A number below `n`, for jitter; not for secrets. */
uint64_t redis_io_random(struct redis_io *, uint64_t n);
/* For start-up: the first line of a file, without its end. */
bool redis_io_password(const char *setting, const char *path, char out[REDISURL_PASSWORD], struct conf_error *err) MUST_CHECK;
/* A URL of the settings with user and password from redis.user, redis.password_file where it has none itself. For
 * start-up: reads the files of TLS, starts what resolves names, if it needs them. */
bool redis_io_where(struct redis_io *, struct view url, struct redisurl *out, struct conf_error *err) MUST_CHECK;

#endif
