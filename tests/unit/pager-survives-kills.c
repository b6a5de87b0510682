/*
 * A guest in a process of its own, with a real userfaultfd, touches, writes and gives back its pages from several threads, while
 * whoever serves it is killed at every named point, the first or a later time that it comes there, and another one takes over. No
 * thread ever reads a wrong word, and none waits for ever.
 *
 * usage: pager-survives-kills [POINT [TIME]]
 */
#include "check.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/point.h"
#include "os/memfd.h"
#include "os/sock.h"
#include "os/uffd.h"
#include "pager/pager.h"
#include "pager-image.h"

#define PAGES	 96u
#define BYTES	 ((uint64_t)PAGES * TEST_PAGE)
#define BLOCK	 4u /* pages that one thread owns together */
#define THREADS	 3u
#define TOUCHES	 250u
#define HUNG_S	 20 /* no step takes anywhere near that long */
#define NO_UFFD	 77
#define READ_BYTES_A_SECOND 100000000u /* so that reads are under way for a while */

static const int times[] = { 1, 3, 20 };

#define TIMES (sizeof(times) / sizeof(times[0]))

enum memory { ANONYMOUS, COPIED, ALIASED, PRIVATE, MEMORIES };

static const char *const memory_names[] = { "anonymous", "copied", "in place", "private" };

/* What outlives the processes of one round. */
struct round {
	enum memory memory;
	struct cis_image *img;
	uint8_t *content; /* the image's */
	int memfd, uffd;
	char *alias;
	uint64_t hva;
	void *state;
	uint64_t generation;
};

/* The guest. */

struct thread {
	const struct round *r;
	uint8_t *mem, *ref;
	unsigned nr;
	uint64_t rnd;
};

static void wrong(const struct thread *t, uint64_t pgno, const char *what)
{
	fprintf(stderr, "%s: page %llu: %s\n", memory_names[t->r->memory], (unsigned long long)pgno, what);
	_exit(1);
}

static void give_back(struct thread *t, uint64_t first)
{
	uint64_t nr = 1 + test_random(&t->rnd) % BLOCK;
	bool shared = t->r->memory == ALIASED || t->r->memory == COPIED;

	if (madvise(t->mem + first * TEST_PAGE, nr * TEST_PAGE, shared ? MADV_REMOVE : MADV_DONTNEED))
		wrong(t, first, strerror(errno));
	memset(t->ref + first * TEST_PAGE, 0, nr * TEST_PAGE);
}

static void touch(struct thread *t, uint64_t pgno)
{
	uint8_t *page = t->mem + pgno * TEST_PAGE, *ref = t->ref + pgno * TEST_PAGE;

	if (memcmp(page, ref, TEST_PAGE))
		wrong(t, pgno, "has other bytes than it should have");
	if (test_random(&t->rnd) % 2)
		return;
	test_fill_page(ref, 2, test_random(&t->rnd));
	memcpy(page, ref, TEST_PAGE);
}

/* Of the blocks that are the thread's own. */
static void *thread_main(void *arg)
{
	struct thread *t = arg;

	for (unsigned i = 0; i < TOUCHES; i++) {
		uint64_t block = test_random(&t->rnd) % (PAGES / BLOCK / THREADS) * THREADS + t->nr;

		if (test_random(&t->rnd) % 16)
			touch(t, block * BLOCK + test_random(&t->rnd) % BLOCK);
		else
			give_back(t, block * BLOCK);
	}
	for (uint64_t p = 0; p < PAGES; p++)
		if (p / BLOCK % THREADS == t->nr)
			touch(t, p);
	return NULL;
}

static void *map_memory(const struct round *r)
{
	int flags = r->memory == ANONYMOUS ? MAP_PRIVATE | MAP_ANONYMOUS : r->memory == PRIVATE ? MAP_PRIVATE : MAP_SHARED;
	void *mem = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, flags, r->memory == ANONYMOUS ? -1 : r->memfd, 0);

	return mem == MAP_FAILED ? NULL : mem;
}

