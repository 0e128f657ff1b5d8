/* worker/pmd, and what worker/xp_http, xp_ws and outq make of it: what is agreed, compressed messages whole and in
 * pieces, every way in which they end a connection, echoes, and that nothing is left of anything. */
#include "tests/unit/t_worker.h"

#include "proto/deflate.h"
#include "worker/pmd.h"

#define OFFER "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
#define AGREED "\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n"
#define PACKED (WS_RSV1)

static uint64_t stream_bytes; /* of the streams of this file */

/* As a client compresses: any message, also one that does not become smaller. The result lives until the next. */
static struct view
packed(struct view plain)
{
    static uint8_t *out;
    struct deflate_writer *w = deflate_writer_new(15, 6, 8, &stream_bytes);
    free(out);
    out = malloc(plain.n + plain.n / 8 + 100);
    assert_true(w != NULL && out != NULL);
    size_t n = deflate_writer_put(w, plain, false, out);
    deflate_writer_free(w);
    if (n == 0) { /* one stored block, and the head of the next (RFC 1951 section 3.2.4) */
        assert_true(plain.n <= UINT16_MAX);
        uint8_t head[5] = {0, (uint8_t)plain.n, (uint8_t)(plain.n >> 8), (uint8_t)~plain.n, (uint8_t)(~plain.n >> 8)};
        memcpy(out, head, 5);
        if (plain.n)
            memcpy(out + 5, plain.p, plain.n);
        out[5 + plain.n] = 0;
        n = plain.n + 6;
    }
    return view_of(out, n);
}

static struct t_client *
agreed(const char *path)
{
    struct t_client *c = t_upgraded_with(path, 0, OFFER);
    assert_non_null(strstr(t.answer, AGREED));
    return c;
}

static void
say_packed(struct t_client *c, struct view plain)
{
    struct view v = packed(plain);
    t_frame(c, WS_TEXT | PACKED, v.p, v.n);
}

/* The same in frames of `piece` bytes. */
static void
say_packed_in(struct t_client *c, unsigned opcode, struct view v, size_t piece)
{
    for (unsigned op = opcode | PACKED; v.n > 0; op = WS_CONTINUATION) {
        struct view now = view_head(v, piece);
        v = view_from(v, piece);
        t_frame(c, op | (v.n > 0 ? T_MORE : 0), now.p, now.n);
    }
}

/* An echo, inflated if it is compressed. */
static void
hears_echo(struct t_client *c, struct view plain, bool compressed)
{
    struct view payload;
    unsigned op = t_next_frame(c, &payload);
    assert_int_equal(op, compressed ? WS_TEXT | PACKED : WS_TEXT);
    if (!compressed) {
        assert_true(view_eq(payload, plain));
        return;
    }
    assert_true(payload.n < plain.n);
    struct deflate_reader *r = deflate_reader_new(15, &stream_bytes);
    struct buf out = buf_make(plain.n);
    deflate_reader_begin(r, false);
    assert_int_equal(deflate_reader_put(r, payload, plain.n, &out), DEFLATE_OK);
    assert_int_equal(deflate_reader_end(r, plain.n, &out), DEFLATE_OK);
    assert_true(view_eq(buf_view(&out), plain));
    buf_free(&out);
    deflate_reader_free(r);
}

/* Text with something to compress in it; made anew by each call. */
static struct view
text_of(size_t n)
{
    static uint8_t text[1 << 20];
    assert_true(n <= sizeof text);
    for (size_t i = 0; i < n; i++)
        text[i] = (uint8_t)("the quick brown fox jumps over 13 lazy dogs "[i % 44] + (i % 1000 == 0));
    return view_of(text, n);
}

/* -- agreeing -- */

static void
the_answer_is_what_was_agreed(UNUSED void **state)
{
    t_begin();
    agreed("/echo");
    assert_int_equal(t_counter(deflate_connections), 1);
    t_upgraded_with("/socketcluster/", 0, "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=10\r\n");
    assert_non_null(strstr(t.answer, "; server_max_window_bits=10\r\n"));
    t_upgraded_with("/echo", 0, "");
    assert_null(strstr(t.answer, "Extensions"));
    assert_int_equal(t_counter(deflate_declined_total), 0);
    assert_int_equal(t_counter(deflate_connections), 2);
}

static void
offers_may_stand_in_several_fields(UNUSED void **state)
{
    t_begin();
    t_upgraded_with("/echo", 0, "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=8\r\n"
                                "Sec-WebSocket-Extensions: foo, permessage-deflate; server_max_window_bits=9\r\n");
    assert_non_null(strstr(t.answer, "; server_max_window_bits=9\r\n"));
    t_upgraded_with("/echo", 0, "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=8\r\n"
                                "Sec-WebSocket-Extensions: foo\r\n");
    assert_null(strstr(t.answer, "Extensions"));
    assert_int_equal(t_counter(deflate_declined_total), 1);
    assert_int_equal(t_counter(deflate_connections), 1);
}

