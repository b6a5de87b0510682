/* What /proc says of processes. */
#ifndef CIS_OS_PROC_H
#define CIS_OS_PROC_H

#include <stdint.h>
#include <sys/types.h>

/**
 * cis_proc_start() - when a process was started, in clock ticks since the machine was
 *
 * With the number it names a process: numbers are used again, but not within a tick.
 * Return: 0; -ESRCH (no such process, or it may not be seen); -EPROTO.
 */
int cis_proc_start(pid_t pid, uint64_t *ret);

#define CIS_BOOT_BYTES 37 /* with its end */

/** cis_proc_boot() - which start of the machine this is, as a UUID. */
int cis_proc_boot(char ret[CIS_BOOT_BYTES]);

#endif
