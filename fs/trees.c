#include "fs/table.h"

#include <errno.h>

#include "notify/ledger_copy.h"

static int inodes_verify(const struct btree_key *key, const void *value, size_t length)
{
	struct inode_record record;

	if (key->word[0] == 0 || (key->word[0] & OWNER_SPECIAL))
		return -EUCLEAN;
	return format_inode_unpack(&record, value, length);
}

static int dirents_verify(const struct btree_key *key, const void *value, size_t length)
{
	struct dirent_record record;

	if (key->word[0] == 0 || key->word[1] < 256 || (key->word[1] >> 63))
		return -EUCLEAN;
	return format_dirent_unpack(&record, value, length);
}

/* The bytes of the dirent; none in version 1. */
static int parents_verify(const struct btree_key *key, const void *value, size_t length)
{
	struct dirent_record record;
	int error = length ? format_dirent_unpack(&record, value, length) : 0;

	if (error || !length)
		return error;
	return record.ino == key->word[0] ? 0 : -EUCLEAN;
}

static int extents_verify(const struct btree_key *key, const void *value, size_t length)
{
	struct extent extent;

	return format_extent_unpack(&extent, value, length);
}

/* Of an attribute; what a symlink's target may be is judged with its inode. */
static int xattrs_verify(const struct btree_key *key, const void *value, size_t length)
{
	struct xattr_record record;

	if (key->word[1] == 0)
		return 0;
	if (key->word[1] < XATTR_NUMBERS || key->word[1] >> 63 || key->word[2] >= XATTR_PARTS_MAX)
		return -EUCLEAN;
	if (key->word[2] == 0)
		return format_xattr_unpack(&record, value, length);
	return length > 0 && length <= XATTR_PART_BYTES ? 0 : -EUCLEAN;
}

static int damaged_verify(const struct btree_key *key, const void *value, size_t length)
{
	struct damaged_record record;

	return format_damaged_unpack(&record, value, length);
}

static int intents_verify(const struct btree_key *key, const void *value, size_t length)
{
	struct intent_record record;

	return format_intent_unpack(&record, value, length);
}

static int empty_verify(const struct btree_key *key, const void *value, size_t length)
{
	return length == 0 ? 0 : -EUCLEAN;
}

const struct btree_ops inodes_ops = {
	.tree = FORMAT_TREE_INODES, .key_words = 1, .unit = INODE_BATCH, .verify = inodes_verify,
};
const struct btree_ops dirents_ops = {
	.tree = FORMAT_TREE_DIRENTS, .key_words = 2, .unit = 1, .verify = dirents_verify,
};
const struct btree_ops parents_ops = {
	.tree = FORMAT_TREE_PARENTS, .key_words = 3, .unit = INODE_BATCH, .verify = parents_verify,
};
const struct btree_ops extents_ops = {
	.tree = FORMAT_TREE_EXTENTS, .key_words = 2, .unit = INODE_BATCH, .verify = extents_verify,
};
const struct btree_ops xattrs_ops = {
	.tree = FORMAT_TREE_XATTRS, .key_words = 3, .unit = INODE_BATCH, .verify = xattrs_verify,
};
const struct btree_ops damaged_ops = {
	.tree = FORMAT_TREE_DAMAGED, .key_words = 2, .verify = damaged_verify,
};
const struct btree_ops orphans_ops = {
	.tree = FORMAT_TREE_ORPHANS, .key_words = 1, .unit = INODE_BATCH, .verify = empty_verify,
};
const struct btree_ops intents_ops = {
	.tree = FORMAT_TREE_INTENTS, .key_words = 1, .verify = intents_verify,
};

unsigned fs_all_trees(struct fs *fs, struct btree *copy, const struct btree *trees[FS_TREES_MAX])
{
	const struct btree *all[FS_TREES_MAX] = {
		&fs->inodes, &fs->dirents, &fs->parents, &fs->extents, &fs->xattrs, &fs->rmap.tree, alloc_tree(fs->alloc),
		ledger_badblocks_tree(fs->notify), ledger_lost_tree(fs->notify), &fs->damaged, &fs->orphans, &fs->intents, copy,
	};

	btree_init(copy, fs->journal, &ledger_copy_ops);
	for (unsigned i = 0; i < FS_TREES_MAX; i++)
		trees[i] = all[i];
	return FS_TREES_MAX;
}
