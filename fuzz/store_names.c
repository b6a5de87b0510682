/* Names of stores of pages: refused with the reason, or opened, which waits for nothing. */
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "check.h"
#include "store/store.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct cis_pages_opts opts = { .size = sizeof(opts) };
	struct cis_store *store;
	struct cis_error err = { 0 };
	char url[2048];
	int rc;

	if (len >= sizeof(url) || memchr(data, 0, len))
		return 0;
	memcpy(url, data, len);
	url[len] = 0;
	rc = cis_pages_check(url, &err);
	if (rc) {
		FUZZ_CHECK(err.code == -rc && err.text[0]);
		return 0;
	}
	if (strstr(url, "file:") || cis_pages_is_stash(url))
		return 0; /* opening it makes files, or is not possible */
	FUZZ_CHECK(!cis_pages_open(url, &opts, &store, &err));
	cis_store_close(store);
	return 0;
}
