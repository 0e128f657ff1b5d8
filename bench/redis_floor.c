/* What Redis itself does with a publish, by a program with nothing else in it: plain sockets, no library, answers
 * counted and not parsed. What bench/redis holds Ringcast against, and where docs/scaling.md has its costs from.
 *
 *   pingpong  publish, wait until it came back by another connection, again: a bare round trip
 *   flow      --pipeline publishes under way, --subscribers connections that hear each of them
 *
 * It can measure one server only; for cluster nodes --subscribe-port names another one to subscribe at. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "bench/hist.h"
#include "bench/proc.h"
#include "common/bug.h"
#include "common/mono.h"

#define SUBSCRIBERS_MAX 256
#define IN_BYTES (256u << 10)
#define SECOND 1000000000ull

struct side {
    int fd;
    uint64_t bytes, events; /* come in; of a publisher: answers */
};

struct floor_run {
    uint16_t port, subscribe_port;
    uint32_t payload, pipeline, subscribers;
    uint64_t warmup_ns, duration_ns;
    const char *channel, *publish, *subscribe;
    struct proc_set redis;
    struct side pub, sub[SUBSCRIBERS_MAX];
    char *command; /* as it is sent, `pipeline` times */
    uint32_t command_n, message_n;
    uint32_t half; /* bytes of a command that was sent in part */
    uint64_t sent;
    struct hist lat;
};

static uint8_t in[IN_BYTES];

static int
dial(uint16_t port, bool nonblock)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) != 0)
        die("127.0.0.1:%u: %s", port, strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (nonblock && fcntl(fd, F_SETFL, O_NONBLOCK) != 0)
        die("fcntl: %s", strerror(errno));
    return fd;
}

/* All of it, or the process ends. */
static void
send_all(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
        if (k <= 0)
            die("Redis does not take what is sent: %s", strerror(errno));
        p += k;
        n -= (size_t)k;
    }
}

/* Joins the channel and waits for the confirmation; its length does not depend on Redis: "*3", the command's name in
 * lower case, the channel, ":1". */
static int
subscriber(const struct floor_run *r, bool nonblock)
{
    char text[512], back[512];
    int fd = dial(r->subscribe_port, false);
    int n = snprintf(text, sizeof text, "*2\r\n$%zu\r\n%s\r\n$%zu\r\n%s\r\n", strlen(r->subscribe), r->subscribe,
        strlen(r->channel), r->channel);
    send_all(fd, text, (size_t)n);
    size_t want = (size_t)n + 4; /* the same words and ":1\r\n" */
    if (recv(fd, back, want, MSG_WAITALL) != (ssize_t)want || back[0] != '*')
        die("%s was answered with %.60s", r->subscribe, back);
    if (nonblock && fcntl(fd, F_SETFL, O_NONBLOCK) != 0)
        die("fcntl: %s", strerror(errno));
    return fd;
}

static void
make_command(struct floor_run *r)
{
    bool shard = r->publish[0] == 'S';
    size_t room = 256 + strlen(r->channel) + r->payload;
    char *text = xmalloc(room), *payload = xmalloc(r->payload + 1u);
    memset(payload, 'x', r->payload);
    payload[r->payload] = 0;
    r->command_n = (uint32_t)snprintf(text, room, "*3\r\n$%zu\r\n%s\r\n$%zu\r\n%s\r\n$%u\r\n%s\r\n", strlen(r->publish),
        r->publish, strlen(r->channel), r->channel, r->payload, payload);
    r->message_n = (uint32_t)snprintf(NULL, 0, "*3\r\n$%d\r\n%s\r\n$%zu\r\n%s\r\n$%u\r\n%s\r\n", shard ? 8 : 7,
        shard ? "smessage" : "message", strlen(r->channel), r->channel, r->payload, payload);
    r->command = xmalloc((size_t)r->command_n * r->pipeline);
    for (uint32_t i = 0; i < r->pipeline; i++)
        memcpy(r->command + (size_t)i * r->command_n, text, r->command_n);
    free(text);
    free(payload);
}