static void
settings_decide(UNUSED void **state)
{
    t.conf.deflate_window_bits = 11;
    t_begin();
    t_upgraded_with("/echo", 0, OFFER);
    assert_non_null(strstr(t.answer, "; server_max_window_bits=11\r\n"));
    t.conf.deflate_enabled = false;
    t_upgraded_with("/echo", 0, OFFER);
    assert_null(strstr(t.answer, "Extensions"));
    assert_int_equal(t_counter(deflate_connections), 1);
}

/* -- in -- */

static void
compressed_requests_are_understood_and_answers_are_plain(UNUSED void **state)
{
    t_begin();
    struct t_client *c = agreed("/socketcluster/");
    struct view payload;
    say_packed(c, VIEW("{\"event\":\"#handshake\",\"data\":{},\"cid\":1}"));
    assert_int_equal(t_next_frame(c, &payload), WS_TEXT);
    say_packed(c, VIEW("{\"event\":\"#subscribe\",\"data\":{\"channel\":\"a\"},\"cid\":2}"));
    T_UNTIL(t_count(T_SUBSCRIBE) == 1);
    t_answer_all(0);
    t_hears_done(c, 2);
    t_say(c, "{\"event\":\"#publish\",\"data\":{\"channel\":\"a\",\"data\":1}}"); /* plain ones are welcome, too */
    T_UNTIL(t_count(T_PUBLISH) == 1);
    assert_int_equal(t_counter(deflate_in_messages_total), 2);
    assert_null(t_conn(c)->in);
}

static void
messages_come_back_however_they_were_cut(UNUSED void **state)
{
    static const size_t sizes[] = {0, 1, 500, 1023, 1024, 5000, 300000}, pieces[] = {7, 1000, 70000, 1 << 20};
    t_begin();
    struct t_client *c = agreed("/echo");
    for (size_t s = 0; s < ARRAY_LEN(sizes); s++)
        for (size_t p = 0; p < ARRAY_LEN(pieces); p++) {
            struct view v = text_of(sizes[s]);
            say_packed_in(c, WS_TEXT, packed(v), pieces[p]);
            hears_echo(c, v, v.n >= 1024);
        }
    assert_true(t_counter(deflate_out_packed_bytes_total) < t_counter(deflate_out_plain_bytes_total) / 5);
    assert_true(t_counter(deflate_in_packed_bytes_total) < t_counter(deflate_in_plain_bytes_total));
    assert_null(t_conn(c)->in);
}

static void
the_threshold_is_a_setting(UNUSED void **state)
{
    t.conf.deflate_threshold = 100;
    t_begin();
    struct t_client *c = agreed("/echo");
    struct view v = text_of(99);
    t_frame(c, WS_TEXT, v.p, v.n);
    hears_echo(c, v, false);
    v = text_of(100);
    t_frame(c, WS_TEXT, v.p, v.n);
    hears_echo(c, v, true);
}

/* Bytes of the streams after an echo, and of what it was sent as. */
static uint64_t
echo_costs(uint64_t *sent)
{
    t_begin();
    struct t_client *c = agreed("/echo");
    struct view v = text_of(40000);
    t_frame(c, WS_TEXT, v.p, v.n);
    hears_echo(c, v, true);
    *sent = t_counter(deflate_out_packed_bytes_total);
    return pmd_bytes(t.w);
}

static void
level_1_is_the_default(UNUSED void **state)
{
    uint64_t sent;
    assert_in_range(echo_costs(&sent), 256 << 10, 272 << 10);
    assert_in_range(sent, 400, 700);
}

static void
level_and_mem_level_are_settings(UNUSED void **state)
{
    uint64_t sent;
    t.conf.deflate_level = 9;
    t.conf.deflate_mem_level = 5; /* 512 << 8 less 512 << 5 */
    assert_in_range(echo_costs(&sent), 144 << 10, 160 << 10);
    assert_in_range(sent, 100, 399);
}

/* Noise, so that what is announced passes 64 KiB and a stream of its own is made. */
static struct view
noise_of(size_t n)
{
    static uint8_t noise[65000];
    uint64_t x = 88172645463325252ull;
    assert_true(n <= sizeof noise);
    for (size_t i = 0; i < n; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        noise[i] = (uint8_t)(x >> 40);
    }
    return view_of(noise, n);
}

/* Five blocks of stored noise. */
static size_t
large_packed(uint8_t *out)
{
    size_t n = 0;
    for (int i = 0; i < 5; i++) {
        struct view block = packed(noise_of(65000));
        memcpy(out + n, block.p, block.n - 1);
        n += block.n - 1;
    }
    out[n] = 0;
    return n + 1;
}

