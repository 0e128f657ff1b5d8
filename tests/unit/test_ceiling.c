/* worker/ceiling: what happens above mem.limit, in the order in which it gets worse. */
#include "tests/unit/t_worker.h"
#include "worker/ceiling.h"

/* The limit becomes so many parts in 1024 of what the process has. */
static void
limit_at(unsigned parts)
{
    t.conf.mem_limit = 0;
    t_pass(200);
    t_turn();
    assert_true(t_counter(memory_bytes) > 1 << 20);
    t.conf.mem_limit = t_counter(memory_bytes) / 1024 * parts;
    t_pass(200);
    t_turn();
}

static void
above_the_limit_nobody_new_is_taken(void **state)
{
    (void)state;
    t_begin();
    struct t_client *old = t_upgraded("/echo", 0);
    limit_at(1000); /* reached, and no more */
    assert_true(ceiling_is_reached(t.w));
    uint64_t refused = t_counter(refused_connections_total);
    struct t_client *fresh = t_connect(0);
    T_UNTIL(({
        t_receive(fresh);
        fresh->ended;
    }));
    assert_true(fresh->in.n > 12 && memcmp(fresh->in.p, "HTTP/1.1 503", 12) == 0);
    assert_int_equal(t_counter(refused_connections_total), refused + 1);
    assert_int_equal(t_closes(CLOSE_MEMORY_LIMIT), 1);
    t_frame(old, WS_TEXT, "on", 2);
    t_hears(old, "on");
    limit_at(2048); /* it is over */
    assert_false(ceiling_is_reached(t.w));
    struct t_client *later = t_upgraded("/echo", 0);
    t_frame(later, WS_TEXT, "in", 2);
    t_hears(later, "in");
}

static void
a_sixteenth_above_it_the_unshaken_end_one_by_one(void **state)
{
    (void)state;
    t_begin();
    struct t_client *shaken = t_open(), *first = t_connect(0), *second = t_connect(0);
    limit_at(1000); /* what the allocator has to give back it gives back now */
    limit_at(920);
    T_UNTIL(t_closes(CLOSE_MEMORY_LIMIT) == 1);
    T_UNTIL(t_conn(first) == NULL);
    assert_non_null(t_conn(second));
    t_pass(200);
    T_UNTIL(t_closes(CLOSE_MEMORY_LIMIT) == 2);
    t_pass(200);
    t_turns(3);
    assert_non_null(t_conn(shaken));
    assert_int_equal(t_closes(CLOSE_MEMORY), 0);
}

static void
an_eighth_above_it_who_holds_most_ends(void **state)
{
    char text[9000] = {0};
    (void)state;
    t_begin();
    struct t_client *holds = t_upgraded("/echo", 0), *idle = t_upgraded("/echo", 0);
    t_frame(holds, WS_BINARY | T_MORE, text, sizeof text);
    t_turns(4);
    limit_at(1000);
    limit_at(700);
    t_hears_close(holds, 1013);
    t_pass(200);
    t_turns(3);
    assert_int_equal(t_closes(CLOSE_MEMORY), 1);
    t_frame(idle, WS_TEXT, "on", 2);
    t_hears(idle, "on");
}

static void
what_the_kernel_does_not_tell_limits_nothing(void **state)
{
    (void)state;
    t_begin();
    ceiling_fini(t.w);
    t.conf.mem_limit = 1;
    t_pass(200);
    t_turn();
    assert_false(ceiling_is_reached(t.w));
    assert_int_equal(t_counter(memory_bytes), 0);
    struct t_client *c = t_upgraded("/echo", 0);
    t_frame(c, WS_TEXT, "on", 2);
    t_hears(c, "on");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        T(above_the_limit_nobody_new_is_taken),
        T(a_sixteenth_above_it_the_unshaken_end_one_by_one),
        T(an_eighth_above_it_who_holds_most_ends),
        T(what_the_kernel_does_not_tell_limits_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
