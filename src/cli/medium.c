/* --store: images read through layers that fail, delay and corrupt; cistern-store-layers(7). */
#include "cli/images.h"
#include "store/layers.h"

const char *cli_store;
static struct cis_layers *layers; /* of cli_store, until the end */

static int medium_open(const struct cis_image_medium *medium, int fd, void **ret_handle, struct cis_error *err)
{
	struct cis_store *store;
	int r = cis_store_file_open(fd, &store, err);

	if (!r)
		r = cis_layers_open(layers, store, &store, err);
	if (!r)
		*ret_handle = store;
	return r;
}

static int medium_read(void *handle, void *buf, uint32_t len, uint64_t off)
{
	return cis_store_get(handle, (struct cis_key){ 0 }, off, buf, len);
}

static void medium_close(void *handle)
{
	cis_store_close(handle);
}

const struct cis_image_medium cli_medium = { medium_open, medium_read, medium_close };

int cli_store_check(void)
{
	struct cis_error err;

	if (cli_store && !layers && cis_layers_parse(cli_store, &layers, &err))
		return cli_usage("--store: %s", err.text);
	return CLI_OK;
}
