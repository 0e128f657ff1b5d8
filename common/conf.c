/* Settings, driven by tbl/config.def: parsing and printing of values, the INI file (read by inih),
 * the environment, flags, and the rules between settings. Used at start-up and on SIGHUP only, by
 * the main thread; never on a path that a message takes.
 *
 * Besides settings, these variables are known: RINGCAST_CONFIG (the file, as --config), and what
 * the processes use among themselves: RINGCAST_READY_FD, RINGCAST_PARENT_FD, RINGCAST_FILES_FD,
 * RINGCAST_LISTEN_*.
 * Variables that begin with RINGCAST_TEST_ are left to tests. */
#include "common/conf.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <inttypes.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/addr.h"
#include "common/bug.h"
#include "common/file.h"
#include "common/view.h"

#include "common/banned.h"

#define FILE_MAX_BYTES (1u << 20) /* a larger settings file is a mistake */
#define VALUE_MAX_BYTES 4096      /* longest value of any setting, as text */
#define LINE_MAX_BYTES 4400       /* longest line of a file, comments aside: a key and a value too many */
#define SECTION_MAX_BYTES 100
#define CPU_MAX 1023              /* CPU_SETSIZE - 1 */
#define CONN_MAX 16000000         /* as in config.def */

enum conf_type { T_STR, T_LIST, T_INT, T_BOOL, T_SIZE, T_DURATION, T_LEVEL, T_SLOW, T_PACK };
enum conf_reload { RESTART, RELOAD };

struct row {
    const char *name;     /* section.key */
    const char *variable; /* SECTION_KEY, still in lower case */
    const char *dflt;
    const char *sentence;
    size_t at; /* offset in struct conf, or in struct conf_namespace */
    uint64_t min, max;
    enum conf_type type;
    enum conf_reload reload;
};

static const struct row rows[] = {
#define CONF(section, key, type_, dflt_, min_, max_, reload_, sentence_)                           \
    {.name = #section "." #key,                                                                    \
        .variable = #section "_" #key,                                                             \
        .dflt = (dflt_),                                                                           \
        .sentence = (sentence_),                                                                   \
        .at = offsetof(struct conf, section##_##key),                                              \
        .min = (min_),                                                                             \
        .max = (max_),                                                                             \
        .type = T_##type_,                                                                         \
        .reload = (reload_)},
#include "common/tbl/config.def"
#undef CONF
};

/* Their name is the key alone, and `variable` is not used. */
static const struct row namespace_rows[CONF_NS_ROWS] = {
#define NAMESPACE(key, type_, dflt_, sample_, min_, max_, sentence_)                               \
    {.name = #key,                                                                                 \
        .dflt = (dflt_),                                                                           \
        .sentence = (sentence_),                                                                   \
        .at = offsetof(struct conf_namespace, key),                                                \
        .min = (min_),                                                                             \
        .max = (max_),                                                                             \
        .type = T_##type_,                                                                         \
        .reload = RELOAD},
#include "common/tbl/namespace.def"
#undef NAMESPACE
};

static const char *const type_words[] = {
    [T_STR] = "TEXT",
    [T_LIST] = "LIST",
    [T_INT] = "NUMBER",
    [T_BOOL] = "on|off",
    [T_SIZE] = "SIZE",
    [T_DURATION] = "TIME",
    [T_LEVEL] = "LEVEL",
    [T_SLOW] = "POLICY",
    [T_PACK] = "off|once|context",
};

struct unit {
    const char *name;
    uint64_t n;
};
/* Largest first: printing takes the first that divides. */
static const struct unit size_units[] = {
    {"TiB", 1ull << 40}, {"GiB", 1ull << 30}, {"MiB", 1ull << 20}, {"KiB", 1ull << 10}, {"B", 1}};
static const struct unit time_units[] = {
    {"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};

static const char *const level_words[] = {"error", "warn", "info", "debug", NULL};
static const char *const slow_words[] = {"close", "drop-oldest", "conflate", NULL};
static const char *const pack_words[] = {"off", "once", "context", NULL};

/* What conf_from_command_line was called with, for conf_reload. Owned by the main thread. */
static struct {
    char *file; /* NULL: none */
    char **flags;
    unsigned flag_count;
} start;

bool
conf_fail(struct conf_error *err, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    return false;
}

/* Where the next error goes. */
static struct conf_error *
next_error(struct conf_errors *all)
{
    return &all->list[MIN(all->n, (unsigned)CONF_ERRORS_MAX)];
}

/* Keeps what was written to next_error, if something was. */
static bool
is_well(struct conf_errors *all, bool ok)
{
    all->n += !ok;
    return ok;
}

static struct log_quoted
quote(const char *s)
{
    return log_quote(view_str(s));
}

static void *
field(const struct conf *c, const struct row *r)
{
    return (char *)(uintptr_t)c + r->at;
}

static void *
namespace_field(const struct conf_namespace *ns, const struct row *r)
{
    return (char *)(uintptr_t)ns + r->at;
}

/* ---- numbers and units ---- */

/* Leading decimal digits of s; false when there are none or they pass 2^64. */
static bool
take_digits(const char **s, uint64_t *out)
{
    const char *p = *s;
    uint64_t v = 0;
    if (*p < '0' || *p > '9')
        return false;
    for (; *p >= '0' && *p <= '9'; p++)
        if (__builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v))
            return false;
    *s = p;
    *out = v;
    return true;
}

/* A number with one of the units; a bare number is taken when `bare` says so, and 0 always. */
static bool
take_units(const char *s, const struct unit *units, size_t n, bool bare, uint64_t *out)
{
    uint64_t v;
    if (!take_digits(&s, &v))
        return false;
    if (*s == '\0') {
        *out = v;
        return bare || v == 0;
    }
    while (*s == ' ')
        s++;
    for (size_t i = 0; i < n; i++)
        if (strcmp(s, units[i].name) == 0)
            return !__builtin_mul_overflow(v, units[i].n, out);
    return false;
}

static void
put_units(char *out, size_t out_n, const struct unit *units, size_t n, uint64_t v)
{
    size_t i = 0;
    while (v != 0 && i + 1 < n && v % units[i].n != 0)
        i++;
    if (v == 0)
        (void)snprintf(out, out_n, "0");
    else if (strcmp(units[i].name, "B") == 0)
        (void)snprintf(out, out_n, "%" PRIu64, v);
    else
        (void)snprintf(out, out_n, "%" PRIu64 "%s", v / units[i].n, units[i].name);
}

/* ---- one value ---- */

static void
value_text(const struct row *r, uint64_t v, char *out, size_t out_n)
{
    if (r->type == T_SIZE)
        put_units(out, out_n, size_units, ARRAY_LEN(size_units), v);
    else if (r->type == T_DURATION)
        put_units(out, out_n, time_units, ARRAY_LEN(time_units), v);
    else
        (void)snprintf(out, out_n, "%" PRIu64, v);
}

static const char *
kind_sentence(enum conf_type t)
{
    switch (t) {
    case T_SIZE: return "a size such as 4096, 64KiB, 4MiB or 1GiB";
    case T_DURATION: return "a time with its unit, such as 250ms, 8s, 5m or 1h";
    default: return "a whole number";
    }
}

static bool
set_number(
    void *at, const struct row *r, const char *value, const char *where, struct conf_error *err)
{
    uint64_t v = 0;
    const char *end = value;
    bool ok;
    if (r->type == T_SIZE)
        ok = take_units(value, size_units, ARRAY_LEN(size_units), true, &v);
    else if (r->type == T_DURATION)
        ok = take_units(value, time_units, ARRAY_LEN(time_units), false, &v);
    else
        ok = take_digits(&end, &v) && *end == '\0';
    char lo[32], hi[32];
    value_text(r, r->min, lo, sizeof lo);
    value_text(r, r->max, hi, sizeof hi);
    if (!ok)
        return conf_fail(err, "%s is %s (%s): write %s, from %s to %s", r->name, quote(value).s,
            where, kind_sentence(r->type), lo, hi);
    if (v < r->min || v > r->max)
        return conf_fail(err, "%s is %s (%s), which is out of range: write %s to %s", r->name,
            quote(value).s, where, lo, hi);
    memcpy(at, &v, sizeof v);
    return true;
}

static bool
set_bool(
    bool *at, const struct row *r, const char *value, const char *where, struct conf_error *err)
{
    static const char *const words[] = {"off", "on", "false", "true", "no", "yes", "0", "1"};
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (strcmp(value, words[i]) == 0) {
            *at = (i & 1) != 0;
            return true;
        }
    return conf_fail(err, "%s is %s (%s): write on or off", r->name, quote(value).s, where);
}

/* One of a few words, kept as its number. */
static bool
set_word(void *at, const char *const *words, const struct row *r, const char *value,
    const char *where, struct conf_error *err)
{
    char all[128] = "";
    for (unsigned i = 0; words[i] != NULL; i++) {
        if (strcmp(value, words[i]) == 0) {
            memcpy(at, &i, sizeof i);
            return true;
        }
        size_t n = strlen(all);
        (void)snprintf(all + n, sizeof all - n, "%s%s",
            i == 0 ? "" : words[i + 1] != NULL ? ", " : " or ", words[i]);
    }
    return conf_fail(err, "%s is %s (%s): write %s", r->name, quote(value).s, where, all);
}
_Static_assert(sizeof(enum log_level) == sizeof(unsigned) &&
        sizeof(enum conf_slow) == sizeof(unsigned), "set_word writes either");

static bool
set_str(const char **at, const struct row *r, const char *value, const char *where,
    struct conf_error *err)
{
    size_t n = strlen(value);
    if (n < r->min || n > r->max)
        return conf_fail(err,
            "%s is %s (%s), %zu bytes long: write %" PRIu64 " to %" PRIu64 " bytes", r->name,
            quote(value).s, where, n, r->min, r->max);
    free((char *)(uintptr_t)*at);
    *at = xstrdup(value);
    return true;
}

static void
list_free(struct conf_list *l)
{
    for (uint32_t i = 0; i < l->n; i++)
        free(l->v[i]);
    free(l->v);
    *l = (struct conf_list){NULL, 0};
}

/* Appends what stands between commas, without the white space around it. */
static bool
list_add(struct conf_list *l, const struct row *r, const char *value, const char *where,
    struct conf_error *err)
{
    const char *p = value + strspn(value, " \t");
    while (*p != '\0') {
        size_t n = strcspn(p, ",");
        const char *next = p[n] == ',' ? p + n + 1 : p + n;
        bool more = p[n] == ',';
        while (n > 0 && (p[n - 1] == ' ' || p[n - 1] == '\t'))
            n--;
        next += strspn(next, " \t");
        if (n == 0 || (more && *next == '\0'))
            return conf_fail(err,
                "%s is %s (%s), which has an empty entry: write entries with one comma between "
                "them",
                r->name, quote(value).s, where);
        if (l->n >= r->max)
            return conf_fail(err, "%s has too many entries (%s): write at most %" PRIu64, r->name,
                where, r->max);
        l->v = xrealloc(l->v, (l->n + 1) * sizeof l->v[0]);
        char *entry = xmalloc(n + 1);
        memcpy(entry, p, n);
        entry[n] = '\0';
        l->v[l->n++] = entry;
        p = next;
    }
    return true;
}

/* Replaces the list, or adds to it (a key that stands again in the same file). */
static bool
set_list(struct conf_list *at, const struct row *r, const char *value, bool add, const char *where,
    struct conf_error *err)
{
    struct conf_list fresh = {NULL, 0};
    if (!list_add(add ? at : &fresh, r, value, where, err)) {
        list_free(&fresh);
        return false;
    }
    if (!add && fresh.n < r->min) {
        list_free(&fresh);
        return conf_fail(
            err, "%s is empty (%s): write at least %" PRIu64 " entries", r->name, where, r->min);
    }
    if (!add) {
        list_free(at);
        *at = fresh;
    }
    return true;
}

/* The value at `at`, which is what row r describes. */
static bool
set_value(void *at, const struct row *r, const char *value, bool add, const char *where,
    struct conf_error *err)
{
    if (strlen(value) > VALUE_MAX_BYTES)
        return conf_fail(
            err, "%s is too long (%s): write at most %d bytes", r->name, where, VALUE_MAX_BYTES);
    switch (r->type) {
    case T_STR: return set_str(at, r, value, where, err);
    case T_LIST: return set_list(at, r, value, add, where, err);
    case T_BOOL: return set_bool(at, r, value, where, err);
    case T_LEVEL: return set_word(at, level_words, r, value, where, err);
    case T_SLOW: return set_word(at, slow_words, r, value, where, err);
    case T_PACK: return set_word(at, pack_words, r, value, where, err);
    case T_INT:
    case T_SIZE:
    case T_DURATION: return set_number(at, r, value, where, err);
    }
    return false;
}

/* ---- names ---- */

/* Edits that turn a into b (insert, delete, replace); long names count as far apart. */
static unsigned
distance(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    unsigned line[64];
    if (n >= ARRAY_LEN(line) || m >= ARRAY_LEN(line))
        return 99;
    for (unsigned j = 0; j <= m; j++)
        line[j] = j;
    for (unsigned i = 1; i <= n; i++) {
        unsigned diagonal = line[0];
        line[0] = i;
        for (unsigned j = 1; j <= m; j++) {
            unsigned replace = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = line[j];
            line[j] = MIN(replace, MIN(line[j], line[j - 1]) + 1);
        }
    }
    return line[m];
}

/* The setting whose name looks most like what was written; NULL when nothing does. */
static const struct row *
nearest(const char *dotted)
{
    const struct row *best = NULL;
    unsigned best_at = (unsigned)MAX(2, strlen(dotted) / 3) + 1;
    const char *key = strchr(dotted, '.');
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        unsigned d = distance(dotted, rows[i].name);
        /* the right key in a wrong or missing section is nearer than any misspelling */
        if (strcmp(strchr(rows[i].name, '.') + 1, key != NULL ? key + 1 : dotted) == 0)
            d = MIN(d, 1);
        if (d < best_at) {
            best = &rows[i];
            best_at = d;
        }
    }
    return best;
}

static const struct row *
row_find(const char *dotted)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (strcmp(rows[i].name, dotted) == 0)
            return &rows[i];
    return NULL;
}

