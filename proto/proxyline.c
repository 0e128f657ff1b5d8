#include "proto/proxyline.h"

#include "common/banned.h"

#define LINE_MAX 107 /* version 1 with its CRLF, section 2.1 */
#define HEAD 16      /* version 2 up to its addresses, section 2.2 */
#define TLV_CRC32C 0x03

static const uint8_t signature[12] = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a};

/* ---- version 1 ---- */

/* The word up to the next space, or up to the end; *rest is what comes behind it. */
static struct view
word(struct view *rest)
{
    size_t n = 0;
    while (n < rest->n && rest->p[n] != ' ')
        n++;
    struct view w = view_head(*rest, n);
    *rest = view_from(*rest, n + 1);
    return w;
}

/* 0 to 65535, no zeroes in front. */
static bool
port_parse(struct view v, uint16_t *out)
{
    uint32_t n = 0;
    if (v.n == 0 || v.n > 5 || (v.n > 1 && v.p[0] == '0'))
        return false;
    for (size_t i = 0; i < v.n; i++) {
        if (v.p[i] < '0' || v.p[i] > '9')
            return false;
        n = n * 10 + (uint32_t)(v.p[i] - '0');
    }
    *out = (uint16_t)n;
    return n <= UINT16_MAX;
}

static bool
family_fits(struct view family, struct view text)
{
    bool v6 = memchr(text.p, ':', text.n) != NULL;
    return view_eq(family, v6 ? VIEW("TCP6") : VIEW("TCP4"));
}

/* The line without "PROXY " and CRLF. */
static bool
line_parse(struct view line, struct proxyline *out)
{
    struct addr destination;
    uint16_t port;
    struct view family = word(&line);
    if (view_eq(family, VIEW("UNKNOWN")))
        return true; /* whatever follows is to be ignored */
    struct view from = word(&line), to = word(&line), from_port = word(&line), to_port = line;
    out->known = true;
    return from.n > 0 && to.n > 0 && family_fits(family, from) && family_fits(family, to) &&
        addr_parse(from, &out->source) && addr_parse(to, &destination) &&
        port_parse(from_port, &out->source_port) && port_parse(to_port, &port);
}

static enum proxyline_rc
v1_parse(struct view in, struct proxyline *out, size_t *eaten)
{
    struct view seen = view_head(in, LINE_MAX);
    const uint8_t *end = memchr(seen.p, '\r', seen.n);
    if (end == NULL || end + 1 == seen.p + seen.n)
        return seen.n < LINE_MAX ? PROXYLINE_MORE : PROXYLINE_BAD;
    size_t n = (size_t)(end - seen.p);
    out->version = 1;
    if (end[1] != '\n' || !line_parse(view_from(view_head(seen, n), 6), out))
        return PROXYLINE_BAD;
    *eaten = n + 2;
    return PROXYLINE_DONE;
}

/* ---- version 2 ---- */

/* Castagnoli's polynomial, reflected (RFC 3720 appendix B.4). A bit at a time: a header is short and
 * comes once. */
static uint32_t
crc32c(uint32_t crc, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int k = 0; k < 8; k++)
            crc = crc >> 1 ^ (0x82f63b78u & (0u - (crc & 1)));
    }
    return crc;
}

/* The checksum is over the whole header with its own four bytes zero (section 2.2.3). */
static bool
crc_is_right(struct view head, const uint8_t *at)
{
    static const uint8_t zero[4];
    uint32_t said = (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
    size_t before = (size_t)(at - head.p);
    uint32_t crc = crc32c(UINT32_MAX, head.p, before);
    crc = crc32c(crc, zero, 4);
    crc = crc32c(crc, at + 4, head.n - before - 4);
    return ~crc == said;
}

/* Type, two bytes of length, value; up to the end of the header. */
static bool
tlvs_check(struct view head, size_t at)
{
    while (at < head.n) {
        if (head.n - at < 3)
            return false;
        size_t n = load_be16(head.p + at + 1);
        if (n > head.n - at - 3)
            return false;
        if (head.p[at] == TLV_CRC32C && (n != 4 || !crc_is_right(head, head.p + at + 3)))
            return false;
        at += 3 + n;
    }
    return true;
}

/* Bytes of addresses of a family over a stream; -1 for what cannot come over TCP. */
static int
family_bytes(uint8_t family)
{
    switch (family) {
    case 0x00: return 0;   /* unspecified */
    case 0x11: return 12;  /* TCP over IPv4 */
    case 0x21: return 36;  /* TCP over IPv6 */
    case 0x31: return 216; /* a UNIX stream */
    default: return -1;
    }
}

static void
source_take(const uint8_t *p, uint8_t family, struct proxyline *out)
{
    out->known = family == 0x11 || family == 0x21;
    if (family == 0x11) {
        out->source = addr_from_v4(p);
        out->source_port = load_be16(p + 8);
    } else if (family == 0x21) {
        memcpy(out->source.b, p, 16);
        out->source_port = load_be16(p + 32);
    }
}

static enum proxyline_rc
v2_parse(struct view in, struct proxyline *out, size_t *eaten)
{
    if (in.n < HEAD)
        return PROXYLINE_MORE;
    uint8_t version = in.p[12] >> 4, command = in.p[12] & 15, family = in.p[13];
    size_t n = load_be16(in.p + 14);
    int addresses = family_bytes(family);
    /* LOCAL: the balancer speaks for itself; what it says of addresses is to be ignored. */
    bool local = command == 0, ignored = local || family == 0x00;
    if (version != 2 || command > 1 || n > PROXYLINE_MAX - HEAD || (!local && (addresses < 0 || n < (size_t)addresses)))
        return PROXYLINE_BAD;
    if (in.n < HEAD + n)
        return PROXYLINE_MORE;
    struct view head = view_head(in, HEAD + n);
    if (!ignored && !tlvs_check(head, HEAD + (size_t)addresses))
        return PROXYLINE_BAD;
    if (!ignored)
        source_take(in.p + HEAD, family, out);
    out->version = 2;
    *eaten = head.n;
    return PROXYLINE_DONE;
}

/* Whether `in`, as far as it goes, is the beginning of `what`, or goes on behind it. */
static bool
begins_like(struct view in, struct view what)
{
    size_t n = MIN(in.n, what.n);
    return n == 0 || memcmp(in.p, what.p, n) == 0;
}

enum proxyline_rc
proxyline_parse(struct view in, struct proxyline *out, size_t *eaten)
{
    struct view v1 = VIEW("PROXY "), v2 = view_of(signature, sizeof signature);
    *out = (struct proxyline){0};
    *eaten = 0;
    if (begins_like(in, v1))
        return in.n < v1.n ? PROXYLINE_MORE : v1_parse(in, out, eaten);
    if (begins_like(in, v2))
        return in.n < v2.n ? PROXYLINE_MORE : v2_parse(in, out, eaten);
    return PROXYLINE_BAD;
}
