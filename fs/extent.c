#include "fs/data.h"

#include <errno.h>
#include <string.h>

#include "util/log.h"

/*
 * Blocks that one step of an unmap may join at worst: splits of the extents, rmap, free and ledger
 * trees, and the root block.
 */
#define UNMAP_STEP_BLOCKS 40
/*
 * Where the ledger knows something bad, frees go by small pieces: each bad range in them costs
 * records.
 */
#define UNMAP_BAD_BLOCKS 64

static struct btree_key extent_key(inum_t ino, uint64_t file_block)
{
	return (struct btree_key){{ino, file_block, 0}};
}

static uint64_t extent_end(const struct extent *e)
{
	return e->file_block + e->count_blocks;
}

/* The record in memory, checked against the device and the largest file. */
static int extent_take(struct fs *fs, const struct btree_key *key, const void *value, size_t length,
		       struct extent *out)
{
	uint64_t blocks = media_size(fs->media) >> BLOCK_SHIFT;
	struct extent e;
	int error = format_extent_unpack(&e, value, length);

	if (error)
		return error;
	e.file_block = key->word[1];
	if (!e.count_blocks || e.block >= blocks || e.count_blocks > blocks - e.block ||
	    e.file_block >= FILE_BLOCKS_END || e.count_blocks > FILE_BLOCKS_END - e.file_block) {
		log_error(
		    "extent of inode %llu at block %llu: device block %llu, %llu blocks: outside",
		    (unsigned long long)key->word[0], (unsigned long long)e.file_block,
		    (unsigned long long)e.block, (unsigned long long)e.count_blocks);
		return -EUCLEAN;
	}
	*out = e;
	return 0;
}

static void extent_clip(struct extent *e, uint64_t file_block, uint64_t end)
{
	if (e->file_block < file_block) {
		e->block += file_block - e->file_block;
		e->count_blocks -= file_block - e->file_block;
		e->file_block = file_block;
	}
	if (extent_end(e) > end)
		e->count_blocks = end - e->file_block;
}

/*
 * The record with the highest key <= file_block of this inode, whether it reaches file_block or
 * not.
 */
static int extent_at_or_before(struct fs *fs, inum_t ino, uint64_t file_block, struct extent *out)
{
	struct btree_key key = extent_key(ino, file_block);
	struct btree_record record;
	int error = btree_lookup_le(&fs->extents, &key, &record);

	if (error)
		return error;
	if (record.key.word[0] != ino)
		return -ENOENT;
	return extent_take(fs, &record.key, record.value, record.length, out);
}

struct extent_first {
	struct fs *fs;
	struct extent *out;
};

static int extent_take_first(void *arg, const struct btree_key *key, const void *value,
			     size_t length)
{
	const struct extent_first *first = arg;
	int error = extent_take(first->fs, key, value, length, first->out);

	return error ? error : 1;
}

/* Not beyond the inode: another's leaf may be being changed all the time. */
static int extent_at_or_after(struct fs *fs, inum_t ino, uint64_t file_block, struct extent *out)
{
	struct btree_key from = extent_key(ino, file_block), to = extent_key(ino, FILE_BLOCKS_END);
	struct extent_first first = {.fs = fs, .out = out};
	int found = btree_walk(&fs->extents, &from, &to, extent_take_first, &first);

	if (found < 0)
		return found;
	return found ? 0 : -ENOENT;
}

int extent_lookup(struct fs *fs, inum_t ino, uint64_t file_block, struct extent *out)
{
	struct extent e;
	int error = extent_at_or_before(fs, ino, file_block, &e);

	if (error && error != -ENOENT)
		return error;
	if (error || extent_end(&e) <= file_block)
		error = extent_at_or_after(fs, ino, file_block + 1, &e);
	if (error)
		return error;
	extent_clip(&e, file_block, FILE_BLOCKS_END);
	*out = e;
	return 0;
}

struct extent_collector {
	struct fs *fs;
	uint64_t end;
	struct extent *out;
	unsigned max, count;
	uint64_t covered;
};

static int extent_collect_one(void *arg, const struct btree_key *key, const void *value,
			      size_t length)
{
	struct extent_collector *c = arg;
	struct extent e;
	int error = extent_take(c->fs, key, value, length, &e);

	if (error)
		return error;
	if (c->count == c->max) {
		c->covered = e.file_block;
		return 1;
	}
	extent_clip(&e, 0, c->end);
	c->out[c->count++] = e;
	return 0;
}

int extent_collect(struct fs *fs, inum_t ino, uint64_t file_block, uint64_t end, struct extent *out,
		   unsigned max, unsigned *count, uint64_t *covered)
{
	struct extent_collector c = {.fs = fs, .end = end, .out = out, .max = max, .covered = end};
	struct btree_key from, to = extent_key(ino, end - 1);
	int error = extent_lookup(fs, ino, file_block, &out[0]);

	if (error && error != -ENOENT)
		return error;
	if (!error && out[0].file_block < end) {
		extent_clip(&out[0], file_block, end);
		c.count = 1;
		from = extent_key(ino, extent_end(&out[0]));
		error = extent_end(&out[0]) < end
			    ? btree_walk(&fs->extents, &from, &to, extent_collect_one, &c)
			    : 0;
		if (error < 0)
			return error;
	}
	*count = c.count;
	*covered = c.covered;
	return 0;
}

