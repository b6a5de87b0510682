#include "pager/pager.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/point.h"
#include "pager/internal.h"

static const char *const kind_names[] = { "anonymous", "shared", "private" };
static const char *const policy_names[] = { "poison", "kill", "stall" };

const char *cis_kind_name(enum cis_kind kind)
{
	return kind_names[kind];
}

const char *cis_policy_name(enum cis_policy policy)
{
	return policy_names[policy];
}

int cis_policy_parse(const char *text)
{
	for (int i = CIS_POLICY_POISON; i <= CIS_POLICY_STALL; i++)
		if (!strcmp(text, policy_names[i]))
			return i;
	return -EINVAL;
}

static int by_offset(const void *a, const void *b)
{
	const struct cis_region *x = a, *y = b;

	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static int check_region(const struct cis_region *r, const struct cis_image_info *img, struct cis_error *err)
{
	uint64_t page = (uint64_t)1 << img->page_shift, end;

	if (!r->bytes || (r->hva | r->bytes | r->offset) % page)
		return cis_fail(err, EINVAL, "region at offset %llu: address, size and offset must be multiples of the image's "
				"page of %llu bytes", (unsigned long long)r->offset, (unsigned long long)page);
	if (__builtin_add_overflow(r->offset, r->bytes, &end) || end > img->nr_pages << img->page_shift)
		return cis_fail(err, EINVAL, "region at offset %llu of %llu bytes ends past the image's %llu bytes",
				(unsigned long long)r->offset, (unsigned long long)r->bytes,
				(unsigned long long)img->guest_bytes);
	if (__builtin_add_overflow(r->hva, r->bytes, &end))
		return cis_fail(err, EINVAL, "region at address 0x%llx wraps", (unsigned long long)r->hva);
	if (r->huge && img->page_shift != 21)
		return cis_fail(err, EINVAL, "region at offset %llu has pages of 2 MiB, the image of 4 KiB: rewrite it with "
				"'cistern image optimize IMAGE OUT --page 2M'", (unsigned long long)r->offset);
	if (!r->huge && img->page_shift != 12)
		return cis_fail(err, EINVAL, "region at offset %llu has pages of 4 KiB, the image of 2 MiB: rewrite it with "
				"'cistern image optimize IMAGE OUT --page 4K'", (unsigned long long)r->offset);
	if (r->kind == CIS_KIND_PRIVATE && !r->alias)
		return cis_fail(err, EINVAL, "region at offset %llu is private but its base memfd was not handed over",
				(unsigned long long)r->offset);
	return 0;
}

static int check_regions(const struct cis_pager *p, struct cis_error *err)
{
	for (size_t i = 0; i < p->nr_regions; i++) {
		const struct cis_region *r = &p->regions[i];
		int rc = check_region(r, cis_image_info(p->image), err);

		if (rc)
			return rc;
		for (size_t k = 0; k < i; k++) {
			const struct cis_region *o = &p->regions[k];

			if (r->offset < o->offset + o->bytes)
				return cis_fail(err, EINVAL, "regions at offsets %llu and %llu overlap",
						(unsigned long long)o->offset, (unsigned long long)r->offset);
			if (r->hva < o->hva + o->bytes && o->hva < r->hva + r->bytes)
				return cis_fail(err, EINVAL, "regions at addresses 0x%llx and 0x%llx overlap",
						(unsigned long long)o->hva, (unsigned long long)r->hva);
		}
	}
	return 0;
}

/* The shard must not wait until no worker wants it: with several there is always one. */
static void make_gate(struct cis_pager *p)
{
	pthread_rwlockattr_t attr;

	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&p->gate, &attr);
	pthread_rwlockattr_destroy(&attr);
}

static int use_stats(struct cis_pager *p)
{
	struct cis_state *st = &p->o.state;

	_Static_assert(sizeof(*p->stats) <= CIS_STATS_ROOM, "more statistics need another layout");
	p->stats = st->stats ? st->stats : calloc(1, sizeof(*p->stats));
	if (!p->stats)
		return -ENOMEM;
	if (st->stats && st->header->stats_bytes < sizeof(*p->stats))
		st->header->stats_bytes = sizeof(*p->stats); /* what an older engine did not count is zero */
	return 0;
}

