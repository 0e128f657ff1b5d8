/* The SocketCluster dialect on any message. The first byte chooses text or binary and the limits. What
 * comes out must hold what dialect.h says of verbs, and what is made of it must be JSON again. */
#include <stdlib.h>

#include "proto/dialect.h"
#include "proto/json.h"
#include "proto/ws.h"
#include "tests/unit/naive_json.h"

#define NAIVE_MAX 20000 /* bytes; the second implementation recurses */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void
must(bool claim)
{
    if (!claim)
        abort();
}

static bool
inside(struct view v, struct view whole)
{
    return v.n == 0 || (v.p >= whole.p && v.p + v.n <= whole.p + whole.n);
}

static void
check_event(struct event ev)
{
    struct buf out = buf_make(1 << 24);
    unsigned deepest;
    bool deep = false;
    if (dialect_socketcluster.encode(NULL, &ev, &out)) {
        must(utf8_valid(buf_view(&out)));
        must(json_valid(buf_view(&out), JSON_DEPTH_MAX, &deep));
        must(out.n > NAIVE_MAX || naive_json(out.p, out.n, &deepest));
    }
    must(!out.failed);
    buf_free(&out);
}

static void
check_verb(const struct decoding *d, const struct dialect_limits *limits, const struct verb *v)
{
    struct view names = view_of(d->names, sizeof d->names);
    bool deep = false;
    must(v->kind < VERB_COUNT && v->kind != VERB_ECHO);
    must(inside(v->data, d->msg) && inside(v->call_id, d->msg));
    must(inside(v->channel, d->msg) || inside(v->channel, names));
    must(inside(v->event, d->msg) || inside(v->event, names) || v->event.n == 10);
    must(v->call_id.n <= CALL_ID_MAX);
    must(v->call_id.n == 0 || json_valid(v->call_id, 0, &deep));
    must(!v->has_data || json_valid(v->data, limits->max_depth, &deep));
    must(v->kind != VERB_REFUSE || v->err != ERR_NONE);
    if (v->kind == VERB_SUBSCRIBE || v->kind == VERB_UNSUBSCRIBE || v->kind == VERB_PUBLISH)
        must(v->channel.n <= limits->max_channel_name && utf8_valid(v->channel));
    if (v->kind == VERB_EVENT || v->kind == VERB_CALL)
        must(utf8_valid(v->event));
    if (v->kind == VERB_PUBLISH)
        check_event((struct event){.kind = EV_PUBLICATION, .channel = v->channel,
            .has_data = v->has_data, .data = v->data});
    if (v->kind == VERB_UNSUBSCRIBE)
        check_event((struct event){.kind = EV_FAILED, .err = ERR_NOT_SUBSCRIBED,
            .channel = v->channel, .call_id = v->call_id, .socket = VIEW("fuzz")});
}

/* The usual form of a publish is read by a path of its own. With a space behind its brace it is another form, and says the same. */
static void
check_usual(const struct decoding *read, const struct dialect_limits *limits, const struct verb *v)
{
    static struct decoding d;
    struct verb other;
    if (!view_starts(read->msg, VIEW("{\"event\":\"#publish\"")))
        return;
    struct buf text = buf_make(read->msg.n + 1);
    buf_put(&text, "{ ", 2);
    buf_put(&text, read->msg.p + 1, read->msg.n - 1);
    d = (struct decoding){.msg = buf_view(&text), .text = read->text};
    must(dialect_socketcluster.decode(NULL, limits, &d, &other) == DECODE_VERB);
    must(v->kind == other.kind && v->err == other.err && v->close == other.close && v->has_data == other.has_data);
    must(view_eq(v->channel, other.channel) && view_eq(v->event, other.event));
    must(view_eq(v->data, other.data) && view_eq(v->call_id, other.call_id));
    buf_free(&text);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct decoding d;
    struct verb v;
    if (n == 0)
        return 0;
    const struct dialect_limits limits = {data[0] & 2 ? 5 : 128, data[0] & 4 ? 3 : 8192,
        data[0] & 8 ? 4 : 1024, data[0] & 16 ? 4 : 256};
    d = (struct decoding){.msg = view_of(data + 1, n - 1), .text = data[0] & 1};
    if (d.text && !utf8_valid(d.msg))
        return 0; /* the transport lets no such text through */
    size_t verbs = 0;
    while (dialect_socketcluster.decode(NULL, &limits, &d, &v) == DECODE_VERB) {
        check_verb(&d, &limits, &v);
        if (verbs == 0)
            check_usual(&d, &limits, &v);
        must(++verbs <= limits.max_batch && verbs <= n);
    }
    must(dialect_socketcluster.decode(NULL, &limits, &d, &v) == DECODE_END);
    return 0;
}
