/* The text of store layers: what is taken opens, and is given back as it was; what is refused says where. */
#include <string.h>

#include "check.h"
#include "store/layers.h"

static void submit(struct cis_store *store, struct cis_store_req **reqs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		reqs[i]->done(reqs[i], 0);
}

static int no_fd(struct cis_store *store)
{
	return -1;
}

static void nothing(struct cis_store *store)
{
}

static struct cis_store inner = {
	.ops = &(const struct cis_store_ops){ .submit = submit, .fd = no_fd, .reap = nothing, .close = nothing },
};

static void done(struct cis_store_req *req, int err)
{
	*(int *)req->ctx = 1;
}

/* One request; what a layer keeps for itself is given up when it is cancelled. */
static void use(struct cis_layers *layers)
{
	static char buf[4096];
	int over = 0;
	struct cis_store_req req = { .off = 4096, .len = sizeof(buf), .buf = buf, .done = done, .ctx = &over }, *reqs = &req;
	struct cis_store *store;
	struct cis_error err;

	FUZZ_CHECK(!cis_layers_open(layers, &inner, &store, &err));
	cis_store_submit(store, &reqs, 1);
	if (!over)
		cis_store_cancel(store, &req);
	FUZZ_CHECK(over);
	cis_store_close(store);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	char text[CIS_LAYERS_TEXT_MAX + 2];
	struct cis_layers *layers;
	struct cis_error err = { 0 };
	int rc;

	if (len >= sizeof(text))
		return 0;
	memcpy(text, data, len);
	text[len] = 0;
	rc = cis_layers_parse(text, &layers, &err);
	if (rc) {
		FUZZ_CHECK(err.code == -rc && err.text[0]);
		return 0;
	}
	FUZZ_CHECK(!strcmp(text, cis_layers_text(layers)));
	use(layers);
	cis_layers_unref(layers);
	return 0;
}
