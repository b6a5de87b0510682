#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/size.h"
#include "fakevmm.h"

static const char help[] =
	"Usage: cistern-fakevmm [OPTION]... SOCKET\n"
	"\n"
	"Plays a microVM monitor that hands its memory over on SOCKET, well or badly, and\n"
	"checks every byte it gets.\n"
	"\n"
	"Memory:\n"
	"  --size SIZE         of the guest; default: that of --expect, else 64M\n"
	"  --regions LIST      number of equal regions, or their sizes: 3 or 64M,2M\n"
	"  --memory KIND       anonymous, memfd, private (a memfd mapped privately),\n"
	"                      hugetlb or hugetlb-memfd; default anonymous\n"
	"  --minor             register a memfd for minor faults too\n"
	"  --populate          allocate a memfd's pages before it is handed over\n"
	"\n"
	"What is said:\n"
	"  --handshake VERSION\n"
	"                      Firecracker's, v1.1 to v1.17; default v1.12\n"
	"  --client            as libcistern says it, and wait for its answer\n"
	"  --fragment N        send N bytes at a time\n"
	"  --bad WAY           say it wrong, then wait until the daemon hangs up\n"
	"  --list-bad          print the ways of --bad\n"
	"  --exit-after POINT  end without a word there: memory, connect, half, handshake,\n"
	"                      actions, or a number of pages touched\n"
	"  --hang-after POINT  do nothing more from there on\n"
	"\n"
	"What is done:\n"
	"  --do ACTIONS        read, write, verify, churn, remove, storm, join; see\n"
	"                      cistern-fakevmm(1);\n"
	"                      - takes them from standard input, one a line; default read\n"
	"  --order ORDER       sequential, reverse, random, or FILE: a trace, or page\n"
	"                      numbers one a line; default sequential\n"
	"  --seed N            of everything random; default 1\n"
	"  --pages N           touch only the first N of the order\n"
	"  --threads N         that touch, 1 to 64; default 1\n"
	"  --expect MEMORY     raw memory file that every page must read as\n"
	"  --step              before each point and action print it and wait for a line\n"
	"  --timeout SECONDS   fail when it takes longer\n"
	"\n"
	"  --json              print the result as JSON\n"
	"  --help              print this text\n"
	"\n"
	"Exit status: 0 all was right, 1 something was not, 2 wrong usage.\n";

enum {
	O_SIZE = 256,
	O_REGIONS,
	O_MEMORY,
	O_MINOR,
	O_POPULATE,
	O_HANDSHAKE,
	O_CLIENT,
	O_FRAGMENT,
	O_BAD,
	O_LIST_BAD,
	O_EXIT,
	O_HANG,
	O_DO,
	O_ORDER,
	O_SEED,
	O_PAGES,
	O_THREADS,
	O_EXPECT,
	O_STEP,
	O_TIMEOUT,
	O_JSON,
	O_HELP
};

static const struct option longs[] = {
	{ "size", 1, NULL, O_SIZE },
	{ "regions", 1, NULL, O_REGIONS },
	{ "memory", 1, NULL, O_MEMORY },
	{ "minor", 0, NULL, O_MINOR },
	{ "populate", 0, NULL, O_POPULATE },
	{ "handshake", 1, NULL, O_HANDSHAKE },
	{ "client", 0, NULL, O_CLIENT },
	{ "fragment", 1, NULL, O_FRAGMENT },
	{ "bad", 1, NULL, O_BAD },
	{ "list-bad", 0, NULL, O_LIST_BAD },
	{ "exit-after", 1, NULL, O_EXIT },
	{ "hang-after", 1, NULL, O_HANG },
	{ "do", 1, NULL, O_DO },
	{ "order", 1, NULL, O_ORDER },
	{ "seed", 1, NULL, O_SEED },
	{ "pages", 1, NULL, O_PAGES },
	{ "threads", 1, NULL, O_THREADS },
	{ "expect", 1, NULL, O_EXPECT },
	{ "step", 0, NULL, O_STEP },
	{ "timeout", 1, NULL, O_TIMEOUT },
	{ "json", 0, NULL, O_JSON },
	{ "help", 0, NULL, O_HELP },
	{ NULL, 0, NULL, 0 },
};

static const char *const memories[] = { "anonymous", "memfd", "private", "hugetlb", "hugetlb-memfd" };
static const char *const orders[] = { "sequential", "reverse", "random" };

static int number(const char *text, uint64_t min, uint64_t max, uint64_t *ret)
{
	unsigned long long n;
	char *end;

	errno = 0;
	n = strtoull(text, &end, 10);
	if (errno || *end || end == text || *text == '-' || n < min || n > max)
		return -EINVAL;
	*ret = n;
	return 0;
}

static int parse_word(const char *text, const char *const *words, size_t nr)
{
	for (size_t i = 0; i < nr; i++)
		if (!strcmp(text, words[i]))
			return (int)i;
	return -EINVAL;
}

/* "v1.7" is 7, and so is "v1.7.1". */
static int parse_version(const char *text, unsigned *ret)
{
	char dot = 0;
	unsigned minor;

	if (sscanf(text, "v1.%u%c", &minor, &dot) < 1 || (dot && dot != '.') || minor < 1 || minor > 17)
		return -EINVAL;
	*ret = minor;
	return 0;
}

