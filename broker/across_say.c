#include "broker/across_say.h"

#include "broker/across_state.h"
#include "broker/metrics.h"
#include "broker/peer.h"

/* A turn later than this, or a mark: who asked may have waited for us for too long. */
#define STALL_MS (ACROSS_GRACE_MS / 2)
/* So much of the time between two turns counts as lived through; idle turns are never further apart. What came while
 * this process stood still is not judged as late. */
#define LIVED_MS (STALL_MS / 2)

/* -- own numbers -- */

static struct source *
source_of(struct across *a, struct chan *ch, struct view name, uint32_t hash)
{
    struct across_chan *ac = ch != NULL ? ch->across : NULL;
    struct source *e = ac != NULL ? pool_find(&a->sources.pool, ac->source, ac->source_gen) : NULL;
    if (LIKELY(e != NULL))
        return e;
    e = sources_want(&a->sources, name, hash);
    if (e != NULL && ac != NULL) {
        ac->source = sources_slot(&a->sources, e);
        ac->source_gen = e->head.gen;
    }
    return e;
}

/* Asks may have waited for us while we stood still. */
void
across_say_awake(struct across *a)
{
    uint64_t ns = a->b->now.ns - a->seen.ns;
    a->epoch += ns > STALL_MS * 1000000ull;
    a->lived.ns += MIN(ns, LIVED_MS * 1000000ull);
    a->seen = a->b->now;
}

/* Who asked for its number has not been told, and waits no longer. */
static bool
is_late(const struct across *a, const struct source *e)
{
    return e->asked.ns != 0 && mono_since_ms(a->b->now, e->asked) > STALL_MS;
}

/* Who hears this source for the first time: may it have been told before, had it asked? Is there a hole behind? */
static unsigned
flags_of(struct across *a, struct source *e, bool up)
{
    across_say_awake(a);
    unsigned flags = e->epoch != a->epoch || !a->hears_all || is_late(a, e) ? ENVELOPE_REJOIN : 0;
    if (!up || e->taken + e->waiting != e->last)
        flags |= ENVELOPE_AGAIN;
    if (up && a->hears_all)
        e->epoch = a->epoch;
    return flags;
}

bool
across_say(struct across *a, struct bus_topic t, const struct envelope *e, struct view body, uint64_t token)
{
    uint8_t head[ENVELOPE_HEAD_MAX];
    size_t n = envelope_put(head, e);
    return a->bus->ops->publish(a->bus, t, view_of(head, n), body, token);
}

/* What an envelope of this source says of it, but its number. */
static struct envelope
envelope_of(struct across *a, struct source *e, enum envelope_kind kind, bool up)
{
    struct envelope out = {.kind = kind, .flags = flags_of(a, e, up), .origin = a->self, .stretch = e->stretch,
        .behind = e->last - e->taken};
    if (UNLIKELY(e->base > 0)) {
        out.flags |= ENVELOPE_BASE;
        out.base = e->base;
        out.base_age = mono_since_ms(a->b->now, e->base_at);
    }
    return out;
}

/* -- marks -- */

static bool
mark_now(struct across *a, struct source *e)
{
    struct bus_topic t = {BUS_CHANNEL, sources_name(e)};
    if (mono_since_ms(a->b->now, e->marked) < ACROSS_MARK_MS || !a->bus->ops->is_up(a->bus, t))
        return false;
    struct envelope mark = envelope_of(a, e, ENVELOPE_MARK, true);
    mark.number = e->last;
    if (!across_say(a, t, &mark, VIEW_NONE, TOKEN(TOKEN_MARK, sources_slot(&a->sources, e))))
        return false;
    e->marks++;
    e->asked = (struct mono){0};
    e->owes = false; /* unless something befalls the mark */
    sources_marked(&a->sources, e, a->b->now);
    COUNT(a->b, bus_marks_total);
    return true;
}

/* Those who asked, and what was dropped. What can't be said yet goes behind the others. */
void
across_say_marks_due(struct across *a)
{
    if (a->bus->state == BUS_DOWN)
        return;
    uint32_t last = a->sources.due_last;
    for (unsigned n = 0; n < ACROSS_A_TURN; n++) {
        struct source *e = sources_due_take(&a->sources);
        if (e == NULL)
            break;
        bool was_last = sources_slot(&a->sources, e) == last;
        if (!mark_now(a, e))
            sources_due(&a->sources, e);
        if (was_last)
            break;
    }
}

/* Channels that have been quiet for a heartbeat: so that a lost last message is noticed. Without bus.marks only where a
 * mark was refused. */
