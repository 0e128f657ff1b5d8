#include "broker/tally.h"

#include <inttypes.h>
#include <stdlib.h>

#include "broker/across.h"
#include "broker/ask.h"
#include "broker/chan.h"
#include "broker/hosts.h"
#include "broker/metrics.h"
#include "broker/peer.h"

/* A broker elsewhere that was asked, or answered all the same. */
struct answer {
    struct envelope_origin from;
    bool came;
    uint64_t count, silent;
    char name[HOSTBEAT_NAME_MAX + 1];
};

struct tally {
    uint32_t id;              /* number of the question, on lanes and on the bus; 0: free */
    bool remote;              /* another broker's: from and from_ask; else an operator's: ask_slot, ask_gen */
    struct envelope_origin from;
    uint64_t from_ask;
    uint32_t ask_slot, ask_gen;
    struct mono until, rings_until;
    uint64_t count;           /* of our rings, so far */
    uint32_t waits;           /* rings that have not answered ... */
    uint64_t asked[PEERS_MAX / 64]; /* ... by slot */
    bool said;                /* the bus took the question */
    struct answer *answers;   /* of others; room for HOSTS_MAX */
    uint32_t answer_n, answers_wait;
};

struct tallies {
    struct tally v[TALLY_MAX];
    uint32_t used;            /* how many are not free */
    uint32_t last_id;
    struct mono second;       /* begin of the second in which ... */
    uint32_t answered;        /* ... so many answers were sent */
};

bool
tally_init(struct broker *b)
{
    b->tallies = calloc(1, sizeof *b->tallies);
    return b->tallies != NULL;
}

static void
tally_free(struct broker *b, struct tally *t)
{
    free(t->answers);
    *t = (struct tally){0};
    b->tallies->used--;
}

void
tally_fini(struct broker *b)
{
    for (unsigned i = 0; b->tallies != NULL && i < TALLY_MAX; i++)
        free(b->tallies->v[i].answers);
    free(b->tallies);
    b->tallies = NULL;
}

static struct tally *
tally_new(struct broker *b)
{
    struct tallies *ts = b->tallies;
    for (unsigned i = 0; i < TALLY_MAX; i++) {
        struct tally *t = &ts->v[i];
        if (t->id != 0)
            continue;
        ts->last_id = ts->last_id == UINT32_MAX ? 1 : ts->last_id + 1;
        ts->used++;
        t->id = ts->last_id;
        t->rings_until = t->until = mono_add_ms(b->now, TALLY_RINGS_WAIT_MS);
        return t;
    }
    return NULL;
}

static struct tally *
tally_find(struct broker *b, uint64_t id)
{
    for (unsigned i = 0; b->tallies != NULL && id != 0 && i < TALLY_MAX; i++)
        if (b->tallies->v[i].id == id)
            return &b->tallies->v[i];
    return NULL;
}

/* -- our rings -- */

static void
ask_rings(struct broker *b, struct tally *t, struct view name)
{
    struct chan *ch = chan_find(b, name);
    for (unsigned k = 0; ch != NULL && k < ch->count; k++) {
        const struct interest *i = &chan_interests(ch)[k];
        t->asked[i->peer / 64] |= 1ull << i->peer % 64;
        t->waits++;
        uint8_t *p = peer_put(b, peer_at(b, i->peer), IPC_TALLY, 0, 0, 12);
        if (p == NULL)
            continue; /* it does not answer, then */
        memcpy(p, &i->chan, 4);
        memcpy(p + 4, &i->gen, 4);
        memcpy(p + 8, &t->id, 4);
    }
}

void
tally_on_counted(struct broker *b, const struct peer *p, uint32_t ask, uint32_t count)
{
    struct tally *t = tally_find(b, ask);
    uint32_t slot = peer_slot(b, p);
    if (t == NULL || !(t->asked[slot / 64] >> slot % 64 & 1))
        return; /* too late, or never asked */
    t->asked[slot / 64] &= ~(1ull << slot % 64);
    t->waits--;
    t->count += count;
}

/* -- other hosts -- */

static bool
say(struct broker *b, const struct hostbeat *h)
{
    uint8_t mem[HOSTBEAT_BYTES_MAX];
    struct buf out = buf_fixed(mem, sizeof mem);
    return hostbeat_put(&out, h) && across_say_host(b, buf_view(&out));
}

static void
expect(struct tally *t, const struct host *h)
{
    struct answer *a = &t->answers[t->answer_n++];
    *a = (struct answer){.from = h->id};
    memcpy(a->name, h->said.name.p, h->said.name.n);
    t->answers_wait++;
}

