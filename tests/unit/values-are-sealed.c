/*
 * Sealed values: what the store has says nothing of them, comes back only as what was put under that key, and no nonce is used twice, by
 * one engine or by several with the same key.
 */
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "pages.h"

#define LONGEST (CIS_VALUE_MAX - CIS_SEAL_BYTES)

static const uint8_t key[CIS_SEAL_KEY_BYTES] = "32 bytes, as random as they come", other_key[CIS_SEAL_KEY_BYTES] = "and those of another guest, here";
static const struct cis_key page = { { 1, 2 }, 3 };

static struct cis_seal *seal_of(const uint8_t k[CIS_SEAL_KEY_BYTES])
{
	struct cis_seal *s;

	assert_int_equal(cis_seal_create(k, &s), 0);
	return s;
}

static void come_back(void **state)
{
	struct cis_seal *s = seal_of(key), *next = seal_of(key);
	uint8_t value[LONGEST], sealed[CIS_VALUE_MAX], back[LONGEST];

	for (uint32_t len = 1; len <= LONGEST; len += len < 70 ? 1 : 61) {
		pages_fill(&page, value, len);
		assert_int_equal(cis_seal_value(s, &page, value, len, sealed), 0);
		memset(back, 0xee, sizeof(back));
		assert_int_equal(cis_unseal_value(s, &page, sealed, len + CIS_SEAL_BYTES, back), 0);
		assert_memory_equal(back, value, len);
		assert_true(len == LONGEST || back[len] == 0xee);
		memset(back, 0xee, sizeof(back));
		assert_int_equal(cis_unseal_value(next, &page, sealed, len + CIS_SEAL_BYTES, back), 0);
		assert_memory_equal(back, value, len);
	}
	cis_seal_destroy(s);
	cis_seal_destroy(next);
}

static void refused(struct cis_seal *s, const struct cis_key *k, const uint8_t *sealed, uint32_t len)
{
	static const uint8_t zeros[CIS_VALUE_MAX];
	uint8_t back[CIS_VALUE_MAX];

	memset(back, 0xee, sizeof(back));
	assert_int_equal(cis_unseal_value(s, k, sealed, len, back), -EBADMSG);
	if (len > CIS_SEAL_BYTES)
		assert_memory_equal(back, zeros, len - CIS_SEAL_BYTES);
}

static void others_are_refused(void **state)
{
	struct cis_seal *s = seal_of(key), *other = seal_of(other_key);
	static const struct cis_key wrong[] = { { { 0, 2 }, 3 }, { { 1, 3 }, 3 }, { { 2, 1 }, 3 }, { { 1, 2 }, 4 } };
	uint8_t value[100], sealed[200], back[200];
	const uint32_t len = sizeof(value) + CIS_SEAL_BYTES;

	pages_fill(&page, value, sizeof(value));
	assert_int_equal(cis_seal_value(s, &page, value, sizeof(value), sealed), 0);
	for (uint32_t bit = 0; bit < len * 8; bit++) {
		sealed[bit / 8] ^= (uint8_t)(1 << bit % 8);
		refused(s, &page, sealed, len);
		sealed[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	for (uint32_t n = 0; n < len; n++)
		refused(s, &page, sealed, n);
	refused(s, &page, sealed, len + 1);
	refused(other, &page, sealed, len);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		refused(s, &wrong[i], sealed, len);
	assert_int_equal(cis_unseal_value(s, &page, sealed, len, back), 0); /* and nothing of that has hurt it */
	assert_memory_equal(back, value, sizeof(value));
	cis_seal_destroy(s);
	cis_seal_destroy(other);
}

static int by_nonce(const void *a, const void *b)
{
	return memcmp(a, b, 24);
}

/* Of many engines one after the other: salt and counter of each value, which are all that a nonce is made of. */
static void no_nonce_comes_twice(void **state)
{
	enum { ENGINES = 100, VALUES = 500 };
	uint8_t(*nonces)[24] = malloc(ENGINES * VALUES * sizeof(*nonces)), sealed[1 + CIS_SEAL_BYTES];
	size_t n = 0;

	assert_non_null(nonces);
	for (int e = 0; e < ENGINES; e++) {
		struct cis_seal *s = seal_of(key);

		for (int i = 0; i < VALUES; i++) {
			assert_int_equal(cis_seal_value(s, &page, "x", 1, sealed), 0);
			memcpy(nonces[n++], sealed, 24);
		}
		cis_seal_destroy(s);
	}
	qsort(nonces, n, sizeof(*nonces), by_nonce);
	for (size_t i = 1; i < n; i++)
		assert_true(by_nonce(nonces[i - 1], nonces[i]));
	free(nonces);
}

/* Each engine has left values: more salts than are kept at hand. */
static void values_of_many_engines(void **state)
{
	enum { ENGINES = 9 };
	struct cis_seal *s = seal_of(key);
	uint8_t sealed[ENGINES][1 + CIS_SEAL_BYTES], back[1];

	for (int e = 0; e < ENGINES; e++) {
		struct cis_seal *engine = seal_of(key);
		uint8_t value = (uint8_t)e;

		assert_int_equal(cis_seal_value(engine, &page, &value, 1, sealed[e]), 0);
		cis_seal_destroy(engine);
	}
	for (int round = 0; round < 3; round++)
		for (int e = 0; e < ENGINES; e++)
			for (int again = 0; again <= round; again++) {
				assert_int_equal(cis_unseal_value(s, &page, sealed[e], sizeof(sealed[e]), back), 0);
				assert_int_equal(back[0], e);
			}
	cis_seal_destroy(s);
}

/* As seal.h has it, written down once more. */
static void the_format_is_what_is_written(void **state)
{
	static const uint8_t aad[24] = { [0] = 1, [8] = 2, [16] = 3 };
	uint8_t sealed[5 + CIS_SEAL_BYTES], text[31] = "cistern value 1", derived[32], nonce[12] = { 0 }, back[5];
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	struct cis_seal *s = seal_of(key);
	int n;

	for (int i = 0; i < 3; i++)
		assert_int_equal(cis_seal_value(s, &page, "value", 5, sealed), 0);
	assert_int_equal(sealed[16], 2);
	memcpy(text + 15, sealed, 16);
	assert_non_null(HMAC(EVP_sha256(), key, 32, text, sizeof(text), derived, NULL));
	memcpy(nonce + 4, sealed + 16, 8);
	assert_int_equal(EVP_DecryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, derived, nonce), 1);
	assert_int_equal(EVP_DecryptUpdate(ctx, NULL, &n, aad, sizeof(aad)), 1);
	assert_int_equal(EVP_DecryptUpdate(ctx, back, &n, sealed + 24, 5), 1);
	assert_int_equal(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, 16, sealed + 29), 1);
	assert_int_equal(EVP_DecryptFinal_ex(ctx, back, &n), 1);
	assert_memory_equal(back, "value", 5);
	EVP_CIPHER_CTX_free(ctx);
	cis_seal_destroy(s);
}

