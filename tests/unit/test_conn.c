/* worker/conn: one client's TCP connection, from accept to close. What bytes mean is the business of
 * test_xp_http, test_xp_ws and test_sess; here they are echoed. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/t_worker.h"
#include "worker/outq.h"
#include "worker/sess.h"

static struct t_client *
echo(void)
{
    return t_upgraded("/echo", 0);
}

static unsigned
state_of(const struct t_client *c)
{
    struct conn *conn = t_conn(c);
    assert_non_null(conn);
    return conn->state;
}

/* -- states -- */

static void
a_connection_goes_from_request_to_end_in_order(void **state)
{
    (void)state;
    t_begin();
    struct t_client *c = t_connect(0);
    assert_int_equal(state_of(c), CONN_HTTP);
    assert_int_equal(t_counter(connections), 1);
    t_close(c);
    T_UNTIL(t_conn(c) == NULL);
    c = echo();
    assert_int_equal(state_of(c), CONN_OPEN);
    assert_null(t_conn(c)->in); /* nothing hangs behind an idle connection */
    assert_null(t_conn(c)->out.more);
    assert_true(outq_is_empty(t_conn(c)));
    conn_close(t.w, t_conn(c), CLOSE_DRAIN);
    assert_int_equal(state_of(c), CONN_CLOSING);
    t_hears_close(c, 1001);
    T_UNTIL(state_of(c) == CONN_LINGER);
    t_hears_end(c); /* our half is over; the client's is waited for */
    t_turns(5);
    assert_int_equal(state_of(c), CONN_LINGER);
    assert_int_equal(t_counter(connections), 1);
    t_close(c);
    T_UNTIL(t_conn(c) == NULL);
    assert_int_equal(t_counter(connections), 0);
}

static void
a_state_never_goes_back(void **state)
{
    (void)state;
    t_begin();
    struct conn *c = t_conn(echo());
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
        dup2(null, 2);
        signal(SIGABRT, SIG_DFL);
        conn_to(c, CONN_HTTP);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
}

/* -- the end, and its reasons -- */

static void
every_reason_has_its_code_and_is_counted_once(void **state)
{
    (void)state;
    t_begin();
    for (unsigned r = 0; r < CLOSE_COUNT; r++) {
        struct t_client *c = t_open();
        uint64_t before = t_closes(r), open = t_counter(connections_open);
        conn_close(t.w, t_conn(c), r);
        conn_close(t.w, t_conn(c), CLOSE_INTERNAL); /* the first reason counts */
        if (t_conn(c) != NULL && t_conn(c)->state < CONN_DEAD)
            conn_finish(t.w, t_conn(c), CLOSE_INTERNAL);
        assert_int_equal(t_closes(r), before + 1);
        assert_int_equal(t_counter(connections_open), open - 1);
        if (close_code(r) != 0)
            t_hears_close(c, close_code(r));
        t_hears_end(c);
        t_close(c);
        T_UNTIL(t_conn(c) == NULL);
    }
    assert_int_equal(t_closes(CLOSE_INTERNAL), 1);
}

static void
a_close_of_the_clients_is_echoed(void **state)
{
    struct view payload;
    (void)state;
    t_begin();
    struct t_client *c = echo();
    conn_close_echo(t.w, t_conn(c), 4321, VIEW("so long"));
    assert_int_equal(t_next_frame(c, &payload), WS_CLOSE);
    assert_int_equal(load_be16(payload.p), 4321);
    assert_true(view_eq(view_from(payload, 2), VIEW("so long")));
    t_hears_end(c);
    c = echo();
    conn_close_echo(t.w, t_conn(c), 1005, VIEW_NONE); /* it gave none */
    assert_int_equal(t_next_frame(c, &payload), WS_CLOSE);
    assert_int_equal(payload.n, 0);
    t_hears_end(c);
    assert_int_equal(t_closes(CLOSE_PEER_CLOSED), 2);
}

static void
before_the_upgrade_there_are_no_close_frames(void **state)
{
    (void)state;
    t_begin();
    struct t_client *c = t_connect(0);
    conn_close(t.w, t_conn(c), CLOSE_DRAIN);
    t_hears_end(c);
    T_UNTIL(t_conn(c) == NULL);
    assert_int_equal(t_closes(CLOSE_DRAIN), 1);
}

