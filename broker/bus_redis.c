/* The bus over one or several independent Redis servers (redis.url). Channels are spread over them by rendezvous
 * hashing of their names and the servers' addresses; control topics are on every server that is reached. To each server there are two
 * links, one that publishes and one that subscribes.
 *
 * After a lost link subscriptions come first: nothing is published to a server until it has confirmed all that was
 * wanted when the subscribing link came up, so that our own messages, and answers to them, are heard. Then it waits a
 * while for other hosts (bus.held). What was under way goes out again before what waited.
 *
 * At Redis a channel is called prefix:channel, a control topic prefix/topic (redis.prefix, which has neither). */
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

#include "broker/bus.h"
#include "broker/metrics.h"
#include "broker/outbox.h"
#include "broker/redis_io.h"
#include "broker/sentinel.h"
#include "common/bug.h"
#include "common/log.h"

#include "common/banned.h"

#define SERVERS_MAX 16
#define RETURN_MS 200 /* for connecting and subscribing, when a pause is over */
#define BATCH 1000 /* names in one SUBSCRIBE: 100,000 take 76 ms that way */
#define TOPIC_MAX 65535
/* Of a control message that goes to several servers one counts; nobody waits for what became of the others. */
#define TOKEN_COPY UINT64_MAX

/* A topic at one server. Lives while it is wanted, or an answer of the server is due. */
struct topic {
    struct topic *next;       /* in its bucket */
    struct topic *dirty_next;
    struct server *server;
    enum bus_kind kind;
    uint16_t n;               /* bytes of the name at Redis */
    uint16_t due;             /* confirmations */
    bool wanted;
    bool said;                /* the last command to this connection was SUBSCRIBE */
    bool confirmed;
    bool dirty;               /* on the server's list: what is wanted was not said yet */
    bool rejoining;           /* wanted when the link came up, and not confirmed since */
    uint8_t name[];
};

struct server {
    struct bus_redis *br;
    unsigned index;
    struct redisurl where;
    uint64_t hash;
    struct redis_link *pub, *sub;
    struct outbox out;
    struct outbox_lane lane;  /* all of it */
    struct topic *dirty, *dirty_last;
    uint32_t rejoining;
    uint32_t confirmed, wanted;
    uint32_t left;            /* topics, since the dirty ones were looked at */
    bool ready;               /* subscriptions stand: publishes go out */
    struct mono lost_at;      /* when it was ready last; until then, from then on: */
    struct mono hold_until;   /* what waits may wait for other hosts, too (bus.held) */
    bool holding;             /* it did so in the last turn */
    bool full;                /* messages were dropped since the outbox was empty */
};

struct bus_redis {
    struct bus bus;
    struct redis_io *io;
    struct sentinel *sentinel; /* redis.mode = sentinel: names the one server; else NULL */
    struct view prefix[2];    /* by enum bus_kind */
    char prefixes[2][128];
    uint64_t seed;
    struct topic **table;     /* buckets */
    uint32_t mask, count;
    bool walking;             /* over the table: it does not grow */
    uint32_t server_count;
    struct server servers[SERVERS_MAX];
};

#define BUS_COUNT(br, row, n) metric_add((br)->bus.metrics, BM_##row, (n))

static const struct redis_ears pub_ears, sub_ears;

static struct bus_redis *
of(const struct bus *bus)
{
    return (struct bus_redis *)(uintptr_t)bus;
}

/* -- names -- */

/* "ringcast:news" taken apart; false if it is none of ours. */
static bool
topic_of(const struct bus_redis *br, struct view name, struct bus_topic *out)
{
    for (unsigned kind = 0; kind < 2; kind++)
        if (view_starts(name, br->prefix[kind])) {
            *out = (struct bus_topic){(enum bus_kind)kind, view_from(name, br->prefix[kind].n)};
            return true;
        }
    return false;
}

static struct server *
server_of(struct bus_redis *br, struct view channel)
{
    uint64_t name = XXH3_64bits(channel.p, channel.n), best = 0;
    struct server *owner = &br->servers[0];
    for (uint32_t i = 0; i < br->server_count; i++) {
        uint64_t z = name + br->servers[i].hash; /* mixed as splitmix64 does */
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ z >> 27) * 0x94d049bb133111ebull;
        z ^= z >> 31;
        if (z >= best) {
            best = z;
            owner = &br->servers[i];
        }
    }
    return owner;
}

/* -- topics -- */

