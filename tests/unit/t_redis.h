/* Real Redis servers for tests: one, a set with sentinels, a cluster. Each has a folder of its own, ports the kernel had free
 * and a UNIX socket on which the test speaks to it, whatever its ports want to see first. All end with the test, and with
 * the process. What fails ends the test in words. */
#ifndef TESTS_UNIT_T_REDIS_H
#define TESTS_UNIT_T_REDIS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* With "--requirepass" and this one t_redis_ask logs in; servers among themselves want it as masterauth, too. */
#define T_REDIS_PASSWORD "t-redis-secret"
/* Keys that t_redis_keys made. With this among the options there is no port without TLS; "%s" is the folder. */
#define T_REDIS_TLS "--tls-cert-file %s/server.pem --tls-key-file %s/server.key --tls-ca-cert-file %s/ca.pem --tls-auth-clients no " \
    "--tls-replication yes"

struct t_redis {
    pid_t pid;        /* 0: does not run */
    uint16_t port;    /* on 127.0.0.1; with "--bind ::1" among the options, there */
    uint16_t bus;     /* the port of a cluster's own talk; 0: none */
    bool sentinel;
    char dir[64];
    char sock[80];
    char id[48];      /* of a cluster's node */
    char more[2048];  /* options it was started with */
};

/* What any wait may take. Servers that had to wait for a processor put off a failover: a sentinel whose timer came late trusts
 * nobody for 30 s (its TILT mode). */
#define T_REDIS_WAIT_MS 60000

/* A folder with an authority: DIR/ca.pem. */
void t_redis_keys(char dir[64]);
/* What the authority says of a name: DIR/NAME.pem, DIR/NAME.key. `what_for` are extensions as openssl reads them. */
void t_redis_certificate(const char *dir, const char *name, const char *what_for);
/* A file of one line in that folder; returns its path, until the next call. */
const char *t_redis_secret(const char *dir, const char *name, const char *line);
void t_redis_keys_end(const char *dir);

/* Whether this machine has a redis-server. */
bool t_redis_there(void);
/* Starts one, with more options as the command line has them ("--requirepass x --save ''"; may be empty), and waits until it
 * answers. The folder is removed by t_redis_end. */
void t_redis_start(struct t_redis *r, const char *more);
/* kill -9 and wait for its end. */
void t_redis_kill(struct t_redis *r);
/* Again on the same ports and in the same folder, as empty as its folder is. */
void t_redis_restart(struct t_redis *r);
void t_redis_pause(struct t_redis *r);  /* SIGSTOP */
void t_redis_resume(struct t_redis *r); /* SIGCONT */
void t_redis_end(struct t_redis *r);

/* Says a command (printf; parted at blanks) and returns the answer as text: numbers in digits, arrays with an element
 * on each line. Lives until the next call. An error begins with "ERR:". */
const char *t_redis_ask(const struct t_redis *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The same, and the test fails unless the answer begins with `wanted`. */
void t_redis_expect(const struct t_redis *r, const char *wanted, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Whether "INFO" (or "CLUSTER INFO") has this text; for waiting. */
bool t_redis_info_has(const struct t_redis *r, const char *text);
/* Calls `is` every few ms until it is so; fails with `what` after 20 s. */
void t_redis_until(bool (*is)(void *arg), void *arg, const char *what);

#define T_CLUSTER_MAX 8
struct t_cluster {
    unsigned primaries, n;
    struct t_redis node[T_CLUSTER_MAX]; /* primaries first; then replicas, one after the other, of primary 0, 1, 2 ... */
};
/* Slots are parted evenly. Back when all nodes know all and replicas are in step. */
void t_cluster_start(struct t_cluster *c, unsigned primaries, unsigned replicas, const char *more);
void t_cluster_end(struct t_cluster *c);
/* The node that owns the slot by its own account, of those that run; -1: nobody does. */
int t_cluster_owner(const struct t_cluster *c, unsigned slot);
/* Whether all nodes that run name this owner of the slot, and are at the same epoch. */
bool t_cluster_agrees(const struct t_cluster *c, unsigned slot, unsigned owner);
/* Moves a slot from who owns it to another node as a resharding does: MIGRATING and IMPORTING first, then NODE at both; and
 * waits until all nodes agree. */
void t_cluster_move(struct t_cluster *c, unsigned slot, unsigned to);

#define T_SENTINELS 3
#define T_SENTINEL_NAME "t-primary"
struct t_sentinels {
    unsigned n;
    struct t_redis node[4];               /* the primary first, as it was at the start */
    struct t_redis sentinel[T_SENTINELS];
};
/* Down after 500 ms, a quorum of 2. Back when the sentinels know each other and the replicas. */
void t_sentinels_start(struct t_sentinels *s, unsigned replicas, const char *more, const char *more_sentinel);
void t_sentinels_end(struct t_sentinels *s);
/* The index of the node that the sentinels name, by the first that answers; -1: none. */
int t_sentinels_primary(const struct t_sentinels *s);

#endif
