/* Settings: one struct, filled from defaults, then the file, then the environment, then flags; all
 * driven by tbl/config.def. */
#ifndef COMMON_CONF_H
#define COMMON_CONF_H

#include "common/base.h"
#include "common/log.h"
#include "common/view.h"

struct conf_list {
    char **v;
    uint32_t n;
};

#define CONF_T_STR const char *
#define CONF_T_LIST struct conf_list
#define CONF_T_INT uint64_t
#define CONF_T_BOOL bool
#define CONF_T_SIZE uint64_t
#define CONF_T_DURATION uint64_t
#define CONF_T_LEVEL enum log_level
#define CONF_T_SLOW enum conf_slow
#define CONF_T_PACK enum conf_pack

/* What becomes of messages for a subscriber that does not keep up. */
enum conf_slow {
    SLOW_CLOSE,       /* its connection ends */
    SLOW_DROP_OLDEST, /* it gets the most recent ones */
    SLOW_CONFLATE,    /* it gets the latest one */
};

/* Whether messages are compressed for those who agreed to it. */
enum conf_pack {
    PACK_OFF,
    PACK_ONCE,    /* for all who share a window size */
    PACK_CONTEXT, /* in the context of each client that keeps one, once for the others */
};

#define CONF_NAMESPACES_MAX 64
#define CONF_NAMESPACE_NAME 32 /* letters and digits, with the zero at the end */

enum conf_namespace_row {
#define NAMESPACE(key, type, dflt, sample, min, max, sentence) CONF_NS_##key,
#include "common/tbl/namespace.def"
#undef NAMESPACE
    CONF_NS_ROWS
};

/* A class of channels with settings of its own. */
struct conf_namespace {
    char name[CONF_NAMESPACE_NAME];
#define NAMESPACE(key, type, dflt, sample, min, max, sentence) CONF_T_##type key;
#include "common/tbl/namespace.def"
#undef NAMESPACE
    char *places[CONF_NS_ROWS]; /* as in struct conf */
};

/* v[0] is for channels in no namespace and has the defaults. Never changed once a process runs: a
 * reload makes another one, and the old one stays for who may be looking at it. */
struct conf_namespaces {
    uint32_t n;
    struct conf_namespace v[1 + CONF_NAMESPACES_MAX];
};

struct conf {
#define CONF(section, key, type, dflt, min, max, reload, sentence) CONF_T_##type section##_##key;
#include "common/tbl/config.def"
#undef CONF
    struct conf_namespaces *namespaces; /* read by conf_namespaces_now(), where it may be reloaded */
    char **places; /* per row: where it was set, NULL for the default; conf.c's own */
};

/* Errors are one sentence naming the key, where it was set (file and line, flag, variable) and what
 * would be right. 1024 bytes hold any of them. */
struct conf_error {
    char text[1024];
};
/* Fills the error and is false, so that callers can return it. */
bool conf_fail(struct conf_error *err, const char *fmt, ...) PRINTF(2, 3);

/* All that is wrong with the settings, so that a file is mended in one go. Begin with n = 0. */
#define CONF_ERRORS_MAX 20
struct conf_errors {
    unsigned n;                                  /* also those above the bound, of which only this is known */
    struct conf_error list[CONF_ERRORS_MAX + 1]; /* the last one is room for those */
};

/* All settings at their defaults. */
void conf_defaults(struct conf *c);
/* An INI file: [section], key = value, '#' and ';' begin comments. Unknown keys are errors. The
 * section [namespace chat] holds what flags call namespace.chat. */
bool conf_load_file(struct conf *c, const char *path, struct conf_errors *all) MUST_CHECK;
/* RINGCAST_SECTION_KEY=value. Unknown RINGCAST_ variables are errors, apart from a small documented
 * set that the processes use among themselves (RINGCAST_LISTEN_..., see conf.c). */
