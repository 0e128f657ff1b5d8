#include "common/buf.h"

#include <stdlib.h>

struct buf
buf_make(size_t max)
{
    return (struct buf){.max = max};
}

struct buf
buf_fixed(void *mem, size_t cap)
{
    return (struct buf){.p = mem, .cap = cap, .max = cap, .fixed = true};
}

void
buf_free(struct buf *b)
{
    if (!b->fixed) {
        free(b->p);
        b->p = NULL;
        b->cap = 0;
    }
    b->n = 0;
    b->failed = false;
}

void
buf_reset(struct buf *b)
{
    b->n = 0;
    b->failed = false;
}

bool
buf_reserve_slow(struct buf *b, size_t more)
{
    if (b->fixed || more > b->max || b->n > b->max - more) {
        b->failed = true;
        return false;
    }
    size_t want = b->n + more;
    size_t cap = MAX(b->cap * 2, (size_t)64);
    cap = MIN(MAX(cap, want), b->max);
    uint8_t *p = realloc(b->p, cap);
    if (p == NULL) {
        b->failed = true;
        return false;
    }
    b->p = p;
    b->cap = cap;
    return true;
}

void
buf_put_uint(struct buf *b, uint64_t v)
{
    char digits[20];
    size_t n = 0;
    do
        digits[sizeof digits - ++n] = (char)('0' + v % 10);
    while ((v /= 10) != 0);
    buf_put(b, digits + sizeof digits - n, n);
}

void
buf_eat(struct buf *b, size_t n)
{
    n = MIN(n, b->n);
    if (n < b->n && n > 0)
        memmove(b->p, b->p + n, b->n - n);
    b->n -= n;
}
