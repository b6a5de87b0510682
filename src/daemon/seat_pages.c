/* A seat and the store that its guest's pages go to: opened while the guest is served, and tried again where that fails. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "daemon/shard_int.h"
#include "store/seal.h"

#define RETRY_NS 1000000000u

static bool moved(void *ctx, const struct cis_key *key, uint32_t from, uint32_t to)
{
	struct cis_seat *seat = ctx;

	return cis_pager_moved(seat->pager, key, from, to);
}

void cis_seat_part_pages(struct cis_seat *seat)
{
	bool idle = !seat->page_user.of || cis_pager_part(seat->pager);

	assert(idle);
	if (seat->sealed)
		cis_store_close(seat->sealed);
	seat->sealed = NULL;
	if (seat->page_user.of)
		cis_page_stores_part(&seat->shard->page_stores, &seat->page_user);
	seat->reclaim.pages = NULL;
	seat->pages_ns = 0;
}

/* Drawn when it is needed first.  An engine that is killed before it says that there is one has sealed nothing with it. */
static int draw_key(struct cis_state_header *h, struct cis_error *err)
{
	uint8_t key[sizeof(h->key)];

	if (__atomic_load_n(&h->has_key, __ATOMIC_ACQUIRE))
		return 0;
	if (getrandom(key, sizeof(key), 0) != sizeof(key))
		return cis_fail(err, EIO, "no random numbers for a key: %s", strerror(errno));
	memcpy(h->key, key, sizeof(key));
	explicit_bzero(key, sizeof(key));
	__atomic_store_n(&h->has_key, 1, __ATOMIC_RELEASE);
	return 0;
}

static int seal(struct cis_seat *seat, struct cis_error *err)
{
	int rc = draw_key(seat->header, err);

	if (!rc)
		rc = cis_sealed_open(seat->reclaim.pages, seat->header->key, &seat->sealed, err);
	if (!rc)
		seat->reclaim.pages = seat->sealed;
	return rc;
}

static int join(struct cis_seat *seat, struct cis_error *err)
{
	const char *inner = cis_pages_sealed_in(seat->pages);
	int rc;

	seat->page_user = (struct cis_page_user){ .ns = { seat->reclaim.ns[0], seat->reclaim.ns[1] }, .moved = moved, .ctx = seat };
	rc = cis_page_stores_join(&seat->shard->page_stores, inner ? inner : seat->pages, &seat->page_user, &seat->reclaim.pages, err);
	if (rc)
		return rc;
	if (inner)
		rc = seal(seat, err);
	if (!rc)
		rc = cis_pager_reclaim(seat->pager, &seat->reclaim, err);
	if (rc)
		cis_seat_part_pages(seat);
	return rc;
}

/* The pager goes by its stash alone meanwhile. */
void cis_seat_open_pages(struct cis_seat *seat)
{
	struct cis_error err;

	if (!seat->pages || seat->page_user.of)
		return;
	if (!join(seat, &err)) {
		seat->pages_ns = 0;
		seat->pages_told = false;
		return;
	}
	seat->pages_ns = cis_now_ns(NULL) + RETRY_NS;
	if (!seat->pages_told)
		cis_seat_notify(seat, &(struct cis_notice){ .type = CIS_NOTICE_TROUBLE, .what = CIS_TROUBLE_PUT, .err = err });
	seat->pages_told = true;
}

static int part_for_good(struct cis_seat *seat, struct cis_error *err)
{
	uint64_t far = cis_pager_far(seat->pager);

	if (far)
		return cis_fail(err, EBUSY, "%llu of its pages are in another store of pages: it can change when none is",
				(unsigned long long)far);
	if (seat->page_user.of && !cis_pager_part(seat->pager))
		return cis_fail(err, EBUSY, "pages of it are being deleted from the store that it had: try again");
	cis_seat_part_pages(seat);
	return 0;
}

int cis_seat_change_pages(struct cis_seat *seat, const struct cis_reclaim_opts *opts, const char *pages, struct cis_error *err)
{
	struct cis_reclaim_opts to = *opts, was = seat->reclaim;
	char *name, *old = seat->pages;
	bool same = !strcmp(pages, old ? old : "");
	int rc;

	if (same) {
		to.pages = seat->reclaim.pages;
		rc = cis_pager_reclaim(seat->pager, &to, err);
		if (!rc)
			seat->reclaim = to;
		return rc;
	}
	name = *pages ? strdup(pages) : NULL;
	if (*pages && !name)
		return cis_fail(err, ENOMEM, "out of memory for the name of a store");
	rc = part_for_good(seat, err);
	if (rc) {
		free(name);
		return rc;
	}
	seat->reclaim = to;
	seat->pages = name;
	rc = name ? join(seat, err) : cis_pager_reclaim(seat->pager, &to, err);
	if (rc) {
		seat->reclaim = was;
		seat->reclaim.pages = NULL;
		seat->pages = old;
		cis_seat_open_pages(seat);
		free(name);
		return rc;
	}
	free(old);
	return 0;
}

bool cis_seat_forget_pages(struct cis_seat *seat, struct cis_error *err)
{
	int rc;

	if (!seat->pages)
		return true;
	if (!seat->page_user.of && cis_pager_far(seat->pager) && join(seat, err)) /* one that never sat down */
		return true;
	rc = cis_pager_forget_far(seat->pager);
	if (rc == -EAGAIN)
		return false;
	if (rc)
		cis_fail(err, -rc, "it does not delete");
	cis_seat_part_pages(seat);
	return true;
}
