#include "broker/across.h"

static const struct bus_ears ears = {0};

bool
across_open(struct broker *b, const struct bus_ops *ops, struct conf_error *err)
{
    b->bus_wait_ms = UINT32_MAX;
    b->bus = ops->open(b->conf, &b->ring, b->metrics, &ears, b, err);
    return b->bus != NULL;
}

void
across_close(struct broker *b)
{
    if (b->bus != NULL)
        b->bus->ops->close(b->bus);
    b->bus = NULL;
}

void
across_turn(struct broker *b)
{
    b->bus_wait_ms = b->bus->ops->turn(b->bus, b->now);
}

bool
across_is_idle(const struct broker *b)
{
    (void)b;
    return true;
}
