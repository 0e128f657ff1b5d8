/* Stands in for the rings of two hosts, to load their brokers and nothing else: publishes at one, hears at the other (or
 * at the same one), by lanes. One thread; it sleeps as a ring does, when there is nothing to do.
 *
 *   flow      --in-flight publishes under way, counted when they were answered and have been heard
 *   pingpong  one at a time: the way from the publisher's lane to the subscriber's
 *
 * Of the brokers' own code it uses lanes and the attach (common/lane, proto/ipc): there is no other way in. */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "bench/hist.h"
#include "bench/proc.h"
#include "common/bug.h"
#include "common/lane.h"
#include "common/mono.h"
#include "common/shm.h"
#include "proto/ipc.h"

#define LANE_BYTES (4u << 20) /* lane.bytes as it is by default */
#define SECOND 1000000000ull
#define NAME_MAX_BYTES 64
#define CHANNELS_MAX 100000

/* One attached lane pair. */
struct end {
    int fd;
    struct ipc_segment *seg;
    struct lane out, in;
    uint64_t answered, failed, heard;
};

struct lanes {
    struct end pub, sub;
    const char *dir, *to_dir;
    uint32_t in_flight, payload, channels;
    uint64_t warmup_ns, duration_ns, sent, next_beat_ns;
    uint64_t heard_seq, wrong;
    bool deaf;
    struct proc_set near, far, redis;
    struct hist lat;
};

static void
say_hello(struct end *e, int segment_fd, uint32_t ring)
{
    struct ipc_hello h = {.magic = IPC_MAGIC, .table_hash = ipc_table_hash(), .version = IPC_VERSION,
        .lane_bytes = LANE_BYTES,
        .worker = 60, .ring = ring, .pid = getpid()};
    char control[CMSG_SPACE(sizeof segment_fd)] = {0};
    struct iovec iov = {&h, sizeof h};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    struct ipc_welcome w;
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof segment_fd);
    memcpy(CMSG_DATA(c), &segment_fd, sizeof segment_fd);
    if (sendmsg(e->fd, &m, MSG_NOSIGNAL) != sizeof h || recv(e->fd, &w, sizeof w, 0) != sizeof w)
        die("the broker does not answer: %s", strerror(errno));
    if (!w.ok)
        die("the broker refuses: %.100s", w.sentence);
}

static void
attach(struct end *e, const char *dir, uint32_t ring)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    void *map;
    snprintf(to.sun_path, sizeof to.sun_path, "%s/broker-0.sock", dir);
    e->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (e->fd < 0 || connect(e->fd, (struct sockaddr *)&to, sizeof to) != 0)
        die("%s: %s", to.sun_path, strerror(errno));
    int fd = shm_new("ringcast-lanes", ipc_segment_size(LANE_BYTES), &map);
    if (fd < 0)
        die("memory for lanes: %s", strerror(-fd));
    e->seg = map;
    e->seg->magic = IPC_MAGIC;
    e->seg->table_hash = ipc_table_hash();
    e->seg->version = IPC_VERSION;
    e->seg->lane_bytes = LANE_BYTES;
    atomic_store(&e->seg->worker_beat_ns, mono_now().ns);
    lane_init(&e->out, ipc_lane_out(e->seg), LANE_BYTES, true);
    lane_init(&e->in, ipc_lane_back(e->seg, LANE_BYTES), LANE_BYTES, false);
    say_hello(e, fd, ring);
    close(fd);
}

static uint8_t *
put(struct end *e, enum ipc_type type, uint8_t flags, uint16_t aux, uint32_t n)
{
    uint8_t *at = lane_put(&e->out, (uint8_t)type, flags, aux, n);
    if (at == NULL)
        die("a lane is full");
    return at;
}