static void
large_messages_get_a_stream_and_give_it_back(UNUSED void **state)
{
    static uint8_t large[5 * 65010];
    t_begin();
    struct t_client *c = agreed("/echo"), *gone = agreed("/echo");
    struct view small = text_of(2000), payload;
    say_packed(c, small);
    hears_echo(c, small, true);
    uint64_t before = pmd_bytes(t.w);
    size_t n = large_packed(large);
    t_frame(gone, WS_BINARY | PACKED | T_MORE, large, 100000);
    T_UNTIL(t_conn(gone)->in != NULL && t_conn(gone)->in->inflating != NULL);
    assert_true(pmd_bytes(t.w) > before);
    assert_true(t_conn(gone)->in->msg.n > 64000); /* inflated as it came */
    say_packed(c, small); /* others are not in its way */
    hears_echo(c, small, true);
    t_close(gone);
    T_UNTIL(pmd_bytes(t.w) == before);
    t_frame(c, WS_BINARY | PACKED | T_MORE, large, 200001);
    t_frame(c, WS_CONTINUATION, large + 200001, n - 200001);
    assert_int_equal(t_next_frame(c, &payload), WS_BINARY);
    assert_true(payload.n == 5 * 65000 && memcmp(payload.p + 4 * 65000, noise_of(65000).p, 65000) == 0);
    T_UNTIL(pmd_bytes(t.w) == before);
    assert_null(t_conn(c)->in);
}

/* The verbs of a message go on where they stopped, though the stream has served others meanwhile. */
static void
a_message_that_had_to_wait_goes_on(UNUSED void **state)
{
    t_begin();
    struct t_client *a = agreed("/socketcluster/"), *b = agreed("/socketcluster/");
    t_shake(a);
    t_shake(b);
    t.says[T_PUBLISH] = LINK_WAIT;
    struct view batch = VIEW("[{\"event\":\"#publish\",\"data\":{\"channel\":\"x\",\"data\":1}},"
                             "{\"event\":\"#publish\",\"data\":{\"channel\":\"x\",\"data\":2}}]");
    say_packed_in(a, WS_TEXT, packed(batch), 10);
    T_UNTIL(t.not_taken[T_PUBLISH] == 1);
    say_packed(b, VIEW("{\"event\":\"other\",\"data\":\"................................................................\"}"));
    t_turns(3);
    t.says[T_PUBLISH] = LINK_OK;
    t_room(0);
    T_UNTIL(t_count(T_PUBLISH) == 2);
    assert_string_equal(t_last(T_PUBLISH, "x")->data, "2");
    T_UNTIL(t_conn(a)->in == NULL);
}

/* -- what ends a connection -- */

static void
expect_close(const char *path, unsigned opcode, const void *p, size_t n, unsigned code, enum close_reason reason)
{
    struct t_client *c = agreed(path);
    uint64_t before = t_closes(reason);
    t_frame(c, opcode, p, n);
    t_hears_close(c, code);
    assert_int_equal(t_closes(reason), before + 1);
}

static void
rsv1_where_it_may_not_be(UNUSED void **state)
{
    t_begin();
    struct t_client *plain = t_upgraded("/echo", 0), *c = agreed("/echo");
    t_frame(plain, WS_TEXT | PACKED, "\x00", 1);
    t_hears_close(plain, 1002);
    t_frame(c, WS_TEXT | PACKED | T_MORE, "\x00", 1);
    t_frame(c, WS_CONTINUATION | PACKED, "\x00", 1);
    t_hears_close(c, 1002);
    expect_close("/echo", WS_PING | PACKED, "x", 1, 1002, CLOSE_PROTOCOL);
    expect_close("/echo", WS_CLOSE | PACKED, "\x03\xe8", 2, 1002, CLOSE_PROTOCOL);
    expect_close("/echo", WS_CONTINUATION | PACKED, "\x00", 1, 1002, CLOSE_PROTOCOL);
}

static void
broken_streams_end_with_1007(UNUSED void **state)
{
    t_begin();
    expect_close("/echo", WS_TEXT | PACKED, "Hello", 5, 1007, CLOSE_BAD_DEFLATE);
    expect_close("/echo", WS_TEXT | PACKED, "\xf2\x48\xcd\xc9", 4, 1007, CLOSE_BAD_DEFLATE);
    expect_close("/echo", WS_BINARY | PACKED, "\xf2\x00\x11\x00\x00", 5, 1007, CLOSE_BAD_DEFLATE);
    struct t_client *c = agreed("/echo");
    say_packed(c, text_of(2000)); /* and nobody else suffers */
    hears_echo(c, text_of(2000), true);
}

