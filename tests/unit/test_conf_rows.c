/* Every row of config.def in its three forms, as a starting process reads them: an entry of the file, a
 * variable, a flag; each alone and over the other, with the value that comes out. And every row with values
 * that are wrong, in each form: the error names the key, the place (with its line) and what to write.
 *
 * The table of config.def is read here once more, so that a new row is tested as it is added. Rows of text
 * with rules of their own need values in `texts` below. */
#include "common/conf.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static const struct setting {
    const char *section, *key, *name;
    size_t at;
    uint64_t min, max;
    enum conf_type type;
} settings[] = {
#define CONF(section_, key_, type_, dflt, min_, max_, reload, sentence)                            \
    {#section_, #key_, #section_ "." #key_, offsetof(struct conf, section_##_##key_), min_, max_, T_##type_},
#include "common/tbl/config.def"
#undef CONF
};

/* Texts and lists that may not be just anything, and what must stand beside them. */
static const struct {
    const char *name;
    const char *value[3]; /* in the file, the variable, the flag: neighbours differ */
    const char *beside;   /* a flag */
} texts[] = {
    {"worker.listen", {"tcp://:1", "tcp://[::1]:2,unix:/x", "tcp://host:3"}, NULL},
    {"worker.cpus", {"0", "0,0", "0,0,0"}, NULL},
    {"broker.cpus", {"0", "0,0", "0,0,0"}, NULL},
    {"bus.order", {"bus", "local", "bus"}, NULL},
    {"bus.ack", {"bus", "local", "bus"}, NULL},
    {"bus.unconfirmed", {"error", "ack", "error"}, NULL},
    {"rate.packet_answer", {"error", "close", "delay"}, NULL},
    {"rate.byte_answer", {"error", "close", "delay"}, NULL},
    {"rate.subscribe_answer", {"error", "close", "delay"}, NULL},
    {"rate.connect_answer", {"close", "429", "close"}, NULL},
    {"http.trusted_proxies", {"10.0.0.0/8", "::1,unix", "192.168.0.1"}, NULL},
    {"http.client_field", {"forwarded", "none", "x-forwarded-for"}, NULL},
    {"http.origins", {"https://example.com", "null", "http://localhost:3000,null"}, NULL},
    {"tls.key", {"/a", "/b", "/c"}, "--tls.certificate=/certificate"},
    {"tls.min_version", {"1.3", "1.2", "1.3"}, NULL},
    {"tls.client_verify", {"optional", "required", "off"}, "--tls.client_ca=/authorities"},
    {"sc.unserved", {"error", "silent", "error"}, NULL},
    {"redis.mode", {"cluster", "standalone", "sentinel"}, NULL},
};

/* Numbers that must be more than their least value. */
static uint64_t
least_of(const struct setting *s)
{
    if (strcmp(s->name, "sc.ping_timeout") == 0)
        return 60000; /* above sc.ping_interval */
    return MAX(s->min, (uint64_t)1);
}

static bool
is_pow2_row(const struct setting *s)
{
    return strcmp(s->name, "worker.recv_buffers") == 0 || strcmp(s->name, "lane.bytes") == 0;
}

/* What is written, and what is meant by it. */
struct value {
    char text[128];
    uint64_t number;
};

/* A size or time in the form-th way of writing such, as near above v as that way can. */
static void
number_text(const struct setting *s, int form, uint64_t v, struct value *out)
{
    static const struct {
        const char *unit;
        uint64_t n;
    } ways[][3] = {
        [T_INT] = {{"", 1}, {"", 1}, {"", 1}},
        [T_SIZE] = {{"", 1}, {"B", 1}, {"KiB", 1024}},
        [T_DURATION] = {{"ms", 1}, {" ms", 1}, {"s", 1000}},
    };
    uint64_t n = ways[s->type][form].n, count = (v + n - 1) / n;
    bool fits = count * n <= s->max;
    out->number = fits ? count * n : v;
    (void)snprintf(out->text, sizeof out->text, "%" PRIu64 "%s", fits ? count : v,
        fits ? ways[s->type][form].unit : s->type == T_DURATION ? "ms" : "");
}

static const char *
beside(const struct setting *s)
{
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        if (strcmp(texts[i].name, s->name) == 0)
            return texts[i].beside;
    return NULL;
}

/* The value for a form: 0 the file, 1 the variable, 2 the flag. */
static struct value
value_of(const struct setting *s, int form)
{
    static const char *const any[] = {"/a", "/b", "/c"}, *const onoff[] = {"on", "off", "yes"},
        *const levels[] = {"debug", "warn", "error"};
    static const uint64_t level_of[] = {LOG_L_DEBUG, LOG_L_WARN, LOG_L_ERROR};
    struct value v = {.number = 0};
    const char *text = any[form];
    switch (s->type) {
    case T_INT:
    case T_SIZE:
    case T_DURATION:
        number_text(s, form, is_pow2_row(s) ? pow2_ceil(least_of(s)) << form : least_of(s) + (uint64_t)form, &v);
        return v;
    case T_BOOL:
        text = onoff[form];
        v.number = form != 1;
        break;
    case T_LEVEL:
        text = levels[form];
        v.number = level_of[form];
        break;
    case T_STR:
    case T_LIST:
        for (size_t i = 0; i < ARRAY_LEN(texts); i++)
            if (strcmp(texts[i].name, s->name) == 0)
                text = texts[i].value[form];
        break;
    default: fail_msg("%s: no values of its type are known here", s->name);
    }
    (void)snprintf(v.text, sizeof v.text, "%s", text);
    return v;
}

static void
assert_value(const struct setting *s, const struct conf *c, const struct value *want)
{
    const uint8_t *at = (const uint8_t *)c + s->at;
    char text[512];
    uint64_t number = 0;
    switch (s->type) {
    case T_INT:
    case T_SIZE:
    case T_DURATION: memcpy(&number, at, sizeof number); break;
    case T_BOOL: number = *(const bool *)at; break;
    case T_LEVEL: number = *(const enum log_level *)at; break;
    case T_STR: assert_string_equal(*(const char *const *)at, want->text); return;
    case T_LIST:
        list_text((const struct conf_list *)at, text, sizeof text);
        assert_string_equal(text, want->text);
        return;
    default: fail_msg("%s: its type is not known here", s->name);
    }
    if (number != want->number)
        fail_msg("%s was written %s and is %" PRIu64, s->name, want->text, number);
}

/* ---- the three forms ---- */

static char path[] = "/tmp/ringcast-test-XXXXXX", variable[128], flag[8192], *flags[2];

static int
setup(void **state)
{
    (void)state;
    memcpy(path + sizeof path - 7, "XXXXXX", 6);
    int fd = mkstemp(path);
    if (fd < 0)
        return -1;
    (void)close(fd);
    start.flags = flags;
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    start.file = NULL;
    start.flags = NULL;
    start.flag_count = 0;
    return unlink(path);
}

/* The entry stands in line 4. */
static void
in_file(const struct setting *s, const char *text)
{
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_true(fprintf(f, "# settings\n\n[%s]\n%s = %s\n", s->section, s->key, text) > 0);
    assert_int_equal(fclose(f), 0);
    start.file = path;
}

static void
in_environment(const struct setting *s, const char *text)
{
    size_t n = (size_t)snprintf(variable, sizeof variable, "RINGCAST_%s_%s", s->section, s->key);
    for (size_t i = 0; i < n; i++)
        variable[i] = (char)toupper((unsigned char)variable[i]);
    assert_int_equal(setenv(variable, text, 1), 0);
}

static void
in_flag(const struct setting *s, const char *text)
{
    (void)snprintf(flag, sizeof flag, "--%s=%s", s->name, text);
    flags[start.flag_count++] = flag;
}

static void
nowhere(const struct setting *s)
{
    start.file = NULL;
    if (variable[0] != '\0')
        (void)unsetenv(variable);
    variable[0] = '\0';
    start.flag_count = 0;
    if (beside(s) != NULL)
        flags[start.flag_count++] = (char *)(uintptr_t)beside(s);
}

static void
in_form(const struct setting *s, int form, const char *text)
{
    if (form == 0)
        in_file(s, text);
    else if (form == 1)
        in_environment(s, text);
    else
        in_flag(s, text);
}

/* What an error or conf_place() says of where it stood. */
static const char *
place_of(const struct setting *s, int form)
{
    static char place[128];
    if (form == 0)
        (void)snprintf(place, sizeof place, "%s:4", path);
    else if (form == 1)
        return variable;
    else
        (void)snprintf(place, sizeof place, "flag --%s", s->name);
    return place;
}

/* Starts with what was put somewhere; the value must be the one of this form, from there. */
static void
expect(const struct setting *s, int form)
{
    struct conf c;
    struct conf_errors all;
    struct value want = value_of(s, form);
    if (!load_all(&c, &all))
        fail_msg("%s = %s: %s", s->name, want.text, all.list[0].text);
    assert_value(s, &c, &want);
    assert_string_equal(conf_place(&c, s->name), place_of(s, form));
    conf_free(&c);
}

static void
every_setting_is_read_in_each_form(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(settings); i++)
        for (int form = 0; form < 3; form++) {
            nowhere(&settings[i]);
            in_form(&settings[i], form, value_of(&settings[i], form).text);
            expect(&settings[i], form);
        }
    nowhere(&settings[0]);
}

