#include "fs/names.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

/* A target lies in the xattrs tree at hash 0, in parts. */
#define SYMLINK_PART_BYTES 1000

static int symlink_store(struct fs *fs, struct tx *tx, inum_t ino, const char *target, size_t length)
{
	int error = 0;

	for (size_t at = 0, part = 0; at < length && !error; at += SYMLINK_PART_BYTES, part++) {
		struct btree_key key = {{ino, 0, part}};
		size_t bytes = min_u64(SYMLINK_PART_BYTES, length - at);

		error = btree_insert(&fs->xattrs, tx, &key, target + at, bytes);
	}
	return error;
}

struct symlink_args {
	const struct fs_who *who;
	inum_t dir;
	const char *name, *target;
	size_t length;
	struct fs_attr *out;
};

static int symlink_change(struct names_op *op, void *arg)
{
	const struct symlink_args *args = arg;
	struct inode_record record;
	struct inode *dir, *inode;
	int error = names_get_dir(op, args->dir, &dir);

	op->attr = args->out;
	if (error)
		return error;
	names_init_record(op, args->who, dir, S_IFLNK | 0777, &record);
	record.size_bytes = args->length;
	error = names_add_new(op, dir, args->name, &record, &inode);
	return error ? error : symlink_store(op->fs, op->tx, inode->ino, args->target, args->length);
}

int fs_symlink(struct fs *fs, const struct fs_who *who, inum_t dir, const char *name, const char *target, struct fs_attr *out)
{
	struct symlink_args args = {who, dir, name, target, strnlen(target, FS_SYMLINK_MAX + 1), out};
	int error = dir_verify_name(name);

	if (args.length > FS_SYMLINK_MAX)
		return -ENAMETOOLONG;
	if (!args.length)
		return -ENOENT;
	return error ? error : names_run(fs, TX_NORMAL, dir, dir, symlink_change, &args);
}

struct symlink_read {
	char *buffer;
	size_t size, done;
	uint64_t next_part;
};

static int symlink_visit(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	struct symlink_read *read = arg;
	size_t bytes = min_u64(length, read->size - 1 - read->done);

	if (key->word[2] != read->next_part++)
		return -EUCLEAN;
	memcpy(read->buffer + read->done, value, bytes);
	read->done += bytes;
	return 0;
}

static int symlink_load(struct fs *fs, const struct fs_attr *attr, char *buffer, size_t size)
{
	struct btree_key first = {{attr->ino, 0, 0}}, last = {{attr->ino, 0, UINT64_MAX}};
	struct symlink_read read = {.buffer = buffer, .size = size};
	int error;

	journal_read_begin(fs->journal);
	error = btree_walk(&fs->xattrs, &first, &last, symlink_visit, &read);
	journal_read_end(fs->journal);
	if (error)
		return error;
	buffer[read.done] = '\0';
	return read.done == min_u64(attr->record.size_bytes, size - 1) ? 0 : -EUCLEAN;
}

int fs_readlink(struct fs *fs, inum_t ino, char *buffer, size_t size)
{
	struct inode *inode;
	struct fs_attr attr;
	int error = size ? inode_get(fs, ino, &inode) : -EINVAL;

	if (error)
		return error;
	inode_attr(inode, &attr);
	error = S_ISLNK(attr.record.mode) ? symlink_load(fs, &attr, buffer, size) : -EINVAL;
	if (!error)
		inode_touch_access(inode);
	inode_put(inode);
	return error;
}
