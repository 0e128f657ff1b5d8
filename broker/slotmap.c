#include "broker/slotmap.h"

/* -- CLUSTER SLOTS: [[first, last, [host, port, id, ...], [replica] ...] ...] -- */

static bool
host_take(struct slotmap_node *n, struct view host)
{
    if (host.n >= sizeof n->host || (host.n > 0 && memchr(host.p, 0, host.n) != NULL))
        return false;
    if (host.n > 0)
        memcpy(n->host, host.p, host.n);
    n->host[host.n] = 0;
    return true;
}

static const char *
node_read(struct slotmap_node *n, const struct redis_reply *r, uint32_t at, const char *asked)
{
    if (r->v[at].kind != REDIS_ARRAY || r->v[at].n < 2)
        return "a node is no array";
    uint32_t port_at = redis_reply_next(r, at + 1);
    const struct redis_value *host = &r->v[at + 1], *port = &r->v[port_at];
    if ((host->kind != REDIS_STRING && host->kind != REDIS_NIL) || port->kind != REDIS_INTEGER || port->n < 0 ||
        port->n > UINT16_MAX)
        return "a node has no address";
    struct view text = host->kind == REDIS_STRING && host->text.n > 0 ? host->text : view_str(asked);
    if (!host_take(n, text))
        return "the name of a node is too long";
    n->port = (uint16_t)port->n;
    return NULL;
}

static bool
node_same(const struct slotmap_node *a, const struct slotmap_node *b)
{
    return a->port == b->port && strcmp(a->host, b->host) == 0;
}

/* Ranges of a node tend to stand apart, and there are few nodes or few ranges: looked for from the end. */
static uint16_t
node_index(struct slotmap *m, const struct slotmap_node *n)
{
    for (uint16_t i = m->node_count; i-- > 0;)
        if (node_same(&m->nodes[i], n))
            return i;
    if (m->node_count == SLOTMAP_NODES)
        return SLOTMAP_NONE;
    m->nodes[m->node_count] = *n;
    return m->node_count++;
}

static const char *
range_read(struct slotmap *m, const struct redis_reply *r, uint32_t at, const char *asked)
{
    struct slotmap_node node;
    if (r->v[at].kind != REDIS_ARRAY || r->v[at].n < 3)
        return "a range is no array";
    const struct redis_value *from = &r->v[at + 1];
    if (from->kind != REDIS_INTEGER || from[1].kind != REDIS_INTEGER)
        return "a range has no ends";
    if (from->n < 0 || from[1].n < from->n || from[1].n >= SLOTS)
        return "a range lies outside of the slots";
    const char *why = node_read(&node, r, at + 3, asked);
    if (why != NULL)
        return why;
    uint16_t index = SLOTMAP_NONE;
    /* "?": it has no name that clients could use. Port 0: it is on its way out. */
    if (strcmp(node.host, "?") != 0 && node.host[0] != 0 && node.port != 0 && (index = node_index(m, &node)) == SLOTMAP_NONE)
        return "more primaries than there may be";
    for (int64_t s = from->n; s <= from[1].n; s++)
        m->owner[s] = index;
    return NULL;
}

bool
slotmap_read(struct slotmap *m, const struct redis_reply *r, const char *asked, const char **why)
{
    m->node_count = 0;
    memset(m->owner, 0xff, sizeof m->owner);
    *why = "it is no array";
    if (r->v[0].kind != REDIS_ARRAY || r->v[0].n < 0)
        return false;
    *why = "more ranges than slots";
    if (r->v[0].n > SLOTS)
        return false;
    *why = NULL;
    uint32_t at = 1;
    for (int64_t i = 0; i < r->v[0].n && *why == NULL; i++, at = redis_reply_next(r, at))
        *why = range_read(m, r, at, asked);
    return *why == NULL;
}

/* -- words -- */

/* Takes decimal digits, at least one, up to max; false when there are none or it is more. */
static bool
number_take(struct view *v, uint64_t max, uint64_t *out)
{
    uint64_t n = 0;
    size_t i = 0;
    for (; i < v->n && v->p[i] >= '0' && v->p[i] <= '9'; i++) {
        uint64_t digit = v->p[i] - '0';
        if (n > (max - digit) / 10)
            return false;
        n = n * 10 + digit;
    }
    *v = view_from(*v, i);
    *out = n;
    return i > 0;
}

bool
slotmap_info_read(struct slotmap_info *i, struct view text)
{
    const struct view state = VIEW("cluster_state:"), epoch = VIEW("cluster_current_epoch:");
    bool has_state = false, has_epoch = false;
    *i = (struct slotmap_info){.ok = false};
    while (text.n > 0) {
        const uint8_t *end = memchr(text.p, '\n', text.n);
        struct view line = view_head(text, end != NULL ? (size_t)(end - text.p) : text.n);
        text = view_from(text, line.n + 1);
        if (view_starts(line, state)) {
            i->ok = view_starts(view_from(line, state.n), VIEW("ok"));
            has_state = true;
        } else if (view_starts(line, epoch)) {
            struct view digits = view_from(line, epoch.n);
            has_epoch = number_take(&digits, UINT64_MAX, &i->epoch);
        }
    }
    return has_state && has_epoch;
}

/* "3999 127.0.0.1:6381", "3999 ::1:6381" or, when the one that answers means its own host, "3999 :6381". */
static bool
redirect_read(struct view text, struct slotmap_redirect *out)
{
    uint64_t slot, port;
    if (!number_take(&text, SLOTS - 1, &slot) || text.n < 2 || text.p[0] != ' ')
        return false;
    text = view_from(text, 1);
    const uint8_t *colon = memrchr(text.p, ':', text.n);
    if (colon == NULL)
        return false;
    struct view host = view_head(text, (size_t)(colon - text.p)), digits = view_from(text, host.n + 1);
    if (!number_take(&digits, UINT16_MAX, &port) || digits.n > 0 || port == 0 || !host_take(&out->to, host))
        return false;
    if (view_eq(host, VIEW("?"))) /* no name that clients could use */
        return false;
    out->slot = (uint16_t)slot;
    out->to.port = (uint16_t)port;
    return true;
}

enum slotmap_verdict
slotmap_judge(struct view error, struct slotmap_redirect *out)
{
    static const struct view later[] = {VIEW("TRYAGAIN"), VIEW("CLUSTERDOWN"), VIEW("LOADING"), VIEW("MASTERDOWN")};
    if (view_starts(error, VIEW("MOVED ")))
        return redirect_read(view_from(error, 6), out) ? SLOTMAP_MOVED : SLOTMAP_ERROR;
    if (view_starts(error, VIEW("ASK ")))
        return redirect_read(view_from(error, 4), out) ? SLOTMAP_ASK : SLOTMAP_ERROR;
    for (size_t i = 0; i < ARRAY_LEN(later); i++)
        if (view_starts(error, later[i]))
            return SLOTMAP_LATER;
    return SLOTMAP_ERROR;
}
