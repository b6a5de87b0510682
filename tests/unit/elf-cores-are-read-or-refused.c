/* Cores as QEMU writes them are read; whatever else an ELF file can say is refused with the reason. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image/source.h"

#define NOTE_BYTES 100 /* makes p_offset odd, as QEMU's are */

struct seg {
	uint64_t gpa, bytes;
	uint8_t fill;
};

/** struct core - a core being written: where its parts lie, so that a test can spoil them */
struct core {
	char path[64];
	int fd;
	unsigned nr;
	uint64_t phoff, shoff;
	Elf64_Phdr phdr[8];
};

static void put(struct core *c, uint64_t off, const void *buf, size_t len)
{
	assert_int_equal(pwrite(c->fd, buf, len, (off_t)off), len);
}

static void put_phdr(struct core *c, unsigned i)
{
	put(c, c->phoff + i * sizeof(Elf64_Phdr), &c->phdr[i], sizeof(Elf64_Phdr));
}

static void put_ehdr(struct core *c, uint32_t phnum, int extended)
{
	Elf64_Ehdr h = { .e_type = ET_CORE,
			 .e_machine = EM_X86_64,
			 .e_version = EV_CURRENT,
			 .e_ehsize = sizeof(h),
			 .e_phentsize = sizeof(Elf64_Phdr),
			 .e_phoff = c->phoff,
			 .e_phnum = extended ? PN_XNUM : (uint16_t)phnum };
	Elf64_Shdr sh = { .sh_info = phnum };

	memcpy(h.e_ident, ELFMAG, SELFMAG);
	h.e_ident[EI_CLASS] = ELFCLASS64;
	h.e_ident[EI_DATA] = ELFDATA2LSB;
	h.e_ident[EI_VERSION] = EV_CURRENT;
	if (extended) {
		h.e_shoff = c->shoff;
		h.e_shentsize = sizeof(sh);
		h.e_shnum = 1;
		put(c, c->shoff, &sh, sizeof(sh));
	}
	put(c, 0, &h, sizeof(h));
}

static void core_make(struct core *c, const struct seg *segs, unsigned nr, int extended)
{
	uint64_t off;

	*c = (struct core){ .nr = nr, .shoff = sizeof(Elf64_Ehdr) };
	strcpy(c->path, "/tmp/cistern-elf-XXXXXX");
	c->fd = mkstemp(c->path);
	assert_true(c->fd >= 0);
	c->phoff = sizeof(Elf64_Ehdr) + sizeof(Elf64_Shdr);
	off = c->phoff + (nr + 1) * sizeof(Elf64_Phdr);
	put_ehdr(c, nr + 1, extended);
	c->phdr[0] = (Elf64_Phdr){
		.p_type = PT_NOTE, .p_offset = off, .p_filesz = NOTE_BYTES, .p_memsz = NOTE_BYTES
	};
	put_phdr(c, 0);
	off += NOTE_BYTES;
	for (unsigned i = 0; i < nr; i++) {
		uint8_t *bytes = malloc(segs[i].bytes);

		for (uint64_t b = 0; b < segs[i].bytes; b++)
			bytes[b] = (uint8_t)(segs[i].fill + b / 4096);
		put(c, off, bytes, segs[i].bytes);
		free(bytes);
		c->phdr[i + 1] = (Elf64_Phdr){ .p_type = PT_LOAD,
					       .p_offset = off,
					       .p_paddr = segs[i].gpa,
					       .p_filesz = segs[i].bytes,
					       .p_memsz = segs[i].bytes };
		put_phdr(c, i + 1);
		off += segs[i].bytes;
	}
}

static void core_remove(struct core *c)
{
	close(c->fd);
	unlink(c->path);
}

/* As a PC with a hole below 1 MiB and one below 4 GiB; not in order, as a dump may be. */
static const struct seg pc[] = { { 0x100000, 5 * 4096, 10 },
				 { 0, 3 * 4096, 1 },
				 { 0x100000000, 2 * 4096, 40 } };
static const uint8_t pc_pages[] = { 1, 2, 3, 10, 11, 12, 13, 14, 40, 41 };

static void check_pc(const struct core *c)
{
	struct cis_image_source *src;
	struct cis_error err;
	uint8_t page[4096];

	assert_int_equal(cis_source_elf(c->path, &src, &err), 0);
	assert_int_equal(src->guest_bytes, sizeof(pc_pages) * 4096);
	assert_int_equal(src->nr_regions, 3);
	assert_int_equal(src->regions[1].gpa, 0x100000);
	assert_int_equal(src->regions[1].offset, 3 * 4096);
	assert_int_equal(src->regions[1].bytes, 5 * 4096);
	for (size_t i = 0; i < sizeof(pc_pages); i++) {
		assert_int_equal(src->read(src, i * 4096, page, sizeof(page), &err), 0);
		assert_int_equal(page[0], pc_pages[i]);
		assert_int_equal(page[4095], pc_pages[i]);
	}
	src->close(src);
}

