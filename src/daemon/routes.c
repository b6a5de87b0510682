/* What each request does: doc/api.md, one function a line of the table at the end. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "daemon/drain.h"
#include "daemon/handover.h"
#include "daemon/request.h"

/* The body, or NULL after an answer. */
static json_t *body_of(struct cis_request *req)
{
	json_error_t e;
	json_t *body = json_loadb(req->body ? req->body : "", req->body_len, JSON_REJECT_DUPLICATES, &e);

	if (!body)
		cis_request_refuse(req, "bad_request", "body: %s at byte %d", e.text, e.position);
	else if (!json_is_object(body)) {
		cis_request_refuse(req, "bad_request", "body: not a JSON object");
		json_decref(body);
		body = NULL;
	}
	return body;
}

static bool known_keys(struct cis_request *req, json_t *body, const char *const *keys)
{
	const char *key;
	json_t *value;

	json_object_foreach(body, key, value) {
		size_t i = 0;

		while (keys[i] && strcmp(keys[i], key))
			i++;
		if (!keys[i]) {
			cis_request_refuse(req, "bad_request", "key '%s' is not known", key);
			return false;
		}
	}
	return true;
}

/* Each getter leaves *ret alone when the key is not there.  Return: false after an answer. */
static bool get_string(struct cis_request *req, json_t *body, const char *key, const char **ret)
{
	json_t *v = json_object_get(body, key);

	if (v && !json_is_string(v)) {
		cis_request_refuse(req, "bad_request", "key '%s' must be a string", key);
		return false;
	}
	if (v)
		*ret = json_string_value(v);
	return true;
}

static bool get_path(struct cis_request *req, json_t *body, const char *key, const char **ret)
{
	if (!get_string(req, body, key, ret))
		return false;
	if (*ret && **ret != '/') {
		cis_request_refuse(req, "bad_request", "key '%s': '%s' is not an absolute path", key, *ret);
		return false;
	}
	return true;
}

/* A file, or the name of one that is in no folder. */
static bool get_image(struct cis_request *req, json_t *body, const char **ret)
{
	const char *text = json_string_value(json_object_get(body, "image"));
	struct cis_error err;
	uint64_t bytes;

	if (!text || !cis_image_name_is_blank(text))
		return get_path(req, body, "image", ret);
	if (cis_image_blank_bytes(text, &bytes, &err)) {
		cis_request_refuse(req, "bad_request", "key 'image': %s", err.text);
		return false;
	}
	*ret = text;
	return true;
}

static bool get_layers(struct cis_request *req, json_t *body, const char *key, const char **ret)
{
	struct cis_layers *layers = NULL;
	struct cis_error err;

	if (!get_string(req, body, key, ret))
		return false;
	if (*ret && cis_layers_parse(*ret, &layers, &err)) {
		cis_request_refuse(req, "bad_request", "key '%s': %s", key, err.text);
		return false;
	}
	cis_layers_unref(layers);
	return true;
}

static bool get_id(struct cis_request *req, json_t *body, const char *key, uint32_t *ret)
{
	json_t *v = json_object_get(body, key);

	if (v && (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) >= UINT32_MAX)) {
		cis_request_refuse(req, "bad_request", "key '%s' must be an id", key);
		return false;
	}
	if (v)
		*ret = (uint32_t)json_integer_value(v);
	return true;
}

static bool get_bool(struct cis_request *req, json_t *body, const char *key, bool *ret)
{
	json_t *v = json_object_get(body, key);

	if (v && !json_is_boolean(v)) {
		cis_request_refuse(req, "bad_request", "key '%s' must be true or false", key);
		return false;
	}
	if (v)
		*ret = json_is_true(v);
	return true;
}

static bool get_word(struct cis_request *req, json_t *body, const char *key, int (*parse)(const char *), int *ret)
{
	const char *text = NULL;
	int value;

	if (!get_string(req, body, key, &text))
		return false;
	if (!text)
		return true;
	value = parse(text);
	if (value < 0) {
		cis_request_refuse(req, "bad_request", "key '%s': '%s' is none of its words", key, text);
		return false;
	}
	*ret = value;
	return true;
}

