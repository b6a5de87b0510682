/*
 * A program for cistern run: it maps, changes, moves and gives back memory in every way, knows what is in every page of it, and looks.
 *
 * Usage: run-churn STEPS SEED FORKS [THREADS].  Says "churned" at the end, or what is wrong, with status 1.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE	    4096ull
#define WORDS	    (PAGE / 8)
#define BLOCKS	    64
#define BLOCK_PAGES 512 /* at most: 64 MiB at about half of it */
#define MIN_PAGES   64	/* smaller mappings are not served */

/* Each page is zeros (tag 0) or full of its tag and its place. */
struct block {
	char *addr;
	unsigned pages;
	bool has_file; /* which is there again when a page is discarded, and ends */
	uint32_t tag[BLOCK_PAGES];
};

static struct block blocks[BLOCKS];
static uint64_t seed;
static uint32_t next_tag;
static atomic_bool stop;

static uint64_t draw(uint64_t *s, uint64_t below)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s % below;
}

static void die(const char *what, const struct block *b, unsigned page)
{
	printf("wrong: %s, page %u of %p (%u pages, tag %u): %s\n", what, page, b ? b->addr : NULL, b ? b->pages : 0, b ? b->tag[page] : 0,
	       strerror(errno));
	fflush(stdout);
	_exit(1);
}

static uint64_t word(uint32_t tag, unsigned i)
{
	return tag ? (uint64_t)tag << 32 | i * 2654435761u : 0;
}

static void look_at(const struct block *b, unsigned from, unsigned n, const char *when)
{
	for (unsigned p = from; p < from + n; p++) {
		const uint64_t *w = (const uint64_t *)(b->addr + p * PAGE);

		for (unsigned i = 0; i < WORDS; i++)
			if (w[i] != word(b->tag[p], i))
				die(when, b, p);
	}
}

static void look_at_all(const char *when)
{
	for (unsigned i = 0; i < BLOCKS; i++)
		if (blocks[i].addr)
			look_at(&blocks[i], 0, blocks[i].pages, when);
}

static void fill(struct block *b, unsigned from, unsigned n)
{
	for (unsigned p = from; p < from + n; p++) {
		uint64_t *w = (uint64_t *)(b->addr + p * PAGE);

		b->tag[p] = ++next_tag;
		for (unsigned i = 0; i < WORDS; i++)
			w[i] = word(b->tag[p], i);
	}
}

