#include "deploy/ringcast/talk.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/bug.h"

#include "proto/json.h"

#include "deploy/ringcast/client.h"
#include "deploy/ringcast/rundir.h"

#include "common/banned.h"

#define ANSWER_MS 10000         /* as long as SocketCluster clients wait for answers */
#define SILENCE_MS 60000        /* until the server has told its own */
#define SILENCE_MAX_MS 86400000 /* believed of a server, at most */

/* What the command line said. */
struct talk_options {
    const char *url; /* NULL: not given */
    uint64_t count;  /* subscribe: messages until the end; 0: no end */
    char **words;    /* what is not an option */
    int word_count;
};

/* One packet of the server, taken apart. Views point into the message. */
struct packet {
    struct view event;
    struct view data;
    struct view error;
    struct view rid;
};

struct talk {
    struct client client;
    uint64_t next_cid;
    uint64_t silence_ms; /* the server pings more often than this */
    uint64_t wanted;     /* subscribe: messages still to print; UINT64_MAX: no end */
    bool printing;
};

/* ---- reading packets ---- */

/* Value of a member of the object v; the last one of that name, as JSON.parse has it. */
static struct view
member(struct view v, struct view name)
{
    const uint8_t *p = v.p, *end = v.p + v.n;
    struct view found = VIEW_NONE;
    bool closed = false, deep = false;
    if (v.n == 0 || *p != '{')
        return found;
    p++;
    for (bool first = true;; first = false) {
        struct json_string key;
        p = json_member(p, end, first, &key, &closed);
        if (p == NULL || closed)
            return found;
        const uint8_t *behind = json_value(p, end, JSON_DEPTH_MAX, &deep);
        if (behind == NULL)
            return VIEW_NONE;
        if (view_eq(key.raw, name))
            found = view_of(p, (size_t)(behind - p));
        p = behind;
    }
}

/* What stands between the quotes of a JSON string, escapes and all; empty for another value. */
static struct view
between_quotes(struct view v)
{
    return v.n >= 2 && v.p[0] == '"' ? view_of(v.p + 1, v.n - 2) : VIEW_NONE;
}

static struct packet
packet_of(struct view v)
{
    return (struct packet){
        .event = between_quotes(member(v, VIEW("event"))),
        .data = member(v, VIEW("data")),
        .error = member(v, VIEW("error")),
        .rid = member(v, VIEW("rid")),
    };
}

/* A whole number, as call ids and times are. */
static bool
number_of(struct view v, uint64_t *out)
{
    char text[24];
    char *end;
    if (v.n == 0 || v.n >= sizeof text || v.p[0] < '0' || v.p[0] > '9')
        return false;
    memcpy(text, v.p, v.n);
    text[v.n] = '\0';
    *out = strtoull(text, &end, 10);
    return *end == '\0';
}

/* On one line: what of JSON may be a line end can only be white space. */
static void
print_value(struct view v)
{
    for (size_t i = 0; i < v.n; i++)
        (void)putchar(v.p[i] < 0x20 ? ' ' : v.p[i]);
}

static void
on_publication(struct talk *t, struct view data)
{
    if (!t->printing || t->wanted == 0)
        return;
    print_value(between_quotes(member(data, VIEW("channel"))));
    (void)putchar('\t');
    print_value(member(data, VIEW("data")));
    (void)putchar('\n');
    (void)fflush(stdout);
    if (t->wanted != UINT64_MAX)
        t->wanted--;
}

