/* Space set aside for the requests of a thread to come. */
#include "alloc/internal.h"

#define WINDOW_MAX 256u
#define WINDOW_SHARE 1024u    /* of the device */
#define AVAILABLE_SHARE 64u /* of what is left: the last blocks are not for windows */

uint64_t window_blocks(const struct alloc *alloc)
{
	uint64_t blocks = min_u64(alloc->total_blocks / WINDOW_SHARE, WINDOW_MAX);

	return blocks < 2 ? 0 : blocks;
}

bool window_suits(const struct alloc *alloc, const struct alloc_request *request)
{
	return !request->use_reserve && request->not_before == 0 && request->align_blocks <= 1 &&
	       request->want_blocks > 0 && request->want_blocks < window_blocks(alloc);
}

static void window_set(struct window *window, blkno_t start, blkno_t end)
{
	atomic_store(&window->start, start);
	atomic_store(&window->end, end);
}

static bool window_is_empty(const struct window *window)
{
	return window->start == window->end;
}

/* --- out of a window --- */

/* The one that begins at the goal; without one, the first. */
static struct window *share_find_window(struct share *share, blkno_t goal)
{
	for (unsigned i = 0; i < WINDOWS && goal > 0; i++)
		if (share->windows[i].start == goal && !window_is_empty(&share->windows[i]))
			return &share->windows[i];
	return goal > 0 ? NULL : &share->windows[0];
}

/* Whose window it is: most often one's own. Not locked, so it may be another's when it is. */
static struct share *share_of_goal(struct alloc *alloc, blkno_t goal)
{
	struct share *mine = share_mine(alloc);
	unsigned end = atomic_load(&slot_end);

	if (share_find_window(mine, goal))
		return mine;
	for (unsigned slot = 0; slot < end; slot++)
		if (share_find_window(&alloc->shares[slot], goal))
			return &alloc->shares[slot];
	return NULL;
}

/* At the goal a part is as good as all of it, since more may follow behind it; without a goal it would only be in pieces. */
static bool window_cut(struct window *window, const struct alloc_request *request, struct run *out)
{
	uint64_t left = window->end - window->start;
	uint64_t least = request->goal > 0 ? request->least_blocks : request->want_blocks;

	if (left < max_u64(least, 1))
		return false;
	*out = (struct run){window->start, min_u64(request->want_blocks, left)};
	atomic_store(&window->start, run_end(out));
	return true;
}

/* In the order in which all are locked. */
static void shares_lock_two(struct share *a, struct share *b)
{
	share_lock(a < b ? a : b);
	if (a != b)
		share_lock(a < b ? b : a);
}

static void shares_unlock_two(struct share *a, struct share *b)
{
	share_unlock(a);
	if (a != b)
		share_unlock(b);
}

bool window_serve(struct alloc *alloc, const struct alloc_request *request, struct run *out)
{
	struct share *mine = share_mine(alloc), *from = share_of_goal(alloc, request->goal);
	struct window *window;
	bool served;

	if (!from)
		return false;
	shares_lock_two(mine, from);
	window = share_find_window(from, request->goal);
	served = window && window_cut(window, request, out) && share_reserve(mine, out) == 0;
	if (served && request->goal == 0)
		mine->cursor = run_end(out);
	shares_unlock_two(mine, from);
	return served;
}

/* --- apart from each other --- */

#define APART_SHARE 64u /* of the device */

static bool is_near(const struct alloc *alloc, blkno_t a, blkno_t b)
{
	uint64_t apart = min_u64(alloc->total_blocks / APART_SHARE, DEVICE_UNIT_BLOCKS);

	return max_u64(a, b) - min_u64(a, b) < apart;
}

static bool share_is_near(const struct share *share, blkno_t at)
{
	bool near = is_near(share->alloc, share->cursor, at);

	for (unsigned i = 0; i < WINDOWS; i++)
		near |= !window_is_empty(&share->windows[i]) && is_near(share->alloc, share->windows[i].start, at);
	return near;
}

bool shares_are_near(const struct alloc *alloc, const struct share *mine, blkno_t at)
{
	for (unsigned slot = 0; slot < alloc->locked; slot++)
		if (&alloc->shares[slot] != mine && share_is_near(&alloc->shares[slot], at))
			return true;
	return false;
}

/* Anywhere, each time somewhere else. */
void share_move_away(struct share *share)
{
	uint64_t number = ++share->count_moves * SLOT_COUNT + (uint64_t)(share - share->alloc->shares);

	share->cursor = number * 0x9e3779b97f4a7c15ull % share->alloc->total_blocks;
}

/* --- made and given up --- */

/* One that is used up, else the one that was made first. */
static struct window *share_next_window(struct share *share)
{
	for (unsigned i = 1; i < WINDOWS; i++)
		if (window_is_empty(&share->windows[i]))
			return &share->windows[i];
	return &share->windows[1 + share->next_window++ % (WINDOWS - 1)];
}

void window_make(struct share *mine, const struct alloc_request *request, const struct run *run)
{
	struct alloc *alloc = mine->alloc;
	blkno_t at = run_end(run);
	uint64_t most = min_u64(window_blocks(alloc) - run->count,
				blocks_available(alloc, false, NULL) / AVAILABLE_SHARE);
	struct run whole, piece;

	if (free_find(alloc, at, &whole) < 0)
		return;
	if (!piece_next(alloc, &at, min_u64(run_end(&whole), at + most), &piece) ||
	    piece.start != run_end(run))
		return;
	window_set(request->goal > 0 ? share_next_window(mine) : &mine->windows[0], piece.start,
		   run_end(&piece));
}

static bool window_holds(const struct window *window, blkno_t start, blkno_t end)
{
	return !window_is_empty(window) && window->start < end && window->end > start;
}

static bool share_drop_windows(struct share *share, blkno_t start, blkno_t end)
{
	bool any = false;

	for (unsigned i = 0; i < WINDOWS; i++) {
		if (!window_holds(&share->windows[i], start, end))
			continue;
		window_set(&share->windows[i], 0, 0);
		any = true;
	}
	return any;
}

/* Without a goal, what its own window has left is found as anything else, and what is behind it too. */
void windows_yield(struct alloc *alloc, struct share *mine, blkno_t goal)
{
	if (goal == 0)
		window_set(&mine->windows[0], 0, 0);
	for (unsigned slot = 0; slot < alloc->locked && goal > 0; slot++)
		share_drop_windows(&alloc->shares[slot], goal, goal + 1);
}

bool windows_drop(struct alloc *alloc)
{
	bool any = false;

	for (unsigned slot = 0; slot < alloc->locked; slot++)
		any |= share_drop_windows(&alloc->shares[slot], 0, UINT64_MAX);
	return any;
}

void windows_forget(struct alloc *alloc, const struct run *run)
{
	unsigned end = atomic_load(&slot_end);

	for (unsigned slot = 0; slot < end; slot++) {
		share_lock(&alloc->shares[slot]);
		share_drop_windows(&alloc->shares[slot], run->start, run_end(run));
		share_unlock(&alloc->shares[slot]);
	}
}
