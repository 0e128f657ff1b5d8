/* A second opinion on what JSON is: RFC 8259 transcribed rule by rule, recursive, byte by byte, with
 * nothing in common with proto/json.c. For comparison in tests and fuzz targets; not for deep texts. */
#ifndef TESTS_NAIVE_JSON_H
#define TESTS_NAIVE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct naive {
    const uint8_t *p;
    size_t n, at;
    unsigned deepest; /* containers open at once */
};

static int
naive_peek(const struct naive *j)
{
    return j->at < j->n ? j->p[j->at] : -1;
}

static bool
naive_eat(struct naive *j, int c)
{
    if (naive_peek(j) != c)
        return false;
    j->at++;
    return true;
}

static void
naive_ws(struct naive *j)
{
    while (naive_eat(j, ' ') || naive_eat(j, '\t') || naive_eat(j, '\n') || naive_eat(j, '\r'))
        ;
}

static bool
naive_digit(struct naive *j)
{
    for (int c = '0'; c <= '9'; c++)
        if (naive_eat(j, c))
            return true;
    return false;
}

static bool
naive_digits(struct naive *j)
{
    if (!naive_digit(j))
        return false;
    while (naive_digit(j))
        ;
    return true;
}

static bool
naive_number(struct naive *j)
{
    naive_eat(j, '-');
    if (!naive_eat(j, '0') && !naive_digits(j))
        return false;
    if (naive_eat(j, '.') && !naive_digits(j))
        return false;
    if (naive_eat(j, 'e') || naive_eat(j, 'E')) {
        if (!naive_eat(j, '+'))
            naive_eat(j, '-');
        return naive_digits(j);
    }
    return true;
}

static bool
naive_string(struct naive *j)
{
    if (!naive_eat(j, '"'))
        return false;
    while (!naive_eat(j, '"')) {
        int c = naive_peek(j);
        if (c < 0x20)
            return false;
        j->at++;
        if (c != '\\')
            continue;
        c = naive_peek(j);
        j->at++;
        if (c == 'u') {
            for (int i = 0; i < 4; i++) {
                c = naive_peek(j);
                if (c <= 0 || strchr("0123456789abcdefABCDEF", c) == NULL)
                    return false;
                j->at++;
            }
        } else if (c <= 0 || strchr("\"\\/bfnrt", c) == NULL) {
            return false;
        }
    }
    return true;
}

static bool
naive_word(struct naive *j, const char *word)
{
    for (; *word; word++)
        if (!naive_eat(j, *word))
            return false;
    return true;
}

static bool naive_value(struct naive *j, unsigned depth);

static bool
naive_container(struct naive *j, unsigned depth, char close)
{
    j->at++;
    if (depth > j->deepest)
        j->deepest = depth;
    naive_ws(j);
    if (naive_eat(j, close))
        return true;
    for (;;) {
        naive_ws(j);
        if (close == '}') {
            if (!naive_string(j))
                return false;
            naive_ws(j);
            if (!naive_eat(j, ':'))
                return false;
        }
        naive_ws(j);
        if (!naive_value(j, depth))
            return false;
        naive_ws(j);
        if (naive_eat(j, close))
            return true;
        if (!naive_eat(j, ','))
            return false;
    }
}

static bool
naive_value(struct naive *j, unsigned depth)
{
    switch (naive_peek(j)) {
    case '{': return naive_container(j, depth + 1, '}');
    case '[': return naive_container(j, depth + 1, ']');
    case '"': return naive_string(j);
    case 't': return naive_word(j, "true");
    case 'f': return naive_word(j, "false");
    case 'n': return naive_word(j, "null");
    default: return naive_number(j);
    }
}

/* Whether the whole text is one JSON value; *deepest says how far it nests. */
static bool
naive_json(const uint8_t *p, size_t n, unsigned *deepest)
{
    struct naive j = {.p = p, .n = n};
    naive_ws(&j);
    bool ok = naive_value(&j, 0);
    naive_ws(&j);
    *deepest = j.deepest;
    return ok && j.at == n;
}

#endif
