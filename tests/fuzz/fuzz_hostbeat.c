/* Heartbeats, questions and answers of other hosts. What is read can be written and read again, and is the same; texts
 * can be shown as they are. */
#include <stdlib.h>

#include "proto/hostbeat.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void
must(bool claim)
{
    if (!claim)
        abort();
}

static void
must_be_shown(struct view v, size_t most)
{
    must(v.n <= most);
    for (size_t i = 0; i < v.n; i++)
        must(v.p[i] > ' ' && v.p[i] < 0x7f);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static uint8_t mem[HOSTBEAT_BYTES_MAX];
    struct hostbeat h, again;
    if (!hostbeat_get(view_of(data, n), &h))
        return 0;
    must(n > 0 && h.kind == data[0]);
    must_be_shown(h.name, HOSTBEAT_NAME_MAX);
    must_be_shown(h.release, HOSTBEAT_RELEASE_MAX);
    must(h.channel.n <= HOSTBEAT_CHANNEL_MAX);
    struct buf out = buf_fixed(mem, sizeof mem);
    must(hostbeat_put(&out, &h));
    must(hostbeat_get(buf_view(&out), &again));
    must(again.kind == h.kind && view_eq(again.name, h.name) && view_eq(again.release, h.release));
#define HOSTBEAT_NUMBER(tag, name, sentence) must(again.name == h.name);
    HOSTBEAT_NUMBERS(HOSTBEAT_NUMBER)
#undef HOSTBEAT_NUMBER
    must(h.kind != HOSTBEAT_COUNT || view_eq(again.channel, h.channel));
    must(h.kind != HOSTBEAT_COUNTED || memcmp(&again.to, &h.to, sizeof h.to) == 0);
    return 0;
}
