/* What the parts of bench sparsity share. */
#ifndef CIS_BENCH_SPARSITY_H
#define CIS_BENCH_SPARSITY_H

#include "image/image.h"
#include "pager/pager.h"
#include "snapshots.h"
#include "stream.h"

#define BED_BLOCK ((size_t)1 << 20) /* of a read */
#define BED_READS 4u		    /* of the others, at once */
#define CODECS	  5u
#define IMAGES	  (CODECS + 1)

/** struct codec - one of ours; @chunk_shift: 0 for the default of 64 KiB, which all of CODECS have */
struct codec {
	const char *name;
	enum cis_codec codec;
	int level;
	unsigned chunk_shift;
};

extern const struct codec bed_codecs[IMAGES];

/** struct file - something that is read from its start to its end; @part: stored length of each run's stream, or NULL */
struct file {
	char path[4200];
	uint64_t bytes;
	uint32_t *part;
};

/**
 * struct bed - one run length, and all that is laid out for it
 * @data:  the pages, one after the other
 * @pgno:  where each of them belongs, ascending
 * @dst:   the guest's memory
 * @room:  memory kept for streams and for what REAP reads
 */
struct bed {
	uint8_t *data;
	size_t nr, run;
	uint32_t *pgno;
	uint64_t guest_bytes;
	char *dst;
	uint8_t *room;
	uint64_t room_bytes;
	int uffd;
	struct file memory, pages, one[STREAM_ALL], each[STREAM_ALL];
	struct cis_image *image[IMAGES];
	struct cis_scratch *scratch;
};

/** struct way - what a bench_way works on; @file: read by it, dropped from the page cache when nothing throttles it */
struct way {
	struct bed *bed;
	char name[64];
	const struct file *file;
	const char *path;
	struct cis_image *image;
	enum stream_kind kind;
	bool throttled, cold, pipelined, write;
	struct cis_state state;
};

/** bed_init() - the pages, @bytes of them, and what does not depend on the length of the runs. */
void bed_init(struct bed *bed, const struct bench_snapshots *s, uint64_t bytes);

void bed_fini(struct bed *bed);

/** bed_lay() - memory file, images and streams of runs of @run pages; bed_clear() before the next length. */
void bed_lay(struct bed *bed, size_t run);
void bed_clear(struct bed *bed);

/** bed_release() - the guest's memory. */
void bed_release(struct bed *bed);

/** bed_run_len() - pages of the run that begins with page @from of the data. */
size_t bed_run_len(const struct bed *bed, size_t from);

/* The ways: what bench_measure() calls, with a struct way. */
void way_before(void *way);
void ours_before(void *way);
void reap_run(void *way);
void one_stream_run(void *way);
void each_stream_run(void *way);
void map_run(void *way);
void ours_run(void *way);

#endif