static struct topic **
bucket_of(const struct bus_redis *br, struct view full)
{
    return &br->table[XXH3_64bits_withSeed(full.p, full.n, br->seed) & br->mask];
}

static struct topic *
topic_find(const struct bus_redis *br, const struct server *s, struct view full)
{
    for (struct topic *t = *bucket_of(br, full); t != NULL; t = t->next)
        if (t->server == s && view_eq(view_of(t->name, t->n), full))
            return t;
    return NULL;
}

static void
grow(struct bus_redis *br)
{
    uint32_t size = (br->mask + 1) * 2;
    struct topic **old = br->table, **more = calloc(size, sizeof(struct topic *));
    if (more == NULL)
        return; /* slower, and no harm otherwise */
    br->table = more;
    uint32_t before = br->mask + 1;
    br->mask = size - 1;
    for (uint32_t i = 0; i < before; i++)
        for (struct topic *t = old[i], *next; t != NULL; t = next) {
            next = t->next;
            struct topic **b = bucket_of(br, view_of(t->name, t->n));
            t->next = *b;
            *b = t;
        }
    free(old);
}

static void
topic_free(struct bus_redis *br, struct topic *t)
{
    struct topic **at = bucket_of(br, view_of(t->name, t->n));
    while (*at != t)
        at = &(*at)->next;
    *at = t->next;
    br->count--;
    free(t);
}

static void
make_dirty(struct topic *t)
{
    struct server *s = t->server;
    if (t->dirty)
        return;
    t->dirty = true;
    t->dirty_next = NULL;
    if (s->dirty_last != NULL)
        s->dirty_last->dirty_next = t;
    else
        s->dirty = t;
    s->dirty_last = t;
}

/* The full name, in a buffer that the next call uses again. */
static struct view
full_name(const struct bus_redis *br, struct bus_topic topic)
{
    static uint8_t name[TOPIC_MAX];
    struct view prefix = br->prefix[topic.kind];
    if (prefix.n + topic.name.n > sizeof name)
        return VIEW_NONE;
    memcpy(name, prefix.p, prefix.n);
    if (topic.name.n > 0)
        memcpy(name + prefix.n, topic.name.p, topic.name.n);
    return view_of(name, prefix.n + topic.name.n);
}

static void
set_confirmed(struct topic *t, bool is)
{
    if (t->confirmed != is)
        t->server->confirmed += is ? 1u : -1u;
    t->confirmed = is;
}

static void
set_rejoining(struct topic *t, bool is)
{
    if (t->rejoining != is)
        t->server->rejoining += is ? 1u : -1u;
    t->rejoining = is;
}

static bool
want(struct bus_redis *br, struct server *s, struct bus_topic topic)
{
    struct view full = full_name(br, topic);
    struct topic *t = full.p != NULL ? topic_find(br, s, full) : NULL;
    if (full.p == NULL)
        return false;
    if (t == NULL) {
        if (br->count > br->mask && !br->walking)
            grow(br);
        t = malloc(sizeof *t + full.n);
        if (t == NULL)
            return false;
        *t = (struct topic){.server = s, .kind = topic.kind, .n = (uint16_t)full.n};
        memcpy(t->name, full.p, full.n);
        struct topic **b = bucket_of(br, full);
        t->next = *b;
        *b = t;
        br->count++;
    }
    if (!t->wanted)
        s->wanted++;
    t->wanted = true;
    if (!t->said)
        make_dirty(t);
    return true;
}

static void
want_not(struct bus_redis *br, struct server *s, struct bus_topic topic)
{
    struct view full = full_name(br, topic);
    struct topic *t = full.p != NULL ? topic_find(br, s, full) : NULL;
    if (t == NULL || !t->wanted)
        return;
    t->wanted = false;
    s->wanted--;
    set_confirmed(t, false);
    set_rejoining(t, false);
    s->left++;
    make_dirty(t); /* freed, or said, by the turn */
}

static bool
redis_join(struct bus *bus, struct bus_topic topic)
{
    struct bus_redis *br = of(bus);
    if (topic.kind == BUS_CHANNEL)
        return want(br, server_of(br, topic.name), topic);
    bool ok = true;
    for (uint32_t i = 0; i < br->server_count; i++)
        ok &= want(br, &br->servers[i], topic);
    return ok;
}

