#include "snapshots.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../tests/unit/codec-data.h"
#include "base/cleanup.h"

#define SYNTHETIC_BYTES ((uint64_t)256 << 20)
#define SYNTHETIC_TOUCH 2048u

static char folder[4096];

void bench_die(const char *what, const char *why)
{
	fprintf(stderr, "%s: %s\n", what, why);
	exit(1);
}

void bench_must(int rc, const char *what)
{
	if (rc)
		bench_die(what, strerror(-rc));
}

static void folder_remove(void)
{
	DIR *dir = opendir(folder);
	struct dirent *entry;

	while (dir && (entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			unlinkat(dirfd(dir), entry->d_name, 0);
	if (dir)
		closedir(dir);
	rmdir(folder);
}

const char *bench_folder(void)
{
	const char *base = getenv("TMPDIR");

	if (*folder)
		return folder;
	snprintf(folder, sizeof(folder), "%s/cistern-bench-XXXXXX", base && *base ? base : "/var/tmp");
	if (!mkdtemp(folder))
		bench_die(folder, strerror(errno));
	atexit(folder_remove);
	return folder;
}

static void guest_open(struct bench_snapshot *g)
{
	struct cis_error err;
	struct stat st;
	char path[sizeof(g->path) + 8];

	g->fd = open(g->path, O_RDONLY | O_CLOEXEC);
	if (g->fd < 0 || fstat(g->fd, &st))
		bench_die(g->path, strerror(errno));
	g->bytes = (uint64_t)st.st_size;
	snprintf(path, sizeof(path), "%.*s.trace", (int)strlen(g->path) - 4, g->path);
	if (!access(path, R_OK) && cis_trace_load(path, &g->trace, &err))
		bench_die(path, err.text);
}

static void real_guests(struct bench_snapshots *g, const char *dir)
{
	struct dirent **names;
	int n = scandir(dir, &names, NULL, alphasort);

	if (n < 0)
		bench_die(dir, strerror(errno));
	for (int i = 0; i < n; i++) {
		const char *name = names[i]->d_name;
		int stem = (int)strlen(name) - 4;

		if (stem > 0 && !strcmp(name + stem, ".raw") && g->nr < BENCH_SNAPSHOTS_MAX) {
			struct bench_snapshot *guest = &g->snapshot[g->nr++];

			snprintf(guest->name, sizeof(guest->name), "%.*s", stem, name);
			snprintf(guest->path, sizeof(guest->path), "%s/%s", dir, name);
			guest_open(guest);
		}
		free(names[i]);
	}
	free(names);
}

/* A third zeros; the rest of several kinds in runs of four pages.  Touched: runs of 1 to 8 pages all over. */
static void synthetic_guest(struct bench_snapshots *g)
{
	static const enum data_kind mix[] = {DATA_POINTERS, DATA_TEXT,	 DATA_SPARSE, DATA_POINTERS,
					     DATA_RANDOM,   DATA_POINTERS, DATA_TEXT,	DATA_RUNS};
	struct bench_snapshot *guest = &g->snapshot[g->nr++];
	uint64_t nr = SYNTHETIC_BYTES / BENCH_PAGE, at = 1;
	uint8_t page[BENCH_PAGE];
	FILE *f;

	snprintf(guest->name, sizeof(guest->name), "synthetic");
	snprintf(guest->path, sizeof(guest->path), "%.4000s/synthetic.raw", bench_folder());
	f = fopen(guest->path, "w");
	if (!f)
		bench_die(guest->path, strerror(errno));
	for (uint64_t i = 0; i < nr; i++) {
		memset(page, 0, sizeof(page));
		if (i / 64 % 3)
			data_make(mix[i / 4 % 8], page, sizeof(page), i);
		if (fwrite(page, sizeof(page), 1, f) != 1)
			bench_die(guest->path, strerror(errno));
	}
	if (fclose(f))
		bench_die(guest->path, strerror(errno));
	guest_open(guest);
	guest->trace = (struct cis_trace){.page_shift = 12, .guest_bytes = SYNTHETIC_BYTES};
	guest->trace.pgno = calloc(SYNTHETIC_TOUCH, sizeof(*guest->trace.pgno));
	if (!guest->trace.pgno)
		bench_die("synthetic", strerror(ENOMEM));
	while (guest->trace.nr < SYNTHETIC_TOUCH) {
		uint64_t run = at % 8 + 1;

		for (uint64_t i = 0; i < run && guest->trace.nr < SYNTHETIC_TOUCH; i++)
			guest->trace.pgno[guest->trace.nr++] = (uint32_t)((at + i) % nr);
		at = (at + 40503) % nr;
	}
}

void bench_snapshots_open(struct bench_snapshots *g)
{
	const char *dir = getenv("CISTERN_BENCH_GUESTS");

	*g = (struct bench_snapshots){0};
	if (dir && *dir)
		real_guests(g, dir);
	if (g->nr) {
		printf("guests: %zu memory files of %s\n", g->nr, dir);
		return;
	}
	printf("guests: no *.raw under CISTERN_BENCH_GUESTS: SYNTHETIC memory, made here, like no real guest\n");
	g->synthetic = 1;
	synthetic_guest(g);
}

void bench_snapshots_close(struct bench_snapshots *g)
{
	for (size_t i = 0; i < g->nr; i++) {
		cis_trace_fini(&g->snapshot[i].trace);
		close(g->snapshot[i].fd);
	}
}

/* Pages of a file in the page cache, of @fd whole. */
static size_t cached_pages(int fd)
{
	struct stat st;
	size_t pages, in = 0;
	unsigned char *vec;
	void *map;

	if (fstat(fd, &st) || !st.st_size)
		return 0;
	pages = ((size_t)st.st_size + BENCH_PAGE - 1) / BENCH_PAGE;
	map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	vec = malloc(pages);
	if (map == MAP_FAILED || !vec || mincore(map, (size_t)st.st_size, vec))
		bench_die("mincore", strerror(errno));
	for (size_t i = 0; i < pages; i++)
		in += vec[i] & 1;
	munmap(map, (size_t)st.st_size);
	free(vec);
	return in;
}

void bench_drop(const char *path)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t left;

	if (fd < 0 || fdatasync(fd))
		bench_die(path, strerror(errno));
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	left = cached_pages(fd);
	if (left)
		fprintf(stderr, "%s: %zu pages stay in the page cache: not quite cold\n", path, left);
}

void bench_warm(const char *path)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	_cleanup_free_ char *buf = malloc(1 << 20);

	if (fd < 0 || !buf)
		bench_die(path, strerror(errno));
	while (read(fd, buf, 1 << 20) > 0)
		;
}

char *bench_map(uint64_t bytes)
{
	char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		bench_die("mmap", strerror(errno));
	madvise(p, bytes, MADV_NOHUGEPAGE);
	return p;
}

void bench_pretouch(uint64_t bytes)
{
	char *p = bench_map(bytes);

	memset(p, 1, bytes);
	munmap(p, bytes);
}
