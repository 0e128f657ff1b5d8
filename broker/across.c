#include "broker/across.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <xxhash.h>

#include "broker/metrics.h"
#include "broker/origins.h"
#include "broker/peer.h"
#include "broker/pends.h"
#include "broker/sources.h"
#include "common/file.h"
#include "proto/json.h"
#include "proto/plain.h"
#include "proto/ws.h"

/* How long after our ask came back an origin that has not been heard of may still answer it. */
#define GRACE_MS 1000
/* One mark serves all who asked within this time; who has asked just now collects names for as long. */
#define MARK_MS 50
#define ASK_MS 50
/* Who was heard on a channel before its link was lost and says nothing for so long after its return is taken for dead:
 * what it said meanwhile nobody can count any more. Longer than any pause between two tries to reach a bus. */
#define GONE_MS 30000
/* An ask that has not come back by then will not, though no link was lost; it is said again. */
#define ASK_LOST_MS 10000
/* A turn later than this, or a mark: who asked may have waited for us for too long. */
#define STALL_MS (GRACE_MS / 2)
/* So much of the time between two turns counts as lived through; idle turns are never further apart. What came while
 * this process stood still is not judged as late. */
#define LIVED_MS (STALL_MS / 2)
/* Marks and envelopes of asks in one turn. */
#define MARKS_A_TURN 1024
#define ASKS_A_TURN 64
/* What publishes that wait for their answer or their echo, and subscribes that wait for the bus, may take. When it is
 * reached, requests stay in their lanes. */
#define PUBS_BYTES (32u << 20)
#define SUBS_BYTES (16u << 20)

/* The last message heard of an origin on a channel. */
struct heard {
    uint32_t origin, gen; /* in a->origins */
    uint32_t losses;      /* of the channel, when it was heard */
    uint64_t stretch, last;
};

/* A channel stands in one of these at most, about in the order of `until`. */
enum across_line {
    LINE_NONE,
    LINE_ASKS,   /* to be asked for */
    LINE_OPEN,   /* asked, and the ask has not come back */
    LINE_JUDGES, /* it came back after a lost link: somebody may be missing for good */
    LINES
};

struct across_chan {
    struct chan *ch;
    struct across_chan *line_prev, *line_next;
    enum across_line line;
    struct mono until;    /* of across.lived: it stays in its line */
    struct mono judge_by; /* the same: the latest time for that, however often it is asked anew meanwhile */
    bool confirmed;       /* the bus has it, and its link holds */
    bool begun;           /* it was confirmed once, and what was said then is not void */
    bool unsure;          /* a subscribe was answered before it was confirmed: a gap is to be told then */
    bool lost;            /* its link was lost since it began */
    uint32_t losses;
    struct mono settled;  /* of across.lived: from then on an origin not heard of begins with 1; 0: not known yet */
    struct mono joined;   /* when it was confirmed, the time before it settled */
    uint32_t source, source_gen;
    uint32_t heard_count, heard_cap, heard_hint;
    struct heard *heard;
    uint64_t echo_first, echo_last; /* in a->pubs: messages of ours that are to come back */
    uint64_t wait_first, wait_last; /* in a->subs: subscribes that wait for `confirmed` */
};

struct across {
    struct broker *b;
    struct bus *bus;
    struct envelope_origin self;
    struct origins origins;
    struct sources sources;
    struct pends pubs, subs;
    struct across_chan lines[LINES]; /* heads */
    uint64_t waiting;          /* messages whose fate is not known */
    uint64_t heard_count;
    uint32_t epoch;            /* of our hearing asks: another one each time that some may have been missed */
    struct mono lived;         /* a clock that stands still when this process does */
    enum bus_state state;      /* as it was told last */
    bool control_was_joined;   /* once */
    bool hears_all;            /* asks by whichever server they come */
    bool back_wanted;          /* others are to be told that we hear asks again */
    bool ask_again;            /* an ask was lost on its way */
    bool order_bus;
    struct mono ask_again_at, seen, since; /* since: the bus is in its state */
    struct mono asked;
    void (*on_heartbeat)(struct broker *, const struct envelope *);
    void (*on_back)(struct broker *);
    uint8_t ask_body[ENVELOPE_ASK_MAX];
};

