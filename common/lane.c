#include "common/lane.h"

#include <stdatomic.h>

#include "common/bug.h"

static inline size_t
record_size(uint32_t n)
{
    return align_up(sizeof(struct lane_record) + n, 8);
}

void
lane_init(struct lane *l, void *mem, uint32_t bytes, bool producer)
{
    BUG_ON(!is_pow2(bytes) || ((uintptr_t)mem & (LANE_LINE - 1)) != 0);
    *l = (struct lane){.s = mem, .bytes = bytes, .producer = producer};
}

/* -- producer -- */

/* What the consumer has taken. It may lie: an index that cannot be is taken for none at all, which only
 * makes the lane look full. */
static void
see_head(struct lane *l)
{
    uint64_t head = atomic_load_explicit(&l->s->head, memory_order_acquire);
    if (head >= l->theirs && head <= l->mine)
        l->theirs = head;
}

/* Bytes a record needs at the present place, filler included. */
static size_t
need_at(const struct lane *l, uint32_t n)
{
    size_t size = record_size(n), to_end = l->bytes - (l->mine & (l->bytes - 1));
    return size <= to_end ? size : to_end + size;
}

bool
lane_has_room(struct lane *l, uint32_t n)
{
    if (n > lane_max_payload(l->bytes))
        return false;
    size_t need = need_at(l, n);
    if (l->mine + need - l->theirs <= l->bytes)
        return true;
    see_head(l);
    return l->mine + need - l->theirs <= l->bytes;
}

static void
put_header(struct lane *l, struct lane_record r)
{
    memcpy(l->s->data + (l->mine & (l->bytes - 1)), &r, sizeof r);
}

uint8_t *
lane_put(struct lane *l, uint8_t type, uint8_t flags, uint16_t aux, uint32_t n)
{
    if (!lane_has_room(l, n))
        return NULL;
    size_t size = record_size(n), to_end = l->bytes - (l->mine & (l->bytes - 1));
    if (size > to_end) {
        put_header(l, (struct lane_record){.n = (uint32_t)(to_end - sizeof(struct lane_record))});
        l->mine += to_end;
    }
    put_header(l, (struct lane_record){.n = n, .type = type, .flags = flags, .aux = aux});
    uint8_t *payload = l->s->data + (l->mine & (l->bytes - 1)) + sizeof(struct lane_record);
    l->mine += size;
    return payload;
}

bool
lane_publish(struct lane *l)
{
    if (l->published == l->mine)
        return false;
    l->published = l->mine;
    atomic_store_explicit(&l->s->tail, l->mine, memory_order_release);
    atomic_thread_fence(memory_order_seq_cst);
    return atomic_load_explicit(&l->s->asleep, memory_order_relaxed) != 0 &&
        atomic_exchange_explicit(&l->s->asleep, 0, memory_order_relaxed) != 0;
}

bool
lane_want_room(struct lane *l, uint32_t n)
{
    atomic_store_explicit(&l->s->wants_room, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
    return !lane_has_room(l, n);
}

uint64_t
lane_used(struct lane *l)
{
    if (l->producer)
        see_head(l);
    return l->mine - l->theirs;
}

/* -- consumer -- */

enum lane_rc
lane_peek(struct lane *l, struct lane_record *r, const uint8_t **payload)
{
    for (;;) {
        if (l->mine == l->theirs) {
            uint64_t tail = atomic_load_explicit(&l->s->tail, memory_order_acquire);
            if (tail == l->mine)
                return LANE_EMPTY;
            if (tail < l->mine || tail - l->mine > l->bytes || tail % 8 != 0)
                return LANE_CORRUPT;
            l->theirs = tail;
        }
        size_t at = l->mine & (l->bytes - 1), there = (size_t)(l->theirs - l->mine);
        memcpy(r, l->s->data + at, sizeof *r);
        if (r->n > l->bytes || record_size(r->n) > there || record_size(r->n) > l->bytes - at)
            return LANE_CORRUPT;
        if (r->type != 0) {
            *payload = l->s->data + at + sizeof *r;
            return LANE_RECORD;
        }
        l->mine += record_size(r->n);
    }
}

void
lane_take(struct lane *l, const struct lane_record *r)
{
    l->mine += record_size(r->n);
}

bool
lane_release(struct lane *l)
{
    if (l->published == l->mine)
        return false;
    l->published = l->mine;
    atomic_store_explicit(&l->s->head, l->mine, memory_order_release);
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&l->s->wants_room, memory_order_relaxed) == 0)
        return false;
    atomic_store_explicit(&l->s->wants_room, 0, memory_order_relaxed);
    return true;
}

bool
lane_sleep(struct lane *l)
{
    atomic_store_explicit(&l->s->asleep, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
    if (l->mine == l->theirs && atomic_load_explicit(&l->s->tail, memory_order_acquire) == l->mine)
        return true;
    lane_awake(l);
    return false;
}

void
lane_awake(struct lane *l)
{
    atomic_store_explicit(&l->s->asleep, 0, memory_order_relaxed);
}
