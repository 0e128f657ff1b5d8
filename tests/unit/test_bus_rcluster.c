/* broker/bus_rcluster against a real cluster: what is published arrives, in order, while slots move, nodes are killed, stopped
 * and promoted. Two buses, each on a ring of its own, as two hosts. A message is a number; what is missing must have been
 * told as lost. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "broker/broker.h"
#include "broker/bus.h"
#include "broker/metrics.h"
#include "broker/rnodes.h"
#include "proto/slot.h"
#include "tests/unit/t_redis.h"

#define CHANNELS 64
#define WAIT_MS T_REDIS_WAIT_MS

struct heard {
    uint64_t last;      /* number */
    uint64_t missing;   /* numbers jumped over */
    uint64_t untold;    /* ... without a loss told since the one before */
    uint64_t again;     /* not above the last */
    bool lost;          /* told since the last message */
    bool joined;
    unsigned joins, losses;
};

struct host {
    struct ring ring;
    struct conf conf;
    struct bus *bus;
    uint64_t metrics[BM_COUNT];
    struct heard channel[CHANNELS];
    uint64_t said[CHANNELS];     /* last number published */
    uint64_t fated[CHANNELS];    /* last number whose fate is known */
    uint64_t taken, dropped, refused;
    unsigned controls, control_joins, fates_of_controls;
    enum bus_state state;
};

static struct t_cluster cluster;
static struct host a, b;

/* How the cluster of now is reached. */
static const char *host_text = "127.0.0.1", *scheme = "redis";
static char keys[64]; /* of a cluster with TLS and a user */

/* -- ears -- */

static int
channel_of(struct view name)
{
    char text[32];
    unsigned n;
    snprintf(text, sizeof text, "%.*s", VIEW_FMT(name));
    if (sscanf(text, "c%u", &n) != 1 || n >= CHANNELS)
        fail_msg("nobody knows the channel %s", text);
    return (int)n;
}

static void
on_message(void *arg, struct bus_topic topic, struct view bytes)
{
    struct host *h = arg;
    uint64_t number;
    if (topic.kind == BUS_CONTROL) {
        assert_true(view_eq(topic.name, VIEW("all")));
        h->controls++;
        return;
    }
    struct heard *x = &h->channel[channel_of(topic.name)];
    assert_int_equal(bytes.n, 12);
    memcpy(&number, bytes.p + 4, 8);
    assert_true(x->joined);
    if (number <= x->last) {
        x->again++;
        return;
    }
    x->missing += number - x->last - 1;
    if (!x->lost)
        x->untold += number - x->last - 1;
    x->lost = false;
    x->last = number;
}

static void
on_joined(void *arg, struct bus_topic topic)
{
    struct host *h = arg;
    if (topic.kind == BUS_CONTROL) {
        h->control_joins++;
        return;
    }
    struct heard *x = &h->channel[channel_of(topic.name)];
    assert_false(x->joined);
    x->joined = true;
    x->joins++;
}

static void
on_lost(void *arg, struct bus_topic topic)
{
    struct host *h = arg;
    struct heard *x = &h->channel[channel_of(topic.name)];
    assert_true(x->joined);
    x->joined = false;
    x->lost = true;
    x->losses++;
}

static void
on_fate(void *arg, struct bus_topic topic, uint64_t token, enum bus_fate fate)
{
    struct host *h = arg;
    if (topic.kind == BUS_CONTROL) {
        h->fates_of_controls++;
        return;
    }
    int c = channel_of(topic.name);
    assert_int_equal(token, h->fated[c] + 1); /* each once, in order */
    h->fated[c] = token;
    h->taken += fate == BUS_TAKEN;
    h->dropped += fate == BUS_DROPPED;
    h->refused += fate == BUS_REFUSED;
}

static void
on_state(void *arg, enum bus_state state, const char *why)
{
    struct host *h = arg;
    assert_true(state != h->state);
    assert_true((why == NULL) == (state == BUS_UP));
    h->state = state;
}

static const struct bus_ears ears = {on_message, on_joined, on_lost, on_fate, on_state};

/* -- hosts -- */

