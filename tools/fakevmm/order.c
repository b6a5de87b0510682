/* The order in which pages are touched. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fakevmm.h"
#include "image/trace.h"

/* xorshift64*: the same seed gives the same order on every machine. */
static uint64_t next_random(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1dull;
}

static void shuffle(struct vm *vm)
{
	uint64_t state = vm->opt->seed * 2 + 1;

	for (uint64_t i = vm->nr_order; i > 1; i--) {
		uint64_t j = next_random(&state) % i, t = vm->order[i - 1];

		vm->order[i - 1] = vm->order[j];
		vm->order[j] = t;
	}
}

static int append(struct vm *vm, uint64_t pgno, struct cis_error *err)
{
	if (pgno >= vm->nr_pages)
		return cis_fail(err, ERANGE, "%s: page %llu, but the guest has %llu", vm->opt->order_file,
				(unsigned long long)pgno, (unsigned long long)vm->nr_pages);
	if (vm->nr_order == vm->nr_pages)
		return cis_fail(err, ERANGE, "%s: more pages than the guest has", vm->opt->order_file);
	vm->order[vm->nr_order++] = pgno;
	return 0;
}

static int from_trace(struct vm *vm, const struct cis_trace *trace, struct cis_error *err)
{
	int r = 0;

	if (1ull << trace->page_shift != vm->page_bytes)
		return cis_fail(err, EINVAL, "%s: its pages are of another size", vm->opt->order_file);
	for (uint64_t i = 0; i < trace->nr && !r; i++)
		r = append(vm, trace->pgno[i], err);
	return r;
}

static int from_lines(struct vm *vm, struct cis_error *err)
{
	FILE *f = fopen(vm->opt->order_file, "re");
	unsigned long long pgno;
	int r = 0, n = 0;

	if (!f)
		return cis_fail(err, errno, "%s: %s", vm->opt->order_file, strerror(errno));
	while (!r && (n = fscanf(f, "%llu", &pgno)) == 1)
		r = append(vm, pgno, err);
	if (!r && n == 0)
		r = cis_fail(err, EINVAL, "%s: neither a trace nor page numbers, one a line",
			     vm->opt->order_file);
	fclose(f);
	return r;
}

static int from_file(struct vm *vm, struct cis_error *err)
{
	struct cis_trace trace;
	int r = cis_trace_load(vm->opt->order_file, &trace, err);

	if (r == -EMEDIUMTYPE)
		return from_lines(vm, err);
	if (r)
		return r;
	r = from_trace(vm, &trace, err);
	cis_trace_fini(&trace);
	return r;
}

int order_create(struct vm *vm, struct cis_error *err)
{
	enum order order = vm->opt->order;
	int r = 0;

	vm->order = calloc(vm->nr_pages, sizeof(*vm->order));
	if (!vm->order)
		return cis_fail(err, ENOMEM, "no memory");
	if (order == ORDER_FILE) {
		r = from_file(vm, err);
	} else {
		vm->nr_order = vm->nr_pages;
		for (uint64_t i = 0; i < vm->nr_pages; i++)
			vm->order[i] = order == ORDER_REVERSE ? vm->nr_pages - 1 - i : i;
		if (order == ORDER_RANDOM)
			shuffle(vm);
	}
	if (vm->nr_order > vm->opt->max_pages)
		vm->nr_order = vm->opt->max_pages;
	return r;
}
