/* What the load generator's verdicts rest on: the timetable, the check for lost, doubled and
 * reordered messages, and the bytes it sends and recognises. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "bench/frame.c"
#include "bench/sched.h"
#include "bench/seq.h"
#include "bench/speak.c"
#include "bench/speak_mqtt.c"
#include "bench/speak_nats.c"
#include "bench/speak_sc.c"
#include "bench/speak_sio.c"
#include "bench/speak_ws.c"
#include "bench/zipf.c"

static void
timetable_does_not_drift(void **state)
{
    (void)state;
    struct sched s = sched_make(1000, 100);
    assert_int_equal(sched_at(&s, 0), 1000);
    assert_int_equal(sched_at(&s, 1), 10001000);
    assert_int_equal(sched_at(&s, 360000), 1000 + 3600ull * 1000000000);
    s = sched_make(0, 3); /* a third of a second has no exact nanoseconds */
    for (uint64_t i = 0; i < 3000000; i += 3)
        assert_int_equal(sched_at(&s, i), i / 3 * 1000000000);
    s = sched_make(7, 2500000.0);
    assert_int_equal(sched_at(&s, 2500000ull * 86400), 7 + 86400ull * 1000000000);
}

static void
late_turns_catch_up_with_their_due_times(void **state)
{
    (void)state;
    struct sched s = sched_make(0, 1000);
    uint64_t due = 99, n = 0;
    assert_true(sched_take(&s, 0, &due));
    assert_int_equal(due, 0);
    assert_false(sched_take(&s, 999999, &due));
    /* The generator was away for half a second: 500 messages, each with the time it was due. */
    while (sched_take(&s, 500000000, &due))
        assert_int_equal(due, ++n * 1000000);
    assert_int_equal(n, 500);
}

static void
poisson_keeps_its_rate_and_its_spread(void **state)
{
    (void)state;
    enum { N = 200000 };
    struct sched s = sched_make_poisson(5, 1000);
    uint64_t due = 0, last = 5;
    double sum = 0, squares = 0;
    for (int i = 0; i < N; i++) {
        assert_true(sched_take(&s, UINT64_MAX, &due));
        assert_true(due >= last);
        double gap = (double)(due - last) / 1e6; /* in units of the mean */
        sum += gap;
        squares += gap * gap;
        last = due;
    }
    /* Exponential: mean 1, mean square 2. */
    assert_true(fabs(sum / N - 1) < 0.01);
    assert_true(fabs(squares / N - 2) < 0.05);
    assert_false(sched_take(&s, due, &due));
}

static void
bursts_keep_the_mean_rate(void **state)
{
    (void)state;
    struct sched s = sched_make_burst(5, 1000, 10);
    uint64_t at, n = 0;
    while (sched_take(&s, 5 + 999999999, &at)) {
        assert_true(at == 5 + n / 10 * 10000000);
        n++;
    }
    assert_int_equal(n, 1000);
}

static void
ramp_grows_evenly(void **state)
{
    (void)state;
    struct sched s = sched_make_ramp(0, 100, 1100, 10);
    uint64_t due = 0, last = 0, in_second[13] = {0};
    while (last < 13000000000ull) {
        assert_true(sched_take(&s, UINT64_MAX, &due));
        assert_true(due >= last);
        last = due;
        if (due < 13000000000ull)
            in_second[due / 1000000000]++;
    }
    for (int k = 0; k < 10; k++)
        assert_true(llabs((long long)in_second[k] - (150 + 100 * k)) <= 1);
    for (int k = 10; k < 13; k++)
        assert_true(llabs((long long)in_second[k] - 1100) <= 1);
    s = sched_make_ramp(0, 1000, 10, 1); /* and falls */
    for (last = 0; last < 1000000000ull; last = due) {
        assert_true(sched_take(&s, UINT64_MAX, &due));
        assert_true(due >= last);
    }
}

static void
zipf_chooses_by_rank(void **state)
{
    (void)state;
    struct zipf z;
    zipf_init(&z, 4, 1);
    /* 1, 1/2, 1/3, 1/4 of 25/12 */
    for (uint32_t k = 0; k < 4; k++)
        assert_true(fabs(zipf_chance(&z, k) - 12.0 / 25 / (k + 1)) < 1e-12);
    assert_int_equal(zipf_pick(&z, 1e-9), 0);
    assert_int_equal(zipf_pick(&z, 0.48), 0);
    assert_int_equal(zipf_pick(&z, 0.4801), 1);
    assert_int_equal(zipf_pick(&z, 0.72), 1);
    assert_int_equal(zipf_pick(&z, 1), 3);
    zipf_fini(&z);
    zipf_init(&z, 1000, 0);
    for (uint32_t k = 0; k < 1000; k++)
        assert_int_equal(zipf_pick(&z, (k + 0.5) / 1000), k);
    zipf_fini(&z);
    zipf_init(&z, 1, 2);
    assert_int_equal(zipf_pick(&z, 1), 0);
    zipf_fini(&z);
}

