#include "cli/guests.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/size.h"
#include "cli/output.h"
#include "client/api.h"

#define GET_TRIES 100u /* an engine that dies of the request itself is not asked for ever */

static char *fill_path(const char *path, const char *id)
{
	const char *star = id ? strchr(path, '*') : NULL;
	_cleanup_free_ char *part = NULL;
	char *full;

	if (!star)
		return strdup(path);
	part = cis_api_escape(id);
	if (!part || asprintf(&full, "%.*s%s%s", (int)(star - path), path, part, star + 1) < 0)
		return NULL;
	return full;
}

int cli_call_once(const char *method, const char *path, const char *id, const json_t *body, json_t **ret,
		  struct cis_error *err)
{
	_cleanup_free_ char *full = fill_path(path, id);
	struct cis_api *api;
	int r;

	if (!full)
		return cis_fail(err, ENOMEM, "%s: no memory", path);
	r = cis_api_open(cli_control, &api, err);
	if (r)
		return r;
	r = cis_api_call(api, method, full, body, ret, err);
	snprintf(cli_error_code, sizeof(cli_error_code), "%s", cis_api_code(api));
	cis_api_close(api);
	if (!r && ret && !*ret)
		return cis_fail(err, EPROTO, "%s: empty answer", cli_control);
	return r;
}

/* Whoever only asks may ask again: the engine that was asked has been replaced, and the keeper holds the socket. */
int cli_call(const char *method, const char *path, const char *id, const json_t *body, json_t **ret,
	     struct cis_error *err)
{
	unsigned tries = strcmp(method, "GET") ? 1 : GET_TRIES;
	int r;

	do
		r = cli_call_once(method, path, id, body, ret, err);
	while (r == -ECONNRESET && --tries);
	return r;
}

int cli_guest_list(json_t **ret, struct cis_error *err)
{
	json_t *obj, *guests;
	int r = cli_call("GET", "/v1/guests", NULL, NULL, &obj, err);

	if (r)
		return r;
	guests = json_incref(json_object_get(obj, "guests"));
	json_decref(obj);
	if (!json_is_array(guests)) {
		json_decref(guests);
		return cis_fail(err, EPROTO, "%s: the answer has no guests", cli_control);
	}
	*ret = guests;
	return 0;
}

const char *cli_text(const json_t *obj, const char *key)
{
	const char *text = json_string_value(json_object_get(obj, key));

	for (const char *p = text; p && *p; p++)
		if ((unsigned char)*p < ' ' || *p == 127)
			return "?";
	return text ? text : "";
}

long long cli_number(const json_t *obj, const char *key)
{
	const char *dot = strchr(key, '.');
	char first[32];
	json_t *n;

	if (dot) {
		snprintf(first, sizeof(first), "%.*s", (int)(dot - key), key);
		obj = json_object_get(obj, first);
		key = dot + 1;
	}
	n = json_object_get(obj, key);
	return json_is_integer(n) ? json_integer_value(n) : -1;
}

void cli_figure(const json_t *obj, const char *key, char *buf, size_t len)
{
	long long n = cli_number(obj, key);

	if (n < 0)
		snprintf(buf, len, "-");
	else
		snprintf(buf, len, "%lld", n);
}

void cli_bytes(const json_t *obj, const char *key, char *buf, size_t len)
{
	long long n = cli_number(obj, key);

	if (n < 0)
		snprintf(buf, len, "-");
	else
		cis_size_print((uint64_t)n, buf, len);
}

void cli_remote(const json_t *guest, char *buf, size_t len)
{
	long long stashed = cli_number(guest, "memory.stashed_bytes"), far = cli_number(guest, "memory.far_bytes");

	if (stashed < 0)
		snprintf(buf, len, "-");
	else
		cis_size_print((uint64_t)(stashed + (far > 0 ? far : 0)), buf, len);
}

/** struct memory - what "memory" of a guest says, as text; "-" where it says nothing */
struct memory {
	char budget[24], resident[24], remote[24], stash[24];
	const char *parked;
};

static void read_memory(const json_t *guest, struct memory *m)
{
	cli_bytes(guest, "memory.budget_bytes", m->budget, sizeof(m->budget));
	cli_bytes(guest, "memory.resident_bytes", m->resident, sizeof(m->resident));
	cli_remote(guest, m->remote, sizeof(m->remote));
	cli_bytes(guest, "memory.stash_bytes", m->stash, sizeof(m->stash));
	m->parked = json_is_true(json_object_get(json_object_get(guest, "budget"), "parked")) ? ", parked" : "";
}

