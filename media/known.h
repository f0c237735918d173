/* The known-bad set: asked before every access. */
#ifndef MEDIA_KNOWN_H
#define MEDIA_KNOWN_H

#include <pthread.h>
#include <stdatomic.h>

#include "util/iset.h"

struct known {
	atomic_size_t count; /* ranges in the set, readable without the lock */
	pthread_rwlock_t lock;
	struct iset set;
	struct iset consumed; /* what was run into; within the set but for what memory was too short to remember */
};

int known_init(struct known *known);
void known_fini(struct known *known);
/* *is_new: some byte of the range was not known before. */
int known_add(struct known *known, uint64_t start, uint64_t end, bool *is_new);
/* The same for what was run into. *is_first: nobody had before, whether it was known or not (a list may be faster than the signal). */
int known_consume(struct known *known, uint64_t start, uint64_t end, bool *is_new, bool *is_first);
int known_remove(struct known *known, uint64_t start, uint64_t end);
/* The first known range that overlaps, clipped to [start, end). */
bool known_find(struct known *known, uint64_t start, uint64_t end, uint64_t *bad_start,
		uint64_t *bad_end);

static inline bool known_any(const struct known *known)
{
	return atomic_load_explicit(&known->count, memory_order_acquire) != 0;
}

#endif
