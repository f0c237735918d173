/*
 * mkfs's second half: the first contents of the trees. Everything here goes through transactions of a journal over the store that mkfs
 * has just laid out, so that mkfs knows no tree's format.
 */
#include "fs/inode.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "journal/chunk.h"
#include "journal/root.h"
#include "notify/ledger.h"

/* What is left in a transaction when it is committed: one more step of any kind fits. */
#define STEP_ROOM 48
/* Free metadata blocks below which a step is not begun; and those that the first mount should find, so that it need not grow at once. */
#define STEP_BLOCKS 40
#define MOUNT_BLOCKS (METADATA_RESERVE_BLOCKS + METADATA_LOW_BLOCKS + STEP_BLOCKS)

struct formatting {
	struct media *media;
	const struct super *super;
	const struct fs_format_options *options;
	struct journal *journal;
	struct alloc *alloc;
	struct rmap rmap;
	struct btree inodes;
	struct iset taken; /* blocks: fixed areas, superblock slots, chunks */
	struct iset bad;   /* whole blocks that free space must not have; taken ones are not among them */
};

typedef int format_step_fn(struct formatting *formatting, struct tx *tx, size_t *next);

/* --- what is fixed -------------------------------------------------------------------------------------------------- */

static int format_own(struct formatting *formatting, struct tx *tx, enum special_owner_kind kind,
		      devoff_t at, uint64_t length_bytes, uint64_t offset)
{
	struct rmap_record record = {
		.start = at / BLOCK_BYTES,
		.count = length_bytes / BLOCK_BYTES,
		.owner = OWNER(kind),
		.offset = offset,
	};
	int error = iset_add(&formatting->taken, record.start, record.start + record.count, 0);

	return error ? error : rmap_insert(&formatting->rmap, tx, &record);
}

static int format_own_area(struct formatting *formatting, struct tx *tx, enum super_area index,
			   enum special_owner_kind kind)
{
	const struct area *area = &formatting->super->areas[index];
	int error = 0;

	for (unsigned copy = 0; copy < format_area_copies(formatting->super, index) && !error; copy++)
		error = format_own(formatting, tx, kind, area->copy[copy], area->length_bytes,
				   (uint64_t)copy << 32);
	return error;
}

static int format_own_chunk(struct formatting *formatting, struct tx *tx, uint64_t chunk,
			    const devoff_t copy[2], unsigned shift)
{
	int error = 0;

	for (unsigned i = 0; i < formatting->super->copies && !error; i++)
		error = format_own(formatting, tx, OWNER_CHUNK, copy[i], 1ull << shift,
				   (chunk * 2 + i) * CHUNK_SLOTS);
	return error;
}

/* Slots under poison are owned like the others: a copy may be written there when they are clear. */
static int format_own_slots(struct formatting *formatting, struct tx *tx)
{
	int error = 0;

	for (unsigned slot = 0; slot < SUPER_SLOTS && !error; slot++)
		error = format_own(formatting, tx, OWNER_SUPERBLOCK, super_slot_offset(slot),
				   BLOCK_BYTES, slot);
	return error;
}

static int format_own_all(struct formatting *formatting, struct tx *tx)
{
	int error = format_own_slots(formatting, tx);

	if (!error)
		error = format_own_area(formatting, tx, AREA_JOURNAL, OWNER_JOURNAL);
	if (!error)
		error = format_own_area(formatting, tx, AREA_POISON_LOG, OWNER_POISON_LOG);
	if (!error)
		error = format_own_area(formatting, tx, AREA_FIXED, OWNER_FIXED);
	if (!error)
		error = format_own_chunk(formatting, tx, 0, formatting->options->chunk,
					 formatting->super->chunk_shift);
	return error;
}

/* All that is not owned; what is bad in it is taken out again by the steps that follow. */
static int format_give_rest(struct formatting *formatting, struct tx *tx)
{
	const struct iset *taken = &formatting->taken;
	blkno_t end = formatting->super->size_bytes / BLOCK_BYTES;
	blkno_t at = 0;
	int error = 0;

	for (size_t i = 0; i <= taken->count && !error; i++) {
		blkno_t stop = i < taken->count ? taken->ranges[i].start : end;

		if (stop > at)
			error = alloc_give(formatting->alloc, tx, at, stop - at);
		if (i < taken->count)
			at = taken->ranges[i].end;
	}
	return error;
}

static int format_root_directory(struct formatting *formatting, struct tx *tx)
{
	const struct fs_format_options *options = formatting->options;
	const struct btree_key key = {{FS_ROOT_INO}};
	struct inode_record record = {
		.mode = S_IFDIR | 0755,
		.nlink = 2,
		.uid = options->uid,
		.gid = options->gid,
		.generation = 1,
		.parent = FS_ROOT_INO,
	};
	struct format_inode packed;

	record.btime.sec = (int64_t)(options->time_ns / 1000000000);
	record.btime.nsec = (uint32_t)(options->time_ns % 1000000000);
	record.atime.sec = record.mtime.sec = record.ctime.sec = record.btime.sec;
	record.atime.nsec = record.mtime.nsec = record.ctime.nsec = record.btime.nsec;
	format_inode_pack(&packed, &record);
	return btree_insert(&formatting->inodes, tx, &key, &packed, sizeof(packed));
}

