/* PROXY headers. The outcome may not depend on the pieces they come in, and never asks for more than the
 * bound. */
#include <stdlib.h>

#include "proto/proxyline.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void
must(bool claim)
{
    if (!claim)
        abort();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct view in = view_of(data, n);
    struct proxyline whole, split;
    size_t eaten, split_eaten = 0;
    enum proxyline_rc rc = proxyline_parse(in, &whole, &eaten), split_rc = PROXYLINE_MORE;
    must(eaten <= n && (rc == PROXYLINE_DONE) == (eaten > 0));
    must(rc != PROXYLINE_MORE || n < PROXYLINE_MAX);
    must(rc == PROXYLINE_DONE || !whole.known || rc == PROXYLINE_BAD);
    must(rc != PROXYLINE_DONE || whole.version == 1 || whole.version == 2);
    for (size_t have = 0; have <= n && split_rc == PROXYLINE_MORE; have++)
        split_rc = proxyline_parse(view_head(in, have), &split, &split_eaten);
    must(rc == split_rc && eaten == split_eaten);
    must(rc != PROXYLINE_DONE || (whole.known == split.known && memcmp(&whole.source, &split.source, 16) == 0));
    return 0;
}