static const struct bus_topic control = {BUS_CONTROL, {(const uint8_t *)"hosts", 5}};

/* What a token of a publish means. */
enum token_kind {
    TOKEN_CONTROL,
    TOKEN_MARK,  /* the rest: slot of a source */
    TOKEN_PLAIN, /* the same */
    TOKEN_PEND,  /* the rest: a record of a->pubs */
};
#define TOKEN(kind, rest) ((uint64_t)(kind) << 62 | (rest))
#define TOKEN_REST(t) ((t) & ((1ull << 62) - 1))

static bool
is_word(const char *setting, const char *word)
{
    return strcmp(setting, word) == 0;
}

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
static void
look_awake(struct across *a)
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
    look_awake(a);
    unsigned flags = e->epoch != a->epoch || !a->hears_all || is_late(a, e) ? ENVELOPE_REJOIN : 0;
    if (!up || e->taken + e->waiting != e->last)
        flags |= ENVELOPE_AGAIN;
    if (up && a->hears_all)
        e->epoch = a->epoch;
    return flags;
}

static bool
say(struct across *a, struct bus_topic t, const struct envelope *e, struct view body, uint64_t token)
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
    if (mono_since_ms(a->b->now, e->marked) < MARK_MS || !a->bus->ops->is_up(a->bus, t))
        return false;
    struct envelope mark = envelope_of(a, e, ENVELOPE_MARK, true);
    mark.number = e->last;
    if (!say(a, t, &mark, VIEW_NONE, TOKEN(TOKEN_MARK, sources_slot(&a->sources, e))))
        return false;
    e->marks++;
    e->asked = (struct mono){0};
    e->owes = false; /* unless something befalls the mark */
    sources_marked(&a->sources, e, a->b->now);
    COUNT(a->b, bus_marks_total);
    return true;
}

