/* How messages ride on a WebSocket connection. A message that lies whole in the receive buffer goes to
 * the session without a copy; only what is not whole is put aside, in conn.in. */
#include "common/bug.h"
#include "worker/metrics.h"
#include "worker/outq.h"
#include "worker/pmd.h"
#include "worker/rate.h"
#include "worker/sess.h"

static struct ws_limits
limits_of(const struct worker *w, const struct conn *c)
{
    uint64_t max = w->conf->ws_max_message;
    if (dialects[c->dialect] == &dialect_echo)
        max = w->conf->echo_max_message;
    else if (c->sess == S_OPENING)
        max = MIN(max, w->conf->ws_max_message_unshaken);
    uint64_t frames = w->conf->ws_max_frames_per_message;
    if (frames == 0)
        frames = MAX((uint64_t)16384, max / 64);
    return (struct ws_limits){
        .max_message = max,
        .max_packed = c->flavour != PMD_PLAIN ? deflate_packed_max(max) : 0,
        .max_frames = (uint32_t)MIN(frames, (uint64_t)UINT32_MAX),
    };
}

/* A bucket of ws.control_rate, bursts to twice the rate: each event moves control_ns on by what one costs,
 * and that may not be more than two seconds ahead of now. Exact however often it is asked. */
static bool
control_allowed(struct worker *w, struct conn *c)
{
    uint64_t next = MAX(c->control_ns, w->now.ns) + 1000000000u / w->conf->ws_control_rate;
    if (next - w->now.ns > 2000000000u) {
        conn_close(w, c, CLOSE_CONTROL_RATE);
        return false;
    }
    c->control_ns = next;
    return true;
}

static void
on_ping(struct worker *w, struct conn *c, struct view payload)
{
    if (!control_allowed(w, c))
        return;
    if (c->flags & CF_SLOW) { /* one pong at most waits: the newest ping's */
        struct conn_in *in = conn_in(w, c);
        if (in == NULL)
            return;
        in->pong = true;
        in->pong_n = (uint8_t)payload.n;
        memcpy(in->pong_data, payload.p, payload.n);
        return;
    }
    uint8_t frame[2 + 125];
    size_t n = ws_put_header(frame, WS_PONG, payload.n);
    memcpy(frame + n, payload.p, payload.n);
    outq_put(w, c, frame, n + payload.n);
}

/* Keeps a message whose decoding was left, with where to go on. */
static void
stall(struct worker *w, struct conn *c, const struct decoding *d)
{
    struct conn_in *in = conn_in(w, c);
    if (in == NULL)
        return;
    if (d->msg.p != in->msg.p) {
        buf_reset(&in->msg);
        if (!conn_keep(w, &in->msg, d->msg.p, d->msg.n)) {
            conn_abort(w, c, false);
            return;
        }
    }
    in->stalled = true;
    in->text = d->text;
    in->step = d->step;
    in->count = d->count;
    in->pos = d->pos;
}

static void
on_message(struct worker *w, struct conn *c, struct view msg, bool text)
{
    COUNT(w, messages_in_total);
    if (msg.n == 0 && !control_allowed(w, c))
        return;
    struct decoding *d = &w->decoding;
    d->msg = msg;
    d->text = text;
    d->step = d->count = 0;
    d->pos = 0;
    bool whole = sess_on_message(w, c, d);
    if (UNLIKELY(w->rates.on) && whole && c->state == CONN_OPEN)
        rate_message_done(c);
    if (c->state == CONN_OPEN && !whole)
        stall(w, c, d);
    else if (c->in != NULL)
        conn_forget(w, &c->in->msg);
}

void
xp_ws_resume(struct worker *w, struct conn *c)
{
    struct conn_in *in = c->in;
    struct decoding *d = &w->decoding;
    d->msg = buf_view(&in->msg);
    d->text = in->text;
    d->step = in->step;
    d->count = in->count;
    d->pos = in->pos;
    in->stalled = false;
    bool whole = sess_on_message(w, c, d);
    if (c->state != CONN_OPEN)
        return;
    if (!whole) {
        stall(w, c, d);
        return;
    }
    if (UNLIKELY(w->rates.on))
        rate_message_done(c);
    conn_forget(w, &c->in->msg);
}

static void
on_packed(struct worker *w, struct conn *c, const struct ws_event *ev)
{
    struct view msg;
    enum close_reason bad = pmd_on_data(w, c, ev, limits_of(w, c).max_message, &msg);
    if (bad != CLOSE_COUNT)
        conn_close(w, c, bad);
    else if (ev->last)
        on_message(w, c, msg, ev->text);
}

static void
on_data(struct worker *w, struct conn *c, const struct ws_event *ev)
{
    bool whole = ev->first && ev->last;
    struct conn_in *in = whole ? NULL : conn_in(w, c);
    if (!whole && in == NULL)
        return;
    if (!whole && ev->first)
        in->began = w->tick;
    if (ev->packed || whole) {
        ev->packed ? on_packed(w, c, ev) : on_message(w, c, ev->payload, ev->text);
        return;
    }
    if (!conn_keep(w, &in->msg, ev->payload.p, ev->payload.n)) {
        conn_abort(w, c, false);
        return;
    }
    if (ev->last)
        on_message(w, c, buf_view(&in->msg), ev->text);
}

static void
on_event(struct worker *w, struct conn *c, const struct ws_event *ev)
{
    switch (ev->kind) {
    case WS_EV_MORE: return;
    case WS_EV_DATA: on_data(w, c, ev); return;
    case WS_EV_PING: on_ping(w, c, ev->payload); return;
    case WS_EV_PONG: control_allowed(w, c); return;
    case WS_EV_CLOSE: conn_close_echo(w, c, ev->code, ev->payload); return;
    case WS_EV_BAD: conn_close(w, c, ev->bad); return;
    }
}

/* The reader of a connection at rest is all zeroes, so it lives on the stack until a frame is left
 * unfinished. */
size_t
xp_ws_input(struct worker *w, struct conn *c, uint8_t *p, size_t n)
{
    struct ws_reader reader = {0};
    uint8_t control[128], *at = p;
    size_t left = n;
    if (c->in != NULL) {
        reader = c->in->reader;
        memcpy(control, c->in->control, sizeof control);
    }
    bool fresh = ws_at_rest(&reader);
    while (left > 0 && c->state == CONN_OPEN && !c->pause && !conn_turn_over(w, c)) {
        struct ws_limits limits = limits_of(w, c);
        struct ws_event ev;
        size_t before = left;
        (void)!ws_read(&reader, &limits, &at, &left, control, &ev);
        c->turn_bytes += (uint32_t)(before - left);
        on_event(w, c, &ev);
    }
    if (c->state != CONN_OPEN)
        return n;
    if (!ws_at_rest(&reader) || c->in != NULL) {
        struct conn_in *in = conn_in(w, c);
        if (in == NULL)
            return n;
        if (fresh && !ws_at_rest(&reader))
            in->began = w->tick;
        in->reader = reader;
        memcpy(in->control, control, sizeof control);
        conn_in_done(w, c);
    }
    return n - left;
}
