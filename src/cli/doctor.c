/* cistern doctor: what this host's kernel and hardware give, what is lost without it and what to do. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "codec/mask.h"
#include "cli/cli.h"
#include "cli/guests.h"
#include "os/memfd.h"
#include "os/probe.h"
#include "os/uffd.h"

/** struct finding - what a probe found; @detail is for people; neither @good nor bad when it cannot be told
 */
struct finding {
	bool good, unknown;
	char detail[120];
};

/**
 * struct probe - one thing that a host has or has not
 * @basic: without it no guest can be served
 * @lost:  what is lost without it
 * @cure:  what to do about it
 */
struct probe {
	const char *name;
	bool basic;
	void (*run)(const struct probe *p, struct finding *f);
	uint64_t arg;
	const char *lost, *cure;
};

static const struct cli_option options[] = {
	CLI_OPTION_IMAGES,
	CLI_OPTION_CONTROL,
	CLI_OPTION_END,
};

/* Asked once: 0 and the features, or why there are none. */
static int uffd_features(uint64_t *ret_features)
{
	static uint64_t features;
	static int r = 1;

	if (r > 0)
		r = cis_uffd_features(&features);
	*ret_features = features;
	return r;
}

static void say(struct finding *f, int r)
{
	f->good = !r;
	if (r)
		snprintf(f->detail, sizeof(f->detail), "%s", strerror(-r));
}

static void read_line(const char *path, char *buf, size_t len)
{
	FILE *file = fopen(path, "re");

	buf[0] = 0;
	if (file && fgets(buf, (int)len, file))
		buf[strcspn(buf, "\n")] = 0;
	if (file)
		fclose(file);
}

static void probe_machine(const struct probe *p, struct finding *f)
{
	struct utsname u;

	uname(&u);
	f->good = !strcmp(u.machine, "x86_64");
	snprintf(f->detail, sizeof(f->detail), "%.30s, Linux %.60s", u.machine, u.release);
}

static void probe_page_size(const struct probe *p, struct finding *f)
{
	long bytes = sysconf(_SC_PAGESIZE);

	f->good = bytes == 4096;
	if (!f->good)
		snprintf(f->detail, sizeof(f->detail), "this kernel's are of %ld bytes", bytes);
}

static void probe_uffd(const struct probe *p, struct finding *f)
{
	uint64_t features;
	char allowed[16];

	say(f, uffd_features(&features));
	if (f->good)
		return;
	read_line("/proc/sys/vm/unprivileged_userfaultfd", allowed, sizeof(allowed));
	snprintf(f->detail, sizeof(f->detail), "%s; /dev/userfaultfd %s, vm.unprivileged_userfaultfd is %s",
		 *allowed ? "not permitted" : "not in this kernel",
		 access("/dev/userfaultfd", F_OK)	 ? "is missing" :
		 access("/dev/userfaultfd", R_OK | W_OK) ? "may not be opened" :
							   "is there",
		 *allowed ? allowed : "missing");
}

static void probe_device(const struct probe *p, struct finding *f)
{
	const char *path = (const char *)(uintptr_t)p->arg;

	say(f, access(path, F_OK) || access(path, R_OK | W_OK) ? -errno : 0);
}

static void probe_feature(const struct probe *p, struct finding *f)
{
	uint64_t features;

	f->unknown = uffd_features(&features) != 0;
	f->good = !f->unknown && (features & p->arg) == p->arg;
	if (f->unknown)
		snprintf(f->detail, sizeof(f->detail), "cannot be told without userfaultfd");
}

static void probe_call(const struct probe *p, struct finding *f)
{
	say(f, ((int (*)(void))(uintptr_t)p->arg)());
}

static int try_memfd(void)
{
	int fd, r = cis_memfd_create("probe", 4096, 4096, &fd);

	if (!r)
		close(fd);
	return r;
}

static void probe_huge(const struct probe *p, struct finding *f)
{
	char total[32], unused[32];

	read_line("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", total, sizeof(total));
	read_line("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", unused, sizeof(unused));
	say(f, cis_probe_hugetlb());
	snprintf(f->detail, sizeof(f->detail), "%s of %s pages free", *unused ? unused : "none",
		 *total ? total : "none");
}

static void probe_thp(const struct probe *p, struct finding *f)
{
	char enabled[64];

	read_line("/sys/kernel/mm/transparent_hugepage/enabled", enabled, sizeof(enabled));
	f->good = *enabled && !strstr(enabled, "[never]");
	snprintf(f->detail, sizeof(f->detail), "%s", *enabled ? enabled : "not in this kernel");
}