/* Those who asked, and what was dropped. What can't be said yet goes behind the others. */
static void
marks_due(struct across *a)
{
    if (a->bus->state == BUS_DOWN)
        return;
    uint32_t last = a->sources.due_last;
    for (unsigned n = 0; n < MARKS_A_TURN; n++) {
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
static void
marks_quiet(struct across *a)
{
    const struct conf *conf = a->b->conf;
    for (unsigned n = 0; n < MARKS_A_TURN && a->sources.fresh.oldest != POOL_NONE; n++) {
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

/* -- asks -- */

static void
line_out(struct across_chan *ac)
{
    if (ac->line == LINE_NONE)
        return;
    ac->line_prev->line_next = ac->line_next;
    ac->line_next->line_prev = ac->line_prev;
    ac->line = LINE_NONE;
}

static void
line_in(struct across *a, struct across_chan *ac, enum across_line line, struct mono until)
{
    struct across_chan *head = &a->lines[line];
    line_out(ac);
    ac->line_prev = head->line_prev;
    ac->line_next = head;
    ac->line_prev->line_next = ac;
    head->line_prev = ac;
    ac->line = line;
    ac->until = until;
}

/* The first of a line; NULL: there is none. */
static struct across_chan *
line_first(const struct across *a, enum across_line line)
{
    struct across_chan *first = a->lines[line].line_next;
    return first != &a->lines[line] ? first : NULL;
}

static void
ask_in(struct across *a, struct across_chan *ac)
{
    line_in(a, ac, LINE_ASKS, a->lived);
}

/* Our ask came back: who lives and hears it answers soon. */
static void
ask_returned(struct across *a, struct across_chan *ac)
{
    line_out(ac);
    if (ac->settled.ns == 0)
        ac->settled = mono_add_ms(a->lived, GRACE_MS);
    if (ac->losses == 0)
        return;
    if (ac->judge_by.ns == 0)
        ac->judge_by = mono_add_ms(a->lived, 2 * GONE_MS);
    struct mono at = mono_add_ms(a->lived, GONE_MS);
    line_in(a, ac, LINE_JUDGES, mono_reached(at, ac->judge_by) ? ac->judge_by : at);
}

/* Nothing can have been missed there so far: numbers are asked for only so that what comes can be followed. */
static bool
is_first_ask(const struct across_chan *ac)
{
    return ac->losses == 0;
}

static bool
ask_some(struct across *a)
{
    size_t n = 0;
    struct across_chan *ac = line_first(a, LINE_ASKS), *head = &a->lines[LINE_ASKS];
    bool first = is_first_ask(ac);
    for (; ac != head && is_first_ask(ac) == first && envelope_name_fits(n, ac->ch->name_n); ac = ac->line_next)
        n += envelope_name_put(a->ask_body + n, chan_name(ac->ch));
    struct envelope e = {.kind = ENVELOPE_ASK, .flags = first ? ENVELOPE_FIRST_ASK : 0, .origin = a->self};
    if (!say(a, control, &e, view_of(a->ask_body, n), TOKEN(TOKEN_CONTROL, 0)))
        return false;
    COUNT(a->b, bus_ask_messages_total);
    while (head->line_next != ac) {
        line_in(a, head->line_next, LINE_OPEN, mono_add_ms(a->lived, ASK_LOST_MS));
        COUNT(a->b, bus_asks_total);
    }
    return true;
}

static bool
can_ask(const struct across *a)
{
    return line_first(a, LINE_ASKS) != NULL && a->control_was_joined && a->bus->ops->is_up(a->bus, control);
}

static void
asks_due(struct across *a)
{
    if (!can_ask(a) || mono_since_ms(a->b->now, a->asked) < ASK_MS)
        return;
    a->asked = a->b->now;
    for (unsigned n = 0; n < ASKS_A_TURN && can_ask(a) && ask_some(a); n++)
        ;
}

/* Some asks did not come back, and will not; or somebody may not have heard them. Those that are open are asked anew,
 * and after a lost link those of the last GONE_MS. */
static void
ask_again(struct across *a)
{
    a->ask_again = false;
    a->ask_again_at = mono_add_ms(a->b->now, GRACE_MS);
    for (enum across_line l = LINE_OPEN; l <= LINE_JUDGES; l++)
        for (struct across_chan *ac; (ac = line_first(a, l)) != NULL;)
            ask_in(a, ac);
}

static void
ask_lost(struct across *a)
{
    struct across_chan *ac;
    for (unsigned n = 0; n < MARKS_A_TURN && (ac = line_first(a, LINE_OPEN)) != NULL; n++) {
        if (!mono_reached(a->lived, ac->until))
            return;
        ask_in(a, ac);
    }
}

/* A first ask is not worth an answer of who has been silent for long: what it says next shall tell from which number on
 * it can be missed (ADR 0011, 4). */
static bool
stays_silent(struct across *a, struct source *s)
{
    if (s->taken != s->last || s->owes ||
        mono_since_ms(a->b->now, s->taken_at) < a->b->conf->bus_answer_within)
        return false;
    s->base = s->last;
    s->base_at = s->taken_at;
    return true;
}

static void
on_ask(struct across *a, const struct envelope *e)
{
    struct broker *b = a->b;
    bool own = memcmp(&e->origin, &a->self, sizeof a->self) == 0, bad = false;
    struct view names = e->body, name;
    while (envelope_name_take(&names, &name, &bad)) {
        uint32_t hash = chan_hash(b, name);
        if (own) {
            struct chan *ch = chan_find_hashed(b, name, hash);
            if (ch != NULL && ch->across != NULL && ch->across->line == LINE_OPEN)
                ask_returned(a, ch->across);
            continue;
        }
        struct source *s = sources_find(&a->sources, name, hash);
        if (s != NULL) {
            if ((e->flags & ENVELOPE_FIRST_ASK) && stays_silent(a, s)) {
                COUNT(b, bus_unanswered_total);
                continue;
            }
            s->asked = s->asked.ns != 0 ? s->asked : b->now;
            sources_due(&a->sources, s);
        } else if (sources_forgot(&a->sources, hash)) {
            struct envelope mark = {.kind = ENVELOPE_MARK, .origin = a->self};
            if (say(a, (struct bus_topic){BUS_CHANNEL, name}, &mark, VIEW_NONE, TOKEN(TOKEN_CONTROL, 0)))
                COUNT(b, bus_marks_total);
        }
    }
    if (bad)
        COUNT(b, bus_bad_total);
    if (own || e->body.n > 0)
        return;
    a->ask_again = true; /* it is back, and asks what it has been asked meanwhile */
    if (a->on_back != NULL)
        a->on_back(b);
}

/* Others may have asked while we did not listen. */
static void
say_back(struct across *a)
{
    struct envelope e = {.kind = ENVELOPE_ASK, .origin = a->self};
    a->back_wanted = !a->bus->ops->is_up(a->bus, control) || !say(a, control, &e, VIEW_NONE, TOKEN(TOKEN_CONTROL, 1));
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
static void
echo_deliver(struct across *a, struct across_chan *ac, uint64_t upto)
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
    if (!say(a, (struct bus_topic){BUS_CHANNEL, name}, &e, data, token))
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
            echo_deliver(a, ch->across, UINT64_MAX);
        chan_deliver(b, ch, has_data, data);
    }
    chan_slow(b, ch, peer_slot(b, p));
}

enum across_rc
across_publish(struct broker *b, struct peer *p, struct view name, bool has_data, struct view data,
    bool wants_answer, enum error_id *err)
{
    struct across *a = b->across;
    uint32_t hash = chan_hash(b, name);
    struct chan *ch = chan_find_hashed(b, name, hash);
    bool up = a->bus->ops->is_up(a->bus, (struct bus_topic){BUS_CHANNEL, name});
    *err = ERR_NONE;
    if (!up && b->conf->redis_required) {
        *err = ERR_BUS_AWAY;
        COUNT(b, bus_refused_total);
        return ACROSS_DONE;
    }
    bool echo = a->order_bus && up && ch != NULL && ch->across->confirmed;
    bool answers = wants_answer && is_word(b->conf->bus_ack, "bus");
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
        echo_deliver(a, ch->across, r->number); /* nothing will come back */
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

static void
on_fate(void *arg, struct bus_topic topic, uint64_t token, enum bus_fate fate)
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

/* -- hearing -- */

static struct heard *
heard_find(struct across_chan *ac, uint32_t origin, uint32_t gen)
{
    struct heard *h = ac->heard;
    uint32_t hint = ac->heard_hint;
    if (LIKELY(hint < ac->heard_count && h[hint].origin == origin && h[hint].gen == gen))
        return &h[hint];
    for (uint32_t i = 0; i < ac->heard_count; i++)
        if (h[i].origin == origin && h[i].gen == gen) {
            ac->heard_hint = i;
            return &h[i];
        }
    return NULL;
}

/* Those of origins that nobody has heard for so long that the table forgot them. */
static void
heard_sweep(struct across *a, struct across_chan *ac)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < ac->heard_count; i++)
        if (pool_find(&a->origins.pool, ac->heard[i].origin, ac->heard[i].gen) != NULL)
            ac->heard[kept++] = ac->heard[i];
    a->heard_count -= ac->heard_count - kept;
    ac->heard_count = kept;
}

/* NULL when memory is out or bus.max_followed reached: then nobody can tell what is missing. */
static struct heard *
heard_add(struct across *a, struct across_chan *ac, const struct origin *o)
{
    if (ac->heard_count == ac->heard_cap)
        heard_sweep(a, ac);
    if (a->heard_count >= a->b->conf->bus_max_followed)
        return NULL;
    if (ac->heard_count == ac->heard_cap) {
        uint32_t cap = ac->heard_cap ? ac->heard_cap * 2 : 2;
        struct heard *v = realloc(ac->heard, cap * sizeof *v);
        if (v == NULL)
            return NULL;
        ac->heard = v;
        ac->heard_cap = cap;
    }
    a->heard_count++;
    struct heard *h = &ac->heard[ac->heard_count++];
    *h = (struct heard){.origin = origins_slot(&a->origins, o), .gen = o->head.gen};
    return h;
}

static void
gap(struct across *a, struct across_chan *ac, uint64_t count)
{
    if (count == 0)
        COUNT(a->b, bus_unknown_gaps_total);
    chan_gap(a->b, ac->ch, count);
}

/* Number of the last message that should have come before this envelope. */
static uint64_t
before(const struct envelope *e)
{
    return e->kind == ENVELOPE_MARK ? e->number : e->number - 1;
}

static bool
is_settled(const struct across *a, const struct across_chan *ac)
{
    return ac->settled.ns != 0 && mono_reached(a->lived, ac->settled);
}

/* The first word of an origin on this channel (ADR 0011, 4). */
static void
first_word(struct across *a, struct across_chan *ac, const struct envelope *e)
{
    bool again = (e->flags & ENVELOPE_AGAIN) != 0, rejoin = again || (e->flags & ENVELOPE_REJOIN) != 0;
    bool settled = is_settled(a, ac);
    bool was_silent = e->base > 0 && e->base_age > mono_since_ms(a->b->now, ac->joined); /* when we began */
    /* What was under way when this was made came before it, if it came: so who has listened for long missed it. */
    uint64_t known = before(e) - (again || settled ? MIN(e->behind, before(e)) : 0);
    if (settled && !rejoin) {
        known = e->base; /* it has begun since we listen, or was silent then */
        if (e->base > 0 && !was_silent)
            gap(a, ac, 0); /* it was not: what it said between our beginning and its base was missed */
    }
    if (settled && ac->lost && ((rejoin && known > 0) || e->stretch != 1) && !(was_silent && before(e) == e->base))
        gap(a, ac, 0);
    if (before(e) > known)
        gap(a, ac, before(e) - known);
}

/* False: heard before. */
static bool
next_word(struct across *a, struct across_chan *ac, struct heard *h, const struct envelope *e)
{
    uint64_t known = h->last;
    if (e->stretch != h->stretch || e->stretch == 0) {
        if (e->stretch != 0 && e->stretch < h->stretch)
            return false;
        if (h->losses != ac->losses)
            gap(a, ac, 0); /* the end of the last stretch: nobody knows any more */
        known = 0;
    } else if (before(e) < known) {
        return false;
    }
    if (before(e) > known)
        gap(a, ac, before(e) - known);
    return true;
}

/* Looks for holes before this envelope and remembers it. False: it was heard before. */
static bool
follow(struct across *a, struct across_chan *ac, const struct envelope *e)
{
    const struct origin *o = origins_want(&a->origins, &e->origin, a->b->now);
    if (o == NULL) {
        gap(a, ac, 0);
        return true;
    }
    struct heard *h = heard_find(ac, origins_slot(&a->origins, o), o->head.gen);
    if (h == NULL) {
        first_word(a, ac, e);
        h = heard_add(a, ac, o);
    } else if (!next_word(a, ac, h, e)) {
        return false;
    }
    if (h == NULL) {
        COUNT(a->b, bus_unfollowed_total);
        gap(a, ac, 0);
        return true;
    }
    if (e->stretch != 0) {
        h->stretch = e->stretch;
        h->last = e->number;
    }
    h->losses = ac->losses;
    return true;
}

/* What clients are sent must be what a client could have said. */
static bool
is_deliverable(const struct broker *b, const struct envelope *e)
{
    bool deep;
    if (e->body.n + 16 > lane_max_payload((uint32_t)b->conf->lane_bytes))
        return false;
    if (!(e->flags & ENVELOPE_HAS_DATA))
        return e->body.n == 0;
    return json_valid(e->body, JSON_DEPTH_MAX, &deep) && utf8_valid(e->body);
}

static void
on_own(struct across *a, struct across_chan *ac, const struct envelope *e)
{
    COUNT(a->b, bus_echoes_total);
    if (e->kind != ENVELOPE_MESSAGE || ac->echo_first == 0)
        return;
    const struct pend *r = pends_at(&a->pubs, ac->echo_first);
    if (sources_at(&a->sources, r->source)->stretch == e->stretch)
        echo_deliver(a, ac, e->number);
}

static void
on_others(struct across *a, struct across_chan *ac, const struct envelope *e)
{
    struct broker *b = a->b;
    if (!follow(a, ac, e)) {
        COUNT(b, bus_duplicates_total);
        return;
    }
    if (e->kind != ENVELOPE_MESSAGE)
        return;
    COUNT(b, bus_received_total);
    if (LIKELY(is_deliverable(b, e))) {
        chan_deliver(b, ac->ch, (e->flags & ENVELOPE_HAS_DATA) != 0, e->body);
        return;
    }
    COUNT(b, bus_bad_total);
    gap(a, ac, 1);
}

static bool
is_read(struct across *a, struct view bytes, struct envelope *e)
{
    switch (envelope_get(bytes, e)) {
    case ENVELOPE_OK: return true;
    case ENVELOPE_FOREIGN: COUNT(a->b, bus_foreign_total); return false;
    case ENVELOPE_UNKNOWN: COUNT(a->b, bus_unknown_total); return false;
    case ENVELOPE_BAD: COUNT(a->b, bus_bad_total); return false;
    }
    return false;
}

static void
on_control(struct across *a, const struct envelope *e)
{
    if (e->kind == ENVELOPE_ASK)
        on_ask(a, e);
    else if (e->kind == ENVELOPE_HOST && a->on_heartbeat != NULL)
        a->on_heartbeat(a->b, e);
}

/* What others publish, as redis-cli does: it has no number, so holes in it are nobody's to notice. */
static void
on_plain(struct across *a, struct chan *ch, struct view bytes)
{
    struct buf out = buf_make(lane_max_payload((uint32_t)a->b->conf->lane_bytes) - 16);
    if (plain_decode(bytes, JSON_DEPTH_MAX, &out)) {
        COUNT(a->b, bus_plain_total);
        chan_deliver(a->b, ch, true, buf_view(&out));
    } else {
        COUNT(a->b, bus_bad_total);
    }
    buf_free(&out);
}

static void
on_message(void *arg, struct bus_topic topic, struct view bytes)
{
    struct across *a = ((struct broker *)arg)->across;
    struct envelope e;
    struct chan *ch = topic.kind == BUS_CHANNEL ? chan_find(a->b, topic.name) : NULL;
    if (topic.kind == BUS_CHANNEL && (ch == NULL || ch->across == NULL || !ch->across->begun))
        return; /* left meanwhile */
    if (ch != NULL && a->b->conf->redis_plain && (bytes.n == 0 || bytes.p[0] != ENVELOPE_FIRST)) {
        on_plain(a, ch, bytes);
        return;
    }
    if (!is_read(a, bytes, &e))
        return;
    if (topic.kind == BUS_CONTROL)
        on_control(a, &e);
    else if (e.kind != ENVELOPE_MESSAGE && e.kind != ENVELOPE_MARK)
        COUNT(a->b, bus_bad_total);
    else if (memcmp(&e.origin, &a->self, sizeof a->self) == 0)
        on_own(a, ch->across, &e);
    else
        on_others(a, ch->across, &e);
}

/* -- topics -- */

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
static void
waits_end(struct across *a, struct across_chan *ac)
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

static void
on_joined(void *arg, struct bus_topic topic)
{
    struct broker *b = arg;
    struct across *a = b->across;
    if (topic.kind == BUS_CONTROL) {
        a->epoch++;
        a->control_was_joined = true;
        a->ask_again = a->back_wanted = true;
        return;
    }
    struct chan *ch = chan_find(b, topic.name);
    struct across_chan *ac = ch != NULL ? ch->across : NULL;
    if (ac == NULL)
        return;
    ac->confirmed = ac->begun = true;
    if (ac->settled.ns == 0)
        ac->joined = b->now;
    if (ac->unsure)
        gap(a, ac, 0);
    ac->unsure = false;
    ask_in(a, ac);
    waits_end(a, ac);
}

static void
on_lost(void *arg, struct bus_topic topic)
{
    struct broker *b = arg;
    struct chan *ch = topic.kind == BUS_CHANNEL ? chan_find(b, topic.name) : NULL;
    struct across_chan *ac = ch != NULL ? ch->across : NULL;
    if (ac == NULL || !ac->confirmed)
        return;
    ac->confirmed = false;
    ac->losses++;
    ac->judge_by = (struct mono){0};
    line_out(ac);
    echo_deliver(b->across, ac, UINT64_MAX);
    if (is_settled(b->across, ac)) {
        ac->lost = true;
        return;
    }
    /* Who had not answered yet can't be followed: it begins anew. */
    gap(b->across, ac, 0);
    ac->lost = false;
    ac->settled = (struct mono){0};
}

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

/* -- wanting -- */

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
    waits_end(a, ac);
    for (uint64_t at = ac->echo_first, next; at != 0; at = next) {
        struct pend *r = pends_at(&a->pubs, at);
        next = r->next;
        sources_at(&a->sources, r->source)->echoes--;
        r->echo = false;
        pub_end(a, r, at);
    }
    line_out(ac);
    a->bus->ops->leave(a->bus, (struct bus_topic){BUS_CHANNEL, chan_name(ch)});
    a->heard_count -= ac->heard_count;
    free(ac->heard);
    free(ac);
    ch->across = NULL;
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
    bool ok = is_word(b->conf->bus_unconfirmed, "ack"), same = is_same_ring(b, &r);
    ac->unsure |= ok;
    if (ok && same)
        chan_stand(ch, interest_of(&r));
    peer_resolve(b, r.peer, r.peer_gen, r.answer, ok ? ERR_NONE : ERR_BUS_UNCONFIRMED);
    if (!ok && same && !chan_stands(ch, interest_of(&r))) /* or other clients of the ring go on hearing it */
        peer_unwant(b, r.peer, r.peer_gen, r.ring_chan, r.ring_gen);
}

/* The bus has not said what became of a message, or not sent it back. */
static void
pub_late(struct across *a, uint64_t at)
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
        echo_deliver(a, ((struct chan *)pool_at(&b->chans, r->chan))->across, r->number);
    } else {
        pub_end(a, r, at);
    }
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
        pub_late(a, at);
}

