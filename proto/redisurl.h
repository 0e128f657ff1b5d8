/* Where a Redis server is, as the settings write it:
 *
 *   redis://[[user]:password@]host[:port]      rediss:// the same over TLS
 *   unix:/path[?user=name&password=secret]
 *
 * host is a name, an IPv4 address or an IPv6 address in brackets; user, password and path may use %XX (RFC 3986
 * section 2.1). A database number ("/0") is refused: pub/sub knows none. Pure; nothing is looked up. */
#ifndef PROTO_REDISURL_H
#define PROTO_REDISURL_H

#include "common/base.h"
#include "common/view.h"

#define REDISURL_HOST 254 /* with the zero at the end, as all of them */
#define REDISURL_PATH 108
#define REDISURL_USER 129
#define REDISURL_PASSWORD 513
#define REDISURL_TEXT 288
#define REDISURL_PORT 6379

struct redisurl {
    bool tls;
    bool is_unix;
    uint16_t port;
    char host[REDISURL_HOST]; /* IPv6 without its brackets */
    char path[REDISURL_PATH];
    char user[REDISURL_USER];         /* "" is none: Redis then means "default" */
    char password[REDISURL_PASSWORD]; /* "" is none */
};

/* False with what is wrong in *why, a phrase that tells nothing of the text. */
bool redisurl_parse(struct view text, struct redisurl *out, const char **why) MUST_CHECK;
/* "host" or "host:port" or "[v6]:port" with another default port: sentinels, nodes of a cluster. */
bool redisurl_parse_host(struct view text, uint16_t port, struct redisurl *out, const char **why) MUST_CHECK;
/* For people: "redis://10.0.0.1:6379", "rediss://...", "unix:/path"; never user or password;
 * "unknown" when there is no host. Returns out. */
const char *redisurl_text(const struct redisurl *, char out[REDISURL_TEXT]);
/* Whether both mean the same server. */
bool redisurl_same(const struct redisurl *, const struct redisurl *) MUST_CHECK;

#endif
