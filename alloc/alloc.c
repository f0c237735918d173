#include "alloc/alloc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "alloc/internal.h"
#include "journal/root.h"

int alloc_create(struct journal *journal, struct alloc **out)
{
	struct alloc *alloc = calloc(1, sizeof(*alloc));

	if (!alloc)
		return -ENOMEM;
	alloc->journal = journal;
	alloc->total_blocks = journal_super(journal)->size_bytes / BLOCK_BYTES;
	btree_init(&alloc->tree, journal, &free_ops);
	pthread_mutex_init(&alloc->mutex, NULL);
	busy_init(&alloc->busy);
	iset_init(&alloc->reserved);
	stake_init(alloc);
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
	busy_fini(&alloc->busy);
	iset_fini(&alloc->reserved);
	stake_fini(alloc);
	pthread_mutex_destroy(&alloc->mutex);
	free(alloc);
}

/* --- take --- */

/* Beside others what is seen may be out of date, or another's part of it taken off twice: only who runs alone can be refused for good. */
static int refuse(const struct tx *tx, int error)
{
	return error < 0 && error != -EDEADLK && tx_is_beside(tx) ? -EAGAIN : error;
}

/* Choose, with what is no longer busy counted in; the mutex is held. */
static int alloc_pick(struct alloc *alloc, const struct alloc_request *request,
		      const struct stake *mine, struct run *out)
{
	int error;

	alloc_expire(alloc);
	error = pick_run(alloc, request, mine, out);
	if (error == 0 && request->goal == 0 && request->not_before == 0)
		alloc->cursor = run_end(out);
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
	struct stake *mine;
	struct run run;
	int error;

	lock_mutex(&alloc->mutex, LOCK_SPACE);
	error = stake_join(alloc, tx, &mine);
	if (error == 0)
		error = alloc_pick(alloc, request, mine, &run);
	if (error == 0)
		error = stake_take(mine, &run);
	pthread_mutex_unlock(&alloc->mutex);
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
	int error;

	lock_mutex(&alloc->mutex, LOCK_SPACE);
	error = alloc_pick(alloc, request, NULL, run);
	if (error == 0)
		error = reserved_add(alloc, run);
	*uncertain = count_is_uncertain(alloc, NULL);
	pthread_mutex_unlock(&alloc->mutex);
	return error;
}

/* Between what others show and what they no longer have at stake. Nothing is changed. */
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

int alloc_reserve(struct alloc *alloc, const struct alloc_request *request, blkno_t *start,
		  uint64_t *count)
{
	bool uncertain;
	struct run run;
	int error;

	journal_read_begin(alloc->journal);
	error = reserve_run(alloc, request, &run, &uncertain);
	journal_read_end(alloc->journal);
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
	lock_mutex(&alloc->mutex, LOCK_SPACE);
	/* Without memory to split a range it stays set aside until unmount. */
	(void)iset_remove(&alloc->reserved, start, start + count);
	pthread_mutex_unlock(&alloc->mutex);
}

static bool range_is_sane(const struct alloc *alloc, blkno_t start, uint64_t count)
{
	return count > 0 && count <= alloc->total_blocks && start <= alloc->total_blocks - count;
}

int alloc_take_exact(struct alloc *alloc, struct tx *tx, blkno_t start, uint64_t count)
{
	struct run run = {start, count};
	struct stake *mine;
	int error;

	if (!range_is_sane(alloc, start, count))
		return refuse(tx, -EUCLEAN);
	/* Readers see it free until the commit: none may reserve it from now on. */
	lock_mutex(&alloc->mutex, LOCK_SPACE);
	error = stake_join(alloc, tx, &mine);
	if (error == 0)
		error = stake_take(mine, &run);
	pthread_mutex_unlock(&alloc->mutex);
	if (error == 0)
		error = alloc_remove(alloc, tx, &run);
	return refuse(tx, error);
}

/* --- give --- */

int alloc_hold(struct alloc *alloc, struct tx *tx, blkno_t start, uint64_t count)
{
	struct run run = {start, count};
	struct stake *mine;
	int error;

	lock_mutex(&alloc->mutex, LOCK_SPACE);
	error = stake_join(alloc, tx, &mine);
	if (error == 0)
		error = stake_give(mine, &run);
	pthread_mutex_unlock(&alloc->mutex);
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

bool alloc_is_held(struct alloc *alloc, blkno_t start, uint64_t count, uint64_t *run)
{
	const struct iset_range *range;
	bool held;

	lock_mutex(&alloc->mutex, LOCK_SPACE);
	alloc_expire(alloc);
	range = held_find(alloc, start, start + count);
	held = range && range->start <= start;
	*run = count;
	if (range)
		*run = min_u64(count, (held ? range->end : range->start) - start);
	pthread_mutex_unlock(&alloc->mutex);
	return held;
}

bool alloc_has_busy(struct alloc *alloc)
{
	bool busy;

	lock_mutex(&alloc->mutex, LOCK_SPACE);
	alloc_expire(alloc);
	busy = held_find(alloc, 0, UINT64_MAX);
	pthread_mutex_unlock(&alloc->mutex);
	return busy;
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