static void
an_end_takes_subscriptions_and_places_in_line_along(void **state)
{
    (void)state;
    t_begin();
    struct t_client *c = t_open();
    t_subscribe(c, "x");
    t.says[T_PUBLISH] = LINK_WAIT;
    t_say_publish(c, "x", "1");
    T_UNTIL(t.not_taken[T_PUBLISH] == 1);
    assert_int_not_equal(t.w->waiting[0].first, POOL_NONE);
    conn_close(t.w, t_conn(c), CLOSE_DRAIN);
    assert_int_equal(t.w->waiting[0].first, POOL_NONE);
    assert_int_equal(t_counter(subscriptions), 0);
    assert_int_equal(t_count(T_UNSUBSCRIBE), 1);
    assert_null(t_conn(c)->in);
    assert_int_equal(t.w->input_bytes, 0);
    t_hears_close(c, 1001);
    t_say_publish(c, "x", "2"); /* nothing more is taken from it */
    t.says[T_PUBLISH] = LINK_OK;
    t_room(0);
    t_turns(4);
    assert_int_equal(t_count(T_PUBLISH), 0);
}

/* Until the client has ended too its last bytes are taken, so that FIN does not turn into a reset. */
static void
a_finished_connection_waits_for_the_client_and_not_for_ever(void **state)
{
    (void)state;
    t_begin();
    struct t_client *good = t_connect_tcp(), *bad = t_connect_tcp();
    struct t_client *both[] = {good, bad};
    for (unsigned i = 0; i < 2; i++) {
        assert_true(outq_put(t.w, t_conn(both[i]), (const uint8_t *)"answer", 6));
        conn_finish(t.w, t_conn(both[i]), CLOSE_HTTP_ANSWERED);
        T_UNTIL(({
            t_receive(both[i]);
            both[i]->ended;
        }));
        assert_int_equal(both[i]->in.n, 6);
        assert_false(both[i]->reset);
        t_send(both[i], "more", 4);
    }
    t_close(good);
    T_UNTIL(t_conn(good) == NULL);
    t_pass(t.conf.ws_close_timeout - 50);
    t_turns(4);
    assert_int_equal(state_of(bad), CONN_LINGER);
    t_pass(100);
    T_UNTIL(t_conn(bad) == NULL);
    T_UNTIL(send(bad->fd, "x", 1, MSG_NOSIGNAL) < 0); /* nobody is there */
    assert_int_equal(t_closes(CLOSE_HTTP_ANSWERED), 2);
}

static void
who_was_not_read_from_is_heard_again_to_its_end(void **state)
{
    (void)state;
    t_begin();
    struct t_client *c = echo();
    conn_pause(t.w, t_conn(c), PAUSE_LINK);
    T_UNTIL(!(t_conn(c)->flags & CF_RECV));
    conn_close(t.w, t_conn(c), CLOSE_DRAIN);
    t_hears_close(c, 1001);
    t_close(c);
    T_UNTIL(t_conn(c) == NULL); /* with the clock standing still */
}

static void
who_takes_nothing_is_reset_when_closing_takes_too_long(void **state)
{
    static uint8_t bytes[1 << 20];
    (void)state;
    t_begin();
    struct t_client *c = t_upgraded("/echo", 4096);
    assert_true(outq_put(t.w, t_conn(c), bytes, sizeof bytes));
    conn_close(t.w, t_conn(c), CLOSE_DRAIN);
    t_turns(5);
    assert_int_equal(state_of(c), CONN_CLOSING);
    t_pass(t.conf.ws_close_timeout + 50);
    T_UNTIL(t_conn(c) == NULL);
    assert_int_equal(t.w->queue_bytes, 0);
}

static void
a_forced_end_resets_tcp(void **state)
{
    char byte;
    (void)state;
    t_begin();
    struct t_client *c = t_connect_tcp();
    conn_force(t.w, t_conn(c));
    assert_int_equal(t_closes(CLOSE_FORCED), 1);
    T_UNTIL(t_conn(c) == NULL);
    assert_int_equal(recv(c->fd, &byte, 1, 0), -1);
    assert_int_equal(errno, ECONNRESET);
}

