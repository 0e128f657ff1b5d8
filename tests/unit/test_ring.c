/* common/ring on the kernel's own io_uring: tags, sets of entries that are full, waits, provided buffers. */
#include "common/ring.h"

#include <errno.h>
#include <sys/socket.h>

#include "common/mono.h"
#include "tests/unit/t_end.h"

enum { OP_A = 7, OP_B = 255 };

/* Completions in the order they came. */
struct seen {
    struct ring_done d[4096];
    unsigned n;
};

static void
note(void *arg, struct ring_done d)
{
    struct seen *s = arg;
    assert_true(s->n < ARRAY_LEN(s->d));
    s->d[s->n++] = d;
}

/* Waits for `want` completions in all; 10 s at most. */
static void
collect(struct ring *r, struct seen *s, unsigned want)
{
    struct mono end = mono_add_ms(mono_now(), 10000);
    while (s->n < want) {
        if (mono_reached(mono_now(), end))
            fail_msg("%u completions of %u came", s->n, want);
        ring_wait(r, 100000000);
        ring_reap(r, note, s);
    }
}

static void
nop(struct ring *r, unsigned op, uint32_t gen, uint32_t slot)
{
    struct io_uring_sqe *sqe = ring_sqe(r);
    io_uring_prep_nop(sqe);
    ring_set_tag(sqe, op, gen, slot);
}

static void
open_ring(struct ring *r, unsigned sq, unsigned cq)
{
    int rc = ring_init(r, sq, cq);
    if (rc < 0)
        fail_msg("no ring: %s", ring_setup_hint(rc));
}

/* ---- tags ---- */

static void
a_tag_carries_operation_generation_and_slot(void **state)
{
    static const struct {
        unsigned op;
        uint32_t gen, slot;
    } t[] = {
        {0, 0, 0}, {OP_A, 1, 2}, {OP_B, RING_GEN_MASK, UINT32_MAX}, {1, 0, UINT32_MAX}, {OP_B, 0, 0}, {0, RING_GEN_MASK, 0},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(t); i++) {
        struct io_uring_cqe cqe = {
            .user_data = ring_tag(t[i].op, t[i].gen, t[i].slot), .res = -5, .flags = IORING_CQE_F_MORE};
        struct ring_done d = ring_done_of(&cqe);
        assert_int_equal(d.op, t[i].op);
        assert_int_equal(d.gen, t[i].gen);
        assert_int_equal(d.slot, t[i].slot);
        assert_int_equal(d.res, -5);
        assert_true(ring_more(d));
        cqe.flags = 0;
        assert_false(ring_more(ring_done_of(&cqe)));
    }
}

static void
a_generation_above_24_bits_never_touches_the_operation(void **state)
{
    (void)state;
    assert_int_equal(ring_tag(3, RING_GEN_MASK + 5, 9), ring_tag(3, 4, 9));
    assert_int_equal(ring_tag(3, UINT32_MAX, 9) >> 56, 3);
}

static void
completions_bring_their_tags_home(void **state)
{
    struct ring r;
    struct seen s = {.n = 0};
    (void)state;
    open_ring(&r, 8, 16);
    nop(&r, OP_A, 1, 100);
    nop(&r, OP_B, RING_GEN_MASK, UINT32_MAX);
    nop(&r, OP_A, 2, 100); /* the same slot, taken again */
    collect(&r, &s, 3);
    assert_int_equal(s.d[0].op, OP_A);
    assert_int_equal(s.d[0].gen, 1);
    assert_int_equal(s.d[0].slot, 100);
    assert_int_equal(s.d[1].op, OP_B);
    assert_int_equal(s.d[1].gen, RING_GEN_MASK);
    assert_int_equal(s.d[1].slot, UINT32_MAX);
    assert_int_equal(s.d[2].gen, 2);
    assert_int_equal(ring_reap(&r, note, &s), 0); /* each is handed out once */
    ring_fini(&r);
}

/* ---- set-up ---- */

