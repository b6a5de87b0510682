/*
 * cistern-fakevmm: plays a microVM monitor towards a memory daemon, well or badly, and checks every byte it
 * gets.
 *
 * It shares no code with the daemon beyond sockets: what it says is written here again, from the protocol
 * alone.
 */
#ifndef FAKEVMM_H
#define FAKEVMM_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define REGIONS_MAX 1024
#define BALLAST_FDS 9

enum memory { MEMORY_ANONYMOUS, MEMORY_MEMFD, MEMORY_PRIVATE, MEMORY_HUGETLB, MEMORY_HUGETLB_MEMFD };
enum order { ORDER_SEQUENTIAL, ORDER_REVERSE, ORDER_RANDOM, ORDER_FILE };

/** struct range - page numbers, both included */
struct range {
	uint64_t first, last;
};

/** struct options - the command line */
struct options {
	const char *socket;
	/* memory */
	uint64_t size, page_bytes;
	uint64_t region_size[REGIONS_MAX];
	size_t nr_regions;
	enum memory memory;
	bool minor, populate;
	/* what is said */
	unsigned version; /* minor: 12 is v1.12 */
	bool client;	  /* libcistern's key, and an answer is waited for */
	size_t fragment;  /* bytes a message; 0: all at once */
	const char *bad;
	const char *exit_after, *hang_after;
	uint64_t exit_touches; /* 0: not by touches */
	/* what is done */
	const char *actions;
	enum order order;
	const char *order_file;
	uint64_t seed, max_pages;
	unsigned threads;
	const char *expect;
	bool step, json;
	unsigned timeout_s;
};

/** options_parse() - Return: 0, or what to exit with, less one (help: 1, wrong usage: 3). */
int options_parse(int argc, char **argv, struct options *ret);

/** struct region - as the guest sees it */
struct region {
	char *addr;
	uint64_t bytes, offset;
};

/**
 * struct page - what a page must read as
 * @content: enum content, the result of the last change
 * @busy:    changes under way
 * @changes: begun so far; a reader that saw no change may insist on one content
 * @version: of what was last written over all of it; 0: never was
 * @lock:    of a change's begin and end, not of the change
 */
struct page {
	_Atomic uint32_t changes, version;
	_Atomic uint16_t busy;
	_Atomic uint8_t content;
	_Atomic uint8_t touched;
	atomic_flag lock;
};

enum content { CONTENT_ORIGINAL, CONTENT_ZERO, CONTENT_WRITTEN, CONTENT_ZERO_WRITTEN, CONTENT_CHURNED, CONTENT_ANY };

/** struct result - counted by all threads */
struct result {
	_Atomic uint64_t reads, writes, removes, pages_removed, verified, wrong_pages, wrong_bytes, poisoned;
	pthread_mutex_t lock; /* of what follows */
	bool has_wrong;
	uint64_t wrong_page, wrong_at;
	uint8_t wrong_is, wrong_should;
};

struct vm {
	const struct options *opt;
	struct region regions[REGIONS_MAX];
	size_t nr_regions;
	uint64_t bytes, page_bytes, nr_pages;
	int uffd, memfd, sock, expect;
	struct page *pages;
	uint64_t *order; /* page numbers */
	uint64_t nr_order;
	struct result result;
	uint64_t start_ns;
	const char *refusal; /* NULL: none */
	char answer[1024];
};

/** struct change - of one page, from page_begin() to page_end() */
struct change {
	uint32_t number;
	bool alone; /* none was under way when it began */
	uint8_t before; /* enum content */
};

/* memory.c */
/** page_begin() - whoever looks from now on may see anything. */
void page_begin(struct page *page, struct change *c);
/** page_end() - @content is what there is now, unless another change was under way meanwhile: then nobody knows. */
void page_end(struct page *page, const struct change *c, uint8_t content);

int memory_create(struct vm *vm, struct cis_error *err);
char *memory_page(const struct vm *vm, uint64_t pgno);
/** memory_remove() - give pages back as a balloon makes the monitor do; counted. */
int memory_remove(struct vm *vm, const struct range *r, struct cis_error *err);

/* hello.c */
/** hello_send() - connect and send the handshake, as asked for.  Exits or hangs where the options say so. */
int hello_send(struct vm *vm, struct cis_error *err);
/** hello_wait_refused() - wait until the daemon hangs up.  Return: 0 when it did. */
int hello_wait_refused(struct vm *vm, struct cis_error *err);
/** hello_wait_answer() - libcistern's: "k", or -EPERM with the reason. */
int hello_wait_answer(struct vm *vm, struct cis_error *err);

/* bad.c */
/** struct bad - one way to say it wrong */
struct bad {
	const char *name;
	int fds; /* to send instead of the right ones; -1: the right ones, -2: other kinds of descriptors */
	const char *what;
};
extern const struct bad bads[];
const struct bad *bad_find(const char *name);
/** bad_text() - the handshake in @buf of @room bytes, wrong as @bad says.  Return: its length. */
size_t bad_text(const struct vm *vm, const char *bad, char *buf, size_t room);

/* order.c */
int order_create(struct vm *vm, struct cis_error *err);

/* touch.c */
/** touch_init() - before any page is touched. */
int touch_init(struct vm *vm, struct cis_error *err);
enum touch { TOUCH_READ, TOUCH_WRITE, TOUCH_OVERWRITE };
/** touch_pages() - by all threads; @by_order: in the order asked for, else ascending. */
int touch_pages(struct vm *vm, enum touch how, const struct range *r, bool by_order, struct cis_error *err);

/**
 * touch_churn() - each thread @nr times takes a random page of those that are its own, verifies it, and writes all of it anew, or
 * gives it back
 */
int touch_churn(struct vm *vm, uint64_t nr, struct cis_error *err);

/* action.c */
/** actions_run() - Return: 0, or -errno when an action is not one or could not be done. */
int actions_run(struct vm *vm, struct cis_error *err);

/* report.c */
void report_print(struct vm *vm, const char *error);
bool report_is_good(const struct vm *vm);

/* main.c */
/** reached() - a point that --step, --exit-after and --hang-after know. */
void reached(struct vm *vm, const char *point);

#endif
