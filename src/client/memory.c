#include "cistern/cistern.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/again.h"
#include "client/handshake.h"
#include "client/last_error.h"
#include "client/untouched.h"
#include "os/sock.h"
#include "os/uffd.h"

#define REGIONS_MAX    512 /* as many as the daemon takes, and its limit for a name */
#define BLOCK_NAME_MAX 63

/* Asked for as far as the kernel has them: they cannot be added to a userfaultfd later, and the daemon may want them. */
#define WANTED_FEATURES                                                                                      \
	(UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MISSING_HUGETLBFS |           \
	 UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_MINOR_HUGETLBFS | UFFD_FEATURE_PAGEFAULT_FLAG_WP |          \
	 UFFD_FEATURE_WP_HUGETLBFS_SHMEM)

struct cis_memory {
	char *socket;
	unsigned mapping;
	bool wait;
	bool allocated;
	bool attached;
	uint32_t timeout_ms;
	int uffd; /* ours until the end: the daemon's copy alone would end with the daemon, and then pages read as zeros */
	int conn;
	int fd; /* a duplicate of the file behind the memory, -1 for anonymous memory */
	struct cis_again *again; /* while attached */
	uint64_t features;
	struct cis_client_region *regions;
	size_t nr_regions;
};

/* A struct of a later version is longer; what it has more must be zeros.  There is no earlier version yet. */
static int take_opts(void *to, size_t known, const void *from, size_t size, struct cis_error *err)
{
	if (size < known)
		return cis_fail(err, EINVAL, "the size of the options is not set");
	for (size_t i = known; i < size; i++)
		if (((const char *)from)[i])
			return cis_fail(err, EINVAL, "an option is set that this version (%s) does not know", cis_version());
	memcpy(to, from, known);
	return 0;
}

static int open_uffd(struct cis_memory *m, struct cis_error *err)
{
	uint64_t offered = 0;
	int r = cis_uffd_features(&offered);

	m->features = offered & WANTED_FEATURES;
	if (!r && !(offered & UFFD_FEATURE_EVENT_REMOVE))
		return cis_fail(err, ENOSYS, "this kernel's userfaultfd does not tell of removed pages");
	if (!r)
		r = cis_uffd_open(m->features, &m->uffd);
	if (r == -EPERM || r == -EACCES)
		return cis_fail(err, EPERM, "no permission for a userfaultfd that sees the kernel's own faults: give this user "
				"access to /dev/userfaultfd, or the process CAP_SYS_PTRACE, or set vm.unprivileged_userfaultfd=1");
	if (r == -ENOSYS)
		return cis_fail(err, ENOSYS, "this kernel has no userfaultfd: it is built without CONFIG_USERFAULTFD");
	return r ? cis_fail(err, -r, "userfaultfd: %s", strerror(-r)) : 0;
}

static int check_memory(const struct cis_memory_opts *o, struct cis_error *err)
{
	if (o->mapping < CIS_MAPPING_ANONYMOUS || o->mapping > CIS_MAPPING_PRIVATE)
		return cis_fail(err, EINVAL, "kind of mapping %u is not known", o->mapping);
	if (o->flags & ~(CIS_MEMORY_WAIT | CIS_MEMORY_ALLOCATED))
		return cis_fail(err, EINVAL, "flags 0x%x are not known", o->flags);
	if (o->mapping == CIS_MAPPING_ANONYMOUS && o->flags & CIS_MEMORY_ALLOCATED)
		return cis_fail(err, EINVAL, "anonymous memory cannot be allocated before it is touched");
	if (!o->socket || !*o->socket)
		return cis_fail(err, EINVAL, "no path of a guest's socket is given");
	return 0;
}

static int fill_in(struct cis_memory *m, const struct cis_memory_opts *o, struct cis_error *err)
{
	m->mapping = o->mapping;
	m->wait = o->flags & CIS_MEMORY_WAIT;
	m->allocated = o->flags & CIS_MEMORY_ALLOCATED;
	m->timeout_ms = o->timeout_ms;
	m->socket = strdup(o->socket);
	if (!m->socket)
		return cis_fail(err, ENOMEM, "out of memory");
	if (o->mapping != CIS_MAPPING_ANONYMOUS) {
		m->fd = fcntl(o->fd, F_DUPFD_CLOEXEC, 3);
		if (m->fd < 0)
			return cis_fail(err, errno, "descriptor %d: %s", o->fd, strerror(errno));
	}
	return open_uffd(m, err);
}

