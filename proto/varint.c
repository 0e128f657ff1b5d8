#include "proto/varint.h"

size_t
varint_put(uint8_t *out, uint64_t v)
{
    size_t n = 0;
    while (v >= 0x80) {
        out[n++] = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    out[n++] = (uint8_t)v;
    return n;
}

bool
varint_take(struct view *in, uint64_t *v)
{
    uint64_t sum = 0;
    for (unsigned n = 0; n < 10 && n < in->n; n++) {
        uint8_t c = in->p[n];
        if (n == 9 && c > 1)
            return false; /* above 64 bits */
        sum |= (uint64_t)(c & 0x7f) << 7 * n;
        if (c & 0x80)
            continue;
        if (c == 0 && n > 0)
            return false; /* a longer spelling than need be */
        *in = view_from(*in, n + 1);
        *v = sum;
        return true;
    }
    return false;
}
