/* Settings: values, the file, the environment, flags' names, and the rules between them. Most of
 * what is asked of an error is that it names the key, the place and what would be right. */
#include "common/conf.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* The error holds every one of the words. */
static void
assert_says(const struct conf_error *err, const char *a, const char *b, const char *c)
{
    const char *const words[] = {a, b, c};
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (words[i] != NULL && strstr(err->text, words[i]) == NULL)
            fail_msg("\"%s\" is not in: %s", words[i], err->text);
}

/* Whether it went well; the first mistake, and as if there were no other. */
static bool
first_of(bool ok, const struct conf_errors *all, struct conf_error *err)
{
    assert_int_equal(ok, all->n == 0);
    if (!ok)
        *err = all->list[0];
    return ok;
}

static bool
load(struct conf *c, const char *text, struct conf_error *err)
{
    struct conf_errors all = {.n = 0};
    return first_of(load_text(c, view_str(text), "x.conf", &all), &all, err);
}

static bool
load_file(struct conf *c, const char *path, struct conf_error *err)
{
    struct conf_errors all = {.n = 0};
    return first_of(conf_load_file(c, path, &all), &all, err);
}

static bool
load_env(struct conf *c, char **env, struct conf_error *err)
{
    struct conf_errors all = {.n = 0};
    return first_of(conf_load_env(c, env, &all), &all, err);
}

static bool
check(struct conf *c, struct conf_error *err)
{
    struct conf_errors all = {.n = 0};
    return first_of(conf_check(c, &all), &all, err);
}

static bool
load_as_started(struct conf *c, struct conf_error *err)
{
    struct conf_errors all = {.n = 0};
    return first_of(load_all(c, &all), &all, err);
}

static bool
reload(struct conf *c, struct conf_error *err)
{
    struct conf_errors all = {.n = 0};
    return first_of(conf_reload(c, &all), &all, err);
}

/* ---- the table ---- */

static void
what_is_printed_of_a_default_means_the_default(void **state)
{
    struct conf c, again;
    struct conf_error err;
    char value[4097], second[4097];
    uint64_t v, w;
    (void)state;
    conf_defaults(&c);
    conf_defaults(&again);
    for (unsigned i = 0; conf_row_name(i) != NULL; i++) {
        conf_row_value(&c, i, value, sizeof value);
        assert_true(conf_set(&again, conf_row_name(i), value, "here", &err));
        conf_row_value(&again, i, second, sizeof second);
        assert_string_equal(value, second);
        if (conf_row_number(&c, i, &v))
            assert_true(conf_row_number(&again, i, &w) && v == w);
        else
            assert_string_equal(value, rows[i].dflt);
        assert_true(strlen(conf_row_sentence(i)) > 10);
    }
    conf_free(&again);
    assert_null(conf_row_name(ARRAY_LEN(rows)));
    conf_free(&c);
}

/* ---- values ---- */

static void
sizes_and_times_have_units(void **state)
{
    static const struct {
        const char *name, *value;
        uint64_t want;
    } good[] = {
        {"ws.max_message", "4096", 4096},
        {"ws.max_message", "64KiB", 65536},
        {"ws.max_message", "4MiB", 4194304},
        {"ws.max_message", "1GiB", 1073741824},
        {"ws.max_message", "5B", 5},
        {"ws.max_message", "64 KiB", 65536},
        {"sc.ping_interval", "250ms", 250},
        {"sc.ping_interval", "8s", 8000},
        {"sc.ping_interval", "5m", 300000},
        {"sc.ping_interval", "1h", 3600000},
        {"sc.ping_interval", "1d", 86400000},
        {"run.drain_timeout", "0", 0},
        {"log.rate", "0", 0},
        {"lane.bytes", "00065536", 65536},
    };
    struct conf c;
    struct conf_error err;
    (void)state;
    conf_defaults(&c);
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        uint64_t v = 1;
        assert_true(conf_set(&c, good[i].name, good[i].value, "here", &err));
        memcpy(&v, field(&c, row_find(good[i].name)), sizeof v);
        assert_int_equal(v, good[i].want);
    }
    conf_free(&c);
}

