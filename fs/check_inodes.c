/*
 * Every tree whose keys begin with an inode number, all at once in that order: what an inode says of itself against its names, entries, extents,
 * target. Names and extents are added to the sums that are compared with what dirents and the reverse map say.
 */
#include "fs/check.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/data.h"
#include "fs/dir.h"
#include "fs/xattr_sum.h"
#include "journal/root.h"

#define SWEEP_ATTEMPTS 3 /* at an inode that changes under the check */
#define SYMLINK_PART_BYTES 1000

enum sweep_tree { SWEEP_INODES, SWEEP_PARENTS, SWEEP_DIRENTS, SWEEP_EXTENTS, SWEEP_XATTRS, SWEEP_DAMAGED, SWEEP_ORPHANS, SWEEP_TREES };

/* What is counted of one inode. */
struct sweep_counts {
	uint64_t names, foreign_names;
	uint64_t entries, subdirs;
	uint64_t blocks, extents_end, written_end;
	bool extents_overlap;
	uint64_t target_parts, target_bytes;
	bool target_is_odd;
	uint64_t broken_attributes, twice_attributes, user_attributes, default_acls;
	bool has_access_acl;
	uint32_t access_mode; /* as that says */
	uint64_t damaged_end;
	bool damaged_overlap, is_orphan;
};

struct sweep {
	struct check *check;
	struct check_cursor cursors[SWEEP_TREES];
	inum_t ino;
	bool has_inode;
	struct inode_record record;
	struct sweep_counts counts;
	struct xattr_sum attribute; /* being read */
	bool has_changed; /* since it was begun */
	bool is_unjudged; /* it changes too often */
	inum_t highest;
};

static bool sweep_at(struct sweep *sweep, enum sweep_tree tree)
{
	struct check_cursor *cursor = &sweep->cursors[tree];

	return check_cursor_get(cursor) && cursor->key.word[0] == sweep->ino;
}

/* Before the hold ends. Nothing of an inode before `least` is looked at again, whatever may come to be there. */
static void sweep_release(struct sweep *sweep, inum_t least)
{
	const struct btree_key key = {{least}};

	for (unsigned i = 0; i < SWEEP_TREES; i++) {
		struct check_cursor *cursor = &sweep->cursors[i];

		check_cursor_release(cursor);
		if (cursor->next.word[0] < least)
			cursor->next = key;
	}
}

static bool inode_record_is_same(const struct inode_record *a, const struct inode_record *b)
{
	struct format_inode packed[2];

	format_inode_pack(&packed[0], a);
	format_inode_pack(&packed[1], b);
	return !memcmp(&packed[0], &packed[1], sizeof(packed[0]));
}

/*
 * In the middle of an inode. Whatever is done to the records that belong to it is stamped in its own record: that one unchanged, what was
 * counted so far still holds.
 */
static void sweep_pause(struct sweep *sweep)
{
	struct inode_record now;
	int error;

	sweep_release(sweep, sweep->ino);
	check_pause(sweep->check);
	error = check_load_inode(sweep->check, sweep->ino, &now);
	if (sweep->has_inode ? error || !inode_record_is_same(&now, &sweep->record) : !error)
		sweep->has_changed = true;
}

/* On to the next record of the group; false when the inode must be begun anew. */
static bool sweep_step(struct sweep *sweep, enum sweep_tree tree)
{
	check_cursor_advance(&sweep->cursors[tree]);
	if (check_is_due(sweep->check))
		sweep_pause(sweep);
	return !check_is_over(sweep->check) && (!sweep->has_changed || sweep->is_unjudged);
}

/* --- names -------------------------------------------------------------------------------------------------------------------- */

static void sweep_parent(struct sweep *sweep)
{
	const struct check_cursor *at = &sweep->cursors[SWEEP_PARENTS];
	struct check *check = sweep->check;
	const struct inode_record *record = &sweep->record;
	struct dirent_record name;

	sweep->counts.names++;
	check->names_sum[check_bucket(check, sweep->ino)] -=
		check_name_hash(check, sweep->ino, at->key.word[1], at->key.word[2], at->value, at->length);
	if (!sweep->has_inode)
		return;
	if (S_ISDIR(record->mode) && record->parent != at->key.word[1])
		sweep->counts.foreign_names++;
	if (!at->length && check->fs->super.version < 2)
		return;
	if (format_dirent_unpack(&name, at->value, at->length))
		check_finding(check, "inode %llu: its name in directory %llu is damaged", (unsigned long long)sweep->ino,
			      (unsigned long long)at->key.word[1]);
	else if (name.generation != record->generation || name.type != dir_type_of_mode(record->mode))
		check_finding(check, "directory %llu: \"%s\" differs from inode %llu in type or generation",
			      (unsigned long long)at->key.word[1], name.name, (unsigned long long)sweep->ino);
}