static void
ring_bell(struct end *e)
{
    if (send(e->fd, IPC_BELL, 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno != EAGAIN)
        die("a broker has gone: %s", strerror(errno));
}

static uint32_t
name_put(char *out, uint64_t k)
{
    return (uint32_t)snprintf(out, NAME_MAX_BYTES, "lane-%06llu", (unsigned long long)k);
}

static void
subscribe_all(struct lanes *l)
{
    char name[NAME_MAX_BYTES];
    for (uint32_t k = 0; k < (l->deaf ? 0 : l->channels); k++) {
        uint32_t gen = 1, n = name_put(name, k);
        uint8_t *at = put(&l->sub, IPC_SUBSCRIBE, IPC_ANSWER, 0, 8 + n);
        memcpy(at, &k, 4);
        memcpy(at + 4, &gen, 4);
        memcpy(at + 8, name, n);
    }
    put(&l->sub, IPC_SYNC, IPC_ANSWER, 0, 0);
    put(&l->pub, IPC_SYNC, IPC_ANSWER, 0, 0);
}

/* Sixteen digits of base 16, the lowest first. */
static void
digits_put(uint8_t *out, uint64_t v)
{
    for (unsigned i = 0; i < 16; i++)
        out[i] = (uint8_t)"0123456789abcdef"[v >> 4 * i & 15];
}

static uint64_t
digits_get(const uint8_t *in)
{
    uint64_t v = 0;
    for (unsigned i = 16; i-- > 0;)
        v = v << 4 | (uint64_t)(in[i] <= '9' ? in[i] - '0' : in[i] - 'a' + 10);
    return v;
}

/* The data: a JSON text with its number and the time; brokers give other hosts' clients nothing else. */
static void
publish(struct lanes *l)
{
    char name[NAME_MAX_BYTES];
    uint32_t n = name_put(name, l->sent % l->channels);
    uint8_t *at = put(&l->pub, IPC_PUBLISH, IPC_ANSWER | IPC_HAS_DATA, (uint16_t)n, n + l->payload);
    memcpy(at, name, n);
    memset(at + n, 'x', l->payload);
    at[n] = at[n + l->payload - 1] = '"';
    digits_put(at + n + 1, l->sent++);
    digits_put(at + n + 17, mono_now().ns);
}

static void
on_heard(struct lanes *l, const uint8_t *p, uint32_t n)
{
    if (n != 16 + l->payload)
        die("a message of %u bytes", n);
    uint64_t seq = digits_get(p + 17);
    l->wrong += l->channels == 1 && seq != l->heard_seq;
    l->heard_seq = seq + 1;
    hist_add(&l->lat, mono_now().ns - digits_get(p + 33));
    l->sub.heard++;
}

static bool
drain(struct lanes *l, struct end *e)
{
    struct lane_record r;
    const uint8_t *p;
    uint32_t count;
    bool any = false;
    for (; lane_peek(&e->in, &r, &p) == LANE_RECORD; any = true) {
        switch (r.type) {
        case IPC_DONE:
            memcpy(&count, p, 4);
            e->answered += count;
            break;
        case IPC_FAILED: e->failed++; break;
        case IPC_MESSAGE: on_heard(l, p, r.n); break;
        case IPC_GAP: l->wrong++; break;
        default: break;
        }
        lane_take(&e->in, &r);
    }
    if (lane_release(&e->in))
        ring_bell(e);
    return any;
}

static void
beat(struct lanes *l, uint64_t now)
{
    if (now < l->next_beat_ns)
        return;
    l->next_beat_ns = now + SECOND / 5;
    atomic_store_explicit(&l->pub.seg->worker_beat_ns, now, memory_order_relaxed);
    atomic_store_explicit(&l->sub.seg->worker_beat_ns, now, memory_order_relaxed);
}

static void
wait_for_bell(struct lanes *l)
{
    struct pollfd p[2] = {{.fd = l->pub.fd, .events = POLLIN}, {.fd = l->sub.fd, .events = POLLIN}};
    char bells[64];
    bool a = lane_sleep(&l->pub.in), b = lane_sleep(&l->sub.in);
    if (a && b && poll(p, 2, 100) < 0 && errno != EINTR)
        die("poll: %s", strerror(errno));
    for (unsigned i = 0; i < 2; i++)
        if (p[i].revents != 0 && recv(p[i].fd, bells, sizeof bells, MSG_DONTWAIT) == 0)
            die("a broker has gone");
    if (a)
        lane_awake(&l->pub.in);
    if (b)
        lane_awake(&l->sub.in);
}

static uint64_t
arrived(const struct lanes *l)
{
    uint64_t answered = l->pub.answered + l->pub.failed;
    return l->deaf ? answered : MIN(answered, l->sub.heard);
}

static void
turn(struct lanes *l, bool publishing)
{
    beat(l, mono_now().ns);
    uint64_t under_way = l->sent - arrived(l);
    for (; publishing && under_way < l->in_flight; under_way++)
        publish(l);
    if (lane_publish(&l->pub.out))
        ring_bell(&l->pub);
    if (lane_publish(&l->sub.out))
        ring_bell(&l->sub);
    bool a = drain(l, &l->pub), b = drain(l, &l->sub);
    if (!a && !b)
        wait_for_bell(l);
}

static void
run_until(struct lanes *l, uint64_t end, bool publishing)
{
    while (mono_now().ns < end)
        turn(l, publishing);
}

/* All subscriptions are answered, or the process ends. */
static void
begin(struct lanes *l)
{
    attach(&l->pub, l->dir, 0);
    attach(&l->sub, l->to_dir, 1);
    subscribe_all(l);
    uint64_t end = mono_now().ns + 20 * SECOND;
    while (l->sub.answered < (l->deaf ? 0 : l->channels) + 1 || l->pub.answered < 1) {
        if (mono_now().ns > end || l->sub.failed > 0)
            die("%llu of %u subscriptions were answered, %llu refused", (unsigned long long)l->sub.answered, l->channels,
                (unsigned long long)l->sub.failed);
        turn(l, false);
    }
    l->sub.answered = l->pub.answered = 0;
}

static uint64_t
own_cpu_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * SECOND + (uint64_t)ts.tv_nsec;
}

