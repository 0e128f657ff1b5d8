/* The bytes of a run: what clients send, what they expect. Everything but the number and the time
 * stamp is made once; a delivery is recognised by comparing bytes, no JSON is taken apart.
 *
 * Payload, P characters of text: 16 hex digits sequence, '-', 16 hex digits nanoseconds of
 * CLOCK_MONOTONIC when the message was due, '-', filler. */
#ifndef BENCH_FRAME_H
#define BENCH_FRAME_H

#include "common/base.h"

#define FRAME_MIN_PAYLOAD 34
#define FRAME_MAX_PAYLOAD 60000
#define FRAME_SEQ_AT 0
#define FRAME_TIME_AT 17

/* One channel's frames. */
struct frame_pair {
    uint8_t *out;       /* a whole publish, masked, as a client sends it */
    uint32_t out_n;
    uint32_t out_stamp; /* where in out the payload begins */
    uint8_t *in;        /* a whole delivery, as the server sends it */
    uint32_t in_n;
    uint32_t in_stamp;
};

/* payload in FRAME_MIN_PAYLOAD..FRAME_MAX_PAYLOAD. With raw, `out` is the delivery itself: what the
 * floors are given, so that they have nothing to do but send. */
void frame_pair_make(struct frame_pair *f, const char *channel, uint32_t payload, bool raw);
void frame_pair_free(struct frame_pair *f);

/* Writes a publish with this number and time stamp to `to` (out_n bytes). */
void frame_publish(const struct frame_pair *f, uint8_t *to, uint64_t seq, uint64_t ns);

/* Is this (in_n bytes) a delivery on the channel? Then its number and time stamp. */
bool frame_is_delivery(const struct frame_pair *f, const uint8_t *p, uint64_t *seq, uint64_t *ns);

/* A masked text frame around text, at `to` (n + 14 bytes are enough); returns its length. */
uint32_t frame_text(uint8_t *to, const char *text, size_t n);

/* Header of a server's frame: 0 when more bytes are needed, -1 when a server may not send it, else
 * the header's length, with the payload's length and the opcode. */
int frame_head(const uint8_t *p, size_t n, uint64_t *payload, uint8_t *opcode);

/* 16 lower-case hex digits. */
uint64_t frame_unhex(const uint8_t *p);
void frame_hex(uint8_t *p, uint64_t v);

#endif