static void
a_ring_describes_itself(void **state)
{
    struct ring r;
    (void)state;
    open_ring(&r, 100, 1000); /* the kernel rounds up to powers of two */
    const char *text = ring_describe(&r);
    assert_memory_equal(text, "flags=", 6);
    assert_non_null(strstr(text, " sq=128 cq=1024"));
    assert_non_null(strstr(text, r.can[IORING_OP_SEND_ZC] ? "send_zc=yes" : "send_zc=no"));
    assert_true(r.can[IORING_OP_NOP] && r.can[IORING_OP_RECV] && r.can[IORING_OP_ACCEPT]);
    /* each flag the kernel took is named, and no other */
    assert_int_equal(strstr(text, "DEFER_TASKRUN") != NULL, (r.setup_flags & IORING_SETUP_DEFER_TASKRUN) != 0);
    assert_int_equal(strstr(text, "SINGLE_ISSUER") != NULL, (r.setup_flags & IORING_SETUP_SINGLE_ISSUER) != 0);
    assert_int_equal(strstr(text, "COOP_TASKRUN") != NULL, (r.setup_flags & IORING_SETUP_COOP_TASKRUN) != 0);
    r.setup_flags = 0;
    assert_memory_equal(ring_describe(&r), "flags= restricted=no send_zc=", 29);
    ring_fini(&r);
}

