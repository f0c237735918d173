/* What is free, piece by piece, for who gives it back to the host. */
#include <errno.h>

#include "alloc/internal.h"
#include "btree/walk.h"

/* Runs that are looked at under one hold of the lock, all of them in vain. */
#define SEARCH_RUNS 64u

struct search {
	const struct alloc *alloc;
	struct alloc_search *where;
	struct run found;
	unsigned count;
};

/* As much of the piece as may be taken at once. Where it was cut, what follows belongs to it, however short. */
static bool search_accepts(struct search *search, const struct run *piece)
{
	struct alloc_search *where = search->where;
	blkno_t first = round_up_u64(piece->start, where->align_blocks);
	blkno_t end = round_down_u64(run_end(piece), where->align_blocks);
	bool long_enough = piece->count >= where->least_blocks || piece->start < where->accepted_end;

	end = min_u64(end, round_down_u64(first + where->most_blocks, where->align_blocks));
	if (!long_enough || first >= end) {
		where->at = run_end(piece);
		return false;
	}
	search->found = (struct run){first, end - first};
	where->at = end;
	where->accepted_end = run_end(piece);
	return true;
}

static int search_visit(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	struct search *search = arg;
	struct alloc_search *where = search->where;
	struct run run, piece;
	blkno_t at, end;
	int error = free_unpack(search->alloc, &run, key, value, length);

	if (error < 0)
		return error;
	at = max_u64(run.start, where->at);
	end = min_u64(run_end(&run), where->end);
	while (piece_next(search->alloc, &at, end, &piece))
		if (search_accepts(search, &piece))
			return 1;
	where->at = max_u64(where->at, end);
	return ++search->count == SEARCH_RUNS;
}

static int search_walk(struct search *search)
{
	struct walk_filter filter = {.from = {{search->where->at}}, .to = {{search->where->end - 1}}, .least = free_length_floor(search->where->least_blocks)};
	struct run run;
	int error = free_find(search->alloc, search->where->at, &run);

	if (error < 0 && error != -ENOENT)
		return error;
	if (!error)
		filter.from.word[0] = run.start;
	error = btree_walk_filtered(&search->alloc->tree, &filter, search_visit, search);
	if (error < 0 || search->found.count)
		return error < 0 ? error : 0;
	if (error > 0)
		return -EAGAIN;
	search->where->at = search->where->end;
	return -ENOENT;
}

int alloc_reserve_next(struct alloc *alloc, struct alloc_search *where, blkno_t *start, uint64_t *count)
{
	struct search search = {.alloc = alloc, .where = where};
	int error;

	if (where->at >= where->end)
		return -ENOENT;
	journal_read_begin(alloc->journal);
	shares_lock(alloc);
	windows_drop(alloc);
	error = search_walk(&search);
	if (!error)
		error = share_reserve(share_mine(alloc), &search.found);
	shares_unlock(alloc);
	journal_read_end(alloc->journal);
	if (error)
		return error;
	*start = search.found.start;
	*count = search.found.count;
	return 0;
}
