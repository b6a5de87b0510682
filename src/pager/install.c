/*
 * Installing runs of pages: the kernel's partial progress and its error codes are dealt with here once, and so is the order of a
 * page's content, its word and its mapping, which a crash may cut off anywhere (doc/design/002).
 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/copy.h"
#include "base/point.h"
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

static int os_watch(void *ctx, uint64_t addr, uint64_t len, bool minor)
{
	uint64_t mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP | (minor ? UFFDIO_REGISTER_MODE_MINOR : 0);

	return cis_uffd_register(*(int *)ctx, addr, len, mode);
}

static int os_allocate(void *ctx, void *addr, uint64_t len)
{
	(void)ctx;
	return madvise(addr, len, MADV_POPULATE_WRITE) ? -ENOMEM : 0;
}

static int os_copy_protected(void *ctx, uint64_t dst, const void *src, uint64_t len, uint64_t *ret_done)
{
	return cis_uffd_copy_protected(*(int *)ctx, dst, src, len, ret_done);
}

static int os_protect(void *ctx, uint64_t addr, uint64_t len, bool on)
{
	return cis_uffd_protect(*(int *)ctx, addr, len, on);
}

static int os_punch(void *ctx, void *addr, uint64_t len)
{
	(void)ctx;
	return madvise(addr, len, MADV_REMOVE) ? -errno : 0;
}

/* Of a mapped memfd mincore() tells what is in its page cache, which is where its memory is. */
static bool os_present(void *ctx, void *addr)
{
	unsigned char in_core = 0;

	(void)ctx;
	return !mincore(addr, 1, &in_core) && (in_core & 1);
}

const struct cis_pager_os cis_pager_os_uffd = {
	.read = os_read,
	.copy = os_copy,
	.zero = os_zero,
	.cont = os_cont,
	.poison = os_poison,
	.wake = os_wake,
	.unregister = os_unregister,
	.watch = os_watch,
	.allocate = os_allocate,
	.copy_protected = os_copy_protected,
	.protect = os_protect,
	.punch = os_punch,
	.present = os_present,
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

/* Pages that were claimed: nobody else may have changed their words, since REMOVEs are marked under the gate. */
static void claimed_resident(struct cis_pager *p, uint64_t pgno, uint64_t nr, uint32_t cookie)
{
	uint64_t busy = 0;

	for (uint64_t i = 0; i < nr; i++) {
		uint64_t word = cis_word_load(p, pgno + i);
		uint64_t to = cis_word_make(CIS_PAGE_RESIDENT, cis_word_generation(word), 0);

		assert(cis_word_state(word) == CIS_PAGE_BUSY ? cis_word_cookie(word) == cookie : cis_word_flags(word) == CIS_WORD_COMING);
		if (cis_word_state(word) == CIS_PAGE_BUSY)
			busy++;
		else
			cis_word_counted(p, word, to); /* the shard's own */
		if (!__atomic_compare_exchange_n(&p->o.state.words[pgno + i], &word, to, false, __ATOMIC_RELEASE,
						 __ATOMIC_RELAXED))
			assert(!"a claimed page's word was changed");
		CIS_POINT(word_resident);
	}
	__atomic_fetch_add(&p->pages_installed, busy, __ATOMIC_RELAXED);
	CIS_POINT(words_resident);
}

static void zeros_resident(struct cis_pager *p, const struct cis_region *r, uint64_t pgno, uint64_t nr)
{
	for (uint64_t i = 0; i < nr; i++) {
		cis_page_set(p, pgno + i, CIS_PAGE_RESIDENT, r->kind == CIS_KIND_PRIVATE ? CIS_RESIDENT_ZERO : 0);
		CIS_POINT(word_resident);
	}
	CIS_POINT(words_resident);
}

/* Writing into a hole of hugetlbfs when its pool is empty would be a SIGBUS. */
int cis_install_room(struct cis_pager *p, const struct cis_region *r, uint64_t pgno, uint64_t nr)
{
	uint64_t at = (pgno << p->page_shift) - r->offset;

	return r->huge ? p->o.os->allocate(p->o.os_ctx, r->alias + at, nr << p->page_shift) : 0;
}

int cis_install_map(struct cis_pager *p, const struct cis_region *r, uint64_t pgno, uint64_t nr, uint64_t *ret_done)
{
	int rc = install(p, BY_CONTINUE, cis_hva_of_page(p, r, pgno), NULL, nr << p->page_shift, ret_done);

	CIS_POINT(page_mapped);
	return rc;
}

int cis_install_run(struct cis_pager *p, const struct cis_region *r, uint64_t pgno, uint64_t nr, const char *src,
		    uint32_t cookie, uint64_t *ret_done)
{
	uint64_t len = nr << p->page_shift, dst = cis_hva_of_page(p, r, pgno);
	int rc;

	*ret_done = 0;
	if (!r->alias) {
		rc = install(p, BY_COPY, dst, src, len, ret_done);
		CIS_POINT(page_installed);
		claimed_resident(p, pgno, *ret_done, cookie);
		return rc;
	}

	char *alias = r->alias + (dst - r->hva);

	rc = alias != src ? cis_install_room(p, r, pgno, nr) : 0;
	if (rc)
		return rc;
	if (alias != src)
		cis_copy_past_cache(alias, src, len);
	CIS_POINT(content_written);
	claimed_resident(p, pgno, nr, cookie);
	return cis_install_map(p, r, pgno, nr, ret_done);
}

int cis_install_clean(struct cis_pager *p, const struct cis_region *r, uint64_t pgno, const char *src, uint64_t *ret_done)
{
	uint64_t word = cis_word_load(p, pgno), dst = cis_hva_of_page(p, r, pgno);
	int rc = p->o.os->copy_protected(p->o.os_ctx, dst, src, cis_page_bytes(p), ret_done);

	*ret_done >>= p->page_shift;
	CIS_POINT(page_installed);
	if (*ret_done)
		cis_word_store(p, pgno, cis_word_make(CIS_PAGE_CLEAN, cis_word_generation(word), cis_word_cookie(word)));
	return rc;
}

/* The memfd may hold what a job decoded there before the guest gave the page back. */
static int zero_in_place(struct cis_pager *p, const struct cis_region *r, uint64_t pgno, uint64_t nr, uint64_t *ret_done)
{
	int rc = cis_install_room(p, r, pgno, nr);

	if (rc)
		return rc;
	memset(r->alias + ((pgno << p->page_shift) - r->offset), 0, nr << p->page_shift);
	CIS_POINT(content_written);
	zeros_resident(p, r, pgno, nr);
	return cis_install_map(p, r, pgno, nr, ret_done);
}

int cis_install_zero(struct cis_pager *p, const struct cis_region *r, uint64_t pgno, uint64_t nr, const char *zero,
		     uint64_t *ret_done)
{
	uint64_t dst = cis_hva_of_page(p, r, pgno), at = 0, done;
	int rc = 0;

	*ret_done = 0;
	if (r->alias && r->kind == CIS_KIND_SHARED)
		return zero_in_place(p, r, pgno, nr, ret_done);
	if (!r->huge)
		rc = install(p, BY_ZERO, dst, NULL, nr << p->page_shift, &at);
	for (; r->huge && at < nr && !rc; at += done) /* hugetlb has no zero page */
		rc = install(p, BY_COPY, dst + (at << p->page_shift), zero, cis_page_bytes(p), &done);
	*ret_done = at;
	CIS_POINT(page_installed);
	zeros_resident(p, r, pgno, at);
	return rc;
}
