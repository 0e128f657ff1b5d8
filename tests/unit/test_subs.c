/* worker/subs: which connections of a ring hear which channel, and what the broker is told of it. */
#include "tests/unit/t_worker.h"

/* A connection of its own; clients of these tests say nothing. */
static struct conn *
one(void)
{
    return t_conn(t_open());
}

static enum subs_rc
add(struct conn *c, const char *name)
{
    struct chan *ch;
    enum subs_rc rc = subs_add(t.w, c, view_str(name), &ch);
    if (rc == SUBS_NO_MEMORY)
        return rc;
    assert_ptr_equal(ch, subs_find(t.w, view_str(name)));
    assert_true(view_eq(chan_name(ch), view_str(name)));
    assert_true(subs_has(t.w, c, ch));
    if (rc == SUBS_NEW) { /* as a session does */
        enum error_id why;
        assert_int_equal(link_subscribe(t.w->links, ch->broker, pool_slot(&t.w->chans, ch), ch->head.gen, chan_name(ch),
            NULL, &why), LINK_OK);
        ch->asked = true;
    }
    return rc;
}

static bool
drop(struct conn *c, const char *name)
{
    struct chan *ch = subs_find(t.w, view_str(name));
    return ch != NULL && subs_drop(t.w, c, ch);
}

static bool
has(struct conn *c, const char *name)
{
    struct chan *ch = subs_find(t.w, view_str(name));
    return ch != NULL && subs_has(t.w, c, ch);
}

static const char *
numbered(unsigned i)
{
    static char name[32];
    snprintf(name, sizeof name, "channel-%u", i);
    return name;
}

static void
the_first_subscriber_asks_and_the_last_one_unsubscribes(void **state)
{
    (void)state;
    t_begin();
    struct conn *a = one(), *b = one(), *c = one();
    assert_int_equal(add(a, "x"), SUBS_NEW);
    assert_int_equal(add(a, "x"), SUBS_ALREADY);
    assert_int_equal(add(b, "x"), SUBS_ASKED);
    struct chan *x = subs_find(t.w, VIEW("x"));
    assert_int_equal(x->state, CHAN_ASKED);
    x->state = CHAN_LOST;
    assert_int_equal(add(c, "x"), SUBS_ASKED);
    assert_true(drop(c, "x"));
    x->state = CHAN_HELD;
    assert_int_equal(add(c, "x"), SUBS_HELD);
    assert_int_equal(add(c, "x"), SUBS_ALREADY);
    assert_int_equal(x->sub_count, 3);
    assert_int_equal(t_counter(subscriptions), 3);
    assert_true(drop(a, "x"));
    assert_false(drop(a, "x"));
    assert_true(drop(b, "x"));
    assert_int_equal(t_count(T_UNSUBSCRIBE), 0);
    uint32_t slot = pool_slot(&t.w->chans, x), gen = x->head.gen;
    assert_true(drop(c, "x"));
    assert_null(subs_find(t.w, VIEW("x")));
    assert_int_equal(t_count(T_UNSUBSCRIBE), 1);
    assert_int_equal(t_last(T_UNSUBSCRIBE, NULL)->chan, slot);
    assert_int_equal(t_last(T_UNSUBSCRIBE, NULL)->gen, gen);
    assert_int_equal(t_counter(channels), 0);
}

static void
what_was_never_asked_for_needs_no_unsubscribe(void **state)
{
    (void)state;
    t_begin();
    struct conn *a = one();
    struct chan *ch;
    assert_int_equal(subs_add(t.w, a, VIEW("x"), &ch), SUBS_NEW);
    assert_true(subs_drop(t.w, a, ch));
    assert_int_equal(t.asked_n, 0);
}

