/* broker/bus_rcluster between two nodes that do what real ones can't be made to do when a test wants it. They are made here, and
 * take what they are told.
 *
 * They answer -ASK, and keep to the rules of a slot that is on its way from the first to the second. Redis 7 and Valkey 8 never
 * say it of SPUBLISH and SSUBSCRIBE (they ask where a slot's keys are, and these have none; tests/unit/test_bus_rcluster.c
 * looks), but what stands in for them may, and the specification of Redis Cluster allows it.
 *
 * And they take publishes without an answer until the test lets it out: so what is under way is known, and in which order fates
 * are told of what waits behind it. */
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
#define OTHER "ringcast:others" /* in another slot */
#define CLIENTS 8
#define WAIT_MS 20000
#define MESSAGES 4096

struct client {
    int fd; /* 0: none */
    bool asked; /* ASKING was the last that it said */
    bool publishes;
    char *held; /* answers to publishes that a mute node has not sent */
    size_t held_n;
    struct redis_reply_reader *reader;
};

static struct node {
    int fd;
    uint16_t port;
    struct client client[CLIENTS];
    unsigned asks, publishes, subscribes; /* answered by -ASK; taken; asked for */
    unsigned told;                        /* publishes, whatever it said of them */
    bool mute, deaf;
} node[2];

static unsigned owner;         /* of all slots */
static bool migrating;         /* the slot of TOPIC: from node 0 to node 1 */
static unsigned tryagains;     /* that node 0 says before it takes something */
static bool mute_then;         /* when it has said the last of these */
static uint64_t taken[MESSAGES];
static bool taken_again[MESSAGES]; /* it was marked with BUS_AGAIN */
static unsigned taken_count, others_again;

static struct ring ring;
static struct conf conf;
static struct bus *bus;
static uint64_t metrics[BM_COUNT];
static uint64_t fated, joins;
static uint8_t fate_of[MESSAGES + 1]; /* enum bus_fate, of messages of TOPIC up to the one that was told last */
static uint64_t others_said, others_fated, others_dropped;
static bool one_token; /* for all */
static enum bus_state state_now;

/* -- a node -- */

static struct node *
node_of(const struct client *c)
{
    return c >= node[1].client && c < node[1].client + CLIENTS ? &node[1] : &node[0];
}

static void
put_bytes(struct client *c, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t put = send(c->fd, p, n, MSG_NOSIGNAL);
        assert_true(put > 0);
        p += put;
        n -= (size_t)put;
    }
}

