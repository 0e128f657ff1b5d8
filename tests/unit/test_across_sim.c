/* broker/across over a bus in memory, by seed: hosts publish, subscribe, unsubscribe and restart while links are cut and
 * healed, publishes give way or are refused, and messages come twice. What is shown for every subscriber:
 *
 *   nothing comes twice, and each origin's messages come in their order;
 *   where numbers are missing, at least as many were told as a gap before; never silently;
 *   who was there from the beginning is told of exactly as many as it missed, whatever happened;
 *   nobody is told of what was taken before its host began to listen;
 *   everybody is, as long as no link was lost;
 *   with bus.order = bus and a bus that is whole, everybody sees one order.
 *
 * test_across_sim [SEEDS [FIRST]]: more of them, or one again. RINGCAST_SIM_SAY=1 says what each seed does. */
#include "tests/unit/t_hosts.h"

#define HOSTS 3
#define CHANS 5
#define INCS 16
#define NUMS 6000
#define STEPS 500
#define HEARTBEAT_MS 200

enum mode {
    M_CUT_HEARS = 1, M_CUT_SAYS = 2, M_BOUND = 4, M_TWICE = 8, M_LOSE = 16, M_RESTART = 32, M_REFUSE = 64,
    M_FEW_SOURCES = 128, M_ORDER_BUS = 256, M_ACK_BUS = 512, M_SLOW_RINGS = 1024, M_SETTLED = 2048, M_ERROR = 4096,
    M_STALL = 8192, M_SILENT = 16384, /* origins fall silent, and host 2 wants channels for a short time only */
    M_NO_WAIT = 32768, /* subscribes are answered before the bus has confirmed them */
    M_PARTLY = 65536,  /* a server with control topics alone comes and goes */
    M_ALL = 2 * M_PARTLY - 1,
    M_FAULTS = M_CUT_HEARS | M_CUT_SAYS | M_LOSE | M_RESTART | M_REFUSE | M_SLOW_RINGS | M_FEW_SOURCES | M_STALL | M_PARTLY,
};

/* One life of a host's broker. */
struct inc {
    unsigned host;
    bool dead;
    unsigned said[CHANS], taken[CHANS]; /* highest number handed to the broker; that the bus took */
    unsigned sure[CHANS];               /* the same as `taken` when all that its broker had said was known to be */
    bool none[CHANS][NUMS];             /* refused before it had a number */
};

struct seen {
    bool set, wild; /* wild: a gap of unknown size was told since */
    unsigned pos, base, start;
};

struct sub {
    bool on, acked, guard;
    bool unknown;
    uint32_t gen;
    uint64_t credit; /* messages told to be missing, not yet found missing */
    uint64_t loan;   /* of it taken for what need not be told, and may have been told for others */
    uint64_t order;  /* a hash of what came, in its order */
    struct seen from[INCS];
};

struct request {
    uint8_t kind; /* IPC_... */
    uint32_t chan, gen, inc, number;
};

#define REQUESTS 8192
static struct world {
    uint64_t seed, rng;
    unsigned mode;
    struct mono now;
    uint64_t stood; /* ms of it in which nobody ran */
    struct bus_mem_net *net;
    struct t_host hosts[HOSTS];
    unsigned inc_of[HOSTS], incs;
    struct inc inc[INCS];
    struct sub subs[HOSTS][T_RINGS][CHANS];
    unsigned began[HOSTS][CHANS][INCS]; /* what was sure when the host began to want the channel */
    struct mono still[HOSTS];           /* it does not run until then */
    struct request requests[HOSTS][T_RINGS][REQUESTS];
    unsigned asked[HOSTS][T_RINGS], answered[HOSTS][T_RINGS];
    unsigned links[HOSTS];
    uint64_t delivered, missed, unknowns, duplicates;
} w;

static bool say;

static unsigned
rnd(unsigned n)
{
    w.rng ^= w.rng << 13, w.rng ^= w.rng >> 7, w.rng ^= w.rng << 17;
    return (unsigned)((w.rng >> 11) % n);
}

#define SAY(...)                                                                                   \
    do {                                                                                           \
        if (say)                                                                                   \
            fprintf(stderr, __VA_ARGS__);                                                          \
    } while (0)
