/* permessage-deflate: negotiation, inflating, deflating. Contract in deflate.h; called by the worker's
 * worker/pmd.c and by clients of our own. */
#include "proto/deflate.h"

#include <stdlib.h>
#include <zlib.h>

/* ---- offers (RFC 6455 section 9.1, RFC 7692 sections 5 and 7.1)
 * --------------------------------------------------------------------------------------------- */

/* Parameters of one offer. */
struct offer {
    bool server_no_takeover, client_no_takeover;
    bool has_server_bits, has_client_bits;
    uint8_t server_bits;
    uint8_t client_bits; /* 0: offered without a value */
};

/* Cuts off what stands in front of the next separator outside of quotes. False if there is none: the part is
 * all there was. A quote that never ends swallows the rest. */
static bool
part_take(struct view *rest, uint8_t separator, struct view *part)
{
    struct view v = *rest;
    bool quoted = false;
    size_t i = 0;
    for (; i < v.n && (quoted || v.p[i] != separator); i++) {
        if (v.p[i] == '"')
            quoted = !quoted;
        else if (quoted && v.p[i] == '\\')
            i++;
    }
    bool found = i < v.n;
    *part = view_trim(view_head(v, i));
    *rest = view_from(v, i + 1);
    return found;
}

/* A token or quoted-string (RFC 9110 section 5.6.4) of one or two characters, which is all that a number
 * here can be. Returns its length, 0 if it is anything else. */
static size_t
short_value(struct view v, uint8_t out[2])
{
    bool quoted = v.n >= 2 && v.p[0] == '"' && v.p[v.n - 1] == '"';
    size_t n = 0;
    if (quoted)
        v = view_from(view_head(v, v.n - 1), 1);
    for (size_t i = 0; i < v.n; i++) {
        if (quoted && v.p[i] == '\\' && ++i == v.n)
            return 0;
        if (n == 2)
            return 0;
        out[n++] = v.p[i];
    }
    return n;
}

/* 8 to 15, decimal, no leading zeros (section 7.1.2); 0 if it is anything else. */
static uint8_t
bits_parse(struct view v)
{
    uint8_t c[2];
    switch (short_value(v, c)) {
    case 1: return c[0] == '8' || c[0] == '9' ? (uint8_t)(c[0] - '0') : 0;
    case 2: return c[0] == '1' && c[1] >= '0' && c[1] <= '5' ? (uint8_t)(10 + c[1] - '0') : 0;
    default: return 0;
    }
}

/* A parameter that may be there once. */
static bool
once(bool *seen)
{
    bool first = !*seen;
    *seen = true;
    return first;
}

static bool
param_read(struct view param, struct offer *o)
{
    struct view name, value = param;
    bool has_value = part_take(&value, '=', &name);
    value = view_trim(value);
    if (view_eq(name, VIEW("server_no_context_takeover")))
        return !has_value && once(&o->server_no_takeover);
    if (view_eq(name, VIEW("client_no_context_takeover")))
        return !has_value && once(&o->client_no_takeover);
    if (view_eq(name, VIEW("server_max_window_bits"))) {
        o->server_bits = bits_parse(value);
        return o->server_bits != 0 && once(&o->has_server_bits);
    }
    if (view_eq(name, VIEW("client_max_window_bits"))) {
        o->client_bits = bits_parse(value);
        return (!has_value || o->client_bits != 0) && once(&o->has_client_bits);
    }
    return false;
}

static bool
offer_read(struct view text, struct offer *o)
{
    struct view part;
    bool more = part_take(&text, ';', &part);
    if (!view_eq(part, VIEW("permessage-deflate")))
        return false;
    *o = (struct offer){0};
    while (more) {
        more = part_take(&text, ';', &part);
        if (!param_read(part, o))
            return false;
    }
    return true;
}

/* What an offer and our readiness come to. A limit on the client's window may be answered only to a client
 * that offered to know it (section 7.1.2.2). */
static bool
offer_take(const struct offer *o, const struct deflate_policy *p, struct deflate_terms *t)
{
    if (o->has_server_bits && o->server_bits < DEFLATE_BITS_MIN)
        return false;
    t->server_bits = o->has_server_bits ? MIN(o->server_bits, p->server_bits) : p->server_bits;
    t->server_asked = o->has_server_bits;
    t->client_bits = DEFLATE_BITS_MAX;
    if (o->has_client_bits)
        t->client_bits = o->client_bits ? MIN(o->client_bits, p->client_bits) : p->client_bits;
    t->server_takeover = p->server_takeover && !o->server_no_takeover;
    t->client_takeover = p->client_takeover && !o->client_no_takeover;
    return true;
}

