/* Plays transcripts against the pure dialects: client frames go through proto/ws, masked, in chunks of
 * 1, 7 and all bytes; messages through a dialect; verbs through a session of one client that knows just
 * enough to answer. The same files are played against a live server by live.py.
 *
 *     wire tests/wire/socketcluster.txt ...
 *
 * A transcript is read line by line:
 *
 *     == TITLE        a new connection
 *     : dialect NAME  which language; socketcluster unless told
 *     : limit NAME N  one of struct dialect_limits
 *     : pure          not for a live server (it sets limits, or plays what only the server can begin)
 *     : timers        live only on a server with short timeouts
 *     > TEXT          the client sends a text message (empty: ">" alone)
 *     >b HEX          ... a binary one
 *     >x CODE REASON  ... a Close frame
 *     >! HEX          ... these bytes, frame header and all
 *     ~ ping          the server's ping is due; also: handshake_timeout, pong_timeout, kick CHANNEL,
 *                     gap N CHANNEL (N messages were not delivered; - for an unknown number)
 *     = VERB | x=y    what the dialect understood; a step that has any must have all
 *     < TEXT          the server sends a text message, $id stands for a socket id, $n for digits
 *     <b HEX          ... a binary one
 *     <p HEX          ... a pong
 *     <x CODE REASON  ... a Close frame, and nothing after it
 *     # ...           a comment
 *
 * In TEXT, @(X*N) stands for N times X, @n, @r and @t for line feed, carriage return and tab. Answers
 * are compared step by step: a step is what is sent before the next answer is due. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base.h"
#include "common/buf.h"
#include "common/bug.h"
#include "common/view.h"
#include "proto/dialect.h"
#include "proto/json.h"
#include "proto/ws.h"

#define MAX_LINE (4u << 20)  /* bytes of anything */
#define MAX_HELD 64          /* channels of the client */
#define SOCKET_ID "wireAAAAAAAAAAAAAAAA"
#define PING_TIMEOUT_MS 30000

static const size_t chunk_sizes[] = {1, 7, SIZE_MAX};

static unsigned failures, sections, steps;

/* One connection, and what the transcript said of the present step. */
struct play {
    const char *file;
    unsigned line;          /* of the step's first line */
    size_t chunk;
    char title[200];
    const struct dialect *dialect;
    struct dialect_limits limits;
    struct ws_reader reader;
    uint8_t control[128];
    struct buf message;     /* of the client, as far as it has come */
    struct buf sent;        /* client bytes of this step */
    struct buf got, want;   /* answers, one a line */
    struct buf got_verbs, want_verbs;
    char held[MAX_HELD][80]; /* channels; short names only */
    bool shaken, closed;
};

/* ---- Small things ---- */

static void
put_hex(struct buf *out, struct view v)
{
    char two[3];
    for (size_t i = 0; i < v.n; i++) {
        snprintf(two, sizeof two, "%02x", v.p[i]);
        buf_put(out, two, 2);
    }
}

static void
put_unhex(struct buf *out, const char *s)
{
    unsigned byte;
    int n;
    while (sscanf(s, " %2x%n", &byte, &n) == 1) {
        buf_put_u8(out, (uint8_t)byte);
        s += n;
    }
}

/* TEXT of a line, its @ forms spelled out. */
static void
put_expanded(struct buf *out, const char *s)
{
    for (; *s; s++) {
        const char *star, *close;
        if (s[0] == '@' && s[1] != '\0' && strchr("nrt", s[1])) {
            buf_put_u8(out, s[1] == 'n' ? '\n' : s[1] == 'r' ? '\r' : '\t');
            s++;
        } else if (s[0] == '@' && s[1] == '(' && (close = strchr(s, ')')) != NULL &&
                   (star = memchr(s, '*', (size_t)(close - s))) != NULL) {
            for (long n = strtol(star + 1, NULL, 10); n > 0; n--)
                buf_put(out, s + 2, (size_t)(star - s - 2));
            s = close;
        } else {
            buf_put_u8(out, (uint8_t)*s);
        }
    }
}

static void
put_text(struct buf *out, const char *s)
{
    buf_put(out, s, strlen(s));
}

