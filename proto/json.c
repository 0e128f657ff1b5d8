#include "proto/json.h"

#if defined(__SSE2__) && !defined(JSON_PORTABLE)
#include <emmintrin.h>
#define JSON_SSE2 1
#endif

/* Whether a byte ends or interrupts the plain part of a string (RFC 8259 section 7). */
static inline bool
is_special(uint8_t c)
{
    return c < 0x20 || c == '"' || c == '\\';
}

#ifdef JSON_SSE2
/* First special byte of [p, end), or end; 16 bytes at a time. */
static inline const uint8_t *
skip_plain(const uint8_t *p, const uint8_t *end)
{
    const __m128i quote = _mm_set1_epi8('"'), slash = _mm_set1_epi8('\\');
    const __m128i control = _mm_set1_epi8(0x1F);
    while (end - p >= 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
        __m128i hit = _mm_or_si128(_mm_cmpeq_epi8(v, quote), _mm_cmpeq_epi8(v, slash));
        hit = _mm_or_si128(hit, _mm_cmpeq_epi8(_mm_min_epu8(v, control), v));
        unsigned mask = (unsigned)_mm_movemask_epi8(hit);
        if (mask != 0)
            return p + __builtin_ctz(mask);
        p += 16;
    }
    while (p < end && !is_special(*p))
        p++;
    return p;
}
#else
/* Bytes of v that are zero have their top bit set in the result (others may, above a real one). */
static inline uint64_t
zero_bytes(uint64_t v)
{
    return (v - 0x0101010101010101ull) & ~v & 0x8080808080808080ull;
}

/* First special byte of [p, end), or end; 8 bytes at a time on any machine. */
static inline const uint8_t *
skip_plain(const uint8_t *p, const uint8_t *end)
{
    while (end - p >= 8) {
        uint64_t v;
        memcpy(&v, p, sizeof v);
        uint64_t hit = zero_bytes(v ^ 0x2222222222222222ull) | zero_bytes(v ^ 0x5C5C5C5C5C5C5C5Cull);
        hit |= zero_bytes(v & 0xE0E0E0E0E0E0E0E0ull); /* below 0x20 */
        if (hit != 0)
            break;
        p += 8;
    }
    while (p < end && !is_special(*p))
        p++;
    return p;
}
#endif

const uint8_t *
json_space_slow(const uint8_t *p, const uint8_t *end)
{
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
        p++;
    return p;
}

/* Value of a hexadecimal digit, or -1. */
static inline int
hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Four of them, or -1. */
static inline int
hex4(const uint8_t *p)
{
    int a = hex_digit(p[0]), b = hex_digit(p[1]), c = hex_digit(p[2]), d = hex_digit(p[3]);
    return (a | b | c | d) < 0 ? -1 : a << 12 | b << 8 | c << 4 | d;
}

/* p is at a backslash; returns behind the escape. */
static const uint8_t *
skip_escape(const uint8_t *p, const uint8_t *end)
{
    if (end - p < 2)
        return NULL;
    switch (p[1]) {
    case '"': case '\\': case '/': case 'b': case 'f': case 'n': case 'r': case 't':
        return p + 2;
    case 'u':
        return end - p >= 6 && hex4(p + 2) >= 0 ? p + 6 : NULL;
    default:
        return NULL;
    }
}

const uint8_t *
json_string(const uint8_t *p, const uint8_t *end, struct json_string *out)
{
    const uint8_t *start = p;
    out->escaped = false;
    for (;;) {
        p = skip_plain(p, end);
        if (p == end)
            return NULL;
        if (LIKELY(*p == '"'))
            break;
        if (*p != '\\' || (p = skip_escape(p, end)) == NULL)
            return NULL;
        out->escaped = true;
    }
    out->raw = view_of(start, (size_t)(p - start));
    return p + 1;
}

static inline bool
is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

/* One digit or more. */
static inline const uint8_t *
skip_digits(const uint8_t *p, const uint8_t *end)
{
    const uint8_t *start = p;
    while (p < end && is_digit(*p))
        p++;
    return p == start ? NULL : p;
}

