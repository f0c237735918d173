#include "alloc/alloc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "alloc/internal.h"
#include "journal/root.h"

#define APART_TRIES 4u

int alloc_create(struct journal *journal, struct alloc **out)
{
	struct alloc *alloc = aligned_alloc(_Alignof(struct alloc), sizeof(*alloc));

	if (!alloc)
		return -ENOMEM;
	memset(alloc, 0, sizeof(*alloc));
	alloc->journal = journal;
	alloc->total_blocks = journal_super(journal)->size_bytes / BLOCK_BYTES;
	btree_init(&alloc->tree, journal, &free_ops);
	shares_init(alloc);
	*out = alloc;
	return 0;
}

void alloc_grow(struct alloc *alloc, uint64_t total_blocks)
{
	if (total_blocks > alloc->total_blocks)
		alloc->total_blocks = total_blocks;
}

uint64_t alloc_total_blocks(const struct alloc *alloc)
{
	return alloc->total_blocks;
}

void alloc_destroy(struct alloc *alloc)
{
	if (!alloc)
		return;
	shares_fini(alloc);
	free(alloc);
}

/* --- take --- */

/* Beside others what is seen may be out of date, or another's part of it taken off twice: only who runs alone can be refused for good. */
static int refuse(const struct tx *tx, int error)
{
	return error < 0 && error != -EDEADLK && tx_is_beside(tx) ? -EAGAIN : error;
}

/* As good as it could be, if nothing were set aside for requests to come? */
static bool is_all_wanted(const struct alloc_request *request, int error, const struct run *run)
{
	if (error < 0)
		return error != -ENOSPC;
	return run->count >= request->want_blocks &&
	       (request->align_blocks <= 1 || run->start % request->align_blocks == 0);
}

/* All shares are locked; `tx` is of the caller's transaction, NULL: a reader. */
static int pick_from(struct alloc *alloc, const struct alloc_request *request, blkno_t cursor,
		     const struct share *tx, struct run *out)
{
	int error;

	do
		error = pick_run(alloc, request, cursor,
				 blocks_available(alloc, request->use_reserve, tx), out);
	while (!is_all_wanted(request, error, out) && windows_drop(alloc));
	return error;
}

/* Threads that have come near each other would stay so: whatever the one passes over because the other has it, it goes on right behind. */
static void pick_apart(struct alloc *alloc, const struct alloc_request *request, struct share *mine,
		       const struct share *tx, struct run *out)
{
	struct run other;

	for (unsigned i = 0; i < APART_TRIES && shares_are_near(alloc, mine, out->start); i++) {
		share_move_away(mine);
		if (!pick_from(alloc, request, mine->cursor, tx, &other) && other.count >= out->count)
			*out = other;
	}
}

static int alloc_pick(struct alloc *alloc, const struct alloc_request *request,
		      const struct share *tx, struct run *out)
{
	/* On a small device all threads go on where the last one was. */
	struct share *mine = window_blocks(alloc) > 0 ? share_mine(alloc) : &alloc->shares[0];
	bool follows = request->goal > 0 || request->not_before > 0;
	int error;

	windows_yield(alloc, mine, request->goal);
	error = pick_from(alloc, request, mine->cursor, tx, out);
	if (error == 0 && !follows && window_suits(alloc, request))
		pick_apart(alloc, request, mine, tx, out);
	if (error == 0 && !follows)
		mine->cursor = run_end(out);
	return error;
}

static int alloc_remove(struct alloc *alloc, struct tx *tx, const struct run *run)
{
	struct run whole;
	int error = free_find(alloc, run->start, &whole);

	if (error == -ENOENT || (error == 0 && run_end(&whole) < run_end(run)))
		return -EEXIST;
	if (error == 0)
		error = free_carve(alloc, tx, &whole, run);
	return error < 0 ? error : root_add(tx, ROOT_FREE_BLOCKS, -(int64_t)run->count);
}