static bool
take(struct side *s, bool answers)
{
    ssize_t n = recv(s->fd, in, sizeof in, 0);
    if (n < 0 && errno == EAGAIN)
        return false;
    if (n <= 0)
        die("Redis has closed the connection");
    s->bytes += (uint64_t)n;
    for (ssize_t i = 0; answers && i < n; i++) {
        s->events += in[i] == '\n';
        if (in[i] == '-')
            die("Redis answers with an error: %.*s", (int)(n - i), (const char *)in + i);
    }
    return true;
}

static uint64_t
slowest(const struct floor_run *r)
{
    uint64_t least = r->pub.events;
    for (uint32_t i = 0; i < r->subscribers; i++)
        least = MIN(least, r->sub[i].bytes / r->message_n);
    return least;
}

/* Sends as many as may be under way; a command that fits only in part is finished first. */
static void
fill(struct floor_run *r)
{
    uint64_t room = r->pipeline - MIN(r->pipeline, r->sent - slowest(r));
    size_t n = room * r->command_n;
    if (n <= r->half)
        return;
    ssize_t k = send(r->pub.fd, r->command + r->half, n - r->half, MSG_NOSIGNAL);
    if (k < 0 && errno != EAGAIN)
        die("Redis does not take what is sent: %s", strerror(errno));
    size_t all = r->half + (size_t)MAX(k, 0);
    r->sent += all / r->command_n;
    r->half = (uint32_t)(all % r->command_n);
}

static void
flow_until(struct floor_run *r, uint64_t end)
{
    struct pollfd p[SUBSCRIBERS_MAX + 1] = {{.fd = r->pub.fd, .events = POLLIN}};
    for (uint32_t i = 0; i < r->subscribers; i++)
        p[i + 1] = (struct pollfd){.fd = r->sub[i].fd, .events = POLLIN};
    while (mono_now().ns < end) {
        fill(r);
        if (poll(p, r->subscribers + 1, 100) < 0 && errno != EINTR)
            die("poll: %s", strerror(errno));
        if (p[0].revents != 0)
            take(&r->pub, true);
        for (uint32_t i = 0; i < r->subscribers; i++)
            if (p[i + 1].revents != 0)
                take(&r->sub[i], false);
    }
}

static void
pingpong_until(struct floor_run *r, uint64_t end)
{
    while (mono_now().ns < end) {
        uint64_t t0 = mono_now().ns;
        uint8_t answer[64];
        send_all(r->pub.fd, r->command, r->command_n);
        if (recv(r->sub[0].fd, in, r->message_n, MSG_WAITALL) != (ssize_t)r->message_n)
            die("Redis has closed the connection");
        hist_add(&r->lat, mono_now().ns - t0);
        r->pub.events++;
        if (recv(r->pub.fd, answer, sizeof answer, 0) <= 0 || answer[0] != ':')
            die("Redis answers with an error");
    }
}

static uint64_t
own_cpu_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * SECOND + (uint64_t)ts.tv_nsec;
}

static void
run(struct floor_run *r, const char *mode)
{
    bool flow = strcmp(mode, "flow") == 0;
    void (*until)(struct floor_run *, uint64_t) = flow ? flow_until : pingpong_until;
    if (!flow && strcmp(mode, "pingpong") != 0)
        die("\"%s\": pingpong or flow is wanted", mode);
    r->subscribers = flow ? r->subscribers : 1;
    make_command(r);
    for (uint32_t i = 0; i < r->subscribers; i++)
        r->sub[i].fd = subscriber(r, flow);
    r->pub.fd = dial(r->port, flow);
    until(r, mono_now().ns + r->warmup_ns);
    hist_reset(&r->lat);
    uint64_t t0 = mono_now().ns, n0 = slowest(r), cpu0 = proc_cpu_ns(&r->redis), own0 = own_cpu_ns();
    uint64_t ping0 = r->pub.events;
    until(r, t0 + r->duration_ns);
    uint64_t t1 = mono_now().ns, n = flow ? slowest(r) - n0 : r->pub.events - ping0;
    double seconds = (double)(t1 - t0) / 1e9, each = 1e3 * (double)MAX(n, 1u);
    printf("{\"mode\":\"%s\",\"command\":\"%s\",\"payload\":%u,\"subscribers\":%u,\"pipeline\":%u,\"messages\":%llu,"
           "\"per_second\":%.0f,\"redis_us\":%.4f,\"redis_core\":%.3f,\"own_us\":%.4f,\"p50_us\":%.1f,\"p99_us\":%.1f,"
           "\"p999_us\":%.1f}\n", mode, r->publish, r->payload, r->subscribers, flow ? r->pipeline : 1,
        (unsigned long long)n, (double)n / seconds, (double)(proc_cpu_ns(&r->redis) - cpu0) / each,
        (double)(proc_cpu_ns(&r->redis) - cpu0) / (double)(t1 - t0), (double)(own_cpu_ns() - own0) / each,
        (double)hist_quantile(&r->lat, 0.5) / 1e3, (double)hist_quantile(&r->lat, 0.99) / 1e3,
        (double)hist_quantile(&r->lat, 0.999) / 1e3);
}

