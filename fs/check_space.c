#include "fs/check.h"

#include <errno.h>
#include <sys/stat.h>

#include "journal/chunk.h"
#include "journal/root.h"

/* --- extents -> rmap ---------------------------------------------------------------------------------------------------------- */

struct check_extents {
	struct check *check;
	inum_t ino; /* the inode whose extents are being met */
	uint64_t count_blocks, next_block;
};

struct check_cover { /* how much of one extent the reverse map confirms */
	inum_t ino;
	const struct extent *extent;
	uint64_t count_blocks;
};

static int check_cover_visit(void *arg, const struct rmap_record *record)
{
	struct check_cover *cover = arg;
	const struct extent *extent = cover->extent;

	if (record->owner == cover->ino && record->flags == extent->flags &&
	    record->start - extent->block == record->offset - extent->file_block)
		cover->count_blocks += record->count;
	return 0;
}

static void check_extent_cover(struct check *check, inum_t ino, const struct extent *extent)
{
	struct check_cover cover = {.ino = ino, .extent = extent};
	int error = rmap_query(&check->fs->rmap, extent->block, extent->count_blocks, check_cover_visit, &cover);

	if (error)
		check_unreadable(check, "rmap", error);
	else if (cover.count_blocks != extent->count_blocks)
		check_finding(check,
			      "inode %llu: blocks %llu to %llu of the file at device block %llu: the reverse map knows %llu of them",
			      (unsigned long long)ino, (unsigned long long)extent->file_block,
			      (unsigned long long)(extent->file_block + extent->count_blocks),
			      (unsigned long long)extent->block, (unsigned long long)cover.count_blocks);
	check->totals.blocks_compared += extent->count_blocks;
}

/* All extents of one inode have been met: they add up to what it says. */
static void check_extents_end(struct check_extents *extents)
{
	struct check *check = extents->check;
	struct inode_record record;

	if (!extents->ino)
		return;
	if (check_load_inode(check, extents->ino, &record))
		check_finding(check, "extents of inode %llu, which cannot be had", (unsigned long long)extents->ino);
	else if (!S_ISREG(record.mode))
		check_finding(check, "inode %llu: has extents, but is no regular file",
			      (unsigned long long)extents->ino);
	else if (record.count_blocks != extents->count_blocks)
		check_finding(check, "inode %llu: says %llu blocks, has %llu", (unsigned long long)extents->ino,
			      (unsigned long long)record.count_blocks, (unsigned long long)extents->count_blocks);
}

static int check_extent(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	struct check_extents *extents = arg;
	struct check *check = extents->check;
	uint64_t blocks = check->fs->super.size_bytes / BLOCK_BYTES;
	struct extent extent;

	if (key->word[0] != extents->ino) {
		check_extents_end(extents);
		*extents = (struct check_extents){.check = check, .ino = key->word[0]};
	}
	extent.file_block = key->word[1];
	if (format_extent_unpack(&extent, value, length) || !extent.count_blocks || extent.block >= blocks ||
	    extent.count_blocks > blocks - extent.block) {
		check_finding(check, "inode %llu: its extent at block %llu is damaged", (unsigned long long)key->word[0],
			      (unsigned long long)key->word[1]);
		return 0;
	}
	if (extent.file_block < extents->next_block)
		check_finding(check, "inode %llu: its extents overlap at block %llu", (unsigned long long)key->word[0],
			      (unsigned long long)extent.file_block);
	extents->next_block = extent.file_block + extent.count_blocks;
	extents->count_blocks += extent.count_blocks;
	check_extent_cover(check, key->word[0], &extent);
	return 0;
}

static void check_extents(struct check *check)
{
	struct btree_key first = {{0}}, last = {{UINT64_MAX, UINT64_MAX}};
	struct check_extents extents = {.check = check};
	int error = btree_walk(&check->fs->extents, &first, &last, check_extent, &extents);

	if (error)
		check_unreadable(check, "extents", error);
	else
		check_extents_end(&extents);
}

/* --- rmap -> extents, free space, areas ----------------------------------------------------------------------------------------- */

struct check_rmap {
	struct check *check;
	blkno_t end;		 /* everything before it has been met */
	uint64_t gaps;		 /* blocks without an owner */
	uint64_t quarantined;
	inum_t ino;		 /* whose record is in `inode` */
	bool may_share;
};

