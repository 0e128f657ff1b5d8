#include "proto/slot.h"

/* What the top byte of the remainder does to the rest, a nibble at a time: 32 bytes of table where a byte at a time
 * would need 512, and names are short. nibble[i] is i * 2^16 mod (x^16 + x^12 + x^5 + 1). */
static const uint16_t nibble[16] = {
    0x0000, 0x1021, 0x2042, 0x3063, 0x4084, 0x50a5, 0x60c6, 0x70e7,
    0x8108, 0x9129, 0xa14a, 0xb16b, 0xc18c, 0xd1ad, 0xe1ce, 0xf1ef,
};

uint16_t
slot_crc16(uint16_t crc, struct view bytes)
{
    for (size_t i = 0; i < bytes.n; i++) {
        crc = (uint16_t)(crc << 4 ^ nibble[crc >> 12 ^ bytes.p[i] >> 4]);
        crc = (uint16_t)(crc << 4 ^ nibble[crc >> 12 ^ (bytes.p[i] & 15)]);
    }
    return crc;
}

static const uint8_t *
find(struct view in, uint8_t c)
{
    return in.n > 0 ? memchr(in.p, c, in.n) : NULL;
}

uint16_t
slot_of(struct view key)
{
    const uint8_t *open = find(key, '{');
    if (open != NULL) {
        struct view behind = view_from(key, (size_t)(open - key.p) + 1);
        const uint8_t *shut = find(behind, '}');
        if (shut != NULL && shut != behind.p)
            key = view_head(behind, (size_t)(shut - behind.p));
    }
    return slot_crc16(0, key) % SLOTS;
}
