/* The rows of proto/tbl as dialect.h hands them out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "proto/dialect.h"

/* Numbers and names that clients and counters depend on: rows are never reused. */
static void
known_rows(void **state UNUSED)
{
    assert_int_equal(close_code(CLOSE_PROTOCOL), 1002);
    assert_int_equal(close_code(CLOSE_PEER_GONE), 0);
    assert_int_equal(close_code(CLOSE_NOT_SHAKEN), 4009);
    assert_string_equal(close_str(CLOSE_SLOW_QUEUE), "slow_queue");
    assert_string_equal(error_name(ERR_SUBSCRIBE_NAME), "InvalidActionError");
    assert_string_equal(error_message(ERR_PUBLISH_DISABLED), "Client publish feature is disabled");
    assert_string_equal(verb_str(VERB_SUBSCRIBE), "subscribe");
    assert_int_equal(verb_states(VERB_SUBSCRIBE), S_OPEN);
    assert_int_equal(verb_states(VERB_HANDSHAKE), S_OPENING | S_OPEN);
    assert_string_equal(error_name(ERR_NONE), "");
}

static void
is_name(const char *s)
{
    assert_true(s[0] != 0);
    for (; *s; s++)
        assert_true((*s >= 'a' && *s <= 'z') || (*s >= '0' && *s <= '9') || *s == '_');
}

static void
every_row_has_its_texts(void **state UNUSED)
{
    for (int i = 0; i < CLOSE_COUNT; i++) {
        uint16_t code = close_code((enum close_reason)i);
        is_name(close_str((enum close_reason)i));
        assert_true(close_sentence((enum close_reason)i)[0] != 0);
        assert_true(code == 0 || (code >= 1000 && code < 5000));
    }
    for (int i = 1; i < ERR_COUNT; i++) {
        assert_non_null(strstr(error_name((enum error_id)i), "Error"));
        assert_true(error_message((enum error_id)i)[0] != 0);
    }
    for (int i = 0; i < VERB_COUNT; i++) {
        is_name(verb_str((enum verb_kind)i));
        assert_true(verb_states((enum verb_kind)i) & S_OPEN);
    }
}

static void
names_are_told_apart(void **state UNUSED)
{
    for (int i = 0; i < CLOSE_COUNT; i++)
        for (int j = 0; j < i; j++)
            assert_string_not_equal(
                close_str((enum close_reason)i), close_str((enum close_reason)j));
    for (int i = 0; i < VERB_COUNT; i++)
        for (int j = 0; j < i; j++)
            assert_string_not_equal(verb_str((enum verb_kind)i), verb_str((enum verb_kind)j));
}

static void
numbers_out_of_the_tables_are_harmless(void **state UNUSED)
{
    assert_int_equal(close_code((enum close_reason)CLOSE_COUNT), 0);
    assert_string_equal(close_str((enum close_reason)999), "unknown");
    assert_string_equal(close_sentence((enum close_reason) - 1), "no such reason");
    assert_string_equal(error_name((enum error_id)999), "");
    assert_string_equal(error_message((enum error_id) - 1), "");
    assert_string_equal(verb_str((enum verb_kind)999), "unknown");
    assert_int_equal(verb_states((enum verb_kind)999), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_rows),
        cmocka_unit_test(every_row_has_its_texts),
        cmocka_unit_test(names_are_told_apart),
        cmocka_unit_test(numbers_out_of_the_tables_are_harmless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
