/* The queue of stretches, against a plain array of the same bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "worker/segq.h"

static struct rc_pool blocks;

static struct rc *
block(const char *text)
{
    struct rc *rc = rc_new(&blocks, strlen(text));
    assert_non_null(rc);
    memcpy(rc->data, text, strlen(text));
    rc->n = (uint32_t)strlen(text);
    return rc;
}

static void
expect_bytes(const struct segq *q, const char *text)
{
    char got[256] = "";
    assert_int_equal(q->bytes, strlen(text));
    segq_peek(q, (uint8_t *)got, q->bytes);
    assert_string_equal(got, text);
}

static void
test_stretches_that_continue_each_other_are_joined(void **state)
{
    (void)state;
    struct segq q = {0};
    struct rc *a = block("hello, world");
    assert_true(segq_append(&q, a, 0, 5));
    assert_true(segq_append(&q, a, 5, 2));
    assert_int_equal(segq_count(&q), 1);
    assert_true(segq_append(&q, a, 8, 4)); /* a hole: a stretch of its own */
    assert_int_equal(segq_count(&q), 2);
    assert_int_equal(a->refs, 3);
    expect_bytes(&q, "hello, orld");
    segq_take(&q, &blocks, q.bytes);
    assert_true(segq_is_empty(&q));
    assert_int_equal(a->refs, 1);
    rc_unref(&blocks, a);
    assert_int_equal(blocks.bytes, 0);
}

static void
test_taking_ends_inside_stretches_and_at_their_ends(void **state)
{
    (void)state;
    struct segq q = {0};
    for (int i = 0; i < 20; i++) {
        char text[16];
        snprintf(text, sizeof text, "<%02d>", i);
        struct rc *rc = block(text);
        assert_true(segq_append(&q, rc, 0, 4));
        rc_unref(&blocks, rc);
    }
    assert_int_equal(segq_count(&q), 20);
    segq_take(&q, &blocks, 4 * 17 + 1);
    expect_bytes(&q, "17><18><19>");
    segq_cut(&q, &blocks, 5);
    expect_bytes(&q, "17><1");
    segq_cut(&q, &blocks, 5);
    segq_cut(&q, &blocks, 3);
    expect_bytes(&q, "17>");
    struct iovec iov[4];
    assert_int_equal(segq_iov(&q, iov, 4, UINT32_MAX), 1);
    assert_int_equal(iov[0].iov_len, 3);
    segq_cut(&q, &blocks, 0);
    assert_true(segq_is_empty(&q));
    assert_null(q.more);
    assert_int_equal(blocks.bytes, 0);
}

static void
test_copies_share_a_block_of_the_queue_alone(void **state)
{
    (void)state;
    struct segq q = {0};
    assert_true(segq_append_copy(&q, &blocks, (const uint8_t *)"abc", 3, 100));
    assert_true(segq_append_copy(&q, &blocks, (const uint8_t *)"def", 3, 100));
    assert_int_equal(segq_count(&q), 1);
    struct rc *held = rc_ref(q.first.rc); /* somebody else reads it: not written to any more */
    assert_true(segq_append_copy(&q, &blocks, (const uint8_t *)"ghi", 3, 100));
    assert_int_equal(segq_count(&q), 2);
    rc_unref(&blocks, held);
    struct rc *turn = block("turn");
    turn->turn = true;
    assert_true(segq_append(&q, turn, 0, 4));
    rc_unref(&blocks, turn);
    assert_true(segq_append_copy(&q, &blocks, (const uint8_t *)"jkl", 3, 100)); /* never into a turn's arena */
    assert_int_equal(segq_count(&q), 4);
    expect_bytes(&q, "abcdefghiturnjkl");
    segq_cut(&q, &blocks, 0);
    assert_int_equal(blocks.bytes, 0);
}

static void
test_random_operations_equal_an_array(void **state)
{
    (void)state;
    struct segq q = {0};
    uint8_t model[1 << 16], got[1 << 16];
    uint32_t n = 0, seed = 12345, next = 0;
    for (int i = 0; i < 20000; i++) {
        seed = seed * 1664525u + 1013904223u;
        uint32_t k = (seed >> 8) % 60;
        if ((seed >> 28) < 9 && n + k < 4000 && k > 0) {
            uint8_t piece[64];
            for (uint32_t j = 0; j < k; j++)
                piece[j] = model[n++] = (uint8_t)next++;
            assert_true(segq_append_copy(&q, &blocks, piece, k, 50));
        } else if ((seed >> 28) < 13) {
            k = MIN(k * 2, n);
            segq_take(&q, &blocks, k);
            memmove(model, model + k, n - k);
            n -= k;
        } else {
            k = MIN(k / 4, n);
            segq_cut(&q, &blocks, n - k);
            n -= k;
        }
        assert_int_equal(q.bytes, n);
        segq_peek(&q, got, n);
        assert_memory_equal(got, model, n);
    }
    segq_cut(&q, &blocks, 0);
    assert_int_equal(blocks.bytes, 0);
    rc_pool_fini(&blocks);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stretches_that_continue_each_other_are_joined),
        cmocka_unit_test(test_taking_ends_inside_stretches_and_at_their_ends),
        cmocka_unit_test(test_copies_share_a_block_of_the_queue_alone),
        cmocka_unit_test(test_random_operations_equal_an_array),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
