/* worker/outq: what a client has yet to take, how it is sent, and how much of it there may be. */
#include <sys/socket.h>

#include "common/rc.h"
#include "tests/unit/t_worker.h"
#include "worker/outq.h"

/* A connection as it is after its upgrade, with nothing in its queue; its send buffer holds `room` bytes. */
static struct t_client *
echo(unsigned room)
{
    struct t_client *c = t_upgraded("/echo", room);
    t_turns(2);
    assert_true(outq_is_empty(t_conn(c)));
    return c;
}

static uint8_t big[1 << 20];

/* A binary frame of n bytes in all, n >= 10, with a number in it. */
static const uint8_t *
frame(size_t n, uint32_t number)
{
    assert_in_range(n, 10, sizeof big);
    size_t payload_n = n - (n < 128 ? 2 : n < 65540 ? 4 : 10), head_n = n - payload_n;
    assert_int_equal(ws_put_header(big, WS_BINARY, payload_n), head_n);
    memset(big + head_n, 'f', payload_n);
    memcpy(big + head_n, &number, 4);
    return big;
}

static void
put(struct t_client *c, size_t n, uint32_t number)
{
    assert_true(outq_put(t.w, t_conn(c), frame(n, number), n));
}

static void
hear(struct t_client *c, size_t n, uint32_t number)
{
    struct view payload;
    assert_int_equal(t_next_frame(c, &payload), WS_BINARY);
    assert_int_equal(payload.n, n - (n < 128 ? 2 : n < 65540 ? 4 : 10));
    assert_memory_equal(payload.p, &number, 4);
}

/* Until the kernel takes no more for it. */
static void
make_slow(struct t_client *c)
{
    put(c, 65536, 0);
    T_UNTIL(t_conn(c)->flags & CF_SLOW);
    t_turns(3);
    assert_true(outq_bytes(t_conn(c)) > 0);
}

/* -- one send -- */

static void
what_is_put_in_a_turn_is_one_stretch_and_one_send(void **state)
{
    (void)state;
    t_begin();
    struct t_client *c = echo(0), *d = echo(0);
    uint64_t sends = t_counter(sends_total);
    for (unsigned i = 0; i < 20; i++)
        put(c, 20 + i, i);
    assert_int_equal(segq_count(&t_conn(c)->out), 1);
    put(d, 10, 7); /* in between in the arena */
    put(c, 10, 20);
    assert_int_equal(segq_count(&t_conn(c)->out), 2);
    outq_touch(t.w, t_conn(c));
    outq_touch(t.w, t_conn(c));
    t_turn();
    assert_int_equal(t_counter(sends_total), sends + 2);
    for (unsigned i = 0; i < 20; i++)
        hear(c, 20 + i, i);
    hear(c, 10, 20);
    hear(d, 10, 7);
    outq_touch(t.w, t_conn(c)); /* nothing waits */
    t_hears_nothing(c);
    assert_int_equal(t_counter(sends_total), sends + 2);
    assert_int_equal(t.w->queue_bytes, 0);
    assert_int_equal(t_counter(short_sends_total), 0);
}

/* 64 stretches at most go with one send; the next follows when it came home. */
static void
many_stretches_take_several_sends_one_after_the_other(void **state)
{
    (void)state;
    t_begin();
    struct t_client *c = echo(0), *d = echo(0);
    uint64_t sends = t_counter(sends_total);
    for (unsigned i = 0; i < 256; i++) {
        put(c, 20, i);
        put(d, 20, i);
    }
    assert_int_equal(segq_count(&t_conn(c)->out), 256);
    assert_int_equal(t.w->urgent.n, 2);
    T_UNTIL(({
        assert_true(t_conn(c)->inflight <= 2); /* the receive, and a send at most */
        t_counter(sends_total) == sends + 8;
    }));
    for (unsigned i = 0; i < 256; i++) {
        hear(c, 20, i);
        hear(d, 20, i);
    }
    t_turns(3);
    assert_int_equal(t_counter(sends_total), sends + 8);
    assert_null(t_conn(c)->out.more);
}

/* What comes while a send is in flight waits for its completion, or it could overtake the rest of that. */
static void
two_sends_are_never_in_flight(void **state)
{
    (void)state;
    t_begin();
    struct t_client *c = echo(0);
    uint64_t sends = t_counter(sends_total);
    for (unsigned i = 0; i < 5; i++) {
        put(c, 20, i);
        outq_flush(t.w); /* queued on the ring, not yet seen by the kernel */
    }
    assert_int_equal(t_counter(sends_total), sends + 1);
    assert_int_equal(t_conn(c)->inflight, 2);
    for (unsigned i = 0; i < 5; i++)
        hear(c, 20, i);
    assert_int_equal(t_counter(sends_total), sends + 2);
}

