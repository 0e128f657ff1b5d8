#include "broker/bus_mem.h"

#include <stdlib.h>

enum item_kind { ITEM_MESSAGE, ITEM_JOIN, ITEM_LEAVE, ITEM_TAKEN, ITEM_REFUSED };

/* Something on its way, or a publish that waits for its answer, or a topic. */
struct item {
    struct item *next;
    enum item_kind kind;
    enum bus_kind topic_kind;
    uint64_t token;
    bool sent;    /* a publish: is on its way, or was when the link was lost */
    bool again;   /* was given to us before the link was lost: marked when it is sent */
    bool dropped; /* it gave way; told in its turn */
    bool confirmed; /* a topic: told so, and its link held since */
    size_t name_n, n;
    uint8_t bytes[]; /* name, then message */
};

struct items {
    struct item *first, **end;
    uint32_t count;
};

struct node {
    struct bus bus;
    struct bus_mem_net *net;
    unsigned number;
    unsigned links;            /* that are up */
    unsigned links_seen;       /* as its last turn knew */
    uint64_t joins;            /* so far: each has its number */
    bool returning;            /* topics of before a lost link are not all confirmed yet */
    uint32_t slow, bound, window, refuse, twice, lose, deaf;
    bool partly, partly_seen;
    struct items topics;       /* that it wants */
    struct items says;         /* publishes without an answer, oldest first */
    struct items to_server, answers;   /* the link that says */
    struct items wishes, hears;        /* the link that hears: joins and leaves; what comes */
    struct items subscribed;   /* as the server has it */
};

struct bus_mem_net {
    struct node *nodes[BUS_MEM_NODES];
    void (*watch)(void *arg, unsigned node, struct view channel, struct view bytes);
    void *watch_arg;
};

static struct bus_mem_net *used;

/* -- items -- */

static struct item *
item_new(enum item_kind kind, struct bus_topic t, struct view head, struct view body, uint64_t token)
{
    struct item *i = calloc(1, sizeof *i + t.name.n + head.n + body.n + 1);
    if (i == NULL)
        return NULL;
    *i = (struct item){.kind = kind, .topic_kind = t.kind, .token = token, .name_n = t.name.n, .n = head.n + body.n};
    struct buf out = buf_fixed(i->bytes, t.name.n + i->n);
    buf_put_view(&out, t.name);
    buf_put_view(&out, head);
    buf_put_view(&out, body);
    return i;
}

static struct bus_topic
item_topic(const struct item *i)
{
    return (struct bus_topic){i->topic_kind, view_of(i->bytes, i->name_n)};
}

static struct view
item_message(const struct item *i)
{
    return view_of(i->bytes + i->name_n, i->n);
}

static void
push(struct items *l, struct item *i)
{
    if (i == NULL)
        return;
    if (l->first == NULL)
        l->end = &l->first;
    i->next = NULL;
    *l->end = i;
    l->end = &i->next;
    l->count++;
}

static struct item *
shift(struct items *l)
{
    struct item *i = l->first;
    if (i == NULL)
        return NULL;
    l->first = i->next;
    l->count--;
    return i;
}

static void
clear(struct items *l)
{
    for (struct item *i; (i = shift(l)) != NULL;)
        free(i);
}

static bool
same_topic(const struct item *i, struct bus_topic t)
{
    return i->topic_kind == t.kind && view_eq(item_topic(i).name, t.name);
}

static struct item *
find(const struct items *l, struct bus_topic t)
{
    for (struct item *i = l->first; i != NULL; i = i->next)
        if (same_topic(i, t))
            return i;
    return NULL;
}

static void
take_out(struct items *l, struct bus_topic t)
{
    struct items kept = {0};
    for (struct item *i; (i = shift(l)) != NULL;)
        if (same_topic(i, t))
            free(i);
        else
            push(&kept, i);
    *l = kept;
    if (l->first == NULL)
        l->end = NULL;
}

/* -- the broker's side -- */

static struct node *
node_of(struct bus *bus)
{
    return container_of(bus, struct node, bus);
}

static struct bus *
mem_open(const struct conf *conf, struct ring *ring, uint64_t *metrics, const struct bus_ears *ears, void *arg,
    struct conf_error *err)
{
    struct node *n = calloc(1, sizeof *n);
    unsigned number = 0;
    while (number < BUS_MEM_NODES && used->nodes[number] != NULL)
        number++;
    if (n == NULL || number == BUS_MEM_NODES) {
        free(n);
        conf_fail(err, "more brokers than a net in memory takes");
        return NULL;
    }
    n->bus = (struct bus){.ops = &bus_mem, .conf = conf, .ring = ring, .metrics = metrics, .ears = ears, .arg = arg,
        .state = BUS_DOWN};
    n->net = used;
    n->number = number;
    n->links = BUS_MEM_HEARS | BUS_MEM_SAYS;
    n->slow = n->bound = n->window = UINT32_MAX;
    used->nodes[number] = n;
    return &n->bus;
}

