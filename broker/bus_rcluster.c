/* Redis Cluster with sharded pub/sub (Redis 7): a topic lives in the slot of its name, and SPUBLISH and SSUBSCRIBE go to the
 * primary that owns the slot; other nodes do not work for it. broker/rnodes knows the nodes and who owns what.
 *
 * Publishing. Of a slot's messages all that are under way are under way at one node. When that node sends them away (-MOVED), is
 * lost, or the map says that the slot is elsewhere, the slot is *held*: what comes back stands in its queue in the order in
 * which it left, what is new behind it, and once nothing is under way any more the queue goes to the new owner. So order per
 * topic holds through any number of moves.
 *
 * Subscribing. A slot's topics are all at one node. A server that loses a slot says SUNSUBSCRIBE for each topic by itself;
 * the same is done here when the map changes or the link is lost. Then they are asked for again at the new owner.
 *
 * A control topic is three channels in slots far apart, so that two nodes may be away and it is still heard. */
#include <stdlib.h>
#include <sys/random.h>

#include "broker/bus.h"
#include "broker/metrics.h"
#include "broker/outbox.h"
#include "broker/rcopies.h"
#include "broker/rnodes.h"
#include "broker/rtopic.h"
#include "common/log.h"

/* A slot that moved: what waits for it goes out that much later, so that the topics of other hosts are there first.
 * They hear of it when we do. */
#define MOVED_MS 20
/* The same when a link was lost: they notice and connect each for themselves. Our own topics are waited for, too. */
#define AWAY_MS 200
/* TRYAGAIN and its like; and a slot that was redirected REDIRECTS_MAX times without one success. */
#define LATER_MS 100
#define REDIRECTS_MAX 5
#define BATCH_NAMES 512
#define BATCH_BYTES 32768

struct rslot {
    struct rtopic *todo, *calm;         /* those to be asked for or left, the others */
    struct outbox_lane out;             /* not sent, in order; something is back only while the slot is held */
    struct mono not_before;             /* what waits goes out; publishes */
    struct mono sub_not_before;         /* the same of topics */
    uint32_t inflight;                  /* publishes at `pub_at` without a reply */
    uint16_t pub_at, sub_at;            /* nodes; RNODES_NONE */
    uint16_t ask_at;                    /* -ASK named it: what waits goes there, once */
    uint8_t redirects;                  /* since a publish succeeded */
    bool is_held;
    bool is_todo, is_queued;            /* in the bus's lists of such slots */
};

struct slots {
    uint16_t v[SLOTS];
    uint32_t n;
};

enum tell { TELL_LOST = 1, TELL_JOINED = 2, TELL_FREE = 4 };

struct rcluster {
    struct bus bus; /* first */
    struct redis_io *io;
    struct rnodes *nodes;
    struct rtopics topics;
    struct rtopic *tell_first, *tell_last;
    struct mono now;
    struct slots todo, queued;
    bool look_todo, look_queued;
    struct outbox out;                      /* what waits, of all slots */
    bool full;                              /* messages were dropped since the outbox was empty */
    uint32_t wanted, joined;                /* topics; those of the wanted that are confirmed */
    uint32_t missed;                        /* told as lost and not back */
    struct mono look_at;                    /* whatever the two flags say */
    bool look_state;
    struct rcopies copies;                  /* of publishes on control topics */
    struct buf name;                        /* the topic that is worked on */
    struct rslot slot[SLOTS];
};

static struct rcluster *
of(struct bus *bus)
{
    return container_of(bus, struct rcluster, bus);
}

#define ADD(r, row, n) metric_add((r)->bus.metrics, BM_##row, (n))

/* -- names -- */

/* None when memory is out. Lives until the next. */
static struct view
name_of(struct rcluster *r, struct bus_topic t, unsigned copy)
{
    return rcopies_name(&r->name, view_str(r->bus.conf->redis_prefix), t, copy);
}

static bool
topic_of(const struct rcluster *r, struct view name, struct bus_topic *out)
{
    return rcopies_topic(view_str(r->bus.conf->redis_prefix), name, out);
}

static void
slots_add(struct slots *s, uint16_t slot, bool *is_in)
{
    if (!*is_in)
        s->v[s->n++] = slot;
    *is_in = true;
}

/* -- telling -- */

/* Whether another copy of a control topic is confirmed. */
static bool
has_joined_copy(struct rcluster *r, struct bus_topic t, const struct rtopic *but)
{
    for (unsigned i = 0; i < RCOPIES; i++) {
        const struct rtopic *x = rtopic_find(&r->topics, name_of(r, t, i));
        if (x != NULL && x != but && x->is_joined)
            return true;
    }
    return false;
}

