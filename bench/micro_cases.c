/* The cases of ringcast-micro; see micro.h. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>
#include <xxhash.h>

#include "bench/micro.h"
#include "broker/redis_command.h"
#include "common/bug.h"
#include "common/lane.h"
#include "common/log.h"
#include "proto/json.h"
#include "worker/conn.h"
#include "worker/fan.h"
#include "worker/outq.h"
#include "worker/subs.h"

#define TEXT 1024
#define SUBSCRIBERS 512
#define CHANNELS 10000
#define RECORD 176 /* bytes of a message of 128 with what stands around it */

static uint8_t text[TEXT + 64], copy[TEXT + 64];

static void
floor_copy(uint32_t n)
{
    while (n-- > 0) {
        memcpy(copy, text, TEXT);
        micro_keep(copy);
    }
}

/* --- WebSocket ----------------------------------------------------------------------------- */

static void
set_ascii(void)
{
    for (uint32_t i = 0; i < TEXT; i++)
        text[i] = (uint8_t)(' ' + i % 90);
}

/* Words of two, three and four bytes a character between ASCII. */
static void
set_mixed(void)
{
    static const char words[] = "Gr\xc3\xbc\xc3\x9f" "e \xe4\xbd\xa0\xe5\xa5\xbd \xf0\x9f\x98\x80 and so on ";
    uint32_t at = 0;
    for (; at + sizeof words - 1 <= TEXT; at += sizeof words - 1)
        memcpy(text + at, words, sizeof words - 1);
    memset(text + at, ' ', TEXT - at);
}

static void
run_unmask(uint32_t n)
{
    static const uint8_t key[4] = {0x37, 0xfa, 0x21, 0x3d};
    while (n-- > 0) {
        ws_mask(text, TEXT, key, 1);
        micro_keep(text);
    }
}

static void
run_utf8(uint32_t n)
{
    while (n-- > 0)
        BUG_ON(!utf8_valid(view_of(text, TEXT)));
}

/* --- JSON and the dialect ------------------------------------------------------------------ */

static uint32_t text_n;

static void
set_json(void)
{
    int at = snprintf((char *)text, sizeof text, "{\"rows\":[0");
    for (uint32_t i = 0; at < TEXT - 80; i++)
        at += snprintf((char *)text + at, sizeof text - (size_t)at,
            ",{\"id\":%u,\"name\":\"kestrel-%u\",\"price\":%u.25,\"up\":%s}", i * 7919 % 100000, i, i * 31 % 1000,
            i % 3 ? "true" : "false");
    while (at < TEXT - 2)
        text[at++] = ' ';
    memcpy(text + at, "]}", 2);
    text_n = TEXT;
}

static void
run_json(uint32_t n)
{
    while (n-- > 0) {
        bool deep = false;
        BUG_ON(!json_valid(view_of(text, text_n), 128, &deep));
    }
}

/* A publish of a string of 128 characters. */
static void
set_publish(void)
{
    text_n = (uint32_t)snprintf((char *)text, sizeof text,
        "{\"event\":\"#publish\",\"data\":{\"channel\":\"bench-000123\",\"data\":\"%0128d\"},\"cid\":12345}", 7);
}

static void
run_decode(uint32_t n)
{
    static const struct dialect_limits limits = {.max_depth = 128, .max_batch = 8192, .max_channel_name = 1024,
        .max_event_name = 256};
    static uint8_t state[64] ALIGNED(16);
    static struct decoding d;
    static struct verb v;
    while (n-- > 0) {
        d.msg = view_of(text, text_n); /* as a worker does: the room for names is not cleared */
        d.text = true;
        d.step = d.count = 0;
        d.pos = 0;
        BUG_ON(dialect_socketcluster.decode(state, &limits, &d, &v) != DECODE_VERB || v.data.n != 130);
        BUG_ON(dialect_socketcluster.decode(state, &limits, &d, &v) != DECODE_END);
    }
}

static void
floor_message(uint32_t n)
{
    while (n-- > 0) {
        memcpy(copy, text, RECORD);
        micro_keep(copy);
    }
}

static void
run_encode(uint32_t n)
{
    struct event ev = {.kind = EV_PUBLICATION, .channel = view_str("bench-000123"), .has_data = true,
        .data = view_of(text + 64, 130)};
    while (n-- > 0) {
        uint8_t head[WS_HEADER_MAX];
        struct buf out = buf_fixed(copy + 4, TEXT);
        BUG_ON(!dialect_socketcluster.encode(NULL, &ev, &out));
        size_t head_n = ws_put_header(head, WS_TEXT, out.n);
        memcpy(copy, head, head_n);
        micro_keep(copy);
    }
}