/* More gathered sends in a turn than there is scratch memory to describe them in. */
static void
a_crowd_of_gathered_sends_goes_out_in_one_turn(void **state)
{
    enum { CROWD = 120, EACH = 50 };
    struct t_client *c[CROWD];
    (void)state;
    t_begin();
    for (unsigned i = 0; i < CROWD; i++)
        c[i] = echo(0);
    for (unsigned k = 0; k < EACH; k++)
        for (unsigned i = 0; i < CROWD; i++)
            put(c[i], 12, i * 1000 + k);
    uint64_t sends = t_counter(sends_total);
    t_turns(2);
    assert_int_equal(t_counter(sends_total), sends + CROWD);
    for (unsigned i = 0; i < CROWD; i++)
        for (unsigned k = 0; k < EACH; k++)
            hear(c[i], 12, i * 1000 + k);
}

static void
large_pieces_have_blocks_of_their_own(void **state)
{
    (void)state;
    t_begin();
    struct t_client *c = echo(0);
    put(c, 100, 1);
    put(c, 30000, 2);
    put(c, 100, 3);
    assert_int_equal(segq_count(&t_conn(c)->out), 3);
    assert_true(segq_at(&t_conn(c)->out, 0)->rc->turn);
    assert_false(segq_at(&t_conn(c)->out, 1)->rc->turn);
    hear(c, 100, 1);
    hear(c, 30000, 2);
    hear(c, 100, 3);
}

static void
events_are_framed_by_their_length(void **state)
{
    static const size_t sizes[] = {0, 1, 125, 126, 65535, 65536, 300000};
    struct view payload;
    (void)state;
    t_begin();
    struct t_client *c = echo(0), *sc = t_open();
    uint64_t out = t_counter(messages_out_total);
    memset(big, 'e', sizeof big);
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct event ev = {.kind = EV_ECHO, .has_data = true, .text = i % 2, .data = view_of(big, sizes[i])};
        assert_true(outq_event(t.w, t_conn(c), &ev));
        assert_int_equal(t_next_frame(c, &payload), i % 2 ? WS_TEXT : WS_BINARY);
        assert_int_equal(payload.n, sizes[i]);
        assert_memory_equal(payload.p, big, sizes[i]);
    }
    assert_int_equal(t_counter(messages_out_total), out + ARRAY_LEN(sizes));
    /* What a language has no word for is no message. */
    assert_true(outq_event(t.w, t_conn(sc), &(struct event){.kind = EV_ECHO}));
    assert_true(outq_event(t.w, t_conn(sc), &(struct event){.kind = EV_DONE}));
    t_hears_nothing(sc);
    assert_int_equal(t_counter(messages_out_total), out + ARRAY_LEN(sizes));
}

/* -- clients that take less than they are given -- */

/* No frame of ours has 128 or 129 bytes: the header grows by two. */
static size_t
size_of(uint32_t i)
{
    return 12 + i % 700 == 128 || 12 + i % 700 == 129 ? 130 : 12 + i % 700;
}

static void
short_sends_lose_nothing(void **state)
{
    uint64_t x = 99;
    uint32_t put_n = 0, heard = 0;
    (void)state;
    t.conf.out_queue_low = 1 << 20;
    t_begin();
    struct t_client *c = echo(4096), *d = echo(0);
    while (heard < 3000) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        if (put_n < 3000 && (x >> 61) < 5)
            for (unsigned i = 0; i < (x >> 50) % 8 && put_n < 3000; i++, put_n++) {
                put(c, size_of(put_n), put_n);
                if (put_n % 3 == 0)
                    put(d, 12, put_n); /* breaks stretches up */
            }
        t_turn();
        struct conn *conn = t_conn(c);
        assert_true(conn->inflight <= 2);
        assert_true((conn->flags & (CF_SENDING | CF_POLLOUT)) != (CF_SENDING | CF_POLLOUT));
        if (put_n == 3000 || (x >> 40) % 16 == 0)
            t_receive(c);
        t_receive(d);
        while (c->in.n > 12 && c->in.n >= conn_frame_size(c->in.p)) {
            hear(c, size_of(heard), heard);
            heard++;
        }
    }
    assert_true(t_counter(short_sends_total) > 10);
    T_UNTIL(!(t_conn(c)->flags & CF_SLOW));
    assert_true(outq_is_empty(t_conn(c)));
    assert_int_equal(t_conn(c)->frame_left, 0);
    for (unsigned i = 0; i < 3000; i += 3)
        hear(d, 12, i);
}

