/* Listening sockets, made by the process that outlives the workers, so that a restart of a worker
 * refuses nobody: one per ring for TCP (SO_REUSEPORT), one shared by all rings for UNIX sockets. */
#ifndef DEPLOY_RINGCAST_BIND_H
#define DEPLOY_RINGCAST_BIND_H

#include <sys/socket.h>

#include "common/base.h"
#include "common/conf.h"

/* One address. Owns its sockets, and the file of a UNIX socket. */
struct bind_place {
    struct sockaddr_storage addr;
    socklen_t addr_len;
    bool any_host;  /* worker.listen named no host */
    bool proxy;     /* its connections begin with a PROXY header */
    bool no_gaps;  /* ?gaps=off */
    bool tls;       /* a tls:// address */
    unsigned entry; /* which of worker.listen it comes from */
    int *fds;       /* one per ring of all workers; UNIX: only the first */
    char text[160]; /* as printed, with the port the kernel chose */
};

struct binds {
    struct bind_place *v;
    unsigned count;
    unsigned rings; /* of all workers */
    int floor;      /* lowest descriptor number used; below is room for what children get */
};

/* Binds and listens everywhere; on failure nothing is left bound. */
bool binds_open(struct binds *b, const struct conf *c, struct conf_error *err) MUST_CHECK;
/* How a place is spoken to, as it stands in the names of descriptors: "", "+tls", "+proxy", "+nogaps", or several. */
const char *binds_kind(const struct bind_place *p);
/* The socket of a ring (counted over all workers) at place i; still owned by b. */
int binds_fd(const struct binds *b, unsigned i, unsigned ring);
/* Closes the sockets and removes the files of UNIX sockets: once no worker holds them either, who connects is refused. */
void binds_leave(struct binds *b);
/* The same, and frees everything. */
void binds_close(struct binds *b);

/* The URL to type into a browser for the first TCP place; empty if there is none. */
void binds_url(const struct binds *b, char *out, size_t out_n);

#endif
