/* Prometheus text.  Each figure once for all guests and once a guest, by the label guest. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "daemon/ledger.h"
#include "daemon/request.h"

/* Upper bounds of the latency buckets that are shown, in ns; the histograms inside are finer. */
static const uint64_t bounds[] = { 5000, 10000, 20000, 50000, 100000, 200000, 500000, 1000000, 5000000, 20000000, 100000000, 1000000000 };
#define BOUNDS (sizeof(bounds) / sizeof(bounds[0]))

struct counter {
	const char *name, *label, *help;
	size_t at; /* in struct cis_pager_stats */
};

#define AT(field) offsetof(struct cis_pager_stats, field)

static const struct counter counters[] = {
	{ "cistern_faults_total", "class=\"zero\"", "Page faults answered, by what answered them", AT(faults_zero) },
	{ "cistern_faults_total", "class=\"demand\"", NULL, AT(faults_demand) },
	{ "cistern_faults_total", "class=\"same\"", NULL, AT(faults_same) },
	{ "cistern_faults_total", "class=\"removed\"", NULL, AT(faults_removed) },
	{ "cistern_faults_total", "class=\"resident\"", NULL, AT(faults_resident) },
	{ "cistern_faults_total", "class=\"stashed\"", NULL, AT(faults_stashed) },
	{ "cistern_faults_total", "class=\"far\"", NULL, AT(faults_far) },
	{ "cistern_faults_total", "class=\"written\"", NULL, AT(faults_written) },
	{ "cistern_faults_deferred_total", NULL, "Faults that had to wait for a change of the address space, a job or a read",
	  AT(faults_deferred) },
	{ "cistern_faults_failed_total", NULL, "Pages that could not be produced", AT(faults_failed) },
	{ "cistern_pages_installed_total", "by=\"demand\"", "Pages installed, by what for", AT(pages_demand) },
	{ "cistern_pages_installed_total", "by=\"neighbour\"", NULL, AT(pages_neighbour) },
	{ "cistern_pages_installed_total", "by=\"fill\"", NULL, AT(pages_filled) },
	{ "cistern_pages_installed_total", "by=\"zero\"", NULL, AT(pages_zero) },
	{ "cistern_pages_installed_total", "by=\"prefetch\"", NULL, AT(pages_prefetched) },
	{ "cistern_pages_removed_total", NULL, "Pages given back by the guest", AT(pages_removed) },
	{ "cistern_remove_events_total", NULL, "REMOVE events", AT(removes) },
	{ "cistern_reads_total", "tier=\"file\"", "Reads of chunks, by tier", AT(reads) },
	{ "cistern_read_bytes_total", "tier=\"file\"", "Stored bytes read, by tier", AT(bytes_read) },
	{ "cistern_store_errors_total", "kind=\"read\"", "Reads that failed, took too long or gave wrong bytes, and requests to stores of pages that failed, by kind",
	  AT(errors_read) },
	{ "cistern_store_errors_total", "kind=\"timeout\"", NULL, AT(errors_timeout) },
	{ "cistern_store_errors_total", "kind=\"damaged\"", NULL, AT(errors_damaged) },
	{ "cistern_store_errors_total", "kind=\"get\"", NULL, AT(errors_get) },
	{ "cistern_store_errors_total", "kind=\"put\"", NULL, AT(errors_put) },
	{ "cistern_store_retries_total", NULL, "Reads for faults that were tried again", AT(retries) },
	{ "cistern_failures_total", "outcome=\"poisoned\"", "Pages that could not be produced, by what was done", AT(poisoned) },
	{ "cistern_failures_total", "outcome=\"killed\"", NULL, AT(killed) },
	{ "cistern_failures_total", "outcome=\"stalled\"", NULL, AT(stalled) },
	{ "cistern_failures_total", "outcome=\"recovered\"", NULL, AT(recovered) },
	{ "cistern_guest_held_back_total", NULL, "Times that a guest had to wait for its fault_rate", AT(held_back) },
	{ "cistern_evictions_total", "kind=\"stashed\"", "Pages reclaimed, by what was kept of them: a copy, nothing (zeros), or what the image has",
	  AT(evictions) },
	{ "cistern_evictions_total", "kind=\"zero\"", NULL, AT(evicted_zero) },
	{ "cistern_evictions_total", "kind=\"clean\"", NULL, AT(evicted_clean) },
	{ "cistern_evictions_given_up_total", NULL, "Pages that were not reclaimed after all", AT(evictions_given_up) },
	{ "cistern_evictions_spared_total", NULL, "Times that a page stayed when its turn had come, since it comes back soon", AT(spared) },
	{ "cistern_prefetch_probes_total", NULL, "Pages that prefetch would have brought, left out to see whether they are asked for", AT(probes) },
	{ "cistern_prefetch_probe_hits_total", NULL, "Of these, those that were", AT(probe_hits) },
	{ "cistern_page_gets_total", NULL, "Pages that a store gave back", AT(gets) },
	{ "cistern_page_puts_total", NULL, "Pages that a store took", AT(puts) },
	{ "cistern_page_deletes_total", NULL, "Pages that a store forgot", AT(deletes) },
	{ "cistern_page_bytes_total", "direction=\"got\"", "Bytes of them, encoded, by direction", AT(bytes_got) },
	{ "cistern_page_bytes_total", "direction=\"put\"", NULL, AT(bytes_put) },
	{ "cistern_steals_total", NULL, "Pages that came from the stash while they were being written to a store", AT(faults_stolen) },
	{ "cistern_stash_full_total", NULL, "Times that reclaim stopped since the stash had no room", AT(stash_full) },
	{ "cistern_install_again_total", NULL, "Installs that the kernel put off (EAGAIN)", AT(again) },
};

