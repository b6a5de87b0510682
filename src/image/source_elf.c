/*
 * Guest memory from an ELF core as QEMU's dump-guest-memory writes it.
 *
 * Only the ELF header, the program headers and, where there are more than 65534 of these, section header 0
 * are read; then the bytes of the PT_LOAD segments, each once.  The file may be anything: every offset and
 * count is checked against its length first.
 */
#include "image/source.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/le.h"

#define ELF_PAGE	4096
#define ELF_SEGMENTS	(1u << 20) /* more than QEMU's dumps of terabytes have, and still only 24 MiB here */
#define ELF_GUEST_BYTES ((uint64_t)1 << 44)
#define PHDR_BATCH	512

/** struct segment - one PT_LOAD; @at is its place in the memory file */
struct segment {
	uint64_t off;
	uint64_t gpa;
	uint64_t bytes;
	uint64_t at;
};

struct elf_source {
	struct cis_image_source src;
	char *path;
	int fd;
	uint64_t file_bytes;
	struct segment *seg; /* ascending by gpa and so by at */
	size_t nr_seg;
	struct cis_region_entry *regions;
};

static struct elf_source *elf_of(struct cis_image_source *src)
{
	return (struct elf_source *)((char *)src - offsetof(struct elf_source, src));
}

static int read_at(const struct elf_source *elf, uint64_t off, void *buf, size_t len, struct cis_error *err)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(elf->fd, (char *)buf + done, len - done, (off_t)(off + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return cis_fail(err, errno, "%s: read at %#llx: %s", elf->path,
					(unsigned long long)(off + done), strerror(errno));
		if (!n)
			return cis_fail(err, EIO,
					"%s: ends at %#llx, in the middle of what its headers promise",
					elf->path, (unsigned long long)(off + done));
		done += (size_t)n;
	}
	return 0;
}

static size_t segment_of(const struct elf_source *elf, uint64_t off)
{
	size_t low = 0, high = elf->nr_seg;

	while (high - low > 1) {
		size_t mid = low + (high - low) / 2;

		if (elf->seg[mid].at <= off)
			low = mid;
		else
			high = mid;
	}
	return low;
}

/* First data of one segment at or after @from, in whole pages of it.  Returns false when only a hole follows.
 */
static bool segment_data(const struct elf_source *elf, const struct segment *seg, uint64_t from,
			 uint64_t *ret_start, uint64_t *ret_end)
{
	off_t file_end = (off_t)(seg->off + seg->bytes);
	off_t data = lseek(elf->fd, (off_t)(seg->off + (from - seg->at)), SEEK_DATA);

	if (data < 0 && errno != ENXIO) { /* a file system without holes */
		*ret_start = from;
		*ret_end = seg->at + seg->bytes;
		return true;
	}
	if (data < 0 || data >= file_end)
		return false;
	off_t hole = lseek(elf->fd, data, SEEK_HOLE);

	if (hole < 0 || hole > file_end)
		hole = file_end;
	uint64_t start = ((uint64_t)data - seg->off) & ~(uint64_t)(ELF_PAGE - 1);
	uint64_t end = ((uint64_t)hole - seg->off + ELF_PAGE - 1) & ~(uint64_t)(ELF_PAGE - 1);

	*ret_start = seg->at + start > from ? seg->at + start : from;
	*ret_end = seg->at + end;
	return true;
}

static int elf_next_data(struct cis_image_source *src, uint64_t from, uint64_t *ret_start, uint64_t *ret_end,
			 struct cis_error *err)
{
	struct elf_source *elf = elf_of(src);

	if (from >= src->guest_bytes)
		return -ENXIO;
	for (size_t i = segment_of(elf, from); i < elf->nr_seg; i++) {
		const struct segment *seg = &elf->seg[i];

		if (segment_data(elf, seg, from > seg->at ? from : seg->at, ret_start, ret_end))
			return 0;
	}
	return -ENXIO;
}