/* What is to be said of a topic, said now. It may be gone afterwards. */
static void
tell(struct rcluster *r, struct rtopic *t)
{
    uint8_t what = t->tell;
    struct bus_topic topic;
    t->tell = 0;
    if (what & TELL_FREE) {
        if (!t->in_line)
            rtopic_free(&r->topics, t);
        else
            t->tell = TELL_FREE;
        return;
    }
    if (what == 0 || !topic_of(r, rtopic_name(t), &topic))
        return;
    /* Lost and confirmed again before either was told: both, in this order. */
    if ((what & TELL_LOST) && t->is_joined) {
        t->is_joined = false;
        if (topic.kind == BUS_CHANNEL)
            r->bus.ears->on_lost(r->bus.arg, topic);
    }
    if (what & TELL_JOINED) {
        /* Of the copies of a control topic the first counts, and any that is back: asks may have gone by it alone. */
        bool counts = topic.kind == BUS_CHANNEL || t->was_joined || !has_joined_copy(r, topic, t);
        t->is_joined = t->was_joined = true;
        if (counts)
            r->bus.ears->on_joined(r->bus.arg, topic);
    }
}

static void
tell_later(struct rcluster *r, struct rtopic *t, enum tell what)
{
    t->tell |= (uint8_t)what;
    if (t->in_line)
        return;
    t->in_line = true;
    t->tell_next = NULL;
    if (r->tell_last != NULL)
        r->tell_last->tell_next = t;
    else
        r->tell_first = t;
    r->tell_last = t;
}

/* At the end of each callback: lists are not walked any more, and the ears may call back. */
static void
tell_all(struct rcluster *r)
{
    for (struct rtopic *t; (t = r->tell_first) != NULL;) {
        r->tell_first = t->tell_next;
        if (r->tell_first == NULL)
            r->tell_last = NULL;
        t->in_line = false;
        tell(r, t);
    }
}

/* -- topics -- */

static bool
is_missing(const struct rtopic *t)
{
    return t->wanted && t->state != RTOPIC_JOINED;
}

/* Into the list of its slot that it belongs to now. */
static void
topic_place(struct rcluster *r, struct rtopic *t)
{
    struct rslot *s = &r->slot[t->slot];
    bool todo = (t->state == RTOPIC_IDLE && t->wanted) || (t->state == RTOPIC_JOINED && !t->wanted);
    if (todo != t->is_todo) {
        rtopic_unlink(t->is_todo ? &s->todo : &s->calm, t);
        rtopic_link(todo ? &s->todo : &s->calm, t);
        t->is_todo = todo;
    }
    if (todo) {
        slots_add(&r->todo, t->slot, &s->is_todo);
        r->look_todo = true;
    }
}

static void
topic_set(struct rcluster *r, struct rtopic *t, enum rtopic_state state, bool wanted)
{
    r->wanted += (uint32_t)wanted - (uint32_t)t->wanted;
    r->joined -= t->wanted && t->state == RTOPIC_JOINED;
    r->joined += wanted && state == RTOPIC_JOINED;
    t->state = (uint8_t)state;
    t->wanted = wanted;
    if (t->is_missed && !is_missing(t)) {
        t->is_missed = false;
        r->missed--;
        r->look_state = true;
    }
    topic_place(r, t);
}

/* Neither wanted nor anywhere. */
static void
topic_end(struct rcluster *r, struct rtopic *t)
{
    topic_set(r, t, RTOPIC_IDLE, false);
    rtopic_unlink(&r->slot[t->slot].calm, t);
    if (t->in_line)
        t->tell = TELL_FREE;
    else
        rtopic_free(&r->topics, t);
}

/* Its server does not have it any more. */
static void
topic_gone(struct rcluster *r, struct rtopic *t)
{
    if (!t->wanted) {
        topic_end(r, t);
        return;
    }
    if (t->state == RTOPIC_JOINED) {
        tell_later(r, t, TELL_LOST);
        t->tell = TELL_LOST; /* a confirmation that was not told yet is void */
        if (!t->is_missed) {
            t->is_missed = true;
            r->missed++;
            r->look_state = true;
        }
    }
    topic_set(r, t, RTOPIC_IDLE, true);
}

/* All of a slot: its link is lost, or it is served elsewhere. */
static void
slot_gone(struct rcluster *r, struct rslot *s)
{
    s->sub_at = RNODES_NONE;
    for (struct rtopic *t = s->todo, *next; t != NULL; t = next) {
        next = t->next;
        topic_gone(r, t);
    }
    for (struct rtopic *t = s->calm, *next; t != NULL; t = next) {
        next = t->next;
        topic_gone(r, t);
    }
}

