#include "fs/names.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/acl.h"
#include "fs/flags.h"
#include "fs/orphan.h"
#include "fs/table.h"

/* --- what operations have in common ------------------------------------------------------------------------------------------ */

void names_stamp(const struct names_op *op, struct inode_record *record, bool modified)
{
	record->ctime.sec = (int64_t)(op->now_ns / 1000000000u);
	record->ctime.nsec = (uint32_t)(op->now_ns % 1000000000u);
	if (modified)
		record->mtime = record->ctime;
	record->change++;
}

int names_update_dir(struct names_op *op, struct inode *dir, int entries, int subdirs)
{
	struct inode_record record = dir->record;

	if (subdirs > 0 && record.nlink == FS_LINK_MAX)
		return -EMLINK;
	record.entries += (uint64_t)(int64_t)entries;
	record.nlink += (uint32_t)subdirs;
	names_stamp(op, &record, true);
	return inode_update(dir, op->tx, &record);
}

int names_change_links(struct names_op *op, struct inode *inode, int delta)
{
	struct inode_record record;
	int error = 0;

	inode_copy_record(inode, &record);
	if (delta > 0 && record.nlink == FS_LINK_MAX)
		return -EMLINK;
	if (delta < 0 && record.nlink < (uint32_t)-delta)
		return -EUCLEAN;
	if (delta > 0 && record.nlink == 0)
		error = orphan_remove(op->fs, op->tx, inode->ino);
	record.nlink += (uint32_t)delta;
	if (!error && record.nlink == 0)
		error = orphan_add(op->fs, op->tx, inode->ino);
	names_stamp(op, &record, false);
	return error ? error : inode_update(inode, op->tx, &record);
}

int names_drop_victim(struct names_op *op, struct inode *victim)
{
	int error;

	if (!S_ISDIR(victim->record.mode))
		return names_change_links(op, victim, -1);
	if (victim->record.entries)
		return -ENOTEMPTY;
	error = dir_remove_markers(op->fs, op->tx, victim->ino);
	return error ? error : names_change_links(op, victim, -(int)victim->record.nlink);
}

/* --- new inodes ----------------------------------------------------------------------------------------------------------- */

void names_init_record(const struct names_op *op, const struct fs_who *who, const struct inode *dir, mode_t mode,
		       struct inode_record *record)
{
	*record = (struct inode_record){
		.mode = mode,
		.nlink = S_ISDIR(mode) ? 2 : 1,
		.uid = who->uid,
		.gid = who->gid,
		/* Numbers are never reused; this tells apart filesystems made anew on the same device. */
		.generation = (uint32_t)(op->now_ns / 1000000000u) | 1,
		.parent = S_ISDIR(mode) ? dir->ino : 0,
	};
	if (dir->record.mode & S_ISGID) {
		record->gid = dir->record.gid;
		if (S_ISDIR(mode))
			record->mode |= S_ISGID;
	}
	flags_inherit(record, &dir->record);
	names_stamp(op, record, true);
	record->atime = record->btime = record->ctime;
}

static void names_fill_entry(struct dir_entry *entry, const char *name, const struct inode *inode)
{
	entry->record = (struct dirent_record){
		.ino = inode->ino,
		.generation = inode->record.generation,
		.type = dir_type_of_mode(inode->record.mode),
		.name_length = (uint8_t)strlen(name),
	};
	memcpy(entry->record.name, name, entry->record.name_length);
}

static int names_add_entry(struct names_op *op, struct inode *dir, const char *name, const struct inode *inode)
{
	struct dir_entry entry;
	int error;

	names_fill_entry(&entry, name, inode);
	error = dir_insert_entry(op->fs, op->tx, dir->ino, &entry);
	if (error)
		return error;
	return names_update_dir(op, dir, 1, S_ISDIR(inode->record.mode) ? 1 : 0);
}

