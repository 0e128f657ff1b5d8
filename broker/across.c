#include "broker/across.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <xxhash.h>

#include "broker/across_hear.h"
#include "broker/across_say.h"
#include "broker/across_state.h"
#include "broker/metrics.h"
#include "broker/peer.h"
#include "common/file.h"

/* What publishes that wait for their answer or their echo, and subscribes that wait for the bus, may take. When it is
 * reached, requests stay in their lanes. */
#define PUBS_BYTES (32u << 20)
#define SUBS_BYTES (16u << 20)

const struct bus_topic across_control = {BUS_CONTROL, {(const uint8_t *)"hosts", 5}};

/* -- wanting -- */

/* The interest that a subscribe was for. */
static struct interest
interest_of(const struct pend *r)
{
    return (struct interest){.peer = r->peer, .chan = r->ring_chan, .gen = r->ring_gen};
}

/* A later ring in the same slot may have an interest of the same handle. */
static bool
is_same_ring(const struct broker *b, const struct pend *r)
{
    return pool_find(&b->peers, r->peer, r->peer_gen) != NULL;
}

/* Its subscribes have waited for this. A wait that ended with its time was taken out before. */
void
across_waits_end(struct across *a, struct across_chan *ac)
{
    for (uint64_t at = ac->wait_first, next; at != 0; at = next) {
        struct pend *r = pends_at(&a->subs, at);
        next = r->next;
        if (is_same_ring(a->b, r))
            chan_stand(ac->ch, interest_of(r));
        peer_resolve(a->b, r->peer, r->peer_gen, r->answer, ERR_NONE);
        pends_end(&a->subs, at);
    }
    ac->wait_first = ac->wait_last = 0;
}

static enum across_rc
wait_for_bus(struct across *a, struct peer *p, struct across_chan *ac, struct interest i)
{
    struct broker *b = a->b;
    uint64_t at = pends_put(&a->subs, 0);
    if (at == 0)
        return ACROSS_LATER;
    struct pend *r = pends_at(&a->subs, at);
    r->since = b->now;
    r->answers = true;
    r->peer = peer_slot(b, p);
    r->peer_gen = p->head.gen;
    r->answer = peer_defer(p);
    r->chan = pool_slot(&b->chans, ac->ch);
    r->chan_gen = ac->ch->head.gen;
    r->ring_chan = i.chan;
    r->ring_gen = i.gen;
    if (ac->wait_first == 0)
        ac->wait_first = at;
    else
        pends_at(&a->subs, ac->wait_last)->next = at;
    ac->wait_last = at;
    return ACROSS_WAITS;
}

bool
across_has_room(const struct broker *b, const struct peer *p)
{
    return pends_has_room(&b->across->subs, 0) && peer_can_defer(p);
}

static bool
want(struct across *a, struct chan *ch)
{
    struct across_chan *ac = calloc(1, sizeof *ac);
    if (ac == NULL || !a->bus->ops->join(a->bus, (struct bus_topic){BUS_CHANNEL, chan_name(ch)})) {
        free(ac);
        return false;
    }
    ac->ch = ch;
    ac->source = POOL_NONE;
    ch->across = ac;
    return true;
}

enum across_rc
across_subscribe(struct broker *b, struct peer *p, struct chan *ch, struct interest i, bool wants_answer,
    enum error_id *err)
{
    struct across *a = b->across;
    *err = ERR_NONE;
    if (ch->across == NULL && !want(a, ch)) {
        *err = ERR_BROKER_CHANNELS;
        return ACROSS_DONE;
    }
    /* A ring that comes back from another broker has told its clients long ago that they are subscribed. One that asks
     * for the first time has not, whoever else is new: nothing can have passed its clients by. */
    bool waits = wants_answer && b->conf->bus_subscribe_wait > 0;
    if (!ch->across->confirmed && waits)
        return wait_for_bus(a, p, ch->across, i);
    ch->across->unsure |= !ch->across->confirmed;
    chan_stand(ch, i);
    return ACROSS_DONE;
}

void
across_forget(struct broker *b, struct chan *ch)
{
    struct across *a = b->across;
    struct across_chan *ac = ch->across;
    across_waits_end(a, ac);
    across_say_forget(a, ac);
    across_hear_forget(a, ac);
    a->bus->ops->leave(a->bus, (struct bus_topic){BUS_CHANNEL, chan_name(ch)});
    free(ac);
    ch->across = NULL;
}

