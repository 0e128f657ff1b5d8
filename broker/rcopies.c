#include "broker/rcopies.h"

#include <stdlib.h>

#include "common/banned.h"

/* Hash tags whose slots are in the middle of the first, second and third third: 2727, 8193, 13650. */
static const char tags[RCOPIES][5] = {"{um}", "{sm}", "{pm}"};
#define TAG_BYTES 4
/* Between prefix and name; a prefix has neither. */
#define CONTROL_MARK '/'
#define CHANNEL_MARK ':'

struct rcopy {
    uint64_t token;
    uint32_t left;
    uint32_t next_free;
    bool is_told;
};

unsigned
rcopies_of(struct bus_topic t)
{
    return t.kind == BUS_CONTROL ? RCOPIES : 1;
}

struct view
rcopies_name(struct buf *out, struct view prefix, struct bus_topic t, unsigned copy)
{
    buf_reset(out);
    buf_put_view(out, prefix);
    buf_put_u8(out, t.kind == BUS_CONTROL ? CONTROL_MARK : CHANNEL_MARK);
    if (t.kind == BUS_CONTROL)
        buf_put(out, tags[copy], TAG_BYTES);
    buf_put_view(out, t.name);
    return out->failed ? VIEW_NONE : buf_view(out);
}

bool
rcopies_topic(struct view prefix, struct view name, struct bus_topic *out)
{
    if (name.n <= prefix.n || !view_starts(name, prefix))
        return false;
    bool control = name.p[prefix.n] == CONTROL_MARK;
    if ((!control && name.p[prefix.n] != CHANNEL_MARK) || (control && name.n < prefix.n + 1 + TAG_BYTES))
        return false;
    out->kind = control ? BUS_CONTROL : BUS_CHANNEL;
    out->name = view_from(name, prefix.n + 1 + (control ? TAG_BYTES : 0));
    return true;
}

bool
rcopies_init(struct rcopies *r)
{
    r->v = calloc(RCOPIES_MAX, sizeof *r->v);
    if (r->v == NULL)
        return false;
    for (uint32_t i = 0; i < RCOPIES_MAX; i++)
        r->v[i].next_free = i + 1 < RCOPIES_MAX ? i + 1 : RCOPIES_NONE;
    r->free = 0;
    return true;
}

void
rcopies_fini(struct rcopies *r)
{
    free(r->v);
    r->v = NULL;
}

uint32_t
rcopies_begin(struct rcopies *r, uint64_t token)
{
    uint32_t at = r->free;
    if (at == RCOPIES_NONE)
        return at;
    r->free = r->v[at].next_free;
    r->v[at] = (struct rcopy){.token = token};
    return at;
}

static void
end(struct rcopies *r, uint32_t at)
{
    r->v[at].next_free = r->free;
    r->free = at;
}

void
rcopies_sent(struct rcopies *r, uint32_t at, uint32_t copies)
{
    r->v[at].left = copies;
    if (copies == 0)
        end(r, at);
}

bool
rcopies_fate(struct rcopies *r, uint32_t at, enum bus_fate fate, uint64_t *token)
{
    struct rcopy *c = &r->v[at];
    bool now = !c->is_told && (fate == BUS_TAKEN || c->left == 1);
    *token = c->token;
    c->is_told |= now;
    if (--c->left == 0)
        end(r, at);
    return now;
}