/* Changes what the body says. */
static bool get_budget(struct cis_request *req, json_t *body, struct cis_budget *ret)
{
	static const char *const keys[] = { "max_bytes", "target_bytes", "min_bytes", "stash_bytes", "keep_bytes", "pages", "prefetch", "codec",
					    "reclaim", "parked", "weight", NULL };
	json_t *j = json_object_get(body, "budget");
	struct cis_error err;

	if (!j)
		return true;
	if (json_is_object(j) && !known_keys(req, j, keys))
		return false;
	if (cis_budget_read(ret, j, &err)) {
		cis_request_refuse(req, "bad_request", "key 'budget': %s", err.text);
		return false;
	}
	return true;
}

static int kind_parse(const char *text)
{
	return !strcmp(text, "firecracker") || !strcmp(text, "client") ? 0 : -EINVAL;
}

/* PUT /v1/guests/{id} */

static void put_changed(struct cis_guest_watch *watch, struct cis_guest *g)
{
	struct cis_request *req = (struct cis_request *)((char *)watch - offsetof(struct cis_request, watch));
	struct cis_guest *was = req->guest;

	if (g && g->state != CIS_GUEST_GONE) {
		cis_request_answer(req, 201, cis_guest_render(g));
		return;
	}
	if (g) {
		cis_request_refuse(req, "wrong_state", "guest %s was given up%s%s", g->id, *g->error ? ": " : "", g->error);
		return;
	}
	req->guest = NULL;
	if (was->listen_error) {
		struct cis_error err;

		cis_fail(&err, was->listen_error, "%s", was->error);
		cis_request_error(req, -was->listen_error, &err);
	} else {
		cis_request_refuse(req, "wrong_state", "guest %s was deleted", was->id);
	}
}

static bool read_guest(struct cis_request *req, json_t *body, struct cis_guest_opts *opts)
{
	static const char *const keys[] = { "image", "socket", "kind", "policy", "fill", "record", "store", "budget", "pinned", "uid",
					    "gid", NULL };
	int policy = CIS_POLICY_POISON, fill = CIS_FILL_ALL, kind = 0;

	*opts = (struct cis_guest_opts){ .kind = "firecracker", .budget = cis_budget_none, .uid = UINT32_MAX, .gid = UINT32_MAX };
	if (!known_keys(req, body, keys) || !get_image(req, body, &opts->image) ||
	    !get_path(req, body, "socket", &opts->socket) || !get_word(req, body, "kind", kind_parse, &kind) ||
	    !get_string(req, body, "kind", &opts->kind) || !get_word(req, body, "policy", cis_policy_parse, &policy) ||
	    !get_word(req, body, "fill", cis_fill_parse, &fill) || !get_bool(req, body, "record", &opts->record) ||
	    !get_layers(req, body, "store", &opts->store) || !get_budget(req, body, &opts->budget) ||
	    !get_bool(req, body, "pinned", &opts->pinned) ||
	    !get_id(req, body, "uid", &opts->uid) || !get_id(req, body, "gid", &opts->gid))
		return false;
	if (!opts->image) {
		cis_request_refuse(req, "bad_request", "key 'image' is missing");
		return false;
	}
	if (opts->pinned && cis_budget_limit(&opts->budget) != UINT64_MAX) {
		cis_request_refuse(req, "bad_request", "a guest that is pinned cannot have a budget");
		return false;
	}
	opts->policy = (enum cis_policy)policy;
	opts->fill = (enum cis_fill)fill;
	return true;
}

static void put_guest(struct cis_request *req, const char *id)
{
	struct cis_guest_opts opts;
	struct cis_guest *g;
	struct cis_error err;
	json_t *body = body_of(req);
	int rc;

	if (!body)
		return;
	if (read_guest(req, body, &opts)) {
		rc = cis_guest_put(req->engine, id, &opts, &g, &err);
		if (rc) {
			cis_request_error(req, rc, &err);
		} else {
			req->guest = g;
			req->watch.changed = put_changed;
			cis_guest_watch(g, &req->watch);
			cis_request_wait(req, 0); /* until the keeper listens */
		}
	}
	json_decref(body);
}

/* Others of guests. */

static struct cis_guest *guest_of(struct cis_request *req, const char *id)
{
	struct cis_guest *g = cis_guest_find(req->engine, id);

	if (!g)
		cis_request_refuse(req, "not_found", "there is no guest %s", id);
	return g;
}

static void get_guest(struct cis_request *req, const char *id)
{
	struct cis_guest *g = guest_of(req, id);

	if (g)
		cis_request_answer(req, 200, cis_guest_render(g));
}