static struct rtopic *
topic_get(struct rcluster *r, struct view name)
{
    struct rtopic *t = name.n > 0 ? rtopic_find(&r->topics, name) : NULL;
    if (t != NULL && t->tell != TELL_FREE)
        return t;
    if (t == NULL)
        t = name.n > 0 ? rtopic_add(&r->topics, name, slot_of(name)) : NULL;
    if (t == NULL)
        return NULL;
    t->tell = 0;
    rtopic_link(&r->slot[t->slot].calm, t);
    return t;
}

static void
rcluster_leave(struct bus *bus, struct bus_topic topic)
{
    struct rcluster *r = of(bus);
    for (unsigned i = 0; i < rcopies_of(topic); i++) {
        struct rtopic *t = rtopic_find(&r->topics, name_of(r, topic, i));
        if (t == NULL || !t->wanted)
            continue;
        t->tell = 0;
        t->is_joined = t->was_joined = false;
        if (t->state == RTOPIC_IDLE)
            topic_end(r, t);
        else
            topic_set(r, t, t->state, false);
    }
}

static bool
rcluster_join(struct bus *bus, struct bus_topic topic)
{
    struct rcluster *r = of(bus);
    for (unsigned i = 0; i < rcopies_of(topic); i++) {
        struct rtopic *t = topic_get(r, name_of(r, topic, i));
        if (t == NULL) {
            rcluster_leave(bus, topic);
            return false;
        }
        if (t->wanted)
            continue;
        topic_set(r, t, t->state, true);
        if (t->state == RTOPIC_JOINED)
            tell_later(r, t, TELL_JOINED);
    }
    return true;
}

/* Names of the slot in one command, as many as fit. False when there is nothing to be said, or no room. */
static bool
say_some(struct rcluster *r, uint16_t slot, struct redis_link *link, bool leaves)
{
    struct view names[BATCH_NAMES];
    struct rtopic *topics[BATCH_NAMES];
    uint32_t n = 0;
    size_t bytes = 0;
    for (struct rtopic *t = r->slot[slot].todo; t != NULL && n < BATCH_NAMES && bytes < BATCH_BYTES; t = t->next)
        if ((t->state == RTOPIC_JOINED) == leaves) {
            topics[n] = t;
            names[n++] = rtopic_name(t);
            bytes += t->n;
        }
    if (n == 0 || !redis_link_subscribe(link, leaves ? VIEW("SUNSUBSCRIBE") : VIEW("SSUBSCRIBE"), names, n,
            (uint64_t)slot << 1 | leaves))
        return false;
    for (uint32_t i = 0; i < n; i++)
        topic_set(r, topics[i], leaves ? RTOPIC_LEAVING : RTOPIC_ASKED, topics[i]->wanted);
    return true;
}

static void
slot_say(struct rcluster *r, uint16_t slot)
{
    struct rslot *s = &r->slot[slot];
    const struct rnode *n = rnodes_owner(r->nodes, slot);
    if (n == NULL || n->sub == NULL || !redis_link_is_up(n->sub) || !mono_reached(r->now, s->sub_not_before))
        return;
    s->sub_at = n->index;
    while (say_some(r, slot, n->sub, true))
        ;
    while (say_some(r, slot, n->sub, false))
        ;
}

static void
say_all(struct rcluster *r)
{
    uint32_t left = 0;
    r->look_todo = false;
    for (uint32_t i = 0; i < r->todo.n; i++) {
        uint16_t slot = r->todo.v[i];
        slot_say(r, slot);
        r->slot[slot].is_todo = r->slot[slot].todo != NULL;
        if (r->slot[slot].is_todo)
            r->todo.v[left++] = slot;
    }
    r->todo.n = left;
    r->look_todo = false;
}

/* -- what waits -- */

static void
tell_fate(struct rcluster *r, struct view name, uint64_t token, enum bus_fate fate)
{
    struct bus_topic topic;
    if (!topic_of(r, name, &topic))
        return;
    if (topic.kind == BUS_CHANNEL) {
        r->bus.ears->on_fate(r->bus.arg, topic, token, fate);
        return;
    }
    if (rcopies_fate(&r->copies, (uint32_t)token, fate, &token))
        r->bus.ears->on_fate(r->bus.arg, topic, token, fate);
}

/* Something waits in the slot. */
static void
queued(struct rcluster *r, uint16_t slot)
{
    slots_add(&r->queued, slot, &r->slot[slot].is_queued);
    r->look_queued = true;
}