static struct rc *
block(uint32_t n)
{
    struct rc *rc = rc_new(&t.w->blocks, n);
    assert_non_null(rc);
    assert_true(n >= 10 && n <= sizeof big);
    memcpy(rc->data, frame(n, 1), n);
    rc->n = n;
    return rc;
}

/* The arena of a turn is 64 KiB; a slow reader keeps its own few bytes and not the arena. */
static void
a_slow_client_keeps_no_arena(void **state)
{
    (void)state;
    t.conf.out_queue_low = 1 << 20;
    t_begin();
    struct t_client *slow = echo(4096), *busy = echo(0);
    make_slow(slow);
    uint64_t before = t.w->blocks.bytes;
    for (unsigned i = 0; i < 200; i++) {
        put(slow, 50, i);
        struct rc *arena = block(60000); /* what it hears of others comes in one, too */
        arena->turn = true;
        memcpy(arena->data, frame(50, 1000 + i), 50);
        assert_true(outq_push_published(t.w, t_conn(slow), arena, 0, 50, 1));
        rc_unref(&t.w->blocks, arena);
        for (unsigned k = 0; k < 50; k++)
            put(busy, 1000, k); /* most of an arena in every turn */
        t_turn();
        t_receive(busy);
        buf_reset(&busy->in);
    }
    t_turns(3);
    t_receive(busy);
    t_turns(3);
    assert_in_range(t.w->blocks.bytes, 0, before + 400 * 50 * 2 + 65536);
    hear(slow, 65536, 0);
    for (unsigned i = 0; i < 200; i++) {
        hear(slow, 50, i);
        hear(slow, 50, 1000 + i);
    }
}

static void
what_others_publish_is_bounded_to_the_byte(void **state)
{
    (void)state;
    t.conf.out_queue_bytes = 100000;
    t_begin();
    struct t_client *c = echo(4096), *quick = echo(0);
    struct rc *rc = block(60000);
    /* The bound holds for who is behind: to others the kernel takes it as it comes. */
    for (unsigned i = 0; i < 3; i++)
        assert_true(outq_push_published(t.w, t_conn(quick), rc, 0, 60000, 1));
    make_slow(c);
    uint32_t room = 100000 - outq_bytes(t_conn(c));
    assert_in_range(room, 20, 60000);
    struct rc *fits = block(room), *more = block(10);
    assert_true(outq_push_published(t.w, t_conn(c), fits, 0, room, 1));
    assert_int_equal(outq_bytes(t_conn(c)), 100000);
    assert_int_equal(t_counter(dropped_slow_total), 0);
    assert_false(outq_push_published(t.w, t_conn(c), more, 0, 10, 5));
    assert_int_equal(t_counter(dropped_slow_total), 5);
    assert_true(t_conn(c)->flags & CF_DOOMED);
    assert_int_equal(t_conn(c)->state, CONN_OPEN); /* not while a list may be walked */
    assert_false(outq_push_published(t.w, t_conn(c), more, 0, 10, 2)); /* nothing follows a gap */
    assert_false(outq_put(t.w, t_conn(c), big, 10));
    assert_int_equal(t_counter(dropped_slow_total), 7);
    assert_int_equal(outq_bytes(t_conn(c)), 100000);
    t_turn();
    assert_int_equal(t_conn(c)->state, CONN_CLOSING);
    assert_int_equal(t_closes(CLOSE_SLOW_QUEUE), 1);
    /* The frame it has in part, then the Close frame; what else waited is counted. */
    assert_int_equal(t_counter(dropped_slow_total), 8);
    assert_false(outq_push_published(t.w, t_conn(c), more, 0, 10, 1)); /* not to who is closing */
    assert_int_equal(t_counter(dropped_slow_total), 9);
    rc_unref(&t.w->blocks, rc);
    rc_unref(&t.w->blocks, fits);
    rc_unref(&t.w->blocks, more);
    hear(c, 65536, 0);
    t_hears_close(c, 1013);
    t_hears_end(c);
    for (unsigned i = 0; i < 3; i++)
        hear(quick, 60000, 1);
}

