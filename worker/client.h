/* Who the client of a connection is: the other end of TCP, or, if that is in http.trusted_proxies, whom it
 * names, by a PROXY header in front of everything or by a field of the request. Limits per address and
 * logs go by it. */
#ifndef WORKER_CLIENT_H
#define WORKER_CLIENT_H

#include "proto/http.h"
#include "worker/conn.h"

enum client_rc {
    CLIENT_WELCOME,
    CLIENT_OVER,    /* its address has too many connections, or makes too many: 429 to its request */
    CLIENT_REFUSED, /* the same, and not even that */
};

/* Takes over what the settings say. */
void client_setup(struct worker *w);
/* The other end of a socket; none for a UNIX socket, or when it has gone already. */
struct addr client_peer(int fd);
/* Bytes of a connection in CONN_PROXY. Returns how many of them were the header's; with the header whole,
 * the state is the next. Closes what begins with something else. */
size_t client_input(struct worker *w, struct conn *c, struct view in);
/* One connection more of this address; its place in worker.addrs to be given back in *place. Who is trusted
 * to name others is not counted. */
enum client_rc client_count(struct worker *w, const struct addr *a, uint32_t *place) MUST_CHECK;
/* The head of a request has come: a trusted proxy may name another client. False when what it
 * passed on can't be read, so that its client is nobody. Sets CF_OVER if that one has too
 * many connections. */
bool client_of_request(struct worker *w, struct conn *c, const struct http_request *r);

#endif