enum across_rc
across_publish(struct broker *b, struct peer *p, struct view name, bool has_data, struct view data, bool wants_answer,
    enum error_id *err)
{
    struct across *a = b->across;
    *err = ERR_NONE;
    if (!b->conf->redis_required || a->bus->ops->is_up(a->bus, (struct bus_topic){BUS_CHANNEL, name}))
        return across_say_publish(a, p, name, has_data, data, wants_answer, err);
    *err = ERR_BUS_AWAY;
    COUNT(b, bus_refused_total);
    return ACROSS_DONE;
}

/* -- deadlines -- */

/* The bus has not confirmed the channel in time. */
static void
sub_late(struct across *a, uint64_t at)
{
    struct broker *b = a->b;
    struct pend r = *pends_at(&a->subs, at);
    struct chan *ch = pool_at(&b->chans, r.chan);
    struct across_chan *ac = ch->across; /* it is there: across_forget ends what waits for it */
    ac->wait_first = r.next;             /* and it is the oldest of it */
    if (ac->wait_first == 0)
        ac->wait_last = 0;
    pends_end(&a->subs, at);
    COUNT(b, bus_unconfirmed_total);
    bool ok = strcmp(b->conf->bus_unconfirmed, "ack") == 0, same = is_same_ring(b, &r);
    ac->unsure |= ok;
    if (ok && same)
        chan_stand(ch, interest_of(&r));
    peer_resolve(b, r.peer, r.peer_gen, r.answer, ok ? ERR_NONE : ERR_BUS_UNCONFIRMED);
    if (!ok && same && !chan_stands(ch, interest_of(&r))) /* or other clients of the ring go on hearing it */
        peer_unwant(b, r.peer, r.peer_gen, r.ring_chan, r.ring_gen);
}

static struct mono
ago(struct mono now, uint64_t ms)
{
    return (struct mono){now.ns - MIN(now.ns, ms * 1000000)};
}

static void
look_at_deadlines(struct across *a)
{
    const struct conf *conf = a->b->conf;
    for (uint64_t at; (at = pends_late(&a->subs, ago(a->b->now, conf->bus_subscribe_wait))) != 0;)
        sub_late(a, at);
    for (uint64_t at; (at = pends_late(&a->pubs, ago(a->b->now, conf->bus_ack_wait))) != 0;)
        across_say_late(a, at);
}

/* -- the turn -- */

void
across_turn(struct broker *b)
{
    struct across *a = b->across;
    if (LIKELY(a == NULL)) {
        b->bus_wait_ms = UINT32_MAX;
        return;
    }
    across_say_awake(a);
    across_hear_asks(a);
    across_say_marks_due(a);
    across_say_marks_quiet(a);
    across_hear_judge(a);
    look_at_deadlines(a);
    GAUGE(b, bus_sources, a->sources.pool.live);
    GAUGE(b, bus_waiting, a->waiting);
    GAUGE(b, bus_followed, a->heard_count);
    uint32_t ms = a->bus->ops->turn(a->bus, b->now);
    if (a->sources.due_first != POOL_NONE || a->ask_again)
        ms = MIN(ms, (uint32_t)ACROSS_MARK_MS / 2);
    b->bus_wait_ms = MIN(ms, across_hear_wait_ms(a));
}

bool
across_is_idle(const struct broker *b)
{
    return b->across == NULL || b->across->waiting == 0;
}

/* -- making it -- */

static void
on_state(void *arg, enum bus_state state, const char *why)
{
    struct broker *b = arg;
    struct across *a = b->across;
    if (a->state != BUS_UP)
        COUNT_N(b, bus_away_ms_total, mono_since_ms(b->now, a->since));
    a->since = b->now;
    a->hears_all = state == BUS_UP;
    a->state = state;
    GAUGE(b, bus_state, state);
    log_info("bus-state", "state=%s why=\"%s\"", bus_state_str(state), why != NULL ? why : "");
}

struct envelope_origin
across_self(const struct broker *b)
{
    return b->across->self;
}

