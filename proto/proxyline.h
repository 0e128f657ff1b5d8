/* The PROXY header that a balancer puts in front of a connection's own bytes, to say who the client is
 * (HAProxy, "The PROXY protocol", versions 1 and 2). Pure: a view in, a result out. Who may be believed
 * is the caller's business. */
#ifndef PROTO_PROXYLINE_H
#define PROTO_PROXYLINE_H

#include "common/addr.h"

/* Longest header that is taken, TLVs included; the format allows 64 KiB that nobody sends. */
#define PROXYLINE_MAX 4096

struct proxyline {
    uint8_t version;    /* 1 or 2 */
    bool known;         /* source is the client's; false: LOCAL, UNKNOWN, a UNIX socket: it is the balancer itself,
                         * or somebody it has no address for */
    struct addr source;
    uint16_t source_port;
};

enum proxyline_rc {
    PROXYLINE_DONE, /* *eaten bytes were the header; what is behind is the client's */
    PROXYLINE_MORE, /* may become one */
    PROXYLINE_BAD,  /* is none, or a broken one */
};

/* Looks at the start of `in`; after MORE call again with the same bytes and more behind them. At most
 * PROXYLINE_MAX are asked for. A version 1 line is judged as it comes, by at most 107 bytes; a
 * version 2 header by its first 16 bytes and then whole. TLVs are checked for their lengths and passed over;
 * a CRC32C among them must be right. */
enum proxyline_rc proxyline_parse(struct view in, struct proxyline *out, size_t *eaten) MUST_CHECK;

#endif
