/* Touching pages by many threads, and looking at every byte of what comes. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fakevmm.h"

#define THREADS_MAX 64

/** struct touching - one pass, shared by its threads */
struct touching {
	struct vm *vm;
	enum touch how;
	struct range range;
	bool by_order;
	_Atomic uint64_t next;
	_Atomic int failed;
};

/* A guest's threads race for its pages on purpose: ThreadSanitizer asks here what it is to overlook. */
__attribute__((visibility("default"))) const char *__tsan_default_suppressions(void);

const char *__tsan_default_suppressions(void)
{
	return "race:read_page\nrace:write_page\nrace:overwrite_page\n";
}

/* A poisoned page raises SIGBUS in the thread that touches it. */
static _Thread_local sigjmp_buf poisoned;
static _Thread_local volatile sig_atomic_t may_jump;

static void on_bus(int sig)
{
	sigset_t bus;

	if (!may_jump)
		abort();
	sigemptyset(&bus);
	sigaddset(&bus, SIGBUS);
	pthread_sigmask(SIG_UNBLOCK, &bus, NULL); /* ThreadSanitizer's handler around this one blocks it */
	siglongjmp(poisoned, 1);
}

int touch_init(struct vm *vm, struct cis_error *err)
{
	struct sigaction act = { .sa_handler = on_bus, .sa_flags = SA_NODEFER };

	if (sigaction(SIGBUS, &act, NULL))
		return cis_fail(err, errno, "SIGBUS: %s", strerror(errno));
	pthread_mutex_init(&vm->result.lock, NULL);
	vm->expect = -1;
	if (!vm->opt->expect)
		return 0;
	vm->expect = open(vm->opt->expect, O_RDONLY | O_CLOEXEC);
	return vm->expect < 0 ? cis_fail(err, errno, "%s: %s", vm->opt->expect, strerror(errno)) : 0;
}

/*
 * What the memory file says; behind its end it is zeros.  Return: false when it cannot be read or there is
 * none.
 */
static bool read_original(const struct vm *vm, uint64_t pgno, uint8_t *buf)
{
	size_t at = 0;
	ssize_t n = 1;

	if (vm->expect < 0)
		return false;
	while (at < vm->page_bytes && n > 0) {
		n = pread(vm->expect, buf + at, vm->page_bytes - at, (off_t)(pgno * vm->page_bytes + at));
		if (n > 0)
			at += (size_t)n;
	}
	memset(buf + at, 0, vm->page_bytes - at);
	return n >= 0;
}

/* What a write leaves in the first eight bytes of a page. */
static uint64_t mark_of(uint64_t pgno)
{
	return 0xc157e4a000000000ull | pgno;
}

/* What churn writes over a page: zeros, one word, bytes that do not compress, or numbers that do. */
static void fill_version(uint64_t pgno, uint32_t version, uint8_t *buf, uint64_t bytes)
{
	uint64_t x = (pgno << 32 | version) * 0x9e3779b97f4a7c15ull, kind = x >> 61;

	for (uint64_t i = 0; i < bytes / sizeof(x); i++) {
		uint64_t word = kind == 0 ? 0 : kind == 1 ? x : kind < 4 ? (x += i) * 0x2545f4914f6cdd1dull : pgno << 20 | i % 64;

		if (!i && kind > 1)
			word = (uint64_t)version << 32 | pgno;
		memcpy(buf + i * sizeof(word), &word, sizeof(word));
	}
}

static void note_wrong(struct vm *vm, uint64_t pgno, size_t at, uint8_t is, uint8_t should, uint64_t nr)
{
	struct result *res = &vm->result;

	res->wrong_pages++;
	res->wrong_bytes += nr;
	pthread_mutex_lock(&res->lock);
	if (!res->has_wrong) {
		res->has_wrong = true;
		res->wrong_page = pgno;
		res->wrong_at = at;
		res->wrong_is = is;
		res->wrong_should = should;
	}
	pthread_mutex_unlock(&res->lock);
}

static void compare(struct vm *vm, uint64_t pgno, const uint8_t *is, const uint8_t *should)
{
	uint64_t nr = 0;
	size_t first = 0;

	vm->result.verified++;
	if (!memcmp(is, should, vm->page_bytes))
		return;
	for (size_t i = vm->page_bytes; i-- > 0;)
		if (is[i] != should[i]) {
			nr++;
			first = i;
		}
	note_wrong(vm, pgno, first, is[first], should[first], nr);
}

/* While a page changes, each of its bytes is the old or the new one. */
static void compare_any(struct vm *vm, uint64_t pgno, const uint8_t *is, const uint8_t *original)
{
	uint64_t mark = mark_of(pgno), nr = 0;
	size_t first = 0;

	vm->result.verified++;
	for (size_t i = vm->page_bytes; i-- > 0;)
		if (is[i] && is[i] != original[i] && (i >= sizeof(mark) || is[i] != ((uint8_t *)&mark)[i])) {
			nr++;
			first = i;
		}
	if (nr)
		note_wrong(vm, pgno, first, is[first], original[first], nr);
}

/* @room: two pages */
static void read_page(struct vm *vm, uint64_t pgno, uint8_t *room)
{
	struct page *page = &vm->pages[pgno];
	uint8_t *is = room, *should = room + vm->page_bytes;
	uint32_t changes = page->changes;
	bool quiet = !page->busy, known;
	enum content content = page->content;
	uint64_t mark = mark_of(pgno);

	memcpy(is, memory_page(vm, pgno), vm->page_bytes);
	quiet = quiet && !page->busy && page->changes == changes && content != CONTENT_ANY;
	known = read_original(vm, pgno, should);
	if (content == CONTENT_CHURNED && quiet) {
		fill_version(pgno, page->version, should, vm->page_bytes);
		compare(vm, pgno, is, should);
		return;
	}
	if (!quiet) {
		if (known && !page->version)
			compare_any(vm, pgno, is, should);
		return;
	}
	if (content == CONTENT_ZERO || content == CONTENT_ZERO_WRITTEN)
		memset(should, 0, vm->page_bytes);
	else if (!known)
		return;
	if (content == CONTENT_WRITTEN || content == CONTENT_ZERO_WRITTEN)
		memcpy(should, &mark, sizeof(mark));
	compare(vm, pgno, is, should);
}

