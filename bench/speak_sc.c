/* SocketCluster protocol v2 in JSON, and the same through the codec sc-codec-min-bin: MessagePack with
 * short names, {"p":[channel,data]} for a publication, {"e":[event,data,cid]} for other events,
 * {"r":[rid,error,data]} for answers. Pings stay empty text messages. */
#include "bench/speak.h"

static size_t
sc_open(char *to)
{
    return speak_print(to, "{\"event\":\"#handshake\",\"data\":{\"authToken\":null},\"cid\":1}");
}

static size_t
sc_subscribe(const struct speak_conf *conf, const char *channel, char *to)
{
    (void)conf;
    return speak_print(to, "{\"event\":\"#subscribe\",\"data\":{\"channel\":\"%s\"},\"cid\":2}", channel);
}

static size_t
sc_unsubscribe(const struct speak_conf *conf, const char *channel, char *to)
{
    (void)conf;
    return speak_print(to, "{\"event\":\"#unsubscribe\",\"data\":\"%s\",\"cid\":3}", channel);
}

/* Publish and delivery are the same bytes. */
static size_t
sc_packet(const struct speak_conf *conf, const char *channel, const struct speak_payload *payload, bool delivery,
    char *to, size_t *at)
{
    (void)conf;
    (void)delivery;
    char *end = to + speak_print(to, "{\"event\":\"#publish\",\"data\":{\"channel\":\"%s\",\"data\":", channel);
    end = speak_put_json(end, to, payload, at);
    return (size_t)(speak_put(end, "}}", 2) - to);
}

static enum speak_word
sc_hear(const struct speak_conf *conf, const uint8_t *p, size_t n, struct speak_reply *reply)
{
    (void)conf;
    if (n == 0) {
        *reply = (struct speak_reply){.any = true, .as_text = true, .bytes = ""};
        return SPEAK_PING;
    }
    if (!speak_begins(p, n, "{\"rid\":"))
        return SPEAK_OTHER;
    return memmem(p, n, "\"error\"", 7) != NULL ? SPEAK_FAILED : SPEAK_DONE;
}

const struct speak speak_sc = {.name = "socketcluster", .json = true, .opens = true, .open = sc_open,
    .subscribe = sc_subscribe, .unsubscribe = sc_unsubscribe, .packet = sc_packet, .hear = sc_hear};

/* --- min-bin ------------------------------------------------------------------------------- */

/* MessagePack strings: 0xa0 | length, 0xd9 and one byte, 0xda and two. */
static char *
minbin_str_head(char *to, size_t n)
{
    if (n < 32) {
        *to++ = (char)(0xa0 | n);
    } else if (n < 256) {
        *to++ = (char)0xd9;
        *to++ = (char)n;
    } else {
        *to++ = (char)0xda;
        *to++ = (char)(n >> 8);
        *to++ = (char)n;
    }
    return to;
}

static char *
minbin_str(char *to, const char *text)
{
    return speak_put(minbin_str_head(to, strlen(text)), text, strlen(text));
}

/* {"e": [event, ... — the array has three elements: the event, its data, its call number. */
static char *
minbin_event(char *to, const char *event)
{
    return minbin_str(speak_put(to, "\x81\xa1" "e\x93", 4), event);
}

static size_t
minbin_open(char *to)
{
    char *end = speak_put(minbin_event(to, "#handshake"), "\x81", 1);
    end = speak_put(minbin_str(end, "authToken"), "\xc0\x01", 2);
    return (size_t)(end - to);
}

static size_t
minbin_subscribe(const struct speak_conf *conf, const char *channel, char *to)
{
    (void)conf;
    char *end = speak_put(minbin_event(to, "#subscribe"), "\x81", 1);
    end = speak_put(minbin_str(minbin_str(end, "channel"), channel), "\x02", 1);
    return (size_t)(end - to);
}

static size_t
minbin_unsubscribe(const struct speak_conf *conf, const char *channel, char *to)
{
    (void)conf;
    return (size_t)(speak_put(minbin_str(minbin_event(to, "#unsubscribe"), channel), "\x03", 1) - to);
}

static size_t
minbin_packet(const struct speak_conf *conf, const char *channel, const struct speak_payload *payload, bool delivery,
    char *to, size_t *at)
{
    (void)conf;
    (void)delivery;
    char *end = minbin_str(speak_put(to, "\x81\xa1p\x92", 4), channel);
    end = minbin_str_head(end, payload->n);
    *at = (size_t)(end - to);
    return (size_t)(speak_put(end, payload->p, payload->n) - to);
}

/* {"r": [rid, error, ... ; the numbers we give are below 128, one byte; no error is nil. */
static enum speak_word
minbin_hear(const struct speak_conf *conf, const uint8_t *p, size_t n, struct speak_reply *reply)
{
    if (n == 0)
        return sc_hear(conf, p, n, reply);
    if (n < 6 || !speak_begins(p, n, "\x81\xa1r\x93"))
        return SPEAK_OTHER;
    return p[5] == 0xc0 ? SPEAK_DONE : SPEAK_FAILED;
}

const struct speak speak_minbin = {.name = "min-bin", .binary = true, .opens = true, .open = minbin_open,
    .subscribe = minbin_subscribe, .unsubscribe = minbin_unsubscribe, .packet = minbin_packet, .hear = minbin_hear};
