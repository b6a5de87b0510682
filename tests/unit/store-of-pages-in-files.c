/*
 * The store of pages file:DIR: its files and whose they are, what is in memory yet, disks that are full and kernels that cannot, and room
 * that is made and given back.
 *
 * Calls are replaced at link time: io_uring_queue_init() may give no ring, io_uring_submit() may refuse entries, openat() may know no
 * O_DIRECT, and pread() and pwrite() may refuse to be direct.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <liburing.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "os/proc.h"
#include "pages.h"

static bool no_ring, no_direct_open, no_direct_io;
static unsigned refusals; /* still to come */
static unsigned entries;  /* that the kernel was given */

int io_uring_queue_init(unsigned nr, struct io_uring *ring, unsigned flags)
{
	int (*real)(unsigned, struct io_uring *, unsigned) = (int (*)(unsigned, struct io_uring *, unsigned))dlsym(RTLD_NEXT, "io_uring_queue_init");

	return no_ring ? -ENOSYS : real(nr, ring, flags);
}

int io_uring_submit(struct io_uring *ring)
{
	int (*real)(struct io_uring *) = (int (*)(struct io_uring *))dlsym(RTLD_NEXT, "io_uring_submit");

	if (refusals && io_uring_sq_ready(ring)) {
		refusals--;
		return -EAGAIN;
	}
	entries += io_uring_sq_ready(ring);
	return real(ring);
}

int openat(int dir, const char *file, int flags, ...)
{
	int (*real)(int, const char *, int, ...) = (int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, "openat64");

	if (no_direct_open && (flags & O_DIRECT)) {
		errno = EINVAL;
		return -1;
	}
	return real(dir, file, flags, 0600);
}

static bool refuses(int fd)
{
	errno = EINVAL;
	return no_direct_io && (fcntl(fd, F_GETFL) & O_DIRECT);
}

ssize_t pread(int fd, void *buf, size_t n, off_t off)
{
	ssize_t (*real)(int, void *, size_t, off_t) = (ssize_t(*)(int, void *, size_t, off_t))dlsym(RTLD_NEXT, "pread64");

	return refuses(fd) ? -1 : real(fd, buf, n, off);
}

