/*
 * What the guest does once its memory is handed over: a list of actions, or lines from standard input, so
 * that a test can force an interleaving: "&" starts one in the background, "join" waits for all of those.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fakevmm.h"

#define BACKGROUND_MAX 64
#define STORM_PAGES    64 /* at most, a removal */

struct action {
	struct vm *vm;
	char name[16];
	bool in_background, has_range;
	struct range range;
	uint64_t count;
	struct cis_error err;
	int rc;
	pthread_t thread;
};

static struct action *background[BACKGROUND_MAX];
static size_t nr_background;

/* "5" or "5-9"; without one, all pages. */
static int parse_range(const struct vm *vm, const char *text, struct action *a)
{
	unsigned long long first, last;
	int end = 0;

	a->range = (struct range){ 0, vm->nr_pages - 1 };
	if (!text)
		return 0;
	a->has_range = true;
	if (sscanf(text, "%llu-%llu%n", &first, &last, &end) != 2 || text[end]) {
		if (sscanf(text, "%llu%n", &first, &end) != 1 || text[end])
			return -EINVAL;
		last = first;
	}
	a->range = (struct range){ first, last };
	a->count = first;
	return strchr(text, '-') && last < first ? -EINVAL : 0;
}

static int parse(struct vm *vm, const char *text, struct action *ret, struct cis_error *err)
{
	const char *colon = strchr(text, ':');
	size_t len = colon ? (size_t)(colon - text) : strlen(text);
	struct action a = { .vm = vm, .in_background = *text == '&' };

	if (a.in_background) {
		text++;
		len--;
	}
	if (len >= sizeof(a.name) || parse_range(vm, colon ? colon + 1 : NULL, &a))
		return cis_fail(err, EINVAL, "%s: not an action", text);
	memcpy(a.name, text, len);
	if (strcmp(a.name, "storm") && strcmp(a.name, "churn") && a.range.last >= vm->nr_pages)
		return cis_fail(err, ERANGE, "%s: the guest has %llu pages", text,
				(unsigned long long)vm->nr_pages);
	*ret = a;
	return 0;
}

/* Removals of random runs all over the guest, as a balloon that inflates makes them. */
static int storm(struct vm *vm, uint64_t nr, struct cis_error *err)
{
	uint64_t state = vm->opt->seed * 2 + 1;
	int r = 0;

	for (uint64_t i = 0; i < nr && !r; i++) {
		struct range run;

		state = state * 6364136223846793005ull + 1442695040888963407ull;
		run.first = (state >> 20) % vm->nr_pages;
		run.last = run.first + (state >> 8) % STORM_PAGES;
		if (run.last >= vm->nr_pages)
			run.last = vm->nr_pages - 1;
		r = memory_remove(vm, &run, err);
	}
	return r;
}

static int join_all(struct cis_error *err)
{
	int r = 0;

	while (nr_background) {
		struct action *a = background[--nr_background];

		pthread_join(a->thread, NULL);
		if (a->rc && !r) {
			r = a->rc;
			*err = a->err;
		}
		free(a);
	}
	return r;
}

static int run(struct action *a)
{
	struct vm *vm = a->vm;

	if (!strcmp(a->name, "read"))
		return touch_pages(vm, TOUCH_READ, &a->range, true, &a->err);
	if (!strcmp(a->name, "write"))
		return touch_pages(vm, TOUCH_WRITE, &a->range, true, &a->err);
	if (!strcmp(a->name, "verify"))
		return touch_pages(vm, TOUCH_READ, &a->range, false, &a->err);
	if (!strcmp(a->name, "remove"))
		return memory_remove(vm, &a->range, &a->err);
	if (!strcmp(a->name, "storm"))
		return storm(vm, a->has_range ? a->count : 1000, &a->err);
	if (!strcmp(a->name, "churn"))
		return touch_churn(vm, a->has_range ? a->count : 10000, &a->err);
	if (!strcmp(a->name, "join") && !a->in_background)
		return join_all(&a->err);
	return cis_fail(&a->err, EINVAL, "%s: not an action", a->name);
}

static void *run_thread(void *arg)
{
	struct action *a = arg;

	a->rc = run(a);
	return NULL;
}

static int start(const struct action *a, struct cis_error *err)
{
	struct action *copy = malloc(sizeof(*copy));
	int r;

	if (!copy || nr_background == BACKGROUND_MAX) {
		free(copy);
		return cis_fail(err, EAGAIN, "more than %d actions in the background", BACKGROUND_MAX);
	}
	*copy = *a;
	r = pthread_create(&copy->thread, NULL, run_thread, copy);
	if (r) {
		free(copy);
		return cis_fail(err, r, "threads: %s", strerror(r));
	}
	background[nr_background++] = copy;
	return 0;
}

static int do_one(struct vm *vm, const char *text, struct cis_error *err)
{
	struct action a;
	int r = parse(vm, text, &a, err);

	if (r)
		return r;
	if (a.in_background)
		return start(&a, err);
	r = run(&a);
	if (r && err)
		*err = a.err;
	return r;
}

static int do_lines(struct vm *vm, struct cis_error *err)
{
	char line[256];

	while (fgets(line, sizeof(line), stdin)) {
		int r;

		line[strcspn(line, "\n")] = 0;
		r = do_one(vm, line, err);
		if (r)
			return r;
		printf("done %s\n", line);
		fflush(stdout);
	}
	return 0;
}

int actions_run(struct vm *vm, struct cis_error *err)
{
	char list[4096], *at = list, *one;
	struct cis_error late;
	int r = 0, r2;

	if (!strcmp(vm->opt->actions, "-")) {
		r = do_lines(vm, err);
	} else {
		if (strlen(vm->opt->actions) >= sizeof(list))
			return cis_fail(err, EINVAL, "the list of actions is too long");
		strcpy(list, vm->opt->actions);
		while (!r && (one = strsep(&at, ","))) {
			reached(vm, one);
			r = do_one(vm, one, err);
		}
	}
	r2 = join_all(&late);
	if (!r && r2)
		*err = late;
	return r ? r : r2;
}
