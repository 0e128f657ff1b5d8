/* The command line of ringcast-bench. */
#include "bench/opt.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <netdb.h>
#include <stdlib.h>

#include "common/bug.h"

static const char usage_text[] =
    "ringcast-bench SCENARIO [options]\n"
    "\n"
    "  fanout    one publisher, --clients subscribers on one channel\n"
    "  pairs     --clients connections, every two share a channel: one publishes, one listens\n"
    "  rtt       --clients connections that publish to themselves\n"
    "  idle      memory of the server per idle connection with one subscription\n"
    "  connect   connections opened and dropped (--depth), as many as go\n"
    "  channels  --clients subscribers on --channels channels, both chosen by popularity (--zipf)\n"
    "  churn     --clients connections that subscribe and unsubscribe without end, among --channels\n"
    "  reconnect --clients connections; the server's processes named --kill die: until all are back\n"
    "  storm     fanout at a rate, alone and beside a storm of connections, in turn\n"
    "  mixed     half of --clients hear one channel, a quarter are in pairs, the rest churn among --channels\n"
    "  replay    what a recording holds (--replay): times, channels, lengths, fan-outs\n"
    "  slow      fanout at a rate to --clients and to --slow readers that never read: memory of the server\n"
    "  floor     fanout sent by a bare program of our own (--kind) in place of a server\n"
    "  pack      no server: what zlib takes for one message, on --server-cpu\n"
    "\n"
    "  --url=ws://127.0.0.1:8000/socketcluster/   the server; wss: by TLS, certificate not verified\n"
    "                     {channel} and {role} (sub, pub, both) in the path are replaced; tcp: and tls: are\n"
    "                     bare streams, for nats and mqtt\n"
    "  --as=socketcluster|min-bin|ws|socketio|nats|mqtt       what the server speaks (socketcluster)\n"
    "  --ws-subscribe=T --ws-subscribed=T --ws-unsubscribe=T --ws-unsubscribed=T --ws-publish=T\n"
    "  --ws-message=T     --as=ws: texts with {channel} and {payload}: what is said, what is answered (an empty\n"
    "                     one: nothing), what deliveries are; docs/benchmarks.md has the defaults\n"
    "  --ws-ignore=T      messages that begin so mean nothing\n"
    "  --publish-url=URL  publishers connect there (the same): another host. TLS, path and Host are those of --url\n"
    "  --tls-version=1.2|1.3   --resume           1.3; use session tickets\n"
    "  --deflate          offer permessage-deflate and insist on it; every message is checked\n"
    "  --deflate-min=B    publishes of so many bytes are compressed (256)\n"
    "  --clients=N        1000; idle 10000; pairs 400; rtt 1; storm 200; slow 10\n"
    "  --rate=N           deliveries per second over all subscribers, by a timetable\n"
    "  --schedule=constant|poisson|ramp|burst     with --rate; ramp: grows to --ramp-to=N over the run; burst:\n"
    "                     --burst=K messages at once (10)\n"
    "  --replay=FILE --speed=X                    replay: lines of seconds,channel,bytes,subscribers; X times faster\n"
    "  --full-speed       as fast as deliveries come back (the default without --rate)\n"
    "  --in-flight=K      full speed: messages on their way per channel (16; rtt 1)\n"
    "  --payload=BYTES    128: characters of what is published\n"
    "  --payload-as=text|json                     a string, or an object that compresses as data does\n"
    "  --depth=ready|upgrade|hello                connect, storm: each goes so far: subscribed, 101,\n"
    "                     the server's first TLS flight\n"
    "  --storm=N          storm: connections opening at a time (32)\n"
    "  --storm-rate=N     storm: connections per second (0: as many as go)\n"
    "  --storm-url=URL    storm: where it goes (the same as --url)\n"
    "  --slow=N --sample=S                        slow: readers (1000), seconds between readings (0.25)\n"
    "  --channels=N       idle: spread the subscriptions over N channels (1; 0: one each); channels,\n"
    "                     churn: 1000\n"
    "  --zipf=S           channel k is chosen in proportion to 1 / k^S (1; 0: all alike)\n"
    "  --kill=NAME        reconnect: which processes (ringcast-worker)\n"
    "  --warmup=S --duration=S --repeat=N         1, 5, 3: seconds before and of each measurement\n"
    "  --settle=S         idle: seconds from the last subscription to the reading (2)\n"
    "  --pid=P[,P...]     processes of the server; children are found (--pid-alone: not)\n"
    "  --server-cpu=N     the server's core: its ksoftirqd is charged to the server\n"
    "  --cpu=N            pin the load generator to this core\n"
    "  --concurrency=N    connections being opened at a time (64)\n"
    "  --processes=N      N of these processes share the clients, for fanout (with --rate), pairs, rtt, idle, connect\n"
    "                     and churn: more connections than a process may hold, or more load than a core has\n"
    "  --coordinate=ADDRESS:PORT --agents=N       the same with processes that were started elsewhere by\n"
    "                     ringcast-bench --agent=HOST:PORT [--cpu=N]; nobody proves who they are\n"
    "  --from=ADDRESS     connections come from this address\n"
    "  --spin             never sleep (better latency figures, a whole core)\n"
    "  --buffers=N --buffer-bytes=N               receive buffers (2048 of 4096)\n"
    "  --kind=single|batch16|batchN|send|relay    floor: one io_uring send per frame; one per N\n"
    "                     frames; plain send() per frame; --clients as pairs, through two\n"
    "                     processes and their lanes\n"
    "  --json[=FILE]      results as JSON to stdout or FILE    --quiet   no progress\n"
    "  --csv=FILE         a row for each measurement, appended; a head where the file is new\n";

