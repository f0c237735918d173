/*
 * Which 2 MiB regions of a PAGE mapping were stored to since the last msync. Marking is lock-free
 * and done after the store: a mark set before it could be taken by a sync that runs between the
 * two.
 */
#ifndef MEDIA_DIRTY_H
#define MEDIA_DIRTY_H

#include <pthread.h>
#include <stdatomic.h>

#include "util/types.h"

struct dirty_sync {
	pthread_mutex_t lock; /* one msync at a time */
	int error;            /* sticky */
};

struct dirty {
	atomic_uint_fast64_t *words;
	size_t count_words;
	atomic_size_t used_words; /* none beyond was ever marked: there is room for a file that grows */
	atomic_bool
	    outside_mapping; /* bytes were written that an msync of the mapping does not reach */
	struct dirty_sync sync;
};

int dirty_init(struct dirty *dirty, uint64_t size_bytes);
void dirty_fini(struct dirty *dirty);
void dirty_mark(struct dirty *dirty, devoff_t offset, uint64_t length);
/* Everything may be dirty: the process that stored it died before it could sync. The next sync has to reach all of the file. */
void dirty_assume_all(struct dirty *dirty);
/* Take all marks: false when there are none, else the smallest range that covers them. */
bool dirty_take(struct dirty *dirty, devoff_t *start, devoff_t *end);

#endif
