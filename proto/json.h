/* JSON (RFC 8259): a scanner that validates while it skips, and a writer of strings. No tree, no
 * recursion, no allocation: linear time, memory bounded by JSON_DEPTH_MAX.
 *
 * The scanner walks with a pair of pointers: each function takes the first byte it may look at and the
 * end, and returns the first byte behind what it names, or NULL when that is not there. It never reads
 * at or behind `end`. Bytes above 0x7F are taken as they are inside strings and nowhere else: whether
 * they are UTF-8 is for the caller to know (utf8_valid of proto/ws.h). U+0000 cannot stand in a text
 * unescaped, and escaped it is a character like any other. */
#ifndef PROTO_JSON_H
#define PROTO_JSON_H

#include "common/base.h"
#include "common/buf.h"
#include "common/view.h"

/* Deepest nesting any limit may allow. */
#define JSON_DEPTH_MAX 1024

/* A string as it stands in the text. */
struct json_string {
    struct view raw; /* between the quotes, escapes and all */
    bool escaped;    /* there are escapes in it */
};

/* Behind white space (section 2: space, tab, line feed, carriage return); never NULL. */
const uint8_t *json_space_slow(const uint8_t *p, const uint8_t *end);
static inline const uint8_t *
json_space(const uint8_t *p, const uint8_t *end)
{
    if (LIKELY(p < end && *p > ' '))
        return p;
    return json_space_slow(p, end);
}

/* p is behind the opening quote; returns behind the closing one. */
const uint8_t *json_string(const uint8_t *p, const uint8_t *end, struct json_string *out) MUST_CHECK;

/* p is at the first character of a number. */
const uint8_t *json_number(const uint8_t *p, const uint8_t *end) MUST_CHECK;

/* Any value, p at its first character. Containers may nest max_depth levels, at most JSON_DEPTH_MAX;
 * NULL with *deep set means that the text was good so far and too deep (*deep is not cleared). */
const uint8_t *json_value(
    const uint8_t *p, const uint8_t *end, uint32_t max_depth, bool *deep) MUST_CHECK;

/* Walks an object. p is behind '{' (first) or behind a value; returns where the next value begins, its
 * key in *key, or, with *closed set, behind '}'. */
const uint8_t *json_member(const uint8_t *p, const uint8_t *end, bool first,
    struct json_string *key, bool *closed) MUST_CHECK;

/* The same for an array: returns where the next element begins or, with *closed set, behind ']'. */
const uint8_t *json_element(
    const uint8_t *p, const uint8_t *end, bool first, bool *closed) MUST_CHECK;

/* Whether v is one JSON text: a value and white space around it, strings as they are in UTF-8 or not. */
bool json_valid(struct view v, uint32_t max_depth, bool *deep) MUST_CHECK;

/* Bytes that a string means, written to out[0 .. cap). False when they are more than cap, or when there
 * is a surrogate without its other half, which UTF-8 has no bytes for. s has been validated. */
bool json_unescape(struct view raw, uint8_t *out, size_t cap, size_t *n) MUST_CHECK;

/* Whether v can stand between quotes as it is. */
bool json_is_plain(struct view v);
/* Appends v between quotes, escaped the way JSON.stringify does it. v is UTF-8. */
void json_put_string(struct buf *out, struct view v);
/* The same without the quotes. */
void json_put_escaped(struct buf *out, struct view v);

#endif
