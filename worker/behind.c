#include "worker/behind.h"

#include <stdlib.h>

#include "common/bug.h"
#include "worker/fan.h"
#include "worker/metrics.h"
#include "worker/outq.h"

/* All rings of all channels may hold this share of mem.buffers; above, a channel keeps its latest message alone. */
#define SHARE_OF_BUFFERS 4

bool
behind_is_told(const struct conf_namespace *ns)
{
    return ns->slow != SLOW_CLOSE && ns->slow_notice;
}

static struct chan *
chan_of(const struct worker *w, const struct laggard *g)
{
    return pool_at(&w->chans, g->chan);
}

static void
account(struct worker *w, uint64_t before, uint64_t after)
{
    w->lag_bytes += after - before;
    GAUGE(w, lag_bytes, w->lag_bytes);
}

/* -- who is behind -- */

static void
list_append(struct worker *w, struct conn *c, struct laggard *g)
{
    uint32_t slot = pool_slot(&w->laggards, g);
    g->next = g->prev = slot;
    if (c->behind == 0) {
        c->behind = slot + 1;
        return;
    }
    struct laggard *first = laggard_at(w, c->behind - 1), *last = laggard_at(w, first->prev);
    g->next = c->behind - 1;
    g->prev = first->prev;
    first->prev = last->next = slot;
}

static void
list_remove(struct worker *w, struct conn *c, struct laggard *g)
{
    uint32_t slot = pool_slot(&w->laggards, g);
    laggard_at(w, g->next)->prev = g->prev;
    laggard_at(w, g->prev)->next = g->next;
    if (c->behind == slot + 1)
        c->behind = g->next == slot ? 0 : g->next + 1;
}

static void
behind_free(struct worker *w, struct chan *ch)
{
    struct behind *b = ch->behind;
    account(w, b->lag.held, 0);
    lag_fini(&b->lag, &w->blocks);
    free(b);
    ch->behind = NULL;
}

/* The subscriber at `pos` of the channel's list is behind from the present batch on. False when memory is out. */
static bool
behind_begin(struct worker *w, struct chan *ch, const struct conf_namespace *ns, uint32_t pos)
{
    struct behind *b = ch->behind;
    struct laggard *g = pool_get(&w->laggards);
    if (g == NULL)
        return false;
    if (b == NULL) {
        b = ch->behind = calloc(1, sizeof *b);
        if (b == NULL) {
            pool_put(&w->laggards, g);
            return false;
        }
        b->ns = ns;
    }
    struct conn *c = conn_at(w, chan_subs(ch)[pos]);
    g->conn = conn_slot(w, c);
    g->chan = pool_slot(&w->chans, ch);
    g->next_message = b->lag.next;
    list_append(w, c, g);
    subs_to_behind(w, ch, pos, g);
    COUNT(w, fell_behind_total);
    GAUGE(w, behind, w->laggards.live);
    return true;
}

static void
laggard_end(struct worker *w, struct laggard *g)
{
    struct chan *ch = chan_of(w, g);
    struct conn *c = conn_at(w, g->conn);
    list_remove(w, c, g);
    subs_to_level(w, ch, g);
    pool_put(&w->laggards, g);
    GAUGE(w, behind, w->laggards.live);
    if (ch->behind->count == 0)
        behind_free(w, ch);
}

/* -- a batch comes -- */

/* Where the kernel still takes everything, what waits is only this turn's, and not a sign of slowness. */
static bool
does_not_keep_up(const struct worker *w, const struct conn *c, const struct conf_namespace *ns, uint32_t len)
{
    uint64_t most = c->flags & CF_SLOW ? ns->slow_after : w->conf->out_queue_bytes;
    return !outq_is_empty(c) && outq_bytes(c) + (uint64_t)len > most;
}

static void
keep_batch(struct worker *w, struct chan *ch)
{
    struct behind *b = ch->behind;
    uint64_t before = b->lag.held;
    bool much = w->lag_bytes > w->buffers_max / SHARE_OF_BUFFERS;
    uint64_t keep = b->ns->slow == SLOW_CONFLATE || much ? 0 : b->ns->slow_keep;
    if (!lag_append(&b->lag, &w->blocks, ch->batch->data + ch->batch_off, ch->batch_len, ch->batch_messages, keep))
        log_error("lag-lost", "messages=%u why=\"out of memory\"", ch->batch_messages); /* told as a gap */
    account(w, before, b->lag.held);
}

