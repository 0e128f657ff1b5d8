/* What a service manager wants to hear: sd_notify's protocol, spoken by hand. Silent when nobody
 * listens ($NOTIFY_SOCKET unset). */
#ifndef DEPLOY_RINGCAST_NOTIFY_H
#define DEPLOY_RINGCAST_NOTIFY_H

#include "common/base.h"

/* "READY=1", "STOPPING=1", "STATUS=...", "WATCHDOG=1"; several with newlines between. */
void notify_send(const char *text);
/* How often WATCHDOG=1 is wanted, in milliseconds (half the manager's patience); 0: not at all. */
uint64_t notify_watchdog_ms(void);

#endif