/* --- lanes --------------------------------------------------------------------------------- */

#define LANE_BYTES (1u << 20)

static struct lane producer, consumer;

static void
set_lane(void)
{
    void *mem = aligned_alloc(4096, align_up(lane_size(LANE_BYTES), 4096));
    BUG_ON(mem == NULL);
    memset(mem, 0, lane_size(LANE_BYTES));
    lane_init(&producer, mem, LANE_BYTES, true);
    lane_init(&consumer, mem, LANE_BYTES, false);
}

/* Sixteen records, published and released once: a turn of each side. */
static void
run_lane(uint32_t n)
{
    while (n-- > 0) {
        struct lane_record r;
        const uint8_t *p;
        for (int i = 0; i < 16; i++) {
            uint8_t *to = lane_put(&producer, 1, 0, 0, RECORD);
            BUG_ON(to == NULL);
            memcpy(to, text, RECORD);
        }
        BUG_ON(lane_publish(&producer)); /* nobody sleeps */
        while (lane_peek(&consumer, &r, &p) == LANE_RECORD) {
            micro_keep(p);
            lane_take(&consumer, &r);
        }
        BUG_ON(lane_release(&consumer));
    }
}

static void
floor_lane(uint32_t n)
{
    for (n *= 16; n-- > 0;) {
        memcpy(copy, text, RECORD);
        micro_keep(copy);
    }
}

/* --- a worker without clients' sockets ----------------------------------------------------- */

static struct worker *w;
static struct chan *fan_chan;
static char run_dir[] = "/tmp/ringcast-micro-XXXXXX";

static void
leave_no_trace(void)
{
    char stat_dir[sizeof run_dir + 8];
    snprintf(stat_dir, sizeof stat_dir, "%s/stat", run_dir);
    metric_page_free(&w->page, true);
    (void)rmdir(stat_dir);
    (void)rmdir(run_dir);
}

static struct conn *
new_conn(void)
{
    struct conn *c = pool_get(&w->conns);
    BUG_ON(c == NULL);
    c->fd = -1;
    c->state = CONN_OPEN;
    c->dialect = 1;
    c->sess = S_OPEN;
    return c;
}

static void
set_worker(void)
{
    static _Atomic int stop;
    static struct conf conf;
    struct conf_error err;
    if (w != NULL)
        return;
    if (mkdtemp(run_dir) == NULL)
        die("%s cannot be made", run_dir);
    log_set_level(LOG_L_ERROR);
    conf_defaults(&conf);
    BUG_ON(!conf_set(&conf, "run.dir", run_dir, "micro", &err));
    struct worker_setup s = {.conf = &conf, .conn_max = SUBSCRIBERS + CHANNELS, .wake_fd = eventfd(0, EFD_CLOEXEC),
        .stop = &stop, .cpu = -1};
    w = worker_new(&s, &err);
    if (w == NULL)
        die("%s", err.text);
    atexit(leave_no_trace);
    ring_submit(&w->ring);
}

static void
set_fan(void)
{
    set_worker();
    set_publish();
    for (int i = 0; i < SUBSCRIBERS; i++)
        BUG_ON(subs_add(w, new_conn(), view_str("bench-fan"), &fan_chan) == SUBS_NO_MEMORY);
}

/* One message to 512 subscribers: encoded, queued, each one's send prepared, its completion worked on. The
 * submission entries are dropped in place of being submitted: what the kernel does is not counted. */
static void
run_fan(uint32_t n)
{
    struct view data = view_of(text + 64, 130);
    while (n-- > 0) {
        fan_on_message(w, pool_slot(&w->chans, fan_chan), fan_chan->head.gen, true, data);
        fan_out_all(w);
        outq_flush(w);
        w->ring.u.sq.sqe_tail = w->ring.u.sq.sqe_head;
        for (uint32_t i = 0; i < fan_chan->sub_count; i++) {
            struct conn *c = conn_at(w, chan_subs(fan_chan)[i]);
            c->inflight--;
            conn_on_send(w, c, (struct ring_done){.op = OP_SEND, .res = (int)c->out.bytes});
        }
    }
}

static void
floor_fan(uint32_t n)
{
    while (n-- > 0) {
        for (uint32_t i = 0; i < SUBSCRIBERS; i++) {
            struct io_uring_sqe *sqe = io_uring_get_sqe(&w->ring.u);
            io_uring_prep_send(sqe, (int)i, text, RECORD, MSG_DONTWAIT);
            sqe->user_data = i;
        }
        w->ring.u.sq.sqe_tail = w->ring.u.sq.sqe_head;
    }
}

static char names[CHANNELS][16];

