#include "broker/sentinel.h"

#include <stdio.h>
#include <stdlib.h>

#include "broker/metrics.h"
#include "common/log.h"

#define SEEDS 16
/* The sentinels and the primary are asked so often when all is well, and when it is not. */
#define CALM_MS 1000
#define HURRY_MS 100
/* A sentinel that can't be reached, or does not know the name, for so long: the next. */
#define REACH_MS 1000
#define LOOK_MS 50

enum token { TOKEN_ADDRESS, TOKEN_ROLE, TOKEN_SUBSCRIBE };

struct sentinel {
    struct redis_io *io;
    const struct conf *conf;
    uint64_t *metrics;
    const struct sentinel_ears *ears;
    void *arg;
    struct mono now;
    struct redisurl seeds[SEEDS];
    unsigned seed_count, seed;
    struct redis_link *ask, *hear;  /* to one sentinel: its answers, and its news */
    struct redis_link *probe;       /* to the server that it named; NULL before the first */
    struct redisurl server;         /* that one */
    bool has_primary;               /* it was told, and is one as far as is known */
    bool is_asking, is_probing;
    bool hurries;
    struct mono asked_at, probed_at;
    struct mono useful_at;          /* when the sentinel was chosen, or answered last */
};

/* -- the server that was named -- */

static void
on_role(struct sentinel *s, const struct redis_reply *r)
{
    bool is = r->v[0].kind == REDIS_ARRAY && r->n > 1 && redis_reply_is(r, 1, VIEW("master"));
    char text[REDISURL_TEXT];
    s->is_probing = false;
    if (is && !s->has_primary) {
        s->has_primary = true;
        s->hurries = false;
        metric_add(s->metrics, BM_sentinel_switches_total, 1);
        log_info("sentinel-primary", "server=%s", redisurl_text(&s->server, text));
        s->ears->on_primary(s->arg, &s->server);
    } else if (!is) {
        s->hurries = true;
        if (s->has_primary) {
            s->has_primary = false;
            log_warn("sentinel-demoted", "server=%s", redisurl_text(&s->server, text));
            s->ears->on_demoted(s->arg);
        }
    }
}

static void
probe_on_reply(void *arg, struct redis_link *link, const struct redis_request *request, const struct redis_reply *r)
{
    (void)link;
    (void)request;
    on_role(arg, r);
}

static void
probe_on_up(void *arg, struct redis_link *link)
{
    struct sentinel *s = arg;
    (void)link;
    s->is_probing = false;
    s->probed_at = (struct mono){0};
}

static void
probe_on_lost(void *arg, struct redis_link *link, const char *why)
{
    struct sentinel *s = arg;
    (void)link;
    (void)why;
    s->is_probing = false;
    s->hurries = true;
}

static const struct redis_ears probe_ears = {.on_up = probe_on_up, .on_lost = probe_on_lost, .on_reply = probe_on_reply};

/* Reached over TLS if the sentinels are, with the user of the settings. */
static bool
server_from(struct sentinel *s, struct view host, struct view port, struct redisurl *out)
{
    char url[REDISURL_HOST + 32];
    struct conf_error err;
    bool v6 = host.n > 0 && memchr(host.p, ':', host.n) != NULL;
    int n = snprintf(url, sizeof url, "%s://%s%.*s%s:%.*s", s->seeds[0].tls ? "rediss" : "redis", v6 ? "[" : "", (int)MIN(host.n, 300u),
        (const char *)host.p, v6 ? "]" : "", (int)MIN(port.n, 8u), (const char *)port.p);
    return host.n > 0 && port.n > 0 && memchr(host.p, '@', host.n) == NULL && (size_t)n < sizeof url &&
        redis_io_where(s->io, view_of(url, (size_t)n), out, &err);
}

static void
named(struct sentinel *s, const struct redisurl *where)
{
    s->useful_at = s->now;
    if (s->probe != NULL && redisurl_same(&s->server, where))
        return;
    s->server = *where;
    s->has_primary = false;
    s->is_probing = false;
    if (s->probe == NULL)
        s->probe = redis_link_new(s->io, where, 0, &probe_ears, s);
    else
        redis_link_to(s->probe, where);
    s->hurries = true;
}

/* -- the sentinel that is asked -- */

static void
ask_on_reply(void *arg, struct redis_link *link, const struct redis_request *request, const struct redis_reply *r)
{
    struct sentinel *s = arg;
    struct redisurl where;
    (void)link;
    (void)request;
    s->is_asking = false;
    /* An array of host and port; or nil, where the name is not known. */
    if (r->v[0].kind == REDIS_ARRAY && r->n == 3 && r->v[1].kind == REDIS_STRING && r->v[2].kind == REDIS_STRING &&
        server_from(s, r->v[1].text, r->v[2].text, &where))
        named(s, &where);
}

static void
on_push(void *arg, struct redis_link *link, enum redis_push push, struct view topic, struct view bytes)
{
    struct sentinel *s = arg;
    (void)link;
    (void)topic;
    (void)bytes; /* of any set that it watches: what is so is asked for */
    if (push == REDIS_MESSAGE)
        sentinel_hurry(s);
}

static void
ask_on_up(void *arg, struct redis_link *link)
{
    (void)link;
    sentinel_hurry(arg);
}

static void
ask_on_lost(void *arg, struct redis_link *link, const char *why)
{
    struct sentinel *s = arg;
    (void)link;
    (void)why;
    s->is_asking = false;
    s->useful_at = (struct mono){0}; /* the next one */
}