static void probe_mask(const struct probe *p, struct finding *f)
{
	const char *name = cis_mask_best()->name;

	f->good = strcmp(name, "c") != 0;
	snprintf(f->detail, sizeof(f->detail), "%s", name);
}

static void probe_nofile(const struct probe *p, struct finding *f)
{
	struct rlimit limit;

	f->good = !getrlimit(RLIMIT_NOFILE, &limit) && limit.rlim_max >= p->arg;
	snprintf(f->detail, sizeof(f->detail), "at most %llu", (unsigned long long)limit.rlim_max);
}

static void probe_images(const struct probe *p, struct finding *f)
{
	struct statvfs st;

	say(f, access(cli_images, R_OK | W_OK | X_OK) || statvfs(cli_images, &st) ? -errno : 0);
	if (f->good)
		snprintf(f->detail, sizeof(f->detail), "%.70s, %.1f GiB free", cli_images,
			 (double)st.f_bavail * (double)st.f_frsize / (1 << 30));
	else
		snprintf(f->detail, sizeof(f->detail), "%.70s: %s", cli_images, strerror(errno));
}

static void probe_daemon(const struct probe *p, struct finding *f)
{
	struct cis_error err;
	json_t *health;

	f->good = !cli_call("GET", "/v1/health", NULL, NULL, &health, &err);
	if (f->good) {
		snprintf(f->detail, sizeof(f->detail), "version %.30s", cli_text(health, "version"));
		json_decref(health);
	} else {
		snprintf(f->detail, sizeof(f->detail), "%.100s", err.text);
	}
}

#define FEATURE(bits, text, lost)                                                                            \
	{                                                                                                    \
		text, false, probe_feature, bits, lost, "a newer kernel"                                     \
	}
#define DEVICE(path, lost, cure)                                                                             \
	{                                                                                                    \
		path, false, probe_device, (uintptr_t)(path), lost, cure                                     \
	}
#define CALL(text, fn, lost, cure)                                                                           \
	{                                                                                                    \
		text, false, probe_call, (uintptr_t)(fn), lost, cure                                         \
	}

