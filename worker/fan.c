#include "worker/fan.h"

#include "common/bug.h"
#include "worker/behind.h"
#include "worker/metrics.h"
#include "worker/outq.h"
#include "worker/pmd.h"

/* Below this many subscribers a message goes into the turn's shared arena; from here on the channel
 * gets a block of its own, so that a slow reader keeps that channel's messages and nothing else. */
#define OWN_BLOCK_SUBS 4
/* A batch that costs more than this, over all its subscribers, waits for those that cost less (outq_touch). */
#define LIGHT_MAX (128u << 10)
#define SUB_COST 1024
/* Of a publish nobody knows how many others it is joined with, so only its bytes count, and a little for its name. */
#define UNIT 65536
#define NAME_COST 64
#define ELSEWHERE 1024 /* subscribers that a channel which was stopped is taken to have on other rings */
/* Channels that brokers are told of at a time, over all of them; one broker remembers 64. */
#define BUSY_MAX 256
#define COUNT_TEXT 32 /* of a notice: its count, and what its fixed text is longer than a publication's */
/* Frame header and the fixed text of a publication, and a name that is escaped throughout. */
#define FRAME_ROOM(ch, data_n) (WS_HEADER_MAX + 64 + (size_t)(ch)->name_n * 6 + (data_n))

static uint64_t
cost_of(uint64_t subs, size_t n)
{
    return subs * (n + SUB_COST);
}

/* A block of the channel's own, or the turn's arena; with room for `need` bytes behind rc->n. */
static struct rc *
batch_block(struct worker *w, struct chan *ch, size_t need)
{
    struct rc *rc = NULL;
    if (ch->sub_count < OWN_BLOCK_SUBS && need <= RC_CLASS_MAX / 4) {
        if (w->arena == NULL || rc_room(w->arena) < need) {
            if (w->arena != NULL)
                rc_unref(&w->blocks, w->arena);
            w->arena = rc_new(&w->blocks, RC_CLASS_MAX);
            if (w->arena != NULL)
                w->arena->turn = true;
        }
        rc = w->arena != NULL ? rc_ref(w->arena) : NULL;
    } else {
        rc = rc_new(&w->blocks, need);
    }
    return rc;
}

/* A copy of the batch behind those that slow readers got before it. They share it, and it continues what is last in
 * their queues: so neither a whole block nor a stretch is kept for each small batch. */
static struct oseg
slow_copy_new(struct worker *w, struct chan *ch)
{
    uint32_t len = ch->batch_len;
    if (ch->tail == NULL || rc_room(ch->tail) < len) {
        size_t cap = ch->tail != NULL ? MIN((size_t)ch->tail->cap * 4, RC_CLASS_MAX) : 0;
        struct rc *tail = rc_new(&w->blocks, MAX(cap, (size_t)len));
        if (tail == NULL)
            return (struct oseg){rc_ref(ch->batch), ch->batch_off, len};
        if (ch->tail != NULL)
            rc_unref(&w->blocks, ch->tail);
        ch->tail = tail;
    }
    struct oseg copy = {rc_ref(ch->tail), ch->tail->n, len};
    memcpy(copy.rc->data + copy.off, ch->batch->data + ch->batch_off, len);
    copy.rc->n += len;
    return copy;
}

static bool
give_plain(struct worker *w, struct chan *ch, struct conn *c)
{
    struct oseg give = {ch->batch, ch->batch_off, ch->batch_len};
    if (c->flags & CF_SLOW && !give.rc->turn && give.len <= RC_CLASS_MAX / 4) {
        if (w->slow_copy.rc == NULL)
            w->slow_copy = slow_copy_new(w, ch);
        give = w->slow_copy;
    }
    return outq_push_published(w, c, give.rc, give.off, give.len, ch->batch_messages);
}

/* The batch for a flavour. What is not worth packing, or cannot be for want of memory, is shared as it is. */
static struct oseg
twin_new(struct worker *w, struct chan *ch, unsigned flavour, struct conn *c)
{
    struct oseg plain = {ch->batch, ch->batch_off, ch->batch_len};
    struct view frames = view_of(plain.rc->data + plain.off, plain.len);
    bool packed = flavour != PMD_PLAIN && pmd_pack(w, flavour, c, frames, &frames);
    struct rc *rc = packed ? batch_block(w, ch, frames.n) : NULL;
    if (rc == NULL) {
        if (packed && flavour == PMD_OWN)
            pmd_lost(c);
        rc_ref(plain.rc);
        return plain;
    }
    struct oseg twin = {rc, rc->n, (uint32_t)frames.n};
    memcpy(rc->data + rc->n, frames.p, frames.n);
    rc->n += twin.len;
    return twin;
}

