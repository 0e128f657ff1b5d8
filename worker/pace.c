#include "worker/pace.h"

#define MEMORY_NS 50000000u /* what the load is an average of, about */

void
pace_look(struct pace *p, uint64_t now_ns, uint64_t cpu_ns)
{
    uint64_t wall = now_ns - p->seen_ns, ran = cpu_ns - p->seen_cpu_ns;
    if (p->seen_ns != 0 && wall > 0) {
        uint64_t busy = MIN(ran * 1000 / wall, (uint64_t)1000), weight = MIN(wall, (uint64_t)MEMORY_NS);
        p->load = (uint32_t)((p->load * (MEMORY_NS - weight) + busy * weight) / MEMORY_NS);
    }
    p->seen_ns = now_ns;
    p->seen_cpu_ns = cpu_ns;
    uint64_t above = MIN(MAX(p->load, (uint32_t)PACE_QUIET), (uint32_t)PACE_BUSY) - PACE_QUIET;
    p->ns = p->most_ns * above / (PACE_BUSY - PACE_QUIET);
}
