/* The text of layers:  LAYER [ ":" KEY "=" VALUE { "," KEY "=" VALUE } ] { "+" LAYER ... } */
#include "store/layers.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "store/layer.h"

struct spec {
	const struct cis_layer_kind *kind;
	struct cis_layer_opts opts;
};

struct cis_layers {
	atomic_uint refs;
	char *text;
	struct spec spec[CIS_LAYERS_MAX]; /* the outermost first */
	size_t nr;
};

static const struct cis_layer_kind *const kinds[] = { &cis_layer_fault, &cis_layer_delay, &cis_layer_corrupt };

#define WHEN(field) offsetof(struct cis_layer_opts, when.field)

static const struct cis_layer_key when_keys[] = {
	{ "every", CIS_KEY_COUNT, WHEN(every), NULL },	  { "from", CIS_KEY_COUNT, WHEN(from), NULL },
	{ "chance", CIS_KEY_CHANCE, WHEN(chance), NULL }, { "off", CIS_KEY_SIZE, WHEN(off), NULL },
	{ "len", CIS_KEY_SIZE, WHEN(len), NULL },	  { "for", CIS_KEY_TIME, WHEN(for_ns), NULL },
	{ "trigger", CIS_KEY_PATH, WHEN(trigger), NULL }, { "seed", CIS_KEY_SEED, WHEN(seed), NULL },
	{ "op", CIS_KEY_WORD, WHEN(op), "any|get|put|delete" },
	{ 0 },
};

/** struct parser - @at: what is read next; a token is cut out of @text by ending it with a NUL */
struct parser {
	char *text, *at;
	const char *token; /* what a refusal is about */
	struct spec *spec;
	struct cis_error *err;
};

static int __attribute__((format(printf, 2, 3))) refuse(struct parser *p, const char *fmt, ...)
{
	char why[300];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	return cis_fail(p->err, EINVAL, "store layers, character %zu: %s", (size_t)(p->token - p->text) + 1, why);
}

/* The token up to one of @ends, which is put into *ret_end and skipped; 0 at the end of the text. */
static char *cut(struct parser *p, const char *ends, char *ret_end)
{
	char *token = p->at, *end = token + strcspn(token, ends);

	*ret_end = *end;
	p->at = *end ? end + 1 : end;
	*end = 0;
	p->token = token;
	return token;
}

static int parse_count(struct parser *p, const struct cis_layer_key *key, const char *value, uint64_t least, uint64_t *ret)
{
	char *end;

	errno = 0;
	*ret = strtoull(value, &end, 10);
	if (!isdigit((unsigned char)*value) || *end || errno || *ret < least)
		return refuse(p, "%s: '%s' is not a number from %llu on", key->name, value, (unsigned long long)least);
	return 0;
}

static int parse_chance(struct parser *p, const struct cis_layer_key *key, const char *value, double *ret)
{
	char *end;

	*ret = strtod(value, &end);
	if (*end == '%') {
		*ret /= 100;
		end++;
	}
	if (!isdigit((unsigned char)*value) || *end || !(*ret > 0) || *ret > 1)
		return refuse(p, "%s: '%s' is not a probability above 0 and up to 1 or 100%%", key->name, value);
	return 0;
}

static int parse_time(struct parser *p, const struct cis_layer_key *key, const char *value, uint64_t *ret_ns)
{
	static const struct {
		const char *name;
		double ns;
	} units[] = { { "ns", 1 }, { "us", 1e3 }, { "ms", 1e6 }, { "s", 1e9 } };
	char *end;
	double n = strtod(value, &end);

	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
		if (isdigit((unsigned char)*value) && !strcmp(end, units[i].name) && n * units[i].ns <= 86400e9) {
			*ret_ns = (uint64_t)(n * units[i].ns);
			return 0;
		}
	return refuse(p, "%s: '%s' is not a time up to a day, as 20ms or 1.5s", key->name, value);
}

static int parse_size(struct parser *p, const struct cis_layer_key *key, const char *value, uint64_t *ret)
{
	return cis_size_parse(value, ret) ? refuse(p, "%s: '%s' is not a size, as 4096 or 64K", key->name, value) : 0;
}

static int parse_path(struct parser *p, const struct cis_layer_key *key, const char *value, char **ret)
{
	if (*value != '/')
		return refuse(p, "%s: '%s' is not an absolute path", key->name, value);
	free(*ret);
	*ret = strdup(value);
	return *ret ? 0 : cis_fail(p->err, ENOMEM, "store layers: out of memory");
}

static int parse_word(struct parser *p, const struct cis_layer_key *key, const char *value, unsigned *ret)
{
	const char *word = key->words;
	size_t len = strlen(value);

	for (unsigned i = 0; word; i++) {
		if (!strncmp(word, value, len) && (word[len] == '|' || !word[len]) && len) {
			*ret = i;
			return 0;
		}
		word = strchr(word, '|');
		if (word)
			word++;
	}
	return refuse(p, "%s: '%s' is none of %s", key->name, value, key->words);
}

