/* The seam to other hosts: a bus carries bytes by topic, at least once and per topic in order, as long as its link
 * holds; when it did not, it says so. It knows no channel's history, no sequence, no host: broker/across does
 * (docs/adr/0011). A bus is one file and a row of broker/tbl/bus.def; tests/unit/test_bus.c is the suite that each must pass.
 *
 * Nothing here blocks. What is told comes from bus_turn or from a completion, never from within a call of
 * broker/across. */
#ifndef BROKER_BUS_H
#define BROKER_BUS_H

#include "common/buf.h"
#include "common/conf.h"
#include "common/mono.h"
#include "common/ring.h"
#include "common/view.h"

struct bus;

/* Channels are clients' names and can be anything. Control topics are ours; what is published there goes by every
 * server of the bus, so it may arrive more than once. The two never meet, whatever a channel is called. */
enum bus_kind { BUS_CHANNEL, BUS_CONTROL };

struct bus_topic {
    enum bus_kind kind;
    struct view name;
};

/* See publish; a head is never shorter. */
#define BUS_AGAIN_AT 2
#define BUS_AGAIN 0x20

enum bus_state {
    BUS_NONE,   /* one host: there is nobody to tell */
    BUS_DOWN,   /* nothing can be sent or heard */
    BUS_PARTLY, /* some servers can't be reached, or not all topics are confirmed again after a lost link */
    BUS_UP,
};
const char *bus_state_str(enum bus_state s);

/* What became of a publish. */
enum bus_fate {
    BUS_TAKEN,   /* the bus has it */
    BUS_DROPPED, /* it waited for a link and redis.out_queue was reached: the oldest goes */
    BUS_REFUSED, /* the server answered with an error */
};

/* What a bus tells; `arg` is the pointer given to bus_open. Views live until return. */
struct bus_ears {
    /* Somebody published on a topic that was joined; the own publishes come back, too. */
    void (*on_message)(void *arg, struct bus_topic topic, struct view bytes);
    /* The topic is confirmed: what is taken from now on is heard. Told once for each join, and once more each time
     * that the link under it was lost and is back (then messages may have been missed in between). */
    void (*on_joined)(void *arg, struct bus_topic topic);
    /* The link under a joined topic was lost; on_joined will follow. Not told for control topics. */
    void (*on_lost)(void *arg, struct bus_topic topic);
    /* Once for each publish, for channels in the order of publishes per topic: also of what is dropped while something that
     * was published before it is under way. broker/across concludes from what was taken that all before it is told.
     * `token` as given. */
    void (*on_fate)(void *arg, struct bus_topic topic, uint64_t token, enum bus_fate fate);
    void (*on_state)(void *arg, enum bus_state state, const char *why);
};

struct bus_ops {
    const char *name;
    /* Begins to connect. NULL with a sentence in err when the settings make no sense or memory is out; a server that
     * can't be reached is no error. `metrics` is the broker's page. */
    struct bus *(*open)(const struct conf *, struct ring *, uint64_t *metrics, const struct bus_ears *, void *arg,
        struct conf_error *err);
    void (*close)(struct bus *);
    /* Wants to hear a topic. False when memory is out. Nothing happens if it is joined already. */
    bool (*join)(struct bus *, struct bus_topic) MUST_CHECK;
    void (*leave)(struct bus *, struct bus_topic);
    /* Publishes `head` and `body` as one. Copied. What can't be sent waits, in order, up to redis.out_queue. What was
     * under way when a link was lost is sent again: it may arrive twice. What was given to the bus before it noticed
     * the loss (or that the topic has moved to another server) and is sent after the return has the bit BUS_AGAIN set in its
     * byte BUS_AGAIN_AT, whether it was under way or waited for room: what came before it may have given way. Control topics may
     * go past what waits. False: larger than the bus takes, or memory is out; then there is no on_fate. */
    bool (*publish)(struct bus *, struct bus_topic, struct view head, struct view body, uint64_t token) MUST_CHECK;
    /* Whether a publish to the topic would leave at once: its server is reached, and nothing waits for a link. */
    bool (*is_up)(const struct bus *, struct bus_topic);
    /* End of a turn: what was asked for since the last goes out, batched. Deadlines are looked at. Returns after how
     * many ms it wants to be called again. */
    uint32_t (*turn)(struct bus *, struct mono now);
    /* A completion whose operation belongs to the bus (broker/ops.def). */
    void (*on_done)(struct bus *, struct ring_done);
    /* Gives up nothing, tells on one line each how its servers are ("redis 10.0.0.1:6379 up subscribed=3 ..."). */
    void (*describe)(const struct bus *, struct buf *out);
};

/* First in each bus. */
struct bus {
    const struct bus_ops *ops;
    const struct conf *conf;
    struct ring *ring;
    uint64_t *metrics;
    const struct bus_ears *ears;
    void *arg;
    enum bus_state state; /* w: the bus, before it tells on_state */
    bool held;            /* w: broker/hosts: others that lost the bus may not hear it again yet. What waited for a lost link
                             may wait for them, too; for how long at most is the bus's to say */
};

#define BUS(name, schemes, sentence) extern const struct bus_ops bus_##name;
#include "broker/tbl/bus.def"
#undef BUS

/* The bus that the settings ask for: none without redis.url. */
const struct bus_ops *bus_chosen(const struct conf *);

#endif
