#include "common/calls.h"

#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "common/log.h"
#include "common/priv.h"
#include "common/ring.h"

#include "common/banned.h"

#define NUMBERS 1024 /* above any call's */

/* By number, filled before the filter is: the handler may not allocate. */
static char *names[NUMBERS];
static bool deadly[NUMBERS];
static uint64_t refused;

/* The way to answer a refused call from the handler; elsewhere the kernel answers, and names no call. */
#if defined(__x86_64__)
#define ANSWER(uc) ((uc)->uc_mcontext.gregs[REG_RAX])
#define REFUSE SCMP_ACT_TRAP
#elif defined(__aarch64__)
#define ANSWER(uc) ((uc)->uc_mcontext.regs[0])
#define REFUSE SCMP_ACT_TRAP
#else
#define REFUSE SCMP_ACT_ERRNO(EPERM)
#endif

#ifdef ANSWER
/* Runs where the call was made; comes only from there, so log_line meets none of its own work half done: it
 * makes no call that is refused. */
static void
on_refused(int sig, siginfo_t *si, void *context)
{
    ucontext_t *uc = context;
    int nr = si->si_syscall;
    (void)sig;
    if (si->si_code != 1 /* SYS_SECCOMP, which not all headers name */)
        return;
    bool known = nr >= 0 && nr < NUMBERS && names[nr] != NULL;
    bool end = nr >= 0 && nr < NUMBERS && deadly[nr];
    __atomic_fetch_add(&refused, 1, __ATOMIC_RELAXED);
    log_error(end ? "call-forbidden" : "call-refused", "call=%s number=%d %s", known ? names[nr] : "unknown", nr,
        end ? "nothing of ours makes it: this process ends" : "answer=EPERM");
    if (end)
        (void)syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGKILL);
    ANSWER(uc) = -EPERM;
}

static bool
catch_refused(void)
{
    struct sigaction sa = {.sa_sigaction = on_refused, .sa_flags = SA_SIGINFO};
    return sigaction(SIGSYS, &sa, NULL) == 0;
}
#else
static bool
catch_refused(void)
{
    return true;
}
#endif

static void
learn_names(void)
{
    for (int nr = 0; nr < NUMBERS && names[nr] == NULL; nr++)
        names[nr] = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, nr);
#define CALL(who, name, sentence)
#define DEADLY(name)                                                                               \
    {                                                                                              \
        int nr = seccomp_syscall_resolve_name(#name);                                              \
        if (nr >= 0 && nr < NUMBERS)                                                               \
            deadly[nr] = true;                                                                     \
    }
#include "common/tbl/calls.def"
#undef CALL
#undef DEADLY
}

/* Calls that are allowed with these arguments only; with any of several rows. */
static const struct bound {
    const char *name;
    unsigned arg;
    enum scmp_compare how;
    uint64_t a, b;
} bounds[] = {
    {"io_uring_register", 1, SCMP_CMP_EQ, IORING_UNREGISTER_PBUF_RING, 0},
    {"io_uring_register", 1, SCMP_CMP_EQ, IORING_UNREGISTER_RING_FDS, 0},
    {"mmap", 2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0},
    {"mprotect", 2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0},
    {"socket", 0, SCMP_CMP_EQ, AF_UNIX, 0},
    {"openat", 2, SCMP_CMP_MASKED_EQ, O_ACCMODE | O_CREAT | O_TRUNC, 0},
    {"open", 1, SCMP_CMP_MASKED_EQ, O_ACCMODE | O_CREAT | O_TRUNC, 0},
    {"prlimit64", 2, SCMP_CMP_EQ, 0, 0},
    {"prctl", 0, SCMP_CMP_EQ, PR_GET_SECCOMP, 0},
    {"rt_sigaction", 0, SCMP_CMP_EQ, SIGABRT, 0},
};

