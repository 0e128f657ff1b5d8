/* Which bus the settings ask for. */
#include "broker/bus.h"

const char *
bus_state_str(enum bus_state s)
{
    switch (s) {
    case BUS_NONE: return "none";
    case BUS_DOWN: return "down";
    case BUS_PARTLY: return "partly";
    case BUS_UP: return "up";
    }
    return "?";
}

const struct bus_ops *
bus_chosen(const struct conf *conf)
{
    if (conf->redis_url.n == 0)
        return &bus_none;
    return strcmp(conf->redis_mode, "cluster") == 0 ? &bus_rcluster : &bus_redis;
}
