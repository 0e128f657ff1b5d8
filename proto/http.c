/* Request heads of HTTP/1.1 and the answers around the WebSocket upgrade. Contract in http.h;
 * called by the worker while a connection is not upgraded. Knows no path and no setting but its
 * limits.
 *
 * A head is looked at twice: once as it comes (scan: bytes that may not be, limits, the request
 * line as soon as it is whole), and once when its end is there (fields). What scan lets through has
 * no control byte but tabs and line ends, and every CR has its LF. */
#include "proto/http.h"

#include "proto/crypt.h"

/* ---- characters (RFC 9110 section 5.6.2, RFC 3986)
 * ----------------------------------------------- */

enum {
    C_TOKEN = 1,  /* tchar */
    C_TARGET = 2, /* in a request target: visible ASCII that no browser escapes */
    C_HOST = 4,   /* in a reg-name or IPv4 address */
    C_HEX = 8,
    C_STOP = 16, /* ends the quick part of scan: control bytes, DEL */
};

static uint8_t class_of[256];

static void
class_add(const char *chars, uint8_t cls)
{
    for (; *chars; chars++)
        class_of[(uint8_t)*chars] |= cls;
}

__attribute__((constructor)) static void
class_init(void)
{
    static const char alnum[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    class_add(alnum, C_TOKEN | C_TARGET | C_HOST);
    class_add("0123456789abcdefABCDEF", C_HEX);
    class_add("!#$%&'*+-.^_`|~", C_TOKEN);
    class_add("-._~!$&'()*+,;=:@/?%[]{}|\\^`", C_TARGET);
    class_add("-._~!$&'()*+;=%", C_HOST);
    for (int c = 0; c < 0x20; c++)
        class_of[c] |= C_STOP;
    class_of['\t'] = 0;
    class_of[0x7F] |= C_STOP;
}

/* How many bytes from the front are of the class. */
static size_t
span(struct view v, uint8_t cls)
{
    size_t i = 0;
    while (i < v.n && (class_of[v.p[i]] & cls))
        i++;
    return i;
}

static bool
all_of(struct view v, uint8_t cls)
{
    return v.n > 0 && span(v, cls) == v.n;
}

/* '%' only in front of two hexadecimal digits. */
static bool
percents_ok(struct view v)
{
    for (size_t i = 0; i < v.n; i++)
        if (v.p[i] == '%' &&
            (v.n - i < 3 || !(class_of[v.p[i + 1]] & C_HEX) || !(class_of[v.p[i + 2]] & C_HEX)))
            return false;
    return true;
}

static bool
find(struct view v, uint8_t c, size_t *at)
{
    const uint8_t *hit = v.n ? memchr(v.p, c, v.n) : NULL;
    if (hit)
        *at = (size_t)(hit - v.p);
    return hit != NULL;
}

/* ---- request line (RFC 9112 section 3)
 * ----------------------------------------------------------- */

/* host [":" port], RFC 3986 section 3.2.2; a name may not be empty here. */
static bool
host_is_valid(struct view v)
{
    size_t n;
    if (v.n && v.p[0] == '[') {
        if (!find(v, ']', &n) || n < 3)
            return false;
        for (size_t i = 1; i < n; i++)
            if (!(class_of[v.p[i]] & C_HOST) && v.p[i] != ':')
                return false;
        n++;
    } else {
        n = span(v, C_HOST);
        if (n == 0 || !percents_ok(view_head(v, n)))
            return false;
    }
    struct view port = view_from(v, n);
    if (port.n == 0)
        return true;
    if (port.p[0] != ':' || port.n > 6)
        return false;
    unsigned number = 0;
    for (size_t i = 1; i < port.n; i++) {
        if (port.p[i] < '0' || port.p[i] > '9')
            return false;
        number = number * 10 + (unsigned)(port.p[i] - '0');
    }
    return number < 65536;
}

/* What lies behind "scheme://" of an absolute-form target; false for any other. */
static bool
target_authority(struct view target, struct view *rest)
{
    static const struct view schemes[] = {{(const uint8_t *)"http://", 7},
        {(const uint8_t *)"https://", 8}, {(const uint8_t *)"ws://", 5},
        {(const uint8_t *)"wss://", 6}};
    for (size_t i = 0; i < ARRAY_LEN(schemes); i++) {
        if (view_eq_nocase(view_head(target, schemes[i].n), schemes[i])) {
            *rest = view_from(target, schemes[i].n);
            return true;
        }
    }
    return false;
}

/* The four forms of a target (RFC 9112 section 3.2). Nothing is decoded or normalised. */
static bool
target_parse(struct http_request *r)
{
    struct view rest = r->target;
    if (!all_of(rest, C_TARGET))
        return false;
    if (view_eq(rest, VIEW("*"))) {
        r->path = rest;
        return view_eq(r->method_text, VIEW("OPTIONS"));
    }
    if (view_eq(r->method_text, VIEW("CONNECT"))) {
        r->path = rest;
        return host_is_valid(rest);
    }
    if (target_authority(r->target, &rest)) {
        size_t n = 0;
        while (n < rest.n && rest.p[n] != '/' && rest.p[n] != '?')
            n++;
        if (!host_is_valid(view_head(rest, n)))
            return false;
        rest = view_from(rest, n);
    } else if (rest.p[0] != '/') {
        return false;
    }
    size_t mark;
    if (find(rest, '?', &mark)) {
        r->query = view_from(rest, mark + 1);
        rest = view_head(rest, mark);
    }
    r->path = rest.n ? rest : VIEW("/");
    return percents_ok(r->path);
}

/* 0 if HTTP/1.0 or 1.1, else the status. The name is case-sensitive (section 2.3). */
static unsigned
version_parse(struct view v, uint8_t *minor)
{
    if (v.n != 8 || !view_starts(v, VIEW("HTTP/")) || v.p[6] != '.' || v.p[5] < '0' ||
        v.p[5] > '9' || v.p[7] < '0' || v.p[7] > '9')
        return 400;
    if (v.p[5] != '1' || v.p[7] > '1')
        return 505;
    *minor = (uint8_t)(v.p[7] - '0');
    return 0;
}

static enum http_method
method_of(struct view v)
{
    if (view_eq(v, VIEW("GET")))
        return HTTP_GET;
    if (view_eq(v, VIEW("HEAD")))
        return HTTP_HEAD;
    return view_eq(v, VIEW("POST")) ? HTTP_POST : HTTP_OTHER;
}

/* method SP target SP version, single spaces. 0 or the status. */
static unsigned
request_line_parse(struct view line, struct http_request *r)
{
    size_t n = span(line, C_TOKEN);
    if (n == 0 || n == line.n || line.p[n] != ' ')
        return 400;
    r->method_text = view_head(line, n);
    r->method = method_of(r->method_text);
    line = view_from(line, n + 1);
    if (!find(line, ' ', &n))
        return 400;
    r->target = view_head(line, n);
    unsigned status = version_parse(view_from(line, n + 1), &r->minor);
    if (status == 505) /* PRI * HTTP/2.0 has a target of its own rules */
        return status;
    return status == 0 && target_parse(r) ? 0 : 400;
}

/* ---- scan: as the head comes
 * --------------------------------------------------------------------- */

/* Bytes at the start of a request line that must look like a method before the line is whole: a
 * peer that speaks something else is answered at once. */
#define METHOD_PEEK 32

/* The caller's size_t between calls: bytes looked at, where the present line starts, and whether
 * the request line is behind us. Heads are far below 2 GiB. */
struct scan {
    size_t at, line;
    bool in_fields;
};

static_assert(sizeof(size_t) == 8, "scan_pack");

static size_t
scan_pack(struct scan s)
{
    return s.at | s.line << 32 | (size_t)s.in_fields << 63;
}

static struct scan
scan_unpack(size_t pos)
{
    return (struct scan){pos & UINT32_MAX, pos >> 32 & INT32_MAX, pos >> 63};
}

/* What the beginning of a request line that is not whole yet says: 0 or the status. */
static unsigned
line_peek(struct view line, const struct http_limits *limits)
{
    struct view begin = view_head(line, METHOD_PEEK);
    size_t n = span(begin, C_TOKEN);
    if (n < begin.n && (n == 0 || begin.p[n] != ' '))
        return 400;
    return line.n > limits->request_line ? 414 : 0;
}

/* A line has ended: 0 to go on, 1 at the end of the head, else the status. */
static unsigned
line_end(struct scan *s, struct view line, const struct http_limits *limits,
    struct http_request *scratch)
{
    if (s->in_fields)
        return line.n == 0;
    if (line.n ==
        0) /* section 2.2: empty lines in front of a request are ignored, here up to a number */
        return s->line / 2 < limits->leading_empty_lines ? 0 : 400;
    unsigned status = line_peek(line, limits);
    if (status)
        return status;
    s->in_fields = true;
    return request_line_parse(line, scratch);
}

/* 1 when the head ends at s->at, 0 for more, else the status. */
static unsigned
scan_lines(
    struct scan *s, struct view in, const struct http_limits *limits, struct http_request *scratch)
{
    while (s->at < in.n) {
        uint8_t c = in.p[s->at];
        if (LIKELY(!(class_of[c] & C_STOP))) {
            s->at++;
            continue;
        }
        struct view line = view_of(in.p + s->line, s->at - s->line);
        unsigned status = s->in_fields ? 0 : line_peek(line, limits);
        if (status)
            return status;
        if (c != '\r')
            return 400;
        if (s->at + 1 == in.n)
            return 0;
        if (in.p[s->at + 1] != '\n')
            return 400;
        status = line_end(s, line, limits, scratch);
        s->at += 2;
        s->line = s->at;
        if (status)
            return status;
    }
    return s->in_fields ? 0 : line_peek(view_of(in.p + s->line, in.n - s->line), limits);
}

/* ---- fields (RFC 9112 section 5)
 * ----------------------------------------------------------------- */

/* The line at *at, without its end; *at moves behind it. */
static struct view
line_next(struct view head, size_t *at)
{
    struct view rest = view_from(head, *at);
    size_t n = rest.n;
    find(rest, '\r', &n);
    *at += n + 2;
    return view_head(rest, n);
}

/* A name that is a token, a colon at once, a value. A folded line begins with a space and so has no
 * name. */
static bool
field_parse(struct view line, struct http_field *f)
{
    size_t n = span(line, C_TOKEN);
    if (n == 0 || n == line.n || line.p[n] != ':')
        return false;
    f->name = view_head(line, n);
    f->value = view_trim(view_from(line, n + 1));
    return true;
}

static unsigned
fields_parse(struct view head, size_t at, const struct http_limits *limits, struct http_request *r)
{
    uint32_t max = MIN(limits->header_fields, (uint32_t)HTTP_FIELDS_MAX);
    for (;;) {
        struct view line = line_next(head, &at);
        if (line.n == 0)
            return 0;
        if (r->field_count == max)
            return 431;
        if (!field_parse(line, &r->fields[r->field_count]))
            return 400;
        r->field_count++;
    }
}

/* Digits of a number below 2^63. */
static bool
length_parse(struct view v, uint64_t *out)
{
    uint64_t n = 0;
    for (size_t i = 0; i < v.n; i++) {
        if (v.p[i] < '0' || v.p[i] > '9')
            return false;
        uint64_t digit = (uint64_t)(v.p[i] - '0');
        if (n > (INT64_MAX - digit) / 10)
            return false;
        n = n * 10 + digit;
    }
    *out = n;
    return v.n > 0;
}

/* Several Content-Length fields must agree (RFC 9112 section 6.3). */
static unsigned
content_length_check(struct http_request *r)
{
    bool found = false;
    for (uint32_t i = 0; i < r->field_count; i++) {
        uint64_t n;
        if (!view_eq_nocase(r->fields[i].name, VIEW("content-length")))
            continue;
        if (!length_parse(r->fields[i].value, &n) || (found && n != r->content_length))
            return 400;
        found = true;
        r->content_length = n;
    }
    return 0;
}

/* Host, body length, persistence: what every request must have right. */
static unsigned
framing_check(struct http_request *r)
{
    unsigned hosts, lengths, codings;
    struct view host = http_field_get(r, VIEW("host"), &hosts);
    struct view coding = http_field_get(r, VIEW("transfer-encoding"), &codings);
    http_field_get(r, VIEW("content-length"), &lengths);
    if (hosts > 1 || (hosts == 0 && r->minor > 0) || (hosts == 1 && !host_is_valid(host)))
        return 400;
    if (codings > 1 || (codings && (lengths || r->minor == 0)))
        return 400;
    r->chunked = codings == 1;
    if (r->chunked && !view_eq_nocase(coding, VIEW("chunked")))
        return all_of(coding, C_TOKEN) ? 501 : 400;
    unsigned status = content_length_check(r);
    r->has_body = r->chunked || r->content_length > 0;
    r->keep_alive = r->minor > 0 && !http_field_has_token(r, VIEW("connection"), VIEW("close"));
    return status;
}

/* Everything about a head that scan has found whole; `head` ends with its empty line. */
static unsigned
head_parse(struct view head, const struct http_limits *limits, struct http_request *r)
{
    size_t at = 0;
    memset(r, 0, offsetof(struct http_request, fields));
    while (head.p[at] == '\r')
        at += 2;
    unsigned status = request_line_parse(line_next(head, &at), r);
    if (status == 0)
        status = fields_parse(head, at, limits, r);
    return status ? status : framing_check(r);
}

enum http_parse
http_parse_request(struct view in, size_t *pos, const struct http_limits *limits,
    struct http_request *out, size_t *eaten, unsigned *status)
{
    struct scan s = scan_unpack(*pos);
    struct view bounded = view_head(in, MIN(limits->header_bytes, (uint32_t)INT32_MAX));
    if (in.n == 0)
        return HTTP_MORE;
    unsigned rc = scan_lines(&s, bounded, limits, out);
    *pos = scan_pack(s);
    if (rc == 0 && bounded.n == limits->header_bytes)
        rc = 431;
    if (rc == 0)
        return HTTP_MORE;
    if (rc == 1)
        rc = head_parse(view_head(in, s.at), limits, out);
    *eaten = rc ? 0 : s.at;
    *status = rc;
    return rc ? HTTP_BAD : HTTP_DONE;
}

struct view
http_field_get(const struct http_request *r, struct view name, unsigned *count)
{
    struct view found = VIEW_NONE;
    *count = 0;
    for (uint32_t i = 0; i < r->field_count; i++) {
        if (!view_eq_nocase(r->fields[i].name, name))
            continue;
        if ((*count)++ == 0)
            found = r->fields[i].value;
    }
    return found;
}

bool
http_field_next(const struct http_request *r, struct view name, uint32_t *at, struct view *value)
{
    while (*at < r->field_count) {
        const struct http_field *f = &r->fields[(*at)++];
        if (view_eq_nocase(f->name, name)) {
            *value = f->value;
            return true;
        }
    }
    return false;
}

static bool
list_has(struct view list, struct view token)
{
    while (list.n) {
        size_t n = list.n;
        find(list, ',', &n);
        if (view_eq_nocase(view_trim(view_head(list, n)), token))
            return true;
        list = view_from(list, n + 1);
    }
    return false;
}

bool
http_field_has_token(const struct http_request *r, struct view name, struct view token)
{
    for (uint32_t i = 0; i < r->field_count; i++)
        if (view_eq_nocase(r->fields[i].name, name) && list_has(r->fields[i].value, token))
            return true;
    return false;
}

/* ---- the upgrade (RFC 6455 section 4.2)
 * ---------------------------------------------------------- */

/* Base64 of 16 bytes: 22 digits and two '='. */
static bool
key_is_valid(struct view key)
{
    if (key.n != 24 || key.p[22] != '=' || key.p[23] != '=')
        return false;
    for (size_t i = 0; i < 22; i++) {
        uint8_t c = key.p[i];
        bool letter = (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
        if (!letter && !(c >= '0' && c <= '9') && c != '+' && c != '/')
            return false;
    }
    return true;
}

/* Section 4.2.2, point 5.4. */
static bool
accept_make(struct view key, char accept[29])
{
    uint8_t text[24 + 36], digest[CRYPT_SHA1_BYTES];
    memcpy(text, key.p, 24);
    memcpy(text + 24, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", 36);
    if (!crypt_sha1(view_of(text, sizeof text), digest))
        return false;
    crypt_base64(accept, view_of(digest, sizeof digest));
    return true;
}

static_assert(CRYPT_BASE64_ROOM(CRYPT_SHA1_BYTES) == sizeof((struct ws_upgrade *)0)->accept, "");

static unsigned
upgrade_status(const struct http_request *r, struct ws_upgrade *out)
{
    unsigned keys, versions, origins;
    struct view key = http_field_get(r, VIEW("sec-websocket-key"), &keys);
    struct view version = http_field_get(r, VIEW("sec-websocket-version"), &versions);
    out->origin = http_field_get(r, VIEW("origin"), &origins);
    if (r->method != HTTP_GET)
        return 405;
    if (r->has_body || origins > 1 || versions > 1)
        return 400;
    if (r->minor == 0 || !http_field_has_token(r, VIEW("upgrade"), VIEW("websocket")) ||
        !http_field_has_token(r, VIEW("connection"), VIEW("upgrade")))
        return 426;
    if (!view_eq(version, VIEW("13")))
        return 426;
    if (keys != 1 || !key_is_valid(key))
        return 400;
    return accept_make(key, out->accept) ? 101 : 500;
}

void
http_upgrade_check(const struct http_request *r, struct ws_upgrade *out)
{
    *out = (struct ws_upgrade){0};
    out->status = upgrade_status(r, out);
}

/* ---- answers
 * ------------------------------------------------------------------------------------- */

void
http_put_upgrade(struct buf *out, const struct ws_upgrade *u)
{
    buf_put_lit(out, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                     "Connection: Upgrade\r\nSec-WebSocket-Accept: ");
    buf_put_view(out, view_str(u->accept));
    if (u->extensions.n > 0) {
        buf_put_lit(out, "\r\nSec-WebSocket-Extensions: ");
        buf_put_view(out, u->extensions);
    }
    buf_put_lit(out, "\r\n\r\n");
}

const char *
http_reason(unsigned status)
{
    switch (status) {
    case 101: return "Switching Protocols";
    case 200: return "OK";
    case 204: return "No Content";
    case 304: return "Not Modified";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 413: return "Content Too Large";
    case 414: return "URI Too Long";
    case 426: return "Upgrade Required";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 503: return "Service Unavailable";
    case 505: return "HTTP Version Not Supported";
    default: return "Unknown";
    }
}

/* Fields that a status must have (RFC 9110 section 15). */
static void
put_status_fields(struct buf *out, unsigned status)
{
    if (status == 405)
        buf_put_lit(out, "Allow: GET\r\n");
    if (status == 426)
        buf_put_lit(out, "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n");
    if (status == 429 || status == 503)
        buf_put_lit(out, "Retry-After: 5\r\n");
}

/* RFC 9110 section 7.8: a sender of Upgrade names it in Connection too. */
static void
put_connection(struct buf *out, unsigned status, bool keep_alive)
{
    if (status == 426)
        buf_put_view(out,
            keep_alive ? VIEW("Connection: Upgrade\r\n") : VIEW("Connection: close, Upgrade\r\n"));
    else if (!keep_alive)
        buf_put_lit(out, "Connection: close\r\n");
}

void
http_put_response(struct buf *out, unsigned status, struct view content_type, struct view extra,
    struct view body, bool keep_alive, bool head_only)
{
    bool bodiless = status == 204 || status == 304;
    if (status >= 400 && body.n == 0) {
        body = view_str(http_reason(status));
        content_type = VIEW("text/plain; charset=utf-8");
    }
    buf_put_lit(out, "HTTP/1.1 ");
    buf_put_uint(out, status);
    buf_put_u8(out, ' ');
    buf_put_view(out, view_str(http_reason(status)));
    buf_put_lit(out, "\r\n");
    if (content_type.n && !bodiless) {
        buf_put_lit(out, "Content-Type: ");
        buf_put_view(out, content_type);
        buf_put_lit(out, "\r\n");
    }
    if (!bodiless) {
        buf_put_lit(out, "Content-Length: ");
        buf_put_uint(out, body.n);
        buf_put_lit(out, "\r\n");
    }
    put_status_fields(out, status);
    put_connection(out, status, keep_alive);
    buf_put_view(out, extra);
    buf_put_lit(out, "\r\n");
    if (!head_only && !bodiless)
        buf_put_view(out, body);
}