static void
names_are_bytes(void **state)
{
    static uint8_t longest[NAME_MAX_BYTES];
    (void)state;
    t_begin();
    struct conn *a = one();
    memset(longest, 'n', sizeof longest);
    const struct view names[] = {
        VIEW(""), VIEW("a"), VIEW("A"), VIEW("a\0"), VIEW("a\0b"), VIEW("\xc3\xa4"), view_of(longest, sizeof longest),
        view_of(longest, sizeof longest - 1),
    };
    struct chan *ch[ARRAY_LEN(names)];
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        assert_int_equal(subs_add(t.w, a, names[i], &ch[i]), SUBS_NEW);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        assert_ptr_equal(subs_find(t.w, names[i]), ch[i]);
        assert_true(view_eq(chan_name(ch[i]), names[i]));
    }
    longest[sizeof longest - 1] = 'm'; /* the name is the channel's own copy */
    assert_null(subs_find(t.w, names[6]));
}

static void
a_connection_finds_all_its_channels_however_many(void **state)
{
    (void)state;
    t_begin();
    struct conn *a = one(), *b = one();
    enum { MANY = 3000 };
    add(b, numbered(7));
    for (unsigned i = 0; i < MANY; i++) {
        assert_int_equal(add(a, numbered(i)), i == 7 ? SUBS_ASKED : SUBS_NEW);
        assert_int_equal(a->has_table, i + 1 > SUBS_INLINE);
        assert_int_equal(a->sub_count, i + 1);
        assert_true(has(a, numbered(i / 2)));
        assert_false(has(a, numbered(i + 1)));
    }
    assert_true(t.w->chan_mask >= MANY - 1); /* buckets grew along */
    for (unsigned i = 0; i < MANY; i++)
        assert_true(has(a, numbered(i)));
    for (unsigned k = 0, i = 0; k < MANY; k++, i = (i + 1237) % MANY) { /* in no order */
        assert_true(drop(a, numbered(i)));
        assert_false(has(a, numbered(i)));
        if (k % 500 == 0)
            for (unsigned later = k + 1, j = (i + 1237) % MANY; later < MANY; later++, j = (j + 1237) % MANY)
                assert_true(has(a, numbered(j)));
    }
    assert_false(a->has_table); /* nothing is kept behind an idle connection */
    assert_int_equal(t_counter(channels), 1);
    assert_true(has(b, numbered(7)));
    assert_int_equal(add(a, "again"), SUBS_NEW);
    assert_false(a->has_table);
}

/* Random subscriptions against a table of truths. */
#define CONNS 40
#define CHANS 60
static bool truth[CONNS][CHANS];
static struct conn *conns[CONNS];

static void
expect_truth(void)
{
    unsigned all = 0, channels = 0;
    for (unsigned k = 0; k < CHANS; k++) {
        struct chan *ch = subs_find(t.w, view_str(numbered(k)));
        unsigned n = 0;
        for (unsigned i = 0; i < CONNS; i++) {
            assert_int_equal(ch != NULL && subs_has(t.w, conns[i], ch), truth[i][k]);
            n += truth[i][k];
        }
        assert_int_equal(ch != NULL, n > 0);
        if (ch == NULL)
            continue;
        assert_int_equal(ch->sub_count, n);
        bool seen[CONNS] = {false};
        for (unsigned i = 0; i < n; i++) { /* each of them once */
            unsigned who = 0;
            while (conns[who] != conn_at(t.w, chan_subs(ch)[i]))
                assert_true(++who < CONNS);
            assert_true(truth[who][k] && !seen[who]);
            seen[who] = true;
        }
        all += n;
        channels++;
    }
    assert_int_equal(t_counter(subscriptions), all);
    assert_int_equal(t_counter(channels), channels);
}

