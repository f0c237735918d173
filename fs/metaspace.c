#include "fs/metaspace.h"

#include <errno.h>
#include <string.h>

#include "fs/background.h"
#include "fs/orphan.h"
#include "fs/table.h"
#include "journal/chunk.h"
#include "journal/root.h"
#include "util/log.h"

/* Empty chunks stay while less than this would be left: a burst of creates after a burst of deletes is common. */
#define METADATA_KEEP_BLOCKS (2 * METADATA_LOW_BLOCKS)
#define GROW_ATTEMPTS 8
#define LOOK_EVERY 16

static int chunk_own(struct fs *fs, struct tx *tx, uint64_t chunk, const struct chunk_entry *entry, bool own)
{
	int error = 0;

	for (unsigned copy = 0; copy < 2 && !error; copy++) {
		struct rmap_record record = {
			.start = entry->copy[copy] / BLOCK_BYTES,
			.count = chunk_blocks(entry->shift),
			.owner = OWNER(OWNER_CHUNK),
			.offset = (chunk * 2 + copy) * CHUNK_SLOTS,
		};

		if (!entry->copy[copy])
			continue;
		error = own ? rmap_insert(&fs->rmap, tx, &record) : rmap_remove(&fs->rmap, tx, &record);
	}
	return error;
}

/* The replica goes to the other half of the device: what breaks next to the primary must not reach it. */
static int chunk_take_copy(struct fs *fs, struct tx *tx, unsigned shift, devoff_t primary, devoff_t *out)
{
	uint64_t half = fs_super(fs)->size_bytes / 2;
	uint64_t blocks = chunk_blocks(shift), count;
	struct alloc_request request = {
		.want_blocks = blocks,
		.least_blocks = blocks,
		.align_blocks = shift == CHUNK_SHIFT_MAX ? blocks : 1,
		.use_reserve = true,
	};
	blkno_t start;
	int error;

	if (primary)
		request.not_before = primary < half ? half / BLOCK_BYTES : 1;
	error = alloc_take(fs->alloc, tx, &request, &start, &count);
	if (!error)
		*out = start * BLOCK_BYTES;
	return error;
}

static int metaspace_add_chunk(struct fs *fs, struct tx *tx, unsigned shift)
{
	struct chunk_entry entry = {.shift = (uint8_t)shift};
	uint64_t chunk;
	int error = chunk_take_copy(fs, tx, shift, 0, &entry.copy[0]);

	if (!error && fs->super.copies > 1)
		error = chunk_take_copy(fs, tx, shift, entry.copy[0], &entry.copy[1]);
	if (!error)
		error = chunk_add(tx, entry.copy, shift, &chunk);
	if (!error)
		error = chunk_own(fs, tx, chunk, &entry, true);
	return error;
}

static int metaspace_grow_by(struct fs *fs, unsigned shift)
{
	struct tx *tx;
	int error = tx_begin(fs->journal, TX_RESERVE, &tx);

	if (error)
		return error;
	error = metaspace_add_chunk(fs, tx, shift);
	return tx_end(tx, error, NULL);
}

/* Reclaim itself runs in the reserve, and must not wait for itself. */
static bool metaspace_wait(struct fs *fs, enum tx_kind kind)
{
	if (kind == TX_NORMAL)
		return fs_make_space(fs);
	return alloc_has_busy(fs->alloc) && journal_sync(fs->journal) == 0;
}

/* The preferred size; smaller ones where free space is scattered. */
static int metaspace_grow(struct fs *fs, enum tx_kind kind)
{
	int error = -ENOSPC;

	for (unsigned shift = fs_super(fs)->chunk_shift; shift >= CHUNK_SHIFT_MIN && error == -ENOSPC; shift--)
		error = metaspace_grow_by(fs, shift);
	if (error == -ENOSPC && metaspace_wait(fs, kind))
		error = metaspace_grow_by(fs, CHUNK_SHIFT_MIN);
	return error;
}

/*
 * Is there enough for this transaction? Called inside it. A full filesystem is not searched again and again: only after something
 * was freed.
 */
static bool metaspace_suffices(struct fs *fs)
{
	return chunk_free_blocks(fs->journal) >= METADATA_LOW_BLOCKS ||
	       __atomic_load_n(&fs->metaspace.failed_at_free, __ATOMIC_RELAXED) ==
		       alloc_free_blocks(fs->alloc) + 1;
}

static int metaspace_begin_checked(struct fs *fs, enum tx_kind kind, struct tx **out, bool *low)
{
	int error = tx_begin(fs->journal, kind, out);

	if (error)
		return error;
	*low = !metaspace_suffices(fs);
	if (*low)
		tx_abort(*out);
	else
		fs->table->numbers[slot_mine()].tx_started_ns = time_now_ns();
	return 0;
}

static void metaspace_note_failure(struct fs *fs, int error)
{
	uint64_t free_blocks;

	journal_read_begin(fs->journal);
	free_blocks = alloc_free_blocks(fs->alloc);
	journal_read_end(fs->journal);
	__atomic_store_n(&fs->metaspace.failed_at_free, free_blocks + 1, __ATOMIC_RELAXED);
	if (error != -ENOSPC)
		log_warning("metadata space cannot grow: %s", strerror(-error));
}

