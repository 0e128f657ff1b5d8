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

static uint32_t
head_bytes(size_t n)
{
    return n < 126 ? 2 : 4;
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

uint32_t
frame_packed(uint8_t *to, const uint8_t *packed, size_t n)
{
    uint32_t total = frame_text(to, (const char *)packed, n);
    to[0] |= FRAME_PACKED;
    return total;
}

/* --- payloads ------------------------------------------------------------------------------ */

static void
fill_text(char *p, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        p[i] = (char)('a' + i % 26);
    p[16] = '-';
    p[33] = '-';
}

/* Numbers that look like data and are the same in each run. */
static uint32_t
next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static int
put_row(char *to, size_t cap, uint32_t *state)
{
    static const char *const names[] = {"kestrel", "bittern", "avocet", "dunlin", "whimbrel", "godwit",
        "plover", "turnstone"};
    static const char *const cents[] = {"25", "5", "75", "05"};
    uint32_t a = next_random(state), b = next_random(state), c = next_random(state);
    return snprintf(to, cap, ",{\"id\":%u,\"name\":\"%s-%u\",\"price\":%u.%s,\"up\":%s}", a % 100000u,
        names[b % ARRAY_LEN(names)], b / 64 % 1000u, c % 1000u, cents[c / 1024 % ARRAY_LEN(cents)],
        c & 64 ? "true" : "false");
}

/* {"seq":"16 digits","due":"16 digits","rows":[0,{...},...],"pad":"..."} of exactly n characters. */
static void
fill_json(char *p, uint32_t n)
{
    static const char head[] = "{\"seq\":\"0000000000000000\",\"due\":\"0000000000000000\",\"rows\":[0";
    static const char tail[] = "],\"pad\":\"", end[] = "\"}";
    uint32_t at = sizeof head - 1, behind = sizeof tail + sizeof end - 2, random = 1;
    char row[96];
    memcpy(p, head, at);
    for (int len; (len = put_row(row, sizeof row, &random)) > 0 && at + (uint32_t)len + behind <= n;) {
        memcpy(p + at, row, (size_t)len);
        at += (uint32_t)len;
    }
    memcpy(p + at, tail, sizeof tail - 1);
    at += sizeof tail - 1;
    while (at < n - (sizeof end - 1))
        p[at++] = (char)('a' + next_random(&random) % 26);
    memcpy(p + at, end, sizeof end - 1);
}

/* The packet as text; sets text_n, seq_at and time_at. */
static char *
packet_text(struct frame_pair *f, const char *channel, enum frame_kind kind, uint32_t payload)
{
    size_t cap = strlen(channel) + payload + 128;
    char *text = xmalloc(cap);
    int head = snprintf(text, cap, "{\"event\":\"#publish\",\"data\":{\"channel\":\"%s\",\"data\":%s", channel,
        kind == FRAME_TEXT ? "\"" : "");
    uint32_t at = (uint32_t)head;
    if (kind == FRAME_TEXT) {
        fill_text(text + at, payload);
        f->seq_at = at;
        f->time_at = at + 17;
        text[at + payload] = '"';
    } else {
        fill_json(text + at, payload);
        f->seq_at = at + 8;
        f->time_at = at + 33;
    }
    at += payload + (kind == FRAME_TEXT ? 1 : 0);
    memcpy(text + at, "}}", 2);
    f->text_n = at + 2;
    return text;
}

void
frame_pair_make(struct frame_pair *f, const char *channel, enum frame_kind kind, uint32_t payload, bool raw)
{
    char *text = packet_text(f, channel, kind, payload);
    size_t n = f->text_n;
    f->in = xmalloc(n + 4);
    uint32_t head = put_head(f->in, n, 0);
    memcpy(f->in + head, text, n);
    f->in_n = head + (uint32_t)n;
    f->out = xmalloc(n + 14);
    if (raw) {
        memcpy(f->out, f->in, f->in_n);
        f->out_n = f->in_n;
    } else {
        f->out_n = frame_text(f->out, text, n);
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
frame_stamp(const struct frame_pair *f, uint8_t *to, uint64_t seq, uint64_t ns)
{
    memcpy(to, f->in + head_bytes(f->text_n), f->text_n);
    frame_hex(to + f->seq_at, seq);
    frame_hex(to + f->time_at, ns);
}

void
frame_publish(const struct frame_pair *f, uint8_t *to, uint64_t seq, uint64_t ns)
{
    bool masked = f->out[1] & 0x80;
    uint8_t *text = to + head_bytes(f->text_n) + (masked ? 4 : 0);
    memcpy(to, f->out, f->out_n);
    frame_hex(text + f->seq_at, seq);
    frame_hex(text + f->time_at, ns);
    for (uint32_t i = 0; masked && i < 16; i++) {
        text[f->seq_at + i] ^= mask_key[(f->seq_at + i) & 3];
        text[f->time_at + i] ^= mask_key[(f->time_at + i) & 3];
    }
}

bool
frame_is_delivery(const struct frame_pair *f, const uint8_t *text, size_t n, uint64_t *seq, uint64_t *ns)
{
    if (f->in == NULL || n != f->text_n)
        return false;
    const uint8_t *want = f->in + head_bytes(n);
    uint32_t mid = f->seq_at + 16, tail = f->time_at + 16;
    if (memcmp(text, want, f->seq_at) != 0 || memcmp(text + mid, want + mid, f->time_at - mid) != 0 ||
        memcmp(text + tail, want + tail, n - tail) != 0)
        return false;
    *seq = frame_unhex(text + f->seq_at);
    *ns = frame_unhex(text + f->time_at);
    return true;
}

int
frame_head(const uint8_t *p, size_t n, uint64_t *payload, uint8_t *opcode)
{
    if (n < 2)
        return 0;
    if (p[1] & 0x80)
        return -1;
    *opcode = p[0] & (15 | FRAME_PACKED);
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