#define CLAIM(cond, ...)                                                                           \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "seed %llu mode %#x: ", (unsigned long long)w.seed, w.mode);           \
            fail_msg(__VA_ARGS__);                                                                 \
        }                                                                                          \
    } while (0)

static struct view
chan_text(unsigned chan)
{
    static const char *const names[CHANS] = {"a", "b", "", "d/d", "long name of a channel"};
    return view_str(names[chan]);
}

/* -- what is counted -- */

static unsigned
missing(const struct inc *in, unsigned chan, unsigned after, unsigned upto)
{
    unsigned n = 0;
    for (unsigned k = after + 1; k <= upto; k++)
        n += !in->none[chan][k];
    return n;
}

static void
on_taken(void *arg, unsigned node, struct view channel, struct view bytes)
{
    struct envelope e;
    unsigned inc, chan, number;
    char text[64] = "";
    (void)arg;
    (void)node;
    (void)channel;
    assert_int_equal(envelope_get(bytes, &e), ENVELOPE_OK);
    memcpy(text, e.body.p, MIN(e.body.n, sizeof text - 1));
    if (e.kind == ENVELOPE_MESSAGE && sscanf(text, "[%u,%u,%u", &inc, &chan, &number) == 3)
        w.inc[inc].taken[chan] = MAX(w.inc[inc].taken[chan], number);
}

static void
on_message(unsigned host, unsigned ring, const struct t_word *word)
{
    struct sub *s = &w.subs[host][ring][word->chan];
    unsigned inc, chan, number;
    char text[64] = "";
    if (!s->on || s->gen != word->gen)
        return;
    memcpy(text, word->data.p, MIN(word->data.n, sizeof text - 1));
    CLAIM(sscanf(text, "[%u,%u,%u", &inc, &chan, &number) == 3 && chan == word->chan, "not what was said: %s", text);
    struct seen *v = &s->from[inc];
    SAY("%u.%u hears chan %u inc %u number %u\n", host, ring, chan, inc, number);
    CLAIM(!v->set || number > v->pos, "%u.%u hears %u of %u on %u after %u", host, ring, number, inc, chan, v->pos);
    unsigned start = v->set ? v->pos : s->acked ? MIN(v->base, number - 1) : number - 1;
    if (!v->set)
        v->start = start;
    unsigned need = missing(&w.inc[inc], chan, start, number - 1);
    unsigned from = w.inc[inc].host;
    bool waits = (w.mode & M_FEW_SOURCES) && (from == host || w.answered[from][0] < w.asked[from][0]);
    if (waits || /* refused before they had a number, and the answer is not read yet */
        (!v->set && !s->guard && (w.mode & (M_REFUSE | M_LOSE)))) { /* refused or lost within the first second */
        need = MIN(need, (unsigned)s->credit);
        s->loan += need;
    }
    CLAIM(need <= s->credit + s->loan || v->wild, "%u.%u misses %u before %u of %u on %u and was told of %u", host, ring, need,
        number, inc, chan, (unsigned)s->credit);
    unsigned paid = v->wild ? 0 : MIN(need, (unsigned)s->credit); /* wild: nobody can tell what of it was counted */
    s->credit -= paid;
    s->loan -= v->wild ? 0 : need - paid;
    v->wild = false;
    v->set = true;
    v->pos = number;
    s->order = (s->order ^ (inc << 20 ^ number)) * 0x9e3779b97f4a7c15ull;
    w.delivered++;
}

static void
on_gap(unsigned host, unsigned ring, const struct t_word *word)
{
    struct sub *s = &w.subs[host][ring][word->chan];
    if (!s->on || s->gen != word->gen)
        return;
    SAY("%u.%u is told of %u missing on chan %u\n", host, ring, (unsigned)word->count, word->chan);
    s->credit += word->count;
    w.missed += word->count;
    if (word->count > 0)
        return;
    w.unknowns++;
    s->unknown = true;
    for (unsigned i = 0; i < INCS; i++) /* those that begin before it is confirmed again, too */
        s->from[i].wild = true;
}