/* ---- The client's side ---- */

static void
client_sends(struct play *pl, enum ws_opcode op, const uint8_t *p, size_t n)
{
    static const uint8_t key[4] = {0x37, 0xFA, 0x21, 0x3D};
    uint8_t head[14];
    buf_put(&pl->sent, head, ws_put_client_header(head, op, n, key));
    size_t at = pl->sent.n;
    buf_put(&pl->sent, p, n);
    ws_mask(pl->sent.p + at, n, key, 0);
}

/* ---- The session ---- */

static void
answer(struct play *pl, const struct event *ev, bool text)
{
    struct buf out = buf_make(MAX_LINE);
    if (!pl->closed && pl->dialect->encode(NULL, ev, &out)) {
        put_text(&pl->got, text ? "< " : "<b ");
        if (text)
            buf_put_view(&pl->got, buf_view(&out));
        else
            put_hex(&pl->got, buf_view(&out));
        buf_put_u8(&pl->got, '\n');
    }
    buf_free(&out);
}

static void
put_closed(struct buf *out, unsigned code, struct view reason)
{
    char head[32];
    snprintf(head, sizeof head, "<x %u", code);
    put_text(out, head);
    if (reason.n > 0) {
        buf_put_u8(out, ' ');
        buf_put_view(out, reason);
    }
    buf_put_u8(out, '\n');
}

static void
hang_up(struct play *pl, unsigned code, struct view reason)
{
    if (!pl->closed)
        put_closed(&pl->got, code, reason);
    pl->closed = true;
}

/* The client's place for a channel: where it stands, or a free one, or NULL. */
static char *
find_held(struct play *pl, struct view name, bool take)
{
    char *spare = NULL;
    for (size_t i = 0; i < MAX_HELD; i++) {
        if (pl->held[i][0] == '\0')
            spare = spare ? spare : pl->held[i];
        else if (view_eq(view_str(pl->held[i] + 1), name))
            return pl->held[i];
    }
    return take && name.n < sizeof pl->held[0] - 1 ? spare : NULL;
}

static void
on_subscribe(struct play *pl, const struct verb *v)
{
    char *place = find_held(pl, v->channel, true);
    if (place != NULL) {
        place[0] = '+';
        memcpy(place + 1, v->channel.p, v->channel.n);
        place[1 + v->channel.n] = '\0';
    }
    answer(pl, &(struct event){.kind = EV_DONE, .call_id = v->call_id}, true);
}

static void
on_unsubscribe(struct play *pl, const struct verb *v)
{
    struct event ev = {.kind = EV_DONE, .call_id = v->call_id, .channel = v->channel,
        .socket = VIEW(SOCKET_ID)};
    char *place = find_held(pl, v->channel, false);
    if (place == NULL) {
        ev.kind = EV_FAILED;
        ev.err = ERR_NOT_SUBSCRIBED;
    } else {
        place[0] = '\0';
    }
    answer(pl, &ev, true);
}

static void
on_publish(struct play *pl, const struct verb *v)
{
    if (find_held(pl, v->channel, false) != NULL)
        answer(pl, &(struct event){.kind = EV_PUBLICATION, .channel = v->channel,
            .has_data = v->has_data, .data = v->data}, true);
    answer(pl, &(struct event){.kind = EV_DONE, .call_id = v->call_id}, true);
}

static void
on_handshake(struct play *pl, const struct verb *v)
{
    pl->shaken = true;
    answer(pl, &(struct event){.kind = EV_WELCOME, .call_id = v->call_id, .err = v->err,
        .socket = VIEW(SOCKET_ID), .ping_timeout_ms = PING_TIMEOUT_MS}, true);
    if (v->err != ERR_NONE)
        answer(pl, &(struct event){.kind = EV_FORGET_TOKEN}, true);
}

