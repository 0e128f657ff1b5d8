/* worker/xp_ws: frames of a client to messages of its session, with what is put aside meanwhile. proto/ws
 * judges frames (test_ws.c); here it is what a connection makes of them: limits of its path and state, time,
 * pings to who does not read, messages that must wait in the middle. */
#include "proto/ws.h"
#include "tests/unit/t_worker.h"

static const uint8_t key[4] = {0x11, 0x22, 0x33, 0x44};

/* A masked frame as bytes; returns how many. fin unless or-ed with T_MORE. */
static size_t
frame_bytes(uint8_t *to, unsigned opcode, const void *p, size_t n)
{
    size_t head_n = ws_put_client_header(to, (enum ws_opcode)(opcode & 0xf), n, key);
    if (opcode & T_MORE)
        to[0] &= 0x7f;
    if (n > 0)
        memcpy(to + head_n, p, n);
    ws_mask(to + head_n, n, key, 0);
    return head_n + n;
}

/* Only the beginning of a frame: what it announces. */
static void
announce(struct t_client *c, unsigned opcode, uint64_t n)
{
    uint8_t head[14];
    size_t head_n = ws_put_client_header(head, (enum ws_opcode)(opcode & 0xf), n, key);
    if (opcode & T_MORE)
        head[0] &= 0x7f;
    t_send(c, head, head_n);
}

static struct t_client *
open_echo(void)
{
    return t_upgraded("/echo", 0);
}

static void
hears_frame(struct t_client *c, unsigned opcode, const char *text)
{
    struct view payload;
    assert_int_equal(t_next_frame(c, &payload), opcode);
    assert_int_equal(payload.n, strlen(text));
    assert_memory_equal(payload.p, text, payload.n);
}

/* Nothing is kept for a connection at rest. */
static void
assert_at_rest(struct t_client *c)
{
    T_UNTIL(t_conn(c)->in == NULL);
    assert_int_equal(t.w->input_bytes, 0);
}

/* ---- messages ---- */

/* Whole frames, fragments with a ping between them, an empty fragment, binary: the same answers however TCP
 * cuts the bytes. */
static void
however_the_bytes_are_cut_the_messages_are_the_same(void **state)
{
    uint8_t bytes[256];
    size_t n = 0;
    (void)state;
    t_begin();
    n += frame_bytes(bytes + n, WS_TEXT, "whole", 5);
    n += frame_bytes(bytes + n, WS_TEXT | T_MORE, "in ", 3);
    n += frame_bytes(bytes + n, WS_PING, "here?", 5);
    n += frame_bytes(bytes + n, WS_CONTINUATION | T_MORE, "", 0);
    n += frame_bytes(bytes + n, WS_CONTINUATION, "pieces", 6);
    n += frame_bytes(bytes + n, WS_PONG, "x", 1);
    n += frame_bytes(bytes + n, WS_BINARY, "\x01\x02", 2);
    struct t_client *c = open_echo();
    for (size_t step = 1; step <= n; step++) {
        for (size_t at = 0; at < n; at += step) {
            t_send(c, bytes + at, MIN(step, n - at));
            t_turn();
        }
        hears_frame(c, WS_TEXT, "whole");
        hears_frame(c, WS_PONG, "here?");
        hears_frame(c, WS_TEXT, "in pieces");
        hears_frame(c, WS_BINARY, "\x01\x02");
        assert_at_rest(c);
        t_pass(1000); /* so that pings are not too many */
    }
    assert_int_equal(t_counter(messages_in_total), 3 * n);
}

static void
a_message_that_is_whole_where_it_came_is_never_kept(void **state)
{
    char text[1500];
    uint8_t bytes[1600];
    (void)state;
    t_begin();
    struct t_client *c = open_echo();
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    t_frame(c, WS_TEXT, text, sizeof text - 1); /* what the ring encodes in has its size */
    hears_frame(c, WS_TEXT, text);
    size_t n = frame_bytes(bytes, WS_TEXT, text, sizeof text - 1);
    t_send(c, bytes, n);
    t_memory_ends(1); /* so there must not be any */
    t_turns(2);
    t_memory_ends(0);
    hears_frame(c, WS_TEXT, text);
}