static void
random_changes_keep_both_sides_true(void **state)
{
    uint64_t seed = 20240611, x = seed;
    (void)state;
    memset(truth, 0, sizeof truth);
    t_begin();
    for (unsigned i = 0; i < CONNS; i++)
        conns[i] = one();
    for (unsigned step = 0; step < 40000; step++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        unsigned i = (unsigned)(x >> 33) % CONNS, k = (unsigned)(x >> 45) % CHANS, what = (unsigned)(x >> 55) % 200;
        if (what == 0) {
            subs_drop_all(t.w, conns[i]);
            memset(truth[i], 0, sizeof truth[i]);
        } else if (what == 1 && subs_find(t.w, view_str(numbered(k))) != NULL) {
            subs_drop_chan(t.w, subs_find(t.w, view_str(numbered(k))));
            for (unsigned j = 0; j < CONNS; j++)
                truth[j][k] = false;
        } else if (what < 120) {
            assert_int_equal(add(conns[i], numbered(k)) == SUBS_ALREADY, truth[i][k]);
            truth[i][k] = true;
        } else {
            assert_int_equal(drop(conns[i], numbered(k)), truth[i][k]);
            truth[i][k] = false;
        }
        if (step % 400 == 0)
            expect_truth();
    }
    expect_truth();
    assert_int_equal(t_count(T_SUBSCRIBE) - t_count(T_UNSUBSCRIBE), t_counter(channels));
}

static void
dropping_all_of_one_leaves_the_others_theirs(void **state)
{
    (void)state;
    t_begin();
    for (unsigned held = 0; held <= 200; held = held * 2 + 1) {
        struct conn *a = one(), *b = one();
        for (unsigned i = 0; i < held; i++) {
            add(a, numbered(i));
            if (i % 3 == 0)
                add(b, numbered(i));
        }
        unsigned before = t_count(T_UNSUBSCRIBE);
        subs_drop_all(t.w, a);
        subs_drop_all(t.w, a); /* twice is once */
        assert_int_equal(a->sub_count, 0);
        assert_false(a->has_table);
        for (unsigned i = 0; i < held; i++) {
            assert_false(has(a, numbered(i)));
            assert_int_equal(has(b, numbered(i)), i % 3 == 0);
        }
        assert_int_equal(t_count(T_UNSUBSCRIBE) - before, held - (held + 2) / 3);
        subs_drop_all(t.w, b);
        assert_int_equal(t_counter(channels), 0);
    }
}

static void
dropping_a_channel_drops_it_for_all_and_nothing_else(void **state)
{
    (void)state;
    t_begin();
    struct conn *c[9];
    for (unsigned i = 0; i < ARRAY_LEN(c); i++) {
        c[i] = one();
        add(c[i], "x");
        add(c[i], "y");
    }
    subs_drop_chan(t.w, subs_find(t.w, VIEW("x")));
    assert_null(subs_find(t.w, VIEW("x")));
    assert_int_equal(t_count(T_UNSUBSCRIBE), 1);
    for (unsigned i = 0; i < ARRAY_LEN(c); i++)
        assert_true(has(c[i], "y"));
    assert_int_equal(t_counter(subscriptions), ARRAY_LEN(c));
}

static void
a_message_for_the_former_holder_of_a_slot_is_nobodys(void **state)
{
    (void)state;
    t_begin();
    struct t_client *a = t_open();
    t_subscribe(a, "old");
    t_say_unsubscribe(a, "old");
    t_hears_done(a, a->cid);
    t_subscribe(a, "new");
    struct t_asked *was = t_last(T_SUBSCRIBE, "old"), *is = t_last(T_SUBSCRIBE, "new");
    assert_int_equal(was->chan, is->chan);
    assert_int_not_equal(was->gen, is->gen);
    t_message("old", "1");
    t_message("new", "2");
    t_hears_message(a, "new", "2");
    t_hears_nothing(a);
}

/* The list changes while messages of the turn wait to be handed out. */
static void
who_comes_hears_what_follows_and_who_leaves_what_came_before(void **state)
{
    (void)state;
    t_begin();
    struct t_client *a = t_open(), *b = t_open();
    t_subscribe(a, "x");
    t_message("x", "1");
    add(t_conn(b), "x");
    t_message("x", "2");
    drop(t_conn(a), "x");
    t_message("x", "3");
    t_hears_message(a, "x", "1");
    t_hears_message(a, "x", "2");
    t_hears_nothing(a);
    t_hears_message(b, "x", "2");
    t_hears_message(b, "x", "3");
    t_hears_nothing(b);
}

