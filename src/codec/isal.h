/* Inside the codec layer: leaving ISA-L. */
#ifndef CIS_CODEC_ISAL_H
#define CIS_CODEC_ISAL_H

#include <isa-l.h>

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

#endif