void
across_say_marks_quiet(struct across *a)
{
    const struct conf *conf = a->b->conf;
    for (unsigned n = 0; n < ACROSS_A_TURN && a->sources.fresh.oldest != POOL_NONE; n++) {
        struct source *e = sources_at(&a->sources, a->sources.fresh.oldest);
        if (mono_since_ms(a->b->now, e->said) < conf->bus_heartbeat)
            break;
        bool is_wanted = conf->bus_marks || e->owes;
        if (is_wanted && mark_now(a, e))
            continue;
        sources_marked(&a->sources, e, e->marked);
        if (is_wanted)
            sources_due(&a->sources, e);
    }
}

/* -- publishing -- */

static bool
has_room(struct across *a, struct chan *ch, struct peer *p, struct view data, bool answers, bool echo)
{
    if (ch != NULL && !chan_has_room(a->b, ch, data.n))
        return false;
    return (!answers || peer_can_defer(p)) && ((!answers && !echo) || pends_has_room(&a->pubs, echo ? data.n : 0));
}

/* The record of a message that is to come back, or whose publisher waits. */
static uint64_t
pub_put(struct across *a, struct source *s, struct chan *ch, bool echo, bool has_data, struct view data)
{
    uint64_t at = pends_put(&a->pubs, echo ? data.n : 0);
    struct pend *r = pends_at(&a->pubs, at);
    r->since = a->b->now;
    r->number = s->last + 1;
    r->source = sources_slot(&a->sources, s);
    r->has_data = has_data;
    r->echo = echo;
    if (!echo)
        return at;
    r->chan = pool_slot(&a->b->chans, ch);
    r->chan_gen = ch->head.gen;
    if (data.n)
        memcpy(r->data, data.p, data.n);
    return at;
}

static void
echo_in(struct across *a, struct across_chan *ac, struct source *s, uint64_t at)
{
    s->echoes++;
    if (ac->echo_first == 0)
        ac->echo_first = at;
    else
        pends_at(&a->pubs, ac->echo_last)->next = at;
    ac->echo_last = at;
}

static void
pub_end(struct across *a, struct pend *r, uint64_t at)
{
    if (!r->echo && !r->answers && r->fated)
        pends_end(&a->pubs, at);
}

/* Delivers own messages up to this number: they have come back, or will not, or not in time. */
void
across_say_echoes(struct across *a, struct across_chan *ac, uint64_t upto)
{
    while (ac->echo_first != 0) {
        uint64_t at = ac->echo_first;
        struct pend *r = pends_at(&a->pubs, at);
        if (r->number > upto)
            return;
        ac->echo_first = r->next;
        chan_deliver(a->b, ac->ch, r->has_data, view_of(r->data, r->n));
        sources_at(&a->sources, r->source)->echoes--;
        r->echo = false;
        pub_end(a, r, at);
    }
}

static bool
number_and_say(struct across *a, struct source *s, struct view name, bool up, bool has_data, struct view data,
    uint64_t token)
{
    struct envelope e = envelope_of(a, s, ENVELOPE_MESSAGE, up);
    e.number = s->last + 1;
    e.flags |= has_data ? ENVELOPE_HAS_DATA : 0;
    if (!across_say(a, (struct bus_topic){BUS_CHANNEL, name}, &e, data, token))
        return false;
    s->last++;
    s->waiting++;
    a->waiting++;
    sources_said(&a->sources, s, a->b->now);
    COUNT(a->b, bus_published_total);
    return true;
}

static void
deliver_here(struct across *a, struct peer *p, struct chan *ch, bool echo, bool has_data, struct view data)
{
    struct broker *b = a->b;
    COUNT(b, publishes_total);
    COUNT_N(b, publish_bytes_total, data.n);
    if (ch == NULL) {
        COUNT(b, unheard_total);
        return;
    }
    if (!echo) {
        if (UNLIKELY(ch->across->echo_first != 0)) /* the bus went away meanwhile: in order, then */
            across_say_echoes(a, ch->across, UINT64_MAX);
        chan_deliver(b, ch, has_data, data);
    }
    chan_slow(b, ch, peer_slot(b, p));
}

enum across_rc
across_say_publish(struct across *a, struct peer *p, struct view name, bool has_data, struct view data, bool wants_answer,
    enum error_id *err)
{
    struct broker *b = a->b;
    uint32_t hash = chan_hash(b, name);
    struct chan *ch = chan_find_hashed(b, name, hash);
    bool up = a->bus->ops->is_up(a->bus, (struct bus_topic){BUS_CHANNEL, name});
    bool echo = a->order_bus && up && ch != NULL && ch->across->confirmed;
    bool answers = wants_answer && strcmp(b->conf->bus_ack, "bus") == 0;
    if (!has_room(a, ch, p, data, answers, echo))
        return ACROSS_LATER;
    struct source *s = source_of(a, ch, name, hash);
    uint64_t at = s != NULL && (answers || echo) ? pub_put(a, s, ch, echo, has_data, data) : 0;
    uint64_t token = at ? TOKEN(TOKEN_PEND, at) : s != NULL ? TOKEN(TOKEN_PLAIN, sources_slot(&a->sources, s)) : 0;
    if (s == NULL || !number_and_say(a, s, name, up, has_data, data, token)) {
        if (at)
            pends_end(&a->pubs, at);
        *err = ERR_BUS_REFUSED;
        COUNT(b, bus_refused_total);
        return ACROSS_DONE;
    }
    if (echo)
        echo_in(a, ch->across, s, at);
    deliver_here(a, p, ch, echo, has_data, data);
    if (!answers)
        return ACROSS_DONE;
    struct pend *r = pends_at(&a->pubs, at);
    r->answers = true;
    r->peer = peer_slot(b, p);
    r->peer_gen = p->head.gen;
    r->answer = peer_defer(p);
    return ACROSS_WAITS;
}

