/* The bytes of a run: what clients send, what they expect. Everything but the number and the time
 * stamp is made once; a delivery is recognised by comparing bytes, no JSON is taken apart.
 *
 * Two kinds of payload. Text, P characters in quotes: 16 hex digits sequence, '-', 16 hex digits
 * nanoseconds of CLOCK_MONOTONIC when the message was due, '-', filler. JSON, an object of P
 * characters: the same two numbers as members, then rows of different names and prices, which
 * compress about as an application's messages do (the filler of text would vanish). */
#ifndef BENCH_FRAME_H
#define BENCH_FRAME_H

#include "bench/speak.h"
#include "common/base.h"

#define FRAME_MIN_PAYLOAD 34
#define FRAME_MIN_JSON 96
#define FRAME_MAX_PAYLOAD 60000

enum frame_kind { FRAME_TEXT, FRAME_JSON };

/* What a publish is wrapped in on its way to the server. */
enum frame_coat {
    FRAME_CLIENT, /* a client's WebSocket frame, masked */
    FRAME_SERVER, /* floors, which have nothing to do but send: the delivery as a server's frame */
    FRAME_NOTHING,
};

/* A message as the protocol has it, without what it is wrapped in. */
struct frame_side {
    uint8_t *text;
    uint32_t n;
    uint32_t seq_at, time_at; /* 16 hex digits each; seq_at < time_at */
};

/* One channel's messages. */
struct frame_pair {
    uint32_t payload;
    struct frame_side out, in; /* publish, delivery */
    uint8_t *wire;             /* the publish, wrapped */
    uint32_t wire_n, head;     /* head: bytes before its text */
    bool masked;
};

/* FRAME_SERVER is for protocols whose publish and delivery are the same bytes.
 * payload in FRAME_MIN_PAYLOAD (JSON: FRAME_MIN_JSON)..FRAME_MAX_PAYLOAD. */
void frame_pair_make(struct frame_pair *f, const struct speak_conf *speak, const char *channel, enum frame_kind kind,
    uint32_t payload, enum frame_coat coat);
void frame_pair_free(struct frame_pair *f);

/* Writes a publish with this number and time stamp to `to` (wire_n bytes). */
void frame_publish(const struct frame_pair *f, uint8_t *to, uint64_t seq, uint64_t ns);

/* The same without header and mask, out.n bytes: for those who pack it first. */
void frame_stamp(const struct frame_pair *f, uint8_t *to, uint64_t seq, uint64_t ns);

/* Is this text a delivery on the channel? Then its number and time stamp. */
bool frame_is_delivery(const struct frame_pair *f, const uint8_t *text, size_t n, uint64_t *seq, uint64_t *ns);

/* First bytes of frames: FIN and the opcode; RSV1 is "packed" (RFC 7692 section 6). */
#define FRAME_OP_TEXT 0x81
#define FRAME_OP_BINARY 0x82
#define FRAME_OP_PONG 0x8a
#define FRAME_PACKED 0x40

/* A masked frame around n bytes, 65535 at most, at `to` (n + 8 are enough); returns its length. */
uint32_t frame_wrap(uint8_t *to, uint8_t first, const void *p, size_t n);

/* Header of a server's frame: 0 when more bytes are needed, -1 when a server may not send it, else
 * the header's length, with the payload's length and the opcode; FRAME_PACKED in it is RSV1. */
int frame_head(const uint8_t *p, size_t n, uint64_t *payload, uint8_t *opcode);

/* 16 lower-case hex digits. */
uint64_t frame_unhex(const uint8_t *p);
void frame_hex(uint8_t *p, uint64_t v);

#endif