enum {
    O_URL = 256, O_CLIENTS, O_RATE, O_FULL, O_IN_FLIGHT, O_PAYLOAD, O_CHANNELS, O_WARMUP,
    O_DURATION, O_REPEAT, O_SETTLE, O_PID, O_PID_ALONE, O_SERVER_CPU, O_CPU, O_CONCURRENCY, O_SPIN,
    O_BUFFERS, O_BUFFER_BYTES, O_KIND, O_JSON, O_QUIET, O_HELP, O_TLS_VERSION, O_RESUME, O_DEFLATE,
    O_DEFLATE_MIN, O_PAYLOAD_AS, O_DEPTH, O_STORM, O_STORM_RATE, O_STORM_URL, O_PUBLISH_URL, O_SLOW, O_SAMPLE,
    O_ZIPF, O_SCHEDULE, O_RAMP_TO, O_KILL, O_CSV, O_AS, O_WS_SUBSCRIBE, O_WS_SUBSCRIBED, O_WS_UNSUBSCRIBE,
    O_WS_UNSUBSCRIBED, O_WS_PUBLISH, O_WS_MESSAGE, O_WS_IGNORE, O_COORDINATE, O_AGENTS,
    O_PROCESSES, O_AGENT, O_PART, O_FROM, O_BURST, O_REPLAY, O_SPEED
};

