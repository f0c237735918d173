/*
 * Extended attributes. Nothing else tells of them: one of which a part is missing or of another age is dropped, told by name, and so is one that its file cannot
 * have. An access ACL that contradicts the mode is made to agree with it: the mode may be younger, and says less where it was made up.
 */
#include "fsck/records.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/xattr_sum.h"

struct xattr_walk {
	struct records *records;
	struct xattr_sum sum; /* slot 0: none */
	inum_t ino;
	bool has_inode;
	struct inode_record inode;
};

static int slot_drop(struct records *records, inum_t ino, uint64_t slot)
{
	const struct btree *tree = &records->fs->xattrs;
	struct btree_key key = {{ino, slot, 0}};
	struct btree_record found;
	int error;

	while (!(error = records_lookup_ge(records, tree, &key, &found)) && found.key.word[0] == ino && found.key.word[1] == slot) {
		error = records_remove(records, tree, &found.key);
		if (error)
			return error;
	}
	return error == -ENOENT ? 0 : error;
}

/* Another attribute of this name before it, under the same hash: 1, 0 or an error. */
static int name_is_twice(struct xattr_walk *walk)
{
	const struct xattr_sum *sum = &walk->sum;
	struct btree_key key = {{walk->ino, sum->slot - sum->slot % XATTR_NUMBERS, 0}};
	struct xattr_record record;
	struct btree_record found;

	for (; key.word[1] < sum->slot; key.word[1] = found.key.word[1] + 1) {
		int error = records_lookup_ge(walk->records, &walk->records->fs->xattrs, &key, &found);

		if (error)
			return error == -ENOENT ? 0 : error;
		if (found.key.word[0] != walk->ino || found.key.word[1] >= sum->slot)
			return 0;
		if (!found.key.word[2] && !format_xattr_unpack(&record, found.value, found.length) && !strcmp(record.name, sum->record.name))
			return 1;
	}
	return 0;
}

static const char *inode_cannot_have(const struct inode_record *inode, enum xattr_space space)
{
	if (space == XATTR_USER && !S_ISREG(inode->mode) && !S_ISDIR(inode->mode))
		return "is neither file nor directory";
	if (space == XATTR_ACL_DEFAULT && !S_ISDIR(inode->mode))
		return "is no directory";
	return space == XATTR_ACL_ACCESS && S_ISLNK(inode->mode) ? "is a symlink" : NULL;
}

static int acl_correct(struct xattr_walk *walk)
{
	struct xattr_record record = walk->sum.record;
	const struct btree_key key = {{walk->ino, walk->sum.slot, 0}};
	uint8_t blob[ACL_BLOB_MAX], part[XATTR_PART_BYTES];
	struct acl acl;
	size_t length;
	int error;

	xattr_sum_acl(&walk->sum, &acl);
	if (acl_mode(&acl) == (walk->inode.mode & 0777))
		return 0;
	records_tell(walk->records, RECORD_ACL, "inode %llu: its ACL corrected to agree with its mode", (unsigned long long)walk->ino);
	acl_set_mode(&acl, walk->inode.mode);
	record.value_length = (uint32_t)format_acl_pack(blob, &acl);
	length = format_xattr_pack(part, &record, blob);
	error = records_put(walk->records, &walk->records->fs->xattrs, &key, part, length);
	for (uint32_t i = 1, at = record.first_bytes; i < record.count_parts && !error; i++) {
		const struct btree_key next = {{walk->ino, walk->sum.slot, i}};

		length = format_xattr_part_bytes(&record, i);
		error = records_put(walk->records, &walk->records->fs->xattrs, &next, blob + at, length);
		at += (uint32_t)length;
	}
	return error;
}

static const char *sum_name(const struct xattr_sum *sum)
{
	return sum->record.name_length ? sum->record.name : "of which the name is gone";
}

static int attribute_drop(struct xattr_walk *walk, const char *why)
{
	records_tell(walk->records, RECORD_ATTRIBUTE, "inode %llu: attribute %.100s dropped: it %s", (unsigned long long)walk->ino,
		     sum_name(&walk->sum), why);
	return slot_drop(walk->records, walk->ino, walk->sum.slot);
}

/* Of an inode without names some may be gone already. */
static int attribute_settle(struct xattr_walk *walk)
{
	enum xattr_space space;
	const char *foreign;
	int twice;

	if (!walk->sum.slot || !walk->has_inode || !walk->inode.nlink)
		return 0;
	if (!xattr_sum_is_sound(walk->records->fs, &walk->sum))
		return attribute_drop(walk, "is not whole");
	twice = name_is_twice(walk);
	if (twice)
		return twice < 0 ? twice : attribute_drop(walk, "is there twice");
	space = xattr_sum_space(&walk->sum);
	foreign = inode_cannot_have(&walk->inode, space);
	if (foreign)
		return attribute_drop(walk, foreign);
	return space == XATTR_ACL_ACCESS ? acl_correct(walk) : 0;
}

static int walk_take(struct xattr_walk *walk, const struct cursor_record *record)
{
	int error = 0;

	if (walk->ino != record->key.word[0] || walk->sum.slot != record->key.word[1]) {
		error = attribute_settle(walk);
		walk->sum.slot = 0;
	}
	if (!error && walk->ino != record->key.word[0]) {
		walk->ino = record->key.word[0];
		error = records_load_inode(walk->records, walk->ino, &walk->inode);
		walk->has_inode = !error;
		error = error == -ENOENT ? 0 : error;
	}
	if (!error && record->key.word[1])
		xattr_sum_add(&walk->sum, &record->key, record->value, record->length);
	return error;
}

int xattrs_settle(struct records *records)
{
	struct xattr_walk walk = {.records = records};
	struct cursor_record record;
	struct cursor cursor;
	int got = cursor_begin(&cursor, records, &records->fs->xattrs), error = got;

	while (!error && (got = cursor_peek(&cursor, &record)) > 0) {
		error = walk_take(&walk, &record);
		cursor_advance(&cursor);
	}
	cursor_end(&cursor);
	if (!error && got >= 0)
		error = attribute_settle(&walk);
	return error ? error : got;
}
