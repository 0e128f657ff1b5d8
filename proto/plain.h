/* Messages that others than hosts of ours publish at Redis (redis.plain): any text, or the form of SocketCluster's old
 * Redis adapter (sc-redis): <id>/o:<JSON> and <id>/s:<text>. What comes out is what a client could have published. */
#ifndef PROTO_PLAIN_H
#define PROTO_PLAIN_H

#include "common/buf.h"
#include "common/view.h"

/* Appends the JSON to `out`: what is JSON as it is, everything else as a string. False: it is not UTF-8, an <id>/o: is not
 * followed by JSON, or `out` has no room. */
bool plain_decode(struct view bytes, uint32_t max_depth, struct buf *out) MUST_CHECK;

#endif
