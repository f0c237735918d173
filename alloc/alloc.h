/*
 * Which data blocks are free: the free tree (block -> length), and in DRAM the ranges that are busy: freed by a transaction that
 * is not durable yet, hence not to be given out. Units are 4 KiB blocks.
 *
 * Who may call what:
 *   alloc_take, alloc_take_exact, alloc_give, alloc_hold   within a transaction, also one beside others. What each has at stake is its own: nobody else gets or
 *                                                          counts on it, and its end settles just that. Beside others whatever is refused is refused by -EAGAIN
 *                                                          (or -EDEADLK), not as below: an error is certain only to who runs alone. After one, abort.
 *   alloc_reserve, alloc_reserve_next                      outside, the metadata lock not held
 *   alloc_unreserve, alloc_is_held, alloc_has_busy         anywhere
 *   alloc_walk, alloc_free_blocks, alloc_longest           the metadata lock held, or within any transaction
 *   alloc_grow                                             in a transaction that runs alone
 */
#ifndef ALLOC_ALLOC_H
#define ALLOC_ALLOC_H

#include "btree/btree.h"

struct alloc;

int alloc_create(struct journal *journal, struct alloc **out);
void alloc_destroy(struct alloc *alloc);
/* The device has this many blocks from now on, the new ones neither free nor owned yet. */
void alloc_grow(struct alloc *alloc, uint64_t total_blocks);
uint64_t alloc_total_blocks(const struct alloc *alloc);

struct alloc_request {
	blkno_t goal;	       /* take these first if free; 0: anywhere (a cursor of each thread, which rolls) */
	uint64_t want_blocks;  /* at most this many, as one run */
	uint64_t least_blocks; /* at least this many, else -ENOSPC; 1: whatever there is */
	uint64_t align_blocks; /* 1, or 512 for a start on 2 MiB when such a run exists */
	blkno_t not_before;    /* 0, or look from here first (spreading replicas far from primaries) */
	bool use_reserve;      /* deletes, repair, metadata growth: ignore the data reserve */
};
/*
 * Take one run out of the free tree. 0; -ENOSPC: nothing that is free and not busy (call journal_sync() outside the transaction and
 * try once more: alloc_has_busy() says whether that may help).
 */
int alloc_take(struct alloc *alloc, struct tx *tx, const struct alloc_request *request, blkno_t *start, uint64_t *count);
/*
 * Pick a run as alloc_take() would, without a transaction: it is set aside in DRAM only, so that data can be copied into it before
 * the transaction that names it. Takes the metadata lock shared by itself, or waits for those who run beside others where only that tells what is left. End it with alloc_take_exact() + commit, or alloc_unreserve(). With little wanted, what lies behind is kept for
 * this thread's next request, or anybody's who goes on there, until somebody would get less because of it: not set aside, as far as anybody can tell.
 */
int alloc_reserve(struct alloc *alloc, const struct alloc_request *request, blkno_t *start, uint64_t *count);
void alloc_unreserve(struct alloc *alloc, blkno_t start, uint64_t count);
/*
 * Go through what is free: set the next piece that is neither busy nor set aside aside, as alloc_reserve() does, whatever is kept in reserve; alloc_unreserve() ends it. `at` moves
 * behind it. Pieces shorter than least_blocks are passed over; longer than most_blocks, they come in parts; they start and end at multiples of align_blocks.
 * 0; -ENOENT: there is nothing more; -EAGAIN: enough was looked at for one hold of the lock, go on.
 */
struct alloc_search {
	blkno_t at, end;
	uint64_t least_blocks, most_blocks, align_blocks;
	blkno_t accepted_end; /* private; 0 at first */
};
int alloc_reserve_next(struct alloc *alloc, struct alloc_search *where, blkno_t *start, uint64_t *count);
/* Take exactly this range, which must be free: -EEXIST otherwise. Busy or reserved (by the caller)
 * or not; a reservation of it ends at commit and comes back at abort. */
int alloc_take_exact(struct alloc *alloc, struct tx *tx, blkno_t start, uint64_t count);
/* Give back; merges with neighbours; busy until the transaction is durable. -EUCLEAN when part of it is free already. */
int alloc_give(struct alloc *alloc, struct tx *tx, blkno_t start, uint64_t count);
/*
 * A transaction ends one owner's part in blocks that others go on using: until it is durable, a crash may bring that owner back, so whoever is left may not
 * overwrite them in place. Busy like given ones, though not free.
 */
int alloc_hold(struct alloc *alloc, struct tx *tx, blkno_t start, uint64_t count);
/* Is the start of this range held? *run: how many blocks are alike. */
bool alloc_is_held(struct alloc *alloc, blkno_t start, uint64_t count, uint64_t *run);
bool alloc_has_busy(struct alloc *alloc);
/* Visit the free runs that overlap [start, start + count), clipped. */
typedef int alloc_visit_fn(void *arg, blkno_t start, uint64_t count);
int alloc_walk(struct alloc *alloc, blkno_t start, uint64_t count, alloc_visit_fn *visit, void *arg);
uint64_t alloc_free_blocks(struct alloc *alloc); /* the counter, busy included */
/* Of these, kept for metadata and deletes: requests without use_reserve leave them alone. */
uint64_t alloc_reserve_blocks(const struct alloc *alloc);
uint64_t alloc_longest(struct alloc *alloc); /* free run, busy or not; 0 also when the tree cannot be read */
const struct btree *alloc_tree(struct alloc *alloc);

#endif
