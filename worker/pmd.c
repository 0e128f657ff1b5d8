#include "worker/pmd.h"

#include <stdlib.h>

#include "common/bug.h"
#include "worker/metrics.h"
#include "worker/sess.h"

/* A compressed message that comes in pieces is inflated when it is whole, by the ring's one stream; from this
 * size on it gets a stream for itself and is inflated as it comes, so that no turn has more work at once than its
 * share of input makes. */
#define WHOLE_MAX (64u << 10)
/* What is inflated costs the budget of its connection only beyond this ratio: text and JSON stay below. */
#define RATIO_FREE 16
#define BUDGET_MS 10000
/* What one turn inflates, of all connections together, twice: about 10 ms each time. */
#define TURN_INFLATED (4u << 20)
/* What one turn compresses, about 15 ms of it: compression is there to save, so what comes above is sent as it
 * is, and nobody waits for it. */
#define TURN_MAX (1u << 20)
/* Scratch above this is given back at the end of the turn. */
#define SCRATCH_KEEP (1u << 20)

#define FINE CLOSE_COUNT /* no reason to close */

struct pmd {
    struct deflate_reader *reader;                /* of all that keep no context */
    struct deflate_writer *writers[PMD_LAST + 1]; /* by flavour, made when first needed */
    struct buf plain;                             /* the message at hand, inflated */
    struct buf packed;                            /* ... or deflated */
    uint64_t shared_bytes;                        /* what the ring's streams take */
    uint64_t conn_bytes;                          /* ... and those of connections and large messages */
    uint64_t reserved;                            /* what those of connections may take */
    uint32_t turn, turn_bytes;                    /* what was compressed in that turn */
    uint64_t inflated;                            /* in the present share of the turn */
};

/* Streams are made when the first message needs them: who is idle from the beginning holds none. */
struct pmd_own {
    struct deflate_terms terms; /* all zero: no context is kept */
    struct deflate_reader *reader;
    struct deflate_writer *writer;
    uint64_t reserved;          /* of deflate.memory; 0: no context is kept */
    int mem_level;
    uint32_t inflate_left;      /* what is left of deflate.inflate_budget ... */
    uint32_t inflate_at;        /* ... at this tick; 0: untouched */
};

bool
pmd_init(struct worker *w)
{
    w->pmd = calloc(1, sizeof *w->pmd);
    if (w->pmd == NULL)
        return false;
    w->pmd->plain = buf_make(UINT32_MAX);
    w->pmd->packed = buf_make(UINT32_MAX);
    return true;
}

void
pmd_fini(struct worker *w)
{
    struct pmd *p = w->pmd;
    if (p == NULL)
        return;
    deflate_reader_free(p->reader);
    for (unsigned i = 0; i < ARRAY_LEN(p->writers); i++)
        deflate_writer_free(p->writers[i]);
    buf_free(&p->plain);
    buf_free(&p->packed);
    free(p);
    w->pmd = NULL;
}

/* -- agreeing -- */

static unsigned
flavour_of(const struct deflate_terms *t)
{
    return PMD_FIRST + t->server_bits - DEFLATE_BITS_MIN;
}

static bool
agree(struct worker *w, const struct http_request *r, bool takeover, struct deflate_terms *terms, bool *asked)
{
    const struct conf *conf = w->conf;
    bool client = takeover && conf->deflate_client_takeover;
    struct deflate_policy policy = {
        .server_bits = (uint8_t)conf->deflate_window_bits,
        .client_bits = client ? (uint8_t)conf->deflate_client_window_bits : DEFLATE_BITS_MAX,
        .server_takeover = takeover && conf->deflate_server_takeover,
        .client_takeover = client,
    };
    struct view offers;
    uint32_t at = 0;
    while (http_field_next(r, VIEW("sec-websocket-extensions"), &at, &offers)) {
        *asked = true;
        if (deflate_agree(offers, &policy, terms))
            return true;
    }
    return false;
}

/* Streams of its own for a connection that keeps context; false if deflate.memory does not allow them. */
static bool
own_new(struct worker *w, struct conn *c, const struct deflate_terms *t)
{
    int mem_level = (int)w->conf->deflate_mem_level;
    uint64_t need = sizeof *c->own, budget = w->conf->deflate_memory / MAX(w->conf->worker_rings, (uint64_t)1);
    if (t->server_takeover)
        need += deflate_writer_bytes(t->server_bits, mem_level);
    if (t->client_takeover)
        need += deflate_reader_bytes(t->client_bits);
    if (w->pmd->reserved + need > budget || (c->own = calloc(1, sizeof *c->own)) == NULL) {
        COUNT(w, deflate_refused_total);
        return false;
    }
    *c->own = (struct pmd_own){.terms = *t, .reserved = need, .mem_level = mem_level};
    w->pmd->reserved += need;
    GAUGE(w, deflate_takeover, w->metrics[RM_deflate_takeover] + 1);
    return true;
}

