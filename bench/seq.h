/* What one subscriber saw of a numbered stream that starts at 0: tells lost, doubled and reordered
 * messages apart. Remembers the last 64 numbers. */
#ifndef BENCH_SEQ_H
#define BENCH_SEQ_H

#include "common/base.h"

enum seq_verdict {
    SEQ_NEXT,  /* the one expected */
    SEQ_GAP,   /* above the one expected: those between are missing so far */
    SEQ_LATE,  /* one that was missing: order was not kept */
    SEQ_TWICE, /* had it already */
    SEQ_STALE, /* more than 64 behind: reordered or doubled, cannot say which */
};

struct seqwin {
    uint64_t next; /* highest number seen + 1 */
    uint64_t seen; /* bit i: number next - 1 - i arrived */
    uint64_t got;  /* different numbers that arrived (stale ones not counted) */
};

static inline enum seq_verdict
seq_put(struct seqwin *w, uint64_t seq)
{
    if (LIKELY(seq == w->next)) {
        w->seen = w->seen << 1 | 1;
        w->next++;
        w->got++;
        return SEQ_NEXT;
    }
    if (seq > w->next) {
        uint64_t step = seq - w->next + 1;
        w->seen = (step >= 64 ? 0 : w->seen << step) | 1;
        w->next = seq + 1;
        w->got++;
        return SEQ_GAP;
    }
    uint64_t back = w->next - 1 - seq;
    if (back >= 64)
        return SEQ_STALE;
    if (w->seen >> back & 1)
        return SEQ_TWICE;
    w->seen |= 1ull << back;
    w->got++;
    return SEQ_LATE;
}

#endif
