/* permessage-deflate for the load generator; see pmd.h. */
#include "bench/pmd.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <zlib.h>

#include "common/bug.h"

#define MEMO_SLOTS 256 /* distinct messages remembered, power of two */
#define MEMO_BYTES 8192 /* longest packed message that is */

/* A packed message and its text, one behind the other. */
struct memo {
    uint8_t *bytes;
    uint32_t packed_n, text_n, cap;
};

struct pmd {
    z_stream in, out;
    uint8_t out_bits; /* window of `out`; 0 while there is none */
    uint8_t *text;
    struct memo memo[MEMO_SLOTS];
    uint64_t inflated;
};

struct pmd_stream {
    z_stream in;
};

static void
start_inflate(z_stream *s)
{
    /* Negative: raw deflate, no zlib header. */
    if (inflateInit2(s, -15) != Z_OK)
        die("zlib: no memory for a window");
}

struct pmd *
pmd_new(void)
{
    struct pmd *z = xcalloc(1, sizeof *z);
    z->text = xmalloc(PMD_TEXT_MAX);
    start_inflate(&z->in);
    return z;
}

void
pmd_free(struct pmd *z)
{
    if (z == NULL)
        return;
    inflateEnd(&z->in);
    if (z->out_bits != 0)
        deflateEnd(&z->out);
    for (uint32_t i = 0; i < MEMO_SLOTS; i++)
        free(z->memo[i].bytes);
    free(z->text);
    free(z);
}

struct pmd_stream *
pmd_stream_new(void)
{
    struct pmd_stream *s = xcalloc(1, sizeof *s);
    start_inflate(&s->in);
    return s;
}

void
pmd_stream_free(struct pmd_stream *s)
{
    if (s == NULL)
        return;
    inflateEnd(&s->in);
    free(s);
}

uint64_t
pmd_inflated(const struct pmd *z)
{
    return z->inflated;
}

/* --- terms --------------------------------------------------------------------------------- */

/* One parameter of the answer. */
static bool
take_parameter(struct pmd_terms *t, const char *p, size_t n)
{
    static const char client_bits[] = "client_max_window_bits=", server_bits[] = "server_max_window_bits=";
    if (n == 26 && strncasecmp(p, "server_no_context_takeover", n) == 0) {
        t->server_forgets = true;
        return true;
    }
    if (n == 26 && strncasecmp(p, "client_no_context_takeover", n) == 0)
        return true; /* we never take it over */
    if (n > 23 && strncasecmp(p, server_bits, 23) == 0)
        return true; /* we inflate with 15 bits: enough for all */
    if (n <= 23 || strncasecmp(p, client_bits, 23) != 0)
        return false;
    unsigned bits = 0;
    for (size_t i = 23; i < n; i++) {
        if (p[i] < '0' || p[i] > '9' || bits > 15)
            return false;
        bits = bits * 10 + (unsigned)(p[i] - '0');
    }
    t->client_bits = (uint8_t)MAX(bits, 9u); /* zlib has no window of 8 bits and packs for 9 then */
    return bits >= 8 && bits <= 15;
}

static bool
take_value(struct pmd_terms *t, const char *p, const char *end)
{
    bool first = true;
    while (p < end) {
        const char *semi = memchr(p, ';', (size_t)(end - p));
        const char *stop = semi != NULL ? semi : end, *last = stop;
        while (p < last && *p == ' ')
            p++;
        while (last > p && last[-1] == ' ')
            last--;
        size_t n = (size_t)(last - p);
        if (first ? n != 18 || strncasecmp(p, "permessage-deflate", 18) != 0 : !take_parameter(t, p, n))
            return false;
        first = false;
        p = stop + 1;
    }
    t->agreed = !first;
    return !first;
}

bool
pmd_terms_read(struct pmd_terms *t, const char *head, size_t n)
{
    static const char name[] = "\nsec-websocket-extensions:";
    *t = (struct pmd_terms){.client_bits = 15};
    for (size_t i = 0; i + sizeof name - 1 <= n; i++) {
        if (head[i] != '\n' || strncasecmp(head + i, name, sizeof name - 1) != 0)
            continue;
        const char *p = head + i + sizeof name - 1;
        const char *end = memchr(p, '\r', n - (size_t)(p - head));
        return !t->agreed && end != NULL && take_value(t, p, end);
    }
    return true;
}

