#include "broker/redis_reply.h"

#include <hiredis/read.h>
#include <stdlib.h>

#include "common/buf.h"

#include "common/banned.h"

/* redisReader moves what it has not read to the front of its buffer about once a KiB: fed a piece at a time it has
 * little to move. */
#define PIECE 8192
#define LINE_MAX_BYTES 65536 /* a status, an error, a number */
#define NUMBER_MAX_BYTES 32  /* behind $, *, : */
#define KEEP_TEXT 65536      /* memory that is kept from reply to reply */
#define KEEP_VALUES 1024

struct redis_reply_reader {
    redisReader *r;
    struct redis_reply_bounds bounds;
    struct buf text;       /* of the reply that is being read; values point to it by offset until it is whole */
    struct redis_value *v;
    uint32_t n, cap;
    const char *why;       /* a bound was passed */
};

/* -- what redisReader makes of what it reads -- */

#define MADE ((void *)1) /* it wants an object for each value, and we keep them in a row */

static void *
refuse(struct redis_reply_reader *rr, const char *why)
{
    rr->why = why;
    return NULL;
}

static struct redis_value *
add(const redisReadTask *t, enum redis_kind kind)
{
    struct redis_reply_reader *rr = t->privdata;
    if (rr->n > rr->bounds.max_array)
        return refuse(rr, "a reply of more than redis.max_array values");
    if (rr->n == rr->cap) {
        uint32_t cap = MAX(rr->cap * 2, 16u);
        struct redis_value *v = realloc(rr->v, cap * sizeof *v);
        if (v == NULL)
            return refuse(rr, "no memory for a reply");
        rr->v = v;
        rr->cap = cap;
    }
    rr->v[rr->n] = (struct redis_value){.kind = kind};
    return &rr->v[rr->n++];
}

static void *
on_string(const redisReadTask *t, char *p, size_t n)
{
    struct redis_reply_reader *rr = t->privdata;
    bool bulk = t->type == REDIS_REPLY_STRING;
    struct redis_value *v = add(t, bulk ? REDIS_STRING : t->type == REDIS_REPLY_ERROR ? REDIS_ERROR : REDIS_STATUS);
    if (v == NULL)
        return NULL;
    if (bulk && (p[n] != '\r' || p[n + 1] != '\n'))
        return refuse(rr, "a string that does not end where it said");
    if (bulk && n > rr->bounds.max_bulk) /* it came whole at once: rest_is_fine() did not see it */
        return refuse(rr, "a string of more than redis.max_bulk");
    v->text = view_of((const uint8_t *)(uintptr_t)rr->text.n, n);
    buf_put(&rr->text, p, n);
    return rr->text.failed ? refuse(rr, "a reply of more than redis.max_bulk") : MADE;
}

static void *
on_array(const redisReadTask *t, int n)
{
    struct redis_reply_reader *rr = t->privdata;
    unsigned depth = 1;
    for (const redisReadTask *up = t->parent; up != NULL; up = up->parent)
        depth++;
    if (depth > rr->bounds.max_depth)
        return refuse(rr, "a reply deeper than redis.max_depth");
    if (n < 0 || (uint32_t)n > rr->bounds.max_array - MIN(rr->n, rr->bounds.max_array))
        return refuse(rr, "a reply of more than redis.max_array values");
    struct redis_value *v = add(t, REDIS_ARRAY);
    if (v == NULL)
        return NULL;
    v->n = n;
    return MADE;
}

static void *
on_integer(const redisReadTask *t, long long n)
{
    struct redis_value *v = add(t, REDIS_INTEGER);
    if (v == NULL)
        return NULL;
    v->n = n;
    return MADE;
}

static void *
on_nil(const redisReadTask *t)
{
    return add(t, REDIS_NIL) != NULL ? MADE : NULL;
}

static void
on_free(void *made)
{
    (void)made;
}

static redisReplyObjectFunctions functions = {on_string, on_array, on_integer, on_nil, on_free};

/* -- reading -- */

struct redis_reply_reader *
redis_reply_reader_new(const struct redis_reply_bounds *bounds)
{
    struct redis_reply_reader *rr = calloc(1, sizeof *rr);
    redisReader *r = rr != NULL ? redisReaderCreateWithFunctions(&functions) : NULL;
    if (r == NULL) {
        free(rr);
        return NULL;
    }
    r->privdata = rr;
    rr->r = r;
    rr->bounds = *bounds;
    rr->text = buf_make(bounds->max_bulk + KEEP_TEXT);
    return rr;
}

