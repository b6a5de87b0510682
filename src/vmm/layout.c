/* The JSON of a handshake, and what its numbers must be. */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/handshake.h"

#define PAGE_4K     4096u
#define PAGE_2M     (2u << 20)
#define ADDRESS_MAX (1ull << 56) /* what user space has with five levels of page tables */

/*
 * @name of @object as a number.  Absent: *ret is left and false given by @ret_there; if that is NULL, it must
 * be there.
 */
static int number(const json_t *object, const char *name, bool *ret_there, uint64_t *ret,
		  struct cis_error *err)
{
	const json_t *v = json_object_get(object, name);

	if (ret_there)
		*ret_there = v;
	if (!v)
		return ret_there ? 0 : cis_fail(err, EPROTO, "\"%s\" is missing", name);
	if (!json_is_integer(v))
		return cis_fail(err, EPROTO, "\"%s\" is not an integer", name);
	if (json_integer_value(v) < 0)
		return cis_fail(err, EPROTO, "\"%s\" is %lld: out of range", name,
				(long long)json_integer_value(v));
	*ret = (uint64_t)json_integer_value(v);
	return 0;
}

static int page_size(const json_t *object, uint32_t *ret, struct cis_error *err)
{
	bool has_new, has_old;
	uint64_t bytes = PAGE_4K, old = PAGE_4K;
	int r = number(object, "page_size", &has_new, &bytes, err);

	if (!r)
		r = number(object, "page_size_kib", &has_old, &old, err);
	if (r)
		return r;
	if (has_new && has_old && bytes != old)
		return cis_fail(err, EPROTO,
				"\"page_size\" is %llu and \"page_size_kib\" is %llu: both are bytes and "
				"must be equal",
				(unsigned long long)bytes, (unsigned long long)old);
	if (!has_new)
		bytes = old;
	if (!bytes || bytes & (bytes - 1))
		return cis_fail(err, EPROTO, "page size %llu is not a power of two",
				(unsigned long long)bytes);
	if (bytes != PAGE_4K && bytes != PAGE_2M)
		return cis_fail(err, EPROTO, "page size %llu is not served: only 4096 and 2097152 are",
				(unsigned long long)bytes);
	*ret = (uint32_t)bytes;
	return 0;
}

static int check_aligned(const char *name, uint64_t v, uint32_t page_bytes, struct cis_error *err)
{
	if (v % page_bytes)
		return cis_fail(err, EPROTO, "%s %llu is not a multiple of the page size %u", name,
				(unsigned long long)v, page_bytes);
	return 0;
}

static int check_region(const struct cis_guest_region *reg, struct cis_error *err)
{
	int r = 0;

	if (!reg->bytes)
		return cis_fail(err, EPROTO, "size is 0");
	if (!reg->hva)
		return cis_fail(err, EPROTO, "address is 0");
	if (reg->bytes > CIS_HANDSHAKE_GUEST_MAX || reg->offset > CIS_HANDSHAKE_GUEST_MAX - reg->bytes)
		return cis_fail(err, EPROTO, "offset %llu and size %llu go beyond 16 TiB",
				(unsigned long long)reg->offset, (unsigned long long)reg->bytes);
	if (reg->hva > ADDRESS_MAX - reg->bytes)
		return cis_fail(
			err, EPROTO,
			"address 0x%llx and size %llu go beyond what a process has: wraps or is no address",
			(unsigned long long)reg->hva, (unsigned long long)reg->bytes);
	r = check_aligned("address", reg->hva, reg->page_bytes, err);
	if (!r)
		r = check_aligned("size", reg->bytes, reg->page_bytes, err);
	return r ? r : check_aligned("offset", reg->offset, reg->page_bytes, err);
}

static int parse_region(const json_t *object, struct cis_guest_region *ret, struct cis_error *err)
{
	int r;

	if (!json_is_object(object))
		return cis_fail(err, EPROTO, "not an object");
	if (json_is_true(json_object_get(object, "is_guest_memfd")))
		return cis_fail(err, EPROTO,
				"guest_memfd: Firecracker's secret-hiding branch is not supported");
	r = number(object, "base_host_virt_addr", NULL, &ret->hva, err);
	if (!r)
		r = number(object, "size", NULL, &ret->bytes, err);
	if (!r)
		r = number(object, "offset", NULL, &ret->offset, err);
	if (!r)
		r = page_size(object, &ret->page_bytes, err);
	if (r)
		return r;
	ret->image_offset = ret->offset;
	return check_region(ret, err);
}

static int boolean(const json_t *object, const char *name, bool *ret, struct cis_error *err)
{
	const json_t *v = json_object_get(object, name);

	if (v && !json_is_boolean(v))
		return cis_fail(err, EPROTO, "\"cistern\": \"%s\" is neither true nor false", name);
	if (v)
		*ret = json_is_true(v);
	return 0;
}

static int parse_kind(const json_t *object, struct cis_guest_layout *ret, struct cis_error *err)
{
	const json_t *v = json_object_get(object, "kind");

	if (!v)
		return 0;
	for (enum cis_kind kind = CIS_KIND_ANONYMOUS; json_is_string(v) && kind <= CIS_KIND_PRIVATE; kind++)
		if (!strcmp(json_string_value(v), cis_kind_name(kind))) {
			ret->kind = kind;
			ret->has_kind = true;
			return 0;
		}
	return cis_fail(err, EPROTO, "\"cistern\": \"kind\" is not \"anonymous\", \"shared\" or \"private\"");
}

