/* WebSocket frames (RFC 6455 section 5), masking and UTF-8. Contract in ws.h; called by the
 * worker's transport and by clients of our own. Knows no socket and no limit but those it is given.
 */
#include "proto/ws.h"

#if defined(__SSE2__) && !defined(WS_PORTABLE)
#define WS_SSE2 1
#include <immintrin.h>
#endif

/* ---- masking
 * ------------------------------------------------------------------------------------- */

/* Every step is a multiple of four bytes, so the key, once turned to where the payload stands, fits
 * all of them. */
static void
mask_tail(uint8_t *p, size_t n, uint32_t key)
{
    uint64_t wide = (uint64_t)key << 32 | key, v;
    for (; n >= 8; p += 8, n -= 8) {
        memcpy(&v, p, 8);
        v ^= wide;
        memcpy(p, &v, 8);
    }
    uint8_t k[8];
    memcpy(k, &wide, 8);
    for (size_t i = 0; i < n; i++)
        p[i] ^= k[i];
}

#ifdef WS_SSE2
#define MASK_AVX2_FROM 128 /* bytes; below, the dispatch costs what the wider steps save */

__attribute__((target("avx2"))) static size_t
mask_avx2(uint8_t *p, size_t n, uint32_t key)
{
    __m256i k = _mm256_set1_epi32((int)key);
    size_t i = 0;
    for (; n - i >= 64; i += 64) {
        __m256i a = _mm256_loadu_si256((const __m256i *)(p + i));
        __m256i b = _mm256_loadu_si256((const __m256i *)(p + i + 32));
        _mm256_storeu_si256((__m256i *)(p + i), _mm256_xor_si256(a, k));
        _mm256_storeu_si256((__m256i *)(p + i + 32), _mm256_xor_si256(b, k));
    }
    return i;
}

static size_t
mask_sse2(uint8_t *p, size_t n, uint32_t key)
{
    __m128i k = _mm_set1_epi32((int)key);
    size_t i = 0;
    for (; n - i >= 16; i += 16) {
        __m128i a = _mm_loadu_si128((const __m128i *)(p + i));
        _mm_storeu_si128((__m128i *)(p + i), _mm_xor_si128(a, k));
    }
    return i;
}
#endif

void
ws_mask(uint8_t *p, size_t n, const uint8_t key[4], unsigned at)
{
    uint8_t turned[4] = {key[at & 3], key[(at + 1) & 3], key[(at + 2) & 3], key[(at + 3) & 3]};
    uint32_t k;
    memcpy(&k, turned, 4);
    size_t done = 0;
#ifdef WS_SSE2
    if (n >= MASK_AVX2_FROM && __builtin_cpu_supports("avx2"))
        done = mask_avx2(p, n, k);
    done += mask_sse2(p + done, n - done, k);
#endif
    mask_tail(p + done, n - done, k);
}

/* ---- UTF-8 (RFC 3629)
 * ---------------------------------------------------------------------------- */

/* The state between two bytes of a character: how many are still to come, and the bounds of the
 * next one. The bounds differ from 80..BF only behind E0, ED, F0 and F4, where they keep out
 * overlong forms, surrogates and what lies above U+10FFFF. */
#define UTF8_STATE(left, lo, hi) ((uint32_t)(left) | (uint32_t)(lo) << 8 | (uint32_t)(hi) << 16)
#define UTF8_BAD UINT32_MAX

static uint32_t
utf8_lead(uint8_t c)
{
    if (c < 0x80)
        return 0;
    if (c < 0xC2)
        return UTF8_BAD;
    if (c < 0xE0)
        return UTF8_STATE(1, 0x80, 0xBF);
    if (c < 0xF0)
        return UTF8_STATE(2, c == 0xE0 ? 0xA0 : 0x80, c == 0xED ? 0x9F : 0xBF);
    if (c < 0xF5)
        return UTF8_STATE(3, c == 0xF0 ? 0x90 : 0x80, c == 0xF4 ? 0x8F : 0xBF);
    return UTF8_BAD;
}

