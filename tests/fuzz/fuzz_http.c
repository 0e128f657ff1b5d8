/* Request heads. The first byte chooses limits, the second where the rest is cut; the outcome may
 * not depend on the cut, and views must lie inside the head. */
#include <stdlib.h>

#include "proto/http.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void
must(bool claim)
{
    if (!claim)
        abort();
}

static void
inside(struct view v, struct view head)
{
    must(v.n <= head.n);
    if (v.n)
        must(v.p >= head.p && v.p + v.n <= head.p + head.n);
}

static void
check_request(const struct http_request *r, struct view head)
{
    must(r->field_count <= HTTP_FIELDS_MAX && r->path.n > 0);
    inside(r->target, head);
    inside(r->method_text, head);
    inside(r->query, head);
    for (uint32_t i = 0; i < r->field_count; i++) {
        inside(r->fields[i].name, head);
        inside(r->fields[i].value, head);
        for (size_t at = 0; at < r->fields[i].value.n; at++)
            must(r->fields[i].value.p[at] >= 0x20 || r->fields[i].value.p[at] == '\t');
    }
    struct ws_upgrade u;
    http_upgrade_check(r, &u);
    must(u.status == 101 || u.status == 400 || u.status == 405 || u.status == 426);
    must(u.status != 101 || (strlen(u.accept) == 28 && r->method == HTTP_GET && !r->has_body));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct http_request whole, split;
    if (n < 2)
        return 0;
    struct http_limits limits = {
        256, 512u << (data[0] & 7), 8u << (data[0] >> 3 & 3), data[0] >> 5};
    size_t step = 1u + data[1];
    struct view in = view_of(data + 2, n - 2);
    size_t pos = 0, eaten = 0, split_eaten = 0;
    unsigned status = 0, split_status = 0;
    enum http_parse rc = http_parse_request(in, &pos, &limits, &whole, &eaten, &status);
    if (rc == HTTP_DONE) {
        must(eaten <= in.n && eaten <= limits.header_bytes);
        check_request(&whole, view_head(in, eaten));
    }
    must(rc != HTTP_MORE || in.n < limits.header_bytes);
    must(rc != HTTP_BAD || (status >= 400 && status <= 505));

    enum http_parse split_rc = HTTP_MORE;
    pos = 0;
    for (size_t have = 0; split_rc == HTTP_MORE && have < in.n;) {
        have = MIN(have + step, in.n);
        split_rc = http_parse_request(
            view_head(in, have), &pos, &limits, &split, &split_eaten, &split_status);
    }
    must(rc == split_rc);
    must(rc != HTTP_BAD || status == split_status);
    must(rc != HTTP_DONE || (eaten == split_eaten && whole.field_count == split.field_count));
    return 0;
}
