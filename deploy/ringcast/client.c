#include "deploy/ringcast/client.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "proto/crypt.h"

#include "deploy/ringcast/secure.h"

#include "common/banned.h"

#define HEAD_MAX 16384 /* of the server's answer to the upgrade */
#define GOODBYE_MS 1000

/* ---- where to ---- */

static bool
parse_unix(struct client_url *u, const char *text, const char *path, struct conf_error *err)
{
    struct conf_listen l;
    if (!conf_parse_listen(text, &l, err))
        return false;
    u->is_unix = true;
    memcpy(u->unix_path, l.path, sizeof u->unix_path);
    (void)snprintf(u->host, sizeof u->host, "localhost");
    (void)snprintf(u->path, sizeof u->path, "%s", path);
    (void)snprintf(u->text, sizeof u->text, "%s", text);
    return true;
}

static bool
is_one_of(const char *word, size_t n, const char *words)
{
    for (const char *w = words; *w != '\0'; w += strcspn(w, " "), w += *w == ' ')
        if (strcspn(w, " ") == n && n > 0 && memcmp(w, word, n) == 0)
            return true;
    return false;
}

bool
client_parse_url(struct client_url *u, const char *text, const char *path, struct conf_error *err)
{
    struct conf_listen l;
    struct conf_error why;
    char place[300];
    memset(u, 0, sizeof *u);
    if (strncmp(text, "unix:", 5) == 0)
        return parse_unix(u, text, path, err);
    const char *host = strstr(text, "://");
    size_t scheme = host != NULL ? (size_t)(host - text) : 0;
    u->tls = is_one_of(text, scheme, "wss https tls");
    if (!u->tls && !is_one_of(text, scheme, "ws http tcp"))
        return conf_fail(err, "%s is no URL to connect to: write ws://host:port/path, wss://host:port/path or unix:/path",
            log_quote(view_str(text)).s);
    host += 3;
    size_t n = strcspn(host, "/");
    const char *end = memchr(host, ']', n);
    bool has_port =
        memchr(end != NULL ? end : host, ':', n - (end != NULL ? (size_t)(end - host) : 0)) != NULL;
    (void)snprintf(
        place, sizeof place, "tcp://%.*s%s", (int)MIN(n, 270), host, has_port ? "" : u->tls ? ":443" : ":80");
    if (n == 0 || n > 270 || strlen(host + n) >= sizeof u->path ||
        !conf_parse_listen(place, &l, &why))
        return conf_fail(err, "%s is no URL to connect to: write ws://host:port/path, wss://host:port/path or unix:/path",
            log_quote(view_str(text)).s);
    (void)snprintf(u->host, sizeof u->host, "%s", l.host);
    (void)snprintf(u->port, sizeof u->port, "%s", l.port);
    (void)snprintf(u->path, sizeof u->path, "%s", host[n] != '\0' ? host + n : path);
    (void)snprintf(u->text, sizeof u->text, "ws%s://%.*s%s", u->tls ? "s" : "", (int)n, host, u->path);
    return true;
}

/* ---- connecting ---- */

static void
set_timeouts(int fd, uint64_t ms)
{
    struct timeval tv = {.tv_sec = (time_t)(ms / 1000), .tv_usec = (suseconds_t)(ms % 1000 * 1000)};
    int on = 1;
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv); /* connect goes by it too */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static int
connect_unix(const struct client_url *u, uint64_t timeout_ms)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    memcpy(a.sun_path, u->unix_path, sizeof a.sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    set_timeouts(fd, timeout_ms);
    if (connect(fd, (void *)&a, sizeof a) == 0)
        return fd;
    int why = errno;
    (void)close(fd);
    errno = why;
    return -1;
}

/* The first address of the name that answers. */
static int
connect_tcp(const struct client_url *u, uint64_t timeout_ms, const char **why)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *all = NULL;
    int fd = -1;
    int rc = getaddrinfo(u->host[0] != '\0' ? u->host : "127.0.0.1", u->port, &hints, &all);
    if (rc != 0)
        *why = gai_strerror(rc);
    for (struct addrinfo *a = all; a != NULL && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0)
            set_timeouts(fd, timeout_ms);
        if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) == 0)
            break;
        *why = strerror(errno == EINPROGRESS ? ETIMEDOUT : errno);
        if (fd >= 0)
            (void)close(fd);
        fd = -1;
    }
    if (all != NULL)
        freeaddrinfo(all);
    return fd;
}

static bool
send_all(struct client *c, const void *p, size_t n, struct conf_error *err)
{
    const uint8_t *at = p;
    if (c->secure != NULL)
        return secure_write(c->secure, p, n, mono_add_ms(mono_now(), c->timeout_ms)) ||
               conf_fail(err, "%s takes no more", c->url.text);
    while (n > 0) {
        ssize_t done = send(c->fd, at, n, MSG_NOSIGNAL);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return conf_fail(err, "%s takes no more: %s", c->url.text, strerror(errno));
        at += done;
        n -= (size_t)done;
    }
    return true;
}