static void test_reads_segments_by_address(void **state)
{
	struct core c;

	core_make(&c, pc, 3, 0);
	check_pc(&c);
	core_remove(&c);
}

static void test_reads_a_count_in_section_header_0(void **state)
{
	struct core c;

	core_make(&c, pc, 3, 1);
	check_pc(&c);
	core_remove(&c);
}

static void test_reads_across_segments(void **state)
{
	struct cis_image_source *src;
	uint8_t all[sizeof(pc_pages) * 4096];
	struct core c;

	core_make(&c, pc, 3, 0);
	assert_int_equal(cis_source_elf(c.path, &src, NULL), 0);
	assert_int_equal(src->read(src, 100, all, sizeof(all) - 100, NULL), 0);
	for (size_t i = 0; i < sizeof(all) - 100; i++)
		assert_int_equal(all[i], pc_pages[(i + 100) / 4096]);
	assert_int_equal(src->read(src, sizeof(all) - 10, all, 11, NULL), -ERANGE);
	src->close(src);
	core_remove(&c);
}

/* Every page is either in an extent or all zero, extents ascend, and holes of a sparse core are not visited.
 */
static void test_extents_cover_all_data(void **state)
{
	const struct seg big[] = { { 0, 64 * 4096, 1 }, { 0x100000, 64 * 4096, 100 } };
	uint64_t start, end, at = 0, seen = 0;
	struct cis_image_source *src;
	uint8_t page[4096];
	struct core c;

	core_make(&c, big, 2, 0);
	fallocate(c.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)c.phdr[1].p_offset + 8 * 4096,
		  40 * 4096);
	assert_int_equal(cis_source_elf(c.path, &src, NULL), 0);
	while (!src->next_data(src, at, &start, &end, NULL)) {
		assert_true(start >= at && end > start && end <= src->guest_bytes);
		for (uint64_t hole = at; hole < start; hole += 4096) {
			assert_int_equal(src->read(src, hole, page, 4096, NULL), 0);
			assert_true(!page[0] && !memcmp(page, page + 1, 4095));
		}
		seen += end - start;
		at = end;
	}
	assert_true(seen >= (128 - 40) * 4096 && seen <= 128 * 4096);
	src->close(src);
	core_remove(&c);
}

static void refused(struct core *c, int code, const char *part)
{
	struct cis_image_source *src;
	struct cis_error err;

	assert_int_equal(cis_source_elf(c->path, &src, &err), -code);
	if (!strstr(err.text, part))
		fail_msg("'%s' does not say '%s'", err.text, part);
	core_remove(c);
}

static void test_refuses_overlapping_memory(void **state)
{
	struct core c;

	core_make(&c, pc, 3, 0);
	c.phdr[1].p_paddr = 2 * 4096;
	put_phdr(&c, 1);
	refused(&c, EBADMSG, "overlap at guest address 0x2000");
}

static void test_refuses_shared_file_bytes(void **state)
{
	struct core c;

	core_make(&c, pc, 3, 0);
	c.phdr[1].p_offset = c.phdr[2].p_offset;
	put_phdr(&c, 1);
	refused(&c, EBADMSG, "share the file's bytes");
}

static void test_refuses_wrapping(void **state)
{
	struct core c;

	core_make(&c, pc, 3, 0);
	c.phdr[1].p_paddr = UINT64_MAX - 4095;
	put_phdr(&c, 1);
	refused(&c, EBADMSG, "wraps");
	core_make(&c, pc, 3, 0);
	c.phdr[1].p_offset = UINT64_MAX - 100;
	put_phdr(&c, 1);
	refused(&c, EBADMSG, "past the end of the file");
}

static void test_refuses_truncated(void **state)
{
	struct core c;

	core_make(&c, pc, 3, 0);
	assert_int_equal(ftruncate(c.fd, (off_t)c.phdr[3].p_offset + 4096), 0);
	refused(&c, EBADMSG, "segment 3 lies past the end");
	core_make(&c, pc, 3, 0);
	assert_int_equal(ftruncate(c.fd, 200), 0);
	refused(&c, EBADMSG, "program headers");
	core_make(&c, pc, 3, 0);
	assert_int_equal(ftruncate(c.fd, 40), 0);
	refused(&c, EBADMSG, "truncated");
	core_make(&c, pc, 3, 0);
	assert_int_equal(ftruncate(c.fd, 0), 0);
	refused(&c, EMEDIUMTYPE, "not an ELF file");
}