static void
put(struct client *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void
put(struct client *c, const char *fmt, ...)
{
    char text[2048];
    va_list list;
    va_start(list, fmt);
    int n = vsnprintf(text, sizeof text, fmt, list);
    va_end(list);
    assert_true(n > 0 && (size_t)n < sizeof text);
    if (!c->publishes || !node_of(c)->mute) {
        put_bytes(c, text, (size_t)n);
        return;
    }
    c->held = realloc(c->held, c->held_n + (size_t)n);
    assert_non_null(c->held);
    memcpy(c->held + c->held_n, text, (size_t)n);
    c->held_n += (size_t)n;
}

static void
speak(struct node *n)
{
    n->mute = false;
    for (unsigned i = 0; i < CLIENTS; i++) {
        put_bytes(&n->client[i], n->client[i].held, n->client[i].held_n);
        n->client[i].held_n = 0;
    }
}

static void
put_cluster(struct client *c, const struct redis_reply *r)
{
    char info[128];
    if (redis_reply_is(r, 2, VIEW("INFO"))) {
        int n = snprintf(info, sizeof info, "cluster_state:ok\r\ncluster_current_epoch:%u\r\n", 1 + owner);
        put(c, "$%d\r\n%s\r\n", n, info);
    } else {
        put(c, "*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n$9\r\n127.0.0.1\r\n:%u\r\n$2\r\nid\r\n", node[owner].port);
    }
}

/* Whether the node works for the slot of the topic; else it has said who does. */
static bool
serves(struct node *n, struct client *c, struct view topic, bool *asks)
{
    bool ours = n == &node[owner];
    *asks = ours && migrating;
    if (n == &node[0] && tryagains > 0) {
        put(c, "-TRYAGAIN %u\r\n", tryagains--);
        n->mute = mute_then && tryagains == 0;
    } else if (*asks)
        put(c, "-ASK %u 127.0.0.1:%u\r\n", slot_of(topic), node[1].port);
    else if (!ours && !(migrating && c->asked && n == &node[1]))
        put(c, "-MOVED %u 127.0.0.1:%u\r\n", slot_of(topic), node[owner].port);
    else
        return true;
    return false;
}

static void
on_spublish(struct node *n, struct client *c, const struct redis_reply *r)
{
    bool asks = false, other = redis_reply_is(r, 2, VIEW(OTHER));
    assert_true(r->n == 4 && (other || redis_reply_is(r, 2, VIEW(TOPIC))) && r->v[3].text.n >= 12);
    c->publishes = true;
    n->told++;
    if (serves(n, c, r->v[2].text, &asks)) {
        assert_true(taken_count < MESSAGES);
        bool again = (r->v[3].text.p[BUS_AGAIN_AT] & BUS_AGAIN) != 0;
        others_again += other && again;
        taken_again[taken_count] = again;
        if (!other)
            memcpy(&taken[taken_count++], r->v[3].text.p + 4, 8);
        n->publishes++;
        put(c, ":1\r\n");
    }
    n->asks += asks;
}

static void
on_ssubscribe(struct node *n, struct client *c, const struct redis_reply *r)
{
    bool asks;
    n->subscribes++;
    assert_true(r->n == 3 && redis_reply_is(r, 2, VIEW(TOPIC)));
    if (serves(n, c, VIEW(TOPIC), &asks))
        put(c, "*3\r\n$10\r\nssubscribe\r\n$%zu\r\n%s\r\n:1\r\n", strlen(TOPIC), TOPIC);
}

static bool
on_command(void *arg, const struct redis_reply *r)
{
    struct client *c = arg;
    struct node *n = node_of(c);
    bool asking = redis_reply_is(r, 1, VIEW("ASKING"));
    if (redis_reply_is(r, 1, VIEW("PING")))
        put(c, "+PONG\r\n");
    else if (redis_reply_is(r, 1, VIEW("CLUSTER")))
        put_cluster(c, r);
    else if (redis_reply_is(r, 1, VIEW("SPUBLISH")))
        on_spublish(n, c, r);
    else if (redis_reply_is(r, 1, VIEW("SSUBSCRIBE")))
        on_ssubscribe(n, c, r);
    else
        put(c, "+OK\r\n");
    c->asked = asking;
    return true;
}

static void
client_end(struct client *c)
{
    close(c->fd);
    redis_reply_reader_free(c->reader);
    free(c->held);
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
    if (view_eq(topic.name, VIEW("others"))) {
        assert_int_equal(token, ++others_fated);
        others_dropped += fate == BUS_DROPPED;
        return;
    }
    if (token != (++fated, one_token ? 0 : fated))
        fail_msg("the fate of %u is told, not that of %u", (unsigned)token, (unsigned)fated);
    assert_int_not_equal(fate, BUS_REFUSED);
    fate_of[fated] = (uint8_t)fate;
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
    for (unsigned i = 0; i < 2; i++)
        if (!node[i].deaf)
            node_turn(&node[i]);
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

/* n messages whose bodies have `size` bytes, of which the first eight are a number. Marked as broker/across does it. */
static void
publish_to(struct bus_topic topic, uint64_t *number, unsigned n, size_t size)
{
    static uint8_t body[2000];
    while (n-- > 0) {
        ++*number;
        uint8_t head[4] = {[BUS_AGAIN_AT] = bus->ops->is_up(bus, topic) ? 0 : BUS_AGAIN};
        memcpy(body, number, 8);
        assert_true(bus->ops->publish(bus, topic, view_of(head, 4), view_of(body, size), one_token ? 0 : *number));
    }
}

static void
publish(unsigned n)
{
    publish_to(news, &said, n, 8);
}

static void
turns(unsigned n)
{
    while (n-- > 0)
        turn();
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
    fated = joins = said = others_said = others_fated = others_dropped = others_again = 0;
    mute_then = one_token = false;
    state_now = BUS_DOWN;
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
        assert_true(taken[i] == i + 1 && fate_of[i + 1] == BUS_TAKEN);
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

/* -- fates, while a node takes and does not answer -- */

#define BOUND 65536u /* redis.out_queue */
#define BIG 1000u
#define WINDOW 1200u /* of these do not fit into what may be under way (1 MiB) and what may wait */

/* So many are under way that no more are, so many wait that the oldest were dropped, and nothing is told. */
static void
fill(void)
{
    conf.redis_out_queue = BOUND;
    node[0].mute = true;
    for (unsigned i = 0; i < 12; i++, turns(3))
        publish_to(news, &said, WINDOW / 12, BIG);
    UNTIL(metrics[BM_redis_dropped_total] > 0);
    turns(20);
    assert_int_equal(fated, 0);
    assert_in_range(metrics[BM_redis_queue_bytes], BOUND / 2, BOUND);
}

/* Messages from..to have this fate. */
static bool
are(enum bus_fate fate, uint64_t from, uint64_t to)
{
    for (uint64_t i = from; i <= to; i++)
        if (fate_of[i] != fate)
            return false;
    return true;
}

static void
what_is_dropped_is_told_behind_what_is_under_way(void **state)
{
    (void)state;
    fill();
    uint64_t sent = taken_count, dropped = metrics[BM_redis_dropped_total];
    speak(&node[0]);
    UNTIL(fated == said);
    assert_int_equal(metrics[BM_redis_dropped_total], dropped);
    assert_true(are(BUS_TAKEN, 1, sent) && are(BUS_DROPPED, sent + 1, sent + dropped) && are(BUS_TAKEN, sent + dropped + 1, said));
    assert_int_equal(taken_count, said - dropped);
    assert_int_equal(taken[sent], sent + dropped + 1);
    assert_int_equal(metrics[BM_redis_queue_bytes], 0);
}

/* What was under way is older than what waited, so it gives way; the newest are kept. */
static void
what_was_under_way_when_a_link_is_lost_stands_before_what_waited(void **state)
{
    (void)state;
    fill();
    for (unsigned i = 0; i < CLIENTS; i++)
        if (node[0].client[i].publishes)
            client_end(&node[0].client[i]);
    taken_count = 0;
    node[0].mute = false;
    UNTIL(fated == said);
    uint64_t dropped = metrics[BM_redis_dropped_total];
    assert_true(are(BUS_DROPPED, 1, dropped) && are(BUS_TAKEN, dropped + 1, said));
    assert_int_equal(taken_count, said - dropped);
    assert_in_range(taken_count, 30, 64);
    for (unsigned i = 0; i < taken_count; i++)
        assert_true(taken[i] == dropped + 1 + i && taken_again[i]);
    publish(10);
    UNTIL(fated == said);
}

/* The first that waits was given to the bus when nothing did, so nobody has marked it. */
static void
what_waited_when_a_link_is_lost_is_marked_too(void **state)
{
    (void)state;
    const struct bus_topic others = {BUS_CHANNEL, VIEW("others")};
    node[0].mute = true;
    while (bus->ops->is_up(bus, news))
        publish_to(news, &said, 1, BIG);
    assert_true(bus->ops->is_up(bus, others));
    publish_to(others, &others_said, 1, BIG); /* it has to wait, too, with nothing under way before it */
    assert_false(bus->ops->is_up(bus, others));
    UNTIL(taken_count == said - 1);
    for (unsigned i = 0; i < taken_count; i++)
        assert_false(taken_again[i]);
    for (unsigned i = 0; i < CLIENTS; i++)
        if (node[0].client[i].publishes)
            client_end(&node[0].client[i]);
    taken_count = 0;
    node[0].mute = false;
    UNTIL(fated == said && others_fated == 1);
    assert_int_equal(taken_count, said);
    for (unsigned i = 0; i < taken_count; i++)
        assert_true(taken[i] == i + 1 && taken_again[i]);
    assert_int_equal(others_again, 1);
}

static void
a_slot_with_nothing_under_way_is_told_of_at_once(void **state)
{
    (void)state;
    const struct bus_topic others = {BUS_CHANNEL, VIEW("others")};
    fill();
    publish_to(others, &others_said, 100, BIG);
    UNTIL(others_dropped > 0);
    turns(20);
    assert_int_equal(others_fated, others_dropped);
    assert_int_equal(fated, 0);
    speak(&node[0]);
    UNTIL(fated == said && others_fated == others_said);
    assert_true(fate_of[said] == BUS_DROPPED); /* older than what was said there */
}

/* One that came back stands before all that is under way: of it is told, and the others need not come again. */
static void
what_came_back_and_is_dropped_is_told_before_what_is_under_way(void **state)
{
    (void)state;
    conf.redis_out_queue = BOUND;
    tryagains = 1;
    mute_then = true;
    publish(20);
    UNTIL(metrics[BM_redis_queue_bytes] > 0);
    publish_to(news, &said, 100, BIG);
    UNTIL(fated == 1);
    turns(50);
    assert_int_equal(fated, 1);
    uint64_t dropped = metrics[BM_redis_dropped_total];
    assert_in_range(dropped, 30, 70);
    speak(&node[0]);
    UNTIL(fated == said);
    assert_true(fate_of[1] == BUS_DROPPED && are(BUS_TAKEN, 2, 20) && are(BUS_DROPPED, 21, 19 + dropped) &&
        are(BUS_TAKEN, 20 + dropped, said));
    assert_int_equal(taken_count, said - dropped);
}

/* Two of them: the second may not be told as taken before the first, which waits. */
static void
what_is_answered_behind_one_that_came_back_waits_for_it(void **state)
{
    (void)state;
    conf.redis_out_queue = BOUND;
    tryagains = 2;
    mute_then = true;
    publish(20);
    UNTIL(metrics[BM_redis_queue_bytes] > 0);
    publish_to(news, &said, 50, BIG);
    turns(50);
    assert_int_equal(fated, 0);
    speak(&node[0]);
    UNTIL(fated == said);
    assert_true(are(BUS_TAKEN, 1, said));
    assert_int_equal(taken_count, 18 + 70); /* those behind come again */
    for (unsigned i = 0; i < taken_count; i++)
        assert_int_equal(taken_again[i], i >= 18);
}

/* A slot that moves while its messages wait and give way. */
static void
a_slot_that_moves_keeps_what_is_told_in_order(void **state)
{
    (void)state;
    fill();
    owner = 1;
    publish_to(news, &said, 10, 8); /* the node has said :1 of all that it was sent; of what follows, -MOVED */
    uint64_t sent = taken_count, dropped = metrics[BM_redis_dropped_total];
    speak(&node[0]);
    UNTIL(fated == said);
    assert_true(are(BUS_TAKEN, 1, sent) && are(BUS_DROPPED, sent + 1, sent + dropped) && are(BUS_TAKEN, sent + dropped + 1, said));
    assert_int_equal(taken_count, said - dropped);
    assert_true(node[1].publishes > 0);
    for (unsigned i = (unsigned)sent; i < taken_count; i++)
        assert_int_equal(taken[i], dropped + 1 + i);
}

/* Notes, too, take memory: in the end a node that does not answer is left. */
static void
a_node_that_never_answers_is_left_when_notes_fill_the_queue(void **state)
{
    (void)state;
    uint64_t most = 0;
    fill();
    while (metrics[BM_redis_failures_total] == 0) {
        assert_true(said < MESSAGES - 10);
        publish_to(news, &said, 10, BIG);
        turn();
        most = MAX(most, metrics[BM_redis_queue_bytes]);
    }
    node[0].mute = false;
    taken_count = 0;
    UNTIL(fated == said);
    assert_in_range(most, BOUND / 2, 2 * BOUND);
    uint64_t dropped = metrics[BM_redis_dropped_total];
    assert_true(are(BUS_DROPPED, 1, dropped) && are(BUS_TAKEN, dropped + 1, said));
    assert_in_range(said - dropped, 0, 64);
    publish(10);
    UNTIL(fated == said);
    assert_true(are(BUS_TAKEN, said - 9, said));
}

/* Who published without asking for an answer has one token for all of a channel. */
static void
notes_of_one_token_leave_room(void **state)
{
    (void)state;
    one_token = true;
    fill();
    for (unsigned i = 0; i < 20; i++, turns(3))
        publish_to(news, &said, 100, BIG);
    assert_int_equal(metrics[BM_redis_failures_total], 0);
    assert_in_range(metrics[BM_redis_queue_bytes], BOUND / 2, BOUND);
    uint64_t sent = taken_count, dropped = metrics[BM_redis_dropped_total];
    speak(&node[0]);
    UNTIL(fated == said);
    assert_true(are(BUS_TAKEN, 1, sent) && are(BUS_DROPPED, sent + 1, sent + dropped) && are(BUS_TAKEN, sent + dropped + 1, said));
}

/* -ASK was said of what waited. When that has given way, what is new goes to the owner. */
static void
who_was_named_for_what_gave_way_is_not_asked(void **state)
{
    (void)state;
    const struct bus_topic others = {BUS_CHANNEL, VIEW("others")};
    conf.redis_out_queue = BOUND;
    migrating = node[1].deaf = true;
    publish(5);
    UNTIL(node[0].asks == 5 && metrics[BM_redis_queue_bytes] > 0);
    migrating = false;
    node[0].mute = true;
    while (fated < 5) {
        assert_true(others_said < 2000);
        publish_to(others, &others_said, 50, BIG);
        turns(3);
    }
    assert_true(are(BUS_DROPPED, 1, 5));
    node[1].deaf = false;
    publish_to(news, &said, 3, BIG); /* for which there is no room */
    struct mono from = mono_now();
    while (mono_since_ms(mono_now(), from) < 100)
        turn();
    assert_int_equal(node[1].told, 0);
    speak(&node[0]);
    UNTIL(fated == said && others_fated == others_said);
    assert_true(are(BUS_TAKEN, 6, 8));
    assert_int_equal(node[1].told, 0);
}

static void
it_ends_with_all_of_this_under_way(void **state)
{
    (void)state;
    fill();
    assert_true(bus->ops->publish(bus, (struct bus_topic){BUS_CONTROL, VIEW("all")}, VIEW("head"), VIEW("body"), 1));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(publishes_go_where_they_are_asked_to, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_move_that_is_given_up_leaves_the_slot_where_it_was, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_was_taken_behind_what_was_not_comes_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(subscriptions_wait_for_the_end_of_a_move, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_dropped_is_told_behind_what_is_under_way, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_was_under_way_when_a_link_is_lost_stands_before_what_waited, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_waited_when_a_link_is_lost_is_marked_too, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_slot_with_nothing_under_way_is_told_of_at_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_came_back_and_is_dropped_is_told_before_what_is_under_way, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_answered_behind_one_that_came_back_waits_for_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_slot_that_moves_keeps_what_is_told_in_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_node_that_never_answers_is_left_when_notes_fill_the_queue, set_up, tear_down),
        cmocka_unit_test_setup_teardown(notes_of_one_token_leave_room, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_was_named_for_what_gave_way_is_not_asked, set_up, tear_down),
        cmocka_unit_test_setup_teardown(it_ends_with_all_of_this_under_way, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