static void
a_ring_with_as_many_channels_as_it_may_refuses_the_next(void **state)
{
    (void)state;
    t_begin();
    struct t_client *a = t_open(), *b = t_open();
    t_subscribe(a, "x");
    t_subscribe(a, "y");
    uint32_t most = t.w->chans.max;
    assert_int_equal(most, 1u << 22); /* what the handle of a request can name */
    t.w->chans.max = 2;
    t_say_subscribe(b, "z");
    t_hears_failed(b, b->cid, ERR_BROKER_CHANNELS);
    t_subscribe(b, "y");
    t_say_unsubscribe(a, "x");
    t_hears_done(a, a->cid);
    t_subscribe(b, "z");
    t.w->chans.max = most;
}

/* Each allocation of a subscribe fails once; then nothing of it may be left. */
static void
a_subscribe_that_memory_ends_for_never_was(void **state)
{
    static const struct {
        unsigned of_conn, of_chan; /* channels the connection has; subscribers the channel has */
    } cases[] = {{0, 0}, {2, 0}, {3, 0}, {4, 0}, {0, 2}, {0, 4}, {2, 2}, {4, 4}};
    (void)state;
    t_begin();
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct conn *a = one();
        for (unsigned k = 0; k < cases[i].of_conn; k++)
            add(a, numbered(k));
        for (unsigned k = 0; k < cases[i].of_chan; k++)
            add(one(), "x");
        uint64_t before = t_counter(subscriptions), channels = t_counter(channels);
        unsigned failed = 0;
        for (enum subs_rc rc = SUBS_NO_MEMORY; rc == SUBS_NO_MEMORY; failed++) {
            struct chan *ch;
            t_memory_ends(failed + 1);
            rc = subs_add(t.w, a, VIEW("x"), &ch);
            t_memory_ends(0);
            if (rc != SUBS_NO_MEMORY) {
                assert_true(subs_has(t.w, a, ch));
                continue;
            }
            assert_int_equal(t_counter(subscriptions), before);
            assert_int_equal(t_counter(channels), channels);
            assert_int_equal(a->sub_count, cases[i].of_conn);
            assert_false(has(a, "x"));
            if (cases[i].of_chan > 0)
                assert_int_equal(subs_find(t.w, VIEW("x"))->sub_count, cases[i].of_chan);
            for (unsigned k = 0; k < cases[i].of_conn; k++)
                assert_true(has(a, numbered(k)));
        }
        assert_true(failed >= 2); /* each of these needs memory at least once */
        subs_drop_chan(t.w, subs_find(t.w, VIEW("x")));
        subs_drop_all(t.w, a);
    }
}

/* Which bucket a name falls into cannot be known from outside. */
static void
each_ring_hashes_names_with_a_secret_of_its_own(void **state)
{
    struct chan *ch;
    t_begin();
    uint64_t seed = t.w->hash_seed;
    assert_int_equal(subs_add(t.w, one(), VIEW("x"), &ch), SUBS_NEW);
    uint32_t hash = ch->hash;
    t_teardown(state);
    t_setup(state);
    t_begin();
    assert_int_not_equal(t.w->hash_seed, seed);
    t.w->hash_seed = ~seed;
    assert_int_equal(subs_add(t.w, one(), VIEW("x"), &ch), SUBS_NEW);
    assert_int_not_equal(ch->hash, hash);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        T(the_first_subscriber_asks_and_the_last_one_unsubscribes),
        T(what_was_never_asked_for_needs_no_unsubscribe),
        T(names_are_bytes),
        T(a_connection_finds_all_its_channels_however_many),
        T(random_changes_keep_both_sides_true),
        T(dropping_all_of_one_leaves_the_others_theirs),
        T(dropping_a_channel_drops_it_for_all_and_nothing_else),
        T(a_message_for_the_former_holder_of_a_slot_is_nobodys),
        T(who_comes_hears_what_follows_and_who_leaves_what_came_before),
        T(a_ring_with_as_many_channels_as_it_may_refuses_the_next),
        T(a_subscribe_that_memory_ends_for_never_was),
        T(each_ring_hashes_names_with_a_secret_of_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
