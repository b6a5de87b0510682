#include "daemon/guest_note.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "daemon/guest_conn.h"

#define VERSION 1

char *cis_guest_note_text(const struct cis_guest *g)
{
	const struct cis_conn *c = g->conn;
	char image_id[2 * CIS_IMAGE_ID_BYTES + 1], ns[2 * sizeof(g->ns) + 1], *text;
	json_t *j;

	cis_hex_print(g->image_id, sizeof(g->image_id), image_id);
	cis_hex_print((const uint8_t *)g->ns, sizeof(g->ns), ns);
	j = json_pack("{s:i, s:s, s:I, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:b, s:b, s:b, s:I, s:I, s:o, s:b, s:s}", "version", VERSION,
		      "id", g->id, "serial", (json_int_t)g->serial, "image", g->image_path, "image_id", image_id,
		      "socket", g->socket, "kind", g->kind, "store", g->store, "state", cis_guest_state_name(g->state), "policy",
		      cis_policy_name(g->policy), "fill", cis_fill_name(g->fill), "record", g->record, "acked", g->acked,
		      "in_place", g->in_place, "stalled", g->stalled, "stream_bytes", c ? (json_int_t)c->taken : (json_int_t)0, "fds",
		      c ? (json_int_t)c->nr_fds : (json_int_t)0, "budget", cis_budget_json(&g->budget), "pinned", g->pinned, "namespace", ns);
	text = j ? json_dumps(j, JSON_COMPACT) : NULL;
	json_decref(j);
	return text;
}

void cis_guest_note_destroy(struct cis_guest_note *note)
{
	if (!note)
		return;
	free(note->image_path);
	free(note->socket);
	free(note->kind);
	free(note->store);
	free(note);
}

static int missing(const char *key, struct cis_error *err)
{
	return cis_fail(err, EBADMSG, "note: '%s' is missing or not what it should be", key);
}

static int get_text(const json_t *j, const char *key, char **ret, struct cis_error *err)
{
	const char *text = json_string_value(json_object_get(j, key));

	if (!text)
		return missing(key, err);
	*ret = strdup(text);
	return *ret ? 0 : cis_fail(err, ENOMEM, "note: out of memory");
}

static int get_word(const json_t *j, const char *key, int (*parse)(const char *), int *ret, struct cis_error *err)
{
	const char *text = json_string_value(json_object_get(j, key));
	int value = text ? parse(text) : -EINVAL;

	if (value < 0)
		return missing(key, err);
	*ret = value;
	return 0;
}

static int get_bool(const json_t *j, const char *key, bool *ret, struct cis_error *err)
{
	const json_t *v = json_object_get(j, key);

	if (!json_is_boolean(v))
		return missing(key, err);
	*ret = json_is_true(v);
	return 0;
}

static int get_number(const json_t *j, const char *key, uint64_t max, uint64_t *ret, struct cis_error *err)
{
	const json_t *v = json_object_get(j, key);

	if (!json_is_integer(v) || json_integer_value(v) < 0 || (uint64_t)json_integer_value(v) > max)
		return missing(key, err);
	*ret = (uint64_t)json_integer_value(v);
	return 0;
}

static int get_id(const json_t *j, struct cis_guest_note *n, struct cis_error *err)
{
	const char *id = json_string_value(json_object_get(j, "id"));

	if (!id || !cis_guest_id_ok(id))
		return missing("id", err);
	strcpy(n->id, id);
	return 0;
}

static int get_image_id(const json_t *j, struct cis_guest_note *n, struct cis_error *err)
{
	const char *text = json_string_value(json_object_get(j, "image_id"));

	if (!text || cis_hex_parse(text, n->image_id, sizeof(n->image_id)))
		return missing("image_id", err);
	return 0;
}

static int get_words(const json_t *j, struct cis_guest_note *n, struct cis_error *err)
{
	int state = 0, policy = 0, fill = 0, rc = get_word(j, "state", cis_guest_state_parse, &state, err);

	if (!rc)
		rc = get_word(j, "policy", cis_policy_parse, &policy, err);
	if (!rc)
		rc = get_word(j, "fill", cis_fill_parse, &fill, err);
	if (rc)
		return rc;
	n->state = (enum cis_guest_state)state;
	n->policy = (enum cis_policy)policy;
	n->fill = (enum cis_fill)fill;
	return 0;
}

static int get_budget(const json_t *j, struct cis_guest_note *n, struct cis_error *err)
{
	const json_t *budget = json_object_get(j, "budget");

	n->budget = cis_budget_none;
	if (json_object_get(j, "pinned") && get_bool(j, "pinned", &n->pinned, err))
		return -EBADMSG;
	return budget && cis_budget_read(&n->budget, budget, err) ? cis_fail_prefix(err, EBADMSG, "note: 'budget'") : 0;
}

static int get_namespace(const json_t *j, struct cis_guest_note *n, struct cis_error *err)
{
	const json_t *v = json_object_get(j, "namespace");
	const char *text = json_string_value(v);

	n->has_ns = v != NULL;
	return v && (!text || cis_hex_parse(text, (uint8_t *)n->ns, sizeof(n->ns))) ? missing("namespace", err) : 0;
}

static int get_all(const json_t *j, struct cis_guest_note *n, struct cis_error *err)
{
	uint64_t version = 0;
	int rc = get_number(j, "version", INT64_MAX, &version, err);

	if (!rc && version != VERSION)
		return cis_fail(err, EPROTONOSUPPORT, "note: version %llu, this engine knows %d", (unsigned long long)version, VERSION);
	if (rc || (rc = get_id(j, n, err)) || (rc = get_image_id(j, n, err)) || (rc = get_words(j, n, err)) ||
	    (rc = get_text(j, "image", &n->image_path, err)) || (rc = get_text(j, "socket", &n->socket, err)) ||
	    (rc = get_text(j, "kind", &n->kind, err)) || (rc = get_text(j, "store", &n->store, err)) ||
	    (rc = get_number(j, "serial", INT64_MAX, &n->serial, err)) ||
	    (rc = get_bool(j, "record", &n->record, err)) || (rc = get_bool(j, "acked", &n->acked, err)) ||
	    (rc = get_bool(j, "in_place", &n->in_place, err)) || (rc = get_bool(j, "stalled", &n->stalled, err)) ||
	    (rc = get_number(j, "stream_bytes", CIS_HANDSHAKE_BYTES_MAX, &n->stream_bytes, err)) || (rc = get_budget(j, n, err)) ||
	    (rc = get_namespace(j, n, err)))
		return rc;
	return get_number(j, "fds", CIS_WIRE_FDS_MAX, &n->nr_fds, err);
}

int cis_guest_note_parse(const void *text, size_t len, struct cis_guest_note **ret, struct cis_error *err)
{
	struct cis_guest_note *n = calloc(1, sizeof(*n));
	json_error_t e;
	json_t *j = n ? json_loadb(text, len, JSON_REJECT_DUPLICATES, &e) : NULL;
	int rc;

	if (!n)
		return cis_fail(err, ENOMEM, "note: out of memory");
	if (json_is_object(j))
		rc = get_all(j, n, err);
	else
		rc = cis_fail(err, !j && json_error_code(&e) == json_error_out_of_memory ? ENOMEM : EBADMSG, "note: %s at byte %d",
			      j ? "not an object" : e.text, j ? 0 : e.position);
	json_decref(j);
	if (rc)
		cis_guest_note_destroy(n);
	else
		*ret = n;
	return rc;
}
