/* Replies of a Redis server that may say anything: read whole and in small pieces, what is told is the same, and stays
 * within the bounds. The first byte sets them. */
#include <stdlib.h>

#include "broker/redis_reply.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void
must(bool claim)
{
    if (!claim)
        abort();
}

struct seen {
    uint64_t hash;
    struct redis_reply_bounds bounds;
};

static void
mix(struct seen *s, const void *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        s->hash = (s->hash ^ ((const uint8_t *)p)[i]) * 0x100000001b3u;
}

static bool
look(void *arg, const struct redis_reply *r)
{
    struct seen *s = arg;
    must(r->n >= 1 && r->n <= s->bounds.max_array + 1 && redis_reply_next(r, 0) == r->n);
    for (uint32_t i = 0; i < r->n; i++) {
        const struct redis_value *v = &r->v[i];
        mix(s, &v->kind, sizeof v->kind);
        mix(s, &v->n, sizeof v->n);
        mix(s, v->text.p, v->text.n);
        must(v->kind != REDIS_STRING || v->text.n <= s->bounds.max_bulk);
        must(v->kind != REDIS_ARRAY || (v->n >= 0 && (uint64_t)v->n <= s->bounds.max_array));
        (void)redis_reply_is(r, i, VIEW("message"));
    }
    return true;
}

static bool
read_all(struct seen *s, struct view bytes, size_t piece)
{
    struct redis_reply_reader *rr = redis_reply_reader_new(&s->bounds);
    const char *why = NULL;
    bool ok = rr != NULL;
    must(ok);
    while (ok && bytes.n > 0) {
        struct view now = view_head(bytes, piece);
        ok = redis_reply_reader_feed(rr, now, look, s, &why);
        bytes = view_from(bytes, now.n);
    }
    must(ok || why != NULL);
    redis_reply_reader_free(rr);
    return ok;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n == 0)
        return 0;
    struct seen whole = {.bounds = {.max_bulk = 16u << (data[0] & 7), .max_array = 4u << (data[0] >> 3 & 3),
        .max_depth = 1u + (data[0] >> 5)}}, pieces = whole;
    struct view bytes = view_of(data + 1, n - 1);
    bool ok = read_all(&whole, bytes, SIZE_MAX);
    if (read_all(&pieces, bytes, 3) && ok)
        must(pieces.hash == whole.hash);
    return 0;
}