int extent_collect_unlocked(struct fs *fs, inum_t ino, uint64_t file_block, uint64_t end,
			    struct extent *out, unsigned max, unsigned *count, uint64_t *covered)
{
	int error;

	journal_read_begin(fs->journal);
	error = extent_collect(fs, ino, file_block, end, out, max, count, covered);
	journal_read_end(fs->journal);
	return error;
}

static bool extent_joins(const struct extent *left, const struct extent *right)
{
	return left->count_blocks && right->count_blocks && extent_end(left) == right->file_block &&
	       left->block + left->count_blocks == right->block && left->flags == right->flags;
}

static bool extents_overlap(const struct extent *a, const struct extent *b)
{
	return a->count_blocks && b->count_blocks && a->file_block < extent_end(b) &&
	       b->file_block < extent_end(a);
}

static int extent_put_record(struct fs *fs, struct tx *tx, inum_t ino, const struct extent *e,
			     bool update)
{
	struct btree_key key = extent_key(ino, e->file_block);
	struct format_extent packed;

	format_extent_pack(&packed, e);
	if (update)
		return btree_update(&fs->extents, tx, &key, &packed, sizeof(packed));
	return btree_insert(&fs->extents, tx, &key, &packed, sizeof(packed));
}

static int extent_remove_record(struct fs *fs, struct tx *tx, inum_t ino, const struct extent *e)
{
	struct btree_key key = extent_key(ino, e->file_block);

	return btree_remove(&fs->extents, tx, &key);
}

/* Neighbours of a hole; count_blocks 0 where there is none. */
static int extent_neighbours(struct fs *fs, inum_t ino, const struct extent *e, struct extent *left,
			     struct extent *right)
{
	int error;

	memset(left, 0, sizeof(*left));
	memset(right, 0, sizeof(*right));
	error = extent_at_or_before(fs, ino, e->file_block, left);
	if (error && error != -ENOENT)
		return error;
	error = extent_at_or_after(fs, ino, e->file_block + 1, right);
	if (error && error != -ENOENT)
		return error;
	return extents_overlap(left, e) || extents_overlap(e, right) ? -EEXIST : 0;
}

/* Into the extents tree alone, merged with what it continues, which the reverse map is told of. */
static int extent_store(struct fs *fs, struct tx *tx, inum_t ino, const struct extent *e,
			struct rmap_beside *beside)
{
	struct extent left, right, merged = *e;
	bool joins_left, joins_right;
	int error = extent_neighbours(fs, ino, e, &left, &right);

	if (error)
		return error;
	joins_left = extent_joins(&left, e);
	joins_right = extent_joins(e, &right);
	*beside = (struct rmap_beside){joins_left, joins_right, left.block};
	if (joins_right) {
		error = extent_remove_record(fs, tx, ino, &right);
		if (error)
			return error;
		merged.count_blocks += right.count_blocks;
	}
	if (joins_left) {
		merged.file_block = left.file_block;
		merged.block = left.block;
		merged.count_blocks += left.count_blocks;
	}
	return extent_put_record(fs, tx, ino, &merged, joins_left);
}

static struct rmap_record extent_rmap(inum_t ino, const struct extent *e)
{
	return (struct rmap_record){.start = e->block,
				    .count = e->count_blocks,
				    .owner = ino,
				    .offset = e->file_block,
				    .flags = e->flags};
}

int extent_insert(struct fs *fs, struct tx *tx, inum_t ino, const struct extent *extent)
{
	struct rmap_record record = extent_rmap(ino, extent);
	struct rmap_beside beside;
	int error = extent_store(fs, tx, ino, extent, &beside);

	return error ? error : rmap_insert_beside(&fs->rmap, tx, &record, &beside);
}

/* Out of the extents tree alone: `piece` lies within one record, which begins on the device at *start. */
static int extent_cut(struct fs *fs, struct tx *tx, inum_t ino, const struct extent *piece,
		      blkno_t *start)
{
	struct extent whole, head, tail;
	int error = extent_at_or_before(fs, ino, piece->file_block, &whole);

	if (error)
		return error == -ENOENT ? -EUCLEAN : error;
	if (extent_end(&whole) < extent_end(piece))
		return -EUCLEAN;
	*start = whole.block;
	head = tail = whole;
	extent_clip(&head, 0, piece->file_block);
	extent_clip(&tail, extent_end(piece), FILE_BLOCKS_END);
	if (head.count_blocks)
		error = extent_put_record(fs, tx, ino, &head, true);
	else
		error = extent_remove_record(fs, tx, ino, &whole);
	if (!error && tail.count_blocks)
		error = extent_put_record(fs, tx, ino, &tail, false);
	return error;
}

