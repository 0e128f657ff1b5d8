/* Replies of Redis (RESP2), taken apart within bounds: nothing that a server says makes it take more memory than
 * redis.max_bulk and redis.max_array allow, go deeper than redis.max_depth, or look at bytes twice. Parsed by hiredis'
 * redisReader. Knows no connection. */
#ifndef BROKER_REDIS_REPLY_H
#define BROKER_REDIS_REPLY_H

#include "common/base.h"
#include "common/view.h"

#define REDIS_DEPTH_MAX 7 /* redisReader's own bound */

enum redis_kind { REDIS_STRING, REDIS_ARRAY, REDIS_INTEGER, REDIS_NIL, REDIS_STATUS, REDIS_ERROR };

struct redis_value {
    enum redis_kind kind;
    struct view text; /* of a string, a status, an error */
    int64_t n;        /* an integer; of an array, its elements */
};

/* An array stands before its elements, each with all that is in it: [a, [b, c], d] is ARRAY 3, a, ARRAY 2, b, c, d. */
struct redis_reply {
    const struct redis_value *v; /* [0] is the whole */
    uint32_t n;                  /* at least 1 */
};
/* The index behind value i and all that is in it. */
uint32_t redis_reply_next(const struct redis_reply *, uint32_t i);
/* Whether value i is a string or status of these bytes, whatever the case of its letters. */
bool redis_reply_is(const struct redis_reply *, uint32_t i, struct view text);

struct redis_reply_bounds {
    size_t max_bulk;    /* bytes of one string; all strings of a reply together take no more than this and 64 KiB */
    uint32_t max_array; /* values of one reply, arrays themselves not counted */
    unsigned max_depth; /* 1: arrays of plain values */
};

struct redis_reply_reader;
struct redis_reply_reader *redis_reply_reader_new(const struct redis_reply_bounds *) MUST_CHECK;
void redis_reply_reader_free(struct redis_reply_reader *);
/* Calls `fn` for each reply that is whole now; its views live until it returns. It says whether to go on. False with a
 * phrase in *why when the bytes are no replies or pass a bound: nothing more can be read from this connection. */
bool redis_reply_reader_feed(struct redis_reply_reader *, struct view bytes,
    bool (*fn)(void *arg, const struct redis_reply *), void *arg, const char **why) MUST_CHECK;

#endif