static void
text_is_judged_as_it_comes_out(UNUSED void **state)
{
    t_begin();
    struct view bad = packed(VIEW("abc\xff"));
    expect_close("/echo", WS_TEXT | PACKED, bad.p, bad.n, 1007, CLOSE_BAD_UTF8);
    bad = packed(VIEW("cut \xe2\x82"));
    expect_close("/echo", WS_TEXT | PACKED, bad.p, bad.n, 1007, CLOSE_BAD_UTF8);
    struct t_client *c = agreed("/echo");
    struct view payload;
    bad = packed(VIEW("\xff\xfe"));
    t_frame(c, WS_BINARY | PACKED, bad.p, bad.n);
    assert_int_equal(t_next_frame(c, &payload), WS_BINARY);
    struct view euro = VIEW("a character in two pieces: \xe2\x82\xac");
    say_packed_in(c, WS_TEXT, packed(euro), 1);
    hears_echo(c, euro, false);
}

static void
bombs_end_with_1009(UNUSED void **state)
{
    static uint8_t zeros[70000];
    t.conf.ws_max_message = 1 << 16;
    t.conf.ws_max_message_unshaken = 1000;
    t_begin();
    struct view bomb = packed(view_of(zeros, 1001));
    expect_close("/socketcluster/", WS_TEXT | PACKED, bomb.p, bomb.n, 1009, CLOSE_TOO_BIG);
    bomb = packed(view_of(zeros, (1 << 16) + 1));
    struct t_client *c = agreed("/socketcluster/");
    t_shake(c);
    t_frame(c, WS_TEXT | PACKED, bomb.p, bomb.n);
    t_hears_close(c, 1009);
    /* what is announced has a bound as well: what a message of the limit can take when it is stored */
    uint8_t head[14] = {0xC2, 0x80 | 126};
    store_be16(head + 2, (uint16_t)(deflate_packed_max(1000) + 1));
    c = agreed("/socketcluster/");
    t_send(c, head, 8);
    t_hears_close(c, 1009);
}

/* Each message is within its limit; what they inflate to together is not. */
static void
too_much_out_of_too_little_ends_with_1008(UNUSED void **state)
{
    static uint8_t zeros[1 << 20];
    t.conf.deflate_inflate_budget = 4 << 20;
    t_begin();
    struct t_client *c = agreed("/socketcluster/");
    t_shake(c);
    struct view bomb = packed(view_of(zeros, sizeof zeros));
    for (int i = 0; i < 4; i++)
        t_frame(c, WS_BINARY | PACKED, bomb.p, bomb.n);
    t_hears_nothing(c);
    t_pass(5000); /* half of it is back */
    for (int i = 0; i < 2; i++)
        t_frame(c, WS_BINARY | PACKED, bomb.p, bomb.n);
    t_hears_nothing(c);
    t_frame(c, WS_BINARY | PACKED, bomb.p, bomb.n);
    t_hears_close(c, 1008);
    assert_int_equal(t_closes(CLOSE_INFLATE_BUDGET), 1);
    c = agreed("/socketcluster/"); /* text that compresses as text does costs nothing */
    t_shake(c);
    struct view noise = packed(noise_of(60000));
    for (int i = 0; i < 200; i++)
        t_frame(c, WS_BINARY | PACKED, noise.p, noise.n);
    t_hears_nothing(c);
}

/* One turn inflates no more than one share of input comes to. */
static void
a_turn_inflates_its_share(UNUSED void **state)
{
    static uint8_t zeros[100000];
    t_begin();
    struct t_client *c = agreed("/echo");
    struct view bomb = packed(view_of(zeros, sizeof zeros));
    t_frame(c, WS_BINARY | PACKED, bomb.p, bomb.n);
    t_frame(c, WS_BINARY | PACKED, bomb.p, bomb.n);
    t_frame(c, WS_BINARY | PACKED, bomb.p, bomb.n);
    uint64_t most = 0, before = t_counter(deflate_in_messages_total);
    T_UNTIL(({
        most = MAX(most, t_counter(deflate_in_messages_total) - before);
        before = t_counter(deflate_in_messages_total);
        before == 3;
    }));
    assert_int_equal(most, 1);
}

/* However many send bombs: a turn inflates 4 MiB of what just came and 4 MiB of what had to wait, and everybody's turn
 * comes. */