static void
what_is_no_number_in_range_is_refused_with_the_range(void **state)
{
    static const struct {
        const char *name, *value, *says;
    } bad[] = {
        {"worker.count", "", "from 1 to 256"},
        {"worker.count", "two", "whole number"},
        {"worker.count", "-1", "whole number"},
        {"worker.count", "+1", "whole number"},
        {"worker.count", "1.5", "whole number"},
        {"worker.count", " 1", "whole number"},
        {"worker.count", "0x10", "whole number"},
        {"worker.count", "0", "1 to 256"},
        {"worker.count", "257", "1 to 256"},
        {"worker.count", "18446744073709551617", "1 to 256"},
        {"ws.max_message", "1KB", "KiB"},
        {"ws.max_message", "1kib", "KiB"},
        {"ws.max_message", "KiB", "KiB"},
        {"ws.max_message", "2GiB", "1GiB"},
        {"ws.max_message", "18446744073709551615GiB", "1GiB"},
        {"ws.max_message", "0", "1 to 1GiB"},
        {"sc.ping_interval", "8", "unit"},
        {"sc.ping_interval", "8 seconds", "unit"},
        {"sc.ping_interval", "8sec", "unit"},
        {"sc.ping_interval", "1ms", "50ms to 1d"},
        {"http.playground", "maybe", "on or off"},
        {"http.playground", "ON", "on or off"},
        {"log.level", "loud", "error, warn, info or debug"},
    };
    struct conf c;
    struct conf_error err;
    (void)state;
    conf_defaults(&c);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_false(conf_set(&c, bad[i].name, bad[i].value, "the place", &err));
        assert_says(&err, bad[i].name, "the place", bad[i].says);
    }
    assert_int_equal(c.worker_count, 1);
    assert_int_equal(c.ws_max_message, 1 << 20);
    conf_free(&c);
}

static void
words_for_on_and_off(void **state)
{
    static const char *const on[] = {"on", "true", "yes", "1"}, *const off[] = {
                                                                    "off", "false", "no", "0"};
    struct conf c;
    struct conf_error err;
    (void)state;
    conf_defaults(&c);
    for (size_t i = 0; i < ARRAY_LEN(on); i++) {
        assert_true(conf_set(&c, "http.playground", on[i], "here", &err) && c.http_playground);
        assert_true(conf_set(&c, "http.playground", off[i], "here", &err) && !c.http_playground);
    }
    conf_free(&c);
}

static void
lists_split_at_commas(void **state)
{
    struct conf c;
    struct conf_error err;
    (void)state;
    conf_defaults(&c);
    assert_true(conf_set(&c, "worker.cpus", " 1 , 2,3", "here", &err));
    assert_int_equal(c.worker_cpus.n, 3);
    assert_string_equal(c.worker_cpus.v[0], "1");
    assert_string_equal(c.worker_cpus.v[1], "2");
    assert_string_equal(c.worker_cpus.v[2], "3");
    assert_true(conf_set(&c, "worker.cpus", "", "here", &err));
    assert_int_equal(c.worker_cpus.n, 0);
    assert_false(conf_set(&c, "worker.cpus", "1,,2", "here", &err));
    assert_says(&err, "worker.cpus", "here", "empty entry");
    assert_false(conf_set(&c, "worker.cpus", "1,", "here", &err));
    assert_false(conf_set(&c, "worker.cpus", ",", "here", &err));
    assert_false(conf_set(&c, "worker.listen", "", "here", &err));
    assert_says(&err, "worker.listen", "at least 1", NULL);
    assert_false(conf_set(&c, "worker.listen", "a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q", "here", &err));
    assert_says(&err, "worker.listen", "at most 16", NULL);
    assert_int_equal(c.worker_listen.n, 1);
    conf_free(&c);
}

static void
texts_have_a_bound(void **state)
{
    struct conf c;
    struct conf_error err;
    char dir[92], huge[VALUE_MAX_BYTES + 2];
    (void)state;
    memset(dir, '/', sizeof dir - 1);
    dir[91] = '\0';
    memset(huge, '1', sizeof huge - 1);
    huge[sizeof huge - 1] = '\0';
    conf_defaults(&c);
    assert_false(conf_set(&c, "run.dir", dir, "here", &err));
    assert_says(&err, "run.dir", "0 to 90 bytes", NULL);
    assert_true(conf_set(&c, "run.dir", dir + 1, "here", &err));
    assert_false(conf_set(&c, "worker.count", huge, "here", &err));
    assert_says(&err, "worker.count", "too long", NULL);
    conf_free(&c);
}

/* ---- names ---- */

