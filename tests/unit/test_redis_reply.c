/* broker/redis_reply: replies of Redis in pieces of any size, and the bounds that no server gets past. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/redis_reply.h"
#include "common/buf.h"

#include <cmocka.h>

static const struct redis_reply_bounds bounds = {.max_bulk = 100000, .max_array = 64, .max_depth = 3};
static struct buf said;
static unsigned replies, wanted;
static const char *why;

/* "[a,[1,nil],+OK,-ERR]" for a reply; they are parted by blanks. */
static bool
write_down(void *arg, const struct redis_reply *r)
{
    (void)arg;
    replies++;
    for (uint32_t i = 0; i < r->n; i++) {
        const struct redis_value *v = &r->v[i];
        if (v->kind == REDIS_ARRAY) {
            buf_put_lit(&said, "*");
            buf_put_uint(&said, (uint64_t)v->n);
        } else if (v->kind == REDIS_INTEGER) {
            char t[32];
            buf_put(&said, t, (size_t)snprintf(t, sizeof t, ":%lld", (long long)v->n));
        } else if (v->kind == REDIS_NIL) {
            buf_put_lit(&said, "nil");
        } else {
            buf_put_u8(&said, v->kind == REDIS_STATUS ? '+' : v->kind == REDIS_ERROR ? '-' : '=');
            buf_put_view(&said, v->text);
        }
        buf_put_lit(&said, " ");
    }
    assert_int_equal(redis_reply_next(r, 0), r->n);
    return wanted == 0 || replies < wanted;
}

static bool
read_all(struct view bytes, size_t piece)
{
    struct redis_reply_reader *rr = redis_reply_reader_new(&bounds);
    bool ok = true;
    why = NULL;
    replies = 0;
    buf_reset(&said);
    while (ok && bytes.n > 0) {
        struct view now = view_head(bytes, piece);
        ok = redis_reply_reader_feed(rr, now, write_down, NULL, &why);
        bytes = view_from(bytes, now.n);
    }
    buf_put_u8(&said, 0);
    redis_reply_reader_free(rr);
    return ok;
}

static void
replies_are_whole_in_whatever_pieces(void **state)
{
    (void)state;
    const struct view in = VIEW("+OK\r\n-ERR no\r\n:-7\r\n$3\r\na\0b\r\n$-1\r\n*-1\r\n*0\r\n*3\r\n$1\r\na\r\n*2\r\n:1\r\n*1\r\n$0\r\n\r\n+x\r\n");
    for (size_t piece = 1; piece <= in.n; piece++) {
        assert_true(read_all(in, piece));
        assert_int_equal(replies, 8);
        assert_true(view_starts(buf_view(&said), VIEW("+OK -ERR no :-7 =a\0b nil nil *0 *3 =a *2 :1 *1 = +x ")));
    }
}

static void
long_strings_come_whole(void **state)
{
    (void)state;
    struct buf in = buf_make(200000);
    buf_put_lit(&in, "*2\r\n$100000\r\n");
    for (unsigned i = 0; i < 100000; i++)
        buf_put_u8(&in, (uint8_t)(i * 31 >> 3));
    buf_put_lit(&in, "\r\n:5\r\n");
    assert_true(read_all(buf_view(&in), 7777));
    assert_int_equal(replies, 1);
    assert_memory_equal(said.p + 4, in.p + 13, 100000);
    buf_free(&in);
}

static void
bounds_hold_before_memory_is_taken(void **state)
{
    (void)state;
    static const char *const bad[] = {"$100001\r\n", "$9223372036854775807\r\n", "$99999999999999999999999\r\n", "$-2\r\n", "*65\r\n",
        "*2147483648\r\n", "*-2\r\n", "*1\r\n*1\r\n*1\r\n*1\r\n", "?\r\n", "hello", "$3\r\nabcd\r\n", ":12x\r\n",
        "$1111111111111111111111111111111111111111", "$1x\r\n"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (read_all(view_str(bad[i]), 3) || read_all(view_str(bad[i]), 100))
            fail_msg("%s is taken", bad[i]);
    struct buf many = buf_make(1000); /* each array within the bound, together beyond it */
    buf_put_lit(&many, "*2\r\n*40\r\n");
    for (unsigned i = 0; i < 40; i++)
        buf_put_lit(&many, ":1\r\n");
    assert_true(read_all(buf_view(&many), 100));
    buf_put_lit(&many, "*40\r\n");
    assert_false(read_all(buf_view(&many), 100));
    buf_free(&many);
    assert_string_equal(why, "a reply of more than redis.max_array values");
    assert_false(read_all(VIEW("$100001\r\n"), 100));
    assert_string_equal(why, "a string of more than redis.max_bulk");
    assert_false(read_all(VIEW("*1\r\n*1\r\n*1\r\n*1\r\n"), 100));
    assert_string_equal(why, "a reply deeper than redis.max_depth");
    struct buf in = buf_make(200000);
    buf_put_lit(&in, "*3\r\n$99999\r\n");
    while (in.n < 100011)
        buf_put_u8(&in, 'x');
    buf_put_lit(&in, "\r\n$80000\r\n");
    while (in.n < 180021)
        buf_put_u8(&in, 'x');
    buf_put_lit(&in, "\r\n");
    assert_false(read_all(buf_view(&in), 65536));
    assert_string_equal(why, "a reply of more than redis.max_bulk");
    in.n = 0;
    buf_put_lit(&in, "+");
    while (in.n < 70000)
        buf_put_u8(&in, 'x');
    assert_false(read_all(buf_view(&in), 1000));
    assert_string_equal(why, "a line that does not end");
    buf_free(&in);
}

static void
who_wants_no_more_gets_no_more(void **state)
{
    (void)state;
    wanted = 2;
    assert_true(read_all(VIEW(":1\r\n:2\r\n:3\r\nrubbish"), 100));
    assert_int_equal(replies, 2);
    wanted = 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replies_are_whole_in_whatever_pieces),
        cmocka_unit_test(long_strings_come_whole),
        cmocka_unit_test(bounds_hold_before_memory_is_taken),
        cmocka_unit_test(who_wants_no_more_gets_no_more),
    };
    said = buf_make(1 << 20);
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    buf_free(&said);
    return rc;
}