/* Its headers were right when it was opened; whoever reads on must not get zeros. */
static void test_a_core_that_shrinks_is_said_to(void **state)
{
	struct cis_image_source *src;
	struct cis_error err;
	uint8_t page[4096];
	struct core c;

	core_make(&c, pc, 3, 0);
	assert_int_equal(cis_source_elf(c.path, &src, &err), 0);
	assert_int_equal(ftruncate(c.fd, (off_t)c.phdr[1].p_offset + 100), 0);
	assert_int_equal(src->read(src, 3 * 4096, page, sizeof(page), &err), -EIO);
	assert_non_null(strstr(err.text, "in the middle of what its headers promise"));
	src->close(src);
	core_remove(&c);
}

static void test_refuses_filtered(void **state)
{
	struct core c;

	core_make(&c, pc, 3, 0);
	c.phdr[2].p_filesz -= 4096;
	put_phdr(&c, 2);
	refused(&c, EBADMSG, "p_filesz is not p_memsz");
}

static void test_refuses_parts_of_pages(void **state)
{
	struct core c;

	core_make(&c, pc, 3, 0);
	c.phdr[2].p_paddr += 12;
	put_phdr(&c, 2);
	refused(&c, EBADMSG, "whole pages");
}

static void test_refuses_absurd_counts(void **state)
{
	struct core c;

	core_make(&c, pc, 3, 0);
	put_ehdr(&c, UINT32_MAX, 1);
	refused(&c, EFBIG, "4294967295 program headers");
	core_make(&c, pc, 3, 0);
	put_ehdr(&c, 100000, 1);
	refused(&c, EBADMSG, "not in the file");
	core_make(&c, pc, 3, 0);
	c.shoff = 1 << 20;
	put_ehdr(&c, 4, 1);
	assert_int_equal(ftruncate(c.fd, 100000), 0);
	refused(&c, EBADMSG, "section header 0");
	core_make(&c, pc, 3, 0);
	put_ehdr(&c, 0, 0);
	refused(&c, EBADMSG, "no program headers");
	core_make(&c, pc, 3, 0);
	put_ehdr(&c, 1, 0);
	refused(&c, EBADMSG, "no PT_LOAD");
}

static void spoil(size_t at, uint8_t byte, int code, const char *part)
{
	struct core c;

	core_make(&c, pc, 3, 0);
	put(&c, at, &byte, 1);
	refused(&c, code, part);
}

static void test_refuses_other_elf_files(void **state)
{
	spoil(EI_DATA, ELFDATA2MSB, EMEDIUMTYPE, "big-endian");
	spoil(EI_CLASS, ELFCLASS32, EMEDIUMTYPE, "64-bit");
	spoil(EI_VERSION, 9, EPROTONOSUPPORT, "version 9");
	spoil(offsetof(Elf64_Ehdr, e_type), ET_EXEC, EMEDIUMTYPE, "not a core");
	spoil(offsetof(Elf64_Ehdr, e_phentsize), 32, EBADMSG, "program headers");
}

static void test_names_other_dumps(void **state)
{
	static const char *const dumps[][2] = { { "KDUMP   ", "compressed kdump" },
						{ "makedumpfile", "flattened kdump" },
						{ "PAGEDU64", "Windows" } };
	struct core c;

	for (size_t i = 0; i < 3; i++) {
		core_make(&c, pc, 3, 0);
		put(&c, 0, dumps[i][0], strlen(dumps[i][0]));
		refused(&c, EMEDIUMTYPE, dumps[i][1]);
	}
}

static void test_refuses_what_is_not_a_file(void **state)
{
	struct cis_image_source *src;
	struct cis_error err;

	assert_int_equal(cis_source_elf("/nonexistent/core", &src, &err), -ENOENT);
	assert_int_equal(cis_source_elf("/tmp", &src, &err), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reads_segments_by_address),
		cmocka_unit_test(test_reads_a_count_in_section_header_0),
		cmocka_unit_test(test_reads_across_segments),
		cmocka_unit_test(test_extents_cover_all_data),
		cmocka_unit_test(test_refuses_overlapping_memory),
		cmocka_unit_test(test_refuses_shared_file_bytes),
		cmocka_unit_test(test_refuses_wrapping),
		cmocka_unit_test(test_refuses_truncated),
		cmocka_unit_test(test_a_core_that_shrinks_is_said_to),
		cmocka_unit_test(test_refuses_filtered),
		cmocka_unit_test(test_refuses_parts_of_pages),
		cmocka_unit_test(test_refuses_absurd_counts),
		cmocka_unit_test(test_refuses_other_elf_files),
		cmocka_unit_test(test_names_other_dumps),
		cmocka_unit_test(test_refuses_what_is_not_a_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
