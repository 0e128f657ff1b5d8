/* The protocols by name, and what they share; see speak.h. */
#include "bench/speak.h"

#include <stdarg.h>
#include <stdio.h>

#include "common/bug.h"

static const struct speak *const speaks[] = {&speak_sc, &speak_minbin, &speak_ws, &speak_sio, &speak_nats, &speak_mqtt};

const struct speak *
speak_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(speaks); i++)
        if (strcmp(speaks[i]->name, name) == 0)
            return speaks[i];
    return NULL;
}

const char *
speak_names(void)
{
    static char names[128];
    size_t at = 0;
    for (size_t i = 0; at == 0 || i < ARRAY_LEN(speaks); i++)
        at += (size_t)snprintf(names + at, sizeof names - at, "%s%s", i ? ", " : "", speaks[i]->name);
    return names;
}

/* A template may name the channel and the payload more than once, but not more often than this. */
#define TIMES_MAX 4

size_t
speak_room(const struct speak_conf *conf, const char *channel, size_t payload)
{
    size_t texts = MAX(strlen(conf->texts.publish), strlen(conf->texts.message));
    return SPEAK_MAX + texts + TIMES_MAX * (strlen(channel) + payload);
}

char *
speak_put(char *to, const void *p, size_t n)
{
    memcpy(to, p, n);
    return to + n;
}

size_t
speak_print(char *to, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(to, SPEAK_MAX, format, args);
    va_end(args);
    if (n < 0 || n >= SPEAK_MAX)
        die("a message of the protocol is longer than %d bytes", SPEAK_MAX);
    return (size_t)n;
}

bool
speak_begins(const uint8_t *p, size_t n, const char *text)
{
    size_t len = strlen(text);
    return n >= len && memcmp(p, text, len) == 0;
}

char *
speak_put_json(char *to, const char *begin, const struct speak_payload *payload, size_t *at)
{
    if (payload->quoted)
        *to++ = '"';
    *at = (size_t)(to - begin);
    to = speak_put(to, payload->p, payload->n);
    if (payload->quoted)
        *to++ = '"';
    return to;
}
