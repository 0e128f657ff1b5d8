/* Who the client is by what proxies say in a request: `Forwarded` (RFC 7239) or `X-Forwarded-For`. Pure.
 * Each proxy adds the address it heard from at the right end, so an entry is worth as much as the proxy
 * to its right: the client is the rightmost entry that is not one of our own proxies. Everything to the left
 * of it may have been written by the client itself. */
#ifndef PROTO_FORWARDED_H
#define PROTO_FORWARDED_H

#include "common/addr.h"
#include "proto/http.h"

enum forwarded_field {
    FORWARDED_NONE,
    FORWARDED_RFC7239, /* Forwarded */
    FORWARDED_XFF,     /* X-Forwarded-For */
};

/* The client's address, beginning with the peer that sent the request, which the caller trusts. Only
 * one of the two fields is read, the one that the proxies in front are known to set: the other comes from
 * whoever likes. An entry that is no address (unknown, an obfuscated name, nonsense) hides what is to its left,
 * and the client is then the hop that wrote it. Linear in the length of the fields. */
struct addr forwarded_client(const struct http_request *r, enum forwarded_field field, const struct addr *peer,
    const struct addr_nets *trusted);

/* False when a quoted text of `Forwarded` does not end in its line: then the entries of the proxies behind it, which they added to
 * the same line, are part of that text, and nobody can be told from it. */
bool forwarded_is_whole(const struct http_request *r, enum forwarded_field field);

#endif
