/* One client's TCP connection, from accept to close: its states, its input, its timer, its end.
 * An idle connection is this struct and nothing else: what a frame on its way or a queue needs hangs
 * behind pointers that are NULL when idle. */
#ifndef WORKER_CONN_H
#define WORKER_CONN_H

#include "common/buf.h"
#include "common/wheel.h"
#include "proto/ws.h"
#include "worker/rate.h"
#include "worker/segq.h"
#include "worker/tls.h"
#include "worker/worker.h"

/* State, and what is legal next. conn_to() is the only door. */
#define CONN_STATES(X)                                                                             \
    X(PROXY, "waiting for the PROXY header of a balancer")                                         \
    X(TLS, "shaking hands in TLS")                                                                 \
    X(HTTP, "reading a request head")                                                              \
    X(OPEN, "speaking WebSocket")                                                                  \
    X(CLOSING, "our Close frame or last answer is on its way out")                                 \
    X(LINGER, "all sent, FIN sent, waiting for the client's end of TCP")                           \
    X(DEAD, "waiting for operations in flight to come home")

enum conn_state {
#define X(name, sentence) CONN_##name,
    CONN_STATES(X)
#undef X
};

/* Why a connection is not read from. Bits of conn.pause. */
enum conn_pause {
    PAUSE_LINK = 1,    /* a lane is full, or its channel stopped: on worker.waiting */
    PAUSE_OUTPUT = 2,  /* its own answers wait for it */
    PAUSE_TURN = 4,    /* its share of the turn was used up: on worker.ready */
    PAUSE_ANSWERS = 8, /* an answer must not overtake those a broker owes it */
    PAUSE_RATE = 16,   /* a bucket is empty: until meter.until */
    PAUSE_FAN = 32,    /* the ring has too much to send: on worker.fan_waiting */
};

enum conn_flag {
    CF_DIRTY = 1,         /* on worker.dirty */
    CF_URGENT = 1u << 21, /* on worker.urgent */
    CF_SENDING = 2,       /* a send is in flight */
    CF_POLLOUT = 4,       /* waiting for writability */
    CF_RECV = 8,          /* a receive is armed */
    CF_RECV_CANCEL = 16,  /* its cancellation was asked for */
    CF_SLOW = 32,         /* the kernel took less than it was given */
    CF_DOOMED = 64,       /* on worker.doomed */
    CF_CLOSE_SENT = 128,  /* a Close frame is in the queue or gone */
    CF_EOF = 256,         /* the client ended its half of TCP */
    CF_UNSHAKEN = 512,    /* on worker.unshaken */
    CF_WAITING = 1024,    /* on worker.waiting of wait_broker */
    CF_READY = 2048,      /* on worker.ready */
    CF_NOTED = 4096,      /* its end has been counted and logged */
    CF_TLS = 8192,        /* of a listener that speaks TLS */
    CF_TLS_WAITS = 16384, /* on worker.tls_waiting */
    CF_PROMPT = 32768,    /* an answer of its own waits, so pacing does not hold it back */
    CF_PACED = 65536,     /* on worker.paced */
    CF_NO_GAPS = 1u << 22, /* of a listener with ?gaps=off: it is told of no gap */
    CF_OVER = 1u << 20,   /* its address has too many connections: the request gets 429 */
};

/* Input that is not whole: exists while a head, a frame or a message is on its way, or held over. */
struct conn_in {
    struct ws_reader reader;
    uint8_t control[128];
    struct buf msg;          /* payload of the message so far; the HTTP head before the upgrade */
    struct deflate_reader *inflating; /* the stream of a large compressed message; msg is what came out of it */
    uint32_t utf8;           /* ... and how far its text was valid */
    struct buf held;         /* bytes received while paused */
    size_t held_at;          /* first of them not yet processed */
    size_t http_pos;
    uint32_t began;          /* tick of the first byte of the message or head */
    uint8_t pong_n;          /* payload of the newest ping that a slow client has not been answered */
    bool pong;
    uint8_t pong_data[125];
    bool stalled;            /* msg is whole and being decoded: resume at step, count, pos */
    bool text;
    uint32_t step, count;
    size_t pos;
};

