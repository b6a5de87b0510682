#include "daemon/config.h"

#include <ctype.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/size.h"
#include "image/meta.h"
#include "pager/state.h"
#include "store/layers.h"

#define SIZE_LEAST ((uint64_t)1 << 20)

enum type { PATH, WHERE, WORD, LAYERS, NUMBER, SIZE, YES_NO, DRAIN_WAIT, LEVEL };

static const struct key {
	const char *name;
	enum type type;
	size_t at;
	unsigned max; /* of a number */
} keys[] = {
	{ "control", PATH, offsetof(struct cis_config, control), 0 },
	{ "keep", WHERE, offsetof(struct cis_config, keep), 0 },
	{ "traces", PATH, offsetof(struct cis_config, traces), 0 },
	{ "images", PATH, offsetof(struct cis_config, images), 0 },
	{ "store_layers", LAYERS, offsetof(struct cis_config, store_layers), 0 },
	{ "shards", NUMBER, offsetof(struct cis_config, shards), 256 },
	{ "workers", NUMBER, offsetof(struct cis_config, workers), 256 },
	{ "guests", NUMBER, offsetof(struct cis_config, guests), 1000000 },
	{ "tries", NUMBER, offsetof(struct cis_config, tries), 20 },
	{ "store_deadline_ms", NUMBER, offsetof(struct cis_config, store_deadline_ms), 3600000 },
	{ "fault_rate", NUMBER, offsetof(struct cis_config, fault_rate), 10000000 },
	{ "fault_burst", NUMBER, offsetof(struct cis_config, fault_burst), 10000000 },
	{ "handshake_ms", NUMBER, offsetof(struct cis_config, handshake_ms), 3600000 },
	{ "upgrade_ms", NUMBER, offsetof(struct cis_config, upgrade_ms), 3600000 },
	{ "stop", DRAIN_WAIT, offsetof(struct cis_config, stop_drains), 0 },
	{ "state_layout", NUMBER, offsetof(struct cis_config, state_layout), CIS_STATE_LAYOUT_MAX },
	{ "host_budget", SIZE, offsetof(struct cis_config, host_budget), 0 },
	{ "idle_s", NUMBER, offsetof(struct cis_config, idle_s), 1000000 },
	{ "awake_ms", NUMBER, offsetof(struct cis_config, awake_ms), 3600000 },
	{ "user", WORD, offsetof(struct cis_config, user), 0 },
	{ "harden", YES_NO, offsetof(struct cis_config, harden), 0 },
	{ "neighbours", YES_NO, offsetof(struct cis_config, neighbours), 0 },
	{ "detach", YES_NO, offsetof(struct cis_config, detach), 0 },
	{ "log_level", LEVEL, offsetof(struct cis_config, log_level), 0 },
};

const char *cis_config_key(size_t i)
{
	return i < sizeof(keys) / sizeof(keys[0]) ? keys[i].name : NULL;
}

int cis_config_init(struct cis_config *c)
{
	*c = (struct cis_config){
		.control = strdup("/run/cistern/control.sock"), .keep = strdup("auto"), .traces = strdup("/var/lib/cistern/traces"),
		.images = strdup("/var/lib/cistern/images"), .store_layers = strdup(""), .user = strdup(""), .guests = 4096,
		.tries = 4, .store_deadline_ms = 10000, .fault_burst = 1000, .handshake_ms = 10000, .upgrade_ms = 10000,
		.idle_s = 60, .awake_ms = 100, .harden = true, .stop_drains = true, .neighbours = true, .detach = true, .log_level = CIS_LOG_INFO,
	};
	if (c->control && c->keep && c->traces && c->images && c->store_layers && c->user)
		return 0;
	cis_config_fini(c);
	return -ENOMEM;
}

void cis_config_fini(struct cis_config *c)
{
	free(c->control);
	free(c->keep);
	free(c->traces);
	free(c->images);
	free(c->store_layers);
	free(c->user);
}

static int set_text(char **at, const char *key, const char *value, struct cis_error *err)
{
	char *copy;

	if (!cis_text_ok(value, strlen(value), "")) /* they are said in answers and notes, which are JSON */
		return cis_fail(err, EINVAL, "%s: not clean UTF-8", key);
	copy = strdup(value);
	if (!copy)
		return cis_fail(err, ENOMEM, "%s: out of memory", key);
	free(*at);
	*at = copy;
	return 0;
}

static int set_path(char **at, const char *key, const char *value, struct cis_error *err)
{
	if (*value != '/')
		return cis_fail(err, EINVAL, "%s: '%s' is not an absolute path", key, value);
	return set_text(at, key, value, err);
}