static void begin(struct block *b)
{
	b->has_file = false;
	b->pages = MIN_PAGES + (unsigned)draw(&seed, BLOCK_PAGES - MIN_PAGES);
	b->addr = mmap(NULL, b->pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (b->addr == MAP_FAILED)
		die("mmap", b, 0);
	memset(b->tag, 0, sizeof(b->tag));
}

static void unmap(struct block *b)
{
	if (munmap(b->addr, b->pages * PAGE))
		die("munmap", b, 0);
	b->addr = NULL;
}

/* The part behind becomes a block of its own, or goes too. */
static void punch(struct block *b, unsigned from, unsigned n)
{
	struct block *rest = NULL;

	if (munmap(b->addr + from * PAGE, n * PAGE))
		die("munmap of a part", b, from);
	for (unsigned i = 0; i < BLOCKS && !rest; i++)
		rest = blocks[i].addr ? NULL : &blocks[i];
	if (rest && from + n < b->pages) {
		rest->addr = b->addr + (from + n) * PAGE;
		rest->pages = b->pages - from - n;
		rest->has_file = b->has_file;
		memcpy(rest->tag, b->tag + from + n, rest->pages * sizeof(*rest->tag));
	} else if (from + n < b->pages && munmap(b->addr + (from + n) * PAGE, (b->pages - from - n) * PAGE)) {
		die("munmap of the end", b, from);
	}
	b->pages = from;
	if (!b->pages)
		b->addr = NULL;
}

static void remap(struct block *b)
{
	unsigned pages = 1 + (unsigned)draw(&seed, BLOCK_PAGES);
	char *to = NULL, *addr;

	if (b->has_file)
		return;
	if (draw(&seed, 3) == 0) { /* to a place of ours */
		to = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		memset(to, 255, PAGE);
	}
	addr = mremap(b->addr, b->pages * PAGE, pages * PAGE, MREMAP_MAYMOVE | (to ? MREMAP_FIXED : 0), to);
	if (addr == MAP_FAILED && errno == EFAULT) /* the kernel takes what is one mapping to it only, and may have made several of it */
		return (void)(to && munmap(to, pages * PAGE));
	if (addr == MAP_FAILED || (to && addr != to))
		die("mremap", b, 0);
	for (unsigned p = b->pages; p < pages; p++)
		b->tag[p] = 0;
	b->addr = addr;
	b->pages = pages;
}

static void discard(struct block *b, unsigned from, unsigned n, uint64_t how)
{
	char *at = b->addr + from * PAGE;
	int rc = 0;

	if (b->has_file)
		how = 2;
	if (how == 0)
		rc = madvise(at, n * PAGE, MADV_DONTNEED);
	else if (how == 1)
		rc = mprotect(at, n * PAGE, PROT_READ) || madvise(at, n * PAGE, MADV_DONTNEED);
	else
		rc = mmap(at, n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != at;
	memset(b->tag + from, 0, n * sizeof(*b->tag));
	if (rc)
		die("discard", b, from);
	look_at(b, from, n, "after it was discarded");
	if (how == 1 && mprotect(at, n * PAGE, PROT_READ | PROT_WRITE))
		die("mprotect", b, from);
}

/* What cannot come from the daemon: pages of a file in the middle of what does. */
static void map_file(struct block *b, unsigned from, unsigned n)
{
	static char page[PAGE];
	char name[] = "/tmp/run-churn.XXXXXX";
	int fd = mkstemp(name);
	uint32_t tag = ++next_tag;

	unlink(name);
	for (unsigned i = 0; i < WORDS; i++)
		((uint64_t *)page)[i] = word(tag, i);
	for (unsigned p = 0; p < n; p++) {
		b->tag[from + p] = tag;
		if (write(fd, page, PAGE) != PAGE)
			die("write", b, from);
	}
	if (mmap(b->addr + from * PAGE, n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, 0) == MAP_FAILED)
		die("mmap of a file", b, from);
	b->has_file = true;
	close(fd);
	look_at(b, from, n, "of a file");
}

static void use_malloc(uint64_t *s, unsigned times)
{
	for (unsigned i = 0; i < times; i++) {
		size_t len = 1 + draw(s, draw(s, 8) ? 20000 : 3 << 20);
		unsigned char *p = malloc(len), *q, mark = (unsigned char)draw(s, 256);

		memset(p, mark, len);
		q = realloc(p, len + 5000);
		for (size_t k = 0; k < len; k += 97)
			if (q[k] != mark)
				die("malloc", NULL, 0);
		free(q);
	}
}

/* The child has all of it, changes all of it, and nobody here sees that. */
static void try_fork(int depth)
{
	pid_t pid = fork();
	int status;

	if (pid < 0)
		die("fork", NULL, 0);
	if (!pid) {
		look_at_all("in a child");
		for (unsigned i = 0; i < BLOCKS; i++)
			if (blocks[i].addr) {
				fill(&blocks[i], 0, blocks[i].pages);
				discard(&blocks[i], 0, 1, 0);
			}
		look_at_all("in a child that wrote");
		use_malloc(&seed, 200);
		if (depth)
			try_fork(depth - 1);
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid || status)
		die("a child", NULL, (unsigned)status);
	look_at_all("after a fork");
}

static void step(void)
{
	struct block *b = &blocks[draw(&seed, BLOCKS)];

	if (!b->addr) {
		begin(b);
		return;
	}
	unsigned from = (unsigned)draw(&seed, b->pages), n = 1 + (unsigned)draw(&seed, b->pages - from);

	switch (draw(&seed, 16)) {
	case 0:
		unmap(b);
		break;
	case 1:
		punch(b, from, n);
		break;
	case 2:
		remap(b);
		break;
	case 3: case 4: case 5:
		discard(b, from, n, draw(&seed, 3));
		break;
	case 6:
		if (!draw(&seed, 8))
			map_file(b, from, n < 8 ? n : 8);
		break;
	case 7: case 8: case 9: case 10:
		look_at(b, from, n, "in a step");
		break;
	default:
		fill(b, from, n);
	}
}

static void *churn_malloc(void *arg)
{
	uint64_t s = (uintptr_t)arg;

	while (!atomic_load(&stop))
		use_malloc(&s, 20);
	return NULL;
}

int main(int argc, char **argv)
{
	unsigned steps = (unsigned)atoi(argv[1]), forks = (unsigned)atoi(argv[3]), threads = argc > 4 ? (unsigned)atoi(argv[4]) : 0;
	pthread_t thread[8];

	seed = (uint64_t)atoi(argv[2]) * 0x9e3779b97f4a7c15 + 1;
	for (unsigned i = 0; i < threads; i++)
		pthread_create(&thread[i], NULL, churn_malloc, (void *)(uintptr_t)(77 + i));
	for (unsigned i = 1; i <= steps; i++) {
		step();
		if (forks && i % (steps / forks) == 0)
			try_fork(i == steps);
	}
	atomic_store(&stop, true);
	for (unsigned i = 0; i < threads; i++)
		pthread_join(thread[i], NULL);
	look_at_all("at the end");
	printf("churned\n");
	return 0;
}
