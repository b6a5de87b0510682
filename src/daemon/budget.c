#include "daemon/budget.h"

#include <errno.h>
#include <string.h>

#include "store/store.h"

#define PAGE_SHIFT 12u /* of all memory that can be reclaimed */

/* With a store of pages the stash is what waits for it, and what may be asked for again soon. */
#define STASH_BYTES ((uint64_t)128 << 20)

const struct cis_budget cis_budget_none = {
	.max_bytes = UINT64_MAX, .target_bytes = UINT64_MAX, .min_bytes = CIS_BUDGET_LEAST, .stash_bytes = UINT64_MAX, .keep_bytes = UINT64_MAX,
	.codec = CIS_CODEC_LZ4, .prefetch = true, .weight = 100,
};

static const enum cis_codec codecs[] = { CIS_CODEC_RAW, CIS_CODEC_MASK, CIS_CODEC_LZ4, CIS_CODEC_ZSTD };

/* null is no limit, where there may be none. */
static int read_bytes(const json_t *j, const char *key, bool may_be_none, uint64_t least, uint64_t *ret, struct cis_error *err)
{
	const json_t *v = json_object_get(j, key);

	if (!v)
		return 0;
	if (json_is_null(v) && may_be_none) {
		*ret = UINT64_MAX;
		return 0;
	}
	if (!json_is_integer(v))
		return cis_fail(err, EINVAL, "'%s' must be a number of bytes%s", key, may_be_none ? " or null" : "");
	if (json_integer_value(v) < (json_int_t)least)
		return cis_fail(err, EINVAL, "'%s': %lld bytes are less than %s", key, (long long)json_integer_value(v),
				least ? "1 MiB: a single instruction of a guest may need a dozen pages at once" : "none");
	*ret = (uint64_t)json_integer_value(v);
	return 0;
}

/* Return: which of @words it is, @is when it is not there, or -EINVAL. */
static int read_word(const json_t *j, const char *key, const char *const *words, size_t nr, int is, struct cis_error *err)
{
	const json_t *v = json_object_get(j, key);

	if (!v)
		return is;
	for (size_t i = 0; i < nr; i++)
		if (json_is_string(v) && !strcmp(json_string_value(v), words[i]))
			return (int)i;
	return cis_fail(err, EINVAL, "'%s' is none of its words", key);
}

static int read_codec(const json_t *j, enum cis_codec *ret, struct cis_error *err)
{
	const char *names[sizeof(codecs) / sizeof(codecs[0])];
	const size_t nr = sizeof(names) / sizeof(names[0]);
	int i;

	for (size_t k = 0; k < nr; k++)
		names[k] = cis_codec_name(codecs[k]);
	i = read_word(j, "codec", names, nr, (int)nr, err);
	if (i >= 0 && (size_t)i < nr)
		*ret = codecs[i];
	return i < 0 ? i : 0;
}

static int read_pages(const json_t *j, char *ret, struct cis_error *err)
{
	const json_t *v = json_object_get(j, "pages");
	const char *name = json_is_null(v) ? "" : json_string_value(v);

	if (!v)
		return 0;
	if (!name)
		return cis_fail(err, EINVAL, "'pages' must be the name of a store of pages or null");
	if (strlen(name) > CIS_BUDGET_PAGES_MAX)
		return cis_fail(err, EINVAL, "'pages': a name has at most %u characters", CIS_BUDGET_PAGES_MAX);
	if (*name && cis_pages_check(name, err))
		return cis_fail_prefix(err, EINVAL, "'pages'");
	strcpy(ret, cis_pages_is_stash(name) ? "" : name);
	return 0;
}

static int read_bool(const json_t *j, const char *key, bool *ret, struct cis_error *err)
{
	const json_t *v = json_object_get(j, key);

	if (v && !json_is_boolean(v))
		return cis_fail(err, EINVAL, "'%s' must be true or false", key);
	if (v)
		*ret = json_is_true(v);
	return 0;
}

static int read_weight(const json_t *j, unsigned *ret, struct cis_error *err)
{
	const json_t *v = json_object_get(j, "weight");

	if (!v)
		return 0;
	if (!json_is_integer(v) || json_integer_value(v) < 1 || json_integer_value(v) > CIS_WEIGHT_MAX)
		return cis_fail(err, EINVAL, "'weight' must be a number from 1 to %u", CIS_WEIGHT_MAX);
	*ret = (unsigned)json_integer_value(v);
	return 0;
}