static void
redis_leave(struct bus *bus, struct bus_topic topic)
{
    struct bus_redis *br = of(bus);
    if (topic.kind == BUS_CHANNEL)
        want_not(br, server_of(br, topic.name), topic);
    for (uint32_t i = 0; topic.kind == BUS_CONTROL && i < br->server_count; i++)
        want_not(br, &br->servers[i], topic);
}

/* -- what is wanted is said -- */

struct batch {
    uint32_t n;
    struct topic *topics[BATCH];
    struct view names[BATCH];
};

/* False: the link has no room; they stay dirty. */
static bool
say(struct server *s, struct batch *b, bool wanted)
{
    if (b->n == 0)
        return true;
    bool ok = redis_link_subscribe(s->sub, wanted ? VIEW("SUBSCRIBE") : VIEW("UNSUBSCRIBE"), b->names, b->n, 0);
    for (uint32_t i = 0; i < b->n; i++) {
        struct topic *t = b->topics[i];
        if (ok) {
            t->said = wanted;
            t->due++;
        } else {
            make_dirty(t);
        }
    }
    b->n = 0;
    return ok;
}

static struct topic *
take_dirty(struct server *s)
{
    struct topic *t = s->dirty;
    if (t == NULL)
        return NULL;
    s->dirty = t->dirty_next;
    if (s->dirty == NULL)
        s->dirty_last = NULL;
    t->dirty = false;
    return t;
}

static void tell_joined(struct topic *t);

static void
say_all(struct server *s)
{
    static struct batch batches[2]; /* by `wanted` */
    bool ok = redis_link_is_up(s->sub), up = ok;
    struct topic *stop = s->dirty_last;
    for (struct topic *t = NULL; t != stop && (t = take_dirty(s)) != NULL;) {
        bool is_last = t == stop;
        struct batch *b = &batches[t->wanted];
        if (t->wanted == t->said) {
            if (!t->wanted && t->due == 0)
                topic_free(s->br, t);
            else if (t->wanted && t->due == 0 && !t->confirmed) /* left and joined again within a turn */
                tell_joined(t);
        } else if (!up && !t->wanted) {
            topic_free(s->br, t);
        } else if (!ok || t->due == UINT16_MAX) {
            make_dirty(t);
        } else {
            b->topics[b->n] = t;
            b->names[b->n++] = view_of(t->name, t->n);
            if (b->n == BATCH)
                ok = say(s, b, t->wanted);
        }
        if (is_last)
            break;
    }
    s->left = 0;
    (void)say(s, &batches[0], false);
    (void)say(s, &batches[1], true);
}

/* -- links come and go -- */

static void
tell_state(struct bus_redis *br)
{
    uint32_t ready = 0;
    char why[400], text[REDISURL_TEXT];
    why[0] = '\0';
    for (uint32_t i = 0; i < br->server_count; i++) {
        struct server *s = &br->servers[i];
        ready += s->ready;
        if (s->ready || why[0] != '\0')
            continue;
        const char *w = redis_link_why(s->sub) != NULL ? redis_link_why(s->sub) : redis_link_why(s->pub);
        snprintf(why, sizeof why, "%.200s: %.180s", redisurl_text(&s->where, text),
            w != NULL ? w : "its subscriptions are not all confirmed yet");
    }
    enum bus_state now = ready == br->server_count ? BUS_UP : ready > 0 ? BUS_PARTLY : BUS_DOWN;
    if (now == br->bus.state)
        return;
    br->bus.state = now;
    br->bus.ears->on_state(br->bus.arg, now, why);
}

/* Other hosts lost the server when we did, and each is in a pause of its own now: as pauses double, none that is much
 * longer than the outage was. */
static uint64_t
hold_ms(const struct server *s)
{
    const struct conf *conf = s->br->bus.conf;
    uint64_t away = mono_since_ms(s->br->io->now, s->lost_at);
    return MIN(conf->redis_backoff_max, 2 * away + conf->redis_backoff_min) + RETURN_MS;
}

static void
look_ready(struct server *s)
{
    if (s->ready || s->rejoining > 0 || !redis_link_is_up(s->sub) || !redis_link_is_up(s->pub))
        return;
    s->ready = true;
    s->hold_until = mono_add_ms(s->br->io->now, hold_ms(s));
    redis_link_resume(s->pub);
}

static bool
is_held(const struct server *s)
{
    return s->br->bus.held && s->ready && !mono_reached(s->br->io->now, s->hold_until);
}

