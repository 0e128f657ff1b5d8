/* worker/xp_http: from accept to the upgrade or the one plain answer. proto/http judges heads (test_http.c);
 * here it is what becomes of them: in pieces, above limits, too late, with memory at its end. */
#include "tests/unit/t_worker.h"

#define HOST "Host: example.com\r\n"
#define UPGRADE                                                                                    \
    HOST "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"              \
         "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
#define HANDSHAKE "{\"event\":\"#handshake\",\"data\":{},\"cid\":1}"

static void
send_text(struct t_client *c, const char *text)
{
    t_send(c, text, strlen(text));
}

/* Everything that is said until TCP ends, as a text. */
static const char *
all_of(struct t_client *c)
{
    T_UNTIL(({
        t_receive(c);
        c->ended;
    }));
    buf_put(&c->in, (const uint8_t *)"", 1);
    return (const char *)c->in.p;
}

static void
assert_begins(const char *text, const char *with)
{
    if (strncmp(text, with, strlen(with)) != 0)
        fail_msg("\"%.60s\" where \"%s\" was waited for", text, with);
}

/* One request, its one answer, and the end. Counted as what it is. */
static const char *
ask(const char *request)
{
    struct t_client *c = t_connect(0);
    send_text(c, request);
    return all_of(c);
}

static void
expect_refused(const char *request, const char *status)
{
    uint64_t refused = t_counter(http_refused_total), ends = t_closes(CLOSE_HTTP_REFUSED);
    char line[32];
    const char *said = ask(request);
    (void)snprintf(line, sizeof line, "HTTP/1.1 %s ", status);
    assert_begins(said, line);
    assert_true(strstr(said, "\r\nConnection: close") != NULL);
    assert_int_equal(t_counter(http_refused_total), refused + 1);
    assert_int_equal(t_closes(CLOSE_HTTP_REFUSED), ends + 1);
    if (strncmp(said, "HTTP/1.1 101", 12) == 0)
        fail_msg("upgraded: %s", request);
}

/* ---- upgrades ---- */

static void
what_comes_with_the_request_is_answered_behind_the_upgrade(void **state)
{
    (void)state;
    t_begin();
    struct t_client *c = t_connect(0);
    char bytes[512] = "GET /socketcluster/ HTTP/1.1\r\n" UPGRADE;
    size_t n = strlen(bytes), k = strlen(HANDSHAKE);
    static const uint8_t key[4] = {1, 2, 3, 4};
    n += ws_put_client_header((uint8_t *)bytes + n, WS_TEXT, k, key);
    memcpy(bytes + n, HANDSHAKE, k);
    ws_mask((uint8_t *)bytes + n, k, key, 0);
    t_send(c, bytes, n + k);
    T_UNTIL(({
        t_receive(c);
        c->in.n > 12 && memmem(c->in.p, c->in.n, "\r\n\r\n", 4) != NULL && t_counter(connections_open) == 1;
    }));
    uint8_t *end = memmem(c->in.p, c->in.n, "\r\n\r\n", 4);
    assert_begins((const char *)c->in.p, "HTTP/1.1 101 ");
    buf_eat(&c->in, (size_t)(end + 4 - c->in.p));
    struct view payload;
    assert_int_equal(t_next_frame(c, &payload), WS_TEXT);
    assert_true(view_starts(payload, VIEW("{\"rid\":1,")));
}

static void
a_head_may_come_a_byte_at_a_time(void **state)
{
    static const char head[] = "GET /echo HTTP/1.1\r\n" UPGRADE;
    (void)state;
    t_begin();
    struct t_client *c = t_connect(0);
    for (size_t i = 0; i + 1 < sizeof head; i++) {
        t_send(c, head + i, 1);
        t_turn();
        assert_int_equal(t_conn(c)->state, i + 2 < sizeof head ? CONN_HTTP : CONN_OPEN);
    }
    assert_null(t_conn(c)->in); /* what kept the pieces is gone */
    assert_int_equal(t_counter(upgrades_total), 1);
    assert_int_equal(t_counter(http_requests_total), 1);
    T_UNTIL(({
        t_receive(c);
        c->in.n > 12;
    }));
    c->in.n = 0;
    t_frame(c, WS_TEXT, "x", 1);
    t_hears(c, "x");
}

