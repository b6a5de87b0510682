/* Where the daemon's log lines go: standard error, one line each, with a limit so that no guest can flood it. */
#ifndef CIS_DAEMON_LOG_H
#define CIS_DAEMON_LOG_H

#include "base/log.h"

/** cis_daemon_log() - a cis_log_fn; @ctx is the name of the process ("keeper", "engine").  Any thread. */
void cis_daemon_log(enum cis_log_level level, const char *text, void *ctx);

#endif
