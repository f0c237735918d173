/*
 * Deduplication: `to` gets the blocks of `from` where both hold the same bytes, judged and done under the data locks of both, so that no write comes between. A
 * slice at a time, so that neither is locked for long; first all of the range is compared without sharing anything, so that a difference at its end
 * leaves it as it was.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/flags.h"
#include "fs/share.h"

#define SLICE_BYTES (1ull << 20) /* compared under one hold of the locks */
#define SLICE_LOOKS 1024	 /* pieces looked at, which may be holes or shared already */
#define SLICE_GAINS (SLICE_BYTES / BLOCK_BYTES / 2 + 1) /* pieces to share: as many as there can be with others between them */
#define SLICE_LEAST_BYTES (SLICE_BYTES / 16) /* what a slice counts as that had little to compare, so that a call ends in a while */
#define BUFFER_BYTES (64u << 10)

/* What the destination would give back: written blocks of its own with the same bytes. */
struct gain {
	uint64_t at, count_blocks; /* blocks from the beginning of the range */
};

struct dedupe {
	struct fs *fs;
	struct inode *from, *to;
	struct fs_dedupe *order;
	uint64_t length;   /* of what can be shared */
	uint64_t at;	   /* blocks that are judged */
	uint64_t compared; /* bytes, in this slice */
	struct gain gains[SLICE_GAINS];
	unsigned count_gains;
	uint8_t *buffers[2];
};

static uint64_t dedupe_blocks(const struct dedupe *d)
{
	return file_block_up(d->length);
}

/* --- what may be asked for ------------------------------------------------------------------------------------------------- */

static bool range_is_within(uint64_t pos, uint64_t length, uint64_t size)
{
	return pos <= size && length <= size - pos;
}

/* A last piece of a block is shared only if it ends both files; else it is left out. */
static int dedupe_verify(struct dedupe *d)
{
	const struct fs_dedupe *o = d->order;
	uint64_t gap = o->from_pos > o->to_pos ? o->from_pos - o->to_pos : o->to_pos - o->from_pos;
	uint64_t from_size = file_size(d->from), to_size = file_size(d->to);
	uint64_t tail = o->length % BLOCK_BYTES;
	bool ends_both = range_is_within(o->from_pos, o->length, from_size) && o->from_pos + o->length == from_size && o->to_pos + o->length == to_size;
	int error = flags_verify_write(d->to, UINT64_MAX); /* what may only be appended to keeps its bytes */

	if (error)
		return error;
	if ((o->from_pos | o->to_pos) % BLOCK_BYTES || !range_is_within(o->from_pos, o->length, from_size) ||
	    !range_is_within(o->to_pos, o->length, to_size))
		return -EINVAL;
	if (d->from == d->to && gap < round_up_u64(o->length, BLOCK_BYTES))
		return -EINVAL;
	d->length = ends_both ? o->length : o->length - tail;
	return 0;
}

/* --- comparing ------------------------------------------------------------------------------------------------------------- */

static int read_side(struct inode *inode, uint64_t pos, uint8_t *buffer, uint64_t length)
{
	size_t done = 0;
	int error = file_read_locked(inode, pos, buffer, length, &done);

	return !error && done < length ? -EIO : error;
}

static int dedupe_compare(struct dedupe *d, uint64_t pos, uint64_t length)
{
	int error = 0;

	while (length && !error && !d->order->differs) {
		uint64_t part = min_u64(length, BUFFER_BYTES);

		error = read_side(d->from, d->order->from_pos + pos, d->buffers[0], part);
		if (!error)
			error = read_side(d->to, d->order->to_pos + pos, d->buffers[1], part);
		if (!error)
			d->order->differs = memcmp(d->buffers[0], d->buffers[1], part) != 0;
		pos += part;
		length -= part;
		d->compared += part;
	}
	return error;
}

struct look {
	uint64_t count_blocks; /* that are alike */
	bool is_same;	       /* nothing there on either side, or one block for both: no need to look at the bytes */
	bool is_gain;	       /* if the bytes are the same */
};

static int dedupe_look(const struct dedupe *d, struct look *look)
{
	uint64_t left = dedupe_blocks(d) - d->at;
	struct extent from, to;
	bool from_mapped, to_mapped;
	int error;

	journal_read_begin(d->fs->journal);
	error = share_look(d->fs, d->from->ino, (d->order->from_pos >> BLOCK_SHIFT) + d->at, left, &from, &from_mapped);
	if (!error)
		error = share_look(d->fs, d->to->ino, (d->order->to_pos >> BLOCK_SHIFT) + d->at, left, &to, &to_mapped);
	journal_read_end(d->fs->journal);
	if (error)
		return error;
	look->count_blocks = min_u64(from.count_blocks, to.count_blocks);
	look->is_same = from_mapped == to_mapped && (!from_mapped || from.block == to.block);
	look->is_gain = to_mapped;
	return 0;
}

static void dedupe_gain(struct dedupe *d, uint64_t count_blocks)
{
	struct gain *last = d->count_gains ? &d->gains[d->count_gains - 1] : NULL;

	if (last && last->at + last->count_blocks == d->at)
		last->count_blocks += count_blocks;
	else
		d->gains[d->count_gains++] = (struct gain){d->at, count_blocks};
}