static void
hear_on_up(void *arg, struct redis_link *link)
{
    const struct view news = VIEW("+switch-master");
    (void)arg;
    if (!redis_link_subscribe(link, VIEW("SUBSCRIBE"), &news, 1, TOKEN_SUBSCRIBE))
        log_warn("sentinel-news", "why=\"no room\""); /* it is asked every second as well */
}

static void
hear_on_lost(void *arg, struct redis_link *link, const char *why)
{
    (void)arg;
    (void)link;
    (void)why;
}

static void
hear_on_reply(void *arg, struct redis_link *link, const struct redis_request *request, const struct redis_reply *r)
{
    (void)arg;
    (void)link;
    (void)request;
    (void)r; /* not allowed to: it is asked every second as well */
}

static const struct redis_ears ask_ears = {.on_up = ask_on_up, .on_lost = ask_on_lost, .on_reply = ask_on_reply};
static const struct redis_ears hear_ears = {.on_up = hear_on_up, .on_lost = hear_on_lost, .on_reply = hear_on_reply, .on_push = on_push};

void
sentinel_hurry(struct sentinel *s)
{
    s->hurries = true;
    s->asked_at = (struct mono){0};
}

static void
next_sentinel(struct sentinel *s)
{
    s->seed = (s->seed + 1) % s->seed_count;
    s->useful_at = s->now;
    s->is_asking = false;
    redis_link_to(s->ask, &s->seeds[s->seed]);
    redis_link_to(s->hear, &s->seeds[s->seed]);
}

uint32_t
sentinel_turn(struct sentinel *s, struct mono now)
{
    const struct view address[] = {VIEW("GET-MASTER-ADDR-BY-NAME"), view_str(s->conf->redis_sentinel_name)};
    uint64_t gap = s->hurries ? HURRY_MS : CALM_MS;
    s->now = now;
    if (mono_since_ms(now, s->useful_at) > REACH_MS + CALM_MS)
        next_sentinel(s);
    if (!s->is_asking && mono_since_ms(now, s->asked_at) >= gap && redis_link_is_up(s->ask)) {
        s->asked_at = now;
        s->is_asking = redis_link_command(s->ask, VIEW("SENTINEL"), address, 2, TOKEN_ADDRESS);
    }
    if (s->probe != NULL && !s->is_probing && mono_since_ms(now, s->probed_at) >= gap && redis_link_is_up(s->probe)) {
        s->probed_at = now;
        s->is_probing = redis_link_command(s->probe, VIEW("ROLE"), NULL, 0, TOKEN_ROLE);
    }
    return LOOK_MS;
}

/* -- making it -- */

/* As the URL has it, or from redis.sentinel_user and redis.sentinel_password_file; redis.user is for the servers. */
static bool
read_seed(struct sentinel *s, struct view url, const struct redisurl *login, struct redisurl *out, struct conf_error *err)
{
    const char *why;
    if (!redis_io_where(s->io, url, out, err)) /* what it needs of TLS and names is made there */
        return false;
    if (!redisurl_parse(url, out, &why))
        return conf_fail(err, "redis.url: %s", why);
    if (out->user[0] == '\0')
        memcpy(out->user, login->user, sizeof out->user);
    if (out->password[0] == '\0')
        memcpy(out->password, login->password, sizeof out->password);
    return true;
}

static bool
read_seeds(struct sentinel *s, struct conf_error *err)
{
    const struct conf *c = s->conf;
    struct redisurl login = {.port = 0};
    bool ok = true;
    if (c->redis_sentinel_name[0] == '\0')
        return conf_fail(err, "redis.sentinel_name is empty: write the name by which the sentinels know the primary");
    snprintf(login.user, sizeof login.user, "%s", c->redis_sentinel_user);
    if (c->redis_sentinel_password_file[0] != '\0')
        ok = redis_io_password("redis.sentinel_password_file", c->redis_sentinel_password_file, login.password, err);
    for (uint32_t i = 0; ok && i < c->redis_url.n && i < SEEDS; i++, s->seed_count++)
        ok = read_seed(s, view_str(c->redis_url.v[i]), &login, &s->seeds[i], err);
    explicit_bzero(&login, sizeof login);
    return ok && (s->seed_count > 0 || conf_fail(err, "redis.url is empty: write the addresses of sentinels"));
}

struct sentinel *
sentinel_open(const struct conf *conf, struct redis_io *io, uint64_t *metrics, const struct sentinel_ears *ears, void *arg,
    struct conf_error *err)
{
    struct sentinel *s = calloc(1, sizeof *s);
    if (s == NULL) {
        (void)conf_fail(err, "can't begin: memory is out");
        return NULL;
    }
    s->conf = conf;
    s->io = io;
    s->metrics = metrics;
    s->ears = ears;
    s->arg = arg;
    s->now = s->useful_at = mono_now();
    s->hurries = true;
    if (!read_seeds(s, err)) {
        sentinel_close(s);
        return NULL;
    }
    s->ask = redis_link_new(io, &s->seeds[0], 0, &ask_ears, s);
    s->hear = redis_link_new(io, &s->seeds[0], REDIS_SUBSCRIBES, &hear_ears, s);
    if (s->ask == NULL || s->hear == NULL) {
        (void)conf_fail(err, "can't begin: memory is out");
        sentinel_close(s);
        return NULL;
    }
    return s;
}

void
sentinel_close(struct sentinel *s)
{
    struct redis_link *links[] = {s->ask, s->hear, s->probe};
    for (size_t i = 0; i < ARRAY_LEN(links); i++)
        if (links[i] != NULL)
            redis_link_free(links[i]);
    explicit_bzero(s, sizeof *s);
    free(s);
}
