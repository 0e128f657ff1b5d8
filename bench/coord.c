/* The coordinator of a run; see coord.h. */
#include "bench/coord.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/lines.h"
#include "common/bug.h"
#include "common/mono.h"

#define PATIENCE (120 * SECOND)
#define CLOCKS 16 /* questions of which the quickest answer counts */

struct coord {
    struct run *run;
    struct lines agent[OPT_AGENTS_MAX];
    pid_t child[OPT_AGENTS_MAX]; /* 0: came from elsewhere */
    uint32_t n;
};

static int
listen_at(struct sockaddr_in *at)
{
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t len = sizeof *at;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
        bind(fd, (struct sockaddr *)at, sizeof *at) != 0 || listen(fd, OPT_AGENTS_MAX) != 0 ||
        getsockname(fd, (struct sockaddr *)at, &len) != 0)
        die("--coordinate: %s", strerror(errno));
    return fd;
}

/* An agent of our own on this host. */
static pid_t
start_agent(const struct sockaddr_in *at, int cpu)
{
    char where[64], pin[32];
    snprintf(where, sizeof where, "--agent=127.0.0.1:%u", ntohs(at->sin_port));
    snprintf(pin, sizeof pin, "--cpu=%d", cpu);
    pid_t pid = fork();
    if (pid < 0)
        die("fork: %s", strerror(errno));
    if (pid > 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    execl("/proc/self/exe", "ringcast-bench", where, "--quiet", cpu >= 0 ? pin : (char *)NULL, (char *)NULL);
    die("the agent cannot be started: %s", strerror(errno));
}

static char *
answer(struct coord *c, uint32_t i, const char *what)
{
    char *line = lines_take(&c->agent[i], PATIENCE);
    size_t n = strlen(what);
    if (line == NULL)
        die("agent %u %s; %s was wanted", i, c->agent[i].ended ? "is gone" : "is silent", what);
    if (strncmp(line, what, n) != 0)
        die("agent %u says \"%.60s\"; %s was wanted", i, line, what);
    return line + n;
}

static void
say_all(struct coord *c, const char *what)
{
    for (uint32_t i = 0; i < c->n; i++)
        lines_say(&c->agent[i], "%s", what);
}

static void
gather(struct coord *c)
{
    struct opt *o = &c->run->opt;
    int one = 1, fd = listen_at(&o->coordinate);
    for (uint32_t i = 0; i < o->processes; i++)
        c->child[i] = start_agent(&o->coordinate, o->cpu);
    if (!o->quiet)
        fprintf(stderr, "waiting for %u agents at port %u\n", o->agents, ntohs(o->coordinate.sin_port));
    while (c->n < o->agents) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, 60000) <= 0)
            die("%u of %u agents came within a minute", c->n, o->agents);
        int s = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
        if (s < 0)
            die("accept: %s", strerror(errno));
        (void)setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        lines_init(&c->agent[c->n++], s);
        if (strcmp(answer(c, c->n - 1, "AGENT "), COORD_BUILD) != 0)
            die("agent %u is of another build", c->n - 1);
    }
    close(fd);
}

/* Agents do what the command line says, but for the scenario, which stands first, and what is the coordinator's. */
static bool
is_handed_on(const char *word)
{
    static const char *const ours[] = {"--coordinate", "--agents", "--processes", "--json", "--csv", "--pid", "--server-cpu",
        "--clients", "--subscribers", "--cpu", "--quiet", "--repeat", "--rate"};
    for (size_t i = 0; i < ARRAY_LEN(ours); i++) {
        size_t n = strlen(ours[i]);
        if (strncmp(word, ours[i], n) == 0 && (word[n] == 0 || word[n] == '=' || strcmp(word + n, "-alone") == 0))
            return false;
    }
    return word[0] == '-';
}

