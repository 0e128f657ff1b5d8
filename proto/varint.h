/* Numbers of any size in as few bytes as they take: LEB128, seven bits a byte, the lowest first. A number has one
 * spelling only, so that what is read and written again is the same. For what hosts send each other (proto/envelope,
 * proto/hostbeat). */
#ifndef PROTO_VARINT_H
#define PROTO_VARINT_H

#include "common/base.h"
#include "common/view.h"

#define VARINT_MAX 10 /* bytes of the largest */

/* Writes v; returns how many bytes. */
size_t varint_put(uint8_t *out, uint64_t v);
/* Takes one off the front of *in. False when there is none: cut short, above 64 bits, or longer than need be. */
bool varint_take(struct view *in, uint64_t *v) MUST_CHECK;

#endif