static void
what_is_not_whole_is_kept_and_given_back(void **state)
{
    (void)state;
    t_begin();
    struct t_client *c = open_echo();
    t_frame(c, WS_TEXT | T_MORE, "half", 4);
    T_UNTIL(t.w->input_bytes > 0);
    assert_non_null(t_conn(c)->in);
    t_frame(c, WS_CONTINUATION, "", 0);
    hears_frame(c, WS_TEXT, "half");
    assert_at_rest(c);
    t_frame(c, WS_TEXT | T_MORE, "half", 4);
    T_UNTIL(t.w->input_bytes > 0);
    t_close(c); /* in the middle */
    T_UNTIL(t.w->input_bytes == 0);
}

static void
without_memory_for_half_a_message_its_connection_ends_and_no_other(void **state)
{
    (void)state;
    t_begin();
    struct t_client *other = open_echo();
    for (unsigned n = 1; n < 4; n++) {
        struct t_client *c = open_echo();
        char text[3000];
        memset(text, 'a', sizeof text);
        t_frame(c, WS_TEXT | T_MORE, text, 1);
        t_turns(2);
        announce(c, WS_CONTINUATION, sizeof text);
        t_memory_ends(n);
        (void)!t_try_send(c, text, sizeof text);
        t_turns(4);
        t_memory_ends(0);
        t_receive(c);
        assert_true(n > 1 || c->ended);
        t_close(c);
    }
    t_frame(other, WS_TEXT, "still", 5);
    hears_frame(other, WS_TEXT, "still");
}

/* ---- limits ---- */

static void
too_long_is_told_at_the_announcement(void **state)
{
    static const uint64_t above[] = {101, 65536, 1ull << 31, 1ull << 32, 1ull << 61};
    (void)state;
    t.conf.echo_max_message = 100;
    t_begin();
    for (size_t i = 0; i < ARRAY_LEN(above); i++) {
        struct t_client *c = open_echo();
        announce(c, WS_TEXT, above[i]);
        t_hears_close(c, 1009);
        assert_int_equal(t_closes(CLOSE_TOO_BIG), i + 1);
        assert_true(t.w->input_bytes < 4096);
    }
    struct t_client *c = open_echo();
    char text[101];
    memset(text, 'a', 100);
    text[100] = '\0';
    t_frame(c, WS_TEXT, text, 100);
    hears_frame(c, WS_TEXT, text);
    t_frame(c, WS_TEXT | T_MORE, text, 60);
    t_turns(2);
    announce(c, WS_CONTINUATION, 41); /* the sum counts */
    t_hears_close(c, 1009);
}

static void
before_the_handshake_less_is_taken(void **state)
{
    char text[300];
    (void)state;
    t.conf.ws_max_message = 1000;
    t.conf.ws_max_message_unshaken = 100;
    t_begin();
    struct t_client *c = t_upgraded("/socketcluster/", 0);
    announce(c, WS_TEXT, 101);
    t_hears_close(c, 1009);
    struct t_client *shaken = t_open();
    (void)snprintf(text, sizeof text, "{\"event\":\"#publish\",\"data\":{\"channel\":\"c\",\"data\":\"%0200d\"},\"cid\":5}", 0);
    t_frame(shaken, WS_TEXT, text, strlen(text));
    T_UNTIL(t_count(T_PUBLISH) == 1);
    t_answer(0, ERR_NONE);
    t_hears_done(shaken, 5);
    announce(shaken, WS_TEXT, 1001);
    t_hears_close(shaken, 1009);
    assert_int_equal(t_closes(CLOSE_TOO_BIG), 2);
}

/* Sends n frames of no bytes that go on with a message. */
static void
send_empty_fragments(struct t_client *c, unsigned n)
{
    uint8_t *bytes = malloc((size_t)n * 6);
    size_t at = 0;
    assert_non_null(bytes);
    for (unsigned i = 0; i < n; i++)
        at += frame_bytes(bytes + at, WS_CONTINUATION | T_MORE, NULL, 0);
    t_send(c, bytes, at);
    free(bytes);
}

static void
fragments_have_a_bound(void **state)
{
    (void)state;
    t.conf.ws_max_frames_per_message = 10;
    t_begin();
    struct t_client *c = open_echo();
    t_frame(c, WS_TEXT | T_MORE, "a", 1);
    send_empty_fragments(c, 8);
    t_frame(c, WS_CONTINUATION, "b", 1); /* the tenth */
    hears_frame(c, WS_TEXT, "ab");
    t_frame(c, WS_TEXT | T_MORE, "a", 1);
    send_empty_fragments(c, 10);
    t_hears_close(c, 1008);
    assert_int_equal(t_closes(CLOSE_TOO_MANY_FRAMES), 1);
}

