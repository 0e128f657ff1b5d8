/* The protocols of the load generator: what is said, how deliveries are cut from streams and recognised,
 * what answers mean. Expected bytes are written out from the protocols' own documents. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "bench/frame.c"
#include "bench/speak.c"
#include "bench/speak_mqtt.c"
#include "bench/speak_nats.c"
#include "bench/speak_sc.c"
#include "bench/speak_sio.c"
#include "bench/speak_ws.c"

static const struct speak_template texts = {"S {channel}", "Y {channel}", "U {channel}", "N {channel}",
    "P {channel} {payload}", "[{payload}]", "queued"};

static struct speak_conf
speaking(const char *name)
{
    struct speak_conf conf = {.as = speak_find(name), .texts = texts};
    assert_non_null(conf.as);
    return conf;
}

/* What is said to subscribe to "c", and what it should be. */
static void
check_said(const char *as, bool subscribe, const char *want, size_t want_n)
{
    struct speak_conf conf = speaking(as);
    char text[SPEAK_MAX];
    size_t n = (subscribe ? conf.as->subscribe : conf.as->unsubscribe)(&conf, "c", text);
    assert_int_equal(n, want_n);
    assert_memory_equal(text, want, n);
}

#define SAID(as, subscribe, want) check_said(as, subscribe, want, sizeof(want) - 1)

static void
subscriptions_are_said_as_the_protocols_want(void **state)
{
    (void)state;
    SAID("socketcluster", true, "{\"event\":\"#subscribe\",\"data\":{\"channel\":\"c\"},\"cid\":2}");
    SAID("socketcluster", false, "{\"event\":\"#unsubscribe\",\"data\":\"c\",\"cid\":3}");
    SAID("min-bin", true, "\x81\xa1" "e\x93\xaa#subscribe\x81\xa7" "channel\xa1" "c\x02");
    SAID("min-bin", false, "\x81\xa1" "e\x93\xac#unsubscribe\xa1" "c\x03");
    SAID("ws", true, "S c");
    SAID("ws", false, "U c");
    SAID("socketio", true, "420[\"sub\",\"c\"]");
    SAID("socketio", false, "421[\"unsub\",\"c\"]");
    SAID("nats", true, "SUB c 1\r\nPING\r\n");
    SAID("nats", false, "UNSUB 1\r\nPING\r\n");
    SAID("mqtt", true, "\x82\x06\x00\x01\x00\x01" "c\x00");
    SAID("mqtt", false, "\xa2\x05\x00\x02\x00\x01" "c");
}

static void
check_heard(const char *as, enum speak_word want, const char *text, size_t n, const char *reply)
{
    struct speak_conf conf = speaking(as);
    struct speak_reply r = {0};
    assert_int_equal(conf.as->hear(&conf, (const uint8_t *)text, n, &r), want);
    assert_int_equal(r.any, reply != NULL);
    if (reply != NULL) {
        assert_int_equal(r.n, strlen(reply));
        assert_memory_equal(r.bytes, reply, r.n);
    }
}

#define HEARD(as, want, text, reply) check_heard(as, want, text, sizeof(text) - 1, reply)

static void
answers_are_understood(void **state)
{
    (void)state;
    HEARD("socketcluster", SPEAK_DONE, "{\"rid\":2}", NULL);
    HEARD("socketcluster", SPEAK_FAILED, "{\"rid\":2,\"error\":{}}", NULL);
    HEARD("socketcluster", SPEAK_PING, "", "");
    HEARD("socketcluster", SPEAK_OTHER, "{\"event\":\"x\"}", NULL);
    HEARD("min-bin", SPEAK_DONE, "\x81\xa1r\x93\x02\xc0\xc0", NULL);
    HEARD("min-bin", SPEAK_FAILED, "\x81\xa1r\x93\x02\x81\xa1x", NULL);
    HEARD("min-bin", SPEAK_OTHER, "\x81\xa1r\x93\x02", NULL);
    HEARD("min-bin", SPEAK_PING, "", "");
    HEARD("ws", SPEAK_DONE, "Y c", NULL);
    HEARD("ws", SPEAK_DONE, "N c", NULL);
    HEARD("ws", SPEAK_NOTED, "queued: 1", NULL);
    HEARD("ws", SPEAK_OTHER, "X", NULL);
    HEARD("socketio", SPEAK_NOTED, "0{\"sid\":1}", "40");
    HEARD("socketio", SPEAK_DONE, "40{\"sid\":1}", NULL);
    HEARD("socketio", SPEAK_DONE, "430[]", NULL);
    HEARD("socketio", SPEAK_FAILED, "44{}", NULL);
    HEARD("socketio", SPEAK_PING, "2", "3");
    HEARD("socketio", SPEAK_OTHER, "42[\"x\"]", NULL);
    HEARD("nats", SPEAK_NOTED, "INFO {}\r\n", NULL);
    HEARD("nats", SPEAK_PING, "PING\r\n", "PONG\r\n");
    HEARD("nats", SPEAK_DONE, "PONG\r\n", NULL);
    HEARD("nats", SPEAK_FAILED, "-ERR 'x'\r\n", NULL);
    HEARD("nats", SPEAK_OTHER, "MSG d 1 1\r\nx\r\n", NULL);
    HEARD("mqtt", SPEAK_DONE, "\x20\x02\x00\x00", NULL);
    HEARD("mqtt", SPEAK_FAILED, "\x20\x02\x00\x05", NULL);
    HEARD("mqtt", SPEAK_DONE, "\x90\x03\x00\x01\x00", NULL);
    HEARD("mqtt", SPEAK_FAILED, "\x90\x03\x00\x01\x80", NULL);
    HEARD("mqtt", SPEAK_DONE, "\xb0\x02\x00\x02", NULL);
    HEARD("mqtt", SPEAK_OTHER, "\x30\x04\x00\x01" "dx", NULL);
}

