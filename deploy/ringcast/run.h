/* `ringcast run`: starts brokers and workers, watches them, restarts what dies, and touches no
 * message. It holds the listening sockets, so that a worker's restart refuses nobody. */
#ifndef DEPLOY_RINGCAST_RUN_H
#define DEPLOY_RINGCAST_RUN_H

#include "common/conf.h"

/* Returns the exit status: 0 after an orderly stop. */
int run_command(struct conf *c);

#endif