/* What is alike from here on. Holes may be damage, which no block tells. */
static int dedupe_judge(struct dedupe *d)
{
	uint64_t pos = d->at << BLOCK_SHIFT, length;
	struct look look;
	int error = dedupe_look(d, &look);

	if (error)
		return error;
	if (!look.is_same)
		look.count_blocks = min_u64(look.count_blocks, (SLICE_BYTES - d->compared) >> BLOCK_SHIFT);
	length = min_u64(look.count_blocks << BLOCK_SHIFT, d->length - pos);
	error = file_verify_whole(d->from, d->order->from_pos + pos, length);
	if (!error)
		error = file_verify_whole(d->to, d->order->to_pos + pos, length);
	if (!error && !look.is_same)
		error = dedupe_compare(d, pos, length);
	if (error || d->order->differs)
		return error;
	if (!look.is_same && look.is_gain)
		dedupe_gain(d, look.count_blocks);
	d->at += look.count_blocks;
	return 0;
}

/* One slice. Ends without an error at a difference too. */
static int dedupe_scan(struct dedupe *d)
{
	unsigned looks;
	int error = 0;

	d->compared = 0;
	d->count_gains = 0;
	for (looks = 0; looks < SLICE_LOOKS && !error && !d->order->differs; looks++) {
		if (d->at == dedupe_blocks(d) || d->compared >= SLICE_BYTES || d->count_gains == SLICE_GAINS)
			break;
		error = dedupe_judge(d);
	}
	return error;
}

/* --- sharing --------------------------------------------------------------------------------------------------------------- */

/* Neither size nor times: what the file holds has not changed. */
static int dedupe_share_link(struct share *s)
{
	struct share before = *s;
	struct inode_record record;
	struct tx *tx;
	int error = fs_tx_begin(s->fs, TX_NORMAL, &tx);

	if (error)
		return error;
	error = share_apply(s, tx, &record);
	if (!error)
		error = inode_update(s->to, tx, &record);
	error = tx_end(tx, error, NULL);
	if (error)
		*s = before;
	return error;
}

/* The gains of this slice. After an error what is before the first that is missing is done. */
static int dedupe_share(struct dedupe *d)
{
	int error = 0;

	for (unsigned i = 0; i < d->count_gains && !error; i++) {
		const struct gain *gain = &d->gains[i];
		struct share s = {
			.from = d->from,
			.to = d->to,
			.fs = d->fs,
			.from_block = (d->order->from_pos >> BLOCK_SHIFT) + gain->at,
			.to_block = (d->order->to_pos >> BLOCK_SHIFT) + gain->at,
			.left = gain->count_blocks,
		};

		while (s.left && !error)
			error = dedupe_share_link(&s);
		d->order->gained += (gain->count_blocks - s.left) << BLOCK_SHIFT;
		if (error)
			d->at = gain->at + gain->count_blocks - s.left;
	}
	return error;
}

/* --- a range --------------------------------------------------------------------------------------------------------------- */

/* How much of it, and is it alike? Readers and writers of either file come between the slices. */
static int dedupe_rehearse(struct dedupe *d)
{
	uint64_t compared = 0;
	int error = 0;

	do {
		inode_lock_two_shared(d->from, d->to);
		error = dedupe_verify(d);
		if (!error)
			error = dedupe_scan(d);
		inode_unlock_two(d->from, d->to);
		compared += max_u64(d->compared, SLICE_LEAST_BYTES);
	} while (!error && !d->order->differs && d->at < dedupe_blocks(d) && compared < FS_DEDUPE_BYTES);
	if (!error && d->at < dedupe_blocks(d))
		d->order->length = d->at << BLOCK_SHIFT;
	d->at = 0;
	return error;
}

/* What is shared by now is the answer, if an error or a difference comes behind it. */
static int dedupe_settle(struct dedupe *d, int error)
{
	uint64_t done = min_u64(d->at << BLOCK_SHIFT, d->length);

	if (d->order->differs && done)
		d->order->differs = false;
	d->order->done = done;
	return done ? 0 : error;
}

static int dedupe_slice(struct dedupe *d)
{
	uint64_t start = d->at;
	int error = dedupe_verify(d);

	if (!error)
		error = dedupe_scan(d);
	if (!error && !d->order->differs)
		return dedupe_share(d);
	d->at = start;
	return error;
}

static int dedupe_perform(struct dedupe *d)
{
	int error;

	do {
		inode_lock_two(d->from, d->to);
		error = dedupe_slice(d);
		inode_unlock_two(d->from, d->to);
	} while (!error && !d->order->differs && d->at < dedupe_blocks(d));
	return dedupe_settle(d, error);
}

static int dedupe_run(struct dedupe *d)
{
	int error = 0;

	d->buffers[0] = malloc(2 * (size_t)BUFFER_BYTES);
	if (!d->buffers[0])
		return -ENOMEM;
	d->buffers[1] = d->buffers[0] + BUFFER_BYTES;
	if (d->order->length > SLICE_BYTES) /* else one slice is all of it */
		error = dedupe_rehearse(d);
	if (!error && !d->order->differs)
		error = dedupe_perform(d);
	free(d->buffers[0]);
	return error;
}

int fs_dedupe(struct fs *fs, struct fs_dedupe *order)
{
	struct fs_dedupe within = *order; /* its length may become less */
	struct dedupe d = {.fs = fs, .order = &within};
	int error = fs_refuses_changes(fs);

	within.done = within.gained = order->done = order->gained = 0;
	within.differs = order->differs = false;
	if (!error)
		error = file_get(fs, order->from, &d.from);
	if (error)
		return error;
	error = file_get(fs, order->to, &d.to);
	if (error)
		goto put_from;
	error = flags_settle(d.to, dedupe_run(&d));
	order->differs = within.differs && !error;
	order->done = error ? 0 : within.done;
	order->gained = within.gained;
	inode_put(d.to);
put_from:
	inode_put(d.from);
	return error;
}