/* Part i of the clients; pairs stay together. */
static uint32_t
share(const struct opt *o, uint32_t i)
{
    uint32_t unit = o->scenario == SCEN_PAIRS ? 2 : 1, units = o->clients / unit;
    uint64_t from = (uint64_t)units * i / o->agents, to = (uint64_t)units * (i + 1) / o->agents;
    return (uint32_t)(to - from) * unit;
}

static void
hand_out(struct coord *c, int argc, char **argv)
{
    const struct opt *o = &c->run->opt;
    uint32_t words = 0;
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] != '-' && strcmp(argv[i], o->scenario_name) != 0)
            die("\"%s\": with several processes options are written --name=value", argv[i]);
        words += is_handed_on(argv[i]);
    }
    bool loopback = (ntohl(o->url.to.sin_addr.s_addr) >> 24) == 127;
    for (uint32_t i = 0; i < c->n; i++) {
        struct lines *l = &c->agent[i];
        double rate = o->scenario == SCEN_FANOUT ? o->rate : o->rate * share(o, i) / o->clients;
        lines_say(l, "WORK %u", words + 3 + (o->rate > 0) + loopback);
        lines_say(l, "%s", o->scenario_name);
        for (int k = 1; k < argc; k++)
            if (is_handed_on(argv[k]))
                lines_say(l, "%s", argv[k]);
        lines_say(l, "--clients=%u", share(o, i));
        lines_say(l, "--part=%u/%u/%u", i, c->n, o->clients);
        if (o->rate > 0)
            lines_say(l, "--rate=%.6f", rate);
        /* An address of its own: a pair of addresses has 28,000 ports. */
        if (loopback)
            lines_say(l, "--from=127.0.%u.%u", i / 250, 2 + i % 250);
    }
}

/* How far agent i's clock is ahead of ours: half the way of the quickest question. What could be the way is taken
 * for none, which is right for agents of one host. */
static int64_t
clock_of(struct coord *c, uint32_t i)
{
    uint64_t best = UINT64_MAX;
    int64_t ahead = 0;
    for (int k = 0; k < CLOCKS; k++) {
        uint64_t t0 = mono_now().ns;
        lines_say(&c->agent[i], "CLOCK");
        uint64_t theirs = strtoull(answer(c, i, "CLOCK "), NULL, 10), t1 = mono_now().ns;
        if (t1 - t0 >= best)
            continue;
        best = t1 - t0;
        ahead = (int64_t)(theirs - (t0 + best / 2));
    }
    return (uint64_t)(ahead < 0 ? -ahead : ahead) <= best / 2 ? 0 : ahead;
}

static void
set_clocks(struct coord *c)
{
    int64_t publisher = clock_of(c, 0);
    for (uint32_t i = 1; i < c->n; i++)
        lines_say(&c->agent[i], "SHIFT %" PRId64, publisher - clock_of(c, i));
}

/* Opens so many connections at each agent, or a few at the first alone. */
static void
open_conns(struct coord *c, uint32_t few)
{
    uint32_t agents = few > 0 ? 1 : c->n;
    for (uint32_t i = 0; i < agents; i++)
        lines_say(&c->agent[i], "OPEN %u", few > 0 ? few : UINT32_MAX);
    for (uint32_t i = 0; i < agents; i++)
        (void)answer(c, i, "READY ");
}

/* Takes agent i's part of a window. */
static void
merge(struct coord *c, uint32_t i, struct sample *s)
{
    static struct hist h;
    double seconds;
    uint64_t units, load_ns;
    int used = 0;
    char *p = answer(c, i, "SAMPLE ");
    hist_reset(&h);
    if (sscanf(p, "%lf %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %lf%n", &seconds, &units, &load_ns,
            &h.n, &h.min, &h.max, &h.sum, &used) != 7)
        die("agent %u hands back no sample", i);
    for (p += used; *p == ' ';) {
        uint64_t slot = strtoull(p + 1, &p, 10);
        if (slot >= HIST_SLOTS || *p != ':')
            die("agent %u hands back no histogram", i);
        h.slot[slot] = strtoull(p + 1, &p, 10);
    }
    hist_merge(c->run->lat, &h);
    s->seconds = MAX(s->seconds, seconds);
    s->units += units;
    s->load_cpu_ns += load_ns;
}