static bool
fail_unknown(struct conf_error *err, const char *dotted, const char *where)
{
    const struct row *r = nearest(dotted);
    if (r == NULL)
        return conf_fail(err, "%s (%s) is not a setting: ringcast --help lists them all",
            quote(dotted).s, where);
    return conf_fail(
        err, "%s (%s) is not a setting: did you mean %s?", quote(dotted).s, where, r->name);
}

/* ---- namespaces ---- */

static void
namespace_init(struct conf_namespace *ns, struct view name)
{
    struct conf_error err;
    memset(ns, 0, sizeof *ns);
    memcpy(ns->name, name.p, name.n);
    for (unsigned i = 0; i < CONF_NS_ROWS; i++) {
        const struct row *r = &namespace_rows[i];
        if (!set_value(namespace_field(ns, r), r, r->dflt, false, "its default", &err))
            die("%s", err.text); /* a wrong row of namespace.def */
    }
}

static struct conf_namespaces *
namespaces_new(void)
{
    struct conf_namespaces *all = xcalloc(1, sizeof *all);
    namespace_init(&all->v[0], VIEW(""));
    all->n = 1;
    return all;
}

static void
namespaces_free(struct conf_namespaces *all)
{
    for (uint32_t i = 0; all != NULL && i < all->n; i++)
        for (unsigned k = 0; k < CONF_NS_ROWS; k++) {
            const struct row *r = &namespace_rows[k];
            if (r->type == T_STR)
                free((char *)(uintptr_t) * (const char **)namespace_field(&all->v[i], r));
            free(all->v[i].places[k]);
        }
    free(all);
}

static struct conf_namespace *
namespace_find(struct conf_namespaces *all, struct view name)
{
    for (uint32_t i = 1; i < all->n; i++)
        if (view_eq(view_str(all->v[i].name), name))
            return &all->v[i];
    return NULL;
}

/* Names are such that a variable can hold them, and that its key can be told from them. */
static bool
namespace_name_is_right(struct view name)
{
    if (name.n == 0 || name.n >= CONF_NAMESPACE_NAME || !islower(name.p[0]))
        return false;
    for (size_t i = 0; i < name.n; i++)
        if (!islower(name.p[i]) && !isdigit(name.p[i]))
            return false;
    return true;
}

static const struct row *
namespace_row_find(const char *key)
{
    for (unsigned i = 0; i < CONF_NS_ROWS; i++)
        if (strcmp(namespace_rows[i].name, key) == 0)
            return &namespace_rows[i];
    return NULL;
}

