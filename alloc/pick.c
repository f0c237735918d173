#include <errno.h>

#include "alloc/internal.h"
#include "btree/walk.h"

/* How many runs are looked at for one length before less is asked for. A run is in vain only when
 * something in it is busy or reserved. */
#define PICK_TRIES 32u

struct pick {
	const struct alloc *alloc;
	uint64_t want;       /* blocks, at most */
	uint64_t need;       /* stop at a piece with so many */
	uint64_t align;      /* of its start */
	unsigned tries;      /* left */
	blkno_t stop_before; /* runs from here on were looked at already */
	struct run best;
};

/* Remember the best piece of [start, end). Is it good enough? */
static bool pick_consider(struct pick *pick, blkno_t start, blkno_t end)
{
	struct run piece;

	while (pick->best.count < pick->need && piece_next(pick->alloc, &start, end, &piece)) {
		blkno_t first = round_up_u64(piece.start, pick->align);
		uint64_t count =
		    first < run_end(&piece) ? min_u64(run_end(&piece) - first, pick->want) : 0;

		if (count > pick->best.count)
			pick->best = (struct run){first, count};
	}
	return pick->best.count >= pick->need;
}

static int pick_visit(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	struct pick *pick = arg;
	struct run run;
	int error = free_unpack(pick->alloc, &run, key, value, length);

	if (error < 0)
		return error;
	if (run.start >= pick->stop_before || pick->tries == 0)
		return 1;
	pick->tries--;
	return pick_consider(pick, run.start, run_end(&run));
}

/* All that inner nodes do not tell from `least` are looked at, so that each leaf gone into costs a try at least. */
static int pick_walk(struct pick *pick, blkno_t from, blkno_t to, uint64_t least)
{
	struct walk_filter filter = {.from = {{from}}, .to = {{to}}, .least = free_length_floor(least)};
	int result;

	pick->stop_before = to;
	result = btree_walk_filtered(&pick->alloc->tree, &filter, pick_visit, pick);
	return result < 0 ? result : 0;
}

/* Look at runs of `least` blocks and more, from `origin` on and then around, until the best piece
 * has `need` blocks. */
static int pick_search(struct pick *pick, blkno_t origin, uint64_t least, unsigned tries)
{
	struct run run;
	int error = free_find(pick->alloc, origin, &run);

	if (error < 0 && error != -ENOENT)
		return error;
	if (error == 0 && pick_consider(pick, origin, run_end(&run)))
		return 0;
	pick->tries = tries;
	error = pick_walk(pick, origin, UINT64_MAX, least);
	if (error < 0 || pick->best.count >= pick->need || pick->tries == 0)
		return error;
	return origin > 0 ? pick_walk(pick, 0, origin, least) : 0;
}

/* From the goal on, if the goal itself may be had. */
static int pick_goal(struct pick *pick, blkno_t goal)
{
	blkno_t at = goal;
	struct run run, piece;
	int error = free_find(pick->alloc, goal, &run);

	if (error == -ENOENT)
		return 0;
	if (error < 0)
		return error;
	if (piece_next(pick->alloc, &at, run_end(&run), &piece) && piece.start == goal)
		pick->best = (struct run){goal, min_u64(piece.count, pick->want)};
	return 0;
}

/* As much as is wanted from an aligned start on; else one unit of the alignment. */
static int pick_aligned(struct pick *pick, blkno_t origin, uint64_t longest, uint64_t align)
{
	uint64_t whole = min_u64(pick->want, longest), unit = min_u64(whole, align);
	int error;

	pick->best = (struct run){0}; /* what the goal had to offer may be unaligned */
	pick->align = align;
	pick->need = whole;
	/* A run that long has an aligned start with all of it behind, wherever it lies. */
	error = pick_search(pick, origin, whole + align - 1, PICK_TRIES);
	pick->need = unit;
	if (error == 0 && pick->best.count < unit)
		error = pick_search(pick, origin, unit, PICK_TRIES);
	pick->align = 1;
	if (pick->best.count < unit)
		pick->best = (struct run){0};
	return error;
}

/* As long as possible: whole, then halves of it, down to `least`. */
static int pick_longest(struct pick *pick, blkno_t origin, uint64_t longest, uint64_t least)
{
	uint64_t target = min_u64(pick->want, longest);

	while (target >= least) {
		int error;

		pick->need = target;
		error =
		    pick_search(pick, origin, target, target == least ? UINT32_MAX : PICK_TRIES);
		if (error < 0)
			return error;
		if (pick->best.count >= target)
			return 0;
		if (target == least)
			break;
		target = max_u64(target / 2, least);
	}
	return -ENOSPC;
}

static blkno_t pick_origin(const struct alloc_request *request, blkno_t cursor)
{
	if (request->not_before > 0)
		return request->not_before;
	return request->goal > 0 ? request->goal : cursor;
}

int pick_run(const struct alloc *alloc, const struct alloc_request *request, blkno_t cursor, uint64_t available, struct run *out)
{
	uint64_t least = max_u64(request->least_blocks, 1), longest;
	struct pick pick = {
	    .alloc = alloc, .want = min_u64(request->want_blocks, available), .align = 1};
	blkno_t origin = pick_origin(request, cursor);
	int error = btree_max_aggregate(&alloc->tree, &longest);

	if (error < 0)
		return error;
	if (pick.want < least || longest < least)
		return -ENOSPC;
	if (request->goal > 0)
		error = pick_goal(&pick, request->goal);
	if (error == 0 && pick.best.count < least && request->align_blocks > 1)
		error = pick_aligned(&pick, origin, longest, request->align_blocks);
	if (error == 0 && pick.best.count < least)
		error = pick_longest(&pick, origin, longest, least);
	if (error == 0)
		*out = pick.best;
	return error;
}