/* Who of those heard before the link was lost has not been heard since? */
static void
judge(struct across *a, struct across_chan *ac)
{
    bool missing = false;
    for (uint32_t i = 0; i < ac->heard_count; i++) {
        missing |= ac->heard[i].losses != ac->losses;
        ac->heard[i].losses = ac->losses;
    }
    if (missing)
        gap(a, ac, 0);
}

static void
judge_some(struct across *a)
{
    struct across_chan *ac;
    for (unsigned n = 0; n < MARKS_A_TURN && (ac = line_first(a, LINE_JUDGES)) != NULL; n++) {
        if (!mono_reached(a->lived, ac->until))
            return;
        line_out(ac);
        ac->judge_by = (struct mono){0};
        judge(a, ac);
    }
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
    look_awake(a);
    if (UNLIKELY(a->back_wanted) && a->control_was_joined)
        say_back(a);
    if (UNLIKELY(a->ask_again) && mono_reached(b->now, a->ask_again_at))
        ask_again(a);
    ask_lost(a);
    asks_due(a);
    marks_due(a);
    marks_quiet(a);
    judge_some(a);
    look_at_deadlines(a);
    GAUGE(b, bus_sources, a->sources.pool.live);
    GAUGE(b, bus_waiting, a->waiting);
    GAUGE(b, bus_followed, a->heard_count);
    uint32_t ms = a->bus->ops->turn(a->bus, b->now);
    if (a->sources.due_first != POOL_NONE || a->ask_again)
        ms = MIN(ms, (uint32_t)MARK_MS / 2);
    if (can_ask(a))
        ms = MIN(ms, (uint32_t)(ASK_MS - MIN(mono_since_ms(b->now, a->asked), ASK_MS)));
    b->bus_wait_ms = ms;
}

bool
across_is_idle(const struct broker *b)
{
    return b->across == NULL || b->across->waiting == 0;
}

/* -- making it -- */

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
    return a->bus->ops->is_up(a->bus, control) && say(a, control, &e, body, TOKEN(TOKEN_CONTROL, 0));
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

static const struct bus_ears ears = {on_message, on_joined, on_lost, on_fate, on_state};

static bool
across_init(struct across *a, struct broker *b, struct conf_error *err)
{
    a->b = b;
    for (unsigned l = 0; l < LINES; l++)
        a->lines[l].line_prev = a->lines[l].line_next = &a->lines[l];
    a->epoch = 1;
    a->lived = a->seen = a->since = b->now;
    a->state = BUS_DOWN;
    a->order_bus = is_word(b->conf->bus_order, "bus");
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
    return b->bus->ops->join(b->bus, control) || conf_fail(err, "can't begin: memory is out");
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
