/* TLS for the command line's client: a session over a connected socket, with deadlines. */
#ifndef DEPLOY_RINGCAST_SECURE_H
#define DEPLOY_RINGCAST_SECURE_H

#include "common/conf.h"
#include "common/mono.h"

struct secure;

/* Shakes hands over fd, which becomes non-blocking and stays the caller's. `host` is asked for and, if `verify`, must
 * be what the certificate of a known authority (SSL_CERT_FILE, SSL_CERT_DIR or the system's) says. NULL with a sentence
 * behind `where` in err. */
struct secure *secure_open(int fd, const char *host, bool verify, struct mono deadline, const char *where,
    struct conf_error *err) MUST_CHECK;
/* >0: bytes; 0: none until the deadline; -1: the end. */
int secure_read(struct secure *s, void *p, size_t n, struct mono deadline) MUST_CHECK;
bool secure_write(struct secure *s, const void *p, size_t n, struct mono deadline) MUST_CHECK;
void secure_close(struct secure *s);

#endif
