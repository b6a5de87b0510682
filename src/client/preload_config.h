/* What the environment asks of libcistern-preload. */
#ifndef CIS_CLIENT_PRELOAD_CONFIG_H
#define CIS_CLIENT_PRELOAD_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

#define CIS_PRELOAD_BLOCKS_MAX 8

enum cis_preload_mode {
	CIS_PRELOAD_AS_MAPPED, /* shared where the program maps shared, else anonymous */
	CIS_PRELOAD_ANONYMOUS,
	CIS_PRELOAD_SHARED,
};

/** struct cis_preload_config - the strings point into @text */
struct cis_preload_config {
	const char *socket; /* NULL: the library does nothing */
	enum cis_preload_mode mode;
	const char *ram[CIS_PRELOAD_BLOCKS_MAX]; /* in the order in which they lie in the memory file */
	size_t nr_ram;
	const char *ignore[CIS_PRELOAD_BLOCKS_MAX];
	size_t nr_ignore;
	char *text;
};

/** cis_preload_config_read() - from the environment.  Return: 0; -EINVAL, -ENOMEM. */
int cis_preload_config_read(struct cis_preload_config *ret, struct cis_error *err);

/**
 * cis_preload_names() - does @name, a path, a folder or "memfd:NAME", name the open file?
 *
 * By device and inode where the path exists, so that links and relative paths do.
 */
bool cis_preload_names(const char *name, int fd);

/**
 * cis_preload_check_arguments() - can a block be meant by this process's arguments?
 *
 * QEMU without a memory backend has RAM that is no file, so nothing would be
 * mapped that could be taken or refused, and the guest would run on empty
 * memory.  Return: 0, or -EINVAL.
 */
int cis_preload_check_arguments(const struct cis_preload_config *config, struct cis_error *err);

/** cis_preload_file_name() - of an open file, for messages and names of memfds; "" when it has none. */
void cis_preload_file_name(int fd, char *buf, size_t room);

#endif