void
pmd_agree(struct worker *w, struct conn *c, const struct http_request *r, struct buf *answer)
{
    struct deflate_terms terms;
    bool asked = false, agreed = w->conf->deflate_enabled && agree(w, r, true, &terms, &asked);
    if (agreed && (terms.server_takeover || terms.client_takeover) && !own_new(w, c, &terms))
        agreed = agree(w, r, false, &terms, &asked);
    if (asked && !agreed)
        COUNT(w, deflate_declined_total);
    if (!agreed)
        return;
    c->flavour = (uint8_t)(terms.server_takeover ? PMD_OWN : flavour_of(&terms));
    GAUGE(w, deflate_connections, w->metrics[RM_deflate_connections] + 1);
    deflate_put_answer(answer, &terms);
}

static void
own_free(struct worker *w, struct conn *c)
{
    deflate_reader_free(c->own->reader);
    deflate_writer_free(c->own->writer);
    w->pmd->reserved -= c->own->reserved;
    if (c->own->reserved > 0)
        GAUGE(w, deflate_takeover, w->metrics[RM_deflate_takeover] - 1);
    free(c->own);
    c->own = NULL;
}

void
pmd_leave(struct worker *w, struct conn *c)
{
    if (c->own != NULL)
        own_free(w, c);
    if (c->flavour == PMD_PLAIN)
        return;
    c->flavour = PMD_PLAIN;
    GAUGE(w, deflate_connections, w->metrics[RM_deflate_connections] - 1);
}

/* -- in -- */

void
pmd_turn_begin(struct worker *w)
{
    w->pmd->inflated = 0;
}

bool
pmd_turn_is_full(const struct worker *w)
{
    return w->pmd->inflated >= TURN_INFLATED;
}

/* The connection's account of what it lets us inflate (hardening 6): a bucket of deflate.inflate_budget bytes
 * that fills in ten seconds. */
static enum close_reason
charge(struct worker *w, struct conn *c, uint64_t packed_n, uint64_t plain_n)
{
    uint64_t budget = w->conf->deflate_inflate_budget, free_n = packed_n * RATIO_FREE;
    if (budget == 0 || plain_n <= free_n)
        return FINE;
    if (c->own == NULL && (c->own = calloc(1, sizeof *c->own)) == NULL)
        return CLOSE_INTERNAL;
    uint64_t cost = plain_n - free_n, left = c->own->inflate_left;
    uint64_t more = budget * ((uint64_t)(w->tick - c->own->inflate_at) * WHEEL_TICK_MS) / BUDGET_MS;
    left = c->own->inflate_at == 0 ? budget : MIN(left + more, budget);
    c->own->inflate_at = w->tick;
    c->own->inflate_left = (uint32_t)(left - MIN(left, cost));
    return cost <= left ? FINE : CLOSE_INFLATE_BUDGET;
}

/* One piece through a stream, into `out`; the text in it is judged as it comes. */
static enum close_reason
inflate_piece(struct worker *w, struct conn *c, struct deflate_reader *r, const struct ws_event *ev,
    struct view piece, uint64_t max, struct buf *out, uint32_t *utf8)
{
    size_t before = out->n;
    enum deflate_rc rc = deflate_reader_put(r, piece, max, out);
    if (rc == DEFLATE_OK && ev->last)
        rc = deflate_reader_end(r, max, out);
    uint64_t plain_n = out->n - before;
    w->pmd->inflated += plain_n;
    c->turn_bytes += (uint32_t)MIN(plain_n, (uint64_t)(UINT32_MAX - c->turn_bytes));
    COUNT_N(w, deflate_in_packed_bytes_total, piece.n);
    COUNT_N(w, deflate_in_plain_bytes_total, plain_n);
    switch (rc) {
    case DEFLATE_OK: break;
    case DEFLATE_BROKEN: return CLOSE_BAD_DEFLATE;
    case DEFLATE_TOO_BIG: return CLOSE_TOO_BIG;
    case DEFLATE_NO_MEMORY: return CLOSE_INTERNAL;
    }
    enum close_reason bad = charge(w, c, piece.n, plain_n);
    if (bad != FINE)
        return bad;
    if (ev->text && (!utf8_check(utf8, out->p + before, plain_n) || (ev->last && *utf8 != 0)))
        return CLOSE_BAD_UTF8;
    return FINE;
}

static bool
keeps_context(const struct conn *c)
{
    return c->own != NULL && c->own->terms.client_takeover;
}