/* Of a guest of which nothing was brought back ahead there is nothing to say. */
static void print_prefetch(const json_t *guest)
{
	long long probes = cli_number(guest, "prefetch.probes");

	if (probes > 0)
		printf("  %-14s %lld pages, %lld %% of %lld probes hit\n", "prefetch", cli_number(guest, "prefetch.pages"),
		       cli_number(guest, "prefetch.hits") * 100 / probes, probes);
}

static void print_store(const json_t *guest)
{
	const char *name = json_string_value(json_object_get(json_object_get(guest, "budget"), "pages"));
	char far[24];

	cli_bytes(guest, "memory.far_bytes", far, sizeof(far));
	if (name)
		printf("  %-14s %s, in %s\n", "far", far, name);
}

static void print_memory(const json_t *guest)
{
	struct memory m;

	if (cli_number(guest, "memory.resident_bytes") < 0)
		return;
	read_memory(guest, &m);
	printf("  %-14s %s%s\n  %-14s %s\n  %-14s %s, in %s\n", "budget", strcmp(m.budget, "-") ? m.budget : "none", m.parked,
	       "memory", m.resident, "remote", m.remote, m.stash);
	print_store(guest);
}

/* Takes the reference of one that is none. */
static bool is_guest(json_t *guest, struct cis_error *err)
{
	if (*cli_text(guest, "id"))
		return true;
	json_decref(guest);
	cis_fail(err, EPROTO, "%s: the answer has no guest", cli_control);
	return false;
}

int cli_guest_print_memory(json_t *guest)
{
	struct cis_error err;
	struct memory m;

	if (!is_guest(guest, &err))
		return cli_fail(&err);
	if (cli_json)
		return cli_print_json(guest);
	read_memory(guest, &m);
	printf("%s: budget %s%s, resident %s, remote %s in %s\n", cli_text(guest, "id"), strcmp(m.budget, "-") ? m.budget : "none",
	       m.parked, m.resident, m.remote, m.stash);
	json_decref(guest);
	return CLI_OK;
}

static void print_pages(const json_t *guest)
{
	static const char *const rows[][2] = {
		{ "pages", "pages.total" },	      { "resident", "pages.resident" },
		{ "absent", "pages.absent" },	      { "removed", "pages.removed" },
		{ "poisoned", "pages.poisoned" },     { "faults", "faults.count" },
		{ "zero faults", "faults.zero" },     { "demand faults", "faults.demand" },
		{ "neighbours", "faults.neighbour" }, { "removed faults", "faults.removed" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (cli_number(guest, rows[i][1]) >= 0)
			printf("  %-14s %lld\n", rows[i][0], cli_number(guest, rows[i][1]));
}

int cli_guest_print(json_t *guest)
{
	struct cis_error err;
	char size[32];

	if (!is_guest(guest, &err))
		return cli_fail(&err);
	if (cli_json)
		return cli_print_json(guest);
	printf("%s: %s\n", cli_text(guest, "id"), cli_text(guest, "state"));
	printf("  %-14s %s\n  %-14s %s\n", "image", cli_text(guest, "image"), "socket",
	       cli_text(guest, "socket"));
	printf("  %-14s %s, policy %s, fill %s\n", "kind", cli_text(guest, "kind"), cli_text(guest, "policy"),
	       cli_text(guest, "fill"));
	if (*cli_text(guest, "error"))
		printf("  %-14s %s\n", "error", cli_text(guest, "error"));
	if (cli_number(guest, "pid") >= 0)
		printf("  %-14s %lld\n", "pid", cli_number(guest, "pid"));
	print_memory(guest);
	print_pages(guest);
	print_prefetch(guest);
	if (cli_number(guest, "bytes.read") >= 0)
		printf("  %-14s %s\n", "read",
		       cis_size_print((uint64_t)cli_number(guest, "bytes.read"), size, sizeof(size)));
	if (cli_number(guest, "bytes.installed") >= 0)
		printf("  %-14s %s\n", "installed",
		       cis_size_print((uint64_t)cli_number(guest, "bytes.installed"), size, sizeof(size)));
	printf("  %-14s %s, %lld pages\n", "record", cli_text(json_object_get(guest, "record"), "state"),
	       cli_number(guest, "record.pages"));
	json_decref(guest);
	return CLI_OK;
}