static const char usage_text[] =
    "ringcast-redis-floor pingpong|flow [options]: one line of JSON\n"
    "\n"
    "  --port=N --subscribe-port=N  on 127.0.0.1: where to publish (6379), where to subscribe (the same)\n"
    "  --channel=NAME --payload=B   bench, 128\n"
    "  --sharded                    SPUBLISH and SSUBSCRIBE in place of PUBLISH and SUBSCRIBE\n"
    "  --pipeline=N                 flow: publishes under way (64)\n"
    "  --subscribers=N              flow: connections that hear the channel (1)\n"
    "  --warmup=S --duration=S      0.3, 2\n"
    "  --pid=P                      of Redis, may be given again: its CPU time\n"
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
option(struct floor_run *r, int id)
{
    switch (id) {
    case 'p': r->port = (uint16_t)number(optarg, 1, 65535); break;
    case 's': r->subscribe_port = (uint16_t)number(optarg, 1, 65535); break;
    case 'c': r->channel = optarg; break;
    case 'b': r->payload = number(optarg, 1, 1 << 20); break;
    case 'S': r->publish = "SPUBLISH", r->subscribe = "ssubscribe"; break;
    case 'k': r->pipeline = number(optarg, 1, 65536); break;
    case 'n': r->subscribers = number(optarg, 0, SUBSCRIBERS_MAX); break;
    case 'w': r->warmup_ns = (uint64_t)(strtod(optarg, NULL) * 1e9); break;
    case 'd': r->duration_ns = (uint64_t)(strtod(optarg, NULL) * 1e9); break;
    case 'P': proc_add(&r->redis, (pid_t)number(optarg, 1, 1u << 30), true); break;
    case 'C': pin((int)number(optarg, 0, 4095)); break;
    default: die("%s", usage_text);
    }
}

int
main(int argc, char **argv)
{
    static const struct option longs[] = {{"port", 1, NULL, 'p'}, {"subscribe-port", 1, NULL, 's'},
        {"channel", 1, NULL, 'c'}, {"payload", 1, NULL, 'b'}, {"sharded", 0, NULL, 'S'}, {"pipeline", 1, NULL, 'k'},
        {"subscribers", 1, NULL, 'n'}, {"warmup", 1, NULL, 'w'}, {"duration", 1, NULL, 'd'}, {"pid", 1, NULL, 'P'},
        {"cpu", 1, NULL, 'C'}, {NULL, 0, NULL, 0}};
    static struct floor_run r = {.port = 6379, .payload = 128, .pipeline = 64, .subscribers = 1, .channel = "bench",
        .publish = "PUBLISH", .subscribe = "subscribe", .warmup_ns = 300000000, .duration_ns = 2 * SECOND};
    for (int id; (id = getopt_long(argc, argv, "", longs, NULL)) != -1;)
        option(&r, id);
    if (optind != argc - 1)
        die("%s", usage_text);
    if (r.subscribe_port == 0)
        r.subscribe_port = r.port;
    run(&r, argv[optind]);
    return 0;
}
