/* What each slot's threads have set aside, and what follows the fate of their transactions. */
#include <errno.h>

#include "alloc/internal.h"

/* Threads begin in different parts of the device, so that they take from different records and leaves of the tree. */
static blkno_t origin_of(const struct alloc *alloc, unsigned slot)
{
	unsigned reversed = 0;

	for (unsigned bit = 1; bit < SLOT_COUNT; bit *= 2)
		reversed = 2 * reversed + (slot & bit ? 1 : 0);
	return alloc->total_blocks / SLOT_COUNT * reversed;
}

void shares_init(struct alloc *alloc)
{
	for (unsigned slot = 0; slot < SLOT_COUNT; slot++) {
		struct share *share = &alloc->shares[slot];

		pthread_mutex_init(&share->mutex, NULL);
		share->alloc = alloc;
		share->cursor = origin_of(alloc, slot);
		iset_init(&share->reserved);
		iset_init(&share->taking);
		iset_init(&share->giving);
		busy_init(&share->busy);
	}
}

void shares_fini(struct alloc *alloc)
{
	for (unsigned slot = 0; slot < SLOT_COUNT; slot++) {
		struct share *share = &alloc->shares[slot];

		iset_fini(&share->reserved);
		iset_fini(&share->taking);
		iset_fini(&share->giving);
		busy_fini(&share->busy);
		pthread_mutex_destroy(&share->mutex);
	}
}

struct share *share_mine(struct alloc *alloc)
{
	return &alloc->shares[slot_mine()];
}

void share_lock(struct share *share)
{
	lock_mutex(&share->mutex, LOCK_SPACE);
}

void share_unlock(struct share *share)
{
	pthread_mutex_unlock(&share->mutex);
}

/* --- held until durable --- */

static bool sequence_is_durable(void *journal, uint64_t sequence)
{
	return tx_is_durable(journal, sequence);
}

static void share_set_holding(struct share *share)
{
	struct alloc *alloc = share->alloc;
	uint64_t bit = 1ull << (share - alloc->shares), old = atomic_load(&alloc->holding);
	bool holds = share->giving.count > 0 || !busy_is_empty(&share->busy);

	if (holds && !(old & bit))
		atomic_fetch_or(&alloc->holding, bit);
	if (!holds && old & bit)
		atomic_fetch_and(&alloc->holding, ~bit);
}

void share_expire(struct share *share)
{
	busy_expire(&share->busy, sequence_is_durable, share->alloc->journal);
	share_set_holding(share);
}

/* A thread that came later has raised slot_end before it locked the first one. */
void shares_lock(struct alloc *alloc)
{
	unsigned end;

	share_lock(&alloc->shares[0]);
	end = atomic_load(&slot_end);
	for (unsigned slot = 1; slot < end; slot++)
		share_lock(&alloc->shares[slot]);
	alloc->locked = max_u64(end, 1);
	for (unsigned slot = 0; slot < alloc->locked; slot++)
		share_expire(&alloc->shares[slot]);
}

void shares_unlock(struct alloc *alloc)
{
	for (unsigned slot = alloc->locked; slot-- > 0;)
		share_unlock(&alloc->shares[slot]);
}

/* --- the end of a transaction --- */

/* Those that this share had set aside itself, as is usual. Were all such? Room was made when they were taken. */
static bool share_end_reserved(struct share *share)
{
	bool all = true;

	for (size_t i = 0; i < share->taking.count; i++) {
		const struct iset_range *range = &share->taking.ranges[i];

		if (iset_covers(&share->reserved, range->start, range->end))
			(void)iset_remove(&share->reserved, range->start, range->end);
		else
			all = false;
	}
	return all;
}

/* Nobody but this thread changes what it takes. */
static void shares_end_reserved(struct share *mine)
{
	for (size_t i = 0; i < mine->taking.count; i++) {
		const struct iset_range *range = &mine->taking.ranges[i];

		reserved_remove(mine->alloc, &(struct run){range->start, range->end - range->start});
	}
}

static void share_follow(void *arg, bool committed, uint64_t sequence)
{
	struct share *share = arg;

	share_lock(share);
	if (committed && !share_end_reserved(share)) {
		share_unlock(share);
		shares_end_reserved(share);
		share_lock(share);
	}
	if (committed && !tx_is_durable(share->alloc->journal, sequence))
		busy_commit(&share->busy, &share->giving, sequence);
	/* Keeps the memory, which is needed again at once. */
	share->taking.count = share->giving.count = 0;
	share->is_open = false;
	share_set_holding(share);
	share_unlock(share);
}

int share_join(struct share *share, struct tx *tx)
{
	int error;

	if (share->is_open)
		return 0;
	/* Before what it frees is added to a generation that nothing else keeps. */
	share_expire(share);
	error = tx_add_hook(tx, share_follow, share);
	if (error < 0)
		return error;
	share->is_open = true;
	share->is_beside = tx_is_beside(tx);
	return 0;
}

int share_take(struct share *share, const struct run *run)
{
	int error = iset_add(&share->taking, run->start, run_end(run), 0);

	/* So that the commit needs no memory. */
	return error < 0 ? error
			 : iset_reserve(&share->reserved,
					share->reserved.count + share->taking.count + 2);
}

int share_give(struct share *share, const struct run *run)
{
	int error = iset_add(&share->giving, run->start, run_end(run), 0);

	share_set_holding(share);
	return error < 0 ? error : busy_reserve(&share->busy, share->giving.count);
}

/* --- set aside --- */

int share_reserve(struct share *share, const struct run *run)
{
	int error = iset_reserve(&share->reserved,
				 share->reserved.count + share->taking.count + 3);

	return error < 0 ? error : iset_add(&share->reserved, run->start, run_end(run), 0);
}

/* Without memory to split a range it stays set aside until unmount. */
void reserved_remove(struct alloc *alloc, const struct run *run)
{
	struct share *mine = share_mine(alloc);
	unsigned end = atomic_load(&slot_end);
	bool is_mine;

	share_lock(mine);
	is_mine = iset_covers(&mine->reserved, run->start, run_end(run));
	if (is_mine)
		(void)iset_remove(&mine->reserved, run->start, run_end(run));
	share_unlock(mine);
	for (unsigned slot = 0; slot < end && !is_mine; slot++) {
		share_lock(&alloc->shares[slot]);
		(void)iset_remove(&alloc->shares[slot].reserved, run->start, run_end(run));
		share_unlock(&alloc->shares[slot]);
	}
}

bool reserved_any(struct alloc *alloc)
{
	bool any = false;

	shares_lock(alloc);
	for (unsigned slot = 0; slot < alloc->locked; slot++)
		any |= alloc->shares[slot].reserved.count > 0;
	shares_unlock(alloc);
	return any;
}

const struct iset_range *share_find_held(const struct share *share, blkno_t start, blkno_t end)
{
	return range_first(busy_find(&share->busy, start, end), iset_find(&share->giving, start, end));
}