/* Completions that are on their way find the slot still taken; then it is another's, by another number. */
static void
a_slot_is_free_when_its_last_operation_has_come_home(void **state)
{
    (void)state;
    t_begin();
    struct t_client *a = t_open();
    struct conn *c = t_conn(a);
    int fd = c->fd;
    t_turn();
    assert_int_equal(c->inflight, 1); /* the receive */
    conn_destroy(t.w, c);
    conn_destroy(t.w, c); /* twice is once */
    assert_int_equal(c->state, CONN_DEAD);
    assert_int_equal(t.w->conns.live, 1);
    assert_true(fcntl(fd, F_GETFD) >= 0);
    struct t_client *b = t_connect(0);
    assert_int_not_equal(b->slot, a->slot);
    T_UNTIL(t_conn(a) == NULL);
    assert_int_equal(t.w->conns.live, 1);
    struct t_client *again = t_connect(0);
    assert_int_equal(again->slot, a->slot);
    assert_int_not_equal(again->gen, a->gen);
    assert_int_equal(t_counter(stale_completions_total), 0);
    /* Nor does its former timer come for the new one. */
    t_pass(t.conf.http_header_timeout + 50);
    t_turn();
    assert_int_equal(t_closes(CLOSE_HTTP_TIMEOUT), 2);
    t_hears_end(b);
    t_hears_end(again);
}

static void
who_vanishes_is_forgotten(void **state)
{
    static uint8_t bytes[400000];
    (void)state;
    t_begin();
    struct t_client *c[4] = {t_connect(0), echo(), t_open(), t_connect_tcp()};
    assert_true(outq_put(t.w, t_conn(c[1]), bytes, sizeof bytes)); /* with bytes on their way */
    t_subscribe(c[2], "x");
    t_message("x", "1");
    for (unsigned i = 0; i < 4; i++)
        t_close(c[i]);
    T_UNTIL(t.w->conns.live == 0);
    assert_int_equal(t_closes(CLOSE_PEER_GONE), 4);
    assert_int_equal(t_counter(connections_open), 0);
}

/* -- timers -- */

static void
a_request_that_does_not_come_in_time_is_told_so_if_it_had_begun(void **state)
{
    (void)state;
    t_begin();
    struct t_client *silent = t_connect(0), *slow = t_connect(0);
    t_send(slow, "GET / HT", 8);
    t_pass(t.conf.http_header_timeout - 100);
    t_hears_nothing(silent);
    t_send(slow, "T", 1); /* a little more does not buy time */
    t_hears_nothing(slow);
    t_pass(150);
    t_hears_end(silent);
    T_UNTIL(({
        t_receive(slow);
        slow->ended;
    }));
    assert_memory_equal(slow->in.p, "HTTP/1.1 408 ", 13);
    assert_int_equal(t_closes(CLOSE_HTTP_TIMEOUT), 2);
    assert_int_equal(t_counter(http_refused_total), 2);
}

static void
a_message_has_its_time_however_it_trickles(void **state)
{
    static const uint8_t ping[] = {0x89, 0x80, 0, 0, 0, 0};
    struct view payload;
    (void)state;
    t_begin();
    struct t_client *c = echo(), *header = echo();
    uint64_t half = t.conf.ws_message_timeout / 2;
    t_frame(c, WS_TEXT | T_MORE, "a", 1);
    t_send(header, "\x81", 1); /* the first byte of a header counts */
    t_turns(2);
    t_pass(half);
    t_frame(c, WS_CONTINUATION | T_MORE, "b", 1);
    t_send(c, ping, sizeof ping);
    assert_int_equal(t_next_frame(c, &payload), WS_PONG);
    t_frame(c, WS_CONTINUATION, "c", 1);
    t_hears(c, "abc");
    t_frame(c, WS_TEXT | T_MORE, "d", 1); /* the next one has its own */
    t_turns(2);
    t_pass(half + 50);
    t_hears_close(header, 1008);
    t_frame(c, WS_CONTINUATION | T_MORE, "e", 1);
    t_hears_nothing(c);
    t_pass(half - 100);
    t_hears_nothing(c);
    t_pass(150);
    t_hears_close(c, 1008);
    assert_int_equal(t_closes(CLOSE_MESSAGE_TIMEOUT), 2);
}

