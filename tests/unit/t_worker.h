/* A ring thread to test worker/ in: the real struct worker on a real ring, its clients on socket
 * pairs, and three things a test holds in its hand. The clock stands still until t_pass(). In the place of
 * worker/link.c stands a broker that writes down what it is asked and says what it is told to say. And memory
 * may end after so many allocations.
 *
 * A test that includes this file is linked with t_worker.c. Settings go into t.conf before t_begin(). After
 * each test t_teardown() ends every connection and looks that nothing is left: no memory, no gauge. */
#ifndef TESTS_UNIT_T_WORKER_H
#define TESTS_UNIT_T_WORKER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "worker/conn.h"
#include "worker/metrics.h"
#include "worker/subs.h"

#include <cmocka.h>

#define T_BROKERS 4
#define T_DEADLINE_MS 10000

/* What links were asked for and took: one record each, in order. */
enum t_kind {
    T_SUBSCRIBE,
    T_UNSUBSCRIBE,
    T_PUBLISH,
    T_AFTER,
    T_BUSY,
    T_EASED,
    T_KINDS
};

struct t_asked {
    enum t_kind kind;
    unsigned broker;
    uint32_t chan, gen;  /* SUBSCRIBE, UNSUBSCRIBE */
    bool has_call;       /* it waits in the broker's line for an answer */
    bool answered;
    bool has_data;
    struct call call;    /* its call_id points into id */
    char id[CALL_ID_MAX + 1];
    char name[128];      /* of the channel, cut */
    char data[128];      /* of a publish, cut */
    size_t data_n;       /* all of it */
};

struct t_client {
    int fd;              /* -1: closed */
    uint32_t slot, gen;  /* of its connection */
    unsigned cid;        /* last one used */
    bool ended;          /* the worker's half of TCP has ended */
    bool reset;          /* ... by an error */
    struct buf in;       /* received and not looked at */
};

extern struct t_world {
    struct conf conf;
    uint32_t conn_max;
    struct listener listeners[LISTENERS_MAX]; /* the worker's from t_begin on */
    unsigned listen_n;
    bool tls;            /* clients come by a tls:// listener; tls.certificate and tls.key are set */
    struct addrs *addrs;           /* 64 places, made by t_begin */
    _Atomic int stop;
    struct worker *w;
    struct t_asked **asked;
    unsigned asked_n, asked_cap;
    /* Answers of the broker's stand-in to what is asked from now on. */
    enum link_rc says[T_KINDS];    /* LINK_OK at first */
    enum error_id why;             /* ... and the reason of a refusal */
    unsigned publishes_first;      /* so many publishes are LINK_OK before that */
    unsigned not_taken[T_KINDS];   /* how often it was not LINK_OK */
    const char *stopped;           /* link_was_stopped() says yes of this channel */
    bool down[T_BROKERS];          /* link_is_up() says no */
    void (*in_turn)(void);         /* called in the middle of each turn, unless NULL */
    char answer[512];              /* head of the last answer to an upgrade */
} t;

int t_setup(void **state);
int t_teardown(void **state);
#define T(name) cmocka_unit_test_setup_teardown(name, t_setup, t_teardown)

/* The worker, after settings were made. */
void t_begin(void);
/* One turn of it; n turns. */
void t_turn(void);
void t_turns(unsigned n);
/* The clock moves; what is due then happens in the next turn. */
void t_pass(uint64_t ms);
/* Of the time that passes from now on the thread has run so much. */
void t_busy(unsigned percent);
/* The n-th allocation from now fails (1: the next), and all that follow. 0: memory is back. */
void t_memory_ends(unsigned n);
struct mono t_real_time(void);

