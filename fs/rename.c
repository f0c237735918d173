#include "fs/names.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/flags.h"

/* Deeper trees than this do not exist (PATH_MAX does not bound them, but patience does): a loop on damaged media. */
#define RENAME_DEPTH_MAX (1u << 20)

struct rename_side {
	struct inode *dir;
	const char *name;
	bool is_there;
	struct dir_entry entry;
	struct inode *inode;
};

static bool side_is_dir(const struct rename_side *side)
{
	return side->is_there && S_ISDIR(side->inode->record.mode);
}

static int rename_get_side(struct names_op *op, inum_t dir, const char *name, struct rename_side *side)
{
	int error = names_get_dir(op, dir, &side->dir);

	side->name = name;
	if (!error)
		error = dir_lookup_entry(op->fs, dir, name, &side->entry);
	if (error)
		return error;
	error = names_get(op, side->entry.record.ino, &side->inode);
	side->is_there = !error;
	return error == -ENOENT ? -EUCLEAN : error;
}

/* Is `ino` the directory `dir` or above it? */
static int rename_is_above(struct names_op *op, inum_t ino, struct inode *dir, bool *above)
{
	inum_t at = dir->ino;

	for (unsigned depth = 0; depth < RENAME_DEPTH_MAX; depth++) {
		struct inode *inode;
		int error;

		*above = at == ino;
		if (*above || at == FS_ROOT_INO)
			return 0;
		error = inode_get_tx(op->fs, op->tx, at, &inode);
		if (error)
			return error == -ENOENT ? -EUCLEAN : error;
		at = inode->record.parent;
		inode_put(inode);
	}
	return -EUCLEAN;
}

/* A directory may not move below itself. */
static int rename_verify_loop(struct names_op *op, const struct rename_side *side, struct inode *into)
{
	bool above = false;
	int error;

	if (!side_is_dir(side) || side->dir == into)
		return 0;
	if (tx_is_beside(op->tx))
		return -EAGAIN; /* two that move directories side by side would each find no loop, and make one together */
	error = rename_is_above(op, side->inode->ino, into, &above);
	if (error)
		return error;
	return above ? -EINVAL : 0;
}

static int rename_verify_flags(const struct rename_side *from, const struct rename_side *to, unsigned flags)
{
	int error = flags_verify_removal(from->dir, from->inode);

	if (!error && to->is_there)
		error = flags_verify_removal(to->dir, to->inode);
	if (!error)
		error = flags_verify_entry(to->dir, from->inode);
	if (!error && to->is_there && (flags & RENAME_EXCHANGE))
		error = flags_verify_entry(from->dir, to->inode);
	return error;
}

static int rename_verify(struct names_op *op, const struct rename_side *from, const struct rename_side *to, unsigned flags)
{
	int error;

	if (to->is_there && (flags & RENAME_NOREPLACE))
		return -EEXIST;
	if (!to->is_there && (flags & RENAME_EXCHANGE))
		return -ENOENT;
	error = rename_verify_flags(from, to, flags);
	if (error)
		return error;
	error = rename_verify_loop(op, from, to->dir);
	if (!error && (flags & RENAME_EXCHANGE))
		error = rename_verify_loop(op, to, from->dir);
	if (error || !to->is_there || (flags & RENAME_EXCHANGE))
		return error;
	if (side_is_dir(from) && !side_is_dir(to))
		return -ENOTDIR;
	if (!side_is_dir(from) && side_is_dir(to))
		return -EISDIR;
	return 0;
}

/* The moved inode: ctime, and the parent of a directory. */
static int rename_stamp(struct names_op *op, struct inode *inode, const struct inode *dir)
{
	struct inode_record record;

	inode_copy_record(inode, &record);
	if (S_ISDIR(record.mode))
		record.parent = dir->ino;
	names_stamp(op, &record, false);
	return inode_update(inode, op->tx, &record);
}

static int rename_put_entry(struct names_op *op, const struct rename_side *from, const struct rename_side *to)
{
	struct dir_entry entry = from->entry;

	if (to->is_there)
		return dir_replace_entry(op->fs, op->tx, to->dir->ino, &to->entry, from->inode);
	memset(entry.record.name, 0, sizeof(entry.record.name));
	entry.record.name_length = (uint8_t)strlen(to->name);
	memcpy(entry.record.name, to->name, entry.record.name_length);
	return dir_insert_entry(op->fs, op->tx, to->dir->ino, &entry);
}