static int format_counters(struct formatting *formatting, struct tx *tx)
{
	struct media_counts counts;
	int error = root_set(tx, ROOT_NEXT_INO, FS_ROOT_INO + 1);

	media_counts(formatting->media, &counts);
	if (!error)
		error = root_set(tx, ROOT_INODES, 1);
	if (!error)
		error = root_set(tx, ROOT_SIZE_BLOCKS, formatting->super->size_bytes / BLOCK_BYTES);
	if (!error)
		error = root_set(tx, ROOT_NEXT_INTENT, 1);
	if (!error)
		error = root_set(tx, ROOT_NEXT_CAUSE, formatting->options->count_bad + 1);
	if (!error)
		error = root_set(tx, ROOT_SIGBUS, counts.sigbus);
	return error;
}

static int format_first(struct formatting *formatting, struct tx *tx, size_t *next)
{
	int error = format_own_all(formatting, tx);

	if (!error)
		error = format_give_rest(formatting, tx);
	if (!error)
		error = format_root_directory(formatting, tx);
	if (!error)
		error = format_counters(formatting, tx);
	*next = 1;
	return error;
}

/* --- metadata space for many bad ranges ----------------------------------------------------------------------------- */

static bool space_find(const struct formatting *formatting, blkno_t from, blkno_t end,
		       uint64_t count, blkno_t *out)
{
	uint64_t align = count * BLOCK_BYTES == HUGE_BYTES ? count : 1;
	blkno_t at = round_up_u64(from, align);

	while (at < end && count <= end - at) {
		const struct iset_range *hit = iset_find(&formatting->taken, at, at + count);

		if (!hit)
			hit = iset_find(&formatting->bad, at, at + count);
		if (!hit) {
			*out = at;
			return true;
		}
		at = round_up_u64(hit->end, align);
	}
	return false;
}

/* The primary in the first half, the replica in the second; single: anywhere. */
static bool chunk_places(const struct formatting *formatting, unsigned shift, devoff_t copy[2])
{
	blkno_t end = formatting->super->size_bytes / BLOCK_BYTES;
	blkno_t half = round_up_u64(end / 2, HUGE_BYTES / BLOCK_BYTES);
	bool is_single = formatting->super->copies == 1;
	blkno_t at;

	copy[1] = 0;
	if (!space_find(formatting, 0, is_single ? end : half, chunk_blocks(shift), &at))
		return false;
	copy[0] = at * BLOCK_BYTES;
	if (is_single)
		return true;
	if (!space_find(formatting, half, end, chunk_blocks(shift), &at))
		return false;
	copy[1] = at * BLOCK_BYTES;
	return true;
}

static int format_grow_at(struct formatting *formatting, struct tx *tx, unsigned shift, const devoff_t copy[2])
{
	uint64_t chunk;
	int error = 0;

	for (unsigned i = 0; i < formatting->super->copies && !error; i++)
		error = alloc_take_exact(formatting->alloc, tx, copy[i] / BLOCK_BYTES,
					 chunk_blocks(shift));
	if (!error)
		error = chunk_add(tx, copy, shift, &chunk);
	if (!error)
		error = format_own_chunk(formatting, tx, chunk, copy, shift);
	return error;
}

static int format_grow(struct formatting *formatting, struct tx *tx, size_t *next)
{
	unsigned shift = formatting->super->chunk_shift;
	devoff_t copy[2];

	while (shift >= CHUNK_SHIFT_MIN && !chunk_places(formatting, shift, copy))
		shift--;
	return shift >= CHUNK_SHIFT_MIN ? format_grow_at(formatting, tx, shift, copy) : -ENOSPC;
}

static int format_commit_step(struct formatting *formatting, format_step_fn *step, size_t *next)
{
	struct tx *tx;
	int error = tx_begin(formatting->journal, TX_RESERVE, &tx);

	if (error)
		return error;
	error = step(formatting, tx, next);
	return tx_end(tx, error, NULL);
}

static uint64_t format_metadata_free(struct formatting *formatting)
{
	uint64_t blocks;

	journal_read_begin(formatting->journal);
	blocks = root_get(formatting->journal, ROOT_META_FREE);
	journal_read_end(formatting->journal);
	return blocks;
}

/* A region so small or so bad that the mount's reserve is not to be had works on with what there is. */
static int format_make_room(struct formatting *formatting)
{
	size_t next = 0;
	int error = 0;

	while (!error && format_metadata_free(formatting) < MOUNT_BLOCKS)
		error = format_commit_step(formatting, format_grow, &next);
	if (error == -ENOSPC && format_metadata_free(formatting) >= STEP_BLOCKS)
		return 0;
	return error;
}

/* --- what is bad ---------------------------------------------------------------------------------------------------- */

