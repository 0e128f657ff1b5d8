#include "proto/ipc.h"

#include <xxhash.h>

#include "common/lane.h"

uint64_t
ipc_table_hash(void)
{
    static const char text[] =
#define IPC(name, number, direction, payload, sentence) #name " " #number " " #direction " " payload "\n"
#include "proto/tbl/ipc.def"
#undef IPC
        ;
    return XXH3_64bits(text, sizeof text);
}

static const struct {
    const char *name, *sentence;
} rows[] = {
#define IPC(name_, number_, direction_, payload_, sentence_) {#name_, sentence_},
#include "proto/tbl/ipc.def"
#undef IPC
};

const char *
ipc_row_str(enum ipc_row row)
{
    static __thread char lower[IPC_ROW_COUNT][16]; /* threads make their pages at the same time */
    char *out = lower[row];
    for (size_t i = 0; i + 1 < sizeof lower[0] && rows[row].name[i]; i++)
        out[i] = (char)(rows[row].name[i] | 0x20);
    return out;
}

const char *
ipc_row_sentence(enum ipc_row row)
{
    return rows[row].sentence;
}

size_t
ipc_segment_size(uint32_t lane_bytes)
{
    return sizeof(struct ipc_segment) + 2 * lane_size(lane_bytes);
}

void *
ipc_lane_out(struct ipc_segment *s)
{
    return s->lanes;
}

void *
ipc_lane_back(struct ipc_segment *s, uint32_t lane_bytes)
{
    return s->lanes + lane_size(lane_bytes);
}

unsigned
ipc_owner(struct view channel, unsigned count)
{
    if (count <= 1)
        return 0;
    uint64_t name = XXH3_64bits(channel.p, channel.n), best = 0;
    unsigned owner = 0;
    for (unsigned i = 0; i < count; i++) {
        /* A broker's score: the name's hash and its number, mixed as splitmix64 does. */
        uint64_t z = name + (i + 1) * 0x9e3779b97f4a7c15ull;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ z >> 27) * 0x94d049bb133111ebull;
        z ^= z >> 31;
        if (z >= best) {
            best = z;
            owner = i;
        }
    }
    return owner;
}
