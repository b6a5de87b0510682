/* Descriptors that were left behind, by name. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "daemon/keep.h"
#include "daemon/keep_exec.h"

#define LISTEN_FIRST 3 /* sd_listen_fds(3) */

int names_add(struct keep_names *n, const char *name, int fd, unsigned where)
{
	struct keep_name *more;

	if (n->nr == n->room) {
		more = realloc(n->names, (n->room * 2 + 64) * sizeof(*more));
		if (!more) {
			close(fd);
			return -ENOMEM;
		}
		n->names = more;
		n->room = n->room * 2 + 64;
	}
	snprintf(n->names[n->nr].name, KEEP_NAME_BYTES, "%s", name);
	n->names[n->nr].fd = fd;
	n->names[n->nr++].where = where;
	return 0;
}

static int compare(const void *a, const void *b)
{
	return strcmp(((const struct keep_name *)a)->name, ((const struct keep_name *)b)->name);
}

void names_sort(struct keep_names *n)
{
	if (n->nr)
		qsort(n->names, n->nr, sizeof(*n->names), compare);
}

void names_join(struct keep_names *n, struct keep_names *more)
{
	size_t nr = n->nr;

	for (size_t i = 0; i < more->nr; i++) {
		struct keep_names had = { .names = n->names, .nr = nr };
		struct keep_name *at = &more->names[i];

		if (names_find(&had, at->name))
			close(at->fd);
		else if (names_add(n, at->name, at->fd, at->where))
			cis_log(CIS_LOG_ERROR, "keeper: %s: no memory for it", at->name);
	}
	free(more->names);
	*more = (struct keep_names){ 0 };
	names_sort(n);
}

struct keep_name *names_find(struct keep_names *n, const char *name)
{
	struct keep_name key;

	snprintf(key.name, sizeof(key.name), "%s", name);
	return n->nr ? bsearch(&key, n->names, n->nr, sizeof(*n->names), compare) : NULL;
}

void names_fini(struct keep_names *n)
{
	for (size_t i = 0; i < n->nr; i++)
		if (n->names[i].fd >= 0)
			close(n->names[i].fd);
	free(n->names);
	*n = (struct keep_names){ 0 };
}

int names_inherit_one(struct keep_names *n, const char *name, int from, unsigned where)
{
	int fd = fcntl(from, F_DUPFD_CLOEXEC, KEEP_FREE_FROM), r = fd < 0 ? -errno : names_add(n, name, fd, where);

	if (r)
		cis_log(CIS_LOG_ERROR, "keeper: descriptor %d, '%s', that was handed over cannot be taken: %s", from, name, strerror(-r));
	return r;
}

/* LISTEN_FDS descriptors from 3 on, their names in LISTEN_FDNAMES between colons; for the process LISTEN_PID only. */
static void from_manager(struct keep_names *n)
{
	const char *pid = getenv("LISTEN_PID"), *nr = getenv("LISTEN_FDS"), *name = getenv("LISTEN_FDNAMES");
	int count = pid && nr && atoi(pid) == getpid() ? atoi(nr) : 0;
	char copy[KEEP_NAME_BYTES];

	for (int i = 0; i < count; i++) {
		size_t len = name ? strcspn(name, ":") : 0;

		snprintf(copy, sizeof(copy), "%.*s", (int)len, len ? name : "");
		if (!names_inherit_one(n, copy, LISTEN_FIRST + i, KEEP_IS_STORED))
			close(LISTEN_FIRST + i);
		name = name && name[len] ? name + len + 1 : NULL;
	}
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
}

int names_inherit(struct keep_names *n)
{
	from_manager(n);
	return keep_exec_names(n);
}
