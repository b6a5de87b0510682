/* Bench sparsity: what is laid out for the ways. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "image/write.h"
#include "os/memfd.h"
#include "sparsity.h"

const struct codec bed_codecs[IMAGES] = {
	{"raw", CIS_CODEC_RAW, 0, 0},
	{"mask", CIS_CODEC_MASK, 0, 0},
	{"lz4", CIS_CODEC_LZ4, 0, 0},
	{"zstd 1", CIS_CODEC_ZSTD, 1, 0},
	{"deflate", CIS_CODEC_DEFLATE_CANNED, 0, 0},
	{"lz4, chunks of 256 KiB", CIS_CODEC_LZ4, 0, 18},
};

size_t bed_run_len(const struct bed *bed, size_t from)
{
	return bed->nr - from < bed->run ? bed->nr - from : bed->run;
}

void bed_release(struct bed *bed)
{
	if (bed->uffd >= 0)
		close(bed->uffd);
	if (bed->dst)
		munmap(bed->dst, bed->guest_bytes);
	bed->uffd = -1;
	bed->dst = NULL;
}

static void file_write(struct file *f, const char *name, const void *bytes, uint64_t len)
{
	_cleanup_close_ int fd = -1;

	snprintf(f->path, sizeof(f->path), "%s/%s", bench_folder(), name);
	fd = open(f->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	f->bytes = len;
	for (uint64_t at = 0; fd >= 0 && at < len;) {
		ssize_t n = pwrite(fd, (const char *)bytes + at, len - at < BED_BLOCK ? len - at : BED_BLOCK, (off_t)at);

		if (n <= 0)
			bench_die(f->path, strerror(errno));
		at += (uint64_t)n;
	}
	/* Reads are of whole blocks. */
	if (fd < 0 || ftruncate(fd, (off_t)((len + 4095) & ~(uint64_t)4095)) || fsync(fd))
		bench_die(f->path, strerror(errno));
}

static void memory_write(struct bed *bed)
{
	_cleanup_close_ int fd = -1;

	snprintf(bed->memory.path, sizeof(bed->memory.path), "%s/memory", bench_folder());
	fd = open(bed->memory.path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, (off_t)bed->guest_bytes))
		bench_die(bed->memory.path, strerror(errno));
	for (size_t at = 0; at < bed->nr; at += bed_run_len(bed, at)) {
		size_t len = bed_run_len(bed, at) * BENCH_PAGE;

		if (pwrite(fd, bed->data + at * BENCH_PAGE, len, (off_t)bed->pgno[at] * BENCH_PAGE) != (ssize_t)len)
			bench_die(bed->memory.path, strerror(errno));
	}
	if (fsync(fd))
		bench_die(bed->memory.path, strerror(errno));
	bed->memory.bytes = bed->guest_bytes;
}

static void streams_write(struct bed *bed)
{
	size_t runs = (bed->nr + bed->run - 1) / bed->run, bound = bed->run * BENCH_PAGE;
	char name[64];

	for (unsigned k = 0; k < STREAM_ALL; k++) {
		struct file *f = &bed->each[k];
		_cleanup_free_ uint8_t *buf = malloc(bed->nr * BENCH_PAGE / 8 * 10 + stream_bound(k, bound) + runs * 512);
		uint64_t len = 0;
		size_t run = 0;

		f->part = calloc(runs, sizeof(*f->part));
		if (!buf || !f->part)
			bench_die("streams", strerror(ENOMEM));
		for (size_t at = 0; at < bed->nr; at += bed_run_len(bed, at)) {
			f->part[run] = (uint32_t)stream_encode(k, bed->data + at * BENCH_PAGE,
							       bed_run_len(bed, at) * BENCH_PAGE, buf + len);
			len += f->part[run++];
		}
		snprintf(name, sizeof(name), "each-%u", k);
		file_write(f, name, buf, len);
	}
}

