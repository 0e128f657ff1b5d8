/* What ringcast-bench was asked to do. */
#ifndef BENCH_OPT_H
#define BENCH_OPT_H

#include <netinet/in.h>
#include <stdio.h>

#include "bench/load.h"
#include "bench/proc.h"
#include "bench/sched.h"
#include "common/base.h"

enum scenario {
    SCEN_FANOUT,
    SCEN_PAIRS,
    SCEN_RTT,
    SCEN_IDLE,
    SCEN_CONNECT,
    SCEN_CHANNELS,
    SCEN_CHURN,
    SCEN_RECONNECT,
    SCEN_STORM,
    SCEN_SLOW,
    SCEN_FLOOR,
    SCEN_MIXED,
    SCEN_REPLAY,
    SCEN_PACK,
};
enum floor_kind { FLOOR_SINGLE, FLOOR_BATCH, FLOOR_SEND, FLOOR_RELAY };

#define OPT_REPEAT_MAX 101
#define OPT_AGENTS_MAX 64

/* Where to connect. */
struct opt_url {
    struct sockaddr_in to;
    const char *path;
    char host[256];
    bool tls;
    bool stream; /* tcp:// or tls://: no WebSocket */
};

struct opt {
    enum scenario scenario;
    const char *scenario_name;
    enum floor_kind floor;
    uint32_t floor_batch; /* frames per send */
    struct opt_url url;
    struct speak_conf speak;
    struct opt_url publish_url; /* where publishers go; without a path: the same as url */
    struct opt_url storm_url; /* storm: where it goes; without a path: the same as url */
    bool tls_12, resume;
    bool deflate;
    uint32_t deflate_min; /* publishes of so many bytes are packed */
    enum load_depth depth;
    uint32_t storm;      /* storm: connections of it at a time */
    double storm_rate;   /* storm: connections per second; 0: as many as go */
    uint32_t slow;       /* slow: readers that pause */
    uint64_t sample_ns;  /* slow: between two readings of memory */
    uint32_t clients;
    uint32_t channels;  /* idle: connections are spread over so many; channels, churn: how many there are */
    double zipf;        /* channels, churn: popularity falls with the rank to this power */
    enum sched_kind schedule;
    uint32_t burst;     /* burst: messages at once */
    const char *replay; /* replay: file */
    double speed;       /* ... is so many times faster than it was recorded */
    double ramp_to;     /* ramp: deliveries per second in the end */
    const char *kill;   /* reconnect: name of the processes that die */
    double rate;        /* deliveries per second over all subscribers; 0: full speed */
    uint32_t in_flight; /* full speed: messages on their way per channel */
    uint32_t payload;
    enum frame_kind kind;
    uint32_t concurrency;
    uint64_t warmup_ns, duration_ns, settle_ns;
    uint32_t repeat;
    pid_t pid[64];
    uint32_t n_pids;
    bool pid_alone; /* do not look for children */
    int server_cpu; /* the core the server is pinned to; -1: none */
    int cpu;        /* the core the load is pinned to; -1: none */
    bool spin, quiet;
    uint32_t buffers, buffer_bytes;
    /* Several processes: who coordinates them, what this one's part is. */
    struct sockaddr_in coordinate; /* listen here; family 0: no coordinator */
    struct sockaddr_in agent;      /* take work from there; family 0: no agent */
    uint32_t agents;               /* to wait for; `processes` of them we start */
    uint32_t processes;
    uint32_t part, parts, total;   /* an agent: its place among how many, and the clients of all; parts 0: alone */
    struct sockaddr_in from;       /* connections come from this address; family 0: the kernel chooses */
    const char *csv;  /* file that rows are appended to, NULL: none */
    const char *json; /* file, "-": stdout, NULL: none */
};

/* Ends the process in words if the command line makes no sense. */
void opt_parse(struct opt *o, int argc, char **argv);

#endif
