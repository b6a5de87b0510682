/*
 * libcistern: for authors of virtual machine monitors, and of other programs whose memory comes from cisternd.
 *
 *   cis_memory_create ──▶ cis_memory_add_region ... ──▶ cis_memory_attach ──▶ run the guest ──▶ cis_memory_destroy
 *
 * The program maps its memory, untouched, and adds each mapping; attaching hands them over to the daemon, which from
 * then on fills every page: before cis_memory_attach() returns those that the image calls hot, later ones when they are
 * touched.  See libcistern(3).
 *
 * Functions return 0 or a negative errno; cis_error() has the reason as text.  Results come through ret_ parameters, written only
 * on success.  An object has one user at a time; different objects may be used by different threads.
 */
#ifndef CISTERN_H
#define CISTERN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CIS_API __attribute__((visibility("default")))

/** struct cis_memory - the memory of one guest; opaque */
struct cis_memory;

/** How a guest's memory is mapped.  The daemon can reclaim pages of shared memory only. */
enum cis_mapping {
	CIS_MAPPING_ANONYMOUS = 1, /* MAP_PRIVATE | MAP_ANONYMOUS */
	CIS_MAPPING_SHARED = 2,    /* MAP_SHARED of a memfd, or of a file on tmpfs or hugetlbfs */
	CIS_MAPPING_PRIVATE = 3,   /* MAP_PRIVATE of such a file */
};

/** Wait in cis_memory_attach() until the daemon has accepted the memory and installed the image's hot pages. */
#define CIS_MEMORY_WAIT 1u

/**
 * The file's pages are allocated already, though nobody has touched the mapping: the daemon overwrites what they
 * hold, in place.  Needs minor faults, so not for anonymous memory.
 */
#define CIS_MEMORY_ALLOCATED 2u

/**
 * struct cis_memory_opts - the memory of a guest
 * @size:       sizeof(struct cis_memory_opts); later versions add at the end, where zero means as before
 * @mapping:    enum cis_mapping, of all its regions
 * @flags:      CIS_MEMORY_ bits
 * @socket:     path of the guest's socket, as `cistern guest add` printed it
 * @fd:         file behind shared and private memory, which stays the caller's; its offsets are those of the memory file
 * @timeout_ms: how long to wait with CIS_MEMORY_WAIT; 0: for ever
 */
struct cis_memory_opts {
	size_t size;
	uint32_t mapping;
	uint32_t flags;
	const char *socket;
	int fd;
	uint32_t timeout_ms;
};

/** cis_region_opts.gpa is set. */
#define CIS_REGION_GPA 1u

/**
 * struct cis_region_opts - one mapping
 * @size:       sizeof(struct cis_region_opts)
 * @flags:      CIS_REGION_ bits
 * @page_bytes: size of its pages: 4096 or 2 MiB; 0 means 4096
 * @addr:       where it is mapped; a multiple of the page size, as @bytes and @offset are
 * @bytes:      its length
 * @offset:     where it lies in the memory file that the image was made of, and in the file behind the mapping
 * @gpa:        guest physical address
 * @block:      name of the RAM block, or NULL: printable ASCII without quotes and backslashes, at most 63 bytes
 *
 * An image that knows its RAM blocks places a region by @gpa or @block, when
 * it has one of them, instead of by @offset.
 */
struct cis_region_opts {
	size_t size;
	uint32_t flags;
	uint32_t page_bytes;
	void *addr;
	uint64_t bytes;
	uint64_t offset;
	uint64_t gpa;
	const char *block;
};

/**
 * cis_memory_create() - an object without regions, and the userfaultfd that they will have
 *
 * Return: 0; -EINVAL; -EPERM (no permission for userfaultfd), -ENOSYS (the
 * kernel has none), -EOPNOTSUPP (it has no minor faults), -ENOMEM.
 */
CIS_API int cis_memory_create(const struct cis_memory_opts *opts, struct cis_memory **ret_memory);

/**
 * cis_memory_add_region() - watch a mapping from now on
 *
 * The mapping must be untouched: no page present, neither in it nor, without
 * CIS_MEMORY_ALLOCATED, in the file behind it.  Whoever touches it from now on waits until the daemon
 * serves it, so attach before the guest or a thread of yours needs it.  It is also kept from
 * children (MADV_DONTFORK), in which it would read as zeros.
 *
 * Return: 0; -EINVAL; -EEXIST (a page is there already); -EBUSY (attached
 * already); -EOPNOTSUPP (the kernel cannot watch this kind of memory);
 * -ENOMEM.
 */
CIS_API int cis_memory_add_region(struct cis_memory *memory, const struct cis_region_opts *opts);

/**
 * cis_memory_attach() - hand all regions over to the daemon
 *
 * After a failure the memory has no content: destroy the object and do not
 * run the guest.
 *
 * Return: 0; -EINVAL (no regions), -EBUSY (attached already); -ENOENT,
 * -ECONNREFUSED, -EACCES, ... (the socket); with CIS_MEMORY_WAIT also
 * -ECONNABORTED (the daemon refused, cis_error() says why when it said) and
 * -ETIMEDOUT.
 */
CIS_API int cis_memory_attach(struct cis_memory *memory);

/**
 * cis_memory_fd() - the connection, for poll(2)
 *
 * It hangs up when the daemon ends.  Pages that are missing then make their
 * users wait, and never read as zeros, as long as the object lives.  A thread
 * of the library, with all signals blocked, connects again until the daemon
 * is back; the descriptor keeps its number and is the new connection then.
 * Do not read from it.
 *
 * Return: the descriptor, which stays the object's, or -ENOTCONN.
 */
CIS_API int cis_memory_fd(const struct cis_memory *memory);

/**
 * cis_memory_destroy() - let go of the memory, and tell the daemon so; NULL is fine
 *
 * What is still mapped reads as zeros where it was never filled: unmap
 * first, or make sure that nobody reads it.
 */
CIS_API void cis_memory_destroy(struct cis_memory *memory);

/** cis_error() - why the last call of this thread failed: "cis_memory_attach: /run/...: Connection refused". */
CIS_API const char *cis_error(void);

/** cis_version() - of the library at run time, as "0.1.0". */
CIS_API const char *cis_version(void);

#ifdef __cplusplus
}
#endif

#endif
