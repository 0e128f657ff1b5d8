/* Socket.IO v4 (socket.io-protocol 5) over Engine.IO v4 on a WebSocket from the start. The server greets
 * (0{...}), the client connects to the main namespace (40), is answered (40{"sid":...}), and is asked for signs
 * of life (2, answered 3). Rooms are the application's: "sub" and "unsub" join and leave one and are
 * acknowledged, "pub" is emitted to the room as "msg" (bench/peers/socketio.mjs). */
#include "bench/speak.h"

static size_t
sio_open(char *to)
{
    (void)to;
    return 0; /* the server greets */
}

static size_t
sio_subscribe(const struct speak_conf *conf, const char *channel, char *to)
{
    (void)conf;
    return speak_print(to, "420[\"sub\",\"%s\"]", channel);
}

static size_t
sio_unsubscribe(const struct speak_conf *conf, const char *channel, char *to)
{
    (void)conf;
    return speak_print(to, "421[\"unsub\",\"%s\"]", channel);
}

static size_t
sio_packet(const struct speak_conf *conf, const char *channel, const struct speak_payload *payload, bool delivery,
    char *to, size_t *at)
{
    (void)conf;
    char *end = to + speak_print(to, "42[\"%s\",\"%s\",", delivery ? "msg" : "pub", channel);
    end = speak_put_json(end, to, payload, at);
    return (size_t)(speak_put(end, "]", 1) - to);
}

static enum speak_word
sio_hear(const struct speak_conf *conf, const uint8_t *p, size_t n, struct speak_reply *reply)
{
    (void)conf;
    if (n == 1 && p[0] == '2') {
        *reply = (struct speak_reply){.any = true, .bytes = "3", .n = 1};
        return SPEAK_PING;
    }
    if (speak_begins(p, n, "0{")) {
        *reply = (struct speak_reply){.any = true, .bytes = "40", .n = 2};
        return SPEAK_NOTED;
    }
    if (speak_begins(p, n, "40") || speak_begins(p, n, "43"))
        return SPEAK_DONE;
    return speak_begins(p, n, "44") ? SPEAK_FAILED : SPEAK_OTHER;
}

const struct speak speak_sio = {.name = "socketio", .json = true, .opens = true, .open = sio_open,
    .subscribe = sio_subscribe, .unsubscribe = sio_unsubscribe, .packet = sio_packet, .hear = sio_hear};