static void
ask_hosts(struct broker *b, struct tally *t, struct view name)
{
    t->said = !hosts_is_deaf(b); /* or others are there, and it does not know them */
    if (hosts_count(b) == 0)
        return;
    t->answers = calloc(HOSTS_MAX, sizeof *t->answers);
    if (t->answers == NULL) {
        t->said = false;
        return;
    }
    struct envelope_origin self = across_self(b);
    for (uint32_t i = 0; i < hosts_count(b); i++) {
        const struct host *h = hosts_at(b, i);
        bool ours = memcmp(h->id.host, self.host, sizeof self.host) == 0; /* here the channel is this broker's alone */
        if (h->state == HOST_CONFLICT || (h->state == HOST_UP && !ours))
            expect(t, h);
    }
    t->said = t->said && say(b, &(struct hostbeat){.kind = HOSTBEAT_COUNT, .ask = t->id, .channel = name});
    t->until = mono_add_ms(b->now, TALLY_WAIT_MS);
}

void
tally_on_answer(struct broker *b, const struct envelope_origin *from, const struct hostbeat *h)
{
    struct envelope_origin self = across_self(b);
    struct tally *t = memcmp(&h->to, &self, sizeof self) == 0 ? tally_find(b, h->ask) : NULL;
    for (uint32_t i = 0; t != NULL && !t->remote && i < t->answer_n; i++) {
        struct answer *a = &t->answers[i];
        if (memcmp(&a->from, from, sizeof *from) != 0 || a->came)
            continue;
        a->came = true;
        a->count = h->count;
        a->silent = h->silent;
        t->answers_wait--;
        return;
    }
}

/* -- questions of others -- */

static bool
may_answer(struct broker *b)
{
    struct tallies *ts = b->tallies;
    if (mono_since_ms(b->now, ts->second) >= 1000) {
        ts->second = b->now;
        ts->answered = 0;
    }
    return ++ts->answered <= TALLY_ANSWERS_MAX;
}

static void
answer_remote(struct broker *b, struct tally *t)
{
    (void)say(b, &(struct hostbeat){
        .kind = HOSTBEAT_COUNTED, .ask = t->from_ask, .to = t->from, .count = t->count, .silent = t->waits});
    tally_free(b, t);
}

void
tally_on_question(struct broker *b, const struct envelope_origin *from, const struct hostbeat *h)
{
    struct tally *t = may_answer(b) ? tally_new(b) : NULL;
    if (t == NULL) {
        COUNT(b, tallies_refused_total); /* who asked says that we did not answer */
        return;
    }
    t->remote = true;
    t->from = *from;
    t->from_ask = h->ask;
    ask_rings(b, t, h->channel);
    if (t->waits == 0)
        answer_remote(b, t);
}

/* -- an operator's -- */

static void
answer_local(struct broker *b, struct tally *t)
{
    char id[17];
    struct ask *a = ask_find(b, t->ask_slot, t->ask_gen);
    struct hostbeat own = hosts_own(b);
    struct envelope_origin self = {.broker = b->index};
    if (b->hosts != NULL)
        self = across_self(b);
    if (a != NULL) {
        ask_say(a, "count id=%s broker=%" PRIu32 " self=1 answered=1 count=%" PRIu64 " silent=%" PRIu32 " name=%.*s\n",
            hosts_id(&self, id), self.broker, t->count, t->waits, VIEW_FMT(own.name));
        for (uint32_t i = 0; i < t->answer_n; i++) {
            const struct answer *r = &t->answers[i];
            ask_say(a, "count id=%s broker=%" PRIu32 " self=0 answered=%d count=%" PRIu64 " silent=%" PRIu64 " name=%s\n",
                hosts_id(&r->from, id), r->from.broker, r->came, r->count, r->silent, r->name);
        }
        if (!t->said)
            ask_say(a, "error the bus did not take the question: other hosts were not asked\n");
    }
    tally_free(b, t);
    if (a != NULL)
        ask_done(b, a);
}

void
tally_ask(struct broker *b, struct ask *a, struct view name)
{
    unsigned owner = ipc_owner(name, (unsigned)b->conf->broker_count);
    struct tally *t = owner == b->index && name.n <= IPC_NAME_MAX ? tally_new(b) : NULL;
    if (t == NULL) {
        if (name.n > IPC_NAME_MAX)
            ask_say(a, "error no channel has such a long name\n");
        else if (owner != b->index)
            ask_say(a, "elsewhere broker=%u\n", owner);
        else
            ask_say(a, "error too many questions at a time: ask again\n");
        ask_done(b, a);
        return;
    }
    t->ask_slot = pool_slot(&b->asks, a);
    t->ask_gen = a->head.gen;
    ask_rings(b, t, name);
    ask_hosts(b, t, name);
}

/* -- time -- */

void
tally_turn(struct broker *b)
{
    for (unsigned i = 0; b->tallies->used > 0 && i < TALLY_MAX; i++) {
        struct tally *t = &b->tallies->v[i];
        if (t->id == 0)
            continue;
        bool rings_done = t->waits == 0 || mono_reached(b->now, t->rings_until);
        bool hosts_done = t->answers_wait == 0 || !t->said || mono_reached(b->now, t->until);
        if (!rings_done || !hosts_done)
            continue;
        if (t->remote)
            answer_remote(b, t);
        else
            answer_local(b, t);
    }
}
