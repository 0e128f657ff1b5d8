/* A borrowed span of bytes, passed by value: the only string argument in the house.
 * A view owns nothing and carries no terminator; U+0000 is an ordinary byte. */
#ifndef COMMON_VIEW_H
#define COMMON_VIEW_H

#include "common/base.h"

struct view {
    const uint8_t *p;
    size_t n;
};

/* A view of a string literal, without its terminator. */
#define VIEW(lit) ((struct view){(const uint8_t *)(lit), sizeof(lit) - 1})
#define VIEW_NONE ((struct view){NULL, 0})
/* For printf's "%.*s"; only for bytes already known to be printable. */
#define VIEW_FMT(v) (int)(v).n, (const char *)(v).p

static inline struct view
view_of(const void *p, size_t n)
{
    return (struct view){(const uint8_t *)p, n};
}

static inline struct view
view_str(const char *s)
{
    return view_of(s, strlen(s));
}

static inline bool
view_eq(struct view a, struct view b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

/* ASCII case folded comparison, as HTTP field names and tokens want it. */
static inline bool
view_eq_nocase(struct view a, struct view b)
{
    if (a.n != b.n)
        return false;
    for (size_t i = 0; i < a.n; i++) {
        uint8_t x = a.p[i], y = b.p[i];
        if (x >= 'A' && x <= 'Z')
            x |= 0x20;
        if (y >= 'A' && y <= 'Z')
            y |= 0x20;
        if (x != y)
            return false;
    }
    return true;
}

static inline bool
view_starts(struct view v, struct view prefix)
{
    return v.n >= prefix.n && memcmp(v.p, prefix.p, prefix.n) == 0;
}

/* What remains after the first n bytes (n is clamped). */
static inline struct view
view_from(struct view v, size_t n)
{
    n = MIN(n, v.n);
    return (struct view){v.p + n, v.n - n};
}

/* The first n bytes (n is clamped). */
static inline struct view
view_head(struct view v, size_t n)
{
    return (struct view){v.p, MIN(n, v.n)};
}

/* Without the blanks and tabs around it: what HTTP calls optional white space. */
static inline struct view
view_trim(struct view v)
{
    while (v.n && (v.p[0] == ' ' || v.p[0] == '\t'))
        v = view_from(v, 1);
    while (v.n && (v.p[v.n - 1] == ' ' || v.p[v.n - 1] == '\t'))
        v.n--;
    return v;
}

#endif
