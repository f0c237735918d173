/* Sharing of blocks: copy_file_range and whole-file clones. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "fs/flags.h"
#include "fs/share.h"

#define COPY_MAX_BYTES (1ull << 30) /* of data per call, so that it ends in a while; holes cost nothing */
#define BOUNCE_BYTES (256u << 10)
#define COPY_EXTENTS 16

/* --- copy_file_range ------------------------------------------------------------------------ */

struct copy {
	struct inode *from, *to;
	uint64_t from_pos, to_pos, length;
	uint64_t done;
	uint64_t moved; /* of these, bytes that were not holes */
};

static bool copy_is_enough(const struct copy *c)
{
	return c->done == c->length || c->moved >= COPY_MAX_BYTES;
}

static int copy_share_link(struct copy *c, struct share *s)
{
	struct share before = *s;
	struct inode_record record;
	uint64_t bytes;
	struct tx *tx;
	int error = fs_tx_begin(s->fs, TX_NORMAL, &tx);

	if (error)
		return error;
	error = share_apply(s, tx, &record);
	record_touch(&record);
	bytes = min_u64((s->to_block - before.to_block) << BLOCK_SHIFT, c->length - c->done);
	record.size_bytes = max_u64(record.size_bytes, c->to_pos + c->done + bytes);
	if (!error)
		error = inode_update(s->to, tx, &record);
	error = tx_end(tx, error, NULL);
	if (error)
		*s = before;
	else
		c->done += bytes;
	return error;
}

/*
 * How many of the bytes can be shared: whole blocks, and an unaligned tail at the end of the source
 * that ends the destination too.
 */
static uint64_t copy_sharable(const struct copy *c)
{
	uint64_t tail = c->length % BLOCK_BYTES;

	if ((c->from_pos | c->to_pos) % BLOCK_BYTES)
		return 0;
	if (tail && (c->from_pos + c->length != file_size(c->from) ||
		     c->to_pos + c->length < file_size(c->to)))
		return c->length - tail;
	return c->length;
}

static int copy_share(struct copy *c)
{
	struct share s = {
	    .from = c->from,
	    .to = c->to,
	    .fs = c->from->fs,
	    .from_block = c->from_pos >> BLOCK_SHIFT,
	    .to_block = c->to_pos >> BLOCK_SHIFT,
	    .left = file_block_up(copy_sharable(c)),
	};
	int error = 0;

	while (s.left && !error && !copy_is_enough(c)) {
		error = copy_share_link(c, &s);
		c->moved = s.shared_blocks << BLOCK_SHIFT;
	}
	return error;
}

/* How much of the `want` bytes that are next is data of the source; 0: a hole comes first. */
static int copy_data_length(const struct copy *c, uint64_t want, uint64_t *length)
{
	uint64_t pos = c->from_pos + c->done, at = pos >> BLOCK_SHIFT, covered;
	struct extent extents[COPY_EXTENTS];
	unsigned count;
	int error = extent_collect_unlocked(c->from->fs, c->from->ino, at, file_block_up(pos + want),
					    extents, COPY_EXTENTS, &count, &covered);

	if (error)
		return error;
	for (unsigned i = 0; i < count; i++) {
		if (extents[i].file_block != at || (extents[i].flags & EXTENT_UNWRITTEN))
			break;
		at += extents[i].count_blocks;
	}
	*length = at << BLOCK_SHIFT <= pos ? 0 : min_u64(want, (at << BLOCK_SHIFT) - pos);
	return 0;
}

/* How much of what is next is a hole of the source, in bytes. */
static int copy_hole_length(const struct copy *c, uint64_t *length)
{
	uint64_t pos = c->from_pos + c->done, data;
	int error = file_seek_locked(c->from, pos, SEEK_DATA, &data);

	*length = c->length - c->done;
	if (!error)
		*length = min_u64(*length, data - pos);
	return error == -ENXIO ? 0 : error;
}

/* Whole blocks of the destination become a hole. */
static int copy_hole(struct copy *c, uint64_t length)
{
	uint64_t pos = c->to_pos + c->done;
	int error = file_unmap_chain(c->to, INTENT_PUNCH, pos >> BLOCK_SHIFT, (pos + length) >> BLOCK_SHIFT, NULL);

	if (!error && pos + length > file_size(c->to))
		error = file_raise_size(c->to, pos + length);
	if (!error)
		c->done += length;
	return error;
}

static int copy_bounce_bytes(struct copy *c, uint8_t *bounce, size_t want)
{
	size_t got, put = 0;
	int read_error = file_read_locked(c->from, c->from_pos + c->done, bounce, want, &got);
	int error = 0;

	if (got)
		error = file_write_locked(c->to, c->to_pos + c->done, bounce, got, &put);
	c->done += put;
	c->moved += put;
	if (!error && !read_error && !got)
		return -EIO;
	return error ? error : read_error;
}

