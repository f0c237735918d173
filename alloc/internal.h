/* What the files of this folder share. */
#ifndef ALLOC_INTERNAL_H
#define ALLOC_INTERNAL_H

#include <pthread.h>

#include "alloc/alloc.h"
#include "alloc/busy.h"
#include "util/lock.h"

struct run {
	blkno_t start;
	uint64_t count;
};

static inline blkno_t run_end(const struct run *run)
{
	return run->start + run->count;
}

struct alloc {
	struct journal *journal;
	struct btree tree;
	_Atomic uint64_t total_blocks;

	pthread_mutex_t mutex; /* the rest; taken inside the metadata lock */
	blkno_t cursor;
	struct busy busy;
	struct iset reserved;
	struct iset taking; /* by the open transaction: still free for whoever sees what was committed */
	/* Of the open transaction: */
	bool hooked;
	struct run *taken; /* by alloc_take_exact(): reservations of it end at commit */
	size_t taken_count, taken_capacity;
	uint64_t taken_reserved_blocks; /* how much of that is still in `reserved` */
};

/* The free tree: which runs there are, whoever may have them. */
extern const struct btree_ops free_ops;
/* The run that holds this block. 0, -ENOENT; -EUCLEAN: not a run of this device. */
int free_find(const struct alloc *alloc, blkno_t block, struct run *out);
int free_unpack(const struct alloc *alloc, struct run *to, const struct btree_key *key,
		const void *value, size_t length);
/* Take `part` out of the run `whole`. */
int free_carve(const struct alloc *alloc, struct tx *tx, const struct run *whole,
	       const struct run *part);
/* Put a run in. -EUCLEAN when some of it is there. */
int free_merge(const struct alloc *alloc, struct tx *tx, const struct run *run);

/* What is neither busy nor reserved of [*at, end), the first piece of it; *at moves behind it. The mutex is held. */
bool piece_next(const struct alloc *alloc, blkno_t *at, blkno_t end, struct run *piece);
bool sequence_is_durable(void *journal, uint64_t sequence); /* for busy_expire() */

/* Choose a run for this request, within a transaction or as a reader. The mutex and the metadata
 * lock are held. 0, -ENOSPC, -EIO, -EUCLEAN. */
int pick_run(const struct alloc *alloc, const struct alloc_request *request, bool in_tx,
	     struct run *out);

#endif
