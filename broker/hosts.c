#include "broker/hosts.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "broker/across.h"
#include "broker/ask.h"
#include "broker/metrics.h"
#include "broker/peer.h"
#include "broker/tally.h"

#define BEATS_OF_SILENCE 5
/* Noticed earlier at oneself: a short outage is to be nobody's end. */
#define BEATS_TO_DEAF 3
/* A host that beats more slowly than we do is waited for, up to this. */
#define INTERVAL_MAX_MS 600000
/* Heartbeats that a broker which was replaced may have had under way when it died. */
#define LATE_MAX 2

/* Counters at the last heartbeat, for what is said per second. */
struct rates {
    struct mono at;
    uint64_t published, delivered, cpu_ns;
};

struct hosts {
    struct host *v; /* HOSTS_MAX; touched as they are needed */
    uint32_t n;
    uint64_t seq;
    struct mono beat_at, heard_self;
    struct mono said_at;      /* the last heartbeat of ours */
    struct rates rates;
    struct hostbeat load;     /* of this broker, as of the last heartbeat */
    enum bus_state bus_state; /* ... and since when */
    struct mono bus_since;
    bool deaf;                /* the own heartbeats do not come back */
    bool full;                /* somebody was not taken; said once */
    uint8_t leaving;          /* 1: to be said; 2: said; 3: and sent */
};

static uint64_t
interval_ms(const struct broker *b)
{
    return b->conf->bus_heartbeat;
}

static uint64_t
cpu_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

const char *
hosts_id(const struct envelope_origin *o, char out[17])
{
    for (unsigned i = 0; i < sizeof o->host; i++)
        snprintf(out + 2 * i, 3, "%02x", o->host[i]);
    return out;
}

static bool
is_same_broker(const struct envelope_origin *a, const struct envelope_origin *c)
{
    return memcmp(a->host, c->host, sizeof a->host) == 0 && a->broker == c->broker;
}

/* -- this broker -- */

static uint64_t
per_second(uint64_t now, uint64_t before, uint64_t ms)
{
    return ms > 0 ? (now - before) * 1000 / ms : 0;
}

static void
measure(struct broker *b, struct hosts *hs)
{
    struct rates now = {b->now, b->metrics[BM_publishes_total], b->metrics[BM_deliveries_total], cpu_ns()};
    uint64_t ms = mono_since_ms(b->now, hs->rates.at);
    if (ms == 0)
        return;
    hs->load.published = per_second(now.published, hs->rates.published, ms);
    hs->load.delivered = per_second(now.delivered, hs->rates.delivered, ms);
    hs->load.cpu_permille = (now.cpu_ns - hs->rates.cpu_ns) / 1000 / ms;
    hs->rates = now;
}

static uint64_t
connections(struct broker *b)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < b->peers.used; i++) {
        const struct peer *p = peer_at(b, i);
        if (p->head.next == POOL_LIVE && p->state == PEER_UP && p->seg != NULL)
            sum += atomic_load_explicit(&p->seg->connections, memory_order_relaxed);
    }
    return sum;
}

/* The machine's own name if the settings have none. */
static struct view
own_name(const struct broker *b)
{
    static char name[HOSTBEAT_NAME_MAX + 1];
    if (b->conf->host_name[0] != '\0')
        return view_str(b->conf->host_name);
    if (name[0] == '\0' && gethostname(name, sizeof name - 1) < 0)
        return VIEW("-");
    return view_str(name);
}

struct hostbeat
hosts_own(struct broker *b)
{
    struct hostbeat h = b->hosts != NULL ? b->hosts->load : (struct hostbeat){0};
    h.kind = HOSTBEAT_ALIVE;
    h.seq = b->hosts != NULL ? b->hosts->seq : 0;
    h.interval_ms = interval_ms(b);
    h.uptime_s = mono_since_ms(b->now, b->since) / 1000;
    h.brokers = b->conf->broker_count;
    h.rings = b->metrics[BM_peers];
    h.connections = connections(b);
    h.channels = b->metrics[BM_channels];
    h.name = own_name(b);
    h.release = VIEW(RINGCAST_VERSION);
    return h;
}

static void
say(struct broker *b, enum hostbeat_kind kind)
{
    uint8_t mem[HOSTBEAT_BYTES_MAX];
    struct buf out = buf_fixed(mem, sizeof mem);
    b->hosts->seq++;
    struct hostbeat h = hosts_own(b);
    h.kind = kind;
    if (hostbeat_put(&out, &h))
        (void)across_say_host(b, buf_view(&out)); /* what the bus does not take now, others do not miss */
}

