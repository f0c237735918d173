#include "fs/data.h"

#include <errno.h>
#include <fcntl.h>

#define COLLECT_BATCH 32

struct fallocate {
	struct inode *inode;
	struct fs *fs;
	uint64_t pos, end; /* bytes */
};

/* --- allocate ------------------------------------------------------------------------------- */

/* The first hole in [*file_block, end): where and how long; -ENOENT when there is none. */
static int hole_next(struct fs *fs, inum_t ino, uint64_t *file_block, uint64_t end, uint64_t *count)
{
	struct extent e;
	int error = 0;

	while (*file_block < end) {
		error = extent_lookup(fs, ino, *file_block, &e);
		if (error && error != -ENOENT)
			return error;
		if (error || e.file_block > *file_block) {
			*count = (error ? end : min_u64(end, e.file_block)) - *file_block;
			return 0;
		}
		*file_block += e.count_blocks;
	}
	return -ENOENT;
}

/* Enough for all of it, before anything is changed. */
static int allocate_check(struct fallocate *f, uint64_t file_block, uint64_t end)
{
	struct extent extents[COLLECT_BATCH];
	uint64_t need = end - file_block, covered, free_blocks;
	unsigned count, i;
	int error;

	while (file_block < end) {
		error = extent_collect_unlocked(f->fs, f->inode->ino, file_block, end, extents,
						COLLECT_BATCH, &count, &covered);
		if (error)
			return error;
		for (i = 0; i < count; i++)
			need -= extents[i].count_blocks;
		file_block = covered;
	}
	journal_read_begin(f->fs->journal);
	free_blocks = alloc_free_blocks(f->fs->alloc);
	journal_read_end(f->fs->journal);
	return need > free_blocks ? -ENOSPC : 0;
}

static int allocate_hole(struct fallocate *f, struct tx *tx, uint64_t file_block, uint64_t want,
			 uint64_t *got)
{
	struct alloc_request request = {.want_blocks = want, .least_blocks = 1, .align_blocks = 1};
	struct extent e = {.file_block = file_block, .flags = EXTENT_UNWRITTEN}, before;
	struct inode_record record = f->inode->record;
	int error =
	    file_block ? extent_lookup(f->fs, f->inode->ino, file_block - 1, &before) : -ENOENT;

	if (error && error != -ENOENT)
		return error;
	if (!error && before.file_block < file_block)
		request.goal = before.block + 1;
	else if (want >= HUGE_BYTES / BLOCK_BYTES)
		request.align_blocks = HUGE_BYTES / BLOCK_BYTES;
	error = alloc_take(f->fs->alloc, tx, &request, &e.block, &e.count_blocks);
	if (!error)
		error = extent_insert(f->fs, tx, f->inode->ino, &e);
	record.count_blocks += e.count_blocks;
	record_touch(&record);
	*got = e.count_blocks;
	return error ? error : inode_update(f->inode, tx, &record);
}

/* Fill the next hole, or a part of it. -ENOENT: no hole is left. */
static int allocate_link(struct fallocate *f, uint64_t *file_block, uint64_t end)
{
	uint64_t want = 0, got = 0;
	struct tx *tx;
	int error = fs_tx_begin(f->fs, TX_NORMAL, &tx);

	if (error)
		return error;
	error = hole_next(f->fs, f->inode->ino, file_block, end, &want);
	if (!error)
		error = allocate_hole(f, tx, *file_block, want, &got);
	if (error) {
		tx_abort(tx);
		return error;
	}
	*file_block += got;
	return tx_commit(tx, NULL);
}

static int allocate_range(struct fallocate *f)
{
	uint64_t file_block = f->pos >> BLOCK_SHIFT, end = file_block_up(f->end);
	bool synced = false;
	int error = allocate_check(f, file_block, end);

	while (!error) {
		error = allocate_link(f, &file_block, end);
		if (error == -ENOSPC && !synced && fs_make_space(f->fs)) {
			synced = true;
			error = 0;
		}
	}
	return error == -ENOENT ? 0 : error;
}

/* --- punch ---------------------------------------------------------------------------------- */

/* The parts of blocks at both ends, where data of this file are next to the range. */
static int punch_edges(struct fallocate *f, uint64_t size)
{
	uint64_t end = min_u64(f->end, size), head_end, tail;
	int error = 0;

	if (f->pos >= end)
		return 0;
	head_end = min_u64(round_up_u64(f->pos, BLOCK_BYTES), end);
	if (head_end > f->pos)
		error = file_zero_edge(f->inode, f->pos, head_end - f->pos);
	tail = round_down_u64(end, BLOCK_BYTES);
	if (!error && f->end < size && tail >= head_end && tail < end)
		error = file_zero_edge(f->inode, tail, end - tail);
	return error;
}

static int punch_range(struct fallocate *f)
{
	uint64_t size = file_size(f->inode);
	uint64_t first = file_block_up(f->pos);
	uint64_t end = f->end >= size ? file_block_up(f->end) : f->end >> BLOCK_SHIFT;
	int error = punch_edges(f, size);

	if (!error && first < end)
		error = file_unmap_chain(f->inode, INTENT_PUNCH, first, end, NULL);
	if (!error)
		inode_touch_lazily(f->inode);
	return error;
}

static int fallocate_locked(struct fallocate *f, int mode)
{
	int error = 0;

	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		error = punch_range(f);
	if (!error && !(mode & FALLOC_FL_PUNCH_HOLE))
		error = allocate_range(f);
	if (!error && !(mode & FALLOC_FL_KEEP_SIZE) && f->end > file_size(f->inode))
		error = file_raise_size(f->inode, f->end);
	return error;
}

static bool mode_is_known(int mode)
{
	return mode == 0 || mode == FALLOC_FL_KEEP_SIZE ||
	       mode == (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE) ||
	       mode == FALLOC_FL_ZERO_RANGE || mode == (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE);
}

int fs_fallocate(struct fs *fs, inum_t ino, int mode, uint64_t pos, uint64_t length)
{
	struct fallocate f = {.fs = fs, .pos = pos, .end = pos + length};
	int error;

	if (!mode_is_known(mode))
		return -EOPNOTSUPP;
	if (fs_is_readonly(fs))
		return -EROFS;
	if (!length)
		return -EINVAL;
	if (f.end < pos || f.end > FS_FILE_MAX)
		return -EFBIG;
	error = file_get(fs, ino, &f.inode);
	if (error)
		return error;
	lock_write(&f.inode->data_lock, LOCK_DATA);
	error = fallocate_locked(&f, mode);
	pthread_rwlock_unlock(&f.inode->data_lock);
	inode_put(f.inode);
	return error;
}
