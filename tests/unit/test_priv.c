/* common/priv: who a process becomes, that there is no way back, and what it says of itself. What real
 * workers and brokers hold is seen from outside by tests/e2e/rights.test.mjs. */
#include <setjmp.h>
#include <stdarg.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/priv.h"

#include <cmocka.h>

static struct conf conf;

static int
setup(void **state)
{
    (void)state;
    conf_defaults(&conf);
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    conf_free(&conf);
    return 0;
}

static bool
find(const char *value, struct priv_user *u, struct conf_error *err)
{
    assert_true(conf_set(&conf, "worker.user", value, "the test", err));
    return priv_user_find(u, &conf, "worker.user", false, err);
}

static void
names_and_numbers_are_users(void **state)
{
    (void)state;
    struct priv_user u;
    struct conf_error err;
    if (geteuid() != 0)
        skip();
    assert_true(find("nobody", &u, &err));
    assert_true(u.change);
    assert_string_equal(u.name, "nobody");
    assert_true(find("4711", &u, &err));
    assert_true(u.change && u.uid == 4711 && u.gid == 4711 && u.name[0] == '\0');
    assert_true(find("4711:12", &u, &err));
    assert_true(u.uid == 4711 && u.gid == 12);
    assert_true(find("root", &u, &err));
    assert_false(u.change);
    assert_true(find("", &u, &err)); /* ringcast-worker or nobody */
    assert_true(u.change && u.uid != 0);
}

static void
what_is_no_user_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"no-such-user", "12:", "12:x", "-1", "4294967295", "99999999999", "1 2"};
    struct priv_user u;
    struct conf_error err;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_false(find(bad[i], &u, &err));
        assert_non_null(strstr(err.text, "worker.user is "));
        assert_non_null(strstr(err.text, "adduser"));
    }
}

/* Runs fn in a process of its own, as its thread's group is changed for good. */
static int
alone(int (*fn)(void))
{
    int status;
    pid_t pid = fork();
    if (pid == 0)
        _exit(fn());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static int
refuse_as_other(void)
{
    struct priv_user u;
    struct conf_error err;
    if (setuid(65534) != 0)
        return 1;
    if (!find("", &u, &err) || u.change || u.uid != 65534)
        return 2;
    if (!find("65534", &u, &err) || u.change)
        return 3;
    if (find("4711", &u, &err) || strstr(err.text, "only root can become") == NULL)
        return 4;
    return priv_user_find(&u, &conf, "worker.user", true, &err) && u.uid == 4711 ? 0 : 5;
}

static void
only_root_becomes_another(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    assert_int_equal(alone(refuse_as_other), 0);
}

static struct priv_state seen_by_thread;
static pthread_barrier_t barrier;

static void *
watch(void *arg)
{
    (void)arg;
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier); /* between the two the main thread drops */
    priv_drop_capabilities();
    seen_by_thread = priv_look();
    return NULL;
}

static int
drop_with_a_thread(void)
{
    struct priv_user u = {.change = true, .uid = 4711, .gid = 4712};
    struct conf_error err;
    struct rlimit core;
    pthread_t t;
    pthread_barrier_init(&barrier, NULL, 2);
    priv_begin();
    if (pthread_create(&t, NULL, watch, NULL) != 0)
        return 1;
    pthread_barrier_wait(&barrier);
    bool ok = priv_drop(&u, &conf, &err);
    pthread_barrier_wait(&barrier);
    pthread_join(t, NULL);
    struct priv_state s = priv_look();
    if (!ok || s.user_id != 4711 || s.capabilities != 0 || s.no_new_privs != 1)
        return 2;
    if (seen_by_thread.user_id != 4711 || seen_by_thread.capabilities != 0 || seen_by_thread.no_new_privs != 1)
        return 3;
    if (getgid() != 4712 || getgroups(0, NULL) != 1 || setuid(0) == 0 || setgid(0) == 0)
        return 4;
    if (!PRIV_INSTRUMENTED &&
        (getrlimit(RLIMIT_CORE, &core) != 0 || core.rlim_max != 0 || s.core_dumps != 0 ||
            prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 0))
        return 5;
    return 0;
}

static void
all_threads_give_up_and_there_is_no_way_back(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    assert_int_equal(alone(drop_with_a_thread), 0);
}

static int
drop_but_dump(void)
{
    struct priv_user u = {.change = false, .uid = geteuid(), .gid = getegid()};
    struct conf_error err;
    conf.run_core_dumps = true;
    priv_begin();
    if (!priv_drop(&u, &conf, &err))
        return 1;
    struct priv_state s = priv_look();
    return s.core_dumps == 1 && s.capabilities == 0 && s.no_new_privs == 1 && s.user_id == geteuid() ? 0 : 2;
}

static void
core_dumps_are_a_setting(void **state)
{
    (void)state;
    assert_int_equal(alone(drop_but_dump), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_numbers_are_users),
        cmocka_unit_test(what_is_no_user_is_refused),
        cmocka_unit_test(only_root_becomes_another),
        cmocka_unit_test(all_threads_give_up_and_there_is_no_way_back),
        cmocka_unit_test(core_dumps_are_a_setting),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
