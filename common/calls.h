/* Which system calls a worker or a broker may make once it serves: those of tbl/calls.def. The only pair of
 * files that includes libseccomp. What is refused is a line in the log with the call's name, counted, and
 * EPERM for who made it; what nothing of ours ever does ends the process. Operations of a ring are no system
 * calls: those are bounded by ring_restrict. */
#ifndef COMMON_CALLS_H
#define COMMON_CALLS_H

#include "common/base.h"

enum calls_who { CALLS_WORKER = 1, CALLS_BROKER = 2, CALLS_BOTH = 3, CALLS_BUS = 4 }; /* bits; BUS: a broker that speaks to other servers */

/* From now on, in all threads. No way back. False with a sentence where the kernel does not do it; with
 * sanitizers, which make calls of their own, it says so and does nothing. */
bool calls_limit(enum calls_who who, const char **why) MUST_CHECK;
/* What the kernel says: 2 when the calls of this thread are limited. */
unsigned calls_mode(void);
/* Calls refused so far, in this process. */
uint64_t calls_refused(void);

#endif
