#include "herd.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hist.h"
#include "cistern/cistern.h"
#include "client/api.h"
#include "snapshots.h"

#define PAGE	   4096u
#define STACK	   (256u << 10)
#define UNKNOWN	   UINT64_MAX

struct sheep {
	struct bench_herd *herd;
	pthread_t thread;
	struct cis_memory *memory;
	char *mem;
	uint64_t next; /* page */
	atomic_ullong pause_ns; /* UNKNOWN: rest */
	atomic_bool resting;
	pthread_mutex_t lock; /* of what is noted */
	struct cis_hist hist;
	unsigned epoch;
};

struct bench_herd {
	struct bench_daemon daemon;
	unsigned nr;
	uint64_t bytes;
	atomic_bool stop;
	atomic_uint epoch;
	struct sheep *sheep;
};

/* What the first word of each page says. */
static uint64_t word_of(uint64_t pgno)
{
	return (pgno + 1) * 0x9e3779b97f4a7c15u;
}

static void make_image(const char *folder, uint64_t bytes, char *image, size_t len)
{
	char memory[4300], *create[] = {"cistern", "image", "create", memory, image, "--codec", "lz4", NULL};
	uint64_t page[PAGE / 8];
	FILE *f;

	snprintf(memory, sizeof(memory), "%s/herd.raw", folder);
	snprintf(image, len, "%s/herd.cis", folder);
	f = fopen(memory, "w");
	if (!f)
		bench_die(memory, strerror(errno));
	for (uint64_t p = 0; p < bytes / PAGE; p++) {
		for (size_t i = 0; i < PAGE / 8; i++)
			page[i] = i % 4 ? i : word_of(p) + i; /* lz4 halves it, as it does guests */
		if (fwrite(page, sizeof(page), 1, f) != 1)
			bench_die(memory, strerror(errno));
	}
	if (fclose(f))
		bench_die(memory, strerror(errno));
	bench_run("cistern", create);
	unlink(memory);
}

static void note(struct sheep *s, uint64_t ns)
{
	unsigned epoch = atomic_load(&s->herd->epoch);

	pthread_mutex_lock(&s->lock);
	if (s->epoch != epoch) {
		memset(&s->hist, 0, sizeof(s->hist));
		s->epoch = epoch;
	}
	cis_hist_add(&s->hist, ns);
	pthread_mutex_unlock(&s->lock);
}

static void touch(struct sheep *s)
{
	uint64_t pgno = s->next++ % (s->herd->bytes / PAGE), start = cis_now_ns(NULL), got;

	got = *(volatile uint64_t *)(s->mem + pgno * PAGE);
	note(s, cis_now_ns(NULL) - start);
	if (got != word_of(pgno))
		bench_die("a guest", "read a wrong word");
}

static void *graze(void *arg)
{
	struct sheep *s = arg;

	while (!atomic_load(&s->herd->stop)) {
		uint64_t pause = atomic_load(&s->pause_ns);
		struct timespec ts = {.tv_nsec = 1000000};

		atomic_store(&s->resting, pause == UNKNOWN);
		if (pause != UNKNOWN) {
			touch(s);
			ts = (struct timespec){(time_t)(pause / 1000000000u), (long)(pause % 1000000000u)};
		}
		if (pause)
			nanosleep(&ts, NULL);
	}
	return NULL;
}

static void join(struct bench_herd *herd, unsigned n, struct cis_api *api, const char *image)
{
	struct sheep *s = &herd->sheep[n];
	json_t *body = json_pack("{s:s, s:s}", "image", image, "fill", "none"), *answer;
	struct cis_memory_opts opts = {.size = sizeof(opts), .mapping = CIS_MAPPING_ANONYMOUS, .fd = -1};
	struct cis_region_opts region = {.size = sizeof(region), .bytes = herd->bytes};
	struct cis_error err;
	pthread_attr_t attr;
	char path[64];

	snprintf(path, sizeof(path), "/v1/guests/herd-%u", n);
	if (cis_api_call(api, "PUT", path, body, &answer, &err))
		bench_die(path, err.text);
	s->mem = mmap(NULL, herd->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (s->mem == MAP_FAILED)
		bench_die("mmap", strerror(errno));
	madvise(s->mem, herd->bytes, MADV_NOHUGEPAGE);
	region.addr = s->mem;
	opts.socket = json_string_value(json_object_get(answer, "socket"));
	opts.flags = CIS_MEMORY_WAIT;
	if (cis_memory_create(&opts, &s->memory) || cis_memory_add_region(s->memory, &region) || cis_memory_attach(s->memory))
		bench_die(path, cis_error());
	json_decref(body);
	json_decref(answer);
	s->herd = herd;
	atomic_store(&s->pause_ns, UNKNOWN);
	pthread_mutex_init(&s->lock, NULL);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK);
	if (pthread_create(&s->thread, &attr, graze, s))
		bench_die("thread", strerror(errno));
	pthread_attr_destroy(&attr);
}

static void many_descriptors(void)
{
	struct rlimit files;

	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
}

struct bench_herd *bench_herd_create(const char *folder, unsigned nr, uint64_t bytes, const char *const *set)
{
	struct bench_herd *herd = calloc(1, sizeof(*herd));
	struct cis_api *api;
	struct cis_error err;
	char image[4300];

	if (!herd || !(herd->sheep = calloc(nr, sizeof(*herd->sheep))))
		bench_die("herd", strerror(ENOMEM));
	many_descriptors();
	herd->nr = nr;
	herd->bytes = bytes;
	make_image(folder, bytes, image, sizeof(image));
	bench_daemon_start(&herd->daemon, folder, set);
	if (cis_api_open(herd->daemon.control, &api, &err))
		bench_die("control socket", err.text);
	for (unsigned n = 0; n < nr; n++)
		join(herd, n, api, image);
	cis_api_close(api);
	return herd;
}

const struct bench_daemon *bench_herd_daemon(const struct bench_herd *herd)
{
	return &herd->daemon;
}

void bench_herd_pace(struct bench_herd *herd, unsigned from, unsigned to, uint64_t pause_ns)
{
	for (unsigned n = from; n < to; n++)
		atomic_store(&herd->sheep[n].pause_ns, pause_ns);
}

void bench_herd_rest(struct bench_herd *herd)
{
	bench_herd_pace(herd, 0, herd->nr, UNKNOWN);
	for (unsigned n = 0; n < herd->nr; n++)
		while (!atomic_load(&herd->sheep[n].resting))
			nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
}

void bench_herd_epoch(struct bench_herd *herd)
{
	atomic_fetch_add(&herd->epoch, 1);
}

void bench_herd_times(struct bench_herd *herd, unsigned from, unsigned to, struct bench_herd_times *ret)
{
	struct cis_hist all = {0};

	for (unsigned n = from; n < to; n++) {
		struct sheep *s = &herd->sheep[n];

		pthread_mutex_lock(&s->lock);
		if (s->epoch == atomic_load(&herd->epoch))
			cis_hist_merge(&all, &s->hist);
		pthread_mutex_unlock(&s->lock);
	}
	ret->touches = all.count;
	ret->longest = all.max;
	ret->p50 = cis_hist_quantile(&all, 0.5);
	ret->p99 = cis_hist_quantile(&all, 0.99);
}
