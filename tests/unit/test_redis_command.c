/* broker/redis_command: what is said to Redis is what hiredis would say, publishes written by ourselves among it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/redis_command.h"

#include <cmocka.h>

static void
commands_are_arrays_of_strings(void **state)
{
    struct redis_command c;
    (void)state;
    assert_true(redis_command_make(&c, VIEW("PING"), NULL, 0));
    assert_true(view_eq(c.bytes, VIEW("*1\r\n$4\r\nPING\r\n")));
    redis_command_free(&c);
    assert_int_equal(c.bytes.n, 0);
    const struct view args[] = {VIEW("a\r\n\0b"), VIEW_NONE, VIEW("*3 %s $1")};
    assert_true(redis_command_make(&c, VIEW("ECHO"), args, 3));
    assert_true(view_eq(c.bytes, VIEW("*4\r\n$4\r\nECHO\r\n$5\r\na\r\n\0b\r\n$0\r\n\r\n$8\r\n*3 %s $1\r\n")));
    redis_command_free(&c);
}

static void
more_arguments_than_there_may_be_are_refused(void **state)
{
    static struct view args[REDIS_COMMAND_ARGS];
    struct redis_command c;
    (void)state;
    for (unsigned i = 0; i < REDIS_COMMAND_ARGS; i++)
        args[i] = VIEW("name");
    assert_true(redis_command_make(&c, VIEW("SUBSCRIBE"), args, REDIS_COMMAND_ARGS - 1));
    assert_true(view_starts(c.bytes, VIEW("*1024\r\n$9\r\nSUBSCRIBE\r\n$4\r\nname\r\n")));
    redis_command_free(&c);
    assert_false(redis_command_make(&c, VIEW("SUBSCRIBE"), args, REDIS_COMMAND_ARGS));
    redis_command_free(&c); /* of what was not made: nothing */
    args[7].n = (size_t)3 << 30;
    args[8].n = SIZE_MAX; /* together small again */
    assert_false(redis_command_make(&c, VIEW("SUBSCRIBE"), args, 10));
}

/* prefix, name, head and body of these sizes, byte by byte beside hiredis. */
static void
same_as_hiredis(struct view verb, const size_t size[4])
{
    static uint8_t ours[300000], bytes[262144], joined[2][262144];
    struct view part[4];
    struct redis_request r = {0};
    struct redis_command theirs;
    for (unsigned i = 0; i < 4; i++)
        part[i] = view_of(bytes + 997 * i, size[i]);
    for (size_t i = 0; bytes[1] == bytes[2] && i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 7 + i / 256);
    for (unsigned i = 0; i < 4; i++)
        memcpy(joined[i / 2] + (i % 2 ? size[i - 1] : 0), part[i].p, size[i]);
    const struct view args[] = {view_of(joined[0], size[0] + size[1]), view_of(joined[1], size[2] + size[3])};
    redis_command_publish_put(ours, verb, part[0], part[1], part[2], part[3], &r);
    assert_true(redis_command_make(&theirs, verb, args, 2));
    assert_int_equal(redis_command_publish_size(verb, args[0].n, args[1].n), theirs.bytes.n);
    assert_int_equal(r.bytes.n, theirs.bytes.n);
    assert_memory_equal(ours, theirs.bytes.p, r.bytes.n);
    assert_ptr_equal(r.bytes.p, ours);
    assert_true(view_eq(r.topic, args[0]) && view_eq(r.payload, args[1]));
    redis_command_free(&theirs);
}

static void
publishes_are_those_of_hiredis(void **state)
{
    static const size_t edges[] = {0, 1, 9, 10, 11, 99, 100, 999, 1000, 9999, 10000, 65535, 65536, 99999, 100000};
    const struct view verbs[] = {VIEW("PUBLISH"), VIEW("SPUBLISH")};
    (void)state;
    srandom(7);
    for (size_t i = 0; i < ARRAY_LEN(edges); i++)
        for (size_t k = 0; k < ARRAY_LEN(edges); k++) {
            const size_t size[4] = {edges[i] / 2, edges[i] - edges[i] / 2, edges[k] / 3, edges[k] - edges[k] / 3};
            same_as_hiredis(verbs[i % 2], size);
        }
    for (unsigned i = 0; i < 200; i++) {
        const size_t size[4] = {(size_t)random() % 20, (size_t)random() % 200, (size_t)random() % 50, (size_t)random() % 5000};
        same_as_hiredis(verbs[i % 2], size);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commands_are_arrays_of_strings),
        cmocka_unit_test(more_arguments_than_there_may_be_are_refused),
        cmocka_unit_test(publishes_are_those_of_hiredis),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