/* As many bytes of the first frame as come along; the rest later. */
static void
a_frame_behind_the_head_may_be_cut_anywhere(void **state)
{
    static const uint8_t key[4] = {9, 8, 7, 6};
    char bytes[512] = "GET /echo HTTP/1.1\r\n" UPGRADE;
    size_t head_n = strlen(bytes), n = head_n;
    (void)state;
    t_begin();
    n += ws_put_client_header((uint8_t *)bytes + n, WS_TEXT, 5, key);
    memcpy(bytes + n, "hello", 5);
    ws_mask((uint8_t *)bytes + n, 5, key, 0);
    n += 5;
    for (size_t cut = head_n - 3; cut < n; cut++) {
        struct t_client *c = t_connect(0);
        t_send(c, bytes, cut);
        t_turns(2);
        t_send(c, bytes + cut, n - cut);
        T_UNTIL(({
            t_receive(c);
            c->in.n > 7 && memcmp(c->in.p + c->in.n - 7, "\x81\x05hello", 7) == 0;
        }));
        t_close(c);
    }
}

static void
paths_are_what_the_settings_say(void **state)
{
    static const struct {
        const char *path, *status;
    } cases[] = {
        {"/socketcluster/", "101"}, {"/socketcluster", "101"}, {"/socketcluster/?a=b", "101"}, {"/echo", "101"},
        {"/echo/", "404"}, {"/Echo", "404"}, {"//echo", "404"}, {"/socketcluster//", "404"}, {"/", "404"},
        {"/socketclusterx", "404"}, {"/%65cho", "404"}, {"/x/../echo", "404"},
    };
    (void)state;
    t_begin();
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char request[512], line[32];
        (void)snprintf(request, sizeof request, "GET %s HTTP/1.1\r\n" UPGRADE, cases[i].path);
        (void)snprintf(line, sizeof line, "HTTP/1.1 %s ", cases[i].status);
        struct t_client *c = t_connect(0);
        send_text(c, request);
        T_UNTIL(({
            t_receive(c);
            c->in.n >= 13;
        }));
        if (memcmp(c->in.p, line, 13) != 0)
            fail_msg("%s: %.12s", cases[i].path, (char *)c->in.p);
        t_close(c);
    }
}

static void
a_path_that_is_not_set_is_nowhere(void **state)
{
    struct conf_error err;
    (void)state;
    assert_true(conf_set(&t.conf, "sc.path", "", "test", &err) && conf_set(&t.conf, "echo.path", "", "test", &err));
    t_begin();
    expect_refused("GET /socketcluster/ HTTP/1.1\r\n" UPGRADE, "404");
    expect_refused("GET /echo HTTP/1.1\r\n" UPGRADE, "404");
    expect_refused("GET / HTTP/1.1\r\n" UPGRADE, "404");
}

/* ---- plain answers ---- */