static bool
fail_namespace_key(struct conf_error *err, const char *dotted, const char *key, const char *where)
{
    const struct row *best = NULL;
    unsigned best_at = (unsigned)MAX(2, strlen(key) / 3) + 1;
    for (unsigned i = 0; i < CONF_NS_ROWS; i++)
        if (distance(key, namespace_rows[i].name) < best_at) {
            best = &namespace_rows[i];
            best_at = distance(key, best->name);
        }
    if (best == NULL)
        return conf_fail(err, "%s (%s) is not a setting: ringcast --help lists those of a namespace",
            quote(dotted).s, where);
    return conf_fail(err, "%s (%s) is not a setting: did you mean %s?", quote(dotted).s, where,
        best->name);
}

/* ---- where a value goes ---- */

#define TARGETS_MAX (ARRAY_LEN(rows) + (size_t)CONF_NAMESPACES_MAX * CONF_NS_ROWS)

/* What a dotted name stands for. */
struct target {
    void *at;
    char **place;   /* NULL while defaults are set */
    size_t idx;     /* its own, below TARGETS_MAX */
    char name[128];
    struct row row; /* a copy, which in a namespace is called by its whole name */
};

static const char namespace_word[] = "namespace.";

/* namespace.NAME.KEY; the namespace comes to be when it is first named. */
static bool
find_in_namespace(struct conf *c, const char *dotted, const char *where, struct target *t,
    struct conf_error *err)
{
    struct conf_namespaces *all = c->namespaces;
    const char *name_at = dotted + strlen(namespace_word), *dot = strchr(name_at, '.');
    struct view name = view_of(name_at, dot != NULL ? (size_t)(dot - name_at) : strlen(name_at));
    const struct row *r = dot != NULL ? namespace_row_find(dot + 1) : NULL;
    if (!namespace_name_is_right(name))
        return conf_fail(err,
            "%s (%s) names no namespace: write small letters and digits, a letter first, at most %d",
            quote(dotted).s, where, CONF_NAMESPACE_NAME - 1);
    if (r == NULL)
        return fail_namespace_key(err, dotted, dot != NULL ? dot + 1 : "", where);
    struct conf_namespace *ns = namespace_find(all, name);
    if (ns == NULL) {
        if (all->n > CONF_NAMESPACES_MAX)
            return conf_fail(err, "%s (%s) is in one namespace too many: there may be %d",
                quote(dotted).s, where, CONF_NAMESPACES_MAX);
        ns = &all->v[all->n++];
        namespace_init(ns, name);
    }
    *t = (struct target){.at = namespace_field(ns, r), .place = &ns->places[r - namespace_rows],
        .idx = ARRAY_LEN(rows) + (size_t)(ns - all->v - 1) * CONF_NS_ROWS +
            (size_t)(r - namespace_rows), .row = *r};
    (void)snprintf(t->name, sizeof t->name, "%s", dotted);
    t->row.name = t->name;
    return true;
}

static bool
find_target(struct conf *c, const char *dotted, const char *where, struct target *t,
    struct conf_error *err)
{
    if (strncmp(dotted, namespace_word, strlen(namespace_word)) == 0)
        return find_in_namespace(c, dotted, where, t, err);
    const struct row *r = row_find(dotted);
    if (r == NULL)
        return fail_unknown(err, dotted, where);
    *t = (struct target){.at = field(c, r), .place = &c->places[r - rows],
        .idx = (size_t)(r - rows), .row = *r};
    return true;
}

static bool
set_target(const struct target *t, const char *value, bool add, const char *where,
    struct conf_error *err)
{
    if (!set_value(t->at, &t->row, value, add, where, err))
        return false;
    free(*t->place);
    *t->place = xstrdup(where);
    return true;
}

bool
conf_set(struct conf *c, const char *dotted, const char *value, const char *where,
    struct conf_error *err)
{
    struct target t;
    return find_target(c, dotted, where, &t, err) && set_target(&t, value, false, where, err);
}

void
conf_defaults(struct conf *c)
{
    struct conf_error err;
    memset(c, 0, sizeof *c);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (!set_value(field(c, &rows[i]), &rows[i], rows[i].dflt, false, "its default", &err))
            die("%s", err.text); /* a wrong row of config.def */
    c->places = xcalloc(ARRAY_LEN(rows), sizeof c->places[0]);
    c->namespaces = namespaces_new();
}

void
conf_free(struct conf *c)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (rows[i].type == T_LIST)
            list_free(field(c, &rows[i]));
        else if (rows[i].type == T_STR)
            free((char *)(uintptr_t) * (const char **)field(c, &rows[i]));
        if (c->places != NULL)
            free(c->places[i]);
    }
    free(c->places);
    namespaces_free(c->namespaces);
    memset(c, 0, sizeof *c);
}

const char *
conf_place(const struct conf *c, const char *dotted)
{
    const struct row *r = row_find(dotted);
    if (r == NULL || c->places == NULL || c->places[r - rows] == NULL)
        return "its default";
    return c->places[r - rows];
}

/* ---- the file ---- */

static int on_pair(void *arg, const char *section, const char *name, const char *value);

/* A file on its way through inih, which pulls lines from it. */
struct reading {
    struct conf *c;
    struct conf_errors *all;
    const char *path;
    struct view rest;
    unsigned line;
    char section[SECTION_MAX_BYTES + 1]; /* that the line is in */
    unsigned set_at[TARGETS_MAX]; /* line on which each was set; 0: not yet */
};

/* What a person wrote in a line: without white space around it, comments, a byte-order mark. */
static struct view
content_of(struct view line, bool is_first)
{
    if (is_first && view_starts(line, VIEW("\xEF\xBB\xBF")))
        line = view_from(line, 3);
    while (line.n > 0 && isspace(line.p[0]))
        line = view_from(line, 1);
    for (size_t i = 0; i < line.n; i++)
        if ((line.p[i] == '#' || line.p[i] == ';') && (i == 0 || isspace(line.p[i - 1])))
            line.n = i;
    while (line.n > 0 && isspace(line.p[line.n - 1]))
        line.n--;
    return line;
}

/* inih tells only the first line that it can't take apart, so such lines are found here. */
static bool
is_readable(struct reading *rd, struct view line)
{
    if (line.n > LINE_MAX_BYTES)
        return is_well(rd->all, conf_fail(next_error(rd->all),
            "%s:%u is longer than %d bytes: split a list over several lines, each with its key",
            rd->path, rd->line, LINE_MAX_BYTES));
    bool is_section = line.n > 0 && line.p[0] == '[';
    if (line.n == 0 || (is_section ? memchr(line.p, ']', line.n) != NULL
                                   : memchr(line.p, '=', line.n) != NULL || memchr(line.p, ':', line.n) != NULL))
        return true;
    return is_well(rd->all, conf_fail(next_error(rd->all),
        "%s:%u is neither [section] nor key = value: correct it, or begin it with #", rd->path, rd->line));
}

/* Bytes of v in front of the first of these. */
static size_t
until_one_of(struct view v, const char *ends)
{
    size_t n = 0;
    while (n < v.n && strchr(ends, v.p[n]) == NULL)
        n++;
    return n;
}

/* A pair that is longer than the lines of inih, which are of 200 bytes. */
static void
take_long_line(struct reading *rd, struct view line)
{
    char name[128], value[LINE_MAX_BYTES + 1];
    size_t n = until_one_of(line, "=:");
    struct view left = content_of(view_head(line, n), false), right = content_of(view_from(line, n + 1), false);
    (void)snprintf(name, sizeof name, "%.*s", (int)left.n, left.p);
    (void)snprintf(value, sizeof value, "%.*s", (int)right.n, right.p);
    (void)on_pair(rd, rd->section, name, value);
}

/* One line as inih wants it: white space in front removed (to inih an indented line continues the
 * line above), comments emptied, so that their length is of no concern; and so is what can't be read. */
static char *
next_line(char *out, int out_n, void *arg)
{
    struct reading *rd = arg;
    if (rd->rest.n == 0)
        return NULL;
    const uint8_t *nl = memchr(rd->rest.p, '\n', rd->rest.n);
    struct view line = view_head(rd->rest, nl != NULL ? (size_t)(nl - rd->rest.p) : rd->rest.n);
    rd->rest = view_from(rd->rest, line.n + 1);
    rd->line++;
    line = content_of(line, rd->line == 1);
    if (!is_readable(rd, line))
        line.n = 0;
    else if (line.n > 0 && line.p[0] == '[')
        (void)snprintf(rd->section, sizeof rd->section, "%.*s", (int)until_one_of(line, "]") - 1, line.p + 1);
    if (line.n + 3 > (size_t)out_n) {
        take_long_line(rd, line);
        line.n = 0;
    }
    memcpy(out, line.p, line.n);
    out[line.n] = '\n';
    out[line.n + 1] = '\0';
    return out;
}

