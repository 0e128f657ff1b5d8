/* common/lane and shm: what is committed is whole and in order, whoever dies or lies. */
#include <setjmp.h>
#include <stdarg.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/lane.h"
#include "common/shm.h"

#include <cmocka.h>

#define BYTES 65536u

static void *
shared_new(size_t n)
{
    void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(p != MAP_FAILED);
    return p;
}

/* A record tells its number and length, and every byte follows from them. */
static uint8_t
byte_at(uint32_t seq, uint32_t i)
{
    return (uint8_t)(seq * 31 + i * 7);
}

static uint32_t
size_for(uint32_t seq)
{
    uint32_t h = seq * 2654435769u;
    return h % 97 == 0 ? h % (BYTES / 4) : h % 300;
}

static bool
put_seq(struct lane *l, uint32_t seq)
{
    uint32_t n = size_for(seq);
    uint8_t *p = lane_put(l, (uint8_t)(1 + seq % 200), 0, (uint16_t)seq, n + 4);
    if (p == NULL)
        return false;
    memcpy(p, &seq, 4);
    for (uint32_t i = 0; i < n; i++)
        p[4 + i] = byte_at(seq, i);
    return true;
}

/* 1 taken, 0 nothing there, -1 not what was put. */
static int
take_seq(struct lane *l, uint32_t *expect)
{
    struct lane_record r;
    const uint8_t *p;
    uint32_t seq;
    enum lane_rc rc = lane_peek(l, &r, &p);
    if (rc != LANE_RECORD)
        return rc == LANE_EMPTY ? 0 : -1;
    memcpy(&seq, p, 4);
    if (seq != *expect || r.n != size_for(seq) + 4 || r.type != 1 + seq % 200 || r.aux != (uint16_t)seq)
        return -1;
    for (uint32_t i = 0; i + 4 < r.n; i++)
        if (p[4 + i] != byte_at(seq, i))
            return -1;
    lane_take(l, &r);
    ++*expect;
    return 1;
}

static void
records_come_out_as_they_went_in(void **state)
{
    struct lane out, in;
    uint32_t put = 0, got = 0;
    void *mem = shared_new(lane_size(BYTES));
    (void)state;
    lane_init(&out, mem, BYTES, true);
    lane_init(&in, mem, BYTES, false);
    while (got < 50000) {
        for (int k = 0; k < 40 && put_seq(&out, put); k++)
            put++;
        (void)!lane_publish(&out);
        for (int rc, k = 0; k < 35 && (rc = take_seq(&in, &got)) != 0; k++)
            assert_int_equal(rc, 1);
        (void)!lane_release(&in);
    }
    munmap(mem, lane_size(BYTES));
}

static void
what_is_not_published_does_not_exist(void **state)
{
    struct lane out, in;
    uint32_t got = 0;
    void *mem = shared_new(lane_size(BYTES));
    (void)state;
    lane_init(&out, mem, BYTES, true);
    lane_init(&in, mem, BYTES, false);
    assert_true(put_seq(&out, 0));
    assert_int_equal(take_seq(&in, &got), 0);
    (void)!lane_publish(&out);
    assert_int_equal(take_seq(&in, &got), 1);
    munmap(mem, lane_size(BYTES));
}

static void
a_full_lane_refuses_and_says_when_there_is_room(void **state)
{
    struct lane out, in;
    uint32_t put = 0, got = 0;
    void *mem = shared_new(lane_size(BYTES));
    (void)state;
    lane_init(&out, mem, BYTES, true);
    lane_init(&in, mem, BYTES, false);
    while (put_seq(&out, put))
        put++;
    (void)!lane_publish(&out);
    assert_true(lane_want_room(&out, size_for(put) + 4));
    while (take_seq(&in, &got) == 1)
        ;
    assert_int_equal(got, put);
    assert_true(lane_release(&in)); /* the producer's bell is to be rung */
    assert_false(lane_release(&in));
    assert_true(put_seq(&out, put));
    assert_null(lane_put(&out, 1, 0, 0, lane_max_payload(BYTES) + 1));
    munmap(mem, lane_size(BYTES));
}