static void
unknown_names_get_the_nearest_known_one(void **state)
{
    static const struct {
        const char *written, *meant;
    } cases[] = {
        {"worker.cuont", "worker.count"},
        {"worker.port", NULL},
        {"workers.count", "worker.count"},
        {"sc.pinginterval", "sc.ping_interval"},
        {"ping_interval", "sc.ping_interval"},
        {"socket.ping_interval", "sc.ping_interval"},
        {"log.levle", "log.level"},
        {"zzzzzz.zzzzzzzzz", "--help"},
        {"", "--help"},
    };
    struct conf c;
    struct conf_error err;
    (void)state;
    conf_defaults(&c);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_false(conf_set(&c, cases[i].written, "1", "the place", &err));
        assert_says(&err, cases[i].written, "the place", cases[i].meant);
    }
    conf_free(&c);
}

/* ---- the file ---- */

static void
a_file_as_people_write_it(void **state)
{
    struct conf c;
    struct conf_error err;
    (void)state;
    conf_defaults(&c);
    assert_true(load(&c,
        "\xEF\xBB\xBF# a comment that is longer than any line of the file may be, and goes on and "
        "on "
        "and on, since people paste whole paragraphs, and who would want to count the letters of a "
        "comment; nobody, and so it may be as long as it wants to be, up to the size of the file.\n"
        "\r\n"
        "[worker]\r\n"
        "count = 3   # three of them\r\n"
        "   rings=2\n"
        "listen = tcp://127.0.0.1:1\n"
        "listen = tcp://[::1]:1, unix:/tmp/a#b\n"
        "; another comment\n"
        "[sc]\n"
        "path =\n"
        "ping_interval: 9s ; colon\n"
        "[worker]\n"
        "backlog = 7",
        &err));
    assert_int_equal(c.worker_count, 3);
    assert_int_equal(c.worker_rings, 2);
    assert_int_equal(c.worker_backlog, 7);
    assert_int_equal(c.worker_listen.n, 3);
    assert_string_equal(c.worker_listen.v[2], "unix:/tmp/a#b");
    assert_string_equal(c.sc_path, "");
    assert_int_equal(c.sc_ping_interval, 9000);
    assert_string_equal(conf_place(&c, "worker.rings"), "x.conf:5");
    assert_string_equal(conf_place(&c, "worker.backlog"), "x.conf:13");
    assert_string_equal(conf_place(&c, "log.level"), "its default");
    conf_free(&c);
}