static void
on_answer(unsigned host, unsigned ring, enum error_id err)
{
    CLAIM(w.answered[host][ring] < w.asked[host][ring], "more answers than questions");
    const struct request *r = &w.requests[host][ring][w.answered[host][ring]++ % REQUESTS];
    struct sub *s = &w.subs[host][ring][r->chan];
    if (r->kind == IPC_PUBLISH) {
        if (err == ERR_BUS_REFUSED && !(w.mode & M_ACK_BUS))
            w.inc[r->inc].none[r->chan][r->number] = true;
        return;
    }
    if (!s->on || s->gen != r->gen)
        return;
    if (err != ERR_NONE) {
        s->on = false;
        return;
    }
    s->acked = true;
    for (unsigned i = 0; i < w.incs; i++)
        s->from[i].base = w.inc[i].said[r->chan]; /* what is said from now on may not be missed */
}

static void
read_ring(unsigned host, unsigned ring)
{
    struct t_word word;
    while (t_next(&w.hosts[host].rings[ring], &word))
        switch (word.type) {
        case IPC_MESSAGE: on_message(host, ring, &word); break;
        case IPC_GAP: on_gap(host, ring, &word); break;
        case IPC_FAILED: on_answer(host, ring, (enum error_id)word.count); break;
        case IPC_DONE:
            while (word.count-- > 0)
                on_answer(host, ring, ERR_NONE);
            break;
        default: break; /* XOFF and XON: this ring does not listen to them */
        }
}

/* -- what happens -- */

static void
request(unsigned host, unsigned ring, struct request r)
{
    w.requests[host][ring][w.asked[host][ring]++ % REQUESTS] = r;
}

static void
subscribe(unsigned host, unsigned ring, unsigned chan, bool guard)
{
    struct sub *s = &w.subs[host][ring][chan];
    uint32_t gen = s->gen + 1;
    if (s->on || !t_subscribe(&w.hosts[host].rings[ring], chan, gen, chan_text(chan)))
        return;
    SAY("%u.%u subscribes to %u\n", host, ring, chan);
    bool is_first = chan_find(&w.hosts[host].b, chan_text(chan)) == NULL;
    for (unsigned r = 0; r < T_RINGS; r++)
        is_first &= !w.subs[host][r][chan].on;
    for (unsigned i = 0; i < INCS && is_first; i++)
        w.began[host][chan][i] = w.inc[i].sure[chan];
    *s = (struct sub){.on = true, .gen = gen, .guard = guard};
    request(host, ring, (struct request){.kind = IPC_SUBSCRIBE, .chan = chan, .gen = gen});
}

static void
unsubscribe(unsigned host, unsigned ring, unsigned chan)
{
    struct sub *s = &w.subs[host][ring][chan];
    if (s->on && !s->guard && t_unsubscribe(&w.hosts[host].rings[ring], chan, s->gen))
        s->on = false;
}

static void
publish(unsigned host, unsigned chan)
{
    char text[4096];
    unsigned inc = w.inc_of[host], number = w.inc[inc].said[chan] + 1;
    int n = snprintf(text, sizeof text, "[%u,%u,%u,\"%*s\"]", inc, chan, number, (w.mode & M_SLOW_RINGS) ? (int)rnd(3000) : 0, "");
    if (number >= NUMS || w.asked[host][0] - w.answered[host][0] >= REQUESTS - 1)
        return;
    if (!t_publish(&w.hosts[host].rings[0], chan_text(chan), view_of(text, (size_t)n)))
        return;
    w.inc[inc].said[chan] = number;
    request(host, 0, (struct request){.kind = IPC_PUBLISH, .chan = chan, .inc = inc, .number = number});
    SAY("%u says %u of %u on %u\n", host, number, inc, chan);
}

static void
say_something(unsigned host, unsigned chan)
{
    if (!(w.mode & M_SILENT) || (w.now.ns / 600000000 + 2 * host + chan) % 4 == 0)
        publish(host, chan);
}