static const struct option longs[] = {
    {"url", required_argument, NULL, O_URL},
    {"clients", required_argument, NULL, O_CLIENTS},
    {"subscribers", required_argument, NULL, O_CLIENTS},
    {"rate", required_argument, NULL, O_RATE},
    {"full-speed", no_argument, NULL, O_FULL},
    {"in-flight", required_argument, NULL, O_IN_FLIGHT},
    {"payload", required_argument, NULL, O_PAYLOAD},
    {"channels", required_argument, NULL, O_CHANNELS},
    {"warmup", required_argument, NULL, O_WARMUP},
    {"duration", required_argument, NULL, O_DURATION},
    {"repeat", required_argument, NULL, O_REPEAT},
    {"settle", required_argument, NULL, O_SETTLE},
    {"pid", required_argument, NULL, O_PID},
    {"pid-alone", no_argument, NULL, O_PID_ALONE},
    {"server-cpu", required_argument, NULL, O_SERVER_CPU},
    {"cpu", required_argument, NULL, O_CPU},
    {"concurrency", required_argument, NULL, O_CONCURRENCY},
    {"spin", no_argument, NULL, O_SPIN},
    {"buffers", required_argument, NULL, O_BUFFERS},
    {"buffer-bytes", required_argument, NULL, O_BUFFER_BYTES},
    {"kind", required_argument, NULL, O_KIND},
    {"json", optional_argument, NULL, O_JSON},
    {"quiet", no_argument, NULL, O_QUIET},
    {"help", no_argument, NULL, O_HELP},
    {"tls-version", required_argument, NULL, O_TLS_VERSION},
    {"resume", no_argument, NULL, O_RESUME},
    {"deflate", no_argument, NULL, O_DEFLATE},
    {"deflate-min", required_argument, NULL, O_DEFLATE_MIN},
    {"payload-as", required_argument, NULL, O_PAYLOAD_AS},
    {"depth", required_argument, NULL, O_DEPTH},
    {"storm", required_argument, NULL, O_STORM},
    {"storm-rate", required_argument, NULL, O_STORM_RATE},
    {"publish-url", required_argument, NULL, O_PUBLISH_URL},
    {"storm-url", required_argument, NULL, O_STORM_URL},
    {"slow", required_argument, NULL, O_SLOW},
    {"sample", required_argument, NULL, O_SAMPLE},
    {"zipf", required_argument, NULL, O_ZIPF},
    {"schedule", required_argument, NULL, O_SCHEDULE},
    {"ramp-to", required_argument, NULL, O_RAMP_TO},
    {"kill", required_argument, NULL, O_KILL},
    {"csv", required_argument, NULL, O_CSV},
    {"as", required_argument, NULL, O_AS},
    {"ws-subscribe", required_argument, NULL, O_WS_SUBSCRIBE},
    {"ws-subscribed", required_argument, NULL, O_WS_SUBSCRIBED},
    {"ws-unsubscribe", required_argument, NULL, O_WS_UNSUBSCRIBE},
    {"ws-unsubscribed", required_argument, NULL, O_WS_UNSUBSCRIBED},
    {"ws-publish", required_argument, NULL, O_WS_PUBLISH},
    {"ws-message", required_argument, NULL, O_WS_MESSAGE},
    {"ws-ignore", required_argument, NULL, O_WS_IGNORE},
    {"coordinate", required_argument, NULL, O_COORDINATE},
    {"agents", required_argument, NULL, O_AGENTS},
    {"processes", required_argument, NULL, O_PROCESSES},
    {"agent", required_argument, NULL, O_AGENT},
    {"part", required_argument, NULL, O_PART},
    {"from", required_argument, NULL, O_FROM},
    {"burst", required_argument, NULL, O_BURST},
    {"replay", required_argument, NULL, O_REPLAY},
    {"speed", required_argument, NULL, O_SPEED},
    {NULL, 0, NULL, 0},
};

static uint32_t
number(const char *text, const char *what, uint32_t min, uint32_t max)
{
    char *end;
    unsigned long long v = strtoull(text, &end, 10);
    if (end == text || *end != 0 || v < min || v > max)
        die("--%s=%s: a number from %u to %u is wanted", what, text, min, max);
    return (uint32_t)v;
}

/* "5", "0.5", "500ms", "5s" in nanoseconds. */
static uint64_t
duration(const char *text, const char *what)
{
    char *end;
    double v = strtod(text, &end);
    if (end != text && strcmp(end, "ms") == 0)
        v /= 1000;
    else if (end == text || (*end != 0 && strcmp(end, "s") != 0))
        v = -1;
    if (!(v >= 0 && v <= 86400))
        die("--%s=%s: a time such as 5, 2.5s or 500ms is wanted", what, text);
    return (uint64_t)(v * 1e9);
}

static void
resolve(struct sockaddr_in *to, const char *host, const char *port, const char *what)
{
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found;
    int rc = getaddrinfo(host, port, &hints, &found);
    if (rc != 0)
        die("--%s: %s: %s", what, host, gai_strerror(rc));
    memcpy(to, found->ai_addr, sizeof *to);
    freeaddrinfo(found);
}

