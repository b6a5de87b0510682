/* Where the daemon's log lines go: standard error, one line each, with a limit so that no guest can flood it. */
#ifndef CIS_DAEMON_LOG_H
#define CIS_DAEMON_LOG_H

#include "base/log.h"

/** cis_daemon_log() - a cis_log_fn; @ctx is the name of the process ("keeper", "engine").  Any thread. */
void cis_daemon_log(enum cis_log_level level, const char *text, void *ctx);

/**
 * cis_give_up() - say why this engine cannot go on, and end it: the keeper starts another, which learns from it all that is so
 *
 * For what an engine must not pass over and can report to nobody, such as that there is no memory to hear of a guest.  Any thread.
 */
void cis_give_up(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));

/** cis_daemon_log_tick() - now and then: how many lines were left out, where none has come since that says so. */
void cis_daemon_log_tick(void);

#endif