static uint32_t
utf8_next(uint32_t state, uint8_t c)
{
    uint32_t left = state & 0xFF;
    if (c < (state >> 8 & 0xFF) || c > (state >> 16 & 0xFF))
        return UTF8_BAD;
    return left == 1 ? 0 : UTF8_STATE(left - 1, 0x80, 0xBF);
}

/* How many bytes at p are ASCII, up to the end or to within a step before the first that is not. */
static size_t
ascii_run(const uint8_t *p, size_t n)
{
    size_t i = 0;
#ifdef WS_SSE2
    for (; n - i >= 32; i += 32) {
        __m128i a = _mm_loadu_si128((const __m128i *)(p + i));
        __m128i b = _mm_loadu_si128((const __m128i *)(p + i + 16));
        if (_mm_movemask_epi8(_mm_or_si128(a, b)))
            break;
    }
#endif
    for (; n - i >= 8; i += 8) {
        uint64_t v;
        memcpy(&v, p + i, 8);
        if (v & 0x8080808080808080ull)
            break;
    }
    return i;
}

/* Length of the character at p when it is whole within n bytes and of two or three bytes, which is
 * most text that is not ASCII; else 0, and the state machine looks. */
static inline size_t
utf8_quick(const uint8_t *p, size_t n)
{
    if (n < 3)
        return 0;
    if (p[0] >= 0xC2 && p[0] < 0xE0)
        return (p[1] & 0xC0) == 0x80 ? 2 : 0;
    if ((p[0] & 0xF0) == 0xE0 && p[0] != 0xE0 && p[0] != 0xED)
        return (p[1] & 0xC0) == 0x80 && (p[2] & 0xC0) == 0x80 ? 3 : 0;
    return 0;
}

#ifdef WS_SSE2
#define UTF8_AVX2_FROM 64 /* bytes */

/* Classes of what may be wrong with a byte and the one before it, looked up by three half-bytes and combined by "and"; what is
 * left is an error, but for two continuations in a row, which are right behind a lead of three or four bytes. J. Keiser, D. Lemire,
 * "Validating UTF-8 In Less Than One Instruction Per Byte", 2020, section 6. */
enum {
    TOO_SHORT = 1, TOO_LONG = 2, OVERLONG_3 = 4, TOO_LARGE = 8, SURROGATE = 16, OVERLONG_2 = 32, OVERLONG_4 = 64, TWO_CONTS = 128,
    CARRY = TOO_SHORT | TOO_LONG | TWO_CONTS, /* these do not hang on the low half of the first byte */
};

static const uint8_t utf8_first_high[16] = {TOO_LONG, TOO_LONG, TOO_LONG, TOO_LONG, TOO_LONG, TOO_LONG, TOO_LONG, TOO_LONG,
    TWO_CONTS, TWO_CONTS, TWO_CONTS, TWO_CONTS, TOO_SHORT | OVERLONG_2, TOO_SHORT, TOO_SHORT | OVERLONG_3 | SURROGATE,
    TOO_SHORT | TOO_LARGE | OVERLONG_4};
/* F5 to FF would begin what is too large (or nothing); behind them 80 to 8F has the bit of OVERLONG_4 for that. */
#define LARGE (CARRY | TOO_LARGE | OVERLONG_4)
static const uint8_t utf8_first_low[16] = {CARRY | OVERLONG_3 | OVERLONG_2 | OVERLONG_4, CARRY | OVERLONG_2, CARRY, CARRY,
    CARRY | TOO_LARGE, LARGE, LARGE, LARGE, LARGE, LARGE, LARGE, LARGE, LARGE, LARGE | SURROGATE, LARGE, LARGE};