/* "host:port" */
static void
parse_at(struct sockaddr_in *to, const char *text, const char *what)
{
    char host[256] = "", port[8] = "";
    if (sscanf(text, "%255[^:/]:%7[0-9]", host, port) != 2)
        die("--%s=%s: host:port is wanted", what, text);
    resolve(to, host, port, what);
}

static void
parse_url(struct opt_url *u, const char *url, const char *what)
{
    static const char *const schemes[] = {"ws://", "wss://", "tcp://", "tls://"};
    char port[8] = "";
    uint32_t i = 0;
    while (i < ARRAY_LEN(schemes) && strncmp(url, schemes[i], strlen(schemes[i])) != 0)
        i++;
    if (i == ARRAY_LEN(schemes) || sscanf(url + strlen(schemes[i]), "%255[^:/]:%7[0-9]", u->host, port) < 1)
        die("--%s=%s: ws://host:port/path, wss://, tcp:// or tls:// is wanted", what, url);
    u->tls = i == 1 || i == 3;
    u->stream = i >= 2;
    if (port[0] == 0)
        snprintf(port, sizeof port, "%s", u->tls ? "443" : "80");
    const char *path = strchr(url + strlen(schemes[i]), '/');
    resolve(&u->to, u->host, port, what);
    u->path = path != NULL ? path : "/";
}

/* One of a few words: its place among them. */
static uint32_t
word(const char *text, const char *what, const char *const *words, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (strcmp(text, words[i]) == 0)
            return i;
    die("--%s=%s: see ringcast-bench --help", what, text);
}

static void
parse_pids(struct opt *o, char *list)
{
    for (char *save = NULL, *one = strtok_r(list, ",", &save); one != NULL;
         one = strtok_r(NULL, ",", &save)) {
        if (o->n_pids == ARRAY_LEN(o->pid))
            die("--pid: at most %zu", ARRAY_LEN(o->pid));
        o->pid[o->n_pids++] = (pid_t)number(one, "pid", 1, 1u << 30);
    }
}

static void
parse_kind(struct opt *o, const char *kind)
{
    o->floor_batch = 1;
    if (strcmp(kind, "single") == 0) {
        o->floor = FLOOR_SINGLE;
    } else if (strcmp(kind, "send") == 0) {
        o->floor = FLOOR_SEND;
    } else if (strcmp(kind, "relay") == 0) {
        o->floor = FLOOR_RELAY;
    } else if (strncmp(kind, "batch", 5) == 0) {
        o->floor = FLOOR_BATCH;
        o->floor_batch = number(kind + 5, "kind=batch", 1, 256);
    } else {
        die("--kind=%s: single, batchN, send or relay is wanted", kind);
    }
}

static void
set_scenario(struct opt *o, const char *name)
{
    static const struct {
        const char *name;
        uint32_t clients, in_flight, channels;
    } rows[] = {
        [SCEN_FANOUT] = {"fanout", 1000, 16, 1},
        [SCEN_PAIRS] = {"pairs", 400, 16, 1},
        [SCEN_RTT] = {"rtt", 1, 1, 1},
        [SCEN_IDLE] = {"idle", 10000, 1, 1},
        [SCEN_CONNECT] = {"connect", 64, 1, 1},
        [SCEN_CHANNELS] = {"channels", 1000, 1, 1000},
        [SCEN_CHURN] = {"churn", 100, 1, 1000},
        [SCEN_RECONNECT] = {"reconnect", 1000, 1, 1},
        [SCEN_STORM] = {"storm", 200, 1, 1},
        [SCEN_SLOW] = {"slow", 10, 1, 1},
        [SCEN_FLOOR] = {"floor", 1000, 16, 1},
        [SCEN_MIXED] = {"mixed", 1000, 1, 1000},
        [SCEN_REPLAY] = {"replay", 1, 1, 1},
        [SCEN_PACK] = {"pack", 1, 1, 1},
    };
    for (uint32_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (strcmp(rows[i].name, name) != 0)
            continue;
        o->scenario = (enum scenario)i;
        o->scenario_name = rows[i].name;
        o->clients = rows[i].clients;
        o->in_flight = rows[i].in_flight;
        o->channels = rows[i].channels;
        return;
    }
    die("\"%s\" is no scenario; see ringcast-bench --help", name);
}

