/* Files read and written whole at a place in them. */
#ifndef CIS_OS_FILE_H
#define CIS_OS_FILE_H

#include <stddef.h>
#include <stdint.h>

/** cis_fd_write() - all @len bytes, at @at.  Return: 0 or -errno; some may be written then. */
int cis_fd_write(int fd, uint64_t at, const void *bytes, size_t len);

/** cis_fd_read() - up to @len bytes from @at on; @ret: how many, fewer at the end of the file.  Return: 0 or -errno. */
int cis_fd_read(int fd, uint64_t at, void *bytes, size_t len, size_t *ret);

#endif