#define CONT (TOO_LONG | OVERLONG_2 | TWO_CONTS)
static const uint8_t utf8_second_high[16] = {TOO_SHORT, TOO_SHORT, TOO_SHORT, TOO_SHORT, TOO_SHORT, TOO_SHORT, TOO_SHORT, TOO_SHORT,
    CONT | OVERLONG_3 | OVERLONG_4, CONT | OVERLONG_3 | TOO_LARGE, CONT | SURROGATE | TOO_LARGE, CONT | SURROGATE | TOO_LARGE,
    TOO_SHORT, TOO_SHORT, TOO_SHORT, TOO_SHORT};

__attribute__((target("avx2"))) static inline __m256i
utf8_table(const uint8_t table[16], __m256i at)
{
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)table)), at);
}

/* Not 0 where the 32 bytes of v, behind those of before, break a rule. */
__attribute__((target("avx2"))) static inline __m256i
utf8_errors(__m256i before, __m256i v)
{
    const __m256i low = _mm256_set1_epi8(0x0F);
    __m256i across = _mm256_permute2x128_si256(before, v, 0x21);
    __m256i one = _mm256_alignr_epi8(v, across, 15), two = _mm256_alignr_epi8(v, across, 14), three = _mm256_alignr_epi8(v, across, 13);
    __m256i special = _mm256_and_si256(utf8_table(utf8_first_high, _mm256_and_si256(_mm256_srli_epi16(one, 4), low)),
        utf8_table(utf8_first_low, _mm256_and_si256(one, low)));
    special = _mm256_and_si256(special, utf8_table(utf8_second_high, _mm256_and_si256(_mm256_srli_epi16(v, 4), low)));
    /* Two bytes behind E0 and above, three behind F0 and above, a continuation must be, and is a second one. */
    __m256i due = _mm256_or_si256(_mm256_subs_epu8(two, _mm256_set1_epi8(0xE0 - 0x80)),
        _mm256_subs_epu8(three, _mm256_set1_epi8(0xF0 - 0x80)));
    return _mm256_xor_si256(_mm256_and_si256(due, _mm256_set1_epi8((char)0x80)), special);
}

/* How many bytes at p, where a character begins, are whole characters without error, as far as steps of 32 tell. */
__attribute__((target("avx2"))) static size_t
utf8_run_avx2(const uint8_t *p, size_t n)
{
    __m256i before = _mm256_setzero_si256();
    size_t i = 0, back = 0;
    for (; n - i >= 32; i += 32) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(p + i)), errors = utf8_errors(before, v);
        if (!_mm256_testz_si256(errors, errors))
            break;
        before = v;
    }
    /* The last character may go on behind the last step. */
    while (back < i && back < 3 && (p[i - 1 - back] & 0xC0) == 0x80)
        back++;
    return back < i && p[i - 1 - back] >= 0xC0 ? i - 1 - back : i;
}
#endif

/* As utf8_run_avx2, where it can be had and pays. */
static inline size_t
utf8_run(const uint8_t *p, size_t n)
{
#ifdef WS_SSE2
    if (n >= UTF8_AVX2_FROM && __builtin_cpu_supports("avx2"))
        return utf8_run_avx2(p, n);
#endif
    (void)p;
    (void)n;
    return 0;
}

bool
utf8_check(uint32_t *state, const uint8_t *p, size_t n)
{
    uint32_t s = *state;
    size_t i = 0;
    while (i < n) {
        if (s == 0) {
            size_t quick = p[i] < 0x80 ? ascii_run(p + i, n - i) : utf8_run(p + i, n - i);
            if (quick == 0 && p[i] >= 0x80)
                quick = utf8_quick(p + i, n - i);
            i += quick;
            if (quick)
                continue;
            s = utf8_lead(p[i++]);
        } else {
            s = utf8_next(s, p[i++]);
        }
        if (s == UTF8_BAD) {
            *state = s;
            return false;
        }
    }
    *state = s;
    return true;
}

bool
utf8_valid(struct view v)
{
    uint32_t state = 0;
    return utf8_check(&state, v.p, v.n) && state == 0;
}

/* ---- reading
 * ------------------------------------------------------------------------------------- */