/* The stream for what this connection sends: its own, or everybody's; ready for a message. */
static struct deflate_reader *
reader_for(struct worker *w, struct conn *c)
{
    bool own = keeps_context(c);
    struct deflate_reader **at = own ? &c->own->reader : &w->pmd->reader;
    if (*at == NULL)
        *at = own ? deflate_reader_new(MAX(c->own->terms.client_bits, DEFLATE_BITS_MIN), &w->pmd->conn_bytes)
                  : deflate_reader_new(DEFLATE_BITS_MAX, &w->pmd->shared_bytes);
    if (*at != NULL)
        deflate_reader_begin(*at, own);
    return *at;
}

/* The whole compressed message at once, into the ring's scratch. */
static enum close_reason
inflate_whole(struct worker *w, struct conn *c, const struct ws_event *ev, struct view packed, uint64_t max,
    struct view *msg)
{
    struct buf *plain = &w->pmd->plain;
    struct deflate_reader *r = reader_for(w, c);
    uint32_t utf8 = 0;
    buf_reset(plain);
    enum close_reason bad = r != NULL ? inflate_piece(w, c, r, ev, packed, max, plain, &utf8) : CLOSE_INTERNAL;
    *msg = buf_view(plain);
    return bad;
}

/* The message has a stream for itself: a piece goes into in->msg, inflated. */
static enum close_reason
inflate_on(struct worker *w, struct conn *c, const struct ws_event *ev, struct view piece, uint64_t max)
{
    struct conn_in *in = c->in;
    size_t before = in->msg.cap;
    enum close_reason bad = inflate_piece(w, c, in->inflating, ev, piece, max, &in->msg, &in->utf8);
    w->input_bytes += in->msg.cap - before;
    if (ev->last)
        pmd_abandon(c);
    return bad;
}

/* What was collected becomes what it inflates to. */
static enum close_reason
begin_stream(struct worker *w, struct conn *c, const struct ws_event *ev, uint64_t max)
{
    struct conn_in *in = c->in;
    in->inflating = deflate_reader_new(DEFLATE_BITS_MAX, &w->pmd->conn_bytes);
    if (in->inflating == NULL)
        return CLOSE_INTERNAL;
    struct buf packed = in->msg;
    in->msg = buf_make(UINT32_MAX);
    in->utf8 = 0;
    enum close_reason bad = inflate_on(w, c, ev, buf_view(&packed), max);
    conn_forget(w, &packed);
    return bad;
}

/* A piece of a message that waits for the others. */
static enum close_reason
collect(struct worker *w, struct conn *c, const struct ws_event *ev, uint64_t max, struct view *msg)
{
    struct buf *packed = &c->in->msg;
    if (!conn_keep(w, packed, ev->payload.p, ev->payload.n))
        return CLOSE_INTERNAL;
    if (packed->n > WHOLE_MAX) {
        enum close_reason bad = begin_stream(w, c, ev, max);
        *msg = buf_view(&c->in->msg);
        return bad;
    }
    if (!ev->last)
        return FINE;
    enum close_reason bad = inflate_whole(w, c, ev, buf_view(packed), max, msg);
    conn_forget(w, packed);
    return bad;
}

enum close_reason
pmd_on_data(struct worker *w, struct conn *c, const struct ws_event *ev, uint64_t max, struct view *msg)
{
    if (ev->last)
        COUNT(w, deflate_in_messages_total);
    if (ev->first && ev->last)
        return inflate_whole(w, c, ev, ev->payload, max, msg);
    struct conn_in *in = c->in;
    if (ev->first && keeps_context(c)) {
        in->inflating = reader_for(w, c);
        in->utf8 = 0;
        if (in->inflating == NULL)
            return CLOSE_INTERNAL;
    }
    if (in->inflating == NULL)
        return collect(w, c, ev, max, msg);
    enum close_reason bad = inflate_on(w, c, ev, ev->payload, max);
    *msg = buf_view(&in->msg);
    return bad;
}

void
pmd_abandon(struct conn *c)
{
    if (c->own == NULL || c->in->inflating != c->own->reader)
        deflate_reader_free(c->in->inflating);
    c->in->inflating = NULL;
}

/* -- out -- */

unsigned
pmd_shared(const struct conn *c)
{
    return c->flavour == PMD_OWN ? flavour_of(&c->own->terms) : c->flavour;
}

