#include "fs/dir.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "fs/table.h"

#define READDIR_BATCH 64

/*
 * Entries are collected under the shared lock, in the order of their cookies, and told without it. A cookie never moves, so whatever
 * comes and goes between two batches, an entry that stays is met once.
 */
struct readdir_batch {
	struct dir_entry entries[READDIR_BATCH];
	struct inode *inodes[READDIR_BATCH]; /* with_attr; NULL: cannot be read */
	size_t count;
};

static int readdir_collect(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	struct readdir_batch *batch = arg;
	struct dir_entry *entry = &batch->entries[batch->count];

	if (format_dirent_unpack(&entry->record, value, length))
		return -EUCLEAN;
	if (dir_entry_is_marker(&entry->record))
		return 0;
	entry->cookie = key->word[1];
	batch->inodes[batch->count++] = NULL;
	return batch->count == READDIR_BATCH;
}

static int readdir_fill(struct fs *fs, inum_t dir, uint64_t after, bool with_attr, struct readdir_batch *batch)
{
	struct btree_key first = {{dir, after + 1}}, last = {{dir, UINT64_MAX}};
	int error;

	batch->count = 0;
	journal_read_begin(fs->journal);
	error = btree_walk(&fs->dirents, &first, &last, readdir_collect, batch);
	for (size_t i = 0; with_attr && i < batch->count; i++)
		if (inode_get_locked(fs, batch->entries[i].record.ino, &batch->inodes[i]))
			batch->inodes[i] = NULL;
	journal_read_end(fs->journal);
	return error < 0 ? error : 0;
}

static int readdir_tell_one(const struct dir_entry *entry, struct inode *inode, fs_dirent_fn *visit, void *arg)
{
	const struct dirent_record *record = &entry->record;
	struct fs_attr attr;
	int stop;

	if (!inode)
		return visit(arg, record->name, record->ino, record->type, entry->cookie, NULL);
	inode_attr(inode, &attr);
	/* Before the visitor may send it on: the kernel could forget it at once. */
	inode_add_lookup(inode);
	stop = visit(arg, record->name, record->ino, record->type, entry->cookie, &attr);
	if (stop)
		fs_forget(inode->fs, inode->ino, 1);
	return stop;
}

static int readdir_tell(struct readdir_batch *batch, fs_dirent_fn *visit, void *arg)
{
	int stop = 0;

	for (size_t i = 0; i < batch->count; i++) {
		if (!stop)
			stop = readdir_tell_one(&batch->entries[i], batch->inodes[i], visit, arg);
		if (batch->inodes[i])
			inode_put(batch->inodes[i]);
	}
	return stop;
}

static int readdir_dots(const struct fs_attr *dir, uint64_t cookie, fs_dirent_fn *visit, void *arg)
{
	int stop = 0;

	if (cookie < DIR_COOKIE_DOT)
		stop = visit(arg, ".", dir->ino, dir_type_of_mode(S_IFDIR), DIR_COOKIE_DOT, NULL);
	if (!stop && cookie < DIR_COOKIE_DOTDOT)
		stop = visit(arg, "..", dir->record.parent ? dir->record.parent : FS_ROOT_INO,
			     dir_type_of_mode(S_IFDIR), DIR_COOKIE_DOTDOT, NULL);
	return stop;
}

static int readdir_entries(struct fs *fs, inum_t dir, uint64_t cookie, bool with_attr, fs_dirent_fn *visit, void *arg)
{
	struct readdir_batch *batch = malloc(sizeof(*batch));
	int error;

	if (!batch)
		return -ENOMEM;
	do {
		error = readdir_fill(fs, dir, cookie, with_attr, batch);
		if (!error || batch->count)
			error = readdir_tell(batch, visit, arg) ?: error;
		if (batch->count)
			cookie = batch->entries[batch->count - 1].cookie;
	} while (!error && batch->count == READDIR_BATCH);
	free(batch);
	return error;
}

int fs_readdir(struct fs *fs, inum_t dir, uint64_t cookie, bool with_attr, fs_dirent_fn *visit, void *arg)
{
	struct inode *inode;
	struct fs_attr attr;
	int error = inode_get(fs, dir, &inode);

	if (error)
		return error;
	if (!atomic_load_explicit(&inode->is_listed, memory_order_relaxed))
		atomic_store(&inode->is_listed, true);
	inode_attr(inode, &attr);
	error = -ENOTDIR;
	if (S_ISDIR(attr.record.mode))
		error = readdir_dots(&attr, cookie, visit, arg);
	if (!error && cookie < INT64_MAX)
		error = readdir_entries(fs, dir, max_u64(cookie, DIR_COOKIE_DOTDOT), with_attr, visit, arg);
	if (error >= 0)
		inode_touch_access(inode);
	inode_put(inode);
	return error < 0 ? error : 0;
}

bool fs_listing_ends(struct fs *fs, inum_t dir)
{
	struct inode *inode = inode_find_ref(fs, dir);
	bool was_listed;

	if (!inode)
		return true;
	was_listed = atomic_load_explicit(&inode->is_listed, memory_order_relaxed) && atomic_exchange(&inode->is_listed, false);
	inode_put(inode);
	return was_listed;
}
