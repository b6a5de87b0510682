/* cistern image create: an image of guest memory. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/size.h"
#include "cli/images.h"
#include "cli/output.h"

#define STATE_BYTES_MAX ((uint64_t)1 << 30) /* format 3 */

static struct {
	const char *format, *codec, *dict, *parent, *state, *page, *producer;
	uint64_t level, chunk, read_rate, install_rate, workers;
	struct cli_list traces;
	bool full;
} opt = { .codec = "auto", .dict = "auto", .page = "4K", .level = CLI_NO_LEVEL, .chunk = 64 };

static const struct cli_option options[] = {
	{ "format", CLI_CHOICE, "raw|elf", "what MEMORY is (default: seen from its first bytes)",
	  &opt.format },
	{ "codec", CLI_CHOICE, CLI_CODECS,
	  "how to store it (default: auto, the fastest restore by costs measured here)", &opt.codec },
	{ "level", CLI_NUMBER, "N",
	  "of the codec: lz4 1..12, zstd 1..22, deflate 1..3 (default: the codec's)", &opt.level },
	{ "dict", CLI_CHOICE, "on|off|auto",
	  "train a dictionary for zstd (default: auto, for chunks up to 16 KiB)", &opt.dict },
	{ "chunk", CLI_NUMBER, "KiB", "unit of compression, 4..2048, a power of two (default: 64)",
	  &opt.chunk },
	{ "page", CLI_CHOICE, "4K|2M", "unit of classes and order (default: 4K)", &opt.page },
	{ "trace", CLI_LIST, "FILE", "recorded first touches make pages hot; may be given again",
	  &opt.traces },
	{ "parent", CLI_STRING, "IMAGE",
	  "store what differs from it: a raw MEMORY is a diff, its holes are the parent's", &opt.parent },
	{ "full", CLI_FLAG, NULL, "MEMORY is a full snapshot although there is a parent: holes are zeros",
	  &opt.full },
	{ "state", CLI_STRING, "FILE", "the monitor's device state, carried along", &opt.state },
	{ "producer", CLI_STRING, "TEXT", "who wrote MEMORY, as in firecracker-1.14.2", &opt.producer },
	{ "read-rate", CLI_SIZE, "BYTES", "plan for a medium that reads so much a second (default: measured)",
	  &opt.read_rate },
	{ "install-rate", CLI_SIZE, "BYTES", "plan for so much installed a second (default: measured)",
	  &opt.install_rate },
	{ "workers", CLI_NUMBER, "N", "threads to encode, and to plan for (default: one a CPU)",
	  &opt.workers },
	CLI_OPTION_IMAGES,
	CLI_OPTION_END,
};

/** struct job - everything that is open while an image is made */
struct job {
	struct cis_image_source *src;
	struct cis_image *parent;
	struct cli_hot hot;
	void *state;
	size_t state_bytes;
	struct cis_write_opts w;
	json_t *plan;
};

static void job_fini(struct job *job)
{
	cis_source_close(job->src);
	cis_image_unref(job->parent);
	free(job->hot.pgno);
	free(job->state);
	json_decref(job->plan);
}

static int check_usage(void)
{
	if (opt.chunk < 4 || opt.chunk > 2048 || opt.chunk & (opt.chunk - 1))
		return cli_usage("--chunk: %llu is not a power of two from 4 to 2048",
				 (unsigned long long)opt.chunk);
	if (!strcmp(opt.dict, "on") && strcmp(opt.codec, "zstd"))
		return cli_usage("--dict on wants --codec zstd");
	if (opt.full && !opt.parent)
		return cli_usage("--full wants a --parent");
	if (opt.workers > CLI_WORKERS_MAX)
		return cli_usage("--workers: %llu is more than %d", (unsigned long long)opt.workers,
				 CLI_WORKERS_MAX);
	return cli_check_level(opt.codec, opt.level);
}

static bool looks_like_elf(const char *path)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	char head[16] = "";

	if (fd < 0 || pread(fd, head, sizeof(head), 0) != sizeof(head))
		return false;
	return !memcmp(head, "\177ELF", 4) || !memcmp(head, "KDUMP   ", 8) ||
	       !memcmp(head, "makedumpfile", 12);
}

static int open_source(const char *memory, struct job *job, struct cis_error *err)
{
	bool elf = opt.format ? !strcmp(opt.format, "elf") : looks_like_elf(memory);
	int r = elf ? cis_source_elf(memory, &job->src, err) : cis_source_raw(memory, &job->src, err);

	/* A core holds all memory: it never is a diff. */
	job->w.holes_inherit = opt.parent && !opt.full && !elf;
	return r;
}