bool
deflate_agree(struct view offers, const struct deflate_policy *p, struct deflate_terms *out)
{
    bool more = true;
    while (more) {
        struct view text;
        struct offer o;
        more = part_take(&offers, ',', &text);
        if (offer_read(text, &o) && offer_take(&o, p, out))
            return true;
    }
    *out = (struct deflate_terms){0};
    return false;
}

void
deflate_put_answer(struct buf *out, const struct deflate_terms *t)
{
    buf_put_lit(out, "permessage-deflate");
    if (!t->server_takeover)
        buf_put_lit(out, "; server_no_context_takeover");
    if (!t->client_takeover)
        buf_put_lit(out, "; client_no_context_takeover");
    if (t->server_bits < DEFLATE_BITS_MAX || t->server_asked) { /* section 7.1.2.1 */
        buf_put_lit(out, "; server_max_window_bits=");
        buf_put_uint(out, t->server_bits);
    }
    if (t->client_bits < DEFLATE_BITS_MAX) {
        buf_put_lit(out, "; client_max_window_bits=");
        buf_put_uint(out, t->client_bits);
    }
}

/* ---- memory
 * -------------------------------------------------------------------------------------- */

/* zlib does not say how much it frees, so each block has its length in front. */
#define BLOCK_HEAD 16
/* State and tables of a stream besides its window and hash chains, measured with 1.2.13 and rounded up. */
#define READER_FIXED 8192
#define WRITER_FIXED 8192
/* Pieces of zlib's input and output are counted in 32 bits. */
#define PIECE_MAX (1u << 30)

static void *
block_new(void *bytes, unsigned items, unsigned size)
{
    uint64_t n = (uint64_t)items * size + BLOCK_HEAD;
    uint8_t *p = calloc(1, n);
    if (p == NULL)
        return NULL;
    memcpy(p, &n, sizeof n);
    *(uint64_t *)bytes += n;
    return p + BLOCK_HEAD;
}

static void
block_free(void *bytes, void *block)
{
    uint64_t n;
    uint8_t *p = (uint8_t *)block - BLOCK_HEAD;
    memcpy(&n, p, sizeof n);
    *(uint64_t *)bytes -= n;
    free(p);
}

uint64_t
deflate_reader_bytes(unsigned bits)
{
    return READER_FIXED + (1ull << bits);
}

/* Window and previous links of 2^bits entries, two bytes each; hash heads and output of 2^mem_level (zlib.h). */
uint64_t
deflate_writer_bytes(unsigned bits, int mem_level)
{
    return WRITER_FIXED + (4ull << bits) + (512ull << mem_level);
}

/* ---- inflating (section 7.2.2)
 * ---------------------------------------------------------------------------------- */

/* Output grows at least by this. */
#define STEP 16384u

struct deflate_reader {
    z_stream z;
    uint64_t *bytes;
    bool begun; /* a byte of the present message was seen */
    bool final; /* the last block said it is the stream's last; another may follow all the same */
};

struct deflate_reader *
deflate_reader_new(unsigned bits, uint64_t *bytes)
{
    struct deflate_reader *r = calloc(1, sizeof *r);
    if (r == NULL)
        return NULL;
    r->bytes = bytes;
    r->z.zalloc = block_new;
    r->z.zfree = block_free;
    r->z.opaque = bytes;
    if (inflateInit2(&r->z, -(int)bits) != Z_OK) {
        free(r);
        return NULL;
    }
    *bytes += sizeof *r;
    return r;
}

void
deflate_reader_free(struct deflate_reader *r)
{
    if (r == NULL)
        return;
    inflateEnd(&r->z);
    *r->bytes -= sizeof *r;
    free(r);
}

void
deflate_reader_begin(struct deflate_reader *r, bool keep)
{
    r->begun = false;
    if (keep)
        return;
    r->final = false;
    inflateReset(&r->z);
}

/* One step: as much as fits behind out->n. At the bound one byte more is asked for, to know whether there is
 * one. */
static enum deflate_rc
inflate_step(struct deflate_reader *r, uint64_t max, struct buf *out)
{
    uint8_t beyond;
    bool at_bound = out->n >= max;
    if (!at_bound && out->n == out->cap && !buf_reserve(out, (size_t)MIN(max - out->n, (uint64_t)STEP)))
        return DEFLATE_NO_MEMORY;
    uint64_t room = at_bound ? 1 : MIN(max, (uint64_t)out->cap) - out->n;
    uInt asked = (uInt)MIN(room, (uint64_t)PIECE_MAX);
    r->z.next_out = at_bound ? &beyond : out->p + out->n;
    r->z.avail_out = asked;
    int rc = inflate(&r->z, Z_SYNC_FLUSH);
    uInt got = asked - r->z.avail_out;
    if (at_bound && got)
        return DEFLATE_TOO_BIG;
    out->n += got;
    r->final = rc == Z_STREAM_END;
    if (rc == Z_OK || rc == Z_STREAM_END || rc == Z_BUF_ERROR)
        return DEFLATE_OK;
    return rc == Z_MEM_ERROR ? DEFLATE_NO_MEMORY : DEFLATE_BROKEN;
}