static int
receive_secure(struct client *c, struct mono deadline, struct conf_error *err)
{
    int n = secure_read(c->secure, c->in + c->end, sizeof c->in - c->end, deadline);
    if (n > 0) {
        c->end += (size_t)n;
        c->heard = mono_now();
        return 1;
    }
    if (n < 0)
        (void)conf_fail(err, "the connection to %s ended", c->url.text);
    return n;
}

/* More bytes behind c->end. 1: some came; 0: none until the deadline; -1: the end. */
static int
receive(struct client *c, struct mono deadline, struct conf_error *err)
{
    struct pollfd p = {.fd = c->fd, .events = POLLIN};
    struct mono now;
    int rc;
    if (c->secure != NULL)
        return receive_secure(c, deadline, err);
    do {
        now = mono_now();
        rc = poll(&p, 1, (int)MIN(mono_since_ms(deadline, now) + 1, 1000000));
    } while (rc == 0 && !mono_reached(mono_now(), deadline));
    if (rc == 0)
        return 0;
    ssize_t n = rc < 0 ? -1 : recv(c->fd, c->in + c->end, sizeof c->in - c->end, 0);
    if (n > 0) {
        c->end += (size_t)n;
        c->heard = mono_now();
        return 1;
    }
    (void)conf_fail(err, "the connection to %s ended: %s", c->url.text,
        n == 0 ? "closed by the server" : strerror(errno));
    return -1;
}

