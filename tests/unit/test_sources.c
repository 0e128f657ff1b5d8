/* broker/sources: own numbers per channel, bounded; who is forgotten is the quietest that has nothing under way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/sources.h"

#include <cmocka.h>

static struct source *
want(struct sources *s, const char *name)
{
    uint32_t hash = 2166136261u;
    for (const char *p = name; *p; p++)
        hash = (hash ^ (uint8_t)*p) * 16777619u;
    return sources_want(s, view_str(name), hash);
}

static void
the_quietest_is_forgotten_and_comes_again_with_a_higher_stretch(void **state)
{
    (void)state;
    struct sources s;
    assert_true(sources_init(&s, 3));
    struct source *a = want(&s, "a"), *b = want(&s, "b"), *c = want(&s, "c");
    assert_int_equal(a->stretch, 1);
    assert_ptr_equal(want(&s, "a"), a);
    uint32_t hash_b = b->hash, hash_a = a->hash;
    sources_said(&s, b, (struct mono){1});
    sources_said(&s, c, (struct mono){2});
    sources_said(&s, a, (struct mono){3});
    sources_marked(&s, c, (struct mono){4}); /* b is older, but a mark is still to follow it */
    assert_false(sources_forgot(&s, c->hash));
    uint32_t hash_c = c->hash;
    struct source *d = want(&s, "d");
    assert_non_null(d);
    assert_int_equal(d->stretch, 2);
    assert_null(sources_find(&s, VIEW("c"), hash_c));
    assert_true(sources_forgot(&s, hash_c));
    assert_ptr_equal(sources_find(&s, VIEW("b"), hash_b), b);
    d->waiting = 1;
    struct source *e = want(&s, "e"); /* b, the oldest with nothing under way */
    assert_non_null(e);
    assert_null(sources_find(&s, VIEW("b"), hash_b));
    assert_ptr_equal(sources_find(&s, VIEW("a"), hash_a), a);
    assert_int_equal(want(&s, "b")->stretch, 4);
    sources_fini(&s);
}

static void
what_has_something_under_way_is_not_forgotten(void **state)
{
    (void)state;
    struct sources s;
    assert_true(sources_init(&s, 3));
    want(&s, "a")->waiting = 1;
    want(&s, "b")->echoes = 1;
    sources_due(&s, want(&s, "c"));
    assert_null(want(&s, "d"));
    assert_int_equal(s.forgotten, 0);
    assert_non_null(sources_due_take(&s));
    assert_non_null(want(&s, "d"));
    sources_fini(&s);
}

static void
a_mark_is_due_once_and_in_order(void **state)
{
    (void)state;
    struct sources s;
    assert_true(sources_init(&s, 8));
    struct source *a = want(&s, "a"), *b = want(&s, "b");
    sources_due(&s, a);
    sources_due(&s, b);
    sources_due(&s, a);
    assert_ptr_equal(sources_due_take(&s), a);
    sources_due(&s, a);
    assert_ptr_equal(sources_due_take(&s), b);
    assert_ptr_equal(sources_due_take(&s), a);
    assert_null(sources_due_take(&s));
    sources_fini(&s);
}

static void
many_names_are_found_while_the_table_grows(void **state)
{
    (void)state;
    struct sources s;
    char name[16];
    assert_true(sources_init(&s, 20000));
    for (unsigned i = 0; i < 20000; i++) {
        (void)snprintf(name, sizeof name, "n%u", i);
        want(&s, name)->last = i;
    }
    for (unsigned i = 0; i < 20000; i++) {
        (void)snprintf(name, sizeof name, "n%u", i);
        assert_int_equal(want(&s, name)->last, i);
    }
    assert_int_equal(s.pool.live, 20000);
    sources_fini(&s);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_quietest_is_forgotten_and_comes_again_with_a_higher_stretch),
        cmocka_unit_test(what_has_something_under_way_is_not_forgotten),
        cmocka_unit_test(a_mark_is_due_once_and_in_order),
        cmocka_unit_test(many_names_are_found_while_the_table_grows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
