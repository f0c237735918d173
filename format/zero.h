/* Reserved bytes are verified to be zero. */
#ifndef FORMAT_ZERO_H
#define FORMAT_ZERO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool format_is_zero(const void *bytes, size_t length)
{
	const uint8_t *p = bytes;
	uint8_t any = 0;

	for (size_t i = 0; i < length; i++)
		any |= p[i];
	return any == 0;
}

#endif
