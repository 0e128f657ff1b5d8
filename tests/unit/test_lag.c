/* What is kept for subscribers that are behind, against a plain list of all messages there were. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proto/ws.h"
#include "worker/lag.h"

static struct rc_pool blocks;

/* Message number i is the text of its number, with dots up to n bytes. */
static uint32_t
put_frame(uint8_t *at, unsigned i, uint32_t n)
{
    char text[16];
    snprintf(text, sizeof text, "%u.", i);
    size_t head = ws_put_header(at, WS_TEXT, n);
    memset(at + head, '.', n);
    memcpy(at + head, text, MIN((size_t)n, strlen(text)));
    return (uint32_t)head + n;
}

static uint8_t scratch[1 << 20];

/* Messages [from, from + n) of `bytes` each, in one append. */
static bool
append(struct lag *l, unsigned from, unsigned n, uint32_t bytes, uint64_t keep)
{
    uint32_t len = 0;
    for (unsigned i = 0; i < n; i++)
        len += put_frame(scratch + len, from + i, bytes);
    return lag_append(l, &blocks, scratch, len, n, keep);
}

/* Number of the message in the frame at p. */
static unsigned
number_at(const uint8_t *p)
{
    unsigned n = p[1] & 0x7f, v = 0;
    for (const uint8_t *t = p + (n < 126 ? 2 : n == 126 ? 4 : 10); *t != '.'; t++)
        v = v * 10 + (*t - '0');
    return v;
}

/* Reads everything from a position on: it must be the messages [from, to), one after the other. */
static void
expect_messages(const struct lag *l, struct lag_pos *pos, unsigned from, unsigned to, uint32_t budget)
{
    struct lag_piece piece;
    while (lag_read(l, pos, budget, &piece)) {
        uint32_t at = piece.seg.off;
        assert_true(piece.messages > 0);
        assert_true(piece.messages == 1 || piece.seg.len <= budget);
        for (uint32_t i = 0; i < piece.messages; i++) {
            const uint8_t *p = piece.seg.rc->data + at;
            assert_int_equal(number_at(p), from++);
            uint32_t n = p[1] & 0x7f;
            at += n < 126 ? 2 + n : n == 126 ? 4u + p[2] * 256u + p[3] : 10u + p[7] * 65536u + p[8] * 256u + p[9];
        }
        assert_int_equal(at, piece.seg.off + piece.seg.len);
    }
    assert_int_equal(from, to);
    assert_int_equal(pos->seq, l->next.seq);
    assert_int_equal(pos->at, l->next.at);
}

static void
end(struct lag *l)
{
    lag_fini(l, &blocks);
    assert_int_equal(l->held, 0);
    assert_int_equal(blocks.bytes, 0);
}

static void
who_is_level_finds_nothing_and_who_is_behind_everything(void **state)
{
    (void)state;
    struct lag l = {0};
    struct lag_pos a = {0}, b = {0};
    struct lag_piece piece;
    assert_false(lag_read(&l, &a, 1000, &piece));
    assert_true(append(&l, 0, 3, 20, 1000));
    expect_messages(&l, &a, 0, 3, 1000);
    assert_false(lag_read(&l, &a, 1000, &piece));
    assert_true(append(&l, 3, 2, 20, 1000));
    expect_messages(&l, &a, 3, 5, 1000);
    expect_messages(&l, &b, 0, 5, 1);
    assert_int_equal(lag_catch_up(&l, &a).dropped, 0);
    end(&l);
}

static void
the_oldest_go_first_and_are_counted(void **state)
{
    (void)state;
    struct lag l = {0};
    struct lag_pos slow = {0}, slower = {0};
    for (unsigned i = 0; i < 100; i++) {
        assert_true(append(&l, i, 1, 98, 1000)); /* frames of 100 bytes */
        assert_true(l.next.at - l.first.at <= 1000);
        if (i == 49) {
            assert_int_equal(lag_catch_up(&l, &slow).dropped, 40);
            expect_messages(&l, &slow, 40, 50, 300);
        }
    }
    assert_int_equal(lag_catch_up(&l, &slow).dropped, 40);
    expect_messages(&l, &slow, 90, 100, 64);
    assert_int_equal(lag_catch_up(&l, &slower).dropped, 90);
    assert_int_equal(lag_catch_up(&l, &slower).dropped, 0);
    expect_messages(&l, &slower, 90, 100, 10000);
    end(&l);
}

