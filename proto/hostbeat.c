#include "proto/hostbeat.h"

#include "proto/varint.h"

#define ORIGIN_BYTES 16 /* host, then epoch and broker, the lowest byte first */

static void
put_tag(struct buf *out, uint64_t tag, size_t n)
{
    uint8_t head[2 * VARINT_MAX];
    size_t k = varint_put(head, tag);
    k += varint_put(head + k, n);
    buf_put(out, head, k);
}

static void
put_number(struct buf *out, uint64_t tag, uint64_t v)
{
    uint8_t bytes[VARINT_MAX];
    size_t n = varint_put(bytes, v);
    if (v == 0)
        return;
    put_tag(out, tag, n);
    buf_put(out, bytes, n);
}

static bool
is_shown(uint8_t c)
{
    return c > 0x20 && c < 0x7f;
}

static void
put_text(struct buf *out, uint64_t tag, struct view text, size_t most)
{
    size_t n = MIN(text.n, most);
    if (n == 0)
        return;
    put_tag(out, tag, n);
    for (size_t i = 0; i < n; i++)
        buf_put_u8(out, is_shown(text.p[i]) ? text.p[i] : '?');
}

static void
put_origin(struct buf *out, const struct envelope_origin *o)
{
    put_tag(out, HOSTBEAT_TO, ORIGIN_BYTES);
    buf_put(out, o->host, sizeof o->host);
    for (unsigned i = 0; i < 4; i++)
        buf_put_u8(out, (uint8_t)(o->epoch >> 8 * i));
    for (unsigned i = 0; i < 4; i++)
        buf_put_u8(out, (uint8_t)(o->broker >> 8 * i));
}

bool
hostbeat_put(struct buf *out, const struct hostbeat *h)
{
    size_t before = out->n;
    buf_put_u8(out, (uint8_t)h->kind);
#define HOSTBEAT_NUMBER(tag, name, sentence) put_number(out, tag, h->name);
    HOSTBEAT_NUMBERS(HOSTBEAT_NUMBER)
#undef HOSTBEAT_NUMBER
    put_text(out, HOSTBEAT_NAME, h->name, HOSTBEAT_NAME_MAX);
    put_text(out, HOSTBEAT_RELEASE, h->release, HOSTBEAT_RELEASE_MAX);
    if (h->kind == HOSTBEAT_COUNT) {
        put_tag(out, HOSTBEAT_CHANNEL, MIN(h->channel.n, (size_t)HOSTBEAT_CHANNEL_MAX));
        buf_put(out, h->channel.p, MIN(h->channel.n, (size_t)HOSTBEAT_CHANNEL_MAX));
    }
    if (h->kind == HOSTBEAT_COUNTED)
        put_origin(out, &h->to);
    if (out->failed)
        out->n = before;
    return !out->failed;
}

/* -- reading -- */

static bool
take_number(struct view v, uint64_t *out)
{
    return varint_take(&v, out) && v.n == 0;
}

static bool
take_text(struct view v, size_t most, struct view *out)
{
    for (size_t i = 0; i < v.n; i++)
        if (!is_shown(v.p[i]))
            return false;
    *out = v;
    return v.n <= most;
}

static bool
take_origin(struct view v, struct envelope_origin *o)
{
    if (v.n != ORIGIN_BYTES)
        return false;
    *o = (struct envelope_origin){0};
    memcpy(o->host, v.p, sizeof o->host);
    for (unsigned i = 0; i < 4; i++) {
        o->epoch |= (uint32_t)v.p[8 + i] << 8 * i;
        o->broker |= (uint32_t)v.p[12 + i] << 8 * i;
    }
    return true;
}

static bool
take_field(struct hostbeat *h, uint64_t tag, struct view v)
{
    switch (tag) {
#define HOSTBEAT_NUMBER(tag, name, sentence)                                                                           \
    case tag: return take_number(v, &h->name);
        HOSTBEAT_NUMBERS(HOSTBEAT_NUMBER)
#undef HOSTBEAT_NUMBER
    case HOSTBEAT_NAME: return take_text(v, HOSTBEAT_NAME_MAX, &h->name);
    case HOSTBEAT_RELEASE: return take_text(v, HOSTBEAT_RELEASE_MAX, &h->release);
    case HOSTBEAT_CHANNEL: h->channel = v; return v.n <= HOSTBEAT_CHANNEL_MAX;
    case HOSTBEAT_TO: return take_origin(v, &h->to);
    default: return true;
    }
}

bool
hostbeat_get(struct view in, struct hostbeat *h)
{
    if (in.n < 1 || in.p[0] == 0 || in.p[0] >= HOSTBEAT_KINDS)
        return false;
    *h = (struct hostbeat){.kind = (enum hostbeat_kind)in.p[0]};
    in = view_from(in, 1);
    while (in.n > 0) {
        uint64_t tag, n;
        if (!varint_take(&in, &tag) || !varint_take(&in, &n) || n > in.n || !take_field(h, tag, view_head(in, (size_t)n)))
            return false;
        in = view_from(in, (size_t)n);
    }
    return h->seq > 0 || h->kind >= HOSTBEAT_COUNT;
}
