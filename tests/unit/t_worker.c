#include "tests/unit/t_worker.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "proto/ws.h"

#define CLIENTS_MAX 512

struct t_world t;

static struct t_client clients[CLIENTS_MAX];
static unsigned clients_n;
static char dir[64];
static uint64_t clock_ns, thread_ns;
static unsigned busy_percent;
static unsigned memory_left; /* 0: without end; 1: at its end */

/* -- the clock and memory, by --wrap -- */

int __real_clock_gettime(clockid_t id, struct timespec *ts);
int __wrap_clock_gettime(clockid_t id, struct timespec *ts);
void *__real_malloc(size_t n);
void *__wrap_malloc(size_t n);
void *__real_calloc(size_t count, size_t n);
void *__wrap_calloc(size_t count, size_t n);
void *__real_realloc(void *p, size_t n);
void *__wrap_realloc(void *p, size_t n);

int
__wrap_clock_gettime(clockid_t id, struct timespec *ts)
{
    if ((id != CLOCK_MONOTONIC && id != CLOCK_THREAD_CPUTIME_ID) || clock_ns == 0)
        return __real_clock_gettime(id, ts);
    uint64_t ns = id == CLOCK_MONOTONIC ? clock_ns : thread_ns;
    *ts = (struct timespec){(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    return 0;
}

struct mono
t_real_time(void)
{
    struct timespec ts;
    __real_clock_gettime(CLOCK_MONOTONIC, &ts);
    return (struct mono){(uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec};
}

void
t_pass(uint64_t ms)
{
    clock_ns += ms * 1000000u;
    thread_ns += ms * 10000u * busy_percent;
}

void
t_busy(unsigned percent)
{
    busy_percent = percent;
}

void
t_memory_ends(unsigned n)
{
    memory_left = n;
}

static bool
memory_is_out(void)
{
    if (memory_left == 0)
        return false;
    if (memory_left == 1)
        return true;
    memory_left--;
    return false;
}

void *
__wrap_malloc(size_t n)
{
    return memory_is_out() ? NULL : __real_malloc(n);
}

void *
__wrap_calloc(size_t count, size_t n)
{
    return memory_is_out() ? NULL : __real_calloc(count, n);
}

void *
__wrap_realloc(void *p, size_t n)
{
    return memory_is_out() ? NULL : __real_realloc(p, n);
}

/* -- the broker's stand-in: worker/link.h -- */

struct links {
    const struct link_ops *ops;
    void *ring;
    unsigned line_at[T_BROKERS]; /* every request before was answered, or was another broker's */
};

static struct links links;

struct links *
links_new(UNUSED const struct conf *conf, UNUSED struct ring *ring, UNUSED unsigned worker_idx,
    UNUSED unsigned ring_idx, UNUSED uint64_t *metrics, const struct link_ops *ops, void *ring_arg)
{
    links = (struct links){.ops = ops, .ring = ring_arg};
    return &links;
}

void
links_free(UNUSED struct links *l)
{
}

unsigned
links_owner(UNUSED const struct links *l, struct view channel)
{
    unsigned i = channel.n > 1 && channel.p[1] == '/' ? (unsigned)(channel.p[0] - '0') : 0;
    return i < t.conf.broker_count ? i : 0;
}

bool
link_is_up(UNUSED const struct links *l, unsigned broker)
{
    return !t.down[broker];
}

static struct t_asked *
note(enum t_kind kind, unsigned broker, const struct call *call)
{
    unsigned room = memory_left; /* what the test writes down is not what runs out */
    memory_left = 0;
    if (t.asked_n == t.asked_cap) {
        t.asked_cap = t.asked_cap ? t.asked_cap * 2 : 256;
        t.asked = realloc(t.asked, t.asked_cap * sizeof *t.asked);
        assert_non_null(t.asked);
    }
    struct t_asked *a = calloc(1, sizeof *a);
    assert_non_null(a);
    memory_left = room;
    a->kind = kind;
    a->broker = broker;
    if (call != NULL) {
        a->has_call = true;
        a->call = *call;
        assert_true(call->call_id.n <= CALL_ID_MAX);
        if (call->call_id.n)
            memcpy(a->id, call->call_id.p, call->call_id.n);
        a->call.call_id.p = (const uint8_t *)a->id;
    }
    t.asked[t.asked_n++] = a;
    return a;
}

static void
copy_cut(char *to, size_t cap, struct view v)
{
    size_t n = MIN(v.n, cap - 1);
    if (n)
        memcpy(to, v.p, n);
    to[n] = '\0';
}

static enum link_rc
not_ok(enum t_kind kind, enum error_id *why)
{
    t.not_taken[kind]++;
    *why = t.why;
    return t.says[kind];
}

enum link_rc
link_subscribe(UNUSED struct links *l, unsigned broker, uint32_t chan, uint32_t chan_gen, struct view name,
    const struct call *call, enum error_id *why)
{
    if (t.says[T_SUBSCRIBE] != LINK_OK && !(t.says[T_SUBSCRIBE] == LINK_WAIT && call == NULL))
        return not_ok(T_SUBSCRIBE, why);
    struct t_asked *a = note(T_SUBSCRIBE, broker, call);
    a->chan = chan;
    a->gen = chan_gen;
    copy_cut(a->name, sizeof a->name, name);
    return LINK_OK;
}

void
link_unsubscribe(UNUSED struct links *l, unsigned broker, uint32_t chan, uint32_t chan_gen)
{
    struct t_asked *a = note(T_UNSUBSCRIBE, broker, NULL);
    a->chan = chan;
    a->gen = chan_gen;
    for (unsigned i = t.asked_n; i-- > 0;)
        if (t.asked[i]->kind == T_SUBSCRIBE && t.asked[i]->chan == chan && t.asked[i]->gen == chan_gen) {
            memcpy(a->name, t.asked[i]->name, sizeof a->name);
            return;
        }
    fail_msg("unsubscribe of channel %u.%u, which was never asked for", chan, chan_gen);
}

void
link_busy(UNUSED struct links *l, unsigned broker, uint32_t chan)
{
    note(T_BUSY, broker, NULL)->chan = chan;
}

bool
link_was_stopped(UNUSED const struct links *l, UNUSED unsigned broker, struct view channel)
{
    return t.stopped != NULL && view_eq(channel, view_str(t.stopped));
}

void
links_eased(UNUSED struct links *l)
{
    (void)note(T_EASED, 0, NULL);
}

enum link_rc
link_publish(UNUSED struct links *l, struct view channel, unsigned broker, bool has_data, struct view data,
    const struct call *call, enum error_id *why)
{
    if (t.says[T_PUBLISH] != LINK_OK && t.publishes_first-- == 0) {
        t.publishes_first = 0;
        return not_ok(T_PUBLISH, why);
    }
    struct t_asked *a = note(T_PUBLISH, broker, call);
    copy_cut(a->name, sizeof a->name, channel);
    copy_cut(a->data, sizeof a->data, data);
    a->has_data = has_data;
    a->data_n = data.n;
    return LINK_OK;
}

enum link_rc
link_after(UNUSED struct links *l, unsigned broker, const struct call *call, enum error_id *why)
{
    if (t.says[T_AFTER] != LINK_OK)
        return not_ok(T_AFTER, why);
    note(T_AFTER, broker, call);
    return LINK_OK;
}

bool
links_drain(UNUSED struct links *l, UNUSED unsigned budget)
{
    if (t.in_turn != NULL)
        t.in_turn();
    return false;
}

void
links_flush(UNUSED struct links *l)
{
}

bool
links_sleep(UNUSED struct links *l)
{
    return true;
}

void
links_awake(UNUSED struct links *l)
{
}

uint32_t
links_tick(UNUSED struct links *l, UNUSED struct mono now)
{
    return 100;
}

void
links_on_cqe(UNUSED struct links *l, UNUSED unsigned op, UNUSED uint32_t slot, UNUSED uint32_t gen,
    UNUSED int res, UNUSED uint32_t flags)
{
    fail_msg("a completion for links, which started nothing");
}

struct t_asked *
t_last(enum t_kind kind, const char *channel)
{
    for (unsigned i = t.asked_n; i-- > 0;)
        if (t.asked[i]->kind == kind && (channel == NULL || strcmp(t.asked[i]->name, channel) == 0))
            return t.asked[i];
    return NULL;
}

unsigned
t_count(enum t_kind kind)
{
    unsigned n = 0;
    for (unsigned i = 0; i < t.asked_n; i++)
        n += t.asked[i]->kind == kind;
    return n;
}

static struct t_asked *
oldest(unsigned broker)
{
    for (unsigned *at = &links.line_at[broker]; *at < t.asked_n; ++*at) {
        struct t_asked *a = t.asked[*at];
        if (a->broker == broker && a->has_call && !a->answered)
            return a;
    }
    return NULL;
}

unsigned
t_waiting(unsigned broker)
{
    unsigned n = 0;
    for (unsigned i = links.line_at[broker]; i < t.asked_n; i++)
        n += t.asked[i]->broker == broker && t.asked[i]->has_call && !t.asked[i]->answered;
    return n;
}

void
t_answer(unsigned broker, enum error_id err)
{
    struct t_asked *a = oldest(broker);
    assert_non_null(a);
    a->answered = true;
    links.ops->on_done(links.ring, &a->call, err);
}

void
t_answer_all(unsigned broker)
{
    while (oldest(broker) != NULL)
        t_answer(broker, ERR_NONE);
}

void
t_message(const char *channel, const char *data)
{
    struct t_asked *a = t_last(T_SUBSCRIBE, channel);
    assert_non_null(a);
    links.ops->on_message(links.ring, a->chan, a->gen, data != NULL, data != NULL ? view_str(data) : VIEW_NONE);
}

void
t_gap(const char *channel, uint64_t count)
{
    struct t_asked *a = t_last(T_SUBSCRIBE, channel);
    assert_non_null(a);
    links.ops->on_gap(links.ring, a->chan, a->gen, count);
}

void
t_attached(unsigned broker)
{
    links.ops->on_attached(links.ring, broker);
}

void
t_restored(unsigned broker)
{
    links.ops->on_restored(links.ring, broker);
}

void
t_missed(unsigned broker)
{
    links.ops->on_missed(links.ring, broker);
}

void
t_lost(unsigned broker)
{
    unsigned in_line = t_waiting(broker); /* what is asked again meanwhile is for the successor */
    links.ops->on_lost(links.ring, broker);
    while (in_line-- > 0)
        t_answer(broker, ERR_BROKER_LOST);
}

void
t_room(unsigned broker)
{
    links.ops->on_room(links.ring, broker);
}

/* -- the worker -- */

int
t_setup(UNUSED void **state)
{
    struct conf_error err;
    log_set_level(LOG_L_ERROR); /* what ends badly here is meant to */
    memset(&t, 0, sizeof t);
    clients_n = 0;
    memory_left = 0;
    busy_percent = 0;
    clock_ns = 1000000ull * 1000000000u;
    snprintf(dir, sizeof dir, "/tmp/ringcast-worker-XXXXXX");
    if (mkdtemp(dir) == NULL)
        return -1;
    conf_defaults(&t.conf);
    if (!conf_set(&t.conf, "run.dir", dir, "test", &err) || !conf_set(&t.conf, "echo.path", "/echo", "test", &err))
        return -1;
    t.conf.worker_count = t.conf.worker_rings = t.conf.broker_count = 1;
    t.conn_max = CLIENTS_MAX;
    return 0;
}

void
t_begin(void)
{
    struct conf_error err = {{0}};
    t.addrs = addrs_new(64, 64, 1);
    assert_non_null(t.addrs);
    struct worker_setup setup = {
        .conf = &t.conf,
        .conn_max = t.conn_max,
        .listeners = t.listeners,
        .tls = t.tls ? tls_server_new(&t.conf, &err) : NULL,
        .listen_count = t.listen_n,
        .addrs = t.addrs,
        .wake_fd = eventfd(0, EFD_CLOEXEC),
        .stop = &t.stop,
        .cpu = -1,
    };
    if (t.tls && setup.tls == NULL)
        fail_msg("%s", err.text);
    assert_true(t.conf.broker_count <= T_BROKERS);
    t.w = worker_new(&setup, &err);
    if (t.w == NULL)
        fail_msg("%s", err.text);
    t_turn(); /* numbers turns from 1 */
}

void
t_turn(void)
{
    worker_turn(t.w, 0);
}

void
t_turns(unsigned n)
{
    while (n-- > 0)
        t_turn();
}

/* What must be so when nobody is there any more. */
static void
expect_nothing_left(void)
{
    static const struct {
        unsigned row;
        const char *name;
    } gauges[] = {
        {RM_connections, "connections"}, {RM_connections_open, "connections_open"},
        {RM_connections_unshaken, "connections_unshaken"}, {RM_subscriptions, "subscriptions"},
        {RM_channels, "channels"}, {RM_queue_bytes, "queue_bytes"},
        {RM_behind, "behind"}, {RM_lag_bytes, "lag_bytes"},
    };
    struct worker *w = t.w;
    for (size_t i = 0; i < ARRAY_LEN(gauges); i++)
        if (w->metrics[gauges[i].row] != 0)
            fail_msg("%s=%llu with nobody there", gauges[i].name, (unsigned long long)w->metrics[gauges[i].row]);
    assert_int_equal(w->queue_bytes, 0);
    assert_int_equal(w->input_bytes, 0);
    if (w->arena != NULL)
        assert_int_equal(w->arena->refs, 1);
    if (w->cipher != NULL)
        assert_int_equal(w->cipher->refs, 1);
    assert_int_equal(w->blocks.bytes, (w->arena != NULL ? w->arena->cap + sizeof(struct rc) : 0) +
            (w->cipher != NULL ? w->cipher->cap + sizeof(struct rc) : 0));
    assert_int_equal(w->unshaken.first, POOL_NONE);
    for (unsigned i = 0; i < t.conf.broker_count; i++)
        assert_int_equal(w->waiting[i].first, POOL_NONE);
}

static void
worker_end(void)
{
    t_memory_ends(0);
    t.stop = 2;
    T_UNTIL(t.w->conns.live == 0);
    t_turn();
    expect_nothing_left();
}

int
t_teardown(UNUSED void **state)
{
    char command[128];
    int wake_fd = t.w != NULL ? t.w->wake_fd : -1;
    if (t.w != NULL) {
        worker_end();
        worker_free(t.w);
        close(wake_fd);
    }
    for (unsigned i = 0; i < clients_n; i++)
        t_close(&clients[i]);
    for (unsigned i = 0; i < t.asked_n; i++)
        free(t.asked[i]);
    free(t.asked);
    addrs_free(t.addrs);
    t.addrs = NULL;
    conf_free(&t.conf);
    clock_ns = 0;
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

/* -- clients -- */

static struct t_client *
client_of(int fd, int worker_fd)
{
    assert_true(clients_n < CLIENTS_MAX);
    struct t_client *c = &clients[clients_n++];
    *c = (struct t_client){.fd = fd, .slot = POOL_NONE, .in = buf_make(UINT32_MAX)};
    struct listener from = t.w->listeners[0];
    from.tls = t.tls;
    conn_new(t.w, &from, worker_fd);
    uint32_t slot = t.w->unshaken.last; /* where who came last stands, unless it was refused */
    if (slot != POOL_NONE && conn_at(t.w, slot)->fd == worker_fd) {
        c->slot = slot;
        c->gen = conn_at(t.w, slot)->head.gen;
    }
    return c;
}

struct t_client *
t_connect(unsigned room)
{
    int fds[2], bytes = (int)room;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    if (room > 0)
        assert_int_equal(setsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes), 0);
    return client_of(fds[0], fds[1]);
}

struct t_client *
t_connect_tcp(void)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof to;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (void *)&to, n), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (void *)&to, &n), 0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (void *)&to, n), 0);
    int accepted = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(accepted >= 0);
    close(listener);
    return client_of(fd, accepted);
}

