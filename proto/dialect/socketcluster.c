/* SocketCluster protocol v2, JSON codec: what unmodified socketcluster-client of majors 15 to 20 speak.
 * docs/protocol/socketcluster.md tells client authors what is said here and where it differs from
 * SocketCluster's own server.
 *
 * A message is one packet or an array of them. A single packet is scanned once: the places of what the
 * protocol interprets are noted while the text is validated, and a verb comes out only when all of it
 * was good. An array is validated whole first and then read packet by packet. */
#include "proto/dialect.h"
#include "proto/json.h"
#include "proto/ws.h"

#define DEPTH_MIN 2      /* a packet and the data object in it */
#define KEY_ROOM 16      /* bytes; longer than any key that is interpreted */
#define TOKEN_HEADER_MAX 1024 /* bytes of a token's decoded header */

/* decoding.step */
enum step {
    STEP_START,
    STEP_BATCH,
    STEP_END,
};

enum kind {
    ABSENT,
    STRING,
    NUMBER,
    OTHER,
};

/* A member of a packet: its last occurrence. */
struct field {
    enum kind kind;
    bool escaped;     /* a string with escapes in it */
    struct view text; /* the value as it stands in the message */
};

/* What is interpreted of a packet; the rest is skipped. */
struct packet {
    struct field event, data, cid, rid;
    struct field channel, body, token; /* inside data: "channel", "data", "authToken" */
};

/* One packet on its way to a verb. */
struct reading {
    const struct dialect_limits *limits;
    struct decoding *d;
    const struct packet *packet;
    struct verb *verb;
};

/* ---- Scanning ---- */

/* Bytes of a key; those with escapes are spelled out in `room`, too long ones match nothing. */
static inline struct view
key_bytes(const struct json_string *key, uint8_t room[KEY_ROOM])
{
    size_t n;
    if (LIKELY(!key->escaped))
        return key->raw;
    return json_unescape(key->raw, room, KEY_ROOM, &n) ? view_of(room, n) : VIEW_NONE;
}

#define KEY_IS(key, lit) ((key).n == sizeof(lit) - 1 && memcmp((key).p, lit, sizeof(lit) - 1) == 0)

static inline struct field *
packet_field(struct packet *k, struct view key)
{
    if (KEY_IS(key, "event"))
        return &k->event;
    if (KEY_IS(key, "data"))
        return &k->data;
    if (KEY_IS(key, "cid"))
        return &k->cid;
    if (KEY_IS(key, "rid"))
        return &k->rid;
    return NULL;
}

static inline struct field *
data_field(struct packet *k, struct view key)
{
    if (KEY_IS(key, "channel"))
        return &k->channel;
    if (KEY_IS(key, "data"))
        return &k->body;
    if (KEY_IS(key, "authToken"))
        return &k->token;
    return NULL;
}

/* Any value, noted in *f. */
static const uint8_t *
scan_field(const uint8_t *p, const uint8_t *end, uint32_t depth, bool *deep, struct field *f)
{
    const uint8_t *start = p;
    f->escaped = false;
    if (*p == '"') {
        struct json_string s;
        p = json_string(p + 1, end, &s);
        f->kind = STRING;
        if (p != NULL)
            f->escaped = s.escaped;
    } else if (*p == '-' || (*p >= '0' && *p <= '9')) {
        p = json_number(p, end);
        f->kind = NUMBER;
    } else {
        p = json_value(p, end, depth, deep);
        f->kind = OTHER;
    }
    f->text = view_of(start, p == NULL ? 0 : (size_t)(p - start));
    return p;
}

/* A "data" that is an object, p behind its brace; depth is what its members may nest. */
static const uint8_t *
scan_data_object(
    const uint8_t *p, const uint8_t *end, uint32_t depth, bool *deep, struct packet *k)
{
    for (bool first = true;; first = false) {
        struct json_string key;
        uint8_t room[KEY_ROOM];
        bool closed;
        p = json_member(p, end, first, &key, &closed);
        if (p == NULL || closed)
            return p;
        struct field *f = data_field(k, key_bytes(&key, room));
        p = f ? scan_field(p, end, depth, deep, f) : json_value(p, end, depth, deep);
        if (p == NULL)
            return NULL;
    }
}