/* What the server makes of a publish with this payload. */
static void
check_packets(const char *as, const char *publish, const char *delivery, const char *tail)
{
    struct speak_conf conf = speaking(as);
    struct frame_pair f;
    uint64_t seq, due;
    char text[512];
    frame_pair_make(&f, &conf, "c", FRAME_TEXT, 34, FRAME_NOTHING);
    assert_memory_equal(f.out.text, publish, strlen(publish));
    assert_int_equal(f.out.seq_at, strlen(publish));
    assert_memory_equal(f.in.text, delivery, strlen(delivery));
    assert_int_equal(f.in.seq_at, strlen(delivery));
    assert_int_equal(f.in.n, strlen(delivery) + 34 + strlen(tail));
    assert_memory_equal(f.in.text + f.in.n - strlen(tail), tail, strlen(tail));
    assert_true(f.head == 0 && f.wire_n == f.out.n);
    frame_publish(&f, f.wire, 7, 9);
    assert_memory_equal(f.wire + f.out.seq_at, "0000000000000007-0000000000000009-", 34);
    int n = snprintf(text, sizeof text, "%s0000000000000007-0000000000000009-%s", delivery, tail);
    assert_true(frame_is_delivery(&f, (uint8_t *)text, (size_t)n, &seq, &due));
    assert_true(seq == 7 && due == 9);
    frame_pair_free(&f);
}

static void
publishes_become_deliveries(void **state)
{
    (void)state;
    check_packets("min-bin", "\x81\xa1p\x92\xa1" "c\xd9\x22", "\x81\xa1p\x92\xa1" "c\xd9\x22", "");
    check_packets("ws", "P c ", "[", "]");
    check_packets("socketio", "42[\"pub\",\"c\",\"", "42[\"msg\",\"c\",\"", "\"]");
    check_packets("nats", "PUB c 34\r\n", "MSG c 1 34\r\n", "\r\n");
}

/* The topic's length has a zero byte, so no string does. */
static void
mqtt_publications_are_passed_on_as_they_come(void **state)
{
    (void)state;
    struct speak_conf conf = speaking("mqtt");
    struct frame_pair f;
    frame_pair_make(&f, &conf, "c", FRAME_TEXT, 200, FRAME_NOTHING);
    assert_memory_equal(f.in.text, "\x30\xcb\x01\x00\x01" "c", 6);
    assert_int_equal(f.in.n, 206);
    assert_memory_equal(f.in.text, f.out.text, 206);
    assert_int_equal(mqtt_cut(f.in.text, f.in.n), 206);
    frame_pair_free(&f);
}

/* Every beginning of a message is not enough, or tells its length. */
static void
check_cut(const char *as, const char *text, size_t n)
{
    const struct speak *s = speak_find(as);
    bool known = false;
    for (size_t i = 1; i <= n; i++) {
        size_t len = s->cut((const uint8_t *)text, i);
        assert_true(len == n || (len == 0 && !known));
        known = len == n;
    }
    assert_true(known);
}

static void
streams_are_cut_wherever_they_break(void **state)
{
    (void)state;
    check_cut("nats", "PING\r\n", 6);
    check_cut("nats", "MSG c 1 5\r\nhello\r\n", 18);
    check_cut("nats", "MSG c 1 0\r\n\r\n", 13);
    check_cut("nats", "INFO {\"a\":1}\r\n", 14);
    check_cut("mqtt", "\x20\x02\x00\x00", 4);
    check_cut("mqtt", "\xd0\x00", 2);
}

static void
streams_that_lie_are_refused(void **state)
{
    static uint8_t endless[17000];
    (void)state;
    assert_true(nats_cut((const uint8_t *)"MSG c 1 99999999999999999999\r\n", 30) == SIZE_MAX);
    assert_true(nats_cut((const uint8_t *)"MSG \n", 5) == SIZE_MAX);
    assert_true(nats_cut((const uint8_t *)"MSG c 1 x\r\n", 11) == SIZE_MAX);
    assert_true(nats_cut(endless, sizeof endless) == SIZE_MAX);
    assert_true(mqtt_cut((const uint8_t *)"\x30\xff\xff\xff\xff", 5) == SIZE_MAX);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(subscriptions_are_said_as_the_protocols_want),
        cmocka_unit_test(answers_are_understood),
        cmocka_unit_test(publishes_become_deliveries),
        cmocka_unit_test(mqtt_publications_are_passed_on_as_they_come),
        cmocka_unit_test(streams_are_cut_wherever_they_break),
        cmocka_unit_test(streams_that_lie_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
