/* `ringcast status`: reads the counter pages of a run.dir and prints them. Asks no process
 * anything, so it works while they are stopped, stuck or dead. */
#ifndef DEPLOY_RINGCAST_STATUS_H
#define DEPLOY_RINGCAST_STATUS_H

#include "common/conf.h"

/* argv: what is left of the command line behind "status". Returns the exit status. */
int status_command(const struct conf *c, int argc, char **argv);

#endif
