#include "worker/rate.h"

#include <stdlib.h>

#include "worker/conn.h"
#include "worker/metrics.h"

/* A debt is never remembered beyond this: longer than any bucket, short enough for sums. */
#define DEBT_MAX_NS (3600ull * 1000000000)

/* ---- arithmetic: all times fit, since nothing is further than DEBT_MAX_NS and a burst from now ---- */

uint64_t
rate_cost(uint64_t n, uint64_t per_second)
{
    uint64_t ns;
    if (__builtin_mul_overflow(n, 1000000000ull, &ns))
        return DEBT_MAX_NS;
    return MIN(ns / per_second, DEBT_MAX_NS);
}

bool
rate_has(uint64_t full_at, uint64_t now, uint64_t burst, uint64_t cost)
{
    return full_at <= now || full_at - now + cost <= burst;
}

uint64_t
rate_take(uint64_t *full_at, uint64_t now, uint64_t burst, uint64_t cost)
{
    uint64_t from = MAX(*full_at, now), most = now + burst + DEBT_MAX_NS;
    *full_at = MIN(from + cost, most);
    uint64_t ahead = *full_at - now;
    return ahead > burst ? ahead - burst : 0;
}

/* ---- settings ---- */

static enum rate_answer
answer_of(const char *word)
{
    return word[0] == 'e' ? RATE_ERROR : word[0] == 'c' ? RATE_CLOSE : RATE_DELAY;
}

void
rates_read(struct worker *w)
{
    const struct conf *conf = w->conf;
    struct rates r = {
        .conn = {conf->sc_packet_rate, conf->sc_byte_rate, conf->sc_subscribe_rate},
        .addr = {conf->address_packet_rate, conf->address_byte_rate, conf->address_subscribe_rate},
        .connects = conf->address_connect_rate,
        .burst_ns = conf->rate_burst * 1000000,
        .delay_ticks = conf->rate_delay ? wheel_ticks(conf->rate_delay) : 0,
        .answer = {answer_of(conf->rate_packet_answer), answer_of(conf->rate_byte_answer),
            answer_of(conf->rate_subscribe_answer)},
    };
    for (unsigned i = 0; i < RATE_KINDS; i++)
        r.on = r.on || r.conn[i] || (r.addr[i] && w->addrs != NULL);
    w->rates = r;
}

/* ---- connections ---- */

static const enum close_reason reasons[] = {CLOSE_PACKET_RATE, CLOSE_BYTE_RATE, CLOSE_SUBSCRIBE_RATE};

static struct meter *
meter_of(struct worker *w, struct conn *c)
{
    if (c->meter == NULL) {
        c->meter = calloc(1, sizeof *c->meter);
        if (c->meter == NULL)
            conn_abort(w, c, false);
        else
            c->meter->since = w->tick;
    }
    return c->meter;
}

static void
count_reached(struct worker *w, enum rate_kind kind, bool of_address)
{
    static const uint16_t rows[2][RATE_KINDS] = {
        {RM_limit_sc_packet_rate_total, RM_limit_sc_byte_rate_total, RM_limit_sc_subscribe_rate_total},
        {RM_limit_address_packet_rate_total, RM_limit_address_byte_rate_total, RM_limit_address_subscribe_rate_total},
    };
    metric_add(w->metrics, rows[of_address][kind], 1);
}

/* Reading stops for so long. Who was stopped for longer than rate.delay, more than it was not, ends: its
 * client does not go by what it is told. */
static void
stop_for(struct worker *w, struct conn *c, enum rate_kind kind, uint64_t wait_ns)
{
    struct meter *m = c->meter;
    uint32_t until = w->tick + wheel_ticks(wait_ns / 1000000);
    if (!(c->pause & PAUSE_RATE)) {
        uint32_t went_on = w->tick - m->since;
        m->stopped -= MIN(m->stopped, went_on);
        m->since = m->until = w->tick;
        conn_pause(w, c, PAUSE_RATE);
    }
    if ((int32_t)(until - m->until) > 0)
        m->until = until;
    if (w->rates.delay_ticks && m->stopped + (m->until - m->since) > w->rates.delay_ticks) {
        conn_close(w, c, reasons[kind]);
        return;
    }
    conn_arm_timer(w, c);
}

