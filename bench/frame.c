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

/* RFC 6455 section 5.2: the shortest length form; `masked` is 0x80 or 0. */
static uint32_t
put_head(uint8_t *to, uint8_t first, size_t n, uint8_t masked)
{
    to[0] = first;
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
frame_wrap(uint8_t *to, uint8_t first, const void *p, size_t n)
{
    const uint8_t *from = p;
    uint32_t at = put_head(to, first, n, 0x80);
    memcpy(to + at, mask_key, 4);
    at += 4;
    for (size_t i = 0; i < n; i++)
        to[at + i] = from[i] ^ mask_key[i & 3];
    return at + (uint32_t)n;
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

static void
side_make(struct frame_side *side, const struct speak_conf *speak, const char *channel, enum frame_kind kind,
    const struct speak_payload *payload, bool delivery)
{
    size_t at;
    side->text = xmalloc(speak_room(speak, channel, payload->n));
    side->n = (uint32_t)speak->as->packet(speak, channel, payload, delivery, (char *)side->text, &at);
    side->seq_at = (uint32_t)at + (kind == FRAME_TEXT ? 0 : 8);
    side->time_at = (uint32_t)at + (kind == FRAME_TEXT ? 17 : 33);
}

void
frame_pair_make(struct frame_pair *f, const struct speak_conf *speak, const char *channel, enum frame_kind kind,
    uint32_t payload, enum frame_coat coat)
{
    char *p = xmalloc(payload);
    struct speak_payload what = {.p = p, .n = payload, .quoted = kind == FRAME_TEXT};
    (kind == FRAME_TEXT ? fill_text : fill_json)(p, payload);
    side_make(&f->out, speak, channel, kind, &what, false);
    side_make(&f->in, speak, channel, kind, &what, true);
    free(p);
    const struct frame_side *s = coat == FRAME_SERVER ? &f->in : &f->out;
    uint8_t first = speak->as->binary ? FRAME_OP_BINARY : FRAME_OP_TEXT;
    if (s->n > 65535)
        die("a message of %u bytes is too long for the load generator", s->n);
    f->payload = payload;
    f->masked = coat == FRAME_CLIENT;
    f->wire = xmalloc(s->n + 8);
    if (coat == FRAME_CLIENT) {
        f->wire_n = frame_wrap(f->wire, first, s->text, s->n);
    } else {
        uint32_t head = coat == FRAME_SERVER ? put_head(f->wire, first, s->n, 0) : 0;
        memcpy(f->wire + head, s->text, s->n);
        f->wire_n = head + s->n;
    }
    f->head = f->wire_n - s->n;
}

void
frame_pair_free(struct frame_pair *f)
{
    free(f->in.text);
    free(f->out.text);
    free(f->wire);
    memset(f, 0, sizeof *f);
}

void
frame_stamp(const struct frame_pair *f, uint8_t *to, uint64_t seq, uint64_t ns)
{
    memcpy(to, f->out.text, f->out.n);
    frame_hex(to + f->out.seq_at, seq);
    frame_hex(to + f->out.time_at, ns);
}

void
frame_publish(const struct frame_pair *f, uint8_t *to, uint64_t seq, uint64_t ns)
{
    uint8_t *text = to + f->head;
    uint32_t seq_at = f->out.seq_at, time_at = f->out.time_at;
    memcpy(to, f->wire, f->wire_n);
    frame_hex(text + seq_at, seq);
    frame_hex(text + time_at, ns);
    for (uint32_t i = 0; f->masked && i < 16; i++) {
        text[seq_at + i] ^= mask_key[(seq_at + i) & 3];
        text[time_at + i] ^= mask_key[(time_at + i) & 3];
    }
}

bool
frame_is_delivery(const struct frame_pair *f, const uint8_t *text, size_t n, uint64_t *seq, uint64_t *ns)
{
    const struct frame_side *in = &f->in;
    if (in->text == NULL || n != in->n)
        return false;
    uint32_t mid = in->seq_at + 16, tail = in->time_at + 16;
    if (memcmp(text, in->text, in->seq_at) != 0 || memcmp(text + mid, in->text + mid, in->time_at - mid) != 0 ||
        memcmp(text + tail, in->text + tail, n - tail) != 0)
        return false;
    *seq = frame_unhex(text + in->seq_at);
    *ns = frame_unhex(text + in->time_at);
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
