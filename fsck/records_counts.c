/* What each inode says of itself, from what there is of it. */
#include "fsck/sweep.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/data.h"
#include "journal/root.h"

struct counting {
	struct records *records;
	struct sweep sweep;
	inum_t *sharers; /* ascending */
	size_t count_sharers, capacity_sharers;
	uint64_t inodes, orphans;
};

/* --- who shares ------------------------------------------------------------------------------------------------------------------------------ */

/*
 * Records come in order of their start. Of those that reach beyond it at most one is not known to share: two would share with each
 * other.
 */
struct sharing {
	blkno_t end;	   /* of all so far */
	uint64_t owner;	   /* the one not known to share, and its end */
	blkno_t owner_end;
};

static int sharer_add(struct counting *counting, inum_t ino)
{
	inum_t *to;

	if (!owner_is_inode(ino))
		return 0;
	to = records_grow((void **)&counting->sharers, &counting->count_sharers, &counting->capacity_sharers, sizeof(*to));
	if (!to)
		return -ENOMEM;
	*to = ino;
	return 0;
}

static int sharing_take(struct counting *counting, struct sharing *sharing, const struct cursor_record *record)
{
	blkno_t start = record->key.word[0];
	uint64_t count;
	uint8_t flags;
	int error = format_rmap_unpack(&count, &flags, record->value, record->length);

	if (error)
		return error;
	if (start < sharing->end) {
		error = sharer_add(counting, record->key.word[1]);
		if (!error && sharing->owner_end > start)
			error = sharer_add(counting, sharing->owner);
		if (sharing->owner_end > start)
			sharing->owner_end = 0;
	} else {
		sharing->owner = record->key.word[1];
		sharing->owner_end = start + count;
	}
	sharing->end = max_u64(sharing->end, start + count);
	return error;
}