static const uint8_t *
scan_data(const uint8_t *p, const uint8_t *end, uint32_t depth, bool *deep, struct packet *k)
{
    const uint8_t *start = p;
    k->channel.kind = k->body.kind = k->token.kind = ABSENT; /* of an earlier "data" */
    if (*p != '{')
        return scan_field(p, end, depth, deep, &k->data);
    p = scan_data_object(p + 1, end, depth - 1, deep, k);
    k->data.kind = OTHER;
    k->data.text = view_of(start, p == NULL ? 0 : (size_t)(p - start));
    return p;
}

/* A packet, p behind its brace. NULL when it is no JSON, or, with *deep set, nested too deeply. */
static const uint8_t *
scan_packet(const uint8_t *p, const uint8_t *end, uint32_t max_depth, bool *deep, struct packet *k)
{
    uint32_t depth = MAX(max_depth, (uint32_t)DEPTH_MIN) - 1;
    k->event.kind = k->data.kind = k->cid.kind = k->rid.kind = ABSENT;
    k->channel.kind = k->body.kind = k->token.kind = ABSENT;
    for (bool first = true;; first = false) {
        struct json_string key;
        uint8_t room[KEY_ROOM];
        bool closed;
        p = json_member(p, end, first, &key, &closed);
        if (p == NULL || closed)
            return p;
        struct field *f = packet_field(k, key_bytes(&key, room));
        if (f == &k->data)
            p = scan_data(p, end, depth, deep, k);
        else
            p = f ? scan_field(p, end, depth, deep, f) : json_value(p, end, depth, deep);
        if (p == NULL)
            return NULL;
    }
}

/* Behind a value that is nested too deeply to be validated, found by counting brackets; p is at its
 * first. What stands between is not checked, because nothing of it will be used but the call id: the
 * last "cid" of the outermost object. Linear, and needs no memory however deep it goes. */
static const uint8_t *
leap(const uint8_t *p, const uint8_t *end, struct field *cid)
{
    size_t depth = 0;
    bool key_next = false; /* a string at depth 1 would be a key of the packet */
    bool deep = false;
    cid->kind = ABSENT;
    while (p < end) {
        uint8_t c = *p++;
        if (c == '{' || c == '[') {
            key_next = ++depth == 1 && c == '{';
        } else if (c == '}' || c == ']') {
            if (--depth == 0)
                return p;
        } else if (c == ',') {
            key_next = depth == 1;
        } else if (c == '"') {
            struct json_string s;
            uint8_t room[KEY_ROOM];
            if ((p = json_string(p, end, &s)) == NULL)
                return NULL;
            bool is_key = key_next;
            key_next = false;
            if (!is_key || !KEY_IS(key_bytes(&s, room), "cid"))
                continue;
            p = json_space(p, end);
            if (p == end || *p != ':' || (p = json_space(p + 1, end)) == end)
                return NULL;
            cid->kind = OTHER;
            if (*p != '{' && *p != '[' && (p = scan_field(p, end, 0, &deep, cid)) == NULL)
                return NULL;
        }
    }
    return NULL;
}

/* ---- From packets to verbs ---- */

static void
say(struct verb *v, enum verb_kind kind)
{
    v->kind = kind;
}

static void
refuse(struct verb *v, enum error_id err)
{
    v->kind = VERB_REFUSE;
    v->err = err;
}

static void
hang_up(struct verb *v, enum close_reason why)
{
    v->kind = VERB_CLOSE;
    v->close = why;
}

/* A valid value that is no packet, or an answer to nothing: it has no effect, and it did parse, so it
 * is not RAW. */
static void
nothing(struct verb *v)
{
    v->kind = VERB_ANSWER;
}

/* The bytes a string means, if they are no more than max; escapes are spelled out in `room`, which
 * holds NAME_MAX_BYTES. */
static bool
take_name(const struct field *f, uint32_t max, uint8_t *room, struct view *out)
{
    if (f->kind != STRING)
        return false;
    struct view raw = view_of(f->text.p + 1, f->text.n - 2);
    max = MIN(max, (uint32_t)NAME_MAX_BYTES);
    if (LIKELY(!f->escaped)) {
        *out = raw;
        return raw.n <= max;
    }
    out->p = room;
    return json_unescape(raw, room, max, &out->n);
}

static void
take_data(struct verb *v, const struct field *f)
{
    v->has_data = f->kind != ABSENT;
    if (v->has_data)
        v->data = f->text;
}