static void
mem_close(struct bus *bus)
{
    struct node *n = node_of(bus);
    struct items *all[] = {&n->topics, &n->says, &n->to_server, &n->answers, &n->wishes, &n->hears, &n->subscribed};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        clear(all[i]);
    n->net->nodes[n->number] = NULL;
    free(n);
}

static bool
mem_join(struct bus *bus, struct bus_topic t)
{
    struct node *n = node_of(bus);
    if (find(&n->topics, t) != NULL)
        return true;
    push(&n->topics, item_new(ITEM_JOIN, t, VIEW_NONE, VIEW_NONE, ++n->joins));
    if (n->links & n->links_seen & BUS_MEM_HEARS)
        push(&n->wishes, item_new(ITEM_JOIN, t, VIEW_NONE, VIEW_NONE, n->joins));
    return true;
}

static void
mem_leave(struct bus *bus, struct bus_topic t)
{
    struct node *n = node_of(bus);
    take_out(&n->topics, t);
    if (n->links & n->links_seen & BUS_MEM_HEARS)
        push(&n->wishes, item_new(ITEM_LEAVE, t, VIEW_NONE, VIEW_NONE, 0));
}

static bool
can_say(const struct node *n)
{
    return n->links_seen == (BUS_MEM_HEARS | BUS_MEM_SAYS) && !n->returning;
}

/* How many wait for a link or for room on it, beyond those that the next turn sends; and the oldest of them. */
static uint32_t
waiting(const struct node *n, struct item **oldest)
{
    uint32_t under_way = 0, waits = 0;
    *oldest = NULL;
    if (can_say(n) && n->window == UINT32_MAX)
        return 0;
    for (const struct item *i = n->says.first; i != NULL; i = i->next)
        under_way += i->sent;
    uint32_t room = can_say(n) && under_way < n->window ? n->window - under_way : 0;
    for (struct item *i = n->says.first; i != NULL; i = i->next) {
        if (i->sent || i->dropped)
            continue;
        if (room > 0) {
            room--;
            continue;
        }
        waits++;
        *oldest = *oldest != NULL ? *oldest : i;
    }
    return waits;
}

static bool
mem_is_up(const struct bus *bus, struct bus_topic t)
{
    const struct node *n = container_of(bus, struct node, bus);
    struct item *oldest;
    (void)t;
    return can_say(n) && waiting(n, &oldest) == 0;
}

static void
drop_oldest(struct node *n)
{
    struct item *oldest;
    if (waiting(n, &oldest) > n->bound)
        oldest->dropped = true;
}

static bool
mem_publish(struct bus *bus, struct bus_topic t, struct view head, struct view body, uint64_t token)
{
    struct node *n = node_of(bus);
    struct item *i = item_new(ITEM_MESSAGE, t, head, body, token);
    push(&n->says, i);
    drop_oldest(n);
    return i != NULL;
}

static void
told_taken(struct node *n, enum item_kind answer)
{
    struct item *i = shift(&n->says);
    n->bus.ears->on_fate(n->bus.arg, item_topic(i), i->token, answer == ITEM_TAKEN ? BUS_TAKEN : BUS_REFUSED);
    free(i);
}

/* In the order of publishes: what gave way is told when all before it are. */
static void
tell_dropped(struct node *n)
{
    while (n->says.first != NULL && n->says.first->dropped) {
        struct item *i = shift(&n->says);
        n->bus.ears->on_fate(n->bus.arg, item_topic(i), i->token, BUS_DROPPED);
        free(i);
    }
}

static void
state_to(struct node *n, enum bus_state state, const char *why)
{
    if (n->bus.state == state)
        return;
    n->bus.state = state;
    n->bus.ears->on_state(n->bus.arg, state, why);
}

static void
notice_lost(struct node *n)
{
    unsigned lost = n->links_seen & ~n->links;
    n->links_seen &= n->links;
    for (struct item *i = lost ? n->says.first : NULL; i != NULL; i = i->next) {
        i->sent &= !(lost & BUS_MEM_SAYS);
        i->again |= !i->sent;
    }
    if (!(lost & BUS_MEM_HEARS))
        return;
    for (struct item *i = n->topics.first, *next; i != NULL; i = next) {
        next = i->next;
        bool was = i->confirmed;
        i->confirmed = false;
        if (was && i->topic_kind == BUS_CHANNEL)
            n->bus.ears->on_lost(n->bus.arg, item_topic(i));
    }
}