/* One packet. True when it answers call `cid`; then *err says why it failed, or is empty. */
static bool
on_packet(struct talk *t, struct view v, uint64_t cid, struct view *data, struct conf_error *err)
{
    struct packet p = packet_of(v);
    uint64_t rid = 0;
    if (view_eq(p.event, VIEW("#publish")))
        on_publication(t, p.data);
    if (view_eq(p.event, VIEW("#kickOut")))
        (void)fprintf(
            stderr, "ringcast: the server took a subscription away: %s\n", log_quote(p.data).s);
    if (p.event.n > 0 || cid == 0 || !number_of(p.rid, &rid) || rid != cid)
        return false;
    err->text[0] = '\0';
    *data = p.data;
    if (p.error.n > 0 && !view_eq(p.error, VIEW("null"))) {
        struct view name = between_quotes(member(p.error, VIEW("name")));
        struct view said = between_quotes(member(p.error, VIEW("message")));
        (void)conf_fail(err, "%.*s: %.*s", (int)MIN(name.n, 100), (const char *)name.p,
            (int)MIN(said.n, 800), (const char *)said.p);
    }
    return true;
}

/* A message: a packet, or an array of packets. */
static bool
on_message(struct talk *t, struct view v, uint64_t cid, struct view *data, struct conf_error *err)
{
    const uint8_t *end = v.p + v.n, *p = json_space(v.p, end);
    bool closed = false, deep = false, answered = false;
    if (p == end || *p != '[')
        return on_packet(t, view_of(p, (size_t)(end - p)), cid, data, err);
    p++;
    for (bool first = true;; first = false) {
        p = json_element(p, end, first, &closed);
        const uint8_t *behind =
            p == NULL || closed ? NULL : json_value(p, end, JSON_DEPTH_MAX, &deep);
        if (behind == NULL)
            return answered;
        answered |= on_packet(t, view_of(p, (size_t)(behind - p)), cid, data, err);
        p = behind;
    }
}

/* ---- waiting ---- */

/* Takes messages until the answer to `cid` has come (0: until enough was printed). False with *err
 * when the answer is an error, or nothing comes any more. */
static bool
wait_for(struct talk *t, uint64_t cid, struct view *data, struct conf_error *err)
{
    struct mono answer_by = mono_add_ms(mono_now(), ANSWER_MS);
    while (cid != 0 || t->wanted > 0) {
        struct mono silent_by = mono_add_ms(t->client.heard, t->silence_ms);
        struct mono by = cid != 0 && answer_by.ns < silent_by.ns ? answer_by : silent_by;
        enum client_got got = client_wait(&t->client, by, err);
        if (got == CLIENT_GONE)
            return false;
        if (got == CLIENT_TIMEOUT && (cid != 0 || mono_reached(mono_now(), silent_by)))
            return conf_fail(err, "%s has fallen silent", t->client.url.text);
        struct view message = buf_view(&t->client.message);
        if (got == CLIENT_MESSAGE && message.n == 0) { /* the protocol's ping: an empty message */
            if (!client_send_text(&t->client, VIEW_NONE, err))
                return false;
        } else if (got == CLIENT_MESSAGE && on_message(t, message, cid, data, err)) {
            return err->text[0] == '\0';
        }
    }
    return true;
}

/* Sends a request and waits for its answer. `data` is JSON. */
static bool
request(struct talk *t, const char *event, struct view data, struct view *answer,
    struct conf_error *err)
{
    char cid[32];
    struct buf b = buf_make(CLIENT_MESSAGE_MAX);
    uint64_t id = ++t->next_cid;
    buf_put_lit(&b, "{\"event\":\"");
    buf_put_view(&b, view_str(event));
    buf_put_lit(&b, "\",\"data\":");
    buf_put_view(&b, data);
    (void)snprintf(cid, sizeof cid, ",\"cid\":%" PRIu64 "}", id);
    buf_put_view(&b, view_str(cid));
    bool ok = b.failed ? conf_fail(err, "memory is out, or the data is too long")
                       : client_send_text(&t->client, buf_view(&b), err);
    buf_free(&b);
    return ok && wait_for(t, id, answer, err);
}

/* ---- the commands ---- */

