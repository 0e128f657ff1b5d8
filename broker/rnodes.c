#include "broker/rnodes.h"

#include <stdlib.h>

#include "broker/metrics.h"
#include "common/log.h"

/* The map is asked for at most so often, and less and less often while the answers are of no use. */
#define ASK_GAP_MS 50
#define ASK_GAP_MAX_MS 1000
/* How long one that is asked may take to be reached before another is tried; doubled while none is, up to
 * redis.connect_timeout. */
#define REACH_MS 1000
/* An answer from before what is known is not believed for so long: a node that the others have left behind says what was. */
#define EPOCH_MS 30000
/* A node that owns nothing any more may be given something again, and what is under way there is waited for as long again. */
#define LEAVE_MS 1000
#define ASKED_LEAVE_MS 5000 /* one that -ASK named: more may follow */
#define LOOK_MS 50

enum token { TOKEN_INFO, TOKEN_SLOTS };

#define COUNT(all, row) metric_add((all)->metrics, BM_##row, 1)
#define GAUGE(all, row, v) metric_set((all)->metrics, BM_##row, (v))

/* -- nodes -- */

static void
node_connect(struct rnode *n)
{
    const struct rnodes_ears *ears = n->all->ears;
    if (n->pub == NULL)
        n->pub = redis_link_new(n->all->io, &n->where, REDIS_KEEPS | REDIS_TELLS_ALL, &ears->pub, n);
    if (n->sub == NULL)
        n->sub = redis_link_new(n->all->io, &n->where, REDIS_SUBSCRIBES, &ears->sub, n);
}

static uint16_t
free_place(struct rnodes *all)
{
    for (uint16_t i = 0; i < all->node_count; i++)
        if (!all->node[i]->used)
            return i;
    if (all->node_count == RNODES_MAX)
        return RNODES_NONE;
    if ((all->node[all->node_count] = malloc(sizeof(struct rnode))) == NULL)
        return RNODES_NONE;
    return all->node_count++;
}

/* Those that the map or a redirection names are reached as the first of redis.url is: the same user, TLS or not. */
static uint16_t
node_get(struct rnodes *all, const struct slotmap_node *at)
{
    for (uint16_t i = 0; i < all->node_count; i++) {
        const struct rnode *n = all->node[i];
        if (n->used && n->where.port == at->port && strcmp(n->where.host, at->host) == 0)
            return i;
    }
    uint16_t i = free_place(all);
    if (i == RNODES_NONE)
        return i;
    struct rnode *n = all->node[i];
    *n = (struct rnode){.all = all, .where = all->seeds[0], .index = i, .used = true, .leaving = true,
        .leave_at = mono_add_ms(all->now, ASKED_LEAVE_MS)};
    n->where.is_unix = false;
    n->where.port = at->port;
    memcpy(n->where.host, at->host, sizeof n->where.host);
    node_connect(n);
    GAUGE(all, redis_primaries, ++all->used_count);
    char text[REDISURL_TEXT];
    log_info("cluster-node", "server=%s", redisurl_text(&n->where, text));
    return i;
}

static void
node_drop(struct rnode *n)
{
    if (n->pub != NULL)
        redis_link_free(n->pub);
    if (n->sub != NULL)
        redis_link_free(n->sub);
    n->pub = n->sub = NULL;
    n->used = false;
    GAUGE(n->all, redis_primaries, --n->all->used_count);
}

static void
node_look(struct rnode *n)
{
    struct rnodes *all = n->all;
    if (n->pub == NULL || n->sub == NULL)
        node_connect(n);
    if (!n->leaving || !mono_reached(all->now, n->leave_at))
        return;
    if (n->pub != NULL && redis_link_open(n->pub) > 0 && !mono_reached(all->now, mono_add_ms(n->leave_at, LEAVE_MS)))
        return;
    char text[REDISURL_TEXT];
    log_info("cluster-node-left", "server=%s", redisurl_text(&n->where, text));
    all->ears->on_gone(all->arg, n);
    node_drop(n);
}