static void
a_variable_wins_over_the_file_and_a_flag_over_both(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(settings); i++) {
        const struct setting *s = &settings[i];
        nowhere(s);
        for (int form = 0; form < 3; form++) { /* one over the other */
            in_form(s, form, value_of(s, form).text);
            expect(s, form);
        }
        nowhere(s);
        in_file(s, value_of(s, 0).text);
        in_flag(s, value_of(s, 2).text);
        expect(s, 2);
    }
    nowhere(&settings[0]);
}

/* ---- what is wrong ---- */

struct wrong {
    char text[5000];
};

/* The n-th wrong value for a row; false when there are no more. */
static bool
wrong_value(const struct setting *s, unsigned n, struct wrong *out)
{
    static const char *const words[] = {[T_INT] = "many", [T_SIZE] = "64KB", [T_DURATION] = "5", [T_BOOL] = "maybe",
        [T_LEVEL] = "loud", [T_LIST] = "a,,b"};
    const char *unit = s->type == T_DURATION ? "ms" : "";
    if (s->type == T_STR) { /* too long is all that is wrong with any text */
        memset(out->text, 'a', s->max + 1);
        out->text[s->max + 1] = '\0';
        return n == 0;
    }
    if (n == 0)
        (void)snprintf(out->text, sizeof out->text, "%s", words[s->type]);
    else if (n > 4 || s->type == T_BOOL || s->type == T_LEVEL || s->type == T_LIST)
        return false;
    else if (n == 1)
        (void)snprintf(out->text, sizeof out->text, "%" PRIu64 "%s", s->max + 1, unit);
    else if (n == 2)
        (void)snprintf(out->text, sizeof out->text, "-1%s", unit);
    else if (n == 3)
        (void)snprintf(out->text, sizeof out->text, "99999999999999999999%s", unit);
    else
        (void)snprintf(out->text, sizeof out->text, "%" PRIu64 "%s", s->min - 1, unit);
    return n < 4 || s->min > 0;
}

