#include "worker/sess.h"

#include <stdlib.h>

#include "common/bug.h"
#include "proto/crypt.h"
#include "worker/behind.h"
#include "worker/fan.h"
#include "worker/metrics.h"
#include "worker/outq.h"
#include "worker/subs.h"

/* Requests one connection may have at brokers; above, it is not read from until some are answered. */
#define PENDING_MAX 16384

struct view
sess_id(const struct conn *c, char out[20])
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    for (int i = 0; i < 5; i++) {
        const uint8_t *p = c->id + i * 3;
        uint32_t v = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
        for (int k = 0; k < 4; k++)
            out[i * 4 + k] = digits[v >> (18 - 6 * k) & 63];
    }
    return view_of(out, 20);
}

/* 12 random bytes and 3 of a counter, as the reference does. */
static void
new_id(struct worker *w, struct conn *c)
{
    if (w->random_at + 12 > sizeof w->random) {
        BUG_ON(!crypt_random(w->random, sizeof w->random)); /* the system's own source */
        w->random_at = 0;
    }
    memcpy(c->id, w->random + w->random_at, 12);
    w->random_at += 12;
    uint32_t n = w->next_id++;
    c->id[12] = (uint8_t)(n >> 16);
    c->id[13] = (uint8_t)(n >> 8);
    c->id[14] = (uint8_t)n;
}

void
sess_begin(struct worker *w, struct conn *c)
{
    const struct dialect *d = dialects[c->dialect];
    _Static_assert(sizeof c->dstate >= 4, "a dialect's state lives in the connection");
    BUG_ON(d->state_size > sizeof c->dstate);
    new_id(w, c);
    if (d->handshake) {
        c->deadline = w->tick + wheel_ticks(w->conf->sc_handshake_timeout);
    } else {
        c->sess = S_OPEN;
        c->deadline = 0;
        conn_shaken(w, c);
    }
    conn_arm_timer(w, c);
}

static uint64_t
owner_of(const struct worker *w, const struct conn *c)
{
    return (uint64_t)c->head.gen << 32 | conn_slot(w, c);
}

static struct conn *
owner_find(const struct worker *w, uint64_t owner)
{
    struct conn *c = pool_find(&w->conns, (uint32_t)owner, (uint32_t)(owner >> 32));
    return c != NULL && c->head.gen == (uint32_t)(owner >> 32) ? c : NULL;
}

static uint32_t
chan_handle(const struct worker *w, const struct chan *ch)
{
    return pool_slot(&w->chans, ch) | ch->head.gen << 22;
}

static struct chan *
chan_from_handle(const struct worker *w, uint32_t handle)
{
    uint32_t slot = handle & ((1u << 22) - 1);
    if (slot >= w->chans.used)
        return NULL;
    struct chan *ch = pool_at(&w->chans, slot);
    return ch->head.next == POOL_LIVE && ch->head.gen << 22 == (handle & ~((1u << 22) - 1)) ? ch : NULL;
}

/* -- answers -- */

static void
say_done(struct worker *w, struct conn *c, struct view call_id)
{
    if (call_id.n)
        outq_event(w, c, &(struct event){.kind = EV_DONE, .call_id = call_id});
}

static void
say_failed(struct worker *w, struct conn *c, struct view call_id, enum error_id err, struct view channel)
{
    char id[20];
    metric_add(w->metrics, RM_ERROR_BASE + err, 1);
    log_info(error_str(err), "conn=%u channel=%s why=\"%s\"", conn_slot(w, c), log_quote(channel).s, error_message(err));
    if (call_id.n)
        outq_event(w, c, &(struct event){.kind = EV_FAILED, .call_id = call_id, .err = err, .channel = channel,
                             .limit = w->conf->sc_max_channels, .socket = sess_id(c, id)});
}

/* What carrying out a verb came to. */
enum effect {
    EFFECT_DONE,
    EFFECT_AGAIN, /* the connection is paused: the same verb must come again */
};

/* An answer at once must not overtake what brokers still owe this connection. */
static bool
must_wait(struct worker *w, struct conn *c, struct view call_id)
{
    if (call_id.n == 0 || c->pending == 0)
        return false;
    conn_pause(w, c, PAUSE_ANSWERS);
    return true;
}