ssize_t pwrite(int fd, const void *buf, size_t n, off_t off)
{
	ssize_t (*real)(int, const void *, size_t, off_t) =
		(ssize_t(*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite64");

	return refuses(fd) ? -1 : real(fd, buf, n, off);
}

static const struct pages_subject *const file = &pages_subjects[0];

static struct cis_key key_of(uint64_t id)
{
	return (struct cis_key){ { 0x1234, 0xabcd }, id << 24 };
}

/* The file of that namespace. */
static void path_of(const struct pages_place *p, char path[300])
{
	char boot[CIS_BOOT_BYTES];

	assert_int_equal(cis_proc_boot(boot), 0);
	snprintf(path, 300, "%s/0000000000001234000000000000abcd.%s", p->folder, boot);
}

static uint64_t disk_bytes(const struct pages_place *p)
{
	struct stat st;
	char path[300];

	path_of(p, path);
	assert_int_equal(stat(path, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

/* A store, and values of 4096 bytes in it. */

#define VALUES 8000u

struct rig {
	struct pages_place place;
	struct pages_rig rig;
	uint32_t loc[VALUES];
	bool doomed; /* whoever is asked wants nothing */
	unsigned moved;
};

static bool moved(void *ctx, const struct cis_key *key, uint32_t from, uint32_t to)
{
	struct rig *r = ctx;

	assert_int_equal(r->loc[key->id >> 24], from);
	if (r->doomed)
		return false;
	r->loc[key->id >> 24] = to;
	r->moved++;
	return true;
}

static void rig_open(struct rig *r, const char *options)
{
	struct cis_pages_opts opts = { .size = sizeof(opts), .moved = moved, .ctx = r };
	char url[420];

	snprintf(url, sizeof(url), "%s%s", r->place.url, options);
	pages_open(&r->rig, url, NULL, &opts);
}

static void rig_start(struct rig *r, const char *options)
{
	memset(r, 0, sizeof(*r));
	assert_true(file->start(&r->place));
	rig_open(r, options);
}

static void rig_stop(struct rig *r)
{
	pages_close(&r->rig);
	file->stop(&r->place);
}

/* From @from on, in batches; until there is no room or @to is reached.  Return: how far. */
static unsigned put_values(struct rig *r, unsigned from, unsigned to)
{
	static struct pages_op op[64];
	unsigned n, i;

	for (; from < to; from += n) {
		struct pages_op *some[64];

		for (n = 0; n < 64 && from + n < to; n++) {
			pages_op_init(&op[n], &r->rig, CIS_STORE_PUT, key_of(from + n), 4096);
			some[n] = &op[n];
		}
		pages_submit(some, n);
		pages_drive(&r->rig, 0);
		for (i = 0; i < n; i++) {
			r->loc[from + i] = op[i].req.loc;
			if (op[i].err) {
				assert_int_equal(op[i].err, -ENOSPC);
				while (++i < n)
					assert_int_equal(op[i].err, -ENOSPC);
				for (i = 0; !op[i].err; i++)
					;
				return from + i;
			}
		}
	}
	return to;
}

static void get_values(struct rig *r, unsigned from, unsigned to, unsigned step)
{
	for (; from < to; from += step)
		assert_int_equal(pages_get(&r->rig, key_of(from), r->loc[from], 4096), 0);
}

static void delete_values(struct rig *r, unsigned from, unsigned to, unsigned step)
{
	for (; from < to; from += step)
		assert_int_equal(pages_delete(&r->rig, key_of(from), r->loc[from]), 0);
}

static void names(void **state)
{
	static const struct {
		const char *name, *why;
	} bad[] = {
		{ "file", "cistern-stores(7)" },
		{ "file:", "'' is not an absolute path" },
		{ "file:a/b", "'a/b' is not an absolute path" },
		{ "file:/a?", "'' is not an option" },
		{ "file:/a?siz=5G", "'siz=5G' is not an option; there is size=SIZE alone" },
		{ "file:/a?size=", "size: '' is not a size" },
		{ "file:/a?size=5X", "size: '5X' is not a size" },
		{ "file:/a?size=7M", "size: '7M' is less than 8M" },
	};
	struct cis_error err = { .text = "" };

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (cis_pages_check(bad[i].name, &err) != -EINVAL || !strstr(err.text, bad[i].why))
			fail_msg("%s: %s", bad[i].name, err.text);
	assert_int_equal(cis_pages_check("file:/a", &err), 0);
	assert_int_equal(cis_pages_check("file:/a/b/?size=20G", &err), 0);
}

static void folders(void **state)
{
	struct cis_store *store;
	struct cis_error err = { .text = "" };
	struct pages_op op;
	static struct rig r;

	assert_int_equal(cis_pages_open("file:/nonexistent/a", NULL, &store, &err), -ENOENT);
	assert_non_null(strstr(err.text, "/nonexistent/a: No such file or directory"));
	assert_int_equal(cis_pages_open("file:/dev/null", NULL, &store, &err), -ENOTDIR);
	assert_int_equal(cis_pages_probe("file:/dev/null", 0, &err), -ENOTDIR);
	assert_true(cis_pages_probe("file:/proc/self", 0, &err) < 0);
	assert_non_null(strstr(err.text, "store file: /proc/self: "));
	rig_start(&r, "");
	assert_int_equal(cis_pages_probe(r.place.url, 0, &err), 0);
	assert_int_equal(rmdir(r.place.folder), 0); /* so the probe has left nothing */
	pages_op_init(&op, &r.rig, CIS_STORE_PUT, key_of(1), 100);
	assert_int_equal(pages_do(&op), -ENOENT);
	assert_int_equal(mkdir(r.place.folder, 0700), 0);
	rig_stop(&r);
}

static void files_are_ours_alone(void **state)
{
	struct stat st;
	char path[300], other[320];
	static struct rig r;
	int fd;

	rig_start(&r, "");
	path_of(&r.place, path);
	assert_int_equal(symlink("/dev/null", path), 0);
	assert_int_equal(pages_put(&r.rig, key_of(0), 10, &r.loc[0]), -ELOOP);
	assert_int_equal(unlink(path), 0);
	put_values(&r, 0, 10);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode, S_IFREG | 0600);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), -1);
	pages_close(&r.rig);
	assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
	close(fd);
	snprintf(other, sizeof(other), "%s.other", path);
	assert_int_equal(link(path, other), 0);
	rig_open(&r, "");
	assert_int_equal(pages_put(&r.rig, key_of(0), 10, &r.loc[0]), -EPERM);
	rig_stop(&r);
}

static void touch(const struct rig *r, const char *name, char path[300])
{
	snprintf(path, 300, "%s/%s", r->place.folder, name);
	assert_int_equal(close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600)), 0);
}

