/* broker/bus_rcluster between two nodes that answer -ASK. Redis 7 and Valkey 8 never say it of SPUBLISH and SSUBSCRIBE (they ask
 * where a slot's keys are, and these have none; tests/unit/test_bus_rcluster.c looks), but what stands in for them may, and
 * the specification of Redis Cluster allows it. So these nodes are made here: they take what they are told, and keep to
 * the rules of a slot that is on its way from the first to the second. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "broker/bus.h"
#include "broker/metrics.h"
#include "broker/redis_reply.h"
#include "proto/slot.h"

#define TOPIC "ringcast:news"
#define CLIENTS 8
#define WAIT_MS 20000
#define MESSAGES 4096

struct client {
    int fd; /* 0: none */
    bool asked; /* ASKING was the last that it said */
    struct redis_reply_reader *reader;
};

static struct node {
    int fd;
    uint16_t port;
    struct client client[CLIENTS];
    unsigned asks, publishes, subscribes; /* answered by -ASK; taken; asked for */
} node[2];

static unsigned owner;         /* of all slots */
static bool migrating;         /* the slot of TOPIC: from node 0 to node 1 */
static unsigned tryagains;     /* that node 0 says before it takes something */
static uint64_t taken[MESSAGES];
static unsigned taken_count;

static struct ring ring;
static struct conf conf;
static struct bus *bus;
static uint64_t metrics[BM_COUNT];
static uint64_t fated, joins;
static enum bus_state state_now;

/* -- a node -- */

