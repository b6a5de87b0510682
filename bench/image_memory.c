#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "daemon.h"
#include "image/write.h"
#include "image_parts.h"
#include "snapshots.h"

#define GUESTS	   9 /* one, and eight more: what the eight add is what a guest costs */
#define PAGE_COST  12
#define GUEST_COST (256 << 10)

/** struct host - a daemon of our own and its guests */
struct host {
	const char *folder;
	struct bench_daemon daemon;
	char image[4200];
	pid_t monitor[GUESTS];
	uint64_t nr_pages;
};

static void copy_file(const char *from, const char *to)
{
	FILE *in = fopen(from, "r"), *out = fopen(to, "w");
	static char buf[1 << 16];
	size_t n;

	if (!in || !out)
		bench_die(to, strerror(errno));
	while ((n = fread(buf, 1, sizeof(buf), in)) > 0)
		if (fwrite(buf, 1, n, out) != n)
			bench_die(to, strerror(errno));
	fclose(in);
	if (fclose(out))
		bench_die(to, strerror(errno));
}

/* A guest of its own image, filled wholly, so that every page word has been looked at. */
static void guest_start(struct host *h, int i, uint64_t bytes)
{
	char image[4300], name[16], socket[4300], size[32];
	char *add[] = {"cistern", "guest", "add", name, image, "--socket", socket, "--control", h->daemon.control, NULL};
	char *wait[] = {"cistern", "guest", "wait", name, "--state", "independent", "--timeout", "60", "--control",
			h->daemon.control, NULL};
	char *play[] = {"cistern-fakevmm", "--size", size, "--do", "read:0", "--hang-after", "actions", socket, NULL};

	snprintf(image, sizeof(image), "%s/image-%d", h->folder, i);
	snprintf(name, sizeof(name), "g%d", i);
	snprintf(socket, sizeof(socket), "%s/g%d.sock", h->folder, i);
	snprintf(size, sizeof(size), "%llu", (unsigned long long)bytes);
	copy_file(h->image, image);
	bench_run("cistern", add);
	h->monitor[i] = bench_start("cistern-fakevmm", play, true);
	bench_run("cistern", wait);
}

static size_t image_make(struct host *h, const struct bench_snapshot *g)
{
	struct cis_write_opts opts = {.size = sizeof(opts), .codec = CIS_CODEC_LZ4, .workers = 2, .hot = g->trace.pgno,
				      .nr_hot = g->trace.nr, .hot_window = CIS_HOT_WINDOW};
	struct cis_image_source *src;
	struct cis_image *img;
	struct cis_error err;
	size_t bytes;

	snprintf(h->image, sizeof(h->image), "%s/image", h->folder);
	if (cis_source_raw(g->path, &src, &err) || cis_image_write(h->image, src, &opts, &err) ||
	    cis_image_open(h->image, NULL, &img, &err))
		bench_die("image", err.text);
	bytes = cis_image_info(img)->memory_bytes;
	h->nr_pages = cis_image_info(img)->nr_pages;
	cis_image_unref(img);
	cis_source_close(src);
	return bytes;
}

static void end(struct host *h)
{
	char folder[4200];

	for (int i = 0; i < GUESTS; i++) {
		if (h->monitor[i] > 0) {
			kill(h->monitor[i], SIGKILL);
			waitpid(h->monitor[i], NULL, 0);
		}
	}
	bench_daemon_end(&h->daemon);
	snprintf(folder, sizeof(folder), "%s/guests", h->folder);
	rmdir(folder); /* the daemon's, empty */
}

static void measure(struct bench *b, const struct bench_snapshot *g)
{
	static const char *const set[] = {"shards=1", "workers=1", NULL};
	struct host h = {.folder = bench_folder()};
	size_t image = image_make(&h, g);
	double first, all, each, bar;

	bench_daemon_start(&h.daemon, h.folder, set);
	guest_start(&h, 0, g->bytes);
	first = (double)bench_memory_of(bench_daemon_engine(&h.daemon), "Rss");
	for (int i = 1; i < GUESTS; i++)
		guest_start(&h, i, g->bytes);
	all = (double)bench_memory_of(bench_daemon_engine(&h.daemon), "Rss");
	end(&h);
	each = (all - first) / (GUESTS - 1);
	bar = (double)h.nr_pages * PAGE_COST + GUEST_COST;
	bench_figure(b, "engine with one guest, resident", first / 1024, "KiB", NAN, NAN);
	bench_figure(b, "each guest more, its image with it", each / 1024, "KiB", bar / 1024, each / bar);
	bench_figure(b, "of it the image's index", (double)image / 1024, "KiB", NAN, NAN);
	bench_figure(b, "a guest page, 256 KiB a guest left out", fmax(0, each - GUEST_COST) / (double)h.nr_pages, "bytes",
		     PAGE_COST, fmax(0, each - GUEST_COST) / (double)h.nr_pages / PAGE_COST);
	bench_figure(b, "a guest page, all counted", each / (double)h.nr_pages, "bytes", NAN, NAN);
}

void bench_engine_memory(struct bench *b)
{
	static struct bench_snapshots s;
	char title[160];

	if (!bench_build_find()) {
		printf("\nengine memory: cisternd, cistern or cistern-fakevmm is not beside this program: not measured\n");
		return;
	}
	bench_snapshots_open(&s);
	snprintf(title, sizeof(title), "engine memory: %d guests of %s, %llu pages each; the bar is 12 bytes a page and 256 KiB",
		 GUESTS, s.snapshot[0].name, (unsigned long long)(s.snapshot[0].bytes / BENCH_PAGE));
	bench_title(b, title);
	measure(b, &s.snapshot[0]);
	bench_snapshots_close(&s);
}