static void
start(unsigned host)
{
    struct t_host *h = &w.hosts[host];
    char name[8];
    struct conf_error err;
    (void)snprintf(name, sizeof name, "host%u", host);
    conf_defaults(&h->conf);
    assert_true(conf_set(&h->conf, "host.name", name, "test", &err));
    assert_true(conf_set(&h->conf, "bus.order", (w.mode & M_ORDER_BUS) ? "bus" : "local", "test", &err));
    assert_true(conf_set(&h->conf, "bus.ack", (w.mode & M_ACK_BUS) ? "bus" : "local", "test", &err));
    assert_true(conf_set(&h->conf, "bus.unconfirmed", (w.mode & M_ERROR) ? "error" : "ack", "test", &err));
    h->conf.bus_heartbeat = HEARTBEAT_MS;
    h->conf.bus_ack_wait = (w.mode & M_FAULTS) ? 700 : 60000;
    h->conf.bus_subscribe_wait = (w.mode & M_NO_WAIT) ? 0 : 500;
    h->conf.bus_answer_within = !(w.mode & M_SILENT) ? 10000 : (w.mode & M_FAULTS) ? 150 : 1000;
    h->conf.lane_overflow_bytes = (w.mode & M_SLOW_RINGS) ? 8192 : 1u << 25;
    h->conf.lane_bytes = T_LANE;
    if (w.mode & M_FEW_SOURCES)
        h->conf.bus_max_sources = 3;
    t_host_start(h, w.net, 0, w.now);
    w.links[host] = BUS_MEM_HEARS | BUS_MEM_SAYS;
    w.inc_of[host] = w.incs++;
    w.inc[w.inc_of[host]] = (struct inc){.host = host};
    if (w.mode & M_BOUND)
        bus_mem_bound(w.net, bus_mem_node(h->b.bus), 4 + rnd(8));
    if ((w.mode & M_BOUND) && rnd(2))
        bus_mem_window(w.net, bus_mem_node(h->b.bus), 2 + rnd(8));
}

static void
restart(unsigned host)
{
    if (w.incs == INCS)
        return;
    SAY("%u restarts\n", host);
    w.inc[w.inc_of[host]].dead = true;
    t_host_stop(&w.hosts[host]);
    conf_free(&w.hosts[host].conf);
    start(host);
    for (unsigned ring = 0; ring < T_RINGS; ring++) {
        w.answered[host][ring] = w.asked[host][ring];
        for (unsigned chan = 0; chan < CHANS; chan++) {
            bool was = w.subs[host][ring][chan].on;
            w.subs[host][ring][chan].on = false;
            if (was)
                subscribe(host, ring, chan, false);
        }
    }
}

/* What is refused or lost from now on is noticed by those who listen since the beginning. */
static bool
settled(void)
{
    return mono_ms(w.now) > 4000 + w.stood;
}

static void
host_turn(unsigned host)
{
    struct inc *in = &w.inc[w.inc_of[host]];
    t_host_turn(&w.hosts[host], w.now);
    if (bus_mem_is_idle(w.hosts[host].b.bus))
        memcpy(in->sure, in->taken, sizeof in->sure);
}

static void
turn(unsigned host)
{
    if (!mono_reached(w.now, w.still[host]))
        return;
    /* Not before that: who stands still settles later. */
    bool may = (w.mode & M_STALL) && (settled() || !(w.mode & M_REFUSE));
    if (may && rnd(200) == 0) {
        SAY("%u stands still\n", host);
        w.still[host] = mono_add_ms(w.now, rnd(2500));
        return;
    }
    host_turn(host);
    for (unsigned ring = 0; ring < T_RINGS; ring++)
        if (!(w.mode & M_SLOW_RINGS) || (w.mode & M_FEW_SOURCES) || rnd(8) == 0)
            read_ring(host, ring);
}

static void
cut_or_heal(unsigned host)
{
    unsigned may = ((w.mode & M_CUT_HEARS) ? BUS_MEM_HEARS : 0) | ((w.mode & M_CUT_SAYS) ? BUS_MEM_SAYS : 0);
    unsigned which = may & (1 + rnd(3)), node = bus_mem_node(w.hosts[host].b.bus);
    if (which == 0)
        return;
    if (rnd(3) > 0) {
        SAY("%u heals\n", host);
        bus_mem_heal(w.net, node, BUS_MEM_HEARS | BUS_MEM_SAYS);
        w.links[host] = BUS_MEM_HEARS | BUS_MEM_SAYS;
    } else {
        SAY("%u is cut of %u\n", host, which);
        bus_mem_cut(w.net, node, which);
        w.links[host] &= ~which;
    }
}