static int bad_blocks_add(struct formatting *formatting, const struct media_poison *bad)
{
	uint64_t size = formatting->super->size_bytes;
	uint64_t end = min_u64(round_up_u64(bad->offset + bad->length, BLOCK_BYTES), size);

	if (bad->offset >= end)
		return 0;
	return iset_add(&formatting->bad, bad->offset / BLOCK_BYTES, end / BLOCK_BYTES, 0);
}

/* Superblock slots under poison keep their owner: their blocks are not free, hence not quarantined. */
static int bad_blocks_collect(struct formatting *formatting)
{
	int error = 0;

	for (size_t i = 0; i < formatting->options->count_bad && !error; i++)
		error = bad_blocks_add(formatting, &formatting->options->bad[i]);
	for (unsigned slot = 0; slot < SUPER_SLOTS && !error; slot++) {
		blkno_t block = super_slot_offset(slot) / BLOCK_BYTES;

		error = iset_remove(&formatting->bad, block, block + 1);
	}
	return error;
}

static int format_quarantine_one(struct formatting *formatting, struct tx *tx, blkno_t start,
				 uint64_t count)
{
	struct rmap_record record = {
		.start = start,
		.count = count,
		.owner = OWNER(OWNER_QUARANTINE),
	};
	int error = alloc_take_exact(formatting->alloc, tx, start, count);

	if (!error)
		error = rmap_insert(&formatting->rmap, tx, &record);
	if (!error)
		error = root_add(tx, ROOT_QUARANTINED_BLOCKS, (int64_t)count);
	return error;
}

#define BAD_PER_STEP 64

static int format_quarantine(struct formatting *formatting, struct tx *tx, size_t *next)
{
	size_t stop = min_u64(*next + BAD_PER_STEP, formatting->bad.count);
	int error = 0;

	for (; *next < stop && tx_room(tx) > STEP_ROOM && !error; ++*next) {
		const struct iset_range *range = &formatting->bad.ranges[*next];

		error = format_quarantine_one(formatting, tx, range->start, range->end - range->start);
	}
	return error;
}

static int format_ledger(struct formatting *formatting, struct tx *tx, size_t *next)
{
	const struct fs_format_options *options = formatting->options;
	size_t stop = min_u64(*next + BAD_PER_STEP, options->count_bad);
	int error = 0;

	for (; *next < stop && tx_room(tx) > STEP_ROOM && !error; ++*next) {
		const struct media_poison *bad = &options->bad[*next];
		const struct badblock_record record = {
			.offset = bad->offset,
			.length_bytes = bad->length,
			.since_ns = options->time_ns,
			.cause_id = *next + 1,
			.count = 1,
			.state = BADBLOCK_BAD,
			.source = bad->latent ? FAILURE_SIGBUS : options->bad_source,
		};

		error = ledger_format(formatting->journal, tx, &record);
	}
	return error;
}

static int format_steps(struct formatting *formatting, format_step_fn *step, size_t count)
{
	size_t next = 0;
	int error = 0;

	while (next < count && !error) {
		error = format_make_room(formatting);
		if (!error)
			error = format_commit_step(formatting, step, &next);
	}
	return error;
}

/* --- the whole ------------------------------------------------------------------------------------------------------ */

static int format_trees(struct formatting *formatting)
{
	size_t next = 0;
	int error = bad_blocks_collect(formatting);

	if (!error)
		error = format_commit_step(formatting, format_first, &next);
	if (!error)
		error = format_steps(formatting, format_quarantine, formatting->bad.count);
	if (!error)
		error = format_steps(formatting, format_ledger, formatting->options->count_bad);
	if (!error)
		error = format_make_room(formatting);
	return error;
}

static int format_open(struct formatting *formatting, struct why *why)
{
	const struct journal_options options = {.is_new = true};
	int error = journal_open(formatting->media, formatting->super, &options, why,
				 &formatting->journal);

	if (error)
		return error;
	error = alloc_create(formatting->journal, &formatting->alloc);
	if (error) {
		journal_close(formatting->journal);
		return why_set(why, error, "the free space cannot be opened: %s", strerror(-error));
	}
	rmap_init(&formatting->rmap, formatting->journal);
	btree_init(&formatting->inodes, formatting->journal, &inodes_ops);
	return 0;
}

static int format_close(struct formatting *formatting, int error)
{
	int close_error;

	if (!error)
		error = journal_checkpoint(formatting->journal);
	alloc_destroy(formatting->alloc);
	close_error = journal_close(formatting->journal);
	return error ? error : close_error;
}

int fs_format(struct media *media, const struct super *super,
	      const struct fs_format_options *options, struct why *why)
{
	struct formatting formatting = {.media = media, .super = super, .options = options};
	int error = format_open(&formatting, why);

	if (error)
		return error;
	iset_init(&formatting.taken);
	iset_init(&formatting.bad);
	error = format_close(&formatting, format_trees(&formatting));
	iset_fini(&formatting.taken);
	iset_fini(&formatting.bad);
	if (error == -ENOSPC)
		return why_set(why, error, "no room for the metadata that %zu ranges of known poison need",
			       options->count_bad);
	if (error)
		return why_set(why, error, "the first metadata cannot be written: %s", strerror(-error));
	return 0;
}