static void
on_verb(struct play *pl, const struct verb *v)
{
    struct event ev = {.kind = EV_FAILED, .call_id = v->call_id, .err = v->err};
    if (pl->dialect->handshake && !pl->shaken && !(verb_states(v->kind) & S_OPENING)) {
        hang_up(pl, close_code(CLOSE_NOT_SHAKEN), VIEW_NONE);
        return;
    }
    switch (v->kind) {
    case VERB_HANDSHAKE: on_handshake(pl, v); break;
    case VERB_SUBSCRIBE: on_subscribe(pl, v); break;
    case VERB_UNSUBSCRIBE: on_unsubscribe(pl, v); break;
    case VERB_PUBLISH: on_publish(pl, v); break;
    case VERB_REFUSE: answer(pl, &ev, true); break;
    case VERB_AUTHENTICATE:
        answer(pl, &ev, true);
        answer(pl, &(struct event){.kind = EV_FORGET_TOKEN}, true);
        break;
    case VERB_ECHO:
        answer(pl, &(struct event){.kind = EV_ECHO, .data = v->data, .has_data = true}, !v->binary);
        break;
    case VERB_CLOSE: hang_up(pl, close_code(v->close), VIEW_NONE); break;
    default: break;
    }
}

/* ---- What the dialect understood, as a line ---- */

static const char *
error_id_str(enum error_id e)
{
    static const char *const ids[ERR_COUNT] = {
        "NONE",
#define ERROR(id, name, message, when) #id,
#include "proto/tbl/errors.def"
#undef ERROR
    };
    return ids[e];
}

static void
put_verb_field(struct buf *out, const char *name, struct view v)
{
    if (v.n == 0)
        return;
    put_text(out, " | ");
    put_text(out, name);
    buf_put_u8(out, '=');
    buf_put_view(out, v);
}

static void
put_verb(struct buf *out, const struct verb *v)
{
    put_text(out, "= ");
    for (const char *s = verb_str(v->kind); *s; s++)
        buf_put_u8(out, (uint8_t)toupper((unsigned char)*s));
    put_verb_field(out, "channel", v->channel);
    put_verb_field(out, "event", v->event);
    if (v->has_data)
        put_verb_field(out, "data", v->data);
    put_verb_field(out, "cid", v->call_id);
    if (v->err != ERR_NONE)
        put_verb_field(out, "err", view_str(error_id_str(v->err)));
    if (v->kind == VERB_CLOSE)
        put_verb_field(out, "close", view_str(close_str(v->close)));
    buf_put_u8(out, '\n');
}

/* ---- The server's side ---- */

static void
on_message(struct play *pl, bool text)
{
    static struct decoding d;
    struct verb v;
    d = (struct decoding){.msg = buf_view(&pl->message), .text = text};
    while (!pl->closed && pl->dialect->decode(NULL, &pl->limits, &d, &v) == DECODE_VERB) {
        put_verb(&pl->got_verbs, &v);
        on_verb(pl, &v);
    }
    buf_reset(&pl->message);
}

static void
on_control(struct play *pl, const struct ws_event *ev)
{
    if (ev->kind == WS_EV_CLOSE) {
        hang_up(pl, ev->code == 1005 ? 0 : ev->code, ev->payload);
    } else if (ev->kind == WS_EV_BAD) {
        hang_up(pl, close_code(ev->bad), VIEW_NONE);
    } else if (ev->kind == WS_EV_PING) {
        put_text(&pl->got, "<p ");
        put_hex(&pl->got, ev->payload);
        buf_put_u8(&pl->got, '\n');
    }
}

static void
server_reads(struct play *pl, uint8_t *p, size_t n)
{
    static const struct ws_limits limits = {.max_message = 1 << 20, .max_frames = 16384};
    struct ws_event ev;
    while (!pl->closed && ws_read(&pl->reader, &limits, &p, &n, pl->control, &ev) != WS_EV_MORE) {
        if (ev.kind != WS_EV_DATA) {
            on_control(pl, &ev);
            continue;
        }
        buf_put_view(&pl->message, ev.payload);
        if (ev.last)
            on_message(pl, ev.text);
    }
}

static void
say_gap(struct play *pl, const char *what)
{
    struct event ev = {.kind = EV_GAP, .channel = view_str(what + strcspn(what, " ") + 1)};
    for (; *what >= '0' && *what <= '9'; what++) {
        ev.has_count = true;
        ev.count = ev.count * 10 + (unsigned)(*what - '0');
    }
    answer(pl, &ev, true);
}

