/* Pages that are not in the guest: how they come back, and what becomes of those that nobody wants any more. */
#include <errno.h>

#include "base/point.h"
#include "pager/internal.h"

void cis_remote_forget(struct cis_pager *p, uint64_t pgno, uint64_t word)
{
	if (!p->reclaim.claimed)
		return; /* nobody knows yet what is where, and this word will not be asked */
	switch (cis_word_state(word)) {
	case CIS_PAGE_STASHED:
		cis_stash_free(&p->reclaim.stash, cis_word_cookie(word));
		cis_writeback_undo(p, pgno, cis_word_generation(word));
		break;
	case CIS_PAGE_INFLIGHT:
		cis_writeback_orphan(p, cis_word_cookie(word));
		break;
	case CIS_PAGE_FAR:
	case CIS_PAGE_CLEAN:
		cis_far_delete(p, pgno, cis_word_generation(word), cis_word_cookie(word));
		break;
	default:
		break;
	}
}

/* A worker may be writing there.  What is read counts only if a page's word, which is written after its value, says the same. */
__attribute__((no_sanitize("thread"))) static uint64_t pgno_at(const struct cis_value *v)
{
	return *(const volatile uint64_t *)&v->id >> 24;
}

const struct cis_value *cis_remote_next(const struct cis_pager *p, uint64_t *at, uint64_t end, uint64_t *ret_word)
{
	while (*at < end) {
		const struct cis_value *v = (const struct cis_value *)(p->reclaim.stash.area + *at);
		uint64_t pgno = pgno_at(v), word = pgno < p->nr_pages ? cis_word_load(p, pgno) : 0;

		if (cis_word_stashed(word) && cis_log_off(cis_word_cookie(word)) == *at) {
			*at += (cis_value_bytes(v) + CIS_LOG_UNIT - 1) & ~(uint64_t)(CIS_LOG_UNIT - 1);
			*ret_word = word;
			return v;
		}
		*at += CIS_LOG_UNIT;
	}
	return NULL;
}

bool cis_remote_quiesce(struct cis_pager *p)
{
	bool back = cis_writeback_quiesce(p); /* may leave something to delete */

	return cis_far_quiesce(p) && back;
}

/* Return: 0, or -EBADMSG with what is wrong: it lies in our own memory, so nothing would be better at a second try. */
static int unpack(struct cis_pager *p, uint64_t pgno, uint64_t word, char *raw, struct cis_error *err)
{
	const struct cis_value *v = cis_stash_at(&p->reclaim.stash, cis_word_cookie(word));
	struct cis_decoder *dec = cis_scratch_decoder(p->o.scratch, NULL);

	if (!dec)
		return cis_fail(err, ENOMEM, "page %llu: no memory for a decoder", (unsigned long long)pgno);
	if (cis_value_check(v, cis_value_id(pgno, cis_word_generation(word)), sizeof(*v) + cis_page_bytes(p)) ||
	    cis_value_unpack(v, dec, raw))
		return cis_fail(err, EBADMSG, "page %llu: its copy in the stash is damaged", (unsigned long long)pgno);
	return 0;
}

static void came(struct cis_pager *p, uint64_t pgno, uint64_t word)
{
	cis_remote_forget(p, pgno, word);
	cis_reclaim_list(p, pgno, 1);
}

/* A page that was COMING from the stash.  Filled in place it may be RESIDENT and not mapped: a fault maps it. */
static bool settle_coming(struct cis_pager *p, uint64_t pgno, uint64_t word)
{
	if (cis_word_flags(cis_word_load(p, pgno))) {
		cis_word_store(p, pgno, word);
		return false;
	}
	p->stats->faults_stolen += cis_word_state(word) == CIS_PAGE_INFLIGHT;
	came(p, pgno, word);
	return true;
}

int cis_stash_bring(struct cis_pager *p, const struct cis_region *r, uint64_t pgno, uint64_t nr, uint64_t *ret_done, struct cis_error *err)
{
	uint64_t word[CIS_BRING_MAX], n;
	int rc = 0;

	*ret_done = 0;
	for (n = 0; n < nr && !rc; n++) {
		word[n] = cis_word_load(p, pgno + n);
		rc = unpack(p, pgno + n, word[n], p->o.scratch->raw + (n << p->page_shift), err);
	}
	n -= rc != 0;
	if (!n)
		return rc;
	for (uint64_t i = 0; i < n; i++) {
		cis_word_store(p, pgno + i, word[i] | CIS_WORD_COMING);
		CIS_POINT(stash_coming);
	}
	rc = cis_install_run(p, r, pgno, n, p->o.scratch->raw, 0, ret_done);
	CIS_POINT(stash_come);
	for (uint64_t i = 0; i < n; i++)
		settle_coming(p, pgno + i, word[i]);
	return rc;
}

