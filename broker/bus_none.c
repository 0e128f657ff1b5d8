/* No bus: one host. What is joined is confirmed by nobody and nothing is published: broker/across is not there
 * (across_open), so in a running broker none of this is called but open, turn and close. */
#include <stdlib.h>

#include "broker/bus.h"

static struct bus *
none_open(const struct conf *conf, struct ring *ring, uint64_t *metrics, const struct bus_ears *ears, void *arg,
    struct conf_error *err)
{
    struct bus *bus = calloc(1, sizeof *bus);
    if (bus == NULL) {
        conf_fail(err, "can't begin: memory is out");
        return NULL;
    }
    *bus = (struct bus){.ops = &bus_none, .conf = conf, .ring = ring, .metrics = metrics, .ears = ears, .arg = arg};
    return bus;
}

static void
none_close(struct bus *bus)
{
    free(bus);
}

static bool
none_join(struct bus *bus, struct bus_topic topic)
{
    (void)bus;
    (void)topic;
    return true;
}

static void
none_leave(struct bus *bus, struct bus_topic topic)
{
    (void)bus;
    (void)topic;
}

static bool
none_publish(struct bus *bus, struct bus_topic topic, struct view head, struct view body, uint64_t token)
{
    (void)bus;
    (void)topic;
    (void)head;
    (void)body;
    (void)token;
    return false;
}

static bool
none_is_up(const struct bus *bus, struct bus_topic topic)
{
    (void)bus;
    (void)topic;
    return false;
}

static uint32_t
none_turn(struct bus *bus, struct mono now)
{
    (void)bus;
    (void)now;
    return UINT32_MAX;
}

static void
none_on_done(struct bus *bus, struct ring_done done)
{
    (void)bus;
    (void)done;
}

static void
none_describe(const struct bus *bus, struct buf *out)
{
    (void)bus;
    buf_put_lit(out, "none\n");
}

const struct bus_ops bus_none = {
    .name = "none",
    .open = none_open,
    .close = none_close,
    .join = none_join,
    .leave = none_leave,
    .publish = none_publish,
    .is_up = none_is_up,
    .turn = none_turn,
    .on_done = none_on_done,
    .describe = none_describe,
};