static void
host_open(struct host *h, const char *urls)
{
    struct conf_error err = {{0}};
    *h = (struct host){.state = BUS_DOWN};
    assert_int_equal(ring_init(&h->ring, 256, 4096), 0);
    conf_defaults(&h->conf);
    assert_true(conf_set(&h->conf, "redis.url", urls, "test", &err));
    assert_true(conf_set(&h->conf, "redis.mode", "cluster", "test", &err));
    if (keys[0] != 0) {
        char path[128];
        snprintf(path, sizeof path, "%s/ca.pem", keys);
        assert_true(conf_set(&h->conf, "redis.tls_ca", path, "test", &err));
        assert_true(conf_set(&h->conf, "redis.user", "ringcast", "test", &err));
        assert_true(conf_set(&h->conf, "redis.password_file", t_redis_secret(keys, "password", "what-hosts-know"), "test", &err));
    }
    assert_true(conf_set(&h->conf, "redis.cluster_refresh", "1s", "test", &err));
    assert_ptr_equal(bus_chosen(&h->conf), &bus_rcluster);
    assert_true(conf_set(&h->conf, "redis.timeout", "1s", "test", &err));
    assert_true(conf_set(&h->conf, "redis.ping_interval", "300ms", "test", &err));
    assert_true(conf_set(&h->conf, "redis.backoff_max", "300ms", "test", &err));
    h->bus = bus_rcluster.open(&h->conf, &h->ring, h->metrics, &ears, h, &err);
    if (h->bus == NULL)
        fail_msg("%s", err.text);
}

static void
host_close(struct host *h)
{
    h->bus->ops->close(h->bus);
    ring_fini(&h->ring);
    conf_free(&h->conf);
}

static void
done(void *arg, struct ring_done d)
{
    struct host *h = arg;
    h->bus->ops->on_done(h->bus, d);
}

static void
host_turn(struct host *h)
{
    uint32_t ms = h->bus->ops->turn(h->bus, mono_now());
    ring_wait(&h->ring, (uint64_t)(ms > 0) * 200000);
    ring_reap(&h->ring, done, h);
}

static void
turns(unsigned n)
{
    while (n-- > 0) {
        host_turn(&a);
        host_turn(&b);
    }
}

static void
until(bool (*is)(void), const char *what)
{
    struct mono from = mono_now();
    while (!is()) {
        if (mono_since_ms(mono_now(), from) > WAIT_MS)
            fail_msg("waited in vain: %s", what);
        turns(1);
    }
}

static struct bus_topic
topic(unsigned c)
{
    static char text[4][16];
    static unsigned at;
    char *p = text[at++ % 4];
    snprintf(p, sizeof text[0], "c%u", c);
    return (struct bus_topic){BUS_CHANNEL, view_str(p)};
}

static unsigned
slot_of_channel(unsigned c)
{
    char text[32];
    snprintf(text, sizeof text, "ringcast:c%u", c);
    return slot_of(view_str(text));
}

static void
publish(struct host *h, unsigned c)
{
    uint64_t number = ++h->said[c];
    if (!h->bus->ops->publish(h->bus, topic(c), view_of("\0\0\0\0", 4), view_of(&number, 8), number))
        fail_msg("the bus does not take message %llu of c%u", (unsigned long long)number, c);
}

static void
publish_all(struct host *h)
{
    for (unsigned c = 0; c < CHANNELS; c++)
        publish(h, c);
}

static bool
are_up(void)
{
    return a.state == BUS_UP && b.state == BUS_UP;
}

static bool
b_has_joined_all(void)
{
    for (unsigned c = 0; c < CHANNELS; c++)
        if (!b.channel[c].joined)
            return false;
    return true;
}

static bool
all_fates_are_known(void)
{
    return memcmp(a.said, a.fated, sizeof a.said) == 0;
}

static bool
b_has_heard_all(void)
{
    for (unsigned c = 0; c < CHANNELS; c++)
        if (b.channel[c].last != a.said[c])
            return false;
    return all_fates_are_known();
}

static uint64_t
sum(size_t at)
{
    uint64_t n = 0;
    for (unsigned c = 0; c < CHANNELS; c++)
        n += *(const uint64_t *)(const void *)((const char *)&b.channel[c] + at);
    return n;
}
#define SUM(field) sum(offsetof(struct heard, field))

