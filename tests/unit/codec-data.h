/* Data that resembles memory in one way or another, and buffers that end at a page that must not be touched. */
#ifndef CIS_TESTS_CODEC_DATA_H
#define CIS_TESTS_CODEC_DATA_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

enum data_kind { DATA_RANDOM, DATA_ZERO, DATA_SAME, DATA_SPARSE, DATA_TEXT, DATA_POINTERS, DATA_RUNS, DATA_KINDS };

static inline uint64_t data_random(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

static inline void data_sparse(uint8_t *buf, size_t len, uint64_t *seed)
{
	memset(buf, 0, len);
	for (size_t i = 0; i < len; i += 1 + data_random(seed) % 200)
		buf[i] = (uint8_t)data_random(seed);
}

static inline void data_text(uint8_t *buf, size_t len, uint64_t *seed)
{
	static const char *const words[] = {"memory ", "page ", "guest ", "of ", "the ", "chunk\n", "store ", "fault, "};

	for (size_t at = 0; at < len;) {
		const char *word = words[data_random(seed) % 8];
		size_t n = strlen(word) < len - at ? strlen(word) : len - at;

		memcpy(buf + at, word, n);
		at += n;
	}
}

/* Records of pointers, counters and flags, as a heap is full of. */
static inline void data_pointers(uint8_t *buf, size_t len, uint64_t *seed)
{
	for (size_t i = 0; i < len / 8; i++) {
		uint64_t r = data_random(seed);
		uint64_t w = i % 4 == 0   ? UINT64_C(0xffff888000000000) + (r & 0xffffff8)
			     : i % 4 == 1 ? i
			     : i % 4 == 2 ? (r & 7)
					  : 0;

		memcpy(buf + 8 * i, &w, 8);
	}
}

/* Runs of one byte of any length, beside a little noise: long matches and far ones. */
static inline void data_runs(uint8_t *buf, size_t len, uint64_t *seed)
{
	for (size_t at = 0; at < len;) {
		size_t n = 1 + data_random(seed) % 9000;

		if (n > len - at)
			n = len - at;
		if (data_random(seed) % 4 == 0 && at > n)
			memcpy(buf + at, buf + at - n, n);
		else
			memset(buf + at, (int)(data_random(seed) % 3), n);
		at += n;
		if (at < len)
			buf[at++] = (uint8_t)data_random(seed);
	}
}

static inline void data_make(enum data_kind kind, uint8_t *buf, size_t len, uint64_t seed)
{
	seed = seed * 2654435769u + 88172645463325252u + kind;
	switch (kind) {
	case DATA_RANDOM:
		for (size_t i = 0; i < len / 8; i++)
			memcpy(buf + 8 * i, &(uint64_t){data_random(&seed)}, 8);
		break;
	case DATA_ZERO:
		memset(buf, 0, len);
		break;
	case DATA_SAME:
		for (size_t i = 0; i < len; i++)
			buf[i] = (uint8_t)(0xa0 + i % 8);
		break;
	case DATA_SPARSE:
		data_sparse(buf, len, &seed);
		break;
	case DATA_TEXT:
		data_text(buf, len, &seed);
		break;
	case DATA_POINTERS:
		data_pointers(buf, len, &seed);
		break;
	default:
		data_runs(buf, len, &seed);
	}
}

/* struct fence - room for @len bytes that ends where an inaccessible page begins; assembly cannot slip past it */
struct fence {
	uint8_t *map;
	size_t map_len;
	size_t room;
};

static inline int fence_init(struct fence *fence, size_t len)
{
	fence->room = (len + 4095) / 4096 * 4096;
	fence->map_len = fence->room + 2 * 4096;
	fence->map = mmap(NULL, fence->map_len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (fence->map == MAP_FAILED)
		return -1;
	return mprotect(fence->map + 4096, fence->room, PROT_READ | PROT_WRITE);
}

static inline void fence_fini(struct fence *fence)
{
	munmap(fence->map, fence->map_len);
}

/* The last @len bytes before the fence. */
static inline uint8_t *fence_end(struct fence *fence, size_t len)
{
	return fence->map + 4096 + fence->room - len;
}

/* The first bytes after the fence in front. */
static inline uint8_t *fence_start(struct fence *fence)
{
	return fence->map + 4096;
}

#endif