static void
not_ready(struct server *s)
{
    if (s->ready)
        s->lost_at = s->br->io->now;
    s->ready = false;
}

static void
on_sub_up(void *arg, struct redis_link *l)
{
    struct server *s = arg;
    struct bus_redis *br = s->br;
    (void)l;
    for (uint32_t i = 0; i <= br->mask; i++)
        for (struct topic *t = br->table[i]; t != NULL; t = t->next)
            if (t->server == s && t->wanted) {
                set_rejoining(t, true);
                make_dirty(t);
            }
    look_ready(s);
}

/* All topics of the server begin anew. */
static void
on_sub_lost(void *arg, struct redis_link *l, const char *why)
{
    struct server *s = arg;
    struct bus_redis *br = s->br;
    (void)l;
    (void)why;
    not_ready(s);
    outbox_mark_next(&s->lane);
    br->walking = true;
    for (uint32_t i = 0; i <= br->mask; i++)
        for (struct topic *t = br->table[i]; t != NULL; t = t->next) {
            if (t->server != s)
                continue;
            bool was = t->confirmed;
            set_confirmed(t, false);
            set_rejoining(t, false);
            t->said = false;
            t->due = 0;
            make_dirty(t);
            if (was && t->kind == BUS_CHANNEL)
                br->bus.ears->on_lost(br->bus.arg,
                    (struct bus_topic){t->kind, view_from(view_of(t->name, t->n), br->prefix[t->kind].n)});
        }
    br->walking = false;
}

static void
on_pub_up(void *arg, struct redis_link *l)
{
    (void)l;
    look_ready(arg);
}

static void
tell_fate(struct server *s, struct view full, uint64_t token, enum bus_fate fate)
{
    struct bus_redis *br = s->br;
    struct bus_topic topic;
    if (token == TOKEN_COPY || !topic_of(br, full, &topic))
        return;
    br->bus.ears->on_fate(br->bus.arg, topic, token, fate);
}

static void
take_back(void *arg, const struct redis_request *r)
{
    struct server *s = arg;
    if (outbox_put_back(&s->out, &s->lane, r) == NULL)
        tell_fate(s, r->topic, r->token, BUS_DROPPED); /* memory is out, for a note, too: it is told out of its place */
}

static void
on_pub_lost(void *arg, struct redis_link *l, const char *why)
{
    struct server *s = arg;
    (void)why;
    not_ready(s);
    redis_link_take_back(l, take_back, s);
    outbox_mark_next(&s->lane);
    s->lane.back = NULL;
}

/* -- what links tell -- */

static void
tell_joined(struct topic *t)
{
    struct bus_redis *br = t->server->br;
    struct bus_topic topic;
    set_confirmed(t, true);
    set_rejoining(t, false);
    if (topic_of(br, view_of(t->name, t->n), &topic))
        br->bus.ears->on_joined(br->bus.arg, topic);
}

static void
on_pub_reply(void *arg, struct redis_link *l, const struct redis_request *q, const struct redis_reply *r)
{
    struct server *s = arg;
    bool refused = r->v[0].kind == REDIS_ERROR;
    char text[REDISURL_TEXT];
    (void)l;
    if (refused)
        log_warn("redis-refused", "server=%s error=%s", redisurl_text(&s->where, text), log_quote(r->v[0].text).s);
    tell_fate(s, q->topic, q->token, refused ? BUS_REFUSED : BUS_TAKEN);
}

/* A whole SUBSCRIBE was refused, as by the access control list: nothing is heard of any of its names. */
static void
on_sub_reply(void *arg, struct redis_link *l, const struct redis_request *q, const struct redis_reply *r)
{
    struct server *s = arg;
    char text[REDISURL_TEXT];
    (void)q;
    log_warn("redis-refused", "server=%s error=%s", redisurl_text(&s->where, text), log_quote(r->v[0].text).s);
    redis_link_end(l, "it refuses to subscribe");
}

static void
on_confirmed(struct server *s, struct view full, bool subscribed)
{
    struct bus_redis *br = s->br;
    struct topic *t = topic_find(br, s, full);
    if (t == NULL || t->due == 0)
        return;
    t->due--;
    if (t->due > 0)
        return;
    if (!t->wanted && !t->said) {
        if (!t->dirty)
            topic_free(br, t);
        return;
    }
    if (subscribed && t->wanted && t->said && !t->confirmed)
        tell_joined(t);
    look_ready(s);
}

