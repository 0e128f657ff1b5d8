/* Plain WebSocket: text messages by templates, for servers that fan out what they are sent (programs on
 * ws or uWebSockets, nchan). */
#include "bench/speak.h"

#include "common/bug.h"

/* The template with {channel} and {payload} filled in, `cap` bytes at most; at: where the payload begins, if
 * there is one. */
static size_t
ws_fill(const char *text, const char *channel, const struct speak_payload *payload, char *to, size_t cap, size_t *at)
{
    size_t n = 0, channel_n = strlen(channel);
    while (*text != 0) {
        bool is_channel = strncmp(text, "{channel}", 9) == 0, is_payload = strncmp(text, "{payload}", 9) == 0;
        size_t add = is_channel ? channel_n : is_payload && payload != NULL ? payload->n : 1;
        if (n + add > cap)
            die("a --ws- text becomes longer than %zu bytes", cap);
        if (is_payload && at != NULL)
            *at = n;
        memcpy(to + n, is_channel ? channel : is_payload && payload != NULL ? payload->p : text, add);
        n += add;
        text += is_channel || is_payload ? 9 : 1;
    }
    return n;
}

static size_t
ws_open(char *to)
{
    (void)to;
    return 0;
}

static size_t
ws_subscribe(const struct speak_conf *conf, const char *channel, char *to)
{
    return ws_fill(conf->texts.subscribe, channel, NULL, to, SPEAK_MAX, NULL);
}

static size_t
ws_unsubscribe(const struct speak_conf *conf, const char *channel, char *to)
{
    return ws_fill(conf->texts.unsubscribe, channel, NULL, to, SPEAK_MAX, NULL);
}

static bool
ws_answers(const struct speak_conf *conf)
{
    return conf->texts.subscribed[0] != 0;
}

static size_t
ws_packet(const struct speak_conf *conf, const char *channel, const struct speak_payload *payload, bool delivery,
    char *to, size_t *at)
{
    *at = SIZE_MAX;
    const char *text = delivery ? conf->texts.message : conf->texts.publish;
    size_t n = ws_fill(text, channel, payload, to, speak_room(conf, channel, payload->n), at);
    if (*at == SIZE_MAX)
        die("a --ws- text has no {payload}: %s", text);
    return n;
}

/* Compares up to the first place of the channel: an answer need not be checked to its end. */
static bool
ws_answers_to(const char *text, const uint8_t *p, size_t n)
{
    const char *brace = strstr(text, "{channel}");
    size_t fixed = brace != NULL ? (size_t)(brace - text) : strlen(text);
    return text[0] != 0 && n >= fixed && memcmp(p, text, fixed) == 0;
}

static enum speak_word
ws_hear(const struct speak_conf *conf, const uint8_t *p, size_t n, struct speak_reply *reply)
{
    (void)reply;
    if (ws_answers_to(conf->texts.subscribed, p, n) || ws_answers_to(conf->texts.unsubscribed, p, n))
        return SPEAK_DONE;
    return conf->texts.ignore[0] != 0 && speak_begins(p, n, conf->texts.ignore) ? SPEAK_NOTED : SPEAK_OTHER;
}

const struct speak speak_ws = {.name = "ws", .json = true, .open = ws_open, .subscribe = ws_subscribe,
    .unsubscribe = ws_unsubscribe, .answers = ws_answers, .packet = ws_packet, .hear = ws_hear};
