#include "proto/envelope.h"

#include "proto/varint.h"

size_t
envelope_put(uint8_t out[ENVELOPE_HEAD_MAX], const struct envelope *e)
{
    out[0] = ENVELOPE_FIRST;
    out[1] = ENVELOPE_VERSION;
    out[2] = (uint8_t)((unsigned)e->kind | (e->flags & ENVELOPE_FLAGS));
    memcpy(out + 3, e->origin.host, 8);
    for (unsigned i = 0; i < 4; i++)
        out[11 + i] = (uint8_t)(e->origin.epoch >> 8 * i);
    size_t n = 15;
    n += varint_put(out + n, e->origin.broker);
    n += varint_put(out + n, e->stretch);
    n += varint_put(out + n, e->number);
    n += varint_put(out + n, e->behind);
    if (e->flags & ENVELOPE_BASE) {
        n += varint_put(out + n, e->base);
        n += varint_put(out + n, e->base_age);
    }
    out[n++] = 0;
    return n;
}

static bool
numbers_take(struct view *in, struct envelope *e)
{
    uint64_t broker, skip;
    if (!varint_take(in, &broker) || broker > UINT32_MAX)
        return false;
    e->origin.broker = (uint32_t)broker;
    if (!varint_take(in, &e->stretch) || !varint_take(in, &e->number) || !varint_take(in, &e->behind))
        return false;
    if ((e->flags & ENVELOPE_BASE) && (!varint_take(in, &e->base) || !varint_take(in, &e->base_age)))
        return false;
    if (!varint_take(in, &skip) || skip > in->n)
        return false;
    *in = view_from(*in, (size_t)skip);
    return true;
}

/* A message has a number, and no more can be missing before it than there were; its base came before it. */
static bool
numbers_can_be(const struct envelope *e)
{
    switch (e->kind) {
    case ENVELOPE_MESSAGE: return e->stretch > 0 && e->number > 0 && e->behind < e->number && e->base < e->number;
    case ENVELOPE_MARK: return e->behind <= e->number && (e->stretch > 0 || e->number == 0) && e->base <= e->number;
    default: return true;
    }
}

enum envelope_rc
envelope_get(struct view in, struct envelope *e)
{
    if (in.n < 1 || in.p[0] != ENVELOPE_FIRST)
        return ENVELOPE_FOREIGN;
    if (in.n < 3)
        return ENVELOPE_BAD;
    if (in.p[1] != ENVELOPE_VERSION || (in.p[2] & 7) >= ENVELOPE_KINDS)
        return ENVELOPE_UNKNOWN;
    if (in.n < 15)
        return ENVELOPE_BAD;
    *e = (struct envelope){.kind = (enum envelope_kind)(in.p[2] & 7), .flags = in.p[2] & ENVELOPE_FLAGS};
    memcpy(e->origin.host, in.p + 3, 8);
    for (unsigned i = 0; i < 4; i++)
        e->origin.epoch |= (uint32_t)in.p[11 + i] << 8 * i;
    in = view_from(in, 15);
    if (!numbers_take(&in, e) || !numbers_can_be(e))
        return ENVELOPE_BAD;
    e->body = in;
    return ENVELOPE_OK;
}

bool
envelope_name_fits(size_t have, size_t n)
{
    return have + n + 2 <= ENVELOPE_ASK_MAX && n < 1u << 14;
}

size_t
envelope_name_put(uint8_t *out, struct view name)
{
    size_t n = varint_put(out, name.n);
    if (name.n)
        memcpy(out + n, name.p, name.n);
    return n + name.n;
}

bool
envelope_name_take(struct view *body, struct view *name, bool *bad)
{
    uint64_t n;
    *bad = false;
    if (body->n == 0)
        return false;
    if (!varint_take(body, &n) || n > body->n) {
        *bad = true;
        return false;
    }
    *name = view_head(*body, (size_t)n);
    *body = view_from(*body, (size_t)n);
    return true;
}
