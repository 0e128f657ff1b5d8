#include "common/wheel.h"

void
wheel_init(struct wheel *w, struct mono now)
{
    memset(w->used, 0, sizeof w->used);
    for (size_t i = 0; i < WHEEL_SLOTS; i++)
        w->slots[i].next = w->slots[i].prev = &w->slots[i];
    w->now = wheel_tick(now);
}

void
wheel_drop(struct timer *t)
{
    if (t->next == NULL)
        return;
    t->prev->next = t->next;
    t->next->prev = t->prev;
    t->next = t->prev = NULL;
}

void
wheel_set(struct wheel *w, struct timer *t, uint32_t deadline)
{
    wheel_drop(t);
    if ((int32_t)(deadline - w->now) <= 0)
        deadline = w->now + 1;
    t->deadline = deadline;
    uint32_t i = deadline % WHEEL_SLOTS;
    struct timer *head = &w->slots[i];
    t->prev = head->prev;
    t->next = head;
    head->prev->next = t;
    head->prev = t;
    w->used[i / 64] |= 1ull << (i % 64);
}

/* Timers of later rounds stay, so the slot is walked once; the mark goes when it is found empty. */
static unsigned
wheel_visit(struct wheel *w, uint32_t tick, unsigned budget, void (*fn)(void *, struct timer *), void *arg)
{
    uint32_t i = tick % WHEEL_SLOTS;
    struct timer *head = &w->slots[i], due = {.next = &due, .prev = &due};
    unsigned n = 0;
    for (struct timer *t = head->next, *next; t != head; t = next) {
        next = t->next;
        if ((int32_t)(t->deadline - tick) > 0)
            continue;
        if (n == budget)
            return n + 1;
        wheel_drop(t);
        n++;
        fn(arg, t);
        /* fn may have dropped `next`; begin again then. */
        if (next->next == NULL)
            next = head->next;
    }
    if (head->next == head)
        w->used[i / 64] &= ~(1ull << (i % 64));
    return n;
}

unsigned
wheel_expire(struct wheel *w, struct mono now, unsigned budget, void (*fn)(void *, struct timer *), void *arg)
{
    uint32_t to = wheel_tick(now);
    unsigned n = 0;
    /* After a long stop one round visits every slot once; ticks further back hold nothing more. */
    if ((int32_t)(to - w->now) > WHEEL_SLOTS)
        w->now = to - WHEEL_SLOTS;
    while ((int32_t)(to - w->now) > 0) {
        uint32_t tick = w->now + 1;
        if (w->used[tick % WHEEL_SLOTS / 64] & 1ull << (tick % 64)) {
            unsigned did = wheel_visit(w, tick, budget - n, fn, arg);
            if (did > budget - n)
                return budget;
            n += did;
        }
        w->now = tick;
    }
    return n;
}

uint32_t
wheel_idle_ms(const struct wheel *w, struct mono now, uint32_t most)
{
    uint32_t limit = MIN(most / WHEEL_TICK_MS + 1, (uint32_t)WHEEL_SLOTS);
    for (uint32_t d = 1; d <= limit;) {
        uint32_t i = (w->now + d) % WHEEL_SLOTS;
        uint64_t word = w->used[i / 64] >> (i % 64);
        if (word == 0) {
            d += 64 - i % 64;
            continue;
        }
        d += (uint32_t)__builtin_ctzll(word);
        if (d > limit)
            break;
        int32_t ticks = (int32_t)(w->now + d - wheel_tick(now));
        if (ticks <= 0)
            return 0;
        uint32_t ms = (uint32_t)ticks * WHEEL_TICK_MS - (uint32_t)(mono_ms(now) % WHEEL_TICK_MS);
        return MIN(ms, most);
    }
    return most;
}
