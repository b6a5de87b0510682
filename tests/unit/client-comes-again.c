/*
 * A client whose connection ends connects again, by itself: the same bytes with the same descriptors, and a '+' before them
 * when it was served; not when it was refused, and not when it lets go.
 */
#include "check.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cistern/cistern.h"
#include "os/sock.h"
#include "os/uffd.h"

#define BYTES (16 * 4096)

static char dir[64], path[108];

struct heard {
	char text[4096];
	size_t len, nr_fds;
	int fds[4], conn;
};

static int listen_there(void)
{
	struct cis_sock_opts opts = CIS_SOCK_OPTS;
	int fd;

	assert_int_equal(cis_sock_listen(path, &opts, &fd, NULL), 0);
	return fd;
}

static void wait_for(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	assert_int_equal(poll(&p, 1, 20000), 1);
}

/* One connection and what it says, up to the end of the array. */
static void hear(int listener, struct heard *h)
{
	memset(h, 0, sizeof(*h));
	wait_for(listener);
	assert_int_equal(cis_sock_accept(listener, &h->conn), 0);
	while (!h->len || h->text[h->len - 1] != ']' || h->text[h->len - 2] != '}') {
		size_t n = 0, nr = 0;

		wait_for(h->conn);
		assert_int_equal(cis_sock_recv(h->conn, h->text + h->len, sizeof(h->text) - 1 - h->len, h->fds + h->nr_fds,
					       4 - h->nr_fds, &nr, &n), 0);
		assert_true(n > 0);
		h->len += n;
		h->nr_fds += nr;
	}
}

static void hang_up(struct heard *h)
{
	cis_fds_close(h->fds, h->nr_fds);
	close(h->conn);
}

static ino_t inode(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return st.st_ino;
}

static struct cis_memory *make(void **ret_addr, unsigned flags)
{
	int memfd = memfd_create("memory", MFD_CLOEXEC);
	struct cis_memory_opts opts = { .size = sizeof(opts), .mapping = CIS_MAPPING_SHARED, .flags = flags, .socket = path,
					.fd = memfd };
	struct cis_region_opts region = { .size = sizeof(region), .bytes = BYTES };
	struct cis_memory *m;

	assert_int_equal(ftruncate(memfd, BYTES), 0);
	region.addr = *ret_addr = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
	assert_int_equal(cis_memory_create(&opts, &m), 0);
	assert_int_equal(cis_memory_add_region(m, &region), 0);
	close(memfd);
	return m;
}

static void *attach(void *m)
{
	return (void *)(intptr_t)cis_memory_attach(m);
}

static size_t threads(void)
{
	struct stat st;

	assert_int_equal(stat("/proc/self/task", &st), 0);
	return st.st_nlink - 2;
}

static void assert_again(const struct heard *h, const struct heard *first, bool plus)
{
	assert_int_equal(*h->text == '+', plus);
	assert_string_equal(h->text + plus, first->text);
	assert_int_equal(h->nr_fds, 2);
	assert_true(cis_is_uffd(h->fds[0]));
	assert_int_equal(inode(h->fds[1]), inode(first->fds[1]));
}

/* Signals are for the program's own threads. */
static void assert_blocks_all(void)
{
	char name[300], line[200];
	unsigned long long blocked = 0;
	struct dirent *e;
	DIR *tasks = opendir("/proc/self/task");

	while ((e = readdir(tasks))) {
		FILE *f;

		if (*e->d_name == '.' || atoi(e->d_name) == getpid())
			continue;
		snprintf(name, sizeof(name), "/proc/self/task/%s/status", e->d_name);
		f = fopen(name, "r");
		while (f && fgets(line, sizeof(line), f))
			sscanf(line, "SigBlk: %llx", &blocked);
		if (f)
			fclose(f);
	}
	closedir(tasks);
	for (int sig = 1; sig < 32; sig++)
		if (sig != SIGKILL && sig != SIGSTOP)
			assert_true(blocked & 1ull << (sig - 1));
}

static void test_served_once(void **state)
{
	int listener = listen_there(), number, status;
	struct heard first, again;
	struct cis_memory *m;
	pthread_t thread;
	void *addr, *r;
	pid_t child;

	m = make(&addr, CIS_MEMORY_WAIT);
	pthread_create(&thread, NULL, attach, m);
	hear(listener, &first);
	assert_int_equal(write(first.conn, "k", 1), 1);
	pthread_join(thread, &r);
	assert_null(r);
	number = cis_memory_fd(m);
	assert_blocks_all();
	close(first.conn);
	hear(listener, &again); /* the daemon is back at once */
	assert_again(&again, &first, true);
	close(listener);
	hang_up(&again);
	listener = listen_there(); /* it took a while */
	hear(listener, &again);
	assert_again(&again, &first, true);
	assert_int_equal(cis_memory_fd(m), number);
	assert_true(fcntl(number, F_GETFD) & FD_CLOEXEC);

	child = fork();
	if (!child) {
		alarm(20);
		cis_memory_destroy(m);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	cis_memory_destroy(m);
	wait_for(again.conn); /* now it is gone */
	assert_int_equal(read(again.conn, first.text, 1), 0);
	hang_up(&again);
	cis_fds_close(first.fds, first.nr_fds);
	close(listener);
	munmap(addr, BYTES);
}

static void test_never_served(void **state)
{
	int listener = listen_there();
	struct heard first, again;
	struct cis_memory *m;
	void *addr;

	m = make(&addr, 0);
	assert_int_equal(cis_memory_attach(m), 0);
	hear(listener, &first);
	close(first.conn);
	hear(listener, &again);
	assert_again(&again, &first, false);
	assert_int_equal(write(again.conn, "k", 1), 1);
	hang_up(&again);
	hear(listener, &again);
	assert_true(*again.text == '+' || *again.text == '['); /* the byte may have been on its way */
	hang_up(&again);
	cis_memory_destroy(m);
	cis_fds_close(first.fds, first.nr_fds);
	close(listener);
	munmap(addr, BYTES);
}

static void test_refused(void **state)
{
	int listener = listen_there();
	struct heard first;
	struct cis_memory *m;
	size_t before = threads();
	void *addr;

	m = make(&addr, 0);
	assert_int_equal(cis_memory_attach(m), 0);
	hear(listener, &first);
	assert_int_equal(write(first.conn, "eno", 3), 3);
	while (threads() > before)
		;
	hang_up(&first);
	cis_memory_destroy(m);
	close(listener);
	munmap(addr, BYTES);
}

static int set_up(void **state)
{
	strcpy(dir, "/tmp/cis-again-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/guest", dir);
	return 0;
}

static int tear_down(void **state)
{
	unlink(path);
	return rmdir(dir);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = { TEST(test_served_once), TEST(test_never_served), TEST(test_refused) };
	int uffd = -1, r = cis_uffd_open(0, &uffd);

	if (r)
		check_skip("no userfaultfd for this user or in this kernel");
	close(uffd);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