/* What a page is with a mark in it. */
static enum content marked(enum content before)
{
	if (before == CONTENT_ANY || before == CONTENT_CHURNED)
		return CONTENT_ANY;
	return before == CONTENT_ZERO || before == CONTENT_ZERO_WRITTEN ? CONTENT_ZERO_WRITTEN : CONTENT_WRITTEN;
}

static void write_page(struct vm *vm, uint64_t pgno)
{
	struct page *page = &vm->pages[pgno];
	struct change c;

	page_begin(page, &c);
	*(volatile uint64_t *)(void *)memory_page(vm, pgno) = mark_of(pgno);
	page_end(page, &c, marked(c.before));
}

/* @room: a page.  Whatever was there before, afterwards it is known. */
static void overwrite_page(struct vm *vm, uint64_t pgno, uint8_t *room)
{
	struct page *page = &vm->pages[pgno];
	struct change c;
	uint32_t version;

	page_begin(page, &c);
	version = ++page->version;
	fill_version(pgno, version, room, vm->page_bytes);
	memcpy(memory_page(vm, pgno), room, vm->page_bytes);
	page_end(page, &c, CONTENT_CHURNED);
}

static void touch_page(struct touching *t, uint64_t pgno, uint8_t *room)
{
	struct vm *vm = t->vm;

	if (sigsetjmp(poisoned, 0)) {
		may_jump = 0;
		vm->result.poisoned++;
		if (t->how != TOUCH_READ)
			vm->pages[pgno].busy--;
		return;
	}
	may_jump = 1;
	if (t->how == TOUCH_WRITE)
		write_page(vm, pgno);
	else if (t->how == TOUCH_OVERWRITE)
		overwrite_page(vm, pgno, room);
	else
		read_page(vm, pgno, room);
	may_jump = 0;
	vm->pages[pgno].touched = 1;
	if (t->how != TOUCH_READ)
		vm->result.writes++;
	else
		vm->result.reads++;
}

/* --exit-after N: the process ends after N touches, wherever its other threads are. */
static void count_down(const struct vm *vm)
{
	if (vm->opt->exit_touches && vm->result.reads + vm->result.writes >= vm->opt->exit_touches)
		_exit(0);
}

static void *touch_thread(void *arg)
{
	struct touching *t = arg;
	struct vm *vm = t->vm;
	uint64_t nr = t->by_order ? vm->nr_order : t->range.last - t->range.first + 1, i;
	uint8_t *room = malloc(2 * vm->page_bytes);

	while (room && (i = t->next++) < nr) {
		uint64_t pgno = t->by_order ? vm->order[i] : t->range.first + i;

		if (pgno < t->range.first || pgno > t->range.last)
			continue;
		touch_page(t, pgno, room);
		count_down(vm);
	}
	if (!room)
		t->failed = ENOMEM;
	free(room);
	return NULL;
}

static int run_threads(struct touching *t, void *(*main)(void *), struct cis_error *err)
{
	pthread_t threads[THREADS_MAX];
	unsigned nr = 0;

	while (nr < t->vm->opt->threads && !t->failed) {
		t->failed = pthread_create(&threads[nr], NULL, main, t);
		nr += !t->failed;
	}
	for (unsigned i = 0; i < nr; i++)
		pthread_join(threads[i], NULL);
	return t->failed ? cis_fail(err, t->failed, "threads: %s", strerror(t->failed)) : 0;
}

int touch_pages(struct vm *vm, enum touch how, const struct range *r, bool by_order, struct cis_error *err)
{
	struct touching t = { .vm = vm, .how = how, .range = *r, .by_order = by_order };

	return run_threads(&t, touch_thread, err);
}

/* Of sixteen pages one is given back, three are read alone, and the others written anew. */
static int churn_page(struct touching *t, uint64_t pgno, uint64_t dice, uint8_t *room)
{
	struct touching anew = { .vm = t->vm, .how = TOUCH_OVERWRITE };

	touch_page(t, pgno, room);
	if (!(dice % 16))
		return memory_remove(t->vm, &(struct range){ pgno, pgno }, NULL);
	if (dice % 16 > 3)
		touch_page(&anew, pgno, room);
	return 0;
}

static void *churn_thread(void *arg)
{
	struct touching *t = arg;
	struct vm *vm = t->vm;
	uint64_t me = t->next++, threads = vm->opt->threads, state = (vm->opt->seed * 64 + me) * 2 + 1;
	uint64_t own = me < vm->nr_pages ? (vm->nr_pages - me + threads - 1) / threads : 0;
	uint8_t *room = malloc(2 * vm->page_bytes);

	if (!room)
		t->failed = ENOMEM;
	for (uint64_t i = 0; i < t->range.last && own && !t->failed; i++) {
		state = state * 6364136223846793005ull + 1442695040888963407ull;
		if (churn_page(t, (state >> 24) % own * threads + me, state >> 56, room))
			t->failed = EIO;
		count_down(vm);
	}
	free(room);
	return NULL;
}

int touch_churn(struct vm *vm, uint64_t nr, struct cis_error *err)
{
	struct touching t = { .vm = vm, .how = TOUCH_READ, .range = { 0, nr } };

	return run_threads(&t, churn_thread, err);
}
