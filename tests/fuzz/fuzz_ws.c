/* Frames and UTF-8. The first byte chooses whose frames they are and the limits, the second the
 * chunks; what is heard may not depend on the chunks, and text that is handed out is UTF-8 by a
 * second implementation. */
#include <stdlib.h>

#include "proto/ws.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define HEARD_MAX (1u << 17)

/* Everything heard, as bytes that can be compared: message by message, and the end. Pieces are
 * joined, and an unfinished message is left out, since its pieces depend on the chunks. */
struct heard {
    uint8_t bytes[HEARD_MAX];
    size_t n, message_at;
    bool open;
};

static void
must(bool claim)
{
    if (!claim)
        abort();
}

static void
put(struct heard *h, const void *p, size_t n)
{
    must(n <= HEARD_MAX - h->n);
    if (n)
        memcpy(h->bytes + h->n, p, n);
    h->n += n;
}

/* RFC 3629 by decoding: the second opinion. */
static bool
is_utf8(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n;) {
        uint32_t c = p[i];
        size_t more = c < 0x80 ? 0 : c >> 5 == 6 ? 1 : c >> 4 == 14 ? 2 : c >> 3 == 30 ? 3 : 9;
        static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
        if (more == 9 || n - i <= more)
            return false;
        c &= more ? 0x3Fu >> more : 0x7F;
        for (size_t k = 1; k <= more; k++) {
            if (p[i + k] >> 6 != 2)
                return false;
            c = c << 6 | (p[i + k] & 0x3F);
        }
        if (c < least[more] || c > 0x10FFFF || (c >= 0xD800 && c < 0xE000))
            return false;
        i += more + 1;
    }
    return true;
}

static void
hear_data(struct heard *h, const struct ws_event *ev)
{
    must(ev->first == !h->open);
    if (ev->first)
        h->message_at = h->n;
    put(h, ev->payload.p, ev->payload.n);
    h->open = !ev->last;
    if (!ev->last)
        return;
    must(!ev->text || ev->packed || is_utf8(h->bytes + h->message_at, h->n - h->message_at));
    put(h, ev->packed ? "P" : "", ev->packed);
    put(h, ev->text ? "T" : "B", 1);
}

/* A control frame between two pieces goes in front of the message. */
static void
hear_control(struct heard *h, const struct ws_event *ev)
{
    uint8_t word[3 + 125] = {(uint8_t)ev->kind, (uint8_t)(ev->code >> 8), (uint8_t)ev->code};
    must(ev->payload.n <= 125);
    memcpy(word + 3, ev->payload.p, ev->payload.n);
    size_t n = 3 + ev->payload.n, from = h->open ? h->message_at : h->n;
    put(h, word, n);
    memmove(h->bytes + from + n, h->bytes + from, h->n - n - from);
    memcpy(h->bytes + from, word, n);
    h->message_at = from + n;
    must(ev->kind != WS_EV_CLOSE || is_utf8(ev->payload.p, ev->payload.n));
}

static void
listen(struct heard *h, const struct ws_limits *limits, bool client, const uint8_t *in, size_t in_n,
    size_t chunk)
{
    struct ws_reader r = {.client = client};
    uint8_t *control = malloc(128);
    must(control != NULL);
    *h = (struct heard){.n = 0};
    for (size_t at = 0, take; at < in_n; at += take) {
        take = MIN(chunk, in_n - at);
        uint8_t *block = malloc(take), *p = block;
        size_t n = take;
        must(block != NULL);
        memcpy(block, in + at, take);
        enum ws_event_kind kind;
        struct ws_event ev;
        while ((kind = ws_read(&r, limits, &p, &n, control, &ev)) != WS_EV_MORE) {
            must(p + n == block + take);
            if (kind == WS_EV_DATA) {
                hear_data(h, &ev);
            } else if (kind == WS_EV_BAD) {
                h->n = h->open ? h->message_at : h->n;
                h->open = false;
                put(h, &ev.bad, sizeof ev.bad);
            } else {
                hear_control(h, &ev);
            }
        }
        must(n == 0);
        free(block);
    }
    free(control);
    if (h->open)
        h->n = h->message_at;
    must(r.total <= (r.packed ? limits->max_packed : limits->max_message) && r.frames <= limits->max_frames);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct heard whole, split;
    if (n < 2 || n > HEARD_MAX / 4)
        return 0;
    struct ws_limits limits = {
        .max_message = data[0] & 2 ? 200 : 100000,
        .max_frames = data[0] & 4 ? 4 : 1000,
        .max_packed = data[0] & 8 ? 300 : 0,
    };
    bool client = data[0] & 1;
    listen(&whole, &limits, client, data + 2, n - 2, n);
    listen(&split, &limits, client, data + 2, n - 2, 1u + data[1]);
    must(whole.n == split.n && memcmp(whole.bytes, split.bytes, whole.n) == 0);
    must(utf8_valid(view_of(data, n)) == is_utf8(data, n));
    return 0;
}