static void
begin(void)
{
    char urls[256];
    snprintf(urls, sizeof urls, "%s://%s:%u,%s://%s:%u", scheme, host_text, cluster.node[1].port, scheme, host_text, cluster.node[2].port);
    host_open(&a, urls);
    host_open(&b, urls);
    for (unsigned c = 0; c < CHANNELS; c++)
        assert_true(b.bus->ops->join(b.bus, topic(c)));
    until(are_up, "both buses are up");
    until(b_has_joined_all, "all topics are confirmed");
    publish_all(&a);
    until(b_has_heard_all, "the first messages arrive");
    assert_int_equal(SUM(missing), 0);
}

/* Whatever happened: all flows again, and everything that was said has arrived or is told. */
static void
finish(const char *what)
{
    until(are_up, "both buses are up again");
    until(b_has_joined_all, "all topics are confirmed again");
    until(all_fates_are_known, "all fates are known");
    publish_all(&a);
    until(b_has_heard_all, "the last messages arrive");
    uint64_t all = 0, heard = 0;
    for (unsigned c = 0; c < CHANNELS; c++) {
        all += a.said[c];
        heard += b.channel[c].last - b.channel[c].missing;
        assert_int_equal(b.channel[c].joins, b.channel[c].losses + 1);
    }
    print_message("%s: %llu messages, %llu heard, %llu missing and told, %llu twice, %llu dropped; moved %llu maps %llu\n", what,
        (unsigned long long)all, (unsigned long long)heard, (unsigned long long)SUM(missing), (unsigned long long)SUM(again),
        (unsigned long long)a.dropped, (unsigned long long)a.metrics[BM_redis_moved_total],
        (unsigned long long)a.metrics[BM_redis_map_refreshes_total]);
    assert_int_equal(all, heard + SUM(missing));
    assert_int_equal(SUM(untold), 0);
    assert_int_equal(a.refused, 0);
    assert_int_equal(a.metrics[BM_redis_queue_bytes], 0);
    host_close(&a);
    host_close(&b);
}

/* -- tests -- */

static bool
controls_are_joined(void)
{
    return a.control_joins == 1 && b.control_joins == 1;
}

static bool
control_was_heard(void)
{
    return a.controls > 0 && b.controls > 0 && a.fates_of_controls == 1;
}

static bool
all_copies_are_joined(void)
{
    return a.metrics[BM_redis_topics] == 3 && b.metrics[BM_redis_topics] == CHANNELS + 3;
}

static bool
controls_are_joined_again(void)
{
    return a.control_joins == 2 && b.control_joins == 2;
}

/* What was said on a control topic may have gone by one node alone. */
static void
a_control_topic_whose_link_to_one_node_was_lost_is_told_as_back(void **state)
{
    const struct bus_topic all = {BUS_CONTROL, VIEW("all")};
    (void)state;
    begin();
    assert_true(a.bus->ops->join(a.bus, all) && b.bus->ops->join(b.bus, all));
    until(all_copies_are_joined, "the control topic is confirmed by all nodes");
    assert_true(controls_are_joined());
    t_redis_expect(&cluster.node[1], "2", "CLIENT KILL TYPE pubsub");
    until(controls_are_joined_again, "it is told as back");
    a.bus->ops->leave(a.bus, all);
    turns(20);
    assert_true(a.bus->ops->join(a.bus, all));
    until(all_copies_are_joined, "it is confirmed by all nodes again");
    turns(20);
    assert_int_equal(a.control_joins, 3); /* once for a join */
    finish("a link that hears was lost");
}

static bool
b_waits_for_nothing(void)
{
    return b.metrics[BM_redis_topics_waiting] == 0 && b.metrics[BM_redis_topics] == 0;
}

static bool
has_no_shard_channels(void *node)
{
    return t_redis_ask(node, "PUBSUB SHARDCHANNELS")[0] == 0;
}

