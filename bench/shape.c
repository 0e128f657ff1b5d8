/* Recorded shapes of traffic; see shape.h. */
#include "bench/shape.h"

#include <errno.h>
#include <stdlib.h>

#include "common/bug.h"

#define SLOTS (1u << 18) /* more than twice SHAPE_CHANNELS */
#define NAME_MAX_BYTES 128

/* Names of channels, while reading. */
struct names {
    char **name; /* by hash; NULL: free */
    uint32_t *id;
    uint64_t *reached; /* by channel: subscribers, summed over its messages */
    uint32_t *messages;
};

static uint32_t
channel_of(struct shape *s, struct names *t, const char *name)
{
    uint64_t h = 14695981039346656037ull; /* FNV-1a */
    for (const char *p = name; *p != 0; p++)
        h = (h ^ (uint8_t)*p) * 1099511628211ull;
    uint32_t i = (uint32_t)(h ^ h >> 32) & (SLOTS - 1);
    for (; t->name[i] != NULL; i = (i + 1) & (SLOTS - 1))
        if (strcmp(t->name[i], name) == 0)
            return t->id[i];
    if (s->channels == SHAPE_CHANNELS)
        die("a recording of more than %u channels", SHAPE_CHANNELS);
    t->name[i] = xmalloc(strlen(name) + 1);
    memcpy(t->name[i], name, strlen(name) + 1);
    t->id[i] = s->channels;
    return s->channels++;
}

/* Rounded up: four lengths per octave. */
static uint32_t
class_of(uint32_t bytes)
{
    uint32_t step = bytes < 64 ? 1 : (uint32_t)pow2_ceil(bytes / 2 + 1) / 4;
    return (bytes + step - 1) / step * step;
}

static void
add(struct shape *s, double seconds, double first, uint32_t channel, uint32_t bytes)
{
    if (s->n == SHAPE_MESSAGES)
        die("a recording of more than %u messages", SHAPE_MESSAGES);
    if (s->n == s->cap) {
        s->cap = MAX(2 * s->cap, 1024u);
        s->message = xrealloc(s->message, s->cap * sizeof *s->message);
    }
    s->message[s->n++] = (struct shape_message){(uint64_t)((seconds - first) * 1e9), channel, bytes};
}

/* Sums become averages. */
static void
finish(struct shape *s, const struct names *t)
{
    s->subscribers = xcalloc(MAX(s->channels, 1u), sizeof *s->subscribers);
    for (uint32_t i = 0; i < s->channels; i++)
        s->subscribers[i] = (uint32_t)((t->reached[i] + t->messages[i] / 2) / t->messages[i]);
    for (uint32_t i = 0; i < s->n; i++)
        s->deliveries += s->subscribers[s->message[i].channel];
    uint64_t last = s->message[s->n - 1].at_ns;
    s->span_ns = last + MAX(last / MAX(s->n - 1, 1u), 1000u);
}

static void
forget(struct names *t)
{
    for (uint32_t i = 0; i < SLOTS; i++)
        free(t->name[i]);
    free(t->name);
    free(t->id);
    free(t->reached);
    free(t->messages);
}

void
shape_read(struct shape *s, FILE *f, const char *name, uint32_t min_bytes, uint32_t max_bytes)
{
    char line[512], channel[NAME_MAX_BYTES + 1];
    struct names t = {.name = xcalloc(SLOTS, sizeof *t.name), .id = xcalloc(SLOTS, sizeof *t.id),
        .reached = xcalloc(SHAPE_CHANNELS, sizeof *t.reached), .messages = xcalloc(SHAPE_CHANNELS, sizeof *t.messages)};
    double first = 0, before = 0;
    *s = (struct shape){0};
    for (uint32_t number = 1; fgets(line, sizeof line, f) != NULL; number++) {
        double seconds;
        unsigned bytes, reached;
        char end[2];
        if (line[0] == '#' || line[strspn(line, " \r\n")] == 0)
            continue;
        if (sscanf(line, "%lf,%128[^,],%u,%u%1[^\r\n]", &seconds, channel, &bytes, &reached, end) != 4 ||
            !(seconds >= 0 && seconds < 1e9) || bytes > max_bytes || reached > 1000000)
            die("%s, line %u: seconds,channel,bytes,subscribers is wanted, and no more than %u bytes", name, number, max_bytes);
        if (s->n == 0)
            first = seconds;
        else if (seconds < before)
            die("%s, line %u: earlier than the line before", name, number);
        before = seconds;
        uint32_t c = channel_of(s, &t, channel);
        t.reached[c] += reached;
        t.messages[c]++;
        s->lengthened += bytes < min_bytes;
        add(s, seconds, first, c, MIN(class_of(MAX(bytes, min_bytes)), max_bytes));
    }
    if (s->n == 0)
        die("%s: there is no message in it", name);
    finish(s, &t);
    forget(&t);
}

void
shape_free(struct shape *s)
{
    free(s->message);
    free(s->subscribers);
}