static double
rate(const char *text, const char *what)
{
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end != 0 || !(v >= 0.001 && v <= 1e9))
        die("--%s=%s: a number per second is wanted", what, text);
    return v;
}

/* Of several processes. */
static void
take_together(struct opt *o, int id)
{
    switch (id) {
    case O_COORDINATE: parse_at(&o->coordinate, optarg, "coordinate"); break;
    case O_AGENTS: o->agents = number(optarg, "agents", 1, OPT_AGENTS_MAX); break;
    case O_PROCESSES: o->processes = number(optarg, "processes", 1, OPT_AGENTS_MAX); break;
    case O_AGENT: parse_at(&o->agent, optarg, "agent"); break;
    case O_FROM: resolve(&o->from, optarg, NULL, "from"); break;
    case O_PART:
        if (sscanf(optarg, "%u/%u/%u", &o->part, &o->parts, &o->total) != 3 || o->part >= o->parts)
            die("--part=%s is given by coordinators", optarg);
        break;
    default: die("see ringcast-bench --help");
    }
}

/* Who coordinates whom, and whether the work can be shared. */
static void
check_together(struct opt *o)
{
    static const bool shared[SCEN_PACK + 1] = {[SCEN_FANOUT] = true, [SCEN_PAIRS] = true, [SCEN_RTT] = true, [SCEN_IDLE] = true,
        [SCEN_CONNECT] = true, [SCEN_CHURN] = true};
    if (o->processes > 0 && o->coordinate.sin_family == 0)
        parse_at(&o->coordinate, "127.0.0.1:0", "coordinate");
    if (o->coordinate.sin_family == 0 && o->parts == 0)
        return;
    o->agents = MAX(o->agents, o->processes);
    if (o->parts == 0 && (o->agents == 0 || o->clients < 2 * o->agents))
        die("--agents=%u for %u clients: at least one agent, and two clients for each", o->agents, o->clients);
    if (!shared[o->scenario] || (o->scenario == SCEN_FANOUT && o->rate == 0))
        die("%s cannot be shared by several processes%s", o->scenario_name,
            o->scenario == SCEN_FANOUT ? " at full speed: --rate is wanted" : "");
}

/* Of what the server speaks. */
static void
take_speak(struct opt *o, int id)
{
    struct speak_template *t = &o->speak.texts;
    switch (id) {
    case O_AS:
        o->speak.as = speak_find(optarg);
        if (o->speak.as == NULL)
            die("--as=%s: %s", optarg, speak_names());
        break;
    case O_WS_SUBSCRIBE: t->subscribe = optarg; break;
    case O_WS_SUBSCRIBED: t->subscribed = optarg; break;
    case O_WS_UNSUBSCRIBE: t->unsubscribe = optarg; break;
    case O_WS_UNSUBSCRIBED: t->unsubscribed = optarg; break;
    case O_WS_PUBLISH: t->publish = optarg; break;
    case O_WS_MESSAGE: t->message = optarg; break;
    case O_WS_IGNORE: t->ignore = optarg; break;
    default: take_together(o, id);
    }
}

/* Of timetables, channels and what goes wrong. */
static void
take_shape(struct opt *o, int id)
{
    static const char *const schedules[] = {"constant", "poisson", "ramp", "burst"};
    switch (id) {
    case O_ZIPF: o->zipf = optarg[0] == '0' && optarg[1] == 0 ? 0 : rate(optarg, "zipf"); break;
    case O_SCHEDULE: o->schedule = (enum sched_kind)word(optarg, "schedule", schedules, 4); break;
    case O_BURST: o->burst = number(optarg, "burst", 1, 100000); break;
    case O_REPLAY: o->replay = optarg; break;
    case O_SPEED: o->speed = rate(optarg, "speed"); break;
    case O_RAMP_TO: o->ramp_to = rate(optarg, "ramp-to"); break;
    case O_KILL: o->kill = optarg; break;
    case O_CSV: o->csv = optarg; break;
    default: take_speak(o, id);
    }
}

