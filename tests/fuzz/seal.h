/* Checksums put right after bytes were changed, as a forger would. */
#ifndef TESTS_FUZZ_SEAL_H
#define TESTS_FUZZ_SEAL_H

#include "util/types.h"

/* crc32c over `length` bytes, of which four at crc_at are taken as zeros, stored there. */
void seal_bytes(uint8_t *bytes, size_t length, size_t crc_at);
void seal_super(uint8_t *bytes);
/* Metadata block, journal head (64 bytes), journal record, poison-log entry (64 bytes): the checksum is at the same place in each. */
void seal_struct(uint8_t *bytes, size_t length);

#endif