const uint8_t *
json_number(const uint8_t *p, const uint8_t *end)
{
    if (p < end && *p == '-')
        p++;
    if (p < end && *p == '0')
        p++; /* nothing may follow a leading zero but a fraction or an exponent */
    else if ((p = skip_digits(p, end)) == NULL)
        return NULL;
    if (p < end && *p == '.' && (p = skip_digits(p + 1, end)) == NULL)
        return NULL;
    if (p < end && (*p | 0x20) == 'e') {
        p++;
        if (p < end && (*p == '+' || *p == '-'))
            p++;
        p = skip_digits(p, end);
    }
    return p;
}

static inline const uint8_t *
skip_word(const uint8_t *p, const uint8_t *end, const char *word, size_t n)
{
    return (size_t)(end - p) >= n && memcmp(p, word, n) == 0 ? p + n : NULL;
}

/* A value that holds no others. */
static const uint8_t *
skip_scalar(const uint8_t *p, const uint8_t *end)
{
    struct json_string s;
    switch (*p) {
    case '"': return json_string(p + 1, end, &s);
    case 't': return skip_word(p, end, "true", 4);
    case 'f': return skip_word(p, end, "false", 5);
    case 'n': return skip_word(p, end, "null", 4);
    default: return json_number(p, end);
    }
}

const uint8_t *
json_member(const uint8_t *p, const uint8_t *end, bool first, struct json_string *key, bool *closed)
{
    p = json_space(p, end);
    if (UNLIKELY(p == end))
        return NULL;
    *closed = *p == '}';
    if (*closed)
        return p + 1;
    if (!first) {
        if (*p != ',')
            return NULL;
        p = json_space(p + 1, end);
        if (p == end)
            return NULL;
    }
    if (*p != '"' || (p = json_string(p + 1, end, key)) == NULL)
        return NULL;
    p = json_space(p, end);
    if (p == end || *p != ':')
        return NULL;
    p = json_space(p + 1, end);
    return p == end ? NULL : p;
}

const uint8_t *
json_element(const uint8_t *p, const uint8_t *end, bool first, bool *closed)
{
    p = json_space(p, end);
    if (UNLIKELY(p == end))
        return NULL;
    *closed = *p == ']';
    if (*closed)
        return p + 1;
    if (first)
        return p;
    if (*p != ',')
        return NULL;
    p = json_space(p + 1, end);
    return p == end ? NULL : p;
}

const uint8_t *
json_value(const uint8_t *p, const uint8_t *end, uint32_t max_depth, bool *deep)
{
    bool in_object[JSON_DEPTH_MAX]; /* of each open container; written when it opens */
    uint32_t depth = 0;
    max_depth = MIN(max_depth, (uint32_t)JSON_DEPTH_MAX);
    if (p == end)
        return NULL;
    for (;;) {
        bool first = false;
        if (*p == '{' || *p == '[') {
            if (depth == max_depth) {
                *deep = true;
                return NULL;
            }
            in_object[depth++] = *p++ == '{';
            first = true;
        } else if ((p = skip_scalar(p, end)) == NULL) {
            return NULL;
        }
        /* To the next value, out of as many containers as end here. */
        for (bool closed = true; closed; first = false) {
            struct json_string key;
            if (depth == 0)
                return p;
            p = in_object[depth - 1] ? json_member(p, end, first, &key, &closed)
                                     : json_element(p, end, first, &closed);
            if (p == NULL)
                return NULL;
            depth -= closed;
        }
    }
}

bool
json_valid(struct view v, uint32_t max_depth, bool *deep)
{
    if (v.n == 0)
        return false;
    const uint8_t *end = v.p + v.n;
    const uint8_t *p = json_value(json_space(v.p, end), end, max_depth, deep);
    return p != NULL && json_space(p, end) == end;
}