static int ino_compare(const void *a, const void *b)
{
	const inum_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static int sharers_find(struct counting *counting)
{
	struct records *records = counting->records;
	struct sharing sharing = {0};
	struct cursor_record record;
	struct cursor cursor;
	int got = cursor_begin(&cursor, records, &records->fs->rmap.tree), error = got;

	while (!error && (got = cursor_peek(&cursor, &record)) > 0) {
		error = sharing_take(counting, &sharing, &record);
		cursor_advance(&cursor);
	}
	cursor_end(&cursor);
	if (counting->count_sharers)
		qsort(counting->sharers, counting->count_sharers, sizeof(inum_t), ino_compare);
	return error ? error : got;
}

static bool ino_shares(const struct counting *counting, inum_t ino)
{
	return counting->count_sharers && bsearch(&ino, counting->sharers, counting->count_sharers, sizeof(ino), ino_compare);
}

/* --- one inode ---------------------------------------------------------------------------------------------------------------------------------- */

/*
 * Written blocks beyond the end of file are those of a file that has grown since its record was written, unless an unfinished truncate is at them.
 */
static void count_file(const struct counting *counting, const struct facts *facts, struct inode_record *record)
{
	record->nlink = (uint32_t)facts->names;
	record->count_blocks = facts->blocks;
	if (ino_shares(counting, facts->ino))
		record->flags |= INODE_MAY_SHARE;
	if (facts->written_end > file_block_up(record->size_bytes) && !records_has_intent(counting->records, facts->ino))
		record->size_bytes = min_u64(facts->written_end << BLOCK_SHIFT, FS_FILE_MAX);
}

static void count_dir(const struct facts *facts, struct inode_record *record)
{
	bool is_root = facts->ino == FS_ROOT_INO;

	record->nlink = is_root || facts->names ? (uint32_t)(2 + facts->subdirs) : 0;
	record->entries = facts->entries;
	if (is_root)
		record->parent = FS_ROOT_INO;
	else if (facts->names)
		record->parent = facts->dir;
	record->count_blocks = 0;
}

/* A target of which parts are missing leads nowhere; no symlink is without any, so it gets one that says so. */
static int count_symlink(struct records *records, const struct facts *facts, struct inode_record *record)
{
	static const char target[] = "target lost, fsck.mendfs";
	const struct btree_key key = {{facts->ino, 0, 0}};
	int error;

	record->nlink = (uint32_t)facts->names;
	record->count_blocks = 0;
	if (facts->is_target_whole && facts->target_bytes >= record->size_bytes && facts->target_bytes) {
		record->size_bytes = facts->target_bytes;
		return 0;
	}
	records_tell(records, RECORD_TARGET_LOST, "symlink %llu: its target is lost", (unsigned long long)facts->ino);
	error = purge_target(records, facts->ino);
	record->size_bytes = sizeof(target) - 1;
	return error ? error : records_put(records, &records->fs->xattrs, &key, target, sizeof(target) - 1);
}

static int count_orphan(struct counting *counting, const struct facts *facts, const struct inode_record *record)
{
	struct records *records = counting->records;
	const struct btree_key key = {{facts->ino}};

	counting->orphans += !record->nlink;
	if (facts->is_orphan == !record->nlink)
		return 0;
	records_tell(records, RECORD_ORPHAN, "inode %llu: %s the list of orphans", (unsigned long long)facts->ino,
		     record->nlink ? "taken off" : "put on");
	if (record->nlink)
		return records_remove(records, &records->fs->orphans, &key);
	return records_put(records, &records->fs->orphans, &key, NULL, 0);
}

static void add_change(char *to, size_t size, const char *what, uint64_t before, uint64_t after)
{
	size_t used = strlen(to);

	if (before != after)
		snprintf(to + used, size - used, ", %s %llu, was %llu", what, (unsigned long long)after, (unsigned long long)before);
}

static int count_store(struct counting *counting, const struct facts *facts, const struct inode_record *record)
{
	const struct inode_record *old = &facts->inode;
	char changes[300] = "";

	add_change(changes, sizeof(changes), "links", old->nlink, record->nlink);
	add_change(changes, sizeof(changes), "size", old->size_bytes, record->size_bytes);
	add_change(changes, sizeof(changes), "blocks", old->count_blocks, record->count_blocks);
	add_change(changes, sizeof(changes), "entries", old->entries, record->entries);
	add_change(changes, sizeof(changes), "parent", old->parent, record->parent);
	add_change(changes, sizeof(changes), "flags", old->flags, record->flags);
	if (!changes[0])
		return 0;
	records_tell(counting->records, RECORD_INODE, "inode %llu: %s", (unsigned long long)facts->ino, changes + 2);
	return records_put_inode(counting->records, facts->ino, record);
}

static int count_inode(struct counting *counting)
{
	const struct facts *facts = &counting->sweep.facts;
	struct inode_record record = facts->inode;
	int error = 0;

	if (!facts->has_inode)
		return 0;
	counting->inodes++;
	if (S_ISDIR(record.mode)) {
		count_dir(facts, &record);
	} else if (S_ISLNK(record.mode)) {
		error = count_symlink(counting->records, facts, &record);
	} else if (S_ISREG(record.mode)) {
		count_file(counting, facts, &record);
	} else {
		record.nlink = (uint32_t)facts->names;
		record.count_blocks = 0;
	}
	if (!error)
		error = count_store(counting, facts, &record);
	return error ? error : count_orphan(counting, facts, &record);
}

static int count_all(struct counting *counting)
{
	int got = 0, error = sweep_begin(&counting->sweep, counting->records);

	while (!error && (got = sweep_next(&counting->sweep)) > 0)
		error = count_inode(counting);
	sweep_end(&counting->sweep);
	return error ? error : got;
}

int counts_settle(struct records *records)
{
	struct counting counting = {.records = records};
	int error = sharers_find(&counting);

	if (!error)
		error = count_all(&counting);
	if (!error)
		error = records_set_counter(records, ROOT_INODES, counting.inodes);
	if (!error)
		error = records_set_counter(records, ROOT_ORPHANS, counting.orphans);
	free(counting.sharers);
	return error;
}