/* Shared memory is filled in one way for the guest's life, whoever serves it. */
static int use_way(struct cis_pager *p, struct cis_error *err)
{
	static const char *const names[] = { "in an unknown way", "by copying", "in place" };
	enum cis_filled_by way = CIS_FILLED_UNKNOWN, was = (enum cis_filled_by)p->o.state.header->filled_by;

	for (size_t i = 0; i < p->nr_regions; i++)
		if (p->regions[i].kind == CIS_KIND_SHARED)
			way = p->regions[i].alias ? CIS_FILLED_IN_PLACE : CIS_FILLED_BY_COPY;
	if (p->o.adopt && was && was != way)
		return cis_fail(err, EINVAL, "its memory was filled %s, and would be filled %s", names[was], names[way]);
	p->o.state.header->filled_by = way;
	return 0;
}

static int use_state(struct cis_pager *p, struct cis_error *err)
{
	const struct cis_state_header *h = p->o.state.header;
	int rc;

	if (h->nr_pages != p->nr_pages)
		return cis_fail(err, EINVAL, "the state memfd is of %llu pages, the image of %llu", (unsigned long long)h->nr_pages,
				(unsigned long long)p->nr_pages);
	rc = use_stats(p) ? cis_fail(err, ENOMEM, "pager: out of memory") : use_way(p, err);
	p->generation = p->o.adopt ? p->o.generation : h->generation;
	if (rc || !p->o.adopt || h->layout == 1)
		return rc;
	p->have = (enum cis_fill)h->filled;
	return cis_record_adopt(p, err);
}

int cis_pager_create(const struct cis_pager_opts *opts, struct cis_pager **ret, struct cis_error *err)
{
	struct cis_pager *p = calloc(1, sizeof(*p));
	int rc;

	if (!p)
		return cis_fail(err, ENOMEM, "pager: out of memory");
	assert(opts->size == sizeof(*opts));
	p->regions = calloc(opts->nr_regions, sizeof(*p->regions));
	if (!p->regions) {
		free(p);
		return opts->nr_regions ? cis_fail(err, ENOMEM, "pager: out of memory")
					: cis_fail(err, EINVAL, "a guest without a region");
	}
	memcpy(p->regions, opts->regions, opts->nr_regions * sizeof(*p->regions));
	p->nr_regions = opts->nr_regions;
	qsort(p->regions, p->nr_regions, sizeof(*p->regions), by_offset);
	p->image = cis_image_ref(opts->image);
	p->page_shift = cis_image_info(p->image)->page_shift;
	p->nr_pages = cis_image_info(p->image)->nr_pages;
	p->o = *opts;
	p->o.tries = opts->tries ? opts->tries : 1;
	make_gate(p);
	rc = check_regions(p, err);
	if (rc) {
		cis_pager_destroy(p);
		return rc;
	}
	rc = use_state(p, err);
	if (!rc && cis_reclaim_init(p))
		rc = cis_fail(err, ENOMEM, "pager: out of memory");
	p->pages[CIS_PAGE_ABSENT] = p->nr_pages;
	if (!rc && opts->adopt)
		rc = cis_adopt(p, err);
	if (rc) {
		cis_pager_destroy(p);
		return rc;
	}
	*ret = p;
	return 0;
}

void cis_pager_destroy(struct cis_pager *p)
{
	if (!p)
		return;
	assert(!p->jobs_out && !p->reclaim.jobs_out && !p->fetches && !p->reclaim.gets && !p->reclaim.puts && !p->reclaim.nr_deleting);
	pthread_rwlock_destroy(&p->gate);
	cis_image_unref(p->image);
	free(p->spare);
	free(p->deferred);
	free(p->reported);
	free(p->stalled);
	cis_record_free(p);
	cis_reclaim_fini(p);
	if (!p->o.state.stats)
		free(p->stats);
	free(p->regions);
	free(p);
}

