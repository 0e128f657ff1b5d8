#include "proto/redisurl.h"

#include <stdio.h>

static bool
bad(const char **why, const char *what)
{
    *why = what;
    return false;
}

static int
hex(uint8_t c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* %XX undone into a text of cap bytes with its zero. No zero within: what is behind it would be lost to C. */
static bool
decode(struct view v, char *out, size_t cap)
{
    size_t n = 0;
    for (size_t i = 0; i < v.n; i++) {
        uint8_t c = v.p[i];
        if (c == '%') {
            int high = i + 2 < v.n ? hex(v.p[i + 1]) : -1, low = i + 2 < v.n ? hex(v.p[i + 2]) : -1;
            if (high < 0 || low < 0)
                return false;
            c = (uint8_t)(high << 4 | low);
            i += 2;
        }
        if (c == 0 || n + 1 >= cap)
            return false;
        out[n++] = (char)c;
    }
    out[n] = '\0';
    return true;
}

static struct view
until(struct view v, uint8_t end)
{
    const uint8_t *at = v.n > 0 ? memchr(v.p, end, v.n) : NULL;
    return at != NULL ? view_of(v.p, (size_t)(at - v.p)) : v;
}

static bool
take_port(struct view v, uint16_t *port)
{
    uint32_t n = 0;
    if (v.n == 0 || v.n > 5)
        return false;
    for (size_t i = 0; i < v.n; i++) {
        if (v.p[i] < '0' || v.p[i] > '9')
            return false;
        n = n * 10 + (uint32_t)(v.p[i] - '0');
    }
    *port = (uint16_t)n;
    return n > 0 && n <= UINT16_MAX;
}

/* What a host may be made of: a name or IPv4, in brackets IPv6 with its zone. */
static bool
take_host(struct view v, bool v6, char *out)
{
    if (v.n == 0 || v.n >= REDISURL_HOST)
        return false;
    for (size_t i = 0; i < v.n; i++) {
        uint8_t c = v.p[i];
        bool word = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' || c == '-' || c == '_';
        if (!word && !(v6 && (c == ':' || c == '%')))
            return false;
    }
    memcpy(out, v.p, v.n);
    out[v.n] = '\0';
    return true;
}

bool
redisurl_parse_host(struct view text, uint16_t port, struct redisurl *out, const char **why)
{
    bool v6 = text.n > 0 && text.p[0] == '[';
    struct view host = v6 ? until(view_from(text, 1), ']') : until(text, ':');
    struct view rest = view_from(text, host.n + (v6 ? 2 : 0));
    out->port = port;
    if (v6 && (text.n < host.n + 2 || memchr(host.p, ':', host.n) == NULL))
        return bad(why, "brackets are for an IPv6 address, and closed");
    if (!take_host(host, v6, out->host))
        return bad(why, "the host is a name, an IPv4 address, or an IPv6 address in brackets");
    if (rest.n > 0 && (rest.p[0] != ':' || !take_port(view_from(rest, 1), &out->port)))
        return bad(why, "behind the host there can be a colon and a port, 1 to 65535");
    return true;
}

static bool
take_login(struct view login, struct redisurl *out, const char **why)
{
    struct view user = until(login, ':');
    if (user.n == login.n)
        return bad(why, "in front of the @ there must be user:password or :password");
    if (!decode(user, out->user, sizeof out->user))
        return bad(why, "the user is too long, or a % in it is not followed by two hexadecimal digits");
    if (!decode(view_from(login, user.n + 1), out->password, sizeof out->password) || out->password[0] == '\0')
        return bad(why, "the password is empty or too long, or a % in it is not followed by two hexadecimal digits");
    return true;
}

static bool
parse_net(struct view rest, struct redisurl *out, const char **why)
{
    struct view login = VIEW_NONE;
    for (size_t i = rest.n; i > 0 && login.p == NULL; i--) /* the last @: passwords that nobody encoded have others */
        if (rest.p[i - 1] == '@')
            login = view_head(rest, i - 1);
    struct view host = login.p != NULL ? view_from(rest, login.n + 1) : rest;
    if (login.p != NULL && !take_login(login, out, why))
        return false;
    if (host.n > 0 && host.p[host.n - 1] == '/')
        host.n--;
    if (memchr(host.p, '/', host.n) != NULL)
        return bad(why, "there is no database in it: pub/sub knows none");
    return redisurl_parse_host(host, REDISURL_PORT, out, why);
}

static bool
parse_unix(struct view rest, struct redisurl *out, const char **why)
{
    struct view path = until(rest, '?'), query = view_from(rest, path.n + 1);
    out->is_unix = true;
    if (path.n == 0 || path.p[0] != '/' || !decode(path, out->path, sizeof out->path))
        return bad(why, "the path of a socket begins with / and has at most 107 bytes");
    while (query.n > 0) {
        struct view pair = until(query, '&'), key = until(pair, '='), value = view_from(pair, key.n + 1);
        bool user = view_eq(key, VIEW("user"));
        if (!user && !view_eq(key, VIEW("password")))
            return bad(why, "behind the ? there can be user=... and password=...");
        if (!(user ? decode(value, out->user, sizeof out->user) : decode(value, out->password, sizeof out->password)))
            return bad(why, "user or password is too long, or a % is not followed by two hexadecimal digits");
        query = view_from(query, pair.n + 1);
    }
    return true;
}

bool
redisurl_parse(struct view text, struct redisurl *out, const char **why)
{
    *out = (struct redisurl){.port = REDISURL_PORT};
    if (view_starts(text, VIEW("redis://")))
        return parse_net(view_from(text, 8), out, why);
    out->tls = view_starts(text, VIEW("rediss://"));
    if (out->tls)
        return parse_net(view_from(text, 9), out, why);
    if (view_starts(text, VIEW("unix:")))
        return parse_unix(view_from(text, 5), out, why);
    return bad(why, "it begins with redis://, rediss:// or unix:/");
}

const char *
redisurl_text(const struct redisurl *u, char out[REDISURL_TEXT])
{
    bool v6 = !u->is_unix && strchr(u->host, ':') != NULL;
    if (u->is_unix)
        snprintf(out, REDISURL_TEXT, "unix:%s", u->path);
    else if (u->host[0] == '\0')
        snprintf(out, REDISURL_TEXT, "unknown");
    else
        snprintf(out, REDISURL_TEXT, "%s://%s%s%s:%u", u->tls ? "rediss" : "redis", v6 ? "[" : "", u->host, v6 ? "]" : "",
            u->port);
    return out;
}

bool
redisurl_same(const struct redisurl *a, const struct redisurl *b)
{
    if (a->is_unix || b->is_unix)
        return a->is_unix == b->is_unix && strcmp(a->path, b->path) == 0;
    return a->tls == b->tls && a->port == b->port && strcmp(a->host, b->host) == 0;
}
