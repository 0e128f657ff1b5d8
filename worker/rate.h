/* How much a client may ask for: token buckets per connection and per client address, and what happens when
 * one is empty: reading stops until there is more (delay), the request fails (error), or the connection
 * ends (close).
 *
 * A bucket is one number, the time at which it will be full again ("theoretical arrival time" of the
 * generic cell rate algorithm, ITU-T I.371): taking n moves it by n / rate; the bucket is empty when it
 * lies rate.burst ahead of now. Nothing has to be filled by a timer, and a bucket nobody uses is full. */
#ifndef WORKER_RATE_H
#define WORKER_RATE_H

#include "common/mono.h"
#include "worker/addrs.h"

struct worker;
struct conn;

/* What is measured of a connection and of an address; an address's connects are client.c's. */
enum rate_kind {
    RATE_PACKETS,
    RATE_BYTES,
    RATE_SUBSCRIBES,
    RATE_KINDS,
};

enum rate_answer {
    RATE_DELAY,
    RATE_ERROR,
    RATE_CLOSE,
};

/* The settings, as they are used; one per ring, read again now and then. */
struct rates {
    bool on;                            /* any of the two below */
    uint64_t conn[RATE_KINDS];          /* per second; 0: no limit */
    uint64_t addr[RATE_KINDS];
    uint64_t connects;                  /* of an address, per second */
    uint64_t burst_ns;
    uint32_t delay_ticks;               /* longest stop of reading; 0: without end */
    enum rate_answer answer[RATE_KINDS];
};

/* The buckets of a connection, made when it first needs one; the connection's. */
struct meter {
    uint64_t full_at[RATE_KINDS];       /* ns */
    /* How long reading was stopped, less how long it was not: what rate.delay bounds. */
    uint32_t stopped;                   /* ticks, up to `since` */
    uint32_t since;                     /* tick of the last stop or resume */
    uint32_t until;                     /* tick at which reading goes on, while PAUSE_RATE */
    bool bytes_over;                    /* rate.byte_answer=error: what came last was above, and requests in it fail */
    bool message_over;                  /* so was a part of the message that is under way: its end does not make up for it */
};

/* ---- arithmetic ---- */

/* Time that n of what is allowed `per_second` times take. */
uint64_t rate_cost(uint64_t n, uint64_t per_second);
/* Whether a bucket gives `cost` at once. A full one gives anything. */
bool rate_has(uint64_t full_at, uint64_t now, uint64_t burst, uint64_t cost);
/* Takes it, be it that the bucket owes it; returns how long until it owes nothing. */
uint64_t rate_take(uint64_t *full_at, uint64_t now, uint64_t burst, uint64_t cost);

/* ---- connections ---- */

void rates_read(struct worker *w);
/* Before something is done: whether it may be. False when its answer is to be an error, or when the
 * connection was closed just now. */
bool rate_admits(struct worker *w, struct conn *c, enum rate_kind kind);
/* It was done: n are taken, and reading stops if that was too many. */
void rate_charge(struct worker *w, struct conn *c, enum rate_kind kind, uint64_t n);
/* n bytes have come: the same for them. False when the connection was closed. */
bool rate_bytes(struct worker *w, struct conn *c, uint64_t n);
/* Whether requests of this connection fail because it sent too many bytes. */
bool rate_is_over(const struct conn *c);
/* A message is used up; what follows begins anew. */
void rate_message_done(struct conn *c);
/* The timer: goes on reading if it is time. */
void rate_on_timer(struct worker *w, struct conn *c);

#endif
