#include "rig.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "snapshots.h"
#include "os/memfd.h"
#include "os/uffd.h"

#define AWAKE_MS 1000 /* the daemon's default */

void rig_open(struct rig *rig, unsigned workers)
{
	cpu_set_t mine, all;

	/* Threads inherit the mask of their creator. */
	sched_getaffinity(0, sizeof(mine), &mine);
	memset(&all, 0xff, sizeof(all));
	sched_setaffinity(0, sizeof(all), &all);
	*rig = (struct rig){0};
	bench_must(cis_mailbox_init(&rig->control), "mailbox");
	bench_must(cis_awake_create(AWAKE_MS, &rig->awake), "awake");
	bench_must(cis_workers_create(workers, &rig->workers), "workers");
	bench_must(cis_shard_create(0, rig->workers, &rig->control, rig->awake, &rig->shard), "shard");
	sched_setaffinity(0, sizeof(mine), &mine);
}

void rig_close(struct rig *rig)
{
	cis_shard_destroy(rig->shard);
	cis_workers_destroy(rig->workers);
	cis_awake_destroy(rig->awake);
	cis_mailbox_fini(&rig->control);
}

void rig_forget(struct rig *rig, struct cis_image *img)
{
	cis_shard_forget(rig->shard, img, NULL);
	cis_workers_forget(rig->workers);
}

static void notice(void *arg)
{
	struct cis_notice *n = arg;
	struct rig_guest *g = n->ctx;

	if (n->type == CIS_NOTICE_FILLED)
		g->filled = n->level;
	if (n->type == CIS_NOTICE_LEFT)
		g->left = true;
	if (n->type == CIS_NOTICE_FAILED && !g->failed++)
		fprintf(stderr, "%s\n", n->err.text);
	free(n);
}

/* Until something has come from the shard. */
static void hear(struct rig *rig)
{
	struct pollfd p = {.fd = rig->control.event, .events = POLLIN};

	while (poll(&p, 1, -1) < 0 && errno == EINTR)
		;
	cis_mailbox_run(&rig->control);
}

void rig_guest_init(struct rig_guest *g, struct rig *rig, struct cis_image *image, bool allocated)
{
	*g = (struct rig_guest){.rig = rig, .image = cis_image_ref(image), .allocated = allocated,
				.bytes = cis_image_info(image)->guest_bytes, .memfd = -1, .uffd = -1, .state_fd = -1};
	if (!allocated)
		return;

	void *alias;

	bench_must(cis_memfd_create("guest", g->bytes, BENCH_PAGE, &g->memfd), "memfd");
	bench_must(cis_memfd_map(g->memfd, 0, g->bytes, &alias), "memfd");
	g->alias = alias;
	memset(g->alias, 0, g->bytes);
}

void rig_guest_fini(struct rig_guest *g)
{
	rig_guest_leave(g);
	cis_memfd_unmap(g->alias, g->bytes);
	if (g->memfd >= 0)
		close(g->memfd);
	cis_image_unref(g->image);
}

void rig_guest_prepare(struct rig_guest *g)
{
	uint64_t nr_pages = cis_image_info(g->image)->nr_pages, state_bytes = cis_state_bytes(CIS_STATE_LAYOUT_MAX, nr_pages);
	void *map;

	rig_guest_leave(g);
	if (g->allocated) {
		bench_must(cis_memfd_map(g->memfd, 0, g->bytes, &map), "memfd");
		g->mem = map;
	} else {
		g->mem = bench_map(g->bytes);
	}
	bench_must(cis_memfd_create("state", state_bytes, BENCH_PAGE, &g->state_fd), "state memfd");
	bench_must(cis_memfd_map(g->state_fd, 0, state_bytes, &map), "state memfd");
	cis_state_init(map, CIS_STATE_LAYOUT_MAX, nr_pages, 1, &g->state);
	g->filled = CIS_FILL_NONE;
	g->left = false;
}

void rig_guest_restore(struct rig_guest *g, enum cis_fill fill)
{
	struct cis_region region = {.hva = (uint64_t)(uintptr_t)g->mem, .bytes = g->bytes, .alias = g->alias, .view = g->alias,
				    .kind = g->allocated ? CIS_KIND_SHARED : CIS_KIND_ANONYMOUS};
	struct cis_seat_opts opts = {
		.pager = {.regions = &region, .nr_regions = 1, .image = g->image, .state = g->state, .neighbours = true,
			  .tries = 3},
		.fill = fill,
		.notice = notice,
		.ctx = g,
	};
	uint64_t mode = UFFDIO_REGISTER_MODE_MISSING | (g->allocated ? UFFDIO_REGISTER_MODE_MINOR : 0);
	struct cis_error err;

	bench_must(cis_uffd_open(g->allocated ? UFFD_FEATURE_MINOR_SHMEM : 0, &g->uffd), "userfaultfd");
	bench_must(cis_uffd_register(g->uffd, region.hva, region.bytes, mode), "UFFDIO_REGISTER");
	opts.uffd = g->uffd;
	if (cis_seat_create(g->rig->shard, &opts, &g->seat, &err))
		bench_die("seat", err.text);
	cis_seat_sit(g->seat);
	while (g->filled < fill)
		hear(g->rig);
}

void rig_guest_leave(struct rig_guest *g)
{
	if (g->seat) {
		cis_seat_leave(g->seat);
		while (!g->left)
			hear(g->rig);
		cis_seat_destroy(g->seat);
		g->seat = NULL;
	}
	if (g->uffd >= 0)
		close(g->uffd);
	if (g->mem)
		munmap(g->mem, g->bytes);
	if (g->state.header)
		cis_memfd_unmap(g->state.header, g->state.bytes);
	if (g->state_fd >= 0)
		close(g->state_fd);
	g->uffd = g->state_fd = -1;
	g->mem = NULL;
	g->state = (struct cis_state){0};
}
