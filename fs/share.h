/* One file maps what another maps: the step that copies, clones and deduplication are made of. Internal to fs/. */
#ifndef FS_SHARE_H
#define FS_SHARE_H

#include "fs/data.h"

#define SHARE_ROOM_BLOCKS 64 /* what one more step of sharing may join: an unmap step, an insert, the intent */

struct share {
	struct inode *from, *to;
	struct fs *fs;
	uint64_t from_block, to_block, left; /* next blocks of both files, and how many */
	uint64_t shared_blocks;		     /* of those that are done, holes not counted */
};

/*
 * What the file has at `block`, `left` blocks at most: a piece of data, or (*mapped false) of a hole or of unwritten blocks. Under the metadata lock or in a
 * transaction.
 */
int share_look(struct fs *fs, inum_t ino, uint64_t block, uint64_t left, struct extent *piece, bool *mapped);
/*
 * As many pieces as one transaction takes; the data locks of both files are held exclusively. *to: the destination's record, for the caller to complete (times,
 * size) and store. After an error the caller puts *share back.
 */
int share_apply(struct share *share, struct tx *tx, struct inode_record *to);

#endif