/* Of TLS, compression, storms and slow readers. */
static void
take_more(struct opt *o, int id)
{
    static const char *const versions[] = {"1.3", "1.2"}, *const kinds[] = {"text", "json"},
                             *const depths[] = {"hello", "upgrade", "ready"};
    switch (id) {
    case O_TLS_VERSION: o->tls_12 = word(optarg, "tls-version", versions, 2) == 1; break;
    case O_RESUME: o->resume = true; break;
    case O_DEFLATE: o->deflate = true; break;
    case O_DEFLATE_MIN: o->deflate_min = number(optarg, "deflate-min", 0, 1 << 20); break;
    case O_PAYLOAD_AS: o->kind = (enum frame_kind)word(optarg, "payload-as", kinds, 2); break;
    case O_DEPTH: o->depth = (enum load_depth)word(optarg, "depth", depths, 3); break;
    case O_STORM: o->storm = number(optarg, "storm", 1, 4096); break;
    case O_STORM_RATE: o->storm_rate = rate(optarg, "storm-rate"); break;
    case O_PUBLISH_URL: parse_url(&o->publish_url, optarg, "publish-url"); break;
    case O_STORM_URL: parse_url(&o->storm_url, optarg, "storm-url"); break;
    case O_SLOW: o->slow = number(optarg, "slow", 0, 100000); break;
    case O_SAMPLE: o->sample_ns = MAX(duration(optarg, "sample"), 10000000u); break;
    default: take_shape(o, id);
    }
}

static void
take_load(struct opt *o, int id)
{
    switch (id) {
    case O_URL: parse_url(&o->url, optarg, "url"); break;
    case O_CLIENTS: o->clients = number(optarg, "clients", 1, 1000000); break;
    case O_RATE: o->rate = rate(optarg, "rate"); break;
    case O_FULL: o->rate = 0; break;
    case O_IN_FLIGHT: o->in_flight = number(optarg, "in-flight", 1, 65536); break;
    case O_PAYLOAD:
        o->payload = number(optarg, "payload", FRAME_MIN_PAYLOAD, FRAME_MAX_PAYLOAD);
        break;
    case O_CHANNELS: o->channels = number(optarg, "channels", 0, 1000000); break;
    case O_CONCURRENCY: o->concurrency = number(optarg, "concurrency", 1, 4096); break;
    case O_BUFFERS: o->buffers = (uint32_t)pow2_ceil(number(optarg, "buffers", 16, 32768)); break;
    case O_BUFFER_BYTES: o->buffer_bytes = number(optarg, "buffer-bytes", 256, 1 << 20); break;
    case O_KIND: parse_kind(o, optarg); break;
    default: take_more(o, id);
    }
}

static void
take(struct opt *o, int id)
{
    switch (id) {
    case O_WARMUP: o->warmup_ns = duration(optarg, "warmup"); break;
    case O_DURATION: o->duration_ns = duration(optarg, "duration"); break;
    case O_SETTLE: o->settle_ns = duration(optarg, "settle"); break;
    case O_REPEAT: o->repeat = number(optarg, "repeat", 1, OPT_REPEAT_MAX); break;
    case O_PID: parse_pids(o, optarg); break;
    case O_PID_ALONE: o->pid_alone = true; break;
    case O_SERVER_CPU: o->server_cpu = (int)number(optarg, "server-cpu", 0, 4095); break;
    case O_CPU: o->cpu = (int)number(optarg, "cpu", 0, 4095); break;
    case O_SPIN: o->spin = true; break;
    case O_JSON: o->json = optarg != NULL ? optarg : "-"; break;
    case O_QUIET: o->quiet = true; break;
    case O_HELP:
        fputs(usage_text, stdout);
        exit(0);
    default: take_load(o, id);
    }
}

