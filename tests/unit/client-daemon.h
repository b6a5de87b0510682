/* A daemon small enough to see through: takes one client, answers, and serves pages whose content follows from their number. */
#ifndef TESTS_CLIENT_DAEMON_H
#define TESTS_CLIENT_DAEMON_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <jansson.h>

#include "check.h"
#include "os/sock.h"
#include "os/uffd.h"

#define PAGE 4096u

struct fake_daemon {
	char folder[32], path[64];
	const char *answer; /* NULL: close without one; "": none, and stay */
	bool serve;
	int listener, conn, fds[4];
	size_t nr_fds, served;
	json_t *said;
	pthread_t thread;
};

/* The word at every place of a page, so that a page in the wrong place is seen. */
static inline uint64_t daemon_word(uint64_t pgno, size_t i)
{
	return (pgno + 1) * 0x9E3779B97F4A7C15ull + i;
}

static inline void daemon_page(uint64_t pgno, uint64_t *page)
{
	for (size_t i = 0; i < PAGE / 8; i++)
		page[i] = daemon_word(pgno, i);
}

static inline uint64_t daemon_number(struct fake_daemon *d, size_t region, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(json_array_get(d->said, region), key));
}

/* cmocka's assertions only work in the thread that runs the test. */
#define daemon_must(what)                                                        \
	do {                                                                     \
		if (!(what)) {                                                   \
			fprintf(stderr, "daemon: %s: %s\n", #what, strerror(errno)); \
			abort();                                                 \
		}                                                                \
	} while (0)

static void daemon_listen(struct fake_daemon *d)
{
	while (poll(&(struct pollfd){ .fd = d->listener, .events = POLLIN }, 1, -1) != 1)
		;
	daemon_must(cis_sock_accept(d->listener, &d->conn) == 0);
}

static void daemon_hear(struct fake_daemon *d)
{
	static char text[64 << 10];
	size_t have = 0, fds, n;

	while (!d->said) {
		poll(&(struct pollfd){ .fd = d->conn, .events = POLLIN }, 1, -1);
		if (cis_sock_recv(d->conn, text + have, sizeof(text) - have, d->fds + d->nr_fds, 4 - d->nr_fds, &fds, &n))
			continue;
		daemon_must(n > 0);
		d->nr_fds += fds;
		have += n;
		d->said = json_loadb(text, have, 0, NULL);
	}
}

static void daemon_install(struct fake_daemon *d, uint64_t addr, bool minor)
{
	static uint64_t page[(2u << 20) / 8];

	for (size_t i = 0; i < json_array_size(d->said); i++) {
		uint64_t base = daemon_number(d, i, "base_host_virt_addr"), bytes = daemon_number(d, i, "page_size");
		uint64_t dst = addr & ~(bytes - 1), offset, done;

		if (addr < base || addr >= base + daemon_number(d, i, "size"))
			continue;
		offset = daemon_number(d, i, "offset") + dst - base;
		for (uint64_t at = 0; at < bytes; at += PAGE)
			daemon_page((offset + at) / PAGE, page + at / 8);
		if (minor) {
			daemon_must(pwrite(d->fds[1], page, bytes, (off_t)offset) == (ssize_t)bytes);
			daemon_must(cis_uffd_continue(d->fds[0], dst, bytes, &done) == 0);
		} else {
			daemon_must(cis_uffd_copy(d->fds[0], dst, page, bytes, &done) == 0);
		}
		d->served++;
		return;
	}
	daemon_must(!"a fault outside all regions");
}

static void daemon_serve(struct fake_daemon *d)
{
	struct pollfd p[2] = { { .fd = d->fds[0], .events = POLLIN }, { .fd = d->conn, .events = POLLIN } };
	struct uffd_msg msg;
	size_t n;

	while (poll(p, 2, -1) > 0) {
		if (p[1].revents)
			return;
		if (cis_uffd_read(d->fds[0], &msg, 1, &n) || msg.event != UFFD_EVENT_PAGEFAULT)
			continue;
		daemon_install(d, msg.arg.pagefault.address, msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_MINOR);
	}
}

static void *daemon_run(void *arg)
{
	struct fake_daemon *d = arg;

	daemon_listen(d);
	daemon_hear(d);
	if (d->answer && *d->answer)
		cis_sock_send_all(d->conn, d->answer, strlen(d->answer), NULL, 0);
	if (d->serve)
		daemon_serve(d);
	else if (!d->answer || *d->answer == 'e')
		shutdown(d->conn, SHUT_RDWR);
	return NULL;
}

static void daemon_start(struct fake_daemon *d)
{
	struct cis_error err;

	strcpy(d->folder, "/tmp/cistern-client-XXXXXX");
	assert_non_null(mkdtemp(d->folder));
	snprintf(d->path, sizeof(d->path), "%s/s", d->folder);
	d->conn = -1;
	if (cis_sock_listen(d->path, &CIS_SOCK_OPTS, &d->listener, &err))
		fail_msg("%s", err.text);
	assert_int_equal(pthread_create(&d->thread, NULL, daemon_run, d), 0);
}

/* Until it has seen the client go, or has refused it. */
static void daemon_wait(struct fake_daemon *d)
{
	pthread_join(d->thread, NULL);
}

static void daemon_end(struct fake_daemon *d)
{
	cis_fds_close(d->fds, d->nr_fds);
	if (d->conn >= 0)
		close(d->conn);
	close(d->listener);
	json_decref(d->said);
	unlink(d->path);
	rmdir(d->folder);
}

/* For main(). */
static inline void daemon_check_uffd(void)
{
	uint64_t features;
	int r = cis_uffd_features(&features);

	if (r == -EPERM || r == -EACCES)
		check_skip("this process may not use userfaultfd");
	if (r == -ENOSYS)
		check_skip("this kernel has no userfaultfd");
}

#endif