/* -- others -- */

static void
host_keep(struct host *h, const struct hostbeat *said)
{
    h->said = *said;
    if (said->name.n)
        memcpy(h->name, said->name.p, said->name.n);
    if (said->release.n)
        memcpy(h->release, said->release.p, said->release.n);
    h->said.name = view_of(h->name, said->name.n);
    h->said.release = view_of(h->release, said->release.n);
}

static uint32_t
distinct_hosts(const struct hosts *hs, const struct envelope_origin *self)
{
    uint32_t n = 1;
    for (uint32_t i = 0; i < hs->n; i++) {
        bool first = memcmp(hs->v[i].id.host, self->host, sizeof self->host) != 0;
        for (uint32_t k = 0; k < i && first; k++)
            first = memcmp(hs->v[i].id.host, hs->v[k].id.host, sizeof self->host) != 0;
        n += first;
    }
    return n;
}

static void
show(struct broker *b)
{
    struct envelope_origin self = across_self(b);
    GAUGE(b, hosts, distinct_hosts(b->hosts, &self));
    GAUGE(b, host_brokers, b->hosts->n + 1);
}

static void
log_host(const char *what, const struct host *h, const char *why)
{
    char id[17];
    log_info(what, "host=%s id=%s broker=%" PRIu32 "%s%s", log_quote(h->said.name).s, hosts_id(&h->id, id), h->id.broker,
        why != NULL ? " why=" : "", why != NULL ? why : "");
}

static void
host_remove(struct broker *b, uint32_t i, const char *why)
{
    struct hosts *hs = b->hosts;
    log_host("host-left", &hs->v[i], why);
    COUNT(b, hosts_left_total);
    hs->n--;
    if (i != hs->n) {
        hs->v[i] = hs->v[hs->n];
        host_keep(&hs->v[i], &hs->v[hs->n].said);
    }
    hs->full = false;
    show(b);
}

static struct host *
host_find(struct hosts *hs, const struct envelope_origin *id)
{
    for (uint32_t i = 0; i < hs->n; i++)
        if (memcmp(&hs->v[i].id, id, sizeof *id) == 0)
            return &hs->v[i];
    return NULL;
}

static void
host_add(struct broker *b, const struct envelope_origin *id, const struct hostbeat *said)
{
    struct hosts *hs = b->hosts;
    if (hs->n == HOSTS_MAX) {
        COUNT(b, hosts_refused_total);
        if (!hs->full)
            log_warn("hosts-full", "hosts=%d why=\"no more are remembered; messages are not concerned\"", HOSTS_MAX);
        hs->full = true;
        return;
    }
    for (uint32_t i = 0; i < hs->n; i++)
        if (is_same_broker(&hs->v[i].id, id) && hs->v[i].state == HOST_UP)
            hs->v[i].state = HOST_REPLACED;
    struct envelope_origin self = across_self(b);
    struct host *h = &hs->v[hs->n++];
    *h = (struct host){.id = *id, .heard = b->now, .beat = b->now, .state = is_same_broker(id, &self) ? HOST_REPLACED : HOST_UP};
    host_keep(h, said);
    log_host("host-joined", h, NULL);
    COUNT(b, hosts_joined_total);
    show(b);
}

/* One that was replaced, and goes on all the same. */
static void
look_for_conflict(struct broker *b, struct host *h)
{
    char id[17];
    if (h->state != HOST_REPLACED || ++h->late <= LATE_MAX)
        return;
    h->state = HOST_CONFLICT;
    COUNT(b, host_conflicts_total);
    log_error("host-conflict", "host=%s id=%s broker=%" PRIu32 " why=\"two processes are the same broker of the same host: was the "
        "machine copied? give it another machine-id or host.name\"", log_quote(h->said.name).s, hosts_id(&h->id, id), h->id.broker);
}

static void
on_alive(struct broker *b, const struct envelope_origin *id, const struct hostbeat *said)
{
    struct hosts *hs = b->hosts;
    struct host *h = host_find(hs, id);
    if (h == NULL) {
        host_add(b, id, said);
        return;
    }
    h->heard = h->beat = b->now;
    if (said->seq <= h->said.seq)
        return; /* came by another server, too */
    h->lost += said->seq - h->said.seq - 1;
    host_keep(h, said);
    look_for_conflict(b, h);
}