bool conf_load_env(struct conf *c, char **environ_, struct conf_errors *all) MUST_CHECK;
/* One "section.key" with its value; `where` is put into the error. */
bool conf_set(struct conf *c, const char *dotted, const char *value, const char *where,
    struct conf_error *err) MUST_CHECK;
/* Rules between settings (ping interval below timeout, powers of two, listeners that parse ...),
 * and fills what "0: automatic" or empty stands for: run.dir, worker.rings, conn.max,
 * conn.max_unshaken, mem.limit, mem.buffers. ws.max_frames_per_message stays 0, since the message limit is
 * that of the path. */
bool conf_check(struct conf *c, struct conf_errors *all) MUST_CHECK;
void conf_free(struct conf *c);
/* Where a setting came from: "file:line", "flag --x.y", "RINGCAST_X_Y", "its default". */
const char *conf_place(const struct conf *c, const char *dotted);

/* The usual start of a program: defaults, --config FILE, environment, --section.key=value, check.
 * Options it does not know itself (not "--x.y=") are left in argv for the caller, *argc adjusted.
 * (So are --worker.index=N and --broker.index=N.) Raises the open-file limit to the hard one first.
 * On errors it ends the process with status 1 and a sentence for each, CONF_ERRORS_MAX of them at
 * most; answers --help and --version itself. */
void conf_from_command_line(
    struct conf *c, int *argc, char **argv, const char *program, const char *usage);
/* SIGHUP: reads file, environment and flags again. Settings that may change are changed in c (and
 * logged), those that need a restart keep their value (and are logged). On an error c stays as it
 * was. Other threads may read numbers, switches and texts of c meanwhile. */
bool conf_reload(struct conf *c, struct conf_errors *all) MUST_CHECK;
/* What conf_from_command_line found, for starting children alike: the file (absolute; NULL if
 * none), and the --section.key=value flags. */
const char *conf_start_file(void);
char **conf_start_flags(unsigned *count);
/* Whether a setting, or an entry of one that is a list, is this path. */
bool conf_names_path(const struct conf *c, const char *path);
/* The rows as --help shows them, to stdout. */
void conf_print_settings(void);

/* "section.key" of row i, and its value as it would be written; NULL past the last row. */
const char *conf_row_name(unsigned i);
const char *conf_row_sentence(unsigned i);
/* The value of a row that is a number, a size (bytes) or a time (ms); false for the others. */
bool conf_row_number(const struct conf *c, unsigned i, uint64_t *v);
void conf_row_value(const struct conf *c, unsigned i, char *out, size_t out_n);

/* -- namespaces (tbl/namespace.def) -- */

/* Those of now; other threads may be reloading. What it points to lives as long as the process. */
static inline const struct conf_namespaces *
conf_namespaces_now(const struct conf *c)
{
    return __atomic_load_n(&c->namespaces, __ATOMIC_ACQUIRE);
}
/* The namespace of a channel: that with the longest prefix its name begins with, or v[0]. */
const struct conf_namespace *conf_namespace_of(const struct conf_namespaces *, struct view channel);
/* As conf_row_...: key, and the value as it would be written. */
const char *conf_namespace_key(enum conf_namespace_row row);
void conf_namespace_value(
    const struct conf_namespace *, enum conf_namespace_row row, char *out, size_t out_n);

/* A listen address taken apart: tcp://host:port, tls://host:port, unix:/path. All of them with options behind:
 * ?proxy=on if a balancer puts PROXY headers in front of what clients say, ?gaps=off if clients can't bear the event
 * #gap, ?proxy=on&gaps=off. */
struct conf_listen {
    bool is_unix;
    bool tls;
    char host[256]; /* numeric or name; "" for any. IPv6 without its brackets */
    char port[8];
    char path[108];
    bool proxy;   /* ?proxy=on: connections begin with a PROXY header */
    bool no_gaps; /* ?gaps=off: clients are told of no gap */
};
bool conf_parse_listen(
    const char *text, struct conf_listen *out, struct conf_error *err) MUST_CHECK;

#endif