static void
what_we_do_not_read_is_not_called_late(void **state)
{
    (void)state;
    t_begin();
    struct t_client *c = echo();
    t_frame(c, WS_TEXT | T_MORE, "a", 1);
    t_turns(3);
    conn_pause(t.w, t_conn(c), PAUSE_LINK);
    for (unsigned i = 0; i < 5; i++) {
        t_pass(t.conf.ws_message_timeout + 50);
        t_hears_nothing(c);
    }
    conn_resume(t.w, t_conn(c), PAUSE_LINK);
    t_pass(t.conf.ws_message_timeout / 2); /* its time begins anew */
    t_hears_nothing(c);
    t_frame(c, WS_CONTINUATION, "b", 1);
    t_hears(c, "ab");
}

static void
who_takes_nothing_while_something_waits_ends(void **state)
{
    static uint8_t bytes[65536 + WS_HEADER_MAX];
    (void)state;
    t_begin();
    struct t_client *idle = t_upgraded("/echo", 4096), *stuck = t_upgraded("/echo", 4096),
                    *slow = t_upgraded("/echo", 4096);
    assert_int_equal(ws_put_header(bytes, WS_BINARY, 65536), WS_HEADER_MAX); /* one frame */
    assert_true(outq_put(t.w, t_conn(stuck), bytes, sizeof bytes));
    assert_true(outq_put(t.w, t_conn(slow), bytes, sizeof bytes));
    t_turns(5);
    assert_true(t_conn(slow)->flags & CF_SLOW);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(t_closes(CLOSE_SLOW_STALL), 0);
        t_pass(t.conf.out_stall / 2 + 100);
        t_receive(slow); /* a little is enough */
        t_turns(5);
    }
    assert_int_equal(t_closes(CLOSE_SLOW_STALL), 1);
    assert_int_equal(state_of(slow), CONN_OPEN);
    assert_int_equal(state_of(idle), CONN_OPEN); /* nothing waits for it */
    struct view payload;
    assert_int_equal(t_next_frame(stuck, &payload), WS_BINARY); /* what it had in part comes whole */
    assert_int_equal(payload.n, 65536);
    t_hears_close(stuck, 1013);
    t_hears_end(stuck);
}

/* -- pauses -- */

static void
a_connection_is_read_from_when_no_reason_is_left(void **state)
{
    (void)state;
    t_begin();
    struct t_client *c = echo();
    uint64_t paused = t_counter(reads_paused_total);
    t_turn();
    conn_pause(t.w, t_conn(c), PAUSE_LINK);
    conn_pause(t.w, t_conn(c), PAUSE_ANSWERS);
    assert_int_equal(t_counter(reads_paused_total), paused + 1);
    T_UNTIL(!(t_conn(c)->flags & CF_RECV)); /* called back */
    assert_int_equal(t_conn(c)->inflight, 0);
    t_say(c, "a");
    t_hears_nothing(c);
    uint32_t heard_at = t_conn(c)->heard_at;
    t_pass(1000);
    t_turn();
    conn_resume(t.w, t_conn(c), PAUSE_LINK);
    conn_resume(t.w, t_conn(c), PAUSE_OUTPUT); /* which it never was */
    assert_int_equal(t_conn(c)->heard_at, heard_at);
    t_say(c, "b");
    t_hears_nothing(c);
    assert_int_equal(t.w->input_bytes, 0); /* it waits in the kernel */
    t_pass(1000);
    t_turn();
    conn_resume(t.w, t_conn(c), PAUSE_ANSWERS);
    assert_int_equal(t_conn(c)->heard_at, t.w->tick); /* it could not be heard meanwhile */
    t_hears(c, "a");
    t_hears(c, "b");
    assert_true(t_conn(c)->flags & CF_RECV);
}