/* Return: whether the file of the only namespace has these bytes anywhere. */
static bool file_has(const struct pages_place *p, const uint8_t *bytes, size_t len)
{
	DIR *dir = opendir(p->folder);
	char path[400] = "";
	static char all[1 << 20];
	size_t n;
	FILE *f;

	assert_non_null(dir);
	for (struct dirent *e; (e = readdir(dir));)
		if (*e->d_name != '.')
			snprintf(path, sizeof(path), "%s/%s", p->folder, e->d_name);
	closedir(dir);
	f = fopen(path, "r");
	assert_non_null(f);
	n = fread(all, 1, sizeof(all), f);
	fclose(f);
	return memmem(all, n, bytes, len);
}

static void the_store_has_nothing_to_read(void **state)
{
	struct pages_place p;
	uint8_t value[1000];

	pages_fill(&page, value, sizeof(value));
	for (int sealed = 0; sealed < 2; sealed++) {
		struct pages_rig r;
		uint32_t loc;

		pages_start_file(&p);
		pages_open(&r, p.url, sealed ? PAGES_SEALED : NULL, NULL);
		assert_int_equal(pages_put(&r, page, sizeof(value), &loc), 0);
		assert_int_equal(file_has(&p, value + 100, 16), !sealed);
		assert_int_equal(pages_get(&r, page, loc, sizeof(value)), 0);
		pages_close(&r);
		pages_stop_file(&p);
	}
}

/* A handle that several guests use, each with a key of its own, and a value that was changed there. */
static void guests_share_a_store(void **state)
{
	struct cis_error err;
	struct pages_place p;
	struct pages_rig a, b;
	uint32_t loc[2];

	pages_start_memcached(&p);
	pages_open(&a, p.url, PAGES_SEALED, NULL);
	b = (struct pages_rig){ 0 };
	assert_int_equal(cis_sealed_open(a.below, other_key, &b.store, &err), 0);
	assert_int_equal(pages_put(&a, page, 1000, &loc[0]), 0);
	assert_int_equal(pages_get(&b, page, loc[0], 1000), -EBADMSG);
	assert_int_equal(pages_put(&b, (struct cis_key){ { 4, 5 }, 6 }, 1000, &loc[1]), 0);
	assert_int_equal(pages_get(&b, (struct cis_key){ { 4, 5 }, 6 }, loc[1], 1000), 0);
	assert_int_equal(pages_get(&a, page, loc[0], 1000), 0);
	memcached_do(&p.server, "set cis:00000000000000010000000000000002:3 0 0 5\r\nvalue\r\n", "STORED\r\n");
	assert_int_equal(pages_get(&a, page, loc[0], 1000), -EBADMSG);
	pages_close(&b);
	pages_close(&a);
	server_remove(&p.server);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(come_back),
		cmocka_unit_test(others_are_refused),
		cmocka_unit_test(no_nonce_comes_twice),
		cmocka_unit_test(values_of_many_engines),
		cmocka_unit_test(the_format_is_what_is_written),
		cmocka_unit_test(the_store_has_nothing_to_read),
		cmocka_unit_test(guests_share_a_store),
	};

	alarm(120);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
