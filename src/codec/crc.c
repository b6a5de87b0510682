#include "base/le.h"
#include "codec/codec.h"
#include "codec/isal.h"

uint64_t cis_crc64(uint64_t crc, const void *buf, size_t len)
{
	crc = crc64_ecma_refl(crc, buf, len);
	isal_leave();
	return crc;
}

uint64_t cis_chunk_checksum(uint64_t chunk, const void *raw, size_t len)
{
	uint8_t number[8];

	cis_put_le64(number, chunk);
	return cis_crc64(crc64_ecma_refl(0, number, sizeof(number)), raw, len);
}
