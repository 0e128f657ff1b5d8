/* Options of TCP sockets that listen, the same whether `ringcast run` opens them or a worker by itself.
 * Connections inherit them. Called at the start. */
#ifndef COMMON_SOCK_H
#define COMMON_SOCK_H

#include "common/base.h"

/* Before bind. shared: one of several sockets of the address (SO_REUSEPORT). any_host: the address is "any" of IPv6 and takes
 * IPv4 too. */
void sock_set_listener(int fd, bool shared, bool any_host);

#endif