/* Another handle of the same folder would not look again. */
static void what_another_boot_left_goes(void **state)
{
	static const char *const stay[] = { "00000000000012340000000000000001", "x0000000000012340000000000000001.00000000-0000-0000-0000-000000000000",
					    "00000000000012340000000000000002.00000000-0000-0000-0000-00000000000" };
	static const char *const left = "00000000000012340000000000000003.00000000-0000-0000-0000-000000000000";
	static const char *const used = "00000000000012340000000000000004.00000000-0000-0000-0000-000000000000";
	char path[5][300], ours[300];
	static struct rig r;
	int fd;

	rig_start(&r, "");
	put_values(&r, 0, 1);
	path_of(&r.place, ours);
	pages_close(&r.rig);
	for (unsigned i = 0; i < 3; i++)
		touch(&r, stay[i], path[i]);
	touch(&r, left, path[3]);
	touch(&r, used, path[4]);
	fd = open(path[4], O_RDONLY | O_CLOEXEC);
	assert_int_equal(flock(fd, LOCK_EX), 0);
	rig_open(&r, "");
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(access(path[i], F_OK), i == 3 ? -1 : 0);
	assert_int_equal(access(ours, F_OK), 0);
	close(fd);
	rig_stop(&r);
}

static void in_flight_is_in_memory(void **state)
{
	struct pages_op put[3], get, *some[] = { &put[0], &put[1], &put[2] };
	static struct rig r;

	rig_start(&r, "");
	for (unsigned i = 0; i < 3; i++)
		pages_op_init(&put[i], &r.rig, CIS_STORE_PUT, key_of(i), 1000 + i);
	pages_submit(some, 3);
	assert_int_equal(r.rig.in_flight, 3);
	pages_op_init(&get, &r.rig, CIS_STORE_GET, key_of(1), CIS_VALUE_MAX);
	get.req.loc = put[1].req.loc;
	pages_submit_one(&get);
	assert_int_equal(get.done, 1);
	assert_int_equal(get.err, 0);
	pages_check(&get.req.key, get.buf, 1001);
	assert_int_equal(pages_get(&r.rig, key_of(2), put[1].req.loc, 1), -ENOENT); /* it is another's place */
	assert_int_equal(pages_delete(&r.rig, key_of(1), put[1].req.loc), 0);
	assert_int_equal(pages_get(&r.rig, key_of(1), put[1].req.loc, 1), -ENOENT);
	cis_store_cancel(r.rig.store, &put[2].req);
	assert_int_equal(put[2].err, -ECANCELED);
	pages_drive(&r.rig, 0);
	assert_int_equal(put[0].err | put[1].err, 0);
	assert_int_equal(pages_get(&r.rig, key_of(0), put[0].req.loc, 1000), 0);
	assert_int_equal(pages_get(&r.rig, key_of(1), put[1].req.loc, 1), -ENOENT);
	rig_stop(&r);
}

