/* A storm of connections; see storm.h. */
#include "bench/storm.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench/sched.h"
#include "common/bug.h"
#include "common/mono.h"

#define SECOND 1000000000ull

static void
publish_counts(struct storm_shared *s, const struct load *l)
{
    if (s->tls_terms[0] == 0)
        memcpy(s->tls_terms, l->tls_terms, sizeof s->tls_terms);
    atomic_store(&s->refused, l->count.refused + l->count.disconnects);
    atomic_store(&s->secured, l->count.secured);
    atomic_store(&s->resumed, l->count.resumed);
    atomic_store(&s->opened, l->count.opened);
}

/* Turns while the switch stands as it does; then lets go of all that is open. */
static void
blow(struct load *l, struct storm_shared *s, double per_second)
{
    uint64_t start = mono_now().ns, due;
    struct sched sched = sched_make(start, per_second > 0 ? per_second : 1);
    l->storm = true;
    l->storm_timed = per_second > 0;
    l->next_open = 0;
    l->lat = &s->lat;
    l->win0 = start;
    l->win1 = UINT64_MAX;
    while (atomic_load(&s->want) == 1) {
        uint64_t now = mono_now().ns, until = now + SECOND / 50;
        if (l->storm_timed) {
            /* What cannot be opened since all are in use is left out: the count tells. */
            while (sched_take(&sched, now, &due))
                (void)load_open_one(l);
            until = MIN(until, sched.due_ns);
        }
        load_turn(l, until);
        publish_counts(s, l);
    }
}

static NORETURN void
child_main(struct storm_shared *s, const struct load_conf *conf, uint32_t conns, double per_second)
{
    static struct load l;
    int policy = sched_getscheduler(0);
    bool real_time = policy == SCHED_FIFO || policy == SCHED_RR;
    struct sched_param lowest = {.sched_priority = real_time ? 1 : 0};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)sched_setscheduler(0, real_time ? SCHED_RR : SCHED_IDLE, &lowest);
    for (;;) {
        struct timespec nap = {.tv_nsec = 1000000};
        while (atomic_load(&s->want) == 0)
            nanosleep(&nap, NULL);
        load_init(&l, conf, conns, 1);
        for (uint32_t i = 0; i < conns; i++)
            load_set_conn(&l, i, 0, true, false);
        l.count.opened = atomic_load(&s->opened);
        l.count.refused = atomic_load(&s->refused);
        l.count.secured = atomic_load(&s->secured);
        l.count.resumed = atomic_load(&s->resumed);
        atomic_store(&s->is, 1);
        blow(&l, s, per_second);
        load_free(&l);
        atomic_store(&s->is, 0);
    }
}

struct storm
storm_start(const struct load_conf *conf, uint32_t conns, double per_second)
{
    struct storm s;
    s.shared = mmap(NULL, sizeof *s.shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (s.shared == MAP_FAILED)
        die("no memory to share with the storm: %s", strerror(errno));
    hist_reset(&s.shared->lat);
    s.pid = fork();
    if (s.pid < 0)
        die("fork: %s", strerror(errno));
    if (s.pid == 0)
        child_main(s.shared, conf, conns, per_second);
    return s;
}

void
storm_set(struct storm *s, bool on)
{
    uint64_t begin = mono_now().ns;
    struct timespec nap = {.tv_nsec = 200000};
    atomic_store(&s->shared->want, on);
    while (atomic_load(&s->shared->is) != on) {
        if (mono_now().ns - begin > 10 * SECOND || waitpid(s->pid, NULL, WNOHANG) == s->pid)
            die("the storm does not answer");
        nanosleep(&nap, NULL);
    }
}

void
storm_stop(struct storm *s)
{
    kill(s->pid, SIGKILL);
    waitpid(s->pid, NULL, 0);
    munmap(s->shared, sizeof *s->shared);
}