static void
on_publish(struct reading *r)
{
    struct verb *v = r->verb;
    if (!take_name(&r->packet->channel, r->limits->max_channel_name, r->d->names, &v->channel)) {
        refuse(v, ERR_PUBLISH_NAME);
        return;
    }
    say(v, VERB_PUBLISH);
    take_data(v, &r->packet->body);
}

static void
on_subscribe(struct reading *r)
{
    struct verb *v = r->verb;
    if (v->call_id.n == 0) {
        say(v, VERB_EVENT); /* SocketCluster's servers from major 18 do nothing then, in silence */
        v->event = VIEW("#subscribe");
        return;
    }
    if (!take_name(&r->packet->channel, r->limits->max_channel_name, r->d->names, &v->channel)) {
        refuse(v, ERR_SUBSCRIBE_NAME);
        return;
    }
    say(v, VERB_SUBSCRIBE);
    take_data(v, &r->packet->body);
}

/* The channel stands bare in data; Go clients send {"channel": ...}. */
static void
on_unsubscribe(struct reading *r)
{
    const struct packet *k = r->packet;
    const struct field *f = k->data.kind == STRING ? &k->data : &k->channel;
    if (take_name(f, r->limits->max_channel_name, r->d->names, &r->verb->channel))
        say(r->verb, VERB_UNSUBSCRIBE);
    else
        refuse(r->verb, ERR_UNSUBSCRIBE_NAME);
}

/* Value of a character of base64url (RFC 4648 section 5), or -1. */
static int
base64url_digit(uint8_t c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '-' ? 62 : c == '_' ? 63 : -1;
}

/* Whether a token's header is base64url of JSON, without padding and of sober length. */
static bool
token_header_decodes(struct view text)
{
    uint8_t out[TOKEN_HEADER_MAX];
    size_t n = 0;
    uint32_t bits = 0, have = 0;
    bool deep = false;
    for (size_t i = 0; i < text.n; i++) {
        int digit = base64url_digit(text.p[i]);
        if (digit < 0 || n == sizeof out)
            return false;
        bits = (bits << 6 | (uint32_t)digit) & 0xFFFF;
        have += 6;
        if (have >= 8) {
            have -= 8;
            out[n++] = (uint8_t)(bits >> have);
        }
    }
    struct view json = view_of(out, n);
    return n > 0 && out[0] == '{' && utf8_valid(json) && json_valid(json, DEPTH_MIN, &deep);
}

/* What is wrong with a token on a server without a key: the first check of those a server with a key
 * would make that fails, up to the signature, which cannot be right. */
static enum error_id
judge_token(struct view token)
{
    const uint8_t *end = token.p + token.n;
    const uint8_t *dot1 = memchr(token.p, '.', token.n);
    const uint8_t *dot2 = dot1 ? memchr(dot1 + 1, '.', (size_t)(end - dot1 - 1)) : NULL;
    if (dot2 == NULL || memchr(dot2 + 1, '.', (size_t)(end - dot2 - 1)) != NULL)
        return ERR_TOKEN_MALFORMED;
    if (!token_header_decodes(view_of(token.p, (size_t)(dot1 - token.p))) || dot2 == dot1 + 1)
        return ERR_TOKEN_INVALID;
    return dot2 + 1 == end ? ERR_TOKEN_UNSIGNED : ERR_NO_TOKEN_KEY;
}

/* A token of base64url and dots needs no escapes; one that has some is not taken apart. */
static enum error_id
judge_token_field(const struct field *f)
{
    if (f->escaped)
        return ERR_TOKEN_INVALID;
    return judge_token(view_of(f->text.p + 1, f->text.n - 2));
}

/* Tokens of another type count as none here (data of a wrong type is as if absent). */
static void
on_handshake(struct reading *r)
{
    const struct field *token = &r->packet->token;
    if (r->packet->cid.kind != NUMBER || r->verb->call_id.n == 0) {
        hang_up(r->verb, CLOSE_NO_CALL_ID);
        return;
    }
    say(r->verb, VERB_HANDSHAKE);
    if (token->kind != STRING || token->text.n == 2)
        return;
    take_data(r->verb, token);
    r->verb->err = judge_token_field(token);
}