static int parse_regions(const char *text, struct options *o)
{
	char copy[4096], *at = copy, *one;
	uint64_t n;

	if (!number(text, 1, REGIONS_MAX, &n)) {
		o->nr_regions = (size_t)n;
		return 0;
	}
	if (strlen(text) >= sizeof(copy))
		return -EINVAL;
	strcpy(copy, text);
	for (o->nr_regions = 0; (one = strsep(&at, ",")); o->nr_regions++)
		if (o->nr_regions == REGIONS_MAX || cis_size_parse(one, &o->region_size[o->nr_regions]) ||
		    !o->region_size[o->nr_regions])
			return -EINVAL;
	return 0;
}

static int parse_order(const char *text, struct options *o)
{
	int i = parse_word(text, orders, 3);

	o->order = i < 0 ? ORDER_FILE : (enum order)i;
	o->order_file = text;
	return 0;
}

static int parse_bad(const char *text, struct options *o)
{
	o->bad = text;
	return bad_find(text) ? 0 : -EINVAL;
}

static int parse_point(const char *text)
{
	static const char *const points[] = { "memory", "connect", "half", "handshake", "actions" };
	int i = parse_word(text, points, 5);

	return i < 0 ? i : 0;
}

static int parse_one(int opt, const char *arg, struct options *o)
{
	uint64_t n = 0;
	int r = 0;

	switch (opt) {
	case O_SIZE:
		return cis_size_parse(arg, &o->size) || !o->size ? -EINVAL : 0;
	case O_REGIONS:
		return parse_regions(arg, o);
	case O_MEMORY:
		r = parse_word(arg, memories, 5);
		o->memory = r < 0 ? MEMORY_ANONYMOUS : (enum memory)r;
		return r < 0 ? r : 0;
	case O_MINOR:
		o->minor = true;
		return 0;
	case O_POPULATE:
		o->populate = true;
		return 0;
	case O_HANDSHAKE:
		return parse_version(arg, &o->version);
	case O_CLIENT:
		o->client = true;
		return 0;
	case O_FRAGMENT:
		r = number(arg, 1, 1 << 20, &n);
		o->fragment = (size_t)n;
		return r;
	case O_BAD:
		return parse_bad(arg, o);
	case O_EXIT:
		o->exit_after = arg;
		return number(arg, 1, UINT64_MAX, &o->exit_touches) ? parse_point(arg) : 0;
	case O_HANG:
		o->hang_after = arg;
		return parse_point(arg);
	case O_DO:
		o->actions = arg;
		return 0;
	case O_ORDER:
		return parse_order(arg, o);
	case O_SEED:
		return number(arg, 0, UINT64_MAX, &o->seed);
	case O_PAGES:
		return number(arg, 0, UINT64_MAX, &o->max_pages);
	case O_THREADS:
		r = number(arg, 1, 64, &n);
		o->threads = (unsigned)n;
		return r;
	case O_EXPECT:
		o->expect = arg;
		return 0;
	case O_STEP:
		o->step = true;
		return 0;
	case O_TIMEOUT:
		r = number(arg, 1, 86400, &n);
		o->timeout_s = (unsigned)n;
		return r;
	case O_JSON:
		o->json = true;
		return 0;
	}
	return -ENOENT;
}

static int usage(const char *what, const char *arg)
{
	if (what)
		fprintf(stderr, "cistern-fakevmm: %s%s%s\n", what, arg ? ": " : "", arg ? arg : "");
	fprintf(stderr, "Try 'cistern-fakevmm --help'.\n");
	return 3;
}

static int print_bads(void)
{
	for (const struct bad *b = bads; b->name; b++)
		printf("%-24s %s\n", b->name, b->what);
	return 1;
}

/* The size that was asked for, cut into the regions that were asked for. */
static int settle_sizes(struct options *o)
{
	struct stat st;
	uint64_t sum = 0, each;

	o->page_bytes = o->memory == MEMORY_HUGETLB || o->memory == MEMORY_HUGETLB_MEMFD ? 2u << 20 : 4096;
	for (size_t i = 0; i < o->nr_regions; i++)
		sum += o->region_size[i];
	if (sum && o->size && sum != o->size)
		return usage("--size is not the sum of --regions", NULL);
	if (!o->size && !sum && o->expect && !stat(o->expect, &st))
		o->size = (uint64_t)st.st_size;
	if (!o->size)
		o->size = sum ? sum : 64u << 20;
	o->size = (o->size + o->page_bytes - 1) / o->page_bytes * o->page_bytes;
	if (!sum) {
		each = o->size / o->nr_regions / o->page_bytes * o->page_bytes;
		if (!each)
			return usage("more regions than pages", NULL);
		for (size_t i = 0; i < o->nr_regions; i++)
			o->region_size[i] =
				i + 1 < o->nr_regions ? each : o->size - each * (o->nr_regions - 1);
	}
	for (size_t i = 0; i < o->nr_regions; i++)
		if (o->region_size[i] % o->page_bytes)
			return usage("a region is not a multiple of its pages", NULL);
	return 0;
}

int options_parse(int argc, char **argv, struct options *ret)
{
	struct options o = { .nr_regions = 1, .version = 12, .actions = "read", .seed = 1, .threads = 1,
			     .max_pages = UINT64_MAX };
	int opt, r;

	opterr = 0;
	while ((opt = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (opt == O_HELP) {
			fputs(help, stdout);
			return 1;
		}
		if (opt == O_LIST_BAD)
			return print_bads();
		if (opt == '?')
			return usage("no such option, or its value is missing", argv[optind - 1]);
		if (parse_one(opt, optarg, &o))
			return usage("not a value for this option", argv[optind - 1]);
	}
	if (optind + 1 != argc)
		return usage(optind == argc ? "SOCKET is missing" : "more than one SOCKET", NULL);
	o.socket = argv[optind];
	r = settle_sizes(&o);
	if (r)
		return r;
	*ret = o;
	return 0;
}