/* What the server must say to the key (RFC 6455 section 4.2.2). */
static bool
expected_accept(const char *key, char *out)
{
    char text[128];
    uint8_t digest[CRYPT_SHA1_BYTES];
    (void)snprintf(text, sizeof text, "%s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key);
    if (!crypt_sha1(view_str(text), digest))
        return false;
    (void)crypt_base64(out, view_of(digest, sizeof digest));
    return true;
}

static bool
send_request(struct client *c, char *accept, struct conf_error *err)
{
    uint8_t nonce[16];
    char key[CRYPT_BASE64_ROOM(16)], head[1400];
    if (!crypt_random(nonce, sizeof nonce))
        return conf_fail(err, "no random bytes are to be had from this system");
    (void)crypt_base64(key, view_of(nonce, sizeof nonce));
    if (!expected_accept(key, accept))
        return conf_fail(err, "SHA-1 is forbidden here, and the WebSocket handshake needs it");
    bool v6 = strchr(c->url.host, ':') != NULL;
    int n = snprintf(head, sizeof head,
        "GET %s HTTP/1.1\r\nHost: %s%s%s%s%s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\nUser-Agent: ringcast/%s\r\n\r\n",
        c->url.path, v6 ? "[" : "", c->url.host[0] ? c->url.host : "127.0.0.1", v6 ? "]" : "",
        c->url.port[0] ? ":" : "", c->url.port, key, RINGCAST_VERSION);
    return send_all(c, head, (size_t)n, err);
}

/* Value of a field in a response head; its first line is never one. Empty if there is none. */
static struct view
head_field(struct view head, struct view name)
{
    while (head.n > 0) {
        const uint8_t *nl = memchr(head.p, '\n', head.n);
        size_t n = nl != NULL ? (size_t)(nl - head.p) : head.n;
        struct view line = view_head(head, n);
        head = view_from(head, n + 1);
        if (line.n <= name.n || line.p[name.n] != ':' ||
            !view_eq_nocase(view_head(line, name.n), name))
            continue;
        line = view_from(line, name.n + 1);
        while (line.n > 0 && (line.p[0] == ' ' || line.p[0] == '\t'))
            line = view_from(line, 1);
        while (line.n > 0 && line.p[line.n - 1] <= ' ')
            line.n--;
        return line;
    }
    return VIEW_NONE;
}

static bool
read_answer(struct client *c, const char *accept, struct mono deadline, struct conf_error *err)
{
    const uint8_t *end;
    while ((end = memmem(c->in, c->end, "\r\n\r\n", 4)) == NULL) {
        if (c->end >= HEAD_MAX)
            return conf_fail(err, "%s answers with something else than HTTP", c->url.text);
        int rc = receive(c, deadline, err);
        if (rc == 0)
            return conf_fail(err, "%s does not answer", c->url.text);
        if (rc < 0)
            return false;
    }
    struct view head = view_of(c->in, (size_t)(end + 2 - c->in));
    c->at = head.n + 2;
    if (!view_starts(head, VIEW("HTTP/1.1 101"))) {
        head.n = (size_t)((const uint8_t *)memchr(head.p, '\r', head.n) - head.p);
        return conf_fail(err, "%s refuses the upgrade with %s: is the path right?", c->url.text,
            log_quote(head).s);
    }
    if (!view_eq(head_field(head, VIEW("Sec-WebSocket-Accept")), view_str(accept)))
        return conf_fail(
            err, "%s gives a wrong Sec-WebSocket-Accept: it is no WebSocket server", c->url.text);
    return true;
}

static void
hang_up(struct client *c)
{
    secure_close(c->secure);
    c->secure = NULL;
    if (c->fd >= 0)
        (void)close(c->fd);
    c->fd = -1;
}

bool
client_open(
    struct client *c, const struct client_url *u, uint64_t timeout_ms, struct conf_error *err)
{
    char accept[CRYPT_BASE64_ROOM(CRYPT_SHA1_BYTES)];
    const char *why = NULL;
    memset(c, 0, sizeof *c);
    c->url = *u;
    c->timeout_ms = timeout_ms;
    c->reader.client = true;
    c->message = buf_make(CLIENT_MESSAGE_MAX);
    c->heard = mono_now();
    struct mono deadline = mono_add_ms(mono_now(), timeout_ms);
    c->fd = u->is_unix ? connect_unix(u, timeout_ms) : connect_tcp(u, timeout_ms, &why);
    if (c->fd < 0)
        return conf_fail(err, "%s cannot be reached: %s; is ringcast run running there?", u->text,
            why != NULL ? why : strerror(errno));
    if (u->tls)
        c->secure = secure_open(c->fd, u->host[0] ? u->host : "127.0.0.1", !u->trusted, deadline, u->text, err);
    if ((!u->tls || c->secure != NULL) && send_request(c, accept, err) && read_answer(c, accept, deadline, err))
        return true;
    hang_up(c);
    return false;
}

/* ---- messages ---- */

static bool
send_frame(struct client *c, enum ws_opcode op, struct view payload, struct conf_error *err)
{
    uint8_t head[14], key[4];
    if (!crypt_random(key, sizeof key))
        return conf_fail(err, "no random bytes are to be had from this system");
    size_t n = ws_put_client_header(head, op, payload.n, key);
    struct buf out = buf_make(payload.n + n);
    buf_put(&out, head, n);
    buf_put_view(&out, payload);
    bool ok = !out.failed;
    if (ok)
        ws_mask(out.p + n, payload.n, key, 0);
    ok = ok ? send_all(c, out.p, out.n, err) : conf_fail(err, "memory is out");
    buf_free(&out);
    return ok;
}

bool
client_send_text(struct client *c, struct view text, struct conf_error *err)
{
    return send_frame(c, WS_TEXT, text, err);
}

/* One event of the reader. True when a message is whole; *gone when the connection is over. */
static bool
on_event(struct client *c, const struct ws_event *ev, bool *gone, struct conf_error *err)
{
    uint8_t code[2];
    if (ev->kind == WS_EV_DATA) {
        if (ev->first)
            buf_reset(&c->message);
        buf_put_view(&c->message, ev->payload);
        return ev->last;
    }
    if (ev->kind == WS_EV_PING)
        *gone = !send_frame(c, WS_PONG, ev->payload, err);
    if (ev->kind == WS_EV_CLOSE) {
        store_be16(code, ev->code);
        *gone = true;
        if (send_frame(c, WS_CLOSE, view_of(code, ev->code == 1005 ? 0 : 2), err))
            (void)conf_fail(err, "%s closed the connection with %u %s", c->url.text, ev->code,
                ev->payload.n > 0 ? log_quote(ev->payload).s : "");
    }
    if (ev->kind == WS_EV_BAD)
        *gone = !conf_fail(
            err, "%s broke the WebSocket protocol (%s)", c->url.text, close_str(ev->bad));
    return false;
}

/* Works on what has been received; true when a message is whole. */
static bool
read_frames(struct client *c, bool *gone, struct conf_error *err)
{
    static const struct ws_limits limits = {.max_message = CLIENT_MESSAGE_MAX, .max_frames = UINT32_MAX};
    while (!*gone && c->at < c->end) {
        uint8_t *p = c->in + c->at;
        size_t n = c->end - c->at;
        struct ws_event ev;
        enum ws_event_kind kind = ws_read(&c->reader, &limits, &p, &n, c->control, &ev);
        c->at = c->end - n;
        if (kind != WS_EV_MORE && on_event(c, &ev, gone, err))
            return true;
    }
    return false;
}

enum client_got
client_wait(struct client *c, struct mono deadline, struct conf_error *err)
{
    bool gone = false;
    for (;;) {
        if (read_frames(c, &gone, err))
            return CLIENT_MESSAGE;
        if (gone)
            return CLIENT_GONE;
        c->at = c->end = 0;
        int rc = receive(c, deadline, err);
        if (rc <= 0)
            return rc == 0 ? CLIENT_TIMEOUT : CLIENT_GONE;
    }
}

void
client_close(struct client *c)
{
    struct conf_error ignored;
    struct mono deadline = mono_add_ms(mono_now(), GOODBYE_MS);
    const uint8_t code[2] = {1000 >> 8, 1000 & 255};
    if (c->fd >= 0 && send_frame(c, WS_CLOSE, view_of(code, 2), &ignored))
        while (client_wait(c, deadline, &ignored) == CLIENT_MESSAGE)
            continue;
    hang_up(c);
    buf_free(&c->message);
}
