/*
 * A program whose memory comes from the daemon through libcistern; told on its standard input what to read.
 *
 * Usage: client-reader anonymous|shared SOCKET REFERENCE
 * REFERENCE is the raw memory that the image was made of.  A line "FIRST LAST" compares these pages and answers "ok", or
 * "wrong PAGE"; at the end of the input it ends.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cistern/cistern.h"

#define PAGE 4096ull

static struct cis_memory *attach(const char *socket, int memfd, void *addr, uint64_t bytes)
{
	struct cis_memory_opts opts = { .size = sizeof(opts), .flags = CIS_MEMORY_WAIT, .socket = socket, .fd = memfd,
					.mapping = memfd < 0 ? CIS_MAPPING_ANONYMOUS : CIS_MAPPING_SHARED };
	struct cis_region_opts region = { .size = sizeof(region), .addr = addr, .bytes = bytes };
	struct cis_memory *memory;

	if (cis_memory_create(&opts, &memory) || cis_memory_add_region(memory, &region) || cis_memory_attach(memory)) {
		fprintf(stderr, "%s\n", cis_error());
		exit(1);
	}
	return memory;
}

static void compare(const char *memory, const char *reference, uint64_t first, uint64_t last)
{
	for (uint64_t i = first; i <= last; i++)
		if (memcmp(memory + i * PAGE, reference + i * PAGE, PAGE)) {
			printf("wrong %llu\n", (unsigned long long)i);
			return;
		}
	printf("ok\n");
}

int main(int argc, char **argv)
{
	int memfd = -1, file = argc == 4 ? open(argv[3], O_RDONLY) : -1;
	unsigned long long first, last;
	struct cis_memory *memory;
	char *addr, *reference;
	struct stat st;

	if (file < 0 || fstat(file, &st))
		return 2;
	if (!strcmp(argv[1], "shared")) {
		memfd = memfd_create("memory", MFD_CLOEXEC);
		if (memfd < 0 || ftruncate(memfd, st.st_size))
			return 1;
	}
	addr = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE,
		    memfd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, memfd, 0);
	reference = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, file, 0);
	if (addr == MAP_FAILED || reference == MAP_FAILED)
		return 1;
	memory = attach(argv[2], memfd, addr, (uint64_t)st.st_size);
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("attached\n");
	while (scanf("%llu %llu", &first, &last) == 2)
		compare(addr, reference, first, last);
	munmap(addr, (size_t)st.st_size);
	cis_memory_destroy(memory);
	return 0;
}
