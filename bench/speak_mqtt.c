/* MQTT 3.1.1 (OASIS standard, 2014) with QoS 0, on TCP or inside binary WebSocket messages (section 6). */
#include "bench/speak.h"

/* Fixed header: type and flags, then the length of the rest in groups of seven bits (section 2.2). */
static char *
mqtt_put_head(char *to, uint8_t first, size_t rest)
{
    *to++ = (char)first;
    for (; rest >= 128; rest >>= 7)
        *to++ = (char)(128 | (rest & 127));
    *to++ = (char)rest;
    return to;
}

static char *
mqtt_put_str(char *to, const char *text)
{
    size_t n = strlen(text);
    *to++ = (char)(n >> 8);
    *to++ = (char)n;
    return speak_put(to, text, n);
}

/* A clean session without an identifier and without keep-alive (section 3.1). */
static size_t
mqtt_open(char *to)
{
    static const char connect[] = "\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00";
    return (size_t)(speak_put(to, connect, sizeof connect - 1) - to);
}

static size_t
mqtt_subscribe(const struct speak_conf *conf, const char *channel, char *to)
{
    (void)conf;
    char *end = mqtt_put_head(to, 0x82, 2 + 2 + strlen(channel) + 1);
    return (size_t)(speak_put(mqtt_put_str(speak_put(end, "\x00\x01", 2), channel), "\x00", 1) - to);
}

static size_t
mqtt_unsubscribe(const struct speak_conf *conf, const char *channel, char *to)
{
    (void)conf;
    char *end = mqtt_put_head(to, 0xa2, 2 + 2 + strlen(channel));
    return (size_t)(mqtt_put_str(speak_put(end, "\x00\x02", 2), channel) - to);
}

/* At QoS 0 a publication has no identifier and is passed on as it came (section 3.3). */
static size_t
mqtt_packet(const struct speak_conf *conf, const char *channel, const struct speak_payload *payload, bool delivery,
    char *to, size_t *at)
{
    (void)conf;
    (void)delivery;
    char *end = mqtt_put_str(mqtt_put_head(to, 0x30, 2 + strlen(channel) + payload->n), channel);
    *at = (size_t)(end - to);
    return (size_t)(speak_put(end, payload->p, payload->n) - to);
}

static size_t
mqtt_cut(const uint8_t *p, size_t n)
{
    size_t rest = 0;
    for (size_t i = 1; i < n && i < 5; i++) {
        rest |= (size_t)(p[i] & 127) << 7 * (i - 1);
        if (p[i] < 128)
            return 1 + i + rest;
    }
    return n < 5 ? 0 : SIZE_MAX;
}

static enum speak_word
mqtt_hear(const struct speak_conf *conf, const uint8_t *p, size_t n, struct speak_reply *reply)
{
    (void)conf;
    (void)reply;
    switch (p[0] >> 4) {
    case 2: return n == 4 && p[3] == 0 ? SPEAK_DONE : SPEAK_FAILED;  /* CONNACK: return code */
    case 9: return n == 5 && p[4] < 128 ? SPEAK_DONE : SPEAK_FAILED; /* SUBACK: 128 is failure */
    case 11: return SPEAK_DONE;                                      /* UNSUBACK */
    default: return SPEAK_OTHER;
    }
}

const struct speak speak_mqtt = {.name = "mqtt", .subprotocol = "mqtt", .binary = true, .json = true, .opens = true,
    .cut = mqtt_cut, .open = mqtt_open, .subscribe = mqtt_subscribe, .unsubscribe = mqtt_unsubscribe,
    .packet = mqtt_packet, .hear = mqtt_hear};
