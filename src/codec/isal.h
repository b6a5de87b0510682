/* Inside the codec layer: entering and leaving ISA-L. */
#ifndef CIS_CODEC_ISAL_H
#define CIS_CODEC_ISAL_H

#include <isa-l.h>
#include <stdint.h>
#include <string.h>

#ifdef __x86_64__
__attribute__((target("avx"))) static inline void isal_clear_upper(void)
{
	__builtin_ia32_vzeroupper();
}

/*
 * ISA-L's CRC, deflate and histogram leave the upper halves of the vector
 * registers dirty (seen by XGETBV; its inflate does not), and all SSE code of
 * the thread then runs 3 to 4 times slower (measured).  Call this after them.
 */
static inline void isal_leave(void)
{
	if (__builtin_cpu_supports("avx"))
		isal_clear_upper();
}
#else
static inline void isal_leave(void)
{
}
#endif

/*
 * ISA-L's encoders and histogram for arm64 compare eight bytes at a time, also where fewer are left of the input (2.30;
 * seen as a fault on the page behind it).  They get a copy that has room behind it.
 */
#ifdef __aarch64__
#define ISAL_READS_BEYOND 7
#else
#define ISAL_READS_BEYOND 0
#endif

/* Room that isal_input() wants for inputs of up to @max bytes. */
static inline size_t isal_input_room(size_t max)
{
	return ISAL_READS_BEYOND ? max + ISAL_READS_BEYOND : 0;
}

/* What an encoder may read instead of @src: @src itself, or where that is not safe a copy in @room. */
static inline uint8_t *isal_input(uint8_t *room, const uint8_t *src, size_t len)
{
	return ISAL_READS_BEYOND ? memcpy(room, src, len) : (uint8_t *)src;
}

#endif