static void
put(int fd, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void
put(int fd, const char *fmt, ...)
{
    char text[2048];
    va_list list;
    va_start(list, fmt);
    int n = vsnprintf(text, sizeof text, fmt, list);
    va_end(list);
    assert_true(n > 0 && (size_t)n < sizeof text);
    assert_int_equal(write(fd, text, (size_t)n), n);
}

static void
put_cluster(int fd, const struct redis_reply *r)
{
    char info[128];
    if (redis_reply_is(r, 2, VIEW("INFO"))) {
        int n = snprintf(info, sizeof info, "cluster_state:ok\r\ncluster_current_epoch:%u\r\n", 1 + owner);
        put(fd, "$%d\r\n%s\r\n", n, info);
    } else {
        put(fd, "*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n$9\r\n127.0.0.1\r\n:%u\r\n$2\r\nid\r\n", node[owner].port);
    }
}

/* Whether the node works for the slot of TOPIC; else it has said who does. */
static bool
serves(struct node *n, struct client *c, bool *asks)
{
    bool ours = n == &node[owner];
    *asks = ours && migrating;
    if (n == &node[0] && tryagains > 0)
        put(c->fd, "-TRYAGAIN %u\r\n", tryagains--);
    else if (*asks)
        put(c->fd, "-ASK %u 127.0.0.1:%u\r\n", slot_of(VIEW(TOPIC)), node[1].port);
    else if (!ours && !(migrating && c->asked && n == &node[1]))
        put(c->fd, "-MOVED %u 127.0.0.1:%u\r\n", slot_of(VIEW(TOPIC)), node[owner].port);
    else
        return true;
    return false;
}

static void
on_spublish(struct node *n, struct client *c, const struct redis_reply *r)
{
    bool asks = false;
    assert_true(r->n == 4 && redis_reply_is(r, 2, VIEW(TOPIC)) && r->v[3].text.n == 12);
    if (serves(n, c, &asks)) {
        assert_true(taken_count < MESSAGES);
        memcpy(&taken[taken_count++], r->v[3].text.p + 4, 8);
        n->publishes++;
        put(c->fd, ":1\r\n");
    }
    n->asks += asks;
}

static void
on_ssubscribe(struct node *n, struct client *c, const struct redis_reply *r)
{
    bool asks;
    n->subscribes++;
    assert_true(r->n == 3 && redis_reply_is(r, 2, VIEW(TOPIC)));
    if (serves(n, c, &asks))
        put(c->fd, "*3\r\n$10\r\nssubscribe\r\n$%zu\r\n%s\r\n:1\r\n", strlen(TOPIC), TOPIC);
}

static bool
on_command(void *arg, const struct redis_reply *r)
{
    struct client *c = arg;
    struct node *n = node;
    while (c < n->client || c >= n->client + CLIENTS)
        n++;
    bool asking = redis_reply_is(r, 1, VIEW("ASKING"));
    if (redis_reply_is(r, 1, VIEW("PING")))
        put(c->fd, "+PONG\r\n");
    else if (redis_reply_is(r, 1, VIEW("CLUSTER")))
        put_cluster(c->fd, r);
    else if (redis_reply_is(r, 1, VIEW("SPUBLISH")))
        on_spublish(n, c, r);
    else if (redis_reply_is(r, 1, VIEW("SSUBSCRIBE")))
        on_ssubscribe(n, c, r);
    else
        put(c->fd, "+OK\r\n");
    c->asked = asking;
    return true;
}

static void
client_end(struct client *c)
{
    close(c->fd);
    redis_reply_reader_free(c->reader);
    *c = (struct client){.fd = 0};
}

static void
node_turn(struct node *n)
{
    static uint8_t bytes[65536];
    const struct redis_reply_bounds bounds = {.max_bulk = 65536, .max_array = 64, .max_depth = 2};
    const char *why = NULL;
    for (unsigned i = 0; i < CLIENTS; i++) {
        struct client *c = &n->client[i];
        if (c->fd == 0 && (c->fd = accept4(n->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) <= 0) {
            c->fd = 0;
            return;
        }
        (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        if (c->reader == NULL)
            c->reader = redis_reply_reader_new(&bounds);
        ssize_t got = recv(c->fd, bytes, sizeof bytes, 0);
        if (got == 0)
            client_end(c);
        else if (got > 0 && !redis_reply_reader_feed(c->reader, view_of(bytes, (size_t)got), on_command, c, &why))
            fail_msg("a node was told what is no command: %s", why);
    }
}

static void
node_open(struct node *n)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof in;
    *n = (struct node){.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
    assert_int_equal(bind(n->fd, (struct sockaddr *)&in, sizeof in), 0);
    assert_int_equal(listen(n->fd, 8), 0);
    assert_int_equal(getsockname(n->fd, (struct sockaddr *)&in, &size), 0);
    n->port = ntohs(in.sin_port);
}

static void
node_close(struct node *n)
{
    for (unsigned i = 0; i < CLIENTS; i++)
        if (n->client[i].fd > 0)
            client_end(&n->client[i]);
    close(n->fd);
}

/* -- the bus -- */

static void
on_message(void *arg, struct bus_topic topic, struct view bytes)
{
    (void)arg;
    (void)topic;
    (void)bytes;
}

static void
on_joined(void *arg, struct bus_topic topic)
{
    (void)arg;
    (void)topic;
    joins++;
}

static void
on_lost(void *arg, struct bus_topic topic)
{
    (void)arg;
    (void)topic;
}

static void
on_fate(void *arg, struct bus_topic topic, uint64_t token, enum bus_fate fate)
{
    (void)arg;
    (void)topic;
    assert_int_equal(token, ++fated);
    assert_int_equal(fate, BUS_TAKEN);
}

static void
on_state(void *arg, enum bus_state state, const char *why)
{
    (void)arg;
    (void)why;
    state_now = state;
}

static const struct bus_ears ears = {on_message, on_joined, on_lost, on_fate, on_state};
static const struct bus_topic news = {BUS_CHANNEL, {(const uint8_t *)"news", 4}};

static void
done(void *arg, struct ring_done d)
{
    (void)arg;
    bus->ops->on_done(bus, d);
}

static void
turn(void)
{
    (void)bus->ops->turn(bus, mono_now());
    ring_wait(&ring, 500000);
    ring_reap(&ring, done, NULL);
    node_turn(&node[0]);
    node_turn(&node[1]);
}

#define UNTIL(cond)                                                                                \
    do {                                                                                           \
        struct mono from_ = mono_now();                                                            \
        while (!(cond)) {                                                                          \
            if (mono_since_ms(mono_now(), from_) > WAIT_MS)                                        \
                fail_msg("waited in vain: %s", #cond);                                             \
            turn();                                                                                \
        }                                                                                          \
    } while (0)

static uint64_t said;

static void
publish(unsigned n)
{
    while (n-- > 0) {
        uint64_t number = ++said;
        assert_true(bus->ops->publish(bus, news, view_of("\0\0\0\0", 4), view_of(&number, 8), number));
    }
}

static int
set_up(void **state)
{
    struct conf_error err = {{0}};
    char urls[64];
    (void)state;
    owner = 0;
    migrating = false;
    tryagains = 0;
    taken_count = 0;
    fated = joins = said = 0;
    node_open(&node[0]);
    node_open(&node[1]);
    assert_int_equal(ring_init(&ring, 64, 256), 0);
    conf_defaults(&conf);
    memset(metrics, 0, sizeof metrics);
    snprintf(urls, sizeof urls, "redis://127.0.0.1:%u", node[0].port);
    assert_true(conf_set(&conf, "redis.url", urls, "test", &err) && conf_set(&conf, "redis.mode", "cluster", "test", &err));
    bus = bus_rcluster.open(&conf, &ring, metrics, &ears, NULL, &err);
    if (bus == NULL)
        fail_msg("%s", err.text);
    UNTIL(state_now == BUS_UP);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    bus->ops->close(bus);
    node_close(&node[0]);
    node_close(&node[1]);
    ring_fini(&ring);
    conf_free(&conf);
    return 0;
}

/* Each once, in order, wherever it was taken. */
static void
expect_all(void)
{
    UNTIL(fated == said);
    assert_int_equal(taken_count, said);
    for (unsigned i = 0; i < taken_count; i++)
        assert_int_equal(taken[i], i + 1);
}

static void
publishes_go_where_they_are_asked_to(void **state)
{
    (void)state;
    publish(10);
    expect_all();
    migrating = true;
    struct mono from = mono_now();
    for (unsigned i = 0; i < 20; i++) {
        publish(20);
        turn();
    }
    expect_all();
    print_message("400 messages by way of -ASK took %llu ms\n", (unsigned long long)mono_since_ms(mono_now(), from));
    assert_true(node[0].asks > 0);
    assert_int_equal(node[0].publishes, 10);
    assert_int_equal(node[1].publishes, 400); /* none without ASKING: that would have been sent away */
    owner = 1;
    migrating = false;
    publish(10);
    expect_all();
    UNTIL(metrics[BM_redis_moved_total] > node[0].asks);
    publish(10);
    expect_all();
    assert_int_equal(node[1].publishes, 420);
}

static void
a_move_that_is_given_up_leaves_the_slot_where_it_was(void **state)
{
    (void)state;
    migrating = true;
    publish(50);
    expect_all();
    migrating = false;
    publish(50);
    expect_all();
    assert_int_equal(node[0].publishes, 50);
}

static void
subscriptions_wait_for_the_end_of_a_move(void **state)
{
    (void)state;
    migrating = true;
    assert_true(bus->ops->join(bus, news));
    struct mono from = mono_now();
    while (mono_since_ms(mono_now(), from) < 600)
        turn();
    assert_int_equal(joins, 0);
    assert_in_range(node[0].subscribes, 2, 8); /* each 100 ms, not each turn */
    assert_int_equal(metrics[BM_redis_violations_total], 0);
    owner = 1;
    migrating = false;
    UNTIL(joins == 1);
    assert_int_equal(node[1].subscribes, 1);
}

/* What was taken behind one that has to be sent again is sent again, too, whole and in order. */
static void
what_was_taken_behind_what_was_not_comes_again(void **state)
{
    (void)state;
    tryagains = 1;
    publish(20);
    UNTIL(fated == said);
    assert_int_equal(taken_count, 39);
    for (unsigned i = 0; i < 39; i++)
        assert_int_equal(taken[i], i < 19 ? i + 2 : i - 18);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(publishes_go_where_they_are_asked_to, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_move_that_is_given_up_leaves_the_slot_where_it_was, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_was_taken_behind_what_was_not_comes_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(subscriptions_wait_for_the_end_of_a_move, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