static void patch_guest(struct cis_request *req, const char *id)
{
	static const char *const keys[] = { "budget", "pinned", NULL };
	struct cis_guest *g = guest_of(req, id);
	json_t *body = g ? body_of(req) : NULL;
	struct cis_budget budget;
	struct cis_error err;
	bool pinned;
	int rc;

	if (!body)
		return;
	budget = g->budget;
	pinned = g->pinned;
	if (known_keys(req, body, keys) && get_budget(req, body, &budget) && get_bool(req, body, "pinned", &pinned)) {
		rc = cis_guest_change_budget(g, &budget, pinned, &err);
		if (rc)
			cis_request_error(req, rc, &err);
		else
			cis_request_answer(req, 200, cis_guest_render(g));
	}
	json_decref(body);
}

static void list_guests(struct cis_request *req, const char *id)
{
	struct cis_engine *e = req->engine;
	json_t *list = json_array();

	(void)id;
	for (size_t i = 0; i < e->nr_guests; i++)
		json_array_append_new(list, cis_guest_render(e->guests[i]));
	cis_request_answer(req, 200, json_pack("{s:o}", "guests", list));
}

static const char *query(struct cis_request *req, const char *key)
{
	return MHD_lookup_connection_value(req->conn, MHD_GET_ARGUMENT_KIND, key);
}

#define DELETE_NS 30000000000u /* a read from a disk that does not answer can take long */

/* Until it is forgotten, so that its id and its socket are free when the client hears of it. */
static void delete_changed(struct cis_guest_watch *watch, struct cis_guest *g)
{
	struct cis_request *req = (struct cis_request *)((char *)watch - offsetof(struct cis_request, watch));

	if (g)
		return;
	req->guest = NULL;
	cis_request_answer(req, 204, NULL);
}

static void delete_guest(struct cis_request *req, const char *id)
{
	struct cis_guest *g = guest_of(req, id);
	const char *force = query(req, "force");
	struct cis_error err;
	int rc;

	if (!g)
		return;
	req->guest = g;
	req->watch.changed = delete_changed;
	cis_guest_watch(g, &req->watch);
	cis_request_wait(req, cis_now_ns(NULL) + DELETE_NS);
	rc = cis_guest_delete(g, force && !strcmp(force, "true"), &err);
	if (rc == -EBUSY)
		cis_request_refuse(req, "wrong_state", "%s", err.text);
	else if (rc)
		cis_request_error(req, rc, &err);
}

/* GET /v1/guests/{id}/wait */

#define WAIT_MAX_MS (7ul * 24 * 3600 * 1000) /* a time-out is an int of milliseconds in the end */

static void wait_check(struct cis_request *req, struct cis_guest *g)
{
	bool private = g->regions && g->memory.kind == CIS_KIND_PRIVATE;
	bool limited = cis_guest_is_limited(g);
	bool never = req->want == CIS_GUEST_INDEPENDENT && (g->fill != CIS_FILL_ALL || private || limited);

	if (g->state == CIS_GUEST_GONE && req->want != CIS_GUEST_GONE)
		cis_request_refuse(req, "wrong_state", "guest %s is gone%s%s", g->id, *g->error ? ": " : "", g->error);
	else if (g->state >= req->want)
		cis_request_answer(req, 200, cis_guest_render(g));
	else if (never && limited)
		cis_request_refuse(req, "wrong_state", "guest %s does not get independent: it has a budget", g->id);
	else if (never)
		cis_request_refuse(req, "wrong_state", "guest %s never gets independent: its %s is %s", g->id,
				   private ? "memory" : "fill", private ? "private" : cis_fill_name(g->fill));
}

static void wait_changed(struct cis_guest_watch *watch, struct cis_guest *g)
{
	struct cis_request *req = (struct cis_request *)((char *)watch - offsetof(struct cis_request, watch));
	struct cis_guest *was = req->guest;

	if (g) {
		if (!g->deleted)
			wait_check(req, g);
		return;
	}
	req->guest = NULL;
	if (req->want == CIS_GUEST_GONE)
		cis_request_answer(req, 200, cis_guest_render(was));
	else
		cis_request_refuse(req, "not_found", "guest %s was deleted", was->id);
}