void
rate_charge(struct worker *w, struct conn *c, enum rate_kind kind, uint64_t n)
{
    const struct rates *r = &w->rates;
    uint64_t wait = 0, wait_address = 0, now = w->now.ns;
    struct meter *m = meter_of(w, c);
    if (m == NULL)
        return;
    if (r->conn[kind])
        wait = rate_take(&m->full_at[kind], now, r->burst_ns, rate_cost(n, r->conn[kind]));
    if (r->addr[kind])
        wait_address = addrs_take(w->addrs, c->place, (enum addrs_bucket)kind, now, r->burst_ns, rate_cost(n, r->addr[kind]));
    if (r->answer[kind] != RATE_DELAY || MAX(wait, wait_address) == 0)
        return;
    count_reached(w, kind, wait_address > wait);
    stop_for(w, c, kind, MAX(wait, wait_address));
}

/* Whether both buckets give n at once; the one that does not is counted. */
static bool
both_have(struct worker *w, struct conn *c, enum rate_kind kind, uint64_t n)
{
    const struct rates *r = &w->rates;
    const struct meter *m = meter_of(w, c);
    bool own = m != NULL && (!r->conn[kind] ||
        rate_has(m->full_at[kind], w->now.ns, r->burst_ns, rate_cost(n, r->conn[kind])));
    bool of_address = !r->addr[kind] ||
        addrs_has(w->addrs, c->place, (enum addrs_bucket)kind, w->now.ns, r->burst_ns, rate_cost(n, r->addr[kind]));
    if (!own || !of_address)
        count_reached(w, kind, own);
    return own && of_address;
}

bool
rate_admits(struct worker *w, struct conn *c, enum rate_kind kind)
{
    enum rate_answer answer = w->rates.answer[kind];
    if (answer == RATE_DELAY || both_have(w, c, kind, 1))
        return true;
    if (answer == RATE_CLOSE)
        conn_close(w, c, reasons[kind]);
    return false;
}

/* A part of a message is there, and the rest is to come. */
static bool
is_amid_message(const struct conn *c)
{
    return c->in != NULL && (c->in->msg.n > 0 || !ws_at_rest(&c->in->reader));
}

bool
rate_bytes(struct worker *w, struct conn *c, uint64_t n)
{
    const struct rates *r = &w->rates;
    if (c->state != CONN_OPEN || (r->conn[RATE_BYTES] | r->addr[RATE_BYTES]) == 0)
        return true;
    bool has = r->answer[RATE_BYTES] == RATE_DELAY || both_have(w, c, RATE_BYTES, n);
    if (c->meter != NULL) {
        c->meter->message_over = is_amid_message(c) && (c->meter->message_over || c->meter->bytes_over);
        c->meter->bytes_over = !has;
    }
    if (!has && r->answer[RATE_BYTES] == RATE_CLOSE)
        conn_close(w, c, CLOSE_BYTE_RATE);
    else if (has)
        rate_charge(w, c, RATE_BYTES, n);
    return c->state == CONN_OPEN;
}

bool
rate_is_over(const struct conn *c)
{
    return c->meter != NULL && (c->meter->bytes_over || c->meter->message_over);
}

void
rate_message_done(struct conn *c)
{
    if (c->meter != NULL)
        c->meter->message_over = false;
}

void
rate_on_timer(struct worker *w, struct conn *c)
{
    struct meter *m = c->meter;
    if (!(c->pause & PAUSE_RATE) || (int32_t)(w->tick - m->until) < 0)
        return;
    m->stopped += w->tick - m->since;
    m->since = w->tick;
    conn_resume(w, c, PAUSE_RATE);
}