#define FINE CLOSE_COUNT /* no reason to close */

static_assert(sizeof(struct ws_reader) <= 64, "every connection has one");

static inline bool
is_control(uint8_t opcode)
{
    return opcode & 8;
}

/* FIN, RSV, opcode (section 5.2), and the order of fragments (5.4). */
static enum close_reason
check_first(const struct ws_reader *r, const struct ws_limits *limits, uint8_t b)
{
    uint8_t opcode = b & 0x0F;
    bool packed = b & WS_RSV1; /* RFC 7692 section 6: on the first frame of a data message */
    if (b & 0x30 || (packed && (limits->max_packed == 0 || is_control(opcode) || opcode == WS_CONTINUATION)))
        return CLOSE_PROTOCOL;
    if (is_control(opcode))
        return opcode <= WS_PONG && (b & 0x80) ? FINE : CLOSE_PROTOCOL;
    if (opcode > WS_BINARY || (opcode == WS_CONTINUATION) != (r->message != 0))
        return CLOSE_PROTOCOL;
    return r->frames < limits->max_frames ? FINE : CLOSE_TOO_MANY_FRAMES;
}

/* Mask bit (5.1) and what a control frame may carry (5.5). A Close has no body or a code of two
 * bytes at least (5.5.1). */
static enum close_reason
check_second(const struct ws_reader *r, uint8_t opcode, uint8_t b)
{
    uint8_t n = b & 0x7F;
    if (!(b & 0x80) != r->client)
        return CLOSE_PROTOCOL;
    if (is_control(opcode) && (n > 125 || (opcode == WS_CLOSE && n == 1)))
        return CLOSE_PROTOCOL;
    return FINE;
}

/* Lengths of 16 and 64 bits: shortest form, top bit clear. Stores the length once it is whole;
 * *size stays 0 before. */
static enum close_reason
check_length(const uint8_t *h, size_t n, uint64_t *length, size_t *size)
{
    uint8_t n7 = h[1] & 0x7F;
    if (n7 < 126) {
        *length = n7;
        *size = 2;
    } else if (n7 == 126) {
        if (n < 4)
            return FINE;
        *length = load_be16(h + 2);
        *size = 4;
        return *length < 126 ? CLOSE_PROTOCOL : FINE;
    } else {
        if (n >= 3 && (h[2] & 0x80))
            return CLOSE_PROTOCOL;
        if (n >= 8 && !(h[2] | h[3] | h[4] | h[5] | h[6] | h[7]))
            return CLOSE_PROTOCOL;
        if (n < 10)
            return FINE;
        *length = load_be64(h + 2);
        *size = 10;
    }
    return FINE;
}

static enum close_reason
check_limit(const struct ws_reader *r, const struct ws_limits *limits, uint8_t first, uint64_t n)
{
    if (is_control(first & 0x0F))
        return FINE;
    uint64_t max = r->packed || first & WS_RSV1 ? limits->max_packed : limits->max_message;
    return r->total > max || n > max - r->total ? CLOSE_TOO_BIG : FINE;
}

/* Judges as much of a header as is there: n bytes, one at least. When it is whole, key included,
 * the frame is begun and *size is its length; else *size is 0. */
static enum close_reason
head_take(
    struct ws_reader *r, const struct ws_limits *limits, const uint8_t *h, size_t n, size_t *size)
{
    uint8_t opcode = h[0] & 0x0F;
    uint64_t length = 0;
    size_t at = 0; /* where the key begins */
    *size = 0;
    enum close_reason bad = check_first(r, limits, h[0]);
    if (bad == FINE && n >= 2)
        bad = check_second(r, opcode, h[1]);
    if (bad == FINE && n >= 2)
        bad = check_length(h, n, &length, &at);
    if (bad == FINE && at)
        bad = check_limit(r, limits, h[0], length);
    size_t whole = r->client ? at : at + 4;
    if (bad != FINE || at == 0 || n < whole)
        return bad;