static void
take_options(struct talk_options *o, const char *command, bool counts, int argc, char **argv)
{
    bool only_words = false;
    o->words = argv;
    for (int i = 1; i < argc; i++) {
        const char *value = strchr(argv[i], '=');
        size_t n = value != NULL ? (size_t)(value - argv[i]) : strlen(argv[i]);
        bool is_url = n == 5 && memcmp(argv[i], "--url", n) == 0;
        bool is_count = counts && n == 7 && memcmp(argv[i], "--count", n) == 0;
        char *end;
        if (only_words || strncmp(argv[i], "--", 2) != 0) {
            o->words[o->word_count++] = argv[i];
            continue;
        }
        if (argv[i][2] == '\0') {
            only_words = true;
            continue;
        }
        if (!is_url && !is_count)
            die("%s is no option of ringcast %s: it knows --url URL%s; words that begin with -- go "
                "behind a --",
                argv[i], command, counts ? " and --count N" : "");
        if (value == NULL && i + 1 >= argc)
            die("%s needs a value", argv[i]);
        value = value != NULL ? value + 1 : argv[++i];
        if (is_url)
            o->url = value;
        if (is_count && (*value < '0' || *value > '9' || (o->count = strtoull(value, &end, 10)) == 0 || *end != '\0'))
            die("--count is %s: write a whole number from 1", log_quote(view_str(value)).s);
    }
}

static void
join(const struct conf_list *l, char *out, size_t n)
{
    size_t at = 0;
    for (uint32_t i = 0; i < l->n && at < n; i++)
        at += (size_t)snprintf(out + at, n - at, "%s%s", i ? " " : "", l->v[i]);
}

/* Of addresses with spaces between them, which are cut apart, the one that is easiest to reach: a UNIX socket, plain TCP,
 * TLS. Those that want a PROXY header come last. */
static const char *
nearest(char *list)
{
    static const char *const order[] = {"unix:", "tcp://", "tls://"};
    const char *best = list;
    unsigned best_rank = UINT32_MAX;
    for (char *p; (p = strsep(&list, " ")) != NULL;) {
        unsigned rank = strstr(p, "?proxy=on") != NULL ? ARRAY_LEN(order) : 0;
        while (rank < ARRAY_LEN(order) && strncmp(p, order[rank], strlen(order[rank])) != 0)
            rank++;
        if (rank < best_rank) {
            best_rank = rank;
            best = p;
        }
    }
    return best;
}

/* Whether somebody said so. */
static bool
is_named(const struct conf *c, const char *setting)
{
    const char *place = conf_place(c, setting);
    return strcmp(place, "its default") != 0 && strcmp(place, "chosen by itself") != 0;
}

/* The server that --url names, else the one that runs in run.dir, else the first of worker.listen. Where a directory
 * was named and no address, the default address would be a guess, and might well be another server's. */
static bool
find_server(const struct conf *c, const char *given, struct client_url *u, struct conf_error *err)
{
    char listen[8192];
    if (given != NULL)
        return client_parse_url(u, given, c->sc_path, err);
    bool named = is_named(c, "run.dir");
    bool from_run_dir = rundir_read_listen(c->run_dir, named, listen, sizeof listen);
    if (!from_run_dir && named && !is_named(c, "worker.listen"))
        return conf_fail(err,
            "no ringcast run has left its address in %s (run.dir, %s); processes that were started by hand leave "
            "none: name the server with --url, or give worker.listen as they have it",
            c->run_dir, conf_place(c, "run.dir"));
    if (!from_run_dir)
        join(&c->worker_listen, listen, sizeof listen);
    const char *place = nearest(listen);
    if (!client_parse_url(u, place, c->sc_path, err))
        return false;
    u->trusted = from_run_dir; /* the directory is private, and the names in the certificate are not this address */
    if (strcmp(u->port, "0") == 0)
        return conf_fail(
            err, "the port of %s is not known: name the server with --url or --run.dir", place);
    if (strcmp(u->host, "0.0.0.0") == 0 || strcmp(u->host, "::") == 0)
        (void)snprintf(u->host, sizeof u->host, "%s", u->host[0] == ':' ? "::1" : "127.0.0.1");
    return true;
}