static void
on_authenticate(struct reading *r)
{
    const struct field *token = &r->packet->data;
    if (r->packet->cid.kind != NUMBER || r->verb->call_id.n == 0) {
        hang_up(r->verb, CLOSE_NO_CALL_ID);
        return;
    }
    say(r->verb, VERB_AUTHENTICATE);
    take_data(r->verb, token);
    if (token->kind == ABSENT || KEY_IS(token->text, "\"\"") || KEY_IS(token->text, "null"))
        r->verb->err = ERR_TOKEN_NONE;
    else
        r->verb->err = token->kind == STRING ? judge_token_field(token) : ERR_TOKEN_TYPE;
}

static void
on_remove_token(struct reading *r)
{
    say(r->verb, VERB_LOGOUT);
    r->verb->call_id = VIEW_NONE; /* never answered */
}

/* Reserved names that do something when a client says them; the others are an application's. */
static const struct reserved {
    const char *name;
    size_t n;
    void (*read)(struct reading *);
    bool needs_call_id; /* without a usable one the connection ends */
} reserved_names[] = {
#define RESERVED(name, read, needs) {name, sizeof(name) - 1, read, needs}
    RESERVED("#publish", on_publish, false), /* first: decode_single takes it for the usual publish */
    RESERVED("#subscribe", on_subscribe, false),
    RESERVED("#unsubscribe", on_unsubscribe, false),
    RESERVED("#handshake", on_handshake, true),
    RESERVED("#authenticate", on_authenticate, true),
    RESERVED("#removeAuthToken", on_remove_token, false),
#undef RESERVED
};

static const struct reserved *
find_reserved(struct view name)
{
    if (name.n == 0 || name.p[0] != '#')
        return NULL;
    for (size_t i = 0; i < ARRAY_LEN(reserved_names); i++) {
        const struct reserved *r = &reserved_names[i];
        if (r->n == name.n && memcmp(r->name, name.p, name.n) == 0)
            return r;
    }
    return NULL;
}

static void
on_application(struct reading *r, struct view name, bool usable)
{
    if (!usable || name.n > r->limits->max_event_name) {
        refuse(r->verb, ERR_EVENT_NAME);
        return;
    }
    say(r->verb, r->verb->call_id.n ? VERB_CALL : VERB_EVENT);
    r->verb->event = name;
    take_data(r->verb, &r->packet->data);
}

/* The verb of a packet whose event is this reserved name (NULL: none of them), or `name`. */
static void
read_named(struct reading *r, const struct reserved *known, struct view name, bool usable)
{
    const struct field *cid = &r->packet->cid;
    bool has_id = cid->kind == NUMBER || cid->kind == STRING;
    if (has_id && cid->text.n <= CALL_ID_MAX) {
        r->verb->call_id = cid->text;
    } else if (has_id && (known == NULL || !known->needs_call_id)) {
        say(r->verb, VERB_RAW); /* an answer it could not be matched to helps nobody */
        return;
    }
    if (known != NULL)
        known->read(r);
    else
        on_application(r, name, usable);
}

/* The verb of a packet with an event. */
static void
read_event(struct reading *r)
{
    struct view name = VIEW_NONE;
    bool usable = take_name(&r->packet->event, NAME_MAX_BYTES, r->d->names, &name);
    read_named(r, usable ? find_reserved(name) : NULL, name, usable);
}

/* The verb of a packet. *v is zero but for its kind. */
static void
read_packet(const struct dialect_limits *limits, struct decoding *d, const struct packet *k,
    struct verb *v)
{
    if (LIKELY(k->event.kind == STRING)) {
        struct reading r = {limits, d, k, v};
        read_event(&r);
        return;
    }
    nothing(v);
    if (k->rid.kind == NUMBER && k->rid.text.n <= CALL_ID_MAX) {
        v->call_id = k->rid.text;
        take_data(v, &k->data);
    }
}

/* The verb of a packet that is nested too deeply; NULL if not even its end could be found. */
static const uint8_t *
read_deep(const uint8_t *p, const uint8_t *end, struct verb *v)
{
    struct field cid;
    p = leap(p, end, &cid);
    say(v, VERB_RAW);
    if (p != NULL && (cid.kind == NUMBER || cid.kind == STRING) && cid.text.n <= CALL_ID_MAX) {
        refuse(v, ERR_TOO_DEEP);
        v->call_id = cid.text;
    }
    return p;
}

/* ---- Messages ---- */