static void
on_sub_push(void *arg, struct redis_link *l, enum redis_push push, struct view full, struct view bytes)
{
    struct server *s = arg;
    struct bus_redis *br = s->br;
    struct bus_topic topic;
    (void)l;
    if (push != REDIS_MESSAGE) {
        on_confirmed(s, full, push == REDIS_SUBSCRIBED);
        return;
    }
    struct topic *t = topic_find(br, s, full);
    if (t != NULL && t->wanted && topic_of(br, full, &topic))
        br->bus.ears->on_message(br->bus.arg, topic, bytes);
}

static const struct redis_ears pub_ears = {on_pub_up, on_pub_lost, on_pub_reply, NULL};
static const struct redis_ears sub_ears = {on_sub_up, on_sub_lost, on_sub_reply, on_sub_push};

/* -- publishing -- */

static size_t
bound_of(const struct bus_redis *br)
{
    return (size_t)(br->bus.conf->redis_out_queue / br->server_count);
}

static bool
goes_at_once(const struct server *s, enum bus_kind kind)
{
    return s->ready && (kind == BUS_CONTROL || (s->lane.first == NULL && !is_held(s)));
}

static bool
put(struct server *s, struct bus_topic topic, struct view head, struct view body, uint64_t token)
{
    struct bus_redis *br = s->br;
    struct view prefix = br->prefix[topic.kind];
    if (goes_at_once(s, topic.kind) && redis_link_publish(s->pub, VIEW("PUBLISH"), prefix, topic.name, head, body, token))
        return true;
    if (!outbox_put(&s->out, &s->lane, VIEW("PUBLISH"), prefix, topic.name, head, body, token))
        return false;
    uint32_t dropped = outbox_trim(&s->out, bound_of(br));
    if (dropped > 0) {
        BUS_COUNT(br, redis_dropped_total, dropped);
        s->hold_until = br->io->now; /* rather late for some than lost for all */
    }
    return true;
}

/* To each server that is reached, so that one that is away does not keep hosts from asking each other, nor gets hours of it
 * when it is back; if there is none it waits for the first. */
static bool
put_control(struct bus_redis *br, struct bus_topic topic, struct view head, struct view body, uint64_t token)
{
    bool counts = false;
    for (uint32_t i = 0; i < br->server_count; i++)
        if (br->servers[i].ready)
            counts |= put(&br->servers[i], topic, head, body, counts ? TOKEN_COPY : token);
    return counts || put(&br->servers[0], topic, head, body, token);
}

static bool
redis_publish(struct bus *bus, struct bus_topic topic, struct view head, struct view body, uint64_t token)
{
    struct bus_redis *br = of(bus);
    size_t topic_n = br->prefix[topic.kind].n + topic.name.n, n = head.n + body.n;
    if (n > bus->conf->redis_max_bulk || topic_n > TOPIC_MAX || outbox_cost(VIEW("PUBLISH"), topic_n, n) > bound_of(br))
        return false;
    if (topic.kind == BUS_CHANNEL)
        return put(server_of(br, topic.name), topic, head, body, token);
    return put_control(br, topic, head, body, token);
}

static bool
redis_is_up(const struct bus *bus, struct bus_topic topic)
{
    struct bus_redis *br = of(bus);
    const struct server *s = topic.kind == BUS_CHANNEL ? server_of(br, topic.name) : &br->servers[0];
    const struct server *end = topic.kind == BUS_CHANNEL ? s + 1 : s + br->server_count;
    while (s < end && !goes_at_once(s, topic.kind))
        s++;
    return s < end;
}

/* Of what was dropped is told when all before it is answered; more of it may be dropped meanwhile. */
static void
tell_dropped(struct server *s)
{
    for (struct outbox_item *i; (i = s->lane.first) != NULL && i->is_note && redis_link_open(s->pub) == 0;) {
        while (i->dropped > 0) {
            i->dropped--;
            tell_fate(s, outbox_topic(i), i->token, BUS_DROPPED);
        }
        outbox_pop(&s->out, &s->lane);
    }
}

static bool
send_first(struct server *s, const struct outbox_item *i)
{
    struct redis_request r = outbox_request(i);
    return s->ready && !is_held(s) && redis_link_again(s->pub, &r);
}

/* What waits goes out. */
static void
empty(struct server *s)
{
    tell_dropped(s);
    while (s->lane.first != NULL && !s->lane.first->is_note && send_first(s, s->lane.first))
        outbox_pop(&s->out, &s->lane);
}

