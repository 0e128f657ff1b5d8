/* worker/sess: what a client asks and what it is answered, with a stand-in for the brokers. */
#include "tests/unit/t_worker.h"
#include "worker/sess.h"

static void
a_message_reaches_its_subscriber(void **state)
{
    (void)state;
    t_begin();
    struct t_client *a = t_open();
    t_subscribe(a, "news");
    t_message("news", "1");
    t_hears_message(a, "news", "1");
    t_hears_nothing(a);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_message_reaches_its_subscriber),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