static void
notice_back(struct node *n)
{
    unsigned back = n->links & ~n->links_seen;
    n->links_seen |= back;
    if (!(back & BUS_MEM_HEARS))
        return;
    n->returning = true;
    for (struct item *i = n->topics.first; i != NULL; i = i->next) {
        i->token = ++n->joins;
        push(&n->wishes, item_new(ITEM_JOIN, item_topic(i), VIEW_NONE, VIEW_NONE, i->token));
    }
}

static void
hear_one(struct node *n, const struct item *i)
{
    struct item *t = find(&n->topics, item_topic(i));
    if (t == NULL)
        return; /* left meanwhile */
    if (i->kind == ITEM_MESSAGE) {
        n->bus.ears->on_message(n->bus.arg, item_topic(i), item_message(i));
    } else if (!t->confirmed && t->token == i->token) { /* not that of a join before */
        t->confirmed = true;
        n->bus.ears->on_joined(n->bus.arg, item_topic(i));
    }
}

static void
hear(struct node *n)
{
    struct item *i;
    for (uint32_t k = 0; k < n->slow && (i = shift(&n->hears)) != NULL; k++) {
        hear_one(n, i);
        free(i);
    }
    for (uint32_t k = 0; k < n->slow && (i = shift(&n->answers)) != NULL; k++) {
        tell_dropped(n);
        told_taken(n, i->kind);
        free(i);
    }
    tell_dropped(n);
}

static void
send_out(struct node *n)
{
    bool all = true;
    for (const struct item *i = n->topics.first; i != NULL; i = i->next)
        all = all && i->confirmed;
    n->returning = n->returning && !all;
    uint32_t under_way = 0;
    for (struct item *i = n->says.first; can_say(n) && i != NULL && under_way < n->window; i = i->next) {
        under_way += i->sent;
        if (i->sent || i->dropped)
            continue;
        struct item *copy = item_new(ITEM_MESSAGE, item_topic(i), item_message(i), VIEW_NONE, i->token);
        if (copy != NULL && i->again)
            copy->bytes[copy->name_n + BUS_AGAIN_AT] |= BUS_AGAIN;
        push(&n->to_server, copy);
        i->sent = true;
        under_way++;
    }
}

/* The server that was away, in the fault partly, has the control topics, too. */
static void
notice_whole(struct node *n)
{
    bool back = n->partly_seen && !n->partly;
    n->partly_seen = n->partly;
    for (struct item *i = back ? n->topics.first : NULL; i != NULL; i = i->next)
        if (i->topic_kind == BUS_CONTROL && i->confirmed)
            n->bus.ears->on_joined(n->bus.arg, item_topic(i));
}

static uint32_t
mem_turn(struct bus *bus, struct mono now)
{
    struct node *n = node_of(bus);
    (void)now;
    notice_lost(n);
    if (n->links_seen != (BUS_MEM_HEARS | BUS_MEM_SAYS))
        state_to(n, BUS_DOWN, "cut");
    notice_back(n);
    hear(n);
    send_out(n);
    notice_whole(n);
    if (n->links_seen == (BUS_MEM_HEARS | BUS_MEM_SAYS))
        state_to(n, n->returning || n->partly ? BUS_PARTLY : BUS_UP, "healed");
    return UINT32_MAX;
}

static void
mem_on_done(struct bus *bus, struct ring_done done)
{
    (void)bus;
    (void)done;
}

static void
mem_describe(const struct bus *bus, struct buf *out)
{
    buf_put_lit(out, "memory ");
    buf_put_view(out, view_str(bus_state_str(bus->state)));
    buf_put_u8(out, '\n');
}

const struct bus_ops bus_mem = {
    .name = "mem",
    .open = mem_open,
    .close = mem_close,
    .join = mem_join,
    .leave = mem_leave,
    .publish = mem_publish,
    .is_up = mem_is_up,
    .turn = mem_turn,
    .on_done = mem_on_done,
    .describe = mem_describe,
};

/* -- the server -- */

static void
deliver(struct node *to, const struct item *i)
{
    if (find(&to->subscribed, item_topic(i)) == NULL)
        return;
    unsigned times = 1;
    if (to->lose > 0 && i->topic_kind == BUS_CHANNEL) {
        to->lose--;
        times = 0;
    } else if (to->deaf > 0 && i->topic_kind == BUS_CONTROL) {
        to->deaf--;
        times = 0;
    } else if (to->twice > 0) {
        to->twice--;
        times = 2;
    }
    while (times-- > 0)
        push(&to->hears, item_new(ITEM_MESSAGE, item_topic(i), item_message(i), VIEW_NONE, 0));
}