static enum effect
fail_now(struct worker *w, struct conn *c, struct view call_id, enum error_id err, struct view channel)
{
    if (must_wait(w, c, call_id))
        return EFFECT_AGAIN;
    say_failed(w, c, call_id, err, channel);
    return EFFECT_DONE;
}

static enum effect
wait_for_room(struct worker *w, struct conn *c, unsigned broker)
{
    conn_pause(w, c, PAUSE_LINK);
    if (!(c->flags & CF_WAITING)) {
        conn_leave_unshaken(w, c); /* one pair of links serves both lists */
        c->wait_broker = (uint8_t)broker;
        c->flags |= CF_WAITING;
        queue_append(w, &w->waiting[broker], c);
    }
    return EFFECT_AGAIN;
}

/* A bound on what brokers may owe one connection. Answers of one broker come in the order of the
 * questions; those of two may overtake each other, for a broker that stands still must not hold up the
 * other's channels. */
static bool
owed_too_much(struct worker *w, struct conn *c)
{
    if (c->pending < PENDING_MAX)
        return false;
    conn_pause(w, c, PAUSE_ANSWERS);
    return true;
}

static void
asked(struct conn *c, unsigned broker)
{
    c->pending++;
    c->asked_broker = (uint8_t)broker;
}

/* -- verbs -- */

static enum effect
do_handshake(struct worker *w, struct conn *c, const struct verb *v)
{
    if (must_wait(w, c, v->call_id))
        return EFFECT_AGAIN;
    char id[20];
    outq_event(w, c, &(struct event){.kind = EV_WELCOME, .call_id = v->call_id, .err = v->err,
                         .ping_timeout_ms = (uint32_t)w->conf->sc_ping_timeout, .socket = sess_id(c, id)});
    if (v->err != ERR_NONE)
        outq_event(w, c, &(struct event){.kind = EV_FORGET_TOKEN});
    if (c->sess == S_OPEN)
        return EFFECT_DONE;
    c->sess = S_OPEN;
    conn_shaken(w, c);
    c->deadline = w->tick + wheel_ticks(w->conf->sc_ping_interval);
    conn_arm_timer(w, c);
    return EFFECT_DONE;
}

static enum effect
do_authenticate(struct worker *w, struct conn *c, const struct verb *v)
{
    if (must_wait(w, c, v->call_id))
        return EFFECT_AGAIN;
    say_failed(w, c, v->call_id, v->err != ERR_NONE ? v->err : ERR_NO_TOKEN_KEY, VIEW_NONE);
    outq_event(w, c, &(struct event){.kind = EV_FORGET_TOKEN});
    return EFFECT_DONE;
}

/* A success that stands already but must queue behind what a broker owes. */
static enum effect
done_in_turn(struct worker *w, struct conn *c, const struct verb *v)
{
    if (v->call_id.n == 0 || c->pending == 0) {
        say_done(w, c, v->call_id);
        return EFFECT_DONE;
    }
    struct call call = {.owner = owner_of(w, c), .kind = CALL_DONE, .call_id = v->call_id};
    enum error_id why;
    if (link_after(w->links, c->asked_broker, &call, &why) == LINK_OK) {
        c->pending++;
        return EFFECT_DONE;
    }
    conn_pause(w, c, PAUSE_ANSWERS);
    return EFFECT_AGAIN;
}

static enum effect
ask_for_channel(struct worker *w, struct conn *c, const struct verb *v, struct chan *ch, enum subs_rc rc)
{
    struct call call = {.owner = owner_of(w, c), .chan = chan_handle(w, ch), .call_id = v->call_id};
    unsigned broker = ch->broker;
    enum error_id why = ERR_BROKER_AWAY;
    enum link_rc lrc;
    if (rc == SUBS_NEW || !link_is_up(w->links, broker)) {
        call.kind = CALL_SUBSCRIBE;
        lrc = link_subscribe(w->links, broker, pool_slot(&w->chans, ch), ch->head.gen, chan_name(ch), &call, &why);
        ch->asked |= lrc == LINK_OK;
    } else {
        call.kind = CALL_JOIN;
        lrc = link_after(w->links, broker, &call, &why);
    }
    if (lrc == LINK_OK) {
        asked(c, broker);
        return EFFECT_DONE;
    }
    if (rc != SUBS_ALREADY)
        subs_drop(w, c, ch);
    return lrc == LINK_WAIT ? wait_for_room(w, c, broker) : fail_now(w, c, v->call_id, why, v->channel);
}