static int create(const struct cis_memory_opts *from, struct cis_memory **ret, struct cis_error *err)
{
	struct cis_memory_opts opts;
	struct cis_memory *m;
	int r = take_opts(&opts, sizeof(opts), from, from->size, err);

	if (!r)
		r = check_memory(&opts, err);
	if (r)
		return r;
	m = calloc(1, sizeof(*m));
	if (!m)
		return cis_fail(err, ENOMEM, "out of memory");
	m->uffd = m->conn = m->fd = -1;
	r = fill_in(m, &opts, err);
	if (r)
		cis_memory_destroy(m);
	else
		*ret = m;
	return r;
}

int cis_memory_create(const struct cis_memory_opts *opts, struct cis_memory **ret_memory)
{
	struct cis_error err = { 0 };
	int r = create(opts, ret_memory, &err);

	return r ? cis_last_error_set("cis_memory_create", r, &err) : 0;
}

static bool is_plain(const char *name)
{
	if (strlen(name) > BLOCK_NAME_MAX)
		return false;
	for (; *name; name++)
		if (*name < ' ' || *name > '~' || *name == '"' || *name == '\\')
			return false;
	return true;
}

static int check_region(const struct cis_region_opts *o, struct cis_error *err)
{
	uint64_t page = o->page_bytes, addr = (uintptr_t)o->addr;

	if (o->flags & ~CIS_REGION_GPA)
		return cis_fail(err, EINVAL, "flags 0x%x are not known", o->flags);
	if (page != 4096 && page != 2u << 20)
		return cis_fail(err, EINVAL, "pages of %" PRIu64 " bytes: only 4096 and 2097152 are known", page);
	if (!o->bytes || addr % page || o->bytes % page || o->offset % page)
		return cis_fail(err, EINVAL, "address, length and offset must be multiples of the page size %" PRIu64
				", and the length not 0", page);
	if (o->bytes > UINT64_MAX - addr || o->offset > INT64_MAX || o->bytes > INT64_MAX - o->offset)
		return cis_fail(err, EINVAL, "the region wraps around");
	if (o->block && !is_plain(o->block))
		return cis_fail(err, EINVAL, "the block's name is longer than %d bytes or not plain printable ASCII",
				BLOCK_NAME_MAX);
	return 0;
}

static int check_neighbours(const struct cis_memory *m, const struct cis_region_opts *o, struct cis_error *err)
{
	uint64_t addr = (uintptr_t)o->addr;

	for (size_t i = 0; i < m->nr_regions; i++) {
		const struct cis_client_region *r = &m->regions[i];

		if (addr < r->addr + r->bytes && r->addr < addr + o->bytes)
			return cis_fail(err, EINVAL, "the region overlaps region %zu in memory", i);
		if (o->offset < r->offset + r->bytes && r->offset < o->offset + o->bytes)
			return cis_fail(err, EINVAL, "the region overlaps region %zu in the memory file", i);
	}
	return 0;
}

static bool has_minor(const struct cis_memory *m, uint64_t page_bytes)
{
	return m->features & (page_bytes > 4096 ? UFFD_FEATURE_MINOR_HUGETLBFS : UFFD_FEATURE_MINOR_SHMEM);
}

static int check_empty(const struct cis_memory *m, const struct cis_region_opts *o, struct cis_error *err)
{
	if (!m->allocated)
		return cis_untouched_check(o->addr, o->bytes, m->fd, o->offset, err);
	if (!has_minor(m, o->page_bytes))
		return cis_fail(err, EOPNOTSUPP, "this kernel has no minor faults for such memory, so allocated pages cannot be filled");
	return 0;
}

static int watch(struct cis_memory *m, const struct cis_region_opts *o, struct cis_error *err)
{
	bool anon = m->mapping == CIS_MAPPING_ANONYMOUS;
	uint64_t mode = UFFDIO_REGISTER_MODE_MISSING;
	int r = check_empty(m, o, err);

	if (r)
		return r;
	if (!anon && has_minor(m, o->page_bytes))
		mode |= UFFDIO_REGISTER_MODE_MINOR;
	r = cis_uffd_register(m->uffd, (uintptr_t)o->addr, o->bytes, mode);
	if (r == -EINVAL && !anon)
		return cis_fail(err, EOPNOTSUPP, "the kernel cannot watch this mapping: its file must be a memfd, or on tmpfs or "
				"hugetlbfs, its pages must be of the size given, and userfaultfd must know that kind");
	if (r == -EBUSY)
		return cis_fail(err, EBUSY, "the mapping is watched by another userfaultfd already");
	if (r)
		return cis_fail(err, -r, "UFFDIO_REGISTER: %s", strerror(-r));
	if (madvise(o->addr, o->bytes, MADV_DONTFORK)) {
		r = -errno;
		cis_uffd_unregister(m->uffd, (uintptr_t)o->addr, o->bytes);
		return cis_fail(err, -r, "MADV_DONTFORK: %s", strerror(-r));
	}
	return 0;
}

