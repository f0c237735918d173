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
	iset_init(&alloc->taking);
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
	iset_fini(&alloc->taking);
	free(alloc->taken);
	pthread_mutex_destroy(&alloc->mutex);
	free(alloc);
}

/* --- what follows the fate of the transaction --- */

static void taken_forget(struct alloc *alloc)
{
	alloc->taken_count = 0;
	alloc->taking.count = 0; /* keeps the memory, which is needed again at once */
	alloc->taken_reserved_blocks = 0;
	alloc->hooked = false;
}

static void alloc_follow(void *arg, bool committed, uint64_t sequence)
{
	struct alloc *alloc = arg;

	lock_mutex(&alloc->mutex, LOCK_SPACE);
	if (committed) {
		busy_commit(&alloc->busy, sequence);
		/* Room was made by taken_add(). */
		for (size_t i = 0; i < alloc->taken_count; i++)
			(void)iset_remove(&alloc->reserved, alloc->taken[i].start,
					  run_end(&alloc->taken[i]));
	} else {
		busy_abort(&alloc->busy);
	}
	taken_forget(alloc);
	pthread_mutex_unlock(&alloc->mutex);
}

bool sequence_is_durable(void *journal, uint64_t sequence)
{
	return tx_is_durable(journal, sequence);
}

static int alloc_hook(struct alloc *alloc, struct tx *tx)
{
	int error;

	if (alloc->hooked)
		return 0;
	/* Here too, else a long series of frees alone lets the set grow. */
	busy_expire(&alloc->busy, sequence_is_durable, alloc->journal);
	error = tx_add_hook(tx, alloc_follow, alloc);
	alloc->hooked = error == 0;
	return error;
}

static uint64_t reserved_within(const struct alloc *alloc, blkno_t start, blkno_t end)
{
	uint64_t blocks = 0;

	for (;;) {
		const struct iset_range *range = iset_find(&alloc->reserved, start, end);

		if (!range)
			return blocks;
		blocks += min_u64(range->end, end) - max_u64(range->start, start);
		if (range->end >= end)
			return blocks;
		start = range->end;
	}
}

static int taken_reserve(struct alloc *alloc)
{
	size_t capacity = alloc->taken_capacity > 0 ? alloc->taken_capacity * 2 : 16;
	struct run *taken;

	if (alloc->taken_count < alloc->taken_capacity)
		return 0;
	taken = reallocarray(alloc->taken, capacity, sizeof(*taken));
	if (!taken)
		return -ENOMEM;
	alloc->taken = taken;
	alloc->taken_capacity = capacity;
	return 0;
}

static int taken_add(struct alloc *alloc, struct tx *tx, const struct run *run)
{
	int error = alloc_hook(alloc, tx);

	if (error == 0)
		error = taken_reserve(alloc);
	if (error == 0)
		error =
		    iset_reserve(&alloc->reserved, alloc->reserved.count + alloc->taken_count + 1);
	if (error < 0)
		return error;
	alloc->taken[alloc->taken_count++] = *run;
	alloc->taken_reserved_blocks += reserved_within(alloc, run->start, run_end(run));
	return 0;
}

/* --- take --- */

/* Choose, with what is no longer busy counted in; the mutex is held. */
static int alloc_pick(struct alloc *alloc, const struct alloc_request *request, bool in_tx,
		      struct run *out)
{
	int error;

	busy_expire(&alloc->busy, sequence_is_durable, alloc->journal);
	error = pick_run(alloc, request, in_tx, out);
	if (error == 0 && request->goal == 0 && request->not_before == 0)
		alloc->cursor = run_end(out);
	return error;
}

static int alloc_remove(struct alloc *alloc, struct tx *tx, const struct run *whole,
			const struct run *part)
{
	int error = free_carve(alloc, tx, whole, part);

	return error < 0 ? error : root_add(tx, ROOT_FREE_BLOCKS, -(int64_t)part->count);
}

int alloc_take(struct alloc *alloc, struct tx *tx, const struct alloc_request *request,
	       blkno_t *start, uint64_t *count)
{
	struct run run, whole;
	int error;

	lock_mutex(&alloc->mutex, LOCK_SPACE);
	error = alloc_hook(alloc, tx);
	if (error == 0)
		error = alloc_pick(alloc, request, true, &run);
	if (error == 0)
		error = iset_add(&alloc->taking, run.start, run_end(&run), 0);
	pthread_mutex_unlock(&alloc->mutex);
	if (error == 0)
		error = free_find(alloc, run.start, &whole);
	if (error == 0)
		error = alloc_remove(alloc, tx, &whole, &run);
	if (error < 0)
		return error;
	*start = run.start;
	*count = run.count;
	return 0;
}

int alloc_reserve(struct alloc *alloc, const struct alloc_request *request, blkno_t *start,
		  uint64_t *count)
{
	struct run run;
	int error;

	journal_read_begin(alloc->journal);
	lock_mutex(&alloc->mutex, LOCK_SPACE);
	error = alloc_pick(alloc, request, false, &run);
	if (error == 0)
		error = iset_add(&alloc->reserved, run.start, run_end(&run), 0);
	pthread_mutex_unlock(&alloc->mutex);
	journal_read_end(alloc->journal);
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
	struct run run = {start, count}, whole;
	int error;

	if (!range_is_sane(alloc, start, count))
		return -EUCLEAN;
	/* Readers see it free until the commit: none may reserve it from now on. */
	lock_mutex(&alloc->mutex, LOCK_SPACE);
	error = alloc_hook(alloc, tx);
	if (error == 0)
		error = iset_add(&alloc->taking, start, run_end(&run), 0);
	pthread_mutex_unlock(&alloc->mutex);
	if (error < 0)
		return error;
	error = free_find(alloc, start, &whole);
	if (error == -ENOENT || (error == 0 && run_end(&whole) < run_end(&run)))
		return -EEXIST;
	if (error == 0)
		error = alloc_remove(alloc, tx, &whole, &run);
	if (error < 0)
		return error;
	lock_mutex(&alloc->mutex, LOCK_SPACE);
	error = taken_add(alloc, tx, &run);
	pthread_mutex_unlock(&alloc->mutex);
	return error;
}

/* --- give --- */

int alloc_hold(struct alloc *alloc, struct tx *tx, blkno_t start, uint64_t count)
{
	int error;

	lock_mutex(&alloc->mutex, LOCK_SPACE);
	error = alloc_hook(alloc, tx);
	if (error == 0)
		error = busy_add(&alloc->busy, start, start + count);
	pthread_mutex_unlock(&alloc->mutex);
	return error;
}

int alloc_give(struct alloc *alloc, struct tx *tx, blkno_t start, uint64_t count)
{
	struct run run = {start, count};
	int error;

	if (!range_is_sane(alloc, start, count))
		return -EUCLEAN;
	error = free_merge(alloc, tx, &run);
	if (error == 0)
		error = root_add(tx, ROOT_FREE_BLOCKS, (int64_t)count);
	return error < 0 ? error : alloc_hold(alloc, tx, start, count);
}

/* --- questions --- */

bool alloc_is_held(struct alloc *alloc, blkno_t start, uint64_t count, uint64_t *run)
{
	const struct iset_range *range;
	bool held;

	lock_mutex(&alloc->mutex, LOCK_SPACE);
	busy_expire(&alloc->busy, sequence_is_durable, alloc->journal);
	range = busy_find(&alloc->busy, start, start + count);
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
	busy_expire(&alloc->busy, sequence_is_durable, alloc->journal);
	busy = !busy_is_empty(&alloc->busy);
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
