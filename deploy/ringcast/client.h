/* A small blocking WebSocket client for the command line: connects, upgrades, sends text messages,
 * waits for messages. Answers the protocol's pings; knows nothing of SocketCluster (talk.c does).
 */
#ifndef DEPLOY_RINGCAST_CLIENT_H
#define DEPLOY_RINGCAST_CLIENT_H

#include "common/base.h"
#include "common/buf.h"
#include "common/conf.h"
#include "common/mono.h"
#include "common/view.h"

#include "proto/ws.h"

/* Longest message taken from a server. */
#define CLIENT_MESSAGE_MAX (256u << 20)
#define CLIENT_IN_BYTES 65536

/* Where to connect. */
struct client_url {
    bool is_unix;
    bool tls;
    bool trusted;   /* over TLS: a server of this host that showed the way itself; its certificate is not checked */
    char host[256];
    char port[8];
    char unix_path[108];
    char path[512]; /* of the request */
    char text[640]; /* for sentences */
};

struct secure;

struct client {
    int fd;
    struct secure *secure; /* NULL: plain */
    struct client_url url;
    struct ws_reader reader;
    uint8_t control[128];
    uint8_t in[CLIENT_IN_BYTES]; /* received, from `at` to `end` not looked at yet */
    size_t at, end;
    struct buf message; /* the present message as far as it has come */
    uint64_t timeout_ms; /* for what is sent */
    struct mono heard;  /* when bytes came last */
};

enum client_got {
    CLIENT_MESSAGE, /* whole text message in c->message */
    CLIENT_TIMEOUT, /* nothing until the deadline */
    CLIENT_GONE,    /* the connection ended; *err says how */
};

/* ws://host[:port][/path] or wss://, http:// and https:// alike, unix:/path. `path` is used where the URL has none. */
bool client_parse_url(
    struct client_url *u, const char *text, const char *path, struct conf_error *err) MUST_CHECK;
/* Connects and upgrades, all within timeout_ms. On failure nothing is left open. */
bool client_open(struct client *c, const struct client_url *u, uint64_t timeout_ms,
    struct conf_error *err) MUST_CHECK;
bool client_send_text(struct client *c, struct view text, struct conf_error *err) MUST_CHECK;
enum client_got client_wait(
    struct client *c, struct mono deadline, struct conf_error *err) MUST_CHECK;
/* Says goodbye (1000), waits a moment for the answer, closes. */
void client_close(struct client *c);

#endif