static bool
give_packed(struct worker *w, struct chan *ch, struct conn *c)
{
    enum conf_pack how = subs_namespace(w, ch)->compress;
    unsigned flavour = how == PACK_CONTEXT ? c->flavour : how == PACK_ONCE ? pmd_shared(c) : PMD_PLAIN;
    struct oseg *twin = &w->twins[flavour];
    if (twin->rc == NULL)
        *twin = twin_new(w, ch, flavour, c);
    bool as_it_is = twin->rc == ch->batch && twin->off == ch->batch_off; /* both may lie in the arena */
    bool queued = as_it_is ? give_plain(w, ch, c)
                           : outq_push_published(w, c, twin->rc, twin->off, twin->len, ch->batch_messages);
    if (flavour == PMD_OWN) {
        rc_unref(&w->blocks, twin->rc);
        twin->rc = NULL;
    }
    return queued;
}

bool
fan_give_specially(struct worker *w, struct chan *ch, struct conn *c)
{
    return c->flavour == PMD_PLAIN ? give_plain(w, ch, c) : give_packed(w, ch, c);
}

static void
drop_copies(struct worker *w, struct chan *ch)
{
    for (unsigned i = 0; i < ARRAY_LEN(w->twins); i++) {
        if (w->twins[i].rc != NULL)
            rc_unref(&w->blocks, w->twins[i].rc);
        w->twins[i].rc = NULL;
    }
    if (w->slow_copy.rc != NULL) {
        rc_unref(&w->blocks, w->slow_copy.rc);
        w->slow_copy.rc = NULL;
    } else if (ch->tail != NULL) {
        rc_unref(&w->blocks, ch->tail); /* nobody is slow any more */
        ch->tail = NULL;
    }
}

/* Everybody gets it, or ends. */
static uint64_t
fan_out_strictly(struct worker *w, struct chan *ch)
{
    uint32_t *subs = chan_subs(ch), n = ch->sub_count;
    uint64_t queued = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (i + 4 < n)
            PREFETCH(conn_at(w, subs[i + 4]));
        queued += fan_give(w, ch, conn_at(w, subs[i]));
    }
    return queued;
}

static void
say_busy(struct worker *w, struct chan *ch)
{
    uint32_t slot = pool_slot(&w->chans, ch);
    if (w->busy_chans.n >= BUSY_MAX)
        return; /* the lane stops the others */
    COUNT(w, busy_channels_total);
    ch->busy = true;
    slot_push(&w->busy_chans, slot);
    link_busy(w->links, ch->broker, slot);
}

uint32_t
fan_units(struct worker *w, struct view channel, size_t n, unsigned broker)
{
    uint64_t each = (uint64_t)n + NAME_COST, subs = w->most_subs;
    bool elsewhere = link_was_stopped(w->links, broker, channel);
    if (LIKELY(!elsewhere && subs * each < UNIT))
        return 0;
    const struct chan *ch = subs_find(w, channel);
    subs = ch != NULL ? ch->sub_count : 0;
    return (uint32_t)MIN((elsewhere ? MAX(subs, (uint64_t)ELSEWHERE) : subs) * each / UNIT, (uint64_t)FAN_UNITS_MAX);
}

static void
let_publishers_go_on(struct worker *w)
{
    for (uint32_t i = 0; i < w->fan_waiting.n; i++) {
        struct conn *c = conn_at(w, w->fan_waiting.v[i]);
        if (c->head.next == POOL_LIVE)
            conn_resume(w, c, PAUSE_FAN);
    }
    w->fan_waiting.n = 0;
}

void
fan_ease(struct worker *w)
{
    if (w->backlog > FAN_BACKLOG_LOW)
        return;
    if (UNLIKELY(w->fan_waiting.n > 0))
        let_publishers_go_on(w);
    if (LIKELY(w->busy_chans.n == 0))
        return;
    for (uint32_t i = 0; i < w->busy_chans.n; i++) {
        struct chan *ch = pool_at(&w->chans, w->busy_chans.v[i]);
        ch->busy = false; /* of a slot that was freed it means nothing */
    }
    w->busy_chans.n = 0;
    links_eased(w->links);
}

void
fan_out(struct worker *w, struct chan *ch)
{
    struct rc *rc = ch->batch;
    if (rc == NULL)
        return;
    const struct conf_namespace *ns = subs_namespace(w, ch);
    bool heavy = cost_of(ch->sub_count, ch->batch_len) > LIGHT_MAX;
    if (UNLIKELY(heavy && w->backlog > FAN_BACKLOG_HIGH && !ch->busy))
        say_busy(w, ch);
    w->fan_is_heavy = heavy;
    uint64_t queued = ns->slow == SLOW_CLOSE ? fan_out_strictly(w, ch) : behind_fan_out(w, ch, ns);
    COUNT_N(w, deliveries_total, queued * ch->batch_messages);
    COUNT_N(w, messages_out_total, queued * ch->batch_messages);
    w->fan_is_heavy = false;
    drop_copies(w, ch);
    rc_unref(&w->blocks, rc);
    ch->batch = NULL;
    ch->batch_len = ch->batch_messages = 0;
}

void
fan_out_all(struct worker *w)
{
    for (uint32_t i = 0; i < w->dirty_chans.n; i++) {
        struct chan *ch = pool_at(&w->chans, w->dirty_chans.v[i]);
        if (ch->head.next != POOL_LIVE || !ch->batch_listed)
            continue; /* freed since, and its slot perhaps taken again */
        ch->batch_listed = false;
        fan_out(w, ch);
    }
    w->dirty_chans.n = 0;
}