void cis_fault_stashed(struct cis_pager *p, const struct cis_fault *f, const struct cis_region *r)
{
	uint32_t seq = cis_stash_at(&p->reclaim.stash, cis_word_cookie(cis_word_load(p, f->pgno)))->seq;
	struct cis_error err;
	uint64_t done;
	int rc = cis_stash_bring(p, r, f->pgno, 1, &done, &err);

	if (done && f->since_ns)
		cis_reclaim_came_back(p, f->pgno, seq);
	if (done)
		cis_fault_answered(p, f, &p->stats->faults_stashed);
	else if (rc == -EBADMSG || (rc == -ENOMEM && cis_word_stashed(cis_word_load(p, f->pgno))))
		cis_fault_fail(p, f, &err);
	else
		cis_fault_trouble(p, f, rc);
	if (done && f->since_ns)
		cis_prefetch(p, r, f->pgno);
}

/*
 * It was not reclaimed after all, or another engine had begun to.  Or it is as the store has it: no longer, and the word says so before the
 * write can go on.
 */
int cis_page_unprotect(struct cis_pager *p, const struct cis_region *r, uint64_t pgno)
{
	uint64_t word = cis_word_load(p, pgno);
	int rc;

	if (cis_word_state(word) == CIS_PAGE_CLEAN) {
		cis_page_set(p, pgno, CIS_PAGE_RESIDENT, 0);
		CIS_POINT(page_dirty);
		cis_remote_forget(p, pgno, word);
	}
	rc = p->o.os->protect(p->o.os_ctx, cis_hva_of_page(p, r, pgno), cis_page_bytes(p), false);
	CIS_POINT(unprotected);
	return rc;
}

void cis_fault_protected(struct cis_pager *p, const struct cis_fault *f, const struct cis_region *r)
{
	int rc = cis_page_unprotect(p, r, f->pgno);

	if (rc)
		cis_fault_trouble(p, f, rc);
	else
		cis_fault_answered(p, f, &p->stats->faults_written);
}

/*
 * What COMING says about a page of the stash: copied pages are in the guest as soon as they have memory, and may have been written to;
 * those filled in place are in nobody's sight before their word says RESIDENT.
 */
static void adopt_coming(struct cis_pager *p, uint64_t pgno, uint64_t word)
{
	const struct cis_region *r = cis_region_of_page(p, pgno);
	bool here = !r->alias && p->o.os->present(p->o.os_ctx, r->view + ((pgno << p->page_shift) - r->offset));

	if (here)
		cis_page_set(p, pgno, CIS_PAGE_RESIDENT, 0);
	else
		cis_word_store(p, pgno, word & ~(uint64_t)CIS_WORD_COMING);
}

/*
 * Punched once more, since nobody knows how far it had come; nothing was installed there meanwhile.  If the kernel will not, what is in the
 * guest is the same as what its word speaks of.
 */
static void adopt_held(struct cis_pager *p, uint64_t pgno, uint64_t word)
{
	const struct cis_region *r = cis_region_of_page(p, pgno);
	char *view = r->view + ((pgno << p->page_shift) - r->offset);
	bool out = cis_word_resident(word) || !p->o.os->punch(p->o.os_ctx, view, cis_page_bytes(p)) ||
		   !p->o.os->present(p->o.os_ctx, view);

	CIS_POINT(adopt_punched);
	if (out)
		cis_word_store(p, pgno, word & ~(uint64_t)CIS_WORD_HELD);
	else
		cis_page_set(p, pgno, CIS_PAGE_RESIDENT, 0);
}

static int adopt_page(struct cis_pager *p, uint64_t pgno, struct cis_error *err)
{
	uint64_t word = cis_word_load(p, pgno);
	const struct cis_region *r = cis_word_flags(word) ? cis_region_of_page(p, pgno) : NULL;

	if (cis_word_flags(word) && (!r || !r->view))
		return cis_fail(err, EBADMSG, "page %llu was being reclaimed, which it cannot be", (unsigned long long)pgno);
	if (cis_word_flags(word) == CIS_WORD_COMING)
		adopt_coming(p, pgno, word);
	else if (cis_word_flags(word))
		adopt_held(p, pgno, word);
	word = cis_word_load(p, pgno);
	if (cis_word_state(word) == CIS_PAGE_INFLIGHT) { /* it may have come there, and is written once more */
		word = cis_word_make(CIS_PAGE_STASHED, cis_word_generation(word), cis_word_cookie(word));
		cis_word_store(p, pgno, word);
		if (p->reclaim.unsure)
			cis_bit_set(p->reclaim.unsure, pgno);
		CIS_POINT(adopt_inflight);
	}
	if (cis_word_state(word) == CIS_PAGE_STASHED &&
	    (!p->reclaim.stash.area ||
	     cis_stash_claim(&p->reclaim.stash, cis_word_cookie(word), cis_value_id(pgno, cis_word_generation(word)))))
		return cis_fail(err, EBADMSG, "page %llu: is not where the stash has it", (unsigned long long)pgno);
	return 0;
}

int cis_remote_adopt(struct cis_pager *p, struct cis_error *err)
{
	int rc = 0;

	for (uint64_t pgno = 0; pgno < p->nr_pages && !rc; pgno++)
		rc = adopt_page(p, pgno, err);
	p->reclaim.claimed = true;
	return rc;
}