static void
on_leaving(struct broker *b, const struct envelope_origin *id)
{
    struct host *h = host_find(b->hosts, id);
    if (h != NULL)
        host_remove(b, (uint32_t)(h - b->hosts->v), "\"it ended\"");
}

void
hosts_on_heartbeat(struct broker *b, const struct envelope *e)
{
    struct hostbeat said;
    struct envelope_origin self = across_self(b);
    if (b->hosts == NULL)
        return;
    if (!hostbeat_get(e->body, &said)) {
        COUNT(b, heartbeats_bad_total);
        return;
    }
    COUNT(b, heartbeats_total);
    if (memcmp(&e->origin, &self, sizeof self) == 0) {
        b->hosts->heard_self = b->now;
        return;
    }
    switch (said.kind) {
    case HOSTBEAT_ALIVE: on_alive(b, &e->origin, &said); break;
    case HOSTBEAT_LEAVING: on_leaving(b, &e->origin); break;
    case HOSTBEAT_COUNT: tally_on_question(b, &e->origin, &said); break;
    case HOSTBEAT_COUNTED: tally_on_answer(b, &e->origin, &said); break;
    case HOSTBEAT_KINDS: break;
    }
}

/* -- time -- */

/* Somebody's silence is counted up to when the own heartbeat was heard last: where that does not come back either, it
 * says nothing about others. Afterwards they have their time anew. */
static void
forget_silent(struct broker *b)
{
    struct hosts *hs = b->hosts;
    for (uint32_t i = hs->n; i-- > 0;) {
        struct host *h = &hs->v[i];
        uint64_t each = MIN(MAX(interval_ms(b), h->said.interval_ms), (uint64_t)INTERVAL_MAX_MS);
        if (mono_since_ms(hs->heard_self, h->heard) > BEATS_OF_SILENCE * each)
            host_remove(b, i, "silence");
    }
}

static void
listen_to_self(struct broker *b)
{
    struct hosts *hs = b->hosts;
    bool deaf = mono_since_ms(b->now, hs->heard_self) > BEATS_TO_DEAF * interval_ms(b);
    if (deaf == hs->deaf)
        return;
    hs->deaf = deaf;
    GAUGE(b, hosts_deaf, deaf);
    if (deaf)
        log_warn("bus-not-whole", "hosts=%" PRIu32 " why=\"own heartbeats do not come back\"", hs->n);
    else
        log_info("bus-whole", "hosts=%" PRIu32, hs->n);
    for (uint32_t i = 0; i < hs->n && !deaf; i++)
        hs->v[i].heard = b->now;
}

/* Who comes back says so with a heartbeat at once, as others may wait for it. */
static void
on_bus_state(struct broker *b, struct hosts *hs)
{
    hs->bus_state = b->bus->state;
    hs->bus_since = b->now;
    if (hs->bus_state == BUS_UP)
        hs->beat_at = b->now;
    else
        b->bus->held = hs->n > 0 && !b->conf->redis_required;
}

/* Whether those of other hosts that were known when the bus went away have been heard since it is back. */
static bool
are_all_back(struct broker *b, const struct hosts *hs)
{
    struct envelope_origin self = across_self(b);
    for (uint32_t i = 0; i < hs->n; i++) {
        const struct host *h = &hs->v[i];
        if (h->state == HOST_UP && memcmp(h->id.host, self.host, sizeof self.host) != 0 && h->beat.ns < hs->bus_since.ns)
            return false;
    }
    return true;
}

/* Somebody listens again, and may wait for us: we do not take as long as usual to say that we are there. */
static void
on_back(struct broker *b)
{
    struct mono soon = mono_add_ms(b->hosts->said_at, interval_ms(b) / 4);
    if (b->hosts->beat_at.ns > soon.ns)
        b->hosts->beat_at = soon;
}

void
hosts_turn(struct broker *b)
{
    struct hosts *hs = b->hosts;
    if (hs == NULL)
        return;
    if (UNLIKELY(b->bus->state != hs->bus_state))
        on_bus_state(b, hs);
    if (UNLIKELY(b->bus->held) && (b->stopping || (hs->bus_state == BUS_UP && are_all_back(b, hs))))
        b->bus->held = false;
    if (UNLIKELY(hs->leaving > 0)) {
        if (hs->leaving == 1)
            say(b, HOSTBEAT_LEAVING);
        hs->leaving = (uint8_t)MIN(hs->leaving + 1, 3); /* with the turn after the bus has sent it */
    }
    if (!mono_reached(b->now, hs->beat_at) || hs->leaving)
        return;
    hs->beat_at = mono_add_ms(b->now, interval_ms(b));
    hs->said_at = b->now;
    GAUGE(b, bus_state_ms, mono_since_ms(b->now, hs->bus_since));
    measure(b, hs);
    listen_to_self(b);
    forget_silent(b);
    say(b, HOSTBEAT_ALIVE);
}