/* A broker's way to Redis: streams of these families, of their own protocol. Connecting is the ring's. */
static int
allow_streams(scmp_filter_ctx f)
{
    static const int families[] = {AF_UNIX, AF_INET, AF_INET6};
    int rc = 0, nr = seccomp_syscall_resolve_name("socket");
    for (size_t i = 0; rc == 0 && i < ARRAY_LEN(families); i++)
        rc = seccomp_rule_add(f, SCMP_ACT_ALLOW, nr, 3, SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)families[i], 0),
            SCMP_A1(SCMP_CMP_EQ, SOCK_STREAM | SOCK_CLOEXEC, 0), SCMP_A2(SCMP_CMP_EQ, 0, 0));
    return rc;
}

static int
allow(scmp_filter_ctx f, const char *name)
{
    int nr = seccomp_syscall_resolve_name(name);
    if (nr < 0) /* not here, or under another number of the same meaning */
        return 0;
    bool bounded = false;
    int rc = 0;
    for (size_t i = 0; i < ARRAY_LEN(bounds) && rc == 0; i++) {
        const struct bound *b = &bounds[i];
        if (strcmp(b->name, name) != 0)
            continue;
        bounded = true;
        rc = seccomp_rule_add(f, SCMP_ACT_ALLOW, nr, 1,
            (struct scmp_arg_cmp){.arg = b->arg, .op = b->how, .datum_a = b->a, .datum_b = b->b});
    }
    if (bounded)
        return rc;
    if (strcmp(name, "tgkill") == 0)
        return seccomp_rule_add(f, SCMP_ACT_ALLOW, nr, 1, SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid(), 0));
    return seccomp_rule_add(f, SCMP_ACT_ALLOW, nr, 0);
}

static int
fill(scmp_filter_ctx f, enum calls_who who)
{
    int rc = 0;
#define CALL(whose, name, sentence)                                                                \
    if (rc == 0 && (CALLS_##whose & who) != 0)                                                     \
        rc = allow(f, #name);
#define DEADLY(name)
#include "common/tbl/calls.def"
#undef CALL
#undef DEADLY
    return rc == 0 && (who & CALLS_BUS) != 0 ? allow_streams(f) : rc;
}

/* All threads at once; foreign calling conventions end the process; no slower memory (SSBD) for it. */
static int
set_attributes(scmp_filter_ctx f)
{
    int rc = seccomp_attr_set(f, SCMP_FLTATR_CTL_TSYNC, 1);
    if (rc == 0)
        rc = seccomp_attr_set(f, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    if (rc == 0)
        rc = seccomp_attr_set(f, SCMP_FLTATR_CTL_SSB, 1);
    (void)seccomp_attr_set(f, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a binary tree: less to walk for each call */
    return rc;
}

bool
calls_limit(enum calls_who who, const char **why)
{
    static char text[128];
    *why = text;
    if (PRIV_INSTRUMENTED) {
        (void)snprintf(text, sizeof text, "this is a build with sanitizers or coverage, which make calls of their own");
        return false;
    }
    scmp_filter_ctx f = seccomp_init(REFUSE);
    if (f == NULL) {
        (void)snprintf(text, sizeof text, "out of memory, or a kernel without seccomp");
        return false;
    }
    learn_names();
    int rc = set_attributes(f);
    if (rc == 0)
        rc = fill(f, who);
    if (rc == 0)
        rc = catch_refused() ? seccomp_load(f) : -errno;
    seccomp_release(f);
    if (rc != 0)
        (void)snprintf(text, sizeof text, "the kernel does not take the filter: %s", strerror(-rc));
    return rc == 0;
}

unsigned
calls_mode(void)
{
    int mode = prctl(PR_GET_SECCOMP, 0, 0, 0, 0);
    return mode > 0 ? (unsigned)mode : 0;
}

uint64_t
calls_refused(void)
{
    return __atomic_load_n(&refused, __ATOMIC_RELAXED);
}