static void
assert_in(const struct setting *s, const char *text, const char *words)
{
    if (strstr(text, words) == NULL)
        fail_msg("%s: \"%s\" is not in: %s", s->name, words, text);
}

static void
expect_refused(const struct setting *s, int form, const struct wrong *w)
{
    struct conf c;
    struct conf_errors all;
    if (load_all(&c, &all))
        fail_msg("%s = %s passed", s->name, w->text);
    conf_free(&c);
    assert_int_equal(all.n, 1);
    assert_in(s, all.list[0].text, s->name);
    assert_in(s, all.list[0].text, place_of(s, form));
    assert_in(s, all.list[0].text, ": write ");
}

static void
what_is_wrong_is_refused_by_key_place_and_remedy(void **state)
{
    struct wrong w;
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(settings); i++)
        for (int form = 0; form < 3; form++)
            for (unsigned n = 0; wrong_value(&settings[i], n, &w); n++) {
                nowhere(&settings[i]);
                in_form(&settings[i], form, w.text);
                expect_refused(&settings[i], form, &w);
            }
    nowhere(&settings[0]);
}

/* Texts and lists that are right by themselves and not by their rule. */
static void
what_breaks_a_rule_is_refused_likewise(void **state)
{
    static const struct {
        const char *name, *value;
    } cases[] = {
        {"run.dir", "relative"}, {"worker.listen", "8000"}, {"worker.listen", "unix:relative"}, {"worker.cpus", "99999"},
        {"broker.cpus", "one"}, {"worker.recv_buffers", "500"}, {"lane.bytes", "100000"}, {"rate.packet_answer", "shrug"},
        {"bus.order", "shrug"}, {"bus.ack", "shrug"}, {"bus.unconfirmed", "shrug"},
        {"rate.byte_answer", "shrug"}, {"rate.subscribe_answer", "shrug"}, {"rate.connect_answer", "delay"},
        {"http.trusted_proxies", "everybody"}, {"http.client_field", "x-real-ip"}, {"http.origins", "example.com"},
        {"tls.min_version", "1.1"}, {"tls.client_verify", "maybe"}, {"sc.path", "relative"}, {"sc.unserved", "loud"}, {"redis.mode", "big"},
        {"echo.path", "/with?query"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        for (int form = 0; form < 3; form++) {
            const struct setting *s = NULL;
            for (size_t k = 0; k < ARRAY_LEN(settings); k++)
                if (strcmp(settings[k].name, cases[i].name) == 0)
                    s = &settings[k];
            assert_non_null(s);
            struct wrong w;
            (void)snprintf(w.text, sizeof w.text, "%s", cases[i].value);
            nowhere(s);
            in_form(s, form, w.text);
            expect_refused(s, form, &w);
        }
    nowhere(&settings[0]);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_setting_is_read_in_each_form, setup, teardown),
        cmocka_unit_test_setup_teardown(a_variable_wins_over_the_file_and_a_flag_over_both, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_wrong_is_refused_by_key_place_and_remedy, setup, teardown),
        cmocka_unit_test_setup_teardown(what_breaks_a_rule_is_refused_likewise, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