/* The blocks of an owner's range that its extents map to the same place. */
static uint64_t count_mapped(struct check *check, const struct rmap_record *record)
{
	uint64_t end = record->offset + record->count, mapped = 0;
	uint64_t at = record->offset;

	while (at < end) {
		struct extent extent;
		uint64_t count;

		if (extent_lookup(check->fs, record->owner, at, &extent) || extent.file_block >= end)
			break;
		count = min_u64(extent.count_blocks, end - extent.file_block);
		if (extent.block - record->start == extent.file_block - record->offset &&
		    extent.flags == record->flags)
			mapped += count;
		at = extent.file_block + count;
	}
	return mapped;
}

static void check_rmap_sharing(struct check_rmap *rmap, const struct rmap_record *record)
{
	struct check *check = rmap->check;
	struct inode_record inode;
	uint64_t at, run;
	bool shared;

	if (rmap->ino != record->owner) {
		rmap->ino = record->owner;
		/* A missing inode is told where its extents are met. */
		rmap->may_share = check_load_inode(check, record->owner, &inode) || (inode.flags & INODE_MAY_SHARE);
	}
	if (rmap->may_share)
		return;
	for (at = 0; at < record->count; at += run) {
		if (rmap_shared_run(&check->fs->rmap, record->start + at, record->count - at, record->owner,
				    record->offset + at, &shared, &run) ||
		    !run)
			return;
		if (!shared)
			continue;
		check_finding(check, "inode %llu: shares block %llu, but is not flagged so",
			      (unsigned long long)record->owner, (unsigned long long)(record->start + at));
		return;
	}
}

static void check_rmap_inode(struct check_rmap *rmap, const struct rmap_record *record)
{
	uint64_t mapped = count_mapped(rmap->check, record);

	if (mapped != record->count)
		check_finding(rmap->check,
			      "device blocks %llu to %llu: the reverse map names inode %llu at block %llu, whose map confirms %llu of them",
			      (unsigned long long)record->start, (unsigned long long)(record->start + record->count),
			      (unsigned long long)record->owner, (unsigned long long)record->offset,
			      (unsigned long long)mapped);
	rmap->check->totals.blocks_compared += record->count;
	check_rmap_sharing(rmap, record);
}

static devoff_t area_place(const struct fs *fs, enum super_area area, uint64_t offset)
{
	return fs->super.areas[area].copy[(offset >> 32) & 1] + (offset & 0xffffffff) * BLOCK_BYTES;
}

/* A retired chunk owns its blocks until the journal's tail has passed. */
static int chunk_entry_or_freeing(struct fs *fs, uint64_t chunk, struct chunk_entry *entry)
{
	uint64_t freeing = chunk;
	int error = chunk_entry(fs->journal, chunk, entry);

	if (error != -ENOENT)
		return error;
	error = chunk_next_freeing(fs->journal, &freeing, entry);
	return !error && freeing != chunk ? -ENOENT : error;
}

static devoff_t chunk_place(struct fs *fs, uint64_t offset)
{
	struct chunk_entry entry;
	uint64_t index = offset % CHUNK_SLOTS, copy = offset / CHUNK_SLOTS % 2;

	if (chunk_entry_or_freeing(fs, offset / CHUNK_SLOTS / 2, &entry))
		return UINT64_MAX;
	return entry.copy[copy] + index * BLOCK_BYTES;
}

/* Where the superblock or the chunk table says that this special owner's block lies. */
static devoff_t special_place(struct check *check, const struct rmap_record *record)
{
	switch (record->owner & ~OWNER_SPECIAL) {
	case OWNER_SUPERBLOCK:
		return super_slot_offset((unsigned)record->offset);
	case OWNER_JOURNAL:
		return area_place(check->fs, AREA_JOURNAL, record->offset);
	case OWNER_POISON_LOG:
		return area_place(check->fs, AREA_POISON_LOG, record->offset);
	case OWNER_FIXED:
		return area_place(check->fs, AREA_FIXED, record->offset);
	case OWNER_CHUNK:
		return chunk_place(check->fs, record->offset);
	case OWNER_QUARANTINE:
		return record->start * BLOCK_BYTES;
	}
	return UINT64_MAX;
}

static void check_rmap_special(struct check_rmap *rmap, const struct rmap_record *record)
{
	if (record->owner == OWNER(OWNER_QUARANTINE))
		rmap->quarantined += record->count;
	if (special_place(rmap->check, record) != record->start * BLOCK_BYTES)
		check_finding(rmap->check, "device block %llu: owned by area %llu, which is not there",
			      (unsigned long long)record->start,
			      (unsigned long long)(record->owner & ~OWNER_SPECIAL));
}