int names_add_new(struct names_op *op, struct inode *dir, const char *name, const struct inode_record *record, struct inode **out)
{
	int error = names_create_inode(op, record, out);

	if (error)
		return error;
	op->result = *out;
	return names_add_entry(op, dir, name, *out);
}

static bool mode_is_creatable(mode_t mode)
{
	return S_ISREG(mode) || S_ISDIR(mode) || S_ISFIFO(mode) || S_ISSOCK(mode) || S_ISCHR(mode) || S_ISBLK(mode);
}

struct create_args {
	const struct fs_who *who;
	inum_t dir;
	const char *name;
	mode_t mode;
	dev_t rdev;
	struct fs_attr *out;
};

static int create_change(struct names_op *op, void *arg)
{
	const struct create_args *args = arg;
	struct inode_record record;
	struct inode *dir, *inode;
	struct acl_birth birth;
	mode_t mode = args->mode;
	int error = names_get_dir(op, args->dir, &dir);

	op->attr = args->out;
	if (!error)
		error = acl_inherit(dir, op->tx, args->who->umask, &mode, &birth);
	if (!error) {
		names_init_record(op, args->who, dir, mode, &record);
		if (S_ISCHR(mode) || S_ISBLK(mode))
			record.rdev = args->rdev;
		error = names_add_new(op, dir, args->name, &record, &inode);
	}
	return error ? error : acl_give(inode, op->tx, &birth);
}

int fs_create(struct fs *fs, const struct fs_who *who, inum_t dir_ino, const char *name, mode_t mode, dev_t rdev,
	      struct fs_attr *out)
{
	struct create_args args = {who, dir_ino, name, mode, rdev, out};
	int error = mode_is_creatable(mode) ? dir_verify_name(name) : -EINVAL;

	return error ? error : names_run(fs, TX_NORMAL, dir_ino, dir_ino, create_change, &args);
}

int fs_tmpfile(struct fs *fs, const struct fs_who *who, inum_t dir_ino, mode_t mode, struct fs_attr *out)
{
	struct inode_record record;
	struct inode *dir, *inode;
	struct acl_birth birth;
	struct names_op op;
	int error = S_ISREG(mode) ? names_begin(fs, TX_NORMAL, &op) : -EINVAL;

	if (error)
		return error;
	op.attr = out;
	error = names_get_dir(&op, dir_ino, &dir);
	if (!error)
		error = acl_inherit(dir, op.tx, who->umask, &mode, &birth);
	if (!error) {
		names_init_record(&op, who, dir, mode, &record);
		record.nlink = 0;
		error = names_create_inode(&op, &record, &inode);
	}
	if (!error) {
		op.result = inode;
		error = orphan_add(fs, op.tx, inode->ino);
	}
	return names_end(&op, error ? error : acl_give(inode, op.tx, &birth));
}

/* --- lookup, link, unlink ------------------------------------------------------------------------------------------------- */

/* "." of anything that is there, ".." of a directory: what name_to_handle_at() and re-export need. */
static int lookup_dots(struct fs *fs, inum_t ino, const char *name, inum_t *out)
{
	struct inode *inode;
	struct fs_attr attr;
	int error = inode_get_locked(fs, ino, &inode);

	if (error)
		return error;
	inode_attr(inode, &attr);
	if (name[1] == '\0' && attr.record.nlink == 0)
		error = -ENOENT; /* whoever has it open has it in the kernel's cache and does not ask */
	else if (name[1] == '\0')
		*out = ino;
	else if (S_ISDIR(inode->type))
		*out = attr.record.parent ? attr.record.parent : FS_ROOT_INO;
	else
		error = -ENOTDIR;
	inode_put(inode);
	return error;
}

static int lookup_name(struct fs *fs, inum_t dir_ino, const char *name, inum_t *out)
{
	struct dir_entry entry;
	struct inode *dir;
	int error = inode_get_locked(fs, dir_ino, &dir);

	if (error)
		return error;
	error = S_ISDIR(dir->type) ? dir_lookup_entry(fs, dir_ino, name, &entry) : -ENOTDIR;
	if (!error)
		*out = entry.record.ino;
	inode_put(dir);
	return error;
}