static int read_state(struct job *job, struct cis_error *err)
{
	_cleanup_close_ int fd = open(opt.state, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	size_t done = 0;

	if (fd < 0 || fstat(fd, &st))
		return cis_fail(err, errno, "%s: %s", opt.state, strerror(errno));
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size > STATE_BYTES_MAX)
		return cis_fail(err, EFBIG, "%s: not a file of at most 1 GiB", opt.state);
	job->state_bytes = (size_t)st.st_size;
	job->state = malloc(job->state_bytes + 1);
	if (!job->state)
		return cis_fail(err, ENOMEM, "%s: no memory for %zu bytes", opt.state, job->state_bytes);
	while (done < job->state_bytes) {
		ssize_t n = read(fd, (char *)job->state + done, job->state_bytes - done);

		if (n <= 0)
			return cis_fail(err, n < 0 ? errno : EIO, "%s: read: %s", opt.state,
					n < 0 ? strerror(errno) : "it got shorter");
		done += (size_t)n;
	}
	return 0;
}

static int prepare(const char *memory, struct job *job, struct cis_error *err)
{
	struct cis_write_opts *w = &job->w;
	int r = open_source(memory, job, err);

	w->size = sizeof(*w);
	w->page_shift = strcmp(opt.page, "2M") ? 12 : 21;
	w->chunk_shift = (unsigned)__builtin_ctzll(opt.chunk << 10);
	w->workers = (unsigned)opt.workers;
	w->producer = opt.producer;
	if (!r && opt.state)
		r = read_state(job, err);
	if (!r && opt.parent)
		r = cli_image_open(opt.parent, &job->parent, err);
	if (!r && w->holes_inherit)
		r = cli_producer_check(opt.producer, job->state, job->state_bytes, job->src->guest_bytes,
				       err);
	if (!r && opt.traces.nr)
		r = cli_hot_merge(&opt.traces, job->src->guest_bytes, w->page_shift, &job->hot, err);
	w->parent = job->parent;
	w->compare = job->parent != NULL;
	w->state = job->state;
	w->state_bytes = job->state_bytes;
	w->hot = opt.traces.nr ? job->hot.pgno : NULL;
	w->nr_hot = job->hot.nr;
	w->hot_window = CIS_HOT_WINDOW;
	return r;
}

static int choose(const char *image, struct job *job, struct cis_error *err)
{
	const struct cli_codec_wish wish = { .codec = opt.codec,
					     .dict = opt.dict,
					     .level = opt.level,
					     .has_level = opt.level != CLI_NO_LEVEL,
					     .read_rate = opt.read_rate,
					     .install_rate = opt.install_rate,
					     .workers = (unsigned)opt.workers };

	return cli_codec_choose(&wish, job->src, image, &job->w, &job->plan, err);
}

static int write_image(const char *image, struct job *job, struct cli_progress *progress,
		       struct cis_error *err)
{
	int r;

	cli_progress_start(progress);
	job->w.progress = cli_progress;
	job->w.progress_ctx = progress;
	r = cis_image_write(image, job->src, &job->w, err);
	cli_progress_end(progress);
	return r;
}

/* The image replaces what has its name; the only copy of a guest's memory must not be that. */
static int check_apart(const char *memory, const char *image, struct cis_error *err)
{
	struct stat a, b;

	if (!stat(memory, &a) && !stat(image, &b) && a.st_dev == b.st_dev && a.st_ino == b.st_ino)
		return cis_fail(err, EINVAL, "%s: is the memory itself; give the image another name", image);
	return 0;
}

static int create(const char *memory, const char *image, struct job *job, struct cis_error *err)
{
	struct cli_progress progress;
	uint64_t room;
	int r = check_apart(memory, image, err);

	if (!r)
		r = prepare(memory, job, err);
	if (!r)
		r = cli_quota_room(image, &room, err);
	if (!r)
		r = choose(image, job, err);
	if (r)
		return r;
	job->w.max_bytes = room == UINT64_MAX ? 0 : room ? room : 1;
	r = write_image(image, job, &progress, err);
	return r == -EDQUOT && room != UINT64_MAX ? cli_quota_refuse(image, room, &progress, err) : r;
}

static int run(int argc, char **argv)
{
	struct cis_image *img = NULL;
	struct job job = { 0 };
	struct cis_error err;
	int status = check_usage();

	if (status)
		return status;
	if (!opt.workers)
		opt.workers = (uint64_t)sysconf(_SC_NPROCESSORS_ONLN);
	if (create(argv[0], argv[1], &job, &err) ||
	    cis_image_open(argv[1], &(struct cis_image_dirs){ .path = &cli_images, .nr = 1 }, &img, &err))
		status = cli_fail(&err);
	else
		status = cli_image_print(img, job.plan);
	cis_image_unref(img);
	job_fini(&job);
	return status;
}

const struct cli_command cli_image_create = {
	"image create", "MEMORY IMAGE", "Make an image of guest memory", options, 2, 2, run
};