uint64_t
behind_fan_out(struct worker *w, struct chan *ch, const struct conf_namespace *ns)
{
    const uint32_t *subs = chan_subs(ch);
    uint64_t queued = 0;
    for (uint32_t i = 0; i < subs_level(ch);) {
        if (i + 4 < subs_level(ch))
            PREFETCH(conn_at(w, subs[i + 4]));
        struct conn *c = conn_at(w, subs[i]);
        if (UNLIKELY(does_not_keep_up(w, c, ns, ch->batch_len)) && c->state == CONN_OPEN &&
            behind_begin(w, ch, ns, i))
            continue; /* another one stands in its place now */
        queued += fan_give(w, ch, c);
        i++;
    }
    if (ch->behind != NULL)
        keep_batch(w, ch);
    return queued;
}

/* -- a client takes something -- */

/* Messages that a client will not get, and was or was not told of. */
static void
count_missed(struct worker *w, const struct conf_namespace *ns, const struct lag_missed *m)
{
    if (ns->slow == SLOW_CONFLATE)
        COUNT_N(w, dropped_conflated_total, m->dropped);
    else
        COUNT_N(w, dropped_oldest_total, m->dropped);
    COUNT_N(w, missed_remote_total, m->holes.messages);
}

/* slow_notice = off is about what was dropped here, not about what never came. */
static void
tell_gap(struct worker *w, struct conn *c, const struct chan *ch, const struct lag_missed *m)
{
    uint64_t messages = m->holes.messages;
    bool known = m->holes.unknown == 0;
    if (m->dropped == 0 && messages == 0 && known)
        return;
    if (ch->behind->ns->slow_notice && __builtin_add_overflow(messages, m->dropped, &messages))
        known = false;
    if (c->flags & CF_NO_GAPS || (messages == 0 && known)) {
        COUNT(w, gaps_untold_total);
        return;
    }
    struct event ev = {.kind = EV_GAP, .channel = chan_name(ch), .has_count = known, .count = messages};
    COUNT(w, gaps_told_total);
    (void)outq_event(w, c, &ev); /* or the connection ends: no gap stays silent */
}

/* Gives a client that little waits for the next piece, behind a notice if it missed something. False when it must
 * take what waits first. */
static bool
serve_piece(struct worker *w, struct conn *c, struct laggard *g)
{
    const struct chan *ch = chan_of(w, g);
    const struct behind *b = ch->behind;
    struct lag_pos at = g->next_message;
    struct lag_piece piece = {0};
    struct lag_missed missed = lag_catch_up(&b->lag, &at);
    uint64_t most = b->ns->slow_after, waits = outq_bytes(c);
    if (waits > most / 2)
        return false;
    bool any = lag_read(&b->lag, &at, (uint32_t)(most - waits), &piece);
    if (waits > 0 && waits + piece.seg.len > most)
        return false;
    count_missed(w, b->ns, &missed);
    tell_gap(w, c, ch, &missed);
    g->next_message = at;
    if (any && outq_push_published(w, c, piece.seg.rc, piece.seg.off, piece.seg.len, piece.messages)) {
        COUNT_N(w, deliveries_total, piece.messages);
        COUNT_N(w, messages_out_total, piece.messages);
    }
    return true;
}

void
behind_serve(struct worker *w, struct conn *c)
{
    while (c->behind != 0 && !(c->flags & CF_DOOMED)) {
        struct laggard *g = laggard_at(w, c->behind - 1);
        if (!serve_piece(w, c, g))
            return;
        if (lag_is_level(&chan_of(w, g)->behind->lag, &g->next_message))
            laggard_end(w, g);
        else
            c->behind = g->next + 1; /* its channels take turns */
    }
}

/* -- the end -- */

void
behind_leave(struct worker *w, struct laggard *g, bool tell)
{
    const struct chan *ch = chan_of(w, g);
    const struct behind *b = ch->behind;
    struct lag_missed missed = lag_rest(&b->lag, &g->next_message);
    COUNT_N(w, dropped_left_total, missed.dropped);
    COUNT_N(w, missed_remote_total, missed.holes.messages);
    if (tell)
        tell_gap(w, conn_at(w, g->conn), ch, &missed);
    laggard_end(w, g);
}

void
behind_hole(struct worker *w, struct chan *ch, uint64_t messages)
{
    struct event ev = {.kind = EV_GAP, .channel = chan_name(ch), .has_count = messages > 0, .count = messages};
    fan_notice(w, ch, &ev);
    uint64_t missed;
    if (!__builtin_mul_overflow(messages, (uint64_t)subs_level(ch), &missed)) /* a number from elsewhere */
        COUNT_N(w, missed_remote_total, missed);
    struct behind *b = ch->behind;
    if (b == NULL)
        return;
    uint64_t before = b->lag.held;
    lag_hole(&b->lag, &w->blocks, messages);
    account(w, before, b->lag.held);
}