/* inih found a pair. Returns 1, which is "go on" for inih: mistakes are kept in rd->all. */
static int
on_pair(void *arg, const char *section, const char *name, const char *value)
{
    struct reading *rd = arg;
    struct conf_error *err = next_error(rd->all);
    char dotted[128], where[300];
    struct target t;
    (void)snprintf(dotted, sizeof dotted, "%s%s%s", section, *section ? "." : "", name);
    if (strncmp(dotted, "namespace ", strlen(namespace_word)) == 0)
        dotted[strlen(namespace_word) - 1] = '.'; /* [namespace chat] is namespace.chat */
    (void)snprintf(where, sizeof where, "%.280s:%u", rd->path, rd->line);
    if (!find_target(rd->c, dotted, where, &t, err)) {
        (void)is_well(rd->all, false);
        return 1;
    }
    unsigned before = rd->set_at[t.idx];
    bool ok;
    if (before != 0 && t.row.type != T_LIST)
        ok = conf_fail(err, "%s (%s) was already set on line %u: remove one of them", dotted, where, before);
    else
        ok = set_target(&t, value != NULL ? value : "", before != 0, where, err);
    rd->set_at[t.idx] = rd->line;
    (void)is_well(rd->all, ok);
    return 1;
}

static bool
load_text(struct conf *c, struct view text, const char *path, struct conf_errors *all)
{
    struct reading rd = {.c = c, .all = all, .path = path, .rest = text};
    unsigned before = all->n;
    if (text.n > 0 && memchr(text.p, '\0', text.n) != NULL)
        return is_well(all, conf_fail(next_error(all), "%s holds zero bytes: it is not a settings file", path));
    int line = ini_parse_stream(next_line, &rd, on_pair, &rd);
    if (line < 0)
        return is_well(all, conf_fail(next_error(all), "%s could not be read: memory is out", path));
    if (line > 0 && all->n == before)
        return is_well(all, conf_fail(next_error(all), "%s:%d cannot be understood: write key = value", path, line));
    return all->n == before;
}

/* The whole file in memory; NULL and an error when it can't be had. */
static uint8_t *
read_file(const char *path, size_t *n, struct conf_error *err)
{
    int fd = file_open(path);
    if (fd < 0) {
        (void)conf_fail(err, "the settings file %s cannot be opened: %s", path, strerror(errno));
        return NULL;
    }
    uint8_t *p = xmalloc(FILE_MAX_BYTES + 1);
    ssize_t got = 0;
    *n = 0;
    while (*n <= FILE_MAX_BYTES && (got = read(fd, p + *n, FILE_MAX_BYTES + 1 - *n)) > 0)
        *n += (size_t)got;
    if (got < 0)
        (void)conf_fail(err, "the settings file %s cannot be read: %s", path, strerror(errno));
    else if (*n > FILE_MAX_BYTES)
        (void)conf_fail(err, "the settings file %s is larger than %u bytes: is it the right file?",
            path, FILE_MAX_BYTES);
    (void)close(fd);
    if (got >= 0 && *n <= FILE_MAX_BYTES)
        return p;
    free(p);
    return NULL;
}

bool
conf_load_file(struct conf *c, const char *path, struct conf_errors *all)
{
    size_t n;
    uint8_t *p = read_file(path, &n, next_error(all));
    if (!is_well(all, p != NULL))
        return false;
    bool ok = load_text(c, view_of(p, n), path, all);
    free(p);
    return ok;
}

/* ---- the environment ---- */

static bool
env_is_ours(const char *name, size_t n)
{
    static const char *const known[] = {"CONFIG", "READY_FD", "PARENT_FD", "FILES_FD"};
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (n == strlen(known[i]) && memcmp(name, known[i], n) == 0)
            return true;
    return strncmp(name, "LISTEN_", 7) == 0 || strncmp(name, "TEST_", 5) == 0;
}

/* WORKER_COUNT is worker_count. */
static bool
env_names(const char *name, size_t n, const struct row *r)
{
    if (strlen(r->variable) != n)
        return false;
    for (size_t i = 0; i < n; i++)
        if (name[i] != toupper((unsigned char)r->variable[i]))
            return false;
    return true;
}

static bool
fail_env(struct conf_error *err, const char *name, size_t n)
{
    char dotted[64];
    size_t len = MIN(n, sizeof dotted - 1);
    for (size_t i = 0; i < len; i++)
        dotted[i] = (char)tolower((unsigned char)name[i]);
    dotted[len] = '\0';
    char *underscore = strchr(dotted, '_');
    if (underscore != NULL)
        *underscore = '.';
    const struct row *r = nearest(dotted);
    struct log_quoted q = log_quote(view_of(name, n));
    if (r == NULL)
        return conf_fail(err,
            "the variable RINGCAST_%.*s names no setting: unset it, or see ringcast --help",
            (int)strlen(q.s) - 2, q.s + 1);
    char like[64] = "";
    for (size_t i = 0; i + 1 < sizeof like && r->variable[i] != '\0'; i++)
        like[i] = (char)toupper((unsigned char)r->variable[i]);
    return conf_fail(err, "the variable RINGCAST_%.*s names no setting: did you mean RINGCAST_%s?",
        (int)strlen(q.s) - 2, q.s + 1, like);
}

/* NAMESPACE_CHAT_SLOW_KEEP is namespace.chat.slow_keep: names have no underscore. */
static void
namespace_dotted(const char *name, size_t n, char *out, size_t out_n)
{
    unsigned dots = 0;
    size_t len = MIN(n, out_n - 1);
    for (size_t i = 0; i < len; i++) {
        bool dot = name[i] == '_' && dots < 2;
        out[i] = dot ? '.' : (char)tolower((unsigned char)name[i]);
        dots += dot;
    }
    out[len] = '\0';
}

static bool
load_variable(struct conf *c, const char *name, const char *value, struct conf_error *err)
{
    size_t n = (size_t)(value - name) - 1;
    char where[128], dotted[128];
    if (env_is_ours(name, n))
        return true;
    (void)snprintf(where, sizeof where, "RINGCAST_%.*s", (int)n, name);
    if (strncmp(name, "NAMESPACE_", 10) == 0) {
        namespace_dotted(name, n, dotted, sizeof dotted);
        return conf_set(c, dotted, value, where, err);
    }
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (env_names(name, n, &rows[i]))
            return conf_set(c, rows[i].name, value, where, err);
    return fail_env(err, name, n);
}

bool
conf_load_env(struct conf *c, char **environ_, struct conf_errors *all)
{
    unsigned before = all->n;
    for (char **e = environ_; e != NULL && *e != NULL; e++) {
        const char *value = strchr(*e, '=');
        if (value == NULL || strncmp(*e, "RINGCAST_", 9) != 0)
            continue;
        (void)is_well(all, load_variable(c, *e + 9, value + 1, next_error(all)));
    }
    return all->n == before;
}

/* ---- rules between settings ---- */

static bool
check_pow2(const struct conf *c, const char *dotted, uint64_t v, struct conf_error *err)
{
    const struct row *r = row_find(dotted);
    if (is_pow2(v))
        return true;
    char now[32], below[32], above[32];
    value_text(r, v, now, sizeof now);
    value_text(r, pow2_ceil(v) / 2, below, sizeof below);
    value_text(r, pow2_ceil(v), above, sizeof above);
    return conf_fail(err, "%s is %s (%s), which is not a power of two: write %s or %s", dotted, now,
        conf_place(c, dotted), below, above);
}

/* Whether this machine has the CPU: by what the system counts, or by what this process may use (where
 * /sys is hidden the count is that of the latter, whatever their numbers). */
static bool
cpu_exists(uint64_t cpu, long count)
{
    cpu_set_t set;
    if (count > 0 && cpu < (uint64_t)count)
        return true;
    return cpu <= CPU_MAX && sched_getaffinity(0, sizeof set, &set) == 0 && CPU_ISSET((unsigned)cpu, &set);
}

static bool
check_cpus(
    const struct conf *c, const char *dotted, const struct conf_list *l, struct conf_error *err)
{
    long count = MIN(sysconf(_SC_NPROCESSORS_CONF), CPU_MAX + 1L);
    for (uint32_t i = 0; i < l->n; i++) {
        const char *p = l->v[i];
        uint64_t cpu;
        bool is_number = take_digits(&p, &cpu) && *p == '\0';
        if (!is_number || !cpu_exists(cpu, count))
            return conf_fail(err,
                "%s has the entry %s (%s)%s: write CPU numbers from 0 to %ld, with commas between",
                dotted, quote(l->v[i]).s, conf_place(c, dotted),
                is_number ? ", a CPU that this machine does not have" : "", MAX(count, 1L) - 1);
    }
    return true;
}

