#include "broker/redis_command.h"

#include <hiredis/hiredis.h>

#include "common/banned.h"

#define BYTES_MAX ((size_t)1 << 30)

/* -- by hiredis -- */

bool
redis_command_make(struct redis_command *c, struct view verb, const struct view *args, uint32_t n)
{
    const char *v[REDIS_COMMAND_ARGS];
    size_t sizes[REDIS_COMMAND_ARGS], all = verb.n;
    char *made = NULL;
    *c = (struct redis_command){.bytes = VIEW_NONE};
    if (n >= REDIS_COMMAND_ARGS)
        return false;
    v[0] = (const char *)verb.p;
    sizes[0] = verb.n;
    for (uint32_t i = 0; i < n; i++) {
        v[i + 1] = args[i].p != NULL ? (const char *)args[i].p : "";
        sizes[i + 1] = args[i].n;
        if (args[i].n > BYTES_MAX || (all += args[i].n) > BYTES_MAX)
            return false;
    }
    long long bytes = redisFormatCommandArgv(&made, (int)n + 1, v, sizes);
    if (bytes <= 0)
        return false;
    c->bytes = view_of(made, (size_t)bytes);
    return true;
}

void
redis_command_free(struct redis_command *c)
{
    char *made = (char *)(uintptr_t)c->bytes.p;
    if (made != NULL)
        explicit_bzero(made, c->bytes.n);
    redisFreeCommand(made);
    *c = (struct redis_command){.bytes = VIEW_NONE};
}

/* -- publishes -- */

static unsigned
digits(size_t n)
{
    unsigned d = 1;
    for (; n >= 10; n /= 10)
        d++;
    return d;
}

/* "$5\r\nnames\r\n" */
static size_t
arg_size(size_t n)
{
    return 1 + digits(n) + 2 + n + 2;
}

static uint8_t *
put_bytes(uint8_t *p, struct view v)
{
    if (v.n > 0)
        memcpy(p, v.p, v.n);
    return p + v.n;
}

/* What kind, how much. */
static uint8_t *
put_head(uint8_t *p, char kind, size_t n)
{
    unsigned d = digits(n);
    *p++ = (uint8_t)kind;
    for (unsigned i = d; i > 0; i--, n /= 10)
        p[i - 1] = (uint8_t)('0' + n % 10);
    p += d;
    *p++ = '\r';
    *p++ = '\n';
    return p;
}

/* An argument in two pieces; *whole is where it came to lie. */
static uint8_t *
put_arg(uint8_t *p, struct view a, struct view b, struct view *whole)
{
    p = put_head(p, '$', a.n + b.n);
    *whole = view_of(p, a.n + b.n);
    return put_bytes(put_bytes(put_bytes(p, a), b), VIEW("\r\n"));
}

size_t
redis_command_publish_size(struct view verb, size_t topic_n, size_t payload_n)
{
    return 4 + arg_size(verb.n) + arg_size(topic_n) + arg_size(payload_n);
}

void
redis_command_publish_put(uint8_t *out, struct view verb, struct view prefix, struct view name, struct view head,
    struct view body, struct redis_request *r)
{
    struct view said;
    uint8_t *p = put_arg(put_head(out, '*', 3), verb, VIEW_NONE, &said);
    p = put_arg(p, prefix, name, &r->topic);
    p = put_arg(p, head, body, &r->payload);
    r->bytes = view_of(out, (size_t)(p - out));
}
