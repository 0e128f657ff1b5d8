/* worker/client: who the client of a connection is. Clients come over socket pairs, so the other end is a
 * UNIX socket, which is trusted where a test says so. */
#include "tests/unit/t_worker.h"

#define UPGRADE                                                                                    \
    "GET /socketcluster/ HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"      \
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"

static void
begin(const char *trusted)
{
    struct conf_error err;
    if (trusted != NULL)
        assert_true(conf_set(&t.conf, "http.trusted_proxies", trusted, "here", &err));
    t_begin();
}

static void
says(struct t_client *c, const char *text)
{
    t_send(c, text, strlen(text));
    t_turns(2);
}

static void
client_is(struct t_client *c, const char *address)
{
    char text[ADDR_TEXT];
    assert_non_null(t_conn(c));
    assert_string_equal(addr_text(&t_conn(c)->client, text), address);
}

static void
tcp_has_the_address_of_its_other_end(void **state)
{
    (void)state;
    begin(NULL);
    client_is(t_connect_tcp(), "127.0.0.1");
    client_is(t_connect(0), "-");
}

static void
a_header_in_pieces_and_a_request_behind_it(void **state)
{
    (void)state;
    begin("unix");
    t.w->listeners[0].proxy = true;
    struct t_client *c = t_connect(0);
    assert_int_equal(t_conn(c)->state, CONN_PROXY);
    says(c, "PROXY TCP4 192.0.2.1 ");
    assert_non_null(t_conn(c)->in);
    says(c, "192.0.2.9 1 2\r");
    says(c, "\n");
    client_is(c, "192.0.2.1");
    assert_int_equal(t_conn(c)->state, CONN_HTTP);
    assert_null(t_conn(c)->in); /* nothing of it is kept */
    struct t_client *b = t_connect(0);
    says(b, "PROXY TCP6 2001:db8::1 ::1 1 2\r\n" UPGRADE "\r\n");
    client_is(b, "2001:db8::1");
    assert_int_equal(t_conn(b)->state, CONN_OPEN);
    assert_int_equal(t_counter(proxy_headers_total), 2);
}

static void
a_proxy_listener_refuses_what_has_no_header_and_who_is_not_trusted(void **state)
{
    (void)state;
    begin("192.0.2.0/24");
    t.w->listeners[0].proxy = true;
    struct t_client *c = t_connect_tcp();
    t_hears_end(c);
    assert_int_equal(t_closes(CLOSE_PROXY), 1);
    assert_int_equal(t_counter(refused_connections_total), 1);
    t.w->trusted.local = true;
    struct t_client *b = t_connect(0);
    says(b, UPGRADE "\r\n");
    t_hears_end(b);
    struct t_client *d = t_connect(0);
    says(d, "PROXY TCP4 ");
    t_pass(t.conf.http_header_timeout + 100);
    t_turns(2);
    t_hears_end(d);
    assert_int_equal(t_closes(CLOSE_PROXY), 3);
}

static void
a_trusted_proxy_names_the_client_in_the_request(void **state)
{
    (void)state;
    begin("unix,10.0.0.0/8");
    struct t_client *c = t_connect(0);
    says(c, UPGRADE "X-Forwarded-For: 203.0.113.1, 192.0.2.1, 10.1.1.1\r\n\r\n");
    client_is(c, "192.0.2.1");
    struct t_client *tcp = t_connect_tcp(); /* 127.0.0.1 is not */
    says(tcp, UPGRADE "X-Forwarded-For: 192.0.2.1\r\n\r\n");
    client_is(tcp, "127.0.0.1");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        T(tcp_has_the_address_of_its_other_end),
        T(a_header_in_pieces_and_a_request_behind_it),
        T(a_proxy_listener_refuses_what_has_no_header_and_who_is_not_trusted),
        T(a_trusted_proxy_names_the_client_in_the_request),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