/* What was put together is read in one go; who does not wait for it any more is in nobody's way. */
static void neighbours_share_a_read(void **state)
{
	static struct pages_op op[16];
	struct pages_op *some[16];
	static struct rig r;

	rig_start(&r, "");
	for (unsigned i = 0; i < 16; i++) {
		pages_op_init(&op[i], &r.rig, CIS_STORE_PUT, key_of(i), 1500 + i);
		some[i] = &op[i];
	}
	pages_submit(some, 16);
	pages_drive(&r.rig, 0);
	for (unsigned i = 0; i < 16; i++) {
		r.loc[i] = op[i].req.loc;
		pages_op_init(&op[i], &r.rig, CIS_STORE_GET, key_of(i), CIS_VALUE_MAX);
		op[i].req.loc = r.loc[i];
	}
	entries = 0;
	pages_submit(some, 16);
	assert_int_equal(entries, 1);
	cis_store_cancel(r.rig.store, &op[0].req);
	cis_store_cancel(r.rig.store, &op[7].req);
	assert_int_equal(r.rig.in_flight, 14);
	pages_drive(&r.rig, 0);
	for (unsigned i = 0; i < 16; i++) {
		assert_int_equal(op[i].err, i % 7 || i == 14 ? 0 : -ECANCELED);
		if (!op[i].err)
			pages_check(&op[i].req.key, op[i].buf, 1500 + i);
	}
	rig_stop(&r);
}

/* The engine before is not gone yet: what it wrote is read, and nothing is written until it is. */
static void the_next_one_waits_for_the_lock(void **state)
{
	struct cis_key key = key_of(3);
	struct pages_rig before;
	struct pages_op put[3];
	static struct rig r;

	rig_start(&r, "");
	put_values(&r, 0, 10);
	before = r.rig;
	rig_open(&r, "");
	assert_int_equal(cis_store_claim(r.rig.store, &key, r.loc[3]), 0);
	get_values(&r, 3, 4, 1);
	assert_int_equal(pages_get(&r.rig, key_of(4), r.loc[4], 1), -ENOENT); /* not claimed */
	for (unsigned i = 0; i < 3; i++) {
		pages_op_init(&put[i], &r.rig, CIS_STORE_PUT, key_of(100 + i), 4096);
		put[i].req.deadline_ns = i == 1 ? cis_now_ns(NULL) + 5000000 : 0;
		pages_submit_one(&put[i]);
	}
	while (!put[1].done)
		cis_store_wait(r.rig.store, 0);
	assert_int_equal(put[1].err, -ETIMEDOUT);
	cis_store_cancel(r.rig.store, &put[2].req);
	assert_int_equal(put[2].err, -ECANCELED);
	assert_int_equal(put[0].done, 0);
	pages_close(&before);
	pages_drive(&r.rig, 0);
	assert_int_equal(put[0].err, 0);
	assert_int_equal(pages_get(&r.rig, key_of(100), put[0].req.loc, 4096), 0);
	get_values(&r, 3, 4, 1);
	rig_stop(&r);
}

static void claims_are_looked_at(void **state)
{
	struct cis_key key = key_of(3), none = { { 9, 9 }, 1 };
	static struct rig r;

	rig_start(&r, "");
	put_values(&r, 0, 10);
	pages_close(&r.rig);
	rig_open(&r, "");
	assert_int_equal(cis_store_claim(r.rig.store, &none, 5), -ENOENT);
	assert_int_equal(cis_store_claim(r.rig.store, &key, r.loc[3]), 0);
	assert_int_equal(cis_store_claim(r.rig.store, &key, r.loc[3]), -ENOENT);
	assert_int_equal(cis_store_claim(r.rig.store, &key, r.loc[3] + 1), -ENOENT);
	assert_int_equal(cis_store_claim(r.rig.store, &key, r.loc[3] - 1), -ENOENT);
	assert_int_equal(cis_store_claim(r.rig.store, &key, 0), -ENOENT);
	assert_int_equal(cis_store_claim(r.rig.store, &key, 16383), -ENOENT); /* the last unit of a segment */
	assert_int_equal(cis_store_claim(r.rig.store, &key, UINT32_MAX), -ENOENT);
	assert_int_equal(cis_store_claim(r.rig.store, &key, r.loc[3] + 5), 0); /* there is none, and a get says so */
	assert_int_equal(pages_get(&r.rig, key, r.loc[3] + 5, 1), -ENOENT);
	get_values(&r, 3, 4, 1);
	rig_stop(&r);
}

static void wait_for_disk(struct rig *r, uint64_t bytes)
{
	while (disk_bytes(&r->place) > bytes)
		cis_store_wait(r->rig.store, 0);
}