static void
set_owner(struct rnodes *all, uint16_t slot, uint16_t index)
{
    uint16_t was = all->owner[slot];
    if (was == index)
        return;
    struct rnode *old = rnodes_at(all, was), *new = rnodes_at(all, index);
    all->owner[slot] = index;
    if (old != NULL && --old->slots == 0) {
        old->leaving = true;
        old->leave_at = mono_add_ms(all->now, LEAVE_MS);
    }
    if (new != NULL) {
        new->slots++;
        new->leaving = false;
    }
    all->owned += (new != NULL) - (old != NULL);
    all->ears->on_owner(all->arg, slot, was);
}

uint16_t
rnodes_redirect(struct rnodes *all, const struct rnode *by, const struct slotmap_redirect *r, enum slotmap_verdict v)
{
    struct slotmap_node to = r->to;
    if (to.host[0] == 0)
        memcpy(to.host, by->where.host, sizeof to.host);
    uint16_t index = node_get(all, &to);
    if (index == RNODES_NONE)
        return index;
    COUNT(all, redis_moved_total);
    if (v == SLOTMAP_MOVED)
        set_owner(all, r->slot, index);
    else if (all->node[index]->leaving)
        all->node[index]->leave_at = mono_add_ms(all->now, ASKED_LEAVE_MS);
    rnodes_want_map(all);
    return index;
}

/* -- the map -- */

void
rnodes_want_map(struct rnodes *all)
{
    all->wants_map = true;
}

/* The next node that is reached; when none is, the next of the settings. */
static void
ask_another(struct rnodes *all)
{
    struct redisurl where = all->seeds[all->turn % all->seed_count];
    bool found = false;
    for (uint16_t i = 0; i < all->node_count && !found; i++) {
        const struct rnode *n = all->node[(all->turn + i) % all->node_count];
        found = n->used && n->pub != NULL && redis_link_is_up(n->pub) && !redisurl_same(&n->where, &all->asked);
        if (found)
            where = n->where;
    }
    all->turn++;
    all->leaves_asked |= redis_link_is_up(all->ask) && !redisurl_same(&where, redis_link_where(all->ask));
    all->is_asking = false;
    all->tried_at = all->now;
    all->asked = where;
    redis_link_to(all->ask, &where);
}

static void
ask(struct rnodes *all)
{
    const struct view info = VIEW("INFO"), slots = VIEW("SLOTS");
    all->has_info = false;
    if (!redis_link_command(all->ask, VIEW("CLUSTER"), &info, 1, TOKEN_INFO) ||
        !redis_link_command(all->ask, VIEW("CLUSTER"), &slots, 1, TOKEN_SLOTS))
        return;
    all->is_asking = true;
    all->wants_map = false;
}

static void
of_no_use(struct rnodes *all, const char *why)
{
    char text[REDISURL_TEXT];
    log_info("cluster-map-refused", "server=%s why=\"%s\"", redisurl_text(&all->asked, text), why);
    COUNT(all, redis_map_refused_total);
    all->in_vain++;
    all->wants_map = true;
    ask_another(all);
}

static void
take_map(struct rnodes *all)
{
    const struct slotmap *m = all->map;
    uint16_t index[SLOTMAP_NODES];
    uint32_t changed = 0;
    for (uint16_t i = 0; i < m->node_count; i++)
        index[i] = node_get(all, &m->nodes[i]);
    for (uint16_t s = 0; s < SLOTS; s++) {
        uint16_t owner = m->owner[s] == SLOTMAP_NONE ? RNODES_NONE : index[m->owner[s]];
        changed += owner != all->owner[s];
        set_owner(all, s, owner);
    }
    all->has_map = true;
    all->in_vain = 0;
    COUNT(all, redis_map_refreshes_total);
    if (changed > 0)
        log_info("cluster-map", "primaries=%u slots=%u changed=%u epoch=%llu", m->node_count, all->owned, changed,
            (unsigned long long)all->info.epoch);
}

