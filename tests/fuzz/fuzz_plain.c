/* Messages of others at Redis: whatever they are, what comes out is JSON in UTF-8. */
#include <stdlib.h>

#include "proto/json.h"
#include "proto/plain.h"
#include "proto/ws.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct buf out = buf_make(1 << 20);
    bool deep;
    if (plain_decode(view_of(data, n), 128, &out) &&
        (!json_valid(buf_view(&out), 128, &deep) || !utf8_valid(buf_view(&out))))
        abort();
    buf_free(&out);
    return 0;
}