static const struct probe probes[] = {
	{ "machine", false, probe_machine, 0,
	  "arm64 has passed its unit tests in emulation alone, without userfaultfd, io_uring, a guest or its speed "
	  "tested; others were never tried", "an x86-64 host" },
	{ "pages of 4 KiB", true, probe_page_size, 0, "no guest can be served", "a kernel with pages of 4 KiB" },
	{ "userfaultfd", true, probe_uffd, 0, "no guest can be served",
	  "run as root, or chmod /dev/userfaultfd (Linux 6.1), or sysctl vm.unprivileged_userfaultfd=1" },
	{ "memfd", true, probe_call, (uintptr_t)try_memfd, "the daemon cannot keep its state",
	  "a kernel with CONFIG_MEMFD_CREATE" },
	DEVICE("/dev/userfaultfd", "guests need CAP_SYS_PTRACE or the sysctl to have their faults served",
	       "a kernel from 6.1; give it to a group by a udev rule"),
	{ "uffd: removed ranges", true, probe_feature, UFFD_FEATURE_EVENT_REMOVE,
	  "memory that a guest gave back would come back with old content", "a newer kernel" },
	FEATURE(UFFD_FEATURE_MISSING_SHMEM, "uffd: shared memory",
		"only anonymous guests (stock Firecracker)"),
	FEATURE(UFFD_FEATURE_MISSING_HUGETLBFS, "uffd: 2 MiB pages", "no guests on reserved huge pages"),
	FEATURE(UFFD_FEATURE_MINOR_SHMEM, "uffd: minor, shared memory",
		"fill copies where it could map: 4 to 7 times slower"),
	FEATURE(UFFD_FEATURE_MINOR_HUGETLBFS, "uffd: minor, 2 MiB pages",
		"fill of huge pages copies where it could map"),
	FEATURE(UFFD_FEATURE_PAGEFAULT_FLAG_WP, "uffd: write-protect",
		"reclaim cannot see a write to a page it evicts"),
	FEATURE(UFFD_FEATURE_WP_HUGETLBFS_SHMEM, "uffd: write-protect, shared",
		"no reclaim from shared memory"),
	FEATURE(UFFD_FEATURE_EXACT_ADDRESS, "uffd: exact addresses", "faults are known by page only"),
	FEATURE(UFFD_FEATURE_WP_UNPOPULATED, "uffd: write-protect holes",
		"writes to absent pages are not tracked"),
	FEATURE(UFFD_FEATURE_POISON, "uffd: poison",
		"a page that cannot be produced kills its guest: policy poison is kill"),
	FEATURE(UFFD_FEATURE_WP_ASYNC, "uffd: asynchronous write-protect",
		"the age of pages is found by sampling, at a cost"),
	FEATURE(UFFD_FEATURE_MOVE, "uffd: move", "monitors cannot move pages in their own process"),
	CALL("PAGEMAP_SCAN", cis_probe_pagemap_scan, "dirty pages are found by reading pagemap, slowly",
	     "a kernel from 6.7"),
	{ "io_uring", true, probe_call, (uintptr_t)cis_probe_uring, "the daemon cannot read images",
	  "a kernel with io_uring, and sysctl kernel.io_uring_disabled=0" },
	CALL("pidfd_getfd", cis_probe_pidfd_getfd, "no take-over without a keeper",
	     "a kernel from 5.6, and CAP_SYS_PTRACE"),
	{ "2 MiB pages", false, probe_huge, 0, "no reserve of huge pages: fill takes longer",
	  "sysctl vm.nr_hugepages=N, best at boot" },
	{ "transparent huge pages", false, probe_thp, 0, "buffers of the daemon take more TLB entries",
	  "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled" },
	{ "vector code of codec mask", false, probe_mask, 0, "mask runs in portable C, many times slower",
	  "a CPU with AVX2, best with AVX-512 VBMI2" },
	DEVICE("/dev/kvm", "no virtual machines at hardware speed: Firecracker does not start",
	       "a host with virtualisation, and membership in group kvm"),
	DEVICE("/dev/cpu_dma_latency", "cores halt during a restore: a fault takes up to four times longer",
	       "run the daemon as root"),
	CALL("locked memory", cis_probe_mlock,
	     "reading events may have to wait for a page of the daemon's own", "raise LimitMEMLOCK"),
	{ "open files", false, probe_nofile, 4096, "about four descriptors a guest: fewer guests",
	  "raise LimitNOFILE" },
	{ "image directory", false, probe_images, 0, "images are found by path only",
	  "mkdir -p it, or say --images DIR" },
	{ "daemon", false, probe_daemon, 0, "no guests are served now", "start cisternd" },
};

#define NR_PROBES (sizeof(probes) / sizeof(probes[0]))

static void print_finding(const struct probe *p, const struct finding *f)
{
	const char *word = f->good ? "ok" : f->unknown ? "unknown" : p->basic ? "MISSING" : "missing";

	printf("%-7s %s%s%s\n", word, p->name, *f->detail ? ": " : "", f->detail);
	if (!f->good && !f->unknown)
		printf("        %s; cure: %s\n", p->lost, p->cure);
}

static json_t *finding_json(const struct probe *p, const struct finding *f)
{
	json_t *obj = json_pack("{s:s,s:b,s:b,s:s}", "name", p->name, "good", f->good, "basic", p->basic,
				"detail", f->detail);

	if (f->unknown)
		json_object_set_new(obj, "unknown", json_true());
	if (!f->good) {
		json_object_set_new(obj, "lost", json_string(p->lost));
		json_object_set_new(obj, "cure", json_string(p->cure));
	}
	return obj;
}

static int run(int argc, char **argv)
{
	json_t *rows = json_array();
	bool can_serve = true;
	int status = CLI_OK;

	for (size_t i = 0; i < NR_PROBES; i++) {
		struct finding f = { 0 };

		probes[i].run(&probes[i], &f);
		can_serve = can_serve && (f.good || !probes[i].basic);
		if (cli_json)
			json_array_append_new(rows, finding_json(&probes[i], &f));
		else
			print_finding(&probes[i], &f);
	}
	if (cli_json)
		status = cli_print_json(json_pack("{s:b,s:o}", "can_serve", can_serve, "probes", rows));
	else
		printf("%s\n", can_serve ? "guests can be served" : "guests cannot be served");
	if (!cli_json)
		json_decref(rows);
	return can_serve ? status : CLI_FAILED;
}

const struct cli_command cli_doctor = {
	"doctor", "", "Say what this host can do, what is lost and what to do about it", options, 0, 0, run
};