void
across_hear_hosts(struct broker *b, void (*on_heartbeat)(struct broker *, const struct envelope *))
{
    b->across->on_heartbeat = on_heartbeat;
}

void
across_hear_back(struct broker *b, void (*on_back)(struct broker *))
{
    b->across->on_back = on_back;
}

bool
across_say_host(struct broker *b, struct view body)
{
    struct across *a = b->across;
    struct envelope e = {.kind = ENVELOPE_HOST, .origin = a->self};
    return a->bus->ops->is_up(a->bus, across_control) && across_say(a, across_control, &e, body, TOKEN(TOKEN_CONTROL, 0));
}

/* The same host after a restart, another one elsewhere: from the machine's id (systemd: machine-id(5)) or else its
 * name, run.dir and host.name. */
static void
host_id(const struct conf *conf, uint8_t id[8])
{
    char text[1024];
    struct utsname u = {0};
    char machine[64] = "";
    int fd = file_open("/etc/machine-id");
    ssize_t n = fd >= 0 ? read(fd, machine, sizeof machine - 1) : -1;
    if (fd >= 0)
        close(fd);
    if (n < 32)
        (void)uname(&u);
    int len = snprintf(text, sizeof text, "%s|%s|%s|%s", n < 32 ? "" : machine, u.nodename, conf->run_dir, conf->host_name);
    uint64_t hash = XXH3_64bits(text, MIN((size_t)MAX(len, 0), sizeof text - 1));
    memcpy(id, &hash, 8);
}

static const struct bus_ears ears = {across_hear_on_message, across_hear_on_joined, across_hear_on_lost, across_say_on_fate, on_state};

static bool
across_init(struct across *a, struct broker *b, struct conf_error *err)
{
    a->b = b;
    for (unsigned l = 0; l < LINES; l++)
        a->lines[l].line_prev = a->lines[l].line_next = &a->lines[l];
    a->epoch = 1;
    a->lived = a->seen = a->since = b->now;
    a->state = BUS_DOWN;
    a->order_bus = strcmp(b->conf->bus_order, "bus") == 0;
    a->self.broker = b->index;
    host_id(b->conf, a->self.host);
    bool ok = getrandom(&a->self.epoch, sizeof a->self.epoch, 0) == sizeof a->self.epoch &&
        origins_init(&a->origins, b->seed) && sources_init(&a->sources, (uint32_t)b->conf->bus_max_sources) &&
        pends_init(&a->pubs, PUBS_BYTES) && pends_init(&a->subs, SUBS_BYTES);
    return ok || conf_fail(err, "can't begin: memory for bus.max_sources is out");
}

bool
across_open(struct broker *b, const struct bus_ops *ops, struct conf_error *err)
{
    b->bus_wait_ms = UINT32_MAX;
    if (ops != &bus_none) {
        b->across = calloc(1, sizeof *b->across);
        if (b->across == NULL)
            return conf_fail(err, "can't begin: memory is out");
        if (!across_init(b->across, b, err))
            return false;
    }
    b->bus = ops->open(b->conf, &b->ring, b->metrics, &ears, b, err);
    if (b->bus == NULL || b->across == NULL)
        return b->bus != NULL;
    b->across->bus = b->bus;
    GAUGE(b, bus_state, b->bus->state);
    return b->bus->ops->join(b->bus, across_control) || conf_fail(err, "can't begin: memory is out");
}

void
across_close(struct broker *b)
{
    struct across *a = b->across;
    for (uint32_t i = 0; a != NULL && b->chans.mem != NULL && i < b->chans.used; i++) {
        struct chan *ch = pool_at(&b->chans, i);
        if (ch->head.next == POOL_LIVE && ch->across != NULL)
            across_forget(b, ch);
    }
    if (a != NULL && a->waiting > 0)
        log_warn("bus-given-up", "messages=%" PRIu64 " why=\"this broker ends, and the bus (%s) has not said that it took them\"",
            a->waiting, bus_state_str(a->state));
    if (b->bus != NULL)
        b->bus->ops->close(b->bus);
    b->bus = NULL;
    if (a == NULL)
        return;
    origins_fini(&a->origins);
    sources_fini(&a->sources);
    pends_fini(&a->pubs);
    pends_fini(&a->subs);
    free(a);
    b->across = NULL;
}