bool
hosts_leave(struct broker *b)
{
    if (b->hosts == NULL || b->hosts->leaving == 3)
        return true;
    b->hosts->leaving = MAX(b->hosts->leaving, (uint8_t)1);
    return false;
}

/* -- for operators -- */

bool
hosts_is_deaf(const struct broker *b)
{
    return b->hosts != NULL && b->hosts->deaf;
}

uint32_t
hosts_count(const struct broker *b)
{
    return b->hosts != NULL ? b->hosts->n : 0;
}

const struct host *
hosts_at(const struct broker *b, uint32_t i)
{
    return &b->hosts->v[i];
}

static void
describe(struct ask *a, const struct envelope_origin *o, const struct hostbeat *h, const char *state, uint64_t age_ms,
    uint64_t lost, bool self)
{
    char id[17];
    ask_say(a, "host id=%s epoch=%08" PRIx32 " broker=%" PRIu32 " brokers=%" PRIu64 " self=%d state=%s age_ms=%" PRIu64
        " lost=%" PRIu64 " uptime_s=%" PRIu64 " rings=%" PRIu64 " connections=%" PRIu64 " channels=%" PRIu64
        " published=%" PRIu64 " delivered=%" PRIu64 " cpu=%" PRIu64 " release=%.*s name=%.*s\n",
        hosts_id(o, id), o->epoch, o->broker, h->brokers, self, state, age_ms, lost, h->uptime_s, h->rings, h->connections,
        h->channels, h->published, h->delivered, h->cpu_permille, VIEW_FMT(h->release), VIEW_FMT(h->name));
}

void
hosts_describe(struct broker *b, struct ask *a)
{
    static const char *const words[] = {[HOST_UP] = "up", [HOST_REPLACED] = "replaced", [HOST_CONFLICT] = "conflict"};
    const struct hosts *hs = b->hosts;
    struct hostbeat own = hosts_own(b);
    struct envelope_origin self = {.broker = b->index};
    if (hs != NULL)
        self = across_self(b);
    describe(a, &self, &own, hs == NULL ? "alone" : hs->deaf ? "deaf" : "up", 0, 0, true);
    for (uint32_t i = 0; hs != NULL && i < hs->n; i++) {
        const struct host *h = &hs->v[i];
        describe(a, &h->id, &h->said, hs->deaf ? "unheard" : words[h->state], mono_since_ms(b->now, h->heard), h->lost, false);
    }
}

void
hosts_describe_bus(struct broker *b, struct ask *a)
{
    const struct hosts *hs = b->hosts;
    ask_say(a, "bus kind=%s state=%s since_ms=%" PRIu64 " deaf=%d brokers=%" PRIu32 "\n", b->bus->ops->name,
        bus_state_str(b->bus->state), hs != NULL ? mono_since_ms(b->now, hs->bus_since) : 0, hs != NULL && hs->deaf,
        hosts_count(b) + 1);
    b->bus->ops->describe(b->bus, &a->out);
}

/* -- making it -- */

bool
hosts_open(struct broker *b)
{
    b->since = b->now;
    if (b->across == NULL)
        return true;
    struct hosts *hs = b->hosts = calloc(1, sizeof *hs);
    if (hs == NULL || (hs->v = calloc(HOSTS_MAX, sizeof *hs->v)) == NULL)
        return false;
    hs->beat_at = hs->heard_self = hs->bus_since = b->now;
    hs->rates = (struct rates){b->now, b->metrics[BM_publishes_total], b->metrics[BM_deliveries_total], cpu_ns()};
    hs->bus_state = b->bus->state;
    across_hear_hosts(b, hosts_on_heartbeat);
    across_hear_back(b, on_back);
    show(b);
    return true;
}

void
hosts_close(struct broker *b)
{
    if (b->hosts != NULL)
        free(b->hosts->v);
    free(b->hosts);
    b->hosts = NULL;
}
