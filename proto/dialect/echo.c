/* The smallest language: every message comes back as it came, text as text and binary as binary. For
 * conformance suites, and as the example of what a dialect is. No handshake, no pings, no limits but
 * those of the transport. */
#include "proto/dialect.h"

static enum decode
echo_decode(UNUSED void *state, UNUSED const struct dialect_limits *limits, struct decoding *d,
    struct verb *out)
{
    if (d->step++ > 0) {
        d->step = 1;
        return DECODE_END;
    }
    *out = (struct verb){
        .kind = VERB_ECHO, .has_data = true, .binary = !d->text, .data = d->msg};
    return DECODE_VERB;
}

static bool
echo_encode(UNUSED const void *state, const struct event *ev, struct buf *out)
{
    if (ev->kind != EV_ECHO)
        return false;
    buf_put_view(out, ev->data);
    return !out->failed;
}

const struct dialect dialect_echo = {
    .name = "echo",
    .text = true,
    .decode = echo_decode,
    .encode = echo_encode,
};
