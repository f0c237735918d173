/* What follows the fate of the transactions that are open. */
#include <errno.h>

#include "alloc/internal.h"

void stake_init(struct alloc *alloc)
{
	for (unsigned slot = 0; slot < SLOT_COUNT; slot++) {
		alloc->stakes[slot].alloc = alloc;
		iset_init(&alloc->stakes[slot].taking);
		iset_init(&alloc->stakes[slot].giving);
	}
}

void stake_fini(struct alloc *alloc)
{
	for (unsigned slot = 0; slot < SLOT_COUNT; slot++) {
		iset_fini(&alloc->stakes[slot].taking);
		iset_fini(&alloc->stakes[slot].giving);
	}
}

static uint64_t stake_bit(const struct stake *stake)
{
	return 1ull << (stake - stake->alloc->stakes);
}

static void stake_follow(void *arg, bool committed, uint64_t sequence)
{
	struct stake *stake = arg;
	struct alloc *alloc = stake->alloc;

	lock_mutex(&alloc->mutex, LOCK_SPACE);
	if (committed) {
		busy_commit(&alloc->busy, &stake->giving, sequence);
		/* Room was made when it was taken. */
		for (size_t i = 0; i < stake->taking.count; i++)
			(void)iset_remove(&alloc->reserved, stake->taking.ranges[i].start,
					  stake->taking.ranges[i].end);
	}
	/* Keeps the memory, which is needed again at once. */
	stake->taking.count = stake->giving.count = 0;
	alloc->open &= ~stake_bit(stake);
	pthread_mutex_unlock(&alloc->mutex);
}

static bool sequence_is_durable(void *journal, uint64_t sequence)
{
	return tx_is_durable(journal, sequence);
}

void alloc_expire(struct alloc *alloc)
{
	busy_expire(&alloc->busy, sequence_is_durable, alloc->journal);
}

int stake_join(struct alloc *alloc, struct tx *tx, struct stake **out)
{
	struct stake *stake = &alloc->stakes[slot_mine()];
	int error;

	*out = stake;
	if (alloc->open & stake_bit(stake))
		return 0;
	/* Here too, else a long series of frees alone lets the set grow. */
	alloc_expire(alloc);
	error = tx_add_hook(tx, stake_follow, stake);
	if (error < 0)
		return error;
	alloc->open |= stake_bit(stake);
	stake->is_beside = tx_is_beside(tx);
	return 0;
}

/* --- room for what commits --- */

/* `more` ranges of it now, and those that the commits of all who are open split. */
static int reserved_make_room(struct alloc *alloc, size_t more)
{
	size_t count = alloc->reserved.count + more + 2;
	struct stake *stake;

	STAKE_FOREACH(alloc, stake)
		count += stake->taking.count;
	return iset_reserve(&alloc->reserved, count);
}

int reserved_add(struct alloc *alloc, const struct run *run)
{
	int error = reserved_make_room(alloc, 1);

	return error < 0 ? error : iset_add(&alloc->reserved, run->start, run_end(run), 0);
}

int stake_take(struct stake *stake, const struct run *run)
{
	int error = iset_add(&stake->taking, run->start, run_end(run), 0);

	return error < 0 ? error : reserved_make_room(stake->alloc, 0);
}

int stake_give(struct stake *mine, const struct run *run)
{
	struct alloc *alloc = mine->alloc;
	int error = iset_add(&mine->giving, run->start, run_end(run), 0);
	struct stake *stake;
	size_t count = 0;

	STAKE_FOREACH(alloc, stake)
		count += stake->giving.count;
	return error < 0 ? error : busy_reserve(&alloc->busy, count);
}

/* --- questions --- */

const struct iset_range *held_find(const struct alloc *alloc, blkno_t start, blkno_t end)
{
	const struct iset_range *first = busy_find(&alloc->busy, start, end);
	const struct stake *stake;

	STAKE_FOREACH(alloc, stake)
		first = range_first(first, iset_find(&stake->giving, start, end));
	return first;
}

const struct iset_range *unusable_find(const struct alloc *alloc, blkno_t start, blkno_t end)
{
	const struct iset_range *first = range_first(held_find(alloc, start, end),
						     iset_find(&alloc->reserved, start, end));
	const struct stake *stake;

	STAKE_FOREACH(alloc, stake)
		first = range_first(first, iset_find(&stake->taking, start, end));
	return first;
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

static uint64_t taking_reserved(const struct stake *stake)
{
	uint64_t blocks = 0;

	for (size_t i = 0; i < stake->taking.count; i++)
		blocks += reserved_within(stake->alloc, stake->taking.ranges[i].start,
					  stake->taking.ranges[i].end);
	return blocks;
}

/* What a transaction has taken is off the counter for itself, and for everybody else only when it has committed. */
uint64_t blocks_kept(const struct alloc *alloc, const struct stake *mine)
{
	uint64_t kept = iset_bytes(&alloc->reserved);
	const struct stake *stake;

	STAKE_FOREACH(alloc, stake) {
		uint64_t reserved = taking_reserved(stake);

		if (stake == mine)
			kept -= reserved;
		else
			kept += iset_bytes(&stake->taking) - reserved;
	}
	return kept;
}

bool count_is_uncertain(const struct alloc *alloc, const struct stake *mine)
{
	const struct stake *stake;

	STAKE_FOREACH(alloc, stake)
		if (stake != mine && stake->is_beside)
			return true;
	return false;
}