static void
sequence_in_order(void **state)
{
    (void)state;
    struct seqwin w = {0};
    for (uint64_t i = 0; i < 1000; i++)
        assert_int_equal(seq_put(&w, i), SEQ_NEXT);
    assert_int_equal(w.got, 1000);
}

static void
sequence_tells_loss_doubles_and_order_apart(void **state)
{
    (void)state;
    struct seqwin w = {0};
    assert_int_equal(seq_put(&w, 0), SEQ_NEXT);
    assert_int_equal(seq_put(&w, 3), SEQ_GAP);
    assert_int_equal(seq_put(&w, 3), SEQ_TWICE);
    assert_int_equal(seq_put(&w, 0), SEQ_TWICE);
    assert_int_equal(seq_put(&w, 1), SEQ_LATE);
    assert_int_equal(seq_put(&w, 1), SEQ_TWICE);
    assert_int_equal(seq_put(&w, 4), SEQ_NEXT);
    assert_int_equal(w.got, 4); /* 0 1 3 4: 2 is lost */
    assert_int_equal(seq_put(&w, 104), SEQ_GAP);
    assert_int_equal(seq_put(&w, 41), SEQ_LATE);
    assert_int_equal(seq_put(&w, 40), SEQ_STALE);
    assert_int_equal(seq_put(&w, 104), SEQ_TWICE);
    assert_int_equal(w.got, 6);
}

/* Unmasks a client's frame into `text`, checks its header, returns the payload's length. */
static size_t
unmask(const uint8_t *p, size_t n, char *text)
{
    assert_int_equal(p[0], 0x81);
    assert_true(p[1] & 0x80);
    size_t len = p[1] & 127, at = 2;
    if (len == 126) {
        len = load_be16(p + 2);
        at = 4;
    }
    assert_int_equal(at + 4 + len, n);
    assert_int_not_equal(p[at] | p[at + 1] | p[at + 2] | p[at + 3], 0);
    for (size_t i = 0; i < len; i++)
        text[i] = (char)(p[at + 4 + i] ^ p[at + (i & 3)]);
    text[len] = 0;
    return len;
}

static const struct speak_template texts = {"sub {channel}", "ok {channel}", "unsub {channel}", "ok {channel}",
    "pub {channel} {payload}", "msg {channel} {payload}", "queued"};

static struct speak_conf
speaking(const struct speak *as)
{
    return (struct speak_conf){.as = as, .texts = texts};
}

static void
check_publish(enum frame_kind kind, uint32_t payload)
{
    static uint8_t out[70000];
    static char text[70000], want[70000], stamped[70000];
    struct frame_pair f;
    uint64_t seq = 0x123456789abcdef0ull, ns = 0xfedcba9876543210ull, seq2, ns2;
    struct speak_conf sc = speaking(&speak_sc);
    frame_pair_make(&f, &sc, "bench-7", kind, payload, FRAME_CLIENT);
    frame_publish(&f, out, seq, ns);
    size_t len = unmask(out, f.wire_n, text);
    snprintf(want, sizeof want, "{\"event\":\"#publish\",\"data\":{\"channel\":\"bench-7\",\"data\":%s",
        kind == FRAME_TEXT ? "\"123456789abcdef0-fedcba9876543210-"
                           : "{\"seq\":\"123456789abcdef0\",\"due\":\"fedcba9876543210\",\"rows\":[0");
    assert_memory_equal(text, want, strlen(want));
    assert_string_equal(text + len - 2, "}}");
    const char *data = strstr(text, "\"data\":") + 8;
    data = strstr(data, "\"data\":") + 7;
    assert_int_equal(strlen(data) - 2 - (kind == FRAME_TEXT ? 2 : 0), payload);
    /* What a server makes of it is what counts as a delivery. */
    assert_int_equal(f.out.n, len);
    assert_int_equal(f.in.n, len);
    assert_true(frame_is_delivery(&f, (uint8_t *)text, len, &seq2, &ns2));
    assert_true(seq2 == seq && ns2 == ns);
    frame_stamp(&f, (uint8_t *)stamped, seq, ns);
    assert_memory_equal(stamped, text, len);
    assert_false(frame_is_delivery(&f, (uint8_t *)text, len - 1, &seq2, &ns2));
    text[len - 1] ^= 1;
    assert_false(frame_is_delivery(&f, (uint8_t *)text, len, &seq2, &ns2));
    text[len - 1] ^= 1;
    text[f.in.seq_at + 16] ^= 1;
    assert_false(frame_is_delivery(&f, (uint8_t *)text, len, &seq2, &ns2));
    frame_pair_free(&f);
}