/* The batch moves to a block twice as large, as long as it fits the largest class. */
static bool
batch_grow(struct worker *w, struct chan *ch, size_t need)
{
    if (ch->batch->turn || ch->batch_len + need > RC_CLASS_MAX)
        return false;
    struct rc *bigger = rc_new(&w->blocks, MAX(ch->batch_len + need, (size_t)ch->batch->cap * 2));
    if (bigger == NULL)
        return false;
    memcpy(bigger->data, ch->batch->data + ch->batch_off, ch->batch_len);
    bigger->n = ch->batch_len;
    rc_unref(&w->blocks, ch->batch);
    ch->batch = bigger;
    ch->batch_off = 0;
    return true;
}

/* Makes ch->batch a block whose free end directly follows the batch and holds `need` bytes. */
static bool
batch_ready(struct worker *w, struct chan *ch, size_t need)
{
    if (ch->batch != NULL) {
        bool last = ch->batch->n == ch->batch_off + ch->batch_len;
        if (last && rc_room(ch->batch) >= need)
            return true;
        if (batch_grow(w, ch, need))
            return true;
        fan_out(w, ch);
    }
    ch->batch = batch_block(w, ch, need);
    if (ch->batch == NULL)
        return false;
    ch->batch_off = ch->batch->n;
    ch->batch_len = ch->batch_messages = 0;
    return true;
}

/* Appends one frame to the batch. The header's length depends on the payload's, so the payload is
 * encoded behind room for the usual header of 4 bytes and moved if that was wrong. */
static bool
batch_put(struct chan *ch, const struct event *ev)
{
    struct rc *rc = ch->batch;
    uint8_t head[WS_HEADER_MAX], *start = rc->data + rc->n;
    struct buf out = buf_fixed(start + 4, rc_room(rc) - WS_HEADER_MAX);
    if (!dialect_socketcluster.encode(NULL, ev, &out))
        return false;
    size_t head_n = ws_put_header(head, WS_TEXT, out.n);
    if (head_n != 4)
        memmove(start + head_n, start + 4, out.n);
    memcpy(start, head, head_n);
    uint32_t len = (uint32_t)(head_n + out.n);
    rc->n += len;
    ch->batch_len += len;
    ch->batch_messages++;
    return true;
}

/* Memory is out. A gap does not stay silent: who should have heard it ends. */
static void
lose(struct worker *w, struct chan *ch)
{
    for (uint32_t i = 0; i < ch->sub_count; i++)
        outq_doom(w, conn_at(w, chan_subs(ch)[i]), CLOSE_INTERNAL);
}

void
fan_on_message(void *worker, uint32_t chan, uint32_t chan_gen, bool has_data, struct view data)
{
    struct worker *w = worker;
    struct chan *ch = pool_find(&w->chans, chan, chan_gen);
    if (ch == NULL)
        return; /* its last subscriber left while the message was on its way */
    if (!batch_ready(w, ch, FRAME_ROOM(ch, data.n))) {
        COUNT_N(w, dropped_slow_total, ch->sub_count);
        lose(w, ch);
        return;
    }
    struct event ev = {.kind = EV_PUBLICATION, .channel = chan_name(ch), .has_data = has_data, .data = data};
    if (CHECK_IF(!batch_put(ch, &ev)))
        return;
    if (!ch->batch_listed) {
        ch->batch_listed = true;
        slot_push(&w->dirty_chans, chan);
    }
}

/* Encoded once, as a batch without messages. It stays as it is for those that agreed to compression: gaps are rare. */
void
fan_notice(struct worker *w, struct chan *ch, const struct event *gap)
{
    if (!batch_ready(w, ch, FRAME_ROOM(ch, COUNT_TEXT))) {
        lose(w, ch);
        return;
    }
    struct rc *rc = ch->batch;
    bool told = batch_put(ch, gap);
    for (uint32_t i = 0; told && i < subs_level(ch); i++) {
        struct conn *c = conn_at(w, chan_subs(ch)[i]);
        if (c->flags & CF_NO_GAPS)
            COUNT(w, gaps_untold_total);
        else if (outq_push_published(w, c, rc, ch->batch_off, ch->batch_len, 0))
            COUNT(w, gaps_told_total);
    }
    rc_unref(&w->blocks, rc);
    ch->batch = NULL;
    ch->batch_len = ch->batch_messages = 0;
}

void
fan_on_gap(void *worker, uint32_t chan, uint32_t chan_gen, uint64_t count)
{
    struct worker *w = worker;
    struct chan *ch = pool_find(&w->chans, chan, chan_gen);
    if (ch == NULL)
        return; /* its last subscriber left meanwhile */
    if (ch->state == CHAN_ASKED)
        return; /* nobody has been told that it stands, and what comes before the answer is owed to nobody */
    fan_out(w, ch); /* what came before the gap */
    behind_hole(w, ch, count);
}