static bool
take_publish(struct bus_mem_net *net, struct node *n)
{
    struct item *i = shift(&n->to_server);
    if (i == NULL)
        return false;
    bool refused = n->refuse > 0 && i->topic_kind == BUS_CHANNEL;
    n->refuse -= refused;
    if (!refused && net->watch != NULL && i->topic_kind == BUS_CHANNEL)
        net->watch(net->watch_arg, n->number, item_topic(i).name, item_message(i));
    for (unsigned k = 0; k < BUS_MEM_NODES && !refused; k++)
        if (net->nodes[k] != NULL)
            deliver(net->nodes[k], i);
    push(&n->answers, item_new(refused ? ITEM_REFUSED : ITEM_TAKEN, item_topic(i), VIEW_NONE, VIEW_NONE, i->token));
    free(i);
    return true;
}

static bool
take_wish(struct node *n)
{
    struct item *i = shift(&n->wishes);
    if (i == NULL)
        return false;
    take_out(&n->subscribed, item_topic(i));
    if (i->kind == ITEM_JOIN) {
        push(&n->subscribed, item_new(ITEM_JOIN, item_topic(i), VIEW_NONE, VIEW_NONE, 0));
        push(&n->hears, item_new(ITEM_JOIN, item_topic(i), VIEW_NONE, VIEW_NONE, i->token));
    }
    free(i);
    return true;
}

unsigned
bus_mem_carry(struct bus_mem_net *net, unsigned node, unsigned publishes, unsigned topics)
{
    struct node *n = net->nodes[node];
    unsigned took = 0;
    if (n == NULL)
        return 0;
    for (; topics > 0 && (n->links & BUS_MEM_HEARS) && take_wish(n); topics--)
        took++;
    for (; publishes > 0 && (n->links & BUS_MEM_SAYS) && take_publish(net, n); publishes--)
        took++;
    return took;
}

/* -- faults -- */

void
bus_mem_cut(struct bus_mem_net *net, unsigned node, unsigned links)
{
    struct node *n = net->nodes[node];
    n->links &= ~links;
    if (links & BUS_MEM_SAYS) {
        clear(&n->to_server);
        clear(&n->answers);
    }
    if (links & BUS_MEM_HEARS) {
        clear(&n->wishes);
        clear(&n->hears);
        clear(&n->subscribed);
    }
}

void
bus_mem_heal(struct bus_mem_net *net, unsigned node, unsigned links)
{
    struct node *n = net->nodes[node];
    notice_lost(n);
    n->links |= links;
}

void
bus_mem_slow(struct bus_mem_net *net, unsigned node, uint32_t a_turn)
{
    net->nodes[node]->slow = a_turn;
}

void
bus_mem_bound(struct bus_mem_net *net, unsigned node, uint32_t publishes)
{
    net->nodes[node]->bound = publishes;
}

void
bus_mem_window(struct bus_mem_net *net, unsigned node, uint32_t publishes)
{
    net->nodes[node]->window = publishes;
}

void
bus_mem_refuse(struct bus_mem_net *net, unsigned node, unsigned publishes)
{
    net->nodes[node]->refuse = publishes;
}

void
bus_mem_twice(struct bus_mem_net *net, unsigned node, unsigned messages)
{
    net->nodes[node]->twice = messages;
}

void
bus_mem_lose(struct bus_mem_net *net, unsigned node, unsigned messages)
{
    net->nodes[node]->lose = messages;
}

void
bus_mem_deaf(struct bus_mem_net *net, unsigned node, unsigned messages)
{
    net->nodes[node]->deaf = messages;
}

void
bus_mem_partly(struct bus_mem_net *net, unsigned node, bool is)
{
    net->nodes[node]->partly = is;
}

void
bus_mem_watch(struct bus_mem_net *net, void (*fn)(void *, unsigned, struct view, struct view), void *arg)
{
    net->watch = fn;
    net->watch_arg = arg;
}

struct bus_mem_net *
bus_mem_net_new(void)
{
    return calloc(1, sizeof(struct bus_mem_net));
}

void
bus_mem_net_free(struct bus_mem_net *net)
{
    if (used == net)
        used = NULL;
    free(net);
}

void
bus_mem_use(struct bus_mem_net *net)
{
    used = net;
}

unsigned
bus_mem_node(const struct bus *bus)
{
    return container_of(bus, struct node, bus)->number;
}

bool
bus_mem_is_idle(const struct bus *bus)
{
    return container_of(bus, struct node, bus)->says.first == NULL;
}
