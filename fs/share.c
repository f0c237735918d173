#include "fs/share.h"

#include <errno.h>

int share_look(struct fs *fs, inum_t ino, uint64_t block, uint64_t left, struct extent *piece, bool *mapped)
{
	uint64_t end = block + left;
	int error = extent_lookup(fs, ino, block, piece);

	if (error && error != -ENOENT)
		return error;
	*mapped = !error && piece->file_block == block && !(piece->flags & EXTENT_UNWRITTEN);
	if (error || piece->file_block >= end)
		piece->count_blocks = left;
	else if (piece->file_block > block)
		piece->count_blocks = piece->file_block - block;
	else
		piece->count_blocks = min_u64(piece->count_blocks, left);
	return 0;
}

/* The destination maps what the source maps, for one piece or what of it one unmap could clear. */
static int share_step(struct share *s, struct tx *tx, struct inode_record *to, bool *cleared)
{
	struct extent piece;
	uint64_t next, unmapped, count;
	bool mapped;
	int error = share_look(s->fs, s->from->ino, s->from_block, s->left, &piece, &mapped);

	if (error)
		return error;
	error = extent_unmap(s->fs, tx, s->to, s->to_block, s->to_block + piece.count_blocks, &next,
			     &unmapped);
	if (error)
		return error;
	*cleared = next == s->to_block + piece.count_blocks;
	count = next - s->to_block;
	if (mapped && count) {
		struct extent e = {
		    .file_block = s->to_block, .block = piece.block, .count_blocks = count};

		error = extent_insert(s->fs, tx, s->to->ino, &e);
		to->count_blocks += count;
		s->shared_blocks += count;
	}
	to->count_blocks -= unmapped;
	s->from_block += count;
	s->to_block += count;
	s->left -= count;
	return error;
}

/* Both inodes say so from the transaction on that first shares. */
static int share_mark(struct share *s, struct tx *tx)
{
	struct inode *both[2] = {s->from, s->to};
	struct inode_record record;
	unsigned i;
	int error = 0;

	for (i = 0; i < 2 && !error; i++) {
		if (both[i]->record.flags & INODE_MAY_SHARE)
			continue;
		record = both[i]->record;
		record.flags |= INODE_MAY_SHARE;
		error = inode_update(both[i], tx, &record);
	}
	return error;
}

int share_apply(struct share *s, struct tx *tx, struct inode_record *to)
{
	unsigned steps;
	bool cleared = true;
	int error = share_mark(s, tx);

	*to = s->to->record;
	for (steps = 0; !error && cleared && s->left && steps < EXTENTS_PER_LINK; steps++) {
		if (steps && tx_room(tx) < SHARE_ROOM_BLOCKS)
			break;
		error = share_step(s, tx, to, &cleared);
	}
	return error;
}

