/* Which of its 16384 slots Redis Cluster keeps a key or a channel in (Redis Cluster Specification, "Key distribution
 * model" and "Hash tags"). Pure. */
#ifndef PROTO_SLOT_H
#define PROTO_SLOT_H

#include "common/base.h"
#include "common/view.h"

#define SLOTS 16384u

/* Below SLOTS. Of a key that has a '{' with a '}' behind it and something between the two, only what stands between the first '{'
 * and the first '}' after it counts: keys with the same tag are in the same slot. */
uint16_t slot_of(struct view key);

/* CRC-16/XMODEM: polynomial 0x1021, beginning with `crc` (0 at first), not reflected, nothing added at the end. */
uint16_t slot_crc16(uint16_t crc, struct view bytes);

#endif
