/* worker/rate: buckets, with a clock that stands still, and what connections feel of them. */
#include "tests/unit/t_worker.h"
#include "worker/rate.h"

#define SECOND 1000000000ull

static void
cost_is_time(void **state)
{
    (void)state;
    assert_int_equal(rate_cost(1, 1000), 1000000);
    assert_int_equal(rate_cost(3, 1), 3 * SECOND);
    assert_int_equal(rate_cost(1, 1000000000), 1);
    assert_int_equal(rate_cost(UINT64_MAX, 1), 3600 * SECOND); /* bounded, not wrapped */
    assert_int_equal(rate_cost(0, 7), 0);
}

static void
a_bucket_gives_a_burst_and_then_the_rate(void **state)
{
    uint64_t full_at = 0, now = 5 * SECOND, burst = 2 * SECOND, one = rate_cost(1, 100);
    unsigned given = 0;
    (void)state;
    for (; rate_has(full_at, now, burst, one); given++)
        assert_int_equal(rate_take(&full_at, now, burst, one), 0);
    assert_int_equal(given, 200);
    assert_int_equal(rate_take(&full_at, now, burst, one), one); /* a debt of one */
    assert_false(rate_has(full_at, now + one, burst, one));
    assert_true(rate_has(full_at, now + 2 * one, burst, one));
    for (given = 0, now += SECOND; rate_has(full_at, now, burst, one); given++)
        assert_int_equal(rate_take(&full_at, now, burst, one), 0);
    assert_int_equal(given, 99); /* a second's worth, and the debt */
    now += 1000 * SECOND;        /* it is full, not more than full */
    for (given = 0; rate_has(full_at, now, burst, one); given++)
        assert_int_equal(rate_take(&full_at, now, burst, one), 0);
    assert_int_equal(given, 200);
}

static void
a_full_bucket_gives_anything_once(void **state)
{
    uint64_t full_at = 0;
    (void)state;
    assert_true(rate_has(full_at, SECOND, SECOND, 10 * SECOND));
    assert_int_equal(rate_take(&full_at, SECOND, SECOND, 10 * SECOND), 9 * SECOND);
    assert_false(rate_has(full_at, SECOND, SECOND, 1));
    for (int i = 0; i < 100; i++) /* debts have an end */
        (void)rate_take(&full_at, SECOND, SECOND, UINT64_MAX / 4);
    assert_int_equal(rate_take(&full_at, SECOND, SECOND, 0), 3600 * SECOND);
}

/* ---- connections ---- */

static void
begin(const char *const settings[][2])
{
    struct conf_error err;
    for (unsigned i = 0; settings[i][0] != NULL; i++)
        if (!conf_set(&t.conf, settings[i][0], settings[i][1], "here", &err))
            fail_msg("%s", err.text);
    t_begin();
}

static void
publishes(struct t_client *c, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        t_say(c, "{\"event\":\"#publish\",\"data\":{\"channel\":\"x\",\"data\":%u}}", i);
}

static void
packets_above_the_rate_wait_and_none_is_lost(void **state)
{
    (void)state;
    begin((const char *const[][2]){{"sc.packet_rate", "10"}, {"rate.delay", "0"}, {NULL, NULL}});
    struct t_client *c = t_open(); /* one packet of the twenty */
    publishes(c, 30);
    t_turns(10);
    assert_int_equal(t_count(T_PUBLISH), 20); /* the last of them put it into debt */
    assert_true(t_conn(c)->pause & PAUSE_RATE);
    assert_int_equal(t_counter(limit_sc_packet_rate_total), 1);
    t_pass(60);
    t_turns(4);
    assert_int_equal(t_count(T_PUBLISH), 20);
    for (unsigned i = 0; i < 40; i++) {
        t_pass(50);
        t_turns(4);
    }
    assert_int_equal(t_count(T_PUBLISH), 30);
    assert_false(t_conn(c)->pause & PAUSE_RATE);
}

static void
who_goes_on_above_the_rate_for_longer_than_the_delay_ends(void **state)
{
    (void)state;
    begin((const char *const[][2]){{"sc.packet_rate", "100"}, {NULL, NULL}});
    struct t_client *c = t_open();
    publishes(c, 260); /* 60 more than a burst: 0.6 s of delay */
    for (unsigned i = 0; i < 100 && t_count(T_PUBLISH) < 260; i++) {
        t_pass(20);
        t_turns(4);
    }
    assert_int_equal(t_count(T_PUBLISH), 260);
    assert_int_equal(t_closes(CLOSE_PACKET_RATE), 0);
    publishes(c, 300); /* and now 3 s */
    for (unsigned i = 0; i < 100 && t_closes(CLOSE_PACKET_RATE) == 0; i++) {
        t_pass(20);
        t_turns(4);
    }
    assert_int_equal(t_closes(CLOSE_PACKET_RATE), 1);
    assert_in_range(t_count(T_PUBLISH), 260 + 20, 260 + 110); /* it was stopped for a second altogether */
    t_hears_close(c, 1008);
}