/* The old name becomes that of a device 0:0, which tells a union of filesystems that it is gone. */
static int rename_leave_whiteout(struct names_op *op, const struct fs_who *who, const struct rename_side *from)
{
	struct inode_record record;
	struct inode *whiteout;
	int error;

	names_init_record(op, who, from->dir, S_IFCHR, &record);
	error = names_create_inode(op, &record, &whiteout);
	return error ? error : dir_replace_entry(op->fs, op->tx, from->dir->ino, &from->entry, whiteout);
}

static int rename_move(struct names_op *op, const struct fs_who *who, const struct rename_side *from, const struct rename_side *to, unsigned flags)
{
	int moved_dir = side_is_dir(from), replaced_dir = side_is_dir(to);
	bool whiteout = flags & RENAME_WHITEOUT;
	int error = to->is_there ? names_drop_victim(op, to->inode) : 0;

	if (!error && whiteout)
		error = rename_leave_whiteout(op, who, from);
	else if (!error)
		error = dir_remove_entry(op->fs, op->tx, from->dir->ino, &from->entry);
	if (!error)
		error = rename_put_entry(op, from, to);
	if (!error)
		error = names_update_dir(op, from->dir, whiteout - 1, -moved_dir);
	if (!error)
		error = names_update_dir(op, to->dir, to->is_there ? 0 : 1, moved_dir - replaced_dir);
	return error ? error : rename_stamp(op, from->inode, to->dir);
}

static int rename_exchange(struct names_op *op, const struct rename_side *from, const struct rename_side *to)
{
	int from_dir = side_is_dir(from), to_dir = side_is_dir(to);
	int error = dir_replace_entry(op->fs, op->tx, from->dir->ino, &from->entry, to->inode);

	if (!error)
		error = dir_replace_entry(op->fs, op->tx, to->dir->ino, &to->entry, from->inode);
	if (!error)
		error = names_update_dir(op, from->dir, 0, to_dir - from_dir);
	if (!error)
		error = names_update_dir(op, to->dir, 0, from_dir - to_dir);
	if (!error)
		error = rename_stamp(op, from->inode, to->dir);
	return error ? error : rename_stamp(op, to->inode, from->dir);
}

static int rename_in_tx(struct names_op *op, const struct fs_who *who, struct rename_side *from, struct rename_side *to, unsigned flags)
{
	if (to->is_there && from->inode == to->inode) /* one inode under both names: nothing to do */
		return flags & RENAME_NOREPLACE ? -EEXIST : 0;
	int error = rename_verify(op, from, to, flags);

	if (error)
		return error;
	return flags & RENAME_EXCHANGE ? rename_exchange(op, from, to) : rename_move(op, who, from, to, flags);
}

static int rename_verify_args(const char *name, const char *new_name, unsigned flags)
{
	int error = dir_verify_name(name);

	if (!error)
		error = dir_verify_name(new_name);
	if (error == -EEXIST)
		return -EBUSY; /* the dots */
	if (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT))
		return -EINVAL;
	if ((flags & RENAME_EXCHANGE) && flags != RENAME_EXCHANGE)
		return -EINVAL;
	return error;
}

struct rename_args {
	const struct fs_who *who;
	inum_t dir, new_dir;
	const char *name, *new_name;
	unsigned flags;
};

static int rename_change(struct names_op *op, void *arg)
{
	const struct rename_args *args = arg;
	struct rename_side from = {0}, to = {0};
	int error = rename_get_side(op, args->dir, args->name, &from);

	if (!error) {
		error = rename_get_side(op, args->new_dir, args->new_name, &to);
		if (error == -ENOENT && to.dir && to.dir->record.nlink)
			error = 0; /* no such name yet: as it should be */
	}
	return error ? error : rename_in_tx(op, args->who, &from, &to, args->flags);
}

int fs_rename(struct fs *fs, const struct fs_who *who, inum_t dir, const char *name, inum_t new_dir, const char *new_name, unsigned flags)
{
	struct rename_args args = {who, dir, new_dir, name, new_name, flags};
	int error = rename_verify_args(name, new_name, flags);

	return error ? error : names_run(fs, TX_NORMAL, dir, new_dir, rename_change, &args);
}