static void
a_turn_inflates_its_share_of_all(UNUSED void **state)
{
    static uint8_t zeros[1 << 20];
    struct t_client *c[20];
    t.conf.ws_max_message = 2 << 20;
    t_begin();
    struct view bomb = packed(view_of(zeros, sizeof zeros));
    for (size_t i = 0; i < ARRAY_LEN(c); i++) {
        c[i] = agreed("/socketcluster/");
        t_shake(c[i]);
    }
    uint64_t most = 0, before = 0, all = 3 * ARRAY_LEN(c);
    for (int k = 0; k < 3; k++)
        for (size_t i = 0; i < ARRAY_LEN(c); i++) {
            uint8_t frame[8 + 2048] = {0xC2, 0x80 | 126};
            assert_true(bomb.n < 2048);
            store_be16(frame + 2, (uint16_t)bomb.n);
            memcpy(frame + 8, bomb.p, bomb.n);
            assert_int_equal(t_try_send(c[i], frame, bomb.n + 8), bomb.n + 8);
        }
    for (unsigned turns = 0; before < all; turns++) {
        t_turn();
        most = MAX(most, t_counter(deflate_in_messages_total) - before);
        before = t_counter(deflate_in_messages_total);
        assert_true(turns < 1000);
    }
    assert_in_range(most, 2, 8);
    for (size_t i = 0; i < ARRAY_LEN(c); i++)
        t_hears_nothing(c[i]);
}

static void
without_memory_one_connection_ends(UNUSED void **state)
{
    t_begin();
    for (unsigned n = 1; n <= 3; n++) {
        struct t_client *c = agreed("/echo");
        struct view v = packed(noise_of(500));
        uint8_t frame[1000] = {0xC2};
        assert_true(v.n > 125 && v.n < 900);
        frame[1] = 0x80 | 126;
        store_be16(frame + 2, (uint16_t)v.n);
        memcpy(frame + 8, v.p, v.n);
        t_memory_ends(n);
        t_send(c, frame, v.n + 8);
        t_turns(3);
        t_memory_ends(0);
        t_receive(c);
        t_close(c);
        c = agreed("/echo");
        say_packed(c, text_of(3000));
        hears_echo(c, text_of(3000), true);
    }
}

/* -- out: what is published -- */

/* A client that can inflate. */
struct hearer {
    struct t_client *c;
    struct deflate_reader *r;
    bool keep;
    size_t took; /* bytes of the last message as they came */
};

static struct hearer
hearer(const char *offer, bool keep)
{
    struct hearer h = {.keep = keep};
    if (offer == NULL) {
        h.c = t_open();
    } else {
        char line[200];
        snprintf(line, sizeof line, "Sec-WebSocket-Extensions: %s\r\n", offer);
        h.c = t_upgraded_with("/socketcluster/", 0, line);
        h.r = deflate_reader_new(15, &stream_bytes);
        t_shake(h.c);
    }
    t_subscribe(h.c, "news");
    return h;
}

/* The next publication, compressed or not. */
static void
hears_news(struct hearer *h, struct view data, bool compressed)
{
    struct view payload;
    struct buf out = buf_make(1 << 21);
    unsigned op = t_next_frame(h->c, &payload);
    assert_int_equal(op, compressed ? WS_TEXT | PACKED : WS_TEXT);
    h->took = payload.n;
    if (compressed) {
        deflate_reader_begin(h->r, h->keep);
        assert_int_equal(deflate_reader_put(h->r, payload, out.max, &out), DEFLATE_OK);
        assert_int_equal(deflate_reader_end(h->r, out.max, &out), DEFLATE_OK);
        payload = buf_view(&out);
    }
    assert_true(view_starts(payload, VIEW("{\"event\":\"#publish\",\"data\":{\"channel\":\"news\",\"data\":")));
    assert_non_null(memmem(payload.p, payload.n, data.p, data.n));
    buf_free(&out);
}

static void
hearers_end(struct hearer *h, size_t n)
{
    for (size_t i = 0; i < n; i++)
        deflate_reader_free(h[i].r);
    assert_int_equal(stream_bytes, 0);
}

/* JSON of about n bytes, different for each number. */
static const char *
json_of(size_t n, unsigned number)
{
    static char text[1 << 18];
    size_t at = (size_t)snprintf(text, sizeof text, "[%u", number);
    while (at < n)
        at += (size_t)snprintf(text + at, sizeof text - at, ",{\"id\":%zu,\"name\":\"somebody\"}", at * number);
    memcpy(text + at, "]", 2);
    return text;
}

static void
publish(size_t n, unsigned number)
{
    t_message("news", json_of(n, number));
}

#define OFFER_15 "permessage-deflate; client_max_window_bits"
#define OFFER_10 "permessage-deflate; server_max_window_bits=10"

static void
a_message_is_compressed_once_for_each_flavour(UNUSED void **state)
{
    t_begin();
    struct hearer h[12];
    for (size_t i = 0; i < ARRAY_LEN(h); i++)
        h[i] = hearer(i % 3 == 0 ? NULL : i % 3 == 1 ? OFFER_15 : OFFER_10, false);
    publish(2000, 1);
    for (size_t i = 0; i < ARRAY_LEN(h); i++)
        hears_news(&h[i], view_str(json_of(2000, 1)), i % 3 != 0);
    assert_int_equal(t_counter(deflate_out_messages_total), 2);
    assert_int_equal(t_counter(deliveries_total), ARRAY_LEN(h));
    publish(900, 2); /* below the threshold */
    for (size_t i = 0; i < ARRAY_LEN(h); i++)
        hears_news(&h[i], view_str(json_of(900, 2)), false);
    assert_int_equal(t_counter(deflate_out_messages_total), 2);
    hearers_end(h, ARRAY_LEN(h));
}