/* What does not go together. */
static void
check(struct opt *o)
{
    bool relay = o->scenario == SCEN_FLOOR && o->floor == FLOOR_RELAY;
    if ((o->scenario == SCEN_PAIRS || relay) && o->clients % 2 != 0)
        die("--clients=%u: pairs want an even number", o->clients);
    if (o->duration_ns == 0)
        die("--duration=0 measures nothing");
    if (o->scenario == SCEN_FLOOR && o->rate == 0 && o->in_flight < o->floor_batch)
        die("--in-flight=%u: a floor of %u per send needs as many", o->in_flight, o->floor_batch);
    if ((o->scenario == SCEN_STORM || o->scenario == SCEN_SLOW) && o->rate == 0)
        o->rate = o->scenario == SCEN_STORM ? 20000 : 1000;
    if (o->scenario == SCEN_MIXED && o->rate == 0)
        o->rate = 20000;
    if (o->scenario == SCEN_MIXED && o->clients < 16)
        die("mixed wants 16 --clients at least");
    if ((o->scenario == SCEN_REPLAY) != (o->replay != NULL))
        die("the scenario replay and --replay=FILE go together");
    if (o->schedule != SCHED_CONSTANT && o->rate == 0)
        die("--schedule wants a --rate");
    if (o->schedule == SCHED_RAMP && o->ramp_to == 0)
        die("--schedule=ramp wants --ramp-to, deliveries per second");
    if ((o->scenario == SCEN_CHANNELS || o->scenario == SCEN_CHURN || o->scenario == SCEN_MIXED) && o->channels == 0)
        die("--channels=0: at least one is wanted");
    if (o->kind == FRAME_JSON && o->payload < FRAME_MIN_JSON)
        die("--payload=%u: JSON has at least %u", o->payload, FRAME_MIN_JSON);
    if (o->kind == FRAME_JSON && !o->speak.as->json)
        die("--payload-as=json is not for --as=%s", o->speak.as->name);
    if (o->url.stream && (o->speak.as->cut == NULL || o->deflate))
        die("tcp:// and tls:// are for --as=nats and --as=mqtt, without --deflate");
    if ((o->scenario == SCEN_CHURN || o->scenario == SCEN_MIXED) && o->speak.as == &speak_ws &&
        (o->speak.texts.subscribed[0] == 0 || o->speak.texts.unsubscribed[0] == 0))
        die("churn counts answers: --ws-subscribed and --ws-unsubscribed are wanted");
    check_together(o);
    if (o->depth == LOAD_TO_HELLO && !(o->scenario == SCEN_STORM ? o->storm_url.tls : o->url.tls))
        die("--depth=hello is for wss://");
}

void
opt_parse(struct opt *o, int argc, char **argv)
{
    *o = (struct opt){.payload = 128, .concurrency = 64, .warmup_ns = 1000000000,
        .duration_ns = 5000000000, .settle_ns = 2000000000, .repeat = 3, .server_cpu = -1,
        .cpu = -1, .buffers = 2048, .buffer_bytes = 4096, .floor_batch = 1, .channels = 1,
        .deflate_min = 256, .depth = LOAD_TO_READY, .storm = 32, .slow = 1000, .sample_ns = 250000000,
        .zipf = 1, .kill = "ringcast-worker", .burst = 10, .speed = 1,
        .speak = {.as = &speak_sc, .texts = {.subscribe = "sub {channel}", .subscribed = "ok {channel}",
            .unsubscribe = "unsub {channel}", .unsubscribed = "ok {channel}", .publish = "pub {channel} {payload}",
            .message = "msg {channel} {payload}", .ignore = ""}}};
    parse_url(&o->url, "ws://127.0.0.1:8000/socketcluster/", "url");
    optind = 0; /* agents read two command lines */
    if (argc >= 2 && argv[1][0] != '-')
        set_scenario(o, argv[1]);
    for (int id; (id = getopt_long(argc, argv, "", longs, NULL)) != -1;)
        take(o, id);
    if (o->scenario_name == NULL && o->agent.sin_family != 0 && optind == argc)
        return;
    if (o->scenario_name == NULL)
        die("which scenario? see ringcast-bench --help");
    if (optind != argc - 1)
        die("\"%s\" is one word too many", argv[argc - 1]);
    if (o->storm_url.path == NULL)
        o->storm_url = o->url;
    if (o->publish_url.path == NULL)
        o->publish_url = o->url;
    check(o);
}
