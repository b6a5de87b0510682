/* The handshake as each version writes it, and every way to write it wrong. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "fakevmm.h"

const struct bad bads[] = {
	{ "nothing", -1, "nothing wrong here: the image is another guest's, say" },
	{ "empty", -1, "hang up without a byte" },
	{ "cut", -1, "hang up after half of it" },
	{ "not-json", -1, "brackets that match around what is no JSON" },
	{ "not-an-array", -1, "an object" },
	{ "empty-array", -1, "no region" },
	{ "trailing", -1, "a byte too many" },
	{ "twice", -1, "the same again" },
	{ "deep", -1, "brackets 1000 deep" },
	{ "long", -1, "more than 128 KiB" },
	{ "many-regions", -1, "513 regions" },
	{ "duplicate-key", -1, "a size twice" },
	{ "no-address", -1, "no address" },
	{ "no-size", -1, "no size" },
	{ "no-offset", -1, "no offset" },
	{ "string", -1, "a number as a string" },
	{ "fraction", -1, "a number with a point" },
	{ "negative", -1, "a negative size" },
	{ "too-big", -1, "an address over 2^63" },
	{ "wrap", -1, "a region that wraps around the address space" },
	{ "huge", -1, "a region of 2^62 bytes" },
	{ "beyond", -1, "a region far behind the memory file" },
	{ "zero-size", -1, "a region of no bytes" },
	{ "zero-address", -1, "a region at address 0" },
	{ "unaligned-address", -1, "an address within a page" },
	{ "unaligned-size", -1, "a size that is no multiple of the page" },
	{ "unaligned-offset", -1, "an offset within a page" },
	{ "page-size", -1, "pages of 8 KiB" },
	{ "odd-page-size", -1, "pages of 4097 bytes" },
	{ "two-page-sizes", -1, "page_size and page_size_kib that differ" },
	{ "overlap", -1, "a region twice, at other offsets" },
	{ "overlap-offset", -1, "two regions at one offset" },
	{ "guest-memfd", -1, "as the secret-hiding branch says it" },
	{ "no-descriptor", 0, "no descriptor" },
	{ "wrong-descriptor", -2, "a pipe instead of the userfaultfd" },
	{ "wrong-memfd", -2, "a pipe as the memfd" },
	{ "three-descriptors", 3, "three descriptors, as of the secret-hiding branch" },
	{ "eight-descriptors", 8, "eight descriptors" },
	{ "nine-descriptors", 9, "nine descriptors" },
	{ NULL, 0, NULL },
};

const struct bad *bad_find(const char *name)
{
	const struct bad *b = bads;

	while (b->name && strcmp(b->name, name))
		b++;
	return b->name ? b : NULL;
}

/** struct said - one region as it is said: text, so that anything can be */
struct said {
	char hva[40], size[40], offset[40];
};

struct text {
	char *buf;
	size_t len, room;
};

static void __attribute__((format(printf, 2, 3))) add(struct text *t, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(t->buf + t->len, t->room - t->len, fmt, ap);
	va_end(ap);
	if (n > 0 && (size_t)n < t->room - t->len)
		t->len += (size_t)n;
}

static bool is(const char *bad, const char *name)
{
	return bad && !strcmp(bad, name);
}

static void set(char *field, const char *value)
{
	snprintf(field, 40, "%s", value);
}

static void spoil_region(struct said *s, const char *bad)
{
	if (is(bad, "string"))
		set(s->size, "\"4096\"");
	else if (is(bad, "fraction"))
		set(s->size, "4096.0");
	else if (is(bad, "negative"))
		set(s->size, "-4096");
	else if (is(bad, "too-big"))
		set(s->hva, "18446744073709547520");
	else if (is(bad, "wrap"))
		set(s->hva, "9223372036852678656");
	else if (is(bad, "huge"))
		set(s->size, "4611686018427387904");
	else if (is(bad, "beyond"))
		set(s->offset, "4611686018427387904");
	else if (is(bad, "zero-size"))
		set(s->size, "0");
	else if (is(bad, "zero-address"))
		set(s->hva, "0");
	else if (is(bad, "unaligned-address"))
		set(s->hva, "140000000000123");
	else if (is(bad, "unaligned-size"))
		set(s->size, "4095");
	else if (is(bad, "unaligned-offset"))
		set(s->offset, "17");
}

static void add_pages(struct text *t, const struct vm *vm, const char *bad)
{
	unsigned long long page = is(bad, "page-size")	   ? 8192 :
				  is(bad, "odd-page-size") ? 4097 :
							     vm->page_bytes;
	bool spoilt = page != vm->page_bytes || is(bad, "two-page-sizes");

	if (vm->opt->version >= 12 || spoilt)
		add(t, ",\"page_size\":%llu", page);
	if (vm->opt->version >= 7 || spoilt)
		add(t, ",\"page_size_kib\":%llu", is(bad, "two-page-sizes") ? page / 1024 : page);
}

