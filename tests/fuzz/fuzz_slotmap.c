/* What a node of a cluster says of the whole. The first byte says what follows: a reply of CLUSTER SLOTS, the text of CLUSTER
 * INFO, or an error. Whatever it is, the tables hold together. */
#include <stdlib.h>

#include "broker/slotmap.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void
must(bool claim)
{
    if (!claim)
        abort();
}

static struct slotmap map;

static bool
look(void *arg, const struct redis_reply *r)
{
    const char *why = NULL;
    (void)arg;
    if (!slotmap_read(&map, r, "asked", &why)) {
        must(why != NULL);
        return true;
    }
    must(map.node_count <= SLOTMAP_NODES);
    for (uint32_t s = 0; s < SLOTS; s++)
        must(map.owner[s] == SLOTMAP_NONE || map.owner[s] < map.node_count);
    for (uint16_t i = 0; i < map.node_count; i++)
        must(map.nodes[i].port != 0 && map.nodes[i].host[0] != 0 && strnlen(map.nodes[i].host, REDISURL_HOST) < REDISURL_HOST);
    return true;
}

static void
judge(struct view error)
{
    struct slotmap_redirect r = {.slot = 0};
    enum slotmap_verdict v = slotmap_judge(error, &r);
    if (v == SLOTMAP_MOVED || v == SLOTMAP_ASK)
        must(r.slot < SLOTS && r.to.port != 0 && strnlen(r.to.host, REDISURL_HOST) < REDISURL_HOST);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const struct redis_reply_bounds bounds = {.max_bulk = 65536, .max_array = 65536, .max_depth = 7};
    struct slotmap_info info;
    const char *why = NULL;
    if (n == 0)
        return 0;
    struct view rest = view_of(data + 1, n - 1);
    if (data[0] == 'i') {
        must(!slotmap_info_read(&info, rest) || rest.n > 0);
    } else if (data[0] == 'e') {
        judge(rest);
    } else {
        struct redis_reply_reader *reader = redis_reply_reader_new(&bounds);
        must(reader != NULL);
        must(redis_reply_reader_feed(reader, rest, look, NULL, &why) || why != NULL);
        redis_reply_reader_free(reader);
    }
    return 0;
}
