/*
 * The gate between a worker that installs pages and the shard that reads REMOVE events, forced: no event is read while pages
 * are being installed, and a shard that waits for that is next, however many workers want to go on installing.
 */
#include "check.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "pager/pager.h"
#include "pager-image.h"

#define PAGES 256u
#define HVA   0x7f0000000000ull

struct world {
	struct cis_pager *pager;
	struct cis_store *store;
	struct cis_image *img;
	sem_t entered, go; /* the first install waits in the kernel, from one to the other */
	atomic_uint copies, inside;
	atomic_bool was_read, read_inside, copied_first;
};

static int k_read(void *ctx, struct uffd_msg *msgs, size_t max, size_t *ret_n)
{
	struct world *w = ctx;

	(void)msgs;
	(void)max;
	(void)ret_n;
	if (atomic_load(&w->inside))
		atomic_store(&w->read_inside, true);
	atomic_store(&w->was_read, true);
	return -EAGAIN;
}

static int k_copy(void *ctx, uint64_t dst, const void *src, uint64_t len, uint64_t *ret_done)
{
	struct world *w = ctx;

	(void)dst;
	(void)src;
	atomic_fetch_add(&w->inside, 1);
	if (!atomic_fetch_add(&w->copies, 1)) {
		sem_post(&w->entered);
		while (sem_wait(&w->go))
			;
	} else if (!atomic_load(&w->was_read)) {
		atomic_store(&w->copied_first, true);
	}
	atomic_fetch_sub(&w->inside, 1);
	*ret_done = len;
	return 0;
}

static int k_range(void *ctx, uint64_t dst, uint64_t len)
{
	(void)ctx;
	(void)dst;
	(void)len;
	return 0;
}

static const struct cis_pager_os kernel = { .read = k_read, .copy = k_copy, .wake = k_range, .unregister = k_range };

static struct cis_store *store_of(void *ctx, const struct cis_image *img)
{
	(void)img;
	return ((struct world *)ctx)->store;
}

struct actor {
	struct world *w;
	struct cis_fill_job *job; /* NULL: the shard */
	pthread_t thread;
	atomic_int tid;
	atomic_bool over;
};

static void *act(void *arg)
{
	struct actor *a = arg;
	struct cis_scratch *scratch;
	struct cis_error err;
	struct cis_store *store;

	if (cis_scratch_create(&scratch) || cis_store_file_open(cis_image_fd(a->w->img), &store, &err))
		abort();
	atomic_store(&a->tid, (int)syscall(SYS_gettid));
	if (!a->job)
		cis_pager_run(a->w->pager);
	else
		while (cis_fill_job_step(a->job, scratch, store))
			;
	atomic_store(&a->over, true);
	cis_store_close(store);
	cis_scratch_destroy(scratch);
	return NULL;
}

static void start(struct actor *a, struct world *w, struct cis_fill_job *job)
{
	*a = (struct actor){ .w = w, .job = job };
	assert_int_equal(pthread_create(&a->thread, NULL, act, a), 0);
}

/* It waits in a futex: for a lock, there is nothing else. */
static bool is_locked_out(const struct actor *a)
{
	char path[64], text[64] = "";
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", atomic_load(&a->tid));
	f = fopen(path, "re");
	if (!f)
		return false;
	if (!fgets(text, sizeof(text), f))
		*text = 0;
	fclose(f);
	return atoi(text) == SYS_futex && *text != 'r';
}

/* Until it waits for the gate, or is past it, which is wrong. */
static void await(const struct actor *a)
{
	while (!atomic_load(&a->tid) || (!is_locked_out(a) && !atomic_load(&a->over)))
		sched_yield();
}

static void make_image(struct world *w, const char *path)
{
	struct test_memory m;
	struct cis_write_opts opts = { .codec = CIS_CODEC_RAW, .chunk_shift = 16 };

	test_memory_init(&m, PAGES);
	for (uint64_t p = 0; p < PAGES; p++)
		test_fill_page(m.mem + p * TEST_PAGE, 2, p + 1);
	w->img = test_write_image(path, &m, &opts);
	test_memory_fini(&m);
}

static void nothing_is_read_while_pages_go_in(void **state)
{
	char path[] = "/tmp/cistern-gate-XXXXXX";
	struct cis_region region = { .hva = HVA, .bytes = PAGES * TEST_PAGE };
	struct world w = { 0 };
	struct cis_pager_opts opts = {
		.size = sizeof(opts), .regions = &region, .nr_regions = 1, .os = &kernel, .os_ctx = &w, .clock = cis_now_ns,
		.store_of = store_of, .tries = 1, .ctx = &w,
	};
	void *map = calloc(1, cis_state_bytes(CIS_STATE_LAYOUT_MAX, PAGES));
	struct actor shard, first, second;
	struct cis_fill_job *jobs[2];
	struct cis_scratch *scratch;
	struct cis_error err;
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	close(fd);
	make_image(&w, path);
	assert_int_equal(cis_scratch_create(&scratch), 0);
	assert_int_equal(cis_store_file_open(cis_image_fd(w.img), &w.store, &err), 0);
	sem_init(&w.entered, 0, 0);
	sem_init(&w.go, 0, 0);
	opts.image = w.img;
	opts.scratch = scratch;
	cis_state_init(map, CIS_STATE_LAYOUT_MAX, PAGES, 1, &opts.state);
	assert_int_equal(cis_pager_create(&opts, &w.pager, &err), 0);
	cis_pager_fill(w.pager, CIS_FILL_ALL);
	for (int i = 0; i < 2; i++)
		assert_non_null(jobs[i] = cis_pager_next_job(w.pager));

	start(&first, &w, jobs[0]);
	while (sem_wait(&w.entered))
		;
	start(&shard, &w, NULL);
	await(&shard);
	start(&second, &w, jobs[1]);
	await(&second);
	sem_post(&w.go);
	pthread_join(first.thread, NULL);
	pthread_join(shard.thread, NULL);
	pthread_join(second.thread, NULL);
	assert_true(w.was_read);
	assert_false(w.read_inside);
	assert_false(w.copied_first);

	for (int i = 0; i < 2; i++)
		cis_pager_job_done(w.pager, jobs[i]);
	assert_true(cis_pager_quiesce(w.pager));
	cis_pager_destroy(w.pager);
	cis_store_close(w.store);
	cis_scratch_destroy(scratch);
	cis_image_unref(w.img);
	free(map);
	unlink(path);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(nothing_is_read_while_pages_go_in) };

	check_native(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