static int set_layers(char **at, const char *key, const char *value, struct cis_error *err)
{
	struct cis_layers *layers;
	int rc = cis_layers_parse(value, &layers, err);

	if (rc)
		return cis_fail_prefix(err, -rc, "%s", key);
	cis_layers_unref(layers);
	return set_text(at, key, value, err);
}

static int set_number(unsigned *at, const struct key *key, const char *value, struct cis_error *err)
{
	char *end;
	unsigned long n = strtoul(value, &end, 10);

	if (!isdigit((unsigned char)*value) || *end || n > key->max)
		return cis_fail(err, EINVAL, "%s: '%s' is not a number from 0 to %u", key->name, value, key->max);
	*at = (unsigned)n;
	return 0;
}

static int set_size(uint64_t *at, const char *key, const char *value, struct cis_error *err)
{
	uint64_t bytes = 0;

	if (strcmp(value, "none") && (cis_size_parse(value, &bytes) || bytes < SIZE_LEAST || bytes > INT64_MAX))
		return cis_fail(err, EINVAL, "%s: '%s' is not a size from 1M on, like 12G, nor none", key, value);
	*at = bytes;
	return 0;
}

static int set(struct cis_config *c, const struct key *key, const char *value, struct cis_error *err)
{
	void *at = (char *)c + key->at;
	int level;

	switch (key->type) {
	case PATH:
		return set_path(at, key->name, value, err);
	case WHERE:
		if (*value != '/' && strcmp(value, "auto") && strcmp(value, "off"))
			return cis_fail(err, EINVAL, "%s: '%s' is none of auto, off, an absolute path", key->name, value);
		return set_text(at, key->name, value, err);
	case WORD:
		return set_text(at, key->name, value, err);
	case LAYERS:
		return set_layers(at, key->name, value, err);
	case NUMBER:
		return set_number(at, key, value, err);
	case SIZE:
		return set_size(at, key->name, value, err);
	case DRAIN_WAIT:
		if (strcmp(value, "drain") && strcmp(value, "wait"))
			return cis_fail(err, EINVAL, "%s: '%s' is neither drain nor wait", key->name, value);
		*(bool *)at = !strcmp(value, "drain");
		return 0;
	case YES_NO:
		if (strcmp(value, "yes") && strcmp(value, "no"))
			return cis_fail(err, EINVAL, "%s: '%s' is neither yes nor no", key->name, value);
		*(bool *)at = !strcmp(value, "yes");
		return 0;
	case LEVEL:
		level = cis_log_level_parse(value);
		if (level < 0)
			return cis_fail(err, EINVAL, "%s: '%s' is none of error, warn, info, debug", key->name, value);
		*(int *)at = level;
	}
	return 0;
}

int cis_config_set(struct cis_config *c, const char *key, const char *value, struct cis_error *err)
{
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		if (!strcmp(key, keys[i].name))
			return set(c, &keys[i], value, err);
	return cis_fail(err, EINVAL, "no such key: '%s'", key);
}

static char *trim(char *s)
{
	char *end;

	while (isspace((unsigned char)*s))
		s++;
	end = s + strlen(s);
	while (end > s && isspace((unsigned char)end[-1]))
		*--end = 0;
	return s;
}

static int parse_line(struct cis_config *c, char *line, struct cis_error *err)
{
	char *hash = strchr(line, '#'), *equals;

	if (hash)
		*hash = 0;
	line = trim(line);
	if (!*line)
		return 0;
	equals = strchr(line, '=');
	if (!equals)
		return cis_fail(err, EINVAL, "'%s' is not 'key = value'", line);
	*equals = 0;
	return cis_config_set(c, trim(line), trim(equals + 1), err);
}

int cis_config_load(struct cis_config *c, const char *path, struct cis_error *err)
{
	FILE *f = fopen(path, "re");
	_cleanup_free_ char *line = NULL;
	size_t room = 0;
	int rc = 0;

	if (!f)
		return cis_fail(err, errno, "%s: %s", path, strerror(errno));
	for (unsigned nr = 1; !rc && getline(&line, &room, f) >= 0; nr++) {
		rc = parse_line(c, line, err);
		if (rc)
			cis_fail_prefix(err, -rc, "%s:%u", path, nr);
	}
	if (!rc && ferror(f)) /* a folder, or half a file */
		rc = cis_fail(err, errno, "%s: %s", path, strerror(errno));
	fclose(f);
	return rc;
}
