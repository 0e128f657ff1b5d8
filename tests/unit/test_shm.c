/* common/shm: a segment that passes cannot be taken away, cut or grown under who mapped it; one that
 * could is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/shm.h"

#include <cmocka.h>

#define BYTES 65536u

static void
both_sides_see_the_same_bytes(void **state)
{
    (void)state;
    uint8_t *mine, *theirs;
    int fd = shm_new("test", BYTES, (void **)&mine);
    assert_true(fd >= 0);
    assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    assert_int_equal(shm_attach(fd, BYTES, (void **)&theirs), 0);
    close(fd); /* the mappings stay */
    for (uint32_t i = 0; i < BYTES; i++)
        assert_int_equal(theirs[i], 0);
    mine[BYTES - 1] = 7;
    assert_int_equal(theirs[BYTES - 1], 7);
    theirs[0] = 9;
    assert_int_equal(mine[0], 9);
    shm_unmap(mine, BYTES);
    shm_unmap(theirs, BYTES);
    shm_unmap(NULL, BYTES);
}

static void
nobody_can_cut_or_grow_it_or_lift_the_seals(void **state)
{
    (void)state;
    void *map;
    int fd = shm_new("test", BYTES, &map);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 4096), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(ftruncate(fd, 2 * BYTES), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
    assert_int_equal(errno, EPERM);
    shm_unmap(map, BYTES);
    close(fd);
}

static void
every_seal_is_needed(void **state)
{
    (void)state;
    static const int seals[] = {F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_SEAL};
    for (unsigned set = 0; set < 8; set++) {
        void *map = NULL;
        int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        assert_int_equal(ftruncate(fd, BYTES), 0);
        for (unsigned i = 0; i < 3; i++)
            if (set & 1u << i)
                assert_int_equal(fcntl(fd, F_ADD_SEALS, seals[i]), 0);
        assert_int_equal(shm_attach(fd, BYTES, &map), set == 7 ? 0 : -EINVAL);
        shm_unmap(map, BYTES);
        close(fd);
    }
}

static void
what_is_of_another_size_or_no_segment_is_refused(void **state)
{
    (void)state;
    void *map, *other = NULL;
    int fd = shm_new("test", BYTES, &map), pipes[2];
    assert_true(fd >= 0);
    assert_int_equal(shm_attach(fd, BYTES + 4096, &other), -EINVAL);
    assert_int_equal(shm_attach(fd, BYTES - 4096, &other), -EINVAL);
    assert_int_equal(shm_attach(fd, 0, &other), -EINVAL);
    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(shm_attach(pipes[0], BYTES, &other), -EINVAL);
    assert_int_equal(shm_attach(-1, BYTES, &other), -EBADF);
    assert_null(other);
    close(pipes[0]);
    close(pipes[1]);
    shm_unmap(map, BYTES);
    close(fd);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_sides_see_the_same_bytes),
        cmocka_unit_test(nobody_can_cut_or_grow_it_or_lift_the_seals),
        cmocka_unit_test(every_seal_is_needed),
        cmocka_unit_test(what_is_of_another_size_or_no_segment_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
