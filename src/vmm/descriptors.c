/* The descriptors that come with a handshake: what they are, asked of the kernel. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "os/uffd.h"
#include "vmm/handshake.h"

static int check_uffd(int fd, uint64_t *ret_features, struct cis_error *err)
{
	int r;

	if (!cis_is_uffd(fd))
		return cis_fail(err, EPROTO, "handshake: the first descriptor is not a userfaultfd");
	r = cis_uffd_asked(fd, ret_features);
	if (r == -ENODATA)
		return cis_fail(err, EPROTO, "handshake: the userfaultfd was sent before its UFFDIO_API");
	if (r)
		return cis_fail(err, EPROTO, "handshake: cannot look at the userfaultfd: %s", strerror(-r));
	if (*ret_features & UFFD_FEATURE_EVENT_FORK)
		return cis_fail(err, EPROTO, "handshake: the userfaultfd asks for fork events: each fork would leave a descriptor "
				"with the daemon, and a child that nobody serves");
	r = cis_uffd_unblock(fd);
	if (r)
		return cis_fail(err, EPROTO, "handshake: cannot make the userfaultfd non-blocking: %s", strerror(-r));
	return 0;
}

/* Memory files live on tmpfs or hugetlbfs; the latter's block is its page. */
static int check_file(int fd, uint32_t *ret_page_bytes, struct cis_error *err)
{
	struct statfs fs;
	int flags = fcntl(fd, F_GETFL);

	if (fstatfs(fd, &fs) || flags < 0)
		return cis_fail(err, EPROTO, "handshake: cannot look at the second descriptor: %s",
				strerror(errno));
	if (fs.f_type != TMPFS_MAGIC && fs.f_type != HUGETLBFS_MAGIC)
		return cis_fail(err, EPROTO, "handshake: the second descriptor is not a memfd");
	if ((flags & O_ACCMODE) != O_RDWR || flags & O_PATH)
		return cis_fail(err, EPROTO, "handshake: the memfd was not opened for reading and writing");
	*ret_page_bytes = fs.f_type == HUGETLBFS_MAGIC ? (uint32_t)fs.f_bsize : 4096;
	return 0;
}

static int check_seals(int fd, bool *ret_can_shrink, struct cis_error *err)
{
	int seals = fcntl(fd, F_GET_SEALS);

	if (seals < 0)
		return cis_fail(err, EPROTO, "handshake: the second descriptor is not a memfd: %s",
				strerror(errno));
	if (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))
		return cis_fail(err, EPROTO,
				"handshake: the memfd is sealed against writing: it cannot be filled");
	if (!(seals & F_SEAL_SHRINK) && !fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK))
		seals |= F_SEAL_SHRINK;
	*ret_can_shrink = !(seals & F_SEAL_SHRINK);
	return 0;
}

static int check_memfd(const struct cis_guest_layout *layout, int fd, bool *ret_can_shrink,
		       struct cis_error *err)
{
	uint32_t page_bytes = 0;
	struct stat st;
	int r;

	if (fstat(fd, &st))
		return cis_fail(err, EPROTO, "handshake: cannot look at the second descriptor: %s", strerror(errno));
	if (!S_ISREG(st.st_mode))
		return cis_fail(err, EPROTO, "handshake: the second descriptor is not a memfd");
	r = check_file(fd, &page_bytes, err);
	if (!r)
		r = check_seals(fd, ret_can_shrink, err);
	for (size_t i = 0; i < layout->nr_regions && !r; i++) {
		const struct cis_guest_region *reg = &layout->regions[i];

		if (reg->page_bytes != page_bytes)
			r = cis_fail(err, EPROTO,
				     "handshake: region %zu has pages of %u bytes, its memfd of %u", i,
				     reg->page_bytes, page_bytes);
		else if (reg->offset + reg->bytes > (uint64_t)st.st_size)
			r = cis_fail(err, EPROTO,
				     "handshake: region %zu ends at %llu of the memfd, which has %llu bytes",
				     i, (unsigned long long)(reg->offset + reg->bytes),
				     (unsigned long long)st.st_size);
	}
	return r;
}

static int check_count(const struct cis_guest_layout *layout, size_t nr, struct cis_error *err)
{
	if (!nr)
		return cis_fail(err, EPROTO,
				"handshake: came without a descriptor: the userfaultfd is missing");
	if (nr == 3)
		return cis_fail(err, EPROTO,
				"handshake: came with 3 descriptors, as of Firecracker's secret-hiding "
				"branch, which is not supported");
	if (nr > 3)
		return cis_fail(err, EPROTO, "handshake: came with %zu descriptors, not 1 or 2", nr);
	if (layout->has_kind && (layout->kind == CIS_KIND_ANONYMOUS) != (nr == 1))
		return cis_fail(err, EPROTO, "handshake: %s memory comes with %d descriptor(s), not %zu",
				cis_kind_name(layout->kind), layout->kind == CIS_KIND_ANONYMOUS ? 1 : 2, nr);
	return 0;
}

int cis_guest_take_fds(const struct cis_guest_layout *layout, const int *fds, size_t nr,
		       struct cis_guest_memory *ret, struct cis_error *err)
{
	struct cis_guest_memory mem = { .memfd = -1, .kind = CIS_KIND_ANONYMOUS };
	int r = check_count(layout, nr, err);

	if (!r)
		r = check_uffd(fds[0], &mem.features, err);
	if (r)
		return r;
	mem.uffd = fds[0];
	if (nr == 2) {
		r = check_memfd(layout, fds[1], &mem.can_shrink, err);
		if (r)
			return r;
		mem.memfd = fds[1];
		mem.kind = layout->has_kind ? layout->kind : CIS_KIND_SHARED;
	}
	*ret = mem;
	return 0;
}
