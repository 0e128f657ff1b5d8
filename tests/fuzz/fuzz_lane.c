/* A worker's lane full of whatever bytes: the broker handles what can be handled, calls the rest
 * nonsense, and stays sound. The first byte says where in the ring the bytes begin (so that records
 * meet its end), the second how much of them is committed. Another ring wants some channels, and
 * what it is sent must be well-formed. */
#include <stdlib.h>

#include "broker/chan.h"
#include "broker/metrics.h"
#include "broker/peer.h"
#include "common/log.h"

#define BYTES 65536u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static struct conf conf;
static struct broker broker;
static uint64_t metrics[BM_COUNT];
static struct lane_shared *mem[4]; /* the mad ring's lanes, then the other's */

static void
must(bool claim)
{
    if (!claim)
        abort();
}

static void
prepare(void)
{
    if (broker.conf != NULL)
        return;
    conf_defaults(&conf);
    conf.broker_max_channels = 64;
    log_set_level(LOG_L_ERROR);
    broker = (struct broker){.conf = &conf, .metrics = metrics, .settled = true};
    must(pool_init(&broker.peers, sizeof(struct peer), 2) && chans_init(&broker));
    for (unsigned i = 0; i < ARRAY_LEN(mem); i++)
        must((mem[i] = aligned_alloc(LANE_LINE, lane_size(BYTES))) != NULL);
}

/* A peer as it is after its attach, but for the socket; `at` is where its lanes stand. */
static struct peer *
peer_make(struct lane_shared *in, struct lane_shared *out, uint64_t at)
{
    struct peer *p = pool_get(&broker.peers);
    must(p != NULL);
    memset(in, 0, sizeof *in);
    memset(out, 0, sizeof *out);
    p->state = PEER_UP;
    p->fd = -1;
    p->lane_bytes = BYTES;
    lane_init(&p->in, in, BYTES, false);
    lane_init(&p->out, out, BYTES, true);
    p->in.mine = p->in.theirs = p->in.published = at;
    p->overflow = buf_make(1u << 22);
    metric_add(metrics, BM_peers, 1);
    return p;
}

static void
subscribe_other(struct peer *other)
{
    static const char *const names[] = {"", "a", "ab", "news"};
    for (uint32_t i = 0; i < ARRAY_LEN(names); i++) {
        struct chan *ch = chan_want(&broker, view_str(names[i]));
        must(ch != NULL &&
             chan_join(&broker, ch, (struct interest){.peer = peer_slot(&broker, other), .chan = i, .gen = 1}));
    }
}

static void
unsubscribe_other(struct peer *other)
{
    static const char *const names[] = {"", "a", "ab", "news"};
    for (uint32_t i = 0; i < ARRAY_LEN(names); i++)
        chan_leave(&broker, chan_find(&broker, view_str(names[i])),
            (struct interest){.peer = peer_slot(&broker, other), .chan = i, .gen = 1});
}

/* What the broker wrote: whole records of known types. */
static void
read_back(struct peer *p, struct lane_shared *s)
{
    struct lane in;
    struct lane_record r;
    const uint8_t *payload;
    enum lane_rc rc;
    (void)!lane_publish(&p->out);
    lane_init(&in, s, BYTES, false);
    while ((rc = lane_peek(&in, &r, &payload)) == LANE_RECORD) {
        must(payload >= s->data && payload + r.n <= s->data + BYTES);
        must(r.type % 2 == 1 && r.type <= IPC_TALLY);
        must(r.type != IPC_MESSAGE || r.n >= 16);
        must((r.type != IPC_DONE && r.type != IPC_FAILED) || r.n == 4);
        lane_take(&in, &r);
    }
    must(rc == LANE_EMPTY);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 2)
        return 0;
    prepare();
    uint64_t at = (uint64_t)(BYTES - 1024) + data[0] / 2 * 8, commit;
    size_t body = MIN(n - 2, (size_t)BYTES);
    memset(mem[0]->data, 0, BYTES);
    for (size_t i = 0; i < body; i++)
        mem[0]->data[(at + i) & (BYTES - 1)] = data[2 + i];
    /* Mostly a tail that can be; sometimes one that lies. */
    commit = data[1] == 255 ? body * 977 : align_up(body, 8);
    struct peer *mad = peer_make(mem[0], mem[1], at), *other = peer_make(mem[2], mem[3], 0);
    mem[0]->tail = at + commit;
    subscribe_other(other);
    for (unsigned turns = 0; turns < 64 && peer_drain(&broker, mad, 1024); turns++)
        ;
    if (mad->head.next == POOL_LIVE && mad->state == PEER_UP) {
        read_back(mad, mem[1]);
        peer_drop(&broker, mad, "the input ends");
    }
    read_back(other, mem[3]);
    unsubscribe_other(other);
    peer_drop(&broker, other, "the input ends");
    must(broker.peers.live == 0 && broker.chans.live == 0);
    must(metrics[BM_peers] == 0 && metrics[BM_channels] == 0 && metrics[BM_interests] == 0);
    must(broker.overflow_bytes == 0);
    return 0;
}