static void
count_dropped(struct rcluster *r, uint32_t dropped)
{
    ADD(r, redis_dropped_total, dropped);
    if (dropped > 0 && !r->full)
        log_warn("redis-dropped", "why=\"redis.out_queue is full: the oldest messages are dropped\"");
    r->full |= dropped > 0;
}

/* What was dropped is told of when nothing that was said before it waits or is under way: it is first in its slot, and either
 * nothing of the slot is under way, or it came back, and what is under way was said later. More of it may be dropped meanwhile. */
static void
slot_tell_dropped(struct rcluster *r, struct rslot *s)
{
    for (struct outbox_item *i; (i = s->out.first) != NULL && i->is_note && (s->inflight == 0 || s->out.back != NULL);) {
        while (i->dropped > 0) {
            i->dropped--;
            tell_fate(r, outbox_topic(i), i->token, BUS_DROPPED);
        }
        outbox_pop(&r->out, &s->out);
    }
    if (s->out.first == NULL)
        s->ask_at = RNODES_NONE; /* it was named for what waited */
}

/* The oldest go. Of what may be told of no note is left, which would take room from others. The ears may publish. */
static void
keep_bound(struct rcluster *r)
{
    while (r->out.bytes > r->bus.conf->redis_out_queue && r->out.oldest != NULL) {
        struct rslot *s = container_of(r->out.oldest->lane, struct rslot, out);
        outbox_drop(&r->out);
        count_dropped(r, 1);
        slot_tell_dropped(r, s);
    }
}

/* Notes take memory, too: when they alone reach the bound, nodes that answer nothing in time are not worth waiting for.
 * While the ears publish the list grows at its end, and no slot is in it twice. */
static void
tell_dropped(struct rcluster *r)
{
    for (uint32_t i = 0; i < r->queued.n && r->out.notes > 0; i++)
        slot_tell_dropped(r, &r->slot[r->queued.v[i]]);
    keep_bound(r);
    for (uint32_t i = 0; i < r->queued.n && r->out.bytes > r->bus.conf->redis_out_queue; i++) {
        const struct rslot *s = &r->slot[r->queued.v[i]];
        const struct rnode *n = s->out.first != NULL && s->inflight > 0 ? rnodes_at(r->nodes, s->pub_at) : NULL;
        if (n != NULL && n->pub != NULL && redis_link_is_up(n->pub))
            redis_link_end(n->pub, "it does not keep up, and redis.out_queue is full");
    }
    r->full &= r->out.count > 0;
}

/* -- publishing -- */

static bool
slot_is_open(const struct rcluster *r, const struct rslot *s, const struct rnode *n)
{
    return n != NULL && n->pub != NULL && !s->is_held && redis_link_is_up(n->pub) && mono_reached(r->now, s->not_before);
}

/* False: it would have to wait. */
static bool
send_now(struct rcluster *r, uint16_t slot, struct view name, struct view head, struct view body, uint64_t token)
{
    struct rslot *s = &r->slot[slot];
    const struct rnode *n = rnodes_owner(r->nodes, slot);
    if (s->out.first != NULL || !slot_is_open(r, s, n) ||
        !redis_link_publish(n->pub, VIEW("SPUBLISH"), VIEW_NONE, name, head, body, token))
        return false;
    s->inflight++;
    s->pub_at = n->index;
    return true;
}

static bool
send_or_queue(struct rcluster *r, struct view name, struct view head, struct view body, uint64_t token)
{
    uint16_t slot = slot_of(name);
    if (send_now(r, slot, name, head, body, token))
        return true;
    if (!outbox_put(&r->out, &r->slot[slot].out, VIEW("SPUBLISH"), VIEW_NONE, name, head, body, token))
        return false;
    queued(r, slot);
    count_dropped(r, outbox_trim(&r->out, r->bus.conf->redis_out_queue)); /* told of by the turn */
    return true;
}

static bool
publish_control(struct rcluster *r, struct bus_topic topic, struct view head, struct view body, uint64_t token)
{
    uint32_t at = rcopies_begin(&r->copies, token), sent = 0;
    if (at == RCOPIES_NONE)
        return false;
    for (unsigned i = 0; i < RCOPIES; i++) {
        struct view name = name_of(r, topic, i);
        sent += name.n > 0 && send_now(r, slot_of(name), name, head, body, at);
    }
    if (sent == 0) {
        struct view name = name_of(r, topic, 0);
        sent = name.n > 0 && send_or_queue(r, name, head, body, at);
    }
    rcopies_sent(&r->copies, at, sent);
    return sent > 0;
}

