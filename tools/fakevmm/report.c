#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "fakevmm.h"

typedef unsigned long long ull;

bool report_is_good(const struct vm *vm)
{
	return !vm->result.wrong_pages && !vm->result.poisoned;
}

static uint64_t count_touched(const struct vm *vm)
{
	uint64_t nr = 0;

	for (uint64_t p = 0; vm->pages && p < vm->nr_pages; p++)
		nr += vm->pages[p].touched;
	return nr;
}

static void print_text(const char *text)
{
	putchar('"');
	for (; *text; text++)
		if (*text == '"' || *text == '\\')
			printf("\\%c", *text);
		else
			putchar((unsigned char)*text < 0x20 ? ' ' : *text);
	putchar('"');
}

static void print_json(struct vm *vm, const char *error, double seconds)
{
	struct result *res = &vm->result;

	printf("{\"pages\":%llu,\"page_bytes\":%llu,\"touched\":%llu,\"reads\":%llu,\"writes\":%llu,"
	       "\"verified\":%llu,"
	       "\"wrong_pages\":%llu,\"wrong_bytes\":%llu,\"removes\":%llu,\"pages_removed\":%llu,"
	       "\"poisoned\":%llu,"
	       "\"seconds\":%.6f",
	       (ull)vm->nr_pages, (ull)vm->page_bytes, (ull)count_touched(vm), (ull)res->reads,
	       (ull)res->writes, (ull)res->verified, (ull)res->wrong_pages, (ull)res->wrong_bytes,
	       (ull)res->removes, (ull)res->pages_removed, (ull)res->poisoned, seconds);
	if (res->has_wrong)
		printf(",\"first_wrong\":{\"page\":%llu,\"at\":%llu,\"is\":%u,\"should\":%u}",
		       (ull)res->wrong_page, (ull)res->wrong_at, res->wrong_is, res->wrong_should);
	if (vm->refusal) {
		printf(",\"refused\":");
		print_text(vm->refusal);
	}
	if (error) {
		printf(",\"error\":");
		print_text(error);
	}
	printf("}\n");
}

static void print_lines(struct vm *vm, double seconds)
{
	struct result *res = &vm->result;

	if (vm->opt->bad)
		printf("the daemon hung up\n");
	printf("%llu of %llu pages touched: %llu reads, %llu writes; %llu pages given back in %llu "
	       "removals\n",
	       (ull)count_touched(vm), (ull)vm->nr_pages, (ull)res->reads, (ull)res->writes,
	       (ull)res->pages_removed, (ull)res->removes);
	printf("%llu pages verified, %llu wrong (%llu bytes), %llu poisoned, %.3f s\n", (ull)res->verified,
	       (ull)res->wrong_pages, (ull)res->wrong_bytes, (ull)res->poisoned, seconds);
	if (res->has_wrong)
		printf("first wrong: page %llu, byte %llu: is 0x%02x, should be 0x%02x\n",
		       (ull)res->wrong_page, (ull)res->wrong_at, res->wrong_is, res->wrong_should);
}

void report_print(struct vm *vm, const char *error)
{
	double seconds = vm->start_ns ? (double)(cis_now_ns(NULL) - vm->start_ns) / 1e9 : 0;

	if (vm->opt->json)
		print_json(vm, error, seconds);
	else if (!error)
		print_lines(vm, seconds);
	if (error)
		fprintf(stderr, "cistern-fakevmm: %s\n", error);
	fflush(NULL);
}