static int copy_bounce_some(struct copy *c, uint8_t *bounce)
{
	uint64_t left = c->length - c->done, want, hole = 0;
	uint64_t to_block = -(c->to_pos + c->done) & (BLOCK_BYTES - 1);
	int error = copy_data_length(c, min_u64(BOUNCE_BYTES, left), &want);

	if (!error && !want)
		error = copy_hole_length(c, &hole);
	if (error)
		return error;
	if (hole >= 2 * BLOCK_BYTES && !to_block)
		return copy_hole(c, round_down_u64(hole, BLOCK_BYTES));
	if (!want)
		want = hole >= 2 * BLOCK_BYTES ? to_block : hole;
	/* Up to the end of a block of the destination, so that a crash leaves whole ones. */
	want += -(c->to_pos + c->done + want) & (BLOCK_BYTES - 1);
	return copy_bounce_bytes(c, bounce, min_u64(left, want));
}

static int copy_bounce(struct copy *c)
{
	uint8_t *bounce;
	int error = 0;

	if (copy_is_enough(c))
		return 0;
	bounce = malloc(BOUNCE_BYTES + BLOCK_BYTES);
	if (!bounce)
		return -ENOMEM;
	while (!copy_is_enough(c) && !error)
		error = copy_bounce_some(c, bounce);
	free(bounce);
	return error;
}

static int copy_check(const struct copy *c)
{
	uint64_t gap = c->from_pos > c->to_pos ? c->from_pos - c->to_pos : c->to_pos - c->from_pos;

	if (c->from == c->to && gap < c->length)
		return -EINVAL;
	if (c->to_pos > FS_FILE_MAX || c->length > FS_FILE_MAX - c->to_pos)
		return -EFBIG;
	return 0;
}

static int copy_locked(struct copy *c, bool kills_ids, unsigned *ids)
{
	uint64_t size = file_size(c->from);
	int error = flags_verify_write(c->to, c->to_pos);

	if (error || c->from_pos >= size)
		return error;
	c->length = min_u64(c->length, size - c->from_pos);
	error = copy_check(c);
	if (!error)
		error = inode_kill_privileges(c->to, kills_ids, ids);
	if (!error && c->length && c->to_pos > file_size(c->to))
		error = file_zero_tail(c->to);
	if (!error)
		error = copy_share(c);
	if (!error)
		error = copy_bounce(c);
	return c->done ? 0 : error;
}

int fs_copy_range(struct fs *fs, inum_t from, uint64_t from_pos, inum_t to, uint64_t to_pos,
		  uint64_t length, uint64_t *done)
{
	return fs_copy_range_as(fs, false, from, from_pos, to, to_pos, length, done, NULL);
}

int fs_copy_range_as(struct fs *fs, bool kills_ids, inum_t from, uint64_t from_pos, inum_t to, uint64_t to_pos, uint64_t length, uint64_t *done,
		     unsigned *ids)
{
	struct copy c = {.from_pos = from_pos, .to_pos = to_pos, .length = length};
	int error;

	*done = 0;
	error = fs_refuses_changes(fs);
	if (!error)
		error = file_get(fs, from, &c.from);
	if (error)
		return error;
	error = file_get(fs, to, &c.to);
	if (error)
		goto put_from;
	inode_lock_two(c.from, c.to);
	error = copy_locked(&c, kills_ids, ids);
	inode_unlock_two(c.from, c.to);
	error = flags_settle(c.to, error);
	*done = error ? 0 : c.done; /* what should be durable and is not has not been copied */
	inode_put(c.to);
put_from:
	inode_put(c.from);
	return error;
}

/* --- whole-file clones ---------------------------------------------------------------------- */

struct clone {
	struct share share;
	struct intent_record
	    intent; /* args: source, its block, destination, its block, blocks left, size after */
	uint64_t id;
	bool begun, finished;
};

/* The source is shared: what the destination has beyond goes, and its size becomes the source's. */
static int clone_finish_link(struct clone *c, struct tx *tx, struct inode_record *to)
{
	uint64_t next, unmapped;
	int error = extent_unmap(c->share.fs, tx, c->share.to, c->share.to_block, FILE_BLOCKS_END,
				 &next, &unmapped);

	if (error)
		return error;
	to->count_blocks -= min_u64(unmapped, to->count_blocks);
	if (next < FILE_BLOCKS_END)
		return 0;
	to->size_bytes = c->intent.args[5];
	c->finished = true;
	return 0;
}

