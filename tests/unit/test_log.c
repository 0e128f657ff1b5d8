/* Log lines: one write, bounded, escaped, limited per kind, dropped and counted when stderr is
 * full. */
#include "common/log.c"

#include <setjmp.h>
#include <pthread.h>
#include <stdint.h>

#include <cmocka.h>

static int saved_stderr = -1;
static int pipe_out = -1; /* what was written to stderr */

/* Sends stderr into a fresh pipe and starts anew. */
static void
capture(uint32_t rate, enum log_level level)
{
    int fds[2];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    (void)fflush(stderr);
    saved_stderr = dup(STDERR_FILENO);
    assert_int_equal(dup2(fds[1], STDERR_FILENO), STDERR_FILENO);
    (void)close(fds[1]);
    pipe_out = fds[0];
    memset(kinds, 0, sizeof kinds);
    lost = 0;
    log_init("worker.0", level, rate);
}

/* What came since; stderr is as before. The text is static. */
static const char *
captured(void)
{
    static char text[1 << 17];
    size_t n = 0;
    ssize_t got;
    if (saved_stderr >= 0) {
        assert_int_equal(dup2(saved_stderr, STDERR_FILENO), STDERR_FILENO);
        (void)close(saved_stderr);
        saved_stderr = -1;
    }
    if (out_fd != STDERR_FILENO) /* its copy of the pipe would keep us waiting for more */
        (void)close(out_fd);
    out_fd = STDERR_FILENO;
    while ((got = read(pipe_out, text + n, sizeof text - 1 - n)) > 0)
        n += (size_t)got;
    (void)close(pipe_out);
    text[n] = '\0';
    return text;
}

static unsigned
count_lines(const char *text)
{
    unsigned n = 0;
    for (; *text != '\0'; text++)
        n += *text == '\n';
    return n;
}

static void
a_line_has_time_level_speaker_kind_and_pairs(void **state)
{
    (void)state;
    (void)unsetenv("JOURNAL_STREAM");
    capture(0, LOG_L_INFO);
    log_warn("conn-closed", "reason=%s fd=%d", "drain", 7);
    log_thread_name("ring.2");
    log_error("x", "a=1");
    log_thread_name("");
    const char *text = captured();
    assert_non_null(strstr(text, "Z warn worker.0 conn-closed reason=drain fd=7\n"));
    assert_non_null(strstr(text, "Z error worker.0/ring.2 x a=1\n"));
    /* 2026-11-21T04:20:00.123Z */
    assert_true(text[4] == '-' && text[10] == 'T' && text[19] == '.' && text[23] == 'Z');
}

static void
the_journal_gets_priorities(void **state)
{
    (void)state;
    assert_int_equal(setenv("JOURNAL_STREAM", "8:1", 1), 0);
    capture(0, LOG_L_DEBUG);
    log_error("e", "%s", "");
    log_warn("w", "%s", "");
    log_info("i", "%s", "");
    log_debug("d", "%s", "");
    (void)unsetenv("JOURNAL_STREAM");
    assert_string_equal(captured(), "<3>worker.0 e\n<4>worker.0 w\n<6>worker.0 i\n<7>worker.0 d\n");
}

static void
levels_above_the_set_one_are_silent(void **state)
{
    (void)state;
    capture(0, LOG_L_WARN);
    log_info("i", "no");
    log_debug("d", "no");
    log_set_level(LOG_L_DEBUG);
    log_debug("d", "yes");
    log_set_level(LOG_L_INFO);
    const char *text = captured();
    assert_null(strstr(text, "no"));
    assert_non_null(strstr(text, "yes"));
}

static void
a_kind_above_its_rate_is_counted_and_said_later(void **state)
{
    (void)state;
    capture(3, LOG_L_INFO);
    /* the second may turn while this runs, so far more lines than two seconds allow */
    for (unsigned i = 0; i < 1000; i++)
        log_info("flood", "i=%u", i);
    log_info("other", "is not affected");
    uint64_t kept_back = kind_find("flood")->suppressed;
    assert_true(kept_back >= 900);
    kind_find("flood")->second = 0; /* the next second */
    log_info("flood", "again");
    const char *text = captured();
    assert_in_range(count_lines(text), 5, 11);
    assert_non_null(strstr(text, "other is not affected"));
    char want[64];
    (void)snprintf(want, sizeof want, "flood suppressed=%" PRIu64 " again", kept_back);
    assert_non_null(strstr(text, want));
    assert_int_equal(log_lost(), 0);
}

