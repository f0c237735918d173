/* The images that inputs spoil: 16 MiB each, made when the target starts. */
#ifndef TESTS_FUZZ_BASES_H
#define TESTS_FUZZ_BASES_H

#include "tests/fuzz/medium.h"
#include "tests/fuzz/places.h"

#define BASES 7u

struct base {
	const char *name;
	struct medium *medium;
	struct places *places;
};

/* Make them all; ends the program when one cannot be made. */
void bases_make(void);
const struct base *base_get(unsigned index);

#endif
