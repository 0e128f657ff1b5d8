/* Settings files: whatever stands in one, loading it ends with all settings sound or with a
 * sentence. Driven with single values and listen addresses too, by the first byte. */
#include "common/conf.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* A text with an end, since that is what the command line and the environment give. */
static char *
text_of(const uint8_t *data, size_t n)
{
    char *s = xmalloc(n + 1);
    memcpy(s, data, n);
    s[n] = '\0';
    return s;
}

/* The error must be a text that ends, and not an empty one. */
static void
check_error(bool ok, const struct conf_error *err)
{
    size_t n = strnlen(err->text, sizeof err->text);
    BUG_ON(!ok && (n == 0 || n == sizeof err->text));
}

/* A value that was taken must be taken again as it prints. */
static void
check_round_trip(struct conf *c, unsigned i)
{
    char value[VALUE_MAX_BYTES + 1];
    struct conf_error err;
    conf_row_value(c, i, value, sizeof value);
    BUG_ON(rows[i].type != T_LIST && !conf_set(c, rows[i].name, value, "again", &err));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct conf c;
    struct conf_error err = {{0}};
    struct conf_listen l;
    if (n == 0)
        return 0;
    conf_defaults(&c);
    char *text = text_of(data + 1, n - 1);
    unsigned which = data[0];
    if (which < 128) {
        struct conf_errors all = {.n = 0};
        bool ok = load_text(&c, view_of(data + 1, n - 1), "fuzz.conf", &all);
        ok = ok && conf_check(&c, &all);
        BUG_ON(ok != (all.n == 0));
        for (unsigned i = 0; i < MIN(all.n, (unsigned)CONF_ERRORS_MAX); i++)
            check_error(false, &all.list[i]);
    } else if (which < 128 + ARRAY_LEN(rows)) {
        bool ok = conf_set(&c, rows[which - 128].name, text, "fuzz", &err);
        check_error(ok, &err);
        if (ok)
            check_round_trip(&c, which - 128);
    } else if (which < 250) {
        check_error(conf_parse_listen(text, &l, &err), &err);
    } else {
        check_error(conf_set(&c, text, "1", "fuzz", &err), &err);
    }
    free(text);
    conf_free(&c);
    return 0;
}