void
redis_reply_reader_free(struct redis_reply_reader *rr)
{
    if (rr == NULL)
        return;
    redisReaderFree(rr->r);
    buf_free(&rr->text);
    free(rr->v);
    free(rr);
}

/* The string's length as it was announced; SIZE_MAX for nonsense. */
static size_t
announced(const char *p, size_t n)
{
    size_t v = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9' || v > SIZE_MAX / 16)
            return p[i] == '-' && i == 0 && n == 2 ? 0 : SIZE_MAX; /* $-1: none */
        v = v * 10 + (size_t)(p[i] - '0');
    }
    return v;
}

/* What is not whole yet may still become so: bounds before memory, and no line that is looked through again and again. */
static bool
rest_is_fine(struct redis_reply_reader *rr)
{
    const redisReader *r = rr->r;
    size_t n = r->len - r->pos;
    if (r->ridx < 0 || n == 0)
        return true;
    const char *p = r->buf + r->pos;
    int type = r->rstack[r->ridx].type;
    if (type == REDIS_REPLY_STATUS || type == REDIS_REPLY_ERROR)
        return n <= LINE_MAX_BYTES || refuse(rr, "a line that does not end") != NULL;
    if (type < 0)
        return true;
    const char *end = memchr(p, '\r', MIN(n, (size_t)NUMBER_MAX_BYTES));
    if (end == NULL)
        return n <= NUMBER_MAX_BYTES || refuse(rr, "a number that does not end") != NULL;
    if (type == REDIS_REPLY_STRING && announced(p, (size_t)(end - p)) > rr->bounds.max_bulk)
        return refuse(rr, "a string of more than redis.max_bulk") != NULL;
    return true;
}

/* Offsets become views. */
static struct redis_reply
whole(struct redis_reply_reader *rr)
{
    for (uint32_t i = 0; i < rr->n; i++)
        if (rr->v[i].kind == REDIS_STRING || rr->v[i].kind == REDIS_STATUS || rr->v[i].kind == REDIS_ERROR)
            rr->v[i].text.p = rr->text.p == NULL ? (const uint8_t *)"" : rr->text.p + (uintptr_t)rr->v[i].text.p;
    return (struct redis_reply){rr->v, rr->n};
}

static void
forget(struct redis_reply_reader *rr)
{
    buf_reset(&rr->text);
    if (rr->text.cap > KEEP_TEXT)
        buf_free(&rr->text);
    if (rr->cap > KEEP_VALUES) {
        free(rr->v);
        rr->v = NULL;
        rr->cap = 0;
    }
    rr->n = 0;
}

/* One piece; *more is cleared when fn wants no more. */
static bool
feed_piece(struct redis_reply_reader *rr, struct view piece, bool (*fn)(void *arg, const struct redis_reply *), void *arg,
    bool *more)
{
    if (redisReaderFeed(rr->r, (const char *)piece.p, piece.n) != REDIS_OK)
        return refuse(rr, "no memory for a reply") != NULL;
    while (*more) {
        void *made = NULL;
        if (redisReaderGetReply(rr->r, &made) != REDIS_OK)
            return false;
        if (made == NULL)
            return rest_is_fine(rr);
        struct redis_reply reply = whole(rr);
        *more = fn(arg, &reply);
        forget(rr);
    }
    return true;
}

bool
redis_reply_reader_feed(struct redis_reply_reader *rr, struct view bytes, bool (*fn)(void *arg, const struct redis_reply *),
    void *arg, const char **why)
{
    bool more = true;
    while (more && bytes.n > 0) {
        struct view piece = view_head(bytes, PIECE);
        if (!feed_piece(rr, piece, fn, arg, &more)) {
            *why = rr->why != NULL ? rr->why : "bytes that are no reply";
            return false;
        }
        bytes = view_from(bytes, piece.n);
    }
    return true;
}

/* -- looking at one -- */

uint32_t
redis_reply_next(const struct redis_reply *r, uint32_t i)
{
    int64_t left = 1;
    while (left > 0 && i < r->n) {
        left += r->v[i].kind == REDIS_ARRAY ? r->v[i].n : 0;
        left--;
        i++;
    }
    return i;
}

bool
redis_reply_is(const struct redis_reply *r, uint32_t i, struct view text)
{
    return i < r->n && (r->v[i].kind == REDIS_STRING || r->v[i].kind == REDIS_STATUS) && view_eq_nocase(r->v[i].text, text);
}
