/* `ringcast hosts`: who shares messages with this host, as a broker here hears them; `ringcast occupancy`: how many
 * subscribers a channel has on each. */
#ifndef DEPLOY_RINGCAST_HOSTS_H
#define DEPLOY_RINGCAST_HOSTS_H

#include "common/conf.h"

/* argv: what is left of the command line behind the command. Returns the exit status: 0; 1 when no broker answers or
 * the count is not whole. */
int hosts_command(const struct conf *c, int argc, char **argv);
int hosts_occupancy(const struct conf *c, int argc, char **argv);

#endif