static void
mistakes_in_a_file_name_its_line(void **state)
{
    static const struct {
        const char *text, *where, *says;
    } cases[] = {
        {"[worker]\ncuont = 3\n", "x.conf:2", "worker.count"},
        {"[worker]\n\n\ncount = many\n", "x.conf:4", "worker.count"},
        {"count = 3\n", "x.conf:1", "did you mean worker.count"},
        {"[worker\ncount = 3\n", "x.conf:1", "[section]"},
        {"[worker]\ncount\n", "x.conf:2", "key = value"},
        {"[worker]\ncount = 1\ncount = 2\n", "x.conf:3", "line 2"},
        {"[nowhere]\ncount = 1\n", "x.conf:2", "worker.count"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct conf c;
        struct conf_error err;
        conf_defaults(&c);
        assert_false(load(&c, cases[i].text, &err));
        assert_says(&err, cases[i].where, cases[i].says, NULL);
        conf_free(&c);
    }
}

static void
every_mistake_of_a_file_is_told(void **state)
{
    static const char *const want[] = {"x.conf:2", "x.conf:3", "x.conf:4", "x.conf:6", "x.conf:7", "x.conf:9"};
    struct conf c;
    struct conf_errors all = {.n = 0};
    (void)state;
    conf_defaults(&c);
    assert_false(load_text(&c,
        view_str("[worker]\n"
                 "cuont = 3\n"
                 "count = many\n"
                 "no pair\n"
                 "backlog = 7\n"
                 "backlog = 8\n"
                 "[log\n"
                 "rings = 2\n"
                 "port = 1\n"),
        "x.conf", &all));
    assert_int_equal(all.n, ARRAY_LEN(want));
    for (size_t i = 0; i < ARRAY_LEN(want); i++)
        assert_says(&all.list[i], want[i], NULL, NULL);
    assert_int_equal(c.worker_backlog, 7); /* what is right is taken all the same */
    assert_int_equal(c.worker_rings, 2);
    conf_free(&c);
}

static void
mistakes_are_told_up_to_a_bound_and_counted_above(void **state)
{
    char text[4096] = "";
    struct conf c;
    struct conf_errors all = {.n = 0};
    (void)state;
    conf_defaults(&c);
    for (size_t n = 0; n < 200; n++)
        (void)snprintf(text + strlen(text), sizeof text - strlen(text), "x%zu = 1\n", n);
    assert_false(load_text(&c, view_str(text), "x.conf", &all));
    assert_int_equal(all.n, 200);
    assert_says(&all.list[CONF_ERRORS_MAX - 1], "x.conf:20", "x19", NULL);
    conf_free(&c);
}

static void
lines_and_files_have_bounds(void **state)
{
    struct conf c;
    struct conf_error err;
    struct conf_errors all = {.n = 0};
    char text[5000] = "[worker]\nlisten = ";
    (void)state;
    conf_defaults(&c);
    memset(text + strlen(text), 'a', 300); /* longer than inih takes */
    assert_true(load(&c, text, &err));
    assert_int_equal(strlen(c.worker_listen.v[0]), 300);
    memset(text + strlen(text), 'a', 3800);
    assert_false(load(&c, text, &err));
    assert_says(&err, "x.conf:2", "worker.listen is too long", NULL);
    memset(text + strlen(text), 'a', 400);
    assert_false(load(&c, text, &err));
    assert_says(&err, "x.conf:2", "longer than", NULL);
    char many[400], ciphers[301];
    memset(ciphers, 'c', 300);
    ciphers[300] = '\0';
    (void)snprintf(many, sizeof many, "[tls]\nciphers=%s\n[sc]\nping_interval = 7s\n", ciphers);
    assert_true(load(&c, many, &err));
    assert_int_equal(strlen(c.tls_ciphers), 300);
    assert_int_equal(c.sc_ping_interval, 7000);
    assert_false(load_text(&c, view_of("[log]\n\0", 7), "x.conf", &all));
    assert_says(&all.list[0], "x.conf", "zero bytes", NULL);
    assert_false(load_file(&c, "/nowhere/ringcast.conf", &err));
    assert_says(&err, "/nowhere/ringcast.conf", "No such file", NULL);
    assert_false(load_file(&c, "/", &err));
    assert_says(&err, "/", "directory", NULL);
    assert_false(load_file(&c, "/dev/zero", &err));
    assert_says(&err, "/dev/zero", "larger than", NULL);
    assert_true(load(&c, "", &err));
    conf_free(&c);
}

/* ---- the environment ---- */

static void
unknown_variables_are_errors_and_those_of_others_are_not(void **state)
{
    static const char *const fine[] = {"PATH=/bin", "RINGCAST_WORKER_COUNT=5",
        "RINGCAST_LISTEN_FDS=3", "RINGCAST_READY_FD=7", "RINGCAST_PARENT_FD=8",
        "RINGCAST_CONFIG=/x", "RINGCAST_TEST_X=1", "RINGCAST", "NOVALUE", NULL};
    static const char *const unknown[] = {"RINGCAST_WORKER_CUONT=5", NULL};
    static const char *const odd[] = {"RINGCAST_=5", NULL};
    static const char *const bad[] = {"RINGCAST_WORKER_COUNT=lots", NULL};
    struct conf c;
    struct conf_error err;
    (void)state;
    conf_defaults(&c);
    assert_true(load_env(&c, (char **)(uintptr_t)fine, &err));
    assert_int_equal(c.worker_count, 5);
    assert_false(load_env(&c, (char **)(uintptr_t)unknown, &err));
    assert_says(&err, "RINGCAST_WORKER_CUONT", "RINGCAST_WORKER_COUNT", NULL);
    assert_false(load_env(&c, (char **)(uintptr_t)odd, &err));
    assert_false(load_env(&c, (char **)(uintptr_t)bad, &err));
    assert_says(&err, "worker.count", "RINGCAST_WORKER_COUNT", "lots");
    assert_true(load_env(&c, NULL, &err));
    conf_free(&c);
}

/* ---- namespaces ---- */

static void
every_row_of_a_namespace_is_a_flag_a_variable_and_a_file_entry(void **state)
{
    struct conf_error err;
    (void)state;
    for (unsigned i = 0; i < CONF_NS_ROWS; i++) {
        const struct row *r = &namespace_rows[i];
        struct conf c;
        char text[200], variable[200] = "RINGCAST_NAMESPACE_CHAT_", flag[200], value[200];
        char *env[] = {variable, NULL};
        conf_defaults(&c);
        (void)snprintf(text, sizeof text, "[namespace chat]\n\n%s = %s\n", r->name, r->dflt);
        assert_true(load(&c, text, &err));
        assert_int_equal(c.namespaces->n, 2);
        const struct conf_namespace *ns = &c.namespaces->v[1];
        assert_string_equal(ns->name, "chat");
        assert_string_equal(ns->places[i], "x.conf:3");
        size_t n = strlen(variable);
        for (const char *p = r->name; *p != '\0'; p++)
            variable[n++] = (char)toupper((unsigned char)*p);
        (void)snprintf(variable + n, sizeof variable - n, "=%s", r->dflt);
        assert_true(load_env(&c, env, &err));
        assert_memory_equal(ns->places[i], variable, n);
        (void)snprintf(flag, sizeof flag, "--namespace.chat.%s=%s", r->name, r->dflt);
        assert_true(set_flag(&c, flag, &err));
        assert_memory_equal(ns->places[i], "flag --namespace.chat.", 22);
        assert_int_equal(c.namespaces->n, 2);
        conf_namespace_value(ns, i, value, sizeof value);
        conf_namespace_value(&c.namespaces->v[0], i, text, sizeof text);
        assert_string_equal(value, text);
        assert_string_equal(conf_namespace_key(i), r->name);
        conf_free(&c);
    }
}

static const char three_namespaces[] = "[namespace chat]\nprefix = chat:\nslow = conflate\ncompress = off\n"
                                       "[log]\nlevel = warn\n"
                                       "[namespace vip]\nprefix = chat:vip:\nslow = drop-oldest\n"
                                       "slow_keep = 64KiB\nslow_after = 0\ncompress = once\n"
                                       "[namespace chat]\nslow_notice = off\n";

static void
the_longest_prefix_wins(void **state)
{
    static const struct {
        const char *channel, *name;
    } cases[] = {
        {"chat:1", "chat"},
        {"chat:", "chat"},
        {"chat", ""},
        {"", ""},
        {"chat:vip:x", "vip"},
        {"chat:vip", "chat"},
        {"xchat:1", ""},
        {"CHAT:1", ""},
    };
    struct conf c;
    struct conf_error err;
    (void)state;
    conf_defaults(&c);
    assert_true(load(&c, three_namespaces, &err));
    assert_true(check(&c, &err));
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_string_equal(
            conf_namespace_of(c.namespaces, view_str(cases[i].channel))->name, cases[i].name);
    /* an empty prefix is for what no other one fits */
    assert_true(conf_set(&c, "namespace.rest.prefix", "", "here", &err));
    assert_true(conf_set(&c, "namespace.rest.slow", "conflate", "here", &err));
    assert_true(check(&c, &err));
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_string_equal(conf_namespace_of(c.namespaces, view_str(cases[i].channel))->name,
            *cases[i].name == '\0' ? "rest" : cases[i].name);
    conf_free(&c);
}

static void
a_namespace_has_its_own_values_and_the_defaults(void **state)
{
    struct conf c;
    struct conf_error err;
    (void)state;
    conf_defaults(&c);
    assert_true(load(&c, three_namespaces, &err));
    const struct conf_namespace *none = conf_namespace_of(c.namespaces, VIEW("x"));
    const struct conf_namespace *chat = conf_namespace_of(c.namespaces, VIEW("chat:x"));
    const struct conf_namespace *vip = conf_namespace_of(c.namespaces, VIEW("chat:vip:x"));
    assert_true(none->slow == SLOW_CLOSE && none->slow_notice && none->slow_after == 65536);
    assert_true(chat->slow == SLOW_CONFLATE && !chat->slow_notice && chat->slow_after == 65536);
    assert_true(vip->slow == SLOW_DROP_OLDEST && vip->slow_notice && vip->slow_after == 0);
    assert_int_equal(vip->slow_keep, 65536);
    assert_true(none->compress == PACK_CONTEXT && chat->compress == PACK_OFF && vip->compress == PACK_ONCE);
    /* what counts as behind is never more than what may wait at all */
    assert_true(conf_set(&c, "out.queue_bytes", "8KiB", "here", &err));
    assert_true(check(&c, &err));
    assert_int_equal(chat->slow_after, 8192);
    conf_free(&c);
}

static void
mistakes_in_namespaces_name_their_place(void **state)
{
    static const struct {
        const char *text, *where, *says;
    } cases[] = {
        {"[namespace chat]\nprefix = c:\nslwo = close\n", "x.conf:3", "did you mean slow?"},
        {"[namespace chat]\nqueue_bytes = 1\n", "x.conf:2", "namespace.chat.queue_bytes"},
        {"[namespace chat]\nslow = sometimes\n", "x.conf:2", "close, drop-oldest or conflate"},
        {"[namespace chat]\nslow_keep = -1\n", "x.conf:2", "namespace.chat.slow_keep"},
        {"[namespace chat]\nslow = close\nslow = close\n", "x.conf:3", "line 2"},
        {"[namespace Chat]\nslow = close\n", "x.conf:2", "small letters"},
        {"[namespace 1]\nslow = close\n", "x.conf:2", "small letters"},
        {"[namespace a b]\nslow = close\n", "x.conf:2", "small letters"},
        {"[namespace a_b]\nslow = close\n", "x.conf:2", "small letters"},
        {"[namespace ]\nslow = close\n", "x.conf:2", "small letters"},
        {"[namespace]\nslow = close\n", "x.conf:2", "not a setting"},
        {"[namespace abcdefghijklmnopqrstuvwxyzabcdef]\nslow = close\n", "x.conf:2", "at most 31"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct conf c;
        struct conf_error err;
        conf_defaults(&c);
        if (load(&c, cases[i].text, &err))
            fail_msg("passed: %s", cases[i].text);
        assert_says(&err, cases[i].where, cases[i].says, NULL);
        conf_free(&c);
    }
}

static void
mistakes_in_flags_and_variables_of_namespaces(void **state)
{
    static const char *const env[] = {"RINGCAST_NAMESPACE_CHAT_SLWO=close", NULL};
    static const char *const nothing[] = {"RINGCAST_NAMESPACE_CHAT=close", NULL};
    struct conf c;
    struct conf_error err;
    (void)state;
    conf_defaults(&c);
    assert_false(load_env(&c, (char **)(uintptr_t)env, &err));
    assert_says(&err, "RINGCAST_NAMESPACE_CHAT_SLWO", "namespace.chat.slwo", "slow");
    assert_false(load_env(&c, (char **)(uintptr_t)nothing, &err));
    assert_says(&err, "RINGCAST_NAMESPACE_CHAT", "not a setting", NULL);
    assert_false(set_flag(&c, "--namespace.chat.slwo=close", &err));
    assert_says(&err, "flag --namespace.chat.slwo", "slow", NULL);
    assert_false(set_flag(&c, "--namespace.chat.slow", &err));
    assert_says(&err, "--namespace.chat.slow=VALUE", NULL, NULL);
    assert_false(set_flag(&c, "--namespace.chat=close", &err));
    assert_false(set_flag(&c, "--namespace.=close", &err));
    assert_false(set_flag(&c, "--namespace..slow=close", &err));
    conf_free(&c);
}

static void
namespaces_have_prefixes_that_differ(void **state)
{
    struct conf c;
    struct conf_error err;
    (void)state;
    conf_defaults(&c);
    assert_true(conf_set(&c, "namespace.chat.slow", "conflate", "there", &err));
    assert_false(check(&c, &err));
    assert_says(&err, "namespace.chat", "no prefix", NULL);
    assert_true(conf_set(&c, "namespace.chat.prefix", "c:", "there", &err));
    assert_true(check(&c, &err));
    assert_true(conf_set(&c, "namespace.other.prefix", "c:", "elsewhere", &err));
    assert_false(check(&c, &err));
    assert_says(&err, "namespace.other.prefix (elsewhere)", "namespace.chat.prefix (there)", "same");
    conf_free(&c);
}

static void
the_number_of_namespaces_is_bounded(void **state)
{
    struct conf c;
    struct conf_error err;
    char name[64], value[64];
    (void)state;
    conf_defaults(&c);
    for (unsigned i = 0; i < CONF_NAMESPACES_MAX; i++) {
        (void)snprintf(name, sizeof name, "namespace.n%u.prefix", i);
        (void)snprintf(value, sizeof value, "%u:", i);
        assert_true(conf_set(&c, name, value, "here", &err));
    }
    assert_true(check(&c, &err));
    assert_string_equal(conf_namespace_of(c.namespaces, VIEW("63:x"))->name, "n63");
    assert_false(conf_set(&c, "namespace.more.prefix", "more", "here", &err));
    assert_says(&err, "namespace.more.prefix", "here", "64");
    assert_true(conf_set(&c, "namespace.n0.slow", "conflate", "here", &err));
    conf_free(&c);
}

/* ---- rules ---- */

struct setting {
    const char *name, *value;
};

static bool
check_with(const struct setting *s, size_t n, struct conf *c, struct conf_error *err)
{
    conf_defaults(c);
    for (size_t i = 0; i < n; i++)
        assert_true(conf_set(c, s[i].name, s[i].value, "there", err));
    return check(c, err);
}

static void
rules_between_settings(void **state)
{
    static const struct {
        struct setting s[3];
        const char *says, *also;
    } cases[] = {
        {{{"sc.ping_interval", "30s"}}, "sc.ping_interval", "sc.ping_timeout"},
        {{{"worker.recv_buffers", "500"}}, "worker.recv_buffers", "256 or 512"},
        {{{"lane.bytes", "100000"}}, "lane.bytes", "64KiB or 128KiB"},
        {{{"sc.unserved", "loud"}}, "sc.unserved", "silent or error"},
        {{{"run.dir", "here"}}, "run.dir", "begins with /"},
        {{{"worker.cpus", "0,one"}}, "worker.cpus", "\"one\""},
        {{{"broker.cpus", "1023"}}, "broker.cpus", "does not have"},
        {{{"worker.cpus", "0,99999"}}, "worker.cpus", "\"99999\""},
        {{{"worker.listen", "unix:relative"}}, "worker.listen", "does not begin with /"},
        {{{"worker.listen", "tcp://:1,tcp://:1"}}, "worker.listen", "twice"},
        {{{"worker.listen", "8000"}}, "worker.listen", "tcp://host:port"},
        {{{"worker.listen", "tcp://:1?proxy=yes"}}, "worker.listen", "?proxy=on"},
        {{{"worker.listen", "tcp://:1?proxy=on"}}, "worker.listen", "http.trusted_proxies"},
        {{{"http.trusted_proxies", "10.0.0.1/8"}}, "http.trusted_proxies", "networks"},
        {{{"http.origins", "*.example.com"}}, "http.origins", "no browser sends"},
        {{{"http.origins", "https://example.com,example.net"}}, "http.origins", "\"example.net\""},
        {{{"http.origins", "HTTPS://example.com"}}, "http.origins", "lower case"},
        {{{"http.origins", "https://example.com/"}}, "http.origins", "without a path"},
        {{{"http.origins", "https://example.com:443"}}, "http.origins", "port"},
        {{{"http.origins", "http://[::1]:80"}}, "http.origins", "port"},
        {{{"http.origins", "https://*.example.com"}}, "http.origins", "no browser sends"},
        {{{"http.origins", "https://"}}, "http.origins", "no browser sends"},
        {{{"http.origins", "https://:3000"}}, "http.origins", "no browser sends"},
        {{{"http.origins", "https://a:"}}, "http.origins", "no browser sends"},
        {{{"http.client_field", "X-Real-IP"}}, "http.client_field", "x-forwarded-for"},
        {{{"sc.path", "socketcluster"}}, "sc.path", "begins with /"},
        {{{"sc.path", "/a b"}}, "sc.path", "space"},
        {{{"echo.path", "/e?x"}}, "echo.path", "?"},
        {{{"echo.path", "/socketcluster"}}, "echo.path", "same"},
        {{{"sc.path", "/"}, {"http.playground", "on"}}, "http.playground", "sc.path"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct conf c;
        struct conf_error err;
        size_t n = 0;
        while (n < 3 && cases[i].s[n].name != NULL)
            n++;
        if (check_with(cases[i].s, n, &c, &err))
            fail_msg("%s = %s passed", cases[i].s[0].name, cases[i].s[0].value);
        assert_says(&err, cases[i].says, cases[i].also, "there");
        conf_free(&c);
    }
}

static void
what_is_automatic_is_filled(void **state)
{
    static const struct setting small[] = {
        {"ws.max_message", "1KiB"}, {"http.header_bytes", "600"}, {"out.queue_bytes", "8KiB"}};
    struct conf c;
    struct conf_error err;
    (void)state;
    assert_true(check_with(NULL, 0, &c, &err));
    assert_int_equal(c.run_dir[0], '/');
    assert_in_range(c.worker_rings, 1, 64);
    assert_in_range(c.conn_max, 1, CONN_MAX);
    assert_in_range(c.conn_max_unshaken, 1, 10000);
    assert_true(c.mem_buffers >= 1 << 20);
    assert_int_equal(c.ws_max_frames_per_message, 0);
    conf_free(&c);
    /* one low limit is enough: those within it follow */
    assert_true(check_with(small, ARRAY_LEN(small), &c, &err));
    assert_int_equal(c.ws_max_message_unshaken, 1024);
    assert_int_equal(c.http_request_line, 600);
    assert_int_equal(c.out_queue_low, 8192);
    conf_free(&c);
}

/* ---- SIGHUP ---- */

static void
write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void
reload_changes_what_may_change_and_nothing_on_errors(void **state)
{
    char path[] = "/tmp/ringcast-test-XXXXXX";
    struct conf c;
    struct conf_error err;
    (void)state;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    (void)close(fd);
    start.file = path;
    write_file(path, "[sc]\nping_interval = 1s\n[worker]\ncount = 2\n");
    assert_true(load_as_started(&c, &err));
    const char *unserved = c.sc_unserved;
    write_file(path,
        "[sc]\nping_interval = 2s\nunserved = error\n[worker]\ncount = 3\n[log]\nlevel = warn\n"
        "[http]\nplayground = on\n");
    assert_true(reload(&c, &err));
    assert_int_equal(c.sc_ping_interval, 2000);
    assert_int_equal(c.worker_count, 2);
    assert_int_equal(c.log_level, LOG_L_WARN);
    assert_true(c.http_playground);
    assert_string_equal(c.sc_unserved, "error");
    assert_string_equal(unserved, "silent"); /* whoever reads the old text may go on */
    write_file(path, "[sc]\nping_interval = 3s\npong = 1\n");
    assert_false(reload(&c, &err));
    assert_says(&err, path, "sc.pong", NULL);
    assert_int_equal(c.sc_ping_interval, 2000);
    start.file = NULL;
    (void)unlink(path);
    conf_free(&c);
}

static void
reload_brings_and_takes_namespaces(void **state)
{
    char path[] = "/tmp/ringcast-test-XXXXXX";
    struct conf c;
    struct conf_error err;
    (void)state;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    (void)close(fd);
    start.file = path;
    write_file(path, three_namespaces);
    assert_true(load_as_started(&c, &err));
    const struct conf_namespaces *before = conf_namespaces_now(&c);
    assert_true(reload(&c, &err));
    assert_ptr_equal(conf_namespaces_now(&c), before); /* nothing changed */
    write_file(path, "[namespace news]\nprefix = n:\n[namespace chat]\nslow = close\nprefix = c\n");
    assert_true(reload(&c, &err));
    const struct conf_namespaces *after = conf_namespaces_now(&c);
    assert_ptr_not_equal(after, before);
    assert_int_equal(after->n, 3);
    assert_string_equal(conf_namespace_of(after, VIEW("n:1"))->name, "news");
    assert_string_equal(conf_namespace_of(after, VIEW("chat:vip:1"))->name, "chat");
    /* who looks at the old ones may go on */
    assert_string_equal(conf_namespace_of(before, VIEW("chat:vip:1"))->name, "vip");
    assert_int_equal(before->v[1].slow, SLOW_CONFLATE);
    write_file(path, "[namespace news]\nslow = close\n");
    assert_false(reload(&c, &err));
    assert_says(&err, "namespace.news", "prefix", NULL);
    assert_ptr_equal(conf_namespaces_now(&c), after);
    start.file = NULL;
    (void)unlink(path);
    conf_free(&c);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_printed_of_a_default_means_the_default),
        cmocka_unit_test(sizes_and_times_have_units),
        cmocka_unit_test(what_is_no_number_in_range_is_refused_with_the_range),
        cmocka_unit_test(words_for_on_and_off),
        cmocka_unit_test(lists_split_at_commas),
        cmocka_unit_test(texts_have_a_bound),
        cmocka_unit_test(unknown_names_get_the_nearest_known_one),
        cmocka_unit_test(a_file_as_people_write_it),
        cmocka_unit_test(mistakes_in_a_file_name_its_line),
        cmocka_unit_test(every_mistake_of_a_file_is_told),
        cmocka_unit_test(mistakes_are_told_up_to_a_bound_and_counted_above),
        cmocka_unit_test(lines_and_files_have_bounds),
        cmocka_unit_test(unknown_variables_are_errors_and_those_of_others_are_not),
        cmocka_unit_test(every_row_of_a_namespace_is_a_flag_a_variable_and_a_file_entry),
        cmocka_unit_test(the_longest_prefix_wins),
        cmocka_unit_test(a_namespace_has_its_own_values_and_the_defaults),
        cmocka_unit_test(mistakes_in_namespaces_name_their_place),
        cmocka_unit_test(mistakes_in_flags_and_variables_of_namespaces),
        cmocka_unit_test(namespaces_have_prefixes_that_differ),
        cmocka_unit_test(the_number_of_namespaces_is_bounded),
        cmocka_unit_test(rules_between_settings),
        cmocka_unit_test(what_is_automatic_is_filled),
        cmocka_unit_test(reload_changes_what_may_change_and_nothing_on_errors),
        cmocka_unit_test(reload_brings_and_takes_namespaces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