bool cis_pager_quiesce(struct cis_pager *p)
{
	p->is_gone = true; /* nothing new is begun */
	return cis_remote_quiesce(p) & cis_fetch_quiesce(p) && !p->jobs_out && !p->reclaim.jobs_out;
}

void cis_pager_set_gone(struct cis_pager *p)
{
	if (p->is_gone)
		return;
	p->is_gone = true;
	p->o.gone(p->o.ctx);
}

uint32_t cis_pager_new_id(struct cis_pager *p)
{
	if (!++p->next_id)
		p->next_id = 1;
	return p->next_id;
}

void cis_page_claim(struct cis_pager *p, uint64_t pgno, uint32_t cookie)
{
	cis_page_set(p, pgno, CIS_PAGE_BUSY, cookie);
	CIS_POINT(word_busy);
}

void cis_page_give_back(struct cis_pager *p, uint64_t pgno, uint32_t cookie)
{
	uint64_t word = cis_word_load(p, pgno);

	if (cis_word_state(word) != CIS_PAGE_BUSY || cis_word_cookie(word) != cookie)
		return;
	cis_page_set(p, pgno, CIS_PAGE_ABSENT, 0);
	CIS_POINT(word_given_back);
}

const struct cis_region *cis_region_of_page(const struct cis_pager *p, uint64_t pgno)
{
	uint64_t offset = pgno << p->page_shift;
	size_t lo = 0, hi = p->nr_regions;

	while (lo < hi) { /* the last region that starts at or before it */
		size_t mid = (lo + hi) / 2;

		if (p->regions[mid].offset <= offset)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (!lo || offset - p->regions[lo - 1].offset >= p->regions[lo - 1].bytes)
		return NULL;
	return &p->regions[lo - 1];
}

const struct cis_region *cis_region_of_hva(const struct cis_pager *p, uint64_t hva, uint64_t *ret_pgno)
{
	for (size_t i = 0; i < p->nr_regions; i++) {
		const struct cis_region *r = &p->regions[i];

		if (hva < r->hva || hva - r->hva >= r->bytes)
			continue;
		*ret_pgno = (hva - r->hva + r->offset) >> p->page_shift;
		return r;
	}
	return NULL;
}

const struct cis_pager_stats *cis_pager_stats(const struct cis_pager *p)
{
	return p->stats;
}

void cis_pager_held_back(struct cis_pager *p)
{
	p->stats->held_back++;
}

void cis_pager_killed(struct cis_pager *p)
{
	p->stats->killed++;
}

/* Counts that are read while pages move may not fit each other; none is below 0. */
void cis_pager_pages(const struct cis_pager *p, uint64_t *ret)
{
	uint64_t installed = __atomic_load_n(&p->pages_installed, __ATOMIC_RELAXED);

	for (int s = 0; s < CIS_PAGE_STATES; s++) {
		uint64_t n = __atomic_load_n(&p->pages[s], __ATOMIC_RELAXED);

		n += s == CIS_PAGE_RESIDENT ? installed : s == CIS_PAGE_BUSY ? -installed : 0;
		ret[s] = n <= p->nr_pages ? n : 0;
	}
}

enum cis_page_state cis_pager_state_of(const struct cis_pager *p, uint64_t pgno)
{
	return cis_page_state_at(p, pgno);
}

size_t cis_pager_memory(const struct cis_pager *p)
{
	size_t bytes = sizeof(*p) + p->nr_regions * sizeof(*p->regions) + p->max_deferred * sizeof(*p->deferred);

	if (p->reported)
		bytes += cis_bitmap_words(p->nr_pages) * 8;
	if (p->stalled)
		bytes += cis_bitmap_words(p->nr_pages) * 8;
	if (p->seen)
		bytes += cis_bitmap_words(p->nr_pages) * 8;
	if (!p->o.state.stats)
		bytes += sizeof(*p->stats) + (p->seen ? p->nr_trace * sizeof(*p->trace) : 0);
	return bytes + cis_reclaim_memory(p);
}