/* Whom to believe about addresses, and which field of theirs. */
static bool
check_proxies(const struct conf *c, struct conf_error *err)
{
    struct addr_nets nets = {0};
    for (uint32_t i = 0; i < c->http_trusted_proxies.n; i++)
        if (!addr_nets_add(&nets, view_str(c->http_trusted_proxies.v[i])))
            return conf_fail(err,
                "http.trusted_proxies has the entry %s (%s): write addresses or networks such as 10.0.0.0/8 or "
                "fd00::/8 (no bits behind the prefix), or unix",
                quote(c->http_trusted_proxies.v[i]).s, conf_place(c, "http.trusted_proxies"));
    if (strcmp(c->http_client_field, "x-forwarded-for") != 0 && strcmp(c->http_client_field, "forwarded") != 0 &&
        strcmp(c->http_client_field, "none") != 0)
        return conf_fail(err, "http.client_field is %s (%s): write x-forwarded-for, forwarded or none",
            quote(c->http_client_field).s, conf_place(c, "http.client_field"));
    return true;
}

/* Whether a browser would write it so: scheme://host or scheme://host:port, in lower case, nothing behind it, and
 * no port that the scheme has anyway (RFC 6454 section 6.2). Another spelling would match nobody. */
static bool
origin_is_right(struct view v)
{
    size_t at = 0, port = 0;
    while (at < v.n && v.p[at] >= 'a' && v.p[at] <= 'z')
        at++;
    struct view scheme = view_head(v, at), host = view_from(v, at);
    if (scheme.n == 0 || host.n < 4 || memcmp(host.p, "://", 3) != 0)
        return false;
    host = view_from(host, 3);
    for (size_t i = 0; i < host.n; i++) {
        uint8_t ch = host.p[i];
        if (ch <= 0x20 || ch >= 0x7f || (ch >= 'A' && ch <= 'Z') || strchr("/?#@*,", ch) != NULL)
            return false;
        if (ch == ']')
            port = 0; /* colons before it belong to an IPv6 address */
        else if (ch == ':')
            port = i + 1;
    }
    struct view digits = port > 0 ? view_from(host, port) : VIEW_NONE;
    bool default_port = (view_eq(scheme, VIEW("https")) && view_eq(digits, VIEW("443"))) ||
        (view_eq(scheme, VIEW("http")) && view_eq(digits, VIEW("80")));
    return port != 1 && !(port > 0 && digits.n == 0) && !default_port;
}

static bool
check_origins(const struct conf *c, struct conf_error *err)
{
    for (uint32_t i = 0; i < c->http_origins.n; i++) {
        const char *v = c->http_origins.v[i];
        if (strcmp(v, "*") != 0 && strcmp(v, "null") != 0 && !origin_is_right(view_str(v)))
            return conf_fail(err,
                "http.origins has the entry %s (%s), which no browser sends: write https://example.com or "
                "http://localhost:3000, in lower case, without a path and without the port that the scheme has anyway",
                quote(v).s, conf_place(c, "http.origins"));
    }
    return true;
}

static bool
check_listeners(const struct conf *c, struct conf_error *err)
{
    const struct conf_list *l = &c->worker_listen;
    for (uint32_t i = 0; i < l->n; i++) {
        struct conf_listen a;
        struct conf_error why;
        if (!conf_parse_listen(l->v[i], &a, &why))
            return conf_fail(
                err, "worker.listen (%s): %.800s", conf_place(c, "worker.listen"), why.text);
        if (a.proxy && c->http_trusted_proxies.n == 0)
            return conf_fail(err,
                "worker.listen (%s) has %s, and http.trusted_proxies is empty, so nobody could connect: name "
                "the balancers there", conf_place(c, "worker.listen"), quote(l->v[i]).s);
        bool free_port = !a.is_unix && strcmp(a.port, "0") == 0;
        for (uint32_t k = 0; k < i && !free_port; k++)
            if (strcmp(l->v[i], l->v[k]) == 0)
                return conf_fail(err, "worker.listen has %s twice (%s): remove one of them",
                    quote(l->v[i]).s, conf_place(c, "worker.listen"));
    }
    return true;
}

static bool
check_path(const struct conf *c, const char *dotted, const char *path, struct conf_error *err)
{
    bool ok = *path == '\0' || *path == '/';
    for (const char *p = path; *p != '\0'; p++)
        ok = ok && *p > 0x20 && *p < 0x7f && *p != '?' && *p != '#';
    return ok ||
           conf_fail(err, "%s is %s (%s): write a path that begins with / and has no space, ? or #",
               dotted, quote(path).s, conf_place(c, dotted));
}

/* Length without the slash at the end, which stands for the same path. */
static size_t
path_len(const char *path)
{
    size_t n = strlen(path);
    return n > 1 && path[n - 1] == '/' ? n - 1 : n;
}

static bool
check_paths(const struct conf *c, struct conf_error *err)
{
    size_t n = path_len(c->sc_path);
    if (!check_path(c, "sc.path", c->sc_path, err) ||
        !check_path(c, "echo.path", c->echo_path, err))
        return false;
    if (n > 0 && n == path_len(c->echo_path) && memcmp(c->sc_path, c->echo_path, n) == 0)
        return conf_fail(err,
            "echo.path (%s) and sc.path (%s) are the same: give one of them another path",
            conf_place(c, "echo.path"), conf_place(c, "sc.path"));
    if (c->http_playground && (strcmp(c->sc_path, "/") == 0 || strcmp(c->echo_path, "/") == 0))
        return conf_fail(err,
            "http.playground (%s) needs the path /, which sc.path or echo.path has: turn it off, "
            "or give them another path",
            conf_place(c, "http.playground"));
    return true;
}

static bool
check_namespaces(struct conf *c, struct conf_error *err)
{
    struct conf_namespaces *all = c->namespaces;
    for (uint32_t i = 1; i < all->n; i++) {
        struct conf_namespace *ns = &all->v[i];
        if (ns->places[CONF_NS_prefix] == NULL)
            return conf_fail(err,
                "namespace.%s has no prefix: write prefix = what the names of its channels begin "
                "with, or prefix = with nothing behind it for all channels",
                ns->name);
        for (uint32_t k = 1; k < i; k++)
            if (strcmp(ns->prefix, all->v[k].prefix) == 0)
                return conf_fail(err,
                    "namespace.%s.prefix (%s) and namespace.%s.prefix (%s) are the same: give one "
                    "of them another prefix",
                    ns->name, ns->places[CONF_NS_prefix], all->v[k].name,
                    all->v[k].places[CONF_NS_prefix]);
        ns->slow_after = MIN(ns->slow_after, c->out_queue_bytes);
    }
    return true;
}

/* Smallest memory limit of the control groups the process is in; UINT64_MAX if there is none. */
static uint64_t
cgroup_memory(void)
{
    char line[512], path[640];
    uint64_t least = UINT64_MAX;
    FILE *f = fopen("/proc/self/cgroup", "re");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (strncmp(line, "0::", 3) != 0)
            continue;
        /* a limit may stand anywhere on the way up to the root */
        for (char *slash; (slash = strrchr(line + 3, '/')) != NULL; *slash = '\0') {
            (void)snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.max", line + 3);
            FILE *m = fopen(path, "re");
            uint64_t v;
            if (m != NULL && fscanf(m, "%" SCNu64, &v) == 1)
                least = MIN(least, v);
            if (m != NULL)
                (void)fclose(m);
        }
    }
    if (f != NULL)
        (void)fclose(f);
    return least;
}

static uint64_t
memory_limit(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    uint64_t machine = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 1ull << 30;
    return MIN(machine, cgroup_memory());
}

static uint64_t
usable_cpus(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 1;
    return (uint64_t)MAX(1, CPU_COUNT(&set));
}

/* The automatic directory: /run/ringcast for root, else the user's. */
static bool
fill_run_dir(struct conf *c, struct conf_error *err)
{
    char dir[512];
    const char *xdg = getenv("XDG_RUNTIME_DIR");
    if (geteuid() == 0)
        (void)snprintf(dir, sizeof dir, "/run/ringcast");
    else if (xdg != NULL && xdg[0] == '/')
        (void)snprintf(dir, sizeof dir, "%s/ringcast", xdg);
    else
        (void)snprintf(dir, sizeof dir, "/tmp/ringcast-%u", (unsigned)geteuid());
    const struct row *r = row_find("run.dir");
    return set_str(&c->run_dir, r, dir, "chosen by itself", err);
}

