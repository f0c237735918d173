#include "fs/check.h"

#include <errno.h>
#include <sys/stat.h>

#include "fs/dir.h"
#include "journal/root.h"

#define CHECK_DEPTH_MAX (1u << 20)

struct check_inode {
	struct check *check;
	inum_t ino;
	const struct inode_record *record;
	uint64_t entries, subdirs, parents; /* counted */
	uint64_t target_bytes;
};

/* --- a directory's entries ---------------------------------------------------------------------------------------------------- */

/* From the name's own hash value on, every value before the cookie's must carry the marker. */
static bool cookie_is_reachable(struct check *check, inum_t dir, uint64_t cookie, const struct dirent_record *record)
{
	uint64_t hash = dir_hash_name(check->fs, record->name, record->name_length);
	uint64_t mask = (1ull << DIR_HASH_BITS) - 1;

	for (; hash != cookie >> 8; hash = ((hash + 1) & mask) ? (hash + 1) & mask : 1) {
		struct btree_key marker = {{dir, hash << 8 | DIR_COLLISION_MARKER}};
		struct btree_record found;

		if (btree_lookup(&check->fs->dirents, &marker, &found))
			return false;
	}
	return true;
}

static void check_entry_inode(struct check_inode *dir, uint64_t cookie, const struct dirent_record *record)
{
	struct check *check = dir->check;
	struct inode_record inode;
	struct btree_key parent = {{record->ino, dir->ino, cookie}};
	struct btree_record found;
	int error = check_load_inode(check, record->ino, &inode);

	if (error)
		check_finding(check, "directory %llu: \"%s\" names inode %llu, which cannot be had",
			      (unsigned long long)dir->ino, record->name, (unsigned long long)record->ino);
	else if (inode.generation != record->generation || dir_type_of_mode(inode.mode) != record->type)
		check_finding(check, "directory %llu: \"%s\" differs from inode %llu in type or generation",
			      (unsigned long long)dir->ino, record->name, (unsigned long long)record->ino);
	if (btree_lookup(&check->fs->parents, &parent, &found))
		check_finding(check, "directory %llu: \"%s\" is missing in the parents of inode %llu",
			      (unsigned long long)dir->ino, record->name, (unsigned long long)record->ino);
}

static int check_entry(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	struct check_inode *dir = arg;
	uint64_t cookie = key->word[1];
	struct dirent_record record;

	dir->check->met_dirents++;
	if (format_dirent_unpack(&record, value, length)) {
		check_finding(dir->check, "directory %llu: entry %llu is damaged", (unsigned long long)dir->ino,
			      (unsigned long long)cookie);
		return 0;
	}
	if (dir_entry_is_marker(&record) != ((cookie & 0xff) == DIR_COLLISION_MARKER))
		check_finding(dir->check, "directory %llu: entry %llu is a marker in the wrong place, or none",
			      (unsigned long long)dir->ino, (unsigned long long)cookie);
	if (dir_entry_is_marker(&record))
		return 0;
	dir->entries++;
	dir->subdirs += record.type == dir_type_of_mode(S_IFDIR);
	if (!cookie_is_reachable(dir->check, dir->ino, cookie, &record))
		check_finding(dir->check, "directory %llu: \"%s\" cannot be found by its hash",
			      (unsigned long long)dir->ino, record.name);
	check_entry_inode(dir, cookie, &record);
	return 0;
}

static void check_dir_depth(struct check_inode *dir)
{
	inum_t at = dir->ino;

	for (unsigned depth = 0; depth < CHECK_DEPTH_MAX && at != FS_ROOT_INO; depth++) {
		struct inode_record record;

		if (check_load_inode(dir->check, at, &record) || !S_ISDIR(record.mode)) {
			check_finding(dir->check, "directory %llu: its way to the root breaks at inode %llu",
				      (unsigned long long)dir->ino, (unsigned long long)at);
			return;
		}
		at = record.parent;
	}
	if (at != FS_ROOT_INO)
		check_finding(dir->check, "directory %llu: is not below the root", (unsigned long long)dir->ino);
}

static void check_dir(struct check_inode *dir)
{
	struct btree_key first = {{dir->ino, 0}}, last = {{dir->ino, UINT64_MAX}};
	const struct inode_record *record = dir->record;
	int error = btree_walk(&dir->check->fs->dirents, &first, &last, check_entry, dir);

	if (error) {
		check_unreadable(dir->check, "dirents", error);
		return;
	}
	if (dir->entries != record->entries)
		check_finding(dir->check, "directory %llu: says %llu entries, has %llu", (unsigned long long)dir->ino,
			      (unsigned long long)record->entries, (unsigned long long)dir->entries);
	if (record->nlink && record->nlink != 2 + dir->subdirs)
		check_finding(dir->check, "directory %llu: says %u links, has %llu", (unsigned long long)dir->ino,
			      record->nlink, (unsigned long long)(2 + dir->subdirs));
	if (record->nlink)
		check_dir_depth(dir);
}

