/* SipHash-2-4 (Aumasson, Bernstein 2012): a keyed 64-bit hash that nobody who lacks the key can foretell. Input in whole words. */
#ifndef UTIL_SIPHASH_H
#define UTIL_SIPHASH_H

#include "util/types.h"

struct siphash_key {
	uint64_t word[2];
};

uint64_t siphash(const struct siphash_key *key, const uint64_t *words, size_t count_words);

#endif
