/* worker/sess: what a client asks and what it is answered, with a stand-in for the brokers. */
#include "tests/unit/t_worker.h"
#include "worker/sess.h"

static const char before_handshake[][96] = {
    "{\"event\":\"#subscribe\",\"data\":{\"channel\":\"a\"},\"cid\":1}",
    "{\"event\":\"#unsubscribe\",\"data\":\"a\",\"cid\":1}",
    "{\"event\":\"#publish\",\"data\":{\"channel\":\"a\",\"data\":1},\"cid\":1}",
    "{\"event\":\"#authenticate\",\"data\":\"x\",\"cid\":1}",
    "{\"event\":\"move\",\"data\":1}",
    "{\"event\":\"move\",\"data\":1,\"cid\":1}",
    "{\"rid\":1}",
    "",
    "no packet",
};

/* -- the handshake -- */

static void
whatever_comes_before_the_handshake_ends_the_connection(void **state)
{
    (void)state;
    t_begin();
    for (size_t i = 0; i < ARRAY_LEN(before_handshake); i++) {
        struct t_client *c = t_upgraded("/socketcluster/", 0);
        t_say(c, "%s", before_handshake[i]);
        t_hears_close(c, 4009);
    }
    assert_int_equal(t_closes(CLOSE_NOT_SHAKEN), ARRAY_LEN(before_handshake));
    assert_int_equal(t.asked_n, 0);
}

static void
without_strictness_only_subscribes_wait_for_the_handshake(void **state)
{
    (void)state;
    t.conf.sc_strict_handshake = false;
    t_begin();
    struct t_client *c = t_upgraded("/socketcluster/", 0);
    t_say_subscribe(c, "a");
    t_hears_failed(c, 1, ERR_NOT_SHAKEN);
    t_say_publish(c, "a", "1");
    T_UNTIL(t.asked_n == 1);
    assert_int_equal(t.asked[0]->kind, T_PUBLISH);
    t_answer(0, ERR_NONE);
    t_hears_done(c, 2);
    t_say(c, "{\"event\":\"#handshake\",\"cid\":3}");
    struct view welcome;
    assert_int_equal(t_next_frame(c, &welcome), WS_TEXT);
    t_subscribe(c, "a");
}