static bool
rcluster_publish(struct bus *bus, struct bus_topic topic, struct view head, struct view body, uint64_t token)
{
    struct rcluster *r = of(bus);
    size_t n = head.n + body.n, topic_n = strlen(bus->conf->redis_prefix) + RCOPIES_MARKS + topic.name.n;
    if (n > bus->conf->redis_max_bulk || outbox_cost(VIEW("SPUBLISH"), topic_n, n) > bus->conf->redis_out_queue)
        return false;
    if (topic.kind == BUS_CONTROL)
        return publish_control(r, topic, head, body, token);
    struct view name = name_of(r, topic, 0);
    return name.n > 0 && send_or_queue(r, name, head, body, token);
}

static bool
rcluster_is_up(const struct bus *bus, struct bus_topic topic)
{
    struct rcluster *r = container_of((struct bus *)(uintptr_t)bus, struct rcluster, bus);
    for (unsigned i = 0; i < rcopies_of(topic); i++) {
        struct view name = name_of(r, topic, i);
        uint16_t slot = slot_of(name);
        const struct rslot *s = &r->slot[slot];
        if (name.n > 0 && s->out.first == NULL && slot_is_open(r, s, rnodes_owner(r->nodes, slot)))
            return true;
    }
    return false;
}

/* False: no room. */
static bool
send_first(struct rcluster *r, struct rslot *s, struct rnode *n, bool asking)
{
    const struct redis_request q = outbox_request(s->out.first);
    if (asking && !redis_link_command(n->pub, VIEW("ASKING"), NULL, 0, 0))
        return false;
    if (!redis_link_again(n->pub, &q))
        return false;
    s->inflight++;
    s->pub_at = n->index;
    outbox_pop(&r->out, &s->out);
    return true;
}

static void
slot_send(struct rcluster *r, uint16_t slot)
{
    struct rslot *s = &r->slot[slot];
    bool asking = s->ask_at != RNODES_NONE;
    struct rnode *n = asking ? rnodes_at(r->nodes, s->ask_at) : rnodes_owner(r->nodes, slot);
    if (!slot_is_open(r, s, n))
        return;
    while (s->out.first != NULL && !s->out.first->is_note && send_first(r, s, n, asking))
        ;
    if (asking && s->out.first == NULL) {
        s->ask_at = RNODES_NONE;
        s->is_held = s->inflight > 0; /* what is new goes to the owner, behind these */
    }
}

static void
send_all(struct rcluster *r)
{
    uint32_t left = 0;
    for (uint32_t i = 0; i < r->queued.n; i++) {
        uint16_t slot = r->queued.v[i];
        slot_send(r, slot);
        r->slot[slot].is_queued = r->slot[slot].out.first != NULL;
        if (r->slot[slot].is_queued)
            r->queued.v[left++] = slot;
    }
    r->queued.n = left;
    r->look_queued = false;
    if (left > 1) { /* another first: links have only so much room */
        uint16_t first = r->queued.v[0];
        memmove(r->queued.v, r->queued.v + 1, (left - 1) * sizeof first);
        r->queued.v[left - 1] = first;
    }
}

/* -- replies -- */

/* One less is under way. */
static void
slot_ebbs(struct rcluster *r, struct rslot *s)
{
    if (s->inflight > 0 && --s->inflight > 0)
        return;
    s->is_held = false;
    s->out.back = NULL;
    r->look_queued = true;
}

static void
wait_until(struct rslot *s, struct mono t)
{
    if (s->not_before.ns < t.ns)
        s->not_before = t;
}

/* A publish is to be sent once more. What comes before it may give way meanwhile, and so may it before what waits. */
static void
come_back(struct rcluster *r, uint16_t slot, const struct redis_request *q)
{
    struct rslot *s = &r->slot[slot];
    struct outbox_item *i = outbox_put_back(&r->out, &s->out, q);
    s->is_held = true;
    if (i == NULL) {
        tell_fate(r, q->topic, q->token, BUS_DROPPED); /* memory is out, for a note, too: it is told out of its place */
    } else {
        outbox_mark(i);
        outbox_mark_next(&s->out);
        queued(r, slot);
    }
    slot_ebbs(r, s);
}