static void
keeping_nothing_keeps_the_latest(void **state)
{
    (void)state;
    struct lag l = {0};
    struct lag_pos pos = {0};
    assert_true(append(&l, 0, 1, 50, 0));
    assert_true(append(&l, 1, 1, 5000, 0));
    assert_true(append(&l, 2, 7, 30, 0)); /* of a batch the last of it */
    assert_int_equal(l.next.seq - l.first.seq, 1);
    assert_int_equal(lag_catch_up(&l, &pos).dropped, 8);
    expect_messages(&l, &pos, 8, 9, 100);
    /* and memory is that of one message, whatever came before */
    for (unsigned i = 9; i < 10000; i++) {
        assert_true(append(&l, i, 1, 100, 0));
        assert_true(l.held <= 2048);
        assert_int_equal(blocks.bytes, l.held);
    }
    end(&l);
}

static void
the_latest_is_kept_however_large(void **state)
{
    (void)state;
    struct lag l = {0};
    struct lag_pos pos = {0};
    assert_true(append(&l, 0, 5, 100, 1000));
    assert_true(append(&l, 5, 1, 100000, 1000));
    assert_int_equal(lag_catch_up(&l, &pos).dropped, 5);
    expect_messages(&l, &pos, 5, 6, 10);
    assert_true(append(&l, 6, 2, 10, 1000));
    expect_messages(&l, &pos, 6, 8, 10);
    assert_int_equal(l.next.seq - l.first.seq, 2);
    assert_true(l.held < 20000); /* what held the large one is given back */
    end(&l);
}

static void
a_batch_larger_than_what_is_kept_leaves_its_end(void **state)
{
    (void)state;
    struct lag l = {0};
    struct lag_pos pos = {0};
    assert_true(append(&l, 0, 50, 98, 500));
    assert_int_equal(lag_catch_up(&l, &pos).dropped, 45);
    expect_messages(&l, &pos, 45, 50, 1000);
    end(&l);
}

static void
memory_stays_within_twice_of_what_is_kept(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {1, 60, 500, 3000, 9000};
    for (size_t k = 0; k < ARRAY_LEN(sizes); k++) {
        struct lag l = {0};
        for (unsigned i = 0; i < 3000; i++) {
            assert_true(append(&l, i, 1 + i % 3, sizes[k] + 12, 64 << 10));
            assert_true(l.held <= 2 * (64 << 10) + 16384);
            assert_int_equal(blocks.bytes, l.held);
        }
        end(&l);
    }
}

/* A reader that was given a piece keeps its block, though the ring has gone on. */
static void
what_was_read_stays_where_it_is(void **state)
{
    (void)state;
    struct lag l = {0};
    struct lag_pos pos = {0};
    struct lag_piece piece;
    assert_true(append(&l, 0, 3, 100, 1000));
    assert_true(lag_read(&l, &pos, 150, &piece));
    assert_int_equal(piece.messages, 1);
    struct rc *rc = rc_ref(piece.seg.rc);
    for (unsigned i = 3; i < 1000; i++)
        assert_true(append(&l, i, 1, 100, 1000));
    assert_int_equal(number_at(rc->data + piece.seg.off), 0);
    lag_fini(&l, &blocks);
    assert_int_equal(rc->refs, 1);
    rc_unref(&blocks, rc);
    assert_int_equal(blocks.bytes, 0);
}

static void
clearing_makes_everybody_miss_what_was_kept(void **state)
{
    (void)state;
    struct lag l = {0};
    struct lag_pos pos = {0};
    assert_true(append(&l, 0, 10, 100, 10000));
    lag_clear(&l, &blocks);
    assert_int_equal(l.held, 0);
    assert_int_equal(lag_catch_up(&l, &pos).dropped, 10);
    expect_messages(&l, &pos, 10, 10, 100);
    assert_true(append(&l, 10, 1, 100, 10000));
    expect_messages(&l, &pos, 10, 11, 100);
    end(&l);
}

/* Many readers at random speeds: each gets or misses every message, once, in order. */
static void
every_message_is_read_or_missed_once(void **state)
{
    (void)state;
    srand(7);
    for (unsigned round = 0; round < 40; round++) {
        struct lag l = {0};
        struct lag_pos pos[5] = {0};
        uint64_t seen[5] = {0};
        unsigned next = 0;
        uint64_t keep = (uint64_t)(rand() % 20000);
        for (unsigned i = 0; i < 400; i++) {
            unsigned n = 1 + (unsigned)rand() % 6;
            assert_true(append(&l, next, n, 12 + (uint32_t)rand() % (rand() % 50 ? 300 : 30000), keep));
            next += n;
            unsigned k = (unsigned)rand() % 5;
            uint64_t missed = lag_catch_up(&l, &pos[k]).dropped;
            seen[k] += missed;
            struct lag_piece piece;
            for (int r = rand() % 4; r > 0 && lag_read(&l, &pos[k], (uint32_t)rand() % 3000, &piece); r--) {
                assert_int_equal(number_at(piece.seg.rc->data + piece.seg.off), seen[k]);
                seen[k] += piece.messages;
            }
            assert_int_equal(pos[k].seq, seen[k]);
        }
        for (unsigned k = 0; k < 5; k++) {
            seen[k] += lag_catch_up(&l, &pos[k]).dropped;
            expect_messages(&l, &pos[k], (unsigned)seen[k], next, 1000);
        }
        end(&l);
    }
}

