/*
 * Values that only their guest's engine can read: AES-256-GCM, by libcrypto.
 *
 *	salt 16 bytes, counter 8 (little-endian), the value encrypted, tag 16
 *
 * The key of the cipher is HMAC-SHA256(guest's key, "cistern value 1" salt), the nonce four zero bytes and the counter; what is
 * authenticated beside the value is its struct cis_key: ns[0], ns[1], id, little-endian.
 *
 * A nonce must not come twice under a key.  Of what outlives an engine nothing counts far enough: generations begin again after 2^24, random nonces of
 * 96 bits are good for 2^32 values, and a counter that is kept has to be kept before each use.  So each struct cis_seal draws a
 * salt, and with it a key of its own, under which it counts from 0 (Gueron and Lindell, "Better bounds for block cipher modes of operation via
 * nonce-based key derivation", 2017).  Ours are 128 random bits, drawn anew after 2^32 values.
 *
 * One thread at a time.
 */
#ifndef CIS_STORE_SEAL_H
#define CIS_STORE_SEAL_H

#include "store/store.h"

#define CIS_SEAL_KEY_BYTES 32
#define CIS_SEAL_BYTES	   40 /* that a sealed value is longer */

struct cis_seal;

/** cis_seal_create() - @key: copied.  Return: 0, -ENOMEM, or -EIO: there are no random bits, or libcrypto has no such cipher. */
int cis_seal_create(const uint8_t key[CIS_SEAL_KEY_BYTES], struct cis_seal **ret);
/** cis_seal_destroy() - no trace of keys is left in memory; NULL-safe. */
void cis_seal_destroy(struct cis_seal *seal);

/** cis_seal_value() - @len bytes, which become @len + CIS_SEAL_BYTES in @ret.  Return: 0 or -EIO. */
int cis_seal_value(struct cis_seal *seal, const struct cis_key *key, const void *value, uint32_t len, void *ret);

/**
 * cis_unseal_value() - what another seal with the same key may have made
 * @len: of @sealed
 * @ret: @len - CIS_SEAL_BYTES bytes; zeros, unless this succeeds
 *
 * Return: 0, -EBADMSG: it is not the value of @key, -ENOMEM, -EIO.
 */
int cis_unseal_value(struct cis_seal *seal, const struct cis_key *key, const void *sealed, uint32_t len, void *ret);

/**
 * cis_sealed_open() - a store around one of pages, whose values are sealed there
 * @inner: stays the caller's, and open as long as this one is; others may use it too, on the same thread
 * @key:   copied
 *
 * What has events and is to be reaped is @inner.  A value has CIS_SEAL_BYTES less room; one that comes back damaged is -EBADMSG.
 */
int cis_sealed_open(struct cis_store *inner, const uint8_t key[CIS_SEAL_KEY_BYTES], struct cis_store **ret, struct cis_error *err);

#endif