static int elf_read(struct cis_image_source *src, uint64_t off, void *buf, size_t len, struct cis_error *err)
{
	struct elf_source *elf = elf_of(src);

	if (off > src->guest_bytes || len > src->guest_bytes - off)
		return cis_fail(err, ERANGE, "%s: read past the end of guest memory", elf->path);
	for (size_t i = len ? segment_of(elf, off) : 0; len; i++) {
		const struct segment *seg = &elf->seg[i];
		uint64_t skip = off - seg->at;
		size_t n = seg->bytes - skip < len ? (size_t)(seg->bytes - skip) : len;
		int ret = read_at(elf, seg->off + skip, buf, n, err);

		if (ret)
			return ret;
		off += n;
		buf = (char *)buf + n;
		len -= n;
	}
	return 0;
}

static void elf_destroy(struct elf_source *elf)
{
	if (!elf)
		return;
	if (elf->fd >= 0)
		close(elf->fd);
	free(elf->seg);
	free(elf->regions);
	free(elf->path);
	free(elf);
}

static void elf_close(struct cis_image_source *src)
{
	elf_destroy(elf_of(src));
}

/* Dumps that are not ELF, and what to say about them. */
static const struct {
	const char *magic, *is;
} other_dumps[] = {
	{ "KDUMP   ",
	  "a compressed kdump: dump again without a compression (dump-guest-memory FILE, no -z, -l or -s)" },
	{ "makedumpfile", "a flattened kdump: dump again without a compression, not raw-kdump either" },
	{ "PAGEDU64", "a Windows crash dump: dump again without -w" },
	{ "PAGEDUMP", "a Windows crash dump: dump again without -w" },
};

static int check_ident(const struct elf_source *elf, const uint8_t *h, struct cis_error *err)
{
	for (size_t i = 0; i < sizeof(other_dumps) / sizeof(other_dumps[0]); i++)
		if (!memcmp(h, other_dumps[i].magic, strlen(other_dumps[i].magic)))
			return cis_fail(err, EMEDIUMTYPE, "%s: %s", elf->path, other_dumps[i].is);
	if (memcmp(h, ELFMAG, SELFMAG))
		return cis_fail(err, EMEDIUMTYPE, "%s: not an ELF file; a raw memory file wants --format raw",
				elf->path);
	if (h[EI_CLASS] != ELFCLASS64)
		return cis_fail(err, EMEDIUMTYPE, "%s: ELF class %u: only 64-bit cores can be read",
				elf->path, h[EI_CLASS]);
	if (h[EI_DATA] != ELFDATA2LSB)
		return cis_fail(err, EMEDIUMTYPE, "%s: big-endian: only little-endian cores can be read",
				elf->path);
	if (h[EI_VERSION] != EV_CURRENT)
		return cis_fail(err, EPROTONOSUPPORT, "%s: ELF version %u is not known", elf->path,
				h[EI_VERSION]);
	if (cis_le16(h + offsetof(Elf64_Ehdr, e_type)) != ET_CORE)
		return cis_fail(err, EMEDIUMTYPE, "%s: ELF, but not a core file", elf->path);
	return 0;
}

/* The count of program headers; where e_phnum cannot hold it, it is in section header 0 (gABI, PN_XNUM). */
static int read_phnum(const struct elf_source *elf, const uint8_t *h, uint32_t *ret_phnum,
		      struct cis_error *err)
{
	uint32_t phnum = cis_le16(h + offsetof(Elf64_Ehdr, e_phnum));
	uint64_t shoff = cis_le64(h + offsetof(Elf64_Ehdr, e_shoff));
	uint8_t sh[sizeof(Elf64_Shdr)];
	int ret;

	if (phnum == PN_XNUM) {
		if (cis_le16(h + offsetof(Elf64_Ehdr, e_shentsize)) != sizeof(sh) || !shoff ||
		    elf->file_bytes < sizeof(sh) || shoff > elf->file_bytes - sizeof(sh))
			return cis_fail(err, EBADMSG,
					"%s: section header 0, which counts the segments, is not in the file",
					elf->path);
		ret = read_at(elf, shoff, sh, sizeof(sh), err);
		if (ret)
			return ret;
		phnum = cis_le32(sh + offsetof(Elf64_Shdr, sh_info));
	}
	if (!phnum)
		return cis_fail(err, EBADMSG, "%s: no program headers", elf->path);
	if (phnum > ELF_SEGMENTS)
		return cis_fail(err, EFBIG, "%s: %u program headers, at most %u can be read", elf->path,
				phnum, ELF_SEGMENTS);
	*ret_phnum = phnum;
	return 0;
}

