#include "broker/outbox.h"

#include <stdlib.h>

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

static struct outbox_item *
append(struct outbox *o, size_t n, uint64_t token)
{
    struct outbox_item *i = n <= UINT32_MAX ? malloc(sizeof *i + n) : NULL;
    if (i == NULL)
        return NULL;
    *i = (struct outbox_item){.token = token, .n = (uint32_t)n};
    if (o->last != NULL)
        o->last->next = i;
    else
        o->first = i;
    o->last = i;
    o->bytes += memory_of(n);
    o->count++;
    return i;
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
outbox_put(struct outbox *o, struct view verb, struct view prefix, struct view name, struct view head, struct view body,
    uint64_t token)
{
    struct redis_request r;
    struct outbox_item *i = append(o, redis_command_publish_size(verb, prefix.n + name.n, head.n + body.n), token);
    if (i == NULL)
        return false;
    redis_command_publish_put(i->bytes, verb, prefix, name, head, body, &r);
    set_parts(i, &r);
    return true;
}

bool
outbox_put_request(struct outbox *o, const struct redis_request *r)
{
    struct outbox_item *i = append(o, r->bytes.n, r->token);
    if (i == NULL)
        return false;
    memcpy(i->bytes, r->bytes.p, r->bytes.n);
    set_parts(i, r);
    return true;
}

void
outbox_put_front(struct outbox *o, struct outbox *more)
{
    if (more->first == NULL)
        return;
    more->last->next = o->first;
    o->first = more->first;
    if (o->last == NULL)
        o->last = more->last;
    o->bytes += more->bytes;
    o->count += more->count;
    o->trimmed = NULL;
    *more = (struct outbox){0};
}

/* What `at` points to becomes a note, in memory of its own: cut short where it stands it would leave a hole, too small
 * for the next message, and memory would grow by what is dropped. Without memory it is cut all the same. */
static struct outbox_item *
make_note(struct outbox *o, struct outbox_item **at)
{
    struct outbox_item *i = *at, *note = malloc(sizeof *note + i->topic_n);
    o->bytes -= memory_of(i->n);
    if (note == NULL)
        note = i;
    memmove(note->bytes, i->bytes + i->topic_at, i->topic_n);
    *note = (struct outbox_item){.next = i->next, .token = i->token, .dropped = true, .n = i->topic_n, .topic_n = i->topic_n};
    if (o->last == i)
        o->last = note;
    *at = note;
    if (note != i)
        free(i);
    o->bytes += memory_of(note->n);
    return note;
}

uint32_t
outbox_trim(struct outbox *o, size_t bound)
{
    uint32_t n = 0;
    while (o->bytes > bound) {
        struct outbox_item **at = o->trimmed != NULL ? &o->trimmed->next : &o->first;
        if (*at == NULL)
            break;
        if (!(*at)->dropped) {
            o->trimmed = make_note(o, at);
            n++;
        } else {
            o->trimmed = *at;
        }
    }
    return n;
}

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
outbox_pop(struct outbox *o)
{
    struct outbox_item *i = o->first;
    if (o->trimmed == i)
        o->trimmed = NULL;
    o->first = i->next;
    if (o->first == NULL)
        o->last = NULL;
    o->bytes -= memory_of(i->n);
    o->count--;
    free(i);
}

void
outbox_free(struct outbox *o)
{
    while (o->first != NULL)
        outbox_pop(o);
}