static int parse_name(const json_t *object, char *ret, struct cis_error *err)
{
	const json_t *v = json_object_get(object, "name");
	const char *text = json_string_value(v);
	size_t len = json_string_length(v);

	if (!v)
		return 0;
	if (!text)
		return cis_fail(err, EPROTO, "\"name\" is not a string");
	if (len >= CIS_HANDSHAKE_NAME_BYTES)
		return cis_fail(err, EPROTO, "\"name\" is longer than %d bytes",
				CIS_HANDSHAKE_NAME_BYTES - 1);
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
			return cis_fail(err, EPROTO, "\"name\" has a control character");
	memcpy(ret, text, len + 1);
	return 0;
}

static int parse_names(const json_t *array, struct cis_guest_layout *ret, struct cis_error *err)
{
	int r = 0;

	if (!json_is_array(array) || json_array_size(array) != ret->nr_regions)
		return cis_fail(err, EPROTO, "\"cistern\": \"regions\" is not an array of %zu objects",
				ret->nr_regions);
	for (size_t i = 0; i < ret->nr_regions && !r; i++) {
		const json_t *object = json_array_get(array, i);
		struct cis_guest_region *reg = &ret->regions[i];

		if (!json_is_object(object))
			return cis_fail(err, EPROTO, "\"cistern\": region %zu is not an object", i);
		r = parse_name(object, reg->name, err);
		if (!r)
			r = number(object, "gpa", &reg->has_gpa, &reg->gpa, err);
		if (r)
			return cis_fail_prefix(err, EPROTO, "\"cistern\": region %zu", i);
	}
	return r;
}

static int parse_cistern(const json_t *object, struct cis_guest_layout *ret, struct cis_error *err)
{
	const json_t *names;
	int r;

	if (!object)
		return 0;
	if (!json_is_object(object))
		return cis_fail(err, EPROTO, "\"cistern\" is not an object");
	r = parse_kind(object, ret, err);
	if (!r)
		r = boolean(object, "ack", &ret->ack, err);
	if (!r)
		r = boolean(object, "allocated", &ret->allocated, err);
	names = json_object_get(object, "regions");
	return r || !names ? r : parse_names(names, ret, err);
}

static int by_hva(const void *a, const void *b)
{
	const struct cis_guest_region *x = *(void *const *)a, *y = *(void *const *)b;

	return (x->hva > y->hva) - (x->hva < y->hva);
}

static int by_offset(const void *a, const void *b)
{
	const struct cis_guest_region *x = *(void *const *)a, *y = *(void *const *)b;

	return (x->offset > y->offset) - (x->offset < y->offset);
}

static int check_overlap(const struct cis_guest_layout *lay, struct cis_error *err)
{
	struct cis_guest_region *sorted[CIS_HANDSHAKE_REGIONS_MAX];

	for (size_t i = 0; i < lay->nr_regions; i++)
		sorted[i] = &lay->regions[i];
	qsort(sorted, lay->nr_regions, sizeof(sorted[0]), by_hva);
	for (size_t i = 1; i < lay->nr_regions; i++)
		if (sorted[i]->hva - sorted[i - 1]->hva < sorted[i - 1]->bytes)
			return cis_fail(err, EPROTO, "regions %td and %td overlap in address",
					sorted[i - 1] - lay->regions, sorted[i] - lay->regions);
	qsort(sorted, lay->nr_regions, sizeof(sorted[0]), by_offset);
	for (size_t i = 1; i < lay->nr_regions; i++)
		if (sorted[i]->offset - sorted[i - 1]->offset < sorted[i - 1]->bytes)
			return cis_fail(err, EPROTO, "regions %td and %td overlap in the memory file",
					sorted[i - 1] - lay->regions, sorted[i] - lay->regions);
	return 0;
}

static int parse_regions(const json_t *array, struct cis_guest_layout *lay, struct cis_error *err)
{
	int r;

	for (size_t i = 0; i < lay->nr_regions; i++) {
		r = parse_region(json_array_get(array, i), &lay->regions[i], err);
		if (r)
			return cis_fail_prefix(err, EPROTO, "handshake: region %zu", i);
		lay->bytes += lay->regions[i].bytes;
	}
	r = check_overlap(lay, err);
	if (!r)
		r = parse_cistern(json_object_get(json_array_get(array, 0), "cistern"), lay, err);
	return r ? cis_fail_prefix(err, EPROTO, "handshake") : 0;
}

/* The parser quotes the client's bytes: what is not printable must not reach a log. */
static int not_json(const json_error_t *why, struct cis_error *err)
{
	char text[JSON_ERROR_TEXT_LENGTH];

	strcpy(text, why->text);
	for (char *c = text; *c; c++)
		if (*c < 0x20 || *c == 0x7f)
			*c = '?';
	return cis_fail(err, EPROTO, "handshake: not JSON at byte %d: %s", why->position, text);
}

int cis_layout_parse(const char *text, size_t len, struct cis_guest_layout *ret, struct cis_error *err)
{
	struct cis_guest_layout lay = { 0 };
	json_error_t why;
	json_t *array = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
	int r;

	if (!array)
		return not_json(&why, err);
	lay.nr_regions = json_array_size(array);
	if (!json_is_array(array))
		r = cis_fail(err, EPROTO, "handshake: not an array");
	else if (!lay.nr_regions || lay.nr_regions > CIS_HANDSHAKE_REGIONS_MAX)
		r = cis_fail(err, EPROTO, "handshake: %zu regions, not 1 to %d", lay.nr_regions,
			     CIS_HANDSHAKE_REGIONS_MAX);
	else {
		lay.regions = calloc(lay.nr_regions, sizeof(*lay.regions));
		r = lay.regions ? parse_regions(array, &lay, err) :
				  cis_fail(err, ENOMEM, "handshake: no memory");
	}
	json_decref(array);
	if (r)
		free(lay.regions);
	else
		*ret = lay;
	return r;
}
