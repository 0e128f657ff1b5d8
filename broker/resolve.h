/* Names of servers to addresses, without blocking the loop. The C library's resolver blocks, loads libraries and opens
 * sockets of its own, all of which a broker may not do once it serves: so a child process of the broker does it, made
 * at start-up, before rights are given up. It runs as the broker's user, holds one end of a socket and nothing else,
 * knows no secret, and ends with the broker. What it answers is an address; anything else is dropped. */
#ifndef BROKER_RESOLVE_H
#define BROKER_RESOLVE_H

#include <sys/socket.h>

#include "common/conf.h"
#include "common/mono.h"

struct resolve;

/* NULL with a sentence in err. */
struct resolve *resolve_open(const struct conf *, struct conf_error *err) MUST_CHECK;
void resolve_close(struct resolve *);

enum resolve_rc { RESOLVE_WAITS, RESOLVE_FOUND, RESOLVE_FAILED };
/* Asks, or looks whether the answer is there: call it again until it says something else than WAITS. Of several
 * addresses number `nth` is taken, modulo their count. An answer is used for a second; while none comes any more, the
 * last one is. r may be NULL: FAILED. */
enum resolve_rc resolve_name(struct resolve *r, const char *host, uint16_t port, uint32_t nth,
    struct sockaddr_storage *out, socklen_t *out_n, struct mono now);

#endif
