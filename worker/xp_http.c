/* Request heads, up to the upgrade. One request per connection: an upgrade, or one plain answer and
 * the end of TCP. */
#include "common/bug.h"
#include "proto/http.h"
#include "worker/client.h"
#include "worker/metrics.h"
#include "worker/outq.h"
#include "worker/playground.h"
#include "worker/pmd.h"
#include "worker/sess.h"

/* The parsed head; 32 KiB, so one per thread and not on the stack. */
static __thread struct http_request request;

static struct http_limits
limits_of(const struct conf *conf)
{
    return (struct http_limits){
        .request_line = (uint32_t)conf->http_request_line,
        .header_bytes = (uint32_t)conf->http_header_bytes,
        .header_fields = (uint32_t)conf->http_header_fields,
        .leading_empty_lines = (uint32_t)conf->http_leading_empty_lines,
    };
}

static void
send_scratch(struct worker *w, struct conn *c, unsigned status)
{
    if (status >= 400)
        COUNT(w, http_refused_total);
    if (w->scratch.failed || !outq_put(w, c, w->scratch.p, w->scratch.n)) {
        conn_abort(w, c, false);
        return;
    }
    conn_finish(w, c, status == 429 ? CLOSE_ADDRESS_LIMIT : status >= 400 ? CLOSE_HTTP_REFUSED : CLOSE_HTTP_ANSWERED);
}

static void
answer(struct worker *w, struct conn *c, unsigned status)
{
    bool head = request.method == HTTP_HEAD && status != 400;
    buf_reset(&w->scratch);
    http_put_response(&w->scratch, status, VIEW("text/plain; charset=utf-8"), VIEW_NONE, VIEW_NONE, false, head);
    send_scratch(w, c, status);
}

static void
serve_page(struct worker *w, struct conn *c)
{
    if (request.method != HTTP_GET && request.method != HTTP_HEAD) {
        answer(w, c, 405);
        return;
    }
    static const char extra[] = "Cache-Control: no-cache\r\nX-Content-Type-Options: nosniff\r\n"
                                "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; "
                                "script-src 'unsafe-inline'; connect-src ws: wss:; img-src data:\r\n";
    buf_reset(&w->scratch);
    http_put_response(&w->scratch, 200, VIEW("text/html; charset=utf-8"), VIEW(extra),
        view_of(playground_html, playground_html_n), false, request.method == HTTP_HEAD);
    send_scratch(w, c, 200);
}

static bool
path_is_EXACT(struct view path, const char *configured)
{
    return configured[0] != '\0' && view_eq(path, view_str(configured));
}

static struct view
without_slash(struct view path)
{
    return path.n > 1 && path.p[path.n - 1] == '/' ? view_head(path, path.n - 1) : path;
}

static bool
path_is_SLASH(struct view path, const char *configured)
{
    return configured[0] != '\0' && view_eq(without_slash(path), without_slash(view_str(configured)));
}

const struct dialect *const dialects[] = {
    NULL,
#define DIALECT(name, path_setting, path, sentence) &dialect_##name,
#include "proto/tbl/dialects.def"
#undef DIALECT
};
const unsigned dialect_count = ARRAY_LEN(dialects);

