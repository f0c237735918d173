/*
 * Every block of the device once: reverse map and free space, read side by side in the order of blocks. Nothing is both owned and free, nothing is
 * neither, nothing but files' data has two owners.
 */
#include "fs/check.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "journal/chunk.h"
#include "journal/root.h"

#define SHARERS (1u << 20) /* at most */

struct space {
	struct check *check;
	struct check_cursor rmap, free_space;
	blkno_t at;	     /* the highest start met */
	blkno_t owned_end, special_end, free_end; /* of what was met */
	struct rmap_record lone; /* the last record of a file if nobody shares it so far; count 0: none */
	uint64_t free_blocks, quarantined;
};

/* --- sharing ---------------------------------------------------------------------------------------------------------------------- */

/* A small filesystem has few; clearing room for many would be most of its check. */
static uint64_t space_sharers(const struct check *check)
{
	return min_u64(SHARERS, fs_size_blocks(check->fs));
}

/* Flags are looked up once for each of the sharers met lately. */
static void space_check_sharer(struct space *space, const struct rmap_record *record)
{
	struct check *check = space->check;
	struct inode_record inode;
	inum_t *known;

	if (!check->sharers) {
		check->sharers_size = space_sharers(check); /* the filesystem may grow under the check */
		check->sharers = calloc(check->sharers_size, sizeof(*check->sharers));
	}
	if (!check->sharers) {
		check_fail(check, -ENOMEM);
		return;
	}
	known = &check->sharers[check_mix(record->owner) % check->sharers_size];
	if (*known == record->owner)
		return;
	if (check_load_inode(check, record->owner, &inode) || (inode.flags & INODE_MAY_SHARE))
		*known = record->owner; /* a missing inode is told of where its extents are met */
	else
		check_finding(check, "inode %llu: shares block %llu, but is not flagged so", (unsigned long long)record->owner,
			      (unsigned long long)record->start);
}

static void space_meet_sharing(struct space *space, const struct rmap_record *record)
{
	bool shares = record->start < space->owned_end;

	if (space->lone.count && space->lone.start + space->lone.count > record->start)
		space_check_sharer(space, &space->lone);
	if (shares)
		space_check_sharer(space, record);
	space->lone = *record;
	if (shares)
		space->lone.count = 0;
}

/* --- areas ------------------------------------------------------------------------------------------------------------------------ */

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

static devoff_t chunk_place(struct fs *fs, uint64_t offset, uint64_t count)
{
	struct chunk_entry entry;
	uint64_t index = offset % CHUNK_SLOTS, copy = offset / CHUNK_SLOTS % 2;

	if (chunk_entry_or_freeing(fs, offset / CHUNK_SLOTS / 2, &entry) || !entry.copy[copy] ||
	    index + count > chunk_blocks(entry.shift))
		return UINT64_MAX;
	return entry.copy[copy] + index * BLOCK_BYTES;
}

/* Where the superblock or the chunk table says that this special owner's block lies. */
static devoff_t special_place(struct check *check, const struct rmap_record *record)
{
	switch (record->owner & ~OWNER_SPECIAL) {
	case OWNER_SUPERBLOCK:
		return record->offset < SUPER_SLOTS && record->count == 1 ? super_slot_offset((unsigned)record->offset) : UINT64_MAX;
	case OWNER_JOURNAL:
		return area_place(check->fs, AREA_JOURNAL, record->offset);
	case OWNER_POISON_LOG:
		return area_place(check->fs, AREA_POISON_LOG, record->offset);
	case OWNER_FIXED:
		return area_place(check->fs, AREA_FIXED, record->offset);
	case OWNER_CHUNK:
		return chunk_place(check->fs, record->offset, record->count);
	case OWNER_QUARANTINE:
		return record->start * BLOCK_BYTES;
	}
	return UINT64_MAX;
}

