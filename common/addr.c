#include "common/addr.h"

#include <arpa/inet.h>

#include "common/banned.h"

static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

struct addr
addr_from_v4(const uint8_t b[4])
{
    struct addr a;
    memcpy(a.b, mapped, sizeof mapped);
    memcpy(a.b + 12, b, 4);
    return a;
}

bool
addr_is_none(const struct addr *a)
{
    static const struct addr none;
    return memcmp(a, &none, sizeof none) == 0;
}

bool
addr_is_v4(const struct addr *a)
{
    return memcmp(a->b, mapped, sizeof mapped) == 0;
}

/* Copied out with a terminator for inet_pton, and only if it is made of what addresses are made of. */
static bool
is_address_text(struct view text, char out[ADDR_TEXT])
{
    if (text.n == 0 || text.n >= ADDR_TEXT)
        return false;
    for (size_t i = 0; i < text.n; i++) {
        uint8_t c = text.p[i], letter = c | 0x20;
        if (!(c >= '0' && c <= '9') && !(letter >= 'a' && letter <= 'f') && c != '.' && c != ':')
            return false;
        out[i] = (char)c;
    }
    out[text.n] = '\0';
    return true;
}

bool
addr_parse(struct view text, struct addr *out)
{
    char s[ADDR_TEXT];
    uint8_t v4[4];
    if (!is_address_text(text, s))
        return false;
    if (inet_pton(AF_INET, s, v4) == 1) {
        *out = addr_from_v4(v4);
        return true;
    }
    return inet_pton(AF_INET6, s, out->b) == 1;
}

/* One to three digits, without zeroes in front. */
static bool
bits_parse(struct view v, unsigned most, unsigned *out)
{
    unsigned n = 0;
    if (v.n == 0 || v.n > 3 || (v.n > 1 && v.p[0] == '0'))
        return false;
    for (size_t i = 0; i < v.n; i++) {
        if (v.p[i] < '0' || v.p[i] > '9')
            return false;
        n = n * 10 + (unsigned)(v.p[i] - '0');
    }
    *out = n;
    return n <= most;
}

bool
addr_net_parse(struct view text, struct addr_net *out)
{
    size_t slash = 0;
    unsigned bits = 128;
    while (slash < text.n && text.p[slash] != '/')
        slash++;
    if (!addr_parse(view_head(text, slash), &out->addr))
        return false;
    bool v4 = addr_is_v4(&out->addr) && memchr(text.p, '.', slash) != NULL && memchr(text.p, ':', slash) == NULL;
    if (slash < text.n) {
        if (!bits_parse(view_from(text, slash + 1), v4 ? 32 : 128, &bits))
            return false;
        bits += v4 ? 96 : 0;
    }
    struct addr masked = addr_masked(&out->addr, bits);
    out->bits = (uint8_t)bits;
    return memcmp(&masked, &out->addr, sizeof masked) == 0;
}

struct addr
addr_masked(const struct addr *a, unsigned bits)
{
    struct addr m = {{0}};
    unsigned whole = MIN(bits, 128u) / 8, rest = MIN(bits, 128u) % 8;
    memcpy(m.b, a->b, whole);
    if (rest)
        m.b[whole] = (uint8_t)(a->b[whole] & 0xff << (8 - rest));
    return m;
}

bool
addr_net_has(const struct addr_net *net, const struct addr *a)
{
    struct addr m = addr_masked(a, net->bits);
    return memcmp(&m, &net->addr, sizeof m) == 0;
}

bool
addr_nets_have(const struct addr_nets *nets, const struct addr *a)
{
    if (addr_is_none(a))
        return nets->local;
    for (uint32_t i = 0; i < nets->n; i++)
        if (addr_net_has(&nets->v[i], a))
            return true;
    return false;
}

bool
addr_nets_add(struct addr_nets *nets, struct view text)
{
    if (view_eq(text, VIEW("unix"))) {
        nets->local = true;
        return true;
    }
    if (nets->n == ADDR_NETS_MAX || !addr_net_parse(text, &nets->v[nets->n]))
        return false;
    nets->n++;
    return true;
}

const char *
addr_text(const struct addr *a, char out[ADDR_TEXT])
{
    bool v4 = addr_is_v4(a);
    if (addr_is_none(a) || inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? a->b + 12 : a->b, out, ADDR_TEXT) == NULL)
        memcpy(out, "-", 2);
    return out;
}