static int extent_set_flags(struct fs *fs, struct tx *tx, inum_t ino, uint64_t file_block,
			    uint64_t count, uint8_t flags)
{
	struct rmap_record record;
	struct rmap_beside beside;
	struct extent piece;
	blkno_t start;
	int error = extent_lookup(fs, ino, file_block, &piece);

	if (error)
		return error == -ENOENT ? -EUCLEAN : error;
	if (piece.file_block != file_block || piece.count_blocks < count)
		return -EUCLEAN;
	piece.count_blocks = count;
	record = extent_rmap(ino, &piece);
	error = extent_cut(fs, tx, ino, &piece, &start);
	if (!error)
		error = rmap_remove_within(&fs->rmap, tx, &record, start);
	if (error)
		return error == -ENOENT ? -EUCLEAN : error;
	piece.flags = record.flags = flags;
	error = extent_store(fs, tx, ino, &piece, &beside);
	return error ? error : rmap_insert_beside(&fs->rmap, tx, &record, &beside);
}

int extent_set_written(struct fs *fs, struct tx *tx, inum_t ino, uint64_t file_block,
		       uint64_t count)
{
	return extent_set_flags(fs, tx, ino, file_block, count, 0);
}

int extent_set_unwritten(struct fs *fs, struct tx *tx, inum_t ino, uint64_t file_block,
			 uint64_t count)
{
	return extent_set_flags(fs, tx, ino, file_block, count, EXTENT_UNWRITTEN);
}

int extent_shared_run(struct fs *fs, inum_t ino, const struct extent *extent, bool may_share,
		      bool *shared, uint64_t *run)
{
	if (!may_share) {
		*shared = false;
		*run = extent->count_blocks;
		return 0;
	}
	return rmap_shared_run(&fs->rmap, extent->block, extent->count_blocks, ino,
			       extent->file_block, shared, run);
}

uint64_t extent_good_blocks(struct fs *fs, blkno_t start, uint64_t count)
{
	devoff_t bad;
	uint64_t bad_length;

	if (!media_bad_any(fs->media) || !media_bad_find(fs->media, block_device_offset(start),
							 count << BLOCK_SHIFT, &bad, &bad_length))
		return count;
	return (bad >> BLOCK_SHIFT) - start;
}

/* Unmap the alike run at the start of `piece`; *run blocks of it. */
static int extent_unmap_run(struct fs *fs, struct tx *tx, inum_t ino, bool may_share,
			    struct extent *piece)
{
	struct rmap_record record;
	blkno_t start;
	bool shared;
	int error = extent_shared_run(fs, ino, piece, may_share, &shared, &piece->count_blocks);

	if (error)
		return error;
	if (extent_good_blocks(fs, piece->block, piece->count_blocks) < piece->count_blocks)
		piece->count_blocks = min_u64(piece->count_blocks, UNMAP_BAD_BLOCKS);
	record = extent_rmap(ino, piece);
	error = extent_cut(fs, tx, ino, piece, &start);
	if (!error)
		error = rmap_remove_within(&fs->rmap, tx, &record, start);
	if (!error && shared)
		error = alloc_hold(fs->alloc, tx, piece->block, piece->count_blocks);
	else if (!error)
		error = ledger_free_blocks(fs->notify, tx, piece->block, piece->count_blocks);
	return error == -ENOENT ? -EUCLEAN : error;
}

int extent_unmap_ino(struct fs *fs, struct tx *tx, inum_t ino, bool may_share, uint64_t file_block,
		     uint64_t end, uint64_t *next, uint64_t *unmapped)
{
	uint64_t total = 0;
	struct extent piece;
	unsigned steps;
	int error;

	for (steps = 0; file_block < end; steps++) {
		error = extent_lookup(fs, ino, file_block, &piece);
		if (error && error != -ENOENT)
			return error;
		if (error || piece.file_block >= end) {
			file_block = end;
			break;
		}
		if (steps == EXTENTS_PER_LINK || (steps && tx_room(tx) < UNMAP_STEP_BLOCKS))
			break;
		extent_clip(&piece, 0, end);
		error = extent_unmap_run(fs, tx, ino, may_share, &piece);
		if (error)
			return error;
		file_block = extent_end(&piece);
		total += piece.count_blocks;
	}
	*next = file_block;
	*unmapped = total;
	return 0;
}

int extent_unmap(struct fs *fs, struct tx *tx, struct inode *inode, uint64_t file_block,
		 uint64_t end, uint64_t *next, uint64_t *unmapped)
{
	bool may_share = inode_flags(inode) & INODE_MAY_SHARE;

	return extent_unmap_ino(fs, tx, inode->ino, may_share, file_block, end, next, unmapped);
}
