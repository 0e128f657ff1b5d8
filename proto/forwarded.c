#include "proto/forwarded.h"

#include "common/banned.h"

/* The walk goes from left to right, so that quoted texts need no second look, and keeps what the
 * rightmost answer would be if the list ended here. */
struct walk {
    const struct addr_nets *trusted;
    struct addr client;
    bool found; /* client is an entry's; else the answer is the peer, or the entry that comes next */
};

/* An entry that is no address: the next one is the hop that wrote it. */
static void
walk_hidden(struct walk *k)
{
    k->found = false;
}

static void
walk_entry(struct walk *k, const struct addr *a)
{
    if (k->found && addr_nets_have(k->trusted, a))
        return; /* one of ours, and who it heard from stands to its left */
    k->client = *a;
    k->found = true;
}

static bool
is_port(struct view v)
{
    for (size_t i = 0; i < v.n; i++)
        if (v.p[i] < '0' || v.p[i] > '9')
            return false;
    return v.n >= 1 && v.n <= 5;
}

/* An address as nodes are written (RFC 7239 section 6): "192.0.2.1", "192.0.2.1:80", "[2001:db8::1]",
 * "[2001:db8::1]:80"; and IPv6 without brackets or port, as X-Forwarded-For has it. */
static bool
node_parse(struct view v, struct addr *out)
{
    if (v.n > 0 && v.p[0] == '[') {
        const uint8_t *end = memchr(v.p, ']', v.n);
        if (end == NULL)
            return false;
        size_t n = (size_t)(end - v.p);
        struct view rest = view_from(v, n + 1), inside = view_from(view_head(v, n), 1);
        bool port_ok = rest.n == 0 || (rest.p[0] == ':' && is_port(view_from(rest, 1)));
        return port_ok && memchr(inside.p, ':', inside.n) != NULL && addr_parse(inside, out);
    }
    const uint8_t *colon = v.n > 0 ? memchr(v.p, ':', v.n) : NULL;
    size_t n = colon != NULL ? (size_t)(colon - v.p) : v.n;
    if (colon != NULL && memchr(colon + 1, ':', v.n - n - 1) == NULL)
        return is_port(view_from(v, n + 1)) && addr_parse(view_head(v, n), out);
    return addr_parse(v, out);
}

static void
walk_node(struct walk *k, struct view node)
{
    struct addr a;
    if (node_parse(node, &a))
        walk_entry(k, &a);
    else
        walk_hidden(k);
}

/* ---- X-Forwarded-For: addresses with commas between ---- */

static void
walk_xff(struct walk *k, struct view list)
{
    for (;;) {
        const uint8_t *comma = list.n > 0 ? memchr(list.p, ',', list.n) : NULL;
        size_t n = comma != NULL ? (size_t)(comma - list.p) : list.n;
        struct view node = view_trim(view_head(list, n));
        if (node.n > 0) /* empty entries are allowed in lists (RFC 9110 section 5.6.1) */
            walk_node(k, node);
        if (comma == NULL)
            return;
        list = view_from(list, n + 1);
    }
}

/* ---- Forwarded: elements of pairs, values are tokens or quoted ---- */

#define NODE_MAX 64 /* no address is longer, with brackets, port and escapes */

/* Length of the value at the start of v, its unquoted text in out (only as much as an address may have;
 * *out_n is NODE_MAX + 1 if there is more). 0 when a quoted text does not end. */
static size_t
value_take(struct view v, uint8_t out[NODE_MAX], size_t *out_n)
{
    size_t i = 0;
    bool quoted = v.n > 0 && v.p[0] == '"';
    *out_n = 0;
    for (i = quoted; i < v.n; i++) {
        uint8_t c = v.p[i];
        if (quoted && c == '"')
            return i + 1;
        if (!quoted && (c == ',' || c == ';' || c == ' ' || c == '\t' || c == '"'))
            return i;
        if (quoted && c == '\\' && ++i < v.n)
            c = v.p[i];
        if (*out_n < NODE_MAX)
            out[*out_n] = c;
        *out_n = MIN(*out_n + 1, (size_t)NODE_MAX + 1);
    }
    return quoted ? 0 : i;
}