static void room_is_given_back(void **state)
{
	static struct rig r;

	rig_start(&r, "");
	put_values(&r, 0, 2500);
	assert_true(disk_bytes(&r.place) > 9 << 20);
	delete_values(&r, 0, 2500, 1);
	wait_for_disk(&r, 2 << 20); /* a segment is open, where the next one goes */
	put_values(&r, 0, 2500);
	pages_close(&r.rig);
	rig_open(&r, "");
	for (unsigned i = 0; i < 300; i++) {
		struct cis_key key = key_of(i);

		assert_int_equal(cis_store_claim(r.rig.store, &key, r.loc[i]), 0);
	}
	put_values(&r, 2500, 2501);
	wait_for_disk(&r, 4 << 20); /* nobody claimed the others */
	get_values(&r, 0, 300, 1);
	rig_stop(&r);
}

/* Each second value goes, and there is room for as many again. */
static void room_is_made(void **state)
{
	static struct rig r;
	unsigned n, more;

	rig_start(&r, "?size=16M");
	n = put_values(&r, 0, VALUES);
	assert_in_range(n, 3000, 16u << 8);
	delete_values(&r, 0, n, 2);
	more = put_values(&r, n, VALUES) - n;
	assert_true(more > n / 3);
	assert_true(r.moved > 500);
	get_values(&r, 1, n, 2);
	get_values(&r, n, n + more, 1);
	assert_true(disk_bytes(&r.place) <= 16 << 20);
	rig_stop(&r);
}

/* Who says no each time is not asked for ever. */
static void room_is_not_made_of_what_is_doomed(void **state)
{
	static struct rig r;
	unsigned n;

	rig_start(&r, "?size=16M");
	n = put_values(&r, 0, VALUES);
	delete_values(&r, 0, n, 2);
	r.doomed = true;
	assert_int_equal(put_values(&r, n, VALUES), n);
	r.doomed = false;
	delete_values(&r, 1, 2, 1);
	assert_true(put_values(&r, n, VALUES) > n + n / 4);
	rig_stop(&r);
}

static void the_size_is_of_all_handles(void **state)
{
	struct cis_key key = { { 77, 77 }, 0 };
	struct pages_rig other;
	static struct rig r;
	char url[420];
	uint32_t loc;
	unsigned n;

	rig_start(&r, "?size=16M");
	snprintf(url, sizeof(url), "%s?size=16M", r.place.url);
	pages_open(&other, url, NULL, NULL);
	n = put_values(&r, 0, VALUES);
	assert_int_equal(pages_put(&other, key, 4096, &loc), -ENOSPC);
	delete_values(&r, 0, n, 1);
	while (pages_put(&other, key, 4096, &loc))
		cis_store_wait(r.rig.store, cis_now_ns(NULL) + 1000000); /* the segments are being given back */
	assert_int_equal(pages_get(&other, key, loc, 4096), 0);
	pages_close(&other);
	rig_stop(&r);
}

/* While values are being moved. */
static void dropped_and_closed_at_any_time(void **state)
{
	uint64_t ns[] = { 0x1234, 0xabcd };
	static struct rig r;

	for (unsigned i = 0; i < 16; i++) {
		rig_start(&r, "?size=32M");
		put_values(&r, 0, 3000);
		for (unsigned k = 0; k < 3000; k++)
			if (k % 3)
				delete_values(&r, k, k + 1, 1);
		for (unsigned k = 0; k < i; k++)
			cis_store_wait(r.rig.store, cis_now_ns(NULL) + 1000000);
		if (i % 2)
			r.rig.store->ops->drop(r.rig.store, ns);
		rig_stop(&r);
	}
}

static void flip_byte(const struct rig *r, unsigned i)
{
	uint64_t off = (uint64_t)r->loc[i] * 64;
	char path[300], byte;
	int fd;

	path_of(&r->place, path);
	fd = open(path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, (off_t)off), 1);
	byte ^= 0x20;
	assert_int_equal(pwrite(fd, &byte, 1, (off_t)off), 1);
	assert_int_equal(fsync(fd), 0);
	close(fd);
}