static void
the_largest_record_fits_wherever_the_indices_stand(void **state)
{
    struct lane out, in;
    struct lane_record r;
    const uint8_t *p;
    void *mem = shared_new(lane_size(BYTES));
    (void)state;
    lane_init(&out, mem, BYTES, true);
    lane_init(&in, mem, BYTES, false);
    for (uint32_t step = 0; step < 3 * BYTES; step += 1016) {
        assert_non_null(lane_put(&out, 1, 0, 0, 1000));
        (void)!lane_publish(&out);
        assert_int_equal(lane_peek(&in, &r, &p), LANE_RECORD);
        lane_take(&in, &r);
        (void)!lane_release(&in);
        assert_non_null(lane_put(&out, 2, 0, 0, lane_max_payload(BYTES)));
        (void)!lane_publish(&out);
        assert_int_equal(lane_peek(&in, &r, &p), LANE_RECORD);
        assert_int_equal(r.n, lane_max_payload(BYTES));
        lane_take(&in, &r);
        (void)!lane_release(&in);
    }
    munmap(mem, lane_size(BYTES));
}

static void
a_sleeper_is_rung_once_something_is_there(void **state)
{
    struct lane out, in;
    void *mem = shared_new(lane_size(BYTES));
    (void)state;
    lane_init(&out, mem, BYTES, true);
    lane_init(&in, mem, BYTES, false);
    assert_true(put_seq(&out, 0));
    assert_false(lane_publish(&out)); /* awake: no bell */
    assert_false(lane_sleep(&in));    /* something is there: no sleep */
    uint32_t got = 0;
    assert_int_equal(take_seq(&in, &got), 1);
    assert_true(lane_sleep(&in));
    assert_true(put_seq(&out, 1));
    assert_true(lane_publish(&out));
    lane_awake(&in);
    assert_true(put_seq(&out, 2));
    assert_false(lane_publish(&out));
    munmap(mem, lane_size(BYTES));
}

/* -- two threads, with sleeping: a lost wake-up would end in the alarm -- */

struct pair {
    struct lane out, in;
    int to_consumer[2], to_producer[2];
    uint32_t total;
    int bad;
};

static void
wait_on(int fd)
{
    char c;
    assert_int_equal(read(fd, &c, 1), 1);
}

static void *
consume(void *arg)
{
    struct pair *t = arg;
    uint32_t got = 0;
    while (got < t->total && !t->bad) {
        int rc = take_seq(&t->in, &got);
        if (rc < 0)
            t->bad = 1;
        if (rc != 0)
            continue;
        if (lane_release(&t->in))
            (void)!write(t->to_producer[1], "", 1);
        if (lane_sleep(&t->in)) {
            wait_on(t->to_consumer[0]);
            lane_awake(&t->in);
        }
    }
    return NULL;
}

static void
two_threads_lose_no_record_and_no_wake_up(void **state)
{
    struct pair t = {.total = 200000};
    pthread_t id;
    void *mem = shared_new(lane_size(BYTES));
    (void)state;
    lane_init(&t.out, mem, BYTES, true);
    lane_init(&t.in, mem, BYTES, false);
    assert_int_equal(pipe(t.to_consumer) | pipe(t.to_producer), 0);
    alarm(60);
    pthread_create(&id, NULL, consume, &t);
    for (uint32_t put = 0; put < t.total;) {
        bool full = !put_seq(&t.out, put);
        put += !full;
        if ((full || put % 16 == 0 || put == t.total) && lane_publish(&t.out))
            (void)!write(t.to_consumer[1], "", 1);
        if (full && lane_want_room(&t.out, size_for(put) + 4))
            wait_on(t.to_producer[0]);
    }
    (void)!write(t.to_consumer[1], "", 1); /* the last publish may have come before its last look */
    pthread_join(id, NULL);
    alarm(0);
    assert_int_equal(t.bad, 0);
    munmap(mem, lane_size(BYTES));
}

/* -- a producer that is killed at any instruction leaves whole records or none -- */

static void
a_killed_producer_leaves_no_half_record(void **state)
{
    (void)state;
    uint64_t records = 0;
    for (int round = 0; round < 150; round++) {
        struct lane in;
        void *mem = shared_new(lane_size(BYTES));
        lane_init(&in, mem, BYTES, false);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            struct lane out;
            lane_init(&out, mem, BYTES, true);
            for (uint32_t put = 0;;) {
                put += put_seq(&out, put);
                if (put % 8 == 0)
                    (void)!lane_publish(&out);
            }
        }
        uint32_t got = 0, until = 50 + (uint32_t)(round * 37 % 3000);
        while (got < until) {
            assert_true(take_seq(&in, &got) >= 0);
            (void)!lane_release(&in);
        }
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        int rc;
        while ((rc = take_seq(&in, &got)) != 0)
            assert_int_equal(rc, 1);
        records += got;
        munmap(mem, lane_size(BYTES));
    }
    assert_true(records > 100000);
}

