#include "worker/client.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include "common/bug.h"
#include "proto/forwarded.h"
#include "proto/proxyline.h"
#include "worker/metrics.h"

void
client_setup(struct worker *w)
{
    const struct conf_list *l = &w->conf->http_trusted_proxies;
    w->trusted = (struct addr_nets){0};
    for (uint32_t i = 0; i < l->n; i++)
        CHECK_IF(!addr_nets_add(&w->trusted, view_str(l->v[i]))); /* conf_check() saw to it */
}

struct addr
client_peer(int fd)
{
    struct sockaddr_storage ss;
    struct addr a = {{0}};
    socklen_t n = sizeof ss;
    if (getpeername(fd, (struct sockaddr *)&ss, &n) < 0)
        return a;
    if (ss.ss_family == AF_INET)
        return addr_from_v4((const uint8_t *)&((const struct sockaddr_in *)(const void *)&ss)->sin_addr);
    if (ss.ss_family == AF_INET6)
        memcpy(a.b, &((const struct sockaddr_in6 *)(const void *)&ss)->sin6_addr, sizeof a.b);
    return a;
}

/* Whether the address makes connections faster than it may. */
static bool
connects_too_fast(struct worker *w, uint32_t place)
{
    const struct rates *r = &w->rates;
    if (r->connects == 0)
        return false;
    uint64_t cost = rate_cost(1, r->connects);
    if (addrs_has(w->addrs, place, ADDRS_CONNECTS, w->now.ns, r->burst_ns, cost)) {
        (void)addrs_take(w->addrs, place, ADDRS_CONNECTS, w->now.ns, r->burst_ns, cost);
        return false;
    }
    COUNT(w, limit_address_connect_rate_total);
    return true;
}

enum client_rc
client_count(struct worker *w, const struct addr *a, uint32_t *place)
{
    uint32_t connections = 0;
    uint64_t most = w->conf->conn_max_per_address;
    bool forgot = false;
    *place = ADDRS_NONE;
    if (w->addrs == NULL || addr_is_none(a) || addr_nets_have(&w->trusted, a))
        return CLIENT_WELCOME;
    *place = addrs_join(w->addrs, a, w->now.ns, &connections, &forgot);
    COUNT_N(w, addresses_forgotten_total, forgot);
    if (*place == ADDRS_NONE) {
        COUNT(w, addresses_full_total);
        return CLIENT_WELCOME;
    }
    bool many = most && connections > most, fast = connects_too_fast(w, *place);
    COUNT_N(w, limit_max_per_address_total, many);
    if (!many && !fast)
        return CLIENT_WELCOME;
    bool far_over = many && connections > 2 * most;
    return far_over || w->conf->rate_connect_answer[0] == 'c' ? CLIENT_REFUSED : CLIENT_OVER;
}

/* Keeps a header that is not whole; what is there of it then. */
static struct view
header_so_far(struct worker *w, struct conn *c, struct view in)
{
    if (c->in == NULL || c->in->msg.n == 0)
        return in;
    if (!conn_keep(w, &c->in->msg, in.p, in.n))
        return VIEW_NONE;
    return buf_view(&c->in->msg);
}

static void
header_done(struct worker *w, struct conn *c, const struct proxyline *p)
{
    COUNT(w, proxy_headers_total);
    if (p->known && !addr_is_none(&p->source))
        c->client = p->source;
    if (c->in != NULL) {
        conn_forget(w, &c->in->msg);
        conn_in_done(w, c);
    }
    enum client_rc rc = client_count(w, &c->client, &c->place);
    if (rc == CLIENT_REFUSED || (rc == CLIENT_OVER && c->flags & CF_TLS)) {
        conn_close(w, c, CLOSE_ADDRESS_LIMIT);
        return;
    }
    c->flags |= rc == CLIENT_OVER ? CF_OVER : 0;
    conn_to(c, c->flags & CF_TLS ? CONN_TLS : CONN_HTTP);
}

size_t
client_input(struct worker *w, struct conn *c, struct view in)
{
    struct proxyline p;
    size_t had = c->in != NULL ? c->in->msg.n : 0, eaten;
    struct view piece = view_head(in, PROXYLINE_MAX - had), head = header_so_far(w, c, piece);
    switch (proxyline_parse(head, &p, &eaten)) {
    case PROXYLINE_DONE:
        header_done(w, c, &p);
        return eaten - had;
    case PROXYLINE_MORE:
        if (head.p == NULL || (had == 0 && (conn_in(w, c) == NULL || !conn_keep(w, &c->in->msg, in.p, in.n))))
            conn_abort(w, c, false);
        return in.n;
    case PROXYLINE_BAD: conn_close(w, c, CLOSE_PROXY); return in.n;
    }
    return in.n;
}

static enum forwarded_field
field_of(const struct conf *conf)
{
    switch (conf->http_client_field[0]) {
    case 'x': return FORWARDED_XFF;
    case 'f': return FORWARDED_RFC7239;
    default: return FORWARDED_NONE;
    }
}

bool
client_of_request(struct worker *w, struct conn *c, const struct http_request *r)
{
    if (!addr_nets_have(&w->trusted, &c->client))
        return true;
    if (!forwarded_is_whole(r, field_of(w->conf)))
        return false;
    c->client = forwarded_client(r, field_of(w->conf), &c->client, &w->trusted);
    if (client_count(w, &c->client, &c->place) != CLIENT_WELCOME)
        c->flags |= CF_OVER;
    return true;
}