static void
faults(unsigned host)
{
    unsigned node = bus_mem_node(w.hosts[host].b.bus);
    if (rnd(12) == 0)
        cut_or_heal(host);
    if ((w.mode & M_TWICE) && rnd(20) == 0)
        bus_mem_twice(w.net, node, 1 + rnd(3));
    if ((w.mode & M_LOSE) && settled() && rnd(20) == 0)
        bus_mem_lose(w.net, node, 1 + rnd(3));
    if ((w.mode & M_REFUSE) && settled() && rnd(20) == 0)
        bus_mem_refuse(w.net, node, 1 + rnd(3));
    if ((w.mode & M_RESTART) && rnd(150) == 0)
        restart(host);
    if ((w.mode & M_PARTLY) && rnd(30) == 0) {
        bool is = rnd(2) == 0;
        bus_mem_partly(w.net, node, is);
        bus_mem_deaf(w.net, node, is ? rnd(3) : 0);
    }
    if (rnd(40) == 0)
        bus_mem_slow(w.net, bus_mem_node(w.hosts[host].b.bus), rnd(2) ? UINT32_MAX : 1 + rnd(5));
}

static void
step(void)
{
    unsigned host = rnd(HOSTS), chan = rnd(CHANS);
    for (unsigned n = rnd(5); n > 0; n--)
        say_something(host, rnd(3) ? chan : rnd(CHANS));
    if ((w.mode & M_SILENT) && rnd(3) == 0)
        subscribe(2, 0, rnd(CHANS), false);
    if ((w.mode & M_SILENT) && rnd(2) == 0)
        unsubscribe(2, rnd(T_RINGS), rnd(CHANS));
    if (rnd(6) == 0)
        subscribe(rnd(HOSTS), rnd(T_RINGS), rnd(CHANS), false);
    if (rnd(12) == 0)
        unsubscribe(rnd(HOSTS), rnd(T_RINGS), rnd(CHANS));
    if (rnd(20) == 0) { /* left and wanted again within a turn */
        unsigned other = rnd(HOSTS), ring = rnd(T_RINGS);
        unsubscribe(other, ring, chan);
        subscribe(other, ring, chan, false);
    }
    for (unsigned h = 0; h < HOSTS; h++) {
        faults(h);
        if (rnd(10) < 7)
            turn(h);
        if (rnd(10) < 7)
            bus_mem_carry(w.net, bus_mem_node(w.hosts[h].b.bus), rnd(8), rnd(8));
    }
    if ((w.mode & M_STALL) && rnd(100) == 0) { /* all stand still */
        w.now = mono_add_ms(w.now, 1800);
        w.stood += 1800;
    }
    w.now = mono_add_ms(w.now, rnd(30));
}

/* All links hold and all is carried, for so long. */
static void
rest(unsigned ms)
{
    for (unsigned h = 0; h < HOSTS; h++) {
        unsigned node = bus_mem_node(w.hosts[h].b.bus);
        bus_mem_heal(w.net, node, BUS_MEM_HEARS | BUS_MEM_SAYS);
        bus_mem_slow(w.net, node, UINT32_MAX);
        bus_mem_twice(w.net, node, 0);
        bus_mem_lose(w.net, node, 0);
        bus_mem_refuse(w.net, node, 0);
        bus_mem_partly(w.net, node, false);
        bus_mem_deaf(w.net, node, 0);
    }
    unsigned one = ms > 10000 ? 200 : 20;
    for (unsigned passed = 0; passed < ms; passed += one) {
        for (unsigned h = 0; h < HOSTS; h++) {
            host_turn(h);
            for (unsigned ring = 0; ring < T_RINGS; ring++)
                read_ring(h, ring);
            (void)bus_mem_carry(w.net, bus_mem_node(w.hosts[h].b.bus), UINT32_MAX, UINT32_MAX);
        }
        w.now = mono_add_ms(w.now, one);
    }
}

/* -- the books -- */