/* Behind the literal, if it stands at p. */
#define SKIP(p, end, lit) \
    ((size_t)((end) - (p)) >= sizeof(lit) - 1 && memcmp((p), lit, sizeof(lit) - 1) == 0 ? (p) + sizeof(lit) - 1 : NULL)

/* A publish as JSON.stringify writes those of SocketCluster's clients, p at its brace: which members there are, and where,
 * need not be found out then. Nearly all that clients say is of this form, and it takes less than half the instructions. NULL for
 * whatever else it may be, be it good or bad: scan_packet finds out. */
static const uint8_t *
scan_usual_publish(const uint8_t *p, const uint8_t *end, uint32_t max_depth, struct packet *k)
{
    struct json_string name;
    bool deep = false;
    p = SKIP(p, end, "{\"event\":\"#publish\",\"data\":{\"channel\":\"");
    if (p == NULL)
        return NULL;
    const uint8_t *start = p - 1;
    if ((p = json_string(p, end, &name)) == NULL)
        return NULL;
    k->channel = (struct field){STRING, name.escaped, view_of(start, (size_t)(p - start))};
    p = SKIP(p, end, ",\"data\":");
    if (p == NULL || p == end || (p = scan_field(p, end, MAX(max_depth, (uint32_t)DEPTH_MIN) - 2, &deep, &k->body)) == NULL)
        return NULL;
    k->cid.kind = ABSENT;
    start = SKIP(p, end, "},\"cid\":");
    if (start == NULL)
        return SKIP(p, end, "}}");
    p = start;
    if (p == end || (p = scan_field(p, end, 0, &deep, &k->cid)) == NULL)
        return NULL;
    return SKIP(p, end, "}");
}

/* A message that is one packet; p is at its brace. */
static void
decode_single(const struct dialect_limits *limits, struct decoding *d, const uint8_t *p,
    struct verb *v)
{
    const uint8_t *end = d->msg.p + d->msg.n, *behind;
    struct packet k;
    bool deep = false;
    d->step = STEP_END;
    d->count = 1;
    behind = scan_usual_publish(p, end, limits->max_depth, &k);
    if (LIKELY(behind == end)) {
        struct reading r = {limits, d, &k, v};
        read_named(&r, &reserved_names[0], VIEW("#publish"), true);
        return;
    }
    behind = scan_packet(p + 1, end, limits->max_depth, &deep, &k);
    if (LIKELY(behind != NULL))
        read_packet(limits, d, &k, v);
    else if (deep)
        behind = read_deep(p, end, v);
    if (UNLIKELY(behind == NULL || json_space(behind, end) != end))
        *v = (struct verb){.kind = VERB_RAW};
}

/* The next element of an array that has been checked; END behind the last. */
static enum decode
decode_next(const struct dialect_limits *limits, struct decoding *d, struct verb *v)
{
    const uint8_t *end = d->msg.p + d->msg.n;
    bool closed = false, deep = false;
    struct packet k;
    struct field ignored;
    const uint8_t *p = json_element(d->msg.p + d->pos, end, d->count == 0, &closed), *behind;
    if (p == NULL || closed) {
        d->step = STEP_END;
        return DECODE_END;
    }
    d->count++;
    if (*p == '{')
        behind = scan_packet(p + 1, end, limits->max_depth, &deep, &k);
    else
        behind = json_value(p, end, limits->max_depth, &deep);
    if (behind != NULL && *p == '{')
        read_packet(limits, d, &k, v);
    else if (behind != NULL)
        nothing(v); /* arrays in arrays are not unfolded */
    else if (*p == '{')
        behind = read_deep(p, end, v);
    else if (nothing(v), deep)
        behind = leap(p, end, &ignored);
    if (behind == NULL)
        d->step = STEP_END; /* cannot be: it was checked */
    else
        d->pos = (size_t)(behind - d->msg.p);
    return DECODE_VERB;
}

/* Validates an array from behind its bracket and counts what is in it. A packet that is nested too
 * deeply spoils itself and not the others. */
static enum verb_kind
check_batch(const struct dialect_limits *limits, const struct decoding *d, const uint8_t *p)
{
    const uint8_t *end = d->msg.p + d->msg.n;
    uint32_t count = 0;
    for (bool first = true;; first = false) {
        bool closed, deep = false;
        struct field ignored;
        p = json_element(p, end, first, &closed);
        if (p == NULL)
            return VERB_RAW;
        if (closed)
            return json_space(p, end) == end ? VERB_EVENT : VERB_RAW;
        if (count++ == limits->max_batch)
            return VERB_CLOSE;
        const uint8_t *behind = json_value(p, end, MAX(limits->max_depth, (uint32_t)DEPTH_MIN), &deep);
        if (behind == NULL && deep)
            behind = leap(p, end, &ignored);
        if ((p = behind) == NULL)
            return VERB_RAW;
    }
}

