/* proto/dialect/echo: one verb a message, and back as it came. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proto/dialect.h"

static const struct dialect_limits limits = {128, 8192, 1024, 256};

static void
test_a_message_is_one_verb(void **state)
{
    (void)state;
    static struct decoding d;
    struct verb v;
    for (int text = 0; text < 2; text++) {
        d = (struct decoding){.msg = VIEW("\x00{any"), .text = text};
        assert_int_equal(dialect_echo.decode(NULL, &limits, &d, &v), DECODE_VERB);
        assert_int_equal(v.kind, VERB_ECHO);
        assert_int_equal(v.binary, !text);
        assert_true(v.has_data);
        assert_true(view_eq(v.data, d.msg));
        assert_int_equal(dialect_echo.decode(NULL, &limits, &d, &v), DECODE_END);
        assert_int_equal(dialect_echo.decode(NULL, &limits, &d, &v), DECODE_END);
    }
}

static void
test_it_has_one_word(void **state)
{
    (void)state;
    uint8_t room[4];
    struct buf out = buf_fixed(room, sizeof room);
    for (int kind = EV_WELCOME; kind < EV_ECHO; kind++)
        assert_false(dialect_echo.encode(NULL, &(struct event){.kind = (enum event_kind)kind}, &out));
    assert_int_equal(out.n, 0);
    assert_true(dialect_echo.encode(NULL, &(struct event){.kind = EV_ECHO}, &out));
    assert_int_equal(out.n, 0);
    struct event ev = {.kind = EV_ECHO, .has_data = true, .data = VIEW("four")};
    assert_true(dialect_echo.encode(NULL, &ev, &out));
    assert_memory_equal(out.p, "four", 4);
    assert_false(dialect_echo.encode(NULL, &ev, &out));
    assert_false(dialect_echo.handshake || dialect_echo.pings);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_message_is_one_verb),
        cmocka_unit_test(test_it_has_one_word),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