/* The id of a welcome, 20 characters. */
static void
hear_id(struct t_client *c, unsigned cid, char id[21])
{
    struct view payload;
    char begin[64], rest[96];
    assert_int_equal(t_next_frame(c, &payload), WS_TEXT);
    snprintf(begin, sizeof begin, "{\"rid\":%u,\"data\":{\"id\":\"", cid);
    assert_true(view_starts(payload, view_str(begin)));
    memcpy(id, payload.p + strlen(begin), 20);
    id[20] = '\0';
    assert_int_equal(strspn(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"), 20);
    snprintf(rest, sizeof rest, "\",\"pingTimeout\":%llu,\"isAuthenticated\":false}}",
        (unsigned long long)t.conf.sc_ping_timeout);
    assert_string_equal((const char *)payload.p + strlen(begin) + 20, rest);
}

static void
a_handshake_says_who_the_client_is_and_may_be_repeated(void **state)
{
    char first[21], again[21], other[21];
    (void)state;
    t_begin();
    struct t_client *a = t_upgraded("/socketcluster/", 0), *b = t_upgraded("/socketcluster/", 0);
    assert_int_equal(t_counter(connections_unshaken), 2);
    t_say(a, "{\"event\":\"#handshake\",\"data\":{\"authToken\":null},\"cid\":1}");
    hear_id(a, 1, first);
    assert_int_equal(t_counter(connections_unshaken), 1);
    assert_int_equal(t_counter(connections_open), 1);
    t_say(a, "{\"event\":\"#handshake\",\"cid\":2}");
    hear_id(a, 2, again);
    assert_string_equal(first, again);
    assert_int_equal(t_counter(connections_open), 1);
    t_say(b, "{\"event\":\"#handshake\",\"cid\":1}");
    hear_id(b, 1, other);
    assert_string_not_equal(first, other);
    char text[20];
    assert_memory_equal(sess_id(t_conn(a), text).p, first, 20);
}

static void
a_handshake_that_does_not_come_ends_with_4005(void **state)
{
    (void)state;
    t_begin();
    struct t_client *late = t_upgraded("/socketcluster/", 0), *good = t_open();
    t_pass(t.conf.sc_handshake_timeout - 100);
    t_hears_nothing(late);
    t_pass(200);
    t_hears_close(late, 4005);
    assert_int_equal(t_closes(CLOSE_HANDSHAKE_TIMEOUT), 1);
    assert_non_null(t_conn(good));
    assert_int_equal(t_conn(good)->state, CONN_OPEN);
}

static void
tokens_are_refused_and_forgotten_where_there_is_no_key(void **state)
{
    (void)state;
    t_begin();
    struct t_client *c = t_upgraded("/socketcluster/", 0);
    struct view payload;
    t_say(c, "{\"event\":\"#handshake\",\"data\":{\"authToken\":\"nonsense\"},\"cid\":1}");
    assert_int_equal(t_next_frame(c, &payload), WS_TEXT);
    assert_non_null(strstr((const char *)payload.p, "\"authError\":{\"message\":\"jwt malformed\""));
    t_hears(c, "{\"event\":\"#removeAuthToken\"}");
    t_say(c, "{\"event\":\"#authenticate\",\"data\":\"nonsense\",\"cid\":2}");
    t_hears_failed(c, 2, ERR_TOKEN_MALFORMED);
    t_hears(c, "{\"event\":\"#removeAuthToken\"}");
    t_say(c, "{\"event\":\"#authenticate\",\"data\":\"eyJhbGciOiJIUzI1NiJ9.e30.AAAA\",\"cid\":3}");
    t_hears_failed(c, 3, ERR_NO_TOKEN_KEY);
    t_hears(c, "{\"event\":\"#removeAuthToken\"}");
}

static void
an_echo_session_is_open_at_once_and_is_never_pinged(void **state)
{
    (void)state;
    t_begin();
    struct t_client *c = t_upgraded("/echo", 0);
    struct view payload;
    assert_int_equal(t_counter(connections_open), 1);
    assert_int_equal(t_counter(connections_unshaken), 0);
    t_pass(t.conf.sc_ping_timeout * 10);
    t_hears_nothing(c);
    t_say(c, "hello");
    t_hears(c, "hello");
    t_frame(c, WS_BINARY, "\0\xff", 2);
    assert_int_equal(t_next_frame(c, &payload), WS_BINARY);
    assert_int_equal(payload.n, 2);
}

/* -- answers -- */

static void
a_success_is_told_when_the_broker_said_so(void **state)
{
    (void)state;
    t_begin();
    struct t_client *c = t_open();
    t_say_publish(c, "a", "{\"x\": 1}");
    t_hears_nothing(c);
    assert_string_equal(t_last(T_PUBLISH, "a")->data, "{\"x\": 1}");
    t_say_subscribe(c, "a");
    t_hears_nothing(c);
    t_answer(0, ERR_NONE);
    t_hears_done(c, 2);
    t_hears_nothing(c);
    t_answer(0, ERR_NONE);
    t_hears_done(c, 3);
    t_say(c, "{\"event\":\"#publish\",\"data\":{\"channel\":\"a\"}}");
    T_UNTIL(t_count(T_PUBLISH) == 2);
    assert_false(t_last(T_PUBLISH, "a")->has_call); /* no cid, no answer */
    assert_false(t_last(T_PUBLISH, "a")->has_data);
    assert_int_equal(t_counter(publishes_in_total), 2);
}

/* What could be answered at once waits for what a broker owes. */
static void
answers_come_in_the_order_of_the_questions(void **state)
{
    (void)state;
    t_begin();
    struct t_client *c = t_open();
    t_subscribe(c, "held");
    t_subscribe(c, "leave");
    t_say_publish(c, "a", "1");        /* 4: the broker's */
    t_say_subscribe(c, "held");        /* 5: stands already */
    t_say_subscribe(c, "new");         /* 6: the broker's */
    t_say_unsubscribe(c, "leave");     /* 7: at once */
    t_say_unsubscribe(c, "nowhere");   /* 8: an error at once */
    t_say(c, "{\"event\":\"#handshake\",\"cid\":9}");
    t_hears_nothing(c);
    assert_non_null(subs_find(t.w, VIEW("leave"))); /* not before it can be said */
    t_answer(0, ERR_NONE);
    t_answer(0, ERR_NONE);
    t_hears_done(c, 4);
    t_hears_done(c, 5);
    t_hears_nothing(c);
    t_answer(0, ERR_NONE);
    t_hears_done(c, 6);
    t_hears_done(c, 7);
    t_hears_failed(c, 8, ERR_NOT_SUBSCRIBED);
    char id[21];
    hear_id(c, 9, id);
    assert_int_equal(t_waiting(0), 0);
}

static void
what_wants_no_answer_does_not_wait(void **state)
{
    (void)state;
    t_begin();
    struct t_client *c = t_open();
    t_subscribe(c, "a");
    t_say_publish(c, "b", "1");
    t_say(c, "{\"event\":\"#unsubscribe\",\"data\":\"a\"}");
    t_say(c, "{\"event\":\"#unsubscribe\",\"data\":\"nowhere\"}");
    t_say(c, "{\"event\":\"#publish\",\"data\":{\"channel\":\"b\",\"data\":2}}");
    T_UNTIL(t_count(T_PUBLISH) == 2);
    assert_null(subs_find(t.w, VIEW("a")));
    t_answer_all(0);
    t_hears_done(c, 3);
    t_hears_nothing(c);
}

static void
two_brokers_may_answer_in_any_order(void **state)
{
    (void)state;
    t.conf.broker_count = 2;
    t_begin();
    struct t_client *c = t_open();
    t_say_publish(c, "0/a", "1");
    t_say_publish(c, "1/a", "1");
    T_UNTIL(t.asked_n == 2);
    t_answer(1, ERR_NONE);
    t_hears_done(c, 3);
    t_say_unsubscribe(c, "nowhere"); /* behind broker 0's */
    t_hears_nothing(c);
    t_answer(0, ERR_NONE);
    t_hears_done(c, 2);
    t_hears_failed(c, 4, ERR_NOT_SUBSCRIBED);
}

#define PENDING_MAX 16384

static void
what_brokers_may_owe_one_connection_is_bounded(void **state)
{
    (void)state;
    t.conf.sc_max_batch = 1000000;
    t_begin();
    struct t_client *c = t_open(), *other = t_open();
    for (unsigned i = 0; i < PENDING_MAX + 10; i++)
        t_say_publish(c, "a", "1");
    T_UNTIL(t_waiting(0) == PENDING_MAX);
    t_turns(10);
    assert_int_equal(t_waiting(0), PENDING_MAX);
    assert_int_equal(t_conn(c)->pause, PAUSE_ANSWERS);
    t_say_publish(other, "b", "1");
    T_UNTIL(t_waiting(0) == PENDING_MAX + 1);
    t_answer_all(0);
    T_UNTIL(t_waiting(0) == 10);
    t_answer_all(0);
    for (unsigned i = 0; i < PENDING_MAX + 10; i++)
        t_hears_done(c, i + 2);
    t_hears_done(other, 2);
}

/* Without waiting for what a broker owes: who only ends its half of TCP is answered first. */
static void
leave(struct t_client *c)
{
    t_frame(c, WS_CLOSE, "\x03\xE8", 2);
    t_close(c);
    T_UNTIL(t_conn(c) == NULL);
}

/* A client whose publish and subscribe wait for answers, with call ids 2 and 3. */
static struct t_client *
one_that_waits(void)
{
    t_begin();
    struct t_client *a = t_open();
    t_say_publish(a, "x", "1");
    t_say_subscribe(a, "x");
    T_UNTIL(t_waiting(0) == 2);
    return a;
}

static void
who_ended_its_half_is_answered_first(void **state)
{
    (void)state;
    struct t_client *a = one_that_waits();
    t_shutdown(a);
    T_UNTIL(t_conn(a)->flags & CF_EOF);
    t_answer(0, ERR_NONE);
    t_hears_done(a, 2);
    t_turns(3);
    assert_int_equal(t_conn(a)->state, CONN_OPEN);
    t_answer(0, ERR_NONE);
    t_hears_done(a, 3);
    t_hears_end(a);
    T_UNTIL(t.w->conns.live == 0);
    assert_int_equal(t_closes(CLOSE_PEER_GONE), 1);
}

static void
an_answer_to_who_is_gone_is_nobodys(void **state)
{
    (void)state;
    struct t_client *a = one_that_waits();
    leave(a);
    struct t_client *b = t_open(); /* in the same slot */
    assert_int_equal(b->slot, a->slot);
    t_say_publish(b, "y", "1");
    T_UNTIL(t_waiting(0) == 3);
    t_answer(0, ERR_NONE);
    t_answer(0, ERR_NONE);
    t_hears_nothing(b);
    assert_int_equal(t_conn(b)->pending, 1);
    assert_null(subs_find(t.w, VIEW("x")));
    t_answer(0, ERR_NONE);
    t_hears_done(b, 2);
    assert_int_equal(t_count(T_UNSUBSCRIBE), 1);
}

/* Slots are used again: an answer for the former holder of a channel's slot says nothing of the present one. */
static void
an_answer_for_a_channel_that_is_gone_holds_no_other(void **state)
{
    (void)state;
    t_begin();
    struct t_client *a = t_open(), *b = t_open(), *c = t_open();
    t_say_subscribe(a, "old");
    T_UNTIL(t_waiting(0) == 1);
    leave(a);
    t_say_subscribe(b, "new");
    T_UNTIL(t_waiting(0) == 2);
    assert_int_equal(t_last(T_SUBSCRIBE, "new")->chan, t_last(T_SUBSCRIBE, "old")->chan);
    t_answer(0, ERR_NONE); /* old's */
    t_hears_nothing(b);
    t_say_subscribe(c, "new");
    t_hears_nothing(c);
    t_answer_all(0);
    t_hears_done(b, 2);
    t_hears_done(c, 2);
}

/* Completions compare 24 bits of a generation; answers, which may take longer, all of it. */
static void
an_answer_that_took_very_long_finds_no_stranger(void **state)
{
    (void)state;
    t_begin();
    struct t_client *a = t_open();
    t_say_publish(a, "x", "1");
    T_UNTIL(t_waiting(0) == 1);
    t_conn(a)->head.gen += 1u << 24; /* the slot was used sixteen million times since */
    t_answer(0, ERR_NONE);
    t_hears_nothing(a);
}

/* -- subscriptions -- */

static void
who_joins_an_open_question_hears_with_the_first(void **state)
{
    (void)state;
    t_begin();
    struct t_client *a = t_open(), *b = t_open(), *c = t_open();
    t_say_subscribe(a, "x");
    T_UNTIL(t_waiting(0) == 1);
    t_say_subscribe(b, "x");
    t_say_subscribe(b, "x"); /* twice the same */
    T_UNTIL(t_waiting(0) == 3);
    assert_int_equal(t_count(T_SUBSCRIBE), 1);
    t_hears_nothing(b);
    t_answer_all(0);
    t_hears_done(a, 2);
    t_hears_done(b, 2);
    t_hears_done(b, 3);
    t_say_subscribe(c, "x"); /* the broker holds it: at once */
    t_hears_done(c, 2);
    assert_int_equal(t.asked_n, 3);
    assert_int_equal(t_counter(subscriptions), 3);
    assert_int_equal(t_counter(channels), 1);
}

static void
a_subscribe_that_the_broker_refuses_leaves_nobody_subscribed(void **state)
{
    (void)state;
    t_begin();
    struct t_client *a = t_open(), *b = t_open(), *c = t_open();
    t_say_subscribe(a, "x");
    T_UNTIL(t_waiting(0) == 1);
    t_say_subscribe(b, "x");
    T_UNTIL(t_waiting(0) == 2);
    t_answer(0, ERR_BROKER_CHANNELS);
    t_hears_failed(a, 2, ERR_BROKER_CHANNELS);
    assert_null(subs_find(t.w, VIEW("x")));
    /* Somebody is quicker than the answer of who joined: that is another subscription. */
    t_say_subscribe(c, "x");
    T_UNTIL(t_waiting(0) == 2);
    t_answer(0, ERR_NONE);
    t_hears_failed(b, 2, ERR_BROKER_CHANNELS);
    t_answer(0, ERR_NONE);
    t_hears_done(c, 2);
    t_message("x", "1");
    t_hears_message(c, "x", "1");
    t_hears_nothing(a);
    t_hears_nothing(b);
    assert_int_equal(t_errors(ERR_BROKER_CHANNELS), 2);
    assert_int_equal(t_counter(subscriptions), 1);
}

/* Two asked for it while the broker was away, so each has a request of its own. */
static void
nobody_is_told_of_a_subscription_that_was_taken_from_all(void **state)
{
    (void)state;
    t_begin();
    struct t_client *a = t_open(), *b = t_open();
    t.down[0] = true;
    t_say_subscribe(a, "x");
    T_UNTIL(t_waiting(0) == 1);
    t_say_subscribe(b, "x");
    T_UNTIL(t_waiting(0) == 2);
    assert_int_equal(t_count(T_SUBSCRIBE), 2);
    t.down[0] = false;
    t_answer(0, ERR_BUS_UNCONFIRMED);
    t_hears_failed(a, 2, ERR_BUS_UNCONFIRMED);
    t_answer(0, ERR_NONE);
    t_hears_failed(b, 2, ERR_BROKER_CHANNELS);
    assert_int_equal(t_counter(subscriptions), 0);
}

static void
the_asker_may_leave_before_the_answer(void **state)
{
    (void)state;
    t_begin();
    struct t_client *a = t_open(), *b = t_open(), *c = t_open();
    t_say_subscribe(a, "x");
    T_UNTIL(t_waiting(0) == 1);
    t_say_subscribe(b, "x");
    T_UNTIL(t_waiting(0) == 2);
    leave(a);
    t_answer_all(0);
    t_hears_done(b, 2);
    t_say_subscribe(c, "x"); /* held, so at once */
    t_hears_done(c, 2);
    assert_int_equal(t_count(T_UNSUBSCRIBE), 0);
}

static void
more_channels_than_allowed_are_refused_to_the_one_concerned(void **state)
{
    (void)state;
    t.conf.sc_max_channels = 2;
    t_begin();
    struct t_client *a = t_open(), *b = t_open();
    struct view payload;
    char text[128], id[20];
    t_subscribe(a, "x");
    t_subscribe(a, "y");
    t_say_subscribe(a, "z");
    assert_int_equal(t_next_frame(a, &payload), WS_TEXT);
    snprintf(text, sizeof text, "Socket %.20s tried to exceed the channel subscription limit of 2",
        (const char *)sess_id(t_conn(a), id).p);
    assert_non_null(strstr((const char *)payload.p, text));
    assert_non_null(strstr((const char *)payload.p, "to the z channel"));
    assert_int_equal(t_errors(ERR_CHANNEL_LIMIT), 1);
    t_subscribe(b, "z");
    t_say_unsubscribe(a, "y");
    t_hears_done(a, a->cid);
    t_say_subscribe(a, "z");
    t_hears_done(a, a->cid);
}

static void
an_unsubscribe_of_what_is_not_held_fails(void **state)
{
    (void)state;
    t_begin();
    struct t_client *a = t_open(), *b = t_open();
    t_subscribe(a, "x");
    t_say_unsubscribe(b, "x");
    t_hears_failed(b, 2, ERR_NOT_SUBSCRIBED);
    t_say_unsubscribe(b, "y");
    t_hears_failed(b, 3, ERR_NOT_SUBSCRIBED);
    t_say_unsubscribe(a, "x");
    t_hears_done(a, 3);
    assert_int_equal(t_count(T_UNSUBSCRIBE), 1);
    t_say_unsubscribe(a, "x");
    t_hears_failed(a, 4, ERR_NOT_SUBSCRIBED);
}

/* -- refusals -- */

static void
what_links_refuse_is_said_with_its_reason(void **state)
{
    (void)state;
    t_begin();
    struct t_client *c = t_open();
    t.says[T_PUBLISH] = t.says[T_SUBSCRIBE] = LINK_REFUSED;
    t.why = ERR_TOO_BIG_FOR_LANE;
    t_say_publish(c, "x", "1");
    t_hears_failed(c, 2, ERR_TOO_BIG_FOR_LANE);
    assert_int_equal(t_counter(publishes_refused_total), 1);
    assert_int_equal(t_counter(publishes_in_total), 0);
    t.why = ERR_BROKER_AWAY;
    t_say_subscribe(c, "x");
    t_hears_failed(c, 3, ERR_BROKER_AWAY);
    assert_null(subs_find(t.w, VIEW("x")));
    assert_int_equal(t_count(T_UNSUBSCRIBE), 0); /* it was never asked for */
    t.says[T_PUBLISH] = LINK_OK;
    t_say_publish(c, "x", "1");
    t_hears_nothing(c);
    t.says[T_PUBLISH] = LINK_REFUSED;
    t_say_publish(c, "x", "2"); /* its refusal waits for its turn, and is counted once */
    t_hears_nothing(c);
    t_answer(0, ERR_NONE);
    t_hears_done(c, 4);
    t_hears_failed(c, 5, ERR_BROKER_AWAY);
    assert_int_equal(t_counter(publishes_refused_total), 2);
    t_say(c, "{\"event\":\"#publish\",\"data\":{\"channel\":\"x\",\"data\":1}}");
    T_UNTIL(t_counter(publishes_refused_total) == 3); /* counted though nobody wants to know */
    t_hears_nothing(c);
}

static void
publishing_may_be_switched_off(void **state)
{
    (void)state;
    t.conf.sc_client_publish = false;
    t_begin();
    struct t_client *c = t_open();
    t_say_publish(c, "x", "1");
    t_hears_failed(c, 2, ERR_PUBLISH_DISABLED);
    assert_int_equal(t.asked_n, 0);
}

static void
calls_that_nobody_serves_are_silent_or_an_error(void **state)
{
    (void)state;
    t_begin();
    struct t_client *c = t_open();
    t_say(c, "{\"event\":\"move\",\"data\":1,\"cid\":2}");
    t_say(c, "{\"event\":\"move\",\"data\":1}");
    t_hears_nothing(c);
    struct conf_error err;
    assert_true(conf_set(&t.conf, "sc.unserved", "error", "test", &err));
    t_say(c, "{\"event\":\"move\",\"data\":1,\"cid\":3}");
    t_hears_failed(c, 3, ERR_UNSERVED);
    assert_int_equal(t_verbs(VERB_CALL), 2);
    assert_int_equal(t_verbs(VERB_EVENT), 1);
}

static void
packets_that_do_not_parse_are_bounded_by_the_minute(void **state)
{
    (void)state;
    t.conf.sc_invalid_packets = 3;
    t.conf.sc_ping_timeout = 600000;
    t.conf.sc_ping_interval = 500000;
    t_begin();
    struct t_client *c = t_open();
    for (unsigned i = 0; i < 3; i++)
        t_say(c, "{");
    T_UNTIL(t_counter(invalid_packets_total) == 3);
    t_pass(61000);
    t_turn();
    for (unsigned i = 0; i < 3; i++)
        t_say(c, "no packet");
    T_UNTIL(t_counter(invalid_packets_total) == 6);
    t_pass(30000);
    t_hears_nothing(c);
    t_say(c, "[");
    t_hears_close(c, 1008);
    assert_int_equal(t_closes(CLOSE_INVALID_PACKETS), 1);
}

static void
nothing_behind_a_reason_to_close_takes_effect(void **state)
{
    (void)state;
    t_begin();
    struct t_client *c = t_open();
    t_say(c, "[{\"event\":\"#publish\",\"data\":{\"channel\":\"x\",\"data\":1}},{\"event\":\"#handshake\"},"
             "{\"event\":\"#publish\",\"data\":{\"channel\":\"x\",\"data\":2}}]");
    t_say_publish(c, "x", "3");
    t_hears_close(c, 4008);
    assert_int_equal(t_closes(CLOSE_NO_CALL_ID), 1);
    assert_int_equal(t_count(T_PUBLISH), 1);
    assert_string_equal(t.asked[0]->data, "1");
}

/* -- room in lanes, and shares of a turn -- */

static void
a_full_lane_stops_its_publishers_and_nobody_else(void **state)
{
    (void)state;
    t.conf.broker_count = 2;
    t_begin();
    struct t_client *a = t_open(), *b = t_open(), *quick = t_open();
    t.says[T_PUBLISH] = LINK_WAIT;
    t_say_publish(a, "0/x", "1");
    t_say_publish(b, "1/x", "1");
    T_UNTIL(t.not_taken[T_PUBLISH] == 2);
    assert_int_equal(t_counter(reads_paused_total), 2);
    t.says[T_PUBLISH] = LINK_OK;
    t_say_publish(a, "0/x", "2");
    t_say_unsubscribe(a, "nowhere");
    t_say_publish(quick, "0/x", "3");
    T_UNTIL(t.asked_n == 1);
    assert_string_equal(t.asked[0]->data, "3");
    t_turns(5);
    assert_int_equal(t.asked_n, 1);
    t_room(0); /* broker 0's alone */
    T_UNTIL(t.asked_n == 3);
    t_turns(5);
    assert_int_equal(t.asked_n, 3);
    assert_string_equal(t.asked[1]->data, "1");
    assert_string_equal(t.asked[2]->data, "2");
    t_room(1);
    T_UNTIL(t.asked_n == 4);
    t_answer_all(0);
    t_answer_all(1);
    t_hears_done(a, 2);
    t_hears_done(a, 3);
    t_hears_failed(a, 4, ERR_NOT_SUBSCRIBED);
    t_hears_done(b, 2);
    t_hears_done(quick, 2);
}

/* Room may be too little: who still finds none stands in line again. */
static void
who_waits_for_room_may_wait_again_or_leave(void **state)
{
    (void)state;
    t_begin();
    struct t_client *a = t_open(), *b = t_open(), *c = t_open();
    t.says[T_PUBLISH] = t.says[T_SUBSCRIBE] = LINK_WAIT;
    t_say_publish(a, "x", "1");
    t_say_subscribe(b, "x");
    t_say_publish(c, "x", "3");
    T_UNTIL(t.not_taken[T_PUBLISH] == 2 && t.not_taken[T_SUBSCRIBE] == 1);
    assert_null(subs_find(t.w, VIEW("x"))); /* not while it is not asked for */
    t_room(0);
    T_UNTIL(t.not_taken[T_PUBLISH] == 4 && t.not_taken[T_SUBSCRIBE] == 2);
    conn_close(t.w, t_conn(b), CLOSE_DRAIN); /* from the middle of the line */
    t_hears_close(b, 1001);
    t.says[T_PUBLISH] = t.says[T_SUBSCRIBE] = LINK_OK;
    t_room(0);
    T_UNTIL(t.asked_n == 2);
    t_answer_all(0);
    t_hears_done(a, 2);
    t_hears_done(c, 2);
    assert_int_equal(t_count(T_SUBSCRIBE), 0);
}

static void
a_long_batch_takes_its_turns(void **state)
{
    static char batch[64 * 1024];
    size_t n = 0;
    (void)state;
    t_begin();
    struct t_client *c = t_open(), *other = t_open();
    for (unsigned i = 0; i < 600; i++)
        n += (size_t)snprintf(batch + n, sizeof batch - n, "%c{\"event\":\"#publish\",\"data\":{\"channel\":\"x\",\"data\":%u}}",
            i ? ',' : '[', i);
    batch[n++] = ']';
    t_frame(c, WS_TEXT, batch, n);
    unsigned most = 0;
    T_UNTIL(({
        unsigned before = t.asked_n;
        t_turn();
        most = MAX(most, t.asked_n - before);
        t.asked_n >= 256;
    }));
    assert_in_range(most, 200, 257);
    t_say_publish(other, "y", "\"between\"");
    T_UNTIL(t.asked_n == 601);
    assert_string_equal(t.asked[600]->name, "x"); /* the other was not last */
    for (unsigned i = 0, k = 0; i < 601; i++)
        if (strcmp(t.asked[i]->name, "x") == 0)
            assert_int_equal(atoi(t.asked[i]->data), k++);
}

/* -- brokers that come and go -- */

static void
a_lost_broker_fails_publishes_and_is_asked_again_for_subscribes(void **state)
{
    (void)state;
    t_begin();
    struct t_client *a = t_open(), *b = t_open(), *c = t_open();
    t_subscribe(a, "held");
    t_say_publish(a, "x", "1");
    T_UNTIL(t_waiting(0) == 1);
    t_say_subscribe(b, "new");
    T_UNTIL(t_waiting(0) == 2);
    t_say_subscribe(c, "new");
    T_UNTIL(t_waiting(0) == 3);
    struct t_asked *first = t_last(T_SUBSCRIBE, "new");
    t.down[0] = true;
    t_lost(0);
    t_hears_failed(a, 3, ERR_BROKER_LOST);
    assert_int_equal(t_counter(publishes_refused_total), 1);
    t_hears_nothing(b);
    t_hears_nothing(c);
    assert_int_equal(t_waiting(0), 2);
    assert_ptr_not_equal(t_last(T_SUBSCRIBE, "new"), first);
    assert_int_equal(t_last(T_SUBSCRIBE, "new")->chan, first->chan);
    assert_int_equal(t_last(T_SUBSCRIBE, "new")->gen, first->gen);
    t.down[0] = false;
    t_answer_all(0);
    t_hears_done(b, 2);
    t_hears_done(c, 2);
}

static void
a_broker_that_comes_back_is_told_what_is_wanted_of_it(void **state)
{
    (void)state;
    t.conf.broker_count = 2;
    t_begin();
    struct t_client *a = t_open(), *b = t_open();
    t_subscribe(a, "0/x");
    t_subscribe(a, "1/x");
    t_subscribe(a, "1/gone");
    t_subscribe(a, "1/y");
    t_say_unsubscribe(a, "1/gone");
    t_hears_done(a, a->cid);
    t.down[1] = true;
    t_lost(1);
    t.down[1] = false;
    unsigned before = t.asked_n;
    t_attached(1);
    assert_int_equal(t.asked_n, before + 2);
    for (unsigned i = before; i < t.asked_n; i++) {
        assert_int_equal(t.asked[i]->kind, T_SUBSCRIBE);
        assert_int_equal(t.asked[i]->broker, 1);
        assert_false(t.asked[i]->has_call);
    }
    assert_string_equal(t.asked[before]->name, "1/x");
    assert_string_equal(t.asked[before + 1]->name, "1/y");
    /* Until it holds them nobody is told that it does; the other broker's stand as ever. */
    t_say_subscribe(b, "0/x");
    t_hears_done(b, 2);
    t_say_subscribe(b, "1/x");
    t_hears_nothing(b);
    assert_int_equal(t_last(T_AFTER, NULL)->broker, 1);
    t_restored(1);
    t_answer_all(1);
    t_hears_done(b, 3);
    t_say_subscribe(b, "1/y");
    t_hears_done(b, 4); /* held again: at once */
    t_message("1/x", "5");
    t_hears_message(a, "1/x", "5");
    t_hears_message(b, "1/x", "5");
}

static void
a_subscribe_while_the_broker_is_away_is_asked_of_its_successor(void **state)
{
    (void)state;
    t_begin();
    struct t_client *a = t_open(), *b = t_open();
    t_subscribe(a, "x");
    t.down[0] = true;
    t_lost(0);
    t_say_subscribe(b, "x"); /* the channel is known here, but held by nobody */
    T_UNTIL(t_waiting(0) == 1);
    assert_int_equal(t.asked[t.asked_n - 1]->kind, T_SUBSCRIBE);
    t_hears_nothing(b);
    t.down[0] = false;
    t_answer(0, ERR_BROKER_AWAY); /* the time to hold it was over */
    t_hears_failed(b, 2, ERR_BROKER_AWAY);
    assert_false(subs_has(t.w, t_conn(b), subs_find(t.w, VIEW("x"))));
    assert_true(subs_has(t.w, t_conn(a), subs_find(t.w, VIEW("x")))); /* who had it keeps it */
}

static void
who_missed_messages_is_told_by_the_end(void **state)
{
    (void)state;
    t.conf.broker_count = 2;
    t_begin();
    struct t_client *a = t_open(), *b = t_open(), *c = t_open(), *d = t_open();
    t_subscribe(a, "1/x");
    t_subscribe(a, "1/y");
    t_subscribe(b, "1/x");
    t_subscribe(b, "0/x");
    t_subscribe(c, "0/x");
    t_missed(1);
    t_lost(1);
    t_hears_close(a, 1013);
    t_hears_close(b, 1013);
    t_hears_nothing(c);
    t_hears_nothing(d);
    assert_int_equal(t_closes(CLOSE_MISSED), 2);
    assert_int_equal(t_counter(subscriptions), 1);
    t_message("0/x", "1");
    t_hears_message(c, "0/x", "1");
}

/* -- time -- */

static void
the_server_pings_and_gives_up_who_is_silent(void **state)
{
    (void)state;
    t_begin();
    struct t_client *silent = t_open(), *alive = t_open();
    uint64_t passed = 0, step = t.conf.sc_ping_interval + 32;
    unsigned pings = 0;
    for (; passed + step < t.conf.sc_ping_timeout; passed += step, pings++) {
        t_pass(step);
        t_hears(silent, "%s", "");
        t_hears(alive, "%s", "");
        t_say(alive, "%s", "");
        T_UNTIL(t_verbs(VERB_PONG) == pings + 1);
    }
    assert_in_range(pings, 2, 10);
    t_pass(step);
    t_hears_close(silent, 4001);
    assert_int_equal(t_closes(CLOSE_PONG_TIMEOUT), 1);
    t_hears(alive, "%s", "");
    t_hears_nothing(alive);
}

/* We do not read from it, so it cannot be heard. */
static void
who_is_not_read_from_is_not_called_silent(void **state)
{
    (void)state;
    t_begin();
    struct t_client *c = t_open();
    t.says[T_PUBLISH] = LINK_WAIT;
    t_say_publish(c, "x", "1");
    T_UNTIL(t.not_taken[T_PUBLISH] == 1);
    for (unsigned i = 0; i < 6; i++) {
        t_pass(t.conf.sc_ping_interval + 32);
        t_hears(c, "%s", "");
    }
    t.says[T_PUBLISH] = LINK_OK;
    t_room(0);
    T_UNTIL(t.asked_n == 1);
    t_pass(t.conf.sc_ping_interval + 32);
    t_hears(c, "%s", "");
    t_hears_nothing(c);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        T(whatever_comes_before_the_handshake_ends_the_connection),
        T(without_strictness_only_subscribes_wait_for_the_handshake),
        T(a_handshake_says_who_the_client_is_and_may_be_repeated),
        T(a_handshake_that_does_not_come_ends_with_4005),
        T(tokens_are_refused_and_forgotten_where_there_is_no_key),
        T(an_echo_session_is_open_at_once_and_is_never_pinged),
        T(a_success_is_told_when_the_broker_said_so),
        T(answers_come_in_the_order_of_the_questions),
        T(what_wants_no_answer_does_not_wait),
        T(two_brokers_may_answer_in_any_order),
        T(what_brokers_may_owe_one_connection_is_bounded),
        T(who_ended_its_half_is_answered_first),
        T(an_answer_to_who_is_gone_is_nobodys),
        T(an_answer_for_a_channel_that_is_gone_holds_no_other),
        T(an_answer_that_took_very_long_finds_no_stranger),
        T(who_joins_an_open_question_hears_with_the_first),
        T(a_subscribe_that_the_broker_refuses_leaves_nobody_subscribed),
        T(nobody_is_told_of_a_subscription_that_was_taken_from_all),
        T(the_asker_may_leave_before_the_answer),
        T(more_channels_than_allowed_are_refused_to_the_one_concerned),
        T(an_unsubscribe_of_what_is_not_held_fails),
        T(what_links_refuse_is_said_with_its_reason),
        T(publishing_may_be_switched_off),
        T(calls_that_nobody_serves_are_silent_or_an_error),
        T(packets_that_do_not_parse_are_bounded_by_the_minute),
        T(nothing_behind_a_reason_to_close_takes_effect),
        T(a_full_lane_stops_its_publishers_and_nobody_else),
        T(who_waits_for_room_may_wait_again_or_leave),
        T(a_long_batch_takes_its_turns),
        T(a_lost_broker_fails_publishes_and_is_asked_again_for_subscribes),
        T(a_broker_that_comes_back_is_told_what_is_wanted_of_it),
        T(a_subscribe_while_the_broker_is_away_is_asked_of_its_successor),
        T(who_missed_messages_is_told_by_the_end),
        T(the_server_pings_and_gives_up_who_is_silent),
        T(who_is_not_read_from_is_not_called_silent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