static void
on_time(struct play *pl, const char *what)
{
    if (strcmp(what, "ping") == 0)
        answer(pl, &(struct event){.kind = EV_PING}, true);
    else if (strcmp(what, "handshake_timeout") == 0)
        hang_up(pl, close_code(CLOSE_HANDSHAKE_TIMEOUT), VIEW_NONE);
    else if (strcmp(what, "pong_timeout") == 0)
        hang_up(pl, close_code(CLOSE_PONG_TIMEOUT), VIEW_NONE);
    else if (strncmp(what, "kick ", 5) == 0)
        answer(pl, &(struct event){.kind = EV_KICKED, .channel = view_str(what + 5)}, true);
    else if (strncmp(what, "gap ", 4) == 0)
        say_gap(pl, what + 4);
    else
        die("wire: %s:%u: unknown event: ~ %s", pl->file, pl->line, what);
}

/* ---- Steps and sections ---- */

/* Whether `got` is `want`, where $id and $n stand for what they stand for. */
static bool
matches(struct view want, struct view got)
{
    size_t i = 0, j = 0;
    while (i < want.n) {
        struct view rest = view_from(want, i);
        bool id = view_starts(rest, VIEW("$id"));
        if (id || view_starts(rest, VIEW("$n"))) {
            size_t from = j;
            while (j < got.n && (id ? isalnum(got.p[j]) || got.p[j] == '_' || got.p[j] == '-'
                                    : isdigit(got.p[j])))
                j++;
            if (j == from)
                return false;
            i += id ? 3 : 2;
        } else if (j < got.n && want.p[i] == got.p[j]) {
            i++;
            j++;
        } else {
            return false;
        }
    }
    return j == got.n;
}

static void
complain(const struct play *pl, const char *what, struct view want, struct view got)
{
    failures++;
    fprintf(stderr, "%s:%u: %s (chunks of %zu): %s\n  wanted:\n%.*s  got:\n%.*s", pl->file, pl->line,
        pl->title, pl->chunk, what, VIEW_FMT(view_head(want, 2000)), VIEW_FMT(view_head(got, 2000)));
}

/* Feeds what the step sent, and compares. */
static void
end_step(struct play *pl)
{
    size_t at = 0;
    while (at < pl->sent.n) {
        size_t n = MIN(pl->chunk, pl->sent.n - at);
        server_reads(pl, pl->sent.p + at, n);
        at += n;
    }
    buf_reset(&pl->sent);
    if (!matches(buf_view(&pl->want), buf_view(&pl->got)))
        complain(pl, "the answers differ", buf_view(&pl->want), buf_view(&pl->got));
    if (pl->want_verbs.n && !view_eq(buf_view(&pl->want_verbs), buf_view(&pl->got_verbs)))
        complain(pl, "the verbs differ", buf_view(&pl->want_verbs), buf_view(&pl->got_verbs));
    buf_reset(&pl->want);
    buf_reset(&pl->got);
    buf_reset(&pl->want_verbs);
    buf_reset(&pl->got_verbs);
    steps++;
}

static void
begin_section(struct play *pl, const char *title)
{
    snprintf(pl->title, sizeof pl->title, "%s", title);
    pl->dialect = &dialect_socketcluster;
    pl->limits = (struct dialect_limits){128, 8192, 1024, 256};
    pl->reader = (struct ws_reader){0};
    memset(pl->held, 0, sizeof pl->held);
    pl->shaken = pl->closed = false;
    buf_reset(&pl->message);
    sections++;
}

static void
set_limit(struct play *pl, const char *rest)
{
    char name[32];
    unsigned n;
    if (sscanf(rest, "%31s %u", name, &n) != 2)
        die("wire: %s:%u: : limit NAME NUMBER", pl->file, pl->line);
    if (strcmp(name, "max_depth") == 0)
        pl->limits.max_depth = n;
    else if (strcmp(name, "max_batch") == 0)
        pl->limits.max_batch = n;
    else if (strcmp(name, "max_channel_name") == 0)
        pl->limits.max_channel_name = n;
    else if (strcmp(name, "max_event_name") == 0)
        pl->limits.max_event_name = n;
    else
        die("wire: %s:%u: unknown limit %s", pl->file, pl->line, name);
}

