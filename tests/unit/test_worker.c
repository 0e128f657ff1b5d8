/* worker/worker: the turn. What comes too late, who gets how much of a turn, what is measured, memory, and
 * the orderly stop; on a real ring with a clock that the test moves. */
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/ws.h"
#include "tests/unit/t_worker.h"

/* ---- completions ---- */

static void
complete_nothing(unsigned op, uint32_t gen, uint32_t slot)
{
    struct io_uring_sqe *sqe = ring_sqe(&t.w->ring);
    io_uring_prep_nop(sqe);
    ring_set_tag(sqe, op, gen, slot);
}

static void
what_comes_for_who_is_gone_is_counted_and_dropped(void **state)
{
    static const unsigned ops[] = {OP_RECV, OP_SEND, OP_POLLOUT};
    (void)state;
    t_begin();
    struct t_client *old = t_open();
    uint32_t slot = old->slot, gen = old->gen;
    t_close(old);
    T_UNTIL(t.w->conns.live == 0);
    t_turn();
    struct t_client *fresh = t_open();
    assert_int_equal(fresh->slot, slot); /* the slot is another's now */
    uint64_t before = t_counter(stale_completions_total);
    for (size_t i = 0; i < ARRAY_LEN(ops); i++) {
        uint16_t inflight = t_conn(fresh)->inflight;
        complete_nothing(ops[i], gen, slot);
        T_UNTIL(t_counter(stale_completions_total) == before + i + 1);
        assert_int_equal(t_conn(fresh)->inflight, inflight);
    }
    complete_nothing(OP_RECV, 1, 400); /* a slot nobody ever had */
    complete_nothing(OP_COUNT, 0, 0);  /* no operation of ours */
    complete_nothing(255, gen, slot);
    T_UNTIL(t_counter(stale_completions_total) == before + 6);
    t_subscribe(fresh, "news");
}

static void
a_buffer_that_comes_too_late_goes_home(void **state)
{
    int fds[2];
    (void)state;
    t.conf.worker_recv_buffers = 16;
    t_begin();
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    for (unsigned i = 1; i <= 64; i++) {
        assert_int_equal(write(fds[1], "x", 1), 1);
        struct io_uring_sqe *sqe = ring_sqe(&t.w->ring);
        io_uring_prep_recv(sqe, fds[0], NULL, 0, 0);
        sqe->flags |= IOSQE_BUFFER_SELECT;
        sqe->buf_group = t.w->bufs.group;
        ring_set_tag(sqe, OP_RECV, 77, 400);
        T_UNTIL(t_counter(stale_completions_total) == i);
    }
    assert_int_equal(recv(fds[0], (char[4]){0}, 4, MSG_DONTWAIT), -1); /* each of them was received */
    close(fds[0]);
    close(fds[1]);
    t_subscribe(t_open(), "news");
    assert_int_equal(t_counter(no_buffers_total), 0);
}

static void
more_clients_than_buffers_all_get_their_turn(void **state)
{
    enum { CLIENTS = 64, BYTES = 3000 };
    struct t_client *c[CLIENTS];
    char text[BYTES + 1];
    (void)state;
    t.conf.worker_recv_buffers = 16;
    t_begin();
    memset(text, 'a', BYTES);
    text[BYTES] = '\0';
    for (int i = 0; i < CLIENTS; i++)
        c[i] = t_upgraded("/echo", 0);
    for (int i = 0; i < CLIENTS; i++)
        t_frame(c[i], WS_TEXT, text, BYTES);
    for (int i = 0; i < CLIENTS; i++) {
        struct view payload;
        assert_int_equal(t_next_frame(c[i], &payload), WS_TEXT);
        assert_int_equal(payload.n, BYTES);
    }
    assert_true(t_counter(no_buffers_total) > 0); /* or this showed nothing */
    assert_int_equal(t.w->unbuffered.n, 0);
}

/* ---- shares ---- */

static void
who_says_much_leaves_the_turn_to_others(void **state)
{
    enum { FRAMES = 1000 };
    static uint8_t bytes[FRAMES * 8];
    static const uint8_t key[4] = {1, 2, 3, 4};
    size_t n = 0;
    (void)state;
    t_begin();
    struct t_client *greedy = t_upgraded("/echo", 0), *other = t_upgraded("/echo", 0);
    for (int i = 0; i < FRAMES; i++) {
        n += ws_put_client_header(bytes + n, WS_TEXT, 1, key);
        bytes[n++] = (uint8_t)('a' ^ key[0]);
    }
    t_send(greedy, bytes, n);
    t_frame(other, WS_TEXT, "b", 1);
    uint64_t before = t_counter(messages_in_total), most = 0;
    for (uint64_t at = before; at < before + FRAMES + 1;) {
        t_turn();
        uint64_t now = t_counter(messages_in_total);
        most = MAX(most, now - at);
        at = now;
    }
    assert_in_range(most, 1, 256 + 1); /* packets of one client in one turn, and the other's one */
    t_hears(other, "b");
    for (int i = 0; i < FRAMES; i++)
        t_hears(greedy, "a");
}

