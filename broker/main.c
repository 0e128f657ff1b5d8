/* ringcast-broker: one process, one thread, one broker. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "broker/broker.h"
#include "common/bug.h"
#include "common/log.h"

static int
fd_from_env(const char *name)
{
    const char *v = getenv(name);
    return v != NULL && *v ? (int)strtol(v, NULL, 10) : -1;
}

static void
watch_signals(struct broker *b)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    b->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    b->parent_fd = fd_from_env("RINGCAST_PARENT_FD");
    broker_watch(b);
}

static void
say_ready(void)
{
    int fd = fd_from_env("RINGCAST_READY_FD");
    if (fd < 0)
        return;
    (void)!write(fd, "\n", 1);
    close(fd);
}

int
main(int argc, char **argv)
{
    static struct broker b;
    struct conf conf;
    conf_from_command_line(&conf, &argc, argv, "ringcast-broker",
        "ringcast-broker [--broker.index=N] [--config FILE] [--section.key=value ...]");
    unsigned index = 0;
    for (int i = 1; i < argc; i++)
        if (strncmp(argv[i], "--broker.index=", 15) == 0)
            index = (unsigned)strtoul(argv[i] + 15, NULL, 10);
        else
            die("unknown argument %s: see --help", argv[i]);
    char who[32];
    snprintf(who, sizeof who, "broker.%u", index);
    log_init(who, conf.log_level, (uint32_t)conf.log_rate);
    struct conf_error err = {{0}};
    if (!broker_init(&b, &conf, index, &err))
        die("%s", err.text);
    watch_signals(&b);
    log_info("ready", "socket=%s %s", b.path, ring_describe(&b.ring));
    say_ready();
    broker_run(&b);
    broker_fini(&b);
    conf_free(&conf);
    return 0;
}