static void guest_main(const struct round *r, int sock, uint64_t seed)
{
	uint64_t minor = r->memory == ANONYMOUS ? 0 : UFFD_FEATURE_MINOR_SHMEM;
	uint64_t mode = UFFDIO_REGISTER_MODE_MISSING | (minor ? UFFDIO_REGISTER_MODE_MINOR : 0);
	struct thread t[THREADS];
	pthread_t id[THREADS];
	uint8_t *ref = malloc(BYTES), *mem = map_memory(r);
	uint64_t hva = (uintptr_t)mem;
	int uffd;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm(HUNG_S);
	if (cis_uffd_open(UFFD_FEATURE_EVENT_REMOVE | minor, &uffd))
		_exit(NO_UFFD);
	memcpy(ref, r->content, BYTES);
	if (!mem || cis_uffd_register(uffd, hva, BYTES, mode) || cis_sock_send_all(sock, &hva, sizeof(hva), &uffd, 1))
		_exit(2);
	for (unsigned i = 0; i < THREADS; i++) {
		t[i] = (struct thread){ r, mem, ref, i, seed * 977 + i + 1 };
		if (pthread_create(&id[i], NULL, thread_main, &t[i]))
			_exit(2);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(id[i], NULL);
	_exit(0);
}

/* Who serves it. */

struct server {
	struct round *r;
	struct cis_pager *p;
	struct cis_store *store;
	struct cis_fill_job *job; /* the worker's; NULL: it has none */
	int to_worker, from_worker;
	bool gone;
};

static enum cis_point kill_at = CIS_POINT_NR;
static int kill_time;

static void at_point(enum cis_point point)
{
	if (point == kill_at && !__atomic_sub_fetch(&kill_time, 1, __ATOMIC_RELAXED))
		kill(getpid(), SIGKILL);
}

static void signal_event(int fd)
{
	uint64_t one = 1;

	if (write(fd, &one, sizeof(one)) != sizeof(one))
		_exit(3);
}

static void await_event(int fd)
{
	uint64_t n;

	if (read(fd, &n, sizeof(n)) != sizeof(n))
		_exit(3);
}

static void *worker_main(void *arg)
{
	struct server *s = arg;
	struct cis_scratch *scratch;
	struct cis_store *store;

	if (cis_scratch_create(&scratch) || cis_store_file_open(cis_image_fd(s->r->img), &store, NULL))
		_exit(3);
	for (;;) {
		await_event(s->to_worker);
		while (cis_fill_job_step(s->job, scratch, store))
			;
		signal_event(s->from_worker);
	}
	return NULL;
}

static struct cis_store *store_of(void *ctx, const struct cis_image *img)
{
	(void)img;
	return ((struct server *)ctx)->store;
}

static void guest_gone(void *ctx)
{
	((struct server *)ctx)->gone = true;
}

static void page_failed(void *ctx, uint64_t pgno, enum cis_outcome outcome, const struct cis_error *err)
{
	(void)ctx;
	(void)outcome;
	fprintf(stderr, "page %llu: %s\n", (unsigned long long)pgno, err->text);
	_exit(3);
}

static void make_pager(struct server *s, struct cis_scratch *scratch)
{
	struct round *r = s->r;
	struct cis_region region = { .hva = r->hva, .bytes = BYTES, .alias = r->alias,
				     .kind = r->memory == ANONYMOUS ? CIS_KIND_ANONYMOUS : r->memory == PRIVATE ?
					     CIS_KIND_PRIVATE : CIS_KIND_SHARED };
	struct cis_pager_opts opts = {
		.size = sizeof(opts), .regions = &region, .nr_regions = 1, .image = r->img, .os = &cis_pager_os_uffd,
		.os_ctx = &r->uffd, .clock = cis_now_ns, .scratch = scratch, .store_of = store_of, .neighbours = r->generation % 2,
		.policy = CIS_POLICY_KILL, .tries = 1, .failed = page_failed, .gone = guest_gone, .ctx = s,
		.adopt = r->generation > 1, .generation = r->generation,
	};
	struct cis_error err;
	int rc = 0;

	if (opts.adopt)
		rc = cis_state_adopt(r->state, cis_state_bytes(CIS_STATE_LAYOUT_MAX, PAGES), &opts.state, &err);
	else
		cis_state_init(r->state, CIS_STATE_LAYOUT_MAX, PAGES, 1, &opts.state);
	if (!rc)
		rc = cis_pager_create(&opts, &s->p, &err);
	if (rc) {
		fprintf(stderr, "%s\n", err.text);
		_exit(3);
	}
}

static void job_step(struct server *s)
{
	if (s->job)
		return;
	s->job = cis_pager_next_job(s->p);
	if (s->job)
		signal_event(s->to_worker);
}

static void job_over(struct server *s)
{
	struct cis_fill_job *job = s->job;

	await_event(s->from_worker);
	s->job = NULL;
	cis_pager_job_done(s->p, job);
}

/* Until the next deadline or event. */
static void await(struct server *s, int ms)
{
	struct pollfd fds[] = { { s->r->uffd, POLLIN, 0 }, { s->from_worker, POLLIN, 0 }, { cis_store_fd(s->store), POLLIN, 0 } };

	poll(fds, 3, ms);
	if (fds[1].revents)
		job_over(s);
	cis_store_reap(s->store);
}

static void stand_still(struct server *s)
{
	while (!cis_pager_pause(s->p))
		await(s, 1);
	cis_pager_resume(s->p);
}

/* The fill and the recording take turns, for a fill waits while first touches are recorded. */
static void change(struct server *s, unsigned turn)
{
	uint32_t *trace;
	uint64_t nr;

	if (turn % 16 == 8)
		stand_still(s);
	if (turn % 64 == 32)
		cis_pager_record_start(s->p);
	if (turn % 64 == 63 && !cis_pager_record_stop(s->p, &trace, &nr))
		free(trace);
}

static void server_main(struct round *r)
{
	struct server s = { .r = r, .to_worker = eventfd(0, 0), .from_worker = eventfd(0, 0) };
	struct cis_store *file;
	struct cis_scratch *scratch;
	struct cis_error err;
	pthread_t worker;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm(2 * HUNG_S);
	cis_point_hook = at_point;
	if (cis_scratch_create(&scratch) || cis_store_file_open(cis_image_fd(r->img), &file, &err) ||
	    cis_store_throttle_open(file, READ_BYTES_A_SECOND, &s.store, &err) ||
	    pthread_create(&worker, NULL, worker_main, &s))
		_exit(3);
	make_pager(&s, scratch);
	cis_pager_wake_all(s.p);
	for (unsigned turn = 0; !s.gone; turn++) {
		if (turn == 2)
			cis_pager_fill(s.p, CIS_FILL_ALL);
		while (cis_pager_run(s.p))
			;
		change(&s, turn);
		job_step(&s);
		await(&s, cis_pager_deadline(s.p) != UINT64_MAX);
	}
	_exit(0);
}

/* Rounds. */

static struct cis_image *make_image(uint8_t *content)
{
	char path[] = "/tmp/cistern-kills-XXXXXX";
	struct cis_write_opts opts = { .codec = CIS_CODEC_MASK, .chunk_shift = 14 };
	uint32_t hot[24];
	struct test_memory m;
	struct cis_image *img;

	assert_int_equal(close(mkstemp(path)), 0);
	test_memory_init(&m, PAGES);
	for (uint64_t p = 0; p < PAGES; p++)
		test_fill_page(m.mem + p * TEST_PAGE, p % 5, p + 1);
	for (unsigned i = 0; i < 24; i++)
		hot[i] = (i * 7 + 2) % PAGES;
	opts.hot = hot;
	opts.nr_hot = 24;
	img = test_write_image(path, &m, &opts);
	unlink(path);
	memcpy(content, m.mem, BYTES);
	test_memory_fini(&m);
	return img;
}

/* The guest, up to its first fault.  Return: its process, or 0 when there is no userfaultfd for it. */
static pid_t start_guest(struct round *r, uint64_t seed)
{
	size_t nr_fds = 0, len = 0;
	int pair[2], status, rc;
	struct pollfd fd;
	pid_t pid;

	assert_int_equal(cis_sock_pair(SOCK_SEQPACKET, pair), 0);
	pid = fork();
	if (!pid)
		guest_main(r, pair[1], seed);
	close(pair[1]);
	fd = (struct pollfd){ pair[0], POLLIN, 0 };
	poll(&fd, 1, -1);
	rc = cis_sock_recv(pair[0], &r->hva, sizeof(r->hva), &r->uffd, 1, &nr_fds, &len);
	close(pair[0]);
	if (!rc && nr_fds == 1)
		return pid;
	waitpid(pid, &status, 0);
	assert_int_equal(WEXITSTATUS(status), NO_UFFD);
	return 0;
}

static void open_round(struct round *r)
{
	void *map = NULL;

	r->memfd = -1;
	r->alias = NULL;
	r->generation = 0;
	r->state = mmap(NULL, cis_state_bytes(CIS_STATE_LAYOUT_MAX, PAGES), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(r->state, MAP_FAILED);
	if (r->memory != ANONYMOUS)
		assert_int_equal(cis_memfd_create("guest", BYTES, TEST_PAGE, &r->memfd), 0);
	if (r->memory == ALIASED || r->memory == PRIVATE)
		assert_int_equal(cis_memfd_map(r->memfd, 0, BYTES, &map), 0);
	r->alias = map;
}

static void close_round(struct round *r)
{
	munmap(r->state, cis_state_bytes(CIS_STATE_LAYOUT_MAX, PAGES));
	cis_memfd_unmap(r->alias, BYTES);
	if (r->memfd >= 0)
		close(r->memfd);
	close(r->uffd);
}

static bool while_taking_over(enum cis_point point)
{
	return point >= CIS_POINT_adopt_marked && point <= CIS_POINT_adopt_woken;
}

/* The first is killed at the point, or when it has read a REMOVE, and then the second at the point. */
static pid_t start_server(struct round *r, enum cis_point point, int time)
{
	pid_t pid;

	r->generation++;
	pid = fork();
	if (pid)
		return pid;
	if (r->generation == 1 && while_taking_over(point)) {
		kill_at = CIS_POINT_remove_page;
		kill_time = time;
	} else if (r->generation == 1 || (r->generation == 2 && while_taking_over(point))) {
		kill_at = point;
		kill_time = time;
	}
	server_main(r);
	return 0;
}

/* Return: how often a server was killed at @point, or -1 when there is no userfaultfd. */
static int run_round(struct round *r, enum cis_point point, int time)
{
	pid_t guest, server, pid;
	int status, killed = 0;

	open_round(r);
	guest = start_guest(r, (uint64_t)point * 1000 + (uint64_t)time);
	if (!guest)
		return -1;
	server = start_server(r, point, time);
	while ((pid = wait(&status)) != guest) {
		assert_int_equal(pid, server);
		if (WIFEXITED(status) && !WEXITSTATUS(status)) {
			server = 0; /* it saw the guest's end before we did; was it wrong, the guest waits for ever */
			continue;
		}
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
			fail_msg("%s, %s: server %llu ended by itself, status %d", memory_names[r->memory], cis_point_name(point),
				 (unsigned long long)r->generation, status);
		killed += r->generation == (while_taking_over(point) ? 2 : 1);
		server = start_server(r, point, time);
	}
	if (server) {
		kill(server, SIGKILL);
		waitpid(server, NULL, 0);
	}
	close_round(r);
	if (status)
		fail_msg("%s, killed at %s, time %d: the guest %s", memory_names[r->memory], cis_point_name(point), time,
			 WIFSIGNALED(status) ? "waits for ever" : "has seen what must not be");
	return killed;
}

static const char *only_point;
static int only_time;

static bool wanted(enum cis_point point)
{
	return !only_point || !strcmp(only_point, cis_point_name(point));
}

/* Store trouble alone leads there. */
static bool is_of_trouble(enum cis_point point)
{
	return point == CIS_POINT_page_poisoned;
}

static void killed_at_every_point(void **state)
{
	struct round r = { .content = malloc(BYTES) };
	unsigned rounds = 0, kills = 0;

	(void)state;
	r.img = make_image(r.content);
	for (enum cis_point point = CIS_POINT_ring_read; point <= CIS_POINT_resumed; point++) { /* the pager's own */
		unsigned here = 0, tried = 0;

		for (size_t i = 0; i < TIMES; i++)
			for (r.memory = ANONYMOUS; r.memory < MEMORIES; r.memory++) {
				if (!wanted(point))
					continue;
				int killed = run_round(&r, point, only_time ? only_time : times[i]);

				if (killed < 0)
					check_skip("this process may not have a userfaultfd");
				here += (unsigned)killed;
				tried++;
			}
		if (tried && !here && !is_of_trouble(point))
			print_message("never came to %s\n", cis_point_name(point));
		rounds += tried;
		kills += here;
	}
	print_message("%u rounds, %u kills\n", rounds, kills);
	cis_image_unref(r.img);
	free(r.content);
	assert_true(kills > 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(killed_at_every_point) };

	only_point = argc > 1 ? argv[1] : NULL;
	only_time = argc > 2 ? atoi(argv[2]) : 0;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