/* Holes between messages, of known and unknown number: every reader meets each at its place or with what it
 * missed in front of it, once. */
static void
every_hole_is_met_once_and_at_its_place(void **state)
{
    (void)state;
    srand(11);
    for (unsigned round = 0; round < 60; round++) {
        static uint64_t before[4000]; /* messages that never came, in front of message i */
        struct lag l = {0};
        struct lag_pos pos[4] = {0};
        uint64_t sum = 0, unknown = 0, told[4] = {0}, odd[4] = {0};
        unsigned next = 0;
        uint64_t keep = (uint64_t)(rand() % 20000);
        memset(before, 0, sizeof before);
        for (unsigned i = 0; i < 600; i++) {
            for (int holes = rand() % 3; holes > 0; holes--) {
                uint64_t n = (uint64_t)rand() % 4;
                lag_hole(&l, &blocks, n);
                before[next] = sum += n;
                unknown += n == 0;
            }
            before[next] = sum;
            unsigned n = (unsigned)rand() % 3;
            for (unsigned k = 1; k < n; k++)
                before[next + k] = sum;
            if (n > 0)
                assert_true(append(&l, next, n, 12 + (uint32_t)rand() % 300, keep));
            next += n;
            assert_true(l.mark_count <= LAG_MARKS_MAX && l.mark_cap <= LAG_MARKS_MAX);
            unsigned k = (unsigned)rand() % 4;
            struct lag_piece piece;
            for (int r = rand() % 4; r > 0; r--) {
                struct lag_missed m = lag_catch_up(&l, &pos[k]);
                told[k] += m.holes.messages;
                odd[k] += m.holes.unknown;
                assert_true(told[k] <= sum && odd[k] <= unknown);
                if (pos[k].seq < next) /* before it reads a message it was told of all in front of it, and of no more */
                    assert_int_equal(told[k], before[pos[k].seq]);
                if (!lag_read(&l, &pos[k], (uint32_t)rand() % 3000, &piece))
                    break;
                assert_int_equal(before[pos[k].seq - 1], before[pos[k].seq - piece.messages]);
            }
        }
        for (unsigned k = 0; k < 4; k++) {
            struct lag_missed rest = lag_rest(&l, &pos[k]);
            assert_int_equal(told[k] + rest.holes.messages, sum);
            assert_int_equal(odd[k] + rest.holes.unknown, unknown);
            struct lag_piece piece;
            do {
                struct lag_missed m = lag_catch_up(&l, &pos[k]);
                told[k] += m.holes.messages;
                odd[k] += m.holes.unknown;
            } while (lag_read(&l, &pos[k], 1000, &piece));
            assert_true(lag_is_level(&l, &pos[k]));
            assert_int_equal(told[k], sum);
            assert_int_equal(odd[k], unknown);
        }
        end(&l);
    }
}

/* Counts come from elsewhere, and may be lies. */
static void
holes_too_large_to_count_are_of_unknown_size(void **state)
{
    (void)state;
    struct lag l = {0};
    struct lag_pos pos = {0};
    lag_hole(&l, &blocks, UINT64_MAX - 5);
    lag_hole(&l, &blocks, 5);
    struct lag_missed m = lag_catch_up(&l, &pos);
    assert_true(m.holes.messages == UINT64_MAX && m.holes.unknown == 0);
    lag_hole(&l, &blocks, 7);
    assert_false(lag_is_level(&l, &pos));
    m = lag_catch_up(&l, &pos);
    assert_true(m.holes.messages == 0 && m.holes.unknown == 1);
    assert_true(lag_is_level(&l, &pos));
    end(&l);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_is_level_finds_nothing_and_who_is_behind_everything),
        cmocka_unit_test(the_oldest_go_first_and_are_counted),
        cmocka_unit_test(keeping_nothing_keeps_the_latest),
        cmocka_unit_test(the_latest_is_kept_however_large),
        cmocka_unit_test(a_batch_larger_than_what_is_kept_leaves_its_end),
        cmocka_unit_test(memory_stays_within_twice_of_what_is_kept),
        cmocka_unit_test(what_was_read_stays_where_it_is),
        cmocka_unit_test(clearing_makes_everybody_miss_what_was_kept),
        cmocka_unit_test(every_message_is_read_or_missed_once),
        cmocka_unit_test(every_hole_is_met_once_and_at_its_place),
        cmocka_unit_test(holes_too_large_to_count_are_of_unknown_size),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    rc_pool_fini(&blocks);
    return failed;
}