int alloc_take(struct alloc *alloc, struct tx *tx, const struct alloc_request *request,
	       blkno_t *start, uint64_t *count)
{
	struct share *mine = share_mine(alloc);
	struct run run;
	int error;

	shares_lock(alloc);
	error = share_join(mine, tx);
	if (error == 0)
		error = alloc_pick(alloc, request, mine, &run);
	if (error == 0)
		error = share_take(mine, &run);
	shares_unlock(alloc);
	if (error == 0)
		error = alloc_remove(alloc, tx, &run);
	if (error < 0)
		return refuse(tx, error);
	*start = run.start;
	*count = run.count;
	return 0;
}

/* By who keeps others away or is one of the readers. *uncertain: there may be more than it seems. */
static int reserve_run(struct alloc *alloc, const struct alloc_request *request, struct run *run,
		       bool *uncertain)
{
	struct share *mine = share_mine(alloc);
	int error;

	shares_lock(alloc);
	error = alloc_pick(alloc, request, NULL, run);
	if (error == 0)
		error = share_reserve(mine, run);
	if (error == 0 && window_suits(alloc, request))
		window_make(mine, request, run);
	*uncertain = count_is_uncertain(alloc, NULL);
	shares_unlock(alloc);
	return error;
}

/* Others may have shown what they took and still have it in their shares. Nothing is changed. */
static int reserve_alone(struct alloc *alloc, const struct alloc_request *request, struct run *run)
{
	bool uncertain;
	struct tx *tx;
	int error = tx_begin(alloc->journal, TX_RESERVE, &tx);

	if (error < 0)
		return error;
	error = reserve_run(alloc, request, run, &uncertain);
	tx_abort(tx);
	return error;
}

/* Where the goal is not free, what is behind it is no better than the thread's own window, which nobody else is after. */
static int reserve_reading(struct alloc *alloc, struct alloc_request *request, struct run *run,
			   bool *uncertain)
{
	struct run whole;
	int error = 0;

	journal_read_begin(alloc->journal);
	if (window_suits(alloc, request) && request->goal > 0 &&
	    free_find(alloc, request->goal, &whole) == -ENOENT)
		request->goal = 0;
	if (request->goal > 0 || !window_suits(alloc, request) || !window_serve(alloc, request, run))
		error = reserve_run(alloc, request, run, uncertain);
	journal_read_end(alloc->journal);
	return error;
}

int alloc_reserve(struct alloc *alloc, const struct alloc_request *request, blkno_t *start,
		  uint64_t *count)
{
	struct alloc_request asked = *request;
	bool uncertain = false;
	struct run run;
	int error = 0;

	if (!window_suits(alloc, request) || !window_serve(alloc, request, &run))
		error = reserve_reading(alloc, &asked, &run, &uncertain);
	if (error == -ENOSPC && uncertain)
		error = reserve_alone(alloc, request, &run);
	if (error < 0)
		return error;
	*start = run.start;
	*count = run.count;
	return 0;
}

void alloc_unreserve(struct alloc *alloc, blkno_t start, uint64_t count)
{
	reserved_remove(alloc, &(struct run){start, count});
}

static bool range_is_sane(const struct alloc *alloc, blkno_t start, uint64_t count)
{
	return count > 0 && count <= alloc->total_blocks && start <= alloc->total_blocks - count;
}

int alloc_take_exact(struct alloc *alloc, struct tx *tx, blkno_t start, uint64_t count)
{
	struct share *mine = share_mine(alloc);
	struct run run = {start, count};
	bool is_mine;
	int error;

	if (!range_is_sane(alloc, start, count))
		return refuse(tx, -EUCLEAN);
	/* Readers see it free until the commit: none may reserve it from now on. */
	share_lock(mine);
	error = share_join(mine, tx);
	if (error == 0)
		error = share_take(mine, &run);
	is_mine = iset_covers(&mine->reserved, start, run_end(&run));
	share_unlock(mine);
	if (!is_mine)
		windows_forget(alloc, &run);
	if (error == 0)
		error = alloc_remove(alloc, tx, &run);
	return refuse(tx, error);
}

