/* crc32c (Castagnoli) and crc64 (of ECMA-182), by ISA-L. Start with crc = 0; calls may be chained. */
#ifndef UTIL_CRC_H
#define UTIL_CRC_H

#include "util/types.h"

uint32_t crc32c(uint32_t crc, const void *data, size_t length_bytes);
/* Tells content apart where nobody tries to deceive. */
uint64_t crc64(uint64_t crc, const void *data, size_t length_bytes);

#endif
