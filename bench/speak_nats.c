/* The client protocol of NATS (docs.nats.io, "Client Protocol"), on TCP or inside WebSocket messages. What is
 * asked for has no answer of its own, so each is followed by a PING, whose PONG comes when it is done. */
#include "bench/speak.h"

static size_t
nats_open(char *to)
{
    return speak_print(to, "CONNECT {\"verbose\":false,\"pedantic\":false,\"echo\":true,\"headers\":false,\"lang\":\"c\","
                           "\"version\":\"1\",\"protocol\":1}\r\nPING\r\n");
}

static size_t
nats_subscribe(const struct speak_conf *conf, const char *channel, char *to)
{
    (void)conf;
    return speak_print(to, "SUB %s 1\r\nPING\r\n", channel);
}

static size_t
nats_unsubscribe(const struct speak_conf *conf, const char *channel, char *to)
{
    (void)conf;
    (void)channel;
    return speak_print(to, "UNSUB 1\r\nPING\r\n");
}

static size_t
nats_packet(const struct speak_conf *conf, const char *channel, const struct speak_payload *payload, bool delivery,
    char *to, size_t *at)
{
    (void)conf;
    size_t head = speak_print(to, delivery ? "MSG %s 1 %zu\r\n" : "PUB %s %zu\r\n", channel, payload->n);
    *at = head;
    return (size_t)(speak_put(speak_put(to + head, payload->p, payload->n), "\r\n", 2) - to);
}

/* A line; behind that of MSG the payload, whose length is the line's last word, and CR LF. */
static size_t
nats_cut(const uint8_t *p, size_t n)
{
    const uint8_t *nl = memchr(p, '\n', n);
    if (nl == NULL)
        return n > 16384 ? SIZE_MAX : 0;
    size_t line = (size_t)(nl - p) + 1, payload = 0, scale = 1;
    if (!speak_begins(p, n, "MSG "))
        return line;
    size_t i = line - 2;
    for (; i > 0 && p[i - 1] >= '0' && p[i - 1] <= '9'; i--, scale *= 10) {
        if (scale > 100000000)
            return SIZE_MAX;
        payload += (size_t)(p[i - 1] - '0') * scale;
    }
    return i == 0 || p[i - 1] != ' ' ? SIZE_MAX : line + payload + 2;
}

static enum speak_word
nats_hear(const struct speak_conf *conf, const uint8_t *p, size_t n, struct speak_reply *reply)
{
    (void)conf;
    if (speak_begins(p, n, "PING")) {
        *reply = (struct speak_reply){.any = true, .bytes = "PONG\r\n", .n = 6};
        return SPEAK_PING;
    }
    if (speak_begins(p, n, "PONG"))
        return SPEAK_DONE;
    if (speak_begins(p, n, "INFO ") || speak_begins(p, n, "+OK"))
        return SPEAK_NOTED;
    return speak_begins(p, n, "-ERR") ? SPEAK_FAILED : SPEAK_OTHER;
}

const struct speak speak_nats = {.name = "nats", .binary = true, .json = true, .opens = true, .cut = nats_cut,
    .open = nats_open, .subscribe = nats_subscribe, .unsubscribe = nats_unsubscribe, .packet = nats_packet,
    .hear = nats_hear};