/* What the reserve is for goes on without growing; the rest may use what is left, and a tree that finds nothing says -ENOSPC cleanly. */
int fs_tx_begin(struct fs *fs, enum tx_kind kind, struct tx **out)
{
	bool low = true;
	int error = 0;

	if (fs->options.readonly)
		return -EROFS;
	for (int i = 0; low; i++) {
		error = metaspace_begin_checked(fs, kind, out, &low);
		if (error || !low)
			break;
		error = metaspace_grow(fs, kind);
		if (error == -EROFS)
			break;
		if (error || i == GROW_ATTEMPTS)
			metaspace_note_failure(fs, error);
	}
	if (!error && journal_wants_checkpoint(fs->journal))
		background_kick(fs);
	return error == -EROFS && fs_is_stopped(fs) ? -EIO : error;
}

/* It takes no block when metadata space gets low. The log is looked at now and then: its counts are what all others are changing. */
int fs_tx_begin_beside(struct fs *fs, enum tx_kind kind, struct tx **out)
{
	struct inode_numbers *numbers = &fs->table->numbers[slot_mine()];
	int error = fs->options.readonly ? -EROFS : tx_begin_beside(fs->journal, kind, out);

	if (error)
		return error;
	numbers->tx_started_ns = time_now_ns();
	if (++numbers->count_begun % LOOK_EVERY == 0 && journal_wants_checkpoint(fs->journal))
		background_kick(fs);
	return 0;
}

/* --- giving back ---------------------------------------------------------------------------------------------------------- */

static int shrink_retire(struct fs *fs, struct tx *tx)
{
	struct chunk_entry entry;
	uint64_t chunk;
	int error = chunk_find_empty(fs->journal, &chunk);

	if (!error)
		error = chunk_entry(fs->journal, chunk, &entry);
	if (!error && chunk_free_blocks(fs->journal) < METADATA_KEEP_BLOCKS + chunk_blocks(entry.shift))
		error = -ENOENT;
	return error ? error : chunk_retire(tx, chunk);
}

/* Its blocks may be bad: they go through the ledger, as everything that is freed. */
static int shrink_remove(struct fs *fs, struct tx *tx, uint64_t *chunk)
{
	struct chunk_entry entry;
	int error = chunk_next_freeing(fs->journal, chunk, &entry);

	if (!error)
		error = chunk_remove(tx, *chunk);
	if (!error)
		error = chunk_own(fs, tx, *chunk, &entry, false);
	for (unsigned copy = 0; copy < 2 && !error; copy++)
		if (entry.copy[copy])
			error = ledger_free_blocks(fs->notify, tx, entry.copy[copy] / BLOCK_BYTES,
						   chunk_blocks(entry.shift));
	return error;
}

static int shrink_step(struct fs *fs, uint64_t *chunk)
{
	struct tx *tx;
	int error = tx_begin(fs->journal, TX_RESERVE, &tx);

	if (error)
		return error;
	error = chunk ? shrink_remove(fs, tx, chunk) : shrink_retire(fs, tx);
	return tx_end(tx, error, NULL);
}

static bool shrink_is_wanted(struct fs *fs)
{
	uint64_t free_blocks, freeing;

	journal_read_begin(fs->journal);
	free_blocks = chunk_free_blocks(fs->journal);
	freeing = root_get(fs->journal, ROOT_CHUNKS_FREEING);
	journal_read_end(fs->journal);
	return freeing || free_blocks > METADATA_KEEP_BLOCKS + chunk_blocks(fs_super(fs)->chunk_shift);
}

static bool shrink_has_freeing(struct fs *fs)
{
	bool any;

	journal_read_begin(fs->journal);
	any = root_get(fs->journal, ROOT_CHUNKS_FREEING) != 0;
	journal_read_end(fs->journal);
	return any;
}

/* A chunk's space may become data only after the journal's tail has passed its retirement: hence the checkpoint between. */
static int shrink_run(struct fs *fs)
{
	uint64_t chunk = 0;
	int error = 0;

	while (!error)
		error = shrink_step(fs, NULL);
	if (error != -ENOENT)
		return error;
	if (!shrink_has_freeing(fs))
		return 0;
	error = journal_checkpoint(fs->journal);
	for (; !error; chunk++)
		error = shrink_step(fs, &chunk);
	return error == -ENOENT ? 0 : error;
}

void metaspace_shrink(struct fs *fs)
{
	int error;

	if (!shrink_is_wanted(fs))
		return;
	pthread_mutex_lock(&fs->table->shrink_lock);
	error = shrink_run(fs);
	pthread_mutex_unlock(&fs->table->shrink_lock);
	if (error && error != -EROFS)
		log_warning("giving metadata space back: %s", strerror(-error));
}

bool fs_make_space(struct fs *fs)
{
	uint64_t orphans;
	bool busy;

	journal_read_begin(fs->journal);
	orphans = root_get(fs->journal, ROOT_ORPHANS);
	journal_read_end(fs->journal);
	if (orphans) {
		orphan_reclaim_queued(fs);
		orphan_reclaim_left(fs, NULL);
	}
	metaspace_shrink(fs);
	busy = alloc_has_busy(fs->alloc);
	if (busy && journal_sync(fs->journal))
		return false;
	return fs_trim_yield(fs) || fs_trim_host(fs) || busy || orphans;
}