static bool
fill_automatic(struct conf *c, struct conf_error *err)
{
    struct rlimit files = {1024, 1024};
    if (c->run_dir[0] == '\0' && !fill_run_dir(c, err))
        return false;
    if (c->worker_rings == 0)
        c->worker_rings = MIN(usable_cpus(), row_find("worker.rings")->max);
    (void)getrlimit(RLIMIT_NOFILE, &files);
    if (c->conn_max == 0)
        c->conn_max = files.rlim_cur > 512 ? MIN(files.rlim_cur - 256, CONN_MAX) : 256;
    if (c->conn_max_unshaken == 0)
        c->conn_max_unshaken = MAX(1, MIN(10000, c->conn_max / 5));
    if (c->mem_limit == 0)
        c->mem_limit = memory_limit() / 4 * 3 / MAX(c->worker_count, (uint64_t)1);
    if (c->mem_buffers == 0)
        c->mem_buffers = memory_limit() / 4;
    /* a lower outer limit lowers those within it, so that one setting is enough */
    c->ws_max_message_unshaken = MIN(c->ws_max_message_unshaken, c->ws_max_message);
    c->http_request_line = MIN(c->http_request_line, c->http_header_bytes);
    c->out_queue_low = MIN(c->out_queue_low, c->out_queue_bytes);
    return true;
}

static bool
check_word(const struct conf *c, const char *dotted, const char *value, const char *const *words,
    struct conf_error *err)
{
    char list[128] = "";
    for (unsigned i = 0; words[i] != NULL; i++) {
        if (strcmp(words[i], value) == 0)
            return true;
        (void)snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s",
            i == 0 ? "" : words[i + 1] == NULL ? " or " : ", ", words[i]);
    }
    return conf_fail(err, "%s is %s (%s): write %s", dotted, quote(value).s, conf_place(c, dotted), list);
}

static bool
check_tls(const struct conf *c, struct conf_error *err)
{
    static const char *const versions[] = {"1.2", "1.3", NULL};
    static const char *const verify[] = {"off", "optional", "required", NULL};
    bool wanted = false;
    for (uint32_t i = 0; i < c->worker_listen.n; i++)
        wanted |= strncmp(c->worker_listen.v[i], "tls://", 6) == 0;
    if (!check_word(c, "tls.min_version", c->tls_min_version, versions, err) ||
        !check_word(c, "tls.client_verify", c->tls_client_verify, verify, err))
        return false;
    if (wanted && c->tls_certificate.n == 0)
        return conf_fail(err, "worker.listen (%s) has a tls:// address, and tls.certificate is empty: name a certificate "
                              "file, and its key in tls.key", conf_place(c, "worker.listen"));
    if (c->tls_key.n > 0 && c->tls_key.n != c->tls_certificate.n)
        return conf_fail(err, "tls.key (%s) names %u files for %u of tls.certificate (%s): one key for each certificate, in "
                              "the same order", conf_place(c, "tls.key"), c->tls_key.n, c->tls_certificate.n,
            conf_place(c, "tls.certificate"));
    if (strcmp(c->tls_client_verify, "off") != 0 && c->tls_client_ca[0] == '\0')
        return conf_fail(err, "tls.client_verify is %s (%s) and tls.client_ca is empty: name the file of the authorities",
            c->tls_client_verify, conf_place(c, "tls.client_verify"));
    return true;
}

static bool
check_ping(const struct conf *c, struct conf_error *err)
{
    return c->sc_ping_interval < c->sc_ping_timeout ||
        conf_fail(err,
            "sc.ping_interval is %" PRIu64 "ms (%s), which is not below sc.ping_timeout (%" PRIu64
            "ms, %s): lower it",
            c->sc_ping_interval, conf_place(c, "sc.ping_interval"), c->sc_ping_timeout,
            conf_place(c, "sc.ping_timeout"));
}

static bool
check_words(const struct conf *c, struct conf_error *err)
{
    static const char *const unserved[] = {"silent", "error", NULL}, *const connects[] = {"429", "close", NULL},
        *const answers[] = {"delay", "error", "close", NULL}, *const local_bus[] = {"local", "bus", NULL},
        *const unconfirmed[] = {"ack", "error", NULL}, *const modes[] = {"standalone", "sentinel", "cluster", NULL};
    return check_word(c, "bus.order", c->bus_order, local_bus, err) &&
        check_word(c, "bus.ack", c->bus_ack, local_bus, err) &&
        check_word(c, "bus.unconfirmed", c->bus_unconfirmed, unconfirmed, err) &&
        check_word(c, "sc.unserved", c->sc_unserved, unserved, err) &&
        check_word(c, "redis.mode", c->redis_mode, modes, err) &&
        check_word(c, "rate.packet_answer", c->rate_packet_answer, answers, err) &&
        check_word(c, "rate.byte_answer", c->rate_byte_answer, answers, err) &&
        check_word(c, "rate.subscribe_answer", c->rate_subscribe_answer, answers, err) &&
        check_word(c, "rate.connect_answer", c->rate_connect_answer, connects, err);
}

static bool
check_run_dir(const struct conf *c, struct conf_error *err)
{
    return c->run_dir[0] == '\0' || c->run_dir[0] == '/' ||
        conf_fail(err, "run.dir is %s (%s): write a path that begins with /", quote(c->run_dir).s,
            conf_place(c, "run.dir"));
}

bool
conf_check(struct conf *c, struct conf_errors *all)
{
    unsigned before = all->n;
    (void)is_well(all, check_run_dir(c, next_error(all)));
    (void)is_well(all, check_ping(c, next_error(all)));
    (void)is_well(all, check_words(c, next_error(all)));
    (void)is_well(all, check_pow2(c, "worker.recv_buffers", c->worker_recv_buffers, next_error(all)));
    (void)is_well(all, check_pow2(c, "lane.bytes", c->lane_bytes, next_error(all)));
    (void)is_well(all, check_cpus(c, "worker.cpus", &c->worker_cpus, next_error(all)));
    (void)is_well(all, check_cpus(c, "broker.cpus", &c->broker_cpus, next_error(all)));
    (void)is_well(all, check_proxies(c, next_error(all)));
    (void)is_well(all, check_origins(c, next_error(all)));
    (void)is_well(all, check_listeners(c, next_error(all)));
    (void)is_well(all, check_tls(c, next_error(all)));
    (void)is_well(all, check_paths(c, next_error(all)));
    (void)is_well(all, check_namespaces(c, next_error(all)));
    return all->n == before && is_well(all, fill_automatic(c, next_error(all)));
}

/* ---- listen addresses ---- */

static bool
parse_unix(const char *text, struct conf_listen *out, struct conf_error *err)
{
    const char *path = text + strlen("unix:");
    if (strncmp(path, "//", 2) == 0) /* unix:///path is meant as unix:/path */
        path += 2;
    if (path[0] != '/')
        return conf_fail(err,
            "%s %s: write unix:/path, as in unix:/run/ringcast/clients.sock", quote(text).s,
            path[0] == '\0' ? "names no path" : "has a path that does not begin with /");
    if (strlen(path) >= sizeof out->path)
        return conf_fail(err, "%s has a path of %zu bytes: write unix:/path with at most %zu", quote(text).s,
            strlen(path), sizeof out->path - 1);
    out->is_unix = true;
    memcpy(out->path, path, strlen(path) + 1);
    return true;
}

static bool
parse_tcp(const char *text, struct conf_listen *out, struct conf_error *err)
{
    const char *host = text + strlen("tcp://"); /* "tls://" is as long */
    const char *colon = strrchr(host, ':'), *end = colon;
    if (host[0] == '[') { /* IPv6 stands in brackets, since it has colons of its own */
        host++;
        end = strchr(host, ']');
        colon = end != NULL && end[1] == ':' ? end + 1 : NULL;
    }
    uint64_t port;
    const char *p = colon != NULL ? colon + 1 : "";
    size_t n = colon != NULL ? (size_t)(end - host) : 0;
    if (colon == NULL || !take_digits(&p, &port) || *p != '\0' || port > 65535 ||
        n >= sizeof out->host || (host[-1] != '[' && memchr(host, ':', n) != NULL))
        return conf_fail(err,
            "%s is no listen address: write tcp://host:port, with IPv6 as tcp://[::1]:8000",
            quote(text).s);
    if (n == 1 && host[0] == '*')
        n = 0;
    memcpy(out->host, host, n);
    out->host[n] = '\0';
    (void)snprintf(out->port, sizeof out->port, "%u", (unsigned)port);
    return true;
}