static int check_load(const struct elf_source *elf, uint32_t i, const uint8_t *p, struct segment *ret,
		      struct cis_error *err)
{
	struct segment seg = {
		.off = cis_le64(p + offsetof(Elf64_Phdr, p_offset)),
		.gpa = cis_le64(p + offsetof(Elf64_Phdr, p_paddr)),
		.bytes = cis_le64(p + offsetof(Elf64_Phdr, p_memsz)),
	};

	if (seg.bytes != cis_le64(p + offsetof(Elf64_Phdr, p_filesz)))
		return cis_fail(err, EBADMSG,
				"%s: segment %u: p_filesz is not p_memsz: a filtered or cut dump", elf->path,
				i);
	if (seg.off > elf->file_bytes || seg.bytes > elf->file_bytes - seg.off)
		return cis_fail(err, EBADMSG, "%s: segment %u lies past the end of the file: truncated",
				elf->path, i);
	if (seg.gpa + seg.bytes < seg.gpa)
		return cis_fail(err, EBADMSG, "%s: segment %u wraps around the end of the address space",
				elf->path, i);
	if ((seg.gpa | seg.bytes) % ELF_PAGE)
		return cis_fail(err, EBADMSG, "%s: segment %u is not made of whole pages", elf->path, i);
	*ret = seg;
	return 0;
}

static int read_segments(struct elf_source *elf, uint64_t phoff, uint32_t phnum, struct cis_error *err)
{
	_cleanup_free_ uint8_t *batch = malloc(PHDR_BATCH * sizeof(Elf64_Phdr));

	elf->seg = calloc(phnum, sizeof(*elf->seg));
	if (!batch || !elf->seg)
		return cis_fail(err, ENOMEM, "%s: no memory for %u segments", elf->path, phnum);
	for (uint32_t i = 0; i < phnum; i++) {
		const uint8_t *p = batch + i % PHDR_BATCH * sizeof(Elf64_Phdr);
		size_t left = phnum - i;
		int ret = 0;

		if (i % PHDR_BATCH == 0)
			ret = read_at(elf, phoff + (uint64_t)i * sizeof(Elf64_Phdr), batch,
				      (left < PHDR_BATCH ? left : PHDR_BATCH) * sizeof(Elf64_Phdr), err);
		if (!ret && cis_le32(p + offsetof(Elf64_Phdr, p_type)) == PT_LOAD &&
		    cis_le64(p + offsetof(Elf64_Phdr, p_memsz)))
			ret = check_load(elf, i, p, &elf->seg[elf->nr_seg++], err);
		if (ret)
			return ret;
	}
	if (!elf->nr_seg)
		return cis_fail(err, EBADMSG, "%s: no PT_LOAD segment holds memory", elf->path);
	return 0;
}

static int by_off(const void *a, const void *b)
{
	const struct segment *x = a, *y = b;

	return (x->off > y->off) - (x->off < y->off);
}

static int by_gpa(const void *a, const void *b)
{
	const struct segment *x = a, *y = b;

	return (x->gpa > y->gpa) - (x->gpa < y->gpa);
}