static enum effect
do_subscribe(struct worker *w, struct conn *c, const struct verb *v)
{
    if (c->sub_count >= w->conf->sc_max_channels)
        return fail_now(w, c, v->call_id, ERR_CHANNEL_LIMIT, v->channel);
    if (owed_too_much(w, c))
        return EFFECT_AGAIN;
    struct chan *ch;
    enum subs_rc rc = subs_add(w, c, v->channel, &ch);
    if (rc == SUBS_NO_MEMORY)
        return fail_now(w, c, v->call_id, ERR_BROKER_CHANNELS, v->channel);
    if (rc == SUBS_NEW || rc == SUBS_ASKED || (rc == SUBS_ALREADY && ch->state != CHAN_HELD))
        return ask_for_channel(w, c, v, ch, rc);
    return done_in_turn(w, c, v);
}

static enum effect
do_unsubscribe(struct worker *w, struct conn *c, const struct verb *v)
{
    struct chan *ch = subs_find(w, v->channel);
    if (ch == NULL || !subs_has(w, c, ch))
        return fail_now(w, c, v->call_id, ERR_NOT_SUBSCRIBED, v->channel);
    /* The answer first: if it cannot be given now the verb comes again and must find the subscription. */
    if (must_wait(w, c, v->call_id))
        return EFFECT_AGAIN;
    subs_drop(w, c, ch);
    say_done(w, c, v->call_id);
    return EFFECT_DONE;
}

/* A publish that costs more than its share to hand out waits for those that the connection has under way, and for
 * the ring to have sent most of what it has. */
static bool
costs_too_much(struct worker *w, struct conn *c)
{
    if (w->backlog > FAN_BACKLOG_HIGH) {
        conn_pause(w, c, PAUSE_FAN);
        slot_push(&w->fan_waiting, conn_slot(w, c));
        return true;
    }
    if (c->heavy < FAN_UNITS_MAX)
        return false;
    conn_pause(w, c, PAUSE_ANSWERS);
    return true;
}

static enum effect
do_publish(struct worker *w, struct conn *c, const struct verb *v)
{
    if (!w->conf->sc_client_publish)
        return fail_now(w, c, v->call_id, ERR_PUBLISH_DISABLED, v->channel);
    if (owed_too_much(w, c))
        return EFFECT_AGAIN;
    unsigned broker = links_owner(w->links, v->channel);
    struct call call = {.owner = owner_of(w, c), .kind = CALL_PUBLISH, .call_id = v->call_id};
    enum error_id why = ERR_BROKER_AWAY;
    uint32_t units = fan_units(w, v->channel, v->data.n, broker);
    if (UNLIKELY(units > 0) && costs_too_much(w, c))
        return EFFECT_AGAIN;
    bool ask = v->call_id.n > 0 || units > 0;
    switch (link_publish(w->links, v->channel, broker, v->has_data, v->data, ask ? &call : NULL, &why)) {
    case LINK_OK:
        COUNT(w, publishes_in_total);
        if (ask)
            asked(c, broker);
        c->heavy = (uint16_t)(c->heavy + units);
        return EFFECT_DONE;
    case LINK_WAIT: return wait_for_room(w, c, broker);
    case LINK_REFUSED: break;
    }
    if (must_wait(w, c, v->call_id))
        return EFFECT_AGAIN;
    COUNT(w, publishes_refused_total);
    say_failed(w, c, v->call_id, why, v->channel);
    return EFFECT_DONE;
}

static void
do_raw(struct worker *w, struct conn *c)
{
    COUNT(w, invalid_packets_total);
    uint32_t minute = wheel_ticks(60000);
    if (c->invalid == 0 || w->tick - c->invalid_at >= minute) {
        c->invalid_at = w->tick;
        c->invalid = 0;
    }
    if (++c->invalid > w->conf->sc_invalid_packets)
        conn_close(w, c, CLOSE_INVALID_PACKETS);
}