static void
on_directive(struct play *pl, const char *s)
{
    if (strcmp(s, "dialect echo") == 0)
        pl->dialect = &dialect_echo;
    else if (strncmp(s, "limit ", 6) == 0)
        set_limit(pl, s + 6);
    else if (strcmp(s, "pure") != 0 && strcmp(s, "timers") != 0 &&
             strcmp(s, "dialect socketcluster") != 0)
        die("wire: %s:%u: unknown directive: %s", pl->file, pl->line, s);
}

/* A line that begins with '>'; s is behind it. */
static void
on_client_line(struct play *pl, const char *s)
{
    struct buf b = buf_make(MAX_LINE);
    char reason[124] = "";
    unsigned code = 0;
    uint8_t frame[127];
    if (s[0] == 'b') {
        put_unhex(&b, s + 1);
        client_sends(pl, WS_BINARY, b.p, b.n);
    } else if (s[0] == '!') {
        put_unhex(&pl->sent, s + 1);
    } else if (s[0] == 'x') {
        sscanf(s + 1, " %u %123[^\n]", &code, reason);
        size_t n = ws_put_close(frame, (uint16_t)code, view_str(reason));
        client_sends(pl, WS_CLOSE, frame + 2, n - 2);
    } else {
        put_expanded(&b, s[0] == ' ' ? s + 1 : s);
        client_sends(pl, WS_TEXT, b.p, b.n);
    }
    buf_free(&b);
}

/* A line of what is expected, with its newline put back. */
static void
expect(struct buf *out, const char *s)
{
    put_expanded(out, s);
    if (strcmp(s, "<") == 0)
        buf_put_u8(out, ' ');
    buf_put_u8(out, '\n');
}

static void
on_line(struct play *pl, const char *s, unsigned line)
{
    bool sends = s[0] == '>' || s[0] == '~' || s[0] == '=';
    bool due = pl->want.n > 0 || (s[0] != '=' && pl->want_verbs.n > 0);
    if (strncmp(s, "== ", 3) == 0 || (sends && due && s[0] != '=') || s[0] == '~') {
        end_step(pl);
        pl->line = line;
    } else if (sends && pl->sent.n == 0) {
        pl->line = line;
    }
    if (strncmp(s, "== ", 3) == 0)
        begin_section(pl, s + 3);
    else if (s[0] == ':')
        on_directive(pl, s + 2);
    else if (s[0] == '>')
        on_client_line(pl, s + 1);
    else if (s[0] == '~')
        on_time(pl, s + 2);
    else if (s[0] == '=')
        expect(&pl->want_verbs, s);
    else if (s[0] == '<')
        expect(&pl->want, s);
    else if (s[0] != '#' && s[0] != '\0')
        die("wire: %s:%u: what is this line?", pl->file, line);
}

static void
play_file(const char *path, size_t chunk)
{
    struct play pl = {.file = path, .chunk = chunk};
    FILE *f = fopen(path, "r");
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    if (f == NULL)
        die("wire: cannot open %s", path);
    struct buf *all[] = {&pl.message, &pl.sent, &pl.got, &pl.want, &pl.got_verbs, &pl.want_verbs};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        *all[i] = buf_make(MAX_LINE);
    for (unsigned number = 1; (n = getline(&line, &cap, f)) >= 0; number++) {
        line[strcspn(line, "\n")] = '\0';
        on_line(&pl, line, number);
    }
    end_step(&pl);
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        if (all[i]->failed)
            die("wire: %s is too large", path);
        buf_free(all[i]);
    }
    free(line);
    fclose(f);
}

int
main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        for (size_t c = 0; c < ARRAY_LEN(chunk_sizes); c++)
            play_file(argv[i], chunk_sizes[c]);
    if (sections == 0)
        die("wire: no transcript was named");
    printf("%u connections, %u steps, %u failures\n", sections, steps, failures);
    return failures != 0;
}
