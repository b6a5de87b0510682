/*
 * A program that knows nothing of Cistern and maps its memory as QEMU does; preload-takes-the-named-ram starts it.
 * Usage: preload-program shared|private|remove PATH|memfd:NAME...    Prints the first word of every page, block by block.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define BYTES (16u << 20)

static int open_block(const char *name)
{
	int fd = strncmp(name, "memfd:", 6) ? open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600)
					    : memfd_create(name + 6, MFD_CLOEXEC);

	return fd < 0 || ftruncate(fd, BYTES) ? -1 : fd;
}

int main(int argc, char **argv)
{
	uint64_t *blocks[8] = { NULL };

	if (argc < 3 || argc > 10)
		return 2;
	for (int i = 2; i < argc; i++) {
		int fd = open_block(argv[i]), flags = strcmp(argv[1], "private") ? MAP_SHARED : MAP_PRIVATE;
		void *hole = mmap(NULL, BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		blocks[i - 2] = mmap(hole, BYTES, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, 0);
		if (fd < 0 || blocks[i - 2] == MAP_FAILED)
			return 3;
	}
	if (!strcmp(argv[1], "remove") && madvise(blocks[0], 4096, MADV_REMOVE))
		return 4;
	for (int i = 2; i < argc; i++)
		for (size_t page = 0; page < BYTES / 4096; page++)
			printf("%016" PRIx64 "\n", *(volatile uint64_t *)(blocks[i - 2] + page * 512));
	return 0;
}