static void
what_cannot_be_set_up_has_a_remedy(void **state)
{
    static const struct {
        int err;
        const char *says;
    } hints[] = {
        {-EPERM, "kernel.io_uring_disabled=0"},
        {EPERM, "seccomp"},
        {-ENOSYS, "Linux 6.1"},
        {-ENOMEM, "ulimit -l"},
        {-EMFILE, "ulimit -n"},
        {-ENFILE, "ulimit -n"},
        {-EINVAL, "Linux 6.1"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(hints); i++)
        if (strstr(ring_setup_hint(hints[i].err), hints[i].says) == NULL)
            fail_msg("%d: %s", hints[i].err, ring_setup_hint(hints[i].err));
}

static void
without_descriptors_there_is_no_ring_and_it_is_said(void **state)
{
    struct rlimit was, none;
    struct ring r;
    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
    none = was;
    none.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    int rc = ring_init(&r, 8, 16);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
    assert_int_equal(rc, -EMFILE);
}

/* ---- entries ---- */

static void
a_full_submission_queue_is_submitted_and_goes_on(void **state)
{
    struct ring r;
    struct seen s = {.n = 0};
    (void)state;
    open_ring(&r, 4, 64);
    for (uint32_t i = 0; i < 40; i++)
        nop(&r, OP_A, 0, i);
    assert_true(r.enters >= 9); /* of 4 entries each */
    collect(&r, &s, 40);
    for (uint32_t i = 0; i < 40; i++)
        assert_int_equal(s.d[i].slot, i);
    ring_fini(&r);
}

/* What does not fit the completion queue is kept by the kernel, which says EBUSY until it is collected. */
static void
more_completions_than_there_is_room_for_are_not_lost(void **state)
{
    struct ring r;
    struct seen s = {.n = 0};
    (void)state;
    open_ring(&r, 4, 8);
    for (uint32_t i = 0; i < 1000; i++)
        nop(&r, OP_A, 0, i);
    collect(&r, &s, 1000);
    bool *came = calloc(1000, sizeof *came);
    assert_non_null(came);
    for (unsigned i = 0; i < s.n; i++) {
        assert_true(s.d[i].slot < 1000 && !came[s.d[i].slot]);
        came[s.d[i].slot] = true;
    }
    free(came);
    ring_fini(&r);
}

/* ---- waiting ---- */

static void
a_wait_ends_at_its_time(void **state)
{
    struct ring r;
    struct seen s = {.n = 0};
    (void)state;
    open_ring(&r, 4, 8);
    struct mono began = mono_now();
    ring_wait(&r, 30000000);
    uint64_t ms = mono_since_ms(mono_now(), began);
    assert_in_range(ms, 29, 5000);
    assert_int_equal(ring_reap(&r, note, &s), 0);
    ring_fini(&r);
}

static void
a_completion_ends_a_wait(void **state)
{
    struct ring r;
    struct seen s = {.n = 0};
    (void)state;
    open_ring(&r, 4, 8);
    nop(&r, OP_A, 0, 1);
    struct mono began = mono_now();
    ring_wait(&r, 60000000000u);
    assert_true(mono_since_ms(mono_now(), began) < 30000);
    assert_int_equal(ring_reap(&r, note, &s), 1);
    ring_fini(&r);
}

static void
a_wait_of_nothing_submits_and_collects(void **state)
{
    struct ring r;
    struct seen s = {.n = 0};
    (void)state;
    open_ring(&r, 4, 8);
    ring_wait(&r, 0); /* with nothing to do it is over at once */
    nop(&r, OP_A, 0, 1);
    uint64_t before = r.enters;
    ring_wait(&r, 0);
    assert_int_equal(r.enters, before + 1);
    assert_int_equal(ring_reap(&r, note, &s), 1);
    ring_fini(&r);
}

/* ---- provided buffers ---- */

#define GROUP 3
#define BUF_BYTES 64

/* A ring with `count` buffers, and a socket pair: what is written to theirs comes in at ours. */
struct bed {
    struct ring r;
    struct ring_bufs b;
    struct seen s;
    int ours, theirs;
};

static void
bed_init(struct bed *t, uint32_t count)
{
    int ends[2];
    memset(t, 0, sizeof *t);
    open_ring(&t->r, 16, 64);
    assert_int_equal(ring_bufs_init(&t->r, &t->b, GROUP, count, BUF_BYTES), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    t->ours = ends[0];
    t->theirs = ends[1];
}

static void
bed_fini(struct bed *t)
{
    close(t->ours);
    close(t->theirs);
    ring_bufs_fini(&t->r, &t->b);
    ring_bufs_fini(&t->r, &t->b); /* twice is once */
    ring_fini(&t->r);
}

static void
arm(struct bed *t)
{
    struct io_uring_sqe *sqe = ring_sqe(&t->r);
    io_uring_prep_recv_multishot(sqe, t->ours, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = GROUP;
    ring_set_tag(sqe, OP_A, 0, 0);
    ring_submit(&t->r);
}

static void
tell(struct bed *t, const char *text)
{
    assert_int_equal(write(t->theirs, text, strlen(text)), strlen(text));
}

static void
bytes_come_in_buffers_of_ours(void **state)
{
    struct bed t;
    (void)state;
    bed_init(&t, 4);
    arm(&t);
    tell(&t, "one");
    collect(&t.r, &t.s, 1);
    tell(&t, "two!");
    collect(&t.r, &t.s, 2);
    const char *want[] = {"one", "two!"};
    for (unsigned i = 0; i < 2; i++) {
        assert_true(t.s.d[i].flags & IORING_CQE_F_BUFFER);
        assert_true(ring_more(t.s.d[i])); /* armed once */
        assert_int_equal(t.s.d[i].res, strlen(want[i]));
        const uint8_t *p = ring_buf_at(&t.b, t.s.d[i].flags);
        assert_true(p >= t.b.mem && p + BUF_BYTES <= t.b.mem + (size_t)4 * BUF_BYTES);
        assert_memory_equal(p, want[i], strlen(want[i]));
    }
    assert_ptr_not_equal(ring_buf_at(&t.b, t.s.d[0].flags), ring_buf_at(&t.b, t.s.d[1].flags));
    bed_fini(&t);
}

static void
a_buffer_that_is_not_given_back_is_not_used_again(void **state)
{
    struct bed t;
    (void)state;
    bed_init(&t, 2);
    arm(&t);
    for (unsigned i = 0; i < 2; i++) {
        tell(&t, "x");
        collect(&t.r, &t.s, i + 1);
    }
    tell(&t, "y");
    collect(&t.r, &t.s, 3);
    assert_int_equal(t.s.d[2].res, -ENOBUFS); /* none left: the receive ends, the byte waits */
    assert_false(ring_more(t.s.d[2]));
    ring_buf_back(&t.b, t.s.d[1].flags);
    assert_int_equal(t.b.given_back, 1);
    arm(&t); /* not published yet, so still none */
    collect(&t.r, &t.s, 4);
    assert_int_equal(t.s.d[3].res, -ENOBUFS);
    ring_bufs_publish(&t.b);
    assert_int_equal(t.b.given_back, 0);
    arm(&t);
    collect(&t.r, &t.s, 5);
    assert_int_equal(t.s.d[4].res, 1);
    assert_ptr_equal(ring_buf_at(&t.b, t.s.d[4].flags), ring_buf_at(&t.b, t.s.d[1].flags));
    assert_int_equal(*ring_buf_at(&t.b, t.s.d[4].flags), 'y');
    bed_fini(&t);
}

/* The kernel's ring of buffers wraps around as often as it likes. */
static void
buffers_go_round_and_round(void **state)
{
    struct bed t;
    (void)state;
    bed_init(&t, 4);
    arm(&t);
    for (unsigned i = 0; i < 1000; i++) {
        char text[16];
        (void)snprintf(text, sizeof text, "%u", i);
        tell(&t, text);
        t.s.n = 0;
        collect(&t.r, &t.s, 1);
        assert_int_equal(t.s.d[0].res, strlen(text));
        assert_memory_equal(ring_buf_at(&t.b, t.s.d[0].flags), text, strlen(text));
        ring_buf_back(&t.b, t.s.d[0].flags);
        ring_bufs_publish(&t.b);
        if (!ring_more(t.s.d[0]))
            arm(&t);
    }
    bed_fini(&t);
}

static void
a_group_is_registered_once(void **state)
{
    struct bed t;
    struct ring_bufs other;
    (void)state;
    bed_init(&t, 4);
    assert_true(ring_bufs_init(&t.r, &other, GROUP, 4, BUF_BYTES) < 0);
    assert_int_equal(ring_bufs_init(&t.r, &other, GROUP + 1, 4, BUF_BYTES), 0);
    ring_bufs_fini(&t.r, &other);
    bed_fini(&t);
}

static void
make_three(void)
{
    struct ring r;
    struct ring_bufs b;
    open_ring(&r, 4, 8);
    (void)!ring_bufs_init(&r, &b, GROUP, 3, BUF_BYTES);
}

static void
three_buffers_are_a_bug(void **state)
{
    (void)state;
    struct ending e = end_of(make_three);
    assert_aborts(&e);
    assert_said(&e, "is_pow2");
}

/* ---- restrictions ---- */

static void
a_restricted_ring_does_what_it_was_started_for_and_nothing_else(void **state)
{
    (void)state;
    static const unsigned char ops[] = {IORING_OP_NOP, IORING_OP_RECV};
    struct ring r;
    struct ring_bufs b;
    struct seen s = {.n = 0};
    assert_int_equal(ring_prepare(&r, 8, 16), 0);
    assert_int_equal(ring_bufs_init(&r, &b, 1, 16, 512), 0);
    assert_int_equal(ring_start(&r, ops, ARRAY_LEN(ops)), 0);
    if (!r.restricted)
        skip();
    assert_non_null(strstr(ring_describe(&r), "restricted=yes"));
    assert_true(r.u.int_flags & 1); /* calls name it by its place among the thread's rings (liburing's INT_FLAG_REG_RING) */
    nop(&r, OP_A, 1, 1);
    struct io_uring_sqe *sqe = ring_sqe(&r);
    io_uring_prep_openat(sqe, -1, "/etc/passwd", 0, 0);
    ring_set_tag(sqe, OP_B, 2, 2);
    collect(&r, &s, 2);
    for (unsigned i = 0; i < s.n; i++)
        assert_int_equal(s.d[i].res, s.d[i].op == OP_A ? 0 : -EACCES);
    /* neither may it be widened, or take another's rights */
    struct io_uring_restriction more = {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_OPENAT};
    assert_true(io_uring_register((unsigned)r.u.ring_fd, IORING_REGISTER_RESTRICTIONS, &more, 1) < 0);
    assert_int_equal(io_uring_register_personality(&r.u), -EACCES);
    ring_bufs_fini(&r, &b);
    ring_fini(&r);
    for (int i = 0; i < 40; i++) { /* its place is given back: a thread has 16 */
        assert_int_equal(ring_prepare(&r, 8, 16), 0);
        assert_int_equal(ring_start(&r, ops, ARRAY_LEN(ops)), 0);
        assert_true(r.u.int_flags & 1);
        ring_fini(&r);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_tag_carries_operation_generation_and_slot),
        cmocka_unit_test(a_generation_above_24_bits_never_touches_the_operation),
        cmocka_unit_test(completions_bring_their_tags_home),
        cmocka_unit_test(a_ring_describes_itself),
        cmocka_unit_test(what_cannot_be_set_up_has_a_remedy),
        cmocka_unit_test(without_descriptors_there_is_no_ring_and_it_is_said),
        cmocka_unit_test(a_full_submission_queue_is_submitted_and_goes_on),
        cmocka_unit_test(more_completions_than_there_is_room_for_are_not_lost),
        cmocka_unit_test(a_wait_ends_at_its_time),
        cmocka_unit_test(a_completion_ends_a_wait),
        cmocka_unit_test(a_wait_of_nothing_submits_and_collects),
        cmocka_unit_test(bytes_come_in_buffers_of_ours),
        cmocka_unit_test(a_buffer_that_is_not_given_back_is_not_used_again),
        cmocka_unit_test(buffers_go_round_and_round),
        cmocka_unit_test(a_group_is_registered_once),
        cmocka_unit_test(three_buffers_are_a_bug),
        cmocka_unit_test(a_restricted_ring_does_what_it_was_started_for_and_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
