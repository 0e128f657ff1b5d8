/* Envelopes of other hosts. What is read can be written and read again, and is the same; a body of names ends. */
#include <stdlib.h>

#include "proto/envelope.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void
must(bool claim)
{
    if (!claim)
        abort();
}

static void
write_and_read(const struct envelope *e)
{
    uint8_t head[ENVELOPE_HEAD_MAX];
    struct envelope again;
    size_t n = envelope_put(head, e);
    must(n <= sizeof head);
    must(envelope_get(view_of(head, n), &again) == ENVELOPE_OK);
    must(again.kind == e->kind && again.flags == e->flags && again.stretch == e->stretch);
    must(again.number == e->number && again.behind == e->behind && again.body.n == 0);
    must(again.base == e->base && again.base_age == e->base_age);
    must(memcmp(&again.origin, &e->origin, sizeof e->origin) == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct envelope e;
    struct view in = view_of(data, n), name;
    enum envelope_rc rc = envelope_get(in, &e);
    must((rc == ENVELOPE_FOREIGN) == (n == 0 || data[0] != ENVELOPE_FIRST));
    if (rc != ENVELOPE_OK)
        return 0;
    must(e.body.p >= data && e.body.p + e.body.n == data + n);
    write_and_read(&e);
    bool bad = false;
    for (size_t names = 0; envelope_name_take(&e.body, &name, &bad); names++)
        must(names < n && name.n <= n);
    must(bad || e.body.n == 0);
    return 0;
}