static void
the_bound_of_fragments_goes_by_the_limit_of_the_message(void **state)
{
    (void)state;
    t.conf.echo_max_message = 2 << 20; /* 32768 of them then, else 16384 */
    t_begin();
    struct t_client *c = open_echo();
    t_frame(c, WS_TEXT | T_MORE, "a", 1);
    send_empty_fragments(c, 32766);
    t_frame(c, WS_CONTINUATION, "b", 1);
    hears_frame(c, WS_TEXT, "ab");
    t.conf.echo_max_message = 100;
    t_frame(c, WS_TEXT | T_MORE, "a", 1);
    send_empty_fragments(c, 16382);
    t_frame(c, WS_CONTINUATION, "b", 1);
    hears_frame(c, WS_TEXT, "ab");
    t_frame(c, WS_TEXT | T_MORE, "a", 1);
    send_empty_fragments(c, 16384);
    t_hears_close(c, 1008);
}

static void
what_breaks_the_protocol_is_told_by_its_code(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
        unsigned code;
        enum close_reason reason;
    } cases[] = {
        {"\x81\x01x", 3, 1002, CLOSE_PROTOCOL},                          /* no mask */
        {"\xc1\x80\0\0\0\0", 6, 1002, CLOSE_PROTOCOL},                   /* RSV1 */
        {"\x83\x80\0\0\0\0", 6, 1002, CLOSE_PROTOCOL},                   /* opcode 3 */
        {"\x80\x80\0\0\0\0", 6, 1002, CLOSE_PROTOCOL},                   /* continues nothing */
        {"\x81\x82\0\0\0\0\xc3\x28", 8, 1007, CLOSE_BAD_UTF8},
    };
    (void)state;
    t_begin();
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct t_client *c = open_echo();
        uint64_t before = t_closes(cases[i].reason), messages = t_counter(messages_in_total);
        t_send(c, cases[i].bytes, cases[i].n);
        (void)!t_try_send(c, "\x81\x81\0\0\0\0y", 7); /* nothing of it is taken any more */
        t_hears_close(c, cases[i].code);
        assert_int_equal(t_closes(cases[i].reason), before + 1);
        assert_int_equal(t_counter(messages_in_total), messages);
    }
}

/* ---- Close ---- */

static void
a_close_frame_is_answered_with_its_code_and_the_end(void **state)
{
    struct view payload;
    (void)state;
    t_begin();
    struct t_client *c = open_echo(), *bare = open_echo();
    t_frame(c, WS_CLOSE, "\x0f\xa0thanks", 8);
    assert_int_equal(t_next_frame(c, &payload), WS_CLOSE);
    assert_true(view_starts(payload, VIEW("\x0f\xa0")));
    t_frame(bare, WS_CLOSE, "", 0);
    assert_int_equal(t_next_frame(bare, &payload), WS_CLOSE);
    assert_int_equal(payload.n, 0);
    t_hears_end(c);
    t_hears_end(bare);
    assert_int_equal(t_closes(CLOSE_PEER_CLOSED), 2);
}

static void
what_comes_behind_a_close_frame_is_not_looked_at(void **state)
{
    uint8_t bytes[64];
    size_t n = frame_bytes(bytes, WS_CLOSE, "\x03\xe8", 2);
    (void)state;
    t_begin();
    struct t_client *c = open_echo();
    n += frame_bytes(bytes + n, WS_TEXT, "late", 4);
    t_send(c, bytes, n);
    t_hears_close(c, 1000);
    t_hears_end(c);
    assert_int_equal(t_counter(messages_in_total), 0);
}

/* ---- control frames ---- */

static void
ping_many(struct t_client *c, unsigned n, unsigned opcode)
{
    uint8_t bytes[6 * 64];
    while (n > 0) {
        unsigned k = MIN(n, 64u);
        size_t at = 0;
        for (unsigned i = 0; i < k; i++)
            at += frame_bytes(bytes + at, opcode, NULL, 0);
        t_send(c, bytes, at);
        n -= k;
    }
    t_turns(4);
}

