#include "broker/redis_io.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include "broker/resolve.h"
#include "common/file.h"
#include "common/tlsc.h"

#include "common/banned.h"

#define CLOSE_MS 1000

/* -- what links share -- */

bool
redis_io_password(const char *setting, const char *path, char out[REDISURL_PASSWORD], struct conf_error *err)
{
    int fd = file_open(path);
    ssize_t n = fd >= 0 ? read(fd, out, REDISURL_PASSWORD - 1) : -1;
    int e = errno;
    if (fd >= 0)
        close(fd);
    if (n < 0)
        return conf_fail(err, "%s: can't read %s: %s", setting, path, strerror(e));
    out[n] = '\0';
    out[strcspn(out, "\r\n")] = '\0';
    if (out[0] == '\0' || strlen(out) + 1 >= REDISURL_PASSWORD)
        return conf_fail(err, "%s: the first line of %s must be a password of at most %d bytes", setting, path,
            REDISURL_PASSWORD - 2);
    return true;
}

struct redis_io *
redis_io_open(const struct conf *conf, struct ring *ring, uint64_t *metrics, const char *name, struct conf_error *err)
{
    struct redis_io *io = calloc(1, sizeof *io);
    if (io == NULL) {
        (void)conf_fail(err, "redis.url: memory is out");
        return NULL;
    }
    *io = (struct redis_io){.conf = conf, .ring = ring, .metrics = metrics, .now = mono_now()};
    snprintf(io->name, sizeof io->name, "%s", name);
    snprintf(io->login.user, sizeof io->login.user, "%s", conf->redis_user);
    bool ok = getrandom(&io->random, sizeof io->random, 0) == sizeof io->random ||
        conf_fail(err, "redis.url: no random numbers: %s", strerror(errno));
    io->random |= 1;
    if (ok && conf->redis_password_file[0] != '\0')
        ok = redis_io_password("redis.password_file", conf->redis_password_file, io->login.password, err);
    if (ok)
        return io;
    free(io);
    return NULL;
}

uint64_t
redis_io_random(struct redis_io *io, uint64_t n)
{
    io->random ^= io->random << 13; /* xorshift64 (Marsaglia, 2003) */
    io->random ^= io->random >> 7;
    io->random ^= io->random << 17;
    return n == 0 ? 0 : io->random % n;
}

static bool
need_tls(struct redis_io *io, struct conf_error *err)
{
    const struct conf *c = io->conf;
    const struct tlsc_conf tls = {c->redis_tls_ca, c->redis_tls_certificate, c->redis_tls_key, c->redis_tls_verify};
    if (io->tls == NULL)
        io->tls = tlsc_shared_new(&tls, "redis", err);
    return io->tls != NULL;
}

static bool
need_names(struct redis_io *io, struct conf_error *err)
{
    if (io->resolve == NULL)
        io->resolve = resolve_open(io->conf, err);
    return io->resolve != NULL;
}

static bool
is_name(const struct redisurl *u)
{
    unsigned char ip[16];
    return !u->is_unix && inet_pton(AF_INET, u->host, ip) != 1 && inet_pton(AF_INET6, u->host, ip) != 1;
}

bool
redis_io_where(struct redis_io *io, struct view url, struct redisurl *out, struct conf_error *err)
{
    const char *why = NULL;
    if (!redisurl_parse(url, out, &why))
        return conf_fail(err, "redis.url (set in %s): an entry is no address of a Redis server: %s",
            conf_place(io->conf, "redis.url"), why);
    if (out->user[0] == '\0')
        memcpy(out->user, io->login.user, sizeof out->user);
    if (out->password[0] == '\0')
        memcpy(out->password, io->login.password, sizeof out->password);
    return (!out->tls || need_tls(io, err)) && (!is_name(out) || need_names(io, err));
}

/* -- the turn -- */

uint32_t
redis_io_turn(struct redis_io *io, struct mono now)
{
    io->now = now;
    uint64_t wait = 3600000;
    for (uint32_t i = 0; i < io->used; i++) {
        struct redis_link *l = io->links[i];
        if (l == NULL)
            continue;
        redis_link_turn(l);
        if (redis_link_is_over(l))
            redis_link_destroy(l);
        else
            wait = MIN(wait, mono_since_ms(redis_link_deadline(l), now) + 1);
    }
    return (uint32_t)wait;
}

void
redis_io_on_done(struct redis_io *io, struct ring_done d)
{
    if (d.slot < io->used && io->links[d.slot] != NULL)
        redis_link_on_done(io->links[d.slot], d);
}

/* -- the end -- */

static void
on_late_done(void *arg, struct ring_done d)
{
    redis_io_on_done(arg, d);
}

static bool
any_left(struct redis_io *io)
{
    bool any = false;
    for (uint32_t i = 0; i < io->used; i++) {
        struct redis_link *l = io->links[i];
        if (l != NULL && redis_link_is_over(l))
            redis_link_destroy(l);
        any |= io->links[i] != NULL;
    }
    return any;
}

void
redis_io_close(struct redis_io *io)
{
    if (io == NULL)
        return;
    for (uint32_t i = 0; i < io->used; i++)
        redis_link_free(io->links[i]);
    struct mono end = mono_add_ms(mono_now(), CLOSE_MS);
    while (any_left(io) && !mono_reached(mono_now(), end)) {
        ring_wait(io->ring, 10000000);
        (void)ring_reap(io->ring, on_late_done, io);
    }
    for (uint32_t i = 0; i < io->used; i++)
        if (io->links[i] != NULL)
            redis_link_destroy(io->links[i]);
    tlsc_shared_free(io->tls);
    resolve_close(io->resolve);
    explicit_bzero(io, sizeof *io);
    free(io);
}