static const struct {
	const char *stage;
	size_t at;
} stages[] = {
	{ "total", AT(fault_ns) },	 { "queue", AT(queue_ns) },	{ "read", AT(read_ns) },
	{ "decode", AT(decode_ns) }, { "verify", AT(verify_ns) }, { "install", AT(install_ns) },
};

struct row {
	const char *guest; /* NULL: all */
	struct cis_seat_report rep;
	uint64_t resident, stashed, far, budget; /* bytes; budget UINT64_MAX: none */
};

static void add(struct cis_pager_stats *sum, const struct cis_pager_stats *s)
{
	for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++)
		*(uint64_t *)((char *)sum + counters[i].at) += *(const uint64_t *)((const char *)s + counters[i].at);
	for (size_t i = 0; i < sizeof(stages) / sizeof(stages[0]); i++)
		cis_hist_merge((struct cis_hist *)((char *)sum + stages[i].at),
			       (const struct cis_hist *)((const char *)s + stages[i].at));
}

void cis_metrics_forget(struct cis_engine *e, const struct cis_pager_stats *stats)
{
	add(&e->past, stats);
}

/* {guest="a",class="zero"}, or fewer, or nothing. */
static void labels(FILE *f, const char *guest, const char *more)
{
	if (!guest && !more)
		return;
	fputc('{', f);
	if (guest)
		fprintf(f, "guest=\"%s\"%s", guest, more ? "," : "");
	fprintf(f, "%s}", more ? more : "");
}

