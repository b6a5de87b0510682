/* One hot order of several traces. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "cli/images.h"
#include "image/trace.h"

/** struct touch - a page in one trace; after counting, in @nr of them with the positions summed up */
struct touch {
	uint32_t pgno;
	uint32_t nr;
	uint64_t position;
};

struct touches {
	struct touch *t;
	size_t nr, room;
};

static int add(struct touches *all, uint32_t pgno, uint64_t position)
{
	if (all->nr == all->room) {
		size_t room = all->room ? 2 * all->room : 4096;
		void *grown = realloc(all->t, room * sizeof(*all->t));

		if (!grown)
			return -ENOMEM;
		all->t = grown;
		all->room = room;
	}
	all->t[all->nr++] = (struct touch){ pgno, 1, position };
	return 0;
}

/*
 * A trace of 2 MiB pages names each of its 512 small pages, in order; one of 4 KiB pages names a large page
 * at the first touch of any part, the rest being doubles that drop_doubles() drops.
 */
static int add_trace(struct touches *all, const struct cis_trace *trace, unsigned page_shift)
{
	unsigned up = page_shift > trace->page_shift ? page_shift - trace->page_shift : 0;
	unsigned down = trace->page_shift > page_shift ? trace->page_shift - page_shift : 0;

	for (uint64_t i = 0; i < trace->nr; i++)
		for (uint64_t part = 0; part >> down == 0; part++)
			if (add(all, (uint32_t)(((uint64_t)trace->pgno[i] << down | part) >> up),
				(i << down) + part))
				return -ENOMEM;
	return 0;
}

static int by_page(const void *a, const void *b)
{
	const struct touch *x = a, *y = b;

	if (x->pgno != y->pgno)
		return x->pgno < y->pgno ? -1 : 1;
	return (x->position > y->position) - (x->position < y->position);
}

/* Mean positions compared without dividing: p / n < q / m is p m < q n. */
static int by_mean(const void *a, const void *b)
{
	const struct touch *x = a, *y = b;
	unsigned __int128 p = (unsigned __int128)x->position * y->nr,
			  q = (unsigned __int128)y->position * x->nr;

	if (p != q)
		return p < q ? -1 : 1;
	return x->pgno < y->pgno ? -1 : 1;
}

/* Sorts what is at and after @from by page and keeps the first touch of each. */
static void drop_doubles(struct touches *all, size_t from)
{
	size_t kept = from;

	if (all->nr > from)
		qsort(all->t + from, all->nr - from, sizeof(*all->t), by_page);
	for (size_t i = from; i < all->nr; i++)
		if (kept == from || all->t[kept - 1].pgno != all->t[i].pgno)
			all->t[kept++] = all->t[i];
	all->nr = kept;
}

static void merge(struct touches *all, size_t nr_traces)
{
	size_t kept = 0, groups = 0;

	if (all->nr)
		qsort(all->t, all->nr, sizeof(*all->t), by_page);
	for (size_t i = 0; i < all->nr; i++) {
		if (groups && all->t[groups - 1].pgno == all->t[i].pgno) {
			all->t[groups - 1].nr++;
			all->t[groups - 1].position += all->t[i].position;
		} else {
			all->t[groups++] = all->t[i];
		}
	}
	for (size_t i = 0; i < groups; i++)
		if (2 * (size_t)all->t[i].nr >= nr_traces)
			all->t[kept++] = all->t[i];
	all->nr = kept;
	if (kept)
		qsort(all->t, kept, sizeof(*all->t), by_mean);
}

static int load(struct touches *all, const char *path, uint64_t guest_bytes, unsigned page_shift,
		struct cis_error *err)
{
	struct cis_trace trace;
	size_t from = all->nr;
	int r = cis_trace_load(path, &trace, err);

	if (r)
		return r;
	if (trace.guest_bytes != guest_bytes)
		r = cis_fail(err, ERANGE, "%s: is of a guest of %llu bytes, not of %llu", path,
			     (unsigned long long)trace.guest_bytes, (unsigned long long)guest_bytes);
	else if (add_trace(all, &trace, page_shift))
		r = cis_fail(err, ENOMEM, "%s: no memory for %llu pages", path, (unsigned long long)trace.nr);
	else
		drop_doubles(all, from);
	cis_trace_fini(&trace);
	return r;
}

int cli_hot_merge(const struct cli_list *traces, uint64_t guest_bytes, unsigned page_shift,
		  struct cli_hot *ret, struct cis_error *err)
{
	struct cli_hot hot = { 0 };
	struct touches all = { 0 };
	int r = 0;

	for (size_t i = 0; i < traces->nr && !r; i++)
		r = load(&all, traces->item[i], guest_bytes, page_shift, err);
	if (!r) {
		merge(&all, traces->nr);
		hot.nr = all.nr;
		hot.pgno = malloc((all.nr ? all.nr : 1) * sizeof(*hot.pgno));
		if (!hot.pgno)
			r = cis_fail(err, ENOMEM, "no memory for %zu hot pages", all.nr);
	}
	for (size_t i = 0; i < all.nr && !r; i++)
		hot.pgno[i] = all.t[i].pgno;
	free(all.t);
	if (!r)
		*ret = hot;
	return r;
}
