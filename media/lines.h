/* Moves of single 64-byte lines and parts of them, for guard.c: never a call into libc, which
 * sanitizers intercept. */
#ifndef MEDIA_LINES_H
#define MEDIA_LINES_H

#include "util/types.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

#define LINE_NOT_SANITIZED __attribute__((no_sanitize("address", "thread", "undefined")))
#define LINE_INLINE static inline __attribute__((always_inline)) LINE_NOT_SANITIZED

/* Keeps the compiler from merging lines or moving them across the cursor. */
LINE_INLINE void line_barrier(void)
{
	__asm__ volatile("" ::: "memory");
}

LINE_INLINE void line_copy_part(unsigned char *to, const unsigned char *from, size_t length)
{
	for (; length >= 8; length -= 8, to += 8, from += 8) {
		__builtin_memcpy(to, from, 8);
		line_barrier();
	}
	for (; length > 0; length--, to++, from++) {
		*to = *from;
		line_barrier();
	}
}

#ifdef __x86_64__

LINE_INLINE void line_copy(unsigned char *to, const unsigned char *from)
{
	const __m128i *f = (const __m128i *)from;
	__m128i a = _mm_loadu_si128(f), b = _mm_loadu_si128(f + 1);
	__m128i c = _mm_loadu_si128(f + 2), d = _mm_loadu_si128(f + 3);
	__m128i *t = (__m128i *)to;

	_mm_storeu_si128(t, a);
	_mm_storeu_si128(t + 1, b);
	_mm_storeu_si128(t + 2, c);
	_mm_storeu_si128(t + 3, d);
}

/* `to` is aligned to a line. */
LINE_INLINE void line_copy_nontemporal(unsigned char *to, const unsigned char *from)
{
	const __m128i *f = (const __m128i *)from;
	__m128i a = _mm_loadu_si128(f), b = _mm_loadu_si128(f + 1);
	__m128i c = _mm_loadu_si128(f + 2), d = _mm_loadu_si128(f + 3);
	__m128i *t = (__m128i *)to;

	_mm_stream_si128(t, a);
	_mm_stream_si128(t + 1, b);
	_mm_stream_si128(t + 2, c);
	_mm_stream_si128(t + 3, d);
}

__attribute__((target("avx512f"))) LINE_NOT_SANITIZED static inline void
line_copy_whole(unsigned char *to, const unsigned char *from)
{
	_mm512_stream_si512((__m512i *)to, _mm512_loadu_si512(from));
}

static inline bool line_can_copy_whole(void)
{
	return __builtin_cpu_supports("avx512f");
}

/* A whole line in one register, where line_can_copy_whole(): also for loads it is half the time of four. */
typedef uint8_t line_register __attribute__((vector_size(LINE_BYTES), aligned(1), may_alias));
#define LINE_WIDE LINE_NOT_SANITIZED __attribute__((target("avx512f")))
#define LINE_COPY_WIDE(to, from) (*(line_register *)(to) = *(const line_register *)(from))

LINE_INLINE void line_fence(void)
{
	_mm_sfence();
}

#else

LINE_INLINE void line_copy(unsigned char *to, const unsigned char *from)
{
	__builtin_memcpy(to, from, LINE_BYTES);
}

LINE_INLINE void line_copy_nontemporal(unsigned char *to, const unsigned char *from)
{
	__builtin_memcpy(to, from, LINE_BYTES);
}

LINE_INLINE void line_copy_whole(unsigned char *to, const unsigned char *from)
{
	__builtin_memcpy(to, from, LINE_BYTES);
}

static inline bool line_can_copy_whole(void)
{
	return false;
}

#define LINE_WIDE LINE_NOT_SANITIZED
#define LINE_COPY_WIDE(to, from) line_copy(to, from)

LINE_INLINE void line_fence(void)
{
	__sync_synchronize();
}

#endif
#endif
