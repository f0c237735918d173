/* Extents and reverse map against each other, one by one, for the owners whose sums differ. */
#include "fs/check.h"

#include <errno.h>

#include "fs/data.h"

#define COVER_BLOCKS 4096u /* asked for at once */
#define COVER_RECORDS_MAX 65536u /* of all sharers of those; more is not looked through while others wait */

static bool maps_differ(const struct check *check, uint64_t owner)
{
	return owner_is_inode(owner) && check->maps_sum[check_bucket(check, owner)];
}

/* --- extents -> reverse map ------------------------------------------------------------------------------------------------------- */

struct cover { /* how far the reverse map confirms an extent, record by record */
	inum_t ino;
	const struct extent *extent;
	blkno_t next;
	uint64_t records;
};

static int cover_visit(void *arg, const struct rmap_record *record)
{
	struct cover *cover = arg;
	const struct extent *extent = cover->extent;

	cover->records++;
	if (record->owner == cover->ino && record->start - record->offset == extent->block - extent->file_block) {
		if (record->flags != extent->flags || record->start != cover->next)
			return 1;
		cover->next += record->count;
	}
	return cover->records > COVER_RECORDS_MAX ? 2 : 0;
}

/* 0; 1: not confirmed from cover->next on; 2: too many records. */
static int extent_cover(struct check *check, struct cover *cover)
{
	blkno_t end = cover->extent->block + cover->extent->count_blocks;
	int result = 0;

	while (!result && cover->next < end) {
		uint64_t count = min_u64(end - cover->next, COVER_BLOCKS);
		blkno_t stop = cover->next + count;

		cover->records = 0;
		result = rmap_query(&check->fs->rmap, cover->next, count, cover_visit, cover);
		check_spend(check, CHECK_NODE_UNITS / 2 + cover->records);
		if (!result && cover->next < stop)
			result = 1;
	}
	return result;
}

static void maps_check_extent(struct check *check, const struct check_cursor *at, void *arg)
{
	inum_t ino = at->key.word[0];
	struct cover cover = {.ino = ino};
	struct extent extent;
	int result;

	if (!maps_differ(check, ino) || format_extent_unpack(&extent, at->value, at->length))
		return;
	extent.file_block = at->key.word[1];
	cover.extent = &extent;
	cover.next = extent.block;
	result = extent_cover(check, &cover);
	if (result < 0)
		check_unreadable(check, &check->fs->rmap.tree, result);
	else if (result == 2)
		check_skip(check);
	else if (result)
		check_finding(check,
			      "inode %llu: blocks %llu to %llu of the file at device block %llu: the reverse map confirms %llu of them",
			      (unsigned long long)ino, (unsigned long long)extent.file_block,
			      (unsigned long long)(extent.file_block + extent.count_blocks), (unsigned long long)extent.block,
			      (unsigned long long)(cover.next - extent.block));
}

/* --- reverse map -> extents ------------------------------------------------------------------------------------------------------- */

/* The blocks of an owner's range that its extents map to the same place. */
static uint64_t count_mapped(struct check *check, const struct rmap_record *record)
{
	uint64_t end = record->offset + record->count, mapped = 0;
	uint64_t at = record->offset;

	while (at < end) {
		struct extent extent;
		uint64_t count;

		check_spend(check, CHECK_NODE_UNITS / 4);
		if (extent_lookup(check->fs, record->owner, at, &extent) || extent.file_block >= end)
			break;
		count = min_u64(extent.count_blocks, end - extent.file_block);
		if (extent.block - record->start == extent.file_block - record->offset && extent.flags == record->flags)
			mapped += count;
		at = extent.file_block + count;
	}
	return mapped;
}

static void maps_check_owner(struct check *check, const struct check_cursor *at, void *arg)
{
	struct rmap_record record = {.start = at->key.word[0], .owner = at->key.word[1], .offset = at->key.word[2]};
	uint64_t mapped;

	if (!maps_differ(check, record.owner) || format_rmap_unpack(&record.count, &record.flags, at->value, at->length))
		return;
	mapped = count_mapped(check, &record);
	if (mapped != record.count)
		check_finding(check,
			      "device blocks %llu to %llu: the reverse map names inode %llu at block %llu, whose map confirms %llu of them",
			      (unsigned long long)record.start, (unsigned long long)(record.start + record.count),
			      (unsigned long long)record.owner, (unsigned long long)record.offset, (unsigned long long)mapped);
}

/* --- both ------------------------------------------------------------------------------------------------------------------------- */

void check_maps(struct check *check)
{
	bool differ = false;

	for (unsigned i = 0; i < CHECK_BUCKETS && !differ; i++)
		differ = check->maps_sum[i] != 0;
	if (!differ)
		return;
	check_begin_phase(check, "extents", check->totals.extents + check->totals.rmap_records);
	check_each(check, &check->fs->extents, maps_check_extent, NULL);
	check_each(check, &check->fs->rmap.tree, maps_check_owner, NULL);
}