/* --- messages ------------------------------------------------------------------------------ */

size_t
pmd_pack(struct pmd *z, uint8_t bits, const uint8_t *text, size_t n, uint8_t *to, size_t cap)
{
    if (z->out_bits != bits) {
        if (z->out_bits != 0)
            deflateEnd(&z->out);
        if (deflateInit2(&z->out, 1, Z_DEFLATED, -bits, 8, Z_DEFAULT_STRATEGY) != Z_OK)
            die("zlib: no memory to compress with");
        z->out_bits = bits;
    }
    deflateReset(&z->out);
    z->out.next_in = (Bytef *)(uintptr_t)text;
    z->out.avail_in = (uInt)n;
    z->out.next_out = to;
    z->out.avail_out = (uInt)cap;
    if (deflate(&z->out, Z_SYNC_FLUSH) != Z_OK || z->out.avail_in != 0 || z->out.avail_out == 0)
        return 0;
    size_t got = cap - z->out.avail_out;
    BUG_ON(got < 4); /* 00 00 ff ff, which stays away: section 7.2.1 */
    return got - 4;
}

/* Inflates one message into z->text; its length, or SIZE_MAX. */
static size_t
unpack(struct pmd *z, z_stream *in, const uint8_t *p, size_t n)
{
    static const uint8_t tail[4] = {0, 0, 0xff, 0xff};
    z->inflated++;
    in->next_out = z->text;
    in->avail_out = PMD_TEXT_MAX;
    for (int part = 0; part < 2; part++) {
        in->next_in = (Bytef *)(uintptr_t)(part == 0 ? p : tail);
        in->avail_in = part == 0 ? (uInt)n : sizeof tail;
        int rc = inflate(in, Z_SYNC_FLUSH);
        /* A final block may end the stream early (section 7.2.3.5); the next message starts anew. */
        if (rc == Z_STREAM_END && in->avail_in <= 1) {
            size_t got = PMD_TEXT_MAX - in->avail_out;
            inflateReset(in);
            return got;
        }
        if ((rc != Z_OK && rc != Z_BUF_ERROR) || in->avail_in != 0 || in->avail_out == 0)
            return SIZE_MAX;
    }
    return PMD_TEXT_MAX - in->avail_out;
}

static struct memo *
memo_of(struct pmd *z, const uint8_t *p, size_t n)
{
    uint64_t h = n * 0x9e3779b97f4a7c15ull, word;
    for (size_t i = 0; i + 8 <= MIN(n, 256u); i += 8) {
        memcpy(&word, p + i, 8);
        h = (h ^ word) * 0xff51afd7ed558ccdull;
        h ^= h >> 32;
    }
    return &z->memo[h & (MEMO_SLOTS - 1)];
}

static void
remember(struct pmd *z, struct memo *m, const uint8_t *p, size_t n, size_t text_n)
{
    if (m->cap < n + text_n) {
        m->cap = (uint32_t)pow2_ceil(n + text_n);
        free(m->bytes);
        m->bytes = xmalloc(m->cap);
    }
    memcpy(m->bytes, p, n);
    memcpy(m->bytes + n, z->text, text_n);
    m->packed_n = (uint32_t)n;
    m->text_n = (uint32_t)text_n;
}

const uint8_t *
pmd_unpack(struct pmd *z, struct pmd_stream *s, const uint8_t *p, size_t n, size_t *text_n)
{
    struct memo *m = s == NULL && n > 0 && n <= MEMO_BYTES ? memo_of(z, p, n) : NULL;
    if (m != NULL && m->packed_n == n && memcmp(m->bytes, p, n) == 0) {
        *text_n = m->text_n;
        return m->bytes + n;
    }
    if (s == NULL)
        inflateReset(&z->in);
    size_t got = unpack(z, s != NULL ? &s->in : &z->in, p, n);
    if (got == SIZE_MAX)
        return NULL;
    *text_n = got;
    if (m != NULL)
        remember(z, m, p, n, got);
    return z->text;
}
