#include "util/crc.h"

#include <isa-l/crc.h>
#include <isa-l/crc64.h>

/* ISA-L takes an int for the length and leaves both inversions of the standard to the caller. */
#define CRC_STEP_BYTES (1u << 30)

uint32_t crc32c(uint32_t crc, const void *data, size_t length_bytes)
{
	const unsigned char *p = data;

	crc = ~crc;
	while (length_bytes > 0) {
		size_t step = length_bytes < CRC_STEP_BYTES ? length_bytes : CRC_STEP_BYTES;

		crc = crc32_iscsi((unsigned char *)p, (int)step, crc);
		p += step;
		length_bytes -= step;
	}
	return ~crc;
}

uint64_t crc64(uint64_t crc, const void *data, size_t length_bytes)
{
	return crc64_ecma_refl(crc, data, length_bytes);
}
