/* ringcast-broker: one process, one thread, one broker. */
#include "broker/broker.h"
#include "common/bug.h"
#include "common/log.h"
#include "common/start.h"

int
main(int argc, char **argv)
{
    static struct broker b;
    struct start start;
    struct conf conf;
    start_process(&start, &conf, "broker", argc, argv);
    struct conf_error err = {{0}};
    if (!broker_init(&b, &conf, start.index, &err))
        die("%s", err.text);
    b.signal_fd = start.signal_fd;
    b.parent_fd = start.parent_fd;
    broker_watch(&b);
    log_info("ready", "socket=%s %s", b.path, ring_describe(&b.ring));
    start_ready(&start);
    broker_run(&b);
    broker_fini(&b);
    conf_free(&conf);
    return 0;
}
