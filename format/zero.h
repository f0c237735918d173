/* Reserved bytes are verified to be zero. */
#ifndef FORMAT_ZERO_H
#define FORMAT_ZERO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* In words: superblocks and inodes are reserve for the most part. */
static inline bool format_is_zero(const void *bytes, size_t length)
{
	const uint8_t *p = bytes;
	uint64_t any = 0, word;

	for (; length >= sizeof(word); p += sizeof(word), length -= sizeof(word)) {
		memcpy(&word, p, sizeof(word));
		any |= word;
	}
	for (; length; p++, length--)
		any |= *p;
	return any == 0;
}

#endif