static enum decode
decode_batch(const struct dialect_limits *limits, struct decoding *d, const uint8_t *p,
    struct verb *v)
{
    d->step = STEP_END;
    switch (check_batch(limits, d, p)) {
    case VERB_RAW:
        return DECODE_VERB;
    case VERB_CLOSE:
        hang_up(v, CLOSE_BATCH_TOO_LONG);
        return DECODE_VERB;
    default:
        d->step = STEP_BATCH;
        d->pos = (size_t)(p - d->msg.p);
        return decode_next(limits, d, v);
    }
}

/* The first verb of a message. */
static enum decode
decode_start(const struct dialect_limits *limits, struct decoding *d, struct verb *v)
{
    d->step = STEP_END;
    if (d->msg.n == 0) {
        if (d->text)
            v->kind = VERB_PONG; /* an empty binary frame is none */
        return DECODE_VERB;
    }
    const uint8_t *end = d->msg.p + d->msg.n, *p = json_space(d->msg.p, end);
    if (p == end || (*p != '{' && *p != '[') || (!d->text && !utf8_valid(d->msg)))
        return DECODE_VERB;
    if (*p == '[')
        return decode_batch(limits, d, p + 1, v);
    decode_single(limits, d, p, v);
    return DECODE_VERB;
}

static enum decode
sc_decode(UNUSED void *state, const struct dialect_limits *limits, struct decoding *d,
    struct verb *out)
{
    *out = (struct verb){.kind = VERB_RAW};
    switch (d->step) {
    case STEP_START: return decode_start(limits, d, out);
    case STEP_BATCH: return decode_next(limits, d, out);
    default: return DECODE_END;
    }
}

/* ---- From events to packets ---- */

/* An error's message, its placeholders filled in. */
static void
put_message(struct buf *out, const struct event *ev)
{
    struct view rest = view_str(error_message(ev->err));
    while (rest.n > 0) {
        const uint8_t *brace = memchr(rest.p, '{', rest.n);
        size_t plain = brace ? (size_t)(brace - rest.p) : rest.n;
        json_put_escaped(out, view_head(rest, plain));
        rest = view_from(rest, plain);
        if (view_starts(rest, VIEW("{channel}"))) {
            json_put_escaped(out, ev->channel);
            rest = view_from(rest, sizeof "{channel}" - 1);
        } else if (view_starts(rest, VIEW("{socket}"))) {
            json_put_escaped(out, ev->socket);
            rest = view_from(rest, sizeof "{socket}" - 1);
        } else if (view_starts(rest, VIEW("{limit}"))) {
            buf_put_uint(out, ev->limit);
            rest = view_from(rest, sizeof "{limit}" - 1);
        } else if (rest.n > 0) {
            buf_put_u8(out, *rest.p);
            rest = view_from(rest, 1);
        }
    }
}

static void
put_error(struct buf *out, const struct event *ev)
{
    struct view name = view_str(error_name(ev->err));
    buf_put_lit(out, "{\"message\":\"");
    put_message(out, ev);
    buf_put_lit(out, "\",\"name\":");
    json_put_string(out, name);
    if (view_starts(name, VIEW("AuthToken")))
        buf_put_lit(out, ",\"isBadToken\":true");
    buf_put_u8(out, '}');
}

static void
put_welcome(struct buf *out, const struct event *ev)
{
    buf_put_lit(out, "{\"rid\":");
    buf_put_view(out, ev->call_id);
    buf_put_lit(out, ",\"data\":{\"id\":");
    json_put_string(out, ev->socket);
    buf_put_lit(out, ",\"pingTimeout\":");
    buf_put_uint(out, ev->ping_timeout_ms);
    if (ev->err != ERR_NONE) {
        buf_put_lit(out, ",\"authError\":");
        put_error(out, ev);
    }
    buf_put_lit(out, ",\"isAuthenticated\":false}}");
}