static void
a_client_below_its_rate_is_forgiven_what_it_was_stopped(void **state)
{
    (void)state;
    begin((const char *const[][2]){{"sc.packet_rate", "100"}, {NULL, NULL}});
    struct t_client *c = t_open();
    for (unsigned round = 0; round < 5; round++) { /* each of them 0.6 s of delay */
        publishes(c, 260);
        for (unsigned i = 0; i < 400; i++) {
            t_pass(20);
            t_turns(1);
        }
        assert_int_equal(t_count(T_PUBLISH), 260 * (round + 1));
    }
    assert_int_equal(t_closes(CLOSE_PACKET_RATE), 0);
}

static void
above_a_rate_requests_fail_where_the_answer_is_error(void **state)
{
    (void)state;
    begin((const char *const[][2]){{"sc.packet_rate", "10"}, {"rate.packet_answer", "error"}, {NULL, NULL}});
    struct t_client *c = t_open();
    publishes(c, 19);
    t_say_publish(c, "x", "1");
    t_hears_failed(c, c->cid, ERR_RATE);
    publishes(c, 1); /* nobody to tell: counted */
    assert_int_equal(t_count(T_PUBLISH), 19);
    T_UNTIL(t_counter(publishes_refused_total) == 2);
    assert_int_equal(t_counter(limit_sc_packet_rate_total), 2);
    t_pass(150);
    t_say_publish(c, "x", "2");
    T_UNTIL(t_count(T_PUBLISH) == 20); /* what failed cost nothing */
    t_answer_all(0);
    t_hears_done(c, c->cid);
}

static void
above_a_rate_the_connection_ends_where_the_answer_is_close(void **state)
{
    (void)state;
    begin((const char *const[][2]){{"sc.packet_rate", "10"}, {"rate.packet_answer", "close"}, {NULL, NULL}});
    struct t_client *c = t_open();
    publishes(c, 25);
    T_UNTIL(t_closes(CLOSE_PACKET_RATE) == 1);
    assert_int_equal(t_count(T_PUBLISH), 19); /* and nothing of what came behind */
    t_hears_close(c, 1008);
}

static void
subscribes_have_a_rate_of_their_own(void **state)
{
    (void)state;
    begin((const char *const[][2]){{"sc.subscribe_rate", "1"}, {"rate.subscribe_answer", "error"}, {NULL, NULL}});
    struct t_client *c = t_open();
    t_subscribe(c, "a");
    t_subscribe(c, "b");
    t_say_subscribe(c, "c");
    t_hears_failed(c, c->cid, ERR_RATE);
    publishes(c, 50);
    T_UNTIL(t_count(T_PUBLISH) == 50);
    assert_int_equal(t_counter(limit_sc_subscribe_rate_total), 1);
    struct t_client *other = t_open();
    t_subscribe(other, "c");
}

static void
subscribes_above_the_rate_end_it_where_the_answer_is_close(void **state)
{
    (void)state;
    begin((const char *const[][2]){{"sc.subscribe_rate", "1"}, {"rate.subscribe_answer", "close"}, {NULL, NULL}});
    struct t_client *c = t_open();
    t_subscribe(c, "a");
    t_subscribe(c, "b");
    t_say_subscribe(c, "c");
    T_UNTIL(t_closes(CLOSE_SUBSCRIBE_RATE) == 1);
    t_hears_close(c, 1008);
}

static void
bytes_above_the_rate_wait(void **state)
{
    char data[1100];
    (void)state;
    begin((const char *const[][2]){{"sc.byte_rate", "1KiB"}, {"rate.delay", "0"}, {NULL, NULL}});
    struct t_client *c = t_open();
    memset(data, '1', sizeof data - 1);
    data[sizeof data - 1] = '\0';
    for (unsigned i = 0; i < 4; i++)
        t_say(c, "{\"event\":\"#publish\",\"data\":{\"channel\":\"x\",\"data\":%s}}", data);
    t_turns(4);
    assert_in_range(t_count(T_PUBLISH), 0, 2); /* what comes above it waits in one piece */
    assert_true(t_conn(c)->pause & PAUSE_RATE);
    for (unsigned i = 0; i < 100 && t_count(T_PUBLISH) < 4; i++) {
        t_pass(50);
        t_turns(4);
    }
    assert_int_equal(t_count(T_PUBLISH), 4);
    assert_true(t_counter(limit_sc_byte_rate_total) > 0);
}