/* A client's own answers are not dropped: while they wait it is not read from. */
static void
who_does_not_read_its_answers_is_not_read_from(void **state)
{
    static char text[1000];
    unsigned said = 0, heard = 0;
    size_t at = 0, n = 0;
    (void)state;
    t.conf.out_queue_low = 20000;
    t_begin();
    struct t_client *c = echo(4096), *other = echo(0);
    uint8_t one[14 + sizeof text];
    uint64_t paused = t_counter(reads_paused_total);
    unsigned idle = 0;
    while (idle < 50) { /* asks as long as anything is taken */
        if (at == n) {
            memset(text, 't', sizeof text);
            snprintf(text, sizeof text, "%u", said);
            n = ws_put_client_header(one, WS_BINARY, sizeof text, (const uint8_t *)"\0\0\0\0");
            memcpy(one + n, text, sizeof text);
            n += sizeof text;
            at = 0;
        }
        size_t k = t_try_send(c, one + at, n - at);
        at += k;
        said += k > 0 && at == n;
        idle = k > 0 ? 0 : idle + 1;
        t_turn();
    }
    assert_true(t_counter(reads_paused_total) > paused);
    assert_int_equal(t_conn(c)->pause, PAUSE_OUTPUT);
    assert_int_equal(t_conn(c)->state, CONN_OPEN);
    assert_in_range(outq_bytes(t_conn(c)), 20000, 20000 + 65536 + 65536);
    t_say(other, "I read");
    t_hears(other, "I read");
    while (heard < said) { /* now it reads: all is there, in order */
        struct view payload;
        assert_int_equal(t_next_frame(c, &payload), WS_BINARY);
        assert_int_equal(payload.n, sizeof text);
        assert_int_equal(atoi((const char *)payload.p), heard);
        heard++;
    }
    T_UNTIL(t_conn(c)->pause == 0);
}

/* Read from again as soon as no more than out.queue_low waits, not only when all is gone. */
static void
reading_goes_on_at_the_low_mark(void **state)
{
    (void)state;
    t.conf.out_queue_low = 30000;
    t_begin();
    struct t_client *c = echo(4096);
    put(c, 65536, 0);
    put(c, 65536, 1);
    T_UNTIL(t_conn(c)->pause == PAUSE_OUTPUT);
    uint32_t at = 0;
    T_UNTIL(({
        uint8_t bytes[2048];
        (void)!recv(c->fd, bytes, sizeof bytes, MSG_DONTWAIT);
        at = outq_bytes(t_conn(c));
        assert_true(t_conn(c)->pause == 0 || at > 0);
        if (t_conn(c)->pause != 0 && at <= 30000)
            fail_msg("still paused at %u", at);
        t_conn(c)->pause == 0;
    }));
    assert_in_range(at, 10000, 30000);
}

/* -- cuts -- */

/* Frames of many sizes in stretches that do not end where they do. */
static uint32_t
fill(struct conn *c, uint32_t starts[], unsigned frames)
{
    uint32_t total = 0;
    struct rc *rc = rc_new(&t.w->blocks, 100000);
    assert_non_null(rc);
    for (unsigned i = 0; i < frames; i++) {
        uint32_t n = 10 + i * 37 % 300;
        starts[i] = total;
        memcpy(rc->data + rc->n, frame(n, i), n);
        /* Frames 0 and 1 of three touch; a gap before the third begins a stretch. */
        assert_true(outq_push(t.w, c, rc, rc->n, n));
        rc->n += n + (i % 3 == 1);
        total += n;
    }
    rc_unref(&t.w->blocks, rc);
    return total;
}

static void
a_cut_keeps_what_it_says_and_knows_what_it_loses(void **state)
{
    enum { FRAMES = 40 };
    uint32_t starts[FRAMES];
    (void)state;
    t_begin();
    struct conn *c = t_conn(echo(0));
    uint32_t total = fill(c, starts, FRAMES);
    assert_in_range(segq_count(&c->out), FRAMES / 3, FRAMES / 2);
    outq_clear(t.w, c);
    assert_true(outq_is_empty(c));
    for (unsigned i = 0; i <= FRAMES; i++)
        for (int off = -1; off <= 1; off++) {
            uint32_t keep = (i < FRAMES ? starts[i] : total) + (uint32_t)off;
            if (keep > total)
                continue;
            fill(c, starts, FRAMES);
            /* A frame that begins at `keep` or behind; before it nothing is known of frames. */
            if (off == 0)
                assert_int_equal(outq_count_frames(c, keep), FRAMES - i);
            outq_cut(t.w, c, keep);
            assert_int_equal(outq_bytes(c), keep);
            assert_int_equal(t.w->queue_bytes, keep);
            assert_int_equal(c->out.bytes, keep);
            if (keep > 0) {
                uint8_t left[16];
                segq_peek(&c->out, left, MIN(keep, (uint32_t)sizeof left));
                assert_memory_equal(left, frame(10, 0), MIN(keep, 2u));
            }
            outq_cut(t.w, c, keep + 1000); /* more than there is: nothing */
            assert_int_equal(outq_bytes(c), keep);
            outq_clear(t.w, c);
            assert_int_equal(t.w->queue_bytes, 0);
        }
}

