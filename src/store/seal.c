#include "store/seal.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/le.h"

#define SALT	16u
#define COUNTER 8u
#define TAG	16u
#define NONCE	12u
#define READERS 4u /* salts that were met last: engines that have died, and our own */

#define VALUES_A_SALT (1ull << 32)

struct reader {
	uint8_t salt[SALT];
	EVP_CIPHER_CTX *ctx;
	uint64_t used;
};

struct cis_seal {
	uint8_t key[CIS_SEAL_KEY_BYTES], salt[SALT];
	EVP_CIPHER_CTX *writer;
	uint64_t counter, uses;
	struct reader reader[READERS];
};

static bool make_key(const struct cis_seal *s, const uint8_t salt[SALT], uint8_t ret[CIS_SEAL_KEY_BYTES])
{
	static const char label[] = "cistern value 1";
	uint8_t text[sizeof(label) - 1 + SALT];

	memcpy(text, label, sizeof(label) - 1);
	memcpy(text + sizeof(label) - 1, salt, SALT);
	return HMAC(EVP_sha256(), s->key, CIS_SEAL_KEY_BYTES, text, sizeof(text), ret, NULL);
}

/* The key schedule is most of what a value would cost, so it is made once a salt. */
static int begin(const struct cis_seal *s, const uint8_t salt[SALT], bool encrypt, EVP_CIPHER_CTX *ctx)
{
	uint8_t key[CIS_SEAL_KEY_BYTES];
	bool ok = make_key(s, salt, key) && EVP_CipherInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, NULL, encrypt);

	OPENSSL_cleanse(key, sizeof(key));
	return ok ? 0 : -EIO;
}

static int draw(struct cis_seal *s)
{
	if (getrandom(s->salt, SALT, 0) != (ssize_t)SALT)
		return -EIO;
	s->counter = 0;
	return begin(s, s->salt, true, s->writer);
}

int cis_seal_create(const uint8_t key[CIS_SEAL_KEY_BYTES], struct cis_seal **ret)
{
	struct cis_seal *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return -ENOMEM;
	memcpy(s->key, key, CIS_SEAL_KEY_BYTES);
	s->writer = EVP_CIPHER_CTX_new();
	rc = s->writer ? draw(s) : -ENOMEM;
	if (rc)
		cis_seal_destroy(s);
	else
		*ret = s;
	return rc;
}

void cis_seal_destroy(struct cis_seal *s)
{
	if (!s)
		return;
	EVP_CIPHER_CTX_free(s->writer);
	for (unsigned i = 0; i < READERS; i++)
		EVP_CIPHER_CTX_free(s->reader[i].ctx);
	OPENSSL_cleanse(s, sizeof(*s));
	free(s);
}

static void put_nonce(uint8_t nonce[NONCE], const uint8_t counter[COUNTER])
{
	memset(nonce, 0, NONCE - COUNTER);
	memcpy(nonce + NONCE - COUNTER, counter, COUNTER);
}

/* Return: whether @len bytes have gone through, and whose they are with them. */
static bool run(EVP_CIPHER_CTX *ctx, const uint8_t nonce[NONCE], const struct cis_key *key, const uint8_t *from, uint32_t len, uint8_t *to)
{
	uint8_t aad[24];
	int n;

	cis_put_le64(aad, key->ns[0]);
	cis_put_le64(aad + 8, key->ns[1]);
	cis_put_le64(aad + 16, key->id);
	return EVP_CipherInit_ex(ctx, NULL, NULL, NULL, nonce, -1) && EVP_CipherUpdate(ctx, NULL, &n, aad, sizeof(aad)) &&
	       EVP_CipherUpdate(ctx, to, &n, from, (int)len) && n == (int)len;
}

int cis_seal_value(struct cis_seal *s, const struct cis_key *key, const void *value, uint32_t len, void *ret)
{
	uint8_t *out = ret, *counter = out + SALT, *body = counter + COUNTER, nonce[NONCE];
	int rc = s->counter == VALUES_A_SALT ? draw(s) : 0, n;

	if (rc)
		return rc;
	memcpy(out, s->salt, SALT);
	cis_put_le64(counter, s->counter++);
	put_nonce(nonce, counter);
	if (!run(s->writer, nonce, key, value, len, body) || !EVP_CipherFinal_ex(s->writer, body + len, &n) ||
	    !EVP_CIPHER_CTX_ctrl(s->writer, EVP_CTRL_AEAD_GET_TAG, TAG, body + len))
		return -EIO;
	return 0;
}

static struct reader *oldest(struct cis_seal *s)
{
	struct reader *best = &s->reader[0];

	for (unsigned i = 1; i < READERS; i++)
		if (s->reader[i].used < best->used)
			best = &s->reader[i];
	return best;
}

static int reader_of(struct cis_seal *s, const uint8_t salt[SALT], struct reader **ret)
{
	struct reader *r = NULL;
	int rc = 0;

	for (unsigned i = 0; i < READERS && !r; i++)
		if (s->reader[i].used && !memcmp(s->reader[i].salt, salt, SALT))
			r = &s->reader[i];
	if (!r) {
		r = oldest(s);
		r->used = 0;
		if (!r->ctx)
			r->ctx = EVP_CIPHER_CTX_new();
		rc = r->ctx ? begin(s, salt, false, r->ctx) : -ENOMEM;
		memcpy(r->salt, salt, SALT);
	}
	if (rc)
		return rc;
	r->used = ++s->uses;
	*ret = r;
	return 0;
}

int cis_unseal_value(struct cis_seal *s, const struct cis_key *key, const void *sealed, uint32_t len, void *ret)
{
	const uint8_t *in = sealed, *counter = in + SALT, *body = counter + COUNTER;
	uint8_t nonce[NONCE], tag[TAG], none[1];
	struct reader *r;
	int rc, n;

	if (len < CIS_SEAL_BYTES)
		return -EBADMSG;
	len -= CIS_SEAL_BYTES;
	rc = reader_of(s, in, &r);
	if (rc)
		return rc;
	memcpy(tag, body + len, TAG);
	put_nonce(nonce, counter);
	if (run(r->ctx, nonce, key, body, len, ret) && EVP_CIPHER_CTX_ctrl(r->ctx, EVP_CTRL_AEAD_SET_TAG, TAG, tag) &&
	    EVP_CipherFinal_ex(r->ctx, none, &n))
		return 0;
	memset(ret, 0, len);
	return -EBADMSG;
}