/* --- give --- */

int alloc_hold(struct alloc *alloc, struct tx *tx, blkno_t start, uint64_t count)
{
	struct share *mine = share_mine(alloc);
	struct run run = {start, count};
	int error;

	share_lock(mine);
	error = share_join(mine, tx);
	if (error == 0)
		error = share_give(mine, &run);
	share_unlock(mine);
	return refuse(tx, error);
}

int alloc_give(struct alloc *alloc, struct tx *tx, blkno_t start, uint64_t count)
{
	struct run run = {start, count};
	int error;

	if (!range_is_sane(alloc, start, count))
		return refuse(tx, -EUCLEAN);
	error = free_merge(alloc, tx, &run);
	if (error == 0)
		error = root_add(tx, ROOT_FREE_BLOCKS, (int64_t)count);
	return error < 0 ? refuse(tx, error) : alloc_hold(alloc, tx, start, count);
}

/* --- questions --- */

/* What two shares hold of it one behind the other is told of in two parts. */
static void share_ask_held(struct share *share, struct iset_range *first, blkno_t start, blkno_t end)
{
	const struct iset_range *range;

	share_lock(share);
	share_expire(share);
	range = share_find_held(share, start, end);
	if (range && range->start < first->start)
		*first = *range;
	share_unlock(share);
}

static struct iset_range held_find(struct alloc *alloc, blkno_t start, blkno_t end)
{
	struct iset_range first = {end, end, 0};

	for (uint64_t bits = atomic_load(&alloc->holding); bits; bits &= bits - 1)
		share_ask_held(&alloc->shares[__builtin_ctzll(bits)], &first, start, end);
	return first;
}

bool alloc_is_held(struct alloc *alloc, blkno_t start, uint64_t count, uint64_t *run)
{
	struct iset_range range = held_find(alloc, start, start + count);
	bool held = range.start <= start;

	*run = min_u64(count, (held ? range.end : range.start) - start);
	return held;
}

bool alloc_has_busy(struct alloc *alloc)
{
	return held_find(alloc, 0, UINT64_MAX).start < UINT64_MAX;
}

struct free_walk {
	const struct alloc *alloc;
	blkno_t start, end;
	alloc_visit_fn *visit;
	void *arg;
};

static int free_walk_visit(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	const struct free_walk *walk = arg;
	blkno_t first;
	struct run run;
	int error = free_unpack(walk->alloc, &run, key, value, length);

	if (error < 0)
		return error;
	first = max_u64(run.start, walk->start);
	return walk->visit(walk->arg, first, min_u64(run_end(&run), walk->end) - first);
}

int alloc_walk(struct alloc *alloc, blkno_t start, uint64_t count, alloc_visit_fn *visit, void *arg)
{
	struct free_walk walk = {alloc, start, start + count, visit, arg};
	struct btree_key from = {{start}}, to = {{walk.end - 1}};
	struct run run;
	int error;

	if (walk.end <= start)
		return count > 0 ? -ERANGE : 0;
	error = free_find(alloc, start, &run);
	if (error == 0)
		from.word[0] = run.start;
	else if (error != -ENOENT)
		return error;
	return btree_walk(&alloc->tree, &from, &to, free_walk_visit, &walk);
}

uint64_t alloc_free_blocks(struct alloc *alloc)
{
	return root_get(alloc->journal, ROOT_FREE_BLOCKS);
}

uint64_t alloc_reserve_blocks(const struct alloc *alloc)
{
	return max_u64(64, alloc->total_blocks / 512);
}

uint64_t alloc_longest(struct alloc *alloc)
{
	uint64_t longest;

	return btree_max_aggregate(&alloc->tree, &longest) < 0 ? 0 : longest;
}

const struct btree *alloc_tree(struct alloc *alloc)
{
	return &alloc->tree;
}