static enum effect
do_call(struct worker *w, struct conn *c, const struct verb *v)
{
    if (strcmp(w->conf->sc_unserved, "error") != 0)
        return EFFECT_DONE;
    return fail_now(w, c, v->call_id, ERR_UNSERVED, VIEW_NONE);
}

static enum effect
carry_out(struct worker *w, struct conn *c, const struct verb *v)
{
    switch (v->kind) {
    case VERB_HANDSHAKE: return do_handshake(w, c, v);
    case VERB_SUBSCRIBE: return do_subscribe(w, c, v);
    case VERB_UNSUBSCRIBE: return do_unsubscribe(w, c, v);
    case VERB_PUBLISH: return do_publish(w, c, v);
    case VERB_AUTHENTICATE: return do_authenticate(w, c, v);
    case VERB_CALL: return do_call(w, c, v);
    case VERB_ECHO:
        outq_event(w, c, &(struct event){.kind = EV_ECHO, .data = v->data, .has_data = true, .text = !v->binary});
        return EFFECT_DONE;
    case VERB_RAW: do_raw(w, c); return EFFECT_DONE;
    case VERB_REFUSE: return fail_now(w, c, v->call_id, v->err, v->channel);
    case VERB_CLOSE: conn_close(w, c, v->close); return EFFECT_DONE;
    case VERB_LOGOUT:
    case VERB_EVENT:
    case VERB_ANSWER:
    case VERB_PONG:
    case VERB_COUNT: break;
    }
    return EFFECT_DONE;
}

static enum effect
admit(struct worker *w, struct conn *c, const struct verb *v)
{
    if (LIKELY(verb_states(v->kind) & c->sess))
        return carry_out(w, c, v);
    if (w->conf->sc_strict_handshake) {
        conn_close(w, c, CLOSE_NOT_SHAKEN);
        return EFFECT_DONE;
    }
    if (v->kind == VERB_SUBSCRIBE)
        return fail_now(w, c, v->call_id, ERR_NOT_SHAKEN, v->channel);
    return carry_out(w, c, v);
}

/* Above a rate: the request fails, and what was not a request is lost, which is counted. */
static enum effect
refuse_above_rate(struct worker *w, struct conn *c, const struct verb *v)
{
    enum effect e = fail_now(w, c, v->call_id, ERR_RATE, v->channel);
    if (e == EFFECT_DONE && v->kind == VERB_PUBLISH)
        COUNT(w, publishes_refused_total);
    return e;
}

/* The same as admit(), where rates are set. What was put off is charged when it comes again. The
 * handshake is charged and never refused: a client cannot go on without it. */
static enum effect
admit_metered(struct worker *w, struct conn *c, const struct verb *v)
{
    bool subscribe = v->kind == VERB_SUBSCRIBE, free = v->kind == VERB_HANDSHAKE;
    if (!free && (rate_is_over(c) || !rate_admits(w, c, RATE_PACKETS) || (subscribe && !rate_admits(w, c, RATE_SUBSCRIBES))))
        return c->state == CONN_OPEN ? refuse_above_rate(w, c, v) : EFFECT_DONE;
    enum effect e = admit(w, c, v);
    if (e == EFFECT_DONE && c->state == CONN_OPEN)
        rate_charge(w, c, RATE_PACKETS, 1);
    if (e == EFFECT_DONE && c->state == CONN_OPEN && subscribe)
        rate_charge(w, c, RATE_SUBSCRIBES, 1);
    return e;
}

/* The turn is over: is the message, too? Looks at the next packet without taking it. */
static bool
nothing_left(struct worker *w, struct conn *c, struct decoding *d)
{
    struct verb v;
    uint32_t step = d->step, count = d->count;
    size_t pos = d->pos;
    bool end = dialects[c->dialect]->decode(c->dstate, &w->limits, d, &v) == DECODE_END;
    d->step = step;
    d->count = count;
    d->pos = pos;
    return end;
}

