/* The bytes of a run; see frame.h. */
#include "bench/frame.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/bug.h"

/* Any key will do for a load generator, as long as the server cannot skip the unmasking. */
static const uint8_t mask_key[4] = {0x37, 0xfa, 0x21, 0x3d};

void
frame_hex(uint8_t *p, uint64_t v)
{
    static const char digits[] = "0123456789abcdef";
    for (int i = 15; i >= 0; i--, v >>= 4)
        p[i] = (uint8_t)digits[v & 15];
}

/* Eight hex digits at once: nibbles, then pairs, then the bytes gathered and turned round. */
static uint32_t
unhex8(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    v = (v & 0x0f0f0f0f0f0f0f0full) + 9 * (v >> 6 & 0x0101010101010101ull);
    v = (v << 4 | v >> 8) & 0x00ff00ff00ff00ffull;
    v = (v | v >> 8) & 0x0000ffff0000ffffull;
    v |= v >> 16;
    return __builtin_bswap32((uint32_t)v);
}

uint64_t
frame_unhex(const uint8_t *p)
{
    return (uint64_t)unhex8(p) << 32 | unhex8(p + 8);
}

/* RFC 6455 section 5.2: FIN, text, and the shortest length form; `masked` is 0x80 or 0. */
static uint32_t
put_head(uint8_t *to, size_t n, uint8_t masked)
{
    to[0] = 0x81;
    if (n < 126) {
        to[1] = (uint8_t)(masked | n);
        return 2;
    }
    BUG_ON(n > 65535);
    to[1] = masked | 126;
    store_be16(to + 2, (uint16_t)n);
    return 4;
}

uint32_t
frame_text(uint8_t *to, const char *text, size_t n)
{
    uint32_t at = put_head(to, n, 0x80);
    memcpy(to + at, mask_key, 4);
    at += 4;
    for (size_t i = 0; i < n; i++)
        to[at + i] = (uint8_t)text[i] ^ mask_key[i & 3];
    return at + (uint32_t)n;
}

/* The packet as text, with a payload of filler; *stamp is where the payload begins. */
static char *
packet_text(const char *channel, uint32_t payload, size_t *n, size_t *stamp)
{
    char *text = xmalloc(strlen(channel) + payload + 128);
    int head = snprintf(text, strlen(channel) + 128,
        "{\"event\":\"#publish\",\"data\":{\"channel\":\"%s\",\"data\":\"", channel);
    *stamp = (size_t)head;
    for (uint32_t i = 0; i < payload; i++)
        text[*stamp + i] = (char)('a' + i % 26);
    text[*stamp + 16] = '-';
    text[*stamp + 33] = '-';
    memcpy(text + *stamp + payload, "\"}}", 3);
    *n = *stamp + payload + 3;
    return text;
}

void
frame_pair_make(struct frame_pair *f, const char *channel, uint32_t payload, bool raw)
{
    size_t n, stamp;
    char *text = packet_text(channel, payload, &n, &stamp);
    f->in = xmalloc(n + 4);
    uint32_t head = put_head(f->in, n, 0);
    memcpy(f->in + head, text, n);
    f->in_n = head + (uint32_t)n;
    f->in_stamp = head + (uint32_t)stamp;
    f->out = xmalloc(n + 14);
    if (raw) {
        memcpy(f->out, f->in, f->in_n);
        f->out_n = f->in_n;
        f->out_stamp = f->in_stamp;
    } else {
        f->out_n = frame_text(f->out, text, n);
        f->out_stamp = f->out_n - (uint32_t)(n - stamp);
    }
    free(text);
}

void
frame_pair_free(struct frame_pair *f)
{
    free(f->in);
    free(f->out);
    memset(f, 0, sizeof *f);
}

void
frame_publish(const struct frame_pair *f, uint8_t *to, uint64_t seq, uint64_t ns)
{
    memcpy(to, f->out, f->out_n);
    uint8_t *p = to + f->out_stamp;
    frame_hex(p + FRAME_SEQ_AT, seq);
    frame_hex(p + FRAME_TIME_AT, ns);
    if (!(f->out[1] & 0x80))
        return;
    /* Masking starts with the payload of the frame, which ends where the frame ends. */
    uint32_t head = f->out[1] == (0x80 | 126) ? 8 : 6;
    uint32_t phase = f->out_stamp - head;
    for (uint32_t i = 0; i < 16; i++) {
        p[FRAME_SEQ_AT + i] ^= mask_key[(phase + FRAME_SEQ_AT + i) & 3];
        p[FRAME_TIME_AT + i] ^= mask_key[(phase + FRAME_TIME_AT + i) & 3];
    }
}

bool
frame_is_delivery(const struct frame_pair *f, const uint8_t *p, uint64_t *seq, uint64_t *ns)
{
    uint32_t tail = f->in_stamp + 33;
    if (memcmp(p, f->in, f->in_stamp) != 0 || p[f->in_stamp + 16] != '-')
        return false;
    if (memcmp(p + tail, f->in + tail, f->in_n - tail) != 0)
        return false;
    *seq = frame_unhex(p + f->in_stamp + FRAME_SEQ_AT);
    *ns = frame_unhex(p + f->in_stamp + FRAME_TIME_AT);
    return true;
}

int
frame_head(const uint8_t *p, size_t n, uint64_t *payload, uint8_t *opcode)
{
    if (n < 2)
        return 0;
    if (p[1] & 0x80)
        return -1;
    *opcode = p[0] & 15;
    *payload = p[1];
    if (p[1] < 126)
        return 2;
    if (p[1] == 126) {
        if (n < 4)
            return 0;
        *payload = load_be16(p + 2);
        return 4;
    }
    if (n < 10)
        return 0;
    *payload = load_be64(p + 2);
    return 10;
}
