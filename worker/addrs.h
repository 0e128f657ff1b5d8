/* What is known of client addresses: how many connections each has, and its buckets (rate.h). One table for all
 * rings of a process, the one thing that ring threads share; so it is made of atomic words, and nobody waits for
 * anybody. It has a fixed size: an address keeps its place while it has a connection, and afterwards until
 * somebody else needs it.
 *
 * What may go wrong, and is put up with: two rings that hear of a new address in the same instant may
 * each give it a place, and until one of them is idle the address has its limits twice. A place whose owner
 * changes may charge the new one for what the old one did in that instant. */
#ifndef WORKER_ADDRS_H
#define WORKER_ADDRS_H

#include "common/addr.h"

enum addrs_bucket {
    ADDRS_PACKETS, /* as enum rate_kind */
    ADDRS_BYTES,
    ADDRS_SUBSCRIBES,
    ADDRS_CONNECTS,
    ADDRS_BUCKETS,
};

#define ADDRS_NONE UINT32_MAX

struct addrs;

/* `places` is rounded up; IPv6 addresses are one if their first `v6_prefix` bits are. NULL when memory is out. */
struct addrs *addrs_new(uint32_t places, unsigned v6_prefix, uint64_t seed) MUST_CHECK;
void addrs_free(struct addrs *t);

/* One connection more of this address: its place, and in *connections how many it has now. ADDRS_NONE when
 * there is no place: all that it could have belong to addresses with connections. *forgot: an idle
 * address that still owed something was forgotten for it. */
uint32_t addrs_join(struct addrs *t, const struct addr *a, uint64_t now, uint32_t *connections, bool *forgot) MUST_CHECK;
void addrs_leave(struct addrs *t, uint32_t place);

/* As rate_has() and rate_take(), for a bucket of an address. */
bool addrs_has(const struct addrs *t, uint32_t place, enum addrs_bucket b, uint64_t now, uint64_t burst, uint64_t cost) MUST_CHECK;
uint64_t addrs_take(struct addrs *t, uint32_t place, enum addrs_bucket b, uint64_t now, uint64_t burst, uint64_t cost);

/* Places there are; for tests. */
uint32_t addrs_places(const struct addrs *t);

#endif
