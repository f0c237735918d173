/*
 * Free space goes back to the host: what was freed in a sparse image still takes space there, blocks never used have none. Asked for by FITRIM; else only when the host
 * is full, before a write is refused: it would undo a preallocation.
 *
 * One piece after the other is set aside, so that nobody fills a block that is about to be punched, and no lock is held meanwhile. Blocks are free before and after, so a crash
 * at any moment is harmless; those whose freeing is not durable yet are busy, and not given. What is known to be bad is left alone: it is on its way into quarantine.
 */
#include "fs/inode.h"

#include <errno.h>
#include <time.h>

/* Large enough that a device is done in not too many steps, small enough that nobody misses what is set aside for a moment. */
#define TRIM_PIECE_BLOCKS (HUGE_BYTES * 16 >> BLOCK_SHIFT)
#define TRIM_PIECE_SHARE 16u /* of the free blocks */
#define TRIM_YIELD_NS 20000000

struct trim {
	struct fs *fs;
	struct alloc_search search;
	uint64_t trimmed_blocks;
};

static uint64_t trim_piece_blocks(struct fs *fs, uint64_t align_blocks)
{
	uint64_t free_blocks;

	journal_read_begin(fs->journal);
	free_blocks = alloc_free_blocks(fs->alloc);
	journal_read_end(fs->journal);
	return max_u64(round_down_u64(min_u64(free_blocks / TRIM_PIECE_SHARE, TRIM_PIECE_BLOCKS), align_blocks), align_blocks);
}

/* Where nothing in it is known to be bad. */
static int trim_discard(struct trim *trim, blkno_t start, uint64_t count)
{
	devoff_t bad;
	uint64_t bad_length;
	int error;

	if (media_bad_find(trim->fs->media, start << BLOCK_SHIFT, count << BLOCK_SHIFT, &bad, &bad_length))
		return 0;
	error = media_discard(trim->fs->media, start << BLOCK_SHIFT, count << BLOCK_SHIFT);
	if (!error)
		trim->trimmed_blocks += count;
	return error;
}

/* Around what is bad, by units of the host. */
static int trim_piece(struct trim *trim, blkno_t start, uint64_t count)
{
	uint64_t unit = trim->search.align_blocks;
	int error = 0;

	if (!media_bad_any(trim->fs->media))
		return trim_discard(trim, start, count);
	for (uint64_t at = 0; at < count && !error; at += unit)
		error = trim_discard(trim, start + at, unit);
	return error;
}

/* 0; -ENOENT: there is nothing more; -EAGAIN: go on; the error of the host. */
static int trim_step(struct trim *trim)
{
	struct fs *fs = trim->fs;
	blkno_t start;
	uint64_t count;
	int error;

	trim->search.most_blocks = trim_piece_blocks(fs, trim->search.align_blocks);
	pthread_mutex_lock(&fs->trim_lock);
	error = alloc_reserve_next(fs->alloc, &trim->search, &start, &count);
	if (!error) {
		error = trim_piece(trim, start, count);
		alloc_unreserve(fs->alloc, start, count);
	}
	pthread_mutex_unlock(&fs->trim_lock);
	return error;
}

static int trim_run(struct trim *trim, fs_go_on_fn *go_on, void *arg)
{
	static const struct timespec pause = {.tv_nsec = TRIM_YIELD_NS};
	struct fs *fs = trim->fs;
	int error = 0;

	atomic_fetch_add(&fs->count_trims, 1);
	while (!error || error == -EAGAIN) {
		if (atomic_exchange(&fs->trim_yields, false))
			nanosleep(&pause, NULL);
		error = go_on && !go_on(arg) ? -EINTR : trim_step(trim);
	}
	atomic_fetch_sub(&fs->count_trims, 1);
	return error == -ENOENT ? 0 : error;
}

static int trim_verify(struct fs *fs, const struct fs_trim_range *range)
{
	uint64_t size = fs_super(fs)->size_bytes;
	int error = fs_refuses_changes(fs);

	if (error)
		return error;
	if (media_discard_unit(fs->media) == 0)
		return -EOPNOTSUPP;
	return range->start >= size || range->length_bytes < BLOCK_BYTES || range->least_bytes > size ? -EINVAL : 0;
}

int fs_trim(struct fs *fs, const struct fs_trim_range *range, fs_go_on_fn *go_on, void *arg, uint64_t *trimmed_bytes)
{
	uint64_t size = fs_super(fs)->size_bytes, unit = media_discard_unit(fs->media) >> BLOCK_SHIFT;
	struct trim trim = {.fs = fs};
	int error = trim_verify(fs, range);

	*trimmed_bytes = 0;
	if (error)
		return error;
	trim.search = (struct alloc_search){
		.at = round_up_u64(range->start, BLOCK_BYTES) >> BLOCK_SHIFT,
		.end = (range->start + min_u64(range->length_bytes, size - range->start)) >> BLOCK_SHIFT,
		.least_blocks = max_u64(round_up_u64(range->least_bytes, BLOCK_BYTES) >> BLOCK_SHIFT, unit),
		.align_blocks = unit,
	};
	error = trim_run(&trim, go_on, arg);
	*trimmed_bytes = trim.trimmed_blocks << BLOCK_SHIFT;
	return error == -ENOTSUP ? -EOPNOTSUPP : error;
}

/* Also where somebody asks for all of what is left: for a moment nothing is set aside. */
bool fs_trim_yield(struct fs *fs)
{
	if (!atomic_load(&fs->count_trims))
		return false;
	atomic_store(&fs->trim_yields, true);
	pthread_mutex_lock(&fs->trim_lock);
	pthread_mutex_unlock(&fs->trim_lock);
	return true;
}

bool fs_trim_host(struct fs *fs)
{
	struct trim trim = {.fs = fs, .search = {.end = fs_super(fs)->size_bytes >> BLOCK_SHIFT, .least_blocks = 1, .align_blocks = 1}};
	uint64_t free_blocks;

	if (!media_host_is_full(fs->media))
		return false;
	journal_read_begin(fs->journal);
	free_blocks = alloc_free_blocks(fs->alloc);
	journal_read_end(fs->journal);
	/* Nothing was freed since the last time: there is nothing to find. */
	if (atomic_exchange(&fs->trimmed_free_blocks, free_blocks) == free_blocks)
		return false;
	trim_run(&trim, NULL, NULL);
	return true;
}