/* --- an inode's names --------------------------------------------------------------------------------------------------------- */

static int check_parent(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	struct check_inode *inode = arg;
	struct btree_key entry = {{key->word[1], key->word[2]}};
	struct dirent_record record;
	struct btree_record found;
	int error = btree_lookup(&inode->check->fs->dirents, &entry, &found);

	inode->check->met_parents++;
	inode->parents++;
	if (!error)
		error = format_dirent_unpack(&record, found.value, found.length);
	if (error || record.ino != inode->ino)
		check_finding(inode->check, "inode %llu: its parent %llu has no entry %llu for it",
			      (unsigned long long)inode->ino, (unsigned long long)key->word[1],
			      (unsigned long long)key->word[2]);
	if (S_ISDIR(inode->record->mode) && inode->record->parent != key->word[1])
		check_finding(inode->check, "directory %llu: says parent %llu, is in %llu",
			      (unsigned long long)inode->ino, (unsigned long long)inode->record->parent,
			      (unsigned long long)key->word[1]);
	return 0;
}

static uint64_t check_names_expected(const struct check_inode *inode)
{
	if (inode->ino == FS_ROOT_INO)
		return 0;
	if (S_ISDIR(inode->record->mode))
		return inode->record->nlink ? 1 : 0;
	return inode->record->nlink;
}

static void check_parents(struct check_inode *inode)
{
	struct btree_key first = {{inode->ino, 0, 0}}, last = {{inode->ino, UINT64_MAX, UINT64_MAX}};
	int error = btree_walk(&inode->check->fs->parents, &first, &last, check_parent, inode);

	if (error)
		check_unreadable(inode->check, "parents", error);
	else if (inode->parents != check_names_expected(inode))
		check_finding(inode->check, "inode %llu: %u links, but %llu names", (unsigned long long)inode->ino,
			      inode->record->nlink, (unsigned long long)inode->parents);
}

static void check_orphan(struct check_inode *inode)
{
	struct btree_key key = {{inode->ino}};
	struct btree_record found;
	bool recorded = btree_lookup(&inode->check->fs->orphans, &key, &found) == 0;

	inode->check->met_orphans += recorded;
	if (recorded != (inode->record->nlink == 0))
		check_finding(inode->check, "inode %llu: %u links, but %s the list of orphans",
			      (unsigned long long)inode->ino, inode->record->nlink, recorded ? "on" : "not on");
}

static int check_target_part(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	struct check_inode *inode = arg;

	inode->target_bytes += length;
	return 0;
}

static void check_symlink(struct check_inode *inode)
{
	struct btree_key first = {{inode->ino, 0, 0}}, last = {{inode->ino, 0, UINT64_MAX}};
	int error = btree_walk(&inode->check->fs->xattrs, &first, &last, check_target_part, inode);

	if (error)
		check_unreadable(inode->check, "xattrs", error);
	else if (inode->target_bytes != inode->record->size_bytes)
		check_finding(inode->check, "symlink %llu: its target has %llu bytes, its size is %llu",
			      (unsigned long long)inode->ino, (unsigned long long)inode->target_bytes,
			      (unsigned long long)inode->record->size_bytes);
}

/* --- all inodes --------------------------------------------------------------------------------------------------------------- */

static int check_inode(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	struct check *check = arg;
	struct inode_record record;
	struct check_inode inode = {.check = check, .ino = key->word[0], .record = &record};

	if (format_inode_unpack(&record, value, length)) {
		check_finding(check, "inode %llu: its record is damaged", (unsigned long long)inode.ino);
		return 0;
	}
	if (inode.ino >= root_get(check->fs->journal, ROOT_NEXT_INO))
		check_finding(check, "inode %llu: beyond the numbers handed out", (unsigned long long)inode.ino);
	check_parents(&inode);
	check_orphan(&inode);
	if (S_ISDIR(record.mode))
		check_dir(&inode);
	else if (S_ISLNK(record.mode))
		check_symlink(&inode);
	return 0;
}

void check_names(struct check *check)
{
	struct btree_key first = {{0}}, last = {{UINT64_MAX}};
	struct inode_record root;
	int error = btree_walk(&check->fs->inodes, &first, &last, check_inode, check);

	if (error)
		check_unreadable(check, "inodes", error);
	if (check_load_inode(check, FS_ROOT_INO, &root) || !S_ISDIR(root.mode) || !root.nlink)
		check_finding(check, "the root directory cannot be had");
	check_compare_counter(check, "directory entries", check->count_dirents, check->met_dirents);
	check_compare_counter(check, "parents", check->count_parents, check->met_parents);
	check_compare_counter(check, "orphans with an inode", check->count_orphans, check->met_orphans);
}
