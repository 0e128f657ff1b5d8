/* How the processes that stay begin alike, and what they do alike when a signal comes: settings and the
 * number of the process from the command line, the log, signals as a descriptor, the descriptors that a
 * parent handed over, the CPU. Called by the main functions and by who makes a ring. */
#ifndef COMMON_START_H
#define COMMON_START_H

#include "common/conf.h"

struct start {
    unsigned index; /* --worker.index=N, --broker.index=N */
    int signal_fd;  /* SIGTERM, SIGINT, SIGHUP; for start_signal_take */
    int parent_fd;  /* readable once the parent has ended (RINGCAST_PARENT_FD); -1: none */
    int ready_fd;   /* told once by start_ready (RINGCAST_READY_FD); -1: nobody asked */
};

/* First of all. What opens a file while a standard stream is closed gets that stream's number, and the log with it. */
void start_streams(void);
/* Everything above, for "worker" or "broker", and priv_begin. Ends the process with a sentence on what is not right. */
void start_process(struct start *s, struct conf *conf, const char *kind, int argc, char **argv);
/* Tells the parent that the process is up; later calls do nothing. */
void start_ready(struct start *s);
/* Blocks the signals above, and SIGCHLD if asked, and returns a descriptor that brings them; -1 and errno
 * when there is none left. */
int start_signals(bool children);
/* The number of a signal that came; 0 when there is none (any more). */
int start_signal_take(int signal_fd);
/* SIGHUP: settings that may change do, under whoever reads them, the log's among them. What is wrong is
 * logged, a line for each mistake, and then all stays as it was. */
bool start_reload(struct conf *conf);

/* The CPU for the nth of those who are pinned in turn; -1 when the setting is empty. */
int start_cpu(const struct conf_list *cpus, unsigned nth);
/* Pins the calling thread; -1 is nowhere. `setting` is named in the error. */
bool start_pin(int cpu, const char *setting, struct conf_error *err) MUST_CHECK;

#endif
