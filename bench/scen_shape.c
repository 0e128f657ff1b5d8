/* Mixtures and recordings; see scen_shape.h. */
#include "bench/scen_shape.h"

#include <errno.h>

#include "common/bug.h"
#include "common/mono.h"

#define PUBLISHERS 16

/* Channels: 0 the large one, then those of the pairs, then --channels that come and go and are silent: what churners heard
 * of others could not be told from what they should not hear. */
void
scen_shape_mixed(struct run *r, const struct load_conf *conf)
{
    struct load *l = &r->load;
    uint32_t n = r->opt.clients, hear = n / 2, pairs = n / 8, churners = n - hear - 2 * pairs, at = 0;
    load_init(l, conf, n + 1, 1 + pairs + r->opt.channels);
    for (; at < hear; at++)
        load_set_conn(l, at, 0, true, false);
    load_set_conn(l, at++, 0, false, true);
    for (uint32_t i = 0; i < pairs; i++) {
        load_set_conn(l, at++, 1 + i, true, false);
        load_set_conn(l, at++, 1 + i, false, true);
    }
    for (uint32_t i = 0; i < churners; i++)
        load_set_churner(l, at++);
    zipf_init(&r->churn, r->opt.channels, r->opt.zipf);
    l->churn = &r->churn;
    l->churn_first = 1 + pairs;
    r->random = 0x9e3779b97f4a7c15ull;
    r->next_group = 1;
}

uint32_t
scen_shape_mixed_next(struct run *r)
{
    double subscribers = r->load.groups[0].subscribers;
    if (sched_uniform(&r->random) <= 1 / (subscribers + 1))
        return 0;
    uint32_t g = r->next_group;
    r->next_group = g + 1 < r->load.churn_first ? g + 1 : 1;
    return g;
}

double
scen_shape_mixed_deliveries(const struct run *r)
{
    double subscribers = r->load.groups[0].subscribers;
    return 2 * subscribers / (subscribers + 1);
}

void
scen_shape_read(struct run *r)
{
    struct shape *s = &r->shape;
    uint32_t least = r->opt.kind == FRAME_JSON ? FRAME_MIN_JSON : FRAME_MIN_PAYLOAD;
    FILE *f = fopen(r->opt.replay, "re");
    if (f == NULL)
        die("--replay=%s: %s", r->opt.replay, strerror(errno));
    shape_read(s, f, r->opt.replay, least, FRAME_MAX_PAYLOAD);
    (void)fclose(f);
    uint64_t clients = 0;
    for (uint32_t i = 0; i < s->channels; i++)
        clients += s->subscribers[i];
    if (clients == 0 || clients > 1000000)
        die("--replay=%s: %llu subscribers", r->opt.replay, (unsigned long long)clients);
    r->opt.clients = (uint32_t)clients;
    r->opt.channels = s->channels;
    r->opt.rate = s->deliveries * 1e9 / (double)s->span_ns * r->opt.speed;
    if (!r->opt.quiet)
        fprintf(stderr, "%u messages on %u channels in %.3f s; %u were too short to be numbered and are longer now\n", s->n,
            s->channels, (double)s->span_ns / 1e9, s->lengthened);
}

/* A connection for each subscriber of each channel; a few publish for all. */
void
scen_shape_replay(struct run *r, const struct load_conf *conf)
{
    struct load *l = &r->load;
    struct shape *s = &r->shape;
    uint32_t n = r->opt.clients, publishers = MIN(PUBLISHERS, s->channels), at = 0;
    load_init(l, conf, n + publishers, s->channels);
    for (uint32_t g = 0; g < s->channels; g++)
        for (uint32_t i = 0; i < s->subscribers[g]; i++)
            load_set_conn(l, at++, g, true, false);
    for (uint32_t g = 0; g < s->channels; g++)
        load_set_conn(l, n + g % publishers, g, false, true);
    for (uint32_t i = 0; i < s->n; i++)
        s->message[i].bytes = load_add_size(l, s->message[i].channel, s->message[i].bytes);
}

uint64_t
scen_shape_publish(struct run *r, uint64_t now)
{
    const struct shape *s = &r->shape;
    if (r->shape_since_ns == 0)
        r->shape_since_ns = mono_now().ns;
    for (;;) {
        const struct shape_message *m = &s->message[r->shape_at];
        uint64_t into = (uint64_t)((double)(r->shape_round * s->span_ns + m->at_ns) / r->opt.speed);
        uint64_t due = r->shape_since_ns + into;
        if (due > now)
            return due;
        load_publish_size(&r->load, m->channel, m->bytes, due);
        if (++r->shape_at == s->n) {
            r->shape_at = 0;
            r->shape_round++;
        }
    }
}