static uint8_t
dialect_for(const struct conf *conf, struct view path)
{
    uint8_t i = 0;
#define DIALECT(name, path_setting, how, sentence)                                                 \
    i++;                                                                                           \
    if (path_is_##how(path, conf->path_setting))                                                   \
        return i;
#include "proto/tbl/dialects.def"
#undef DIALECT
    return 0;
}

static void
upgrade(struct worker *w, struct conn *c, uint8_t dialect)
{
    struct ws_upgrade u;
    http_upgrade_check(&request, &u);
    if (u.status != 101) {
        answer(w, c, u.status);
        return;
    }
    uint8_t extensions[DEFLATE_ANSWER_MAX];
    struct buf agreed = buf_fixed(extensions, sizeof extensions);
    pmd_agree(w, c, &request, &agreed);
    u.extensions = buf_view(&agreed);
    buf_reset(&w->scratch);
    http_put_upgrade(&w->scratch, &u);
    if (w->scratch.failed || !outq_put(w, c, w->scratch.p, w->scratch.n)) {
        conn_abort(w, c, false);
        return;
    }
    c->frame_left = (uint32_t)w->scratch.n; /* not a frame, but as whole as one */
    COUNT(w, upgrades_total);
    conn_to(c, CONN_OPEN);
    c->dialect = dialect;
    sess_begin(w, c);
}

/* Whether a page from there may connect (http.origins). A whole entry decides: no pattern, no beginning, no end of
 * one. Browsers always say where a page is from; who says nothing is no browser. */
static bool
origin_is_welcome(const struct conf *conf)
{
    unsigned count;
    struct view origin = http_field_get(&request, VIEW("origin"), &count);
    for (uint32_t i = 0; i < conf->http_origins.n; i++) {
        struct view entry = view_str(conf->http_origins.v[i]);
        if (view_eq(entry, VIEW("*")) || (count == 1 && view_eq(entry, origin)))
            return true;
    }
    if (count > 0)
        log_info("origin-refused", "origin=%s", log_quote(origin).s);
    return count == 0;
}

static void
on_request(struct worker *w, struct conn *c)
{
    COUNT(w, http_requests_total);
    if (!client_of_request(w, c, &request)) {
        answer(w, c, 400);
        return;
    }
    if (c->flags & CF_OVER) {
        answer(w, c, 429);
        return;
    }
    uint8_t dialect = dialect_for(w->conf, request.path);
    if (dialect != 0 && !origin_is_welcome(w->conf)) {
        COUNT(w, refused_origins_total);
        answer(w, c, 403);
    } else if (dialect != 0) {
        upgrade(w, c, dialect);
    } else if (w->conf->http_playground && view_eq(request.path, VIEW("/"))) {
        serve_page(w, c);
    } else {
        answer(w, c, 404);
    }
}

/* Puts the piece behind what came before; returns the head as far as it is there. */
static bool
gather(struct worker *w, struct conn *c, const uint8_t *p, size_t n, size_t *had)
{
    struct conn_in *in = conn_in(w, c);
    if (in == NULL)
        return false;
    *had = in->msg.n;
    if (!conn_keep(w, &in->msg, p, n)) {
        conn_abort(w, c, false);
        return false;
    }
    return true;
}

size_t
xp_http_input(struct worker *w, struct conn *c, uint8_t *p, size_t n)
{
    struct http_limits limits = limits_of(w->conf);
    size_t had = 0, pos = 0, eaten = 0;
    unsigned status = 400;
    /* Never more than the limit is kept: with that many bytes the parser has made up its mind. */
    size_t take = n;
    struct view head = view_of(p, n);
    if (c->in != NULL && c->in->msg.n > 0) {
        take = MIN(n, limits.header_bytes - MIN(c->in->msg.n, (size_t)limits.header_bytes));
        if (!gather(w, c, p, take, &had))
            return n;
        head = buf_view(&c->in->msg);
        pos = c->in->http_pos;
    }
    switch (http_parse_request(head, &pos, &limits, &request, &eaten, &status)) {
    case HTTP_MORE:
        if (had == 0 && !gather(w, c, p, take, &had))
            return n;
        c->in->http_pos = pos;
        return take;
    case HTTP_BAD:
        COUNT(w, http_requests_total);
        if (status == 414 || status == 431)
            log_info("http-limit", "conn=%u status=%u why=\"above http.request_line, http.header_bytes or http.header_fields\"",
                conn_slot(w, c), status);
        request.method = HTTP_OTHER;
        answer(w, c, status);
        return n;
    case HTTP_DONE:
        on_request(w, c);
        if (c->in != NULL && c->state == CONN_OPEN) {
            conn_forget(w, &c->in->msg);
            c->in->http_pos = 0;
            conn_in_done(w, c);
        }
        return eaten - had;
    }
    return n;
}