static bool sweep_parents(struct sweep *sweep)
{
	while (sweep_at(sweep, SWEEP_PARENTS)) {
		sweep_parent(sweep);
		if (!sweep_step(sweep, SWEEP_PARENTS))
			return false;
	}
	return true;
}

/* --- a directory's entries ------------------------------------------------------------------------------------------------------ */

/* From the name's own hash value on, every value before the cookie's must carry the marker. */
static bool cookie_is_reachable(struct check *check, inum_t dir, uint64_t cookie, const struct dirent_record *record)
{
	uint64_t hash = dir_hash_name(check->fs, record->name, record->name_length);
	uint64_t mask = (1ull << DIR_HASH_BITS) - 1;

	for (; hash != cookie >> 8; hash = ((hash + 1) & mask) ? (hash + 1) & mask : 1) {
		struct btree_key marker = {{dir, hash << 8 | DIR_COLLISION_MARKER}};
		struct btree_record found;

		check_spend(check, CHECK_NODE_UNITS / 4);
		if (btree_lookup(&check->fs->dirents, &marker, &found))
			return false;
	}
	return true;
}

static void sweep_entry(struct sweep *sweep)
{
	const struct check_cursor *at = &sweep->cursors[SWEEP_DIRENTS];
	struct check *check = sweep->check;
	uint64_t cookie = at->key.word[1];
	struct dirent_record record;
	bool is_marker;

	if (format_dirent_unpack(&record, at->value, at->length)) {
		check_finding(check, "directory %llu: entry %llu is damaged", (unsigned long long)sweep->ino, (unsigned long long)cookie);
		return;
	}
	is_marker = dir_entry_is_marker(&record);
	if (is_marker != ((cookie & 0xff) == DIR_COLLISION_MARKER))
		check_finding(check, "directory %llu: entry %llu is a marker in the wrong place, or none",
			      (unsigned long long)sweep->ino, (unsigned long long)cookie);
	if (is_marker)
		return;
	sweep->counts.entries++;
	sweep->counts.subdirs += record.type == dir_type_of_mode(S_IFDIR);
	if (!cookie_is_reachable(check, sweep->ino, cookie, &record))
		check_finding(check, "directory %llu: \"%s\" cannot be found by its hash", (unsigned long long)sweep->ino, record.name);
	check->names_sum[check_bucket(check, record.ino)] += check_name_hash(
		check, record.ino, sweep->ino, cookie, at->value, check->fs->super.version < 2 ? 0 : at->length);
}

static bool sweep_entries(struct sweep *sweep)
{
	while (sweep_at(sweep, SWEEP_DIRENTS)) {
		sweep_entry(sweep);
		if (!sweep_step(sweep, SWEEP_DIRENTS))
			return false;
	}
	return true;
}

/* --- extents -------------------------------------------------------------------------------------------------------------------- */

static void sweep_extent(struct sweep *sweep)
{
	const struct check_cursor *at = &sweep->cursors[SWEEP_EXTENTS];
	struct sweep_counts *counts = &sweep->counts;
	struct check *check = sweep->check;
	uint64_t blocks = fs_size_blocks(check->fs), end;
	struct extent extent;

	check->totals.extents++;
	if (format_extent_unpack(&extent, at->value, at->length) || extent.block >= blocks ||
	    extent.count_blocks > blocks - extent.block || at->key.word[1] >= FILE_BLOCKS_END ||
	    extent.count_blocks > FILE_BLOCKS_END - at->key.word[1]) {
		check_finding(check, "inode %llu: its extent at block %llu is damaged", (unsigned long long)sweep->ino,
			      (unsigned long long)at->key.word[1]);
		return;
	}
	extent.file_block = at->key.word[1];
	end = extent.file_block + extent.count_blocks;
	counts->extents_overlap |= extent.file_block < counts->extents_end;
	counts->extents_end = end;
	counts->blocks += extent.count_blocks;
	if (!(extent.flags & EXTENT_UNWRITTEN))
		counts->written_end = end;
	check->totals.blocks_compared += extent.count_blocks;
	check->maps_sum[check_bucket(check, sweep->ino)] +=
		check_map_hash(check, sweep->ino, extent.file_block, extent.block, extent.count_blocks, extent.flags);
}

