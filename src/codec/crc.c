#include <isa-l.h>

#include "base/le.h"
#include "codec/codec.h"

#ifdef __x86_64__
__attribute__((target("avx"))) static void clear_upper(void)
{
	__builtin_ia32_vzeroupper();
}

/*
 * ISA-L's AVX-512 CRC leaves the upper halves of the vector registers dirty,
 * and all SSE code of the thread then runs 3 to 4 times slower (measured).
 */
static void leave_isal(void)
{
	if (__builtin_cpu_supports("avx"))
		clear_upper();
}
#else
static void leave_isal(void)
{
}
#endif

uint64_t cis_crc64(uint64_t crc, const void *buf, size_t len)
{
	crc = crc64_ecma_refl(crc, buf, len);
	leave_isal();
	return crc;
}

uint64_t cis_chunk_checksum(uint64_t chunk, const void *raw, size_t len)
{
	uint8_t number[8];

	cis_put_le64(number, chunk);
	return cis_crc64(crc64_ecma_refl(0, number, sizeof(number)), raw, len);
}
