/*
 * What the files of the data side share: extent.c, file.c, write.c, truncate.c, fallocate.c,
 * reflink.c, intent.c. Internal to fs/.
 */
#ifndef FS_DATA_H
#define FS_DATA_H

#include "fs/inode.h"

#define FILE_BLOCKS_END (1ull << 52) /* beyond the last block of the largest file */

static inline uint64_t file_block_up(uint64_t pos)
{
	return (pos >> BLOCK_SHIFT) + ((pos & (BLOCK_BYTES - 1)) != 0);
}

static inline devoff_t block_device_offset(blkno_t block)
{
	return block << BLOCK_SHIFT;
}

/* A reference to an inode that must be a regular file: -EISDIR, -EINVAL otherwise. */
int file_get(struct fs *fs, inum_t ino, struct inode **out);
static inline uint64_t file_size(struct inode *inode)
{
	return atomic_load_explicit(&inode->size_now, memory_order_relaxed);
}
/* May it share blocks with others? */
static inline bool file_may_share(struct inode *inode)
{
	return inode_flags(inode) & INODE_MAY_SHARE;
}
void record_touch(struct inode_record *record); /* mtime, ctime, change */

/*
 * The extents that overlap [file_block, end), clipped to it, at most `max`. *covered: up to where
 * the answer is complete. Under the metadata lock.
 */
int extent_collect(struct fs *fs, inum_t ino, uint64_t file_block, uint64_t end, struct extent *out,
		   unsigned max, unsigned *count, uint64_t *covered);
/* The same, taking the metadata lock shared by itself. */
int extent_collect_unlocked(struct fs *fs, inum_t ino, uint64_t file_block, uint64_t end,
			    struct extent *out, unsigned max, unsigned *count, uint64_t *covered);
/* Unwritten -> written for [file_block, +count), which lies within one record. */
int extent_set_written(struct fs *fs, struct tx *tx, inum_t ino, uint64_t file_block,
		       uint64_t count);
/* The other way round: what was there reads as zeros, the blocks stay the file's. */
int extent_set_unwritten(struct fs *fs, struct tx *tx, inum_t ino, uint64_t file_block,
			 uint64_t count);
/* extent_unmap() for callers without a struct inode. */
int extent_unmap_ino(struct fs *fs, struct tx *tx, inum_t ino, bool may_share, uint64_t file_block,
		     uint64_t end, uint64_t *next, uint64_t *unmapped);
/* Is the alike run at the start of this mapping shared with anybody? *run: its length in blocks. */
int extent_shared_run(struct fs *fs, inum_t ino, const struct extent *extent, bool may_share,
		      bool *shared, uint64_t *run);
/*
 * The first block of [start, +count) with a known bad sector: its index, or count when there is
 * none.
 */
uint64_t extent_good_blocks(struct fs *fs, blkno_t start, uint64_t count);

/* The data lock is held, shared at least. Errors as fs_read(). */
int file_read_locked(struct inode *inode, uint64_t pos, void *buffer, size_t size, size_t *done);
/* -EIO when some of the map of [pos, pos + length) was lost: what seems to be a hole there may be none. */
int file_verify_whole(struct inode *inode, uint64_t pos, uint64_t length);
/* As fs_seek(); the data lock is held, shared at least. */
int file_seek_locked(struct inode *inode, uint64_t pos, int whence, uint64_t *out);
/* The data lock is held exclusively. Errors as fs_write(); a NULL buffer means zeros. */
int file_write_locked(struct inode *inode, uint64_t pos, const void *buffer, size_t size,
		      size_t *done);
/*
 * Write in place as long as everything is mapped, written, unshared, good and within the size; the
 * data lock is held, shared at least. *done short (without an error) where that ends.
 */
int file_write_in_place(struct inode *inode, uint64_t pos, const void *buffer, size_t size,
			size_t *done);
/*
 * Zero [pos, pos + length) where something is written there; the size stays. Data lock held
 * exclusively. For edges of blocks.
 */
int file_zero_edge(struct inode *inode, uint64_t pos, uint64_t length);
/*
 * Whoever raises the size calls this first: the bytes of the last block past the old end become
 * zeros, durably.
 */
int file_zero_tail(struct inode *inode);
/* Before a write that needs blocks, data lock held exclusively: what the file's extent-size hint asks for, if it can be had. */
int file_follow_hint(struct inode *inode, uint64_t pos, uint64_t end);
/* Zero the tail, then set the size in a transaction. Data lock held exclusively. */
int file_raise_size(struct inode *inode, uint64_t size);
/*
 * Unmap [file_block, end) in a chain of transactions under an intent (op with its arguments); the
 * first link may set the size.
 */
int file_unmap_chain(struct inode *inode, enum intent_op op, uint64_t file_block, uint64_t end,
		     const uint64_t *size);
/* Go on with one that has begun: the intent `id` as stored. */
int file_unmap_resume(struct inode *inode, uint64_t id, const struct intent_record *intent);
/*
 * After an error a chain that has begun cannot be left half done while others go on: stop all
 * changes, mount finishes it.
 */
int chain_failed(struct fs *fs, inum_t ino, const char *what, int error);

/* Lock the data of two files exclusively, ascending; they may be the same. */
void inode_lock_two(struct inode *a, struct inode *b);
void inode_lock_two_shared(struct inode *a, struct inode *b);
void inode_unlock_two(struct inode *a, struct inode *b);

/* What mount does with intents, by operation. */
int clone_finish(struct fs *fs, uint64_t id, const struct intent_record *intent);

#endif