/* ECANCELED is how a request ends that nobody waits for any more, and no store may say it on its own. */
static int parse_errno(struct parser *p, const struct cis_layer_key *key, const char *value, int *ret)
{
	for (int i = 1; i < 256; i++) {
		const char *name = strerrorname_np(i);

		if (name && !strcmp(name, value) && i != ECANCELED) {
			*ret = i;
			return 0;
		}
	}
	return refuse(p, "%s: '%s' is not the name of an error, as EIO", key->name, value);
}

static int parse_value(struct parser *p, const struct cis_layer_key *key, const char *value)
{
	void *at = (char *)&p->spec->opts + key->at;

	switch (key->type) {
	case CIS_KEY_COUNT:
		return parse_count(p, key, value, 1, at);
	case CIS_KEY_SEED:
		return parse_count(p, key, value, 0, at);
	case CIS_KEY_CHANCE:
		return parse_chance(p, key, value, at);
	case CIS_KEY_TIME:
		return parse_time(p, key, value, at);
	case CIS_KEY_SIZE:
		return parse_size(p, key, value, at);
	case CIS_KEY_PATH:
		return parse_path(p, key, value, at);
	case CIS_KEY_WORD:
		return parse_word(p, key, value, at);
	case CIS_KEY_ERRNO:
		return parse_errno(p, key, value, at);
	}
	return -EINVAL;
}

static const struct cis_layer_key *find_key(const struct cis_layer_key *keys, const char *name)
{
	for (; keys->name; keys++)
		if (!strcmp(keys->name, name))
			return keys;
	return NULL;
}

static int parse_key(struct parser *p, char *ret_end)
{
	const struct cis_layer_kind *kind = p->spec->kind;
	char *pair = cut(p, ",+", ret_end), *equals = strchr(pair, '=');
	const struct cis_layer_key *key;

	if (!equals)
		return refuse(p, "'%s' is not KEY=VALUE", pair);
	*equals = 0;
	key = find_key(kind->keys, pair);
	if (!key)
		key = find_key(when_keys, pair);
	if (!key)
		return refuse(p, "%s has no key '%s'", kind->name, pair);
	p->token = equals + 1;
	return parse_value(p, key, equals + 1);
}

static int parse_layer(struct parser *p, char *ret_end)
{
	const char *name = cut(p, ":+", ret_end), *start = p->token;
	struct cis_error why;
	int rc = 0;

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (!strcmp(name, kinds[i]->name))
			p->spec->kind = kinds[i];
	if (!p->spec->kind)
		return refuse(p, "'%s' is none of fault, delay, corrupt", name);
	if (*ret_end == ':')
		do
			rc = parse_key(p, ret_end);
		while (!rc && *ret_end == ',');
	if (rc)
		return rc;
	p->token = start;
	return p->spec->kind->check(&p->spec->opts, &why) ? refuse(p, "%s", why.text) : 0;
}

static int parse(struct cis_layers *l, char *text, struct cis_error *err)
{
	struct parser p = { .text = text, .at = text, .token = text, .err = err };
	char end = *text ? '+' : 0;

	while (end) {
		int rc;

		if (l->nr == CIS_LAYERS_MAX)
			return cis_fail(err, E2BIG, "store layers: more than %d", CIS_LAYERS_MAX);
		p.spec = &l->spec[l->nr++];
		rc = parse_layer(&p, &end);
		if (rc)
			return rc;
	}
	return 0;
}

int cis_layers_parse(const char *text, struct cis_layers **ret, struct cis_error *err)
{
	struct cis_layers *l;
	char *copy;
	int rc;

	if (strlen(text) > CIS_LAYERS_TEXT_MAX)
		return cis_fail(err, E2BIG, "store layers: more than %d characters", CIS_LAYERS_TEXT_MAX);
	l = calloc(1, sizeof(*l));
	copy = strdup(text);
	if (l) {
		atomic_init(&l->refs, 1);
		l->text = strdup(text);
	}
	rc = l && l->text && copy ? parse(l, copy, err) : cis_fail(err, ENOMEM, "store layers: out of memory");
	free(copy);
	if (rc)
		cis_layers_unref(l);
	else
		*ret = l;
	return rc;
}

struct cis_layers *cis_layers_ref(struct cis_layers *layers)
{
	if (layers)
		atomic_fetch_add(&layers->refs, 1);
	return layers;
}

void cis_layers_unref(struct cis_layers *layers)
{
	if (!layers || atomic_fetch_sub(&layers->refs, 1) != 1)
		return;
	for (size_t i = 0; i < layers->nr; i++)
		free(layers->spec[i].opts.when.trigger);
	free(layers->text);
	free(layers);
}

const char *cis_layers_text(const struct cis_layers *layers)
{
	return layers->text;
}

int cis_layers_open(struct cis_layers *layers, struct cis_store *inner, struct cis_store **ret, struct cis_error *err)
{
	int rc = 0;

	for (size_t i = layers ? layers->nr : 0; i-- > 0 && !rc;) {
		struct spec *spec = &layers->spec[i];

		rc = cis_layer_open(&spec->kind->ops, spec->kind->name, &spec->opts, inner, &inner, err);
	}
	if (!rc)
		*ret = inner;
	return rc;
}
