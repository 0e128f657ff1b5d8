/* The echo dialect on any message: one verb that holds the message as it is, then the end, and what is
 * encoded from it is the message again, byte for byte. */
#include <stdlib.h>
#include <string.h>

#include "proto/dialect.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void
must(bool claim)
{
    if (!claim)
        abort();
}

static void
check_echo(struct view msg, const struct verb *v)
{
    struct buf out = buf_make(1 << 24);
    const struct event ev = {.kind = EV_ECHO, .has_data = true, .data = v->data};
    must(dialect_echo.encode(NULL, &ev, &out));
    must(!out.failed && out.n == msg.n && (msg.n == 0 || memcmp(out.p, msg.p, msg.n) == 0));
    buf_free(&out);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct decoding d;
    const struct dialect_limits limits = {128, 8192, 1024, 256};
    struct verb v;
    if (n == 0)
        return 0;
    const struct view msg = view_of(data + 1, n - 1);
    d = (struct decoding){.msg = msg, .text = data[0] & 1};
    must(dialect_echo.decode(NULL, &limits, &d, &v) == DECODE_VERB);
    must(v.kind == VERB_ECHO && v.has_data && v.binary == !d.text);
    must(v.data.p == msg.p && v.data.n == msg.n);
    must(dialect_echo.decode(NULL, &limits, &d, &v) == DECODE_END);
    must(dialect_echo.decode(NULL, &limits, &d, &v) == DECODE_END);
    check_echo(msg, &(struct verb){.data = msg, .binary = !d.text});
    return 0;
}
