/* `ringcast publish` and `ringcast subscribe`. Both return the exit status. */
#ifndef DEPLOY_RINGCAST_TALK_H
#define DEPLOY_RINGCAST_TALK_H

#include "common/conf.h"

/* argv[0] is the command, what follows its own arguments. */
int talk_publish(const struct conf *c, int argc, char **argv);
int talk_subscribe(const struct conf *c, int argc, char **argv);

#endif