/* ---- what is measured ---- */

static void
each_turn_is_stamped(void **state)
{
    (void)state;
    t_begin();
    uint64_t turns = t_counter(turns_total);
    t_pass(777);
    t_turns(3);
    assert_int_equal(t_counter(turns_total), turns + 3);
    assert_int_equal(t.w->page.header->heartbeat_ns, t.w->now.ns);
    assert_int_equal(t_counter(slow_turns_total), 0);
}

static void
take_150_ms(void)
{
    t_pass(150);
}

static void
a_turn_that_takes_long_is_counted(void **state)
{
    (void)state;
    t_begin();
    t.in_turn = take_150_ms;
    t_turns(2);
    t.in_turn = NULL;
    t_turns(2);
    assert_int_equal(t_counter(slow_turns_total), 2);
}

static void
settings_that_were_reloaded_hold_within_a_moment(void **state)
{
    (void)state;
    t_begin();
    t.conf.sc_max_depth = 7;
    t.conf.sc_max_batch = 8;
    t.conf.sc_max_channel_name = 9;
    t.conf.sc_max_event_name = 10;
    t.conf.mem_buffers = 1000000;
    for (int i = 0; i < 3; i++) {
        t_pass(100);
        t_turn();
    }
    assert_int_equal(t.w->limits.max_depth, 7);
    assert_int_equal(t.w->limits.max_batch, 8);
    assert_int_equal(t.w->limits.max_channel_name, 9);
    assert_int_equal(t.w->limits.max_event_name, 10);
    assert_int_equal(t.w->buffers_max, 1000000);
}

/* ---- sleep ---- */

static uint64_t
turn_takes_ms(uint32_t max_wait_ms)
{
    struct mono began = t_real_time();
    worker_turn(t.w, max_wait_ms);
    return mono_since_ms(t_real_time(), began);
}

static void
a_turn_sleeps_when_there_is_nothing_to_do_and_not_when_there_is(void **state)
{
    uint64_t one = 1;
    (void)state;
    t_begin();
    struct t_client *c = t_upgraded("/echo", 0);
    t_turns(5);
    /* The clock stands still, so that nothing is due; the wheel and the links may want an early look. */
    assert_in_range(turn_takes_ms(60), 1, 400);
    t_frame(c, WS_TEXT, "a", 1);
    for (int i = 0; i < 8; i++) { /* data, send, and what follows wake it */
        t_receive(c);
        if (c->in.n > 0)
            break;
        assert_true(turn_takes_ms(500) < 400);
    }
    t_hears(c, "a");
    assert_int_equal(write(t.w->wake_fd, &one, sizeof one), sizeof one);
    assert_true(turn_takes_ms(500) < 400);
    assert_int_equal(write(t.w->wake_fd, &one, sizeof one), sizeof one); /* it is armed again */
    assert_true(turn_takes_ms(500) < 400);
}

/* ---- memory ---- */

static void
above_mem_buffers_who_holds_most_ends(void **state)
{
    char text[20000];
    (void)state;
    t_begin();
    struct t_client *small = t_upgraded("/echo", 0), *large = t_upgraded("/echo", 0), *idle = t_upgraded("/echo", 0);
    memset(text, 'a', sizeof text);
    t_frame(small, WS_TEXT | T_MORE, text, 3000);
    t_frame(large, WS_TEXT | T_MORE, text, sizeof text);
    t_turns(8);
    uint64_t held = t.w->input_bytes + t.w->blocks.bytes;
    t.conf.mem_buffers = held - 1;
    t_pass(200);
    t_hears_close(large, 1013);
    assert_int_equal(t_closes(CLOSE_MEMORY), 1);
    t_turns(5);
    t_frame(small, WS_CONTINUATION, "", 0);
    struct view payload;
    assert_int_equal(t_next_frame(small, &payload), WS_TEXT);
    t_frame(idle, WS_TEXT, "b", 1);
    t_hears(idle, "b");
    assert_int_equal(t_closes(CLOSE_MEMORY), 1);
}

/* ---- the orderly stop ---- */

static void
an_orderly_stop_tells_everybody_and_ends(void **state)
{
    (void)state;
    t_begin();
    struct t_client *open = t_open(), *half = t_connect(0), *unshaken = t_upgraded("/socketcluster/", 0);
    t_send(half, "GET / HTTP/1.1\r\n", 16);
    t_turns(2);
    t.stop = 1;
    t_hears_close(open, 1001);
    t_hears_close(unshaken, 1001);
    t_hears_end(half);
    assert_int_equal(t_closes(CLOSE_DRAIN), 3);
    t_close(open);
    t_close(unshaken);
    t_close(half);
    worker_run(t.w); /* comes back, for nobody is left */
    assert_int_equal(t_closes(CLOSE_FORCED), 0);
}