static bool sweep_extents(struct sweep *sweep)
{
	while (sweep_at(sweep, SWEEP_EXTENTS)) {
		sweep_extent(sweep);
		if (!sweep_step(sweep, SWEEP_EXTENTS))
			return false;
	}
	return true;
}

/* --- the rest ------------------------------------------------------------------------------------------------------------------- */

/* Is there another of this name among those of its hash before it? */
static bool attribute_is_twice(struct sweep *sweep)
{
	const struct xattr_sum *sum = &sweep->attribute;
	struct btree_key key = {{sweep->ino, sum->slot - sum->slot % XATTR_NUMBERS, 0}};
	struct xattr_record record;
	struct btree_record found;

	for (; key.word[1] < sum->slot; key.word[1] = found.key.word[1] + 1) {
		check_spend(sweep->check, CHECK_NODE_UNITS / 4);
		if (btree_lookup_ge(&sweep->check->fs->xattrs, &key, &found) || found.key.word[0] != sweep->ino ||
		    found.key.word[1] >= sum->slot)
			return false;
		if (!found.key.word[2] && !format_xattr_unpack(&record, found.value, found.length) && !strcmp(record.name, sum->record.name))
			return true;
	}
	return false;
}

/* All of its parts were seen. */
static void sweep_attribute_end(struct sweep *sweep)
{
	struct sweep_counts *counts = &sweep->counts;
	struct xattr_sum *sum = &sweep->attribute;
	struct acl acl;

	if (!sum->slot)
		return;
	if (!xattr_sum_is_sound(sweep->check->fs, sum)) {
		counts->broken_attributes++;
	} else {
		enum xattr_space space = xattr_sum_space(sum);

		counts->twice_attributes += attribute_is_twice(sweep);
		counts->user_attributes += space == XATTR_USER;
		counts->default_acls += space == XATTR_ACL_DEFAULT;
		if (space == XATTR_ACL_ACCESS) {
			xattr_sum_acl(sum, &acl);
			counts->has_access_acl = true;
			counts->access_mode = acl_mode(&acl);
		}
	}
	sum->slot = 0;
}

static void sweep_xattr(struct sweep *sweep)
{
	const struct check_cursor *at = &sweep->cursors[SWEEP_XATTRS];
	struct sweep_counts *counts = &sweep->counts;

	if (sweep->attribute.slot != at->key.word[1])
		sweep_attribute_end(sweep);
	if (at->key.word[1]) {
		xattr_sum_add(&sweep->attribute, &at->key, at->value, at->length);
		return;
	}
	counts->target_is_odd |= at->key.word[2] != counts->target_parts || counts->target_bytes % SYMLINK_PART_BYTES || !at->length ||
				 at->length > SYMLINK_PART_BYTES || memchr(at->value, 0, at->length);
	counts->target_parts++;
	counts->target_bytes += at->length;
}

static void sweep_damage(struct sweep *sweep)
{
	const struct check_cursor *at = &sweep->cursors[SWEEP_DAMAGED];
	struct sweep_counts *counts = &sweep->counts;
	struct damaged_record record;

	if (format_damaged_unpack(&record, at->value, at->length))
		return;
	counts->damaged_overlap |= at->key.word[1] < counts->damaged_end || record.length_bytes > UINT64_MAX - at->key.word[1];
	counts->damaged_end = at->key.word[1] + record.length_bytes;
}