static void
send_elsewhere(struct rcluster *r, const struct rnode *n, uint16_t slot, const struct redis_request *q, struct view error)
{
    struct rslot *s = &r->slot[slot];
    struct slotmap_redirect to;
    enum slotmap_verdict v = slotmap_judge(error, &to);
    if (!s->is_held && s->redirects <= REDIRECTS_MAX) /* once for all that were under way together */
        s->redirects++;
    if (v == SLOTMAP_LATER || ((v == SLOTMAP_MOVED || v == SLOTMAP_ASK) && to.slot != slot) || s->redirects > REDIRECTS_MAX) {
        wait_until(s, mono_add_ms(r->now, LATER_MS));
        rnodes_want_map(r->nodes);
    } else if (v == SLOTMAP_ASK) {
        s->ask_at = rnodes_redirect(r->nodes, n, &to, v);
    } else if (rnodes_redirect(r->nodes, n, &to, v) == RNODES_NONE || r->nodes->owner[slot] == n->index) {
        wait_until(s, mono_add_ms(r->now, LATER_MS));
    }
    come_back(r, slot, q);
}

static void
pub_on_reply(void *arg, struct redis_link *link, const struct redis_request *q, const struct redis_reply *reply)
{
    const struct rnode *n = arg;
    struct rcluster *r = n->all->arg;
    (void)link;
    if (q->topic.n == 0)
        return; /* of ASKING */
    uint16_t slot = slot_of(q->topic);
    struct rslot *s = &r->slot[slot];
    struct slotmap_redirect to;
    if (reply->v[0].kind == REDIS_ERROR && slotmap_judge(reply->v[0].text, &to) != SLOTMAP_ERROR) {
        send_elsewhere(r, n, slot, q, reply->v[0].text);
    } else if (s->out.back != NULL) {
        come_back(r, slot, q); /* one before it did: in order */
    } else {
        slot_ebbs(r, s);
        s->redirects = 0;
        tell_fate(r, q->topic, q->token, reply->v[0].kind == REDIS_INTEGER ? BUS_TAKEN : BUS_REFUSED);
    }
    r->look_queued |= r->queued.n > 0;
    keep_bound(r);
    tell_all(r);
}

static void
taken_back(void *arg, const struct redis_request *q)
{
    if (q->topic.n > 0)
        come_back(arg, slot_of(q->topic), q);
}

static void
pub_on_up(void *arg, struct redis_link *link)
{
    struct rnode *n = arg;
    struct rcluster *r = n->all->arg;
    redis_link_resume(link);
    for (uint16_t i = 0; n->was_lost && i < SLOTS; i++)
        if (r->nodes->owner[i] == n->index)
            wait_until(&r->slot[i], mono_add_ms(r->now, AWAY_MS));
    n->was_lost = false;
    r->look_queued = r->look_state = true;
}

static void
pub_on_lost(void *arg, struct redis_link *link, const char *why)
{
    struct rnode *n = arg;
    struct rcluster *r = n->all->arg;
    (void)why;
    n->was_lost = true;
    redis_link_take_back(link, taken_back, r);
    for (uint32_t i = 0; i < r->queued.n; i++)
        if (r->nodes->owner[r->queued.v[i]] == n->index)
            outbox_mark_next(&r->slot[r->queued.v[i]].out);
    rnodes_want_map(r->nodes);
    r->look_state = true;
    keep_bound(r);
}

/* A command for names of one slot was refused. */
static void
sub_on_reply(void *arg, struct redis_link *link, const struct redis_request *q, const struct redis_reply *reply)
{
    struct rnode *n = arg;
    struct rcluster *r = n->all->arg;
    uint16_t slot = (uint16_t)(q->token >> 1 & (SLOTS - 1));
    struct rslot *s = &r->slot[slot];
    enum rtopic_state under_way = q->token & 1 ? RTOPIC_LEAVING : RTOPIC_ASKED;
    struct slotmap_redirect to;
    (void)link;
    if (s->sub_at != n->index)
        return; /* what it was about is settled */
    enum slotmap_verdict v = reply->v[0].kind == REDIS_ERROR ? slotmap_judge(reply->v[0].text, &to) : SLOTMAP_ERROR;
    if (v == SLOTMAP_MOVED && to.slot == slot)
        (void)rnodes_redirect(r->nodes, n, &to, v); /* on_owner does the rest */
    else
        rnodes_want_map(r->nodes);
    if (s->sub_at == n->index) {
        s->sub_not_before = mono_add_ms(r->now, LATER_MS);
        for (struct rtopic *t = s->calm, *next; t != NULL; t = next) {
            next = t->next;
            if (t->state == under_way)
                topic_gone(r, t);
        }
    }
    tell_all(r);
}

/* -- hearing -- */