    *size = whole;
    r->opcode = opcode;
    r->fin = h[0] & 0x80;
    r->left = length;
    r->in_payload = true;
    r->head_n = 0;
    r->mask_at = 0;
    if (!r->client)
        memcpy(r->mask, h + at, 4);
    if (is_control(opcode)) {
        r->control_n = 0;
        if (opcode == WS_CLOSE) /* no data can follow: the validator is free for the reason */
            r->utf8 = 0;
    } else {
        r->frames++;
        r->total += length;
        if (opcode != WS_CONTINUATION) {
            r->message = opcode;
            r->packed = h[0] & WS_RSV1;
        }
    }
    return FINE;
}

/* A header that comes in pieces is put together in r->head, and judged byte by byte. */
static enum close_reason
head_collect(struct ws_reader *r, const struct ws_limits *limits, uint8_t **p, size_t *n)
{
    while (*n > 0) {
        size_t size;
        r->head[r->head_n++] = *(*p)++;
        (*n)--;
        enum close_reason bad = head_take(r, limits, r->head, r->head_n, &size);
        if (bad != FINE || size)
            return bad;
    }
    return FINE;
}

static enum close_reason
head_read(struct ws_reader *r, const struct ws_limits *limits, uint8_t **p, size_t *n)
{
    if (LIKELY(r->head_n == 0 && *n > 0)) {
        size_t size;
        enum close_reason bad = head_take(r, limits, *p, *n, &size);
        *p += size;
        *n -= size;
        if (bad != FINE || size)
            return bad;
    }
    return head_collect(r, limits, p, n);
}

/* The next bytes of the present frame, unmasked; they are no longer in [*p, *p + *n). */
static inline struct view
payload_take(struct ws_reader *r, uint8_t **p, size_t *n)
{
    size_t take = r->left < *n ? (size_t)r->left : *n;
    struct view piece = view_of(*p, take);
    if (!r->client) {
        ws_mask(*p, take, r->mask, r->mask_at);
        r->mask_at = (uint8_t)((r->mask_at + take) & 3);
    }
    r->left -= take;
    *p += take;
    *n -= take;
    return piece;
}

static enum ws_event_kind
end_bad(struct ws_reader *r, struct ws_event *ev, enum close_reason bad)
{
    r->dead = true;
    r->control_n = 0;
    ev->bad = bad;
    ev->payload = VIEW_NONE;
    return WS_EV_BAD;
}

static enum ws_event_kind
read_data(struct ws_reader *r, uint8_t **p, size_t *n, struct ws_event *ev)
{
    if (r->left > 0 && *n == 0)
        return WS_EV_MORE;
    ev->payload = payload_take(r, p, n);
    ev->text = r->message == WS_TEXT;
    ev->first = !r->begun;
    ev->last = r->left == 0 && r->fin;
    ev->packed = r->packed;
    if (ev->text && !r->packed &&
        (!utf8_check(&r->utf8, ev->payload.p, ev->payload.n) || (ev->last && r->utf8)))
        return end_bad(r, ev, CLOSE_BAD_UTF8);
    r->begun = true;
    if (r->left == 0)
        r->in_payload = false;
    if (ev->last) {
        r->message = 0;
        r->begun = false;
        r->packed = false;
        r->frames = 0;
        r->total = 0;
    }
    return WS_EV_DATA;
}

/* Codes that may be on the wire: section 7.4 and the registry; 1004 to 1006 and 1015 may not. */
static bool
code_is_valid(uint16_t code)
{
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
           (code >= 3000 && code <= 4999);
}

/* Judges a Close body of which `fresh` bytes at the end are new. */
static enum close_reason
close_check(struct ws_reader *r, const uint8_t *body, size_t fresh)
{
    size_t had = r->control_n - fresh;
    if (r->control_n < 2)
        return FINE;
    if (had < 2 && !code_is_valid(load_be16(body)))
        return CLOSE_PROTOCOL;
    size_t from = MAX(had, 2);
    if (!utf8_check(&r->utf8, body + from, r->control_n - from) || (r->left == 0 && r->utf8))
        return CLOSE_BAD_UTF8;
    return FINE;
}

