/* Addresses of clients and networks: 16 bytes, IPv4 mapped into IPv6 (RFC 4291 section 2.5.5.2), so that
 * there is one kind of them. Text to bytes and back, and whether a network has an address. Values
 * only: nothing is looked up, nothing is allocated. */
#ifndef COMMON_ADDR_H
#define COMMON_ADDR_H

#include "common/base.h"
#include "common/view.h"

/* All zeroes: none (a UNIX socket, or not known yet). */
struct addr {
    uint8_t b[16];
};

struct addr_net {
    struct addr addr;
    uint8_t bits; /* of the 128 */
};

/* Networks that are trusted to say who their clients are. */
#define ADDR_NETS_MAX 64
struct addr_nets {
    uint32_t n;
    bool local; /* UNIX sockets too */
    struct addr_net v[ADDR_NETS_MAX];
};

#define ADDR_TEXT 46 /* longest text with its terminator */

/* "192.0.2.1" or "2001:db8::1": without brackets, port or zone. False when it is anything else. */
bool addr_parse(struct view text, struct addr *out) MUST_CHECK;
/* "10.0.0.0/8", "2001:db8::/32", or one address. Bits behind the prefix must be zero: who wrote them
 * meant something else. */
bool addr_net_parse(struct view text, struct addr_net *out) MUST_CHECK;
bool addr_net_has(const struct addr_net *net, const struct addr *a) MUST_CHECK;
/* addr_none() is in the set if `local` is. */
bool addr_nets_have(const struct addr_nets *nets, const struct addr *a) MUST_CHECK;
/* Adds an entry as the settings have it: a network, or "unix". False when it is neither, or when the set
 * is full. */
bool addr_nets_add(struct addr_nets *nets, struct view text) MUST_CHECK;

struct addr addr_from_v4(const uint8_t b[4]);
bool addr_is_none(const struct addr *a) MUST_CHECK;
bool addr_is_v4(const struct addr *a) MUST_CHECK;
/* The address with all but the first `bits` bits zero. */
struct addr addr_masked(const struct addr *a, unsigned bits);
/* As people write it; "-" for none. Returns out. */
const char *addr_text(const struct addr *a, char out[ADDR_TEXT]);

#endif
