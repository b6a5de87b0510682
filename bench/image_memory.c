#include <errno.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "image/write.h"
#include "image_parts.h"
#include "snapshots.h"

#define GUESTS	   9 /* one, and eight more: what the eight add is what a guest costs */
#define PAGE_COST  12
#define GUEST_COST (256 << 10)
#define UP_TRIES   2000

static char build[4000]; /* where the programs are */

/** struct host - a daemon of our own */
struct host {
	const char *folder;
	char control[4200], image[4200];
	pid_t keeper, monitor[GUESTS];
	uint64_t nr_pages;
};

static bool find_build(void)
{
	ssize_t n = readlink("/proc/self/exe", build, sizeof(build) - 1);
	char path[4100];

	if (n < 0)
		return false;
	build[n] = 0;
	for (int up = 0; up < 2; up++)
		*strrchr(build, '/') = 0;
	for (size_t i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "%s/%s", build, (const char *[]){"cisternd", "cistern", "cistern-fakevmm"}[i]);
		if (access(path, X_OK))
			return false;
	}
	return true;
}

static pid_t start(const char *program, char *const argv[], int quiet)
{
	pid_t pid = fork();
	char path[4100];

	if (pid < 0)
		bench_die("fork", strerror(errno));
	if (pid)
		return pid;
	snprintf(path, sizeof(path), "%s/%s", build, program);
	if (quiet && (!freopen("/dev/null", "w", stdout) || !freopen("/dev/null", "w", stderr)))
		_exit(127);
	execv(path, argv);
	_exit(127);
}

static void run(const char *program, char *const argv[])
{
	int status;
	pid_t pid = start(program, argv, 1);

	if (waitpid(pid, &status, 0) != pid || status)
		bench_die(argv[1], "failed");
}

static void daemon_start(struct host *h)
{
	char *argv[] = {"cisternd", "--control", h->control, "--set", "shards=1", "--set", "workers=1", NULL};

	snprintf(h->control, sizeof(h->control), "%s/control.sock", h->folder);
	h->keeper = start("cisternd", argv, 1);
	for (int i = 0; access(h->control, F_OK); i++) {
		if (i == UP_TRIES || waitpid(h->keeper, NULL, WNOHANG))
			bench_die("cisternd", "does not come up");
		poll(NULL, 0, 5);
	}
}

static pid_t engine_of(pid_t keeper)
{
	char path[64];
	int pid = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)keeper, (int)keeper);
	f = fopen(path, "r");
	if (!f || fscanf(f, "%d", &pid) != 1)
		bench_die(path, "no engine");
	fclose(f);
	return pid;
}

/* Resident, in bytes: what is private and what is shared, state memfds among it. */
static double resident(pid_t pid)
{
	char path[64], line[256];
	unsigned long kib = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
	f = fopen(path, "r");
	if (!f)
		bench_die(path, strerror(errno));
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "Rss: %lu kB", &kib) == 1)
			break;
	fclose(f);
	return (double)kib * 1024;
}

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
	char *add[] = {"cistern", "guest", "add", name, image, "--socket", socket, "--control", h->control, NULL};
	char *wait[] = {"cistern", "guest", "wait", name, "--state", "independent", "--timeout", "60", "--control",
			h->control, NULL};
	char *play[] = {"cistern-fakevmm", "--size", size, "--do", "read:0", "--hang-after", "actions", socket, NULL};

	snprintf(image, sizeof(image), "%s/image-%d", h->folder, i);
	snprintf(name, sizeof(name), "g%d", i);
	snprintf(socket, sizeof(socket), "%s/g%d.sock", h->folder, i);
	snprintf(size, sizeof(size), "%llu", (unsigned long long)bytes);
	copy_file(h->image, image);
	run("cistern", add);
	h->monitor[i] = start("cistern-fakevmm", play, 1);
	run("cistern", wait);
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
	kill(h->keeper, SIGTERM);
	waitpid(h->keeper, NULL, 0);
	snprintf(folder, sizeof(folder), "%s/guests", h->folder);
	rmdir(folder); /* the daemon's, empty */
}

static void measure(struct bench *b, const struct bench_snapshot *g)
{
	struct host h = {.folder = bench_folder()};
	size_t image = image_make(&h, g);
	double first, all, each, bar;

	daemon_start(&h);
	guest_start(&h, 0, g->bytes);
	first = resident(engine_of(h.keeper));
	for (int i = 1; i < GUESTS; i++)
		guest_start(&h, i, g->bytes);
	all = resident(engine_of(h.keeper));
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

	if (!find_build()) {
		printf("\nengine memory: cisternd, cistern or cistern-fakevmm is not in %s: not measured\n", build);
		return;
	}
	bench_snapshots_open(&s);
	snprintf(title, sizeof(title), "engine memory: %d guests of %s, %llu pages each; the bar is 12 bytes a page and 256 KiB",
		 GUESTS, s.snapshot[0].name, (unsigned long long)(s.snapshot[0].bytes / BENCH_PAGE));
	bench_title(b, title);
	measure(b, &s.snapshot[0]);
	bench_snapshots_close(&s);
}
