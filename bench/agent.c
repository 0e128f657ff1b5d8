/* An agent of a coordinated run; see agent.h and coord.h. */
#include "bench/agent.h"

#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/coord.h"
#include "bench/lines.h"
#include "common/bug.h"
#include "common/mono.h"

#define WORDS_MAX 256
#define PATIENCE (120 * SECOND)

static int
dial(const struct sockaddr_in *to)
{
    int one = 1;
    for (uint32_t i = 0;; i++) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
            die("socket: %s", strerror(errno));
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (connect(fd, (const struct sockaddr *)to, sizeof *to) == 0)
            return fd;
        if (i == 100)
            die("the coordinator cannot be reached: %s", strerror(errno));
        close(fd);
        usleep(100000);
    }
}

static char *
wanted(struct lines *l, const char *what)
{
    char *line = lines_take(l, PATIENCE);
    if (line == NULL)
        die("the coordinator is %s; %s was wanted", l->ended ? "gone" : "silent", what);
    return line;
}

/* The command line it is handed, with its own words behind. */
static void
take_work(struct run *r, struct lines *l, int argc, char **argv)
{
    static char *words[WORDS_MAX + 1];
    unsigned n;
    int count = 0;
    if (sscanf(wanted(l, "work"), "WORK %u", &n) != 1 || n == 0 || n + (unsigned)argc > WORDS_MAX)
        die("the coordinator handed out no work");
    words[count++] = argv[0];
    for (unsigned i = 0; i < n; i++) {
        char *word = xmalloc(LINES_MAX);
        snprintf(word, LINES_MAX, "%s", wanted(l, "a word"));
        words[count++] = xrealloc(word, strlen(word) + 1);
    }
    for (int i = 1; i < argc; i++)
        words[count++] = argv[i];
    opt_parse(&r->opt, count, words);
    if (r->opt.parts == 0 || r->opt.json != NULL || r->opt.csv != NULL || r->opt.n_pids > 0)
        die("the coordinator asks for what is its own to do");
}

static void
say_sample(struct lines *l, const struct sample *s, const struct hist *h)
{
    char *text = xmalloc(LINES_MAX);
    size_t at = 0;
    for (uint32_t i = 0; i < HIST_SLOTS && at < LINES_MAX - 400u; i++)
        if (h->slot[i] > 0)
            at += (size_t)snprintf(text + at, LINES_MAX - at, " %u:%" PRIu64, i, h->slot[i]);
    text[at] = 0;
    lines_say(l, "SAMPLE %.6f %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %.0f%s", s->seconds, s->units,
        s->load_cpu_ns, h->n, h->min, h->max, h->sum, text);
    free(text);
}

static void
say_counts(struct lines *l, const struct load_counts *c)
{
    char text[sizeof *c / sizeof(uint64_t) * 21 + 1];
    const uint64_t *v = (const uint64_t *)c;
    size_t at = 0;
    for (size_t i = 0; i < sizeof *c / sizeof *v; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, " %" PRIu64, v[i]);
    lines_say(l, "COUNTS%s", text);
}

static void
open_to(struct run *r, uint32_t n, uint32_t all)
{
    r->load.n_conns = MIN(n, all);
    scen_open_all(r);
}

/* Publishing has ended; what others published is known now. */
static void
drain(struct run *r, uint64_t published)
{
    for (uint32_t g = 0; g < r->load.n_groups; g++)
        if (r->load.groups[g].remote)
            r->load.groups[g].published = published;
    scen_drain(r);
}

/* One line of the coordinator's; false when that was the last. */
static bool
obey(struct run *r, struct lines *l, const char *line, uint32_t all)
{
    struct load *load = &r->load;
    static struct sample_set set;
    uint64_t n = strtoull(line + strcspn(line, " "), NULL, 10);
    if (strcmp(line, "CLOCK") == 0) {
        lines_say(l, "CLOCK %" PRIu64, mono_now().ns);
    } else if (strncmp(line, "SHIFT ", 6) == 0) {
        load->shift_ns = strtoll(line + 6, NULL, 10);
    } else if (strncmp(line, "OPEN ", 5) == 0) {
        open_to(r, (uint32_t)MIN(n, UINT32_MAX), all);
        lines_say(l, "READY %u", load->ready);
    } else if (strcmp(line, "GO") == 0) {
        if (r->opt.scenario == SCEN_CONNECT)
            load->storm = true;
        else if (r->opt.scenario != SCEN_CHURN)
            scen_publish(r);
    } else if (strcmp(line, "WINDOW") == 0) {
        set.n = 0;
        scen_measure_into(r, &set);
        say_sample(l, &set.sample[0], r->lat);
    } else if (strcmp(line, "STOP") == 0) {
        load->publishing = false;
        lines_say(l, "PUBLISHED %" PRIu64, load->count.published);
    } else if (strncmp(line, "DRAIN ", 6) == 0) {
        drain(r, n);
        lines_say(l, "MISSING %" PRIu64, r->report.missing);
    } else if (strcmp(line, "END") == 0) {
        say_counts(l, &load->count);
        return false;
    } else {
        die("the coordinator says \"%.40s\"", line);
    }
    return true;
}

void
agent_run(struct run *r, int argc, char **argv)
{
    struct lines l;
    lines_init(&l, dial(&r->opt.agent));
    lines_say(&l, "AGENT " COORD_BUILD);
    take_work(r, &l, argc, argv);
    scen_prepare(&r->opt);
    struct load_conf conf = scen_conf(&r->opt);
    scen_layout(r, &conf);
    if (r->opt.scenario == SCEN_CHURN) {
        zipf_init(&r->zipf, r->opt.channels, r->opt.zipf);
        r->load.churn = &r->zipf;
    }
    uint32_t all = r->load.n_conns;
    r->load.n_conns = r->opt.scenario == SCEN_CONNECT ? all : 0;
    bool works = false;
    for (bool more = true; more;) {
        char *line = lines_take(&l, 0);
        if (line == NULL && l.ended)
            die("the coordinator is gone");
        if (line != NULL) {
            works |= strcmp(line, "GO") == 0 || strncmp(line, "OPEN", 4) == 0;
            more = obey(r, &l, line, all);
        } else if (works) {
            scen_run_until(r, mono_now().ns + SECOND / 500, "working");
        } else {
            line = NULL;
            usleep(500);
        }
    }
    lines_free(&l);
}