int fs_lookup(struct fs *fs, inum_t dir, const char *name, struct fs_attr *out)
{
	struct inode *inode;
	int error = dir_verify_name(name);
	bool dots = error == -EEXIST;
	inum_t ino;

	if (error && !dots)
		return error;
	journal_read_begin(fs->journal);
	error = dots ? lookup_dots(fs, dir, name, &ino) : lookup_name(fs, dir, name, &ino);
	if (!error) {
		error = inode_get_locked(fs, ino, &inode);
		if (error == -ENOENT && !dots)
			error = -EUCLEAN; /* a name without an inode */
	}
	journal_read_end(fs->journal);
	if (error)
		return error;
	inode_add_lookup(inode);
	inode_attr(inode, out);
	inode_put(inode);
	return 0;
}

struct link_args {
	inum_t ino, dir;
	const char *name;
	struct fs_attr *out;
};

static int link_change(struct names_op *op, void *arg)
{
	const struct link_args *args = arg;
	struct inode *dir, *inode;
	int error = names_get_dir(op, args->dir, &dir);

	op->attr = args->out;
	if (!error)
		error = names_get(op, args->ino, &inode);
	if (!error && S_ISDIR(inode->record.mode))
		error = -EPERM;
	if (!error)
		error = flags_verify_change(&inode->record);
	if (!error)
		error = flags_verify_entry(dir, inode);
	if (!error && inode_is_reclaimed(inode))
		error = -ENOENT; /* its blocks are going already */
	if (!error)
		error = names_change_links(op, inode, 1);
	if (!error)
		error = names_add_entry(op, dir, args->name, inode);
	op->result = error ? NULL : inode;
	return error;
}

int fs_link(struct fs *fs, inum_t ino, inum_t dir, const char *name, struct fs_attr *out)
{
	struct link_args args = {ino, dir, name, out};
	int error = dir_verify_name(name);

	return error ? error : names_run(fs, TX_NORMAL, dir, dir, link_change, &args);
}

struct remove_args {
	inum_t dir;
	const char *name;
	bool want_dir;
};

static int remove_change(struct names_op *op, void *arg)
{
	const struct remove_args *args = arg;
	struct inode *dir, *victim;
	struct dir_entry entry;
	int error = names_get_dir(op, args->dir, &dir);

	if (!error)
		error = dir_lookup_entry(op->fs, args->dir, args->name, &entry);
	if (error)
		return error;
	error = names_get(op, entry.record.ino, &victim);
	if (error)
		return error == -ENOENT ? -EUCLEAN : error;
	error = flags_verify_removal(dir, victim);
	if (error)
		return error;
	if (S_ISDIR(victim->record.mode) != args->want_dir)
		return args->want_dir ? -ENOTDIR : -EISDIR;
	error = names_drop_victim(op, victim);
	if (!error)
		error = dir_remove_entry(op->fs, op->tx, args->dir, &entry);
	return error ? error : names_update_dir(op, dir, -1, args->want_dir ? -1 : 0);
}

int fs_unlink(struct fs *fs, inum_t dir, const char *name)
{
	struct remove_args args = {dir, name, false};
	int error = dir_verify_name(name);

	if (error)
		return error == -EEXIST ? -EISDIR : error;
	return names_run(fs, TX_RESERVE, dir, dir, remove_change, &args);
}

int fs_rmdir(struct fs *fs, inum_t dir, const char *name)
{
	struct remove_args args = {dir, name, true};
	int error = dir_verify_name(name);

	if (error == -EEXIST)
		return name[1] ? -ENOTEMPTY : -EINVAL;
	return error ? error : names_run(fs, TX_RESERVE, dir, dir, remove_change, &args);
}
