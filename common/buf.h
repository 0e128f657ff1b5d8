/* Growable bytes with a hard bound. Appends never fail loudly: a refused one sets `failed`, which
 * stays set until buf_reset, so that an encoder can write on and ask once at the end. */
#ifndef COMMON_BUF_H
#define COMMON_BUF_H

#include "common/base.h"
#include "common/view.h"

struct buf {
    uint8_t *p;
    size_t n;      /* bytes in use */
    size_t cap;    /* bytes there */
    size_t max;    /* bytes it may ever hold */
    bool fixed;    /* the memory is somebody else's: never grown, never freed */
    bool failed;   /* an append did not fit or memory was out; n was left as it was */
};

/* An empty buffer that may grow to max bytes; allocates nothing yet. */
struct buf buf_make(size_t max);
/* A buffer over memory of the caller's, which outlives it. */
struct buf buf_fixed(void *mem, size_t cap);
/* Frees what it grew; the buffer is empty and usable again. */
void buf_free(struct buf *b);
/* Forgets the content, keeps the memory, clears `failed`. */
void buf_reset(struct buf *b);

/* Room for `more` bytes behind n; false (and `failed`) when that would pass max. */
bool buf_reserve_slow(struct buf *b, size_t more);
static inline bool
buf_reserve(struct buf *b, size_t more)
{
    return LIKELY(b->cap - b->n >= more) || buf_reserve_slow(b, more);
}

static inline void
buf_put(struct buf *b, const void *p, size_t n)
{
    if (LIKELY(buf_reserve(b, n)) && n) {
        memcpy(b->p + b->n, p, n);
        b->n += n;
    }
}

static inline void
buf_put_view(struct buf *b, struct view v)
{
    buf_put(b, v.p, v.n);
}

static inline void
buf_put_u8(struct buf *b, uint8_t c)
{
    if (LIKELY(buf_reserve(b, 1)))
        b->p[b->n++] = c;
}

#define buf_put_lit(b, lit) buf_put((b), (lit), sizeof(lit) - 1)

/* Decimal digits of v. */
void buf_put_uint(struct buf *b, uint64_t v);

/* Drops n bytes from the front (moves the rest: for small or rare buffers). */
void buf_eat(struct buf *b, size_t n);

static inline struct view
buf_view(const struct buf *b)
{
    return view_of(b->p, b->n);
}

#endif
