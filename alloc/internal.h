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
 * Space set aside for the requests of one thread to come, so that they need neither a search nor a lock that others take. DRAM only, and given up
 * whenever somebody would get less because of it. Stored atomically: whoever looks for the one that a goal belongs to locks afterwards.
 */
struct window {
	_Atomic blkno_t start, end; /* what is left of it */
};
#define WINDOWS 4u /* the first for what has no goal, the others for ends of files that grow */

/* What belongs to the threads of one slot: each has at most one transaction open, and those that share a slot have none beside others. */
struct share {
	_Alignas(64) pthread_mutex_t mutex; /* the rest */
	struct alloc *alloc;
	blkno_t cursor;
	uint64_t count_moves; /* of it, away from others */
	struct window windows[WINDOWS];
	unsigned next_window;
	struct iset reserved; /* handed out, until it is taken or given up */
	struct busy busy;
	/* Of the open transaction: */
	bool is_open, is_beside;
	struct iset taking; /* still free for whoever sees what was committed */
	struct iset giving; /* or held: not to be used by anybody, and busy from the commit on */
};

struct alloc {
	struct journal *journal;
	struct btree tree;
	_Atomic uint64_t total_blocks;
	_Atomic uint64_t holding; /* bit by slot: whose share has something in `giving` or busy */
	unsigned locked;	  /* that many shares are, by who has locked them all; under the first one's mutex */
	struct share shares[SLOT_COUNT];
};

/* --- share.c --- */
void shares_init(struct alloc *alloc);
void shares_fini(struct alloc *alloc);
struct share *share_mine(struct alloc *alloc);
void share_lock(struct share *share);
void share_unlock(struct share *share);
/* All that there are: inside, nobody takes, gives or sets aside anything. What is no longer busy is forgotten. In a transaction or as a reader. */
void shares_lock(struct alloc *alloc);
void shares_unlock(struct alloc *alloc);
/* The rest with this one locked. It belongs to the transaction from now on, until that ends. 0, -ENOMEM. */
int share_join(struct share *share, struct tx *tx);
int share_take(struct share *share, const struct run *run);
int share_give(struct share *share, const struct run *run);
/* 0, -ENOMEM. */
int share_reserve(struct share *share, const struct run *run);
/* No longer set aside, whoever did it. None is locked. */
void reserved_remove(struct alloc *alloc, const struct run *run);
bool reserved_any(struct alloc *alloc);
void share_expire(struct share *share); /* what is durable by now is no longer busy */
/* The first range of it that overlaps [start, end) and is busy, or will be if its transaction commits; or NULL. It is locked. */
const struct iset_range *share_find_held(const struct share *share, blkno_t start, blkno_t end);

/* --- usable.c: what may be had; all shares are locked --- */
/* What is usable of [*at, end), the first piece of it; *at moves behind it. */
bool piece_next(const struct alloc *alloc, blkno_t *at, blkno_t end, struct run *piece);
/* Blocks that a request may have, what is set aside and the data reserve taken off. `mine` is of the caller's transaction, NULL: a reader. */
uint64_t blocks_available(const struct alloc *alloc, bool use_reserve, const struct share *mine);
/* Has somebody else a transaction that runs beside others: may the counter say already what is in his share as well? */
bool count_is_uncertain(const struct alloc *alloc, const struct share *mine);

/* --- window.c --- */
uint64_t window_blocks(const struct alloc *alloc); /* of a whole one; 0: this device is too small for any */
bool window_suits(const struct alloc *alloc, const struct alloc_request *request);
/* Set a run aside out of a window. No share is locked. Was there one? */
bool window_serve(struct alloc *alloc, const struct alloc_request *request, struct run *out);
/* All shares are locked: */
void window_make(struct share *mine, const struct alloc_request *request, const struct run *run); /* behind this run */
void windows_yield(struct alloc *alloc, struct share *mine, blkno_t goal); /* what this request may have itself */
bool windows_drop(struct alloc *alloc);			      /* all. Were there any? */
/* Does somebody else take space near this block? */
bool shares_are_near(const struct alloc *alloc, const struct share *mine, blkno_t at);
void share_move_away(struct share *share);
/* None is locked: somebody takes this run, whoever it was set aside for. */
void windows_forget(struct alloc *alloc, const struct run *run);

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

/* Choose a run for this request, within a transaction or as a reader. All shares are locked, and the metadata
 * lock is held unless the transaction runs beside others. 0, -ENOSPC, -EIO, -EUCLEAN. */
int pick_run(const struct alloc *alloc, const struct alloc_request *request, blkno_t cursor,
	     uint64_t available, struct run *out);

#endif