static void
what_is_published_arrives(void **state)
{
    const struct bus_topic all = {BUS_CONTROL, VIEW("all")};
    (void)state;
    begin();
    assert_int_equal(a.metrics[BM_redis_primaries], 3);
    assert_true(a.bus->ops->join(a.bus, all) && b.bus->ops->join(b.bus, all));
    until(controls_are_joined, "the control topic is confirmed");
    assert_true(a.bus->ops->is_up(a.bus, all) && a.bus->ops->is_up(a.bus, topic(0)));
    assert_true(a.bus->ops->publish(a.bus, all, VIEW("head"), VIEW("body"), 7));
    until(control_was_heard, "a control message arrives");
    b.bus->ops->leave(b.bus, all);
    for (int i = 0; i < 200; i++) {
        publish_all(&a);
        host_turn(&a);
    }
    char text[1024];
    struct buf out = buf_fixed(text, sizeof text - 1);
    a.bus->ops->describe(a.bus, &out);
    text[out.n] = 0;
    assert_non_null(strstr(text, " up slots=5461"));
    until(b_has_heard_all, "all arrive");
    assert_int_equal(SUM(missing) + SUM(again), 0);
    finish("at rest");
}

static void
topics_are_left_and_joined(void **state)
{
    (void)state;
    begin();
    for (unsigned round = 0; round < 50; round++) { /* in all states between */
        for (unsigned c = 0; c < CHANNELS; c++) {
            b.bus->ops->leave(b.bus, topic(c));
            b.channel[c].joined = false;
        }
        if (round % 3)
            host_turn(&b);
        for (unsigned c = round % 7 == 0; c < CHANNELS; c++)
            assert_true(b.bus->ops->join(b.bus, topic(c)));
        if (round % 2)
            host_turn(&b);
    }
    assert_true(b.bus->ops->join(b.bus, topic(0)));
    until(b_has_joined_all, "all are joined in the end");
    for (unsigned c = 0; c < CHANNELS; c++) {
        b.bus->ops->leave(b.bus, topic(c));
        b.channel[c] = (struct heard){.joined = false};
    }
    until(b_waits_for_nothing, "all are left");
    for (unsigned i = 0; i < 3; i++)
        t_redis_until(has_no_shard_channels, &cluster.node[i], "the servers have no channels");
    publish_all(&a);
    until(all_fates_are_known, "fates are known");
    turns(20);
    assert_int_equal(SUM(last), 0);
    for (unsigned c = 0; c < CHANNELS; c++) {
        b.channel[c].last = a.said[c];
        assert_true(b.bus->ops->join(b.bus, topic(c)));
    }
    finish("left and joined");
}

static void
slots_move_while_messages_flow(void **state)
{
    (void)state;
    begin();
    for (unsigned i = 0; i < 20; i++) {
        unsigned slot = slot_of_channel(i % 5);
        int owner = t_cluster_owner(&cluster, slot);
        publish_all(&a);
        host_turn(&a);
        t_cluster_move(&cluster, slot, ((unsigned)owner + 1) % 3);
        for (int k = 0; k < 10; k++) {
            publish_all(&a);
            turns(3);
        }
    }
    assert_true(a.metrics[BM_redis_moved_total] > 0);
    assert_int_equal(a.dropped, 0);
    finish("20 slots moved");
}

static const struct t_redis *between;

static bool
c0_is_left(void)
{
    const char *said = strstr(t_redis_ask(between, "PUBSUB SHARDNUMSUB ringcast:c0"), "\n");
    return said != NULL && said[1] == '0';
}

