/* Entries against parents, one by one, where their sums differ; and the way of every directory to the root. */
#include "fs/check.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/dir.h"

#define WAY_STEPS_MAX (1u << 20) /* up from one directory */
#define WAY_STEPS_SHARED (1u << 14) /* while others wait */
#define WAYS_TOLD_MAX 4096

/* --- entries and parents -------------------------------------------------------------------------------------------------------- */

static bool names_differ(const struct check *check, inum_t ino)
{
	return check->fs->super.version < 2 || check->names_sum[check_bucket(check, ino)];
}

/* Version 1 says type and generation in the entry only. */
static void names_check_old(struct check *check, const struct check_cursor *at, const struct dirent_record *record)
{
	struct inode_record inode;

	if (check->fs->super.version >= 2)
		return;
	if (!check_load_inode(check, record->ino, &inode) &&
	    (inode.generation != record->generation || dir_type_of_mode(inode.mode) != record->type))
		check_finding(check, "directory %llu: \"%s\" differs from inode %llu in type or generation",
			      (unsigned long long)at->key.word[0], record->name, (unsigned long long)record->ino);
}

static void names_check_entry(struct check *check, const struct check_cursor *at, void *arg)
{
	struct dirent_record record;
	struct btree_record found;
	struct btree_key parent;
	int error;

	if (format_dirent_unpack(&record, at->value, at->length) || dir_entry_is_marker(&record) || !names_differ(check, record.ino))
		return;
	parent = (struct btree_key){{record.ino, at->key.word[0], at->key.word[1]}};
	error = btree_lookup(&check->fs->parents, &parent, &found);
	check_spend(check, CHECK_NODE_UNITS / 4);
	if (error == -ENOENT)
		check_finding(check, "directory %llu: \"%s\" is missing in the parents of inode %llu",
			      (unsigned long long)at->key.word[0], record.name, (unsigned long long)record.ino);
	else if (error)
		check_unreadable(check, &check->fs->parents, error);
	else if (check->fs->super.version >= 2 && (found.length != at->length || memcmp(found.value, at->value, at->length)))
		check_finding(check, "directory %llu: \"%s\" is another name in the parents of inode %llu",
			      (unsigned long long)at->key.word[0], record.name, (unsigned long long)record.ino);
	names_check_old(check, at, &record);
}

static void names_check_parent(struct check *check, const struct check_cursor *at, void *arg)
{
	struct btree_key entry = {{at->key.word[1], at->key.word[2]}};
	struct dirent_record record = {0};
	struct btree_record found;
	int error;

	if (!names_differ(check, at->key.word[0]))
		return;
	error = btree_lookup(&check->fs->dirents, &entry, &found);
	check_spend(check, CHECK_NODE_UNITS / 4);
	if (error && error != -ENOENT) {
		check_unreadable(check, &check->fs->dirents, error);
		return;
	}
	if (error || format_dirent_unpack(&record, found.value, found.length) || record.ino != at->key.word[0])
		check_finding(check, "inode %llu: its parent %llu has no entry %llu for it", (unsigned long long)at->key.word[0],
			      (unsigned long long)at->key.word[1], (unsigned long long)at->key.word[2]);
}

void check_names(struct check *check)
{
	bool differ = check->fs->super.version < 2;

	for (unsigned i = 0; i < CHECK_BUCKETS && !differ; i++)
		differ = check->names_sum[i] != 0;
	if (!differ)
		return;
	check_begin_phase(check, "names", 0);
	check_each(check, &check->fs->dirents, names_check_entry, NULL);
	check_each(check, &check->fs->parents, names_check_parent, NULL);
}

/* --- connectivity ----------------------------------------------------------------------------------------------------------------- */

/* Up the tree as it is now, within this hold; no cycle is longer than what Brent's walk sees of it. */
static int way_up(struct check *check, inum_t ino, inum_t *broken)
{
	inum_t at = ino, mark = ino;
	bool is_alone = check->fs->options.readonly || check->fs->options.tools;
	unsigned steps = is_alone ? WAY_STEPS_MAX : WAY_STEPS_SHARED;
	uint64_t limit = 1, since = 0;

	for (unsigned step = 0; step < steps && at != FS_ROOT_INO; step++) {
		struct inode_record record;
		int error = check_load_inode(check, at, &record);

		*broken = at;
		if (error == -ENOENT && at == ino)
			return 0; /* gone meanwhile */
		if (error || !S_ISDIR(record.mode) || !record.nlink)
			return at == ino && !error ? 0 : -ENOENT;
		at = record.parent;
		if (at == mark)
			return -ELOOP;
		if (++since == limit) {
			mark = at;
			limit *= 2;
			since = 0;
		}
	}
	return at == FS_ROOT_INO ? 0 : -E2BIG;
}

/* One whose way did not end at the root, as it was seen over many holds. */
static void check_dir_way(struct check *check, inum_t ino)
{
	inum_t broken = ino;
	int error = check->ways_tried++ < WAYS_TOLD_MAX ? way_up(check, ino, &broken) : -E2BIG;

	if (error == -E2BIG)
		check_skip(check);
	else if (error == -ELOOP)
		check_finding(check, "directory %llu: is not below the root", (unsigned long long)ino);
	else if (error)
		check_finding(check, "directory %llu: its way to the root breaks at inode %llu", (unsigned long long)ino,
			      (unsigned long long)broken);
}

static size_t dir_find(const struct check *check, inum_t ino)
{
	size_t low = 0, high = check->count_dirs;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (check->dirs[middle].ino < ino)
			low = middle + 1;
		else
			high = middle;
	}
	return low < check->count_dirs && check->dirs[low].ino == ino ? low : SIZE_MAX;
}

/*
 * In the array the parent's number gives way to what is known of a directory. No inode has the number 0, nor the highest one; the top bit marks those
 * on the way that is being gone.
 */
#define WAY_IS_GOOD 0
#define WAY_IS_BAD (OWNER_SPECIAL - 1)
#define WAY_IS_GONE OWNER_SPECIAL

/* Up to what is known, or breaks. Marks what it passes; true: it leads to the root. */
static bool dir_go_up(struct check *check, size_t start)
{
	inum_t ino = check->dirs[start].ino;
	size_t at = start;

	while (at != SIZE_MAX && ino != FS_ROOT_INO && check->dirs[at].parent != WAY_IS_GOOD) {
		if (check->dirs[at].parent >= WAY_IS_BAD)
			return false;
		ino = check->dirs[at].parent;
		check->dirs[at].parent |= WAY_IS_GONE;
		at = dir_find(check, ino);
	}
	return at != SIZE_MAX;
}

static void dir_settle(struct check *check, size_t start, bool is_good)
{
	size_t at = start;

	while (at != SIZE_MAX && (check->dirs[at].parent & WAY_IS_GONE)) {
		inum_t parent = check->dirs[at].parent & ~WAY_IS_GONE;

		check->dirs[at].parent = is_good ? WAY_IS_GOOD : WAY_IS_BAD;
		at = dir_find(check, parent);
	}
}

void check_dirs(struct check *check)
{
	check_begin_phase(check, "directories", check->count_dirs);
	for (size_t i = 0; i < check->count_dirs && !check_is_over(check); i++) {
		bool is_good = dir_go_up(check, i);

		dir_settle(check, i, is_good);
		check_spend(check, 4);
		if (!is_good)
			check_dir_way(check, check->dirs[i].ino);
		check->done++;
		if (check_is_due(check))
			check_pause(check);
	}
}
