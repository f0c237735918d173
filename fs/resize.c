/*
 * Growing. The superblock states the new size first; then a transaction, or several where much is bad, hands out the new space and says so in the root
 * block (ROOT_SIZE_BLOCKS). A crash in between leaves a filesystem that is whole in the size that this states, and the next mount hands out the rest.
 */
#include "fs/inode.h"

#include <errno.h>
#include <string.h>

#include "fs/data.h"
#include "journal/root.h"
#include "util/log.h"

#define RESIZE_BAD_BLOCKS 16

uint64_t fs_size_blocks(struct fs *fs)
{
	uint64_t blocks = root_get(fs->journal, ROOT_SIZE_BLOCKS), limit = fs_super(fs)->size_bytes / BLOCK_BYTES;

	return blocks && blocks < limit ? blocks : limit;
}

/* Filesystems made before there was this counter do not state it. */
static int resize_state_size(struct fs *fs)
{
	struct tx *tx;
	int error = tx_begin(fs->journal, TX_RESERVE, &tx);

	if (error)
		return error;
	error = root_set(tx, ROOT_SIZE_BLOCKS, fs_size_blocks(fs));
	error = tx_end(tx, error, NULL);
	return error ? error : journal_sync(fs->journal);
}

static int resize_give(struct fs *fs, blkno_t from, blkno_t to)
{
	struct tx *tx;
	int error = fs_tx_begin(fs, TX_RESERVE, &tx);

	if (error)
		return error;
	alloc_grow(fs->alloc, to);
	/* Not what the ledger knows to be bad there: that goes to quarantine. */
	error = ledger_free_blocks(fs->notify, tx, from, to - from);
	if (!error)
		error = root_set(tx, ROOT_SIZE_BLOCKS, to);
	return tx_end(tx, error, NULL);
}

/* As much as one transaction takes: whatever is good, or a few blocks where something is bad. */
static blkno_t resize_step_end(struct fs *fs, blkno_t from, blkno_t to)
{
	uint64_t good = extent_good_blocks(fs, from, to - from);

	return good ? from + good : min_u64(to, from + RESIZE_BAD_BLOCKS);
}

/* Nobody may own what is to be handed out: else the counter lies, and so would free space. */
static int resize_verify(struct fs *fs, blkno_t from, blkno_t to)
{
	bool owned;
	int error;

	journal_read_begin(fs->journal);
	error = rmap_is_owned(&fs->rmap, from, to - from, &owned);
	journal_read_end(fs->journal);
	if (error || !owned)
		return error;
	log_error("%s: the root block says that %llu of %llu blocks are in use, but later ones have owners: run fsck.mendfs",
		  media_path(fs->media), (unsigned long long)from, (unsigned long long)to);
	return -EUCLEAN;
}

/* Failures met there before it was anybody's: the ledger takes them out of the free space that they are in now. */
static int resize_adopt_bad(struct fs *fs, devoff_t at, devoff_t end)
{
	devoff_t bad;
	uint64_t length;
	int error = 0;

	for (; !error && at < end && media_bad_find(fs->media, at, end - at, &bad, &length); at = bad + length)
		error = notify_adopt(fs->notify, bad, length, FAILURE_KERNEL);
	return error;
}

static int resize_give_all(struct fs *fs, blkno_t from, blkno_t to)
{
	blkno_t next;
	int error = 0;

	for (; from < to && !error; from = next) {
		next = resize_step_end(fs, from, to);
		error = resize_give(fs, from, next);
	}
	return error ? error : journal_sync(fs->journal);
}

int resize_complete(struct fs *fs)
{
	blkno_t from, to = fs_super(fs)->size_bytes / BLOCK_BYTES;
	int error;

	journal_read_begin(fs->journal);
	from = fs_size_blocks(fs);
	journal_read_end(fs->journal);
	if (from >= to)
		return 0;
	error = resize_verify(fs, from, to);
	if (!error)
		error = resize_give_all(fs, from, to);
	if (!error)
		error = resize_adopt_bad(fs, from << BLOCK_SHIFT, to << BLOCK_SHIFT);
	if (error)
		return error;
	log_info("%s: grown from %llu to %llu blocks", media_path(fs->media), (unsigned long long)from, (unsigned long long)to);
	return 0;
}

static int resize_refuses(struct fs *fs, uint64_t size_bytes, struct why *why)
{
	uint64_t now = fs_super(fs)->size_bytes;

	int error = identity_refuses(fs, why);

	if (error)
		return error;
	if (size_bytes % BLOCK_BYTES)
		return why_set(why, -EINVAL, "a size of %llu bytes is not possible: give a multiple of %u", (unsigned long long)size_bytes,
			       BLOCK_BYTES);
	if (size_bytes && size_bytes < now)
		return why_set(why, -EINVAL, "%s has %llu bytes: a filesystem cannot shrink", media_path(fs->media),
			       (unsigned long long)now);
	return 0;
}

/* The size that is stated from now on; what free space covers is stated first. */
static int resize_state(struct fs *fs, uint64_t size_bytes, struct why *why)
{
	struct super super = *fs_super(fs);
	int error = resize_state_size(fs);

	if (error)
		return why_set(why, error, "%s: %s", media_path(fs->media), strerror(-error));
	super.size_bytes = size_bytes;
	super.chunk_shift = (uint8_t)max_u64(super.chunk_shift, format_chunk_shift(size_bytes));
	return super_update(fs, &super, why);
}

static int resize_locked(struct fs *fs, uint64_t size_bytes, struct why *why)
{
	int error = size_bytes > fs_super(fs)->size_bytes ? resize_state(fs, size_bytes, why) : 0;

	if (error)
		return error;
	/* Also where an earlier one stated this size and could not hand out the space. */
	error = resize_complete(fs);
	if (error)
		why_set(why, error, "%s: the new space cannot be handed out now, the next mount does it: %s", media_path(fs->media),
			strerror(-error));
	return error;
}

int fs_resize(struct fs *fs, uint64_t size_bytes, struct why *why)
{
	int error = resize_refuses(fs, size_bytes, why);

	if (error)
		return error;
	pthread_mutex_lock(&fs->super_lock);
	if (!size_bytes || size_bytes > media_size(fs->media))
		error = media_grow(fs->media, size_bytes, why);
	if (!error)
		error = resize_locked(fs, size_bytes ? size_bytes : media_size(fs->media), why);
	pthread_mutex_unlock(&fs->super_lock);
	return error;
}