/* How much of the frame is left that the client has in part, whatever piece of the queue it took. */
static void
the_rest_of_a_frame_is_known_after_any_short_send(void **state)
{
    enum { FRAMES = 40 };
    uint32_t starts[FRAMES];
    uint64_t x = 5;
    (void)state;
    t_begin();
    struct conn *c = t_conn(echo(0));
    for (unsigned round = 0; round < 300; round++) {
        uint32_t total = fill(c, starts, FRAMES), taken = 0;
        c->frame_left = 0;
        while (taken < total) {
            x = x * 6364136223846793005u + 1442695040888963407u;
            uint32_t n = MIN(1 + (uint32_t)(x >> 33) % 400, total - taken);
            outq_track(c, n);
            outq_taken(t.w, c, n);
            taken += n;
            unsigned i = 0;
            while (i < FRAMES && starts[i] < taken)
                i++;
            uint32_t end = i < FRAMES ? starts[i] : total;
            assert_int_equal(c->frame_left, end - taken);
            assert_int_equal(outq_count_frames(c, c->frame_left), FRAMES - i);
            assert_int_equal(outq_bytes(c), total - taken);
        }
    }
}

/* -- memory -- */

static void
where_memory_ends_nothing_is_queued(void **state)
{
    (void)state;
    t.conf.out_queue_low = 1 << 20;
    t_begin();
    struct t_client *c = echo(4096);
    make_slow(c);
    uint32_t waits = outq_bytes(t_conn(c));
    struct rc *rc = block(5000);
    t_memory_ends(1);
    assert_false(outq_put(t.w, t_conn(c), frame(40000, 1), 40000));
    for (unsigned i = 0; i < 40; i += 2) /* no two of them touch; room for some was made before */
        if (!outq_push(t.w, t_conn(c), rc, i * 100, 100))
            goto refused;
    fail_msg("a queue grew without memory");
refused:
    t_memory_ends(0);
    assert_in_range(outq_bytes(t_conn(c)), waits, waits + 2000);
    assert_int_equal(t.w->queue_bytes, outq_bytes(t_conn(c)));
    outq_cut(t.w, t_conn(c), waits);
    rc_unref(&t.w->blocks, rc);
    put(c, 50, 2); /* and it goes on */
    hear(c, 65536, 0);
    hear(c, 50, 2);
}

static void
a_published_stretch_that_finds_no_memory_ends_its_reader(void **state)
{
    (void)state;
    t_begin();
    struct t_client *c = echo(4096);
    make_slow(c);
    struct rc *rc = block(5000);
    t_memory_ends(1);
    unsigned taken = 0;
    while (outq_push_published(t.w, t_conn(c), rc, taken * 200, 100, 1))
        assert_true(++taken < 20);
    t_memory_ends(0);
    rc_unref(&t.w->blocks, rc);
    assert_true(t_conn(c)->flags & CF_DOOMED);
    assert_int_equal(t_counter(dropped_slow_total), 1);
    t_turn();
    assert_int_equal(t_conn(c)->state, CONN_CLOSING);
    assert_int_equal(t_closes(CLOSE_INTERNAL), 1);
}

static void
an_answer_that_finds_no_memory_ends_its_client(void **state)
{
    (void)state;
    t_begin();
    struct t_client *c = echo(0), *other = echo(0);
    t_memory_ends(1);
    assert_false(outq_event(t.w, t_conn(c),
        &(struct event){.kind = EV_ECHO, .has_data = true, .data = view_of(big, 1000000)}));
    t_memory_ends(0);
    t_hears_close(c, 1011);
    assert_int_equal(t_closes(CLOSE_INTERNAL), 1);
    put(other, 50, 2);
    hear(other, 50, 2);
}

