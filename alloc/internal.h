/* What the files of this folder share. */
#ifndef ALLOC_INTERNAL_H
#define ALLOC_INTERNAL_H

#include <pthread.h>

#include "alloc/alloc.h"
#include "alloc/busy.h"
#include "util/lock.h"
#include "util/slot.h"

struct run {
	blkno_t start;
	uint64_t count;
};

static inline blkno_t run_end(const struct run *run)
{
	return run->start + run->count;
}

/*
 * What an open transaction has taken and given back. One for each slot: a thread has at most one transaction open, and threads that share
 * a slot have none beside others.
 */
struct stake {
	struct alloc *alloc;
	bool is_beside;
	struct iset taking; /* still free for whoever sees what was committed */
	struct iset giving; /* or held: not to be used by anybody, and busy from the commit on */
};

struct alloc {
	struct journal *journal;
	struct btree tree;
	_Atomic uint64_t total_blocks;

	pthread_mutex_t mutex; /* the rest; taken inside the metadata lock */
	blkno_t cursor;
	struct busy busy;
	struct iset reserved;
	uint64_t open; /* bit by slot: whose transaction has something at stake */
	struct stake stakes[SLOT_COUNT];
};

/* Visit what is at stake, in order of the slots. */
#define STAKE_FOREACH(alloc, at)                                                                   \
	for (uint64_t bits_left = (alloc)->open;                                                     \
	     bits_left && ((at) = &(alloc)->stakes[__builtin_ctzll(bits_left)], true);              \
	     bits_left &= bits_left - 1)

/* --- stake.c; the mutex is held --- */
void stake_init(struct alloc *alloc);
void stake_fini(struct alloc *alloc);
/* Of the caller's transaction, from now on with it until its end. 0, -ENOMEM. */
int stake_join(struct alloc *alloc, struct tx *tx, struct stake **out);
int stake_take(struct stake *stake, const struct run *run);
int stake_give(struct stake *stake, const struct run *run);
/* Set aside; the commits of those who take what is set aside need no memory. 0, -ENOMEM. */
int reserved_add(struct alloc *alloc, const struct run *run);
/* The first range that overlaps [start, end) and is busy, or will be if its transaction commits; or NULL. */
const struct iset_range *held_find(const struct alloc *alloc, blkno_t start, blkno_t end);
/* The first one that nobody may have. */
const struct iset_range *unusable_find(const struct alloc *alloc, blkno_t start, blkno_t end);
/* Free blocks, by the counter as the caller sees it, that are not to be had: `mine` is what its own transaction has at stake, or NULL. */
uint64_t blocks_kept(const struct alloc *alloc, const struct stake *mine);
/* Has somebody else a transaction that runs beside others: may the counter say already what is at stake here as well? */
bool count_is_uncertain(const struct alloc *alloc, const struct stake *mine);
/* What is durable by now is no longer busy. */
void alloc_expire(struct alloc *alloc);

/* The free tree: which runs there are, whoever may have them. */
extern const struct btree_ops free_ops;
/* The lowest length of which inner nodes say the same as of this one. */
uint64_t free_length_floor(uint64_t count);
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

/* Choose a run for this request, within a transaction (`mine`) or as a reader (NULL). The mutex is held, and the metadata
 * lock unless the transaction runs beside others. 0, -ENOSPC, -EIO, -EUCLEAN. */
int pick_run(const struct alloc *alloc, const struct alloc_request *request,
	     const struct stake *mine, struct run *out);

#endif