static bool sweep_rest(struct sweep *sweep)
{
	while (sweep_at(sweep, SWEEP_XATTRS)) {
		sweep_xattr(sweep);
		if (!sweep_step(sweep, SWEEP_XATTRS))
			return false;
	}
	sweep_attribute_end(sweep);
	while (sweep_at(sweep, SWEEP_DAMAGED)) {
		sweep_damage(sweep);
		if (!sweep_step(sweep, SWEEP_DAMAGED))
			return false;
	}
	sweep->counts.is_orphan = sweep_at(sweep, SWEEP_ORPHANS);
	return !sweep->counts.is_orphan || sweep_step(sweep, SWEEP_ORPHANS);
}

/* --- judging -------------------------------------------------------------------------------------------------------------------- */

static void judge_names(struct sweep *sweep)
{
	const struct inode_record *record = &sweep->record;
	struct check *check = sweep->check;
	uint64_t expected = S_ISDIR(record->mode) ? record->nlink != 0 : record->nlink;

	if (sweep->ino == FS_ROOT_INO)
		expected = 0;
	if (sweep->counts.names != expected)
		check_finding(check, "inode %llu: %u links, but %llu names", (unsigned long long)sweep->ino, record->nlink,
			      (unsigned long long)sweep->counts.names);
	if (sweep->counts.foreign_names)
		check_finding(check, "directory %llu: says parent %llu, is in another", (unsigned long long)sweep->ino,
			      (unsigned long long)record->parent);
	if (sweep->counts.is_orphan != (record->nlink == 0))
		check_finding(check, "inode %llu: %u links, but %s the list of orphans", (unsigned long long)sweep->ino, record->nlink,
			      sweep->counts.is_orphan ? "on" : "not on");
}

static void judge_directory(struct sweep *sweep)
{
	const struct inode_record *record = &sweep->record;
	const struct sweep_counts *counts = &sweep->counts;
	struct check *check = sweep->check;

	if (!S_ISDIR(record->mode)) {
		if (counts->entries)
			check_finding(check, "inode %llu: has entries, but is no directory", (unsigned long long)sweep->ino);
		return;
	}
	if (counts->entries != record->entries)
		check_finding(check, "directory %llu: says %llu entries, has %llu", (unsigned long long)sweep->ino,
			      (unsigned long long)record->entries, (unsigned long long)counts->entries);
	if (record->nlink && record->nlink != 2 + counts->subdirs)
		check_finding(check, "directory %llu: says %u links, has %llu", (unsigned long long)sweep->ino, record->nlink,
			      (unsigned long long)(2 + counts->subdirs));
}

struct intent_search {
	inum_t ino;
};

static int intent_names(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	const struct intent_search *search = arg;
	struct intent_record intent;

	(void)key;
	if (format_intent_unpack(&intent, value, length))
		return 0;
	return intent.args[0] == search->ino || (intent.op == INTENT_CLONE && intent.args[2] == search->ino);
}

/* A chain of transactions is at work on it: its map may be ahead of its size, or behind. */
static bool inode_is_intended(struct check *check, inum_t ino)
{
	struct btree_key first = {{0}}, last = {{UINT64_MAX}};
	struct intent_search search = {ino};

	return btree_walk(&check->fs->intents, &first, &last, intent_names, &search) != 0;
}

static void judge_extents(struct sweep *sweep)
{
	const struct inode_record *record = &sweep->record;
	const struct sweep_counts *counts = &sweep->counts;
	struct check *check = sweep->check;

	if (counts->extents_overlap)
		check_finding(check, "inode %llu: its extents overlap", (unsigned long long)sweep->ino);
	if (counts->extents_end && !S_ISREG(record->mode))
		check_finding(check, "inode %llu: has extents, but is no regular file", (unsigned long long)sweep->ino);
	if (counts->blocks != record->count_blocks)
		check_finding(check, "inode %llu: says %llu blocks, has %llu", (unsigned long long)sweep->ino,
			      (unsigned long long)record->count_blocks, (unsigned long long)counts->blocks);
	if (S_ISREG(record->mode) && record->nlink && counts->written_end > file_block_up(record->size_bytes) &&
	    !inode_is_intended(check, sweep->ino))
		check_finding(check, "inode %llu: its size is %llu, but written blocks go on to block %llu", (unsigned long long)sweep->ino,
			      (unsigned long long)record->size_bytes, (unsigned long long)counts->written_end);
	if (counts->damaged_overlap)
		check_finding(check, "inode %llu: its damaged ranges overlap", (unsigned long long)sweep->ino);
}