static void
bytes_above_the_rate_fail_or_end_it(void **state)
{
    (void)state;
    begin((const char *const[][2]){{"sc.byte_rate", "256"}, {"rate.byte_answer", "error"}, {NULL, NULL}});
    struct t_client *c = t_open();
    for (unsigned i = 0; i < 12; i++) {
        t_say_publish(c, "x", "\"000000000000000000000000000000\"");
        t_turns(2);
        t_answer_all(0); /* an error does not overtake them */
    }
    T_UNTIL(t_errors(ERR_RATE) > 0);
    unsigned taken = t_count(T_PUBLISH);
    assert_in_range(taken, 1, 10);
    struct conf_error err;
    assert_true(conf_set(&t.conf, "rate.byte_answer", "close", "here", &err));
    rates_read(t.w); /* as a reload would have it, soon */
    t_say_publish(c, "x", "\"0000000000000000000000000000000000000000000000000000000000000000000000000\"");
    T_UNTIL(t_closes(CLOSE_BYTE_RATE) == 1);
    assert_int_equal(t_count(T_PUBLISH), taken);
}

static void
connections_of_one_address_share_its_rate(void **state)
{
    (void)state;
    begin((const char *const[][2]){{"address.packet_rate", "10"}, {"rate.packet_answer", "error"}, {NULL, NULL}});
    struct t_client *a = t_open_tcp(), *b = t_open_tcp(), *local = t_open();
    publishes(a, 9);
    T_UNTIL(t_count(T_PUBLISH) == 9);
    publishes(b, 9);
    T_UNTIL(t_count(T_PUBLISH) == 18); /* with two handshakes: twenty */
    t_say_publish(a, "x", "1");
    t_hears_failed(a, a->cid, ERR_RATE);
    t_say_publish(b, "x", "1");
    t_hears_failed(b, b->cid, ERR_RATE);
    publishes(local, 30); /* a UNIX socket has no address */
    T_UNTIL(t_count(T_PUBLISH) == 48);
    assert_int_equal(t_counter(limit_address_packet_rate_total), 2);
    assert_int_equal(t_counter(limit_sc_packet_rate_total), 0);
}

static void
connections_of_one_address_are_limited(void **state)
{
    (void)state;
    begin((const char *const[][2]){{"conn.max_per_address", "2"}, {NULL, NULL}});
    struct t_client *first = t_open_tcp();
    (void)t_open_tcp();
    for (unsigned i = 0; i < 2; i++) { /* up to twice as many are told why */
        struct t_client *c = t_connect_tcp();
        t_send(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27);
        T_UNTIL((t_receive(c), view_starts(buf_view(&c->in), VIEW("HTTP/1.1 429 "))));
    }
    struct t_client *far = t_connect_tcp();
    t_hears_end(far);
    assert_int_equal(t_counter(limit_max_per_address_total), 3);
    assert_int_equal(t_closes(CLOSE_ADDRESS_LIMIT), 3);
    t_close(first);
    T_UNTIL(t_counter(connections) < 4);
}

static void
connects_of_one_address_have_a_rate(void **state)
{
    (void)state;
    begin((const char *const[][2]){{"address.connect_rate", "1"}, {"rate.connect_answer", "close"}, {NULL, NULL}});
    (void)t_open_tcp();
    (void)t_open_tcp();
    t_hears_end(t_connect_tcp());
    assert_int_equal(t_counter(limit_address_connect_rate_total), 1);
    assert_int_equal(t_closes(CLOSE_ADDRESS_LIMIT), 1);
    (void)t_open(); /* a UNIX socket */
    t_pass(1100);
    t_turn();
    (void)t_open_tcp();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cost_is_time),
        cmocka_unit_test(a_bucket_gives_a_burst_and_then_the_rate),
        cmocka_unit_test(a_full_bucket_gives_anything_once),
        T(packets_above_the_rate_wait_and_none_is_lost),
        T(who_goes_on_above_the_rate_for_longer_than_the_delay_ends),
        T(a_client_below_its_rate_is_forgiven_what_it_was_stopped),
        T(above_a_rate_requests_fail_where_the_answer_is_error),
        T(above_a_rate_the_connection_ends_where_the_answer_is_close),
        T(subscribes_have_a_rate_of_their_own),
        T(subscribes_above_the_rate_end_it_where_the_answer_is_close),
        T(bytes_above_the_rate_wait),
        T(bytes_above_the_rate_fail_or_end_it),
        T(connections_of_one_address_share_its_rate),
        T(connections_of_one_address_are_limited),
        T(connects_of_one_address_have_a_rate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
