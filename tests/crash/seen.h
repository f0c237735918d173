/* A set of 64-bit hashes. */
#ifndef TESTS_CRASH_SEEN_H
#define TESTS_CRASH_SEEN_H

#include "util/types.h"

struct seen {
	uint64_t *slots; /* 0: empty */
	size_t count, capacity;
};

void seen_fini(struct seen *seen);
/* true: it was not in yet, and now is. Out of memory: always true. */
bool seen_add(struct seen *seen, uint64_t hash);

#endif
