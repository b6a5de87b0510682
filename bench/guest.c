#include "guest.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "os/memfd.h"
#include "os/sock.h"
#include "os/uffd.h"

#define PAGE 4096u

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void pin(int cpu)
{
	cpu_set_t set;

	if (cpu < 0)
		return;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("sched_setaffinity");
}

static char *map(uint64_t bytes, int memfd)
{
	int flags = memfd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	char *mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, memfd, 0);

	if (mem == MAP_FAILED)
		die("mmap");
	madvise(mem, bytes, MADV_NOHUGEPAGE);
	return mem;
}

static void child(struct bench_guest *g, enum bench_memory memory, int memfd, int sock, int cpu)
{
	uint64_t mode = UFFDIO_REGISTER_MODE_MISSING;
	char *mem = map(g->bytes, memory == BENCH_ANONYMOUS ? -1 : memfd);
	uint32_t nr;
	int uffd;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	pin(cpu);
	if (memory == BENCH_ALLOCATED)
		mode |= UFFDIO_REGISTER_MODE_MINOR;
	if (cis_uffd_open(memory == BENCH_ALLOCATED ? UFFD_FEATURE_MINOR_SHMEM : 0, &uffd) ||
	    cis_uffd_register(uffd, (uint64_t)mem, g->bytes, mode))
		die("userfaultfd");
	if (cis_sock_send_all(sock, &mem, sizeof(mem), &uffd, 1))
		die("send");
	while (read(g->go, &nr, sizeof(nr)) == sizeof(nr)) {
		const uint32_t *pgno = g->ns + g->bytes / PAGE;

		for (uint32_t i = 0; i < nr; i++) {
			volatile char *at = mem + (uint64_t)(pgno[i] & ~BENCH_WRITE) * PAGE;
			uint64_t start = now_ns();

			if (pgno[i] & BENCH_WRITE)
				*at = (char)i;
			else
				*at;
			g->ns[i] = (uint32_t)(now_ns() - start);
		}
		if (write(g->done, &nr, sizeof(nr)) != sizeof(nr))
			break;
	}
	_exit(0);
}

void bench_guest_start(struct bench_guest *g, uint64_t bytes, enum bench_memory memory, int cpu)
{
	int go[2], done[2], pair[2], memfd = -1;
	size_t nr_fds, len;

	*g = (struct bench_guest){ .bytes = bytes, .ns_bytes = 2 * bytes / PAGE * sizeof(uint32_t) };
	g->ns = mmap(NULL, g->ns_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (g->ns == MAP_FAILED || pipe(go) || pipe(done) || cis_sock_pair(SOCK_STREAM, pair))
		die("guest");
	if (memory != BENCH_ANONYMOUS && cis_memfd_create("bench", bytes, PAGE, &memfd))
		die("memfd");
	if (memfd >= 0 && cis_memfd_map(memfd, 0, bytes, (void **)&g->view))
		die("mmap");
	if (memory == BENCH_ALLOCATED) {
		g->alias = g->view;
		memset(g->alias, 0, bytes);
	}
	g->go = go[0];
	g->done = done[1];
	g->pid = fork();
	if (g->pid < 0)
		die("fork");
	if (!g->pid) {
		close(go[1]);
		close(done[0]);
		child(g, memory, memfd, pair[1], cpu);
	}
	close(go[0]);
	close(done[1]);
	close(pair[1]);
	if (memfd >= 0)
		close(memfd);
	g->go = go[1];
	g->done = done[0];
	for (;;) {
		int rc = cis_sock_recv(pair[0], &g->hva, sizeof(g->hva), &g->uffd, 1, &nr_fds, &len);

		if (!rc)
			break;
		if (rc != -EAGAIN)
			die("handshake");
		usleep(100);
	}
	if (nr_fds != 1 || len != sizeof(g->hva))
		die("handshake");
	close(pair[0]);
}

void bench_guest_touch(struct bench_guest *g, const uint32_t *pgno, uint32_t nr)
{
	memcpy(g->ns + g->bytes / PAGE, pgno, nr * sizeof(*pgno));
	if (write(g->go, &nr, sizeof(nr)) != sizeof(nr) || read(g->done, &nr, sizeof(nr)) != sizeof(nr))
		die("the guest ended");
}

void bench_guest_end(struct bench_guest *g)
{
	close(g->uffd);
	kill(g->pid, SIGKILL);
	waitpid(g->pid, NULL, 0);
	close(g->go);
	close(g->done);
	munmap(g->ns, g->ns_bytes);
	cis_memfd_unmap(g->view, g->bytes);
}