/* Behind a final block comes another message, or more of this one (section 7.2.3.4); both may refer to what
 * was before it. inflateReset would forget that, inflateResetKeep does not, and costs the same however many
 * final blocks somebody puts into a message. */
static enum deflate_rc
inflate_all(struct deflate_reader *r, uint64_t max, struct buf *out)
{
    do {
        if (r->final && inflateResetKeep(&r->z) != Z_OK)
            return DEFLATE_BROKEN;
        enum deflate_rc rc = inflate_step(r, max, out);
        if (rc != DEFLATE_OK)
            return rc;
    } while (r->z.avail_in > 0 || (r->z.avail_out == 0 && !r->final));
    return DEFLATE_OK;
}

enum deflate_rc
deflate_reader_put(struct deflate_reader *r, struct view piece, uint64_t max, struct buf *out)
{
    enum deflate_rc rc = DEFLATE_OK;
    while (piece.n > 0 && rc == DEFLATE_OK) {
        size_t n = MIN(piece.n, (size_t)PIECE_MAX);
        r->begun = true;
        r->z.next_in = (Bytef *)(uintptr_t)piece.p; /* zlib only reads it */
        r->z.avail_in = (uInt)n;
        rc = inflate_all(r, max, out);
        piece = view_from(piece, n);
    }
    return rc;
}

/* Between two blocks, at the beginning of a byte: see data_type in zlib.h. */
static bool
is_between_blocks(const struct deflate_reader *r)
{
    return (r->z.data_type & (128 | 63)) == 128 && !r->final;
}

/* A message is what its sender's flush produced, less the last four bytes of it (section 7.2.1). They are put
 * back; nothing comes out because of them, and they end a block, unless the message was cut short. A message
 * of no bytes at all, or that ends with a final block, has nothing left open. */
enum deflate_rc
deflate_reader_end(struct deflate_reader *r, uint64_t max, struct buf *out)
{
    static const uint8_t tail[] = {0x00, 0x00, 0xFF, 0xFF};
    size_t before = out->n;
    if (!r->begun || r->final)
        return DEFLATE_OK;
    enum deflate_rc rc = deflate_reader_put(r, view_of(tail, sizeof tail), max, out);
    if (rc == DEFLATE_NO_MEMORY)
        return rc;
    return rc == DEFLATE_OK && out->n == before && is_between_blocks(r) ? DEFLATE_OK : DEFLATE_BROKEN;
}

/* ---- deflating (section 7.2.1)
 * ---------------------------------------------------------------------------------- */

struct deflate_writer {
    z_stream z;
    uint64_t *bytes;
};

struct deflate_writer *
deflate_writer_new(unsigned bits, int level, int mem_level, uint64_t *bytes)
{
    struct deflate_writer *w = calloc(1, sizeof *w);
    if (w == NULL)
        return NULL;
    w->bytes = bytes;
    w->z.zalloc = block_new;
    w->z.zfree = block_free;
    w->z.opaque = bytes;
    if (deflateInit2(&w->z, level, Z_DEFLATED, -(int)bits, mem_level, Z_DEFAULT_STRATEGY) != Z_OK) {
        free(w);
        return NULL;
    }
    *bytes += sizeof *w;
    return w;
}

void
deflate_writer_free(struct deflate_writer *w)
{
    if (w == NULL)
        return;
    deflateEnd(&w->z);
    *w->bytes -= sizeof *w;
    free(w);
}

void
deflate_writer_forget(struct deflate_writer *w)
{
    deflateReset(&w->z);
}

/* A flush that used up its room may not be over, so there is a byte more than the longest result that is of
 * use: the message's own length and the four bytes that are taken off again. */
size_t
deflate_writer_put(struct deflate_writer *w, struct view message, bool keep, uint8_t *out)
{
    if (!keep)
        deflateReset(&w->z);
    if (message.n == 0 || message.n > PIECE_MAX)
        return 0;
    w->z.next_in = (Bytef *)(uintptr_t)message.p; /* zlib only reads it */
    w->z.avail_in = (uInt)message.n;
    w->z.next_out = out;
    w->z.avail_out = (uInt)message.n + DEFLATE_TAIL;
    int rc = deflate(&w->z, Z_SYNC_FLUSH);
    size_t n = message.n + DEFLATE_TAIL - w->z.avail_out;
    if (rc == Z_OK && w->z.avail_in == 0 && w->z.avail_out > 0 && n > 4 && n - 4 < message.n)
        return n - 4;
    deflateReset(&w->z);
    return 0;
}