static void space_meet_special(struct space *space, const struct rmap_record *record)
{
	if (record->owner == OWNER(OWNER_QUARANTINE))
		space->quarantined += record->count;
	if (special_place(space->check, record) != record->start * BLOCK_BYTES)
		check_finding(space->check, "device block %llu: owned by area %llu, which is not there", (unsigned long long)record->start,
			      (unsigned long long)(record->owner & ~OWNER_SPECIAL));
	if (record->start < space->owned_end)
		check_finding(space->check, "device block %llu: owned by area %llu and somebody else", (unsigned long long)record->start,
			      (unsigned long long)(record->owner & ~OWNER_SPECIAL));
}

struct owned {
	uint64_t owner, offset;
	blkno_t next; /* everything before it is as it should be */
};

static int owned_visit(void *arg, const struct rmap_record *record)
{
	struct owned *owned = arg;

	if (record->owner != owned->owner || record->start != owned->next || record->offset != owned->offset)
		return 0;
	owned->next += record->count;
	owned->offset += record->count;
	return 0;
}

void check_owned(struct check *check, uint64_t owner, uint64_t offset, devoff_t at, uint64_t length_bytes, const char *what)
{
	blkno_t start = at / BLOCK_BYTES, count = length_bytes / BLOCK_BYTES;
	struct owned owned = {.owner = owner, .offset = offset, .next = start};
	int error = rmap_query(&check->fs->rmap, start, count, owned_visit, &owned);

	check_spend(check, CHECK_NODE_UNITS / 2);
	if (error)
		check_unreadable(check, &check->fs->rmap.tree, error);
	else if (owned.next != start + count)
		check_finding(check, "%s: is not in the reverse map at device block %llu", what, (unsigned long long)start);
}

/* --- block by block ----------------------------------------------------------------------------------------------------------------- */

/* Between what was met and what comes next there must be nothing. */
static void space_meet_gap(struct space *space, blkno_t start)
{
	blkno_t end = max_u64(space->owned_end, space->free_end);

	if (start > end)
		check_finding(space->check, "device blocks %llu to %llu: without an owner, but not free", (unsigned long long)end,
			      (unsigned long long)start);
}

static void space_meet_owner(struct space *space)
{
	const struct check_cursor *at = &space->rmap;
	struct check *check = space->check;
	struct rmap_record record = {.start = at->key.word[0], .owner = at->key.word[1], .offset = at->key.word[2]};
	uint64_t blocks = fs_size_blocks(check->fs);

	check->totals.rmap_records++;
	if (format_rmap_unpack(&record.count, &record.flags, at->value, at->length) || record.start >= blocks ||
	    record.count > blocks - record.start) {
		check_finding(check, "device block %llu: its record in the reverse map is damaged", (unsigned long long)record.start);
		return;
	}
	space_meet_gap(space, record.start);
	if (record.start < space->free_end)
		check_finding(check, "device block %llu: free, but owned by %llu", (unsigned long long)record.start,
			      (unsigned long long)record.owner);
	if (owner_is_inode(record.owner)) {
		if (record.start < space->special_end)
			check_finding(check, "device block %llu: owned by inode %llu and an area", (unsigned long long)record.start,
				      (unsigned long long)record.owner);
		space_meet_sharing(space, &record);
		check->totals.blocks_compared += record.count;
		check->maps_sum[check_bucket(check, record.owner)] -=
			check_map_hash(check, record.owner, record.offset, record.start, record.count, record.flags);
	} else {
		space_meet_special(space, &record);
		space->special_end = max_u64(space->special_end, record.start + record.count);
	}
	space->owned_end = max_u64(space->owned_end, record.start + record.count);
}

static void space_meet_free(struct space *space)
{
	const struct check_cursor *at = &space->free_space;
	struct check *check = space->check;
	uint64_t blocks = fs_size_blocks(check->fs), count;
	blkno_t start = at->key.word[0];

	if (format_free_unpack(&count, at->value, at->length) || start >= blocks || count > blocks - start) {
		check_finding(check, "device block %llu: its record as free is damaged", (unsigned long long)start);
		return;
	}
	space_meet_gap(space, start);
	if (start < space->owned_end)
		check_finding(check, "device block %llu: free, but owned", (unsigned long long)start);
	if (start < space->free_end)
		check_finding(check, "device block %llu: free twice", (unsigned long long)start);
	space->free_blocks += count;
	space->free_end = max_u64(space->free_end, start + count);
}