/* Subscription of a connection: its channel and where it stands in the channel's list. */
struct sub {
    uint32_t chan, pos;
};

#define SUBS_INLINE 2
struct sub_table; /* worker/subs.c */
struct deflate_reader;
struct pmd_own;

struct conn {
    struct pool_head head;
    int fd;
    uint32_t flags;         /* enum conn_flag */
    uint8_t state;          /* enum conn_state */
    uint8_t pause;          /* enum conn_pause */
    uint16_t inflight;      /* operations whose completion has not come */
    uint8_t flavour;        /* enum pmd_flavour: how what is sent is packed; PMD_PLAIN: RSV1 is an error */
    /* Output */
    struct segq out;        /* whole frames, the first perhaps in part (worker/outq.h) */
    struct tls_conn *tls;   /* NULL: plain, or no whole record has come yet */
    /* Up to here is a cache line, and all that queueing a delivery touches; what its completion looks at is in the next. */
    uint32_t sent_in;       /* round of pacing it was last sent to in */
    uint32_t behind;        /* first of its subscriptions that are behind: slot of the laggard + 1; 0: none */
    uint32_t frame_left;    /* bytes at the front of the queue that end a frame the client has in part */
    uint32_t stall_at;      /* tick since which nothing was taken; while CF_SLOW */
    /* Input */
    struct conn_in *in;
    struct timer timer;
    uint32_t deadline;      /* of the present state: head, handshake, next ping, end of closing */
    uint32_t heard_at;      /* tick of the last input */
    uint64_t control_ns;    /* bucket of ws.control_rate: when all that came would have been due */
    uint32_t turn_bytes;    /* input processed in turn turn_at */
    uint32_t turn_at;
    uint16_t turn_packets;
    uint16_t heavy;         /* what its publishes that brokers have not answered cost to hand out (fan_units) */
    /* Session */
    uint8_t dialect;        /* index into dialects[]; 0: not upgraded */
    uint8_t sess;           /* enum sess_state */
    uint8_t reason;         /* enum close_reason, from CLOSING on, or once doomed */
    uint8_t wait_broker;    /* whose room it waits for, while CF_WAITING */
    uint8_t asked_broker;   /* who owes the pending answers */
    uint16_t pending;       /* requests a broker has not answered */
    uint32_t invalid;       /* messages that did not parse, in the minute from invalid_at */
    uint32_t invalid_at;
    uint8_t dstate[4];      /* the dialect's own */
    uint8_t id[15];         /* session id, before base64 */
    struct addr client;     /* who it is: the other end of TCP, or whom a trusted proxy names */
    uint32_t place;         /* ... and its place in worker.addrs; ADDRS_NONE: not counted */
    struct meter *meter;    /* its buckets; NULL: none was needed yet */
    /* Subscriptions */
    uint32_t sub_count;
    union {
        struct sub inline_subs[SUBS_INLINE];
        struct sub_table *table; /* sub_count > SUBS_INLINE, or was */
    };
    bool has_table;
    struct pmd_own *own;    /* streams of its own, what it let us inflate; NULL: nothing of that (worker/pmd.h) */
    /* Links of the queue it stands in: unshaken, or waiting (never both: who waits is shaken). */
    uint32_t next, prev;
};

_Static_assert(sizeof(struct conn) <= 256, "an idle connection is four cache lines");

