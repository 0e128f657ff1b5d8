/* A ring thread's side of the lanes to the brokers: attach and re-attach, push and drain, the line of
 * requests that wait for an answer, publishes held while a broker is away. One `links` per ring, one
 * link in it per broker.
 *
 * What is promised: a request with a call hears its outcome exactly once, in the order of the requests
 * of that broker. A success is only told when the broker said so. While a broker is away requests are
 * held up to lane.hold_bytes and lane.hold_time, then fail. A publish whose fate is unknown (the broker
 * died with it) is never sent again: it fails, and is counted (lost_publishes_total). */
#ifndef WORKER_LINK_H
#define WORKER_LINK_H

#include "common/conf.h"
#include "common/mono.h"
#include "common/ring.h"
#include "proto/dialect.h"

struct links;

/* A request that wants to hear its outcome. The text of the call id is copied (CALL_ID_MAX bytes). */
struct call {
    uint64_t owner; /* opaque here: the connection's handle */
    uint32_t chan;  /* opaque here: the channel's, for subscribes */
    uint8_t kind;   /* opaque here: enum sess_call */
    struct view call_id;
};

enum link_rc {
    LINK_OK,
    LINK_WAIT,    /* no room now: stop reading this publisher; on_room comes */
    LINK_REFUSED, /* *why says it: broker away for too long, or too large */
};

/* What a ring does with what links tell it; `ring` is the pointer given to links_new. None of these is
 * called from within link_subscribe, link_unsubscribe, link_publish or link_after. */
struct link_ops {
    /* The outcome of the oldest waiting request of a link. */
    void (*on_done)(void *ring, const struct call *call, enum error_id err);
    /* A published message for the channel subscribed as (chan, chan_gen); data lives until return. */
    void (*on_message)(void *ring, uint32_t chan, uint32_t chan_gen, bool has_data, struct view data);
    /* Messages of that channel, which would stand here, did not come from another host: so many, 0: nobody knows. */
    void (*on_gap)(void *ring, uint32_t chan, uint32_t chan_gen, uint64_t count);
    /* How many subscribers the channel has here. */
    uint32_t (*on_count)(void *ring, uint32_t chan, uint32_t chan_gen);
    /* Broker i is there, with an empty memory: call link_subscribe, without a call, for each of its
     * channels that this ring was told it holds; requests that wait for their answer follow by themselves. */
    void (*on_attached)(void *ring, unsigned broker);
    /* Broker i holds again all that on_attached asked for. */
    void (*on_restored)(void *ring, unsigned broker);
    /* Broker i lives but had given this ring up (it showed no heartbeat): messages were missed. Comes
     * right before on_lost. */
    void (*on_missed)(void *ring, unsigned broker);
    /* Broker i is gone; its waiting requests get on_done(ERR_BROKER_LOST) right after. */
    void (*on_lost)(void *ring, unsigned broker);
    /* Who got LINK_WAIT from broker i may try again. */
    void (*on_room)(void *ring, unsigned broker);
};

/* Begins to attach at once; brokers may come later. NULL when memory is out. */
struct links *links_new(const struct conf *, struct ring *, unsigned worker_idx, unsigned ring_idx,
    uint64_t *metrics, const struct link_ops *, void *ring_arg) MUST_CHECK;
void links_free(struct links *);

/* Number of the broker that owns a channel. */
unsigned links_owner(const struct links *, struct view channel);
/* Whether the broker is attached. */
bool link_is_up(const struct links *, unsigned broker);

/* First subscriber of a channel here; without a call when it is only repeated after on_attached: then it is never
 * LINK_WAIT, what does not fit the lane waits behind it, and subscribers may hear of a gap of unknown size. */
enum link_rc link_subscribe(struct links *, unsigned broker, uint32_t chan, uint32_t chan_gen,
    struct view name, const struct call *, enum error_id *why) MUST_CHECK;
/* Last one left. Never fails: kept behind a full lane, forgotten by a broker that is away. */
void link_unsubscribe(struct links *, unsigned broker, uint32_t chan, uint32_t chan_gen);
/* The ring has too much of a channel to send: whoever publishes to it, on any ring, is to stop until
 * links_eased(). Asked for as long as the broker is attached; a later one knows nothing of it. */
void link_busy(struct links *, unsigned broker, uint32_t chan);
/* Whether some ring had too much of this channel in the last seconds. */
bool link_was_stopped(const struct links *, unsigned broker, struct view channel);
/* All of those may go on. */
void links_eased(struct links *);
enum link_rc link_publish(struct links *, struct view channel, unsigned broker, bool has_data,
    struct view data, const struct call *, enum error_id *why) MUST_CHECK;
/* Puts a call into the line without asking the broker: on_done(ERR_NONE) comes when everything before
 * it has been answered. */
enum link_rc link_after(struct links *, unsigned broker, const struct call *, enum error_id *why) MUST_CHECK;

/* -- the loop -- */

/* Handles up to `budget` records of every lane; true: there are more. */
bool links_drain(struct links *, unsigned budget);
/* End of the turn: shows what was written, gives back what was read, rings the bells of who sleeps. */
void links_flush(struct links *);
/* Before sleeping: announces it on every lane; false if something came meanwhile. */
bool links_sleep(struct links *) MUST_CHECK;
void links_awake(struct links *);
/* Deadlines, heartbeats, attaching; returns after how many ms it wants to be called again. */
uint32_t links_tick(struct links *, struct mono now);
/* A completion whose operation belongs to links (worker/ops.def). */
void links_on_cqe(struct links *, unsigned op, uint32_t slot, uint32_t gen, int res, uint32_t flags);

#endif