/* It is not there for who asks, and in the way of nobody who is moved. */
static void damage_is_found(void **state)
{
	static struct rig r;
	unsigned n;

	rig_start(&r, "?size=16M");
	n = put_values(&r, 0, VALUES);
	delete_values(&r, 0, n, 2);
	for (unsigned i = 1; i < n; i += 500)
		flip_byte(&r, i);
	assert_int_equal(pages_get(&r.rig, key_of(1), r.loc[1], 1), -ENOENT);
	assert_true(put_values(&r, n, VALUES) > n);
	get_values(&r, 3, 500, 2);
	rig_stop(&r);
}

/* All that was tried above, in another way. */
static void other_ways(void)
{
	static struct rig r;
	unsigned n, more;

	rig_start(&r, "?size=16M");
	n = put_values(&r, 0, VALUES);
	assert_true(n > 3000);
	get_values(&r, 0, n, 7);
	delete_values(&r, 0, n, 2);
	more = put_values(&r, n, VALUES) - n;
	assert_true(more > n / 3);
	get_values(&r, 1, n, 2);
	get_values(&r, n, n + more, 1);
	rig_stop(&r);
}

static void without_a_ring(void **state)
{
	no_ring = true;
	other_ways();
	no_direct_io = true;
	other_ways();
	no_ring = no_direct_io = false;
}

static void without_direct_files(void **state)
{
	no_direct_open = true;
	other_ways();
	no_direct_open = false;
}

static void when_the_kernel_refuses_entries(void **state)
{
	static const unsigned times[] = { 1, 7, 500 };

	for (unsigned i = 0; i < 3; i++) {
		refusals = times[i];
		other_ways();
		refusals = 0;
	}
}

/* A disk of its own that holds little; the store has no size. */
static int full_disk(struct rig *r)
{
	unsigned n, more;

	if (unshare(CLONE_NEWNS) && unshare(CLONE_NEWUSER | CLONE_NEWNS))
		return 77;
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) || mount("none", r->place.folder, "tmpfs", 0, "size=6m"))
		return 77;
	rig_open(r, "");
	n = put_values(r, 0, VALUES);
	assert_in_range(n, 1000, 1536);
	get_values(r, 0, n, 1);
	delete_values(r, 0, n / 2, 1);
	for (more = n; more < n + 200;) /* segments are given back by and by */
		more = put_values(r, more, n + 200);
	get_values(r, n / 2, n + 200, 1);
	pages_close(&r->rig);
	return 0;
}

static void when_the_disk_is_full(void **state)
{
	static struct rig r;
	int status;
	pid_t pid;

	assert_true(file->start(&r.place));
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		setenv("CMOCKA_TEST_ABORT", "1", 1);
		_exit(full_disk(&r));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	file->stop(&r.place);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		print_message("a tmpfs cannot be mounted here: full disks were not tried\n");
	else
		assert_int_equal(WEXITSTATUS(status), 0);
}

static void nothing_is_left(void **state)
{
	size_t fds = check_open_fds();

	dropped_and_closed_at_any_time(NULL);
	assert_int_equal(check_open_fds(), fds);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names),
		cmocka_unit_test(folders),
		cmocka_unit_test(files_are_ours_alone),
		cmocka_unit_test(what_another_boot_left_goes),
		cmocka_unit_test(in_flight_is_in_memory),
		cmocka_unit_test(neighbours_share_a_read),
		cmocka_unit_test(the_next_one_waits_for_the_lock),
		cmocka_unit_test(claims_are_looked_at),
		cmocka_unit_test(room_is_given_back),
		cmocka_unit_test(room_is_made),
		cmocka_unit_test(room_is_not_made_of_what_is_doomed),
		cmocka_unit_test(the_size_is_of_all_handles),
		cmocka_unit_test(dropped_and_closed_at_any_time),
		cmocka_unit_test(damage_is_found),
		cmocka_unit_test(without_a_ring),
		cmocka_unit_test(without_direct_files),
		cmocka_unit_test(when_the_kernel_refuses_entries),
		cmocka_unit_test(when_the_disk_is_full),
		cmocka_unit_test(nothing_is_left),
	};
	struct io_uring ring;

	if (io_uring_queue_init(8, &ring, 0))
		check_skip("this kernel gives no io_uring here");
	io_uring_queue_exit(&ring);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
