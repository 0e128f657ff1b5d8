/* The broker's part of ringcast-sizes. */
#include "bench/sizes.h"
#include "broker/chan.h"

static const struct size_row rows[] = {
    {"broker.chan", sizeof(struct chan), "each channel somebody wants, its name beside it"},
    {"broker.interest", sizeof(struct interest), "each ring that wants a channel, past the first"},
};

const struct size_row *
sizes_broker(size_t *n)
{
    *n = ARRAY_LEN(rows);
    return rows;
}
