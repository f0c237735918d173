/* What of the free blocks may be had. All shares are locked. */
#include "alloc/internal.h"
#include "journal/root.h"

/* The first range that nobody may have: it overlaps [.., first->start), where first->start is the end of what was asked about as long as none was found. */
static void range_take_first(struct iset_range *first, const struct iset_range *range)
{
	if (range && range->start < first->start)
		*first = *range;
}

static void window_find(const struct share *share, blkno_t start, blkno_t end,
			struct iset_range *first)
{
	for (unsigned i = 0; i < WINDOWS; i++) {
		struct iset_range range = {share->windows[i].start, share->windows[i].end, 0};

		if (range.start < range.end && range.start < end && range.end > start)
			range_take_first(first, &range);
	}
}

static void unusable_find(const struct alloc *alloc, blkno_t start, blkno_t end,
			  struct iset_range *first)
{
	*first = (struct iset_range){end, end, 0};
	for (unsigned slot = 0; slot < alloc->locked; slot++) {
		const struct share *share = &alloc->shares[slot];

		range_take_first(first, share_find_held(share, start, end));
		range_take_first(first, iset_find(&share->reserved, start, end));
		range_take_first(first, iset_find(&share->taking, start, end));
		window_find(share, start, end, first);
	}
}

bool piece_next(const struct alloc *alloc, blkno_t *at, blkno_t end, struct run *piece)
{
	while (*at < end) {
		struct iset_range first;

		unusable_find(alloc, *at, end, &first);
		if (first.start > *at) {
			piece->start = *at;
			piece->count = first.start - *at;
			*at = first.end;
			return true;
		}
		*at = first.end;
	}
	return false;
}

static uint64_t reserved_within(const struct share *share, blkno_t start, blkno_t end)
{
	uint64_t blocks = 0;

	for (;;) {
		const struct iset_range *range = iset_find(&share->reserved, start, end);

		if (!range)
			return blocks;
		blocks += min_u64(range->end, end) - max_u64(range->start, start);
		if (range->end >= end)
			return blocks;
		start = range->end;
	}
}

/* How much of what it takes somebody had set aside. */
static uint64_t taking_reserved(const struct share *share)
{
	const struct alloc *alloc = share->alloc;
	uint64_t blocks = 0;

	for (size_t i = 0; i < share->taking.count; i++)
		for (unsigned slot = 0; slot < alloc->locked; slot++)
			blocks += reserved_within(&alloc->shares[slot],
						  share->taking.ranges[i].start,
						  share->taking.ranges[i].end);
	return blocks;
}

static uint64_t share_set_aside(const struct share *share)
{
	uint64_t blocks = iset_bytes(&share->reserved);

	for (unsigned i = 0; i < WINDOWS; i++)
		blocks += share->windows[i].end - share->windows[i].start;
	return blocks;
}

/* What a transaction has taken is off the counter for itself, and for everybody else only when it has committed. */
uint64_t blocks_available(const struct alloc *alloc, bool use_reserve, const struct share *mine)
{
	uint64_t free_blocks = root_get(alloc->journal, ROOT_FREE_BLOCKS), kept = 0, own = 0;

	for (unsigned slot = 0; slot < alloc->locked; slot++) {
		const struct share *share = &alloc->shares[slot];
		uint64_t reserved = taking_reserved(share);

		kept += share_set_aside(share);
		if (share == mine)
			own = reserved;
		else
			kept += iset_bytes(&share->taking) - reserved;
	}
	kept -= own;
	if (!use_reserve)
		kept += alloc_reserve_blocks(alloc);
	return free_blocks > kept ? free_blocks - kept : 0;
}

bool count_is_uncertain(const struct alloc *alloc, const struct share *mine)
{
	for (unsigned slot = 0; slot < alloc->locked; slot++)
		if (&alloc->shares[slot] != mine && alloc->shares[slot].is_open &&
		    alloc->shares[slot].is_beside)
			return true;
	return false;
}
