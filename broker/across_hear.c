#include "broker/across_hear.h"

#include <stdlib.h>

#include "broker/across_say.h"
#include "broker/across_state.h"
#include "broker/metrics.h"
#include "common/lane.h"
#include "proto/json.h"
#include "proto/plain.h"
#include "proto/ws.h"

/* Who has asked just now collects names for so long. */
#define ASK_MS 50
/* Who was heard on a channel before its link was lost and says nothing for so long after its return is taken for dead:
 * what it said meanwhile nobody can count any more. Longer than any pause between two tries to reach a bus. */
#define GONE_MS 30000
/* An ask that has not come back by then will not, though no link was lost; it is said again. */
#define ASK_LOST_MS 10000
/* Envelopes of asks in one turn. */
#define ASKS_A_TURN 64

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
        ac->settled = mono_add_ms(a->lived, ACROSS_GRACE_MS);
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
    if (!across_say(a, across_control, &e, view_of(a->ask_body, n), TOKEN(TOKEN_CONTROL, 0)))
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
    return line_first(a, LINE_ASKS) != NULL && a->control_was_joined && a->bus->ops->is_up(a->bus, across_control);
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
    a->ask_again_at = mono_add_ms(a->b->now, ACROSS_GRACE_MS);
    for (enum across_line l = LINE_OPEN; l <= LINE_JUDGES; l++)
        for (struct across_chan *ac; (ac = line_first(a, l)) != NULL;)
            ask_in(a, ac);
}

static void
ask_lost(struct across *a)
{
    struct across_chan *ac;
    for (unsigned n = 0; n < ACROSS_A_TURN && (ac = line_first(a, LINE_OPEN)) != NULL; n++) {
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
            if (across_say(a, (struct bus_topic){BUS_CHANNEL, name}, &mark, VIEW_NONE, TOKEN(TOKEN_CONTROL, 0)))
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
    a->back_wanted = !a->bus->ops->is_up(a->bus, across_control) || !across_say(a, across_control, &e, VIEW_NONE, TOKEN(TOKEN_CONTROL, 1));
}

void
across_hear_asks(struct across *a)
{
    if (UNLIKELY(a->back_wanted) && a->control_was_joined)
        say_back(a);
    if (UNLIKELY(a->ask_again) && mono_reached(a->b->now, a->ask_again_at))
        ask_again(a);
    ask_lost(a);
    asks_due(a);
}

uint32_t
across_hear_wait_ms(const struct across *a)
{
    return can_ask(a) ? (uint32_t)(ASK_MS - MIN(mono_since_ms(a->b->now, a->asked), ASK_MS)) : UINT32_MAX;
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
        across_say_echoes(a, ac, e->number);
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

void
across_hear_on_message(void *arg, struct bus_topic topic, struct view bytes)
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

void
across_hear_on_joined(void *arg, struct bus_topic topic)
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
    across_waits_end(a, ac);
}

void
across_hear_on_lost(void *arg, struct bus_topic topic)
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
    across_say_echoes(b->across, ac, UINT64_MAX);
    if (is_settled(b->across, ac)) {
        ac->lost = true;
        return;
    }
    /* Who had not answered yet can't be followed: it begins anew. */
    gap(b->across, ac, 0);
    ac->lost = false;
    ac->settled = (struct mono){0};
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

void
across_hear_judge(struct across *a)
{
    struct across_chan *ac;
    for (unsigned n = 0; n < ACROSS_A_TURN && (ac = line_first(a, LINE_JUDGES)) != NULL; n++) {
        if (!mono_reached(a->lived, ac->until))
            return;
        line_out(ac);
        ac->judge_by = (struct mono){0};
        judge(a, ac);
    }
}

void
across_hear_forget(struct across *a, struct across_chan *ac)
{
    line_out(ac);
    a->heard_count -= ac->heard_count;
    free(ac->heard);
}
