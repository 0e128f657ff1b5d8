/* WebSocket framing, RFC 6455 section 5: an incremental reader of client or server frames, a writer of
 * frame headers, masking, UTF-8. Pure: bytes in, events out; allocates nothing.
 *
 * The reader unmasks in place and hands out pieces as they come, so a message that lies whole in the
 * receive buffer is never copied, and violations are seen at the earliest byte that shows them. */
#ifndef PROTO_WS_H
#define PROTO_WS_H

#include "common/base.h"
#include "common/view.h"
#include "proto/dialect.h"

enum ws_opcode {
    WS_CONTINUATION = 0x0,
    WS_TEXT = 0x1,
    WS_BINARY = 0x2,
    WS_CLOSE = 0x8,
    WS_PING = 0x9,
    WS_PONG = 0xA,
};

struct ws_limits {
    uint64_t max_message; /* bytes, over all fragments: TOO_BIG, judged on the announced length */
    uint32_t max_frames;  /* per message: TOO_MANY_FRAMES; 0 allows none, "automatic" is the caller's */
    uint64_t max_packed;  /* the same for a compressed message; 0: no compression was agreed, RSV1 is PROTOCOL */
};

/* Where a reader stands. All zero is a reader at the start of a server's connection (expects masked
 * frames), at rest between messages. 64 bytes at most. */
struct ws_reader {
    uint64_t left;       /* payload bytes of the present frame still to come */
    uint64_t total;      /* payload bytes announced by the frames of the present message */
    uint32_t frames;     /* data frames of the present message, the present one included */
    uint32_t utf8;       /* state of the validator */
    uint8_t head[14];    /* frame header as far as it has come */
    uint8_t head_n;
    uint8_t mask[4];
    uint8_t mask_at;     /* 0..3: key byte for the next payload byte */
    uint8_t opcode;      /* of the present frame */
    uint8_t message;     /* WS_TEXT or WS_BINARY while a message is open, else 0 */
    uint8_t control_n;   /* bytes of control payload collected */
    bool in_payload;
    bool fin;
    bool client;         /* true: reads a server's frames (unmasked) */
    bool begun;          /* a piece of the present message was handed out */
    bool packed;         /* the present message is compressed: its first frame had RSV1 (RFC 7692 section 6) */
    bool dead;           /* after WS_EV_BAD or WS_EV_CLOSE: eats everything */
};

enum ws_event_kind {
    WS_EV_MORE,    /* all input is used up; nothing to say */
    WS_EV_DATA,    /* a piece of a message: `payload` (maybe empty), `text`, first, last */
    WS_EV_PING,    /* payload: what the pong must bring */
    WS_EV_PONG,
    WS_EV_CLOSE,   /* a valid Close: code (1005 if there was none), payload: reason */
    WS_EV_BAD,     /* `bad`: why the connection must end */
};

struct ws_event {
    enum ws_event_kind kind;
    enum close_reason bad;
    bool text;
    bool first; /* begins the message */
    bool last;  /* ends it; first && last: the whole message is in payload */
    bool packed; /* what is handed out is compressed, and text in it has not been validated */
    uint16_t code;
    struct view payload; /* unmasked, inside the caller's buffer (data) or in `control` (control frames) */
};

/* Takes bytes from the front of [*p, *p + *n), which it may overwrite (unmasking), advances *p and *n,
 * and returns at the first event. A frame that is not whole yields its data pieces as they come; a
 * control frame comes whole, its payload (125 bytes at most) collected in `control`, which belongs to
 * the connection while reader->control_n or head_n is not 0 and must hold 128 bytes.
 * Text that is not compressed is validated piece by piece; a piece ending inside a character is handed out all the same. */
enum ws_event_kind ws_read(struct ws_reader *r, const struct ws_limits *limits, uint8_t **p, size_t *n,
    uint8_t *control, struct ws_event *ev) MUST_CHECK;

/* At rest: between frames and between messages, so the reader may be thrown away. */
static inline bool
ws_at_rest(const struct ws_reader *r)
{
    return r->head_n == 0 && !r->in_payload && r->message == 0;
}

#define WS_HEADER_MAX 10 /* bytes of an unmasked header */
/* Writes the header of an unmasked, unfragmented frame; returns its length (2, 4 or 10). */
size_t ws_put_header(uint8_t out[WS_HEADER_MAX], enum ws_opcode op, uint64_t payload_n);
#define WS_RSV1 0x40 /* to be set in the first byte when the payload is compressed */
/* Length ws_put_header would write. */
static inline size_t
ws_header_size(uint64_t payload_n)
{
    return payload_n < 126 ? 2 : payload_n < 65536 ? 4 : 10;
}
/* Header of a masked frame (clients): 14 bytes at most. The payload must then be masked by ws_mask. */
size_t ws_put_client_header(uint8_t out[14], enum ws_opcode op, uint64_t payload_n, const uint8_t key[4]);

/* Whole Close frame with a code (none if 0) and a reason of at most 123 bytes; returns its length. */
size_t ws_put_close(uint8_t out[2 + 125], uint16_t code, struct view reason);

/* Masks or unmasks n bytes in place, the first with key[at & 3]. */
void ws_mask(uint8_t *p, size_t n, const uint8_t key[4], unsigned at);

/* Incremental UTF-8 validation (RFC 3629). *state is 0 between characters; returns false at the first
 * byte that cannot be, as early as that byte. A text that ends with *state != 0 is cut short. */
bool utf8_check(uint32_t *state, const uint8_t *p, size_t n);
/* The same for a whole text. */
bool utf8_valid(struct view v);

#endif