static void
bytes_keep_their_order_through_any_pauses(void **state)
{
    static const unsigned reasons[] = {PAUSE_LINK, PAUSE_ANSWERS, PAUSE_OUTPUT};
    static uint8_t stream[64 * 1024];
    uint64_t x = 4711;
    size_t n = 0, sent = 0;
    unsigned said = 0, heard = 0;
    (void)state;
    t_begin();
    struct t_client *c = echo();
    while (n < sizeof stream - 32) { /* many small frames, in one stream */
        char text[16];
        int len = snprintf(text, sizeof text, "%u", said++);
        n += ws_put_client_header(stream + n, WS_TEXT, (uint64_t)len, (const uint8_t *)"\1\2\3\4");
        memcpy(stream + n, text, (size_t)len);
        ws_mask(stream + n, (size_t)len, (const uint8_t *)"\1\2\3\4", 0);
        n += (size_t)len;
    }
    while (heard < said) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        unsigned why = reasons[(x >> 33) % 3], what = (unsigned)(x >> 40) % 8;
        if (what < 3) {
            sent += t_try_send(c, stream + sent, MIN(n - sent, (size_t)((x >> 45) % 5000)));
        } else if (what < 5) {
            conn_pause(t.w, t_conn(c), why);
        } else {
            conn_resume(t.w, t_conn(c), why);
        }
        if (x >> 60 < 12)
            t_turn();
        struct conn_in *in = t_conn(c)->in;
        if (in != NULL && in->held.n == in->held_at)
            assert_int_equal(in->held.cap, 0); /* nothing is kept for what may come */
        t_receive(c);
        while (c->in.n > 2 && c->in.n >= conn_frame_size(c->in.p))
            t_hears(c, "%u", heard++);
    }
    for (unsigned i = 0; i < 3; i++)
        conn_resume(t.w, t_conn(c), reasons[i]);
    t_turns(3);
    assert_int_equal(sent, n);
    assert_null(t_conn(c)->in);
}

static void
what_is_held_for_who_is_not_read_from_is_bounded(void **state)
{
    static uint8_t bytes[100000];
    (void)state;
    t_begin();
    struct t_client *c = echo();
    size_t sent = 0;
    conn_pause(t.w, t_conn(c), PAUSE_TURN); /* which leaves the receive armed */
    for (unsigned i = 0; i < 200; i++) {
        sent += t_try_send(c, bytes, sizeof bytes);
        t_turn();
        conn_pause(t.w, t_conn(c), PAUSE_TURN);
    }
    assert_true(sent > 200000);
    assert_false(t_conn(c)->flags & CF_RECV);
    struct conn_in *in = t_conn(c)->in;
    assert_non_null(in);
    assert_in_range(in->held.n, 65536, 65536 + t.conf.worker_recv_buffer * t.conf.worker_recv_buffers);
    assert_int_equal(t.w->input_bytes, in->held.cap + in->msg.cap + sizeof *in);
}

static void
nobody_takes_more_than_its_share_of_a_turn(void **state)
{
    static char message[1024];
    (void)state;
    t.conf.worker_recv_buffer = 65536; /* one receive brings more than a turn's share */
    t.conf.worker_recv_buffers = 16;
    t_begin();
    struct t_client *greedy = echo();
    int room = 1 << 20;
    assert_int_equal(setsockopt(greedy->fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room), 0);
    memset(message, 'g', sizeof message);
    for (unsigned i = 0; i < 150; i++) /* more than 64 KiB lie ready */
        t_frame(greedy, WS_TEXT, message, sizeof message);
    uint64_t most = 0, before = t_counter(messages_in_total);
    T_UNTIL(({
        uint64_t had = t_counter(messages_in_total);
        t_turn();
        t_receive(greedy);
        most = MAX(most, t_counter(messages_in_total) - had);
        t_counter(messages_in_total) == before + 150;
    }));
    assert_in_range(most, 50, 66);
    for (unsigned i = 0; i < 150; i++)
        t_hears(greedy, "%.*s", (int)sizeof message, message);
    struct conn *c = t_conn(greedy);
    t_turn();
    assert_false(conn_turn_over(t.w, c));
    c->turn_packets = 256;
    assert_true(conn_turn_over(t.w, c));
    assert_int_equal(c->pause, PAUSE_TURN);
    t_turns(2);
    assert_int_equal(c->pause, 0);
}

/* -- the client's end of TCP -- */