/* No byte of the file and no guest address may belong to two segments; then every segment gets its place. */
static int place_segments(struct elf_source *elf, struct cis_error *err)
{
	uint64_t at = 0;

	qsort(elf->seg, elf->nr_seg, sizeof(*elf->seg), by_off);
	for (size_t i = 1; i < elf->nr_seg; i++)
		if (elf->seg[i].off - elf->seg[i - 1].off < elf->seg[i - 1].bytes)
			return cis_fail(err, EBADMSG, "%s: two segments share the file's bytes at %#llx",
					elf->path, (unsigned long long)elf->seg[i].off);
	qsort(elf->seg, elf->nr_seg, sizeof(*elf->seg), by_gpa);
	for (size_t i = 0; i < elf->nr_seg; i++) {
		if (i && elf->seg[i].gpa - elf->seg[i - 1].gpa < elf->seg[i - 1].bytes)
			return cis_fail(
				err, EBADMSG,
				"%s: two segments overlap at guest address %#llx; a dump with paging (-p) "
				"cannot be read, dump again without",
				elf->path, (unsigned long long)elf->seg[i].gpa);
		elf->seg[i].at = at;
		at += elf->seg[i].bytes; /* cannot wrap: no more than the file's length */
	}
	if (at > ELF_GUEST_BYTES)
		return cis_fail(err, EFBIG, "%s: more than 16 TiB of guest memory", elf->path);
	elf->src.guest_bytes = at;
	return 0;
}

static int make_regions(struct elf_source *elf, struct cis_error *err)
{
	elf->regions = calloc(elf->nr_seg, sizeof(*elf->regions));
	if (!elf->regions)
		return cis_fail(err, ENOMEM, "%s: no memory for %zu regions", elf->path, elf->nr_seg);
	for (size_t i = 0; i < elf->nr_seg; i++) {
		const struct segment *seg = &elf->seg[i];

		/* A core does not name its RAM blocks. */
		elf->regions[i] = (struct cis_region_entry){
			.offset = seg->at, .gpa = seg->gpa, .bytes = seg->bytes, .name = ""
		};
	}
	elf->src.regions = elf->regions;
	elf->src.nr_regions = elf->nr_seg;
	return 0;
}

static int elf_parse(struct elf_source *elf, struct cis_error *err)
{
	uint8_t h[sizeof(Elf64_Ehdr)] = { 0 };
	uint32_t phnum = 0;
	struct stat st;
	int ret;

	if (fstat(elf->fd, &st))
		return cis_fail(err, errno, "%s: %s", elf->path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return cis_fail(err, EINVAL, "%s: not a regular file", elf->path);
	elf->file_bytes = (uint64_t)st.st_size;
	ret = read_at(elf, 0, h, elf->file_bytes < sizeof(h) ? elf->file_bytes : sizeof(h), err);
	if (!ret)
		ret = check_ident(elf, h, err);
	if (ret)
		return ret;
	if (elf->file_bytes < sizeof(h))
		return cis_fail(err, EBADMSG, "%s: shorter than an ELF header: truncated", elf->path);
	ret = read_phnum(elf, h, &phnum, err);
	if (ret)
		return ret;
	uint64_t phoff = cis_le64(h + offsetof(Elf64_Ehdr, e_phoff));

	if (cis_le16(h + offsetof(Elf64_Ehdr, e_phentsize)) != sizeof(Elf64_Phdr) ||
	    phoff > elf->file_bytes || (elf->file_bytes - phoff) / sizeof(Elf64_Phdr) < phnum)
		return cis_fail(err, EBADMSG, "%s: %u program headers at %#llx are not in the file",
				elf->path, phnum, (unsigned long long)phoff);
	ret = read_segments(elf, phoff, phnum, err);
	if (!ret)
		ret = place_segments(elf, err);
	return ret ? ret : make_regions(elf, err);
}

int cis_source_elf(const char *path, struct cis_image_source **ret, struct cis_error *err)
{
	struct elf_source *elf = calloc(1, sizeof(*elf));
	int r;

	if (!elf)
		return cis_fail(err, ENOMEM, "%s: no memory", path);
	elf->src.next_data = elf_next_data;
	elf->src.read = elf_read;
	elf->src.close = elf_close;
	elf->path = strdup(path);
	elf->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (!elf->path)
		r = cis_fail(err, ENOMEM, "%s: no memory", path);
	else if (elf->fd < 0)
		r = cis_fail(err, errno, "%s: %s", path, strerror(errno));
	else
		r = elf_parse(elf, err);
	if (r) {
		elf_destroy(elf);
		return r;
	}
	*ret = &elf->src;
	return 0;
}