static void
sub_on_push(void *arg, struct redis_link *link, enum redis_push push, struct view name, struct view bytes)
{
    struct rnode *n = arg;
    struct rcluster *r = n->all->arg;
    struct bus_topic topic;
    (void)link;
    tell_all(r);
    struct rtopic *t = rtopic_find(&r->topics, name);
    if (t == NULL || t->tell == TELL_FREE || r->slot[t->slot].sub_at != n->index)
        return;
    if (push == REDIS_SMESSAGE) {
        if (t->state == RTOPIC_JOINED && t->wanted && topic_of(r, name, &topic))
            r->bus.ears->on_message(r->bus.arg, topic, bytes);
        return;
    }
    if (push == REDIS_SSUBSCRIBED && t->state == RTOPIC_ASKED) {
        topic_set(r, t, RTOPIC_JOINED, t->wanted);
        if (t->wanted)
            tell_later(r, t, TELL_JOINED);
    } else if (push == REDIS_SUNSUBSCRIBED && t->state != RTOPIC_IDLE) {
        if (t->state != RTOPIC_LEAVING)
            rnodes_want_map(r->nodes);
        topic_gone(r, t);
    }
    r->look_todo |= r->todo.n > 0;
    tell_all(r);
}

static void
sub_on_up(void *arg, struct redis_link *link)
{
    const struct rnode *n = arg;
    struct rcluster *r = n->all->arg;
    (void)link;
    r->look_todo = r->look_state = true;
}

static void
node_topics_gone(struct rcluster *r, const struct rnode *n)
{
    for (uint16_t i = 0; i < SLOTS; i++)
        if (r->slot[i].sub_at == n->index)
            slot_gone(r, &r->slot[i]);
}

static void
sub_on_lost(void *arg, struct redis_link *link, const char *why)
{
    const struct rnode *n = arg;
    struct rcluster *r = n->all->arg;
    (void)link;
    (void)why;
    node_topics_gone(r, n);
    rnodes_want_map(r->nodes);
    r->look_state = true;
    tell_all(r);
}

/* -- slots that move -- */

static void
on_owner(void *arg, uint16_t slot, uint16_t was)
{
    struct rcluster *r = arg;
    struct rslot *s = &r->slot[slot];
    const struct rnode *old = rnodes_at(r->nodes, was);
    uint16_t owner = r->nodes->owner[slot];
    if (s->sub_at != RNODES_NONE && s->sub_at != owner)
        slot_gone(r, s);
    if (s->inflight > 0 && s->pub_at != owner)
        s->is_held = true;
    if (old != NULL) {
        bool away = old->pub == NULL || !redis_link_is_up(old->pub);
        wait_until(s, mono_add_ms(r->now, away ? AWAY_MS : MOVED_MS));
    }
    s->sub_not_before = (struct mono){0};
    r->look_todo |= s->is_todo;
    r->look_queued |= s->is_queued;
    r->look_state = true;
}

static void
on_gone(void *arg, struct rnode *n)
{
    struct rcluster *r = arg;
    if (n->pub != NULL)
        redis_link_take_back(n->pub, taken_back, r);
    node_topics_gone(r, n);
    for (uint16_t i = 0; i < SLOTS; i++)
        if (r->slot[i].ask_at == n->index)
            r->slot[i].ask_at = RNODES_NONE;
    r->look_state = true;
}

static const struct rnodes_ears nodes_ears = {
    .on_owner = on_owner,
    .on_gone = on_gone,
    .pub = {.on_up = pub_on_up, .on_lost = pub_on_lost, .on_reply = pub_on_reply},
    .sub = {.on_up = sub_on_up, .on_lost = sub_on_lost, .on_reply = sub_on_reply, .on_push = sub_on_push},
};

/* -- the bus -- */

static void
tell_state(struct rcluster *r)
{
    enum bus_state state = BUS_DOWN;
    const char *why = "no server can be reached";
    bool all = r->nodes->has_map && r->nodes->owned == SLOTS;
    for (uint16_t i = 0; i < r->nodes->node_count; i++) {
        const struct rnode *n = r->nodes->node[i];
        if (!n->used || n->slots == 0)
            continue;
        bool up = n->pub != NULL && redis_link_is_up(n->pub), hears = n->sub != NULL && redis_link_is_up(n->sub);
        state = up || hears ? BUS_PARTLY : state;
        all &= up && hears;
    }
    if (state == BUS_PARTLY)
        why = !all ? "some servers can't be reached" : "some topics are not confirmed yet";
    if (all && r->missed == 0) {
        state = BUS_UP;
        why = NULL;
    }
    r->look_state = false;
    if (state == r->bus.state)
        return;
    r->bus.state = state;
    r->bus.ears->on_state(r->bus.arg, state, why);
}