/* "proxy=on", of n bytes. False when it is none. */
static bool
take_option(const char *p, size_t n, struct conf_listen *out)
{
    static const struct {
        const char *text;
        bool proxy, on;
    } options[] = {{"proxy=on", true, true}, {"proxy=off", true, false}, {"gaps=off", false, true}, {"gaps=on", false, false}};
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        if (strlen(options[i].text) != n || memcmp(p, options[i].text, n) != 0)
            continue;
        *(options[i].proxy ? &out->proxy : &out->no_gaps) = options[i].on;
        return true;
    }
    return false;
}

/* Takes the options off the end of an address: "?one&other". */
static bool
parse_options(char *text, struct conf_listen *out, struct conf_error *err)
{
    char *mark = strchr(text, '?');
    for (const char *p = mark; p != NULL && (*p == '?' || *p == '&');) {
        size_t n = strcspn(++p, "&");
        if (!take_option(p, n, out))
            return conf_fail(err, "%s has the option %s: write ?proxy=on, ?gaps=off, ?proxy=on&gaps=off or nothing",
                quote(text).s, quote(mark).s);
        p += n;
    }
    if (mark != NULL)
        *mark = '\0';
    return true;
}

bool
conf_parse_listen(const char *whole, struct conf_listen *out, struct conf_error *err)
{
    char text[VALUE_MAX_BYTES + 1];
    memset(out, 0, sizeof *out);
    (void)snprintf(text, sizeof text, "%s", whole);
    if (!parse_options(text, out, err))
        return false;
    if (strncmp(text, "tcp://", 6) == 0)
        return parse_tcp(text, out, err);
    if (strncmp(text, "unix:", 5) == 0)
        return parse_unix(text, out, err);
    out->tls = strncmp(text, "tls://", 6) == 0;
    if (out->tls)
        return parse_tcp(text, out, err);
    return conf_fail(err,
        "%s is no listen address: write tcp://host:port, tls://host:port or unix:/path",
        quote(text).s);
}

/* ---- rows for others ---- */

const char *
conf_row_name(unsigned i)
{
    return i < ARRAY_LEN(rows) ? rows[i].name : NULL;
}

const char *
conf_row_sentence(unsigned i)
{
    return i < ARRAY_LEN(rows) ? rows[i].sentence : NULL;
}

bool
conf_row_number(const struct conf *c, unsigned i, uint64_t *v)
{
    if (rows[i].type != T_INT && rows[i].type != T_SIZE && rows[i].type != T_DURATION)
        return false;
    memcpy(v, field(c, &rows[i]), sizeof *v);
    return true;
}

static void
list_text(const struct conf_list *l, char *out, size_t out_n)
{
    size_t at = 0;
    out[0] = '\0';
    for (uint32_t i = 0; i < l->n && at < out_n; i++) {
        int n = snprintf(out + at, out_n - at, "%s%s", i ? "," : "", l->v[i]);
        at += n > 0 ? (size_t)n : 0;
    }
}

static void
put_value(const void *at, const struct row *r, char *out, size_t out_n)
{
    uint64_t v;
    unsigned word;
    switch (r->type) {
    case T_STR: (void)snprintf(out, out_n, "%s", *(const char *const *)at); break;
    case T_LIST: list_text(at, out, out_n); break;
    case T_BOOL: (void)snprintf(out, out_n, "%s", *(const bool *)at ? "on" : "off"); break;
    case T_LEVEL:
    case T_SLOW:
    case T_PACK:
        memcpy(&word, at, sizeof word);
        (void)snprintf(out, out_n, "%s",
            (r->type == T_LEVEL ? level_words : r->type == T_SLOW ? slow_words : pack_words)[word]);
        break;
    case T_INT:
    case T_SIZE:
    case T_DURATION:
        memcpy(&v, at, sizeof v);
        value_text(r, v, out, out_n);
        break;
    }
}

/* Passwords of redis.url (user:password@, ?password=) are nobody's business who looks at settings. Several URLs are
 * parted by commas, which a password may have, too: all from the first login's colon to the last @ is hidden then. */
static void
hide_passwords(char *text)
{
    for (char *at = strstr(text, "://"); at != NULL; at = strstr(at + 1, "://")) {
        char *next = strstr(at + 1, "://"), *end = NULL, *colon = strchr(at + 3, ':');
        for (char *p = at; *p != '\0' && p != next; p++)
            end = *p == '@' ? p : end;
        if (end == NULL || colon == NULL || colon > end)
            continue;
        memmove(colon + 1, end, strlen(end) + 1);
    }
    for (char *at = strstr(text, "password="); at != NULL; at = strstr(at + 9, "password="))
        memmove(at + 9, at + 9 + strcspn(at + 9, "&,"), strlen(at + 9 + strcspn(at + 9, "&,")) + 1);
}

void
conf_row_value(const struct conf *c, unsigned i, char *out, size_t out_n)
{
    put_value(field(c, &rows[i]), &rows[i], out, out_n);
    if (strcmp(rows[i].name, "redis.url") == 0)
        hide_passwords(out);
}

const char *
conf_namespace_key(enum conf_namespace_row row)
{
    return namespace_rows[row].name;
}

void
conf_namespace_value(
    const struct conf_namespace *ns, enum conf_namespace_row row, char *out, size_t out_n)
{
    put_value(namespace_field(ns, &namespace_rows[row]), &namespace_rows[row], out, out_n);
}

const struct conf_namespace *
conf_namespace_of(const struct conf_namespaces *all, struct view channel)
{
    const struct conf_namespace *best = &all->v[0];
    for (uint32_t i = 1; i < all->n; i++) {
        const struct conf_namespace *ns = &all->v[i];
        struct view prefix = view_str(ns->prefix);
        if (view_starts(channel, prefix) && (best == all->v || prefix.n > strlen(best->prefix)))
            best = ns;
    }
    return best;
}

/* ---- the command line ---- */

/* Prints text at an indent of 6, broken at 96 columns. */
static void
print_wrapped(const char *text)
{
    size_t column = 0;
    for (const char *p = text; *p != '\0';) {
        size_t n = strcspn(p, " ");
        if (column == 0 || column + 1 + n > 96) {
            (void)fputs(column ? "\n      " : "      ", stdout);
            column = 6;
        } else {
            (void)putchar(' ');
            column++;
        }
        (void)fwrite(p, 1, n, stdout);
        column += n;
        p += n;
        p += strspn(p, " ");
    }
    (void)putchar('\n');
}

void
conf_print_settings(void)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct row *r = &rows[i];
        printf("  --%s=%s  (%s%s)\n", r->name, type_words[r->type], r->dflt[0] ? r->dflt : "empty",
            r->reload == RELOAD ? "; SIGHUP reloads" : "");
        print_wrapped(r->sentence);
    }
    printf("\nSettings of a namespace, a class of channels. NAME is small letters and digits; in the "
           "file\n[namespace NAME], then key = value; as a variable RINGCAST_NAMESPACE_NAME_KEY.\n\n");
    for (size_t i = 0; i < ARRAY_LEN(namespace_rows); i++) {
        const struct row *r = &namespace_rows[i];
        printf("  --namespace.NAME.%s=%s  (%s; SIGHUP reloads)\n", r->name, type_words[r->type],
            r->dflt[0] ? r->dflt : "empty");
        print_wrapped(r->sentence);
    }
}

NORETURN static void
print_help(const char *program, const char *usage)
{
    printf("%s %s\n\n%s\n\n", program, RINGCAST_VERSION, usage);
    printf(
        "Settings, with their defaults. Each is also a line of the settings file (--config FILE:\n"
        "[section], then key = value) and a variable (RINGCAST_SECTION_KEY); flags win over\n"
        "variables, variables over the file.\n\n");
    conf_print_settings();
    (void)fflush(stdout);
    exit(0);
}

/* What stands behind "--name=" or as the next argument; NULL if the argument is another one. */
static const char *
option_value(const char *name, int *i, int argc, char **argv)
{
    size_t n = strlen(name);
    if (strncmp(argv[*i], name, n) != 0)
        return NULL;
    if (argv[*i][n] == '=')
        return argv[*i] + n + 1;
    if (argv[*i][n] != '\0')
        return NULL;
    if (*i + 1 >= argc)
        die("%s needs a value: write %s VALUE", name, name);
    return argv[++*i];
}

