/* Configuration files: the input is one.  What is taken can be given again, key by key; what is refused says the file and the line. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "daemon/config.h"
#include "image/meta.h"

static void check(const struct cis_config *c)
{
	const char *const paths[] = { c->control, c->traces, c->images }, *const texts[] = { c->user, c->keep, c->store_layers };
	struct cis_config again;

	FUZZ_CHECK(!cis_config_init(&again));
	for (unsigned i = 0; i < 3; i++) {
		FUZZ_CHECK(*paths[i] == '/' && cis_text_ok(paths[i], strlen(paths[i]), ""));
		FUZZ_CHECK(cis_text_ok(texts[i], strlen(texts[i]), ""));
	}
	FUZZ_CHECK(!cis_config_set(&again, "store_layers", c->store_layers, NULL) && !cis_config_set(&again, "keep", c->keep, NULL));
	cis_config_fini(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct cis_error err = { 0 };
	struct cis_config c;
	char path[40];
	int fd = memfd_create("config", MFD_CLOEXEC);

	FUZZ_CHECK(fd >= 0 && write(fd, data, len) == (ssize_t)len && !cis_config_init(&c));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	int rc = cis_config_load(&c, path, &err);

	if (rc)
		FUZZ_CHECK(err.code == -rc && !strncmp(err.text, path, strlen(path)));
	else
		check(&c);
	cis_config_fini(&c);
	close(fd);
	return 0;
}