/* Long and short ones in one turn stay in order, whether they lie in the turn's arena or in a block. */
static void
a_batch_is_packed_message_by_message(UNUSED void **state)
{
    static const size_t sizes[] = {5000, 20, 1500, 100, 100, 30000, 70};
    t_begin();
    struct hearer h[6];
    for (size_t n = 1; n <= ARRAY_LEN(h); n++) {
        h[n - 1] = hearer(n % 2 ? OFFER_15 : NULL, false);
        for (unsigned k = 0; k < ARRAY_LEN(sizes); k++)
            publish(sizes[k], k);
        for (size_t i = 0; i < n; i++)
            for (unsigned k = 0; k < ARRAY_LEN(sizes); k++)
                hears_news(&h[i], view_str(json_of(sizes[k], k)), i % 2 == 0 && sizes[k] > 1000);
        assert_int_equal(t_counter(deflate_out_messages_total), 3 * n);
    }
    hearers_end(h, ARRAY_LEN(h));
}

static void
what_does_not_shrink_is_sent_as_it_is(UNUSED void **state)
{
    static char data[4000];
    uint64_t x = 88172645463325252ull;
    t.conf.deflate_threshold = 1;
    t_begin();
    struct hearer h[] = {hearer(OFFER_15, false), hearer(OFFER_15, false)};
    for (size_t i = 0; i + 1 < sizeof data; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        data[i] = (char)(1 + (x >> 40) % 255);
    }
    t_message("news", data);
    publish(2000, 1);
    for (int i = 0; i < 2; i++) {
        hears_news(&h[i], view_str(data), false);
        hears_news(&h[i], view_str(json_of(2000, 1)), true);
    }
    hearers_end(h, 2);
}

/* Compression saves; when there is no time for it, messages go out as they are. */
static void
a_turn_compresses_its_share(UNUSED void **state)
{
    t_begin();
    struct hearer h[] = {hearer(OFFER_15, false), hearer(NULL, false)};
    size_t packed_n = 0, n = 12;
    for (unsigned i = 0; i < n; i++)
        publish(200000, i);
    for (unsigned i = 0; i < n; i++) {
        bool compressed = i < 5 || i == n - 1; /* 5 of 200 KB are within 1 MiB; the last goes out in the next turn */
        hears_news(&h[0], view_str(json_of(200000, i)), compressed);
        hears_news(&h[1], view_str(json_of(200000, i)), false);
        packed_n += compressed;
    }
    assert_int_equal(t_counter(deflate_out_messages_total), packed_n);
    assert_int_equal(t_counter(deflate_skipped_total), n - packed_n);
    publish(200000, 99);
    hears_news(&h[0], view_str(json_of(200000, 99)), true);
    hearers_end(h, 2);
}

/* -- context takeover -- */

static void
takeover_settings(void)
{
    t.conf.deflate_server_takeover = t.conf.deflate_client_takeover = true;
    t.conf.deflate_threshold = 1;
}

static void
context_is_kept_both_ways(UNUSED void **state)
{
    takeover_settings();
    t_begin();
    struct hearer h[] = {hearer("permessage-deflate", true), hearer("permessage-deflate", true), hearer(OFFER_15, true)};
    assert_non_null(strstr(t.answer, "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"));
    assert_int_equal(t_counter(deflate_takeover), 3);
    size_t first = 0;
    for (unsigned k = 0; k < 5; k++) {
        publish(600, 7);
        for (size_t i = 0; i < ARRAY_LEN(h); i++) {
            hears_news(&h[i], view_str(json_of(600, 7)), true);
            first = k == 0 ? h[i].took : first;
            assert_true(k == 0 || h[i].took < first / 2);
        }
    }
    struct deflate_writer *z = deflate_writer_new(15, 6, 8, &stream_bytes);
    static const char text[] = "{\"event\":\"#publish\",\"data\":{\"channel\":\"x\",\"data\":\"a few words to keep\"}}";
    uint8_t out[sizeof text + DEFLATE_TAIL];
    for (unsigned k = 0; k < 6; k++) {
        struct view v = {out, deflate_writer_put(z, VIEW(text), true, out)};
        assert_true(v.n > 0 && (k == 0 || v.n < 20));
        say_packed_in(h[0].c, WS_TEXT, v, k % 2 ? 5 : 1000); /* whole ones and pieces share the context */
        T_UNTIL(t_count(T_PUBLISH) == k + 1);
        assert_string_equal(t_last(T_PUBLISH, "x")->data, "\"a few words to keep\"");
    }
    deflate_writer_free(z);
    assert_null(t_conn(h[0].c)->in);
    hearers_end(h, ARRAY_LEN(h));
    for (size_t i = 0; i < ARRAY_LEN(h); i++)
        t_close(h[i].c);
    T_UNTIL(t_counter(deflate_takeover) == 0 && t_counter(deflate_reserved_bytes) == 0);
    assert_true(pmd_bytes(t.w) < 1000);
}

