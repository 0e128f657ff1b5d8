/* proto/slot: what a real server's CLUSTER KEYSLOT says (redis-server 7.0.15), and the check value of the CRC. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#include "proto/slot.h"

static void
the_crc_is_xmodem(void **state)
{
    (void)state;
    assert_int_equal(slot_crc16(0, VIEW("123456789")), 0x31c3); /* the catalogue's check value */
    assert_int_equal(slot_crc16(0, VIEW_NONE), 0);
    assert_int_equal(slot_crc16(slot_crc16(0, VIEW("1234")), VIEW("56789")), 0x31c3);
    for (unsigned i = 0; i < 256; i++) {
        uint8_t byte = (uint8_t)i;
        uint16_t slow = (uint16_t)(i << 8);
        for (int bit = 0; bit < 8; bit++)
            slow = (uint16_t)(slow & 0x8000 ? slow << 1 ^ 0x1021 : slow << 1);
        assert_int_equal(slot_crc16(0, view_of(&byte, 1)), slow);
    }
}

static void
slots_are_those_that_a_server_names(void **state)
{
    static const struct {
        const char *key;
        uint16_t slot;
    } said[] = {
        {"123456789", 12739},
        {"foo", 12182},
        {"", 0},
        {"ringcast:news", 13426},
        /* the tag */
        {"{user1000}.following", 3443},
        {"{user1000}.followers", 3443},
        {"rc:{a}b", 15495},
        {"a", 15495},
        {"foo{bar}{zap}", 5061},
        {"bar", 5061},
        {"foo{{bar}}zap", 4015},
        {"{bar", 4015},
        /* none */
        {"foo{}{bar}", 8363},
        {"{", 4092},
        {"}{", 12793},
        {"a{b", 13340},
        {"{}", 15257},
        {"x{}y", 16116},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(said); i++)
        if (slot_of(view_str(said[i].key)) != said[i].slot)
            fail_msg("%s is in %u and not in %u", said[i].key, slot_of(view_str(said[i].key)), said[i].slot);
}

static void
a_name_is_bytes(void **state)
{
    (void)state;
    assert_int_equal(slot_of(view_of("a\0{b\0}c", 7)), slot_of(view_of("b\0", 2)));
    assert_true(slot_of(view_of("\xff\xff\xff\xff", 4)) < SLOTS);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_crc_is_xmodem),
        cmocka_unit_test(slots_are_those_that_a_server_names),
        cmocka_unit_test(a_name_is_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