static int check_sum_free(void *arg, blkno_t start, uint64_t count)
{
	*(uint64_t *)arg += count;
	return 0;
}

/* What nobody owns must be free, all of it. */
static void check_gap(struct check_rmap *rmap, blkno_t until)
{
	struct check *check = rmap->check;
	uint64_t gap, free_blocks = 0;
	int error;

	if (until <= rmap->end)
		return;
	gap = until - rmap->end;
	rmap->gaps += gap;
	error = alloc_walk(check->fs->alloc, rmap->end, gap, check_sum_free, &free_blocks);
	if (error)
		check_unreadable(check, "free", error);
	else if (free_blocks != gap)
		check_finding(check, "device blocks %llu to %llu: without an owner, but only %llu of them are free",
			      (unsigned long long)rmap->end, (unsigned long long)until,
			      (unsigned long long)free_blocks);
}

static int check_rmap_record(void *arg, const struct rmap_record *record)
{
	struct check_rmap *rmap = arg;

	check_gap(rmap, record->start);
	rmap->end = max_u64(rmap->end, record->start + record->count);
	if (owner_is_inode(record->owner))
		check_rmap_inode(rmap, record);
	else
		check_rmap_special(rmap, record);
	return 0;
}

static void check_rmap(struct check *check)
{
	uint64_t blocks = check->fs->super.size_bytes / BLOCK_BYTES, free_blocks = 0;
	struct check_rmap rmap = {.check = check};
	int error = rmap_query(&check->fs->rmap, 0, blocks, check_rmap_record, &rmap);

	if (error) {
		check_unreadable(check, "rmap", error);
		return;
	}
	check_gap(&rmap, blocks);
	error = alloc_walk(check->fs->alloc, 0, blocks, check_sum_free, &free_blocks);
	if (error)
		check_unreadable(check, "free", error);
	else if (free_blocks != rmap.gaps)
		check_finding(check, "%llu blocks are free, but %llu have no owner", (unsigned long long)free_blocks,
			      (unsigned long long)rmap.gaps);
	check_compare_counter(check, "free blocks", root_get(check->fs->journal, ROOT_FREE_BLOCKS), free_blocks);
	check_compare_counter(check, "quarantined blocks", root_get(check->fs->journal, ROOT_QUARANTINED_BLOCKS),
			      rmap.quarantined);
}

/* --- chunks ------------------------------------------------------------------------------------------------------------------- */

struct check_chunk {
	uint64_t owner_offset, count_blocks;
};

static int check_chunk_visit(void *arg, const struct rmap_record *record)
{
	struct check_chunk *chunk = arg;

	if (record->owner == OWNER(OWNER_CHUNK) && record->offset / CHUNK_SLOTS == chunk->owner_offset)
		chunk->count_blocks += record->count;
	return 0;
}

static void check_chunk(struct check *check, uint64_t number, const struct chunk_entry *entry)
{
	for (unsigned copy = 0; copy < 2; copy++) {
		struct check_chunk chunk = {.owner_offset = number * 2 + copy};
		uint64_t blocks = chunk_blocks(entry->shift);

		if (!entry->copy[copy])
			continue;
		if (rmap_query(&check->fs->rmap, entry->copy[copy] / BLOCK_BYTES, blocks, check_chunk_visit, &chunk) ||
		    chunk.count_blocks != blocks)
			check_finding(check, "metadata chunk %llu: copy %u is not in the reverse map",
				      (unsigned long long)number, copy);
	}
}

static void check_chunks(struct check *check)
{
	struct journal *journal = check->fs->journal;
	uint64_t count = root_get(journal, ROOT_CHUNKS), chunks = 0, blocks = 0, free_blocks = 0;
	struct chunk_entry entry;

	for (uint64_t number = 0; number < count; number++) {
		int error = chunk_entry(journal, number, &entry);

		if (error == -ENOENT)
			continue;
		if (error) {
			check_unreadable(check, "chunk table", error);
			continue;
		}
		chunks++;
		blocks += chunk_blocks(entry.shift);
		free_blocks += entry.free_blocks;
		check_chunk(check, number, &entry);
	}
	check_compare_counter(check, "metadata blocks", root_get(journal, ROOT_META_BLOCKS), blocks);
	check_compare_counter(check, "free metadata blocks", root_get(journal, ROOT_META_FREE), free_blocks);
	check_compare_counter(check, "metadata blocks in use", blocks - free_blocks, check->nodes + chunks);
}

void check_space(struct check *check)
{
	check_extents(check);
	check_rmap(check);
	check_chunks(check);
}