/* One without names may be losing its target already. */
static void judge_target(struct sweep *sweep)
{
	const struct inode_record *record = &sweep->record;
	const struct sweep_counts *counts = &sweep->counts;

	if (!S_ISLNK(record->mode)) {
		if (counts->target_parts)
			check_finding(sweep->check, "inode %llu: has a target, but is no symlink", (unsigned long long)sweep->ino);
		return;
	}
	if (!record->nlink)
		return;
	if (counts->target_bytes != record->size_bytes)
		check_finding(sweep->check, "symlink %llu: its target has %llu bytes, its size is %llu", (unsigned long long)sweep->ino,
			      (unsigned long long)counts->target_bytes, (unsigned long long)record->size_bytes);
	if (counts->target_is_odd || !counts->target_bytes || counts->target_bytes > FS_SYMLINK_MAX)
		check_finding(sweep->check, "symlink %llu: its target is no text of 1 to %u bytes in whole parts",
			      (unsigned long long)sweep->ino, FS_SYMLINK_MAX);
}

/* One without names may be losing them already. */
static void judge_attributes(struct sweep *sweep)
{
	const struct sweep_counts *counts = &sweep->counts;
	uint32_t mode = sweep->record.mode;
	struct check *check = sweep->check;

	if (!sweep->record.nlink)
		return;
	if (counts->broken_attributes)
		check_finding(check, "inode %llu: %llu of its attributes are not whole, or not where their names say", (unsigned long long)sweep->ino,
			      (unsigned long long)counts->broken_attributes);
	if (counts->twice_attributes)
		check_finding(check, "inode %llu: two attributes of the same name", (unsigned long long)sweep->ino);
	if (counts->user_attributes && !S_ISREG(mode) && !S_ISDIR(mode))
		check_finding(check, "inode %llu: has user attributes, but is neither file nor directory", (unsigned long long)sweep->ino);
	if (counts->default_acls && !S_ISDIR(mode))
		check_finding(check, "inode %llu: has a default ACL, but is no directory", (unsigned long long)sweep->ino);
	if (counts->has_access_acl && (S_ISLNK(mode) || counts->access_mode != (mode & 0777)))
		check_finding(check, "inode %llu: its ACL and its mode disagree", (unsigned long long)sweep->ino);
}

static void sweep_judge(struct sweep *sweep)
{
	struct check *check = sweep->check;

	if (!sweep->has_inode)
		return;
	if (sweep->is_unjudged) {
		check_skip(check);
		return;
	}
	if (sweep->ino >= root_get(check->fs->journal, ROOT_NEXT_INO))
		check_finding(check, "inode %llu: beyond the numbers handed out", (unsigned long long)sweep->ino);
	judge_names(sweep);
	judge_directory(sweep);
	judge_extents(sweep);
	judge_target(sweep);
	judge_attributes(sweep);
}

/* --- all inodes ----------------------------------------------------------------------------------------------------------------- */

static void sweep_keep_dir(struct sweep *sweep)
{
	struct check *check = sweep->check;
	struct check_dir *grown;
	size_t capacity = check->capacity_dirs ? 2 * check->capacity_dirs : 64;

	if (!sweep->has_inode || !S_ISDIR(sweep->record.mode) || !sweep->record.nlink)
		return;
	if (check->count_dirs == check->capacity_dirs) {
		grown = realloc(check->dirs, capacity * sizeof(*grown));
		if (!grown) {
			check_fail(check, -ENOMEM);
			return;
		}
		check->dirs = grown;
		check->capacity_dirs = capacity;
	}
	check->dirs[check->count_dirs++] =
		(struct check_dir){sweep->ino, sweep->record.parent ? sweep->record.parent : sweep->ino};
}

/* Records of an inode that is not there; all of it is seen within this hold. */
static void sweep_missing(struct sweep *sweep)
{
	static const char *const what[SWEEP_TREES] = {
		[SWEEP_PARENTS] = "names",   [SWEEP_DIRENTS] = "directory entries", [SWEEP_EXTENTS] = "extents",
		[SWEEP_XATTRS] = "attributes", [SWEEP_DAMAGED] = "damaged ranges",    [SWEEP_ORPHANS] = "a record as an orphan",
	};

	for (unsigned tree = SWEEP_PARENTS; tree < SWEEP_TREES; tree++)
		if (sweep_at(sweep, tree))
			check_finding(sweep->check, "inode %llu: has %s, but cannot be had", (unsigned long long)sweep->ino, what[tree]);
}

