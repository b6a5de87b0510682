#include "daemon/page_stores.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct cis_page_store {
	struct cis_page_store *next;
	char *name;
	struct cis_store *store;
	struct cis_page_user *users;
};

/* Moves are rare, and come with a write of a page each: a list will do. */
static bool moved(void *ctx, const struct cis_key *key, uint32_t from, uint32_t to)
{
	struct cis_page_store *ps = ctx;

	for (struct cis_page_user *u = ps->users; u; u = u->next)
		if (!memcmp(u->ns, key->ns, sizeof(u->ns)))
			return u->moved(u->ctx, key, from, to);
	return false;
}

static void destroy(struct cis_page_store *ps)
{
	if (ps->store)
		cis_store_close(ps->store);
	free(ps->name);
	free(ps);
}

static int create(struct cis_page_stores *s, const char *name, struct cis_page_store **ret, struct cis_error *err)
{
	struct cis_page_store *ps = calloc(1, sizeof(*ps));
	struct cis_pages_opts opts = { .size = sizeof(opts), .moved = moved, .ctx = ps };
	int rc;

	if (!ps || !(ps->name = strdup(name))) {
		free(ps);
		return cis_fail(err, ENOMEM, "store of pages: out of memory");
	}
	rc = cis_pages_open(name, &opts, &ps->store, err);
	if (!rc && cis_store_fd(ps->store) >= 0 && (rc = s->watch(s, cis_store_fd(ps->store))))
		cis_fail(err, -rc, "store of pages: epoll: %s", strerror(-rc));
	if (rc) {
		destroy(ps);
		return rc;
	}
	ps->next = s->first;
	s->first = ps;
	*ret = ps;
	return 0;
}

int cis_page_stores_join(struct cis_page_stores *s, const char *name, struct cis_page_user *user, struct cis_store **ret,
			 struct cis_error *err)
{
	struct cis_page_store *ps = s->first;
	int rc = 0;

	while (ps && strcmp(ps->name, name))
		ps = ps->next;
	if (!ps)
		rc = create(s, name, &ps, err);
	if (rc)
		return rc;
	user->of = ps;
	user->next = ps->users;
	ps->users = user;
	*ret = ps->store;
	return 0;
}

void cis_page_stores_part(struct cis_page_stores *s, struct cis_page_user *user)
{
	struct cis_page_store *ps = user->of, **at = &s->first;
	struct cis_page_user **uat = &ps->users;

	while (*uat != user)
		uat = &(*uat)->next;
	*uat = user->next;
	user->of = NULL;
	if (ps->users)
		return;
	while (*at != ps)
		at = &(*at)->next;
	*at = ps->next;
	destroy(ps);
}

void cis_page_stores_reap(struct cis_page_stores *s)
{
	for (struct cis_page_store *ps = s->first; ps; ps = ps->next)
		cis_store_reap(ps->store);
}