static void wait_guest(struct cis_request *req, const char *id)
{
	struct cis_guest *g = guest_of(req, id);
	const char *state = query(req, "state"), *timeout = query(req, "timeout_ms");
	int want = state ? cis_guest_state_parse(state) : -EINVAL;
	char *end = NULL;
	unsigned long ms = timeout ? strtoul(timeout, &end, 10) : 0;

	if (ms > WAIT_MAX_MS)
		ms = WAIT_MAX_MS;

	if (!g)
		return;
	if (want < CIS_GUEST_FILLED || (timeout && (*end || end == timeout))) {
		cis_request_refuse(req, "bad_request", "wait wants state=filled|independent|gone and a number as timeout_ms");
		return;
	}
	req->want = (enum cis_guest_state)want;
	wait_check(req, g);
	if (req->answered)
		return;
	req->guest = g;
	req->watch.changed = wait_changed;
	cis_guest_watch(g, &req->watch);
	cis_request_wait(req, timeout ? cis_now_ns(NULL) + ms * 1000000ull : 0);
}

/* PUT /v1/guests/{id}/record */

static void stop_record(struct cis_request *req, struct cis_guest *g, const char *path)
{
	_cleanup_free_ char *own = NULL;
	struct cis_error err;
	uint64_t pages;
	int rc;

	if (!path) {
		mkdir(req->engine->config->traces, 0755);
		if (asprintf(&own, "%s/%s.trace", req->engine->config->traces, g->id) < 0) {
			own = NULL;
			cis_request_refuse(req, "no_room", "out of memory");
			return;
		}
		path = own;
	}
	rc = cis_guest_record_stop(g, path, &pages, &err);
	if (rc)
		cis_request_error(req, rc, &err);
	else
		cis_request_answer(req, 200, json_pack("{s:s, s:I}", "trace", path, "pages", (json_int_t)pages));
}

static void record(struct cis_request *req, const char *id)
{
	static const char *const keys[] = { "state", "path", NULL };
	struct cis_guest *g = guest_of(req, id);
	const char *state = NULL, *path = NULL;
	struct cis_error err;
	json_t *body = g ? body_of(req) : NULL;
	int rc;

	if (!body)
		return;
	if (!known_keys(req, body, keys) || !get_string(req, body, "state", &state) || !get_path(req, body, "path", &path)) {
		/* answered */
	} else if (state && !strcmp(state, "start")) {
		rc = cis_guest_record_start(g, &err);
		if (rc)
			cis_request_error(req, rc, &err);
		else
			cis_request_answer(req, 200, cis_guest_render(g));
	} else if (state && !strcmp(state, "stop")) {
		stop_record(req, g, path);
	} else {
		cis_request_refuse(req, "bad_request", "key 'state' must be \"start\" or \"stop\"");
	}
	json_decref(body);
}

/* The daemon. */

static void health(struct cis_request *req, const char *id)
{
	struct cis_engine *e = req->engine;
	json_int_t uptime = (json_int_t)((cis_now_ns(NULL) - e->started_ns) / 1000000000u);
	json_t *j = json_pack("{s:s, s:s, s:I, s:I, s:i, s:I}", "status", "ok", "version", CISTERN_VERSION, "uptime_s", uptime,
			      "guests", (json_int_t)e->nr_guests, "engine_pid", (int)getpid(), "engine", (json_int_t)e->generation);

	(void)id;
	if (e->has_keeper)
		json_object_set_new(j, "keeper_pid", json_integer(e->keeper_pid));
	cis_request_answer(req, 200, j);
}

static void metrics(struct cis_request *req, const char *id)
{
	(void)id;
	req->text = cis_metrics_text(req->engine);
	if (req->text)
		cis_request_answer(req, 200, NULL);
	else
		cis_request_refuse(req, "no_room", "out of memory");
}

static void events(struct cis_request *req, const char *id)
{
	(void)id;
	cis_request_stream(req, query(req, "guest"));
}

/* null is no limit. */
static bool get_host_budget(struct cis_request *req, json_t *body, uint64_t *ret)
{
	json_t *v = json_object_get(body, "host_budget_bytes");

	if (v && !json_is_null(v) && (!json_is_integer(v) || json_integer_value(v) < (json_int_t)CIS_BUDGET_LEAST)) {
		cis_request_refuse(req, "bad_request", "key 'host_budget_bytes' must be a number of bytes from 1 MiB on, or null");
		return false;
	}
	if (v)
		*ret = json_is_null(v) ? UINT64_MAX : (uint64_t)json_integer_value(v);
	return true;
}

static json_t *render_config(const struct cis_engine *e)
{
	json_t *budget = e->host.bytes == UINT64_MAX ? json_null() : json_integer((json_int_t)e->host.bytes);

	return json_pack("{s:s, s:o}", "log_level", cis_log_level_name(cis_log_level()), "host_budget_bytes", budget);
}