static int clone_link_intent(struct clone *c, struct tx *tx)
{
	struct fs *fs = c->share.fs;

	c->intent.args[1] = c->share.from_block;
	c->intent.args[3] = c->share.to_block;
	c->intent.args[4] = c->share.left;
	if (c->finished)
		return c->begun ? intent_end(fs, tx, c->id) : 0;
	if (c->begun)
		return intent_advance(fs, tx, c->id, &c->intent);
	return intent_begin(fs, tx, &c->intent, &c->id);
}

static int clone_link_apply(struct clone *c, struct tx *tx)
{
	struct inode_record record;
	bool shared_all = !c->share.left; /* before this link, which then has room for the rest */
	int error = share_apply(&c->share, tx, &record);

	record_touch(&record);
	if (!error && (shared_all || (!c->share.left && tx_room(tx) >= SHARE_ROOM_BLOCKS)))
		error = clone_finish_link(c, tx, &record);
	if (!error)
		error = inode_update(c->share.to, tx, &record);
	return error ? error : clone_link_intent(c, tx);
}

static int clone_link(struct clone *c)
{
	struct tx *tx;
	int error = fs_tx_begin(c->share.fs, TX_NORMAL, &tx);

	if (error)
		return error;
	error = clone_link_apply(c, tx);
	error = tx_end(tx, error, NULL);
	c->begun = true;
	return error;
}

/*
 * Out of space in the middle is no reason to stop everything: what is left of the source is not
 * shared, the destination ends there, and the caller is told.
 */
static int clone_cut_short(struct clone *c)
{
	uint64_t size = min_u64(c->intent.args[5], c->share.to_block << BLOCK_SHIFT);
	struct intent_record end = {.op = INTENT_TRUNCATE,
				    .args = {c->share.to->ino, c->share.to_block}};
	struct inode_record record;
	struct tx *tx;
	int error = fs_tx_begin(c->share.fs, TX_RESERVE, &tx);

	if (error)
		return error;
	record = c->share.to->record;
	record.size_bytes = size;
	error = inode_update(c->share.to, tx, &record);
	if (!error)
		error = intent_advance(c->share.fs, tx, c->id, &end);
	return tx_end(tx, error, NULL);
}

static int clone_run(struct clone *c)
{
	struct clone before;
	int error = 0;

	while (!error && !c->finished) {
		before = *c;
		error = clone_link(c);
	}
	if (!error || !before.begun || error == -EROFS)
		return error;
	*c = before;
	if (error == -ENOSPC && !clone_cut_short(c)) {
		struct intent_record end = {.op = INTENT_TRUNCATE,
					    .args = {c->share.to->ino, c->share.to_block}};

		return file_unmap_resume(c->share.to, c->id, &end) ? -EIO : -ENOSPC;
	}
	return chain_failed(c->share.fs, c->share.to->ino, "cloning", error);
}

static int clone_locked(struct inode *from, struct inode *to)
{
	uint64_t size = file_size(from), blocks = file_block_up(size);
	struct clone c = {
	    .share = {.from = from, .to = to, .fs = from->fs, .left = blocks},
	    .intent = {.op = INTENT_CLONE, .args = {from->ino, 0, to->ino, 0, blocks, size}},
	};

	return clone_run(&c);
}

int fs_clone(struct fs *fs, inum_t from, inum_t to)
{
	struct inode *source, *target;
	int error = fs_refuses_changes(fs);

	if (error)
		return error;
	if (from == to)
		return -EINVAL;
	error = file_get(fs, from, &source);
	if (error)
		return error;
	error = file_get(fs, to, &target);
	if (error)
		goto put_source;
	inode_lock_two(source, target);
	error = flags_verify_replace(target);
	if (!error)
		error = clone_locked(source, target);
	inode_unlock_two(source, target);
	error = flags_settle(target, error);
	inode_put(target);
put_source:
	inode_put(source);
	return error;
}

int clone_finish(struct fs *fs, uint64_t id, const struct intent_record *intent)
{
	struct clone c = {.intent = *intent, .id = id, .begun = true};
	int error;

	c.share.fs = fs;
	c.share.from_block = intent->args[1];
	c.share.to_block = intent->args[3];
	c.share.left = intent->args[4];
	if (c.share.from_block > FILE_BLOCKS_END || c.share.to_block > FILE_BLOCKS_END ||
	    c.share.left > FILE_BLOCKS_END || intent->args[5] > FS_FILE_MAX ||
	    intent->args[0] == intent->args[2])
		return -EUCLEAN;
	error = inode_get(fs, intent->args[0], &c.share.from);
	if (error)
		return error;
	error = inode_get(fs, intent->args[2], &c.share.to);
	if (error)
		goto put_from;
	inode_lock_two(c.share.from, c.share.to);
	error = clone_run(&c);
	inode_unlock_two(c.share.from, c.share.to);
	inode_put(c.share.to);
put_from:
	inode_put(c.share.from);
	return error;
}