static void head(FILE *f, const char *name, const char *type, const char *help)
{
	fprintf(f, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void print_counters(FILE *f, const struct row *rows, size_t n)
{
	for (size_t c = 0; c < sizeof(counters) / sizeof(counters[0]); c++) {
		if (counters[c].help)
			head(f, counters[c].name, "counter", counters[c].help);
		for (size_t i = 0; i < n; i++) {
			fputs(counters[c].name, f);
			labels(f, rows[i].guest, counters[c].label);
			fprintf(f, " %llu\n", *(const unsigned long long *)((const char *)&rows[i].rep.stats + counters[c].at));
		}
	}
}

static void print_hist(FILE *f, const struct row *row, const char *stage, const struct cis_hist *h)
{
	uint64_t seen = 0;
	unsigned b = 0;
	char label[64];

	for (size_t i = 0; i < BOUNDS; i++) {
		while (b < CIS_HIST_BUCKETS && cis_hist_bound(b) <= bounds[i])
			seen += h->bucket[b++];
		snprintf(label, sizeof(label), "stage=\"%s\",le=\"%g\"", stage, (double)bounds[i] / 1e9);
		fputs("cistern_fault_seconds_bucket", f);
		labels(f, row->guest, label);
		fprintf(f, " %llu\n", (unsigned long long)seen);
	}
	snprintf(label, sizeof(label), "stage=\"%s\",le=\"+Inf\"", stage);
	fputs("cistern_fault_seconds_bucket", f);
	labels(f, row->guest, label);
	fprintf(f, " %llu\n", (unsigned long long)h->count);
	snprintf(label, sizeof(label), "stage=\"%s\"", stage);
	fputs("cistern_fault_seconds_sum", f);
	labels(f, row->guest, label);
	fprintf(f, " %.9f\ncistern_fault_seconds_count", (double)h->sum / 1e9);
	labels(f, row->guest, label);
	fprintf(f, " %llu\n", (unsigned long long)h->count);
}

static void print_hists(FILE *f, const struct row *rows, size_t n)
{
	head(f, "cistern_fault_seconds", "histogram", "Time to answer a fault, by stage");
	for (size_t i = 0; i < n; i++)
		for (size_t s = 0; s < sizeof(stages) / sizeof(stages[0]); s++)
			print_hist(f, &rows[i], stages[s].stage,
				   (const struct cis_hist *)((const char *)&rows[i].rep.stats + stages[s].at));
}

static void print_gauge(FILE *f, const char *name, const char *help, const struct row *rows, size_t n, size_t at)
{
	head(f, name, "gauge", help);
	for (size_t i = 0; i < n; i++) {
		uint64_t value = *(const uint64_t *)((const char *)&rows[i] + at);

		if (value == UINT64_MAX)
			continue;
		fputs(name, f);
		labels(f, rows[i].guest, NULL);
		fprintf(f, " %llu\n", (unsigned long long)value);
	}
}

static void print_gauges(FILE *f, const struct row *rows, size_t n)
{
	_Static_assert(sizeof(size_t) == sizeof(uint64_t), "memory_bytes is printed as one of them");
	print_gauge(f, "cistern_resident_bytes", "Bytes of the guest's memory that are resident", rows, n, offsetof(struct row, resident));
	print_gauge(f, "cistern_budget_bytes", "Bytes of its memory that may be resident; of guests that have a budget", rows, n,
		    offsetof(struct row, budget));
	print_gauge(f, "cistern_stashed_bytes", "Bytes of its memory that were reclaimed and are in its stash", rows, n,
		    offsetof(struct row, stashed));
	print_gauge(f, "cistern_stash_bytes", "Memory that they take", rows, n, offsetof(struct row, rep.stash_bytes));
	print_gauge(f, "cistern_far_bytes", "Bytes of its memory that are in a store", rows, n, offsetof(struct row, far));
	print_gauge(f, "cistern_guest_engine_bytes", "Memory of the engine for the guest, beside state words and image", rows, n,
		    offsetof(struct row, rep.memory_bytes));
}

/* What is not known is not said. */
static void print_host(FILE *f, const struct cis_engine *e)
{
	const struct cis_host_budget *h = &e->host;
	bool is_set = h->bytes != UINT64_MAX;

	head(f, "cistern_host_budget_bytes", "gauge", "Bytes of memory that all guests may have together");
	if (is_set)
		fprintf(f, "cistern_host_budget_bytes %llu\n", (unsigned long long)h->bytes);
	head(f, "cistern_host_divided_bytes", "gauge", "Bytes that were divided among those guests whose memory can be reclaimed");
	if (is_set)
		fprintf(f, "cistern_host_divided_bytes %llu\n", (unsigned long long)h->divided_bytes);
	head(f, "cistern_host_pressure_ratio", "gauge", "Share of the last ten seconds in which somebody on the host waited for memory");
	if (is_set && h->pressure_fd >= 0)
		fprintf(f, "cistern_host_pressure_ratio %g\n", h->pressure / 1e4);
	head(f, "cistern_idle_guests", "gauge", "Guests that have done nothing for a while, and are held to their least");
	fprintf(f, "cistern_idle_guests %zu\n", cis_host_idle(e));
}

static void print_engine(FILE *f, struct cis_engine *e)
{
	size_t by_state[CIS_GUEST_GONE + 1] = { 0 }, stalled = 0;

	for (size_t i = 0; i < e->nr_guests; i++)
		*(e->guests[i]->stalled ? &stalled : &by_state[e->guests[i]->state]) += 1;
	head(f, "cistern_guests", "gauge", "Guests by state");
	for (int s = CIS_GUEST_EXPECTED; s <= CIS_GUEST_GONE; s++)
		fprintf(f, "cistern_guests{state=\"%s\"} %zu\n", cis_guest_state_name((enum cis_guest_state)s), by_state[s]);
	fprintf(f, "cistern_guests{state=\"stalled\"} %zu\n", stalled);
	head(f, "cistern_engine", "gauge", "Which engine of its keeper serves, from 1");
	fprintf(f, "cistern_engine %llu\n", (unsigned long long)e->generation);
	head(f, "cistern_takeover_seconds", "gauge", "What it took this engine to take over the guests of the one before");
	fprintf(f, "cistern_takeover_seconds %.6f\n", (double)e->takeover_ns / 1e9);
	head(f, "cistern_images", "gauge", "Open images");
	fprintf(f, "cistern_images %zu\n", e->nr_images);
	print_host(f, e);
	head(f, "cistern_awake_seconds_total", "counter", "Time for which CPUs were kept from idling deeply");
	fprintf(f, "cistern_awake_seconds_total %.3f\n", (double)cis_ledger_awake(e) / 1e9);
}

/* What a guest that has gone had is not there any more. */
static void measure(struct row *row, const struct cis_guest *g)
{
	row->budget = UINT64_MAX;
	if (g->state == CIS_GUEST_GONE) {
		row->rep.stash_bytes = 0;
		return;
	}
	row->resident = cis_guest_resident(g);
	row->stashed = cis_guest_stashed(g);
	row->far = cis_guest_far(g);
	row->budget = cis_guest_limit(g);
}

/* Each is of one kind. */
static void by_kind(struct cis_pager_stats *s)
{
	s->evictions -= s->evicted_zero + s->evicted_clean;
}

static size_t collect(struct cis_engine *e, struct row *rows)
{
	size_t n = 1; /* row 0 is the sum */

	rows[0].rep.stats = e->past;
	for (size_t i = 0; i < e->nr_guests; i++) {
		struct cis_guest *g = e->guests[i];

		rows[n].guest = g->id;
		if (!cis_guest_report(g, &rows[n].rep)) { /* one that cannot be served has counted all the same */
			add(&rows[0].rep.stats, &rows[n].rep.stats);
			continue;
		}
		measure(&rows[n], g);
		add(&rows[0].rep.stats, &rows[n].rep.stats);
		rows[0].rep.memory_bytes += rows[n].rep.memory_bytes;
		rows[0].rep.stash_bytes += rows[n].rep.stash_bytes;
		rows[0].resident += rows[n].resident;
		rows[0].stashed += rows[n].stashed;
		rows[0].far += rows[n].far;
		rows[0].budget += rows[n].budget != UINT64_MAX ? rows[n].budget : 0;
		n++;
	}
	for (size_t i = 0; i < n; i++)
		by_kind(&rows[i].rep.stats);
	return n;
}

char *cis_metrics_text(struct cis_engine *e)
{
	struct row *rows = calloc(e->nr_guests + 1, sizeof(*rows));
	char *text = NULL;
	size_t len, n;
	FILE *f = rows ? open_memstream(&text, &len) : NULL;

	if (!f) {
		free(rows);
		return NULL;
	}
	n = collect(e, rows);
	print_engine(f, e);
	print_counters(f, rows, n);
	print_hists(f, rows, n);
	print_gauges(f, rows, n);
	free(rows);
	return fclose(f) ? NULL : text;
}
