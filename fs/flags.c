/* chattr(1): flags, project id and extent-size hint of an inode, and what they mean to everything else. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "fs/flags.h"

#include "fs/change.h"
#include "fs/data.h"

#define FLAGS_OF_ROOT (INODE_IMMUTABLE | INODE_APPEND)
#define FLAGS_OF_FILES (INODE_FS_FLAGS & ~(INODE_DIRSYNC | INODE_PROJINHERIT))
#define FLAGS_OF_OTHERS (INODE_NODUMP | INODE_NOATIME)
#define FLAGS_INHERITED (INODE_SYNC | INODE_NODUMP | INODE_NOATIME | INODE_DIRSYNC | INODE_PROJINHERIT) /* as ext4 */

/* --- what they forbid ----------------------------------------------------------------------------------------------------- */

int flags_verify_write(struct inode *inode, uint64_t pos)
{
	uint64_t flags = inode_flags(inode);

	return (flags & INODE_IMMUTABLE) || ((flags & INODE_APPEND) && pos < file_size(inode)) ? -EPERM : 0;
}

int flags_verify_replace(struct inode *inode)
{
	return inode_flags(inode) & (INODE_IMMUTABLE | INODE_APPEND) ? -EPERM : 0;
}

int flags_verify_removal(const struct inode *dir, const struct inode *inode)
{
	return dir->record.flags & INODE_APPEND ? -EPERM : flags_verify_change(&inode->record);
}

int flags_verify_entry(const struct inode *dir, const struct inode *inode)
{
	return (dir->record.flags & INODE_PROJINHERIT) && dir->record.project != inode->record.project ? -EXDEV : 0;
}

int fs_verify_open(struct fs *fs, inum_t ino, int open_flags)
{
	bool writes = (open_flags & O_ACCMODE) != O_RDONLY;
	struct fs_attr attr;
	int error;

	if (fs_is_stopped(fs))
		return -EIO;
	if (!writes && !(open_flags & O_TRUNC))
		return 0;
	error = fs_getattr(fs, ino, &attr);
	if (error)
		return error;
	if (attr.record.flags & INODE_IMMUTABLE)
		return -EPERM;
	return (attr.record.flags & INODE_APPEND) && (!(open_flags & O_APPEND) || (open_flags & O_TRUNC)) ? -EPERM : 0;
}

/* --- what they ask for ---------------------------------------------------------------------------------------------------- */

static uint64_t flags_allowed(uint32_t mode)
{
	if (S_ISDIR(mode))
		return INODE_FS_FLAGS;
	return S_ISREG(mode) ? FLAGS_OF_FILES : FLAGS_OF_OTHERS;
}

void flags_inherit(struct inode_record *record, const struct inode_record *dir)
{
	record->flags |= dir->flags & FLAGS_INHERITED & flags_allowed(record->mode);
	record->project = dir->flags & INODE_PROJINHERIT ? dir->project : 0;
	if (S_ISREG(record->mode) || S_ISDIR(record->mode))
		record->extent_hint = dir->extent_hint;
}

int flags_settle(struct inode *inode, int error)
{
	int settled;

	if (!(inode_flags(inode) & INODE_SYNC) || (fs_is_readonly(inode->fs) && !fs_is_stopped(inode->fs)))
		return error;
	settled = inode_flush_times(inode);
	if (!settled)
		settled = journal_sync(inode->fs->journal);
	return error ? error : settled;
}

/* --- setting them --------------------------------------------------------------------------------------------------------- */

static int flags_verify_values(const struct inode_record *now, unsigned set, const struct inode_record *values)
{
	if ((set & FS_SET_FLAGS) && (values->flags & ~flags_allowed(now->mode)))
		return -EOPNOTSUPP;
	if ((set & FS_SET_EXTENT_HINT) && values->extent_hint && !S_ISREG(now->mode) && !S_ISDIR(now->mode))
		return -EINVAL;
	return 0;
}

static int flags_verify_who(const struct inode_record *now, const struct inode_record *then, const struct fs_who *who)
{
	bool fixed = now->flags & then->flags & INODE_IMMUTABLE;

	if (who->uid != 0 && who->uid != now->uid)
		return -EPERM;
	if (who->uid != 0 && ((((now->flags ^ then->flags) & FLAGS_OF_ROOT)) || now->project != then->project))
		return -EPERM;
	/* What stays immutable changes in nothing else. */
	if (fixed && (now->flags != then->flags || now->project != then->project || now->extent_hint != then->extent_hint))
		return -EPERM;
	return 0;
}

static void flags_apply(struct inode_record *record, unsigned set, const struct inode_record *values)
{
	uint64_t now = time_now_ns();

	if (set & FS_SET_FLAGS)
		record->flags = (record->flags & ~(uint64_t)INODE_FS_FLAGS) | values->flags;
	if (set & FS_SET_PROJECT)
		record->project = values->project;
	if (set & FS_SET_EXTENT_HINT)
		record->extent_hint = values->extent_hint;
	record->ctime.sec = (int64_t)(now / 1000000000u);
	record->ctime.nsec = (uint32_t)(now % 1000000000u);
	record->change++;
}

struct flags_change {
	struct inode *inode;
	const struct fs_who *who;
	unsigned set;
	const struct inode_record *values;
};

static int flags_store(struct tx *tx, void *arg)
{
	const struct flags_change *change = arg;
	struct inode_record now, then;
	int error;

	inode_copy_record(change->inode, &now);
	then = now;
	error = flags_verify_values(&now, change->set, change->values);
	flags_apply(&then, change->set, change->values);
	if (!error)
		error = flags_verify_who(&now, &then, change->who);
	return error ? error : inode_update(change->inode, tx, &then);
}

int fs_set_flags(struct fs *fs, const struct fs_who *who, inum_t ino, unsigned set, const struct inode_record *values)
{
	struct flags_change change = {.who = who, .set = set, .values = values};
	struct inode *inode;
	int error = inode_get(fs, ino, &inode);

	if (error)
		return error;
	change.inode = inode;
	/* Whoever writes has either ended, or begins knowing the new flags. */
	lock_write(&inode->data_lock, LOCK_DATA);
	error = change_run(fs, TX_RESERVE, flags_store, &change);
	pthread_rwlock_unlock(&inode->data_lock);
	error = flags_settle(inode, error);
	inode_put(inode);
	return error;
}
