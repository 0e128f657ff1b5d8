/* proto/plain: what others publish at Redis, as JSON for our clients. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include "proto/plain.h"

#include <cmocka.h>

static const struct {
    const char *in, *out; /* NULL: refused */
} cases[] = {
    {"hello", "\"hello\""},
    {"", "\"\""},
    {"42", "42"},
    {"{\"a\": [1, null]}", "{\"a\": [1, null]}"},
    {" true ", " true "},
    {"\"x\"", "\"x\""},
    {"{\"a\":", "\"{\\\"a\\\":\""},
    {"line\nbreak \"q\" \xc3\xa9", "\"line\\nbreak \\\"q\\\" \xc3\xa9\""},
    {"/o:{\"a\":1}", "{\"a\":1}"},
    {"/s:hello", "\"hello\""},
    {"/s:42", "\"42\""},
    {"/s:", "\"\""},
    {"0c1f-2_A/o:[1]", "[1]"},
    {"0c1f-2_A/s:a/o:b", "\"a/o:b\""},
    {"/o:hello", NULL},
    {"/o:", NULL},
    {"/x:1", "\"/x:1\""},
    {"a b/s:1", "\"a b/s:1\""},
    {"http://s:1", "\"http://s:1\""},
    {"\xff", NULL},
    {"/s:\xc3", NULL},
    {"[[[[[[1]]]]]]", NULL}, /* deeper than 5 */
};

static void
what_comes_is_json_or_a_string(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct buf out = buf_make(1000);
        bool ok = plain_decode(view_str(cases[i].in), 5, &out);
        if (ok != (cases[i].out != NULL) || (ok && !view_eq(buf_view(&out), view_str(cases[i].out))))
            fail_msg("%s becomes %.*s", cases[i].in, VIEW_FMT(buf_view(&out)));
        buf_free(&out);
    }
}

static void
what_does_not_fit_is_refused(void **state)
{
    (void)state;
    struct buf out = buf_make(10);
    assert_false(plain_decode(VIEW("nine chars, and more"), 5, &out));
    buf_free(&out);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_comes_is_json_or_a_string),
        cmocka_unit_test(what_does_not_fit_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