static uint32_t
rcluster_turn(struct bus *bus, struct mono now)
{
    struct rcluster *r = of(bus);
    bool look = mono_reached(now, r->look_at);
    r->now = now;
    if (look)
        r->look_at = mono_add_ms(now, MOVED_MS);
    uint32_t ms = rnodes_turn(r->nodes, now);
    tell_all(r);
    if (r->todo.n > 0 && (look || r->look_todo))
        say_all(r);
    tell_dropped(r);
    if (r->queued.n > 0 && (look || r->look_queued))
        send_all(r);
    uint32_t io_ms = redis_io_turn(r->io, now);
    tell_all(r);
    if (look || r->look_state)
        tell_state(r);
    metric_set(bus->metrics, BM_redis_queue_bytes, r->out.bytes);
    metric_set(bus->metrics, BM_redis_topics, r->joined);
    metric_set(bus->metrics, BM_redis_topics_waiting, r->wanted - r->joined);
    if (r->todo.n > 0 || r->queued.n > 0)
        ms = MIN(ms, MOVED_MS);
    return MIN(ms, io_ms);
}

static void
rcluster_on_done(struct bus *bus, struct ring_done done)
{
    redis_io_on_done(of(bus)->io, done);
}

static void
rcluster_describe(const struct bus *bus, struct buf *out)
{
    const struct rcluster *r = container_of((struct bus *)(uintptr_t)bus, struct rcluster, bus);
    char text[REDISURL_TEXT];
    for (uint16_t i = 0; i < r->nodes->node_count; i++) {
        const struct rnode *n = r->nodes->node[i];
        if (!n->used)
            continue;
        bool up = n->pub != NULL && redis_link_is_up(n->pub) && n->sub != NULL && redis_link_is_up(n->sub);
        buf_put_view(out, view_str(redisurl_text(&n->where, text)));
        buf_put_view(out, up ? VIEW(" up slots=") : VIEW(" down slots="));
        buf_put_uint(out, n->slots);
        buf_put_lit(out, " under_way=");
        buf_put_uint(out, n->pub != NULL ? redis_link_open(n->pub) : 0);
        const char *why = n->pub != NULL ? redis_link_why(n->pub) : NULL;
        if (why != NULL) {
            buf_put_lit(out, " why=\"");
            buf_put_view(out, view_str(why));
            buf_put_lit(out, "\"");
        }
        buf_put_lit(out, "\n");
    }
}

static void
rcluster_close(struct bus *bus)
{
    struct rcluster *r = of(bus);
    if (r->nodes != NULL)
        rnodes_close(r->nodes);
    if (r->io != NULL)
        redis_io_close(r->io);
    for (uint32_t i = 0; i < r->queued.n; i++)
        outbox_empty(&r->out, &r->slot[r->queued.v[i]].out);
    rtopics_fini(&r->topics);
    buf_free(&r->name);
    rcopies_fini(&r->copies);
    free(r);
}

static bool
init(struct rcluster *r, struct conf_error *err)
{
    uint64_t seed;
    for (uint32_t i = 0; i < SLOTS; i++)
        r->slot[i].pub_at = r->slot[i].sub_at = r->slot[i].ask_at = RNODES_NONE;
    r->name = buf_make(UINT16_MAX);
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed || !rcopies_init(&r->copies) || !rtopics_init(&r->topics, seed))
        return conf_fail(err, "can't begin: memory is out");
    return true;
}

static struct bus *
rcluster_open(const struct conf *conf, struct ring *ring, uint64_t *metrics, const struct bus_ears *ears, void *arg,
    struct conf_error *err)
{
    struct rcluster *r = calloc(1, sizeof *r);
    if (r == NULL) {
        (void)conf_fail(err, "can't begin: memory is out");
        return NULL;
    }
    r->bus = (struct bus){.ops = &bus_rcluster, .conf = conf, .ring = ring, .metrics = metrics, .ears = ears, .arg = arg,
        .state = BUS_DOWN};
    r->now = mono_now();
    if (!init(r, err) || (r->io = redis_io_open(conf, ring, metrics, "ringcast", err)) == NULL ||
        (r->nodes = rnodes_open(conf, r->io, metrics, &nodes_ears, r, err)) == NULL) {
        rcluster_close(&r->bus);
        return NULL;
    }
    return &r->bus;
}

const struct bus_ops bus_rcluster = {
    .name = "rcluster",
    .open = rcluster_open,
    .close = rcluster_close,
    .join = rcluster_join,
    .leave = rcluster_leave,
    .publish = rcluster_publish,
    .is_up = rcluster_is_up,
    .turn = rcluster_turn,
    .on_done = rcluster_on_done,
    .describe = rcluster_describe,
};
