/* ringcast-broker: one process, one thread, one broker. */
#include "broker/broker.h"
#include "common/bug.h"
#include "common/calls.h"
#include "common/log.h"
#include "common/priv.h"
#include "common/start.h"

/* Its socket and its counter page are there, and its ring: nothing else needs rights. */
static void
give_up_rights(struct broker *b, const struct conf *conf)
{
    struct conf_error err;
    struct priv_user own, workers;
    if (!priv_user_find(&own, conf, "broker.user", false, &err) ||
        !priv_user_find(&workers, conf, "worker.user", true, &err) ||
        !priv_share_socket(conf->run_dir, b->path, &own, &workers, &err) || !priv_drop(&own, conf, &err))
        die("%s", err.text);
    b->worker_uid = workers.uid;
    struct priv_state now = priv_look();
    broker_show_rights(b, &now);
    const char *why;
    if (conf->run_seccomp && !calls_limit(conf->redis_url.n > 0 ? CALLS_BROKER | CALLS_BUS : CALLS_BROKER, &why))
        log_warn("calls-not-limited", "why=\"%s\"", why);
}

int
main(int argc, char **argv)
{
    static struct broker b;
    struct start start;
    struct conf conf;
    start_process(&start, &conf, "broker", argc, argv);
    struct conf_error err = {{0}};
    if (start.index >= conf.broker_count)
        die("--broker.index=%u: broker.count (%s) is %llu, so nobody would ask this broker: write --broker.index=0 to %llu, or raise "
            "broker.count for workers too", start.index, conf_place(&conf, "broker.count"), (unsigned long long)conf.broker_count,
            (unsigned long long)conf.broker_count - 1);
    if (!broker_await_place(&conf, &start))
        return 0;
    if (!broker_init(&b, &conf, start.index, &err))
        die("%s", err.text);
    b.signal_fd = start.signal_fd;
    b.parent_fd = start.parent_fd;
    broker_watch(&b);
    give_up_rights(&b, &conf);
    log_info("ready", "socket=%s %s", b.path, ring_describe(&b.ring));
    start_ready(&start);
    broker_run(&b);
    broker_fini(&b);
    conf_free(&conf);
    return 0;
}
