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
/* Scratch above this is given back at the end of the turn. */
#define SCRATCH_KEEP (1u << 20)

#define FINE CLOSE_COUNT /* no reason to close */

struct pmd {
    struct deflate_reader *reader;                        /* of all that keep no context */
    struct deflate_writer *writers[PMD_LAST + 1];         /* by flavour, made when first needed */
    struct buf plain;                                     /* the message at hand, inflated */
    struct buf packed;                                    /* ... or deflated */
    uint64_t bytes;                                       /* what streams take */
};

struct pmd_own {
    struct deflate_reader *reader;
    struct deflate_writer *writer;
    uint64_t bytes;
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

void
pmd_agree(struct worker *w, struct conn *c, const struct http_request *r, struct buf *answer)
{
    struct deflate_terms terms = {0};
    struct deflate_policy policy = {
        .server_bits = (uint8_t)w->conf->deflate_window_bits,
        .client_bits = DEFLATE_BITS_MAX,
    };
    struct view offers;
    uint32_t at = 0;
    bool asked = false, agreed = false;
    while (w->conf->deflate_enabled && !agreed &&
           http_field_next(r, VIEW("sec-websocket-extensions"), &at, &offers)) {
        asked = true;
        agreed = deflate_agree(offers, &policy, &terms);
    }
    if (asked && !agreed)
        COUNT(w, deflate_declined_total);
    if (!agreed)
        return;
    c->flavour = (uint8_t)(PMD_FIRST + terms.server_bits - DEFLATE_BITS_MIN);
    GAUGE(w, deflate_connections, w->metrics[RM_deflate_connections] + 1);
    deflate_put_answer(answer, &terms);
}

void
pmd_leave(struct worker *w, struct conn *c)
{
    if (c->flavour == PMD_PLAIN)
        return;
    c->flavour = PMD_PLAIN;
    GAUGE(w, deflate_connections, w->metrics[RM_deflate_connections] - 1);
}

/* -- in -- */

/* The connection's account of what it lets us inflate (hardening 6): a bucket of deflate.inflate_budget bytes
 * that fills in ten seconds. */
static bool
is_within_budget(struct worker *w, struct conn *c, uint64_t packed_n, uint64_t plain_n)
{
    uint64_t budget = w->conf->deflate_inflate_budget, free_n = packed_n * RATIO_FREE;
    if (budget == 0 || plain_n <= free_n)
        return true;
    uint64_t cost = plain_n - free_n, left = c->inflate_left;
    uint64_t more = budget * ((uint64_t)(w->tick - c->inflate_at) * WHEEL_TICK_MS) / BUDGET_MS;
    left = c->inflate_at == 0 ? budget : MIN(left + more, budget);
    c->inflate_at = w->tick;
    c->inflate_left = (uint32_t)(left - MIN(left, cost));
    return cost <= left;
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
    c->turn_bytes += (uint32_t)MIN(plain_n, (uint64_t)(UINT32_MAX - c->turn_bytes));
    COUNT_N(w, deflate_in_packed_bytes_total, piece.n);
    COUNT_N(w, deflate_in_plain_bytes_total, plain_n);
    switch (rc) {
    case DEFLATE_OK: break;
    case DEFLATE_BROKEN: return CLOSE_BAD_DEFLATE;
    case DEFLATE_TOO_BIG: return CLOSE_TOO_BIG;
    case DEFLATE_NO_MEMORY: return CLOSE_INTERNAL;
    }
    if (!is_within_budget(w, c, piece.n, plain_n))
        return CLOSE_INFLATE_BUDGET;
    if (ev->text && (!utf8_check(utf8, out->p + before, plain_n) || (ev->last && *utf8 != 0)))
        return CLOSE_BAD_UTF8;
    return FINE;
}

/* The whole compressed message at once, into the ring's scratch. */
static enum close_reason
inflate_whole(struct worker *w, struct conn *c, const struct ws_event *ev, struct view packed, uint64_t max,
    struct view *msg)
{
    struct pmd *p = w->pmd;
    uint32_t utf8 = 0;
    if (p->reader == NULL)
        p->reader = deflate_reader_new(DEFLATE_BITS_MAX, &p->bytes);
    if (p->reader == NULL)
        return CLOSE_INTERNAL;
    buf_reset(&p->plain);
    deflate_reader_begin(p->reader, false);
    enum close_reason bad = inflate_piece(w, c, p->reader, ev, packed, max, &p->plain, &utf8);
    *msg = buf_view(&p->plain);
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
    in->inflating = deflate_reader_new(DEFLATE_BITS_MAX, &w->pmd->bytes);
    if (in->inflating == NULL)
        return CLOSE_INTERNAL;
    struct buf packed = in->msg;
    in->msg = buf_make(UINT32_MAX);
    in->utf8 = 0;
    enum close_reason bad = inflate_on(w, c, ev, buf_view(&packed), max);
    conn_forget(w, &packed);
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
    enum close_reason bad = FINE;
    if (in->inflating != NULL)
        bad = inflate_on(w, c, ev, ev->payload, max);
    else if (!conn_keep(w, &in->msg, ev->payload.p, ev->payload.n))
        return CLOSE_INTERNAL;
    else if (in->msg.n > WHOLE_MAX)
        bad = begin_stream(w, c, ev, max);
    else if (ev->last) {
        bad = inflate_whole(w, c, ev, buf_view(&in->msg), max, msg);
        conn_forget(w, &in->msg);
        return bad;
    }
    *msg = buf_view(&in->msg);
    return bad;
}

void
pmd_abandon(struct conn *c)
{
    deflate_reader_free(c->in->inflating);
    c->in->inflating = NULL;
}

/* -- out -- */

static struct deflate_writer *
writer_of(struct worker *w, unsigned flavour)
{
    struct deflate_writer **at = &w->pmd->writers[flavour];
    if (*at == NULL)
        *at = deflate_writer_new(flavour - PMD_FIRST + DEFLATE_BITS_MIN, (int)w->conf->deflate_level,
            (int)w->conf->deflate_mem_level, &w->pmd->bytes);
    return *at;
}

/* Appends the frame of a payload, compressed; false, and nothing is there, if it would not be smaller. */
static bool
frame_put(struct worker *w, struct deflate_writer *z, bool keep, enum ws_opcode op, struct view payload,
    struct buf *out)
{
    uint8_t head[WS_HEADER_MAX];
    size_t room = ws_header_size(payload.n);
    if (z == NULL || !buf_reserve(out, room + payload.n + DEFLATE_TAIL))
        return false;
    uint8_t *start = out->p + out->n;
    size_t n = deflate_writer_put(z, payload, keep, start + room);
    if (n == 0)
        return false;
    size_t head_n = ws_put_header(head, op, n);
    head[0] |= WS_RSV1;
    if (head_n != room)
        memmove(start + head_n, start + room, n);
    memcpy(start, head, head_n);
    out->n += head_n + n;
    COUNT(w, deflate_out_messages_total);
    COUNT_N(w, deflate_out_plain_bytes_total, payload.n);
    COUNT_N(w, deflate_out_packed_bytes_total, n);
    return true;
}

bool
pmd_pack(struct worker *w, struct conn *c, enum ws_opcode op, struct view payload, struct view *frame)
{
    if (c->flavour == PMD_PLAIN || payload.n < w->conf->deflate_threshold)
        return false;
    buf_reset(&w->pmd->packed);
    if (!frame_put(w, writer_of(w, c->flavour), false, op, payload, &w->pmd->packed))
        return false;
    *frame = buf_view(&w->pmd->packed);
    return true;
}

/* -- memory -- */

uint64_t
pmd_bytes(const struct worker *w)
{
    return w->pmd->bytes;
}

void
pmd_reclaim(struct worker *w)
{
    if (w->pmd->plain.cap > SCRATCH_KEEP)
        buf_free(&w->pmd->plain);
    if (w->pmd->packed.cap > SCRATCH_KEEP)
        buf_free(&w->pmd->packed);
    GAUGE(w, deflate_bytes, w->pmd->bytes);
}
