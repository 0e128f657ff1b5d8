#include "broker/outbox.h"

#include <stdlib.h>

#include "broker/bus.h"

#include "common/banned.h"

#define HEAP_BYTES 16 /* what the heap takes for itself */

static size_t
memory_of(size_t n)
{
    return sizeof(struct outbox_item) + n + HEAP_BYTES;
}

size_t
outbox_cost(struct view verb, size_t topic_n, size_t payload_n)
{
    return memory_of(redis_command_publish_size(verb, topic_n, payload_n));
}

/* -- two orders: a lane's, and the age of all -- */

/* Behind `prev`; NULL: first. */
static void
lane_in(struct outbox_lane *lane, struct outbox_item *prev, struct outbox_item *i)
{
    i->lane = lane;
    i->prev = prev;
    i->next = prev != NULL ? prev->next : lane->first;
    *(i->prev != NULL ? &i->prev->next : &lane->first) = i;
    *(i->next != NULL ? &i->next->prev : &lane->last) = i;
}

static void
lane_out(struct outbox_item *i)
{
    *(i->prev != NULL ? &i->prev->next : &i->lane->first) = i->next;
    *(i->next != NULL ? &i->next->prev : &i->lane->last) = i->prev;
}

/* The next newer one of `older`; NULL: the oldest of all. */
static void
age_in(struct outbox *o, struct outbox_item *older, struct outbox_item *i)
{
    i->older = older;
    i->newer = older != NULL ? older->newer : o->oldest;
    *(i->older != NULL ? &i->older->newer : &o->oldest) = i;
    *(i->newer != NULL ? &i->newer->older : &o->newest) = i;
}

static void
age_out(struct outbox *o, struct outbox_item *i)
{
    *(i->older != NULL ? &i->older->newer : &o->oldest) = i->newer;
    *(i->newer != NULL ? &i->newer->older : &o->newest) = i->older;
}

/* -- items -- */

/* In no order yet. */
static struct outbox_item *
item_new(struct outbox *o, size_t n, uint64_t token)
{
    struct outbox_item *i = n <= UINT32_MAX ? malloc(sizeof *i + n) : NULL;
    if (i == NULL)
        return NULL;
    *i = (struct outbox_item){.token = token, .n = (uint32_t)n};
    o->bytes += memory_of(n);
    o->count++;
    return i;
}

static void
item_free(struct outbox *o, struct outbox_item *i)
{
    o->bytes -= memory_of(i->n);
    o->count--;
    free(i);
}

static void
set_parts(struct outbox_item *i, const struct redis_request *r)
{
    if (r->topic.p == NULL)
        return;
    i->topic_at = (uint32_t)(r->topic.p - r->bytes.p);
    i->topic_n = (uint32_t)r->topic.n;
    i->payload_at = (uint32_t)(r->payload.p - r->bytes.p);
    i->payload_n = (uint32_t)r->payload.n;
}

bool
outbox_put(struct outbox *o, struct outbox_lane *lane, struct view verb, struct view prefix, struct view name,
    struct view head, struct view body, uint64_t token)
{
    struct redis_request r;
    struct outbox_item *i = item_new(o, redis_command_publish_size(verb, prefix.n + name.n, head.n + body.n), token);
    if (i == NULL)
        return false;
    redis_command_publish_put(i->bytes, verb, prefix, name, head, body, &r);
    set_parts(i, &r);
    lane_in(lane, lane->last, i);
    age_in(o, o->newest, i);
    return true;
}

struct outbox_item *
outbox_put_back(struct outbox *o, struct outbox_lane *lane, const struct redis_request *r)
{
    struct outbox_item *i = item_new(o, r->bytes.n, r->token);
    if (i == NULL)
        return NULL;
    memcpy(i->bytes, r->bytes.p, r->bytes.n);
    set_parts(i, r);
    /* What came back before it and is a note by now was older than all that are none. */
    age_in(o, lane->back != NULL && !lane->back->is_note ? lane->back : NULL, i);
    lane_in(lane, lane->back, i);
    lane->back = i;
    return i;
}

void
outbox_mark(struct outbox_item *i)
{
    if (i->payload_n > BUS_AGAIN_AT)
        i->bytes[i->payload_at + BUS_AGAIN_AT] |= BUS_AGAIN;
}

void
outbox_mark_next(const struct outbox_lane *lane)
{
    struct outbox_item *i = lane->back != NULL ? lane->back->next : lane->first;
    if (i != NULL && !i->is_note)
        outbox_mark(i);
}

/* -- notes -- */

/* Whether the one before it in its lane is a note that can speak for it, too. */
static bool
merges(const struct outbox_item *before, const struct outbox_item *i)
{
    return before != NULL && before->is_note && before->dropped < UINT32_MAX && before->token == i->token &&
        view_eq(outbox_topic(before), outbox_topic(i));
}

/* In memory of its own: a publish cut short where it stands would leave a hole, too small for the next message, and memory
 * would grow by what is dropped. Without memory it is cut all the same. */
static struct outbox_item *
note_of(struct outbox *o, struct outbox_item *i)
{
    struct outbox_item *note = malloc(sizeof *note + i->topic_n), was = *i;
    bool is_new = note != NULL;
    note = is_new ? note : i;
    *note = (struct outbox_item){.token = was.token, .is_note = true, .dropped = 1, .n = was.topic_n, .topic_n = was.topic_n};
    memmove(note->bytes, i->bytes + was.topic_at, was.topic_n);
    o->bytes += memory_of(note->n);
    o->bytes -= memory_of(was.n);
    if (is_new)
        free(i);
    return note;
}

void
outbox_drop(struct outbox *o)
{
    struct outbox_item *i = o->oldest, *prev = i->prev, *note = prev;
    struct outbox_lane *lane = i->lane;
    bool was_back = lane->back == i;
    age_out(o, i);
    lane_out(i);
    if (merges(prev, i)) {
        prev->dropped++;
        item_free(o, i);
    } else {
        note = note_of(o, i);
        lane_in(lane, prev, note);
        o->notes++;
    }
    if (was_back)
        lane->back = note;
}

uint32_t
outbox_trim(struct outbox *o, size_t bound)
{
    uint32_t n = 0;
    for (; o->bytes > bound && o->oldest != NULL; n++)
        outbox_drop(o);
    return n;
}

/* -- taking out -- */

struct redis_request
outbox_request(const struct outbox_item *i)
{
    bool parts = i->topic_n > 0;
    return (struct redis_request){.token = i->token, .bytes = view_of(i->bytes, i->n),
        .topic = parts ? view_of(i->bytes + i->topic_at, i->topic_n) : VIEW_NONE,
        .payload = parts ? view_of(i->bytes + i->payload_at, i->payload_n) : VIEW_NONE};
}

struct view
outbox_topic(const struct outbox_item *i)
{
    return view_of(i->bytes + i->topic_at, i->topic_n);
}

void
outbox_pop(struct outbox *o, struct outbox_lane *lane)
{
    struct outbox_item *i = lane->first;
    if (lane->back == i)
        lane->back = NULL;
    lane_out(i);
    if (i->is_note)
        o->notes--;
    else
        age_out(o, i);
    item_free(o, i);
}

void
outbox_empty(struct outbox *o, struct outbox_lane *lane)
{
    while (lane->first != NULL)
        outbox_pop(o, lane);
}
