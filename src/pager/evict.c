/*
 * Taking pages out of a guest: what a worker does with an evict job, or the shard when it cannot wait for one.
 *
 * A run is protected against writes, each page copied and its word changed, then the run is punched.  At every instant one of both
 * has the page (doc/design/008): while the word says RESIDENT the guest does; once it says where else, the guest's copy is the same until it is
 * gone, since a write to it waits.
 *
 * FluidMem moves the page to its own process instead (UFFDIO_REMAP); no mainline kernel does that between processes.
 */
#include <errno.h>
#include <string.h>

#include "base/point.h"
#include "pager/internal.h"

static char *page_of(const struct cis_region *r, const struct cis_pager *p, uint64_t pgno)
{
	return r->view + ((pgno << p->page_shift) - r->offset);
}

/* The end of the run from @from on whose pages are neighbours in one region, all of which are as far as @how. */
static size_t run_end(const struct cis_evict_job *job, size_t from, enum cis_evicted how)
{
	const struct cis_region *r = cis_region_of_page(job->p, job->pgno[from]);
	size_t i = from + 1;

	while (i < job->nr && job->pgno[i] == job->pgno[from] + (i - from) && job->how[i] == how &&
	       cis_region_of_page(job->p, job->pgno[i]) == r)
		i++;
	return i;
}

/* The page's word, unless a REMOVE has changed it.  The shard counts it when it settles the job. */
static bool change(struct cis_evict_job *job, size_t i, uint64_t from, uint64_t to)
{
	uint64_t *word = &job->p->o.state.words[job->pgno[i]];
	uint64_t is = from;

	return __atomic_compare_exchange_n(word, &is, to, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

/* Copy it into the stash.  Return: its loc, 0: there is no room. */
static uint32_t stash(struct cis_evict_job *job, size_t i, uint32_t generation, const char *raw, struct cis_scratch *scratch)
{
	struct cis_pager *p = job->p;
	struct cis_value v = { .id = cis_value_id(job->pgno[i], generation), .seq = job->seq, .codec = CIS_CODEC_RAW,
			       .stored_bytes = (uint32_t)cis_page_bytes(p) };
	struct cis_encoder *enc = job->codec == CIS_CODEC_RAW ? NULL : cis_scratch_encoder(scratch, job->codec);
	enum cis_codec codec;

	v.checksum = cis_chunk_checksum(v.id, raw, cis_page_bytes(p)); /* first: what follows finds the page in the cache */
	if (enc) {
		v.stored_bytes = (uint32_t)cis_encode(enc, raw, cis_page_bytes(p), scratch->value, &codec);
		v.codec = (uint8_t)codec;
	}
	return cis_stash_put(&p->reclaim.stash, &v, enc ? scratch->value : raw);
}

static void page_out(struct cis_evict_job *job, size_t i, const struct cis_region *r, struct cis_scratch *scratch)
{
	struct cis_pager *p = job->p;
	uint64_t word = job->word[i], same, to;
	uint32_t generation = (cis_word_generation(word) + 1) & 0xffffff, loc = 0;
	const char *raw = page_of(r, p, job->pgno[i]);

	if (cis_word_state(word) == CIS_PAGE_CLEAN) {
		to = (word & ~(uint64_t)0xff) | CIS_PAGE_FAR | CIS_WORD_HELD;
	} else if (cis_same_word(raw, cis_page_bytes(p), &same) && !same) {
		to = cis_word_make(CIS_PAGE_REMOVED | CIS_WORD_HELD, generation, 0);
	} else {
		loc = stash(job, i, generation, raw, scratch);
		if (!loc) {
			job->no_room = true;
			return;
		}
		to = cis_word_make(CIS_PAGE_STASHED | CIS_WORD_HELD, generation, loc);
	}
	CIS_POINT(evict_stashed);
	if (!change(job, i, word, to)) {
		if (loc)
			cis_stash_free(&p->reclaim.stash, loc);
		return;
	}
	job->nr_zero += cis_word_state(to) == CIS_PAGE_REMOVED;
	job->nr_clean += cis_word_state(to) == CIS_PAGE_FAR;
	job->word[i] = to;
	job->how[i] = CIS_EVICT_OUT;
	CIS_POINT(evict_word);
}

/* The kernel would not: the guest's copy is the same still, so the page is the guest's again. */
static void take_back(struct cis_evict_job *job, size_t from, size_t end)
{
	for (size_t i = from; i < end; i++) {
		uint64_t word = job->word[i], to = cis_word_make(CIS_PAGE_RESIDENT | CIS_WORD_HELD, cis_word_generation(word), 0);

		if (cis_word_state(job->was[i]) == CIS_PAGE_CLEAN)
			to = job->was[i];
		job->how[i] = CIS_EVICT_PROTECTED;
		if (!change(job, i, word, to))
			continue;
		job->word[i] = to;
		if (cis_word_state(word) == CIS_PAGE_STASHED)
			cis_stash_free(&job->p->reclaim.stash, cis_word_cookie(word));
	}
}

/* Return: where the next run begins. */
static size_t copy_run(struct cis_evict_job *job, struct cis_scratch *scratch)
{
	struct cis_pager *p = job->p;
	size_t from = job->at, to = run_end(job, from, CIS_EVICT_KEPT);
	const struct cis_region *r = cis_region_of_page(p, job->pgno[from]);

	if (job->no_room)
		return to;
	if (p->o.os->protect(p->o.os_ctx, cis_hva_of_page(p, r, job->pgno[from]), (to - from) << p->page_shift, true))
		return to; /* the address space is changing, or gone */
	CIS_POINT(evict_protected);
	for (size_t i = from; i < to; i++) {
		job->how[i] = CIS_EVICT_PROTECTED;
		if (!job->no_room)
			page_out(job, i, r, scratch);
	}
	return to;
}

static size_t punch_run(struct cis_evict_job *job)
{
	struct cis_pager *p = job->p;
	size_t from = job->at, to = run_end(job, from, job->how[from]);
	const struct cis_region *r = cis_region_of_page(p, job->pgno[from]);

	if (job->how[from] != CIS_EVICT_OUT)
		return to;
	if (p->o.os->punch(p->o.os_ctx, page_of(r, p, job->pgno[from]), (to - from) << p->page_shift))
		take_back(job, from, to);
	CIS_POINT(evict_punched);
	return to;
}

bool cis_evict_job_step(struct cis_evict_job *job, struct cis_scratch *scratch)
{
	job->at = job->copied ? punch_run(job) : copy_run(job, scratch);
	if (job->at < job->nr)
		return true;
	job->at = 0;
	if (job->copied)
		return false;
	job->copied = true;
	return true;
}