static void
control_frames_have_a_rate_with_bursts_of_twice_that(void **state)
{
    static const unsigned kinds[] = {WS_PING, WS_PONG, WS_TEXT /* empty */};
    (void)state;
    t.conf.ws_control_rate = 100;
    t_begin();
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        struct t_client *c = open_echo();
        ping_many(c, 200, kinds[i]);
        assert_int_equal(t_conn(c)->state, CONN_OPEN);
        for (unsigned n = 0, ms = 0; ms < 1600; ms += WHEEL_TICK_MS) { /* 1.6 for each tick */
            t_pass(WHEEL_TICK_MS);
            unsigned more = ms / 10 + 1 - n;
            ping_many(c, more, kinds[i]);
            n += more;
            assert_int_equal(t_conn(c)->state, CONN_OPEN);
        }
        t_pass(60000); /* what was saved ends at twice the rate */
        ping_many(c, 200, kinds[i]);
        assert_int_equal(t_conn(c)->state, CONN_OPEN);
        ping_many(c, 1, kinds[i]);
        T_UNTIL(t_closes(CLOSE_CONTROL_RATE) == i + 1);
        for (struct view payload; t_next_frame(c, &payload) != WS_CLOSE;)
            ;
    }
}

/* A client of the socket pair that takes nothing, with more in its queue than the kernel holds. */
static struct t_client *
open_stuffed(void)
{
    char text[4096];
    struct t_client *c = t_upgraded("/echo", 4096);
    memset(text, 'a', sizeof text);
    t_frame(c, WS_BINARY, text, sizeof text);
    t_frame(c, WS_BINARY, text, sizeof text);
    T_UNTIL(t_conn(c)->flags & CF_SLOW);
    return c;
}

static void
who_does_not_read_is_owed_one_pong_the_newest(void **state)
{
    char text[16];
    (void)state;
    t_begin();
    struct t_client *c = open_stuffed();
    uint32_t queued = t_conn(c)->out.bytes;
    for (int i = 0; i < 100; i++) {
        (void)snprintf(text, sizeof text, "%d", i);
        t_frame(c, WS_PING, text, strlen(text));
        t_turn();
    }
    assert_int_equal(t_conn(c)->out.bytes, queued);
    assert_true(t_conn(c)->in->pong);
    struct view payload;
    assert_int_equal(t_next_frame(c, &payload), WS_BINARY);
    assert_int_equal(t_next_frame(c, &payload), WS_BINARY);
    hears_frame(c, WS_PONG, "99");
    t_hears_nothing(c);
    assert_at_rest(c);
}

/* ---- time ---- */

static void
a_message_has_its_time_and_a_trickle_gains_none(void **state)
{
    (void)state;
    t.conf.ws_message_timeout = 1000;
    t_begin();
    struct t_client *slow = open_echo(), *half = open_echo(), *frame = open_echo();
    t_frame(slow, WS_TEXT | T_MORE, "a", 1);
    t_frame(half, WS_TEXT | T_MORE, "a", 1);
    t_send(frame, "\x81", 1); /* the first byte of a frame is the first of its message */
    t_turns(2);
    for (int i = 0; i < 9; i++) {
        t_pass(100);
        t_frame(slow, WS_CONTINUATION | T_MORE, "a", 1);
        t_turns(2);
        assert_int_equal(t_closes(CLOSE_MESSAGE_TIMEOUT), 0);
    }
    t_frame(half, WS_CONTINUATION, "b", 1);
    hears_frame(half, WS_TEXT, "ab");
    t_pass(200);
    t_hears_close(slow, 1008);
    t_hears_close(frame, 1008);
    assert_int_equal(t_closes(CLOSE_MESSAGE_TIMEOUT), 2);
    t_hears_nothing(half);
}

/* ---- waiting in the middle ---- */

static void
publish_of(char *to, size_t cap, unsigned cid)
{
    (void)snprintf(to, cap, "{\"event\":\"#publish\",\"data\":{\"channel\":\"c\",\"data\":%u},\"cid\":%u}", cid, cid);
}