struct conn *
t_conn(const struct t_client *c)
{
    return c->slot == POOL_NONE ? NULL : pool_find(&t.w->conns, c->slot, c->gen);
}

size_t
t_try_send(struct t_client *c, const void *p, size_t n)
{
    ssize_t k = send(c->fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
    return k > 0 ? (size_t)k : 0;
}

void
t_send(struct t_client *c, const void *p, size_t n)
{
    const uint8_t *at = p;
    T_UNTIL(({
        size_t k = t_try_send(c, at, n);
        at += k;
        n -= k;
        n == 0;
    }));
}

void
t_frame(struct t_client *c, unsigned opcode, const void *p, size_t n)
{
    static const uint8_t key[4] = {0x37, 0xfa, 0x21, 0x3d};
    uint8_t *frame = malloc(14 + n);
    assert_non_null(frame);
    size_t head_n = ws_put_client_header(frame, (enum ws_opcode)(opcode & 0xf), n, key);
    if (opcode & T_MORE)
        frame[0] &= 0x7f;
    frame[0] |= (uint8_t)(opcode & WS_RSV1);
    if (n)
        memcpy(frame + head_n, p, n);
    ws_mask(frame + head_n, n, key, 0);
    t_send(c, frame, head_n + n);
    free(frame);
}

void
t_say(struct t_client *c, const char *fmt, ...)
{
    char text[2048];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    assert_in_range(n, 0, sizeof text - 1);
    t_frame(c, WS_TEXT, text, (size_t)n);
}

void
t_say_subscribe(struct t_client *c, const char *channel)
{
    t_say(c, "{\"event\":\"#subscribe\",\"data\":{\"channel\":\"%s\"},\"cid\":%u}", channel, ++c->cid);
}

void
t_say_unsubscribe(struct t_client *c, const char *channel)
{
    t_say(c, "{\"event\":\"#unsubscribe\",\"data\":\"%s\",\"cid\":%u}", channel, ++c->cid);
}

void
t_say_publish(struct t_client *c, const char *channel, const char *data)
{
    t_say(c, "{\"event\":\"#publish\",\"data\":{\"channel\":\"%s\",\"data\":%s},\"cid\":%u}", channel, data, ++c->cid);
}

void
t_shutdown(struct t_client *c)
{
    assert_int_equal(shutdown(c->fd, SHUT_WR), 0);
}

void
t_close(struct t_client *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    buf_free(&c->in);
}

void
t_receive(struct t_client *c)
{
    uint8_t bytes[65536];
    while (!c->ended) {
        ssize_t n = recv(c->fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (n > 0) {
            buf_put(&c->in, bytes, (size_t)n);
            continue;
        }
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        c->ended = true;
        c->reset = n < 0;
    }
}

/* Bytes of the frame that in begins with; 0: it is not whole. */
static size_t
frame_size(const struct buf *in, size_t *head_n)
{
    if (in->n < 2)
        return 0;
    size_t len = in->p[1] & 0x7f;
    *head_n = len < 126 ? 2 : len == 126 ? 4 : 10;
    if (in->n < *head_n)
        return 0;
    len = len < 126 ? len : len == 126 ? load_be16(in->p + 2) : load_be64(in->p + 2);
    return in->n >= *head_n + len ? *head_n + len : 0;
}

unsigned
t_next_frame(struct t_client *c, struct view *payload)
{
    static uint8_t *last;
    size_t head_n = 0, n = 0;
    T_UNTIL(({
        t_receive(c);
        n = frame_size(&c->in, &head_n);
        n > 0 || c->ended;
    }));
    if (n == 0)
        fail_msg("the connection ended where a frame was waited for");
    unsigned opcode = c->in.p[0];
    assert_int_equal(opcode & 0xb0, 0x80); /* whole */
    assert_int_equal(c->in.p[1] & 0x80, 0);
    free(last);
    last = malloc(n - head_n + 1);
    assert_non_null(last);
    memcpy(last, c->in.p + head_n, n - head_n);
    last[n - head_n] = '\0';
    *payload = view_of(last, n - head_n);
    buf_eat(&c->in, n);
    return opcode & (0xf | WS_RSV1);
}

void
t_hears(struct t_client *c, const char *fmt, ...)
{
    static char text[256 * 1024];
    struct view payload;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    assert_in_range(n, 0, sizeof text - 1);
    unsigned opcode = t_next_frame(c, &payload);
    if (opcode == WS_CLOSE && payload.n >= 2)
        fail_msg("a Close frame, %u, where this was waited for: %s", load_be16(payload.p), text);
    assert_string_equal((const char *)payload.p, text);
    assert_int_equal(opcode, WS_TEXT);
}

void
t_hears_done(struct t_client *c, unsigned cid)
{
    t_hears(c, "{\"rid\":%u}", cid);
}

void
t_hears_failed(struct t_client *c, unsigned cid, enum error_id err)
{
    struct view payload;
    char begin[32], name[64];
    assert_int_equal(t_next_frame(c, &payload), WS_TEXT);
    snprintf(begin, sizeof begin, "{\"rid\":%u,\"error\":{", cid);
    snprintf(name, sizeof name, "\"name\":\"%s\"", error_name(err));
    /* Messages with arguments are compared up to the first. */
    const char *message = error_message(err);
    char part[128];
    snprintf(part, sizeof part, "\"message\":\"%.*s", (int)MIN(strcspn(message, "{"), (size_t)100), message);
    if (!view_starts(payload, view_str(begin)) || strstr((const char *)payload.p, name) == NULL ||
        strstr((const char *)payload.p, part) == NULL)
        fail_msg("%s where request %u should have failed with %s", (const char *)payload.p, cid, error_str(err));
}

void
t_hears_message(struct t_client *c, const char *channel, const char *data)
{
    t_hears(c, "{\"event\":\"#publish\",\"data\":{\"channel\":\"%s\",\"data\":%s}}", channel, data);
}

void
t_hears_close(struct t_client *c, unsigned code)
{
    struct view payload;
    unsigned opcode = t_next_frame(c, &payload);
    if (opcode != WS_CLOSE)
        fail_msg("\"%s\" where a Close frame was waited for", (const char *)payload.p);
    assert_true(payload.n >= 2);
    assert_int_equal(load_be16(payload.p), code);
}

void
t_hears_end(struct t_client *c)
{
    T_UNTIL(({
        t_receive(c);
        c->ended || c->in.n > 0;
    }));
    if (c->in.n > 0)
        fail_msg("%zu bytes where the end was waited for", c->in.n);
}

void
t_hears_nothing(struct t_client *c)
{
    t_turns(4);
    t_receive(c);
    if (c->in.n > 0)
        fail_msg("%zu bytes where nothing was waited for: %.*s", c->in.n, (int)MIN(c->in.n, (size_t)80), (char *)c->in.p);
    assert_false(c->ended);
}

static const char request[] = "GET %s HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                              "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n";

/* Bytes of the answer's head, with the empty line. */
static size_t
head_size(const struct buf *in)
{
    for (size_t i = 4; i <= in->n; i++)
        if (memcmp(in->p + i - 4, "\r\n\r\n", 4) == 0)
            return i;
    return 0;
}

static void
upgrade(struct t_client *c, const char *path, const char *lines)
{
    char text[2048];
    int n = snprintf(text, sizeof text, request, path, lines);
    t_send(c, text, (size_t)n);
    size_t head_n = 0;
    T_UNTIL(({
        t_receive(c);
        head_n = head_size(&c->in);
        head_n > 0 || c->ended;
    }));
    assert_true(head_n > 12);
    assert_memory_equal(c->in.p, "HTTP/1.1 101", 12);
    snprintf(t.answer, sizeof t.answer, "%.*s", (int)head_n, (const char *)c->in.p);
    buf_eat(&c->in, head_n);
}

struct t_client *
t_upgraded_with(const char *path, unsigned room, const char *lines)
{
    struct t_client *c = t_connect(room);
    upgrade(c, path, lines);
    return c;
}

struct t_client *
t_upgraded(const char *path, unsigned room)
{
    return t_upgraded_with(path, room, "");
}

void
t_shake(struct t_client *c)
{
    struct view payload;
    t_say(c, "{\"event\":\"#handshake\",\"data\":{},\"cid\":%u}", ++c->cid);
    assert_int_equal(t_next_frame(c, &payload), WS_TEXT);
    assert_true(view_starts(payload, VIEW("{\"rid\":1,\"data\":{\"id\":\"")));
}

struct t_client *
t_open_narrow(unsigned room)
{
    struct t_client *c = t_upgraded("/socketcluster/", room);
    t_shake(c);
    return c;
}

struct t_client *
t_open_tcp(void)
{
    struct t_client *c = t_connect_tcp();
    upgrade(c, "/socketcluster/", "");
    t_shake(c);
    return c;
}

struct t_client *
t_open(void)
{
    return t_open_narrow(0);
}

void
t_subscribe(struct t_client *c, const char *channel)
{
    uint64_t before = t_verbs(VERB_SUBSCRIBE);
    t_say_subscribe(c, channel);
    T_UNTIL(t_verbs(VERB_SUBSCRIBE) > before);
    t_answer_all(links_owner(&links, view_str(channel)));
    t_hears_done(c, c->cid);
}