static void
put_done(struct buf *out, const struct event *ev)
{
    buf_put_lit(out, "{\"rid\":");
    buf_put_view(out, ev->call_id);
    if (ev->has_data) {
        buf_put_lit(out, ",\"data\":");
        buf_put_view(out, ev->data);
    }
    buf_put_u8(out, '}');
}

static void
put_failed(struct buf *out, const struct event *ev)
{
    buf_put_lit(out, "{\"rid\":");
    buf_put_view(out, ev->call_id);
    buf_put_lit(out, ",\"error\":");
    put_error(out, ev);
    buf_put_u8(out, '}');
}

/* {"event":NAME,"data":{"channel":CHANNEL,MEMBER:DATA}}, for channels that need escapes. */
static void
put_channel_event(struct buf *out, const struct event *ev, struct view head, struct view member)
{
    buf_put_view(out, head);
    json_put_escaped(out, ev->channel);
    buf_put_u8(out, '"');
    if (ev->has_data) {
        buf_put_view(out, member);
        buf_put_view(out, ev->data);
    }
    buf_put_lit(out, "}}");
}

/* Not in the reference: it knows no gaps. Clients hand unknown events to the application. */
static void
put_gap(struct buf *out, const struct event *ev)
{
    buf_put_lit(out, "{\"event\":\"#gap\",\"data\":{\"channel\":\"");
    json_put_escaped(out, ev->channel);
    buf_put_lit(out, "\",\"count\":");
    if (ev->has_count)
        buf_put_uint(out, ev->count);
    else
        buf_put_lit(out, "null");
    buf_put_lit(out, "}}");
}

#define PUBLISH_HEAD "{\"event\":\"#publish\",\"data\":{\"channel\":\""
#define PUBLISH_DATA ",\"data\":"
#define KICK_HEAD "{\"event\":\"#kickOut\",\"data\":{\"channel\":\""
#define KICK_MESSAGE ",\"message\":"

static inline uint8_t *
append(uint8_t *at, const void *p, size_t n)
{
    memcpy(at, p, n);
    return at + n;
}

/* The hot one: made once for all subscribers of a ring. */
static void
put_publication(struct buf *out, const struct event *ev)
{
    if (UNLIKELY(ev->channel.n == 0 || !json_is_plain(ev->channel))) {
        put_channel_event(out, ev, VIEW(PUBLISH_HEAD), VIEW(PUBLISH_DATA));
        return;
    }
    size_t fixed = sizeof PUBLISH_HEAD + sizeof PUBLISH_DATA + 3;
    if (!buf_reserve(out, fixed + ev->channel.n + ev->data.n))
        return;
    uint8_t *at = out->p + out->n;
    at = append(at, PUBLISH_HEAD, sizeof PUBLISH_HEAD - 1);
    at = append(at, ev->channel.p, ev->channel.n);
    *at++ = '"';
    if (ev->has_data) {
        at = append(at, PUBLISH_DATA, sizeof PUBLISH_DATA - 1);
        at = append(at, ev->data.p, ev->data.n);
    }
    at = append(at, "}}", 2);
    out->n = (size_t)(at - out->p);
}

static bool
sc_encode(UNUSED const void *state, const struct event *ev, struct buf *out)
{
    bool answers = ev->kind == EV_WELCOME || ev->kind == EV_DONE || ev->kind == EV_FAILED;
    if (answers && ev->call_id.n == 0)
        return false; /* nobody asked; "rid": must not be empty or null */
    size_t before = out->n;
    switch (ev->kind) {
    case EV_PUBLICATION: put_publication(out, ev); break;
    case EV_DONE: put_done(out, ev); break;
    case EV_FAILED: put_failed(out, ev); break;
    case EV_WELCOME: put_welcome(out, ev); break;
    case EV_KICKED: put_channel_event(out, ev, VIEW(KICK_HEAD), VIEW(KICK_MESSAGE)); break;
    case EV_GAP: put_gap(out, ev); break;
    case EV_FORGET_TOKEN: buf_put_lit(out, "{\"event\":\"#removeAuthToken\"}"); break;
    case EV_PING: break; /* the empty message */
    case EV_ECHO: return false;
    }
    if (UNLIKELY(out->failed))
        out->n = before;
    return !out->failed;
}

const struct dialect dialect_socketcluster = {
    .name = "socketcluster",
    .state_size = 0,
    .handshake = true,
    .pings = true,
    .text = true,
    .decode = sc_decode,
    .encode = sc_encode,
};