static void
what_came_before_the_end_is_carried_out(void **state)
{
    (void)state;
    t_begin();
    struct t_client *at_once = echo(), *held = echo(), *half = echo(), *head = t_connect(0);
    t_say(at_once, "last words");
    t_shutdown(at_once);
    t_hears(at_once, "last words");
    t_hears_end(at_once);
    conn_pause(t.w, t_conn(held), PAUSE_TURN);
    t_say(held, "last words");
    t_shutdown(held);
    t_turns(3);
    assert_true(t_conn(held)->flags & CF_EOF);
    assert_int_equal(state_of(held), CONN_OPEN);
    conn_resume(t.w, t_conn(held), PAUSE_TURN);
    t_hears(held, "last words");
    t_hears_end(held);
    t_frame(half, WS_TEXT | T_MORE, "a", 1);
    t_shutdown(half);
    t_hears_end(half);
    t_send(head, "GET /", 5);
    t_shutdown(head);
    t_hears_end(head);
    T_UNTIL(t.w->conns.live == 0);
    assert_int_equal(t_closes(CLOSE_PEER_GONE), 4);
}

/* -- bounds -- */

static void
the_oldest_without_a_handshake_gives_way(void **state)
{
    (void)state;
    t.conf.conn_max_unshaken = 3;
    t_begin();
    struct t_client *shaken = t_open();
    struct t_client *c[5];
    for (unsigned i = 0; i < 5; i++) {
        c[i] = i % 2 ? t_connect(0) : t_upgraded("/socketcluster/", 0);
        assert_int_equal(t_counter(connections_unshaken), MIN(i + 1, 3u));
    }
    assert_int_equal(t_closes(CLOSE_UNSHAKEN), 2);
    t_hears_end(c[0]);
    t_hears_end(c[1]);
    for (unsigned i = 2; i < 5; i++)
        t_hears_nothing(c[i]);
    t_hears_nothing(shaken);
    t_say(c[2], "{\"event\":\"#handshake\",\"cid\":1}"); /* leaves the line from its front */
    struct view welcome;
    t_next_frame(c[2], &welcome);
    t_connect(0);
    t_hears_nothing(c[3]);
    assert_int_equal(t_closes(CLOSE_UNSHAKEN), 2);
}

static void
one_more_than_conn_max_is_told_503(void **state)
{
    (void)state;
    t.conn_max = 2;
    t.conf.conn_max_unshaken = 10;
    t_begin();
    struct t_client *a = echo(), *b = echo(), *c = t_connect(0);
    assert_null(t_conn(c));
    T_UNTIL(({
        t_receive(c);
        c->ended;
    }));
    assert_memory_equal(c->in.p, "HTTP/1.1 503 ", 13);
    assert_non_null(strstr((const char *)c->in.p, "\r\nRetry-After: "));
    assert_int_equal(t_closes(CLOSE_CONN_LIMIT), 1);
    assert_int_equal(t_counter(refused_connections_total), 1);
    t_say(a, "still here");
    t_hears(a, "still here");
    t_close(b);
    T_UNTIL(t_conn(b) == NULL);
    b = echo();
    t_say(b, "welcome");
    t_hears(b, "welcome");
}

static void
receives_that_find_no_buffer_come_again(void **state)
{
    static char message[3000];
    struct t_client *c[40];
    (void)state;
    t.conf.worker_recv_buffers = 16;
    t.conf.worker_recv_buffer = 512;
    t_begin();
    memset(message, 'm', sizeof message);
    for (unsigned i = 0; i < 40; i++)
        c[i] = echo();
    for (unsigned i = 0; i < 40; i++)
        t_frame(c[i], WS_TEXT, message, sizeof message);
    for (unsigned i = 0; i < 40; i++)
        t_hears(c[i], "%.*s", (int)sizeof message, message);
    assert_true(t_counter(no_buffers_total) > 0);
}

static void
the_one_that_memory_ends_for_ends(void **state)
{
    (void)state;
    t_begin();
    struct t_client *other = echo();
    for (unsigned n = 1; n <= 2; n++) { /* the record of unfinished input; what it keeps */
        struct t_client *c = echo();
        t_frame(c, WS_TEXT | T_MORE, "first piece", 11);
        t_memory_ends(n);
        t_turns(3);
        t_memory_ends(0);
        t_hears_end(c);
        T_UNTIL(t_conn(c) == NULL);
        assert_int_equal(t_closes(CLOSE_INTERNAL), n);
        assert_int_equal(t.w->input_bytes, 0);
    }
    t_say(other, "still here");
    t_hears(other, "still here");
}

