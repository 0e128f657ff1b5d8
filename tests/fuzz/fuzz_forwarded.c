/* Forwarded and X-Forwarded-For: the first byte says which, line feeds part the lines of the field. An
 * entry of ours at the right end never changes who the client is, and nothing at the left end does once
 * there is a client. */
#include <stdlib.h>

#include "proto/forwarded.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void
must(bool claim)
{
    if (!claim)
        abort();
}

static struct http_request r;
static struct addr_nets trusted;
static struct addr peer;

static void
line_add(struct view name, struct view value)
{
    if (r.field_count < HTTP_FIELDS_MAX)
        r.fields[r.field_count++] = (struct http_field){name, value};
}

static bool
same(struct addr a, struct addr b)
{
    return memcmp(&a, &b, sizeof a) == 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n == 0)
        return 0;
    bool xff = data[0] & 1;
    enum forwarded_field field = xff ? FORWARDED_XFF : FORWARDED_RFC7239;
    struct view name = xff ? VIEW("X-Forwarded-For") : VIEW("Forwarded"), rest = view_of(data + 1, n - 1);
    if (trusted.n == 0)
        must(addr_nets_add(&trusted, VIEW("10.0.0.0/8")) && addr_parse(VIEW("10.9.9.9"), &peer));
    r.field_count = 0;
    line_add(name, xff ? VIEW("203.0.113.7") : VIEW("for=203.0.113.7")); /* the client's own words */
    while (rest.n > 0) {
        const uint8_t *end = memchr(rest.p, '\n', rest.n);
        size_t k = end != NULL ? (size_t)(end - rest.p) : rest.n;
        line_add(name, view_head(rest, k));
        rest = view_from(rest, k + 1);
    }
    struct addr client = forwarded_client(&r, field, &peer, &trusted);
    if (r.field_count >= HTTP_FIELDS_MAX)
        return 0;
    line_add(name, xff ? VIEW("10.1.1.1") : VIEW("for=10.1.1.1"));
    struct addr behind = forwarded_client(&r, field, &peer, &trusted);
    must(same(client, behind) || same(client, peer)); /* the peer: that hop stands before it now */
    r.fields[0].value = xff ? VIEW("unknown") : VIEW("for=unknown");
    struct addr hidden = forwarded_client(&r, field, &peer, &trusted), said;
    must(addr_parse(VIEW("203.0.113.7"), &said));
    must(same(hidden, behind) || same(behind, said) || addr_nets_have(&trusted, &hidden));
    return 0;
}
