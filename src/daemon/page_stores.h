/*
 * The stores that a shard writes pages to: one handle for each name, and who has a namespace in it.
 *
 * All of it is of the shard's thread.  A handle is open as long as somebody uses it: an engine that follows, and has to lock what this
 * one writes to, finds it closed when all guests stand still.
 */
#ifndef CIS_DAEMON_PAGE_STORES_H
#define CIS_DAEMON_PAGE_STORES_H

#include "store/store.h"

/**
 * struct cis_page_user - a namespace; the caller's, zeros to begin with
 * @moved: as in struct cis_pages_opts, of this namespace
 */
struct cis_page_user {
	uint64_t ns[2];
	bool (*moved)(void *ctx, const struct cis_key *key, uint32_t from, uint32_t to);
	void *ctx;

	/* ours */
	struct cis_page_store *of;
	struct cis_page_user *next;
};

/**
 * struct cis_page_stores - zeros to begin with
 * @watch: have the thread call cis_page_stores_reap() when @fd is readable, as long as that is open; 0 or -errno
 */
struct cis_page_stores {
	int (*watch)(struct cis_page_stores *s, int fd);
	struct cis_page_store *first;
};

/**
 * cis_page_stores_join() - use a store, which is opened if nobody does yet
 * @user: no user of any; until cis_page_stores_part()
 * @ret:  the handle
 *
 * Return: 0 or -errno.
 */
int cis_page_stores_join(struct cis_page_stores *s, const char *name, struct cis_page_user *user, struct cis_store **ret,
			 struct cis_error *err);

/** cis_page_stores_part() - nothing of it is in flight; not from within a call of the store.  With the last one the handle is closed. */
void cis_page_stores_part(struct cis_page_stores *s, struct cis_page_user *user);

void cis_page_stores_reap(struct cis_page_stores *s);

#endif