/* -- small things -- */

static void
input_that_is_not_whole_is_accounted_for(void **state)
{
    (void)state;
    t_begin();
    struct t_client *c = echo();
    t_frame(c, WS_TEXT | T_MORE, "abc", 3);
    T_UNTIL(t_conn(c)->in != NULL && t_conn(c)->in->msg.n == 3);
    assert_int_equal(t.w->input_bytes, sizeof(struct conn_in) + t_conn(c)->in->msg.cap);
    t_frame(c, WS_CONTINUATION, "d", 1);
    t_hears(c, "abcd");
    assert_null(t_conn(c)->in);
    assert_int_equal(t.w->input_bytes, 0);
}

/* One pong at most waits for who does not read, and it is the newest ping's (RFC 6455 5.5.3). */
static void
a_slow_client_gets_the_pong_of_its_newest_ping(void **state)
{
    static uint8_t bytes[100000];
    struct view payload;
    (void)state;
    t_begin();
    struct t_client *c = t_upgraded("/echo", 4096);
    ws_put_header(bytes, WS_BINARY, sizeof bytes - WS_HEADER_MAX);
    t.conf.out_queue_low = 1 << 20; /* so that it is read from all the same */
    assert_true(outq_put(t.w, t_conn(c), bytes, sizeof bytes));
    t_turns(4);
    assert_true(t_conn(c)->flags & CF_SLOW);
    for (unsigned i = 0; i < 100; i++) {
        char text[8];
        snprintf(text, sizeof text, "%u", i);
        t_frame(c, WS_PING, text, strlen(text));
    }
    t_turns(4);
    assert_int_equal(t_next_frame(c, &payload), WS_BINARY);
    assert_int_equal(t_next_frame(c, &payload), WS_PONG);
    assert_string_equal((const char *)payload.p, "99");
    t_hears_nothing(c);
    assert_null(t_conn(c)->in);
}

static void
sizes_of_frames_are_read_where_they_begin(void **state)
{
    static const uint64_t sizes[] = {0, 1, 125, 126, 65535, 65536, 1u << 30};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        uint8_t head[WS_HEADER_MAX];
        size_t n = ws_put_header(head, WS_TEXT, sizes[i]);
        assert_int_equal(conn_frame_size(head), n + sizes[i]);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_connection_goes_from_request_to_end_in_order),
        T(a_state_never_goes_back),
        T(every_reason_has_its_code_and_is_counted_once),
        T(a_close_of_the_clients_is_echoed),
        T(before_the_upgrade_there_are_no_close_frames),
        T(an_end_takes_subscriptions_and_places_in_line_along),
        T(a_finished_connection_waits_for_the_client_and_not_for_ever),
        T(who_was_not_read_from_is_heard_again_to_its_end),
        T(who_takes_nothing_is_reset_when_closing_takes_too_long),
        T(a_forced_end_resets_tcp),
        T(a_slot_is_free_when_its_last_operation_has_come_home),
        T(who_vanishes_is_forgotten),
        T(a_request_that_does_not_come_in_time_is_told_so_if_it_had_begun),
        T(a_message_has_its_time_however_it_trickles),
        T(what_we_do_not_read_is_not_called_late),
        T(who_takes_nothing_while_something_waits_ends),
        T(a_connection_is_read_from_when_no_reason_is_left),
        T(bytes_keep_their_order_through_any_pauses),
        T(what_is_held_for_who_is_not_read_from_is_bounded),
        T(nobody_takes_more_than_its_share_of_a_turn),
        T(what_came_before_the_end_is_carried_out),
        T(the_oldest_without_a_handshake_gives_way),
        T(one_more_than_conn_max_is_told_503),
        T(receives_that_find_no_buffer_come_again),
        T(the_one_that_memory_ends_for_ends),
        T(input_that_is_not_whole_is_accounted_for),
        T(a_slow_client_gets_the_pong_of_its_newest_ping),
        cmocka_unit_test(sizes_of_frames_are_read_where_they_begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