bool
sess_on_message(struct worker *w, struct conn *c, struct decoding *d)
{
    const struct dialect *dialect = dialects[c->dialect];
    struct verb v;
    for (;;) {
        uint32_t step = d->step, count = d->count;
        size_t pos = d->pos;
        if (dialect->decode(c->dstate, &w->limits, d, &v) == DECODE_END)
            return true;
        c->turn_packets++;
        metric_add(w->metrics, RM_VERB_BASE + v.kind, 1);
        if ((LIKELY(!w->rates.on) ? admit(w, c, &v) : admit_metered(w, c, &v)) == EFFECT_AGAIN) {
            d->step = step;
            d->count = count;
            d->pos = pos;
            return false;
        }
        if (c->state != CONN_OPEN)
            return true;
        if (UNLIKELY(c->pause != 0 || conn_turn_over(w, c)))
            return nothing_left(w, c, d);
    }
}

/* -- time -- */

void
sess_on_ping_time(struct worker *w, struct conn *c)
{
    if (!dialects[c->dialect]->pings) {
        c->deadline = 0;
        return;
    }
    /* Who is not read from cannot be heard, and who takes nothing more is not asked: out.stall ends that one. */
    if (!c->pause && !(c->flags & CF_SLOW) && (uint64_t)(w->tick - c->heard_at) * WHEEL_TICK_MS >= w->conf->sc_ping_timeout) {
        conn_close(w, c, CLOSE_PONG_TIMEOUT);
        return;
    }
    if (!(c->flags & CF_SLOW))
        outq_event(w, c, &(struct event){.kind = EV_PING});
    c->deadline = w->tick + wheel_ticks(w->conf->sc_ping_interval);
}

/* -- what links say -- */

static void
answers_came(struct worker *w, struct conn *c)
{
    c->pending--;
    if (c->pending > 0)
        return;
    c->heavy = 0;
    conn_resume(w, c, PAUSE_ANSWERS);
}

/* The broker died with a subscribe in its hands: it is asked for again, as for every channel, and the
 * client's answer waits for that. */
static bool
ask_again(struct worker *w, const struct call *call, struct chan *ch)
{
    enum error_id why;
    if (call->kind == CALL_SUBSCRIBE)
        return link_subscribe(w->links, ch->broker, pool_slot(&w->chans, ch), ch->head.gen, chan_name(ch), call,
                   &why) == LINK_OK;
    return link_after(w->links, ch->broker, call, &why) == LINK_OK;
}

/* Who joined a channel that the broker then refused learns it when its own turn comes: it is not
 * subscribed any more. */
static void
subscribe_done(struct worker *w, struct conn *c, const struct call *call, enum error_id err)
{
    struct chan *ch = chan_from_handle(w, call->chan);
    uint8_t name[NAME_MAX_BYTES];
    struct view channel = VIEW_NONE;
    if (ch != NULL)
        channel = view_of(memcpy(name, ch->name, ch->name_n), ch->name_n);
    if (ch != NULL && err == ERR_NONE && call->kind == CALL_SUBSCRIBE) {
        ch->state = CHAN_HELD;
    } else if (ch != NULL && ch->state == CHAN_ASKED && call->kind == CALL_SUBSCRIBE) {
        subs_drop_chan(w, ch); /* nobody was ever told that it stands */
    } else if (err == ERR_NONE && (ch == NULL || (c != NULL && !subs_has(w, c, ch)))) {
        err = ERR_BROKER_CHANNELS;
    } else if (ch != NULL && c != NULL && err != ERR_NONE) {
        subs_drop(w, c, ch);
    }
    if (c != NULL && err == ERR_NONE)
        say_done(w, c, call->call_id);
    else if (c != NULL)
        say_failed(w, c, call->call_id, err, channel);
}

void
sess_on_done(void *worker, const struct call *call, enum error_id err)
{
    struct worker *w = worker;
    struct conn *c = owner_find(w, call->owner);
    if (c != NULL && c->state != CONN_OPEN)
        c = NULL;
    if (err == ERR_BROKER_LOST && (call->kind == CALL_SUBSCRIBE || call->kind == CALL_JOIN)) {
        struct chan *ch = chan_from_handle(w, call->chan);
        if (ch != NULL && ask_again(w, call, ch))
            return;
    }
    switch ((enum sess_call)call->kind) {
    case CALL_PUBLISH:
        if (err != ERR_NONE)
            COUNT(w, publishes_refused_total);
        if (c != NULL && err == ERR_NONE)
            say_done(w, c, call->call_id);
        else if (c != NULL)
            say_failed(w, c, call->call_id, err, VIEW_NONE);
        break;
    case CALL_SUBSCRIBE:
    case CALL_JOIN: subscribe_done(w, c, call, err); break;
    case CALL_DONE:
        if (c != NULL)
            say_done(w, c, call->call_id);
        break;
    }
    if (c != NULL && c->state == CONN_OPEN)
        answers_came(w, c);
}