static void sweep_begin(struct sweep *sweep)
{
	struct check_cursor *inodes = &sweep->cursors[SWEEP_INODES];

	sweep->counts = (struct sweep_counts){0};
	sweep->attribute.slot = 0;
	sweep->has_changed = false;
	sweep->has_inode = sweep_at(sweep, SWEEP_INODES);
	if (sweep->has_inode && format_inode_unpack(&sweep->record, inodes->value, inodes->length)) {
		check_finding(sweep->check, "inode %llu: its record is damaged", (unsigned long long)sweep->ino);
		sweep->has_inode = false;
	} else if (!sweep->has_inode) {
		sweep_missing(sweep);
	}
	if (sweep_at(sweep, SWEEP_INODES))
		check_cursor_advance(inodes);
}

/* Go back to its first record. What was added to the sums is there twice then: those buckets are looked at record by record. */
static void sweep_again(struct sweep *sweep)
{
	const struct btree_key key = {{sweep->ino}};

	for (unsigned i = 0; i < SWEEP_TREES; i++)
		check_cursor_set(&sweep->cursors[i], &key);
}

static void sweep_inode(struct sweep *sweep)
{
	struct check *check = sweep->check;

	sweep->is_unjudged = false;
	for (unsigned attempt = 1;; attempt++) {
		sweep->is_unjudged = attempt > SWEEP_ATTEMPTS;
		sweep_begin(sweep);
		if (sweep_parents(sweep) && sweep_entries(sweep) && sweep_extents(sweep) && sweep_rest(sweep))
			break;
		if (check_is_over(check))
			return;
		sweep_again(sweep);
	}
	sweep_judge(sweep);
	sweep_keep_dir(sweep);
	if (sweep->has_inode)
		check->done = ++check->totals.inodes;
}

/* The lowest number that any tree goes on with. */
static bool sweep_next(struct sweep *sweep)
{
	bool found = false;

	for (unsigned i = 0; i < SWEEP_TREES; i++) {
		struct check_cursor *cursor = &sweep->cursors[i];

		if (!check_cursor_get(cursor) || (found && cursor->key.word[0] >= sweep->ino))
			continue;
		sweep->ino = cursor->key.word[0];
		found = true;
	}
	return found && !check_is_over(sweep->check);
}

static void sweep_init(struct sweep *sweep, struct check *check)
{
	struct fs *fs = check->fs;
	const struct btree *trees[SWEEP_TREES] = {
		[SWEEP_INODES] = &fs->inodes,	[SWEEP_PARENTS] = &fs->parents, [SWEEP_DIRENTS] = &fs->dirents,
		[SWEEP_EXTENTS] = &fs->extents, [SWEEP_XATTRS] = &fs->xattrs,	[SWEEP_DAMAGED] = &fs->damaged,
		[SWEEP_ORPHANS] = &fs->orphans,
	};

	*sweep = (struct sweep){.check = check};
	for (unsigned i = 0; i < SWEEP_TREES; i++)
		check_cursor_init(&sweep->cursors[i], check, trees[i]);
}

void check_inodes(struct check *check)
{
	struct journal *journal = check->fs->journal;
	uint64_t changes = check_changes(check);
	struct inode_record root;
	struct sweep sweep;

	sweep_init(&sweep, check);
	check_begin_phase(check, "inodes", root_get(journal, ROOT_INODES));
	while (sweep_next(&sweep)) {
		sweep_inode(&sweep);
		if (check_is_half_due(check)) {
			sweep_release(&sweep, sweep.ino + 1);
			check_pause(check);
		}
	}
	sweep_release(&sweep, 0);
	if (check_is_over(check))
		return;
	check_counter(check, "inodes", root_get(journal, ROOT_INODES), check->totals.inodes, changes);
	if (check_load_inode(check, FS_ROOT_INO, &root) || !S_ISDIR(root.mode) || !root.nlink || root.parent != FS_ROOT_INO)
		check_finding(check, "the root directory cannot be had");
}