/* Short messages in between go plain and leave the context alone. */
static void
plain_messages_leave_the_context_alone(UNUSED void **state)
{
    takeover_settings();
    t.conf.deflate_threshold = 300;
    t_begin();
    struct hearer h = hearer("permessage-deflate", true);
    publish(600, 7);
    hears_news(&h, view_str(json_of(600, 7)), true);
    size_t first = h.took;
    t_message("news", "7");
    hears_news(&h, VIEW("7"), false);
    publish(600, 7);
    hears_news(&h, view_str(json_of(600, 7)), true);
    assert_true(h.took < first / 2);
    hearers_end(&h, 1);
}

/* A namespace says whether its messages are compressed, and whether in the contexts of clients. */
static void
namespaces_decide_how(UNUSED void **state)
{
    static const char *const words[] = {"off", "once", "context"};
    for (unsigned i = 0; i < 3; i++) {
        struct conf_error err;
        takeover_settings();
        assert_true(conf_set(&t.conf, "namespace.all.prefix", "", "test", &err));
        assert_true(conf_set(&t.conf, "namespace.all.compress", words[i], "test", &err));
        t_begin();
        struct hearer h[] = {hearer("permessage-deflate", true), hearer("permessage-deflate", true), hearer(OFFER_10, true)};
        size_t first = 0;
        for (int k = 0; k < 2; k++) {
            publish(600, 7);
            for (size_t n = 0; n < ARRAY_LEN(h); n++)
                hears_news(&h[n], view_str(json_of(600, 7)), i > 0);
            first = k == 0 ? h[0].took : first;
        }
        assert_int_equal(t_counter(deflate_out_messages_total), i == 0 ? 0 : i == 1 ? 4 : 6);
        assert_true(i == 2 ? h[0].took < first / 2 : h[0].took == first);
        hearers_end(h, ARRAY_LEN(h));
        if (i < 2) {
            t_teardown(NULL);
            assert_int_equal(t_setup(NULL), 0);
        }
    }
}

/* The ring's own do not: nobody's end would give them back. */
static void
streams_of_connections_count_towards_mem_buffers(UNUSED void **state)
{
    takeover_settings();
    t.conf.mem_buffers = 450 << 10;
    t_begin();
    struct hearer h[] = {hearer(OFFER_15 "; server_no_context_takeover", false), hearer("permessage-deflate", true), hearer("permessage-deflate", true)};
    publish(900, 1);
    T_UNTIL(t_closes(CLOSE_MEMORY) == 1);
    hears_news(&h[0], view_str(json_of(900, 1)), true);
    T_UNTIL(t_conn(h[1].c) == NULL || t_conn(h[2].c) == NULL || t_conn(h[1].c)->state > CONN_OPEN || t_conn(h[2].c)->state > CONN_OPEN);
    t_turns(5);
    assert_int_equal(t_closes(CLOSE_MEMORY), 1);
    hearers_end(h, ARRAY_LEN(h));
}

/* Whatever allocation fails: a message comes packed or plain, or its connection ends; and contexts stay what both sides
 * think they are. */
static void
without_memory_messages_go_plain(UNUSED void **state)
{
    takeover_settings();
    t_begin();
    struct hearer first = hearer(NULL, false); /* the ring's lists are made: they do not fail, they die */
    publish(900, 1);
    hears_news(&first, view_str(json_of(900, 1)), false);
    t_close(first.c);
    for (unsigned n = 0; n <= 24; n++) {
        struct hearer h[] = {hearer("permessage-deflate", true), hearer(OFFER_15 "; server_no_context_takeover", false), hearer(NULL, false)};
        for (unsigned k = 0; k < 3; k++) {
            if (k == n % 2)
                t_memory_ends(1 + n / 2);
            publish(900, k);
            t_turns(2);
            t_memory_ends(0);
            if (k == n % 2 && t_counter(dropped_slow_total) > 0)
                break; /* there was no room to encode it at all, or for the queue */
            for (size_t i = 0; i < ARRAY_LEN(h); i++) {
                struct view payload;
                struct buf out = buf_make(5000);
                unsigned op = t_next_frame(h[i].c, &payload);
                if (op & PACKED) {
                    deflate_reader_begin(h[i].r, h[i].keep);
                    assert_int_equal(deflate_reader_put(h[i].r, payload, out.max, &out), DEFLATE_OK);
                    assert_int_equal(deflate_reader_end(h[i].r, out.max, &out), DEFLATE_OK);
                    payload = buf_view(&out);
                }
                assert_non_null(memmem(payload.p, payload.n, json_of(900, k), strlen(json_of(900, k))));
                buf_free(&out);
            }
        }
        hearers_end(h, ARRAY_LEN(h));
        for (size_t i = 0; i < ARRAY_LEN(h); i++)
            t_close(h[i].c);
        T_UNTIL(t_counter(connections) == 0);
        t.w->metrics[RM_dropped_slow_total] = 0;
    }
}

