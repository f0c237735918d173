/* SipHash-2-4 (Aumasson, Bernstein 2012): a keyed 64-bit hash that nobody who lacks the key can foretell. */
#ifndef UTIL_SIPHASH_H
#define UTIL_SIPHASH_H

#include "util/types.h"

uint64_t siphash(const uint8_t key[16], const void *data, size_t length_bytes);

#endif