static void
tell_hold(struct server *s)
{
    bool held = is_held(s);
    char text[REDISURL_TEXT];
    if (s->holding && !held && s->ready)
        log_info("redis-replay", "server=%s messages=%u others=%s", redisurl_text(&s->where, text), s->out.count,
            s->br->bus.held ? "late" : "back");
    s->holding = held;
}

/* The oldest go. Notes of them take memory, too, so where they may be told none is left; when they alone reach the bound, a
 * server that answers nothing in time is not worth waiting for. */
static void
keep_bound(struct server *s)
{
    char text[REDISURL_TEXT];
    bool drops = s->out.notes > 0;
    tell_dropped(s);
    for (; s->out.bytes > bound_of(s->br) && s->out.oldest != NULL; drops = true) {
        outbox_drop(&s->out);
        BUS_COUNT(s->br, redis_dropped_total, 1);
        tell_dropped(s);
    }
    if (drops && !s->full)
        log_warn("redis-dropped", "server=%s why=\"redis.out_queue is full: the oldest messages for it are dropped\"",
            redisurl_text(&s->where, text));
    s->full |= drops;
    if (s->out.bytes > bound_of(s->br) && redis_link_is_up(s->pub))
        redis_link_end(s->pub, "it does not keep up, and redis.out_queue is full");
}

static void
show(struct bus_redis *br)
{
    uint64_t bytes = 0, confirmed = 0, wanted = 0;
    for (uint32_t i = 0; i < br->server_count; i++) {
        bytes += br->servers[i].out.bytes + redis_link_bytes(br->servers[i].pub);
        confirmed += br->servers[i].confirmed;
        wanted += br->servers[i].wanted;
    }
    metric_set(br->bus.metrics, BM_redis_queue_bytes, bytes);
    metric_set(br->bus.metrics, BM_redis_topics, confirmed);
    metric_set(br->bus.metrics, BM_redis_topics_waiting, wanted - MIN(confirmed, wanted));
}

static uint32_t
redis_turn(struct bus *bus, struct mono now)
{
    struct bus_redis *br = of(bus);
    for (uint32_t i = 0; i < br->server_count; i++) {
        struct server *s = &br->servers[i];
        tell_hold(s);
        if (s->lane.first != NULL) {
            keep_bound(s);
            empty(s);
        }
        if (s->lane.first == NULL)
            s->full = false;
        if (s->dirty != NULL && (redis_link_is_up(s->sub) || s->left > 64 + s->wanted / 4))
            say_all(s);
        look_ready(s);
    }
    uint32_t until = br->sentinel != NULL ? sentinel_turn(br->sentinel, now) : UINT32_MAX;
    uint32_t wait = MIN(until, redis_io_turn(br->io, now));
    tell_state(br);
    show(br);
    for (uint32_t i = 0; i < br->server_count; i++) /* a link was lost: what came back is looked at soon */
        if (br->servers[i].lane.first != NULL && (!br->servers[i].ready || is_held(&br->servers[i])))
            wait = MIN(wait, 10u);
    return wait;
}

static void
redis_on_done(struct bus *bus, struct ring_done d)
{
    redis_io_on_done(of(bus)->io, d);
}

static void
redis_describe(const struct bus *bus, struct buf *out)
{
    const struct bus_redis *br = of(bus);
    for (uint32_t i = 0; i < br->server_count; i++) {
        const struct server *s = &br->servers[i];
        char line[800], text[REDISURL_TEXT];
        const char *why = redis_link_why(s->sub) != NULL ? redis_link_why(s->sub) : redis_link_why(s->pub);
        int n = snprintf(line, sizeof line, "%s %s subscribed=%u waiting=%u queued=%u%s%.300s%s\n", redisurl_text(&s->where, text),
            s->ready ? "up" : "down", s->confirmed, s->wanted - s->confirmed, s->out.count, why != NULL ? " why=\"" : "",
            why != NULL ? why : "", why != NULL ? "\"" : "");
        buf_put(out, line, MIN((size_t)n, sizeof line - 1));
    }
}

/* -- making one -- */