static void
balance(unsigned host, unsigned ring, unsigned chan)
{
    const struct sub *s = &w.subs[host][ring][chan];
    uint64_t open = 0, other = 0; /* other: need not be told, and may be */
    bool exact = !s->unknown && (s->guard || !(w.mode & M_FAULTS));
    if (!s->on)
        return;
    CLAIM(s->acked, "%u.%u waits for its answer on %u", host, ring, chan);
    for (unsigned i = 0; i < w.incs; i++) {
        const struct inc *in = &w.inc[i];
        const struct seen *v = &s->from[i];
        unsigned upto = in->dead ? in->taken[chan] : in->said[chan], after = v->set ? v->pos : v->base;
        other += missing(in, chan, w.began[host][chan][i], v->set ? v->start : v->base);
        if (in->dead && (!v->set || in->said[chan] != in->taken[chan])) { /* nobody is left who knows */
            exact = false;
            other += missing(in, chan, after, in->said[chan]);
            continue;
        }
        if (!v->set && !s->guard && (w.mode & (M_REFUSE | M_LOSE))) { /* as in on_message */
            exact = false;
            other += missing(in, chan, after, upto);
            continue;
        }
        if (!v->wild && after < upto)
            open += missing(in, chan, after, upto);
        SAY("end: %u.%u chan %u inc %u: %u to %u, %s%s, credit %u\n", host, ring, chan, i, after, upto, v->wild ? "wild" : "",
            v->set ? "" : "unheard", (unsigned)s->credit);
    }
    CLAIM(open <= s->credit + s->loan, "%u.%u misses %u at the end on %u and was told of %u", host, ring, (unsigned)open, chan,
        (unsigned)s->credit);
    CLAIM(!exact || open == s->credit, "%u.%u misses %u at the end on %u and was told of %u, which is too much", host, ring,
        (unsigned)open, chan, (unsigned)s->credit);
    if (w.mode & M_LOSE) /* a lost answer to an ask makes much of nothing */
        return;
    CLAIM(s->unknown || s->credit <= open + other, "%u.%u misses %u at the end on %u, or %u more, and was told of %u", host, ring,
        (unsigned)open, chan, (unsigned)other, (unsigned)s->credit);
}

static void
books(void)
{
    for (unsigned h = 0; h < HOSTS; h++)
        for (unsigned ring = 0; ring < T_RINGS; ring++) {
            CLAIM(w.answered[h][ring] == w.asked[h][ring], "%u.%u: %u requests, %u answers", h, ring, w.asked[h][ring],
                w.answered[h][ring]);
            for (unsigned chan = 0; chan < CHANS; chan++)
                balance(h, ring, chan);
        }
    uint64_t unconfirmed = 0;
    for (unsigned h = 0; h < HOSTS; h++)
        unconfirmed += w.hosts[h].metrics[BM_bus_unconfirmed_total]; /* their subscribers are told of such a gap */
    if (unconfirmed > 0 || (w.mode & (M_CUT_HEARS | M_FEW_SOURCES | M_SLOW_RINGS | M_RESTART | M_NO_WAIT)))
        return;
    if ((w.mode & M_SILENT) && (w.mode & M_FAULTS)) /* links are slower than bus.answer_within is here */
        return;
    CLAIM(w.unknowns == 0, "a gap of unknown size though no link was lost that hears");
}

static void
one_order(void)
{
    if (!(w.mode & M_ORDER_BUS) || (w.mode & (M_FAULTS | M_TWICE)) || !(w.mode & M_SETTLED))
        return;
    for (unsigned chan = 0; chan < CHANS; chan++)
        for (unsigned h = 1; h < ((w.mode & M_SILENT) ? 2 : HOSTS); h++)
            CLAIM(w.subs[h][1][chan].order == w.subs[0][1][chan].order, "hosts 0 and %u see channel %u in another order", h,
                chan);
}

static void
run(uint64_t seed, unsigned mode)
{
    memset(&w, 0, sizeof w);
    w.seed = seed;
    w.rng = seed * 0x9e3779b97f4a7c15ull | 1;
    w.mode = mode;
    w.now = mono_add_ms((struct mono){0}, 1000);
    w.net = bus_mem_net_new();
    bus_mem_watch(w.net, on_taken, NULL);
    for (unsigned h = 0; h < HOSTS; h++)
        start(h);
    for (unsigned h = 0; h < HOSTS; h++)
        for (unsigned ring = 0; ring < T_RINGS; ring++)
            for (unsigned chan = 0; chan < CHANS; chan++)
                if (!((w.mode & M_SILENT) && h == 2) && (ring == 1 || chan % 2 == 0))
                    subscribe(h, ring, chan, true);
    rest((w.mode & M_SETTLED) ? 1500 : 200);
    for (unsigned k = 0; k < STEPS; k++)
        step();
    rest(3000);
    for (unsigned h = 0; h < HOSTS; h++) /* a bus that loses messages loses marks, too */
        for (unsigned chan = 0; chan < CHANS && (w.mode & M_LOSE); chan++)
            publish(h, chan);
    rest(1000);
    if (w.mode & M_RESTART)
        rest(32000);
    books();
    one_order();
    for (unsigned h = 0; h < HOSTS; h++) {
        w.duplicates += w.hosts[h].metrics[BM_bus_duplicates_total];
        t_host_stop(&w.hosts[h]);
        conf_free(&w.hosts[h].conf);
    }
    bus_mem_net_free(w.net);
}

