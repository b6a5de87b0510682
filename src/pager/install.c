/* Installing runs of pages: the kernel's partial progress and its error codes are dealt with here once. */
#include <errno.h>
#include <string.h>

#include "base/copy.h"
#include "os/uffd.h"
#include "pager/internal.h"

static int os_read(void *ctx, struct uffd_msg *msgs, size_t max, size_t *ret_n)
{
	return cis_uffd_read(*(int *)ctx, msgs, max, ret_n);
}

static int os_copy(void *ctx, uint64_t dst, const void *src, uint64_t len, uint64_t *ret_done)
{
	return cis_uffd_copy(*(int *)ctx, dst, src, len, ret_done);
}

static int os_zero(void *ctx, uint64_t dst, uint64_t len, uint64_t *ret_done)
{
	return cis_uffd_zero(*(int *)ctx, dst, len, ret_done);
}

static int os_cont(void *ctx, uint64_t dst, uint64_t len, uint64_t *ret_done)
{
	return cis_uffd_continue(*(int *)ctx, dst, len, ret_done);
}

static int os_poison(void *ctx, uint64_t dst, uint64_t len, uint64_t *ret_done)
{
	return cis_uffd_poison(*(int *)ctx, dst, len, ret_done);
}

static int os_wake(void *ctx, uint64_t dst, uint64_t len)
{
	return cis_uffd_wake(*(int *)ctx, dst, len);
}

static int os_unregister(void *ctx, uint64_t addr, uint64_t len)
{
	return cis_uffd_unregister(*(int *)ctx, addr, len);
}

const struct cis_pager_os cis_pager_os_uffd = {
	.read = os_read,
	.copy = os_copy,
	.zero = os_zero,
	.cont = os_cont,
	.poison = os_poison,
	.wake = os_wake,
	.unregister = os_unregister,
};

enum how { BY_COPY, BY_ZERO, BY_CONTINUE };

static int call(struct cis_pager *p, enum how how, uint64_t dst, const char *src, uint64_t len, uint64_t *ret_done)
{
	switch (how) {
	case BY_COPY:
		return p->o.os->copy(p->o.os_ctx, dst, src, len, ret_done);
	case BY_ZERO:
		return p->o.os->zero(p->o.os_ctx, dst, len, ret_done);
	default:
		return p->o.os->cont(p->o.os_ctx, dst, len, ret_done);
	}
}

/*
 * Until all is in place or an error that is not "there already".
 *
 * A call must not reach from one mapping into the next (ENOENT), and what is one region to us may be several to the kernel:
 * mprotect() or madvise() of a part splits it.  So a run that is refused is halved, down to single pages.
 */
static int install(struct cis_pager *p, enum how how, uint64_t dst, const char *src, uint64_t len, uint64_t *ret_done)
{
	uint64_t page = cis_page_bytes(p), at = 0, piece = len, done;
	int rc = 0;

	while (at < len) {
		uint64_t now = piece < len - at ? piece : len - at;

		rc = call(p, how, dst + at, src ? src + at : NULL, now, &done);
		at += done;
		if (rc == -EEXIST) {
			/* Another thread filled this page first, or the guest has it; whoever waits there may go on. */
			p->o.os->wake(p->o.os_ctx, dst + at, page);
			at += page;
		} else if (rc == -ENOENT && !done && now > page) {
			piece = (now / 2 + page - 1) & ~(page - 1);
			continue;
		} else if (rc && !(rc == -EAGAIN && done)) {
			break; /* progress hides the reason for the stop: the next call tells it */
		}
		rc = 0;
		piece = len;
	}
	*ret_done = (at < len ? at : len) >> p->page_shift;
	return rc;
}

int cis_install_run(struct cis_pager *p, const struct cis_region *r, uint64_t pgno, uint64_t nr, const char *src,
		    uint64_t *ret_done)
{
	uint64_t len = nr << p->page_shift, dst = cis_hva_of_page(p, r, pgno);

	if (!r->alias)
		return install(p, BY_COPY, dst, src, len, ret_done);

	char *alias = r->alias + (dst - r->hva);

	if (alias != src)
		cis_copy_past_cache(alias, src, len);
	return install(p, BY_CONTINUE, dst, NULL, len, ret_done);
}

int cis_install_map(struct cis_pager *p, const struct cis_region *r, uint64_t pgno, uint64_t nr, uint64_t *ret_done)
{
	return install(p, BY_CONTINUE, cis_hva_of_page(p, r, pgno), NULL, nr << p->page_shift, ret_done);
}

int cis_install_zero(struct cis_pager *p, const struct cis_region *r, uint64_t pgno, uint64_t nr, const char *zero,
		     uint64_t *ret_done)
{
	uint64_t dst = cis_hva_of_page(p, r, pgno), at = 0, done;
	int rc = 0;

	if (r->alias && r->kind == CIS_KIND_SHARED) {
		/* The memfd may hold what a job decoded there before the guest gave the page back. */
		memset(r->alias + (dst - r->hva), 0, nr << p->page_shift);
		return install(p, BY_CONTINUE, dst, NULL, nr << p->page_shift, ret_done);
	}
	if (!r->huge)
		return install(p, BY_ZERO, dst, NULL, nr << p->page_shift, ret_done);
	for (; at < nr && !rc; at += done) /* hugetlb has no zero page */
		rc = install(p, BY_COPY, dst + (at << p->page_shift), zero, cis_page_bytes(p), &done);
	*ret_done = at;
	return rc;
}
