#include "deploy/ringcast/secure.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <stdlib.h>

#include "common/banned.h"

struct secure {
    SSL_CTX *ctx;
    SSL *ssl;
    int fd;
};

/* Waits for what the call that returned rc needs. False when it is over, or the deadline is past (*late). */
static bool
wait_for(struct secure *s, int rc, struct mono deadline, bool *late)
{
    int why = SSL_get_error(s->ssl, rc);
    short events = why == SSL_ERROR_WANT_READ ? POLLIN : why == SSL_ERROR_WANT_WRITE ? POLLOUT : 0;
    if (events == 0)
        return false;
    struct pollfd p = {.fd = s->fd, .events = events};
    while (!mono_reached(mono_now(), deadline))
        if (poll(&p, 1, (int)MIN(mono_since_ms(deadline, mono_now()) + 1, (uint64_t)1000000)) != 0)
            return true;
    *late = true;
    return false;
}

static bool
set_name(struct secure *s, const char *host, bool verify)
{
    unsigned char ip[16];
    bool is_ip = inet_pton(AF_INET, host, ip) == 1 || inet_pton(AF_INET6, host, ip) == 1;
    if (!is_ip && SSL_set_tlsext_host_name(s->ssl, host) != 1)
        return false;
    if (!verify)
        return true;
    SSL_set_verify(s->ssl, SSL_VERIFY_PEER, NULL);
    X509_VERIFY_PARAM *param = SSL_get0_param(s->ssl);
    return is_ip ? X509_VERIFY_PARAM_set1_ip_asc(param, host) == 1 : SSL_set1_host(s->ssl, host) == 1;
}

static void
say_why(const struct secure *s, bool late, const char *where, struct conf_error *err)
{
    long verdict = s->ssl != NULL ? SSL_get_verify_result(s->ssl) : X509_V_OK;
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    if (verdict != X509_V_OK)
        (void)conf_fail(err, "%s shows a certificate that is not trusted here: %s", where,
            X509_verify_cert_error_string(verdict));
    else
        (void)conf_fail(err, "%s does not shake hands in TLS: %s", where,
            late ? "it does not answer" : reason != NULL ? reason : "it broke off");
}

struct secure *
secure_open(int fd, const char *host, bool verify, struct mono deadline, const char *where, struct conf_error *err)
{
    struct secure *s = calloc(1, sizeof *s);
    bool late = false;
    int rc = -1;
    ERR_clear_error();
    if (s == NULL)
        return NULL;
    s->fd = fd;
    s->ctx = SSL_CTX_new(TLS_client_method());
    s->ssl = s->ctx != NULL ? SSL_new(s->ctx) : NULL;
    if (s->ssl != NULL && SSL_CTX_set_default_verify_paths(s->ctx) == 1 && SSL_set_fd(s->ssl, fd) == 1 &&
        set_name(s, host, verify) && fcntl(fd, F_SETFL, O_NONBLOCK) == 0)
        while ((rc = SSL_connect(s->ssl)) != 1 && wait_for(s, rc, deadline, &late))
            ERR_clear_error();
    if (rc == 1)
        return s;
    say_why(s, late, where, err);
    secure_close(s);
    return NULL;
}

int
secure_read(struct secure *s, void *p, size_t n, struct mono deadline)
{
    bool late = false;
    int rc;
    ERR_clear_error();
    while ((rc = SSL_read(s->ssl, p, (int)MIN(n, (size_t)1 << 20))) <= 0)
        if (!wait_for(s, rc, deadline, &late))
            return late ? 0 : -1;
    return rc;
}

bool
secure_write(struct secure *s, const void *p, size_t n, struct mono deadline)
{
    bool late = false;
    const unsigned char *at = p;
    ERR_clear_error();
    while (n > 0) {
        int k = (int)MIN(n, (size_t)16384), rc = SSL_write(s->ssl, at, k);
        if (rc > 0) {
            at += rc;
            n -= (size_t)rc;
        } else if (!wait_for(s, rc, deadline, &late)) {
            return false;
        }
    }
    return true;
}

void
secure_close(struct secure *s)
{
    if (s == NULL)
        return;
    if (s->ssl != NULL && SSL_is_init_finished(s->ssl))
        (void)SSL_shutdown(s->ssl);
    SSL_free(s->ssl);
    SSL_CTX_free(s->ctx);
    free(s);
}
