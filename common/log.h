/* Lines for people, on stderr: "<N>" priority as journald reads it when stderr is the journal, then
 * key=value pairs. Never blocks and never ends the process: a line that stderr can't take now is
 * counted and said later. Safe from any thread. Text that came from a peer goes through log_quote.
 */
#ifndef COMMON_LOG_H
#define COMMON_LOG_H

#include "common/base.h"
#include "common/view.h"

enum log_level { LOG_L_ERROR, LOG_L_WARN, LOG_L_INFO, LOG_L_DEBUG };

/* Who speaks: "worker.0", "broker.1", "run". Call once at start-up; threads may add a suffix with
 * log_thread_name ("ring.2"). Copied. */
void log_init(const char *who, enum log_level level, uint32_t lines_per_second);
void log_thread_name(const char *name);
void log_set_level(enum log_level level);
void log_set_rate(uint32_t lines_per_second);
extern enum log_level log_level_now;

/* One line: log_line(LOG_L_WARN, "conn-closed", "reason=%s fd=%d", ...). `what` names the kind of
 * line (lower case, dashes) and is the unit of rate limiting: above log.rate per second lines of
 * the kind are counted, and the count is said with the next one. A line is at most 1024 bytes, cut
 * with "...". */
void log_line(enum log_level level, const char *what, const char *fmt, ...) PRINTF(3, 4);

#define log_error(what, ...) log_line(LOG_L_ERROR, what, __VA_ARGS__)
#define log_warn(what, ...) log_line(LOG_L_WARN, what, __VA_ARGS__)
#define log_info(what, ...) log_line(LOG_L_INFO, what, __VA_ARGS__)
#define log_debug(what, ...)                                                                       \
    do {                                                                                           \
        if (UNLIKELY(__atomic_load_n(&log_level_now, __ATOMIC_RELAXED) >= LOG_L_DEBUG))            \
            log_line(LOG_L_DEBUG, what, __VA_ARGS__);                                              \
    } while (0)

/* Peer-supplied bytes as a quoted, escaped, bounded text: up to 64 bytes of v, "..." if cut. */
struct log_quoted {
    char s[64 * 4 + 8];
};
struct log_quoted log_quote(struct view v);

/* Lines lost because stderr could not take them, since start. */
uint64_t log_lost(void);

#endif