/* --section.key=..., but not the options that say which process this is. */
static bool
is_setting_flag(const char *arg)
{
    size_t n = strcspn(arg, "=");
    return strncmp(arg, "--", 2) == 0 && memchr(arg, '.', n) != NULL &&
           strncmp(arg, "--worker.index", n) != 0 && strncmp(arg, "--broker.index", n) != 0;
}

static bool
set_flag(struct conf *c, const char *arg, struct conf_error *err)
{
    char dotted[80]; /* longer ones are no names */
    const char *value = strchr(arg, '=');
    size_t n = value != NULL ? (size_t)(value - arg) - 2 : strlen(arg + 2);
    (void)snprintf(dotted, sizeof dotted, "%.*s", (int)MIN(n, sizeof dotted - 1), arg + 2);
    char where[96];
    (void)snprintf(where, sizeof where, "flag --%s", dotted);
    struct target t;
    if (!find_target(c, dotted, where, &t, err))
        return false;
    if (value == NULL)
        return conf_fail(err, "the flag --%s has no value: write --%s=VALUE", dotted, dotted);
    return set_target(&t, value + 1, false, where, err);
}

/* File, environment, flags, rules, as `start` remembers them. The rules between settings are looked
 * at only when each setting is right by itself. */
static bool
load_all(struct conf *c, struct conf_errors *all)
{
    all->n = 0;
    conf_defaults(c);
    if (start.file != NULL)
        (void)!conf_load_file(c, start.file, all);
    (void)!conf_load_env(c, environ, all);
    for (unsigned i = 0; i < start.flag_count; i++)
        (void)is_well(all, set_flag(c, start.flags[i], next_error(all)));
    return all->n == 0 && conf_check(c, all);
}

/* Splits argv into what `start` keeps and what is left for the caller. */
static void
take_arguments(int *argc, char **argv, const char *program, const char *usage)
{
    int left = 1;
    const char *file = getenv("RINGCAST_CONFIG");
    start.flags = xcalloc((size_t)*argc + 1, sizeof start.flags[0]);
    for (int i = 1; i < *argc; i++) {
        const char *config = option_value("--config", &i, *argc, argv);
        if (config != NULL) {
            if (*config == '\0') /* an empty variable of a script, more likely than the wish for no file */
                die("--config needs a value: write --config FILE, or leave it out");
            file = config;
        } else if (is_setting_flag(argv[i])) {
            start.flags[start.flag_count++] = argv[i];
        } else if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_help(program, usage);
        } else if (strcmp(argv[i], "--version") == 0) {
            printf("%s %s\n", program, RINGCAST_VERSION);
            exit(0);
        } else {
            argv[left++] = argv[i];
        }
    }
    *argc = left;
    argv[left] = NULL;
    /* absolute, so that children and reloads find it wherever they stand */
    start.file = file == NULL || *file == '\0' ? NULL : realpath(file, NULL);
    if (start.file == NULL && file != NULL && *file != '\0')
        die("the settings file %s cannot be opened: %s", file, strerror(errno));
}

/* A line for each mistake, in the words of die(). */
NORETURN static void
die_of(const struct conf_errors *all)
{
    for (unsigned i = 0; i + 1 < MIN(all->n, (unsigned)CONF_ERRORS_MAX); i++)
        fprintf(stderr, "ringcast: %s\n", all->list[i].text);
    if (all->n > CONF_ERRORS_MAX) {
        fprintf(stderr, "ringcast: %s\n", all->list[CONF_ERRORS_MAX - 1].text);
        die("and %u more mistakes: correct these first", all->n - CONF_ERRORS_MAX);
    }
    die("%s", all->list[all->n - 1].text);
}

void
conf_from_command_line(
    struct conf *c, int *argc, char **argv, const char *program, const char *usage)
{
    struct rlimit files;
    struct conf_errors all;
    take_arguments(argc, argv, program, usage);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max; /* connections are files; conn.max goes by this */
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
    if (!load_all(c, &all))
        die_of(&all);
}

const char *
conf_start_file(void)
{
    return start.file;
}

bool
conf_names_path(const struct conf *c, const char *path)
{
    if (path[0] != '/')
        return false;
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        const struct conf_list *list = field(c, &rows[i]);
        if (rows[i].type == T_STR && strcmp(*(char **)field(c, &rows[i]), path) == 0)
            return true;
        for (uint32_t k = 0; rows[i].type == T_LIST && k < list->n; k++)
            if (strcmp(list->v[k], path) == 0)
                return true;
    }
    return false;
}

char **
conf_start_flags(unsigned *count)
{
    *count = start.flag_count;
    return start.flags;
}

/* What was replaced while somebody might have been reading it. */
static void **retired;
static unsigned retired_count;

static void
retire(void *p)
{
    retired = xrealloc(retired, (retired_count + 1) * sizeof retired[0]);
    retired[retired_count++] = p;
}

/* Gives the row of `from` to c, of which other threads may be reading it: whole words, and a text
 * that is replaced stays where it is (a few bytes for each reload). */
static void
adopt_row(struct conf *c, struct conf *from, const struct row *r)
{
    void *to = field(c, r), *new = field(from, r);
    uint64_t number;
    switch (r->type) {
    case T_INT:
    case T_SIZE:
    case T_DURATION:
        memcpy(&number, new, sizeof number);
        __atomic_store_n((uint64_t *)to, number, __ATOMIC_RELAXED);
        break;
    case T_BOOL: __atomic_store_n((bool *)to, *(bool *)new, __ATOMIC_RELAXED); break;
    case T_LEVEL:
    case T_SLOW:
    case T_PACK: __atomic_store_n((unsigned *)to, *(unsigned *)new, __ATOMIC_RELAXED); break;
    case T_STR:
        retire(*(char **)to);
        __atomic_store_n((char **)to, *(char **)new, __ATOMIC_RELEASE);
        *(char **)new = NULL;
        break;
    case T_LIST: break; /* never reloaded, see can_reload */
    }
}

/* Lists are two words, which can't be replaced under a reader. */
static bool
can_reload(const struct row *r)
{
    return r->reload == RELOAD && r->type != T_LIST;
}

static bool
same_namespaces(const struct conf_namespaces *a, const struct conf_namespaces *b)
{
    char x[VALUE_MAX_BYTES + 1], y[VALUE_MAX_BYTES + 1];
    bool same = a->n == b->n;
    for (uint32_t i = 0; same && i < a->n; i++) {
        same = strcmp(a->v[i].name, b->v[i].name) == 0;
        for (unsigned k = 0; same && k < CONF_NS_ROWS; k++) {
            conf_namespace_value(&a->v[i], k, x, sizeof x);
            conf_namespace_value(&b->v[i], k, y, sizeof y);
            same = strcmp(x, y) == 0;
        }
    }
    return same;
}

/* All of them at once, so that no reader sees half a change. Where each comes from is told, too. */
static void
adopt_namespaces(struct conf *c, struct conf *from)
{
    char value[VALUE_MAX_BYTES + 1];
    if (same_namespaces(c->namespaces, from->namespaces))
        return;
    retire(c->namespaces);
    __atomic_store_n(&c->namespaces, from->namespaces, __ATOMIC_RELEASE);
    from->namespaces = NULL;
    for (uint32_t i = 1; i < c->namespaces->n; i++)
        for (unsigned k = 0; k < CONF_NS_ROWS; k++) {
            conf_namespace_value(&c->namespaces->v[i], k, value, sizeof value);
            log_info("conf-namespace", "setting=namespace.%s.%s value=%s", c->namespaces->v[i].name,
                namespace_rows[k].name, log_quote(view_str(value)).s);
        }
    log_info("conf-changed", "setting=namespace count=%u", c->namespaces->n - 1);
}

bool
conf_reload(struct conf *c, struct conf_errors *all)
{
    struct conf fresh;
    char before[VALUE_MAX_BYTES + 1], after[VALUE_MAX_BYTES + 1];
    if (!load_all(&fresh, all)) {
        conf_free(&fresh);
        return false;
    }
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        conf_row_value(c, i, before, sizeof before);
        conf_row_value(&fresh, i, after, sizeof after);
        if (strcmp(before, after) == 0)
            continue;
        if (can_reload(&rows[i])) {
            adopt_row(c, &fresh, &rows[i]);
            log_info("conf-changed", "setting=%s value=%s", rows[i].name, after);
        } else {
            log_warn("conf-needs-restart", "setting=%s value=%s running=%s", rows[i].name, after,
                before);
        }
    }
    adopt_namespaces(c, &fresh);
    conf_free(&fresh);
    return true;
}
