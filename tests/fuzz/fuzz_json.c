/* proto/json on any bytes: judged like the second implementation judges, strings read back as written. */
#include <stdlib.h>

#include "proto/json.h"
#include "tests/unit/naive_json.h"

#define DEPTH 64
#define NAIVE_MAX 20000 /* bytes; the second implementation recurses */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void
must(bool claim)
{
    if (!claim)
        abort();
}

/* What a string means, written and read again, is the same. */
static void
check_string(const uint8_t *data, size_t n)
{
    struct json_string s;
    const uint8_t *end = json_string(data, data + n, &s);
    if (end == NULL)
        return;
    must(s.raw.p == data && end == data + s.raw.n + 1 && *(end - 1) == '"');
    uint8_t *means = malloc(n), *again = malloc(n);
    struct buf out = buf_make(8 * n + 16);
    size_t means_n, again_n;
    must(means != NULL && again != NULL);
    if (json_unescape(s.raw, means, n, &means_n)) {
        must(means_n <= s.raw.n && (s.escaped || means_n == s.raw.n));
        json_put_string(&out, view_of(means, means_n));
        must(!out.failed);
        struct json_string t;
        must(json_string(out.p + 1, out.p + out.n, &t) == out.p + out.n);
        must(json_unescape(t.raw, again, n, &again_n));
        must(again_n == means_n && memcmp(again, means, means_n) == 0);
        must(json_is_plain(view_of(means, means_n)) == !t.escaped);
    }
    buf_free(&out);
    free(means);
    free(again);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    bool deep = false;
    unsigned deepest;
    bool ours = json_valid(view_of(data, n), DEPTH, &deep);
    must(!(ours && deep));
    if (n <= NAIVE_MAX) {
        bool theirs = naive_json(data, n, &deepest);
        must(ours == (theirs && deepest <= DEPTH));
        must(!deep || deepest > DEPTH);
    }
    if (n > 0)
        check_string(data, n);
    return 0;
}
