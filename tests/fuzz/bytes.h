/* Reading an input from its start: what is missing at its end reads as zeros, so that every string of bytes is an input. */
#ifndef TESTS_FUZZ_BYTES_H
#define TESTS_FUZZ_BYTES_H

#include <string.h>

#include "util/types.h"

struct bytes {
	const uint8_t *at;
	size_t left;
};

static inline void bytes_take(struct bytes *bytes, void *to, size_t length)
{
	size_t have = bytes->left < length ? bytes->left : length;

	memset(to, 0, length);
	if (have)
		memcpy(to, bytes->at, have);
	bytes->at += have;
	bytes->left -= have;
}

static inline uint8_t bytes_u8(struct bytes *bytes)
{
	uint8_t value;

	bytes_take(bytes, &value, sizeof(value));
	return value;
}

static inline uint16_t bytes_u16(struct bytes *bytes)
{
	uint16_t value;

	bytes_take(bytes, &value, sizeof(value));
	return value;
}

static inline uint32_t bytes_u32(struct bytes *bytes)
{
	uint32_t value;

	bytes_take(bytes, &value, sizeof(value));
	return value;
}

static inline uint64_t bytes_u64(struct bytes *bytes)
{
	uint64_t value;

	bytes_take(bytes, &value, sizeof(value));
	return value;
}

#endif