/* -- a producer that lies -- */

struct lie {
    const char *what;
    uint64_t tail;
    struct lane_record r;
};

static void
nonsense_is_told_and_never_followed(void **state)
{
    static const struct lie lies[] = {
        {"tail beyond the lane", BYTES + 8, {.n = 8, .type = 1}},
        {"tail far away", UINT64_MAX - 7, {.n = 8, .type = 1}},
        {"tail not aligned", 12, {.n = 4, .type = 1}},
        {"record longer than what is committed", 16, {.n = 100, .type = 1}},
        {"length that overflows", 16, {.n = UINT32_MAX, .type = 1}},
        {"length that overflows when rounded", 16, {.n = UINT32_MAX - 8, .type = 1}},
        {"record across the end", BYTES, {.n = BYTES, .type = 1}},
        {"filler longer than what is committed", 16, {.n = BYTES - 8, .type = 0}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        struct lane in;
        struct lane_record r;
        const uint8_t *p;
        struct lane_shared *mem = shared_new(lane_size(BYTES));
        lane_init(&in, mem, BYTES, false);
        memcpy(mem->data, &lies[i].r, sizeof lies[i].r);
        atomic_store(&mem->tail, lies[i].tail);
        if (lane_peek(&in, &r, &p) != LANE_CORRUPT)
            fail_msg("%s was believed", lies[i].what);
        munmap(mem, lane_size(BYTES));
    }
}

static void
a_tail_that_goes_back_is_nonsense(void **state)
{
    struct lane out, in;
    struct lane_record r;
    const uint8_t *p;
    uint32_t got = 0;
    struct lane_shared *mem = shared_new(lane_size(BYTES));
    (void)state;
    lane_init(&out, mem, BYTES, true);
    lane_init(&in, mem, BYTES, false);
    assert_true(put_seq(&out, 0));
    (void)!lane_publish(&out);
    assert_int_equal(take_seq(&in, &got), 1);
    atomic_store(&mem->tail, 0);
    assert_int_equal(lane_peek(&in, &r, &p), LANE_CORRUPT);
    munmap(mem, lane_size(BYTES));
}

static void
a_head_that_lies_only_makes_the_lane_look_full(void **state)
{
    struct lane out;
    struct lane_shared *mem = shared_new(lane_size(BYTES));
    (void)state;
    lane_init(&out, mem, BYTES, true);
    uint32_t put = 0;
    while (put_seq(&out, put))
        put++;
    atomic_store(&mem->head, UINT64_MAX / 2);
    assert_false(put_seq(&out, put));
    munmap(mem, lane_size(BYTES));
}

static void
segments_are_sealed_and_of_the_size_they_say(void **state)
{
    void *a, *b;
    (void)state;
    int fd = shm_new("test", 8192, &a);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 0), -1);
    assert_int_equal(ftruncate(fd, 16384), -1);
    assert_int_equal(shm_attach(fd, 8192, &b), 0);
    ((uint8_t *)a)[5000] = 42;
    assert_int_equal(((uint8_t *)b)[5000], 42);
    assert_true(shm_attach(fd, 4096, &b) < 0);
    int open_fd = memfd_create("loose", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(ftruncate(open_fd, 8192), 0);
    assert_true(shm_attach(open_fd, 8192, &b) < 0); /* could be taken away from under us */
    close(open_fd);
    close(fd);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_come_out_as_they_went_in),
        cmocka_unit_test(what_is_not_published_does_not_exist),
        cmocka_unit_test(a_full_lane_refuses_and_says_when_there_is_room),
        cmocka_unit_test(the_largest_record_fits_wherever_the_indices_stand),
        cmocka_unit_test(a_sleeper_is_rung_once_something_is_there),
        cmocka_unit_test(two_threads_lose_no_record_and_no_wake_up),
        cmocka_unit_test(a_killed_producer_leaves_no_half_record),
        cmocka_unit_test(nonsense_is_told_and_never_followed),
        cmocka_unit_test(a_tail_that_goes_back_is_nonsense),
        cmocka_unit_test(a_head_that_lies_only_makes_the_lane_look_full),
        cmocka_unit_test(segments_are_sealed_and_of_the_size_they_say),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