static void
who_does_not_want_context_kept_is_heard(UNUSED void **state)
{
    takeover_settings();
    t.conf.deflate_client_window_bits = 11;
    t_begin();
    struct hearer h[] = {
        hearer("permessage-deflate; server_no_context_takeover; client_max_window_bits", false),
        hearer("permessage-deflate; client_no_context_takeover", true),
    };
    assert_int_equal(t_counter(deflate_takeover), 2);
    for (unsigned k = 0; k < 3; k++) {
        publish(600, 7);
        hears_news(&h[0], view_str(json_of(600, 7)), true);
        hears_news(&h[1], view_str(json_of(600, 7)), true);
    }
    t_upgraded_with("/echo", 0, "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_max_window_bits\r\n");
    assert_non_null(strstr(t.answer, ": permessage-deflate; server_no_context_takeover; client_max_window_bits=11\r\n"));
    t_upgraded_with("/echo", 0, "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n");
    assert_int_equal(t_counter(deflate_takeover), 3);
    hearers_end(h, 2);
}

/* deflate.memory is counted when it is promised, and given back. */
static void
above_the_budget_nobody_keeps_context(UNUSED void **state)
{
    takeover_settings();
    t.conf.deflate_memory = 1 << 20; /* three times a window, a reader and a writer */
    t_begin();
    struct hearer h[5];
    for (size_t i = 0; i < ARRAY_LEN(h); i++) {
        h[i] = hearer("permessage-deflate", i < 3);
        assert_int_equal(strstr(t.answer, AGREED) != NULL, i >= 3);
    }
    assert_int_equal(t_counter(deflate_takeover), 3);
    assert_int_equal(t_counter(deflate_refused_total), 2);
    assert_in_range(t_counter(deflate_reserved_bytes), 900000, 1 << 20);
    assert_true(pmd_bytes(t.w) < 1000); /* nobody has said anything yet */
    publish(2000, 3);
    for (size_t i = 0; i < ARRAY_LEN(h); i++)
        hears_news(&h[i], view_str(json_of(2000, 3)), true);
    assert_true(t_counter(deflate_bytes) < t_counter(deflate_reserved_bytes) + (300 << 10));
    t_close(h[0].c);
    T_UNTIL(t_counter(deflate_takeover) == 2);
    struct hearer again = hearer("permessage-deflate", true);
    assert_int_equal(t_counter(deflate_takeover), 3);
    deflate_reader_free(again.r);
    hearers_end(h, ARRAY_LEN(h));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        T(the_answer_is_what_was_agreed),
        T(offers_may_stand_in_several_fields),
        T(settings_decide),
        T(compressed_requests_are_understood_and_answers_are_plain),
        T(messages_come_back_however_they_were_cut),
        T(the_threshold_is_a_setting),
        T(level_1_is_the_default),
        T(level_and_mem_level_are_settings),
        T(large_messages_get_a_stream_and_give_it_back),
        T(a_message_that_had_to_wait_goes_on),
        T(rsv1_where_it_may_not_be),
        T(broken_streams_end_with_1007),
        T(text_is_judged_as_it_comes_out),
        T(bombs_end_with_1009),
        T(too_much_out_of_too_little_ends_with_1008),
        T(a_turn_inflates_its_share),
        T(a_turn_inflates_its_share_of_all),
        T(without_memory_one_connection_ends),
        T(a_message_is_compressed_once_for_each_flavour),
        T(a_batch_is_packed_message_by_message),
        T(what_does_not_shrink_is_sent_as_it_is),
        T(a_turn_compresses_its_share),
        T(context_is_kept_both_ways),
        T(plain_messages_leave_the_context_alone),
        T(namespaces_decide_how),
        T(streams_of_connections_count_towards_mem_buffers),
        T(without_memory_messages_go_plain),
        T(who_does_not_want_context_kept_is_heard),
        T(above_the_budget_nobody_keeps_context),
    };
    return cmocka_run_group_tests_name("pmd", tests, NULL, NULL);
}