static void
a_message_that_must_wait_goes_on_where_it_stopped(void **state)
{
    char batch[512] = "[", one[128];
    (void)state;
    t.conf.sc_ping_interval = 3600000; /* not meanwhile */
    t.conf.sc_ping_timeout = 7200000;
    t_begin();
    struct t_client *c = t_open();
    for (unsigned cid = 10; cid < 14; cid++) {
        publish_of(one, sizeof one, cid);
        (void)snprintf(batch + strlen(batch), sizeof batch - strlen(batch), "%s%s", cid > 10 ? "," : "", one);
    }
    strcat(batch, "]");
    t.says[T_PUBLISH] = LINK_WAIT;
    t.publishes_first = 2; /* so it stops in the middle */
    t_frame(c, WS_TEXT, batch, strlen(batch));
    publish_of(one, sizeof one, 14);
    t_frame(c, WS_TEXT, one, strlen(one)); /* and what comes behind waits behind it */
    T_UNTIL(t_conn(c)->in != NULL && t_conn(c)->in->stalled);
    t_turns(5);
    assert_int_equal(t_count(T_PUBLISH), 2);
    t_pass(120000); /* we made it wait, so its time is not up */
    t_turns(3);
    assert_int_equal(t_closes(CLOSE_MESSAGE_TIMEOUT), 0);
    t.says[T_PUBLISH] = LINK_OK;
    t_room(0);
    T_UNTIL(t_count(T_PUBLISH) == 5);
    for (unsigned i = 0, cid = 10; i < t.asked_n; i++)
        if (t.asked[i]->kind == T_PUBLISH)
            assert_int_equal(strtoul(t.asked[i]->data, NULL, 10), cid++);
    t_answer_all(0);
    t_hears_done(c, 10);
    assert_at_rest(c);
}

static void
a_fragmented_message_that_must_wait_is_kept_once(void **state)
{
    char one[128];
    (void)state;
    t_begin();
    struct t_client *c = t_open();
    publish_of(one, sizeof one, 10);
    t.says[T_PUBLISH] = LINK_WAIT;
    t_frame(c, WS_TEXT | T_MORE, one, 20);
    t_frame(c, WS_CONTINUATION, one + 20, strlen(one) - 20);
    T_UNTIL(t_conn(c)->in != NULL && t_conn(c)->in->stalled);
    uint64_t kept = t.w->input_bytes;
    for (int i = 0; i < 5; i++) { /* woken in vain */
        t_room(0);
        t_turns(2);
        assert_int_equal(t.w->input_bytes, kept);
    }
    assert_int_equal(t.not_taken[T_PUBLISH], 6);
    t.says[T_PUBLISH] = LINK_OK;
    t_room(0);
    T_UNTIL(t_count(T_PUBLISH) == 1);
    t_answer_all(0);
    t_hears_done(c, 10);
    assert_at_rest(c);
}

static void
without_memory_to_wait_the_connection_ends(void **state)
{
    char one[128];
    (void)state;
    t_begin();
    for (unsigned n = 1; n < 3; n++) {
        struct t_client *c = t_open();
        publish_of(one, sizeof one, 10);
        t.says[T_PUBLISH] = LINK_WAIT;
        uint64_t before = t_closes(CLOSE_INTERNAL);
        t_memory_ends(0);
        uint8_t bytes[256];
        size_t k = frame_bytes(bytes, WS_TEXT, one, strlen(one));
        (void)!t_try_send(c, bytes, k);
        t_memory_ends(n);
        t_turns(3);
        t_memory_ends(0);
        t_hears_end(c);
        assert_int_equal(t_closes(CLOSE_INTERNAL), before + 1);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        T(however_the_bytes_are_cut_the_messages_are_the_same),
        T(a_message_that_is_whole_where_it_came_is_never_kept),
        T(what_is_not_whole_is_kept_and_given_back),
        T(without_memory_for_half_a_message_its_connection_ends_and_no_other),
        T(too_long_is_told_at_the_announcement),
        T(before_the_handshake_less_is_taken),
        T(fragments_have_a_bound),
        T(the_bound_of_fragments_goes_by_the_limit_of_the_message),
        T(what_breaks_the_protocol_is_told_by_its_code),
        T(a_close_frame_is_answered_with_its_code_and_the_end),
        T(what_comes_behind_a_close_frame_is_not_looked_at),
        T(control_frames_have_a_rate_with_bursts_of_twice_that),
        T(who_does_not_read_is_owed_one_pong_the_newest),
        T(a_message_has_its_time_and_a_trickle_gains_none),
        T(a_message_that_must_wait_goes_on_where_it_stopped),
        T(a_fragmented_message_that_must_wait_is_kept_once),
        T(without_memory_to_wait_the_connection_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
