/*
 * What a store says is a sealed value.  Byte 0 says of what: 0: the rest is the value; else the rest is sealed, and then changed at a place
 * that byte 1 and 2 name, if byte 0 is odd.
 */
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "check.h"
#include "store/seal.h"

static const uint8_t key[CIS_SEAL_KEY_BYTES] = "of a guest that is being fuzzed.";
static const struct cis_key page = { { 1, 2 }, 3 };

static void is_refused(struct cis_seal *seal, const uint8_t *sealed, uint32_t len)
{
	uint8_t value[CIS_VALUE_MAX] = { 0 };

	FUZZ_CHECK(cis_unseal_value(seal, &page, sealed, len, value) == -EBADMSG);
	for (size_t i = 0; i < sizeof(value); i++)
		FUZZ_CHECK(!value[i]);
}

static void is_sealed(struct cis_seal *seal, const uint8_t *data, uint32_t len, bool changed, uint32_t at)
{
	uint8_t sealed[CIS_VALUE_MAX], value[CIS_VALUE_MAX];

	FUZZ_CHECK(!cis_seal_value(seal, &page, data, len, sealed));
	if (changed) {
		sealed[at % (len + CIS_SEAL_BYTES)] ^= 1;
		is_refused(seal, sealed, len + CIS_SEAL_BYTES);
		return;
	}
	FUZZ_CHECK(!cis_unseal_value(seal, &page, sealed, len + CIS_SEAL_BYTES, value));
	FUZZ_CHECK(!memcmp(value, data, len));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct cis_seal *seal;

	if (len < 4 || len - 3 > CIS_VALUE_MAX - CIS_SEAL_BYTES)
		return 0;
	FUZZ_CHECK(!cis_seal_create(key, &seal));
	if (data[0])
		is_sealed(seal, data + 3, (uint32_t)len - 3, data[0] & 1, data[1] | (uint32_t)data[2] << 8);
	else
		is_refused(seal, data + 3, (uint32_t)len - 3);
	cis_seal_destroy(seal);
	return 0;
}