/* Whichever begins first; at the same block the owner. False: there is nothing more. */
static bool space_step(struct space *space)
{
	bool has_owner = check_cursor_get(&space->rmap), has_free = check_cursor_get(&space->free_space);

	if (check_is_over(space->check) || (!has_owner && !has_free))
		return false;
	if (has_owner && (!has_free || space->rmap.key.word[0] <= space->free_space.key.word[0])) {
		space->at = max_u64(space->at, space->rmap.key.word[0]);
		space_meet_owner(space);
		check_cursor_advance(&space->rmap);
	} else {
		space->at = max_u64(space->at, space->free_space.key.word[0]);
		space_meet_free(space);
		check_cursor_advance(&space->free_space);
	}
	return true;
}

/* --- over many holds ------------------------------------------------------------------------------------------------------------------ */

static int space_look_back(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	struct space *space = arg;
	struct rmap_record record = {.start = key->word[0], .owner = key->word[1], .offset = key->word[2]};

	check_spend(space->check, 1);
	if (btree_key_compare(key, &space->rmap.next) >= 0)
		return 1;
	if (format_rmap_unpack(&record.count, &record.flags, value, length))
		return 0;
	if (owner_is_inode(record.owner)) {
		space->lone = record;
		if (space->owned_end > space->at) /* another one is there too */
			space->lone.count = 0;
	} else {
		space->special_end = max_u64(space->special_end, record.start + record.count);
	}
	space->owned_end = max_u64(space->owned_end, record.start + record.count);
	return 0;
}

/*
 * Others may have changed what was met before. Judging goes on from `at`, with what reaches over it now and begins before the cursors; what is
 * before `at` has been judged.
 */
static void space_pause(struct space *space)
{
	struct check *check = space->check;
	struct btree_key key = {{space->at}};
	struct btree_record found;
	uint64_t changes = check_changes(check), count;

	check_cursor_release(&space->rmap);
	check_cursor_release(&space->free_space);
	check_pause(check);
	if (changes == check_changes(check))
		return;
	space->owned_end = space->special_end = space->free_end = space->at;
	space->lone.count = 0;
	if (btree_key_compare(&space->rmap.next, &key) < 0)
		space->rmap.next = key;
	if (space->free_space.next.word[0] < space->at)
		space->free_space.next = key;
	if (btree_walk_overlap(&check->fs->rmap.tree, space->at, space->at + 1, space_look_back, space) < 0)
		check_skip(check);
	if (!btree_lookup_le(alloc_tree(check->fs->alloc), &key, &found) &&
	    btree_key_compare(&found.key, &space->free_space.next) < 0 && !format_free_unpack(&count, found.value, found.length))
		space->free_end = max_u64(space->free_end, found.key.word[0] + count);
}

void check_space(struct check *check)
{
	struct journal *journal = check->fs->journal;
	uint64_t changes = check_changes(check);
	struct space space = {.check = check};

	check_cursor_init(&space.rmap, check, &check->fs->rmap.tree);
	check_cursor_init(&space.free_space, check, alloc_tree(check->fs->alloc));
	check_begin_phase(check, "space", fs_size_blocks(check->fs));
	while (space_step(&space)) {
		check->done = space.at;
		if (check_is_half_due(check))
			space_pause(&space);
	}
	check_cursor_release(&space.rmap);
	check_cursor_release(&space.free_space);
	if (check_is_over(check))
		return;
	space_meet_gap(&space, fs_size_blocks(check->fs));
	check_counter(check, "free blocks", root_get(journal, ROOT_FREE_BLOCKS), space.free_blocks, changes);
	check_counter(check, "quarantined blocks", root_get(journal, ROOT_QUARANTINED_BLOCKS), space.quarantined, changes);
}