#define T_UNTIL(cond)                                                                              \
    do {                                                                                           \
        struct mono by_ = mono_add_ms(t_real_time(), T_DEADLINE_MS);                               \
        while (!(cond)) {                                                                          \
            if (mono_reached(t_real_time(), by_))                                                  \
                fail_msg("waited in vain for %s", #cond);                                          \
            t_turn();                                                                              \
        }                                                                                          \
    } while (0)

#define t_counter(name) (t.w->metrics[RM_##name])
#define t_closes(reason) (t.w->metrics[RM_CLOSE_BASE + (reason)])
#define t_verbs(kind) (t.w->metrics[RM_VERB_BASE + (kind)])
#define t_errors(id) (t.w->metrics[RM_ERROR_BASE + (id)])

/* -- clients -- */

/* TCP is there, nothing was said. The worker's end takes `room` bytes before it is full; 0: as usual. */
struct t_client *t_connect(unsigned room);
/* The same on a real TCP connection. */
struct t_client *t_connect_tcp(void);
/* Upgraded on this path. */
struct t_client *t_upgraded(const char *path, unsigned room);
/* The same with header lines of one's own, each ended with CRLF; the head of the answer is in t.answer. */
struct t_client *t_upgraded_with(const char *path, unsigned room, const char *lines);
/* Upgraded and shaken hands with. */
struct t_client *t_open(void);
struct t_client *t_open_narrow(unsigned room);
struct t_client *t_open_tcp(void);
/* Its connection; NULL when that is gone. */
struct conn *t_conn(const struct t_client *c);
/* Raw bytes, all of them, with turns while the worker does not take them. */
void t_send(struct t_client *c, const void *p, size_t n);
/* Raw bytes, as many as there is room for. */
size_t t_try_send(struct t_client *c, const void *p, size_t n);
/* A masked frame; fin unless or-ed with T_MORE; compressed if or-ed with WS_RSV1. */
#define T_MORE 0x100
void t_frame(struct t_client *c, unsigned opcode, const void *p, size_t n);
/* A text message. */
void t_say(struct t_client *c, const char *fmt, ...) PRINTF(2, 3);
/* ... of a subscribe, unsubscribe or publish with the next cid; data is JSON. */
/* Shakes hands. */
void t_shake(struct t_client *c);
void t_say_subscribe(struct t_client *c, const char *channel);
void t_say_unsubscribe(struct t_client *c, const char *channel);
void t_say_publish(struct t_client *c, const char *channel, const char *data);
/* Ends the client's half of TCP; both halves. */
void t_shutdown(struct t_client *c);
void t_close(struct t_client *c);

/* What came meanwhile goes into c->in; no turn. */
void t_receive(struct t_client *c);
/* The next frame must be a text of these words. */
void t_hears(struct t_client *c, const char *fmt, ...) PRINTF(2, 3);
/* ... the success of request cid; the publication of data on channel. */
void t_hears_done(struct t_client *c, unsigned cid);
void t_hears_failed(struct t_client *c, unsigned cid, enum error_id err);
void t_hears_message(struct t_client *c, const char *channel, const char *data);
/* The next frame, whatever it is: its opcode, WS_RSV1 with it if it is compressed; the payload lives until the
 * next call. */
unsigned t_next_frame(struct t_client *c, struct view *payload);
/* The next frame is a Close frame with this code. */
void t_hears_close(struct t_client *c, unsigned code);
/* TCP ends with nothing more said. */
void t_hears_end(struct t_client *c);
/* Nothing comes, whatever the worker does in a few turns. */
void t_hears_nothing(struct t_client *c);
/* Subscribes, is answered by the broker if that is needed, and hears it. */
void t_subscribe(struct t_client *c, const char *channel);

/* -- the broker's stand-in -- */

/* The channel "N/..." belongs to broker N, every other to broker 0. */
/* The last record of a kind (and channel, unless NULL); NULL when there is none. */
struct t_asked *t_last(enum t_kind kind, const char *channel);
unsigned t_count(enum t_kind kind);
/* Requests in the line of a broker. */
unsigned t_waiting(unsigned broker);
/* The outcome of the oldest request in the line of a broker; of all of them. */
void t_answer(unsigned broker, enum error_id err);
void t_answer_all(unsigned broker);
/* A message for a channel as it was last subscribed to; data NULL: without. */
void t_message(const char *channel, const char *data);
/* Messages of it did not come from another host. */
void t_gap(const char *channel, uint64_t count);
/* What links tell of a broker. t_lost fails what waits in its line. */
void t_attached(unsigned broker);
void t_restored(unsigned broker);
void t_missed(unsigned broker);
void t_lost(unsigned broker);
void t_room(unsigned broker);

#endif