static void
more_kinds_than_the_table_holds_are_still_logged(void **state)
{
    char kind[24];
    (void)state;
    capture(0, LOG_L_INFO);
    for (unsigned i = 0; i < 4 * KINDS; i++) {
        (void)snprintf(kind, sizeof kind, "kind-%u", i);
        log_info(kind, "x");
    }
    assert_int_equal(count_lines(captured()), 4 * KINDS);
}

static void
a_line_is_cut_at_its_bound_and_stays_one_line(void **state)
{
    static char huge[5000];
    (void)state;
    memset(huge, 'a', sizeof huge - 1);
    capture(0, LOG_L_INFO);
    log_info("long", "v=%s", huge);
    log_info("odd", "v=%s", "a\nb\tc\x1b[0m\x7f");
    const char *text = captured();
    const char *end = strchr(text, '\n');
    assert_non_null(end);
    assert_int_equal(end - text + 1, LINE_MAX_BYTES);
    assert_memory_equal(end - 3, "...", 3);
    assert_non_null(strstr(end, "v=a?b?c?[0m?\n"));
}

static void
a_full_pipe_costs_lines_and_never_time(void **state)
{
    (void)state;
    capture(0, LOG_L_INFO);
    int size = fcntl(pipe_out, F_SETPIPE_SZ, 4096);
    struct mono before = mono_now();
    for (unsigned i = 0; i < 500; i++)
        log_info("fill", "%0200d", 0);
    assert_true(mono_since_ms(mono_now(), before) < 5000);
    assert_true(size < 0 || log_lost() > 400);
    unsigned lines = count_lines(captured());
    assert_int_equal(lines + log_lost(), 500);
}

static void
a_reader_that_is_gone_ends_nobody(void **state)
{
    (void)state;
    capture(0, LOG_L_INFO);
    (void)close(pipe_out);
    log_info("nobody", "hears");
    assert_int_equal(log_lost(), 1);
    int none = open("/dev/null", O_RDONLY | O_CLOEXEC);
    pipe_out = none;
    (void)captured();
}

static void
what_peers_sent_is_quoted_escaped_and_bounded(void **state)
{
    uint8_t bytes[65];
    (void)state;
    assert_string_equal(log_quote(VIEW("chat:1")).s, "\"chat:1\"");
    assert_string_equal(log_quote(VIEW("a\"b\\\n\xff")).s, "\"a\\x22b\\x5c\\x0a\\xff\"");
    assert_string_equal(log_quote(VIEW_NONE).s, "\"\"");
    memset(bytes, 0, sizeof bytes);
    struct log_quoted q = log_quote(view_of(bytes, 64));
    assert_int_equal(strlen(q.s), 64 * 4 + 2);
    q = log_quote(view_of(bytes, 65));
    assert_int_equal(strlen(q.s), 64 * 4 + 5);
    assert_string_equal(q.s + strlen(q.s) - 4, "\"...");
}

static void *
shout(void *arg)
{
    log_thread_name(arg);
    for (unsigned i = 0; i < 50; i++)
        log_info("shout", "i=%u", i);
    return NULL;
}

static void
threads_do_not_mix_their_lines(void **state)
{
    static char names[4][8] = {"ring.0", "ring.1", "ring.2", "ring.3"};
    pthread_t id[4];
    (void)state;
    capture(0, LOG_L_INFO);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&id[i], NULL, shout, names[i]), 0);
    for (unsigned i = 0; i < 4; i++)
        (void)pthread_join(id[i], NULL);
    const char *text = captured();
    assert_int_equal(count_lines(text) + log_lost(), 200);
    for (const char *p = text, *nl; (nl = strchr(p, '\n')) != NULL; p = nl + 1) {
        assert_memory_equal(p + 23, "Z info worker.0/ring.", 21);
        assert_memory_equal(p + 45, " shout i=", 9);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_has_time_level_speaker_kind_and_pairs),
        cmocka_unit_test(the_journal_gets_priorities),
        cmocka_unit_test(levels_above_the_set_one_are_silent),
        cmocka_unit_test(a_kind_above_its_rate_is_counted_and_said_later),
        cmocka_unit_test(more_kinds_than_the_table_holds_are_still_logged),
        cmocka_unit_test(a_line_is_cut_at_its_bound_and_stays_one_line),
        cmocka_unit_test(a_full_pipe_costs_lines_and_never_time),
        cmocka_unit_test(a_reader_that_is_gone_ends_nobody),
        cmocka_unit_test(what_peers_sent_is_quoted_escaped_and_bounded),
        cmocka_unit_test(threads_do_not_mix_their_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