static void
redis_close(struct bus *bus)
{
    struct bus_redis *br = of(bus);
    if (br == NULL)
        return;
    if (br->sentinel != NULL)
        sentinel_close(br->sentinel);
    redis_io_close(br->io);
    for (uint32_t i = 0; i < br->server_count; i++)
        outbox_empty(&br->servers[i].out, &br->servers[i].lane);
    for (uint32_t i = 0; br->table != NULL && i <= br->mask; i++)
        for (struct topic *t = br->table[i], *next; t != NULL; t = next) {
            next = t->next;
            free(t);
        }
    free(br->table);
    explicit_bzero(br->servers, sizeof br->servers);
    free(br);
}

/* -- the server that sentinels name -- */

static void
on_primary(void *arg, const struct redisurl *where)
{
    struct server *s = &((struct bus_redis *)arg)->servers[0];
    s->where = *where;
    redis_link_to(s->pub, where);
    redis_link_to(s->sub, where);
}

/* What is published at a replica, or after a promotion at the old primary, is heard by few. */
static void
on_demoted(void *arg)
{
    struct server *s = &((struct bus_redis *)arg)->servers[0];
    redis_link_end(s->pub, "it is not the primary any more");
    redis_link_end(s->sub, "it is not the primary any more");
}

static const struct sentinel_ears sentinel_ears = {on_primary, on_demoted};

/* Without a URL: it is not known yet where it is. */
static bool
add_server(struct bus_redis *br, const char *url, struct conf_error *err)
{
    struct server *s = &br->servers[br->server_count];
    char text[REDISURL_TEXT];
    *s = (struct server){.br = br, .index = br->server_count};
    if (url != NULL && !redis_io_where(br->io, view_str(url), &s->where, err))
        return false;
    redisurl_text(&s->where, text);
    s->hash = XXH3_64bits(text, strlen(text));
    s->pub = redis_link_new(br->io, &s->where, REDIS_KEEPS, &pub_ears, s);
    s->sub = redis_link_new(br->io, &s->where, REDIS_SUBSCRIBES, &sub_ears, s);
    if (s->pub == NULL || s->sub == NULL)
        return conf_fail(err, "redis.url: memory is out");
    br->server_count++;
    return true;
}

static bool
set_up(struct bus_redis *br, struct conf_error *err)
{
    const struct conf *conf = br->bus.conf;
    for (unsigned kind = 0; kind < 2; kind++) {
        int n = snprintf(br->prefixes[kind], sizeof br->prefixes[kind], "%s%c", conf->redis_prefix, kind == BUS_CHANNEL ? ':' : '/');
        br->prefix[kind] = view_of(br->prefixes[kind], (size_t)n);
    }
    if (strpbrk(conf->redis_prefix, ":/") != NULL)
        return conf_fail(err, "redis.prefix (%s): without : and /, which stand between it and names", conf_place(conf, "redis.prefix"));
    br->io = redis_io_open(conf, br->bus.ring, br->bus.metrics, "ringcast", err);
    br->mask = 1023;
    br->table = calloc(br->mask + 1, sizeof *br->table);
    if (br->io == NULL || br->table == NULL)
        return br->io == NULL ? false : conf_fail(err, "redis.url: memory is out");
    br->seed = redis_io_random(br->io, UINT64_MAX);
    if (strcmp(conf->redis_mode, "sentinel") == 0) {
        br->sentinel = sentinel_open(conf, br->io, br->bus.metrics, &sentinel_ears, br, err);
        return br->sentinel != NULL && add_server(br, NULL, err);
    }
    for (uint32_t i = 0; i < conf->redis_url.n && i < SERVERS_MAX; i++)
        if (!add_server(br, conf->redis_url.v[i], err))
            return false;
    return true;
}

static struct bus *
redis_open(const struct conf *conf, struct ring *ring, uint64_t *metrics, const struct bus_ears *ears, void *arg,
    struct conf_error *err)
{
    struct bus_redis *br = calloc(1, sizeof *br);
    if (br == NULL) {
        (void)conf_fail(err, "redis.url: memory is out");
        return NULL;
    }
    br->bus = (struct bus){.ops = &bus_redis, .conf = conf, .ring = ring, .metrics = metrics, .ears = ears, .arg = arg,
        .state = BUS_DOWN};
    if (set_up(br, err))
        return &br->bus;
    redis_close(&br->bus);
    return NULL;
}

const struct bus_ops bus_redis = {
    .name = "redis",
    .open = redis_open,
    .close = redis_close,
    .join = redis_join,
    .leave = redis_leave,
    .publish = redis_publish,
    .is_up = redis_is_up,
    .turn = redis_turn,
    .on_done = redis_on_done,
    .describe = redis_describe,
};
