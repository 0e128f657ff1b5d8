/* broker/rtopic: many names, found, in lists, gone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "broker/rtopic.h"

#define MANY 5000u

static struct view
name(unsigned i)
{
    static char text[16];
    return view_of(text, (size_t)snprintf(text, sizeof text, "topic %u", i));
}

static void
topics_are_found_until_they_go(void **state)
{
    struct rtopics t;
    (void)state;
    assert_true(rtopics_init(&t, 42));
    for (unsigned i = 0; i < MANY; i++)
        assert_non_null(rtopic_add(&t, name(i), (uint16_t)i));
    for (unsigned i = 0; i < MANY; i += 2)
        rtopic_free(&t, rtopic_find(&t, name(i)));
    assert_int_equal(t.count, MANY / 2);
    for (unsigned i = 0; i < MANY; i++) {
        const struct rtopic *x = rtopic_find(&t, name(i));
        assert_int_equal(x != NULL, i % 2);
        assert_true(x == NULL || (x->slot == i && view_eq(rtopic_name(x), name(i)) && x->state == RTOPIC_IDLE));
    }
    assert_null(rtopic_find(&t, VIEW_NONE));
    rtopics_fini(&t);
}

static void
a_name_has_a_bound(void **state)
{
    static uint8_t longest[UINT16_MAX + 1];
    struct rtopics t;
    (void)state;
    assert_true(rtopics_init(&t, 1));
    assert_null(rtopic_add(&t, view_of(longest, sizeof longest), 0));
    assert_non_null(rtopic_add(&t, view_of(longest, sizeof longest - 1), 0));
    rtopics_fini(&t);
}

static void
a_list_loses_any_of_its_topics(void **state)
{
    struct rtopics t;
    struct rtopic *head = NULL, *x[3];
    (void)state;
    assert_true(rtopics_init(&t, 1));
    for (unsigned i = 0; i < 3; i++) {
        x[i] = rtopic_add(&t, name(i), 0);
        rtopic_link(&head, x[i]);
    }
    rtopic_unlink(&head, x[1]);
    assert_true(head == x[2] && x[2]->next == x[0] && x[0]->prev == x[2]);
    rtopic_unlink(&head, x[2]);
    assert_true(head == x[0] && x[0]->prev == NULL);
    rtopic_unlink(&head, x[0]);
    assert_null(head);
    rtopics_fini(&t);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(topics_are_found_until_they_go),
        cmocka_unit_test(a_name_has_a_bound),
        cmocka_unit_test(a_list_loses_any_of_its_topics),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
