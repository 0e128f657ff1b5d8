/* One link to one Redis server: connecting, TLS, logging in, keep-alive, back-off, requests pipelined and their replies
 * matched in order. What is said over it (topics, slots, masters) is its user's: the buses and the sentinel. Requests are
 * length-prefixed (RESP2), never inline. What does not belong to the oldest open request ends the connection.
 *
 * A link connects by itself, again and again, until it is freed. Calls never block and never call back; callbacks come
 * from redis_io_turn and redis_io_on_done. Any call, redis_link_free among them, may be made within a callback. */
#ifndef BROKER_REDIS_LINK_H
#define BROKER_REDIS_LINK_H

#include "broker/redis_command.h"
#include "broker/redis_reply.h"
#include "common/mono.h"
#include "common/ring.h"
#include "proto/redisurl.h"

struct redis_io;
struct redis_link;

/* -- what a link tells -- */

/* On a subscribing link. */
enum redis_push {
    REDIS_MESSAGE,      /* topic and bytes */
    REDIS_SMESSAGE,     /* the same of a shard channel */
    REDIS_SUBSCRIBED,   /* topic is confirmed */
    REDIS_UNSUBSCRIBED,
    REDIS_SSUBSCRIBED,
    REDIS_SUNSUBSCRIBED, /* asked for or not: a cluster says so, too, when it moves the slot away */
};

/* Views live until return. All are told on the loop, none after redis_link_free. */
struct redis_ears {
    /* Logged in; nothing is under way. */
    void (*on_up)(void *arg, struct redis_link *);
    /* It was up, and is not. It will connect again. Without REDIS_KEEPS all open requests are forgotten. */
    void (*on_lost)(void *arg, struct redis_link *, const char *why);
    /* For each redis_link_command and redis_link_publish, in order; for redis_link_subscribe only if the server refused
     * the whole command (an error; then no name of it is confirmed). Payload and bytes only if the reply is an error, or
     * with REDIS_TELLS_ALL. */
    void (*on_reply)(void *arg, struct redis_link *, const struct redis_request *, const struct redis_reply *);
    void (*on_push)(void *arg, struct redis_link *, enum redis_push, struct view topic, struct view bytes);
};

enum redis_flags {
    REDIS_SUBSCRIBES = 1, /* takes redis_link_subscribe; arrays that it hears are pushes */
    REDIS_KEEPS = 2,      /* open commands and publishes are kept when the link is lost, and sent again by
                             redis_link_resume, which each on_up wants to be followed by */
    REDIS_TELLS_ALL = 4,  /* on_reply has payload and bytes of any publish, not only of one that was refused */
};

/* Copies `where`; begins to connect at the next turn, or, without a host in it,
 * when redis_link_to names one. NULL above REDIS_LINKS_MAX or when memory is out. */
struct redis_link *redis_link_new(struct redis_io *, const struct redisurl *where, enum redis_flags,
    const struct redis_ears *, void *arg);
void redis_link_free(struct redis_link *);
/* From now on another server (at once, without back-off); the same one: nothing happens. on_lost is told if it was up. */
void redis_link_to(struct redis_link *, const struct redisurl *where);
/* The server is not to be trusted any more, or is to be asked again: ends the connection, connects after the back-off.
 * `why` is for the log and lives for ever. on_lost is told from the next turn on. */
void redis_link_end(struct redis_link *, const char *why);
const struct redisurl *redis_link_where(const struct redis_link *);
bool redis_link_is_up(const struct redis_link *);
/* Why it is not up, in words; NULL when it is. */
const char *redis_link_why(const struct redis_link *);
/* Requests that are open, and their bytes. */
uint32_t redis_link_open(const struct redis_link *);
size_t redis_link_bytes(const struct redis_link *);
/* Whether one more command of n bytes would be taken: up, resumed, and within the window of what may be under way. A
 * command larger than the window is taken when nothing else is. */
bool redis_link_has_room(const struct redis_link *, size_t n);

/* Each is false, and nothing has happened, when the link has no room (or memory is out). Sent by the next turn. */
bool redis_link_command(struct redis_link *, struct view verb, const struct view *args, uint32_t n, uint64_t token) MUST_CHECK;
/* PUBLISH or SPUBLISH: `verb topic head|body`, the last two as one argument. The topic is prefix and name as one. */
bool redis_link_publish(struct redis_link *, struct view verb, struct view prefix, struct view name, struct view head,
    struct view body, uint64_t token) MUST_CHECK;
/* SUBSCRIBE, UNSUBSCRIBE, SSUBSCRIBE, SUNSUBSCRIBE with n names, less than REDIS_COMMAND_ARGS; each will be confirmed by a push. */
bool redis_link_subscribe(struct redis_link *, struct view verb, const struct view *names, uint32_t n, uint64_t token)
    MUST_CHECK;
/* A command as redis_request has it (`bytes`), with its topic within it; ASKING or what else goes before is a command. */
bool redis_link_again(struct redis_link *, const struct redis_request *) MUST_CHECK;
/* What REDIS_KEEPS has kept goes out again, in order, publishes marked with BUS_AGAIN; further commands behind it. Until
 * then such a link has no room. */
void redis_link_resume(struct redis_link *);
/* Takes all open commands and publishes back, in order: they will not be sent (again) by this link, and their replies,
 * if any still come, are dropped. Those publishes that a lost connection may have carried are marked with BUS_AGAIN. */
/* `fn` makes no call of this link. */
void redis_link_take_back(struct redis_link *, void (*fn)(void *arg, const struct redis_request *), void *arg);

/* -- for redis_io -- */

void redis_link_turn(struct redis_link *);
/* When it wants its next turn. */
struct mono redis_link_deadline(const struct redis_link *);
void redis_link_on_done(struct redis_link *, struct ring_done);
/* Ended for good, and nothing of it is under way any more: its memory can go. */
bool redis_link_is_over(const struct redis_link *);
/* Without waiting for what is under way, if there is something: that memory is left to the kernel. */
void redis_link_destroy(struct redis_link *);

#endif