static enum ws_event_kind
read_control(struct ws_reader *r, uint8_t **p, size_t *n, uint8_t *control, struct ws_event *ev)
{
    struct view piece = payload_take(r, p, n);
    if (piece.n)
        memcpy(control + r->control_n, piece.p, piece.n); /* the header bounded the sum to 125 */
    r->control_n = (uint8_t)(r->control_n + piece.n);
    if (r->opcode == WS_CLOSE) {
        enum close_reason bad = close_check(r, control, piece.n);
        if (bad != FINE)
            return end_bad(r, ev, bad);
    }
    if (r->left > 0)
        return WS_EV_MORE;

    ev->payload = view_of(control, r->control_n);
    r->in_payload = false;
    r->control_n = 0;
    if (r->opcode != WS_CLOSE)
        return r->opcode == WS_PING ? WS_EV_PING : WS_EV_PONG;
    r->dead = true;
    ev->code = 1005; /* section 7.1.5: no code was given */
    if (ev->payload.n) {
        ev->code = load_be16(control);
        ev->payload = view_from(ev->payload, 2);
    }
    return WS_EV_CLOSE;
}

enum ws_event_kind
ws_read(struct ws_reader *r, const struct ws_limits *limits, uint8_t **p, size_t *n,
    uint8_t *control, struct ws_event *ev)
{
    *ev = (struct ws_event){.kind = WS_EV_MORE};
    if (UNLIKELY(r->dead)) {
        *p += *n;
        *n = 0;
        return WS_EV_MORE;
    }
    if (!r->in_payload) {
        enum close_reason bad = head_read(r, limits, p, n);
        if (UNLIKELY(bad != FINE))
            return ev->kind = end_bad(r, ev, bad);
        if (!r->in_payload)
            return WS_EV_MORE;
    }
    if (UNLIKELY(is_control(r->opcode)))
        return ev->kind = read_control(r, p, n, control, ev);
    return ev->kind = read_data(r, p, n, ev);
}

/* ---- writing
 * ------------------------------------------------------------------------------------- */

static size_t
put_head(uint8_t *out, enum ws_opcode op, uint64_t payload_n, uint8_t mask_bit)
{
    out[0] = (uint8_t)(0x80 | op);
    if (payload_n < 126) {
        out[1] = (uint8_t)(mask_bit | payload_n);
        return 2;
    }
    if (payload_n < 65536) {
        out[1] = mask_bit | 126;
        store_be16(out + 2, (uint16_t)payload_n);
        return 4;
    }
    out[1] = mask_bit | 127;
    store_be64(out + 2, payload_n);
    return 10;
}

size_t
ws_put_header(uint8_t out[WS_HEADER_MAX], enum ws_opcode op, uint64_t payload_n)
{
    return put_head(out, op, payload_n, 0);
}

size_t
ws_put_client_header(uint8_t out[14], enum ws_opcode op, uint64_t payload_n, const uint8_t key[4])
{
    size_t n = put_head(out, op, payload_n, 0x80);
    memcpy(out + n, key, 4);
    return n + 4;
}

size_t
ws_put_close(uint8_t out[2 + 125], uint16_t code, struct view reason)
{
    if (code == 0)
        return put_head(out, WS_CLOSE, 0, 0);
    size_t reason_n = MIN(reason.n, (size_t)123);
    while (reason_n > 0 && reason_n < reason.n && (reason.p[reason_n] & 0xC0) == 0x80)
        reason_n--; /* a reason that is cut is cut between characters */
    size_t n = put_head(out, WS_CLOSE, 2 + reason_n, 0);
    store_be16(out + n, code);
    if (reason_n)
        memcpy(out + n + 2, reason.p, reason_n);
    return n + 2 + reason_n;
}
