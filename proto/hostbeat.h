/* What brokers of all hosts tell each other about themselves: the body of an envelope of kind HOST (proto/envelope.h). A
 * heartbeat says who a broker is and how loaded; a question asks how many subscribers a channel has, an answer says so.
 * Pure: bytes to struct and back.
 *
 *   a byte that says what it is, then fields: tag, n (varints), n bytes. Those of numbers hold one varint.
 *
 * Fields of tags that this release does not know are skipped, those that are missing are 0 or empty; so releases may
 * add some. Texts are printable ASCII: whoever shows them need not look again. */
#ifndef PROTO_HOSTBEAT_H
#define PROTO_HOSTBEAT_H

#include "common/buf.h"
#include "proto/envelope.h"

enum hostbeat_kind {
    HOSTBEAT_ALIVE = 1,
    HOSTBEAT_LEAVING, /* the last one of a broker that ends in order */
    HOSTBEAT_COUNT,   /* how many subscribers has `channel`, on the hosts of all who hear this? */
    HOSTBEAT_COUNTED, /* the answer to question `ask` of `to` */
    HOSTBEAT_KINDS
};

#define HOSTBEAT_NAME_MAX 64
#define HOSTBEAT_RELEASE_MAX 32
#define HOSTBEAT_CHANNEL_MAX 4096
/* Nothing that hostbeat_put writes is longer. */
#define HOSTBEAT_BYTES_MAX (HOSTBEAT_CHANNEL_MAX + 512)

/* Numbers: HOSTBEAT_NUMBER(tag, name, "sentence"). Tags are never used again. */
#define HOSTBEAT_NUMBERS(HOSTBEAT_NUMBER)                                                                              \
    HOSTBEAT_NUMBER(1, seq, "of this heartbeat, from 1")                                                               \
    HOSTBEAT_NUMBER(2, interval_ms, "until the next one")                                                              \
    HOSTBEAT_NUMBER(3, uptime_s, "of the broker's process")                                                            \
    HOSTBEAT_NUMBER(4, brokers, "of its host")                                                                         \
    HOSTBEAT_NUMBER(5, rings, "attached to it")                                                                        \
    HOSTBEAT_NUMBER(6, connections, "of clients to those rings")                                                       \
    HOSTBEAT_NUMBER(7, channels, "that somebody there wants")                                                          \
    HOSTBEAT_NUMBER(8, published, "messages a second by its clients")                                                  \
    HOSTBEAT_NUMBER(9, delivered, "messages a second to its rings")                                                    \
    HOSTBEAT_NUMBER(10, cpu_permille, "of one processor")                                                              \
    HOSTBEAT_NUMBER(11, ask, "number of a question")                                                                   \
    HOSTBEAT_NUMBER(12, count, "subscribers")                                                                          \
    HOSTBEAT_NUMBER(13, silent, "rings that did not answer in time, so that count is too low")

/* Their tags. */
enum hostbeat_text { HOSTBEAT_NAME = 32, HOSTBEAT_RELEASE = 33, HOSTBEAT_CHANNEL = 34, HOSTBEAT_TO = 35 };

struct hostbeat {
    enum hostbeat_kind kind;
#define HOSTBEAT_NUMBER(tag, name, sentence) uint64_t name;
    HOSTBEAT_NUMBERS(HOSTBEAT_NUMBER)
#undef HOSTBEAT_NUMBER
    struct view name;          /* of the host, as people call it */
    struct view release;
    struct view channel;       /* of a question: any bytes */
    struct envelope_origin to; /* of an answer */
};

/* Appends the body. False when out is full; texts are cut to their bounds, and what cannot be shown of them is '?'. */
bool hostbeat_put(struct buf *out, const struct hostbeat *h) MUST_CHECK;
/* Views point into `in`. False when it is none: of a kind that is not known, cut short, or with values that can't be. */
bool hostbeat_get(struct view in, struct hostbeat *h) MUST_CHECK;

#endif
