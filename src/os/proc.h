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

/** cis_proc_cpu() - milliseconds for which a process has run, all its threads together.  Return: as cis_proc_start(). */
int cis_proc_cpu(pid_t pid, uint64_t *ret_ms);

/**
 * cis_proc_pressure() - share of the last ten seconds in which somebody waited for memory, in hundredths of a per cent
 * @fd: of /proc/pressure/memory
 *
 * Return: 0, -EPROTO, or of the read.
 */
int cis_proc_pressure(int fd, unsigned *ret);

#define CIS_BOOT_BYTES 37 /* with its end */

/** cis_proc_boot() - which start of the machine this is, as a UUID. */
int cis_proc_boot(char ret[CIS_BOOT_BYTES]);

#endif