struct element {
    unsigned fors; /* "for" pairs: more than one is nonsense */
    bool bad;
    uint8_t node[NODE_MAX];
    size_t node_n;
};

/* One name=value at the start of v; returns what is behind it. */
static struct view
pair_take(struct view v, struct element *e)
{
    size_t n = 0;
    uint8_t text[NODE_MAX];
    size_t text_n = 0;
    while (n < v.n && v.p[n] != '=' && v.p[n] != ',' && v.p[n] != ';')
        n++;
    if (n == v.n || v.p[n] != '=') {
        e->bad = e->bad || view_trim(view_head(v, n)).n > 0; /* a name without a value */
        return view_from(v, n);
    }
    struct view name = view_head(v, n), rest = view_from(v, n + 1);
    size_t value = value_take(rest, text, &text_n);
    if (value == 0) {
        e->bad = true; /* empty, or a text that never ends: nothing behind it can be told apart */
        return rest.n > 0 && rest.p[0] == '"' ? VIEW_NONE : rest;
    }
    if (view_eq_nocase(name, VIEW("for"))) {
        e->fors++;
        e->bad = e->bad || text_n > NODE_MAX;
        e->node_n = MIN(text_n, (size_t)NODE_MAX);
        memcpy(e->node, text, e->node_n);
    }
    return view_from(rest, value);
}

/* An entry without "for" says nothing about who was heard, and so hides what is to its left. */
static void
element_end(struct walk *k, struct element *e, bool empty)
{
    if (e->bad || e->fors > 1 || (e->fors == 0 && !empty))
        walk_hidden(k);
    else if (e->fors == 1)
        walk_node(k, view_of(e->node, e->node_n));
    *e = (struct element){0};
}

static void
walk_rfc7239(struct walk *k, struct view list)
{
    struct element e = {0};
    bool empty = true;
    for (;;) {
        list = view_trim(list);
        if (list.n == 0)
            break;
        if (list.p[0] == ',') {
            element_end(k, &e, empty);
            empty = true;
            list = view_from(list, 1);
        } else if (list.p[0] == ';') {
            list = view_from(list, 1);
        } else {
            empty = false;
            size_t before = list.n;
            list = pair_take(list, &e);
            if (list.n == before) { /* a value without a separator in front of it */
                e.bad = true;
                list = view_from(list, 1);
            }
        }
    }
    element_end(k, &e, empty);
}

struct addr
forwarded_client(const struct http_request *r, enum forwarded_field field, const struct addr *peer,
    const struct addr_nets *trusted)
{
    struct walk k = {.trusted = trusted};
    struct view name = field == FORWARDED_XFF ? VIEW("x-forwarded-for") : VIEW("forwarded");
    for (uint32_t i = 0; field != FORWARDED_NONE && i < r->field_count; i++) {
        if (!view_eq_nocase(r->fields[i].name, name))
            continue;
        if (field == FORWARDED_XFF)
            walk_xff(&k, r->fields[i].value);
        else
            walk_rfc7239(&k, r->fields[i].value);
    }
    return k.found ? k.client : *peer;
}

static bool
quotes_end(struct view v)
{
    bool quoted = false;
    for (size_t i = 0; i < v.n; i++) {
        if (quoted && v.p[i] == '\\')
            i++;
        else if (v.p[i] == '"')
            quoted = !quoted;
    }
    return !quoted;
}

bool
forwarded_is_whole(const struct http_request *r, enum forwarded_field field)
{
    for (uint32_t i = 0; field == FORWARDED_RFC7239 && i < r->field_count; i++)
        if (view_eq_nocase(r->fields[i].name, VIEW("forwarded")) && !quotes_end(r->fields[i].value))
            return false;
    return true;
}
