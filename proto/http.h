/* Request heads of HTTP/1.1 (RFC 9112) and the WebSocket upgrade (RFC 6455 section 4.2).
 * Pure: views into the caller's bytes, nothing allocated, nothing read twice without need. */
#ifndef PROTO_HTTP_H
#define PROTO_HTTP_H

#include "common/base.h"
#include "common/buf.h"
#include "common/view.h"

#define HTTP_FIELDS_MAX 1000

struct http_limits {
    uint32_t request_line;  /* bytes, 414 above */
    uint32_t header_bytes;  /* whole head, 431 above */
    uint32_t header_fields; /* 431 above; at most HTTP_FIELDS_MAX */
    uint32_t leading_empty_lines;
};

struct http_field {
    struct view name, value; /* value without the white space around it */
};

enum http_method { HTTP_GET, HTTP_HEAD, HTTP_POST, HTTP_OTHER };

struct http_request {
    enum http_method method;
    struct view method_text;
    struct view target; /* as sent, query included */
    struct view path;   /* target up to '?' */
    struct view query;  /* behind it; empty if none */
    bool keep_alive;    /* HTTP/1.1 without "close" in Connection */
    bool has_body;      /* Transfer-Encoding, or a Content-Length other than 0 */
    bool chunked;       /* the body is chunked; content_length says nothing then */
    uint8_t minor;      /* 1 for HTTP/1.1, 0 for HTTP/1.0 */
    uint64_t content_length;
    uint32_t field_count;
    struct http_field fields[HTTP_FIELDS_MAX];
};

enum http_parse {
    HTTP_DONE, /* *eaten: length of the head */
    HTTP_MORE, /* valid so far */
    HTTP_BAD,  /* *status: what to answer (400, 414, 431, 501, 505) */
};

/* Parses a head at the start of `in`. *pos is scratch that the caller keeps between calls for one head,
 * zero at first; after MORE call again with the same bytes and more behind them. A trickle costs
 * linear time. Bytes that can't be in a head, limits and the request line are judged as soon as they
 * are there, fields once the end of the head is. Never more than header_bytes are asked for: with that
 * many, the answer is DONE or BAD. On DONE, *eaten is the length of the head, and views in *out point
 * into `in` (path may be a constant "/"). On BAD, *status is what to answer; then close.
 *
 * Everything RFC 9112 and hardening section 3 call malformed is BAD: bare CR, bare LF, NUL, white
 * space before a colon, folded lines, no or several Host, conflicting lengths ... */
enum http_parse http_parse_request(struct view in, size_t *pos, const struct http_limits *limits,
    struct http_request *out, size_t *eaten, unsigned *status) MUST_CHECK;

/* Value of the first field of that name; empty view with NULL p if there is none, *count how many. */
struct view http_field_get(const struct http_request *r, struct view name, unsigned *count);
/* Values of all fields of that name, one after the other: *at is 0 at first. False when there is none left. */
bool http_field_next(const struct http_request *r, struct view name, uint32_t *at, struct view *value);
/* Whether a comma-separated field (any of its occurrences) has this token, ASCII case folded. */
bool http_field_has_token(const struct http_request *r, struct view name, struct view token);

/* What an upgrade request is worth, for a path that is WebSocket's. */
struct ws_upgrade {
    unsigned status;         /* 101, or 400, 405, 426 (500: no SHA-1 on this system) */
    char accept[29];         /* Sec-WebSocket-Accept, 28 characters and a terminator */
    struct view origin;      /* empty if there was none */
    struct view extensions;  /* what the answer says in Sec-WebSocket-Extensions; empty: nothing. The caller's */
};
/* Checks method, absence of a body, HTTP version, Upgrade, Connection, Sec-WebSocket-Version and key,
 * in that order, and computes the answer to the key. (Host was checked by http_parse_request.) */
void http_upgrade_check(const struct http_request *r, struct ws_upgrade *out);
/* Appends the 101 answer, whole. */
void http_put_upgrade(struct buf *out, const struct ws_upgrade *u);

/* Appends a whole answer. Adds Content-Length, and Connection: close unless keep_alive. `extra` holds
 * further header lines, each ended with CRLF, or is empty. 426 brings Upgrade: websocket and
 * Sec-WebSocket-Version: 13 by itself, 405 Allow, 503 Retry-After. An empty `body` with an error
 * status becomes the reason phrase. */
void http_put_response(struct buf *out, unsigned status, struct view content_type, struct view extra,
    struct view body, bool keep_alive, bool head_only);
/* "Not Found"; never NULL. */
const char *http_reason(unsigned status);

#endif