static void
sleep_until(uint64_t ns)
{
    for (uint64_t now; (now = mono_now().ns) < ns;)
        usleep((useconds_t)MIN((ns - now) / 1000 + 1, 100000u));
}

static void
window(struct coord *c)
{
    struct run *r = c->run;
    struct sample *s = &r->report.set.sample[r->report.set.n++];
    hist_reset(r->lat);
    say_all(c, "WINDOW");
    proc_begin(&r->server);
    uint64_t cpu = proc_cpu_ns(&r->server), softirq = proc_cpu_ns(&r->softirq);
    sleep_until(mono_now().ns + r->opt.duration_ns);
    s->cpu_ns = proc_cpu_ns(&r->server) - cpu;
    s->softirq_ns = proc_cpu_ns(&r->softirq) - softirq;
    proc_end(&r->server);
    for (uint32_t i = 0; i < c->n; i++)
        merge(c, i, s);
    report_latency(s, r->lat);
}

/* Nothing is published any more; what has not come? */
static void
settle(struct coord *c)
{
    uint64_t published = 0;
    for (uint32_t i = 0; i < c->n; i++) {
        lines_say(&c->agent[i], "STOP");
        published += strtoull(answer(c, i, "PUBLISHED "), NULL, 10);
    }
    for (uint32_t i = 0; i < c->n; i++)
        lines_say(&c->agent[i], "DRAIN %" PRIu64, published);
    for (uint32_t i = 0; i < c->n; i++)
        c->run->report.missing += strtoull(answer(c, i, "MISSING "), NULL, 10);
}

static void
end_all(struct coord *c)
{
    uint64_t *sum = (uint64_t *)&c->run->load.count;
    for (uint32_t i = 0; i < c->n; i++) {
        lines_say(&c->agent[i], "END");
        char *p = answer(c, i, "COUNTS");
        for (size_t k = 0; k < sizeof c->run->load.count / sizeof *sum; k++)
            sum[k] += strtoull(p, &p, 10);
        lines_free(&c->agent[i]);
    }
    for (uint32_t i = 0; i < OPT_AGENTS_MAX; i++)
        if (c->child[i] > 0)
            waitpid(c->child[i], NULL, 0);
}

/* The baseline has two dozen connections, as with a single process. */
static void
idle(struct coord *c)
{
    struct run *r = c->run;
    struct report *p = &r->report;
    uint32_t few = MIN(24u, share(&r->opt, 0));
    if (r->server.n == 0)
        die("idle: --pid is wanted, whose memory would it be?");
    open_conns(c, few);
    sleep_until(mono_now().ns + r->opt.warmup_ns);
    scen_read_memory(r, &p->mem_before, &p->pss_before);
    open_conns(c, 0);
    sleep_until(mono_now().ns + r->opt.settle_ns);
    scen_read_memory(r, &p->mem_after, &p->pss_after);
    p->idle_conns = r->opt.clients - few;
}

void
coord_run(struct run *r, int argc, char **argv)
{
    static struct coord c;
    c.run = r;
    r->report.agents = r->opt.agents;
    gather(&c);
    hand_out(&c, argc, argv);
    set_clocks(&c);
    if (r->opt.scenario == SCEN_IDLE) {
        idle(&c);
    } else {
        if (r->opt.scenario != SCEN_CONNECT)
            open_conns(&c, 0);
        say_all(&c, "GO");
        sleep_until(mono_now().ns + r->opt.warmup_ns);
        for (uint32_t i = 0; i < r->opt.repeat; i++)
            window(&c);
        if (r->opt.scenario == SCEN_FANOUT || r->opt.scenario == SCEN_PAIRS || r->opt.scenario == SCEN_RTT)
            settle(&c);
    }
    end_all(&c);
}