static void
a_crowd_is_told_in_slices(void **state)
{
    enum { CLIENTS = 200 };
    (void)state;
    t.conf.run_drain_timeout = 10000;
    t_begin();
    for (int i = 0; i < CLIENTS; i++)
        t_upgraded("/echo", 0);
    t.stop = 1;
    t_turn();
    assert_int_equal(t_closes(CLOSE_DRAIN), 64);
    t_turn(); /* not sooner */
    assert_int_equal(t_closes(CLOSE_DRAIN), 64);
    for (int i = 0; i < 4; i++) {
        t_pass(100);
        t_turn();
    }
    assert_int_equal(t_closes(CLOSE_DRAIN), CLIENTS);
}

/* However many there are, everybody was told by half of run.drain_timeout. */
static void
a_large_crowd_is_told_within_half_the_time(void **state)
{
    enum { CLIENTS = 400 };
    (void)state;
    t.conf.run_drain_timeout = 400;
    t_begin();
    for (int i = 0; i < CLIENTS; i++)
        t_upgraded("/echo", 0);
    t.stop = 1;
    for (int ms = 0; ms <= 220; ms += 10) {
        t_turn();
        t_pass(10);
    }
    assert_int_equal(t_closes(CLOSE_DRAIN), CLIENTS);
    assert_int_equal(t_closes(CLOSE_FORCED), 0);
}

static void
who_takes_nothing_is_forced_when_the_time_is_over(void **state)
{
    char text[4096];
    (void)state;
    t.conf.run_drain_timeout = 1000; /* below ws.close_timeout */
    t_begin();
    struct t_client *c = t_upgraded("/echo", 4096), *quick = t_upgraded("/echo", 0);
    memset(text, 'a', sizeof text);
    t_frame(c, WS_BINARY, text, sizeof text);
    t_frame(c, WS_BINARY, text, sizeof text);
    T_UNTIL(t_conn(c)->flags & CF_SLOW);
    t.stop = 1;
    t_turn();
    t_hears_close(quick, 1001);
    t_close(quick);
    t_pass(900);
    t_turns(3);
    assert_int_equal(t.w->conns.live, 1);
    assert_int_equal(t_closes(CLOSE_FORCED), 0);
    t_pass(150);
    t_turns(3);
    assert_int_equal(t.w->conns.live, 0);
    assert_int_equal(t_closes(CLOSE_FORCED), 1);
    assert_int_equal(t_closes(CLOSE_DRAIN), 2);
    worker_run(t.w);
}

static void
a_second_stop_forces_at_once(void **state)
{
    (void)state;
    t_begin();
    struct t_client *c = t_open();
    t.stop = 2;
    t_turns(2);
    assert_int_equal(t.w->conns.live, 0);
    assert_int_equal(t_closes(CLOSE_FORCED), 1);
    t_receive(c);
    assert_true(c->ended);
}

/* ---- a start that fails ---- */

static struct worker *
try_new(int cpu, struct conf_error *err)
{
    struct worker_setup setup = {.conf = &t.conf, .conn_max = 4, .wake_fd = -1, .stop = &t.stop, .cpu = cpu};
    return worker_new(&setup, err);
}

static void
a_ring_that_cannot_be_made_says_why(void **state)
{
    struct conf_error err = {{0}};
    struct rlimit was, none;
    (void)state;
    assert_null(try_new(1023, &err));
    assert_non_null(strstr(err.text, "worker.cpus: CPU 1023 cannot be used"));
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
    none = (struct rlimit){0, was.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    struct worker *w = try_new(-1, &err);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
    assert_null(w);
    assert_non_null(strstr(err.text, "ring 0: "));
    assert_non_null(strstr(err.text, "ulimit -n"));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        T(what_comes_for_who_is_gone_is_counted_and_dropped),
        T(a_buffer_that_comes_too_late_goes_home),
        T(more_clients_than_buffers_all_get_their_turn),
        T(who_says_much_leaves_the_turn_to_others),
        T(each_turn_is_stamped),
        T(a_turn_that_takes_long_is_counted),
        T(settings_that_were_reloaded_hold_within_a_moment),
        T(a_turn_sleeps_when_there_is_nothing_to_do_and_not_when_there_is),
        T(above_mem_buffers_who_holds_most_ends),
        T(an_orderly_stop_tells_everybody_and_ends),
        T(a_crowd_is_told_in_slices),
        T(a_large_crowd_is_told_within_half_the_time),
        T(who_takes_nothing_is_forced_when_the_time_is_over),
        T(a_second_stop_forces_at_once),
        T(a_ring_that_cannot_be_made_says_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