static void patch_config(struct cis_request *req, const char *id)
{
	static const char *const keys[] = { "log_level", "host_budget_bytes", NULL };
	json_t *body = body_of(req);
	uint64_t budget = req->engine->host.bytes;
	int level = -1;

	(void)id;
	if (!body)
		return;
	if (known_keys(req, body, keys) && get_word(req, body, "log_level", cis_log_level_parse, &level) &&
	    get_host_budget(req, body, &budget)) {
		if (!json_object_size(body)) {
			cis_request_refuse(req, "bad_request", "nothing to change");
		} else {
			if (level >= 0)
				cis_log_set_level((enum cis_log_level)level);
			if (budget != req->engine->host.bytes)
				cis_host_budget_set(req->engine, budget);
			cis_request_answer(req, 200, render_config(req->engine));
		}
	}
	json_decref(body);
}

static void upgrade(struct cis_request *req, const char *id)
{
	static const char *const keys[] = { "exec", "keeper", NULL };
	json_t *body = req->body_len ? body_of(req) : json_object();
	const char *exec = NULL;
	bool keeper = false;

	(void)id;
	if (!body)
		return;
	if (known_keys(req, body, keys) && get_path(req, body, "exec", &exec) && get_bool(req, body, "keeper", &keeper))
		cis_handover_ask(req->engine, req, exec, keeper);
	json_decref(body);
}

static void drain(struct cis_request *req, const char *id)
{
	const char *timeout = query(req, "timeout_ms");
	char *end = NULL;
	unsigned long ms = timeout ? strtoul(timeout, &end, 10) : 0;

	(void)id;
	if (timeout && (*end || end == timeout))
		cis_request_refuse(req, "bad_request", "drain wants a number as timeout_ms");
	else
		cis_drain_ask(req->engine, req, ms < WAIT_MAX_MS ? ms : WAIT_MAX_MS);
}

static const struct route {
	const char *method, *path; /* {id} stands for one part */
	void (*fn)(struct cis_request *req, const char *id);
} routes[] = {
	{ "GET", "/v1/guests", list_guests },
	{ "PUT", "/v1/guests/{id}", put_guest },
	{ "GET", "/v1/guests/{id}", get_guest },
	{ "PATCH", "/v1/guests/{id}", patch_guest },
	{ "DELETE", "/v1/guests/{id}", delete_guest },
	{ "GET", "/v1/guests/{id}/wait", wait_guest },
	{ "PUT", "/v1/guests/{id}/record", record },
	{ "GET", "/v1/events", events },
	{ "GET", "/v1/health", health },
	{ "GET", "/v1/metrics", metrics },
	{ "PATCH", "/v1/config", patch_config },
	{ "POST", "/v1/upgrade", upgrade },
	{ "POST", "/v1/drain", drain },
};

/* Does @path fit @pattern?  The part that stands for {id} goes to @id. */
static bool fits(const char *pattern, const char *path, char *id, size_t room)
{
	const char *hole = strstr(pattern, "{id}");
	size_t head = hole ? (size_t)(hole - pattern) : strlen(pattern), len;

	if (strncmp(pattern, path, head))
		return false;
	if (!hole)
		return !path[head];
	len = strcspn(path + head, "/");
	if (!len || len >= room || strcmp(path + head + len, hole + 4))
		return false;
	memcpy(id, path + head, len);
	id[len] = 0;
	return true;
}

void cis_route(struct cis_request *req)
{
	char id[CIS_GUEST_ID_MAX + 16];
	bool there = false;

	for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
		if (!fits(routes[i].path, req->path, id, sizeof(id)))
			continue;
		there = true;
		if (strcmp(routes[i].method, req->method))
			continue;
		if (strstr(routes[i].path, "{id}") && !cis_guest_id_ok(id)) {
			cis_request_refuse(req, "bad_request",
					   "a guest's id is 1 to %d of A-Z a-z 0-9 _ . -, the first a letter or digit",
					   CIS_GUEST_ID_MAX);
			return;
		}
		if (req->engine->mode != CIS_ENGINE_SERVES && strcmp(req->method, "GET")) {
			cis_request_refuse(req, "busy", "another engine is about to follow this one: ask again");
			return;
		}
		routes[i].fn(req, id);
		return;
	}
	if (there)
		cis_request_refuse(req, "bad_method", "%s is not a method of %s", req->method, req->path);
	else
		cis_request_refuse(req, "not_found", "there is no %s", req->path);
}