/* conn.c: life */
void conn_to(struct conn *c, enum conn_state to);
void conn_new(struct worker *w, const struct listener *l, int fd);
void conn_on_recv(struct worker *w, struct conn *c, struct ring_done d);
void conn_on_send(struct worker *w, struct conn *c, struct ring_done d);
void conn_on_pollout(struct worker *w, struct conn *c, struct ring_done d);
void conn_on_timer(struct worker *w, struct conn *c);
/* Plain text from the client, from the socket or out of its TLS records; may be overwritten. */
void conn_plain(struct worker *w, struct conn *c, uint8_t *p, size_t n);
/* The client ended its half. What it asked before is answered, then TCP ends. */
void conn_on_eof(struct worker *w, struct conn *c);
/* The only way a connection ends: sends the Close frame of the reason (or none), stops its input,
 * drops its subscriptions, and sees that TCP ends. Safe to call twice; the first reason counts. */
void conn_close(struct worker *w, struct conn *c, enum close_reason reason);
/* The same with the code and reason the client sent, echoed. */
void conn_close_echo(struct worker *w, struct conn *c, uint16_t code, struct view reason);
/* After an HTTP answer was queued: send, FIN, linger. */
void conn_finish(struct worker *w, struct conn *c, enum close_reason reason);
/* TCP ends now. `reset`: without the kernel keeping what is unsent. */
void conn_abort(struct worker *w, struct conn *c, bool reset);
/* The same, with a reset, because an orderly stop ran out of time. */
void conn_force(struct worker *w, struct conn *c);
void conn_pause(struct worker *w, struct conn *c, enum conn_pause why);
void conn_resume(struct worker *w, struct conn *c, enum conn_pause why);
/* Whether the connection's share of this turn is used up; pauses it if so. */
bool conn_turn_over(struct worker *w, struct conn *c);
/* Sets the timer to the earliest of the connection's deadlines. */
void conn_arm_timer(struct worker *w, struct conn *c);
void conn_shaken(struct worker *w, struct conn *c);
/* Off the list of those that have not finished their handshake. */
void conn_leave_unshaken(struct worker *w, struct conn *c);
/* Works on held input and stalled messages; for worker.ready and resumes. */
void conn_continue(struct worker *w, struct conn *c);
void conn_rearm(struct worker *w, struct conn *c);
/* The input record, made when needed. NULL when memory is out (the connection is then closing). */
struct conn_in *conn_in(struct worker *w, struct conn *c);
void conn_in_done(struct worker *w, struct conn *c);
/* Appends to buf within the worker's account. */
bool conn_keep(struct worker *w, struct buf *b, const uint8_t *p, size_t n);
void conn_forget(struct worker *w, struct buf *b);
void conn_destroy(struct worker *w, struct conn *c);
/* Bytes of the frame of ours that begins at p. */
uint32_t conn_frame_size(const uint8_t *p);
/* ... and of what it carries. */
uint32_t conn_payload_size(const uint8_t *p);

/* pool_at and pool_slot with a size that the compiler knows: a shift in place of a division, several times for each
 * delivery. */
static inline struct conn *
conn_at(const struct worker *w, uint32_t slot)
{
    return (struct conn *)(void *)w->conns.mem + slot;
}

static inline uint32_t
conn_slot(const struct worker *w, const struct conn *c)
{
    return (uint32_t)(c - (const struct conn *)(const void *)w->conns.mem);
}

void queue_append(struct worker *w, struct slot_queue *q, struct conn *c);
void queue_remove(struct worker *w, struct slot_queue *q, struct conn *c);

/* xp_http.c, xp_ws.c: how bytes become requests and messages. Process [p, p+n), which may be
 * overwritten; return how many bytes were used (less than n only when the connection got paused). */
size_t xp_http_input(struct worker *w, struct conn *c, uint8_t *p, size_t n);
size_t xp_ws_input(struct worker *w, struct conn *c, uint8_t *p, size_t n);
/* Goes on with a message whose decoding was left. */
void xp_ws_resume(struct worker *w, struct conn *c);

/* The dialects, by number; 0 is none. */
extern const struct dialect *const dialects[];
extern const unsigned dialect_count;

#endif
