/* The command-line program: run, status, publish, subscribe, check-config. */
#include <stdio.h>
#include <stdlib.h>

#include "common/bug.h"
#include "common/conf.h"
#include "common/start.h"

#include "deploy/ringcast/hosts.h"
#include "deploy/ringcast/run.h"
#include "deploy/ringcast/rundir.h"
#include "deploy/ringcast/status.h"
#include "deploy/ringcast/talk.h"

#include "common/banned.h"

static const char usage[] =
    "ringcast run [SETTINGS]                      start workers and brokers and watch them\n"
    "ringcast status [--json] [--limits] [--counter NAME] [--run.dir=DIR]\n"
    "                                             what they do, also when they are stuck\n"
    "ringcast hosts [--json] [--run.dir=DIR]      the hosts that share messages with this one, and "
    "how the bus is\n"
    "ringcast occupancy CHANNEL [--json] [--run.dir=DIR]\n"
    "                                             how many subscribers a channel has, on each host\n"
    "ringcast publish CHANNEL DATA [--url URL]    publish; DATA is JSON, or else sent as a text\n"
    "ringcast subscribe CHANNEL... [--url URL] [--count N]\n"
    "                                             print what comes: channel, tab, data\n"
    "ringcast reload [--run.dir=DIR]              read settings and certificates again; the log says "
    "what changed\n"
    "ringcast check-config [SETTINGS]             say whether the settings are right, and print "
    "them\n"
    "ringcast --version, ringcast --help\n"
    "\n"
    "SETTINGS: --config FILE, and --section.key=value for each setting below.\n"
    "URL: ws://host:port/path, wss:// or unix:/path; without it, the server of --run.dir or worker.listen.";

static int
check_config(const struct conf *c, int argc, char **argv)
{
    char value[4097];
    if (argc > 1)
        die("%s is no option of ringcast check-config: it knows --config FILE and "
            "--section.key=value",
            argv[1]);
    for (unsigned i = 0; conf_row_name(i) != NULL; i++) {
        conf_row_value(c, i, value, sizeof value);
        printf("%s = %s  (%s)\n", conf_row_name(i), value, conf_place(c, conf_row_name(i)));
    }
    for (uint32_t i = 1; i < c->namespaces->n; i++)
        for (unsigned k = 0; k < CONF_NS_ROWS; k++) {
            const struct conf_namespace *ns = &c->namespaces->v[i];
            conf_namespace_value(ns, k, value, sizeof value);
            printf("namespace.%s.%s = %s  (%s)\n", ns->name, conf_namespace_key(k), value,
                ns->places[k] != NULL ? ns->places[k] : "its default");
        }
    return 0;
}

static int
reload(const struct conf *c, int argc)
{
    struct conf_error err;
    if (argc > 2)
        die("ringcast reload knows no options but --run.dir=DIR");
    if (!rundir_reload(c->run_dir, &err))
        die("%s", err.text);
    return 0;
}

int
main(int argc, char **argv)
{
    struct conf c;
    const char *command = argc > 1 && argv[1][0] != '-' ? argv[1] : "";
    static const char *const commands[] = {
        "run", "status", "hosts", "occupancy", "publish", "subscribe", "reload", "check-config", "help", "version", ""};
    unsigned which = 0;
    start_streams();
    while (which + 1 < ARRAY_LEN(commands) && strcmp(command, commands[which]) != 0)
        which++;
    if (strcmp(command, commands[which]) != 0)
        die("%s is no command: ringcast knows run, status, hosts, occupancy, publish, subscribe, reload and "
            "check-config",
            command);
    if (strcmp(command, "help") == 0)
        argv[1] = (char *)(uintptr_t) "--help";
    if (strcmp(command, "version") == 0)
        argv[1] = (char *)(uintptr_t) "--version";
    conf_from_command_line(&c, &argc, argv, "ringcast", usage);
    int status = 1;
    if (*command == '\0')
        die("say what to do: ringcast run, status, hosts, occupancy, publish, subscribe, reload or check-config "
            "(--help says more)");
    /* argv[1] is the command; what it leaves to its own options begins behind it */
    if (strcmp(command, "run") == 0 && argc > 2)
        die("%s is no option of ringcast run: it knows --config FILE and --section.key=value",
            argv[2]);
    else if (strcmp(command, "run") == 0)
        status = run_command(&c);
    else if (strcmp(command, "status") == 0)
        status = status_command(&c, argc - 1, argv + 1);
    else if (strcmp(command, "hosts") == 0)
        status = hosts_command(&c, argc - 1, argv + 1);
    else if (strcmp(command, "occupancy") == 0)
        status = hosts_occupancy(&c, argc - 1, argv + 1);
    else if (strcmp(command, "publish") == 0)
        status = talk_publish(&c, argc - 1, argv + 1);
    else if (strcmp(command, "subscribe") == 0)
        status = talk_subscribe(&c, argc - 1, argv + 1);
    else if (strcmp(command, "reload") == 0)
        status = reload(&c, argc);
    else
        status = check_config(&c, argc - 1, argv + 1);
    conf_free(&c);
    return status;
}
