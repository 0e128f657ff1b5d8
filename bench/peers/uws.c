/* A small publish/subscribe server on uWebSockets, as its documentation has it: topics of its own, one loop, one thread. It
 * speaks what ws.mjs speaks: "sub C" and "unsub C" (answered "ok C"), "pub C DATA", which subscribers get as "msg C DATA".
 * DATA is not looked at. uWebSockets comes as the library inside socketify (PyPI), by its C interface; no Python runs.
 *
 *   uws LIBRARY        prints "ready PORT TLS-PORT"; KEY and CERT: files, as for the others; DEFLATE=1: permessage-deflate */
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is used of uWebSockets' C interface (capi/libuwebsockets.h). */
struct tls_options {
    const char *key, *cert, *passphrase, *dh_params, *ca, *ciphers;
    int low_memory;
};
struct listen_config {
    int port;
    const char *host;
    int options;
};
typedef void (*listen_fn)(void *socket, struct listen_config at, void *user);
struct behavior {
    int compression;
    unsigned max_payload;
    unsigned short idle_timeout;
    unsigned max_backpressure;
    bool close_on_backpressure, reset_idle_on_send, send_pings;
    unsigned short max_lifetime;
    void *upgrade, *open;
    void (*message)(void *ws, const char *p, size_t n, int opcode, void *user);
    void *drain, *ping, *pong, *close, *subscription;
};
enum { TEXT = 1, SHARED_COMPRESSOR = 1, SHARED_DECOMPRESSOR = 1 << 8, MESSAGE_MAX = 1 << 20 };

static struct {
    void *(*create_app)(int ssl, struct tls_options options);
    void (*ws)(int ssl, void *app, const char *pattern, struct behavior behavior, void *user);
    void (*listen)(int ssl, void *app, struct listen_config at, listen_fn done, void *user);
    int (*local_port)(int ssl, void *socket);
    void (*run)(int ssl, void *app);
    bool (*subscribe)(int ssl, void *ws, const char *topic, size_t n);
    bool (*unsubscribe)(int ssl, void *ws, const char *topic, size_t n);
    int (*send)(int ssl, void *ws, const char *p, size_t n, int opcode);
    bool (*publish)(int ssl, void *app, const char *topic, size_t topic_n, const char *p, size_t n, int opcode, bool compress);
} uws;

static struct side {
    int ssl, port;
    void *app;
} sides[2] = {{.ssl = 0}, {.ssl = 1}};
static bool deflates;

/* "NAME DATA" goes to the subscribers of NAME as "msg NAME DATA". */
static void
publish(const struct side *s, const char *p, size_t n)
{
    static char out[MESSAGE_MAX + 4] = "msg ";
    const char *space = memchr(p, ' ', n);
    if (space == NULL)
        return;
    memcpy(out + 4, p, n);
    uws.publish(s->ssl, s->app, p, (size_t)(space - p), out, n + 4, TEXT, deflates);
}

static void
on_message(void *ws, const char *p, size_t n, int opcode, void *user)
{
    const struct side *s = user;
    char answer[260] = "ok ";
    bool joins = n > 4 && n < 260 && memcmp(p, "sub ", 4) == 0, leaves = n > 6 && n < 260 && memcmp(p, "unsub ", 6) == 0;
    (void)opcode;
    if (n > 4 && memcmp(p, "pub ", 4) == 0) {
        publish(s, p + 4, n - 4);
    } else if (joins || leaves) {
        size_t skip = joins ? 4 : 6;
        (joins ? uws.subscribe : uws.unsubscribe)(s->ssl, ws, p + skip, n - skip);
        memcpy(answer + 3, p + skip, n - skip);
        uws.send(s->ssl, ws, answer, n - skip + 3, TEXT);
    }
}

static void
on_listen(void *socket, struct listen_config at, void *user)
{
    struct side *s = user;
    (void)at;
    if (socket == NULL)
        exit(1);
    s->port = uws.local_port(s->ssl, socket);
}

static void
find(void *library, const char *name, void *to)
{
    void *at = dlsym(library, name);
    if (at == NULL) {
        fprintf(stderr, "uws: %s\n", dlerror());
        exit(1);
    }
    memcpy(to, &at, sizeof at);
}

static void
load(const char *path)
{
    void *library = dlopen(path, RTLD_NOW);
    if (library == NULL) {
        fprintf(stderr, "uws: %s\n", dlerror());
        exit(1);
    }
    find(library, "uws_create_app", &uws.create_app);
    find(library, "uws_ws", &uws.ws);
    find(library, "uws_app_listen_with_config", &uws.listen);
    find(library, "us_socket_local_port", &uws.local_port);
    find(library, "uws_app_run", &uws.run);
    find(library, "uws_ws_subscribe", &uws.subscribe);
    find(library, "uws_ws_unsubscribe", &uws.unsubscribe);
    find(library, "uws_ws_send", &uws.send);
    find(library, "uws_publish", &uws.publish);
}

int
main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    load(argv[1]);
    deflates = getenv("DEFLATE") != NULL;
    for (struct side *s = sides; s < sides + 2; s++) {
        struct tls_options tls = {.key = getenv("KEY"), .cert = getenv("CERT")};
        s->app = uws.create_app(s->ssl, s->ssl ? tls : (struct tls_options){0});
        uws.ws(s->ssl, s->app, "/*",
            (struct behavior){.compression = deflates ? SHARED_COMPRESSOR | SHARED_DECOMPRESSOR : 0, .max_payload = MESSAGE_MAX,
                .max_backpressure = 64 << 20, .message = on_message},
            s);
        uws.listen(s->ssl, s->app, (struct listen_config){.port = 0, .host = "127.0.0.1"}, on_listen, s);
    }
    printf("ready %d %d\n", sides[0].port, sides[1].port);
    fflush(stdout);
    uws.run(0, sides[0].app);
    return 0;
}