#ifdef __SANITIZE_THREAD__ /* there is one thread, and it takes ten times as long */
#define SEEDS 20
#else
#define SEEDS 200
#endif
static uint64_t first_seed = 1, seeds = SEEDS;

static void
books_balance(unsigned mask, unsigned always)
{
    uint64_t delivered = 0, missed = 0, unknowns = 0, duplicates = 0;
    for (uint64_t s = first_seed; s < first_seed + seeds; s++) {
        uint64_t bits = s * 0xd1342543de82ef95ull;
        unsigned mode = ((unsigned)(bits >> 40) & mask) | always;
        if (bits >> 61 > 0) /* seldom: every subscriber is told of a gap of unknown size then */
            mode &= ~(unsigned)M_NO_WAIT;
        if (mode & M_FEW_SOURCES)
            mode &= ~(unsigned)(M_ACK_BUS | M_RESTART); /* answers say which publishes had no number */
        if (mode & M_LOSE) /* what no bus may do is found unless an origin may not have been asked, too */
            mode &= ~(unsigned)(M_CUT_HEARS | M_CUT_SAYS | M_STALL | M_RESTART | M_FEW_SOURCES | M_PARTLY);
        if ((mode & M_LOSE) && (mode & M_SILENT)) /* or what it says of others that were refused hides it */
            mode &= ~(unsigned)M_REFUSE;
        run(s, mode);
        delivered += w.delivered;
        missed += w.missed;
        unknowns += w.unknowns;
        duplicates += w.duplicates;
    }
    print_message("%llu seeds: %llu delivered, %llu told missing, %llu gaps of unknown size, %llu duplicates\n",
        (unsigned long long)seeds, (unsigned long long)delivered, (unsigned long long)missed,
        (unsigned long long)unknowns, (unsigned long long)duplicates);
    assert_true(delivered > 0);
}

static void
a_bus_that_is_whole_loses_nothing_and_tells_of_nothing(void **state)
{
    (void)state;
    books_balance(M_ORDER_BUS | M_ACK_BUS | M_TWICE | M_SETTLED | M_SILENT | M_NO_WAIT, 0);
}

static void
an_origin_that_is_cut_off_tells_what_it_dropped(void **state)
{
    (void)state;
    books_balance(M_ORDER_BUS | M_ACK_BUS | M_TWICE | M_SETTLED | M_BOUND | M_REFUSE | M_ERROR | M_SILENT, M_CUT_SAYS);
}

static void
who_is_cut_off_learns_what_it_missed(void **state)
{
    (void)state;
    books_balance(M_ORDER_BUS | M_ACK_BUS | M_CUT_SAYS | M_BOUND | M_SETTLED | M_ERROR | M_STALL | M_SILENT | M_NO_WAIT | M_PARTLY,
        M_CUT_HEARS);
}

static void
all_at_once(void **state)
{
    (void)state;
    books_balance(M_ALL, 0);
}

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bus_that_is_whole_loses_nothing_and_tells_of_nothing),
        cmocka_unit_test(an_origin_that_is_cut_off_tells_what_it_dropped),
        cmocka_unit_test(who_is_cut_off_learns_what_it_missed),
        cmocka_unit_test(all_at_once),
    };
    say = getenv("RINGCAST_SIM_SAY") != NULL;
    log_set_level(LOG_L_ERROR);
    if (argc > 1)
        seeds = strtoull(argv[1], NULL, 10);
    if (argc > 2)
        first_seed = strtoull(argv[2], NULL, 10);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