static int check(const struct cis_budget *b, struct cis_error *err)
{
	if (b->max_bytes < b->min_bytes)
		return cis_fail(err, EINVAL, "'max_bytes' is %llu, less than 'min_bytes', %llu", (unsigned long long)b->max_bytes,
				(unsigned long long)b->min_bytes);
	if (b->target_bytes < b->min_bytes)
		return cis_fail(err, EINVAL, "'target_bytes' is %llu, less than 'min_bytes', %llu", (unsigned long long)b->target_bytes,
				(unsigned long long)b->min_bytes);
	if (b->target_bytes != UINT64_MAX && b->target_bytes > b->max_bytes)
		return cis_fail(err, EINVAL, "'target_bytes' is %llu, more than 'max_bytes', %llu", (unsigned long long)b->target_bytes,
				(unsigned long long)b->max_bytes);
	return 0;
}

int cis_budget_read(struct cis_budget *b, const json_t *j, struct cis_error *err)
{
	static const char *const ways[] = { "async", "sync" };
	struct cis_budget to = *b;
	int rc = json_is_object(j) ? 0 : cis_fail(err, EINVAL, "must be an object"), way;

	if (rc || (rc = read_bytes(j, "max_bytes", true, CIS_BUDGET_LEAST, &to.max_bytes, err)) ||
	    (rc = read_bytes(j, "target_bytes", true, CIS_BUDGET_LEAST, &to.target_bytes, err)) ||
	    (rc = read_bytes(j, "min_bytes", false, CIS_BUDGET_LEAST, &to.min_bytes, err)) ||
	    (rc = read_bytes(j, "stash_bytes", true, CIS_BUDGET_LEAST, &to.stash_bytes, err)) ||
	    (rc = read_bytes(j, "keep_bytes", true, 0, &to.keep_bytes, err)) || (rc = read_pages(j, to.pages, err)) ||
	    (rc = read_bool(j, "prefetch", &to.prefetch, err)) || (rc = read_codec(j, &to.codec, err)) ||
	    (rc = read_bool(j, "parked", &to.parked, err)) || (rc = read_weight(j, &to.weight, err)))
		return rc;
	way = read_word(j, "reclaim", ways, 2, to.sync, err);
	if (way < 0)
		return way;
	to.sync = way;
	rc = check(&to, err);
	if (!rc)
		*b = to;
	return rc;
}

static json_t *bytes(uint64_t n)
{
	return n == UINT64_MAX ? json_null() : json_integer((json_int_t)n);
}

json_t *cis_budget_json(const struct cis_budget *b)
{
	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:b, s:s, s:s, s:b, s:i}", "max_bytes", bytes(b->max_bytes), "target_bytes",
			 bytes(b->target_bytes), "min_bytes", bytes(b->min_bytes), "stash_bytes", bytes(b->stash_bytes), "keep_bytes",
			 bytes(b->keep_bytes), "pages", *b->pages ? json_string(b->pages) : json_null(), "prefetch", b->prefetch,
			 "codec", cis_codec_name(b->codec), "reclaim", b->sync ? "sync" : "async", "parked", b->parked, "weight",
			 (int)b->weight);
}

uint64_t cis_budget_limit(const struct cis_budget *b)
{
	if (b->parked)
		return b->min_bytes;
	return b->target_bytes < b->max_bytes ? b->target_bytes : b->max_bytes;
}

struct cis_reclaim_opts cis_budget_opts(const struct cis_budget *b)
{
	uint64_t limit = cis_budget_limit(b), stash = *b->pages && b->stash_bytes == UINT64_MAX ? STASH_BYTES : b->stash_bytes;

	return (struct cis_reclaim_opts){ .budget_pages = limit == UINT64_MAX ? UINT64_MAX : limit >> PAGE_SHIFT, .stash_bytes = stash,
					  .keep_bytes = b->keep_bytes == UINT64_MAX ? stash / 2 : b->keep_bytes, .codec = b->codec,
					  .sync = b->sync, .prefetch = b->prefetch && !b->sync };
}