/* The ring has had no sleep for so long that pacing is in force in full. */
static void
make_busy(void)
{
    t_busy(100);
    for (int i = 0; i < 50; i++) {
        t_pass(10);
        t_turn();
    }
    assert_int_equal(t_counter(pacing_us), t.conf.out_pacing * 1000);
}

static void
a_ring_that_sleeps_paces_nothing(void **state)
{
    (void)state;
    t.conf.out_pacing = 5;
    t_begin();
    struct t_client *a = t_open();
    t_subscribe(a, "news");
    make_busy();
    t_busy(20);
    for (int i = 0; i < 50; i++) {
        t_pass(10);
        t_turn();
    }
    assert_int_equal(t_counter(pacing_us), 0);
    for (int i = 0; i < 5; i++) {
        t_message("news", "1");
        t_turn();
        t_hears_message(a, "news", "1");
    }
    assert_int_equal(t_counter(sends_paced_total), 0);
}

static void
pacing_joins_what_is_published_and_holds_nothing_else(void **state)
{
    (void)state;
    t.conf.out_pacing = 5;
    t_begin();
    struct t_client *a = t_open();
    t_subscribe(a, "news");
    make_busy();
    t_message("news", "1"); /* quiet until now: at once */
    t_turn();
    t_hears_message(a, "news", "1");
    uint64_t sends = t_counter(sends_total);
    t_message("news", "2");
    t_turn();
    t_message("news", "3");
    t_turns(3);
    t_hears_nothing(a);
    assert_int_equal(t_counter(sends_total), sends);
    assert_true(t_counter(sends_paced_total) > 0);
    t_pass(5);
    t_turns(2);
    t_hears_message(a, "news", "2");
    t_hears_message(a, "news", "3");
    assert_int_equal(t_counter(sends_total), sends + 1); /* one send carried both */
    t_message("news", "4");
    t_turn();
    t_hears_nothing(a);
    t_frame(a, WS_PING, "?", 1); /* an answer does not wait, and takes along what waits in front of it */
    t_turns(2);
    t_hears_message(a, "news", "4");
}

static void
pacing_does_not_hold_back_the_rest_of_what_was_begun(void **state)
{
    (void)state;
    t.conf.out_pacing = 5;
    t_begin();
    struct t_client *a = t_open();
    t_subscribe(a, "news");
    make_busy();
    memset(big, '7', 150000);
    big[150000] = '\0';
    t_message("news", (const char *)big);
    uint64_t sends = t_counter(sends_total);
    t_turn();
    assert_false(outq_is_empty(t_conn(a)));
    T_UNTIL(outq_is_empty(t_conn(a))); /* several sends, and no time passes */
    assert_int_equal(t_counter(sends_total), sends + 3);
}

static void
pacing_forgets_who_left(void **state)
{
    (void)state;
    t.conf.out_pacing = 5;
    t_begin();
    struct t_client *a = t_open();
    t_subscribe(a, "news");
    make_busy();
    t_message("news", "1");
    t_turn();
    t_message("news", "2");
    t_turn();
    assert_int_equal(t.w->paced.n, 1);
    t_close(a);
    T_UNTIL(t_counter(connections) == 0);
    struct t_client *b = t_open(); /* in the same slot */
    t_pass(10);
    t_turns(2);
    t_hears_nothing(b);
    assert_int_equal(t.w->paced.n, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        T(what_is_put_in_a_turn_is_one_stretch_and_one_send),
        T(many_stretches_take_several_sends_one_after_the_other),
        T(two_sends_are_never_in_flight),
        T(a_ring_that_sleeps_paces_nothing),
        T(pacing_joins_what_is_published_and_holds_nothing_else),
        T(pacing_does_not_hold_back_the_rest_of_what_was_begun),
        T(pacing_forgets_who_left),
        T(a_crowd_of_gathered_sends_goes_out_in_one_turn),
        T(large_pieces_have_blocks_of_their_own),
        T(events_are_framed_by_their_length),
        T(short_sends_lose_nothing),
        T(a_slow_client_keeps_no_arena),
        T(what_others_publish_is_bounded_to_the_byte),
        T(who_does_not_read_its_answers_is_not_read_from),
        T(reading_goes_on_at_the_low_mark),
        T(a_cut_keeps_what_it_says_and_knows_what_it_loses),
        T(the_rest_of_a_frame_is_known_after_any_short_send),
        T(where_memory_ends_nothing_is_queued),
        T(a_published_stretch_that_finds_no_memory_ends_its_reader),
        T(an_answer_that_finds_no_memory_ends_its_client),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
