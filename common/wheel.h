/* Timer wheel: one level, entries embedded in their owners, O(1) to set and to drop. A slot is a tick
 * of 16 ms; deadlines beyond one round wait in their slot until their round comes. */
#ifndef COMMON_WHEEL_H
#define COMMON_WHEEL_H

#include "common/base.h"
#include "common/mono.h"

#define WHEEL_TICK_MS 16
#define WHEEL_SLOTS 4096

/* Not armed: next == NULL. */
struct timer {
    struct timer *next, *prev;
    uint32_t deadline; /* tick; compared modulo 2^32, so within 2 years of now */
};

struct wheel {
    struct timer slots[WHEEL_SLOTS];      /* list heads */
    uint64_t used[WHEEL_SLOTS / 64];      /* slots that are not empty, perhaps */
    uint32_t now;                         /* every tick up to here has been visited */
};

void wheel_init(struct wheel *w, struct mono now);

static inline uint32_t
wheel_tick(struct mono t)
{
    return (uint32_t)(mono_ms(t) / WHEEL_TICK_MS);
}

static inline bool
timer_is_set(const struct timer *t)
{
    return t->next != NULL;
}

/* Ticks that cover ms, at least one. */
static inline uint32_t
wheel_ticks(uint64_t ms)
{
    return (uint32_t)MIN(ms / WHEEL_TICK_MS + 1, (uint64_t)0x3fffffff);
}

/* Arms (or moves) the timer; a deadline that has passed comes up with the next tick. */
void wheel_set(struct wheel *w, struct timer *t, uint32_t deadline);
void wheel_drop(struct timer *t);
/* Calls fn for up to `budget` timers that are due (each is disarmed first; fn may set it again).
 * Returns how many; budget reached means there may be more now. */
unsigned wheel_expire(struct wheel *w, struct mono now, unsigned budget,
    void (*fn)(void *arg, struct timer *t), void *arg);
/* Milliseconds until a slot that holds something comes up; at most `most`. */
uint32_t wheel_idle_ms(const struct wheel *w, struct mono now, uint32_t most);

#endif