static void
measure(struct lanes *l, const char *mode)
{
    run_until(l, mono_now().ns + l->warmup_ns, true);
    hist_reset(&l->lat);
    uint64_t t0 = mono_now().ns, n0 = arrived(l), own0 = own_cpu_ns();
    uint64_t near0 = proc_cpu_ns(&l->near), far0 = proc_cpu_ns(&l->far), redis0 = proc_cpu_ns(&l->redis);
    run_until(l, t0 + l->duration_ns, true);
    uint64_t t1 = mono_now().ns, n = arrived(l) - n0;
    double each = 1e3 * (double)MAX(n, 1u);
    double near = (double)(proc_cpu_ns(&l->near) - near0), far = (double)(proc_cpu_ns(&l->far) - far0);
    double redis = (double)(proc_cpu_ns(&l->redis) - redis0), own = (double)(own_cpu_ns() - own0);
    for (uint64_t end = mono_now().ns + 3 * SECOND; arrived(l) < l->sent && mono_now().ns < end;)
        turn(l, false);
    printf("{\"mode\":\"%s\",\"payload\":%u,\"in_flight\":%u,\"channels\":%u,\"heard\":%s,\"messages\":%llu,\"per_second\":%.0f,"
           "\"near_us\":%.4f,\"far_us\":%.4f,\"redis_us\":%.4f,\"own_us\":%.4f,\"near_core\":%.3f,\"redis_core\":%.3f,"
           "\"failed\":%llu,\"missing\":%llu,\"wrong\":%llu,\"p50_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f}\n", mode, l->payload,
        l->in_flight, l->channels, l->deaf ? "false" : "true", (unsigned long long)n, (double)n * 1e9 / (double)(t1 - t0),
        near / each, far / each, redis / each, own / each, near / (double)(t1 - t0), redis / (double)(t1 - t0),
        (unsigned long long)l->pub.failed, (unsigned long long)(l->sent - arrived(l)), (unsigned long long)l->wrong,
        (double)hist_quantile(&l->lat, 0.5) / 1e3, (double)hist_quantile(&l->lat, 0.99) / 1e3,
        (double)hist_quantile(&l->lat, 0.999) / 1e3);
}