/* The bus took a message or a mark: what was said before it was taken too, or is told by it. */
static void
all_told(struct across *a, struct source *s)
{
    if (s->taken == s->last - s->waiting)
        return;
    s->taken = s->last - s->waiting;
    s->taken_at = a->b->now;
}

/* What became of a message. The number of one that the bus did not take is used up. */
static void
source_fate(struct across *a, struct source *s, enum bus_fate fate)
{
    s->waiting--;
    a->waiting--;
    if (fate == BUS_TAKEN) {
        all_told(a, s);
        return;
    }
    if (fate == BUS_DROPPED)
        COUNT(a->b, bus_dropped_total);
    else
        COUNT(a->b, bus_refused_total);
    s->owes = true;
    sources_due(&a->sources, s); /* others are to notice, even if nothing follows */
}

static void
pend_fate(struct across *a, uint64_t at, enum bus_fate fate)
{
    struct pend *r = pends_at(&a->pubs, at);
    struct broker *b = a->b;
    source_fate(a, sources_at(&a->sources, r->source), fate);
    struct chan *ch = r->echo ? pool_find(&b->chans, r->chan, r->chan_gen) : NULL;
    if (r->answers)
        peer_resolve(b, r->peer, r->peer_gen, r->answer, fate == BUS_TAKEN ? ERR_NONE : ERR_BUS_REFUSED);
    r->answers = false;
    r->fated = true;
    if (fate != BUS_TAKEN && ch != NULL)
        across_say_echoes(a, ch->across, r->number); /* nothing will come back */
    else
        pub_end(a, r, at);
}

static void
mark_fate(struct across *a, struct source *s, enum bus_fate fate)
{
    s->marks--;
    if (fate == BUS_TAKEN) {
        all_told(a, s);
        return;
    }
    s->epoch = 0; /* who asked for it has not heard it */
    s->owes = true;
    if (fate == BUS_DROPPED)
        sources_due(&a->sources, s);
    else
        sources_said(&a->sources, s, a->b->now); /* again after a heartbeat */
}

void
across_say_on_fate(void *arg, struct bus_topic topic, uint64_t token, enum bus_fate fate)
{
    struct across *a = ((struct broker *)arg)->across;
    (void)topic;
    switch ((enum token_kind)(token >> 62)) {
    case TOKEN_CONTROL:
        a->ask_again |= fate != BUS_TAKEN;
        a->back_wanted |= fate != BUS_TAKEN && TOKEN_REST(token) == 1;
        break;
    case TOKEN_MARK:
        mark_fate(a, sources_at(&a->sources, (uint32_t)TOKEN_REST(token)), fate);
        break;
    case TOKEN_PLAIN: source_fate(a, sources_at(&a->sources, (uint32_t)TOKEN_REST(token)), fate); break;
    case TOKEN_PEND: pend_fate(a, TOKEN_REST(token), fate); break;
    }
}

/* The bus has not said what became of a message, or not sent it back. */
void
across_say_late(struct across *a, uint64_t at)
{
    struct broker *b = a->b;
    struct pend *r = pends_at(&a->pubs, at);
    if (r->answers) {
        COUNT(b, bus_unconfirmed_total);
        peer_resolve(b, r->peer, r->peer_gen, r->answer, ERR_BUS_UNCONFIRMED);
        r->answers = false;
    }
    if (r->echo) {
        COUNT(b, bus_late_echoes_total);
        across_say_echoes(a, ((struct chan *)pool_at(&b->chans, r->chan))->across, r->number);
    } else {
        pub_end(a, r, at);
    }
}

void
across_say_forget(struct across *a, struct across_chan *ac)
{
    for (uint64_t at = ac->echo_first, next; at != 0; at = next) {
        struct pend *r = pends_at(&a->pubs, at);
        next = r->next;
        sources_at(&a->sources, r->source)->echoes--;
        r->echo = false;
        pub_end(a, r, at);
    }
    ac->echo_first = ac->echo_last = 0;
}