/* For longer than a moment, and there and back again. */
static void
a_slot_stays_between_two_nodes(void **state)
{
    unsigned slot = slot_of_channel(0), from = (unsigned)t_cluster_owner(&cluster, slot), to = (from + 1) % 3;
    (void)state;
    begin();
    t_redis_expect(&cluster.node[to], "OK", "CLUSTER SETSLOT %u IMPORTING %s", slot, cluster.node[from].id);
    t_redis_expect(&cluster.node[from], "OK", "CLUSTER SETSLOT %u MIGRATING %s", slot, cluster.node[to].id);
    /* A key of that slot would be asked for elsewhere; the channel is not. */
    t_redis_expect(&cluster.node[from], "ERR:ASK", "GET ringcast:c0");
    t_redis_expect(&cluster.node[from], "0", "SPUBLISH ringcast:c0/{ringcast:c0} nobody");
    b.bus->ops->leave(b.bus, topic(0));
    b.channel[0].joined = false;
    between = &cluster.node[from];
    until(c0_is_left, "the topic is left");
    assert_true(b.bus->ops->join(b.bus, topic(0)));
    until(b_has_joined_all, "a topic of such a slot is confirmed");
    for (unsigned i = 0; i < 50; i++) {
        publish_all(&a);
        turns(2);
    }
    until(b_has_heard_all, "all arrive");
    assert_int_equal(SUM(missing), 0);
    t_redis_expect(&cluster.node[from], "OK", "CLUSTER SETSLOT %u STABLE", slot);
    t_redis_expect(&cluster.node[to], "OK", "CLUSTER SETSLOT %u STABLE", slot);
    b.channel[0].losses++; /* it left by itself */
    finish("a slot between two nodes");
}

static bool
cluster_works(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < cluster.n; i++)
        if (!t_redis_info_has(&cluster.node[i], "cluster_state:ok") || (!t_redis_info_has(&cluster.node[i], "role:master") &&
            !t_redis_info_has(&cluster.node[i], "master_link_status:up")))
            return false;
    return true;
}

/* An operator's failover is refused, or given up, when the replica is not in step. */
static bool
fails_over_to(void *arg)
{
    int node = *(int *)arg;
    struct mono from = mono_now();
    if (t_cluster_owner(&cluster, 0) != node)
        (void)t_redis_ask(&cluster.node[node], "CLUSTER FAILOVER");
    while (t_cluster_owner(&cluster, 0) != node)
        if (mono_since_ms(mono_now(), from) > 2000)
            return false;
    return cluster_works(NULL) && t_cluster_agrees(&cluster, 0, (unsigned)node);
}

/* Messages all the time, until somebody else owns slot 0. */
static void
flow_until_owned_by(int node)
{
    struct mono from = mono_now();
    for (unsigned i = 0; i % 50 != 0 || t_cluster_owner(&cluster, 0) != node; i++) {
        if (mono_since_ms(mono_now(), from) > WAIT_MS)
            fail_msg("node %d never owned slot 0", node);
        if (i % 4 == 0)
            publish_all(&a);
        turns(1);
    }
    for (unsigned i = 0; i < 200; i++) {
        publish_all(&a);
        turns(2);
    }
}

static void
a_replica_is_promoted_by_hand(void **state)
{
    int first = 0;
    (void)state;
    begin();
    t_redis_expect(&cluster.node[3], "OK", "CLUSTER FAILOVER");
    flow_until_owned_by(3);
    finish("CLUSTER FAILOVER");
    t_redis_until(fails_over_to, &first, "the first is back");
}

static void
a_primary_is_killed(void **state)
{
    int first = 0;
    (void)state;
    begin();
    t_redis_kill(&cluster.node[0]);
    flow_until_owned_by(3);
    finish("kill -9 of a primary");
    t_redis_restart(&cluster.node[0]);
    t_redis_until(cluster_works, NULL, "the cluster is in step");
    t_redis_until(fails_over_to, &first, "the first is back");
}

static void
a_primary_stands_still(void **state)
{
    int first = 0;
    (void)state;
    begin();
    t_redis_pause(&cluster.node[0]);
    struct mono from = mono_now();
    for (unsigned i = 0; mono_since_ms(mono_now(), from) < 4000; i++) {
        if (i % 4 == 0)
            publish_all(&a);
        turns(1);
    }
    t_redis_resume(&cluster.node[0]);
    flow_until_owned_by(3);
    finish("SIGSTOP of a primary");
    t_redis_until(cluster_works, NULL, "the cluster is in step");
    t_redis_until(fails_over_to, &first, "the first is back");
}

static int
set_up(void **state)
{
    (void)state;
    t_cluster_start(&cluster, 3, 1, "");
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    t_cluster_end(&cluster);
    return 0;
}

/* TLS alone, certificates for a name alone, by which the nodes know each other, too; a default user with a password, and one
 * for us who may do what docs/ops/redis.md says and no more: as clusters are that one can rent. */