static void
what_is_no_upgrade_is_told_why_and_ends(void **state)
{
    static const struct {
        const char *request, *status;
    } cases[] = {
        {"GET /echo HTTP/1.1\r\n" HOST "\r\n", "426"},
        {"POST /echo HTTP/1.1\r\n" UPGRADE, "405"},
        {"GET /echo HTTP/1.1\r\n" HOST "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 12\r\n"
         "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            "426"},
        {"GET /echo HTTP/1.1\r\n" HOST "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\r\n",
            "400"},
        {"GET /echo HTTP/1.1\r\n\r\n", "400"},
        {"GET /echo HTTP/2.0\r\n" HOST "\r\n", "505"},
        {"nonsense\r\n\r\n", "400"},
        {"GET /private/thing?token=1234 HTTP/1.1\r\n" HOST "\r\n", "404"},
        {"\r\n\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n" HOST "\r\n", "400"},
    };
    (void)state;
    t_begin();
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        expect_refused(cases[i].request, cases[i].status);
    assert_int_equal(t_counter(upgrades_total), 0);
    assert_int_equal(t_counter(http_requests_total), ARRAY_LEN(cases));
}

static void
no_answer_repeats_the_request(void **state)
{
    (void)state;
    t_begin();
    const char *said = ask("GET /needle?needle=needle HTTP/1.1\r\nHost: needle\r\nX-Needle: needle\r\n\r\n");
    assert_begins(said, "HTTP/1.1 404 ");
    assert_null(strstr(said, "needle"));
}

static void
a_head_request_gets_no_body(void **state)
{
    (void)state;
    t_begin();
    const char *get = strdup(ask("GET /x HTTP/1.1\r\n" HOST "\r\n")), *head = ask("HEAD /x HTTP/1.1\r\n" HOST "\r\n");
    const char *get_end = strstr(get, "\r\n\r\n") + 4, *head_end = strstr(head, "\r\n\r\n") + 4;
    assert_int_equal(get_end - get, head_end - head);
    assert_memory_equal(get, head, (size_t)(get_end - get)); /* the same head, its length included */
    assert_true(strlen(get_end) > 0);
    assert_string_equal(head_end, "");
    free((char *)(uintptr_t)get);
}

static void
after_an_error_nothing_more_is_served(void **state)
{
    (void)state;
    t.conf.http_playground = true;
    t_begin();
    const char *said = ask("GET /x HTTP/1.1\r\n" HOST "\r\nGET / HTTP/1.1\r\n" HOST "\r\n");
    assert_begins(said, "HTTP/1.1 404 ");
    assert_null(strstr(said + 1, "HTTP/1.1"));
    assert_int_equal(t_counter(http_requests_total), 1);
}

static void
the_playground_is_served_where_it_is_on(void **state)
{
    (void)state;
    t.conf.http_playground = true;
    t_begin();
    const char *said = ask("GET / HTTP/1.1\r\n" HOST "\r\n");
    assert_begins(said, "HTTP/1.1 200 ");
    assert_non_null(strstr(said, "Content-Security-Policy: default-src 'none'"));
    assert_non_null(strstr(said, "</html>"));
    assert_int_equal(t_closes(CLOSE_HTTP_ANSWERED), 1);
    assert_int_equal(t_counter(http_refused_total), 0);
    said = ask("HEAD / HTTP/1.1\r\n" HOST "\r\n");
    assert_begins(said, "HTTP/1.1 200 ");
    assert_null(strstr(said, "</html>"));
    assert_int_equal(t_closes(CLOSE_HTTP_ANSWERED), 2);
    expect_refused("PUT / HTTP/1.1\r\n" HOST "\r\n", "405");
    t.conf.http_playground = false; /* as a reload would */
    expect_refused("GET / HTTP/1.1\r\n" HOST "\r\n", "404");
}

static void
who_ends_its_half_of_tcp_is_answered_all_the_same(void **state)
{
    (void)state;
    t_begin();
    struct t_client *c = t_connect(0);
    send_text(c, "GET /x HTTP/1.1\r\n" HOST "\r\n");
    t_shutdown(c);
    assert_begins(all_of(c), "HTTP/1.1 404 ");
    struct t_client *half = t_connect(0);
    send_text(half, "GET /x HTT");
    t_shutdown(half);
    assert_string_equal(all_of(half), "");
    assert_int_equal(t_closes(CLOSE_PEER_GONE), 1);
}

/* ---- limits ---- */

/* A request of exactly so many bytes, in a field without meaning; or on its first line. */
static char *
request_of(size_t n, bool in_line)
{
    static const char begin[] = "GET /x", end[] = " HTTP/1.1\r\n" HOST, last[] = "\r\n";
    char *text = malloc(n + 1), *at = text;
    size_t fill = n - (sizeof begin - 1) - (sizeof end - 1) - (sizeof last - 1);
    assert_non_null(text);
    at = stpcpy(at, begin);
    if (in_line) {
        memset(at, 'a', fill);
        at += fill;
        at = stpcpy(at, end);
    } else {
        at = stpcpy(at, end);
        at = stpcpy(at, "X: ");
        memset(at, 'a', fill - 5);
        at += fill - 5;
        at = stpcpy(at, "\r\n");
    }
    (void)stpcpy(at, last);
    assert_int_equal(strlen(text), n);
    return text;
}

static void
a_head_ends_at_its_limit_and_not_before(void **state)
{
    (void)state;
    t.conf.http_header_bytes = 1000;
    t.conf.http_request_line = 500;
    t_begin();
    char *fits = request_of(1000, false), *above = request_of(1001, false), *long_line = request_of(999, true);
    expect_refused(fits, "404");
    expect_refused(above, "431");
    expect_refused(long_line, "414");
    free(fits);
    free(above);
    free(long_line);
}

static void
never_more_of_a_head_is_kept_than_its_limit(void **state)
{
    (void)state;
    t.conf.http_header_bytes = 1000;
    t_begin();
    struct t_client *c = t_connect(0);
    send_text(c, "GET /x HTTP/1.1\r\nX: ");
    for (int i = 0; i < 900; i += 10) {
        send_text(c, "aaaaaaaaaa");
        t_turn();
        assert_in_range(t.w->input_bytes, 1, 4096);
    }
    char flood[4096];
    memset(flood, 'a', sizeof flood);
    (void)!t_try_send(c, flood, sizeof flood);
    assert_begins(all_of(c), "HTTP/1.1 431 ");
    assert_int_equal(t.w->input_bytes, 0);
}

static void
too_many_fields_are_refused(void **state)
{
    char text[512] = "GET /x HTTP/1.1\r\n" HOST;
    (void)state;
    t.conf.http_header_fields = 8;
    t_begin();
    for (int i = 0; i < 7; i++)
        strcat(text, "A: b\r\n");
    size_t n = strlen(text);
    strcat(text, "\r\n");
    expect_refused(text, "404");
    (void)snprintf(text + n, sizeof text - n, "A: b\r\n\r\n");
    expect_refused(text, "431");
}

/* ---- time ---- */

static void
who_says_nothing_is_let_go(void **state)
{
    (void)state;
    t_begin();
    struct t_client *c = t_connect(0);
    t_pass(9000);
    t_hears_nothing(c);
    t_pass(2000);
    t_hears_end(c);
    assert_int_equal(t_closes(CLOSE_HTTP_TIMEOUT), 1);
    assert_int_equal(t_counter(http_refused_total), 1);
}

static void
a_head_that_trickles_does_not_gain_time(void **state)
{
    static const char head[] = "GET /x HTTP/1.1\r\nX: aaaaaaaaaaaaaa";
    (void)state;
    t_begin();
    struct t_client *c = t_connect(0);
    for (size_t i = 0; i < 10; i++) {
        t_send(c, head + i, 1);
        t_turn();
        assert_false(c->ended);
        t_pass(990);
    }
    t_pass(300);
    assert_begins(all_of(c), "HTTP/1.1 408 ");
    assert_int_equal(t_closes(CLOSE_HTTP_TIMEOUT), 1);
}

/* ---- memory ---- */

static void
without_memory_a_head_ends_its_connection_and_no_other(void **state)
{
    (void)state;
    t_begin();
    struct t_client *other = t_open(), *c = t_connect(0);
    send_text(c, "GET /x HTT");
    t_memory_ends(1);
    t_turns(3);
    t_memory_ends(0);
    t_hears_end(c);
    assert_int_equal(t_closes(CLOSE_INTERNAL), 1);
    assert_int_equal(t.w->input_bytes, 0);
    t_subscribe(other, "news");
}

/* Wherever memory ends between the head and the upgrade: an answer that is whole, or the end. */
static void
memory_may_end_anywhere_in_an_upgrade(void **state)
{
    (void)state;
    t_begin();
    for (unsigned n = 1; n < 12; n++) {
        struct t_client *c = t_connect(0);
        t_memory_ends(n);
        (void)!t_try_send(c, "GET /echo HTTP/1.1\r\n" UPGRADE, strlen("GET /echo HTTP/1.1\r\n" UPGRADE));
        t_turns(3);
        t_memory_ends(0);
        T_UNTIL(({
            t_receive(c);
            c->ended || (c->in.n > 4 && memcmp(c->in.p + c->in.n - 4, "\r\n\r\n", 4) == 0);
        }));
        if (!c->ended)
            assert_begins((const char *)c->in.p, "HTTP/1.1 101 ");
        else
            assert_int_equal(c->in.n, 0);
        t_close(c);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        T(what_comes_with_the_request_is_answered_behind_the_upgrade),
        T(a_head_may_come_a_byte_at_a_time),
        T(a_frame_behind_the_head_may_be_cut_anywhere),
        T(paths_are_what_the_settings_say),
        T(a_path_that_is_not_set_is_nowhere),
        T(what_is_no_upgrade_is_told_why_and_ends),
        T(no_answer_repeats_the_request),
        T(a_head_request_gets_no_body),
        T(after_an_error_nothing_more_is_served),
        T(the_playground_is_served_where_it_is_on),
        T(who_ends_its_half_of_tcp_is_answered_all_the_same),
        T(a_head_ends_at_its_limit_and_not_before),
        T(never_more_of_a_head_is_kept_than_its_limit),
        T(too_many_fields_are_refused),
        T(who_says_nothing_is_let_go),
        T(a_head_that_trickles_does_not_gain_time),
        T(without_memory_a_head_ends_its_connection_and_no_other),
        T(memory_may_end_anywhere_in_an_upgrade),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