/* The stream that packs for a flavour; NULL when memory is out. */
static struct deflate_writer *
writer_for(struct worker *w, unsigned flavour, struct conn *c)
{
    bool own = flavour == PMD_OWN;
    struct deflate_writer **at = own ? &c->own->writer : &w->pmd->writers[flavour];
    unsigned bits = own ? c->own->terms.server_bits : flavour - PMD_FIRST + DEFLATE_BITS_MIN;
    int mem_level = own ? c->own->mem_level : (int)w->conf->deflate_mem_level;
    if (*at == NULL)
        *at = deflate_writer_new(bits, (int)w->conf->deflate_level, mem_level,
            own ? &w->pmd->conn_bytes : &w->pmd->shared_bytes);
    return *at;
}

/* Whether this turn may compress so much more; the first message of a turn always is. */
static bool
turn_allows(struct worker *w, size_t n)
{
    struct pmd *p = w->pmd;
    if (p->turn != w->turn) {
        p->turn = w->turn;
        p->turn_bytes = 0;
    }
    if (p->turn_bytes > 0 && (n > TURN_MAX || p->turn_bytes > TURN_MAX - n)) {
        COUNT(w, deflate_skipped_total);
        return false;
    }
    p->turn_bytes += (uint32_t)n;
    return true;
}

/* Appends a frame, packed; false, and nothing is there, if it would not be smaller. */
static bool
frame_pack(struct worker *w, struct deflate_writer *z, bool keep, struct view frame, size_t head_n, struct buf *out)
{
    uint8_t head[WS_HEADER_MAX];
    struct view payload = view_from(frame, head_n);
    if (!turn_allows(w, payload.n) || !buf_reserve(out, frame.n + DEFLATE_TAIL))
        return false;
    uint8_t *start = out->p + out->n;
    size_t n = deflate_writer_put(z, payload, keep, start + head_n);
    if (n == 0)
        return false;
    size_t shorter_n = ws_put_header(head, (enum ws_opcode)(frame.p[0] & 0x0F), n);
    head[0] |= WS_RSV1;
    if (shorter_n != head_n)
        memmove(start + shorter_n, start + head_n, n);
    memcpy(start, head, shorter_n);
    out->n += shorter_n + n;
    COUNT(w, deflate_out_messages_total);
    COUNT_N(w, deflate_out_plain_bytes_total, payload.n);
    COUNT_N(w, deflate_out_packed_bytes_total, n);
    return true;
}

bool
pmd_pack(struct worker *w, unsigned flavour, struct conn *c, struct view frames, struct view *out)
{
    struct buf *packed = &w->pmd->packed;
    struct deflate_writer *z = NULL;
    size_t copied = 0; /* of frames, packed or as they are */
    bool any = false;
    buf_reset(packed);
    for (size_t at = 0, n; at < frames.n; at += n) {
        n = conn_frame_size(frames.p + at);
        size_t head_n = n - conn_payload_size(frames.p + at);
        if (n - head_n < w->conf->deflate_threshold)
            continue;
        if (z == NULL && (z = writer_for(w, flavour, c)) == NULL)
            return false;
        buf_put_view(packed, view_head(view_from(frames, copied), at - copied));
        copied = at;
        if (!frame_pack(w, z, flavour == PMD_OWN, view_head(view_from(frames, at), n), head_n, packed))
            continue;
        copied = at + n;
        any = true;
    }
    if (!any)
        return false;
    buf_put_view(packed, view_from(frames, copied));
    *out = buf_view(packed);
    if (packed->failed && flavour == PMD_OWN)
        deflate_writer_forget(z);
    return !packed->failed;
}

void
pmd_lost(struct conn *c)
{
    if (c->flavour == PMD_OWN && c->own->writer != NULL)
        deflate_writer_forget(c->own->writer);
}

/* -- memory -- */

uint64_t
pmd_bytes(const struct worker *w)
{
    return w->pmd->shared_bytes + w->pmd->conn_bytes;
}

uint64_t
pmd_bytes_of_conns(const struct worker *w)
{
    return w->pmd->conn_bytes;
}

uint64_t
pmd_bytes_of(const struct conn *c)
{
    uint64_t n = 0;
    if (c->in != NULL && c->in->inflating != NULL)
        n += deflate_reader_bytes(DEFLATE_BITS_MAX);
    if (c->own != NULL && c->own->reader != NULL)
        n += deflate_reader_bytes(c->own->terms.client_bits);
    if (c->own != NULL && c->own->writer != NULL)
        n += deflate_writer_bytes(c->own->terms.server_bits, c->own->mem_level);
    return n;
}

void
pmd_reclaim(struct worker *w)
{
    if (w->pmd->plain.cap > SCRATCH_KEEP)
        buf_free(&w->pmd->plain);
    if (w->pmd->packed.cap > SCRATCH_KEEP)
        buf_free(&w->pmd->packed);
    GAUGE(w, deflate_bytes, pmd_bytes(w));
    GAUGE(w, deflate_reserved_bytes, w->pmd->reserved);
}