static int append(struct cis_memory *m, const struct cis_region_opts *o, struct cis_error *err)
{
	struct cis_client_region *regions, *r;
	char *block = NULL;

	if (m->nr_regions == REGIONS_MAX)
		return cis_fail(err, EINVAL, "a guest has at most %d regions", REGIONS_MAX);
	regions = realloc(m->regions, (m->nr_regions + 1) * sizeof(*regions));
	if (regions)
		m->regions = regions;
	if (!regions || (o->block && !(block = strdup(o->block))))
		return cis_fail(err, ENOMEM, "out of memory");
	r = &regions[m->nr_regions];
	*r = (struct cis_client_region){ .addr = (uintptr_t)o->addr, .bytes = o->bytes, .offset = o->offset,
		.page_bytes = o->page_bytes, .gpa = o->gpa, .has_gpa = o->flags & CIS_REGION_GPA, .block = block };
	m->nr_regions++;
	return 0;
}

static int add_region(struct cis_memory *m, const struct cis_region_opts *from, struct cis_error *err)
{
	struct cis_region_opts o;
	int r = take_opts(&o, sizeof(o), from, from->size, err);

	if (r)
		return r;
	if (m->attached)
		return cis_fail(err, EBUSY, "the memory is attached already");
	o.page_bytes = o.page_bytes ? o.page_bytes : 4096;
	r = check_region(&o, err);
	if (!r)
		r = check_neighbours(m, &o, err);
	if (!r)
		r = append(m, &o, err);
	if (r)
		return r;
	r = watch(m, &o, err);
	if (r)
		free(m->regions[--m->nr_regions].block);
	return r;
}

int cis_memory_add_region(struct cis_memory *memory, const struct cis_region_opts *opts)
{
	struct cis_error err = { 0 };
	int r = add_region(memory, opts, &err);

	return r ? cis_last_error_set("cis_memory_add_region", r, &err) : 0;
}

/* An answer is always asked for: who was served once says so when it has to connect again. */
static int hand_over(struct cis_memory *m, struct cis_error *err)
{
	struct cis_client_layout layout = { .mapping = m->mapping, .ack = true, .allocated = m->allocated,
					    .regions = m->regions, .nr_regions = m->nr_regions };
	struct cis_again_opts again = { .socket = m->socket, .conn = m->conn, .fds = { m->uffd, m->fd },
					.nr_fds = m->fd < 0 ? 1 : 2, .is_served = m->wait };
	char *text;
	int r = cis_handshake_write(&layout, &text);

	if (r)
		return cis_fail(err, -r, "out of memory");
	r = cis_sock_send_all(m->conn, text, strlen(text), again.fds, again.nr_fds);
	if (r)
		cis_fail(err, -r, "sending the handshake: %s", strerror(-r));
	if (!r && m->wait)
		r = cis_handshake_wait(m->conn, m->timeout_ms, err);
	again.text = text;
	if (!r)
		r = cis_again_start(&again, &m->again, err);
	free(text);
	return r;
}

static int attach(struct cis_memory *m, struct cis_error *err)
{
	int r;

	if (m->attached)
		return cis_fail(err, EBUSY, "the memory is attached already");
	if (!m->nr_regions)
		return cis_fail(err, EINVAL, "the memory has no regions");
	r = cis_sock_connect(m->socket, SOCK_STREAM, &m->conn, err);
	if (r)
		return r;
	r = hand_over(m, err);
	if (r) {
		close(m->conn);
		m->conn = -1;
		return cis_fail_prefix(err, -r, "%s", m->socket);
	}
	m->attached = true;
	return 0;
}

int cis_memory_attach(struct cis_memory *memory)
{
	struct cis_error err = { 0 };
	int r = attach(memory, &err);

	return r ? cis_last_error_set("cis_memory_attach", r, &err) : 0;
}

int cis_memory_fd(const struct cis_memory *memory)
{
	return memory->attached ? memory->conn : -ENOTCONN;
}

void cis_memory_destroy(struct cis_memory *memory)
{
	if (!memory)
		return;
	cis_again_stop(memory->again);
	for (size_t i = 0; i < memory->nr_regions; i++)
		free(memory->regions[i].block);
	free(memory->regions);
	free(memory->socket);
	if (memory->conn >= 0)
		close(memory->conn);
	if (memory->fd >= 0)
		close(memory->fd);
	if (memory->uffd >= 0)
		close(memory->uffd);
	free(memory);
}
