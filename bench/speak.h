/* What the load generator says to servers of one make, and how it understands them: the seam behind
 * which the protocols live. One object per protocol, pure functions, nothing allocated. A protocol
 * says bytes; the load generator wraps them (a WebSocket message, or nothing on a bare stream),
 * sends them and cuts what comes back.
 *
 * A conversation: the connection stands (upgraded, if it is WebSocket), open is said and answered,
 * subscribe is said and answered. Deliveries are recognised by comparing bytes with what `packet`
 * makes of the same payload; only what is no delivery reaches `hear`. */
#ifndef BENCH_SPEAK_H
#define BENCH_SPEAK_H

#include "common/base.h"

#define SPEAK_MAX 512 /* bytes of anything but a packet */

enum speak_word {
    SPEAK_OTHER,  /* none of what follows */
    SPEAK_DONE,   /* what was asked for last is done: opened, subscribed, unsubscribed */
    SPEAK_PING,   /* a sign of life is wanted: the reply */
    SPEAK_NOTED,  /* no matter; the reply, if there is one, is to be sent */
    SPEAK_FAILED, /* what was asked for last is refused */
};

struct speak_reply {
    bool any;
    bool as_text; /* a text message even where the protocol speaks binary ones */
    const char *bytes;
    size_t n;
};

/* Texts of a server that has no protocol but "send this, expect that" (speak_ws). {channel} and
 * {payload} are replaced. "" for an answer: none comes. */
struct speak_template {
    const char *subscribe, *subscribed, *unsubscribe, *unsubscribed;
    const char *publish, *message;
    const char *ignore; /* messages that begin so mean nothing; "": none do */
};

struct speak_payload {
    const char *p;
    size_t n;
    bool quoted; /* a string: protocols of JSON put it in quotes, a JSON object stands bare */
};

struct speak;

/* A protocol and its settings. */
struct speak_conf {
    const struct speak *as;
    struct speak_template texts;
};

struct speak {
    const char *name;
    const char *subprotocol; /* of the WebSocket; NULL: none is asked for */
    bool binary;             /* WebSocket messages are binary */
    bool json;               /* payloads may be JSON objects */
    bool opens;              /* an answer precedes subscriptions, whoever speaks first */
    /* NULL: a WebSocket message is a message. Else messages are cut from a stream of bytes, on a bare
     * connection or inside WebSocket messages of any size: length of the first at p, 0 when more
     * bytes are needed, SIZE_MAX when no server may send this. */
    size_t (*cut)(const uint8_t *p, size_t n);
    /* Each writes at most SPEAK_MAX bytes to `to` and returns how many; 0: nothing is said, and nothing
     * is answered. */
    size_t (*open)(char *to);
    size_t (*subscribe)(const struct speak_conf *conf, const char *channel, char *to);
    size_t (*unsubscribe)(const struct speak_conf *conf, const char *channel, char *to);
    /* False: no answer comes to a subscribe that was said. */
    bool (*answers)(const struct speak_conf *conf);
    /* A publish as the client says it, or the delivery as a subscriber hears it, at `to`, which has
     * room for speak_room(); the place of the payload in it goes to *at. */
    size_t (*packet)(const struct speak_conf *conf, const char *channel, const struct speak_payload *payload,
        bool delivery, char *to, size_t *at);
    enum speak_word (*hear)(const struct speak_conf *conf, const uint8_t *p, size_t n, struct speak_reply *reply);
};

extern const struct speak speak_sc, speak_minbin, speak_ws, speak_sio, speak_nats, speak_mqtt;

/* By name; NULL if there is none. */
const struct speak *speak_find(const char *name);
/* All names, for messages. */
const char *speak_names(void);
/* Bytes that suffice for a packet. */
size_t speak_room(const struct speak_conf *conf, const char *channel, size_t payload);

/* For the protocols: p, n at `to`, whose next place is returned. */
char *speak_put(char *to, const void *p, size_t n);
/* printf into SPEAK_MAX bytes. */
size_t speak_print(char *to, const char *format, ...) PRINTF(2, 3);
/* Does the message begin with this text? */
bool speak_begins(const uint8_t *p, size_t n, const char *text);
/* A payload in quotes, if it wants them; its place goes to *at. */
char *speak_put_json(char *to, const char *begin, const struct speak_payload *payload, size_t *at);

#endif