static void
publish_and_delivery_have_the_same_text(void **state)
{
    (void)state;
    for (uint32_t payload = FRAME_MIN_PAYLOAD; payload < 300; payload++)
        check_publish(FRAME_TEXT, payload);
    for (uint32_t payload = FRAME_MIN_JSON; payload < 700; payload++)
        check_publish(FRAME_JSON, payload);
    check_publish(FRAME_TEXT, 4096);
    check_publish(FRAME_JSON, 4096);
    check_publish(FRAME_TEXT, FRAME_MAX_PAYLOAD);
    check_publish(FRAME_JSON, FRAME_MAX_PAYLOAD);
}

/* Brackets and quotes close where they should. */
static void
json_payloads_are_json(void **state)
{
    (void)state;
    for (uint32_t payload = FRAME_MIN_JSON; payload < 1200; payload++) {
        struct frame_pair f;
        int depth = 0;
        bool quoted = false;
        struct speak_conf sc = speaking(&speak_sc);
        frame_pair_make(&f, &sc, "c", FRAME_JSON, payload, FRAME_SERVER);
        assert_int_equal(f.wire_n - f.in.n, f.in.n < 126 ? 2 : 4);
        const char *p = (const char *)f.wire + f.head;
        for (uint32_t i = 0; i < f.in.n; i++) {
            assert_true(p[i] >= ' ' && p[i] != '\\');
            quoted ^= p[i] == '"';
            if (!quoted)
                depth += (p[i] == '{' || p[i] == '[') - (p[i] == '}' || p[i] == ']');
            assert_true(depth > 0 || i == f.in.n - 1);
        }
        assert_true(!quoted && depth == 0);
        frame_pair_free(&f);
    }
}

static void
hex_goes_there_and_back(void **state)
{
    (void)state;
    uint8_t text[16];
    uint64_t v = 1;
    for (int i = 0; i < 10000; i++, v = v * 6364136223846793005ull + 1442695040888963407ull) {
        frame_hex(text, v);
        assert_true(frame_unhex(text) == v);
    }
    frame_hex(text, 0x00c0ffee12345678);
    assert_memory_equal(text, "00c0ffee12345678", 16);
}

static void
headers_of_all_lengths(void **state)
{
    (void)state;
    static const uint8_t small[] = {0x81, 125}, mid[] = {0x81, 126, 1, 2},
                         large[] = {0x82, 127, 0, 0, 0, 0, 0, 1, 0, 2}, masked[] = {0x81, 0x80};
    uint64_t n = 0;
    uint8_t op = 0;
    assert_int_equal(frame_head(small, 1, &n, &op), 0);
    assert_int_equal(frame_head(small, 2, &n, &op), 2);
    assert_int_equal(n, 125);
    assert_int_equal(frame_head(mid, 3, &n, &op), 0);
    assert_int_equal(frame_head(mid, 4, &n, &op), 4);
    assert_int_equal(n, 258);
    assert_int_equal(frame_head(large, 9, &n, &op), 0);
    assert_int_equal(frame_head(large, 10, &n, &op), 10);
    assert_int_equal(n, 65538);
    assert_int_equal(op, 2);
    static const uint8_t packed[] = {0xc1, 3};
    assert_int_equal(frame_head(packed, 2, &n, &op), 2);
    assert_int_equal(op, 1 | FRAME_PACKED);
    assert_int_equal(frame_head(masked, 2, &n, &op), -1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timetable_does_not_drift),
        cmocka_unit_test(late_turns_catch_up_with_their_due_times),
        cmocka_unit_test(poisson_keeps_its_rate_and_its_spread),
        cmocka_unit_test(bursts_keep_the_mean_rate),
        cmocka_unit_test(ramp_grows_evenly),
        cmocka_unit_test(zipf_chooses_by_rank),
        cmocka_unit_test(sequence_in_order),
        cmocka_unit_test(sequence_tells_loss_doubles_and_order_apart),
        cmocka_unit_test(publish_and_delivery_have_the_same_text),
        cmocka_unit_test(json_payloads_are_json),
        cmocka_unit_test(hex_goes_there_and_back),
        cmocka_unit_test(headers_of_all_lengths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
