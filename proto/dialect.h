/* The contract between a language and the rest: a dialect turns the messages of a connection into
 * verbs (tbl/verbs.def) and events into messages. It knows no channel, no right, no socket, no clock,
 * and allocates nothing but what the given buffers grow.
 *
 * One message may hold several packets, so decoding is a loop the caller may leave and resume:
 *
 *     struct decoding d = {.msg = payload, .text = true};
 *     while ((rc = dialect->decode(state, limits, &d, &verb)) == DECODE_VERB)
 *         ...carry out verb (its views live until the next call)...
 *
 * A whole message is checked before its first verb comes out: what does not parse never takes effect,
 * not even its valid beginning (hardening 7). */
#ifndef PROTO_DIALECT_H
#define PROTO_DIALECT_H

#include "common/base.h"
#include "common/buf.h"
#include "common/view.h"

enum close_reason {
#define CLOSE(name, code, kind, retry, sentence) CLOSE_##name,
#include "proto/tbl/close.def"
#undef CLOSE
    CLOSE_COUNT
};

enum error_id {
    ERR_NONE, /* success */
#define ERROR(id, name, message, when) ERR_##id,
#include "proto/tbl/errors.def"
#undef ERROR
    ERR_COUNT
};

enum verb_kind {
#define VERB(name, states, sentence) VERB_##name,
#include "proto/tbl/verbs.def"
#undef VERB
    VERB_COUNT
};

/* States of a session in which verbs are allowed. */
enum sess_state {
    S_OPENING = 1,
    S_OPEN = 2,
};

/* Number in the Close frame for a reason; 0 when none is sent. */
uint16_t close_code(enum close_reason r);
/* Name in lower case ("slow_queue") and sentence of a reason. */
const char *close_str(enum close_reason r);
const char *close_sentence(enum close_reason r);
const char *error_name(enum error_id e);
/* Name of the row in lower case ("channel_limit"). */
const char *error_str(enum error_id e);
const char *error_message(enum error_id e);
const char *verb_str(enum verb_kind v);
/* Set of enum sess_state in which the verb is allowed. */
unsigned verb_states(enum verb_kind v);

/* Longest text of a call id that is echoed, in bytes. */
#define CALL_ID_MAX 64
/* Longest channel or event name that any setting may allow, in bytes. */
#define NAME_MAX_BYTES 4096

/* What a client asked. Views point into the message or into decoding.names and live until the next
 * call of decode. */
struct verb {
    enum verb_kind kind;
    enum error_id err;         /* REFUSE: why; HANDSHAKE, AUTHENTICATE: what is wrong with the token that
                                * came (to be passed on in the event's err), or ERR_NONE */
    enum close_reason close;   /* CLOSE: why */
    bool has_data;             /* data was there; absent and null differ */
    bool binary;               /* ECHO: the message was binary */
    struct view channel;       /* SUBSCRIBE, UNSUBSCRIBE, PUBLISH: the name's bytes, unescaped UTF-8 */
    struct view event;         /* EVENT, CALL: the name's bytes */
    struct view data;          /* bytes of one valid value, to be forwarded as they are; HANDSHAKE: the
                                * token, if one came */
    struct view call_id;       /* text of the call id, to be echoed; empty: no answer is wanted (and an
                                * ANSWER is to nothing of ours: drop it) */
};

struct dialect_limits {
    uint32_t max_depth;        /* nesting of values */
    uint32_t max_batch;        /* packets in one message */
    uint32_t max_channel_name; /* bytes, at most NAME_MAX_BYTES */
    uint32_t max_event_name;   /* bytes, at most NAME_MAX_BYTES */
};

/* A message on its way through decode. The caller fills msg and text and zeroes the rest; the message
 * must stay where it is until DECODE_END. */
struct decoding {
    struct view msg;
    bool text;                 /* came in text frames */
    /* The dialect's own bookkeeping between calls: */
    uint32_t step;
    uint32_t count;            /* packets seen */
    size_t pos;
    uint8_t names[NAME_MAX_BYTES]; /* unescaped names of the present verb; not zeroed by the caller */
};

enum decode {
    DECODE_VERB, /* *out holds the next verb */
    DECODE_END,  /* the message is used up */
};

/* What a client hears. */
enum event_kind {
    EV_WELCOME,     /* answer to HANDSHAKE: socket, ping_timeout_ms, err (of a token, or ERR_NONE) */
    EV_DONE,        /* a request succeeded: call_id; data if has_data */
    EV_FAILED,      /* a request failed: call_id, err and its arguments */
    EV_PUBLICATION, /* channel, data if has_data */
    EV_PING,        /* the dialect's own ping, if it has one */
    EV_KICKED,      /* dropped from channel by the server */
    EV_GAP,         /* messages of channel, which would stand here, are not delivered: count of them if has_count */
    EV_FORGET_TOKEN, /* the client's token is of no use */
    EV_ECHO,        /* data as it came */
};

struct event {
    enum event_kind kind;
    enum error_id err;
    bool has_data;
    bool text;                 /* EV_ECHO: came as text */
    bool has_count;            /* EV_GAP: the number is known */
    uint32_t ping_timeout_ms;
    uint64_t limit;            /* argument of error messages */
    uint64_t count;            /* EV_GAP */
    struct view channel;
    struct view data;
    struct view call_id;
    struct view socket;        /* session id as clients see it */
};

struct dialect {
    const char *name;
    size_t state_size;         /* bytes of its state in a connection; zeroed at the upgrade */
    bool handshake;            /* sessions begin in S_OPENING and wait for VERB_HANDSHAKE */
    bool pings;                /* EV_PING is sent every ping_interval and silence closes */
    bool text;                 /* messages it sends are text (EV_ECHO excepted: as they came) */
    /* Next verb of the message. Never fails: what cannot be is a verb too (RAW, REFUSE, CLOSE). */
    enum decode (*decode)(void *state, const struct dialect_limits *, struct decoding *, struct verb *out);
    /* Appends the message for an event. False when the language has no word for it (nothing was
     * appended) or out is full (out->failed). An empty message is a message (EV_PING). */
    bool (*encode)(const void *state, const struct event *, struct buf *out);
};

extern const struct dialect dialect_socketcluster, dialect_echo;

#endif