static const char usage_text[] =
    "ringcast-lanes flow|pingpong --run-dir=DIR [options]: one line of JSON\n"
    "\n"
    "  --run-dir=DIR --to=DIR       where to publish; where to hear (the same)\n"
    "  --deaf                       nobody hears: answers are counted\n"
    "  --in-flight=N                flow: publishes under way (256)\n"
    "  --payload=B --channels=N     128, 1\n"
    "  --warmup=S --duration=S      0.5, 2\n"
    "  --near=P --far=P --redis=P   processes of which CPU time is told: the broker that is published to, the other, Redis\n"
    "  --cpu=N                      pin this process\n";

static uint32_t
number(const char *text, uint32_t min, uint32_t max)
{
    char *end;
    unsigned long v = strtoul(text, &end, 10);
    if (end == text || *end != 0 || v < min || v > max)
        die("%s: a number from %u to %u is wanted", text, min, max);
    return (uint32_t)v;
}

static void
pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0)
        die("cannot run on core %d: %s", cpu, strerror(errno));
}

static void
option(struct lanes *l, int id)
{
    switch (id) {
    case 'r': l->dir = optarg; break;
    case 't': l->to_dir = optarg; break;
    case 'x': l->deaf = true; break;
    case 'k': l->in_flight = number(optarg, 1, 16384); break;
    case 'b': l->payload = number(optarg, 34, 1024); break;
    case 'n': l->channels = number(optarg, 1, CHANNELS_MAX); break;
    case 'w': l->warmup_ns = (uint64_t)(strtod(optarg, NULL) * 1e9); break;
    case 'd': l->duration_ns = (uint64_t)(strtod(optarg, NULL) * 1e9); break;
    case 'N': proc_add(&l->near, (pid_t)number(optarg, 1, 1u << 30), true); break;
    case 'F': proc_add(&l->far, (pid_t)number(optarg, 1, 1u << 30), true); break;
    case 'R': proc_add(&l->redis, (pid_t)number(optarg, 1, 1u << 30), true); break;
    case 'C': pin((int)number(optarg, 0, 4095)); break;
    default: die("%s", usage_text);
    }
}

int
main(int argc, char **argv)
{
    static const struct option longs[] = {{"run-dir", 1, NULL, 'r'}, {"to", 1, NULL, 't'}, {"deaf", 0, NULL, 'x'},
        {"in-flight", 1, NULL, 'k'}, {"payload", 1, NULL, 'b'}, {"channels", 1, NULL, 'n'}, {"warmup", 1, NULL, 'w'},
        {"duration", 1, NULL, 'd'}, {"near", 1, NULL, 'N'}, {"far", 1, NULL, 'F'}, {"redis", 1, NULL, 'R'},
        {"cpu", 1, NULL, 'C'}, {NULL, 0, NULL, 0}};
    static struct lanes l = {.in_flight = 256, .payload = 128, .channels = 1, .warmup_ns = SECOND / 2,
        .duration_ns = 2 * SECOND};
    for (int id; (id = getopt_long(argc, argv, "", longs, NULL)) != -1;)
        option(&l, id);
    if (optind != argc - 1 || l.dir == NULL)
        die("%s", usage_text);
    bool pingpong = strcmp(argv[optind], "pingpong") == 0;
    if (!pingpong && strcmp(argv[optind], "flow") != 0)
        die("%s", usage_text);
    l.in_flight = pingpong ? 1 : l.in_flight;
    l.to_dir = l.to_dir != NULL ? l.to_dir : l.dir;
    if (l.deaf)
        l.to_dir = l.dir;
    begin(&l);
    measure(&l, argv[optind]);
    return l.pub.failed + l.wrong + (l.sent - arrived(&l)) > 0 ? 2 : 0;
}