static bool
talk_open(struct talk *t, const struct conf *c, const char *url, struct conf_error *err)
{
    struct client_url u;
    struct view data = VIEW_NONE;
    uint64_t ms;
    t->client.fd = -1;
    t->silence_ms = SILENCE_MS;
    if (c->sc_path[0] == '\0' && url == NULL)
        return conf_fail(err,
            "sc.path is empty (%s), so nothing is served: name a server with --url",
            conf_place(c, "sc.path"));
    if (!find_server(c, url, &u, err) || !client_open(&t->client, &u, ANSWER_MS, err) ||
        !request(t, "#handshake", VIEW("{\"authToken\":null}"), &data, err))
        return false;
    if (number_of(member(data, VIEW("pingTimeout")), &ms))
        t->silence_ms = MAX(1000, MIN(ms, SILENCE_MAX_MS));
    return true;
}

/* {"channel":...} with whatever else. The channel's bytes must be UTF-8, as JSON is. */
static bool
put_channel(struct buf *b, const char *channel, struct conf_error *err)
{
    if (!utf8_valid(view_str(channel)))
        return conf_fail(err, "the channel %s is not UTF-8", log_quote(view_str(channel)).s);
    buf_put_lit(b, "{\"channel\":");
    json_put_string(b, view_str(channel));
    return true;
}

static bool
publish(struct talk *t, const char *channel, const char *text, struct conf_error *err)
{
    struct buf b = buf_make(CLIENT_MESSAGE_MAX);
    struct view v = view_str(text), answer;
    bool deep = false;
    bool ok = utf8_valid(v) || conf_fail(err, "the data is not UTF-8");
    ok = ok && put_channel(&b, channel, err);
    buf_put_lit(&b, ",\"data\":");
    if (json_valid(v, JSON_DEPTH_MAX, &deep))
        buf_put_view(&b, v);
    else
        json_put_string(&b, v);
    buf_put_u8(&b, '}');
    ok = ok && request(t, "#publish", buf_view(&b), &answer, err);
    buf_free(&b);
    return ok;
}

static bool
subscribe(struct talk *t, const char *channel, struct conf_error *err)
{
    struct buf b = buf_make(1 << 20);
    struct view answer;
    bool ok = put_channel(&b, channel, err);
    buf_put_u8(&b, '}');
    ok = ok && request(t, "#subscribe", buf_view(&b), &answer, err);
    buf_free(&b);
    if (ok)
        (void)fprintf(stderr, "ringcast: subscribed to %s\n", channel);
    return ok;
}

static int
talk_end(struct talk *t, bool ok, const struct conf_error *err)
{
    if (!ok)
        (void)fprintf(stderr, "ringcast: %s\n", err->text);
    client_close(&t->client);
    free(t);
    return ok ? 0 : 1;
}

int
talk_publish(const struct conf *c, int argc, char **argv)
{
    struct talk_options o = {0};
    struct conf_error err;
    take_options(&o, "publish", false, argc, argv);
    if (o.word_count != 2)
        die("ringcast publish takes a channel and data: ringcast publish chat '\"hello\"'");
    struct talk *t = xcalloc(1, sizeof *t);
    bool ok = talk_open(t, c, o.url, &err) && publish(t, o.words[0], o.words[1], &err);
    return talk_end(t, ok, &err);
}

int
talk_subscribe(const struct conf *c, int argc, char **argv)
{
    struct talk_options o = {0};
    struct conf_error err;
    struct view none;
    take_options(&o, "subscribe", true, argc, argv);
    if (o.word_count == 0)
        die("ringcast subscribe takes channels: ringcast subscribe chat news");
    struct talk *t = xcalloc(1, sizeof *t);
    t->wanted = o.count != 0 ? o.count : UINT64_MAX;
    t->printing = true;
    bool ok = talk_open(t, c, o.url, &err);
    for (int i = 0; ok && i < o.word_count; i++)
        ok = subscribe(t, o.words[i], &err);
    ok = ok && wait_for(t, 0, &none, &err);
    return talk_end(t, ok, &err);
}