static void images_write(struct bed *bed)
{
	for (size_t i = 0; i < IMAGES; i++) {
		struct cis_write_opts opts = {.size = sizeof(opts), .codec = bed_codecs[i].codec, .level = bed_codecs[i].level,
					      .chunk_shift = bed_codecs[i].chunk_shift, .hot = bed->pgno, .nr_hot = bed->nr, .workers = 2};
		struct cis_image_source *src;
		struct cis_error err;
		char path[4200];

		snprintf(path, sizeof(path), "%s/image-%zu", bench_folder(), i);
		if (cis_source_raw(bed->memory.path, &src, &err) || cis_image_write(path, src, &opts, &err) ||
		    cis_image_open(path, NULL, &bed->image[i], &err))
			bench_die("image", err.text);
		cis_source_close(src);
	}
}

void bed_lay(struct bed *bed, size_t run)
{
	size_t at = 0;
	uint64_t page = 0;

	bed->run = run;
	while (at < bed->nr) {
		for (size_t i = bed_run_len(bed, at); i; i--)
			bed->pgno[at++] = (uint32_t)page++;
		page += run;
	}
	bed->guest_bytes = page * BENCH_PAGE;
	memory_write(bed);
	streams_write(bed);
	images_write(bed);
}

void bed_clear(struct bed *bed)
{
	bed_release(bed);
	for (unsigned k = 0; k < STREAM_ALL; k++)
		free(bed->each[k].part);
	for (size_t i = 0; i < IMAGES; i++)
		cis_image_unref(bed->image[i]);
}

/* Blocks of 64 KiB spread over each guest, until each has given its share. */
static void data_take(struct bed *bed, const struct bench_snapshots *s)
{
	enum { BLOCK = 16, PASSES = 8 };
	static uint8_t buf[BLOCK * BENCH_PAGE];
	size_t have = 0;

	for (size_t g = 0; g < s->nr; g++) {
		const struct bench_snapshot *guest = &s->snapshot[g];
		uint64_t blocks = guest->bytes / sizeof(buf);
		size_t goal = bed->nr * (g + 1) / s->nr;
		uint64_t word;

		for (unsigned pass = 0; pass < PASSES; pass++)
			for (uint64_t b = pass; b < blocks && have < goal; b += PASSES) {
				if (pread(guest->fd, buf, sizeof(buf), (off_t)(b * sizeof(buf))) != sizeof(buf))
					bench_die(guest->path, strerror(errno));
				for (unsigned i = 0; i < BLOCK && have < goal; i++)
					if (!cis_same_word(buf + i * BENCH_PAGE, BENCH_PAGE, &word))
						memcpy(bed->data + have++ * BENCH_PAGE, buf + i * BENCH_PAGE, BENCH_PAGE);
			}
	}
	if (have < bed->nr)
		printf("the guests have only %zu pages with content\n", have);
	bed->nr = have;
}

void bed_init(struct bed *bed, const struct bench_snapshots *s, uint64_t bytes)
{
	void *room;

	*bed = (struct bed){.nr = bytes / BENCH_PAGE, .uffd = -1};
	bed->data = malloc(bed->nr * BENCH_PAGE);
	bed->pgno = malloc(bed->nr * sizeof(*bed->pgno));
	bed->room_bytes = bed->nr * BENCH_PAGE + (BED_READS + 2) * BED_BLOCK;
	bench_must(cis_buffer_alloc(bed->room_bytes, &room), "memory");
	bed->room = room;
	memset(bed->room, 1, bed->room_bytes);
	bench_must(cis_scratch_create(&bed->scratch), "scratch");
	if (!bed->nr || !bed->data || !bed->pgno)
		bench_die("sparsity", "CISTERN_BENCH_MB: not so much");
	data_take(bed, s);
	file_write(&bed->pages, "pages", bed->data, bed->nr * BENCH_PAGE);
	for (unsigned k = 0; k < STREAM_ALL; k++) {
		_cleanup_free_ uint8_t *buf = malloc(stream_bound(k, bed->nr * BENCH_PAGE));
		char name[64];

		if (!buf)
			bench_die("sparsity", strerror(ENOMEM));
		snprintf(name, sizeof(name), "one-%u", k);
		file_write(&bed->one[k], name, buf, stream_encode(k, bed->data, bed->nr * BENCH_PAGE, buf));
	}
}

void bed_fini(struct bed *bed)
{
	cis_memfd_unmap(bed->room, bed->room_bytes);
	cis_scratch_destroy(bed->scratch);
	free(bed->data);
	free(bed->pgno);
}