static void
on_slots(struct rnodes *all, const struct redis_reply *r)
{
    const char *why = NULL;
    bool is_old = all->info.epoch < all->epoch && mono_since_ms(all->now, all->epoch_at) < EPOCH_MS;
    all->is_asking = false;
    if (!all->has_info)
        of_no_use(all, "it does not say how the cluster is");
    else if (all->has_map && !all->info.ok)
        of_no_use(all, "the cluster is down, it says");
    else if (all->has_map && is_old)
        of_no_use(all, "it knows less than another did");
    else if (!slotmap_read(all->map, r, all->asked.host, &why))
        of_no_use(all, why);
    else {
        all->epoch = all->info.epoch;
        all->epoch_at = all->now;
        take_map(all);
    }
}

static void
on_reply(void *arg, struct redis_link *link, const struct redis_request *request, const struct redis_reply *r)
{
    struct rnodes *all = arg;
    (void)link;
    if (request->token == TOKEN_INFO)
        all->has_info = r->v[0].kind == REDIS_STRING && slotmap_info_read(&all->info, r->v[0].text);
    else
        on_slots(all, r);
}

static void
on_up(void *arg, struct redis_link *link)
{
    struct rnodes *all = arg;
    (void)link;
    all->wants_map = true;
}

static void
on_lost(void *arg, struct redis_link *link, const char *why)
{
    struct rnodes *all = arg;
    (void)link;
    (void)why;
    all->wants_map = true;
    if (!all->leaves_asked) /* else another was chosen */
        ask_another(all);
    all->leaves_asked = false;
}

static const struct redis_ears ask_ears = {.on_up = on_up, .on_lost = on_lost, .on_reply = on_reply};

static uint64_t
doubled(uint64_t ms, unsigned times, uint64_t max)
{
    return MIN(ms << MIN(times, 16u), max);
}

uint32_t
rnodes_turn(struct rnodes *all, struct mono now)
{
    all->now = now;
    if (mono_reached(now, all->look_at)) {
        all->look_at = mono_add_ms(now, LOOK_MS);
        for (uint16_t i = 0; i < all->node_count; i++)
            if (all->node[i]->used)
                node_look(all->node[i]);
    }
    if (!redis_link_is_up(all->ask)) {
        if (mono_since_ms(now, all->tried_at) > doubled(REACH_MS, all->in_vain, MAX(REACH_MS, all->conf->redis_connect_timeout))) {
            all->in_vain++;
            ask_another(all);
        }
        return LOOK_MS;
    }
    struct mono due = all->wants_map ? all->ask_at : mono_add_ms(all->ask_at, all->conf->redis_cluster_refresh);
    if (!all->is_asking && mono_reached(now, due)) {
        all->ask_at = mono_add_ms(now, doubled(ASK_GAP_MS, all->in_vain, ASK_GAP_MAX_MS));
        ask(all);
    }
    return LOOK_MS;
}

/* -- making it -- */

struct rnodes *
rnodes_open(const struct conf *conf, struct redis_io *io, uint64_t *metrics, const struct rnodes_ears *ears, void *arg,
    struct conf_error *err)
{
    struct rnodes *all = calloc(1, sizeof *all);
    if (all == NULL || (all->map = malloc(sizeof *all->map)) == NULL) {
        free(all);
        (void)conf_fail(err, "can't begin: memory is out");
        return NULL;
    }
    all->conf = conf;
    all->io = io;
    all->metrics = metrics;
    all->ears = ears;
    all->arg = arg;
    all->now = all->tried_at = mono_now();
    memset(all->owner, 0xff, sizeof all->owner);
    for (uint32_t i = 0; i < conf->redis_url.n && i < RNODES_SEEDS; i++, all->seed_count++)
        if (!redis_io_where(io, view_str(conf->redis_url.v[i]), &all->seeds[i], err)) {
            rnodes_close(all);
            return NULL;
        }
    all->asked = all->seeds[0];
    all->ask = redis_link_new(io, &all->asked, 0, &ask_ears, all);
    if (all->seed_count == 0 || all->ask == NULL) {
        (void)conf_fail(err, "can't begin: memory is out");
        rnodes_close(all);
        return NULL;
    }
    return all;
}

void
rnodes_close(struct rnodes *all)
{
    for (uint16_t i = 0; i < all->node_count; i++) {
        if (all->node[i]->used)
            node_drop(all->node[i]);
        free(all->node[i]);
    }
    if (all->ask != NULL)
        redis_link_free(all->ask);
    free(all->map);
    free(all);
}
