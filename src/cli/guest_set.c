/* cistern guest set: how much of a guest may be resident. */
#include <stdio.h>
#include <string.h>

#include "base/size.h"
#include "cli/guests.h"

#define NO_WEIGHT UINT64_MAX

static struct {
	const char *budget, *max, *min, *stash, *pages, *keep, *prefetch, *codec, *reclaim, *pinned;
	uint64_t weight;
} opt = { .weight = NO_WEIGHT };

static const struct cli_option options[] = {
	{ "budget", CLI_STRING, "SIZE|none", "how much of its memory may be resident now (none: as much as --max)", &opt.budget },
	{ "max", CLI_STRING, "SIZE|none", "never more than that, whatever the budget is", &opt.max },
	{ "min", CLI_STRING, "SIZE", "never less than that; what it has when it is parked", &opt.min },
	{ "stash", CLI_STRING, "SIZE|none", "what memory the rest of it may take", &opt.stash },
	{ "pages", CLI_STRING, "STORE|none", "where pages go from there: cistern-stores(7)", &opt.pages },
	{ "keep", CLI_STRING, "SIZE|none", "what of the stash does not go there", &opt.keep },
	{ "prefetch", CLI_CHOICE, "yes|no", "bring back what is likely to be touched next", &opt.prefetch },
	{ "codec", CLI_CHOICE, "raw|mask|lz4|zstd", "how the rest is stored", &opt.codec },
	{ "reclaim", CLI_CHOICE, "sync|async", "a page right before another comes, or in batches ahead", &opt.reclaim },
	{ "weight", CLI_NUMBER, "N", "of the host's budget, beside other guests, 1 to 10000", &opt.weight },
	{ "pinned", CLI_CHOICE, "yes|no", "others reach its pages: nothing may be reclaimed", &opt.pinned },
	CLI_OPTION_CONTROL,
	CLI_OPTION_END,
};

/* Return: false after saying what is wrong with it. */
static bool add_size(json_t *budget, const char *option, const char *key, const char *text, bool may_be_none)
{
	uint64_t bytes;

	if (!text)
		return true;
	if (may_be_none && !strcmp(text, "none")) {
		json_object_set_new(budget, key, json_null());
		return true;
	}
	if (cis_size_parse(text, &bytes) || bytes > INT64_MAX) {
		cli_usage("--%s: '%s' is not a size, like 256M%s", option, text, may_be_none ? ", nor none" : "");
		return false;
	}
	json_object_set_new(budget, key, json_integer((json_int_t)bytes));
	return true;
}

static bool add_budget(json_t *budget)
{
	if (!add_size(budget, "budget", "target_bytes", opt.budget, true) || !add_size(budget, "max", "max_bytes", opt.max, true) ||
	    !add_size(budget, "min", "min_bytes", opt.min, false) || !add_size(budget, "stash", "stash_bytes", opt.stash, true) ||
	    !add_size(budget, "keep", "keep_bytes", opt.keep, true))
		return false;
	if (opt.pages)
		json_object_set_new(budget, "pages", strcmp(opt.pages, "none") ? json_string(opt.pages) : json_null());
	if (opt.prefetch)
		json_object_set_new(budget, "prefetch", json_boolean(!strcmp(opt.prefetch, "yes")));
	if (opt.weight != NO_WEIGHT)
		json_object_set_new(budget, "weight", json_integer((json_int_t)opt.weight));
	if (opt.codec)
		json_object_set_new(budget, "codec", json_string(opt.codec));
	if (opt.reclaim)
		json_object_set_new(budget, "reclaim", json_string(opt.reclaim));
	return true;
}

static json_t *make_body(void)
{
	json_t *body = json_object(), *budget = json_object();

	if (!add_budget(budget)) {
		json_decref(budget);
		json_decref(body);
		return NULL;
	}
	if (json_object_size(budget))
		json_object_set(body, "budget", budget);
	json_decref(budget);
	if (opt.pinned)
		json_object_set_new(body, "pinned", json_boolean(!strcmp(opt.pinned, "yes")));
	return body;
}

static int run(int argc, char **argv)
{
	json_t *body = make_body(), *guest;
	struct cis_error err;
	int r;

	if (!body)
		return CLI_USAGE;
	if (!json_object_size(body)) {
		json_decref(body);
		return cli_usage("wants at least one option");
	}
	r = cli_call("PATCH", "/v1/guests/*", argv[0], body, &guest, &err);
	json_decref(body);
	return r ? cli_fail(&err) : cli_guest_print_memory(guest);
}

const struct cli_command cli_guest_set = {
	"guest set", "GUEST", "Change how much of a running guest may be resident", options, 1, 1, run
};
