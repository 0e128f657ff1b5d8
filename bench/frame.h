/* The bytes of a run: what clients send, what they expect. Everything but the number and the time
 * stamp is made once; a delivery is recognised by comparing bytes, no JSON is taken apart.
 *
 * Two kinds of payload. Text, P characters in quotes: 16 hex digits sequence, '-', 16 hex digits
 * nanoseconds of CLOCK_MONOTONIC when the message was due, '-', filler. JSON, an object of P
 * characters: the same two numbers as members, then rows of different names and prices, which
 * compress about as an application's messages do (the filler of text would vanish). */
#ifndef BENCH_FRAME_H
#define BENCH_FRAME_H

#include "common/base.h"

#define FRAME_MIN_PAYLOAD 34
#define FRAME_MIN_JSON 96
#define FRAME_MAX_PAYLOAD 60000

enum frame_kind { FRAME_TEXT, FRAME_JSON };

/* One channel's frames. Offsets count from the beginning of the packet's text, which publish and
 * delivery have in common. */
struct frame_pair {
    uint8_t *out; /* a whole publish, masked, as a client sends it */
    uint32_t out_n;
    uint8_t *in; /* a whole delivery, as the server sends it */
    uint32_t in_n;
    uint32_t text_n;
    uint32_t seq_at, time_at; /* 16 hex digits each; seq_at < time_at */
};

/* payload in FRAME_MIN_PAYLOAD (JSON: FRAME_MIN_JSON)..FRAME_MAX_PAYLOAD. With raw, `out` is the
 * delivery itself: what the floors are given, so that they have nothing to do but send. */
void frame_pair_make(struct frame_pair *f, const char *channel, enum frame_kind kind, uint32_t payload, bool raw);
void frame_pair_free(struct frame_pair *f);

/* Writes a publish with this number and time stamp to `to` (out_n bytes). */
void frame_publish(const struct frame_pair *f, uint8_t *to, uint64_t seq, uint64_t ns);

/* The same without header and mask, text_n bytes: for those who pack it first. */
void frame_stamp(const struct frame_pair *f, uint8_t *to, uint64_t seq, uint64_t ns);

/* Is this text a delivery on the channel? Then its number and time stamp. */
bool frame_is_delivery(const struct frame_pair *f, const uint8_t *text, size_t n, uint64_t *seq, uint64_t *ns);

/* A masked text frame around text, at `to` (n + 14 bytes are enough); returns its length. */
uint32_t frame_text(uint8_t *to, const char *text, size_t n);
/* The same with RSV1 set: the text is packed (RFC 7692 section 6). n is 65535 at most. */
uint32_t frame_packed(uint8_t *to, const uint8_t *packed, size_t n);

/* Header of a server's frame: 0 when more bytes are needed, -1 when a server may not send it, else
 * the header's length, with the payload's length and the opcode; FRAME_PACKED in it is RSV1. */
#define FRAME_PACKED 0x40
int frame_head(const uint8_t *p, size_t n, uint64_t *payload, uint8_t *opcode);

/* 16 lower-case hex digits. */
uint64_t frame_unhex(const uint8_t *p);
void frame_hex(uint8_t *p, uint64_t v);

#endif