/* UTF-8 of a code point that is no surrogate (RFC 3629 section 3); returns its length. */
static size_t
put_utf8(uint8_t out[4], uint32_t c)
{
    if (c < 0x80) {
        out[0] = (uint8_t)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (uint8_t)(0xC0 | c >> 6);
        out[1] = (uint8_t)(0x80 | (c & 0x3F));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (uint8_t)(0xE0 | c >> 12);
        out[1] = (uint8_t)(0x80 | (c >> 6 & 0x3F));
        out[2] = (uint8_t)(0x80 | (c & 0x3F));
        return 3;
    }
    out[0] = (uint8_t)(0xF0 | c >> 18);
    out[1] = (uint8_t)(0x80 | (c >> 12 & 0x3F));
    out[2] = (uint8_t)(0x80 | (c >> 6 & 0x3F));
    out[3] = (uint8_t)(0x80 | (c & 0x3F));
    return 4;
}

/* The code point of a \u escape at p, with its second half if it has one; 0 bytes eaten if it is half a
 * pair. */
static size_t
read_u_escape(const uint8_t *p, const uint8_t *end, uint32_t *c)
{
    int hi = end - p >= 6 ? hex4(p + 2) : -1;
    if (hi < 0)
        return 0;
    *c = (uint32_t)hi;
    if (hi < 0xD800 || hi > 0xDFFF)
        return 6;
    if (hi > 0xDBFF || end - p < 12 || p[6] != '\\' || p[7] != 'u')
        return 0;
    int lo = hex4(p + 8);
    if (lo < 0xDC00 || lo > 0xDFFF)
        return 0;
    *c = 0x10000 + ((uint32_t)(hi - 0xD800) << 10) + (uint32_t)(lo - 0xDC00);
    return 12;
}

static uint8_t
short_escape(uint8_t c)
{
    switch (c) {
    case 'b': return '\b';
    case 'f': return '\f';
    case 'n': return '\n';
    case 'r': return '\r';
    case 't': return '\t';
    default: return c;
    }
}

bool
json_unescape(struct view raw, uint8_t *out, size_t cap, size_t *n)
{
    const uint8_t *p = raw.p, *end = raw.p + raw.n;
    size_t used = 0;
    while (p < end) {
        uint8_t bytes[4];
        size_t len = 1, eaten = 1;
        bytes[0] = *p;
        if (*p == '\\' && end - p >= 2) {
            uint32_t c;
            eaten = 2;
            if (p[1] != 'u')
                bytes[0] = short_escape(p[1]);
            else if ((eaten = read_u_escape(p, end, &c)) == 0)
                return false;
            else
                len = put_utf8(bytes, c);
        }
        if (len > cap - used)
            return false;
        memcpy(out + used, bytes, len);
        used += len;
        p += eaten;
    }
    *n = used;
    return true;
}

bool
json_is_plain(struct view v)
{
    return v.n == 0 || skip_plain(v.p, v.p + v.n) == v.p + v.n;
}

/* What stands for a special byte. */
static void
put_escape(struct buf *out, uint8_t c)
{
    static const char hex[] = "0123456789abcdef";
    char text[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
    size_t n = 2;
    switch (c) {
    case '"': case '\\': text[1] = (char)c; break;
    case '\b': text[1] = 'b'; break;
    case '\f': text[1] = 'f'; break;
    case '\n': text[1] = 'n'; break;
    case '\r': text[1] = 'r'; break;
    case '\t': text[1] = 't'; break;
    default: n = 6; break;
    }
    buf_put(out, text, n);
}

void
json_put_escaped(struct buf *out, struct view v)
{
    if (v.n == 0)
        return;
    const uint8_t *p = v.p, *end = v.p + v.n;
    while (p < end) {
        const uint8_t *stop = skip_plain(p, end);
        buf_put(out, p, (size_t)(stop - p));
        if (stop < end)
            put_escape(out, *stop++);
        p = stop;
    }
}

void
json_put_string(struct buf *out, struct view v)
{
    buf_put_u8(out, '"');
    json_put_escaped(out, v);
    buf_put_u8(out, '"');
}