static int
set_up_guarded(void **state)
{
    char more[1500];
    (void)state;
    t_redis_keys(keys);
    t_redis_certificate(keys, "server", "subjectAltName=DNS:localhost");
    snprintf(more, sizeof more, T_REDIS_TLS " --tls-cluster yes --cluster-announce-hostname localhost --cluster-preferred-endpoint-type hostname "
        "--requirepass " T_REDIS_PASSWORD " --masterauth " T_REDIS_PASSWORD " --user ringcast on >what-hosts-know resetchannels "
        "&ringcast:* &ringcast/* -@all +spublish +ssubscribe +sunsubscribe +asking +ping +client|setname +cluster|slots +cluster|info",
        keys, keys, keys);
    host_text = "localhost";
    scheme = "rediss";
    t_cluster_start(&cluster, 3, 1, more);
    return 0;
}

static int
tear_down_guarded(void **state)
{
    t_redis_keys_end(keys);
    keys[0] = 0;
    return tear_down(state);
}

static void
nobody_comes_in_without_a_password(void **state)
{
    (void)state;
    begin();
    t_redis_expect(&cluster.node[0], "OK", "ACL SETUSER ringcast >another <what-hosts-know");
    t_redis_expect(&cluster.node[0], "", "CLIENT KILL TYPE normal");
    t_redis_expect(&cluster.node[0], "", "CLIENT KILL TYPE pubsub");
    struct mono from = mono_now();
    while (a.metrics[BM_redis_errors_total] == 0 || a.state != BUS_PARTLY) {
        if (mono_since_ms(mono_now(), from) > WAIT_MS)
            fail_msg("a node takes a password that it does not know");
        turns(1);
    }
    t_redis_expect(&cluster.node[0], "OK", "ACL SETUSER ringcast >what-hosts-know <another");
    finish("a password that came back");
}

/* All of it over IPv6; redirections, too, name such addresses. */
static int
set_up_v6(void **state)
{
    (void)state;
    host_text = "[::1]";
    scheme = "redis";
    t_cluster_start(&cluster, 3, 0, "--bind ::1");
    return 0;
}

static bool
has_v6(void)
{
    struct sockaddr_in6 sin = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool has = fd >= 0 && bind(fd, (struct sockaddr *)&sin, sizeof sin) == 0;
    if (fd >= 0)
        close(fd);
    return has;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_published_arrives),
        cmocka_unit_test(a_control_topic_whose_link_to_one_node_was_lost_is_told_as_back),
        cmocka_unit_test(topics_are_left_and_joined),
        cmocka_unit_test(slots_move_while_messages_flow),
        cmocka_unit_test(a_slot_stays_between_two_nodes),
        cmocka_unit_test(a_replica_is_promoted_by_hand),
    };
    /* Each in a cluster of its own: a replica of redis-server 7.0 that was promoted before may come forward with the epoch of
     * that time when its primary dies, and the others never follow it. */
    const struct CMUnitTest killed[] = {cmocka_unit_test(a_primary_is_killed)};
    const struct CMUnitTest still[] = {cmocka_unit_test(a_primary_stands_still)};
    const struct CMUnitTest guarded[] = {
        cmocka_unit_test(what_is_published_arrives),
        cmocka_unit_test(a_primary_is_killed),
        cmocka_unit_test(slots_move_while_messages_flow),
        cmocka_unit_test(nobody_comes_in_without_a_password),
    };
    const struct CMUnitTest v6[] = {
        cmocka_unit_test(what_is_published_arrives),
        cmocka_unit_test(slots_move_while_messages_flow),
    };
    if (!t_redis_there()) {
        printf("skipped: there is no redis-server\n");
        return 0;
    }
    int failed = cmocka_run_group_tests(tests, set_up, tear_down);
    failed += cmocka_run_group_tests(killed, set_up, tear_down);
    failed += cmocka_run_group_tests(still, set_up, tear_down);
    failed += cmocka_run_group_tests(guarded, set_up_guarded, tear_down_guarded);
    if (has_v6())
        failed += cmocka_run_group_tests(v6, set_up_v6, tear_down);
    else
        printf("skipped: nodes at ::1, which this machine does not have\n");
    return failed;
}