static void add_client(struct text *t, const struct vm *vm)
{
	static const char *const kinds[] = { "anonymous", "shared", "private", "anonymous", "shared" };

	add(t, ",\"cistern\":{\"kind\":\"%s\",\"ack\":true,\"allocated\":%s}", kinds[vm->opt->memory],
	    vm->opt->populate ? "true" : "false");
}

static void add_region(struct text *t, const struct vm *vm, const struct said *s, const char *bad,
		       bool is_first)
{
	add(t, "%s{", is_first ? "" : ",");
	if (!is(bad, "no-address"))
		add(t, "\"base_host_virt_addr\":%s,", s->hva);
	if (!is(bad, "no-size"))
		add(t, "\"size\":%s,", s->size);
	if (is(bad, "duplicate-key"))
		add(t, "\"size\":%s,", s->size);
	add(t, "\"%s\":%s", is(bad, "no-offset") ? "ofset" : "offset", s->offset);
	add_pages(t, vm, bad);
	if (is(bad, "guest-memfd"))
		add(t, ",\"gpa_start\":0,\"is_guest_memfd\":true");
	if (is_first && vm->opt->client)
		add_client(t, vm);
	add(t, "}");
}

static void region_of_vm(const struct vm *vm, size_t i, struct said *ret)
{
	snprintf(ret->hva, sizeof(ret->hva), "%llu", (unsigned long long)(uintptr_t)vm->regions[i].addr);
	snprintf(ret->size, sizeof(ret->size), "%llu", (unsigned long long)vm->regions[i].bytes);
	snprintf(ret->offset, sizeof(ret->offset), "%llu", (unsigned long long)vm->regions[i].offset);
}

/* One region more, that lies where another one does. */
static void add_overlap(struct text *t, const struct vm *vm, const char *bad)
{
	struct said s;

	region_of_vm(vm, 0, &s);
	if (is(bad, "overlap"))
		snprintf(s.offset, sizeof(s.offset), "%llu", (unsigned long long)vm->bytes);
	else
		snprintf(s.hva, sizeof(s.hva), "%llu", (unsigned long long)vm->page_bytes);
	add_region(t, vm, &s, NULL, false);
}

static void add_many(struct text *t, const struct vm *vm)
{
	struct said s;

	for (unsigned i = 0; i < 513; i++) {
		snprintf(s.hva, sizeof(s.hva), "%llu", (i + 1ull) * vm->page_bytes);
		snprintf(s.size, sizeof(s.size), "%llu", (unsigned long long)vm->page_bytes);
		snprintf(s.offset, sizeof(s.offset), "%llu", i * (unsigned long long)vm->page_bytes);
		add_region(t, vm, &s, NULL, !i);
	}
}

static void add_regions(struct text *t, const struct vm *vm, const char *bad)
{
	struct said s;

	add(t, "[");
	for (size_t i = 0; i < vm->nr_regions && !is(bad, "empty-array") && !is(bad, "many-regions"); i++) {
		region_of_vm(vm, i, &s);
		spoil_region(&s, i + 1 == vm->nr_regions ? bad : NULL);
		add_region(t, vm, &s, i + 1 == vm->nr_regions ? bad : NULL, !i);
	}
	if (is(bad, "many-regions"))
		add_many(t, vm);
	if (is(bad, "overlap") || is(bad, "overlap-offset"))
		add_overlap(t, vm, bad);
	add(t, "]");
}

static void add_repeated(struct text *t, char c, size_t nr)
{
	for (; nr; nr--)
		add(t, "%c", c);
}

size_t bad_text(const struct vm *vm, const char *bad, char *buf, size_t room)
{
	struct text t = { .buf = buf, .room = room };

	if (is(bad, "empty"))
		return 0;
	if (is(bad, "not-json")) {
		add(&t, "[{]}");
		return t.len;
	}
	if (is(bad, "deep")) {
		add_repeated(&t, '[', 1000);
		add_repeated(&t, ']', 1000);
		return t.len;
	}
	if (is(bad, "not-an-array"))
		add(&t, "{\"regions\":");
	if (is(bad, "long"))
		add_repeated(&t, ' ', 128 << 10);
	add_regions(&t, vm, bad);
	if (is(bad, "not-an-array"))
		add(&t, "}");
	if (is(bad, "trailing"))
		add(&t, "x");
	if (is(bad, "twice"))
		add_regions(&t, vm, NULL);
	return is(bad, "cut") ? t.len / 2 : t.len;
}