/* What no broker has confirmed yet is asked by its own request, with the client's call, which stands in the link's line:
 * said here as well, the broker would take it for one that clients were told of, and that may have missed messages. */
void
sess_on_attached(void *worker, unsigned broker)
{
    struct worker *w = worker;
    enum error_id why;
    for (uint32_t i = 0; i < w->chans.used; i++) {
        struct chan *ch = pool_at(&w->chans, i);
        if (ch->head.next != POOL_LIVE || ch->broker != broker || ch->state == CHAN_ASKED)
            continue;
        if (link_subscribe(w->links, broker, i, ch->head.gen, chan_name(ch), NULL, &why) != LINK_OK) {
            log_error("not-restored", "broker=%u channel=%u why=\"out of memory\"", broker, i);
            return;
        }
    }
}

static void
each_chan_from(struct worker *w, unsigned broker, enum chan_state from, enum chan_state to)
{
    for (uint32_t i = 0; i < w->chans.used; i++) {
        struct chan *ch = pool_at(&w->chans, i);
        if (ch->head.next == POOL_LIVE && ch->broker == broker && ch->state == from)
            ch->state = (uint8_t)to;
    }
}

/* Those whose listener has ?gaps=off. */
static void
end_untold(struct worker *w, struct chan *ch)
{
    for (uint32_t i = 0; i < ch->sub_count; i++) {
        struct conn *c = conn_at(w, chan_subs(ch)[i]);
        if (c->flags & CF_NO_GAPS)
            outq_doom(w, c, CLOSE_MISSED);
    }
}

/* A broker gave this ring up while it stood still. Whoever hears one of that broker's channels may have
 * missed messages, and no gap stays silent: where the channel's namespace drops messages with a notice they are told,
 * elsewhere their connections end, as if this process had died. */
void
sess_on_missed(void *worker, unsigned broker)
{
    struct worker *w = worker;
    for (uint32_t i = 0; i < w->chans.used; i++) {
        struct chan *ch = pool_at(&w->chans, i);
        uint32_t gen = ch->head.gen;
        if (ch->head.next != POOL_LIVE || ch->broker != broker || ch->state == CHAN_ASKED)
            continue;
        fan_out(w, ch); /* these came before the gap */
        if (behind_is_told(subs_namespace(w, ch))) {
            end_untold(w, ch);
            behind_hole(w, ch, 0);
            continue;
        }
        while (ch->head.next == POOL_LIVE && ch->head.gen == gen)
            conn_close(w, conn_at(w, chan_subs(ch)[ch->sub_count - 1]), CLOSE_MISSED);
    }
}

/* Nobody knows what other hosts say until the broker's successor hears them. */
static void
tell_what_others_may_say(struct worker *w, unsigned broker)
{
    for (uint32_t i = 0; i < w->chans.used; i++) {
        struct chan *ch = pool_at(&w->chans, i);
        if (ch->head.next != POOL_LIVE || ch->broker != broker || ch->state == CHAN_ASKED)
            continue;
        fan_out(w, ch); /* these came before the gap */
        behind_hole(w, ch, 0);
    }
}

/* Until the broker holds them again, nobody is told that a subscription to these stands. */
void
sess_on_lost(void *worker, unsigned broker)
{
    struct worker *w = worker;
    if (w->conf->redis_url.n > 0)
        tell_what_others_may_say(w, broker);
    each_chan_from(w, broker, CHAN_HELD, CHAN_LOST);
}

void
sess_on_restored(void *worker, unsigned broker)
{
    each_chan_from(worker, broker, CHAN_LOST, CHAN_HELD);
}

void
sess_on_room(void *worker, unsigned broker)
{
    struct worker *w = worker;
    struct slot_queue *q = &w->waiting[broker];
    while (q->first != POOL_NONE) {
        struct conn *c = conn_at(w, q->first);
        queue_remove(w, q, c);
        c->flags &= (uint16_t)~CF_WAITING;
        conn_resume(w, c, PAUSE_LINK);
    }
}