static void
set_subs(void)
{
    struct chan *ch;
    set_worker();
    w->hash_seed = 1;
    for (uint32_t i = 0; i < CHANNELS; i++) {
        snprintf(names[i], sizeof names[i], "chan-%08u", i * 7919u % CHANNELS);
        BUG_ON(subs_add(w, new_conn(), view_str(names[i]), &ch) == SUBS_NO_MEMORY);
    }
}

static void
run_find(uint32_t n)
{
    while (n-- > 0)
        BUG_ON(subs_find(w, view_of((const uint8_t *)names[n * 31 % CHANNELS], 13)) == NULL);
}

static void
floor_hash(uint32_t n)
{
    uint64_t sum = 0;
    while (n-- > 0)
        sum += XXH3_64bits_withSeed(names[n * 31 % CHANNELS], 13, 1);
    micro_keep(&sum);
}

/* --- what goes to Redis --------------------------------------------------------------------- */

/* As a broker has it: an envelope of 26 bytes and 128 of a message's, behind a name of 14 in two pieces. */
static void
run_redis(uint32_t n)
{
    struct redis_request r = {0};
    while (n-- > 0) {
        redis_command_publish_put(copy, VIEW("PUBLISH"), VIEW("ringcast:"), VIEW("news1"), view_of(text, 26),
            view_of(text + 26, 128), &r);
        micro_keep(&r);
    }
}

static void
floor_redis(uint32_t n)
{
    while (n-- > 0) {
        memcpy(copy, text, 14);
        memcpy(copy + 14, text, 26 + 128);
        micro_keep(copy);
    }
}

/* --- the ring ------------------------------------------------------------------------------ */

#define TURN 64

static void
count_done(void *arg, struct ring_done d)
{
    *(uint64_t *)arg += d.slot;
}

/* A turn of 64 operations that do nothing. */
static void
run_turn(uint32_t n)
{
    uint64_t sum = 0;
    while (n-- > 0) {
        for (uint32_t i = 0; i < TURN; i++) {
            struct io_uring_sqe *sqe = ring_sqe(&w->ring);
            io_uring_prep_nop(sqe);
            ring_set_tag(sqe, OP_CANCEL, 0, i);
        }
        ring_wait(&w->ring, 0);
        while (ring_reap(&w->ring, count_done, &sum) == 0)
            ring_wait(&w->ring, 1000000);
    }
    micro_keep(&sum);
}

/* The same by liburing alone. */
static void
floor_turn(uint32_t n)
{
    uint64_t sum = 0;
    while (n-- > 0) {
        struct io_uring_cqe *cqe;
        unsigned head, seen = 0;
        for (uint32_t i = 0; i < TURN; i++) {
            struct io_uring_sqe *sqe = io_uring_get_sqe(&w->ring.u);
            io_uring_prep_nop(sqe);
            sqe->user_data = i;
        }
        BUG_ON(io_uring_submit_and_wait(&w->ring.u, TURN) != TURN);
        io_uring_for_each_cqe(&w->ring.u, head, cqe) {
            sum += cqe->user_data;
            seen++;
        }
        io_uring_cq_advance(&w->ring.u, seen);
    }
    micro_keep(&sum);
}

const struct micro_case micro_cases[] = {
    {"unmask", "unmask 1 KiB", 1, set_ascii, run_unmask, "copy 1 KiB", floor_copy},
    {"utf8_ascii", "check 1 KiB of ASCII", 1, set_ascii, run_utf8, "copy 1 KiB", floor_copy},
    {"utf8_mixed", "check 1 KiB of several scripts", 1, set_mixed, run_utf8, "copy 1 KiB", floor_copy},
    {"json", "scan 1 KiB of JSON", 1, set_json, run_json, "copy 1 KiB", floor_copy},
    {"decode", "decode a publish of 128 bytes", 1, set_publish, run_decode, "copy 176 bytes", floor_message},
    {"encode", "encode and frame a publication of 128 bytes", 1, set_publish, run_encode, "copy 176 bytes", floor_message},
    {"lane", "push and pop a record of 176 bytes", 16, set_lane, run_lane, "copy 176 bytes", floor_lane},
    {"find", "find a channel among 10,000", 1, set_subs, run_find, "hash its name", floor_hash},
    {"fan", "one subscriber's share of a fan-out to 512", SUBSCRIBERS, set_fan, run_fan, "prepare a send", floor_fan},
    {"redis", "write a publish of 128 bytes for Redis", 1, set_ascii, run_redis, "copy its bytes", floor_redis},
    {"turn", "one of 64 operations of a turn", TURN, set_worker, run_turn, "liburing alone", floor_turn},
};
const uint32_t micro_case_count = ARRAY_LEN(micro_cases);
